package io.jtrelu.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Stream;

/**
 * Images (PNG, JPEG) in one folder per class; the folders' names, sorted, are the classes. Under
 * {@code train/} and {@code test/} (or {@code val/}), or directly, and then split.
 *
 * <p>All images are brought to one size, the option's or that of the first training image: scaled,
 * keeping their proportions, until they cover it, and cut around the centre. Images are grayscale
 * (1 channel) if every one of them is, else red, green, blue. {@link ImageDecoder} says the rest.
 */
final class ImageFolderReader {
  private static final int SPLIT_STREAM = 3;

  private record Sample(Path file, int label) {}

  private record Header(int height, int width) {}

  private ImageFolderReader() {}

  static boolean recognizes(Path folder) {
    return subfolders(folder).stream()
        .anyMatch(f -> !images(f).isEmpty() || (isSplit(f) && !subfolders(f).isEmpty()));
  }

  private static boolean isSplit(Path folder) {
    return Set.of("train", "test", "val").contains(folder.getFileName().toString());
  }

  static Datasets read(Path folder, String name, Datasets.Options options) {
    List<String> notes = new ArrayList<>();
    List<String> classes;
    List<Sample> train = new ArrayList<>();
    List<Sample> test = new ArrayList<>();
    Path trainFolder = folder.resolve("train");
    if (Files.isDirectory(trainFolder) && !subfolders(trainFolder).isEmpty()) {
      Path testFolder =
          Stream.of("test", "val")
              .map(folder::resolve)
              .filter(Files::isDirectory)
              .findFirst()
              .orElse(trainFolder);
      classes = classesOf(trainFolder);
      collect(trainFolder, classes, train);
      if (testFolder.equals(trainFolder)) {
        split(name, train, test, classes, options, notes);
      } else {
        List<String> tested = classesOf(testFolder);
        if (tested.isEmpty()) {
          throw new DataException.Missing(
              testFolder.toString(),
              "no class folders here; fill it, or remove it to have images held out of train/");
        }
        for (String found : tested) {
          if (!classes.contains(found)) {
            throw new DataException.Malformed(
                testFolder.resolve(found).toString(),
                -1,
                "a class that has no folder in " + trainFolder + "; both need the same classes");
          }
        }
        collect(testFolder, classes, test);
      }
    } else {
      classes = classesOf(folder);
      collect(folder, classes, train);
      split(name, train, test, classes, options, notes);
    }

    boolean gray = true;
    List<Header> headers = new ArrayList<>();
    for (Sample sample : Stream.concat(train.stream(), test.stream()).toList()) {
      EncodedImage image = EncodedImage.read(sample.file());
      headers.add(new Header(image.height(), image.width()));
      gray &= image.gray();
    }
    int height = options.height() > 0 ? options.height() : headers.getFirst().height();
    int width = options.width() > 0 ? options.width() : headers.getFirst().width();
    int channels = gray ? 1 : 3;
    long resized = headers.stream().filter(h -> h.height() != height || h.width() != width).count();
    if (resized > 0) {
      notes.add(
          resized
              + " of "
              + headers.size()
              + " images were scaled and cut to "
              + height
              + "x"
              + width
              + (options.height() > 0 ? "." : ", the size of the first one."));
    }
    FileInput.requireMemory(
        folder.toString(),
        (long) headers.size() * (16 + (long) height * width * channels),
        headers.size() + " images of " + height + "x" + width + "x" + channels);
    return new Datasets(
        decode(name, Split.TRAIN, height, width, channels, classes, train),
        decode(name, Split.TEST, height, width, channels, classes, test),
        notes);
  }

  /** Holds out a part of each class, chosen by seed; both parts keep their order. */
  private static void split(
      String name,
      List<Sample> train,
      List<Sample> test,
      List<String> classes,
      Datasets.Options options,
      List<String> notes) {
    Set<Sample> heldOut = new HashSet<>();
    for (int label = 0; label < classes.size(); label++) {
      int wanted = label;
      List<Sample> ofClass =
          new ArrayList<>(train.stream().filter(s -> s.label() == wanted).toList());
      int count = ofClass.size();
      if (count < 2) {
        throw new DataException.Malformed(
            ofClass.getFirst().file().toString(),
            -1,
            "the only image of class "
                + classes.get(label)
                + "; splitting needs at least 2 per class, one to learn from and one to test with");
      }
      int held = Math.clamp(Math.round(count * options.testFraction()), 1, count - 1);
      long key = CounterRandom.key(options.seed(), SPLIT_STREAM, label);
      for (int i = 0; i < held; i++) {
        heldOut.add(ofClass.remove(CounterRandom.below(key, i, ofClass.size())));
      }
    }
    for (Sample sample : train) {
      if (heldOut.contains(sample)) {
        test.add(sample);
      }
    }
    train.removeIf(heldOut::contains);
    notes.add(
        name
            + " has no test/ folder: "
            + test.size()
            + " images were held out for testing, "
            + Math.round(100 * options.testFraction())
            + " % of each class, chosen by seed "
            + options.seed()
            + ".");
  }

  private static List<String> classesOf(Path folder) {
    return subfolders(folder).stream().map(p -> p.getFileName().toString()).toList();
  }

  private static void collect(Path folder, List<String> classes, List<Sample> samples) {
    for (int label = 0; label < classes.size(); label++) {
      Path classFolder = folder.resolve(classes.get(label));
      if (!Files.exists(classFolder)) {
        continue; // a class without test images
      }
      List<Path> files = images(classFolder);
      if (files.isEmpty()) {
        throw new DataException.Missing(
            classFolder.toString(),
            "no PNG or JPEG images in this folder, which must hold those of class "
                + classes.get(label)
                + "; remove the folder or fill it");
      }
      for (Path file : files) {
        samples.add(new Sample(file, label));
      }
    }
  }

  private static List<Path> subfolders(Path folder) {
    return list(folder).stream().filter(Files::isDirectory).toList();
  }

  private static List<Path> images(Path folder) {
    return Files.isDirectory(folder)
        ? list(folder).stream()
            .filter(
                p ->
                    p.getFileName()
                        .toString()
                        .toLowerCase(Locale.ROOT)
                        .matches(".*\\.(png|jpg|jpeg)"))
            .filter(Files::isRegularFile)
            .toList()
        : List.of();
  }

  /** Entries that are not hidden, sorted by name, so that the order is the same everywhere. */
  private static List<Path> list(Path folder) {
    try (Stream<Path> entries = Files.list(folder)) {
      return entries
          .filter(p -> !p.getFileName().toString().startsWith("."))
          .sorted((a, b) -> a.getFileName().toString().compareTo(b.getFileName().toString()))
          .toList();
    } catch (IOException failure) {
      throw new DataException.Unreadable(
          folder, "the folder cannot be listed (" + failure + ")", failure);
    }
  }

  private static ImageDataset decode(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      List<Sample> samples) {
    ImageDecoder decoder = ImageDecoder.of(height, width, channels);
    byte[][] images = new byte[samples.size()][];
    int[] labels = new int[samples.size()];
    for (int i = 0; i < images.length; i++) {
      Sample sample = samples.get(i);
      labels[i] = sample.label();
      images[i] = decoder.decode(sample.file());
    }
    return ImageDataset.adopt(name, split, height, width, channels, classes, images, labels);
  }
}
