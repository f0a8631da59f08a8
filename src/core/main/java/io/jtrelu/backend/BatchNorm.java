package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.List;

/**
 * Batch normalisation (Ioffe and Szegedy, ICML 2015, arXiv 1502.03167), then a rectifier: the
 * yardstick of networks that need none. Channels c, and locations n*h*w of NHWC tensors:
 *
 * <pre>
 * xhat     = (src - mean[c]) / sqrt(variance[c] + epsilon)
 * dst      = phi(gamma[c] * xhat + beta[c])
 * diff_src = [diff_src +] gamma[c] / sqrt(variance[c] + epsilon) * (diff_dst - (S0[c] + xhat * S1[c]) / count)
 * </pre>
 *
 * <p>Mean and variance (biased) are those of the whole batch, count its locations. A batch may lie
 * in equal parts, on which different threads work; src is one of them. So a pass is taken apart
 * where parts must meet:
 *
 * <pre>
 * moments             moments[0,c] = mean of src,           moments[1,c] = sum of (src - mean)^2
 * statistics          mean and variance of the batch, from the moments of all parts
 * forward             dst, from them or from running ones
 * backwardParameters  sums[0,c]    = sum of diff_dst,       sums[1,c]    = sum of diff_dst * xhat
 *                     diff_beta    = [diff_beta +] sums[0], diff_gamma   = [diff_gamma +] sums[1]
 * backwardData        diff_src, from the sums of all parts, added to S0 and S1
 * </pre>
 *
 * <p>diff_dst is the gradient before phi. Statistics, parameters and their gradients are F32. Parts
 * are added in order; no result depends on which thread works on which part. Operands must not
 * overlap what is written. NaN and infinity in src make their channel NaN, in all the batch.
 */
public abstract class BatchNorm extends PreparedOperation {
  private final Shape src;
  private final DataType type;
  private final int parts;
  private final float epsilon;
  private final Rectifier activation;
  private final Shape channels;
  private final Shape pair;
  private final Shape pairs;

  /** For backends. */
  protected BatchNorm(
      Device device, Shape src, DataType type, int parts, float epsilon, Rectifier activation) {
    super("batch norm " + src, device);
    if (src.rank() != 4 || src.elements() == 0) {
      throw new IllegalArgumentException(
          "batch norm needs an NHWC shape with elements, as nothing has no mean; got " + src);
    }
    if (parts < 1) {
      throw new IllegalArgumentException("batch norm: a batch has 1 part or more, got " + parts);
    }
    if (!(epsilon > 0 && epsilon < Float.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "batch norm: epsilon must be finite and above 0, got " + epsilon);
    }
    this.src = src;
    this.type = type;
    this.parts = parts;
    this.epsilon = epsilon;
    this.activation = activation;
    int c = src.dim(3);
    this.channels = Shape.of(c);
    this.pair = Shape.of(2, c);
    this.pairs = Shape.of(parts, 2, c);
  }

  /** Shape of a part of the batch, NHWC. */
  public final Shape src() {
    return src;
  }

  /** Storage type of src, dst and their gradients. */
  public final DataType type() {
    return type;
  }

  /** Equal parts of a batch. */
  public final int parts() {
    return parts;
  }

  /** Added to the variance. */
  public final float epsilon() {
    return epsilon;
  }

  /** The rectifier phi. */
  public final Rectifier activation() {
    return activation;
  }

  /** Channels. */
  public final int channels() {
    return src.dim(3);
  }

  /** Locations of a part: n * h * w. */
  public final long locations() {
    return src.elements() / src.dim(3);
  }

