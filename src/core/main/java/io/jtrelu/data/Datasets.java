package io.jtrelu.data;

import io.jtrelu.tensor.PrintableText;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * A training set and a test set with the same image size and the same classes, and how to open one.
 *
 * @param train images to learn from
 * @param test images to measure on
 * @param notes what the user should know about how they were read, one sentence each (a split that
 *     was drawn, images that were resized, files that were passed over, images of one colour);
 *     often empty. Control characters are spelt out
 */
public record Datasets(ImageDataset train, ImageDataset test, List<String> notes) {
  /** The data set in the jar jtrelu-sample-images: a class-balanced subset of Fashion-MNIST. */
  public static final String EMBEDDED = "embedded";

  /** The full Fashion-MNIST, where it is installed. */
  public static final String FASHION_MNIST = "fashion-mnist";

  private static final String ACCEPTED =
      "accepted are embedded (10,000 + 2,000 images of Fashion-MNIST, in a jar), fashion-mnist"
          + " (all of it, where installed), or a folder with IDX files, CIFAR-10/100 binary files,"
          + " shards (.tar), or images in one folder per class";

  /** As the authors of Fashion-MNIST name them. */
  private static final List<String> FASHION_CLASSES =
      List.of(
          "T-shirt/top",
          "Trouser",
          "Pullover",
          "Dress",
          "Coat",
          "Sandal",
          "Shirt",
          "Sneaker",
          "Bag",
          "Ankle boot");

  private static final String RESOURCES = "io/jtrelu/data/fashion-mnist-subset/";

