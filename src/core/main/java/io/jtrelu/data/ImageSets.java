package io.jtrelu.data;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * Makes data sets of the files or members that a reader found: looks at headers for size and
 * colour, decides whether images lie in memory or are streamed, and reads them if they do.
 */
final class ImageSets {
  /** Streamed images whose headers are looked at. */
  static final int MOST_LOOKED_AT = 1000;

  private final Path folder;
  private final String name;
  private final Datasets.Options options;

  /** What is said last of how the set was read. */
  private final List<String> notes = new ArrayList<>();

  ImageSets(Path folder, String name, Datasets.Options options) {
    this.folder = folder;
    this.name = name;
    this.options = options;
  }

  /**
   * Images to learn from and to measure on.
   *
   * @param test null to hold a part of train out
   */
  Datasets open(List<String> classes, ImageIndex train, @Nullable ImageIndex test) {
    ImageIndex none = new ImageIndex.Builder().build();
    Opened opened = look(train, test == null ? none : test);
    ImageDataset learnFrom = make(opened, Split.TRAIN, classes, train);
    Datasets parts =
        test == null
            ? learnFrom.split(options.testFraction(), options.seed())
            : Datasets.of(learnFrom, make(opened, Split.TEST, classes, test));
    notes.addAll(parts.notes());
    return new Datasets(parts.train(), parts.test(), notes);
  }

  /** Images to measure on. */
  ImageDataset openOne(List<String> classes, ImageIndex images) {
    Opened opened = look(images, new ImageIndex.Builder().build());
    return make(opened, Split.TEST, classes, images).withNotes(notes);
  }

  private record Opened(ImageDecoder decoder, boolean streamed) {}

  private Opened look(ImageIndex train, ImageIndex test) {
    int count = train.size() + test.size();
    int height = options.height();
    int width = options.width();
    for (int i = 0; height == 0; i++) { // the first intact one's
      EncodedImage first = header(train, test, i, i + 1 == count);
      if (first != null) {
        height = first.height();
        width = first.width();
      }
    }
    Reading reading = options.reading();
    boolean streamed = isStreamed(reading.place(), count, height, width);
    int looked = streamed ? Math.min(MOST_LOOKED_AT, count) : count;
    AtomicBoolean gray = new AtomicBoolean(true);
    AtomicInteger resized = new AtomicInteger();
    int h = height;
    int w = width;
    reading.forEach(
        looked,
        i -> {
          EncodedImage image = header(train, test, (int) ((long) i * count / looked), false);
          if (image != null) {
            gray.compareAndSet(true, image.gray());
            resized.addAndGet(image.height() != h || image.width() != w ? 1 : 0);
          }
        });
    int channels = options.channels() > 0 ? options.channels() : gray.get() ? 1 : 3;
    if (resized.get() > 0) {
      notes.add(
          resized
              + " of "
              + looked
              + (streamed ? " images looked at are" : " images were")
              + " scaled and cut to "
              + height
              + "x"
              + width
              + (options.height() > 0 ? "." : ", the size of the first one."));
    }
    if (channels == 1 && !gray.get()) {
      notes.add("Images in colour were made gray, as asked for.");
    }
    if (streamed && looked < count && options.channels() == 0 && channels == 1) {
      notes.add(
          "Images are taken as gray, because "
              + looked
              + " that were looked at are; any in colour is made gray.");
    }
    if (!streamed) {
      FileInput.requireMemory(
          folder.toString(),
          (long) count * (16 + (long) height * width * channels),
          count + " images of " + height + "x" + width + "x" + channels);
    }
    return new Opened(ImageDecoder.of(height, width, channels), streamed);
  }

  private boolean isStreamed(Reading.Place place, int count, int height, int width) {
    if (place != Reading.Place.AUTO) {
      return place == Reading.Place.STREAM;
    }
    int channels = options.channels() > 0 ? options.channels() : 3;
    long bytes = (long) count * (16 + (long) height * width * channels);
    long room = Runtime.getRuntime().maxMemory() / 2;
    if (bytes > room) {
      notes.add(
          String.format(
              Locale.ROOT,
              "The images of %s are read from disk as they are needed: in memory they would take %,d"
                  + " MiB, more than %,d, half of what Java may use.",
              name,
              bytes >> 20,
              room >> 20));
    }
    return bytes > room;
  }

  /** The header of an image; null if it is bad and to be skipped. */
  private @Nullable EncodedImage header(ImageIndex train, ImageIndex test, int i, boolean last) {
    try {
      return i < train.size() ? train.read(i) : test.read(i - train.size());
    } catch (DataException.Malformed | DataException.TooLarge bad) {
      if (last || options.reading().onBadImage() == Reading.OnBadImage.STOP) {
        throw bad;
      }
      return null;
    }
  }

  private ImageDataset make(Opened how, Split split, List<String> classes, ImageIndex images) {
    if (how.streamed) {
      return ImageDataset.streamed(name, split, how.decoder, classes, images, options.reading());
    }
    ImageDataset stored =
        StreamedImages.of(images, how.decoder, options.reading()).inMemory(name, split, classes);
    notes.addAll(stored.notes());
    return stored.withNotes(List.of()); // said once, for both parts
  }
}
