package io.jtrelu.data;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicLongArray;

/**
 * Per-location normalisation (PLN): gives every location of an image a mean square of 1 over its
 * channels, which is what kernel shaping assumes of a network's input (Martens et al., arXiv
 * 2110.01765, "Uniform q values via Per-Location Normalization").
 *
 * <p>In: [n, h, w, c]; out: [n, h, w, c+1]. With v the value of a pixel,
 *
 * <pre>
 * x[k] = (v[k] - mean[k]) / std[k]           v = byte / 255 for U8, the value itself for F32
 * x[c] = 1, or the root mean square of x over the whole image
 * y[k] = x[k] / sqrt(mean over k = 0..c of x[k]^2)
 * </pre>
 *
 * <p>The homogeneous channel x[c] keeps what division would lose, the length of the location's
 * vector (for grayscale all but the sign). {@link #of(ImageDataset)} is the default: standardise
 * with the training set's constants, then PLN with a constant 1, as the authors do; the constant
 * then has the size of a typical pixel, so that the angle of (x, 1) resolves dark from light well.
 * Without standardisation (mean 0, std 1) all values lie between 0 and 1 and the angles bunch up.
 *
 * <p>An image that is zero everywhere has root mean square 0; its locations become (0, ..., 0,
 * sqrt(c+1)), so that their mean square is 1 too. NaN and infinity give NaN.
 *
 * <p>With {@link Homogeneous#NONE} nothing is appended and no location normalised: y = x, of c
 * channels. That is for networks that were made without PLN.
 *
 * <p>Immutable and safe to share between threads.
 */
public final class PerLocationNormalization {
  /** The channel appended before each location is divided by its root mean square. */
  public enum Homogeneous {
    /** The constant 1. */
    ONE,
    /** The root mean square over all locations and channels of the image. */
    IMAGE_RMS,
    /**
     * No channel, and no division either: the standardised values alone, as networks from elsewhere
     * read them. Kernel shaping assumes one of the others.
     */
    NONE
  }

  /** Streamed images that mean and deviation are taken from at most. */
  static final int MOST_STREAMED = 1024;

  private final double[] mean;
  private final double[] std;
  private final Homogeneous homogeneous;

  /** Standardised value of each byte: [channel * 256 + byte]. */
  private final float[] standardized;

  /** Output of each byte where it depends on nothing else (one channel, ONE): [byte * 2 + k]. */
  private final float[] grayscale;

  /**
   * @param mean per channel, on the scale where white is 1
   * @param std per channel, above 0; as many as means
   * @param homogeneous the appended channel
   * @throws IllegalArgumentException if there is no channel, counts differ, a value is not finite
   *     or a std is not above 0
   */
  public PerLocationNormalization(double[] mean, double[] std, Homogeneous homogeneous) {
    if (mean.length == 0 || mean.length != std.length) {
      throw new IllegalArgumentException(
          "one mean and one std per channel, got " + mean.length + " and " + std.length);
    }
    for (int c = 0; c < mean.length; c++) {
      if (!Double.isFinite(mean[c]) || !(std[c] > 0) || !Double.isFinite(std[c])) {
        throw new IllegalArgumentException(
            "mean must be finite and std finite and above 0, got "
                + Arrays.toString(mean)
                + " and "
                + Arrays.toString(std));
      }
    }
    this.mean = mean.clone();
    this.std = std.clone();
    this.homogeneous = homogeneous;
    this.standardized = new float[mean.length * 256];
    for (int c = 0; c < mean.length; c++) {
      for (int v = 0; v < 256; v++) {
        standardized[c * 256 + v] = (float) ((v / 255.0 - mean[c]) / std[c]);
      }
    }
    if (mean.length == 1 && homogeneous == Homogeneous.ONE) {
      float[] table = new float[512];
      for (int v = 0; v < 256; v++) {
        table[2 * v] = standardized[v];
      }
      normalize(table, 256);
      this.grayscale = table;
    } else {
      this.grayscale = new float[0];
    }
  }

  /**
   * The default for a data set: standardised per channel with its mean and standard deviation, then
   * PLN with the constant 1. Pass the training set, and use the result for the test set too.
   *
   * @param train images to take the constants from
   */
  public static PerLocationNormalization of(ImageDataset train) {
    return of(train, Homogeneous.ONE);
  }

