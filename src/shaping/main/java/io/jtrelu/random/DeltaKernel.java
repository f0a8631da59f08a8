package io.jtrelu.random;

/**
 * Delta initialisation of a convolution (Xiao et al., arXiv 1806.05393): zero everywhere but at the
 * centre of the kernel, where each group has an independent scaled-corrected orthogonal matrix of
 * oc/groups x ic/groups, as {@link OrthogonalMatrix#linear} makes it. At initialisation the
 * convolution is then a linear layer at each location, which preserves the mean square of signals,
 * and the kernel-shaping mathematics of linear layers holds for it.
 *
 * <p>The three layouts hold the same numbers. Group g uses the streams from sequence + g *
 * min(oc/groups, ic/groups) on. Immutable and safe for use by several threads.
 *
 * @param oc output channels
 * @param ic input channels
 * @param kh height of the kernel, odd
 * @param kw width of the kernel, odd
 * @param groups number of groups, a divisor of both channel counts; ic for a depthwise convolution
 */
public record DeltaKernel(int oc, int ic, int kh, int kw, int groups) {

  /**
   * @throws IllegalArgumentException if a size is below 1, a side of the kernel is even, the groups
   *     do not divide the channels, or the elements are more than an array holds
   */
  public DeltaKernel {
    if (oc < 1 || ic < 1 || kh < 1 || kw < 1 || groups < 1) {
      throw new IllegalArgumentException(
          "every size of a Delta kernel must be at least 1, got oc "
              + oc
              + ", ic "
              + ic
              + ", kernel "
              + kh
              + "x"
              + kw
              + ", groups "
              + groups);
    }
    if (kh % 2 == 0 || kw % 2 == 0) {
      throw new IllegalArgumentException(
          "a Delta kernel needs odd sides, as an even one has no centre, got "
              + kh
              + "x"
              + kw
              + "; use OrthogonalMatrix.linear over ic * kh * kw inputs instead");
    }
    if (oc % groups != 0 || ic % groups != 0) {
      throw new IllegalArgumentException(
          groups + " groups do not divide the channels, oc " + oc + " and ic " + ic);
    }
    int inner = ic / groups;
    if ((double) oc * inner * kh * kw > Integer.MAX_VALUE - 8) {
      throw new IllegalArgumentException(
          "a kernel of oc "
              + oc
              + ", ic "
              + inner
              + " a group, "
              + kh
              + "x"
              + kw
              + " has more elements than an array holds, "
              + (Integer.MAX_VALUE - 8));
    }
  }

  /**
   * Without groups.
   *
   * @throws IllegalArgumentException as the constructor does
   */
  public static DeltaKernel of(int oc, int ic, int kh, int kw) {
    return new DeltaKernel(oc, ic, kh, kw, 1);
  }

  /**
   * Layout KRSC [oc, kh, kw, ic/groups], JTReLU's.
   *
   * @param gain factor besides the scale correction, 1 for tailored activations; finite
   * @param seed key of the generator
   * @param sequence first stream used; groups * min(oc/groups, ic/groups) consecutive streams are
   * @return the caller's
   * @throws IllegalArgumentException if the gain is not finite
   */
  public float[] krsc(double gain, long seed, long sequence) {
    int inner = ic / groups;
    int centre = kh / 2 * kw + kw / 2;
    return placed(gain, seed, sequence, kh * kw * inner, 1, centre * inner);
  }

  /**
   * Layout OIHW [oc, ic/groups, kh, kw], PyTorch's, DJL's, Deeplearning4j's and ONNX's.
   *
   * @param gain as for {@link #krsc}
   * @param seed as for {@link #krsc}
   * @param sequence as for {@link #krsc}
   * @return the caller's
   * @throws IllegalArgumentException if the gain is not finite
   */
  public float[] oihw(double gain, long seed, long sequence) {
    int taps = kh * kw;
    return placed(gain, seed, sequence, ic / groups * taps, taps, kh / 2 * kw + kw / 2);
  }

  /**
   * Layout HWIO [kh, kw, ic/groups, oc], TensorFlow's and Keras's.
   *
   * @param gain as for {@link #krsc}
   * @param seed as for {@link #krsc}
   * @param sequence as for {@link #krsc}
   * @return the caller's
   * @throws IllegalArgumentException if the gain is not finite
   */
  public float[] hwio(double gain, long seed, long sequence) {
    return placed(gain, seed, sequence, 1, oc, (kh / 2 * kw + kw / 2) * (ic / groups) * oc);
  }

  /** Element (k, c) of the centre goes to k * strideOut + c * strideIn + offset. */
  private float[] placed(
      double gain, long seed, long sequence, int strideOut, int strideIn, int offset) {
    int rows = oc / groups;
    int cols = ic / groups;
    float[] kernel = new float[oc * cols * kh * kw];
    for (int g = 0; g < groups; g++) {
      long first = sequence + (long) g * Math.min(rows, cols);
      float[] matrix = OrthogonalMatrix.linear(rows, cols, gain, seed, first);
      for (int r = 0; r < rows; r++) {
        for (int c = 0; c < cols; c++) {
          kernel[(g * rows + r) * strideOut + c * strideIn + offset] = matrix[r * cols + c];
        }
      }
    }
    return kernel;
  }
}
