package io.jtrelu.data;

import java.util.List;

/**
 * Labelled images of one size, 8 bits per channel, in Java memory. Immutable and safe to share
 * between threads. Each image is an array of its own (rows, then columns, then channels), so that
 * the total may pass 2 GiB.
 */
public final class ImageDataset {
  private final String name;
  private final Split split;
  private final int height;
  private final int width;
  private final int channels;
  private final List<String> classes;
  private final byte[][] images;
  private final int[] labels;

  private ImageDataset(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      byte[][] images,
      int[] labels) {
    this.name = name;
    this.split = split;
    this.height = height;
    this.width = width;
    this.channels = channels;
    this.classes = List.copyOf(classes);
    this.images = images;
    this.labels = labels;
    if (height < 1 || width < 1 || channels < 1) {
      throw new IllegalArgumentException(
          "images need extents of 1 or more, got " + height + "x" + width + "x" + channels);
    }
    if (images.length != labels.length) {
      throw new IllegalArgumentException(
          images.length + " images but " + labels.length + " labels");
    }
    long bytes = (long) height * width * channels;
    for (int i = 0; i < images.length; i++) {
      if (images[i].length != bytes) {
        throw new IllegalArgumentException(
            "image " + i + " has " + images[i].length + " bytes instead of " + bytes);
      }
      if (labels[i] < 0 || labels[i] >= this.classes.size()) {
        throw new IllegalArgumentException(
            "label " + labels[i] + " of image " + i + " is not in 0.." + (this.classes.size() - 1));
      }
    }
  }

  /**
   * Images that the caller has, copied.
   *
   * @param name what to call the data set
   * @param split train or test
   * @param height rows of each image
   * @param width columns of each image
   * @param channels values per location (1 grayscale, 3 colour)
   * @param classes names of the classes, in label order
   * @param images one array per image, [height, width, channels], values 0..255
   * @param labels class of each image, from 0
   * @throws IllegalArgumentException if counts or sizes disagree or a label has no class
   */
  public static ImageDataset of(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      byte[][] images,
      int[] labels) {
    byte[][] copies = new byte[images.length][];
    for (int i = 0; i < copies.length; i++) {
      copies[i] = images[i].clone();
    }
    return adopt(name, split, height, width, channels, classes, copies, labels.clone());
  }

  /** As {@link #of}, without copies: for readers in this package, which keep no reference. */
  static ImageDataset adopt(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      byte[][] images,
      int[] labels) {
    return new ImageDataset(name, split, height, width, channels, classes, images, labels);
  }

  /** What the data set is called: {@code embedded}, {@code fashion-mnist}, or its folder's name. */
  public String name() {
    return name;
  }

  /** Train or test. */
  public Split split() {
    return split;
  }

  /** Number of images. */
  public int size() {
    return images.length;
  }

  /** Rows of each image. */
  public int height() {
    return height;
  }

  /** Columns of each image. */
  public int width() {
    return width;
  }

  /** Values per location: 1 grayscale, 3 colour (red, green, blue). */
  public int channels() {
    return channels;
  }

  /** Names of the classes, in label order. */
  public List<String> classes() {
    return classes;
  }

  /** Class of an image, from 0. */
  public int label(int index) {
    return labels[index];
  }

  /** A copy of an image: [height, width, channels], each value 0..255 in an unsigned byte. */
  public byte[] image(int index) {
    return images[index].clone();
  }

  /** The image itself: for reading, within this package. */
  byte[] pixels(int index) {
    return images[index];
  }

  @Override
  public String toString() {
    return name
        + " "
        + split
        + ": "
        + size()
        + " images of "
        + height
        + "x"
        + width
        + "x"
        + channels
        + ", "
        + classes.size()
        + " classes";
  }
}
