import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.SignalGraph;
import org.hipparchus.util.FastMath;

/** The solver alone, for a function of one's own in a chain of 100. */
public final class SolveForFunction {
  public static void main(String[] arguments) {
    ActivationFunction bump =
        ActivationFunction.derived("bump", x -> x.add(FastMath.sin(x).multiply(0.5)));
    TransformedActivation shaped =
        new Dks().solve(SignalGraph.chain(100), bump).activation();
    System.out.printf(
        "phi(x) = %.6f * (bump(%.6f * x + %.6f) + %.6f)%n",
        shaped.outputScale(), shaped.inputScale(), shaped.inputShift(), shaped.outputShift());
  }
}
