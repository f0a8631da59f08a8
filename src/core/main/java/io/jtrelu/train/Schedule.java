package io.jtrelu.train;

/**
 * The learning rate as a function of the step, counted from 0. Immutable.
 *
 * <p>A run of T steps takes the rates of steps 0 to T-1.
 */
public sealed interface Schedule {
  /** The rate for a step of 0 or more. */
  double rate(long step);

  /**
   * The same rate at every step.
   *
   * @param rate finite, 0 or more
   */
  record Constant(double rate) implements Schedule {
    /** Checks the rate. */
    public Constant {
      requireRate(rate);
    }

    @Override
    public double rate(long step) {
      return rate;
    }
  }

  /**
   * Linear warm-up, then half a cosine down to 0 (Loshchilov and Hutter, <i>SGDR</i>, ICLR 2017,
   * without restarts). With W warm-up steps of T in all:
   *
   * <ul>
   *   <li>peak * (t+1) / (W+1) for t &lt; W: the first step is not wasted on a rate of 0;
   *   <li>peak * (1 + cos(pi * (t-W) / (T-W))) / 2 for W &lt;= t &lt; T: exactly peak at t = W;
   *   <li>exactly 0 from t = T on.
   * </ul>
   *
   * @param peak highest rate, finite, 0 or more
   * @param warmup W, from 0 to T-1
   * @param steps T, 1 or more
   */
  record WarmupCosine(double peak, long warmup, long steps) implements Schedule {
    /** Checks the arguments. */
    public WarmupCosine {
      requireRate(peak);
      if (warmup < 0 || warmup >= steps) {
        throw new IllegalArgumentException(
            "warm-up of " + warmup + " steps in a run of " + steps + ": it must be shorter");
      }
    }

    @Override
    public double rate(long step) {
      if (step < warmup) {
        return peak * (step + 1) / (warmup + 1);
      }
      if (step >= steps) {
        return 0;
      }
      return peak * (1 + Math.cos(Math.PI * (step - warmup) / (steps - warmup))) / 2;
    }
  }

  private static void requireRate(double rate) {
    if (!(rate >= 0 && rate <= Float.MAX_VALUE)) {
      throw new IllegalArgumentException(
          "a learning rate is a number of 0 or more that binary32 can hold, got " + rate);
    }
  }
}
