package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Per-location normalisation of images (PLN; Martens et al., arXiv 2110.01765): appends a
 * homogeneous channel and gives every location a mean square of 1 over its channels, which is what
 * kernel shaping assumes of a network's input. It has no backward pass: images have no gradient.
 *
 * <pre>
 * v[k] = src / 255 for U8, src for F32           src [n, h, w, c], NHWC
 * x[k] = (v[k] - mean[k]) / std[k]
 * x[c] = scale * 1   or   scale * the root mean square of x[0..c-1] over the whole image
 * dst[k] = x[k] / sqrt(mean over k = 0..c of x[k]^2)             dst [n, h, w, c+1], NHWC
 * </pre>
 *
 * <p>Images can be cropped and flipped on the way: with a window (dy, dx, flip) per image, src at
 * (y, x) stands for
 *
 * <pre>
 * src(y + dy, (flip ? w - 1 - x : x) + dx),   or value 0 (black) where that lies outside the image
 * </pre>
 *
 * everywhere above, so that the result is bitwise that of an image which was cut out beforehand.
 *
 * <p>An image that is zero everywhere counts as one of root mean square 1: its locations become (0,
 * ..., 0, sqrt(c+1)). NaN and infinity give NaN.
 *
 * <p>Accuracy: x[k] within 8 * 2^-24 * (|v[k]| + |mean[k]|) / std[k], dst likewise after division,
 * then one rounding to the type of dst. From U8 with {@link Homogeneous#ONE}, every backend gives
 * the same bits: x[k] is rounded to F32 once, after arithmetic in binary64 as it is written above;
 * the mean's terms are summed in binary64, x[c] squared first, then k = 0..c-1; x[k] times the
 * binary64 reciprocal of the root is rounded to F32, and that to the type of dst. It is what {@code
 * io.jtrelu.data.PerLocationNormalization} gives on the host.
 */
public abstract class LocationNorm extends PreparedOperation {
  /** The channel that is appended. */
  public enum Homogeneous {
    /** The constant 1. */
    ONE,
    /** The root mean square over all locations and channels of the image. */
    IMAGE_RMS
  }

  /**
   * What is done to the values.
   *
   * @param mean subtracted, per channel
   * @param std divided by, per channel, above 0
   * @param homogeneous the appended channel
   * @param scale factor of the appended channel, above 0
   */
  public record Settings(
      List<Double> mean, List<Double> std, Homogeneous homogeneous, float scale) {
    /**
     * @throws IllegalArgumentException if there is no channel, counts differ or a value is out of
     *     range
     */
    public Settings {
      mean = List.copyOf(mean);
      std = List.copyOf(std);
      if (mean.isEmpty() || mean.size() != std.size()) {
        throw new IllegalArgumentException(
            "one mean and one std per channel, got " + mean.size() + " and " + std.size());
      }
      boolean finite = mean.stream().allMatch(m -> Double.isFinite(m));
      if (!finite || !std.stream().allMatch(s -> s > 0 && Double.isFinite(s))) {
        throw new IllegalArgumentException(
            "mean must be finite and std finite and above 0, got " + mean + " and " + std);
      }
      if (!(scale > 0 && scale < Float.POSITIVE_INFINITY)) {
        throw new IllegalArgumentException(
            "the scale of the homogeneous channel must be finite and above 0, got " + scale);
      }
    }
  }

  private final Shape src;
  private final Shape dst;
  private final DataType srcType;
  private final DataType type;
  private final Settings settings;

  /** For backends. */
  protected LocationNorm(
      Device device, Shape src, DataType srcType, DataType type, Settings settings) {
    super("location norm " + src, device);
    if (src.rank() != 4 || src.dim(3) != settings.mean().size()) {
      throw new IllegalArgumentException(
          "location norm of " + settings.mean().size() + " channels, but src is " + src);
    }
    if (srcType != DataType.U8 && srcType != DataType.F32) {
      throw new UnsupportedException("location norm reads U8 and F32, not " + srcType);
    }
    this.src = src;
    this.dst = Shape.of(src.dim(0), src.dim(1), src.dim(2), src.dim(3) + 1);
    this.srcType = srcType;
    this.type = type;
    this.settings = settings;
  }

  /** Shape of src, NHWC. */
  public final Shape src() {
    return src;
  }

  /** Shape of dst, NHWC. */
  public final Shape dst() {
    return dst;
  }

  /** Type of src, U8 or F32. */
  public final DataType srcType() {
    return srcType;
  }

  /** Storage type of dst. */
  public final DataType type() {
    return type;
  }

  /** What is done to the values. */
  public final Settings settings() {
    return settings;
  }

  /**
   * For backends: the standardised value of every byte, x[k] at k * 256 + byte.
   *
   * @param settings of the normalisation
   */
  protected static float[] standardizedBytes(Settings settings) {
    float[] table = new float[settings.mean().size() * 256];
    for (int i = 0; i < table.length; i++) {
      int k = i / 256;
      table[i] = (float) ((i % 256 / 255.0 - settings.mean().get(k)) / settings.std().get(k));
    }
    return table;
  }

  /** Shape of the windows, [n, 3]: dy, dx and flip (0 or 1) of each image. */
  public final Shape windows() {
    return Shape.of(src.dim(0), 3);
  }

  /** Normalises images; source and destination must not overlap. */
  public final void forward(Stream stream, Tensor source, Tensor destination) {
    check(source, destination);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(source).writes("dst", destination);
      runForward(stream, source, null, destination);
    }
  }

  /**
   * Crops, flips and normalises images; source and destination must not overlap.
   *
   * @param windows I32, {@link #windows()}; a flip other than 0 counts as 1
   */
  public final void forward(Stream stream, Tensor source, Tensor windows, Tensor destination) {
    operands.require("windows", windows, windows(), DataType.I32, Layout.ROW_MAJOR);
    check(source, destination);
    operands.requireDistinct("windows", windows, "dst", destination);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(source).reads(windows).writes("dst", destination);
      runForward(stream, source, windows, destination);
    }
  }

  private void check(Tensor source, Tensor destination) {
    operands.require("src", source, src, srcType, Layout.NHWC);
    operands.require("dst", destination, dst, type, Layout.NHWC);
    operands.requireDistinct("src", source, "dst", destination);
  }

  /** Implements both; windows are null where images are taken whole. */
  protected abstract void runForward(
      Stream stream, Tensor source, @Nullable Tensor windows, Tensor destination);
}
