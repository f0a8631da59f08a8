package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class ImageDatasetTest {
  /** 1x1 gray images whose value is their index. */
  private static ImageDataset numbered(List<String> classes, int... labels) {
    byte[][] images = new byte[labels.length][];
    for (int i = 0; i < images.length; i++) {
      images[i] = new byte[] {(byte) i};
    }
    return ImageDataset.of("set", Split.TRAIN, 1, 1, 1, classes, images, labels);
  }

  private static List<Integer> values(ImageDataset data) {
    return IntStream.range(0, data.size()).mapToObj(i -> (int) data.image(i)[0]).toList();
  }

  private static List<Integer> labels(ImageDataset data) {
    return IntStream.range(0, data.size()).mapToObj(data::label).toList();
  }

  @Test
  void classesAreMatchedByName() {
    ImageDataset data = numbered(List.of("Dog", "cat", "owl"), 0, 1, 2, 0);
    ImageDataset matched = data.withClasses(List.of("cat", "Dog", "fox", "owl"));
    assertEquals(List.of(1, 0, 3, 1), labels(matched));
    assertEquals(List.of(0, 1, 2, 3), values(matched));
    assertEquals(List.of("cat", "Dog", "fox", "owl"), matched.classes());
    assertEquals(2, matched.notes().size());
    assertTrue(
        matched.notes().get(0).contains("'Dog' 0 -> 1, 'cat' 1 -> 0, 'owl' 2 -> 3"),
        matched.notes().get(0));
    assertTrue(
        matched.notes().get(1).contains("3 of the 4 classes; without images are fox"),
        matched.notes().get(1));
    assertSame(data, data.withClasses(List.of("Dog", "cat", "owl")));
    assertEquals(List.of(0, 1, 2, 0), labels(data));
  }

  @Test
  void unknownClassesAreListed() {
    ImageDataset data = numbered(List.of("kitten", "dog", "p\u001big"), 0, 1, 2);
    String message =
        assertThrows(
                DataException.OtherClasses.class, () -> data.withClasses(List.of("cat", "dog")))
            .getMessage();
    assertTrue(message.contains("2 are not among the 2 wanted: kitten, p\\u001big"), message);
    assertTrue(message.contains("not here: cat"), message);
    assertThrows(
        IllegalArgumentException.class,
        () -> data.withClasses(List.of("kitten", "dog", "p\u001big", "dog")));
  }

  @Test
  void aPartOfEachClassIsHeldOut() {
    int[] label = new int[30];
    Arrays.fill(label, 20, 30, 2); // no image of class 1
    Datasets parts = numbered(List.of("a", "b", "c"), label).split(0.2, 5);
    assertEquals(Split.TRAIN, parts.train().split());
    assertEquals(Split.TEST, parts.test().split());
    assertEquals(6, parts.test().size());
    assertEquals(4, labels(parts.test()).stream().filter(l -> l == 0).count());
    List<Integer> all = new ArrayList<>(values(parts.train()));
    all.addAll(values(parts.test()));
    assertEquals(30, all.stream().distinct().count());
    for (ImageDataset part : List.of(parts.train(), parts.test())) {
      assertEquals(values(part).stream().sorted().toList(), values(part));
      for (int i = 0; i < part.size(); i++) {
        assertEquals(part.image(i)[0] < 20 ? 0 : 2, part.label(i));
      }
    }
    ImageDataset whole = numbered(List.of("a", "b", "c"), label);
    assertEquals(values(parts.test()), values(whole.split(0.2, 5).test()));
    assertNotEquals(values(parts.test()), values(whole.split(0.2, 6).test()));
    assertTrue(parts.notes().getFirst().contains("seed 5"), parts.notes().getFirst());
  }

  @Test
  void aSplitThatCannotBeIsRefused() {
    ImageDataset data = numbered(List.of("a", "b"), 0, 0, 1);
    String message =
        assertThrows(DataException.Malformed.class, () -> data.split(0.5, 1)).getMessage();
    assertTrue(message.contains("image 2 is the only image of class b"), message);
    assertThrows(IllegalArgumentException.class, () -> data.split(1, 1));
    assertThrows(IllegalArgumentException.class, () -> data.split(Double.NaN, 1));
  }

  @Test
  void aSubsetIsInTheOrderGiven() {
    ImageDataset some = numbered(List.of("a", "b"), 0, 1, 0).subset(2, 1, 2);
    assertEquals(List.of(2, 1, 2), values(some));
    assertEquals(List.of(0, 1, 0), labels(some));
    assertEquals(0, some.subset().size());
    assertThrows(IndexOutOfBoundsException.class, () -> some.subset(3));
  }

  @Test
  void theDigestIsSha256OfWhatIsDocumented() throws Exception {
    ImageDataset data =
        ImageDataset.of(
            "x",
            Split.TRAIN,
            1,
            2,
            3,
            List.of("a", "\u00e4"),
            new byte[][] {{1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12}},
            new int[] {1, 0});
    String text =
        "00000001 00000002 00000003 00000002 00000001 61 00000002 c3a4 00000002 00000001 00000000"
            + " 010203040506 0708090a0b0c";
    byte[] content = HexFormat.of().parseHex(text.replace(" ", ""));
    assertEquals("ä", new String(content, 25, 2, StandardCharsets.UTF_8));
    byte[] sha = MessageDigest.getInstance("SHA-256").digest(content);
    assertEquals(HexFormat.of().formatHex(sha), data.digest());
    assertEquals(data.digest(), data.digest());
  }

  @Test
  void theDigestChangesWithEverythingButNameAndSplit() {
    String digest = numbered(List.of("a", "b"), 0, 1).digest();
    assertEquals(
        digest,
        ImageDataset.of(
                "y",
                Split.TEST,
                1,
                1,
                1,
                List.of("a", "b"),
                new byte[][] {{0}, {1}},
                new int[] {0, 1})
            .digest());
    assertNotEquals(digest, numbered(List.of("a", "b"), 1, 0).digest());
    assertNotEquals(digest, numbered(List.of("ab", ""), 0, 1).digest());
    assertNotEquals(digest, numbered(List.of("a", "b"), 0, 1).subset(1, 0).digest());
  }

  @Test
  void imagesAreBroughtToAnotherSize() {
    byte[] wide = {0, 10, 20, 30, 40, 50, 60, 70};
    ImageDataset data =
        ImageDataset.of("x", Split.TEST, 2, 4, 1, List.of("a"), new byte[][] {wide}, new int[] {0});
    // Halved: the means over 2x2, (0 + 10 + 40 + 50) / 4 = 25 and 45; the middle one lies between.
    ImageDataset small = data.resized(1, 2, 3);
    assertArrayEquals(new byte[] {25, 25, 25, 45, 45, 45}, small.image(0));
    assertTrue(small.notes().getFirst().contains("2x4x1"), small.notes().getFirst());
    assertTrue(small.notes().getFirst().contains("1x2x3"), small.notes().getFirst());
    assertSame(data, data.resized(2, 4, 1));
    assertThrows(IllegalArgumentException.class, () -> data.resized(0, 4, 1));
    assertThrows(IllegalArgumentException.class, () -> data.resized(2, 4, 2));
  }

  @Test
  void otherFormatsAreBroughtToASizeToo() {
    Datasets data = Datasets.open("embedded", Datasets.Options.size(14, 14, 3));
    assertEquals(14, data.train().height());
    assertEquals(3, data.test().channels());
    ImageDataset whole = Datasets.openWhole("embedded", Datasets.Options.DEFAULT);
    assertEquals(12_000, whole.size());
    ImageDataset test = Datasets.openTest("embedded", Datasets.Options.DEFAULT);
    assertEquals(2_000, test.size());
    assertArrayEquals(test.image(1999), whole.image(11_999));
    assertEquals(Split.TEST, whole.split());
  }

  /** In memory of the caller they are the same set, whatever is done with it. */
  @Test
  void imagesOfACallerAreNotCopiedBeforeTheyAreUsed() {
    int[] labels = {0, 1, 1, 0, 1};
    byte[] pixels = new byte[5 * 2 * 3];
    byte[][] images = new byte[5][];
    for (int i = 0; i < 5; i++) {
      images[i] = new byte[] {(byte) i, 100, (byte) (200 + i), 5, (byte) (7 * i), 9};
      System.arraycopy(images[i], 0, pixels, 6 * i, 6);
    }
    List<String> classes = List.of("a", "b");
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocateFrom(ValueLayout.JAVA_BYTE, pixels);
      ImageDataset over = ImageDataset.over("x", Split.TRAIN, 2, 3, 1, classes, memory, labels);
      ImageDataset own = ImageDataset.of("y", Split.TRAIN, 2, 3, 1, classes, images, labels);
      assertEquals(own.digest(), over.digest());
      assertEquals(
          own.subset(4, 0, 3).subset(2, 0).digest(), over.subset(4, 0, 3).subset(2, 0).digest());
      assertEquals(own.split(0.4, 3).test().digest(), over.split(0.4, 3).test().digest());
      assertEquals(own.resized(4, 4, 3).digest(), over.resized(4, 4, 3).digest());
      memory.set(ValueLayout.JAVA_BYTE, 6, (byte) 77);
      assertEquals(77, over.image(1)[0]);
      assertThrows(
          IllegalArgumentException.class,
          () -> ImageDataset.over("x", Split.TRAIN, 2, 3, 1, classes, memory.asSlice(1), labels));
      assertThrows(
          IllegalArgumentException.class,
          () -> ImageDataset.over("x", Split.TRAIN, 2, 3, 1, classes, memory.asSlice(6), labels));
    }
  }
}
