package io.jtrelu.data;

import java.util.Arrays;

/**
 * Random crop and horizontal flip of training images. What an image gets depends on (seed, epoch,
 * index of the image) alone.
 *
 * <p>There are two kinds of crop. With {@code cropPadding} a window of the image's own size is
 * shifted over it. With a {@code cropArea} below 1 a window of random area and proportions is cut
 * out and brought to the image's size (Szegedy et al., arXiv 1409.4842; torchvision's
 * RandomResizedCrop): its area is uniform between {@code cropArea} and 1 of the picture's, the
 * logarithm of width / height uniform between those of 3/4 and 4/3, its place uniform; after ten
 * draws that do not fit, the largest window of such proportions around the centre. The picture is
 * the file's where images are streamed, else the image as it lies in memory.
 *
 * @param cropPadding the image is padded by this many black pixels on every side and a window of
 *     its own size is cut out at a uniformly random place; 0 for none
 * @param flip whether columns are reversed with probability 1/2
 * @param cropArea smallest share of the picture's area that is cut out, above 0; 1 for no such crop
 */
public record Augmentation(int cropPadding, boolean flip, double cropArea) {
  /** Images as they are. */
  public static final Augmentation NONE = new Augmentation(0, false);

  private static final int STREAM = 2;
  private static final int TRIES = 10;

  /** Proportions (width / height) of a window lie between 1 / this and this. */
  private static final double PROPORTION = 4.0 / 3;

  /** A shifted window and a flip. */
  public Augmentation(int cropPadding, boolean flip) {
    this(cropPadding, flip, 1);
  }

  /**
   * @throws IllegalArgumentException if the padding is negative or beyond 2^20, the area is not
   *     above 0 and at most 1, or both kinds of crop are asked for
   */
  public Augmentation {
    if (!(cropArea > 0 && cropArea <= 1)) {
      throw new IllegalArgumentException(
          "the area of a crop must be above 0 and at most 1, got " + cropArea);
    }
    if (cropPadding > 0 && cropArea < 1) {
      throw new IllegalArgumentException(
          "one kind of crop: padding of " + cropPadding + ", or an area from " + cropArea);
    }
    if (cropPadding < 0 || cropPadding > 1 << 20) {
      throw new IllegalArgumentException("crop padding must be 0 to 2^20, got " + cropPadding);
    }
  }

  /** Whether images stay as they are. */
  public boolean isNone() {
    return cropPadding == 0 && !flip && cropArea == 1;
  }

  /** Whether images are shifted or mirrored, after any window of random area. */
  boolean shifts() {
    return cropPadding > 0 || flip;
  }

  /** Whether windows of random area are cut out. */
  boolean resizes() {
    return cropArea < 1;
  }

  /**
   * A part of a picture, in its pixels.
   *
   * @param top first row
   * @param left first column
   * @param height rows
   * @param width columns
   */
  public record Rectangle(int top, int left, int height, int width) {}

  /** The part of a picture that {@code index} becomes in {@code epoch}; all of it at area 1. */
  public Rectangle rectangle(int height, int width, long seed, long epoch, int index) {
    if (!resizes()) {
      return new Rectangle(0, 0, height, width);
    }
    long key = CounterRandom.key(seed, STREAM, epoch, index);
    double area = (double) height * width;
    for (int t = 0; t < TRIES; t++) {
      int first = 3 + 4 * t; // 0 to 2 are the window's
      double wanted = area * (cropArea + (1 - cropArea) * unit(key, first));
      double logarithm = StrictMath.log(PROPORTION) * (2 * unit(key, first + 1) - 1);
      double proportion = StrictMath.exp(logarithm);
      int w = (int) Math.round(Math.sqrt(wanted * proportion));
      int h = (int) Math.round(Math.sqrt(wanted / proportion));
      if (w >= 1 && h >= 1 && w <= width && h <= height) {
        return new Rectangle(
            CounterRandom.below(key, first + 2, height - h + 1),
            CounterRandom.below(key, first + 3, width - w + 1),
            h,
            w);
      }
    }
    int w = (int) Math.min(width, Math.max(1, Math.round(height * PROPORTION)));
    int h = (int) Math.min(height, Math.max(1, Math.round(width * PROPORTION)));
    return new Rectangle((height - h) / 2, (width - w) / 2, h, w);
  }

  /** Uniform in [0, 1), 53 bits. */
  private static double unit(long key, long n) {
    return (CounterRandom.value(key, n) >>> 11) * 0x1p-53;
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

  /**
   * Writes the image that {@code index} becomes in {@code epoch}, but for a window of random area,
   * which was cut out before; src and dst are [h, w, c].
   */
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
