package dependent;

import io.jtrelu.activation.Activation;
import io.jtrelu.random.DeltaKernel;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Tat;

/** The solver and initial weights on Java 17. */
public final class Main {
  public static void main(String[] arguments) {
    if (Runtime.version().feature() >= 25) {
      System.out.println("this is Java " + Runtime.version() + ", where 17 was meant");
    }
    double slope =
        Tat.eta(0.9)
            .solve(SignalGraph.chain(49), Activation.LEAKY_RELU)
            .activation()
            .negativeSlope();
    if (!(Math.abs(slope - 0.4259071946) < 1e-9)) {
      throw new AssertionError("slope " + slope);
    }
    float[] kernel = DeltaKernel.of(8, 4, 3, 3).oihw(1, 5, 0);
    double square = 0;
    for (float w : kernel) {
      square += w * w;
    }
    if (!(Math.abs(square - 8) < 1e-4)) { // four orthonormal columns, times sqrt(8 / 4)
      throw new AssertionError("square " + square);
    }
    System.out.println("slope " + slope + " on Java " + Runtime.version());
  }
}
