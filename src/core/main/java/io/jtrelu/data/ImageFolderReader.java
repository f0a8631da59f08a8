package io.jtrelu.data;

import java.awt.color.ColorSpace;
import java.awt.image.BufferedImage;
import java.awt.image.ColorModel;
import java.awt.image.IndexColorModel;
import java.awt.image.Raster;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import javax.imageio.ImageReader;
import javax.imageio.ImageTypeSpecifier;
import javax.imageio.stream.MemoryCacheImageInputStream;

/**
 * Images (PNG, JPEG) in one folder per class; the folders' names, sorted, are the classes. Under
 * {@code train/} and {@code test/} (or {@code val/}), or directly, and then split.
 *
 * <p>All images are brought to one size, the option's or that of the first training image: scaled,
 * keeping their proportions, until they cover it, and cut around the centre. Images are grayscale
 * (1 channel) if every one of them is, else red, green, blue. Transparency is dropped.
 */
final class ImageFolderReader {
  /** Beyond any use in training; keeps a damaged header from asking for gigabytes. */
  private static final long MOST_PIXELS = 1L << 26;

  private static final int MOST_SIDE = 1 << 16;

  /** A black-and-white PNG packs 8 pixels into a byte, which deflate shrinks 1032 times. */
  private static final long MOST_PIXELS_PER_BYTE = 8 * 1032;

  private static final long MOST_FILE_BYTES = 1L << 28;

  private static final int SPLIT_STREAM = 3;

  private record Sample(Path file, int label) {}

  private record Header(int height, int width, boolean gray) {}

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
      Header header = header(sample.file());
      headers.add(header);
      gray &= header.gray();
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
    byte[][] images = new byte[samples.size()][];
    int[] labels = new int[samples.size()];
    for (int i = 0; i < images.length; i++) {
      Sample sample = samples.get(i);
      labels[i] = sample.label();
      BufferedImage image = withReader(sample.file(), reader -> reader.read(0));
      byte[] pixels = pixels(image, channels);
      images[i] =
          Resampling.cover(pixels, image.getHeight(), image.getWidth(), channels, height, width);
    }
    return ImageDataset.adopt(name, split, height, width, channels, classes, images, labels);
  }

  /** Size and colour, from the file's header alone. */
  private static Header header(Path file) {
    return withReader(
        file,
        reader -> {
          Iterator<ImageTypeSpecifier> types = reader.getImageTypes(0);
          boolean gray = types.hasNext() && isGray(types.next().getColorModel());
          return new Header(reader.getHeight(0), reader.getWidth(0), gray);
        });
  }

  private interface Decoding<T> {
    T from(ImageReader reader) throws IOException;
  }

  /** ImageIO's decoders answer damage with many unchecked exceptions; all mean the same here. */
  private static <T> T withReader(Path file, Decoding<T> decoding) {
    byte[] bytes;
    try {
      if (Files.size(file) > MOST_FILE_BYTES) {
        throw new DataException.TooLarge(
            file.toString(), "more than " + (MOST_FILE_BYTES >> 20) + " MiB for one image");
      }
      bytes = Files.readAllBytes(file);
    } catch (IOException failure) {
      throw new DataException.Unreadable(file, "cannot be read (" + failure + ")", failure);
    }
    Optional<ImageReader> found = Optional.empty();
    try (MemoryCacheImageInputStream in =
        new MemoryCacheImageInputStream(new ByteArrayInputStream(bytes))) {
      ImageReader reader = ImageIO.getImageReadersByFormatName(format(file, bytes)).next();
      found = Optional.of(reader);
      reader.setInput(in, true, true);
      int height = reader.getHeight(0);
      int width = reader.getWidth(0);
      long pixels = (long) height * width;
      String size = "the header says " + height + "x" + width + " pixels, ";
      if (pixels > MOST_PIXELS || height > MOST_SIDE || width > MOST_SIDE) {
        throw new DataException.TooLarge(
            file.toString(),
            size + "beyond the " + MOST_PIXELS + " (and " + MOST_SIDE + " a side) accepted");
      }
      if (pixels > MOST_PIXELS_PER_BYTE * bytes.length) {
        throw new DataException.Malformed(
            file.toString(), -1, size + "which " + bytes.length + " bytes cannot hold");
      }
      return decoding.from(reader);
    } catch (DataException known) {
      throw known;
    } catch (IOException | RuntimeException damage) {
      throw new DataException.Malformed(
          file.toString(),
          -1,
          "the image cannot be decoded (" + damage + "); it is damaged or of an unsupported kind",
          damage);
    } finally {
      found.ifPresent(ImageReader::dispose);
    }
  }

  /** By the first bytes, whatever the name says: other formats' decoders are not let in. */
  private static String format(Path file, byte[] bytes) {
    if (bytes.length > 1 && (bytes[0] & 0xff) == 0x89 && bytes[1] == 'P') {
      return "png";
    }
    if (bytes.length > 1 && (bytes[0] & 0xff) == 0xff && (bytes[1] & 0xff) == 0xd8) {
      return "jpeg";
    }
    throw new DataException.Malformed(
        file.toString(),
        0,
        bytes.length == 0
            ? "the file is empty"
            : "neither a PNG nor a JPEG image, whatever its name says");
  }

  private static boolean isGray(ColorModel model) {
    if (model instanceof IndexColorModel palette) {
      for (int i = 0; i < palette.getMapSize(); i++) {
        if (palette.getRed(i) != palette.getGreen(i) || palette.getRed(i) != palette.getBlue(i)) {
          return false;
        }
      }
      return true;
    }
    return model.getColorSpace().getType() == ColorSpace.TYPE_GRAY;
  }

  /** 8-bit samples as they are stored: getRGB would apply a gamma curve to grayscale. */
  private static byte[] pixels(BufferedImage image, int channels) {
    int height = image.getHeight();
    int width = image.getWidth();
    byte[] pixels = new byte[Math.multiplyExact(Math.multiplyExact(height, width), channels)];
    boolean samples =
        isGray(image.getColorModel()) && !(image.getColorModel() instanceof IndexColorModel);
    Raster raster = image.getRaster();
    int bits = raster.getSampleModel().getSampleSize(0);
    int at = 0;
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        if (samples) {
          int value = raster.getSample(x, y, 0);
          byte gray = (byte) (bits > 8 ? value >>> (bits - 8) : value);
          for (int c = 0; c < channels; c++) {
            pixels[at++] = gray;
          }
        } else {
          int rgb = image.getRGB(x, y);
          for (int c = 0; c < channels; c++) {
            pixels[at++] = (byte) (rgb >>> (16 - 8 * c)); // a gray palette: red is all there is
          }
        }
      }
    }
    return pixels;
  }
}
