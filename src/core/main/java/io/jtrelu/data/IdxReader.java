package io.jtrelu.data;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/**
 * IDX, the format of MNIST and its successors: images (magic 0x00000803, big-endian count, rows,
 * columns, then one byte per pixel) and labels (magic 0x00000801, count, then one byte each).
 *
 * <p>A file {@code classes.txt} beside them, one name a line, names the classes. Without it they
 * are numbered, and every number up to the largest must occur among the training labels: a gap is
 * how a damaged label shows.
 */
final class IdxReader {
  private static final int IMAGES_MAGIC = 0x803;
  private static final int LABELS_MAGIC = 0x801;
  private static final String[] SPLITS = {"train", "t10k"};

  private IdxReader() {}

  /** Whether the folder holds at least one of the four files. */
  static boolean recognizes(Path folder) {
    for (String split : SPLITS) {
      if (find(folder, split, "images", 3).isPresent()
          || find(folder, split, "labels", 1).isPresent()) {
        return true;
      }
    }
    return false;
  }

  static Datasets read(Path folder, String name, Optional<List<String>> knownClasses) {
    Optional<List<String>> classes =
        knownClasses.or(() -> ClassNames.read(folder.resolve("classes.txt")));
    ImageDataset train;
    try (FileInput images = require(folder, "train", "images", 3);
        FileInput labels = require(folder, "train", "labels", 1)) {
      train = read(name, Split.TRAIN, images, labels, classes);
    }
    try (FileInput images = require(folder, "t10k", "images", 3);
        FileInput labels = require(folder, "t10k", "labels", 1)) {
      ImageDataset test = read(name, Split.TEST, images, labels, Optional.of(train.classes()));
      if (test.height() != train.height() || test.width() != train.width()) {
        throw images.malformed(
            8,
            "images of "
                + test.height()
                + "x"
                + test.width()
                + ", but those to train with are "
                + train.height()
                + "x"
                + train.width());
      }
      return new Datasets(train, test, List.of());
    }
  }

  private static Optional<Path> find(Path folder, String split, String kind, int rank) {
    for (String dot : List.of("-", ".")) {
      for (String suffix : List.of("", ".gz")) {
        Path file = folder.resolve(split + "-" + kind + dot + "idx" + rank + "-ubyte" + suffix);
        if (Files.isRegularFile(file)) {
          return Optional.of(file);
        }
      }
    }
    return Optional.empty();
  }

  private static FileInput require(Path folder, String split, String kind, int rank) {
    return FileInput.open(
        find(folder, split, kind, rank)
            .orElseThrow(
                () ->
                    new DataException.Missing(
                        folder.resolve(split + "-" + kind + "-idx" + rank + "-ubyte.gz").toString(),
                        "no such file (nor without .gz); an IDX data set needs images and labels"
                            + " of train and t10k")));
  }

  static ImageDataset read(
      String name,
      Split split,
      FileInput images,
      FileInput labels,
      Optional<List<String>> knownClasses) {
    long count = header(images, IMAGES_MAGIC, "images");
    long height = images.readUnsignedInt("the number of rows");
    long width = images.readUnsignedInt("the number of columns");
    long labelCount = header(labels, LABELS_MAGIC, "labels");
    if (count == 0 || height == 0 || width == 0) {
      throw images.malformed(
          4, "expected images, found " + count + " of " + height + "x" + width + " pixels");
    }
    if (labelCount != count) {
      throw labels.malformed(
          4, "found " + labelCount + " labels for the " + count + " images of " + images.name());
    }
    labels.requireFits(count, 1, count + " labels");
    images.requireFits(
        count,
        height > Integer.MAX_VALUE || width > Integer.MAX_VALUE ? Long.MAX_VALUE : height * width,
        count + " images of " + height + "x" + width);
    if (count > Integer.MAX_VALUE - 8 || height * width > Integer.MAX_VALUE - 8) {
      throw new DataException.TooLarge(
          images.name(),
          count + " images of " + height + "x" + width + " pass 2^31 images or bytes per image");
    }

    // What was announced could be in the file; it is only allocated as it really comes.
    byte[] classOf = labels.readBytes((int) count, "the labels");
    labels.requireEnd();
    List<String> classes = knownClasses.orElseGet(() -> numbered(labels, classOf));
    int[] label = new int[(int) count];
    for (int i = 0; i < label.length; i++) {
      label[i] = classOf[i] & 0xff;
      if (label[i] >= classes.size()) {
        throw labels.malformed(
            8 + i,
            "label " + label[i] + " of image " + i + " is not in 0.." + (classes.size() - 1));
      }
    }
    byte[][] pixels = new byte[(int) count][];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = images.readBytes((int) (height * width), "image " + i);
    }
    images.requireEnd();
    return ImageDataset.adopt(name, split, (int) height, (int) width, 1, classes, pixels, label);
  }

  private static long header(FileInput in, int magic, String kind) {
    long found = in.readUnsignedInt("the magic number");
    if (found != magic) {
      throw in.malformed(
          0,
          String.format(
              "expected the magic number 0x%08x of IDX %s, found 0x%08x", magic, kind, found));
    }
    return in.readUnsignedInt("the number of " + kind);
  }

  private static List<String> numbered(FileInput labels, byte[] classOf) {
    int[] first = new int[257];
    Arrays.fill(first, -1);
    for (int i = classOf.length - 1; i >= 0; i--) {
      first[classOf[i] & 0xff] = i;
    }
    int classes = 0;
    while (first[classes] >= 0) {
      classes++;
    }
    for (int label = classes; label < 256; label++) {
      if (first[label] >= 0) {
        throw labels.malformed(
            8 + first[label],
            "label "
                + label
                + " of image "
                + first[label]
                + " is out of range: class "
                + classes
                + " has no image at all; where that is meant, name every class in a file"
                + " classes.txt, one a line");
      }
    }
    return ClassNames.numbers(classes);
  }
}
