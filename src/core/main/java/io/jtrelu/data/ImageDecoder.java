package io.jtrelu.data;

import java.awt.image.BufferedImage;
import java.nio.file.Path;

/**
 * Makes of a picture what a network takes: 8-bit pixels of one size and number of channels, the
 * same from everywhere, for training data ({@link Datasets}) and for single pictures alike.
 *
 * <p><b>Formats.</b> PNG (all depths, palettes, interlaced) and JPEG (baseline and progressive,
 * gray, YCbCr, RGB, CMYK, YCCK; 8 bits), recognised by their first bytes.
 *
 * <p><b>What is done</b>, in this order:
 *
 * <ol>
 *   <li>Samples are taken as stored. Of 16 bits the upper 8 are kept, fewer than 8 are spread over
 *       0..255, palettes are looked up. Alpha is dropped: what lies under a transparent pixel
 *       shows.
 *   <li>CMYK (always taken as inverted, Adobe's way) becomes r = (1 - c) (1 - k), and so on.
 *   <li>The picture is turned by its EXIF orientation (PNG: chunk eXIf), values 1 to 8.
 *   <li>Colour becomes gray as (19595 r + 38470 g + 7471 b + 32768) / 65536, the luma of ITU-R
 *       BT.601; gray becomes colour by three equal channels.
 *   <li>It is scaled, keeping its proportions, until it covers the size, and cut around the centre:
 *       the shorter side decides. Shrunk, a pixel is the mean over the area that it covers;
 *       enlarged, it is linear between neighbours.
 * </ol>
 *
 * <p><b>JPEGs</b> are decoded by libjpeg-turbo where it is found, else by Java's ImageIO ({@link
 * #jpegDecoder}). At its full size a picture comes out the same to within 1 of 255. One that is
 * shrunk to half or less, libjpeg-turbo decodes at the smallest of 1/8, 1/4 and 1/2 that still
 * covers the size, in the inverse transform itself, and only the rest is done as above: values then
 * differ from those of the full size by 1 to 3 of 255 in the mean, at single pixels by more.
 *
 * <p>Not applied are colour profiles (ICC) and the PNG chunks gAMA, cHRM, sRGB and sBIT: samples
 * count as sRGB. Steps 1 to 4 give what Python's Pillow gives with {@code exif_transpose} and
 * {@code convert} to RGB or L, JPEG to within 1 of 255 per channel, but for 16-bit grayscale, which
 * Pillow clips at 255.
 *
 * <p><b>Damage</b> is refused: a file that is cut off, a wrong checksum, data that the decoder
 * complains of, a size that the file cannot hold. No temporary files are written.
 *
 * <p>Immutable and safe to share between threads.
 */
public final class ImageDecoder {
  private final int height;
  private final int width;
  private final int channels;

  private ImageDecoder(int height, int width, int channels) {
    this.height = height;
    this.width = width;
    this.channels = channels;
  }

  /**
   * A decoder to one size.
   *
   * @param height rows of the result
   * @param width columns of the result
   * @param channels 1 for gray, 3 for red, green, blue
   * @throws IllegalArgumentException if a side is below 1, the channels are neither 1 nor 3, or the
   *     result passes 2^31 - 1 bytes
   */
  public static ImageDecoder of(int height, int width, int channels) {
    requireSize(height, width, channels);
    return new ImageDecoder(height, width, channels);
  }

  static void requireSize(int height, int width, int channels) {
    if (height < 1 || width < 1 || (channels != 1 && channels != 3)) {
      throw new IllegalArgumentException(
          "images are brought to sides of 1 or more and 1 or 3 channels, got "
              + height
              + "x"
              + width
              + "x"
              + channels);
    }
    if ((double) height * width * channels > Integer.MAX_VALUE) {
      throw new IllegalArgumentException(
          height + "x" + width + "x" + channels + " passes 2^31 - 1 bytes per image");
    }
  }

  /** Rows of the result. */
  public int height() {
    return height;
  }

  /** Columns of the result. */
  public int width() {
    return width;
  }

  /** Values per location of the result: 1 gray, 3 red, green, blue. */
  public int channels() {
    return channels;
  }

  /**
   * Decodes a file.
   *
   * @param file a PNG or JPEG file
   * @return a new array [height, width, channels], values 0..255 in unsigned bytes
   * @throws DataException if the file is missing, cannot be read, or is no intact image
   */
  public byte[] decode(Path file) {
    return decode(EncodedImage.read(file));
  }

  /**
   * Decodes a file's content.
   *
   * @param encoded content of a PNG or JPEG file; not changed, and not kept
   * @param name what to call it in messages
   * @return a new array [height, width, channels], values 0..255 in unsigned bytes
   * @throws DataException if it is no intact image
   */
  public byte[] decode(byte[] encoded, String name) {
    return decode(EncodedImage.of(encoded, name));
  }

  /**
   * Takes a picture that is already in memory. Gray and red-green-blue samples are taken as they
   * are, whatever profile the picture carries; other colour spaces are converted to sRGB by the
   * picture's own colour model.
   *
   * @param picture not changed, and not kept
   * @return a new array [height, width, channels], values 0..255 in unsigned bytes
   */
  public byte[] decode(BufferedImage picture) {
    return fit(Pixels.of(picture));
  }

  byte[] decode(EncodedImage image) {
    double step = Math.min((double) image.height() / height, (double) image.width() / width);
    return fit(image.decode(step));
  }

  /** A window of an image, of whole pixels, brought to the size, each axis by itself. */
  byte[] decode(EncodedImage image, Augmentation.Rectangle window) {
    double step = Math.min((double) window.height() / height, (double) window.width() / width);
    Pixels pixels = image.decode(step);
    double down = (double) pixels.height() / image.height();
    double across = (double) pixels.width() / image.width();
    return pixels
        .withChannels(channels)
        .window(
            window.top() * down,
            window.left() * across,
            window.height() * down,
            window.width() * across,
            height,
            width)
        .values();
  }

  private byte[] fit(Pixels pixels) {
    return pixels.withChannels(channels).covering(height, width).values();
  }

  /**
   * What decodes JPEGs in this process: libjpeg-turbo with its version and file, or Java's ImageIO
   * and why. The system property {@code jtrelu.jpeg} decides: {@code auto} (libjpeg-turbo where it
   * is found, which is the default), {@code imageio}, or a library's file.
   */
  public static String jpegDecoder() {
    return TurboJpeg.description();
  }
}
