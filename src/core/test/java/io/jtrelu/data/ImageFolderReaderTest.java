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
import java.util.Locale;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

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
    write("train/dog/b.png", gray(2, 3, 1, 2));
    write("test/cat/c.png", gray(2, 3, 8, 7));
    write("test/dog/c.png", gray(2, 3, 9, 7));
    Datasets data = open();
    assertEquals(List.of("cat", "dog"), data.train().classes());
    assertEquals(1, data.train().channels());
    assertEquals(2, data.train().height());
    assertEquals(3, data.train().width());
    assertArrayEquals(bytes(0, 60, 128, 200, 254, 255), data.train().image(0));
    assertEquals(0, data.train().label(0));
    assertEquals(1, data.train().label(1));
    assertEquals(2, data.test().size());
    assertEquals(1, data.test().label(1));
    assertEquals(List.of(), data.notes());
  }

  @Test
  void readsColour() throws IOException {
    write("train/a/1.png", rgb(1, 2, 0x102030, 0xff8001));
    write("train/a/2.png", gray(1, 2, 50, 150)); // gray among colour: three equal channels
    write("train/b/1.png", rgb(1, 2, 0));
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
    write("train/b/1.png", gray(8, 8, 1));
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
    write("train/b/1.png", gray(2, 2, 7, 8));
    write("test/a/1.png", gray(1, 1, 99)); // enlarged
    write("test/b/1.png", gray(2, 2, 7, 8));
    Datasets data = open();
    assertArrayEquals(bytes(35, 55, 35, 55), data.train().image(1));
    assertArrayEquals(bytes(99, 99, 99, 99), data.test().image(0));
    assertNote(data.notes(), "2 of 5 images were scaled", "2x2, the size of the first one");
  }

  @Test
  void scalesToTheSizeAskedFor() throws IOException {
    write("train/a/1.png", gray(3, 3, 0, 90, 180, 0, 90, 180, 0, 90, 180));
    write("train/b/1.png", gray(2, 2, 1));
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

  private static void assertNote(List<String> notes, String... parts) {
    assertTrue(
        notes.stream().anyMatch(n -> Stream.of(parts).allMatch(n::contains)),
        () -> "no note with " + List.of(parts) + " in " + notes);
  }

  private void touch(String file) throws IOException {
    Path path = folder.resolve(file);
    Files.createDirectories(path.getParent());
    Files.writeString(path, "x");
  }

  /** Two classes of two images each under the folder; values 10, 11 and 20, 21 at their left. */
  private void twoClasses(String part) throws IOException {
    for (int label = 1; label <= 2; label++) {
      for (int i = 0; i < 2; i++) {
        write(part + (label == 1 ? "a/" : "b/") + i + ".png", gray(1, 2, 10 * label + i, 99));
      }
    }
  }

  private static List<Integer> firsts(ImageDataset data) {
    return IntStream.range(0, data.size()).mapToObj(i -> data.image(i)[0] & 0xff).toList();
  }

  private ImageDataset openTest() {
    return Datasets.openTest(folder.toString(), Datasets.Options.DEFAULT);
  }

  private ImageDataset openWhole() {
    return Datasets.openWhole(folder.toString(), Datasets.Options.DEFAULT);
  }

  @Test
  void tellsWhatIsNotReadByReason() throws IOException {
    twoClasses("train/");
    twoClasses("test/");
    touch("train/a/1.webp");
    touch("train/a/2.gif");
    touch("train/b/3.bmp");
    touch("test/b/4.txt");
    touch("train/a/.hidden.png");
    touch("train/__MACOSX/x.png");
    touch("train/Thumbs.db");
    write("train/a/more/9.png", gray(1, 2, 1));
    touch("train/labels.csv");
    touch("labels.csv");
    touch("backup/x.zip");
    Files.createSymbolicLink(folder.resolve("train/b/lost.png"), folder.resolve("nowhere.png"));
    Datasets data = open();
    assertEquals(4, data.train().size());
    assertEquals(4, data.test().size());
    assertNote(data.notes(), ": 4 (not named .png", "train/a/1.webp", "test/b/4.txt");
    assertNote(data.notes(), ": 3 (hidden", "train/a/.hidden.png", "__MACOSX", "Thumbs.db");
    assertNote(data.notes(), ": 1 (folders inside class folders", "train/a/more");
    assertNote(data.notes(), ": 2 (files beside the class folders", "train/labels.csv");
    assertNote(data.notes(), ": 1 (folders of no class images", "backup");
    assertNote(data.notes(), ": 1 (links that lead nowhere", "train/b/lost.png");
    assertEquals(6, data.notes().size());
    for (int i = 0; i < 9; i++) {
      touch("train/a/z" + i + ".txt");
    }
    assertNote(open().notes(), ": 13 (not named .png", "and 8 more");
  }

  @Test
  void namesAreShownWithoutControlCharacters() throws IOException {
    twoClasses("");
    touch("a/x\u001b[31m.txt");
    assertNote(open().notes(), "a/x\\u001b[31m.txt");
    Files.createDirectories(folder.resolve("c\nd"));
    fails(DataException.Missing.class, "class c\\nd");
  }

  @ParameterizedTest
  @ValueSource(strings = {"test", "val", "valid", "validation", "Test", "Testing"})
  void understandsTheNamesOfHeldOutParts(String part) throws IOException {
    twoClasses(part.equals("Testing") ? "Training/" : "train/");
    write(part + "/a/x.png", gray(1, 2, 77, 1));
    Datasets data = open();
    assertEquals(List.of(77), firsts(data.test()));
    assertEquals(List.of(10, 11, 20, 21), firsts(data.train()));
    assertNote(data.notes(), part + "/ has no images of 1 of the 2 classes: b");
    assertEquals(List.of(77), firsts(openTest()));
    assertEquals(List.of("a", "b"), openTest().classes());
    assertEquals(List.of(10, 11, 20, 21, 77), firsts(openWhole()));
  }

  @Test
  void refusesTwoHeldOutParts() throws IOException {
    twoClasses("train/");
    twoClasses("test/");
    twoClasses("val/");
    fails(DataException.Ambiguous.class, "test/ and val/", "rename");
    assertThrows(DataException.Ambiguous.class, this::openTest);
  }

  @Test
  void aTestFolderWithoutClassesBesideAnotherIsNotRead() throws IOException {
    twoClasses("train/");
    twoClasses("val/");
    write("test/1.png", gray(1, 2, 1));
    Datasets data = open();
    assertEquals(4, data.test().size());
    assertNote(data.notes(), "folders of no class images", "test");
  }

  @Test
  void aClassMayBeCalledTrain() throws IOException {
    write("train/1.png", gray(1, 1, 1));
    write("train/2.png", gray(1, 1, 2));
    write("plane/1.png", gray(1, 1, 3));
    write("plane/2.png", gray(1, 1, 4));
    assertEquals(List.of("plane", "train"), open().train().classes());
  }

  @Test
  void aPartToMeasureOnAloneIsReadAsSuch() throws IOException {
    twoClasses("valid/");
    fails(DataException.Missing.class, "train", "valid/", "nothing to learn from");
    assertEquals(List.of(10, 11, 20, 21), firsts(openTest()));
    assertEquals(List.of(10, 11, 20, 21), firsts(openWhole()));
  }

  @Test
  void aFolderWithoutPartsIsMeasuredOnWhole() throws IOException {
    twoClasses("");
    touch("a/x.txt");
    for (ImageDataset data : List.of(openTest(), openWhole())) {
      assertEquals(List.of(10, 11, 20, 21), firsts(data));
      assertEquals(Split.TEST, data.split());
      assertEquals(1, data.label(3));
      assertEquals(1, data.notes().size());
      assertNote(data.notes(), "not named .png", "a/x.txt");
    }
  }

  @Test
  void bringsImagesToAModelsSizeAndChannels() throws IOException {
    write("a/1.png", rgb(2, 4, 0xff0000));
    write("b/1.png", gray(4, 4, 50));
    ImageDataset gray = Datasets.openTest(folder.toString(), Datasets.Options.size(2, 2, 1));
    assertArrayEquals(bytes(76, 76, 76, 76), gray.image(0)); // 0.299 * 255
    assertArrayEquals(bytes(50, 50, 50, 50), gray.image(1));
    assertNote(gray.notes(), "made gray");
    write("a/1.png", gray(1, 1, 9));
    ImageDataset colour = Datasets.openTest(folder.toString(), Datasets.Options.size(1, 1, 3));
    assertArrayEquals(bytes(9, 9, 9), colour.image(0));
    assertArrayEquals(bytes(50, 50, 50), colour.image(1));
  }

  @Test
  void refusesToLearnFromOneClass() throws IOException {
    write("a/1.png", gray(1, 1, 1));
    write("a/2.png", gray(1, 1, 2));
    fails(DataException.OneClass.class, "one class, a", "nothing to learn");
    assertEquals(2, openTest().size());
  }

  @Test
  void tellsOfImagesOfOneColour() throws IOException {
    twoClasses("train/");
    twoClasses("test/");
    write("train/b/9.png", gray(1, 2, 0));
    assertNote(open().notes(), "1 of 5 train images have one colour", "image 4 of class b");
    for (String file : List.of("train/a/0", "train/a/1", "train/b/0", "train/b/1", "train/b/9")) {
      write(file + ".png", gray(1, 2, 6));
    }
    assertNote(open().notes(), "Channel 0 is 6 in every train image");
  }

  @Test
  void classesAreSortedIndependentOfLocale() throws IOException {
    for (String name : List.of("i", "I", "\u0131", "z", "\u00e4", "Z")) {
      write(name + "/1.png", gray(1, 1, 1));
      write(name + "/2.png", gray(1, 1, 2));
    }
    Locale before = Locale.getDefault();
    Locale.setDefault(Locale.of("tr", "TR"));
    try {
      assertEquals(List.of("I", "Z", "i", "z", "\u00e4", "\u0131"), open().train().classes());
    } finally {
      Locale.setDefault(before);
    }
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
    Files.write(bad, withSize(png, 100_000, 100_000));
    fails(DataException.TooLarge.class, "100000x100000");
    Files.write(bad, withSize(png, 0xf0000000, 1));
    fails(DataException.TooLarge.class, "beyond");
    Files.write(bad, withSize(png, 5000, 5000));
    fails(DataException.Malformed.class, "5000x5000", "cannot hold");
  }
}
