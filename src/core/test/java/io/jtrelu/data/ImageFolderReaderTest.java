package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.awt.image.BufferedImage;
import java.awt.image.IndexColorModel;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.zip.CRC32;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ImageFolderReaderTest {
  @TempDir Path folder;

  static byte[] encode(BufferedImage image, String format) throws IOException {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    assertTrue(ImageIO.write(image, format, out));
    return out.toByteArray();
  }

  private void write(String file, BufferedImage image) throws IOException {
    Path path = folder.resolve(file);
    Files.createDirectories(path.getParent());
    Files.write(path, encode(image, file.endsWith("png") ? "png" : "jpeg"));
  }

  /** Gray samples as stored; setRGB would apply a gamma curve. */
  static BufferedImage gray(int height, int width, int... values) {
    BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_BYTE_GRAY);
    for (int i = 0; i < height * width; i++) {
      image.getRaster().setSample(i % width, i / width, 0, values[i % values.length]);
    }
    return image;
  }

  private static BufferedImage rgb(int height, int width, int... values) {
    BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
    for (int i = 0; i < height * width; i++) {
      image.setRGB(i % width, i / width, values[i % values.length]);
    }
    return image;
  }

  private static byte[] bytes(int... values) {
    byte[] bytes = new byte[values.length];
    for (int i = 0; i < values.length; i++) {
      bytes[i] = (byte) values[i];
    }
    return bytes;
  }

  private Datasets open() {
    return Datasets.open(folder.toString());
  }

  @Test
  void readsGrayPngsAsTheyAreStored() throws IOException {
    write("train/cat/a.png", gray(2, 3, 0, 60, 128, 200, 254, 255));
    write("train/dog/b.png", gray(2, 3, 1));
    write("test/dog/c.png", gray(2, 3, 9));
    Datasets data = open();
    assertEquals(List.of("cat", "dog"), data.train().classes());
    assertEquals(1, data.train().channels());
    assertEquals(2, data.train().height());
    assertEquals(3, data.train().width());
    assertArrayEquals(bytes(0, 60, 128, 200, 254, 255), data.train().image(0));
    assertEquals(0, data.train().label(0));
    assertEquals(1, data.train().label(1));
    assertEquals(1, data.test().size());
    assertEquals(1, data.test().label(0));
    assertEquals(List.of(), data.notes());
  }

  @Test
  void readsColour() throws IOException {
    write("train/a/1.png", rgb(1, 2, 0x102030, 0xff8001));
    write("train/a/2.png", gray(1, 2, 50, 150)); // gray among colour: three equal channels
    write("val/a/3.png", rgb(1, 2, 0));
    ImageDataset train = open().train();
    assertEquals(3, train.channels());
    assertArrayEquals(bytes(0x10, 0x20, 0x30, 0xff, 0x80, 0x01), train.image(0));
    assertArrayEquals(bytes(50, 50, 50, 150, 150, 150), train.image(1));
  }

  @Test
  void readsJpegPalettesAnd16Bits() throws IOException {
    write("train/a/1.jpg", gray(8, 8, 100));
    byte[] levels = bytes(0, 85, 170, 255);
    BufferedImage palette =
        new BufferedImage(
            8,
            8,
            BufferedImage.TYPE_BYTE_BINARY,
            new IndexColorModel(2, 4, levels, levels, levels));
    palette.getRaster().setSample(1, 0, 0, 2);
    write("train/a/2.png", palette);
    BufferedImage deep = new BufferedImage(8, 8, BufferedImage.TYPE_USHORT_GRAY);
    deep.getRaster().setSample(0, 0, 0, 0xabcd);
    write("train/a/3.png", deep);
    write("test/a/1.jpeg", gray(8, 8, 30));
    Datasets data = open();
    assertEquals(1, data.train().channels());
    for (int i = 0; i < 64; i++) {
      assertEquals(100, data.train().image(0)[i], 1); // flat: a rounded DC coefficient is left
    }
    assertEquals((byte) 170, data.train().image(1)[1]);
    assertEquals((byte) 0xab, data.train().image(2)[0]);
    assertEquals(30, data.test().image(0)[5], 1);
  }

  @Test
  void scalesAndCutsToTheFirstImagesSize() throws IOException {
    write("train/a/1.png", gray(2, 2, 7));
    // 4x8, columns 0..7 valued 10, 20, ... 80: halved, means of column pairs; the middle two kept.
    write("train/a/2.png", gray(4, 8, 10, 20, 30, 40, 50, 60, 70, 80));
    write("test/a/1.png", gray(1, 1, 99)); // enlarged
    Datasets data = open();
    assertArrayEquals(bytes(35, 55, 35, 55), data.train().image(1));
    assertArrayEquals(bytes(99, 99, 99, 99), data.test().image(0));
    assertEquals(1, data.notes().size());
    assertTrue(data.notes().getFirst().contains("2 of 3 images"), data.notes().getFirst());
  }

  @Test
  void scalesToTheSizeAskedFor() throws IOException {
    write("train/a/1.png", gray(3, 3, 0, 90, 180, 0, 90, 180, 0, 90, 180));
    write("test/a/1.png", gray(6, 6, 5));
    Datasets data = Datasets.open(folder.toString(), new Datasets.Options(2, 2, 0.2, 1));
    // 1.5 columns each: (0 + 90/2) / 1.5 and (90/2 + 180) / 1.5.
    assertArrayEquals(bytes(30, 150, 30, 150), data.train().image(0));
    assertEquals(2, data.test().height());
  }

  @Test
  void enlargesLinearly() {
    // Centres of the 4 output columns lie at 0.25, 0.75, 1.25, 1.75; those of the input at 0.5,
    // 1.5.
    byte[] wide = Resampling.cover(bytes(0, 100), 1, 2, 1, 2, 4);
    assertArrayEquals(bytes(0, 25, 75, 100, 0, 25, 75, 100), wide);
  }

  @Test
  void splitsEachClassBySeed() throws IOException {
    for (int i = 0; i < 10; i++) {
      write("a/" + i + ".png", gray(1, 1, i));
      write("b/" + i + ".png", gray(1, 1, 100 + i));
    }
    write("c/0.png", gray(1, 1, 200));
    write("c/1.png", gray(1, 1, 201));
    Datasets data = open();
    assertEquals(5, data.test().size()); // 2 + 2 + 1
    assertEquals(17, data.train().size());
    assertTrue(data.notes().getFirst().contains("seed 1"), data.notes().getFirst());
    List<Integer> all = new ArrayList<>();
    for (ImageDataset part : List.of(data.train(), data.test())) {
      int last = -1;
      for (int i = 0; i < part.size(); i++) {
        int value = part.image(i)[0] & 0xff;
        assertEquals(value / 100, part.label(i));
        assertTrue(value > last); // file order is kept
        last = value;
        all.add(value);
      }
    }
    assertEquals(22, all.stream().distinct().count());
    assertEquals(heldOut(1), heldOut(1));
    assertNotEquals(heldOut(1), heldOut(2));
  }

  private List<Integer> heldOut(long seed) {
    ImageDataset test =
        Datasets.open(folder.toString(), new Datasets.Options(0, 0, 0.5, seed)).test();
    List<Integer> values = new ArrayList<>();
    for (int i = 0; i < test.size(); i++) {
      values.add(test.image(i)[0] & 0xff);
    }
    return values;
  }

  private <E extends DataException> E fails(Class<E> type, String... parts) {
    E e = assertThrows(type, this::open);
    for (String part : parts) {
      assertTrue(e.getMessage().contains(part), e.getMessage());
    }
    return e;
  }

  @Test
  void refusesAnEmptyClassFolder() throws IOException {
    write("train/a/1.png", gray(1, 1, 1));
    Files.createDirectories(folder.resolve("train/b"));
    Files.writeString(folder.resolve("train/b/notes.txt"), "x");
    write("test/a/1.png", gray(1, 1, 1));
    fails(DataException.Missing.class, "class b", "train");
  }

  @Test
  void refusesATestFolderWithoutClasses() throws IOException {
    write("train/a/1.png", gray(1, 1, 1));
    Files.createDirectories(folder.resolve("test"));
    fails(DataException.Missing.class, "test", "no class folders");
  }

  @Test
  void refusesATestClassThatTrainingLacks() throws IOException {
    write("train/a/1.png", gray(1, 1, 1));
    write("test/z/1.png", gray(1, 1, 1));
    fails(DataException.Malformed.class, "z", "no folder");
  }

  @Test
  void refusesToSplitASingleImage() throws IOException {
    write("a/1.png", gray(1, 1, 1));
    fails(DataException.Malformed.class, "only image of class a");
  }

  @Test
  void refusesWhatIsNotAnImage() throws IOException {
    write("train/a/1.png", gray(1, 1, 1));
    write("test/a/1.png", gray(1, 1, 1));
    Path bad = folder.resolve("train/a/2.png");
    Files.writeString(bad, "GIF89a");
    assertEquals(0, fails(DataException.Malformed.class, "2.png", "neither").position());
    Files.write(bad, new byte[0]);
    fails(DataException.Malformed.class, "2.png", "empty");
    byte[] png = encode(gray(40, 40, 3, 1, 4, 1, 5, 9, 2, 6), "png");
    Files.write(bad, Arrays.copyOf(png, png.length / 2));
    fails(DataException.Malformed.class, "2.png", "cut off");
  }

  /** A PNG whose header chunk says another size, with a right checksum. */
  private static byte[] withSize(byte[] png, int width, int height) {
    byte[] changed = png.clone();
    ByteBuffer.wrap(changed).putInt(16, width).putInt(20, height);
    CRC32 crc = new CRC32();
    crc.update(changed, 12, 17);
    ByteBuffer.wrap(changed).putInt(29, (int) crc.getValue());
    return changed;
  }

  @Test
  void refusesAbsurdSizesBeforeDecoding() throws IOException {
    write("train/a/1.png", gray(1, 1, 1));
    write("test/a/1.png", gray(1, 1, 1));
    Path bad = folder.resolve("train/a/2.png");
    byte[] png = encode(gray(2, 2, 1), "png");
    Files.write(bad, withSize(png, 60_000, 60_000));
    fails(DataException.TooLarge.class, "60000x60000");
    Files.write(bad, withSize(png, 5000, 5000));
    fails(DataException.Malformed.class, "5000x5000", "cannot hold");
  }
}