  /**
   * Standardised per channel with the data set's mean and standard deviation (a channel that never
   * varies keeps std 1 and becomes 0), then PLN. Of streamed images up to 1,024 are taken, evenly
   * spaced in the data's order; those that are skipped do not count.
   *
   * @param train images to take the constants from; must not be empty
   * @param homogeneous the appended channel
   * @throws IllegalArgumentException if the data set is empty
   * @throws DataException if a streamed image is damaged or cannot be read
   */
  public static PerLocationNormalization of(ImageDataset train, Homogeneous homogeneous) {
    if (train.size() == 0) {
      throw new IllegalArgumentException("no images to take a mean from: " + train);
    }
    int channels = train.channels();
    int taken = train.isStreamed() ? Math.min(MOST_STREAMED, train.size()) : train.size();
    ImageSource source = train.images();
    AtomicLongArray counts = new AtomicLongArray(channels * 256); // exact, whatever the order
    new Reading(Reading.Place.AUTO, Reading.OnBadImage.STOP, source.threads())
        .forEach(
            taken,
            i -> {
              int index = (int) ((long) i * train.size() / taken);
              try {
                count(source.image(index), channels, counts);
              } catch (DataException bad) {
                if (!source.skips(index, bad)) {
                  throw bad;
                }
              }
            });
    double n = 0;
    for (int v = 0; v < 256; v++) {
      n += counts.get(v);
    }
    if (n == 0) {
      throw new DataException.Malformed(
          train.name(),
          -1,
          "none of " + taken + " images is intact: " + train.skipped().getFirst());
    }
    double[] mean = new double[channels];
    double[] std = new double[channels];
    for (int c = 0; c < channels; c++) {
      double sum = 0;
      for (int v = 0; v < 256; v++) {
        sum += counts.get(c * 256 + v) * (v / 255.0);
      }
      mean[c] = sum / n;
      double squares = 0;
      for (int v = 0; v < 256; v++) {
        double d = v / 255.0 - mean[c];
        squares += counts.get(c * 256 + v) * (d * d);
      }
      double deviation = Math.sqrt(squares / n);
      boolean varies = deviation > 1e-6; // one grey level is 4e-3
      std[c] = varies ? deviation : 1;
      mean[c] =
          varies ? mean[c] : Math.round(255 * mean[c]) / 255.0; // what is left is 0, not 1e-17
    }
    return new PerLocationNormalization(mean, std, homogeneous);
  }

  private static void count(byte[] image, int channels, AtomicLongArray counts) {
    long[] own = new long[channels * 256];
    for (int at = 0; at < image.length; at += channels) {
      for (int c = 0; c < channels; c++) {
        own[c * 256 + (image[at + c] & 0xff)]++;
      }
    }
    for (int i = 0; i < own.length; i++) {
      counts.addAndGet(i, own[i]);
    }
  }

  /**
   * PLN alone: values (bytes / 255) as they are.
   *
   * @param channels channels of the input
   * @param homogeneous the appended channel
   */
  public static PerLocationNormalization plain(int channels, Homogeneous homogeneous) {
    double[] ones = new double[channels];
    Arrays.fill(ones, 1);
    return new PerLocationNormalization(new double[channels], ones, homogeneous);
  }

  /** Channels of the input, c. */
  public int channels() {
    return mean.length;
  }

  /** Channels of the output: c + 1, or c where none is appended. */
  public int outputChannels() {
    return homogeneous == Homogeneous.NONE ? mean.length : mean.length + 1;
  }

  /** Mean of each channel (a copy), on the scale where white is 1. */
  public double[] mean() {
    return mean.clone();
  }

  /** Standard deviation of each channel (a copy), on the scale where white is 1. */
  public double[] std() {
    return std.clone();
  }

  /** The appended channel. */
  public Homogeneous homogeneous() {
    return homogeneous;
  }

