package io.jtrelu.data;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.SortedMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.stream.IntStream;

/**
 * Images in files, read and decoded each time that they are asked for. Memory holds the {@link
 * ImageIndex}, and 4 bytes an image where it is a part of one.
 */
final class StreamedImages implements ImageSource {
  private final ImageIndex index;
  private final int[] rows;
  private final ImageDecoder decoder;
  private final Reading reading;
  private final SortedMap<Integer, String> bad = new ConcurrentSkipListMap<>();

  private StreamedImages(ImageIndex index, int[] rows, ImageDecoder decoder, Reading reading) {
    this.index = index;
    this.rows = rows;
    this.decoder = decoder;
    this.reading = reading;
  }

  static StreamedImages of(ImageIndex index, ImageDecoder decoder, Reading reading) {
    return new StreamedImages(index, IntStream.range(0, index.size()).toArray(), decoder, reading);
  }

  @Override
  public int size() {
    return rows.length;
  }

  @Override
  public byte[] image(int i) {
    return decoder.decode(index.read(rows[i]));
  }

  @Override
  public byte[] window(int i, Augmentation how, long seed, long epoch) {
    EncodedImage picture = index.read(rows[i]);
    return decoder.decode(
        picture, how.rectangle(picture.height(), picture.width(), seed, epoch, i));
  }

  /** Damage stays; that a file cannot be read may be over the next time. */
  @Override
  public boolean skips(int i, DataException failure) {
    boolean damaged =
        failure instanceof DataException.Malformed || failure instanceof DataException.TooLarge;
    if (!damaged || reading.onBadImage() == Reading.OnBadImage.STOP) {
      return false;
    }
    bad.put(i, String.valueOf(failure.getMessage()));
    return true;
  }

  @Override
  public List<String> skipped() {
    return List.copyOf(bad.values());
  }

  @Override
  public int threads() {
    return reading.threads();
  }

  @Override
  public StreamedImages subset(int[] indices) {
    int[] kept = IntStream.of(indices).map(i -> rows[i]).toArray();
    return new StreamedImages(index, kept, decoder, reading);
  }

  @Override
  public StreamedImages resized(int height, int width, int channels) {
    return new StreamedImages(index, rows, ImageDecoder.of(height, width, channels), reading);
  }

  /** All images in memory; bad ones are left out where they are skipped. */
  ImageDataset inMemory(String name, Split split, List<String> classes) {
    byte[][] images = new byte[rows.length][];
    reading.forEach(
        rows.length,
        i -> {
          try {
            images[i] = image(i);
          } catch (DataException failure) {
            if (!skips(i, failure)) {
              throw failure;
            }
          }
        });
    int[] kept = IntStream.range(0, images.length).filter(i -> !bad.containsKey(i)).toArray();
    byte[][] intact = new byte[kept.length][];
    int[] labels = new int[kept.length];
    int[] all = index.labels();
    for (int i = 0; i < kept.length; i++) {
      intact[i] = images[kept[i]];
      labels[i] = all[rows[kept[i]]];
    }
    List<String> notes = new ArrayList<>();
    if (!bad.isEmpty()) {
      notes.add(bad.size() + " bad images were left out: " + ImageDataset.some(skipped()) + ".");
    }
    return ImageDataset.adopt(
            name,
            split,
            decoder.height(),
            decoder.width(),
            decoder.channels(),
            classes,
            intact,
            labels)
        .withNotes(notes);
  }

  /** Hashes of each file its length (4 bytes) and its name, which zero ends. */
  void update(MessageDigest sha) {
    for (int row : rows) {
      ImageDataset.update(sha, index.length(row));
      sha.update(index.relativeName(row).getBytes(UTF_8));
      sha.update((byte) 0);
    }
  }
}
