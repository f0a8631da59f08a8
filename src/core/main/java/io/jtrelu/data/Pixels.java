package io.jtrelu.data;

import java.awt.color.ColorSpace;
import java.awt.image.BufferedImage;
import java.awt.image.ColorModel;
import java.awt.image.ComponentColorModel;
import java.awt.image.DataBuffer;
import java.awt.image.IndexColorModel;
import java.awt.image.Raster;
import java.awt.image.WritableRaster;

/**
 * An image in memory: values [height, width, channels], unsigned bytes; 1 channel is gray, 3 are
 * red, green, blue. The array is the image's own.
 */
final class Pixels {
  private final int height;
  private final int width;
  private final int channels;
  private final byte[] values;

  private Pixels(int height, int width, int channels, byte[] values) {
    this.height = height;
    this.width = width;
    this.channels = channels;
    this.values = values;
  }

  /** Values that are not copied, and must not change. */
  static Pixels of(int height, int width, int channels, byte[] values) {
    return new Pixels(height, width, channels, values);
  }

  int height() {
    return height;
  }

  int width() {
    return width;
  }

  /** [height, width, channels], not copied. */
  byte[] values() {
    return values;
  }

  static Pixels allocate(int height, int width, int channels) {
    return new Pixels(
        height,
        width,
        channels,
        new byte[Math.multiplyExact(Math.multiplyExact(height, width), channels)]);
  }

  /**
   * Samples as they are stored, wherever the image has them as gray or red, green, blue: getRGB
   * would apply a gamma curve to grayscale and colour profiles to colour. Of more than 8 bits the
   * upper 8 are kept; alpha is dropped, premultiplied colours being divided by it first.
   */
  static Pixels of(BufferedImage image) {
    ColorModel model = image.getColorModel();
    if (model instanceof IndexColorModel palette) {
      return ofPalette(image.getRaster(), palette);
    }
    int space = model.getColorSpace().getType();
    boolean integers =
        image.getRaster().getTransferType() == DataBuffer.TYPE_BYTE
            || image.getRaster().getTransferType() == DataBuffer.TYPE_USHORT;
    if (model instanceof ComponentColorModel
        && integers
        && (space == ColorSpace.TYPE_GRAY || space == ColorSpace.TYPE_RGB)) {
      Raster raster = image.getRaster();
      if (model.isAlphaPremultiplied()) {
        WritableRaster copy = image.copyData(null);
        model.coerceData(copy, false);
        raster = copy;
      }
      return ofSamples(raster, space == ColorSpace.TYPE_GRAY ? 1 : 3);
    }
    Pixels pixels = allocate(image.getHeight(), image.getWidth(), 3);
    int[] row = new int[pixels.width];
    int at = 0;
    for (int y = 0; y < pixels.height; y++) {
      image.getRGB(0, y, row.length, 1, row, 0, row.length);
      for (int rgb : row) {
        pixels.values[at++] = (byte) (rgb >>> 16);
        pixels.values[at++] = (byte) (rgb >>> 8);
        pixels.values[at++] = (byte) rgb;
      }
    }
    return pixels;
  }

  /** The first bands of a raster of unsigned integers. */
  private static Pixels ofSamples(Raster raster, int channels) {
    Pixels pixels = allocate(raster.getHeight(), raster.getWidth(), channels);
    int bands = raster.getNumBands();
    int[] shift = new int[channels];
    for (int c = 0; c < channels; c++) {
      shift[c] = raster.getSampleModel().getSampleSize(c) - 8;
    }
    int[] row = new int[pixels.width * bands];
    int at = 0;
    for (int y = 0; y < pixels.height; y++) {
      raster.getPixels(raster.getMinX(), raster.getMinY() + y, pixels.width, 1, row);
      for (int x = 0; x < row.length; x += bands) {
        for (int c = 0; c < channels; c++) {
          int value = row[x + c];
          pixels.values[at++] = (byte) (shift[c] > 0 ? value >>> shift[c] : value);
        }
      }
    }
    return pixels;
  }

  private static Pixels ofPalette(Raster raster, IndexColorModel palette) {
    int[] colours = new int[palette.getMapSize()];
    palette.getRGBs(colours);
    boolean gray = true;
    for (int rgb : colours) {
      int blue = rgb & 0xff;
      gray &= ((rgb >>> 16) & 0xff) == blue && ((rgb >>> 8) & 0xff) == blue;
    }
    Pixels pixels = allocate(raster.getHeight(), raster.getWidth(), gray ? 1 : 3);
    int[] row = new int[pixels.width];
    int at = 0;
    for (int y = 0; y < pixels.height; y++) {
      raster.getSamples(raster.getMinX(), raster.getMinY() + y, pixels.width, 1, 0, row);
      for (int index : row) {
        int rgb = index < colours.length ? colours[index] : 0; // as libpng does: black
        for (int c = pixels.channels - 1; c >= 0; c--) {
          pixels.values[at++] = (byte) (rgb >>> (8 * c));
        }
      }
    }
    return pixels;
  }

  /**
   * Turned as an EXIF orientation asks: 2 mirrored, 3 turned by half, 4 upside down, 5 transposed,
   * 6 a quarter clockwise, 7 transposed along the other diagonal, 8 a quarter counter-clockwise.
   */
  Pixels turned(int orientation) {
    if (orientation == 1) {
      return this;
    }
    boolean transposed = orientation >= 5;
    boolean fromBottom =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    boolean fromRight =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    Pixels turned =
        transposed ? allocate(width, height, channels) : allocate(height, width, channels);
    int at = 0;
    for (int y = 0; y < turned.height; y++) {
      for (int x = 0; x < turned.width; x++) {
        int row = transposed ? x : y;
        int column = transposed ? y : x;
        row = fromBottom ? height - 1 - row : row;
        column = fromRight ? width - 1 - column : column;
        for (int c = 0; c < channels; c++) {
          turned.values[at++] = values[(row * width + column) * channels + c];
        }
      }
    }
    return turned;
  }

  /** Gray from colour by ITU-R BT.601's luma in 16-bit fixed point, colour from gray by copies. */
  Pixels withChannels(int wanted) {
    if (wanted == channels) {
      return this;
    }
    Pixels changed = allocate(height, width, wanted);
    byte[] dst = changed.values;
    for (int p = 0; p < height * width; p++) {
      if (wanted == 1) {
        int red = values[3 * p] & 0xff;
        int green = values[3 * p + 1] & 0xff;
        int blue = values[3 * p + 2] & 0xff;
        dst[p] = (byte) ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >>> 16);
      } else {
        dst[3 * p] = values[p];
        dst[3 * p + 1] = values[p];
        dst[3 * p + 2] = values[p];
      }
    }
    return changed;
  }

  /** Scaled until the size is covered, and cut around the centre. */
  Pixels covering(int wantedHeight, int wantedWidth) {
    return new Pixels(
        wantedHeight,
        wantedWidth,
        channels,
        Resampling.cover(values, height, width, channels, wantedHeight, wantedWidth));
  }

  /** A window, in pixels that may be parts, brought to a size. */
  Pixels window(
      double top, double left, double rows, double columns, int wantedHeight, int wantedWidth) {
    return new Pixels(
        wantedHeight,
        wantedWidth,
        channels,
        Resampling.window(
            values, height, width, channels, top, left, rows, columns, wantedHeight, wantedWidth));
  }
}
