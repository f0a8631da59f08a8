package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.SplittableRandom;
import org.hipparchus.linear.MatrixUtils;
import org.hipparchus.linear.RealMatrix;
import org.hipparchus.linear.SingularValueDecomposition;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Muon's steps against their definition, with singular values and vectors from a library. */
class MuonTest {
  private static final double RATE = 0.01;
  private static final double MOMENTUM = 0.9;
  private static final double DECAY = 0.1;
  private static final int BATCH = 3;

  /** A wide matrix, a tall one, three of a convolution in groups, and the classifier's. */
  private static Network network() {
    Network.Builder b = Network.builder("small", 5, 6, 2);
    int x = b.activation("a", b.convolution("wide", b.input(), 4, 3, 1));
    x = b.convolution("tall", x, 9, 1, 1);
    var groups = new Conv2dDescriptor(1, 5, 6, 9, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 3);
    x = b.activation("b", b.convolution("groups", x, groups));
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.2));
  }

  @ParameterizedTest
  @ValueSource(strings = {"reference", "cpu:1", "cpu:2"})
  void stepsAreThoseOfTheDefinition(String device) {
    Network network = network();
    TrainingConfig config =
        TrainingConfig.builder()
            .batch(BATCH)
            .optimizer(Optimizer.Kind.MUON)
            .learningRate(RATE)
            .momentum(MOMENTUM)
            .weightDecay(DECAY)
            .clipNorm(1e-3) // of no account
            .build();
    Program.Options options = new Program.Options(DataType.F32, 0, true, 5);
    SplittableRandom random = new SplittableRandom(3);
    try (Backend backend = Backends.open(device);
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Optimizer optimizer = new Optimizer(network, backend, config);
        LaneSteps steps =
            new LaneSteps(
                network, backend, BATCH, 0, 1, options, parameters, gradients, optimizer);
        Tensor images = Tensor.allocate(network.input().batch(BATCH), DataType.F32, Layout.NHWC);
        Tensor labels = Tensor.allocate(Shape.of(BATCH), DataType.I32, Layout.ROW_MAJOR)) {
      for (int p = 0; p < network.parameters().size(); p++) {
        fill(parameters.view(p), random, 0.5);
      }
      Expected expected = new Expected(network, parameters);
      for (int step = 1; step <= 3; step++) {
        fill(images, random, 1);
        for (int n = 0; n < BATCH; n++) {
          labels.put(n, n % 2);
        }
        steps.load();
        steps.submit(images, labels, new Steps.Pass(true, true, step, RATE, step));
        steps.take();
        expected.step(gradients, step);
        expected.requireNear(parameters, step);
      }
    }
  }

  private static void fill(Tensor tensor, SplittableRandom random, double deviation) {
    for (long i = 0; i < tensor.shape().elements(); i++) {
      tensor.put(i, (float) (deviation * random.nextGaussian()));
    }
  }

  /** The definition, in binary64, from the gradients that the network has. */
  private static final class Expected {
    final Network network;
    final double[][] parameters;
    final double[][] first;
    final double[][] second;

    Expected(Network network, Parameters start) {
      this.network = network;
      int count = network.parameters().size();
      parameters = new double[count][];
      first = new double[count][];
      second = new double[count][];
      for (int p = 0; p < count; p++) {
        int elements = (int) start.view(p).shape().elements();
        parameters[p] = new double[elements];
        first[p] = new double[elements];
        second[p] = new double[elements];
        for (int i = 0; i < elements; i++) {
          parameters[p][i] = start.view(p).get(i);
        }
      }
    }

    void step(Parameters gradients, int step) {
      for (int p = 0; p < parameters.length; p++) {
        ParameterSpec spec = network.parameters().get(p);
        double[] x = parameters[p];
        double[] g = new double[x.length];
        for (int i = 0; i < g.length; i++) {
          g[i] = gradients.view(p).get(i);
          assertTrue(g[i] != 0, spec.name() + " has no gradient");
        }
        if (spec.kind() == ParameterSpec.Kind.BIAS) {
          for (int i = 0; i < g.length; i++) {
            first[p][i] = MOMENTUM * first[p][i] + (1 - MOMENTUM) * g[i];
            second[p][i] = 0.999 * second[p][i] + 0.001 * g[i] * g[i];
            double mean = first[p][i] / (1 - Math.pow(MOMENTUM, step));
            double square = second[p][i] / (1 - Math.pow(0.999, step));
            x[i] -= RATE * mean / (Math.sqrt(square) + 1e-8);
          }
          continue;
        }
        int matrices = spec.name().startsWith("groups") ? 3 : 1;
        int rows = spec.shape().dim(0) / matrices;
        int columns = x.length / matrices / rows;
        for (int m = 0; m < matrices; m++) {
          RealMatrix look = MatrixUtils.createRealMatrix(rows, columns);
          for (int i = 0; i < rows * columns; i++) {
            int at = m * rows * columns + i;
            first[p][at] = MOMENTUM * first[p][at] + g[at];
            look.setEntry(i / columns, i % columns, g[at] + MOMENTUM * first[p][at]);
          }
          RealMatrix direction = polynomial(look);
          double scale = 0.2 * Math.sqrt(Math.max(rows, columns));
          for (int i = 0; i < rows * columns; i++) {
            int at = m * rows * columns + i;
            double along = scale * direction.getEntry(i / columns, i % columns);
            x[at] -= RATE * (along + DECAY * x[at]);
          }
        }
      }
    }

    /** U p(S / |S|) V'. */
    private static RealMatrix polynomial(RealMatrix of) {
      var decomposition = new SingularValueDecomposition(of);
      double[] values = decomposition.getSingularValues();
      for (int i = 0; i < values.length; i++) {
        double x = values[i] / of.getFrobeniusNorm();
        for (int k = 0; k < 5; k++) {
          x = 3.4445 * x - 4.7750 * Math.pow(x, 3) + 2.0315 * Math.pow(x, 5);
        }
        values[i] = x;
      }
      return decomposition
          .getU()
          .multiply(MatrixUtils.createRealDiagonalMatrix(values))
          .multiply(decomposition.getVT());
    }

    void requireNear(Parameters got, int step) {
      for (int p = 0; p < parameters.length; p++) {
        String name = network.parameters().get(p).name();
        for (int i = 0; i < parameters[p].length; i++) {
          // Small singular values grow by 3.4445^5 = 485, and so do their roundings.
          assertEquals(
              parameters[p][i], got.view(p).get(i), 1e-5, "step " + step + ", " + name + "[" + i);
        }
      }
    }
  }
}
