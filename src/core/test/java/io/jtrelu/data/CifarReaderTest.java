package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CifarReaderTest {
  @TempDir Path folder;

  /** Records whose red, green, blue at (y, x) are seed + y, seed + x, seed + y * x. */
  private static byte[] records(boolean coarse, int... labels) throws IOException {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    for (int i = 0; i < labels.length; i++) {
      if (coarse) {
        out.write(labels[i] % 20);
      }
      out.write(labels[i]);
      for (int c = 0; c < 3; c++) {
        for (int y = 0; y < 32; y++) {
          for (int x = 0; x < 32; x++) {
            out.write(i + (c == 0 ? y : c == 1 ? x : y * x));
          }
        }
      }
    }
    return out.toByteArray();
  }

  private static void check(ImageDataset data, int index, int seed) {
    byte[] image = data.image(index);
    assertEquals(32 * 32 * 3, image.length);
    for (int y = 0; y < 32; y++) {
      for (int x = 0; x < 32; x++) {
        int at = (y * 32 + x) * 3;
        assertEquals((byte) (seed + y), image[at]);
        assertEquals((byte) (seed + x), image[at + 1]);
        assertEquals((byte) (seed + y * x), image[at + 2]);
      }
    }
  }

  private void writeCifar10() throws IOException {
    Files.writeString(folder.resolve("batches.meta.txt"), "airplane\nautomobile\nbird\ncat\n\n");
    Files.write(folder.resolve("data_batch_1.bin"), records(false, 3, 0));
    Files.write(folder.resolve("data_batch_2.bin"), records(false, 1, 2, 3));
    Files.write(folder.resolve("test_batch.bin"), records(false, 2));
  }

  @Test
  void readsCifar10() throws IOException {
    writeCifar10();
    Datasets data = Datasets.open(folder.toString());
    assertEquals(List.of("airplane", "automobile", "bird", "cat"), data.train().classes());
    assertEquals(5, data.train().size());
    int[] labels = {3, 0, 1, 2, 3};
    int[] seeds = {0, 1, 0, 1, 2};
    for (int i = 0; i < 5; i++) {
      assertEquals(labels[i], data.train().label(i));
      check(data.train(), i, seeds[i]);
    }
    assertEquals(1, data.test().size());
    assertEquals(2, data.test().label(0));
  }

  @Test
  void readsTheFineLabelsOfCifar100() throws IOException {
    Files.write(folder.resolve("train.bin"), records(true, 99, 41));
    Files.write(folder.resolve("test.bin"), records(true, 7));
    Datasets data = Datasets.open(folder.toString());
    assertEquals(100, data.train().classes().size());
    assertEquals(99, data.train().label(0));
    assertEquals(41, data.train().label(1));
    assertEquals(7, data.test().label(0));
    check(data.train(), 1, 1);
  }

  private DataException fails(Class<? extends DataException> type) {
    return assertThrows(type, () -> Datasets.open(folder.toString()));
  }

  @Test
  void refusesACutRecord() throws IOException {
    writeCifar10();
    Files.write(folder.resolve("data_batch_2.bin"), Arrays.copyOf(records(false, 1, 2), 3073 + 9));
    DataException e = fails(DataException.Malformed.class);
    assertEquals(3073, e.position());
    assertTrue(e.getMessage().contains("data_batch_2.bin"), e.getMessage());
    Files.write(folder.resolve("data_batch_2.bin"), new byte[0]);
    assertEquals(0, fails(DataException.Malformed.class).position());
  }

  @Test
  void refusesALabelWithoutAClass() throws IOException {
    writeCifar10();
    Files.write(folder.resolve("test_batch.bin"), records(false, 2, 4));
    DataException e = fails(DataException.Malformed.class);
    assertEquals(3073, e.position());
    assertTrue(e.getMessage().contains("label 4 is not in 0..3"), e.getMessage());
  }

  @Test
  void refusesACoarseLabelOutOfRange() throws IOException {
    byte[] bad = records(true, 5);
    bad[0] = 20;
    Files.write(folder.resolve("train.bin"), bad);
    Files.write(folder.resolve("test.bin"), records(true, 7));
    assertTrue(fails(DataException.Malformed.class).getMessage().contains("coarse label 20"));
  }

  @Test
  void namesAMissingFile() throws IOException {
    writeCifar10();
    Files.delete(folder.resolve("test_batch.bin"));
    assertTrue(fails(DataException.Missing.class).getMessage().contains("test_batch.bin"));
    Files.write(folder.resolve("test_batch.bin"), records(false, 2));
    Files.delete(folder.resolve("data_batch_1.bin"));
    Files.delete(folder.resolve("data_batch_2.bin"));
    assertTrue(fails(DataException.Missing.class).getMessage().contains("data_batch_1.bin"));
  }

  @Test
  void refusesAnEmptyListOfNames() throws IOException {
    writeCifar10();
    Files.writeString(folder.resolve("batches.meta.txt"), "\n\n");
    assertTrue(fails(DataException.Malformed.class).getMessage().contains("batches.meta.txt"));
  }
}
