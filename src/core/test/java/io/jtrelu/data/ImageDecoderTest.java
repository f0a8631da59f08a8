package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.awt.Color;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Against Pillow's pixels (images/make.py), and by the definition where Pillow does otherwise. */
class ImageDecoderTest {
  @TempDir Path folder;

  static byte[] resource(String name) throws IOException {
    try (InputStream in = ImageDecoderTest.class.getResourceAsStream("images/" + name)) {
      assertTrue(in != null, name);
      return in.readAllBytes();
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "gray-1.png",
        "gray-2.png",
        "gray-4.png",
        "gray-8.png",
        "gray-gamma.png",
        "gray-alpha-8.png",
        "palette-1.png",
        "palette-2.png",
        "palette-4.png",
        "palette-8.png",
        "palette-transparent.png",
        "rgb-8.png",
        "rgb-16.png",
        "rgb-icc.png",
        "rgb-interlaced.png",
        "rgb-transparent.png",
        "rgba-8.png",
        "rgba-16.png",
        "exif-8.png"
      })
  void pngIsWhatPillowReads(String name) throws IOException {
    compare(name, 0);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "ycc-444.jpg",
        "ycc-422.jpg",
        "ycc-420.jpg",
        "ycc-adobe.jpg",
        "ycc-unmarked.jpg",
        "progressive.jpg",
        "gray.jpg",
        "rgb-adobe.jpg",
        "rgb-named.jpg",
        "cmyk.jpg",
        "cmyk-unmarked.jpg",
        "ycck.jpg",
        "icc.jpg",
        "exif-big-1.jpg",
        "exif-big-2.jpg",
        "exif-big-3.jpg",
        "exif-big-4.jpg",
        "exif-big-5.jpg",
        "exif-big-6.jpg",
        "exif-big-7.jpg",
        "exif-big-8.jpg",
        "exif-little-6.jpg"
      })
  void jpegIsWhatPillowReads(String name) throws IOException {
    compare(name, 1);
  }

  private static void compare(String name, int bound) throws IOException {
    byte[] expected = resource(name + ".expected");
    int height = expected[0];
    int width = expected[1];
    byte[] encoded = resource(name);
    byte[] rgb = ImageDecoder.of(height, width, 3).decode(encoded, name);
    byte[] gray = ImageDecoder.of(height, width, 1).decode(encoded, name);
    assertEquals(expected.length, 2 + rgb.length + gray.length, "size as shown");
    EncodedImage header = EncodedImage.of(encoded, name);
    assertEquals(height, header.height());
    assertEquals(width, header.width());
    close(name + " as RGB", expected, 2, rgb, bound);
    close(name + " as L", expected, 2 + rgb.length, gray, bound);
  }

  private static void close(String what, byte[] expected, int from, byte[] actual, int bound) {
    for (int i = 0; i < actual.length; i++) {
      int difference = (expected[from + i] & 0xff) - (actual[i] & 0xff);
      assertTrue(Math.abs(difference) <= bound, what + ": " + difference + " at " + i);
    }
  }

  @Test
  void of16BitsTheUpper8AreKept() throws IOException {
    BufferedImage deep = new BufferedImage(3, 1, BufferedImage.TYPE_USHORT_GRAY);
    deep.getRaster().setPixels(0, 0, 3, 1, new int[] {0x00ff, 0xabcd, 0xffff});
    byte[] expected = {0, (byte) 0xab, (byte) 0xff};
    ImageDecoder decoder = ImageDecoder.of(1, 3, 1);
    assertArrayEquals(expected, decoder.decode(deep));
    assertArrayEquals(expected, decoder.decode(ImageFolderReaderTest.encode(deep, "png"), "deep"));
  }

  @ParameterizedTest
  @ValueSource(
      ints = {
        BufferedImage.TYPE_INT_RGB,
        BufferedImage.TYPE_INT_ARGB,
        BufferedImage.TYPE_INT_ARGB_PRE,
        BufferedImage.TYPE_INT_BGR,
        BufferedImage.TYPE_3BYTE_BGR,
        BufferedImage.TYPE_4BYTE_ABGR,
        BufferedImage.TYPE_4BYTE_ABGR_PRE
      })
  void picturesInMemoryOfAllLayoutsAreTheSame(int type) {
    BufferedImage picture = new BufferedImage(2, 1, type);
    picture.setRGB(0, 0, new Color(16, 32, 250).getRGB());
    picture.setRGB(1, 0, new Color(255, 1, 0).getRGB());
    assertArrayEquals(
        new byte[] {16, 32, (byte) 250, (byte) 255, 1, 0},
        ImageDecoder.of(1, 2, 3).decode(picture));
    // 0.299 * 16 + 0.587 * 32 + 0.114 * 250 = 52.07; 0.299 * 255 + 0.587 = 76.83
    assertArrayEquals(new byte[] {52, 77}, ImageDecoder.of(1, 2, 1).decode(picture));
  }

  @Test
  void aPartOfALargerPictureIsReadFromItsOwnCorner() {
    BufferedImage whole = ImageFolderReaderTest.gray(2, 2, 1, 2, 3, 4);
    assertArrayEquals(
        new byte[] {4}, ImageDecoder.of(1, 1, 1).decode(whole.getSubimage(1, 1, 1, 1)));
  }

  @Test
  void theShorterSideDecidesAndTheCentreIsKept() throws IOException {
    Path file = folder.resolve("wide.png");
    Files.write(
        file,
        ImageFolderReaderTest.encode(
            ImageFolderReaderTest.gray(4, 8, 10, 20, 30, 40, 50, 60, 70, 80), "png"));
    // Halved: 15 35 55 75, of which the middle two.
    assertArrayEquals(new byte[] {35, 55, 35, 55}, ImageDecoder.of(2, 2, 1).decode(file));
    assertArrayEquals(
        new byte[] {35, 35, 35, 55, 55, 55, 35, 35, 35, 55, 55, 55},
        ImageDecoder.of(2, 2, 3).decode(file));
  }

  @ParameterizedTest
  @ValueSource(strings = {"ycc-420.jpg", "progressive.jpg", "cmyk.jpg", "gray.jpg"})
  void truncatedJpegsAreRefusedWhereverTheyEnd(String name) throws IOException {
    refusesEveryPrefix(name);
  }

  @ParameterizedTest
  @ValueSource(strings = {"gray-1.png", "rgb-interlaced.png", "palette-4.png"})
  void truncatedPngsAreRefusedWhereverTheyEnd(String name) throws IOException {
    refusesEveryPrefix(name);
  }

  private static void refusesEveryPrefix(String name) throws IOException {
    byte[] whole = resource(name);
    ImageDecoder decoder = ImageDecoder.of(3, 3, 3);
    decoder.decode(whole, name);
    for (int length = 0; length < whole.length; length++) {
      byte[] part = Arrays.copyOf(whole, length);
      DataException e =
          assertThrows(
              DataException.Malformed.class,
              () -> decoder.decode(part, name),
              name + " cut to " + length);
      assertTrue(e.getMessage().startsWith(name), e.getMessage());
    }
  }

  @Test
  void everyFlippedBitOfAPngIsNoticed() throws IOException {
    byte[] whole = resource("gray-4.png");
    ImageDecoder decoder = ImageDecoder.of(11, 13, 1);
    for (int bit = 0; bit < 8 * whole.length; bit++) {
      byte[] damaged = whole.clone();
      damaged[bit >> 3] ^= (byte) (1 << (bit & 7));
      assertThrows(DataException.class, () -> decoder.decode(damaged, "x"), "bit " + bit);
    }
  }

  @Test
  void noTemporaryFileIsNeeded() throws IOException {
    assertTrue(ImageIO.getUseCache(), "the default, under which ImageIO.read writes files");
    String before = System.getProperty("java.io.tmpdir");
    System.setProperty("java.io.tmpdir", folder.resolve("nowhere").toString());
    try {
      ImageDecoder.of(3, 3, 1).decode(resource("gray.jpg"), "gray.jpg");
      ImageDecoder.of(3, 3, 1).decode(resource("gray-8.png"), "gray-8.png");
    } finally {
      System.setProperty("java.io.tmpdir", before);
    }
  }

  @Test
  void argumentsAreChecked() {
    assertThrows(IllegalArgumentException.class, () -> ImageDecoder.of(0, 1, 1));
    assertThrows(IllegalArgumentException.class, () -> ImageDecoder.of(1, 1, 2));
    assertThrows(IllegalArgumentException.class, () -> ImageDecoder.of(40_000, 40_000, 3));
    ImageDecoder decoder = ImageDecoder.of(1, 1, 1);
    assertThrows(DataException.Missing.class, () -> decoder.decode(folder.resolve("none.png")));
    assertThrows(DataException.Unreadable.class, () -> decoder.decode(folder));
  }
}