  /**
   * Normalises a batch. Allocates one image's worth of scratch.
   *
   * @param src host tensor [n, h, w, c], NHWC, U8 or F32
   * @param dst host tensor [n, h, w, {@link #outputChannels}], NHWC, F32, overwritten; must not
   *     overlap src
   * @throws IllegalArgumentException if shapes, types or layouts are not those
   * @throws IllegalStateException if a tensor is closed or not on the host
   */
  public void apply(Tensor src, Tensor dst) {
    boolean bytes = src.type() == DataType.U8;
    if (!(bytes || src.type() == DataType.F32)
        || src.layout() != Layout.NHWC
        || src.shape().dim(3) != channels()) {
      throw new IllegalArgumentException(
          "src must be U8 or F32, NHWC, with " + channels() + " channels, got " + src);
    }
    int n = src.shape().dim(0);
    int h = src.shape().dim(1);
    int w = src.shape().dim(2);
    Shape wanted = Shape.of(n, h, w, outputChannels());
    if (dst.type() != DataType.F32 || dst.layout() != Layout.NHWC || !dst.shape().equals(wanted)) {
      throw new IllegalArgumentException("dst must be F32" + wanted + " NHWC, got " + dst);
    }
    MemorySegment from = src.segment();
    MemorySegment to = dst.segment();
    int locations = Math.multiplyExact(h, w);
    int in = Math.multiplyExact(locations, channels());
    int out = Math.multiplyExact(locations, outputChannels());
    float[] image = new float[out];
    if (bytes) {
      byte[] raw = new byte[in];
      for (long i = 0; i < n; i++) {
        MemorySegment.copy(from, JAVA_BYTE, i * in, raw, 0, in);
        apply(raw, image);
        MemorySegment.copy(image, 0, to, JAVA_FLOAT_UNALIGNED, i * out * Float.BYTES, out);
      }
    } else {
      float[] raw = new float[in];
      for (long i = 0; i < n; i++) {
        MemorySegment.copy(from, JAVA_FLOAT_UNALIGNED, i * in * Float.BYTES, raw, 0, in);
        int c = channels();
        int step = outputChannels();
        for (int p = 0; p < locations; p++) {
          for (int k = 0; k < c; k++) {
            image[p * step + k] = (float) ((raw[p * c + k] - mean[k]) / std[k]);
          }
        }
        normalize(image, locations);
        MemorySegment.copy(image, 0, to, JAVA_FLOAT_UNALIGNED, i * out * Float.BYTES, out);
      }
    }
  }

  /** One image: src [h, w, c] unsigned bytes, dst [h, w, outputChannels]. Allocates nothing. */
  void apply(byte[] src, float[] dst) {
    int c = channels();
    int step = outputChannels();
    if (grayscale.length > 0) {
      for (int p = 0; p < src.length; p++) {
        int v = src[p] & 0xff;
        dst[2 * p] = grayscale[2 * v];
        dst[2 * p + 1] = grayscale[2 * v + 1];
      }
      return;
    }
    int locations = src.length / c;
    for (int p = 0; p < locations; p++) {
      for (int k = 0; k < c; k++) {
        dst[p * step + k] = standardized[k * 256 + (src[p * c + k] & 0xff)];
      }
    }
    normalize(dst, locations);
  }

  /** Fills the homogeneous channel and normalises in place; squares in double cannot overflow. */
  private void normalize(float[] x, int locations) {
    if (homogeneous == Homogeneous.NONE) {
      return;
    }
    int c = channels();
    double appended = homogeneous == Homogeneous.ONE ? 1 : imageRms(x, locations);
    for (int p = 0; p < locations; p++) {
      int at = p * (c + 1);
      double squares = appended * appended;
      for (int k = 0; k < c; k++) {
        squares += (double) x[at + k] * x[at + k];
      }
      double factor = 1 / Math.sqrt(squares / (c + 1));
      for (int k = 0; k < c; k++) {
        x[at + k] = (float) (x[at + k] * factor);
      }
      x[at + c] = (float) (appended * factor);
    }
  }

  private double imageRms(float[] x, int locations) {
    int c = channels();
    double squares = 0;
    for (int p = 0; p < locations; p++) {
      for (int k = 0; k < c; k++) {
        double value = x[p * (c + 1) + k];
        squares += value * value;
      }
    }
    return squares == 0 ? 1 : Math.sqrt(squares / ((double) locations * c));
  }
}
