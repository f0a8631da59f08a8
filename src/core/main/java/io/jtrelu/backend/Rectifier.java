package io.jtrelu.backend;

/**
 * A scaled leaky rectifier, phi(x) = scale * (max(x, 0) + slope * min(x, 0)).
 *
 * <p>With y = phi(x), sign(y) = sign(x), hence phi'(x) = scale * (y &gt; 0 ? 1 : slope) needs only
 * the output. At the kink (x = 0 or -0) the derivative is that of the negative side, as in PyTorch;
 * so it is for the functions of {@link io.jtrelu.activation.Activation}. NaN gives NaN whatever the
 * slope, infinity infinity of its sign; but -infinity, where the slope is 0, gives 0 or NaN.
 *
 * @param slope slope of the negative side relative to the positive one, in [0, 1]
 * @param scale output scale, positive
 */
public record Rectifier(float slope, float scale) {
  /** phi(x) = x: no activation. */
  public static final Rectifier IDENTITY = new Rectifier(1, 1);

  /**
   * @throws IllegalArgumentException if slope is outside [0, 1] or scale is not positive and finite
   */
  public Rectifier {
    if (!(slope >= 0 && slope <= 1)) {
      throw new IllegalArgumentException("negative slope must lie in [0, 1], got " + slope);
    }
    if (!(scale > 0 && scale < Float.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException("output scale must be positive and finite, got " + scale);
    }
  }

  /**
   * The tailored rectifier of a slope: scale = sqrt(2 / (1 + slope^2)), which keeps E[phi(x)^2] =
   * E[x^2] for Gaussian x (Zhang et al., ICLR 2022, arXiv 2203.08120).
   */
  public static Rectifier tailored(double slope) {
    return new Rectifier((float) slope, (float) Math.sqrt(2 / (1 + slope * slope)));
  }

  /** Whether this is phi(x) = x. */
  public boolean isIdentity() {
    return slope == 1 && scale == 1;
  }
}
