package dependent;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Stream;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Tat;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/** Everything from the module path: the solver, the services, oneDNN's library in a jar. */
public final class Main {
  public static void main(String[] arguments) {
    if (!Backend.class.getModule().isNamed()) {
      throw new AssertionError("the library is not on the module path");
    }
    double slope = Tat.eta(0.9).solve(SignalGraph.chain(49), io.jtrelu.activation.Activation.LEAKY_RELU)
        .activation().negativeSlope();
    try (Backend backend = Backends.open("auto");
        Stream stream = backend.newStream();
        Rectify rectify = backend.rectify(2, DataType.F32, Rectifier.tailored((float) slope));
        Tensor x = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR)) {
      if (!backend.name().equals("onednn")) {
        throw new AssertionError("the backend is " + backend.name());
      }
      x.set(1, -1);
      rectify.forward(stream, x, x);
      stream.synchronize();
      double square = x.get(0) * x.get(0) + x.get(1) * x.get(1);
      if (!(Math.abs(square - 2) < 1e-5)) { // s^2 (1 + a^2) = 2
        throw new AssertionError("square " + square);
      }
      System.out.println("slope " + slope + " on " + backend.name());
    }
  }
}
