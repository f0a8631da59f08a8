package io.jtrelu.shaping;

import java.util.OptionalInt;

/** The network cannot reach the target, whatever the activation's parameters. */
public final class InfeasibleTargetException extends ShapingException {
  private static final long serialVersionUID = 1;

  private final double target;
  private final double attainable;
  private final int leastDepth;

  InfeasibleTargetException(String message, double target, double attainable, int leastDepth) {
    super(message);
    this.target = target;
    this.attainable = attainable;
    this.leastDepth = leastDepth;
  }

  /** The value asked for. */
  public double target() {
    return target;
  }

  /** The largest value that can be attained. */
  public double attainable() {
    return attainable;
  }

  /**
   * For a plain chain, the least number of activations that reaches the target; empty for other
   * networks, and where a million do not reach it.
   */
  public OptionalInt leastDepth() {
    return leastDepth > 0 ? OptionalInt.of(leastDepth) : OptionalInt.empty();
  }
}
