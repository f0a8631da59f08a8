package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** libjpeg-turbo against the JDK's libjpeg. */
class JpegDecodersTest {
  @BeforeEach
  void found() {
    assumeTrue(TurboJpeg.library().isPresent(), TurboJpeg.description());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "ycc-444.jpg",
        "ycc-422.jpg",
        "ycc-420.jpg",
        "ycc-unmarked.jpg",
        "progressive.jpg",
        "gray.jpg",
        "rgb-adobe.jpg",
        "rgb-named.jpg",
        "cmyk.jpg",
        "cmyk-unmarked.jpg",
        "ycck.jpg",
        "exif-big-5.jpg"
      })
  void areTheSameAtFullSizeToWithinOne(String name) throws IOException {
    EncodedImage image = EncodedImage.of(ImageDecoderTest.resource(name), name);
    Pixels expected = image.decode(1, Optional.empty());
    Pixels actual = image.decode(1, TurboJpeg.library());
    assertEquals(expected.height(), actual.height());
    assertEquals(expected.width(), actual.width());
    assertTrue(differences(expected.values(), actual.values()).worst <= 1, name);
  }

  private record Differences(double mean, int worst, double beyond8) {}

  private static Differences differences(byte[] a, byte[] b) {
    assertEquals(a.length, b.length);
    long sum = 0;
    int worst = 0;
    int beyond = 0;
    for (int i = 0; i < a.length; i++) {
      int d = Math.abs((a[i] & 0xff) - (b[i] & 0xff));
      sum += d;
      worst = Math.max(worst, d);
      beyond += d > 8 ? 1 : 0;
    }
    return new Differences((double) sum / a.length, worst, (double) beyond / a.length);
  }

  /** Waves of all lengths and noise, as a photograph has them. */
  static BufferedImage photograph(int height, int width, long seed) {
    Random random = new Random(seed);
    double[][] waves = new double[24][];
    for (int i = 0; i < waves.length; i++) {
      double frequency = Math.pow(2, 1 + 5.5 * random.nextDouble());
      double direction = random.nextDouble() * Math.PI;
      waves[i] =
          new double[] {
            frequency * Math.cos(direction) / width,
            frequency * Math.sin(direction) / height,
            random.nextDouble(),
            60 / Math.sqrt(frequency),
            random.nextInt(3)
          };
    }
    BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        double[] rgb = {120, 125, 130};
        for (double[] w : waves) {
          double value = w[3] * Math.sin(2 * Math.PI * (w[0] * x + w[1] * y + w[2]));
          for (int c = 0; c < 3; c++) {
            rgb[c] += value * (w[4] == c ? 1 : 0.6);
          }
        }
        double noise = 4 * random.nextGaussian();
        int packed = 0;
        for (double value : rgb) {
          packed = packed << 8 | Math.clamp(Math.round(value + noise), 0, 255);
        }
        image.setRGB(x, y, packed);
      }
    }
    return image;
  }

  /** The other scales against means over the full size, to the bounds that the manual gives. */
  @ParameterizedTest
  @CsvSource({"2, 4", "4, 2", "8, 1"})
  void scaledImagesAreNearTheMeansOfTheFullSize(int step, int eighths) throws IOException {
    byte[] jpeg = ImageFolderReaderTest.encode(photograph(448, 320, step), "jpeg");
    EncodedImage image = EncodedImage.of(jpeg, "photograph");
    Pixels scaled = image.decode(step, TurboJpeg.library());
    assertEquals(448 * eighths / 8, scaled.height());
    assertEquals(320 * eighths / 8, scaled.width());
    Pixels means = image.decode(1, Optional.empty()).covering(448 * eighths / 8, 320 * eighths / 8);
    Differences d = differences(means.values(), scaled.values());
    String seen = "step " + step + ": " + d;
    assertTrue(d.mean <= 1.5, seen);
    assertTrue(d.beyond8 <= 0.01, seen);
  }

  /** A pixel more than wanted is decoded at the next scale up. */
  @Test
  void noScaleFallsBelowTheSize() throws IOException {
    byte[] jpeg = ImageFolderReaderTest.encode(photograph(64, 49, 1), "jpeg");
    EncodedImage image = EncodedImage.of(jpeg, "x");
    for (int size = 1; size <= 64; size++) {
      double step = Math.min(64.0 / size, 49.0 / size);
      Pixels pixels = image.decode(step, TurboJpeg.library());
      assertTrue(
          pixels.height() >= Math.min(64, size) && pixels.width() >= Math.min(49, size),
          size + " from " + pixels.height() + "x" + pixels.width());
    }
    assertEquals(25, image.decode(2, TurboJpeg.library()).width(), "half of 49, rounded up");
  }

  /** Whatever is in the file, it is pixels or an exception that names it. */
  @Test
  void damagedFilesAreRefusedOrDecoded() throws IOException {
    Random random = new Random(3);
    byte[] whole = ImageFolderReaderTest.encode(photograph(40, 56, 2), "jpeg");
    int refused = 0;
    for (int i = 0; i < 3000; i++) {
      byte[] damaged = whole.clone();
      for (int k = random.nextInt(1, 4); k > 0; k--) {
        damaged[random.nextInt(damaged.length)] = (byte) random.nextInt();
      }
      try {
        Pixels pixels = EncodedImage.of(damaged, "damaged.jpg").decode(random.nextInt(1, 9));
        assertTrue(pixels.values().length > 0);
      } catch (DataException e) {
        assertTrue(e.getMessage().startsWith("damaged.jpg"), e.getMessage());
        refused++;
      }
    }
    assertTrue(refused > 300, "refused " + refused);
  }

  /** What the header says of the size is all that the library may write. */
  @Test
  void anotherSizeThanTheFilesIsRefused() throws IOException {
    byte[] jpeg = ImageFolderReaderTest.encode(photograph(40, 56, 2), "jpeg");
    TurboJpeg turbo = TurboJpeg.library().orElseThrow();
    assertEquals(40 * 56 * 3, turbo.decode(jpeg, 40, 56, 8, TurboJpeg.Format.RGB).length);
    assertThrows(IOException.class, () -> turbo.decode(jpeg, 4, 5, 8, TurboJpeg.Format.RGB));
  }

  @Test
  void theDescriptionSaysVersionAndFile() {
    assertTrue(
        TurboJpeg.description().matches("libjpeg-turbo [0-9.]+ \\(.*turbojpeg.*\\)"),
        TurboJpeg.description());
  }
}
