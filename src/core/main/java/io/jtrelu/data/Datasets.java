package io.jtrelu.data;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * A training set and a test set with the same image size and the same classes, and how to open one.
 *
 * @param train images to learn from
 * @param test images to measure on
 * @param notes what the user should know about how they were read, one sentence each (a split that
 *     was drawn, images that were resized); often empty
 */
public record Datasets(ImageDataset train, ImageDataset test, List<String> notes) {
  /** The data set in the jar: a class-balanced subset of Fashion-MNIST. */
  public static final String EMBEDDED = "embedded";

  /** The full Fashion-MNIST, where it is installed. */
  public static final String FASHION_MNIST = "fashion-mnist";

  private static final String ACCEPTED =
      "accepted are embedded (10,000 + 2,000 images of Fashion-MNIST, in the jar), fashion-mnist"
          + " (all of it, where installed), or a folder with IDX files, CIFAR-10/100 binary files,"
          + " or images in one folder per class";

  private static final String RESOURCES = "fashion-mnist-subset/";

  /**
   * How image folders are read; other formats need no options.
   *
   * @param height rows that images are brought to, or 0 for those of the first training image
   * @param width columns that images are brought to, or 0 for those of the first training image
   * @param testFraction share of each class that is held out where the folder has no test images,
   *     above 0 and below 1
   * @param seed which images are held out
   */
  public record Options(int height, int width, double testFraction, long seed) {
    /** The first image's size; a fifth held out with seed 1. */
    public static final Options DEFAULT = new Options(0, 0, 0.2, 1);

    /**
     * @throws IllegalArgumentException if a size is negative or only one is given, or the fraction
     *     is not between 0 and 1
     */
    public Options {
      if (height < 0 || width < 0 || (height == 0) != (width == 0)) {
        throw new IllegalArgumentException(
            "image size must be two numbers of 1 or more, or 0x0, got " + height + "x" + width);
      }
      if (!(testFraction > 0 && testFraction < 1)) {
        throw new IllegalArgumentException(
            "the test fraction must be above 0 and below 1, got " + testFraction);
      }
    }
  }

  /**
   * @throws IllegalArgumentException if image sizes or classes differ
   */
  public Datasets {
    notes = List.copyOf(notes);
    if (train.height() != test.height()
        || train.width() != test.width()
        || train.channels() != test.channels()
        || !train.classes().equals(test.classes())) {
      throw new IllegalArgumentException(
          "train and test differ in image size or classes: " + train + "; " + test);
    }
  }

  /** As {@link #open(String, Options)} with {@link Options#DEFAULT}. */
  public static Datasets open(String spec) {
    return open(spec, Options.DEFAULT);
  }

  /**
   * Opens a data set by name or folder and reads all of it.
   *
   * @param spec {@link #EMBEDDED}, {@link #FASHION_MNIST}, or a folder. What a folder holds is
   *     found by looking, in this order: IDX files (train-images-idx3-ubyte[.gz] and its three
   *     companions), CIFAR-10 binary (data_batch_1.bin ..., test_batch.bin), CIFAR-100 binary
   *     (train.bin, test.bin; fine labels), image folders one per class (PNG, JPEG), under train/
   *     and test/ (or val/) or, without these, split by {@link Options#seed}
   * @param options how image folders are read
   * @throws DataException if the name is unknown, something is missing, or a file is not what it
   *     should be
   */
  public static Datasets open(String spec, Options options) {
    if (spec.equals(EMBEDDED)) {
      return embedded();
    }
    if (spec.equals(FASHION_MNIST)) {
      return fashionMnist(usualPlaces());
    }
    if (spec.isBlank()) {
      throw new DataException.UnknownName("data", "no name and no folder given; " + ACCEPTED);
    }
    Path folder;
    try {
      folder = Path.of(spec);
    } catch (InvalidPathException invalid) {
      throw new DataException.UnknownName(spec, "not a name or a folder; " + ACCEPTED);
    }
    if (Files.isDirectory(folder)) {
      return read(folder, options);
    }
    if (Files.exists(folder)) {
      throw new DataException.Missing(spec, "this is a file; give the folder it lies in");
    }
    if (folder.getNameCount() > 1 || folder.isAbsolute()) {
      throw new DataException.Missing(spec, "no such folder; " + ACCEPTED);
    }
    throw new DataException.UnknownName(
        spec, "no data set or folder of this name" + didYouMean(spec) + "; " + ACCEPTED);
  }

