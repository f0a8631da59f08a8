package io.jtrelu.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/**
 * The binary version of CIFAR-10 and CIFAR-100: records of one label byte (CIFAR-100: coarse, then
 * fine; the fine one is used) and 3072 pixel bytes, the red, green and blue planes of 32x32 each.
 */
final class CifarReader {
  private static final int SIDE = 32;
  private static final int PLANE = SIDE * SIDE;
  private static final int COARSE_CLASSES = 20;

  private CifarReader() {}

  static boolean recognizes(Path folder) {
    return !cifar10Files(folder).isEmpty() || Files.isRegularFile(folder.resolve("train.bin"));
  }

  private static List<Path> cifar10Files(Path folder) {
    List<Path> files = new ArrayList<>(trainingBatches(folder));
    if (Files.isRegularFile(folder.resolve("test_batch.bin"))) {
      files.add(folder.resolve("test_batch.bin"));
    }
    return files;
  }

  private static List<Path> trainingBatches(Path folder) {
    try (Stream<Path> entries = Files.list(folder)) {
      return entries
          .filter(p -> p.getFileName().toString().matches("data_batch_[0-9]+\\.bin"))
          .sorted()
          .toList();
    } catch (IOException failure) {
      throw new DataException.Unreadable(
          folder, "the folder cannot be listed (" + failure + ")", failure);
    }
  }

  static Datasets read(Path folder, String name) {
    if (!cifar10Files(folder).isEmpty()) {
      List<String> classes =
          ClassNames.read(folder.resolve("batches.meta.txt"))
              .orElseGet(() -> ClassNames.numbers(10));
      List<Path> batches = trainingBatches(folder);
      if (batches.isEmpty()) {
        throw new DataException.Missing(
            folder.resolve("data_batch_1.bin").toString(),
            "no such file; CIFAR-10 binary needs data_batch_1.bin to data_batch_5.bin and"
                + " test_batch.bin");
      }
      return new Datasets(
          read(name, Split.TRAIN, batches, classes, false),
          read(name, Split.TEST, List.of(folder.resolve("test_batch.bin")), classes, false),
          List.of());
    }
    List<String> classes =
        ClassNames.read(folder.resolve("fine_label_names.txt"))
            .orElseGet(() -> ClassNames.numbers(100));
    return new Datasets(
        read(name, Split.TRAIN, List.of(folder.resolve("train.bin")), classes, true),
        read(name, Split.TEST, List.of(folder.resolve("test.bin")), classes, true),
        List.of());
  }

  private static ImageDataset read(
      String name, Split split, List<Path> files, List<String> classes, boolean coarse) {
    List<byte[]> images = new ArrayList<>();
    List<Integer> labels = new ArrayList<>();
    int record = (coarse ? 2 : 1) + 3 * PLANE;
    for (Path file : files) {
      try (FileInput in = FileInput.open(file)) {
        long bytes = in.remaining();
        if (bytes == 0 || bytes % record != 0) {
          throw in.malformed(
              bytes / record * record,
              "expected records of "
                  + record
                  + " bytes each, found "
                  + bytes
                  + " bytes: the last record is cut off after "
                  + bytes % record);
        }
        in.requireFits(bytes / record, record, bytes / record + " images of 32x32x3");
        for (long i = 0; i < bytes / record; i++) {
          if (coarse) {
            label(in, COARSE_CLASSES, "coarse label");
          }
          labels.add(label(in, classes.size(), "label"));
          images.add(interleave(in.readBytes(3 * PLANE, "image " + i)));
        }
        in.requireEnd();
      }
    }
    return ImageDataset.adopt(
        name,
        split,
        SIDE,
        SIDE,
        3,
        classes,
        images.toArray(byte[][]::new),
        labels.stream().mapToInt(Integer::intValue).toArray());
  }

  private static int label(FileInput in, int classes, String what) {
    long at = in.position();
    int label = in.readByte("a " + what);
    if (label >= classes) {
      throw in.malformed(at, what + " " + label + " is not in 0.." + (classes - 1));
    }
    return label;
  }

  private static byte[] interleave(byte[] planes) {
    byte[] image = new byte[planes.length];
    for (int p = 0; p < PLANE; p++) {
      for (int c = 0; c < 3; c++) {
        image[3 * p + c] = planes[c * PLANE + p];
      }
    }
    return image;
  }
}
