package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import org.junit.jupiter.api.Test;

/** The data set in the jar is what its README says. */
class EmbeddedSubsetTest {
  /** SHA-256 over all pixels, then all labels, computed with NumPy from the full Fashion-MNIST. */
  private static final String TRAIN =
      "73194a0c06a93deab58b95e00e618cc5c80fb5c9a84df26bbc429eeb3507846a";

  private static final String TEST =
      "8e8b02fc2db0ff9ed2d481ff30f8bd7cc5c88205cb131d7f4a0c19448f6957c9";

  @Test
  void isBalancedAndUnchanged() throws Exception {
    Datasets data = Datasets.open("embedded");
    check(data.train(), Split.TRAIN, 1000, TRAIN);
    check(data.test(), Split.TEST, 200, TEST);
    assertEquals("Ankle boot", data.train().classes().get(9));
    assertEquals(0, data.notes().size());
  }

  private static void check(ImageDataset data, Split split, int perClass, String checksum)
      throws Exception {
    assertEquals("embedded", data.name());
    assertEquals(split, data.split());
    assertEquals(10 * perClass, data.size());
    assertEquals(28, data.height());
    assertEquals(28, data.width());
    assertEquals(1, data.channels());
    assertEquals(10, data.classes().size());
    int[] count = new int[10];
    byte[] labels = new byte[data.size()];
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    for (int i = 0; i < data.size(); i++) {
      count[data.label(i)]++;
      labels[i] = (byte) data.label(i);
      digest.update(data.image(i));
    }
    digest.update(labels);
    int[] balanced = new int[10];
    Arrays.fill(balanced, perClass);
    assertArrayEquals(balanced, count);
    assertEquals(checksum, HexFormat.of().formatHex(digest.digest()));
  }
}