  private static Datasets read(Path folder, Options options) {
    Path last = folder.toAbsolutePath().normalize().getFileName();
    String name = last == null ? folder.toString() : last.toString();
    if (IdxReader.recognizes(folder)) {
      return IdxReader.read(folder, name, Optional.empty());
    }
    if (CifarReader.recognizes(folder)) {
      return CifarReader.read(folder, name);
    }
    if (ImageFolderReader.recognizes(folder)) {
      return ImageFolderReader.read(folder, name, options);
    }
    throw new DataException.Missing(
        folder.toString(),
        "no images found here: expected train-images-idx3-ubyte[.gz] (IDX), data_batch_1.bin"
            + " (CIFAR-10), train.bin (CIFAR-100), or one folder of PNG or JPEG images per class");
  }

  private static Datasets embedded() {
    List<String> classes = fashionClasses();
    try (FileInput trainImages = resource("train-images-idx3-ubyte.gz");
        FileInput trainLabels = resource("train-labels-idx1-ubyte.gz");
        FileInput testImages = resource("t10k-images-idx3-ubyte.gz");
        FileInput testLabels = resource("t10k-labels-idx1-ubyte.gz")) {
      return new Datasets(
          IdxReader.read(EMBEDDED, Split.TRAIN, trainImages, trainLabels, Optional.of(classes)),
          IdxReader.read(EMBEDDED, Split.TEST, testImages, testLabels, Optional.of(classes)),
          List.of());
    }
  }

  static Datasets fashionMnist(List<Path> places) {
    for (Path place : places) {
      if (Files.isDirectory(place) && IdxReader.recognizes(place)) {
        return IdxReader.read(place, FASHION_MNIST, Optional.of(fashionClasses()));
      }
    }
    throw new DataException.Missing(
        FASHION_MNIST,
        "not installed (looked in "
            + String.join(", ", places.stream().map(Path::toString).toList())
            + "); on Debian and Ubuntu: sudo apt-get install dataset-fashion-mnist. Elsewhere:"
            + " download the four .gz files named at"
            + " https://github.com/zalandoresearch/fashion-mnist and pass their folder instead of"
            + " the name. The smaller subset, embedded, needs nothing");
  }

  private static List<Path> usualPlaces() {
    Path home = Path.of(System.getProperty("user.home", "."));
    return List.of(
        Path.of("/usr/share/datasets/fashion-mnist"), // Debian
        home.resolve(".keras/datasets/fashion-mnist"), // Keras
        home.resolve("data/FashionMNIST/raw"), // torchvision
        Path.of("data/FashionMNIST/raw"),
        Path.of("data/fashion-mnist"));
  }

  private static List<String> fashionClasses() {
    try (FileInput in = resource("classes.txt")) {
      return ClassNames.parse(in);
    }
  }

  private static FileInput resource(String file) {
    String name = RESOURCES + file;
    try (InputStream in = Datasets.class.getResourceAsStream(name)) {
      if (in == null) {
        throw new DataException.Missing(
            EMBEDDED, "the resource " + name + " is not in this jar; build it again");
      }
      return FileInput.of("embedded " + file, in.readAllBytes());
    } catch (IOException failure) {
      throw new DataException.Malformed(
          "embedded " + file, -1, "cannot be read from the jar (" + failure + ")", failure);
    }
  }

  private static String didYouMean(String spec) {
    String lower = spec.toLowerCase(Locale.ROOT);
    return List.of(EMBEDDED, FASHION_MNIST).stream()
        .min(Comparator.comparingInt(known -> editDistance(lower, known)))
        .filter(known -> editDistance(lower, known) <= known.length() / 2)
        .map(known -> "; did you mean " + known + "?")
        .orElse("");
  }

  private static int editDistance(String a, String b) {
    int[] row = new int[b.length() + 1];
    for (int j = 0; j <= b.length(); j++) {
      row[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int replaced = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(replaced, 1 + Math.min(row[j], row[j - 1]));
      }
    }
    return row[b.length()];
  }
}