  /**
   * What images are brought to, and how a folder of images without a test part is split.
   *
   * <p>Images of another size or number of channels are changed as {@link ImageDecoder} says:
   * scaled until they cover the size, and cut around the centre.
   *
   * @param height rows that images are brought to, or 0 to leave them (in image folders: those of
   *     the first training image)
   * @param width columns, likewise
   * @param channels 1 for gray, 3 for red, green, blue, or 0 to leave them (in image folders: 1 if
   *     every image is gray)
   * @param testFraction share of each class that is held out where the folder has no test images,
   *     above 0 and below 1
   * @param seed which images are held out
   * @param reading how image folders and shards are read; other data always lie in memory
   */
  public record Options(
      int height, int width, int channels, double testFraction, long seed, Reading reading) {
    /** Images as they are; a fifth held out with seed 1. */
    public static final Options DEFAULT = new Options(0, 0, 0, 0.2, 1);

    /** Read in the default way. */
    public Options(int height, int width, int channels, double testFraction, long seed) {
      this(height, width, channels, testFraction, seed, Reading.DEFAULT);
    }

    /** Channels as they are. */
    public Options(int height, int width, double testFraction, long seed) {
      this(height, width, 0, testFraction, seed);
    }

    /** The default but for what images are brought to, for example a model's input. */
    public static Options size(int height, int width, int channels) {
      return new Options(height, width, channels, DEFAULT.testFraction, DEFAULT.seed);
    }

    /** The same, read in another way. */
    public Options reading(Reading how) {
      return new Options(height, width, channels, testFraction, seed, how);
    }

    /**
     * @throws IllegalArgumentException if a size is negative or only one is given, the channels are
     *     not 0, 1 or 3, or the fraction is not between 0 and 1
     */
    public Options {
      if (height < 0 || width < 0 || (height == 0) != (width == 0)) {
        throw new IllegalArgumentException(
            "image size must be two numbers of 1 or more, or 0x0, got " + height + "x" + width);
      }
      if (channels != 0 && channels != 1 && channels != 3) {
        throw new IllegalArgumentException(
            "images can have 1 or 3 channels, or 0 to leave them, got " + channels);
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
    notes = notes.stream().map(PrintableText::of).toList();
    if (train.height() != test.height()
        || train.width() != test.width()
        || train.channels() != test.channels()
        || !train.classes().equals(test.classes())) {
      throw new IllegalArgumentException(
          "train and test differ in image size or classes: " + train + "; " + test);
    }
  }

  /**
   * Two data sets of the caller, without notes.
   *
   * @throws IllegalArgumentException if image sizes or classes differ
   */
  public static Datasets of(ImageDataset train, ImageDataset test) {
    return new Datasets(train, test, List.of());
  }

  /** The same with these notes before its own. */
  Datasets noting(List<String> before) {
    return new Datasets(train, test, Stream.concat(before.stream(), notes.stream()).toList());
  }

  /** As {@link #open(String, Options)} with {@link Options#DEFAULT}. */
  public static Datasets open(String spec) {
    return open(spec, Options.DEFAULT);
  }

  /**
   * Opens a data set by name or folder, and reads all of it unless it is to be streamed.
   *
   * @param spec {@link #EMBEDDED}, {@link #FASHION_MNIST}, or a folder. What a folder holds is
   *     found by looking, in this order: IDX files (train-images-idx3-ubyte[.gz] and its three
   *     companions), CIFAR-10 binary (data_batch_1.bin ..., test_batch.bin), CIFAR-100 binary
   *     (train.bin, test.bin; fine labels), shards (tar files as WebDataset lays them out: KEY.jpg
   *     and KEY.cls), image folders one per class (PNG, JPEG); these two under train/ and test/ (or
   *     val/, valid/, validation/; training/ and testing/ too, in any case) or, without these,
   *     split by {@link Options#seed}. Two parts to measure on are refused
   * @param options what images are brought to, and how a folder is split
   * @throws DataException if the name is unknown, something is missing, a file is not what it
   *     should be, or there is one class only
   */
  public static Datasets open(String spec, Options options) {
    Datasets data =
        folderOf(spec).map(folder -> read(folder, options)).orElseGet(() -> named(spec));
    List<String> classes = data.train.classes();
    if (classes.size() < 2) {
      throw new DataException.OneClass(
          spec,
          "its images are all of one class, "
              + String.join("", classes)
              + ", so that there is nothing to learn; give each class a folder or label of its"
              + " own");
    }
    List<String> notes = new ArrayList<>(data.notes);
    ImageDataset train = brought(data.train, options);
    ImageDataset test = brought(data.test, options);
    notes.addAll(train.notes());
    notes.addAll(train.oddities());
    notes.addAll(test.oddities());
    return new Datasets(train, test, notes);
  }

  /**
   * These images with their classes in another order, where the names are the same: most often that
   * of a model. Other classes stay as they are.
   */
  public Datasets likeClasses(List<String> order) {
    if (train.classes().equals(order)
        || train.classes().size() != order.size()
        || !new HashSet<>(train.classes()).equals(new HashSet<>(order))) {
      return this;
    }
    return new Datasets(train.withClasses(order), test.withClasses(order), notes);
  }

  /**
   * Opens the images to measure on: the test part of a data set, or all of an image folder without
   * parts, or without a part to learn from. No split is drawn.
   *
   * @param spec as for {@link #open(String, Options)}
   * @param options what images are brought to, most often a model's size
   * @return the images; its {@link ImageDataset#notes} are what {@link #notes} is for both parts
   * @throws DataException as {@link #open(String, Options)} throws; one class is enough
   */
  public static ImageDataset openTest(String spec, Options options) {
    Optional<Path> images = folderOf(spec).filter(Datasets::isImageFolder);
    ImageDataset test;
    if (images.isPresent()) {
      Path folder = images.get();
      test =
          ShardReader.recognizes(folder)
              ? ShardReader.readTest(folder, nameOf(folder), options)
              : ImageFolderReader.readTest(folder, nameOf(folder), options);
    } else {
      Datasets data = folderOf(spec).map(f -> read(f, options)).orElseGet(() -> named(spec));
      test = data.test.withNotes(data.notes);
    }
    return toMeasureOn(brought(test, options));
  }

  /**
   * Opens all images of a data set as one, those of train before those of test. No split is drawn.
   *
   * @param spec as for {@link #open(String, Options)}
   * @param options what images are brought to, most often a model's size
   * @return the images, as {@link Split#TEST}; its {@link ImageDataset#notes} are what {@link
   *     #notes} is for both parts
   * @throws DataException as {@link #open(String, Options)} throws; one class is enough
   */
  public static ImageDataset openWhole(String spec, Options options) {
    Optional<Path> images = folderOf(spec).filter(Datasets::isImageFolder);
    ImageDataset whole;
    if (images.isPresent()) {
      Path folder = images.get();
      whole =
          ShardReader.recognizes(folder)
              ? ShardReader.readWhole(folder, nameOf(folder), options)
              : ImageFolderReader.readWhole(folder, nameOf(folder), options);
    } else {
      Datasets data = folderOf(spec).map(f -> read(f, options)).orElseGet(() -> named(spec));
      whole = data.train.followedBy(data.test).withNotes(data.notes);
    }
    return toMeasureOn(brought(whole, options));
  }

  private static ImageDataset brought(ImageDataset images, Options options) {
    return images.resized(
        options.height > 0 ? options.height : images.height(),
        options.width > 0 ? options.width : images.width(),
        options.channels > 0 ? options.channels : images.channels());
  }

  private static ImageDataset toMeasureOn(ImageDataset images) {
    List<String> notes = new ArrayList<>(images.notes());
    notes.addAll(images.oddities());
    return images.withNotes(notes);
  }

  private static boolean isImageFolder(Path folder) {
    return !IdxReader.recognizes(folder)
        && !CifarReader.recognizes(folder)
        && (ShardReader.recognizes(folder) || ImageFolderReader.recognizes(folder));
  }

  private static Datasets named(String name) {
    return name.equals(EMBEDDED) ? embedded() : fashionMnist(usualPlaces());
  }

  /** The folder that is meant, or none where it is a name that is known. */
  private static Optional<Path> folderOf(String spec) {
    if (spec.equals(EMBEDDED) || spec.equals(FASHION_MNIST)) {
      return Optional.empty();
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
      return Optional.of(folder);
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

  private static String nameOf(Path folder) {
    Path last = folder.toAbsolutePath().normalize().getFileName();
    return last == null ? folder.toString() : last.toString();
  }

  private static Datasets read(Path folder, Options options) {
    String name = nameOf(folder);
    if (IdxReader.recognizes(folder)) {
      return IdxReader.read(folder, name, Optional.empty());
    }
    if (CifarReader.recognizes(folder)) {
      return CifarReader.read(folder, name);
    }
    if (ShardReader.recognizes(folder)) {
      return ShardReader.read(folder, name, options);
    }
    if (ImageFolderReader.recognizes(folder)) {
      return ImageFolderReader.read(folder, name, options);
    }
    throw new DataException.Missing(
        folder.toString(),
        "no images found here: expected train-images-idx3-ubyte[.gz] (IDX), data_batch_1.bin"
            + " (CIFAR-10), train.bin (CIFAR-100), shards (.tar), or one folder of PNG or JPEG"
            + " images per class");
  }

  private static Datasets embedded() {
    try (FileInput trainImages = resource("train-images-idx3-ubyte.gz");
        FileInput trainLabels = resource("train-labels-idx1-ubyte.gz");
        FileInput testImages = resource("t10k-images-idx3-ubyte.gz");
        FileInput testLabels = resource("t10k-labels-idx1-ubyte.gz")) {
      return new Datasets(
          IdxReader.read(
              EMBEDDED, Split.TRAIN, trainImages, trainLabels, Optional.of(FASHION_CLASSES)),
          IdxReader.read(
              EMBEDDED, Split.TEST, testImages, testLabels, Optional.of(FASHION_CLASSES)),
          List.of());
    }
  }

  static Datasets fashionMnist(List<Path> places) {
    for (Path place : places) {
      if (Files.isDirectory(place) && IdxReader.recognizes(place)) {
        return IdxReader.read(place, FASHION_MNIST, Optional.of(FASHION_CLASSES));
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

  private static FileInput resource(String file) {
    // Of the loader, which sees the jar of the images; the class sees its own module alone.
    ClassLoader loader =
        Objects.requireNonNullElse(
            Datasets.class.getClassLoader(), ClassLoader.getSystemClassLoader());
    try (InputStream in = loader.getResourceAsStream(RESOURCES + file)) {
      if (in == null) {
        throw new DataException.Missing(
            EMBEDDED,
            "its images are a jar of their own, which is not there: add the dependency"
                + " io.jtrelu:jtrelu-sample-images (no resource "
                + RESOURCES
                + file
                + ")");
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
