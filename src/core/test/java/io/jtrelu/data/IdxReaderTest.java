package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class IdxReaderTest {
  private static final String TRAIN_IMAGES = "train-images-idx3-ubyte";
  private static final String TRAIN_LABELS = "train-labels-idx1-ubyte";

  @TempDir Path folder;

  @BeforeEach
  void write() throws IOException {
    Idx.writeSmallSet(folder);
  }

  @Test
  void readsPlainAndGzippedFiles() {
    Datasets data = Datasets.open(folder.toString());
    ImageDataset train = data.train();
    assertEquals(6, train.size());
    assertEquals(3, train.height());
    assertEquals(4, train.width());
    assertEquals(1, train.channels());
    assertEquals(List.of("0", "1", "2"), train.classes());
    assertEquals(folder.getFileName().toString(), train.name());
    assertEquals(Split.TRAIN, train.split());
    int[] labels = {0, 1, 2, 2, 1, 0};
    for (int i = 0; i < 6; i++) {
      assertArrayEquals(Idx.image(i, 12), train.image(i));
      assertEquals(labels[i], train.label(i));
    }
    ImageDataset test = data.test();
    assertEquals(3, test.size());
    assertEquals(Split.TEST, test.split());
    assertArrayEquals(Idx.image(2, 12), test.image(2));
    assertEquals(2, test.label(0));
  }

  @Test
  void readsTheNamesWithADot() throws IOException {
    Files.move(folder.resolve(TRAIN_IMAGES), folder.resolve("train-images.idx3-ubyte"));
    assertEquals(6, Datasets.open(folder.toString()).train().size());
  }

  @Test
  void takesClassNamesFromAFileBeside() throws IOException {
    Files.writeString(folder.resolve("classes.txt"), "red\n green \n\nblue\nnone such\n");
    assertEquals(
        List.of("red", "green", "blue", "none such"),
        Datasets.open(folder.toString()).test().classes());
  }

  @Test
  void aDatasetIsNotChangedThroughItsCopies() {
    ImageDataset train = Datasets.open(folder.toString()).train();
    train.image(0)[0] = 99;
    assertArrayEquals(Idx.image(0, 12), train.image(0));
  }

  private DataException.Malformed malformed(String file, byte[] content, long position)
      throws IOException {
    Files.write(folder.resolve(file), content);
    DataException.Malformed e =
        assertThrows(DataException.Malformed.class, () -> Datasets.open(folder.toString()));
    assertTrue(e.file().endsWith(file), e.getMessage());
    assertTrue(e.getMessage().contains(file), e.getMessage());
    assertEquals(position, e.position(), e.getMessage());
    return e;
  }

  private static byte[] cut(byte[] content, int length) {
    return Arrays.copyOf(content, length);
  }

  private static byte[] with(byte[] content, int at, int value) {
    byte[] changed = content.clone();
    ByteBuffer.wrap(changed).putInt(at, value);
    return changed;
  }

  private static void says(DataException e, String... parts) {
    for (String part : parts) {
      assertTrue(e.getMessage().contains(part), e.getMessage());
    }
  }

  private final byte[] images = Idx.images(3, 4, Idx.imageSet(6, 12));
  private final byte[] labels = Idx.labels(0, 1, 2, 2, 1, 0);

  @Test
  void refusesATruncatedFile() throws IOException {
    says(malformed(TRAIN_IMAGES, cut(images, 87), 16), "6 images of 3x4", "71 bytes follow");
    says(malformed(TRAIN_IMAGES, cut(images, 10), 10), "truncated");
    malformed(TRAIN_IMAGES, new byte[0], 0);
  }

  @Test
  void refusesATruncatedLabelFile() throws IOException {
    malformed(TRAIN_LABELS, cut(labels, 13), 8);
  }

  @Test
  void refusesBytesAfterTheEnd() throws IOException {
    malformed(TRAIN_IMAGES, cut(images, 89), 16);
  }

  @Test
  void refusesAWrongMagicNumber() throws IOException {
    says(malformed(TRAIN_IMAGES, labels, 0), "0x00000803", "0x00000801");
    Files.write(folder.resolve(TRAIN_IMAGES), images);
    says(malformed(TRAIN_LABELS, with(labels, 0, 0x08010000), 0), "0x00000801", "0x08010000");
  }

  @Test
  void refusesCountsThatDiffer() throws IOException {
    says(malformed(TRAIN_LABELS, Idx.labels(0, 1, 2, 1, 0), 4), "5 labels", "6 images");
  }

  @Test
  void refusesAnEmptySet() throws IOException {
    malformed(TRAIN_IMAGES, Idx.images(3, 4), 4);
    malformed(TRAIN_IMAGES, with(images, 12, 0), 4);
  }

  @Test
  void refusesSizesThatTheFileCannotHold() throws IOException {
    malformed(TRAIN_IMAGES, with(images, 8, 0x7fffffff), 16);
    malformed(TRAIN_IMAGES, with(with(images, 8, -1), 12, -1), 16); // 2^64 overflows a long
    byte[] huge = with(images, 4, -1);
    Files.write(folder.resolve(TRAIN_IMAGES), huge);
    malformed(TRAIN_LABELS, with(labels, 4, -1), 8);
  }

  @Test
  void refusesALabelWithoutAClass() throws IOException {
    says(
        malformed(TRAIN_LABELS, Idx.labels(0, 1, 2, 9, 9, 0), 11), "label 9", "image 3", "class 3");
    Files.write(folder.resolve(TRAIN_LABELS), labels);
    Files.writeString(folder.resolve("classes.txt"), "a\nb\n");
    says(malformed(TRAIN_LABELS, labels, 10), "label 2 of image 2", "0..1");
  }

  @Test
  void refusesATestLabelThatTrainingNeverSaw() throws IOException {
    malformed("t10k-labels-idx1-ubyte.gz", Idx.gzip(Idx.labels(0, 1, 3)), 10);
  }

  @Test
  void refusesTestImagesOfAnotherSize() throws IOException {
    says(
        malformed("t10k-images-idx3-ubyte.gz", Idx.gzip(Idx.images(4, 3, Idx.imageSet(3, 12))), 8),
        "4x3",
        "3x4");
  }

  @Test
  void refusesDamagedGzip() throws IOException {
    String file = "t10k-images-idx3-ubyte.gz";
    byte[] whole = Idx.gzip(Idx.images(3, 4, Idx.imageSet(3, 12)));
    says(malformed(file, cut(whole, 12), 0), "gzip");
    says(malformed(file, images, 0), "not a gzip file");
    says(malformed(file, cut(whole, 5), 0), "not a gzip file");
    byte[] checksum = whole.clone();
    checksum[whole.length - 8] ^= 1; // CRC-32 of the content
    says(malformed(file, checksum, 52), "corrupt");
    byte[] more = Idx.images(3, 4, Idx.imageSet(3, 12));
    says(malformed(file, Idx.gzip(Arrays.copyOf(more, more.length + 1)), 52), "goes on");
  }

  @Test
  void refusesAGzippedHeaderBeyondWhatDeflateCanHold() throws IOException {
    byte[] header = with(Idx.images(3, 4, Idx.imageSet(3, 12)), 8, 1 << 20);
    says(malformed("t10k-images-idx3-ubyte.gz", Idx.gzip(header), 16), "at most");
  }

  @Test
  void refusesWhatJavaMemoryCannotHold() throws IOException {
    // One image of 4 GiB, really there (as a sparse file): no Java array holds it.
    Path file = folder.resolve(TRAIN_IMAGES);
    Files.write(file, with(with(cut(with(images, 4, 1), 16), 8, 1 << 16), 12, 1 << 16));
    try (RandomAccessFile sparse = new RandomAccessFile(file.toFile(), "rw")) {
      sparse.setLength(16 + (1L << 32));
    }
    Files.write(folder.resolve(TRAIN_LABELS), Idx.labels(0));
    DataException.TooLarge e =
        assertThrows(DataException.TooLarge.class, () -> Datasets.open(folder.toString()));
    says(e, TRAIN_IMAGES, "65536x65536");
  }

  @Test
  void namesAMissingFile() throws IOException {
    Files.delete(folder.resolve(TRAIN_LABELS));
    DataException.Missing e =
        assertThrows(DataException.Missing.class, () -> Datasets.open(folder.toString()));
    says(e, TRAIN_LABELS, "IDX");
  }
}
