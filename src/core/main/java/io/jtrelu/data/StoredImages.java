package io.jtrelu.data;

import java.util.Arrays;
import java.util.List;

/** Images in Java memory, each an array of its own, so that the total may pass 2 GiB. */
final class StoredImages implements ImageSource {
  private final int height;
  private final int width;
  private final int channels;
  private final byte[][] images;

  /** The arrays are not copied, and must not change. */
  StoredImages(int height, int width, int channels, byte[][] images) {
    this.height = height;
    this.width = width;
    this.channels = channels;
    this.images = images;
    long bytes = (long) height * width * channels;
    for (int i = 0; i < images.length; i++) {
      if (images[i].length != bytes) {
        throw new IllegalArgumentException(
            "image " + i + " has " + images[i].length + " bytes instead of " + bytes);
      }
    }
  }

  StoredImages followedBy(StoredImages other) {
    byte[][] all = Arrays.copyOf(images, images.length + other.images.length);
    System.arraycopy(other.images, 0, all, images.length, other.images.length);
    return new StoredImages(height, width, channels, all);
  }

  @Override
  public int size() {
    return images.length;
  }

  @Override
  public byte[] image(int index) {
    return images[index];
  }

  @Override
  public byte[] window(int index, Augmentation how, long seed, long epoch) {
    Augmentation.Rectangle part = how.rectangle(height, width, seed, epoch, index);
    return Pixels.of(height, width, channels, images[index])
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
    byte[][] kept = new byte[indices.length][];
    for (int i = 0; i < kept.length; i++) {
      kept[i] = images[indices[i]];
    }
    return new StoredImages(height, width, channels, kept);
  }

  @Override
  public StoredImages resized(int newHeight, int newWidth, int newChannels) {
    byte[][] changed = new byte[images.length][];
    for (int i = 0; i < changed.length; i++) {
      changed[i] =
          Pixels.of(height, width, channels, images[i])
              .withChannels(newChannels)
              .covering(newHeight, newWidth)
              .values();
    }
    return new StoredImages(newHeight, newWidth, newChannels, changed);
  }
}
