package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * Two-dimensional convolution + bias + rectifier as one operation, and its gradients. A fully
 * connected layer is {@link Conv2dDescriptor#linear}.
 *
 * <pre>
 * forward          dst[n,p,q,k]  = phi( bias[k] + sum_{r,s,c} src[n, p*sh - pt + r*dh, q*sw - pl + s*dw, g(k)+c]
 *                                                             * weights[k,r,s,c] )
 * backwardData     diff_src      = ( [diff_src +] conv^T(diff_dst, weights) ) * psi'(src)
 * backwardWeights  diff_weights  = [diff_weights +] sum over n,p,q of diff_dst * src
 *                  diff_bias     = [diff_bias +] sum over n,p,q of diff_dst
 * </pre>
 *
 * with phi the {@code activation}, psi the {@code srcActivation} that produced src (IDENTITY where
 * src is not an activation's output), and diff_dst the gradient before phi: see the package page.
 * Elements outside the source count as zero.
 *
 * <p><b>Types.</b> src, dst, diff_src and diff_dst have the storage type {@link #type}; weights,
 * bias, diff_weights and diff_bias are F32 always. Sums are accumulated in at least binary32.
 *
 * <p><b>Rounded transforms.</b> A backend may compute a BF16 convolution of 3x3 taps, stride 1 and
 * one group by Winograd's method and round what it multiplies to BF16 (u = 2^-8) once more. Let X_c
 * be the largest |src| of channel c within three rows and columns of a result's window (its tile's
 * 6x6 sources lie there), and W_c the sum of |weights| over the taps. A result adds up products of
 * a transformed weight, at most max |G| W_c, and a transformed source, at most X_c times a row sum
 * of |B^T|, with factors A^T; the three multiplied and added up over the products are 46 for a tile
 * of 4x4 results, 16 for 2x2. Hence, beside the errors of other convolutions,
 *
 * <pre>
 * |error of dst before phi|        &lt;= 46 (2 u + u^2) sum_c X_c W_c
 * |error of diff_src before psi'|  &lt;= the same of diff_dst, with W_k over the taps to diff_src
 * |error of diff_weights|          &lt;= 46 (2 u + u^2) sum_{n,p,q} |diff_dst| X_c
 * </pre>
 *
 * and where roundings are independent some 3 times what rounding each operand once would cause.
 *
 * <p><b>Pairs of pixels.</b> A backend may compute an F32 convolution of 1x1 taps, stride 1 and one
 * group, of C to K channels, by a level of Strassen's method in Winograd's form, which mixes pixels
 * 2i and 2i + 1 of an image, channels c and c + C / 2, and results k and k + K / 2. Let X_c be the
 * largest |src| and W_c the largest |weight| of those that are mixed, c {@code <} C / 2. A result
 * adds up products whose bounds are 1, 9, 4 and 4 times X_c W_c, of operands that are off by at
 * most 9 roundings u = 2^-24 of X_c or W_c (Higham, Accuracy and Stability of Numerical Algorithms,
 * 2nd edition, section 23.2.2). Hence, to first order in u,
 *
 * <pre>
 * |error of dst before phi|        &lt;= 18 (C / 2 + 6) u sum_{c &lt; C / 2} X_c W_c
 * |error of diff_src before psi'|  &lt;= the same of diff_dst, with K for C
 * |error of diff_weights|          &lt;= 18 (P / 2 + 6) u sum over pairs of E_p X_p
 * </pre>
 *
 * with E_p and X_p the largest |diff_dst| and |src| of two pixels and of both channels that are
 * mixed, in pairs from the first of all P = n p q pixels on. Where roundings are independent,
 * errors come to less than a hundredth of it. Sums of whole numbers are exact as long as 18 times
 * these sums of products stay below 2^24. A NaN, or an infinity as one, may reach what it is mixed
 * with: the other pixel's results, too.
 *
 * <p><b>Overlap.</b> What is written must overlap nothing else that is read or written, but that
 * diff_src may be the very tensor src where the source is not needed again (an in-place gradient);
 * and where srcActivation is the identity, src is not read by backwardData and may lie anywhere.
 *
 * <p><b>Signs.</b> Of src the backward pass for the source only wants to know which elements are
 * positive. An operation that {@linkplain #keepsSigns keeps signs} can leave them for its result,
 * one bit each, and read them for its source instead of src, a sixteenth of the bytes in 16 bits:
 * U8 [channels / 32, pixels, 4], where bit c % 8 of byte c / 8 % 4 of channel c is 1 for what is
 * above zero ({@link #signs}); NaN is not. Results are the same bit for bit.
 *
 * <p>An empty batch is allowed: forward and backwardData do nothing; backwardWeights overwrites
 * with zeros or adds nothing.
 */
public abstract class Conv2d extends PreparedOperation {
  private final Conv2dDescriptor descriptor;
  private final DataType type;
  private final Rectifier activation;
  private final Rectifier srcActivation;

  /** For backends: keeps the arguments that every implementation needs. */
  protected Conv2d(
      Device device,
      Conv2dDescriptor descriptor,
      DataType type,
      Rectifier activation,
      Rectifier srcActivation) {
    super("conv2d " + descriptor, device);
    this.descriptor = descriptor;
    this.type = type;
    this.activation = activation;
    this.srcActivation = srcActivation;
  }

  /** The sizes. */
  public final Conv2dDescriptor descriptor() {
    return descriptor;
  }

  /** Storage type of src, dst and their gradients. */
  public final DataType type() {
    return type;
  }

  /** The rectifier applied to the result. */
  public final Rectifier activation() {
    return activation;
  }

  /** The rectifier that produced src. */
  public final Rectifier srcActivation() {
    return srcActivation;
  }

  /** Bytes of device memory that packed weights take; 0 where the backend does not tell. */
  public long packedBytes() {
    return 0;
  }

  /**
   * Bytes of device memory that an operation needs at most while it runs, beside its operands;
   * operations of a stream or a recording share them. 0 where the backend does not tell.
   */
  public long scratchBytes() {
    return 0;
  }

  /** Whether {@link #forwardWithSigns} and {@link #backwardDataBySigns} are there. */
  public boolean keepsSigns() {
    return false;
  }

  /**
   * Shape of an activation's signs.
   *
   * @param activation NHWC, with a multiple of 32 channels
   */
  public static Shape signs(Shape activation) {
    int channels = activation.dim(3);
    if (channels % 32 != 0) {
      throw new IllegalArgumentException(
          "signs are kept of 32 channels at a time, not of " + channels);
    }
    return Shape.of(channels / 32, Math.toIntExact(activation.elements() / channels), 4);
  }

  /**
   * Allocates a packed form for this operation's weights, owned by the caller; pack before use.
   *
   * @throws IllegalStateException after close
   */
  public final PackedWeights newPackedWeights() {
    operands.lifetime().acquire();
    try {
      return allocatePackedWeights();
    } finally {
      operands.lifetime().release();
    }
  }

  /** Implements {@link #newPackedWeights}. */
  protected abstract PackedWeights allocatePackedWeights();

  /**
   * Brings weights into packed form.
   *
   * @param weights F32 KRSC [oc, kh, kw, ic/groups]; must stay alive and unchanged while the packed
   *     form is in use (a backend may keep an alias)
   * @throws OperandException if the tensor does not fit
   */
  public final void pack(Stream stream, Tensor weights, PackedWeights packed) {
    operands.require("weights", weights, descriptor.weights(), DataType.F32, Layout.KRSC);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(weights);
      runPack(stream, weights, packed);
    }
  }

  /**
   * Weights that an operation is to pack; see {@link Backend#pack}.
   *
   * @param operation whose weights they are
   * @param weights F32 KRSC [oc, kh, kw, ic/groups], as {@link Conv2d#pack} takes them
   * @param packed from {@link Conv2d#newPackedWeights}
   */
  public record Packing(Conv2d operation, Tensor weights, PackedWeights packed) {}

  /**
   * dst = phi(conv(src, weights) + bias).
   *
   * @throws OperandException if a tensor does not fit
   */
  public final void forward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
    requireForward(src, bias, dst);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).reads(bias).writes("dst", dst);
      if (descriptor.n() > 0) {
        runForward(stream, src, weights, bias, dst);
      }
    }
  }

  /**
   * As {@link #forward}, and leaves which elements of dst are positive.
   *
   * @param signs U8 {@link #signs signs(dst)}
   * @throws OperandException if a tensor does not fit
   * @throws UnsupportedException where {@link #keepsSigns} is false
   */
  public final void forwardWithSigns(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst, Tensor signs) {
    requireSigns();
    requireForward(src, bias, dst);
    operands.require("signs", signs, signs(descriptor.dst()), DataType.U8, Layout.ROW_MAJOR);
    operands.requireDistinct("src", src, "signs", signs);
    operands.requireDistinct("bias", bias, "signs", signs);
    operands.requireDistinct("dst", dst, "signs", signs);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src).reads(bias).writes("dst", dst).writes("signs", signs);
      if (descriptor.n() > 0) {
        runForwardWithSigns(stream, src, weights, bias, dst, signs);
      }
    }
  }

  private void requireForward(Tensor src, Tensor bias, Tensor dst) {
    operands.require("src", src, descriptor.src(), type, Layout.NHWC);
    operands.require("bias", bias, descriptor.bias(), DataType.F32, Layout.ROW_MAJOR);
    operands.require("dst", dst, descriptor.dst(), type, Layout.NHWC);
    operands.requireDistinct("src", src, "dst", dst);
    operands.requireDistinct("bias", bias, "dst", dst);
  }

  private void requireSigns() {
    if (!keepsSigns()) {
      throw new UnsupportedException("conv2d " + descriptor + " keeps no signs here: keepsSigns()");
    }
  }

  /**
   * diff_src = ([diff_src +] conv^T(diff_dst, weights)) * psi'(src).
   *
   * @param diffDst gradient before this operation's activation
   * @param src the source, read only where srcActivation is not the identity
   * @param write ACCUMULATE adds to diff_src before the multiplication by psi'
   * @throws OperandException if a tensor does not fit
   */
  public final void backwardData(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    operands.require("diff_dst", diffDst, descriptor.dst(), type, Layout.NHWC);
    operands.require("src", src, descriptor.src(), type, Layout.NHWC);
    operands.require("diff_src", diffSrc, descriptor.src(), type, Layout.NHWC);
    operands.requireDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    if (!srcActivation.isIdentity()) {
      operands.requireSameOrDistinct("src", src, "diff_src", diffSrc);
    }
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(src).writes("diff_src", diffSrc);
      if (descriptor.n() > 0) {
        runBackwardData(stream, diffDst, weights, src, diffSrc, write);
      }
    }
  }

  /**
   * As {@link #backwardData}, by the signs of src.
   *
   * @param signs U8 {@link #signs signs(src)}
   * @throws OperandException if a tensor does not fit
   * @throws UnsupportedException where {@link #keepsSigns} is false
   */
  public final void backwardDataBySigns(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor signs,
      Tensor diffSrc,
      Write write) {
    requireSigns();
    operands.require("diff_dst", diffDst, descriptor.dst(), type, Layout.NHWC);
    operands.require("signs", signs, signs(descriptor.src()), DataType.U8, Layout.ROW_MAJOR);
    operands.require("diff_src", diffSrc, descriptor.src(), type, Layout.NHWC);
    operands.requireDistinct("diff_dst", diffDst, "diff_src", diffSrc);
    operands.requireDistinct("signs", signs, "diff_src", diffSrc);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(diffDst).reads(signs).writes("diff_src", diffSrc);
      if (descriptor.n() > 0) {
        runBackwardDataBySigns(stream, diffDst, weights, signs, diffSrc, write);
      }
    }
  }

  /**
   * Gradients of weights and bias.
   *
   * @param diffDst gradient before this operation's activation
   * @param diffWeights F32 KRSC
   * @param diffBias F32 [oc]
   * @throws OperandException if a tensor does not fit
   */
  public final void backwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    operands.require("src", src, descriptor.src(), type, Layout.NHWC);
    operands.require("diff_dst", diffDst, descriptor.dst(), type, Layout.NHWC);
    operands.require("diff_weights", diffWeights, descriptor.weights(), DataType.F32, Layout.KRSC);
    operands.require("diff_bias", diffBias, descriptor.bias(), DataType.F32, Layout.ROW_MAJOR);
    operands.requireDistinct("diff_weights", diffWeights, "diff_bias", diffBias);
    operands.requireDistinct("src", src, "diff_weights", diffWeights);
    operands.requireDistinct("src", src, "diff_bias", diffBias);
    operands.requireDistinct("diff_dst", diffDst, "diff_weights", diffWeights);
    operands.requireDistinct("diff_dst", diffDst, "diff_bias", diffBias);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(src)
          .reads(diffDst)
          .writes("diff_weights", diffWeights)
          .writes("diff_bias", diffBias);
      runBackwardWeights(stream, src, diffDst, diffWeights, diffBias, write);
    }
  }

  /** Implements {@link #pack}; operands are checked. */
  protected abstract void runPack(Stream stream, Tensor weights, PackedWeights packed);

  /** Implements {@link #forward}; operands are checked and the batch is not empty. */
  protected abstract void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst);

  /** Implements {@link #backwardData}; operands are checked and the batch is not empty. */
  protected abstract void runBackwardData(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor src,
      Tensor diffSrc,
      Write write);

  /** Implements {@link #forwardWithSigns} where {@link #keepsSigns}. */
  protected void runForwardWithSigns(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst, Tensor signs) {
    throw new IllegalStateException("keepsSigns() without signs");
  }

  /** Implements {@link #backwardDataBySigns} where {@link #keepsSigns}. */
  protected void runBackwardDataBySigns(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor signs,
      Tensor diffSrc,
      Write write) {
    throw new IllegalStateException("keepsSigns() without signs");
  }

  /** Implements {@link #backwardWeights}; operands are checked, the batch may be empty. */
  protected abstract void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write);
}
