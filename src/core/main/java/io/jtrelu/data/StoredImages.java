package io.jtrelu.data;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import java.lang.foreign.MemorySegment;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Images in Java memory, each an array of its own, so that the total may pass 2 GiB; or in memory
 * of the caller, one after the other.
 */
final class StoredImages implements ImageSource {
  private final int height;
  private final int width;
  private final int channels;
  private final List<byte[]> images;

  /** The arrays are not copied, and must not change. */
  StoredImages(int height, int width, int channels, byte[][] images) {
    this(height, width, channels, Arrays.asList(images));
    long bytes = (long) height * width * channels;
    for (int i = 0; i < images.length; i++) {
      if (images[i].length != bytes) {
        throw new IllegalArgumentException(
            "image " + i + " has " + images[i].length + " bytes instead of " + bytes);
      }
    }
  }

  private StoredImages(int height, int width, int channels, List<byte[]> images) {
    this.height = height;
    this.width = width;
    this.channels = channels;
    this.images = images;
  }

  /** Images of the caller, who keeps the memory alive and as it is. */
  static StoredImages over(int height, int width, int channels, MemorySegment pixels) {
    int bytes = Math.multiplyExact(Math.multiplyExact(height, width), channels);
    if (pixels.byteSize() % bytes != 0) {
      throw new IllegalArgumentException(
          pixels.byteSize() + " bytes are no whole number of images of " + bytes);
    }
    int count = Math.toIntExact(pixels.byteSize() / bytes);
    return new StoredImages(
        height, width, channels, new Copies(pixels, bytes, IntStream.range(0, count).toArray()));
  }

  /** Images that are copied from memory each time. */
  private static final class Copies extends AbstractList<byte[]> {
    private final MemorySegment pixels;
    private final int bytes; // of an image
    private final int[] indices;

    Copies(MemorySegment pixels, int bytes, int[] indices) {
      this.pixels = pixels;
      this.bytes = bytes;
      this.indices = indices;
    }

    @Override
    public byte[] get(int index) {
      return pixels.asSlice((long) indices[index] * bytes, bytes).toArray(JAVA_BYTE);
    }

    @Override
    public int size() {
      return indices.length;
    }

    /** Some of them. */
    Copies subset(int[] chosen) {
      return new Copies(pixels, bytes, IntStream.of(chosen).map(i -> indices[i]).toArray());
    }
  }

  StoredImages followedBy(StoredImages other) {
    List<byte[]> all = new ArrayList<>(images);
    all.addAll(other.images);
    return new StoredImages(height, width, channels, all);
  }

  @Override
  public int size() {
    return images.size();
  }

  @Override
  public byte[] image(int index) {
    return images.get(index);
  }

  @Override
  public byte[] window(int index, Augmentation how, long seed, long epoch) {
    Augmentation.Rectangle part = how.rectangle(height, width, seed, epoch, index);
    return Pixels.of(height, width, channels, images.get(index))
        .window(part.top(), part.left(), part.height(), part.width(), height, width)
        .values();
  }

  @Override
  public boolean skips(int index, DataException bad) {
    return false; // was looked at when it was read
  }

  @Override
  public List<String> skipped() {
    return List.of();
  }

  @Override
  public int threads() {
    return 1;
  }

  @Override
  public StoredImages subset(int[] indices) {
    return new StoredImages(
        height,
        width,
        channels,
        images instanceof Copies copies
            ? copies.subset(indices)
            : IntStream.of(indices).mapToObj(images::get).toList());
  }

  @Override
  public StoredImages resized(int newHeight, int newWidth, int newChannels) {
    byte[][] changed = new byte[images.size()][];
    for (int i = 0; i < changed.length; i++) {
      changed[i] =
          Pixels.of(height, width, channels, images.get(i))
              .withChannels(newChannels)
              .covering(newHeight, newWidth)
              .values();
    }
    return new StoredImages(newHeight, newWidth, newChannels, changed);
  }
}