  /**
   * Mean and sum of squared deviations of a part.
   *
   * @param moments F32 [2, c]
   */
  public final void moments(Stream stream, Tensor source, Tensor moments) {
    large("src", source);
    operands.require("moments", moments, pair, DataType.F32, Layout.ROW_MAJOR);
    operands.requireDistinct("src", source, "moments", moments);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(source).writes("moments", moments);
      runMoments(stream, source, moments);
    }
  }

  /**
   * Mean and biased variance of the batch.
   *
   * @param moments F32 [parts, 2, c]
   * @param mean F32 [c]
   * @param variance F32 [c]
   */
  public final void statistics(Stream stream, Tensor moments, Tensor mean, Tensor variance) {
    operands.require("moments", moments, pairs, DataType.F32, Layout.ROW_MAJOR);
    small("mean", mean);
    small("variance", variance);
    operands.requireDistinct("moments", moments, "mean", mean);
    operands.requireDistinct("moments", moments, "variance", variance);
    operands.requireDistinct("mean", mean, "variance", variance);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(moments).writes("mean", mean).writes("variance", variance);
      runStatistics(stream, moments, mean, variance);
    }
  }

  /**
   * Normalises a part.
   *
   * @param mean F32 [c], of the batch or running
   * @param variance F32 [c], likewise
   * @param gamma F32 [c]
   * @param beta F32 [c]
   */
  public final void forward(
      Stream stream,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor beta,
      Tensor destination) {
    large("src", source);
    small("mean", mean);
    small("variance", variance);
    small("gamma", gamma);
    small("beta", beta);
    large("dst", destination);
    apart(
        "dst",
        destination,
        List.of("src", "mean", "variance", "gamma", "beta"),
        source,
        mean,
        variance,
        gamma,
        beta);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(source).reads(mean).reads(variance).reads(gamma).reads(beta);
      use.writes("dst", destination);
      runForward(stream, source, mean, variance, gamma, beta, destination);
    }
  }

  /**
   * The part's sums, and with them its gradients of the parameters.
   *
   * @param sums F32 [2, c]
   * @param diffGamma F32 [c]
   * @param diffBeta F32 [c]
   */
  public final void backwardParameters(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor sums,
      Tensor diffGamma,
      Tensor diffBeta,
      Write write) {
    large("diff_dst", diffDst);
    large("src", source);
    small("mean", mean);
    small("variance", variance);
    operands.require("sums", sums, pair, DataType.F32, Layout.ROW_MAJOR);
    small("diff_gamma", diffGamma);
    small("diff_beta", diffBeta);
    List<String> read = List.of("diff_dst", "src", "mean", "variance");
    apart("sums", sums, read, diffDst, source, mean, variance);
    apart("diff_gamma", diffGamma, read, diffDst, source, mean, variance);
    apart("diff_beta", diffBeta, read, diffDst, source, mean, variance);
    apart("sums", sums, List.of("diff_gamma", "diff_beta"), diffGamma, diffBeta);
    operands.requireDistinct("diff_gamma", diffGamma, "diff_beta", diffBeta);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(source).reads(mean).reads(variance);
      use.writes("sums", sums).writes("diff_gamma", diffGamma).writes("diff_beta", diffBeta);
      runBackwardParameters(
          stream, diffDst, source, mean, variance, sums, diffGamma, diffBeta, write);
    }
  }

  /**
   * The gradient of a part's src.
   *
   * @param gamma F32 [c]
   * @param sums F32 [parts, 2, c], of all parts
   */
  public final void backwardData(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor sums,
      Tensor diffSrc,
      Write write) {
    large("diff_dst", diffDst);
    large("src", source);
    small("mean", mean);
    small("variance", variance);
    small("gamma", gamma);
    operands.require("sums", sums, pairs, DataType.F32, Layout.ROW_MAJOR);
    large("diff_src", diffSrc);
    apart(
        "diff_src",
        diffSrc,
        List.of("diff_dst", "src", "mean", "variance", "gamma", "sums"),
        diffDst,
        source,
        mean,
        variance,
        gamma,
        sums);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(source).reads(mean).reads(variance).reads(gamma).reads(sums);
      use.writes("diff_src", diffSrc);
      runBackwardData(stream, diffDst, source, mean, variance, gamma, sums, diffSrc, write);
    }
  }

  private void large(String name, Tensor tensor) {
    operands.require(name, tensor, src, type, Layout.NHWC);
  }

  private void small(String name, Tensor tensor) {
    operands.require(name, tensor, channels, DataType.F32, Layout.ROW_MAJOR);
  }

  private void apart(String name, Tensor written, List<String> names, Tensor... others) {
    for (int i = 0; i < others.length; i++) {
      operands.requireDistinct(names.get(i), others[i], name, written);
    }
  }

  /** Implements {@link #moments}. */
  protected abstract void runMoments(Stream stream, Tensor source, Tensor moments);

  /** Implements {@link #statistics}. */
  protected abstract void runStatistics(
      Stream stream, Tensor moments, Tensor mean, Tensor variance);

  /** Implements {@link #forward}. */
  protected abstract void runForward(
      Stream stream,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor beta,
      Tensor destination);

  /** Implements {@link #backwardParameters}. */
  protected abstract void runBackwardParameters(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor sums,
      Tensor diffGamma,
      Tensor diffBeta,
      Write write);

  /** Implements {@link #backwardData}. */
  protected abstract void runBackwardData(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor sums,
      Tensor diffSrc,
      Write write);
}
