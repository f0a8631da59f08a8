package io.jtrelu.data;

import java.util.Arrays;

/**
 * Random crop and horizontal flip of training images. What an image gets depends on (seed, epoch,
 * index of the image) alone.
 *
 * @param cropPadding the image is padded by this many black pixels on every side and a window of
 *     its own size is cut out at a uniformly random place; 0 for none
 * @param flip whether columns are reversed with probability 1/2
 */
public record Augmentation(int cropPadding, boolean flip) {
  /** Images as they are. */
  public static final Augmentation NONE = new Augmentation(0, false);

  private static final int STREAM = 2;

  /**
   * @throws IllegalArgumentException if the padding is negative or beyond 2^20
   */
  public Augmentation {
    if (cropPadding < 0 || cropPadding > 1 << 20) {
      throw new IllegalArgumentException("crop padding must be 0 to 2^20, got " + cropPadding);
    }
  }

  /** Whether images stay as they are. */
  public boolean isNone() {
    return cropPadding == 0 && !flip;
  }

  /**
   * Where an image of an epoch is cut out: its pixel at (y, x) becomes the source's at (y + dy,
   * (flip ? width - 1 - x : x) + dx), or black outside of it.
   *
   * @param dy rows down, from -cropPadding to cropPadding
   * @param dx columns to the right, likewise
   * @param flip whether columns are reversed
   */
  public record Window(int dy, int dx, boolean flip) {}

  /** The window of the image that {@code index} becomes in {@code epoch}. */
  public Window window(long seed, long epoch, int index) {
    long key = CounterRandom.key(seed, STREAM, epoch, index);
    int places = 2 * cropPadding + 1;
    return new Window(
        CounterRandom.below(key, 0, places) - cropPadding,
        CounterRandom.below(key, 1, places) - cropPadding,
        flip && CounterRandom.below(key, 2, 2) == 1);
  }

  /** Writes the image that {@code index} becomes in {@code epoch}; src and dst are [h, w, c]. */
  void apply(
      byte[] src,
      byte[] dst,
      int height,
      int width,
      int channels,
      long seed,
      long epoch,
      int index) {
    Window window = window(seed, epoch, index);
    int dy = window.dy();
    int dx = window.dx();
    int row = width * channels;
    int from = Math.max(0, -dx); // columns of dst that lie inside src
    int to = Math.min(width, width - dx);
    for (int y = 0; y < height; y++) {
      int at = y * row;
      int sy = y + dy;
      if (sy < 0 || sy >= height || from >= to) {
        Arrays.fill(dst, at, at + row, (byte) 0);
        continue;
      }
      Arrays.fill(dst, at, at + from * channels, (byte) 0);
      System.arraycopy(
          src,
          sy * row + (from + dx) * channels,
          dst,
          at + from * channels,
          (to - from) * channels);
      Arrays.fill(dst, at + to * channels, at + row, (byte) 0);
      if (window.flip()) {
        reverse(dst, at, width, channels);
      }
    }
  }

  private static void reverse(byte[] row, int at, int width, int channels) {
    for (int left = 0, right = width - 1; left < right; left++, right--) {
      for (int c = 0; c < channels; c++) {
        int a = at + left * channels + c;
        int b = at + right * channels + c;
        byte kept = row[a];
        row[a] = row[b];
        row[b] = kept;
      }
    }
  }
}
