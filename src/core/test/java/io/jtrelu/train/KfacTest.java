package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.text.MessageFormat;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.SplittableRandom;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.hipparchus.linear.MatrixUtils;
import org.hipparchus.linear.RealMatrix;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** K-FAC against what the literature says it is, worked out in binary64. */
class KfacTest {
  private static final double RATE = 0.01;

  private static TrainingConfig config(int batch, KfacConfig kfac) {
    return TrainingConfig.builder()
        .batch(batch)
        .optimizer(Optimizer.Kind.KFAC)
        .learningRate(RATE)
        .labelSmoothing(0)
        .kfac(kfac)
        .build();
  }

  /** A network in training on one batch. */
  private static final class Training implements AutoCloseable {
    final Network network;
    final int batch;
    final Backend backend;
    final Parameters parameters;
    final Parameters gradients;
    final Optimizer optimizer;
    final LaneSteps steps;
    final Tensor images;
    final Tensor labels;
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    private int number;

    Training(String device, Network network, TrainingConfig config) {
      this.network = network;
      batch = config.batch();
      backend = own(Backends.open(device));
      parameters = own(Parameters.allocate(network, backend));
      gradients = own(Parameters.allocate(network, backend));
      optimizer = own(new Optimizer(network, backend, config));
      Program.Options options =
          new Program.Options(DataType.F32, (float) config.labelSmoothing(), true, 5);
      steps =
          own(
              new LaneSteps(
                  network, backend, batch, 0, 1, options, parameters, gradients, optimizer));
      images = own(Tensor.allocate(network.input().batch(batch), DataType.F32, Layout.NHWC));
      labels = own(Tensor.allocate(Shape.of(batch), DataType.I32, Layout.ROW_MAJOR));
    }

    private <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    void fillImages(long seed) {
      SplittableRandom random = new SplittableRandom(seed);
      for (long i = 0; i < images.shape().elements(); i++) {
        images.put(i, (float) (0.5 + random.nextGaussian()));
      }
      for (int i = 0; i < batch; i++) {
        labels.put(i, random.nextInt(network.classes()));
      }
    }

    Steps.Figures step() {
      steps.load();
      number++;
      steps.submit(images, labels, new Steps.Pass(true, true, number, RATE, number));
      return steps.take();
    }

    /** A square from one of the optimiser's tensors. */
    RealMatrix square(String tensor, int from, int n) {
      Tensor all = optimizer.state().get(tensor);
      RealMatrix matrix = MatrixUtils.createRealMatrix(n, n);
      for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
          matrix.setEntry(i, j, all.get(from + i * n + j));
        }
      }
      return matrix;
    }

    @Override
    public void close() {
      while (!owned.isEmpty()) {
        try {
          owned.pop().close();
        } catch (Exception failure) {
          throw new IllegalStateException(failure);
        }
      }
    }
  }

  /** A convolution with padding and stride, a rectifier, and a classifier. */
  private static Network small() {
    Network.Builder b = Network.builder("small", 5, 6, 2);
    int x = b.activation("a", b.convolution("c", b.input(), 3, 3, 2));
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.2));
  }

  /**
   * The first step. A sample's g is the gradient of the biases in a batch of that sample alone; its
   * a is its mean patch for the convolution, and for the classifier what the gradient of the
   * weights, g a', says.
   */
  @ParameterizedTest
  @ValueSource(strings = {"reference", "cpu"})
  void aStepIsThatOfTheDefinition(String device) {
    int batch = 8;
    KfacConfig settings = new KfacConfig(0.02, 1e-4, 0.9, 1, 1, true);
    try (Training training = new Training(device, small(), config(batch, settings))) {
      Initializer.delta(9).fill(training.backend, training.parameters);
      training.fillImages(3);
      for (int i = 0; i < training.parameters.arena().shape().elements(); i++) {
        float old = training.parameters.arena().get(i);
        training.parameters.arena().put(i, old + 0.1f * (i % 7 - 3)); // biases too
      }
      double[][] convolutionInputs = new double[batch][];
      double[][] classifierInputs = new double[batch][];
      double[][] convolutionGradients = new double[batch][];
      double[][] classifierGradients = new double[batch][];
      for (int n = 0; n < batch; n++) {
        convolutionInputs[n] = meanPatch(training, n);
        float[][] alone = gradientsOf(training, n);
        convolutionGradients[n] = wide(alone[index(training, "c.bias")]);
        classifierGradients[n] = wide(alone[index(training, "logits.bias")]);
        float[] weights = alone[index(training, "logits.weights")];
        double[] inputs = new double[4];
        for (int i = 0; i < 3; i++) {
          inputs[i] = weights[i] / classifierGradients[n][0]; // row of the first class
        }
        inputs[3] = 1;
        classifierInputs[n] = inputs;
      }
      float[] before = training.parameters.arena().toFloatArray();
      training.step();
      RealMatrix[] natural = {
        natural(training, "c", convolutionInputs, convolutionGradients, settings),
        natural(training, "logits", classifierInputs, classifierGradients, settings)
      };
      double inner = 0;
      for (int layer = 0; layer < 2; layer++) {
        RealMatrix d = gradient(training, layer == 0 ? "c" : "logits");
        inner += Math.abs(natural[layer].transposeMultiply(d).getTrace());
      }
      double nu = Math.sqrt(settings.normConstraint() / (RATE * RATE * inner));
      assertTrue(nu < 1, "the norm constraint does nothing");
      float[] after = training.parameters.arena().toFloatArray();
      requireStep(training, "c", natural[0], nu, before, after);
      requireStep(training, "logits", natural[1], nu, before, after);
    }
  }

  private static double[] meanPatch(Training training, int n) {
    // 5x6x2, 3x3, stride 2, padded to 3x3 places: "same" pads below and right first.
    var d = ((ConvolutionLayer) training.network.layers().get(1)).descriptor();
    double[] patch = new double[3 * 3 * 2 + 1];
    for (int y = 0; y < d.oh(); y++) {
      for (int x = 0; x < d.ow(); x++) {
        for (int r = 0; r < 3; r++) {
          for (int s = 0; s < 3; s++) {
            int row = 2 * y - d.padTop() + r;
            int column = 2 * x - d.padLeft() + s;
            for (int c = 0; c < 2; c++) {
              if (row >= 0 && row < 5 && column >= 0 && column < 6) {
                patch[(r * 3 + s) * 2 + c] +=
                    training.images.get(((n * 5 + row) * 6 + column) * 2 + c)
                        / (double) (d.oh() * d.ow());
              }
            }
          }
        }
      }
    }
    patch[18] = 1;
    return patch;
  }

  /** Gradients of all parameters for one sample's loss. */
  private static float[][] gradientsOf(Training training, int n) {
    long size = training.network.input().elements();
    Program.Options options = new Program.Options(DataType.F32, 0, true, 5);
    try (Backend backend = Backends.open("reference");
        Parameters parameters = Parameters.allocate(training.network, backend);
        Parameters gradients = Parameters.allocate(training.network, backend);
        BatchExecutor executor = new BatchExecutor(training.network, backend, 1, 1, options)) {
      parameters.arena().set(training.parameters.arena().toFloatArray());
      executor.load(parameters);
      executor.forwardBackward(
          training.images.slice(n * size, training.network.input().batch(1), Layout.NHWC),
          training.labels.slice(n, Shape.of(1), Layout.ROW_MAJOR),
          gradients,
          Write.OVERWRITE,
          1,
          1);
      List<float[]> all = new ArrayList<>();
      for (int p = 0; p < training.network.parameters().size(); p++) {
        all.add(gradients.view(p).toFloatArray());
      }
      return all.toArray(float[][]::new);
    }
  }

  private static int index(Training training, String parameter) {
    List<ParameterSpec> specs = training.network.parameters();
    for (int p = 0; p < specs.size(); p++) {
      if (specs.get(p).name().equals(parameter)) {
        return p;
      }
    }
    throw new AssertionError("no parameter " + parameter);
  }

  private static double[] wide(float[] values) {
    double[] wide = new double[values.length];
    for (int i = 0; i < values.length; i++) {
      wide[i] = values[i];
    }
    return wide;
  }

  /** [dW, db] of the step. */
  private static RealMatrix gradient(Training training, String layer) {
    float[] weights = training.gradients.view(index(training, layer + ".weights")).toFloatArray();
    float[] bias = training.gradients.view(index(training, layer + ".bias")).toFloatArray();
    int columns = weights.length / bias.length;
    RealMatrix d = MatrixUtils.createRealMatrix(bias.length, columns + 1);
    for (int i = 0; i < bias.length; i++) {
      for (int j = 0; j < columns; j++) {
        d.setEntry(i, j, weights[i * columns + j]);
      }
      d.setEntry(i, columns, bias[i]);
    }
    return d;
  }

  private static RealMatrix secondMoment(double[][] rows) {
    RealMatrix x = MatrixUtils.createRealMatrix(rows);
    return x.transposeMultiply(x).scalarMultiply(1.0 / rows.length);
  }

  private static RealMatrix natural(
      Training training, String layer, double[][] a, double[][] g, KfacConfig settings) {
    RealMatrix inputs = secondMoment(a);
    RealMatrix gradients = secondMoment(g);
    double pi =
        Math.sqrt(
            inputs.getTrace()
                / inputs.getRowDimension()
                / (gradients.getTrace() / gradients.getRowDimension()));
    double r = Math.sqrt(settings.damping());
    return inverse(gradients, r / pi)
        .multiply(gradient(training, layer))
        .multiply(inverse(inputs, pi * r));
  }

  private static RealMatrix inverse(RealMatrix f, double shift) {
    RealMatrix shifted =
        f.add(MatrixUtils.createRealIdentityMatrix(f.getRowDimension()).scalarMultiply(shift));
    return MatrixUtils.inverse(shifted);
  }

  private static void requireStep(
      Training training,
      String layer,
      RealMatrix natural,
      double nu,
      float[] before,
      float[] after) {
    double largest = 0;
    for (double[] row : natural.getData()) {
      for (double value : row) {
        largest = Math.max(largest, Math.abs(value));
      }
    }
    int columns = natural.getColumnDimension() - 1;
    ParameterSpec weights = training.network.parameters().get(index(training, layer + ".weights"));
    ParameterSpec bias = training.network.parameters().get(index(training, layer + ".bias"));
    for (int i = 0; i < natural.getRowDimension(); i++) {
      for (int j = 0; j <= columns; j++) {
        int at =
            (int) (j == columns ? bias.offset() + i : weights.offset() + (long) i * columns + j);
        double expected = before[at] - RATE * nu * natural.getEntry(i, j);
        // Factors and inverses in F32, of a condition of some hundreds.
        double bound = 1e-3 * RATE * nu * largest + 0x1p-23 * Math.abs(before[at]);
        assertEquals(expected, after[at], bound, layer + " " + i + ", " + j);
      }
    }
  }

  /** Logits that are means over the places of a convolution's result. */
  private static Network convolutionAlone(int classes) {
    Network.Builder b = Network.builder("alone", 4, 5, 2);
    b.globalMeanPool("logits", b.convolution("c", b.input(), classes, 3, 1));
    return b.build();
  }

  /**
   * Where a convolution's gradients are the same at all places, and g g' the same for all labels,
   * as for two classes of probability 1/2, the Fisher block <i>is</i> the product of the factors.
   * It is computed here as the mean over samples and labels of the outer products of gradients.
   */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void factorsMakeTheExactFisherBlock(boolean empirical) {
    int batch = 6;
    KfacConfig settings = new KfacConfig(0.1, 1, 0.9, 1, 1, empirical);
    Network network = convolutionAlone(2);
    try (Training training = new Training("cpu", network, config(batch, settings))) {
      training.fillImages(4);
      training.step();
      int k = 19;
      RealMatrix a = training.square("factors", 0, k);
      RealMatrix g = training.square("factors", k * k, 2);
      RealMatrix fisher = MatrixUtils.createRealMatrix(2 * k, 2 * k);
      training.parameters.arena().set(new float[training.parameters.arena().toFloatArray().length]);
      for (int n = 0; n < batch; n++) {
        for (int label = 0; label < 2; label++) {
          training.labels.put(n, label);
          float[][] alone = gradientsOf(training, n);
          double[] all = new double[2 * k];
          for (int i = 0; i < 2; i++) {
            for (int j = 0; j < k - 1; j++) {
              all[i * k + j] = alone[0][i * (k - 1) + j];
            }
            all[i * k + k - 1] = alone[1][i];
          }
          RealMatrix column = MatrixUtils.createColumnRealMatrix(all);
          fisher = fisher.add(column.multiplyTransposed(column).scalarMultiply(0.5 / batch));
        }
      }
      for (int i = 0; i < 2 * k; i++) {
        for (int j = 0; j < 2 * k; j++) {
          double product = g.getEntry(i / k, j / k) * a.getEntry(i % k, j % k);
          assertEquals(fisher.getEntry(i, j), product, 1e-6, i + ", " + j);
        }
      }
      assertTrue(fisher.getTrace() > 0.1, "nothing to be seen");
    }
  }

  /**
   * In the expand form every place counts as a sample. The gradient at each place is the logits'
   * over the number of places here, so that G is too small by that number; A is the mean over all
   * patches.
   */
  @Test
  void theExpandFormTakesPlacesForSamples() {
    int batch = 5;
    int places = 20;
    KfacConfig settings = new KfacConfig(0.1, 1, 0.9, 1, 1, true, FisherRows.Form.EXPAND);
    try (Training training = new Training("cpu", convolutionAlone(3), config(batch, settings))) {
      training.fillImages(12);
      training.step();
      double[][] patches = new double[batch * places][];
      double[][] gradients = new double[batch][];
      for (int n = 0; n < batch; n++) {
        for (int t = 0; t < places; t++) {
          patches[n * places + t] = patchOfFourByFive(training, n, t);
        }
        gradients[n] = new double[] {1 / 3.0, 1 / 3.0, 1 / 3.0}; // weights were zero
        gradients[n][(int) training.labels.get(n)] -= 1;
      }
      requireEqual(secondMoment(patches), training.square("factors", 0, 19));
      requireEqual(
          secondMoment(gradients).scalarMultiply(1.0 / places),
          training.square("factors", 19 * 19, 3));
    }
  }

  private static void requireEqual(RealMatrix expected, RealMatrix actual) {
    for (int i = 0; i < expected.getRowDimension(); i++) {
      for (int j = 0; j < expected.getColumnDimension(); j++) {
        assertEquals(expected.getEntry(i, j), actual.getEntry(i, j), 1e-5, i + ", " + j);
      }
    }
  }

  /** Labels are drawn with the probabilities of the prediction: G is diag(p) - p p' then. */
  @Test
  void labelsAreDrawnFromThePrediction() {
    int batch = 4000;
    double[] p = {0.6, 0.3, 0.1};
    KfacConfig settings = new KfacConfig(0.1, 1, 0.9, 1, 1, false);
    try (Training training = new Training("cpu", convolutionAlone(3), config(batch, settings))) {
      training.fillImages(5);
      for (int i = 0; i < batch; i++) {
        training.labels.put(i, 2); // of no consequence
      }
      for (int c = 0; c < 3; c++) {
        training.parameters.view(1).put(c, (float) Math.log(p[c]));
      }
      training.step();
      RealMatrix g = training.square("factors", 19 * 19, 3);
      for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
          double expected = (i == j ? p[i] : 0) - p[i] * p[j];
          // Products lie in [-1, 1]: five standard deviations of their mean are at most this.
          assertEquals(expected, g.getEntry(i, j), 5 / Math.sqrt(batch) / 2, i + ", " + j);
        }
      }
    }
  }

  /**
   * Without damping a step changes the function in the same way whatever affine map the inputs have
   * passed (Martens and Grosse 2015, theorem 1), which a step of SGD does not.
   */
  @Test
  void stepsDoNotDependOnTheParametrisation() {
    assertTrue(changeByReparametrisation(Optimizer.Kind.KFAC) < 0.01);
    assertTrue(changeByReparametrisation(Optimizer.Kind.SGD) > 0.2);
  }

  /** Largest difference of the changes of predictions, as a share of the largest change. */
  private static double changeByReparametrisation(Optimizer.Kind kind) {
    int batch = 64;
    Network.Builder b = Network.builder("linear", 1, 1, 3);
    b.linear("logits", b.input(), 3);
    Network network = b.build();
    KfacConfig settings = new KfacConfig(1e-10, Double.POSITIVE_INFINITY, 0.9, 1, 1, false);
    TrainingConfig config =
        config(batch, settings).toBuilder()
            .optimizer(kind)
            .clipNorm(Double.POSITIVE_INFINITY)
            .build();
    double[][] map = {{2, 0.5, 0}, {-1, 1, 0.5}, {0, 0.25, 0.5}};
    double[] shift = {1, -0.5, 0.25};
    RealMatrix inverse = MatrixUtils.inverse(MatrixUtils.createRealMatrix(map));
    try (Training plain = new Training("cpu", network, config);
        Training mapped = new Training("cpu", network, config)) {
      plain.fillImages(6);
      mapped.fillImages(6); // for the labels
      double[][] weights = {{0.3, -0.2, 0.5}, {0.1, 0.4, -0.3}, {-0.2, 0.1, 0.2}};
      double[] bias = {0.1, -0.1, 0.2};
      RealMatrix mappedWeights = MatrixUtils.createRealMatrix(weights).multiply(inverse);
      double[] moved = mappedWeights.operate(shift);
      for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
          plain.parameters.view(0).put(3 * i + j, (float) weights[i][j]);
          mapped.parameters.view(0).put(3 * i + j, (float) mappedWeights.getEntry(i, j));
        }
        plain.parameters.view(1).put(i, (float) bias[i]);
        mapped.parameters.view(1).put(i, (float) (bias[i] - moved[i]));
      }
      for (int n = 0; n < batch; n++) {
        for (int i = 0; i < 3; i++) {
          double x = shift[i];
          for (int j = 0; j < 3; j++) {
            x += map[i][j] * plain.images.get(3 * n + j);
          }
          mapped.images.put(3 * n + i, (float) x);
        }
      }
      double[][] before = predictions(plain);
      plain.step();
      mapped.step();
      double[][] after = predictions(plain);
      double[][] other = predictions(mapped);
      double largest = 0;
      double difference = 0;
      for (int n = 0; n < batch; n++) {
        for (int c = 0; c < 3; c++) {
          largest = Math.max(largest, Math.abs(after[n][c] - before[n][c]));
          difference = Math.max(difference, Math.abs(after[n][c] - other[n][c]));
        }
      }
      assertTrue(largest > 1e-4, "nothing has changed");
      return difference / largest;
    }
  }

  /** Probabilities of the classes by a linear classifier. */
  private static double[][] predictions(Training training) {
    double[][] p = new double[training.batch][3];
    for (int n = 0; n < training.batch; n++) {
      double sum = 0;
      for (int c = 0; c < 3; c++) {
        double logit = training.parameters.view(1).get(c);
        for (int j = 0; j < 3; j++) {
          logit +=
              (double) training.parameters.view(0).get(3 * c + j) * training.images.get(3 * n + j);
        }
        p[n][c] = Math.exp(logit);
        sum += p[n][c];
      }
      for (int c = 0; c < 3; c++) {
        p[n][c] /= sum;
      }
    }
    return p;
  }

  /** The k-th measurement counts max(1 - decay, 1/k). */
  @Test
  void factorsAreMovingAveragesWhoseBeginningIsAMean() {
    KfacConfig settings = new KfacConfig(0.1, 1e-12, 0.75, 1, 1, true);
    try (Training training = new Training("cpu", convolutionAlone(2), config(4, settings))) {
      RealMatrix expected = MatrixUtils.createRealMatrix(19, 19);
      double[] weights = {1, 1 / 2.0, 1 / 3.0, 1 / 4.0, 1 / 4.0, 1 / 4.0};
      for (int step = 0; step < weights.length; step++) {
        training.fillImages(10 + step);
        double[][] rows = new double[4][];
        for (int n = 0; n < 4; n++) {
          rows[n] = meanPatchOfFourByFive(training, n);
        }
        expected =
            expected
                .scalarMultiply(1 - weights[step])
                .add(secondMoment(rows).scalarMultiply(weights[step]));
        training.step();
        RealMatrix a = training.square("factors", 0, 19);
        for (int i = 0; i < 19; i++) {
          for (int j = 0; j < 19; j++) {
            assertEquals(expected.getEntry(i, j), a.getEntry(i, j), 1e-5, "step " + step);
          }
        }
      }
    }
  }

  private static double[] meanPatchOfFourByFive(Training training, int n) {
    double[] mean = new double[19];
    for (int place = 0; place < 20; place++) {
      double[] patch = patchOfFourByFive(training, n, place);
      for (int i = 0; i < mean.length; i++) {
        mean[i] += patch[i] / 20;
      }
    }
    return mean;
  }

  private static double[] patchOfFourByFive(Training training, int n, int place) {
    double[] patch = new double[19];
    int y = place / 5;
    int x = place % 5;
    for (int r = -1; r <= 1; r++) {
      for (int s = -1; s <= 1; s++) {
        for (int c = 0; c < 2; c++) {
          if (y + r >= 0 && y + r < 4 && x + s >= 0 && x + s < 5) {
            patch[((r + 1) * 3 + s + 1) * 2 + c] =
                training.images.get(((n * 4 + y + r) * 5 + x + s) * 2 + c);
          }
        }
      }
    }
    patch[18] = 1;
    return patch;
  }

  /** Measurements and inversions have their steps; between them nothing changes. */
  @Test
  void factorsAndInversesChangeWhenItIsTheirTurn() {
    KfacConfig settings = new KfacConfig(0.1, 1e-6, 0.9, 2, 4, false);
    try (Training training = new Training("cpu", small(), config(4, settings))) {
      Initializer.delta(9).fill(training.backend, training.parameters);
      int first = 19 * 19 + 3 * 3; // floats of the first layer's factors
      for (int step = 1; step <= 9; step++) {
        training.fillImages(step);
        float[] factors = training.optimizer.state().get("factors").toFloatArray();
        float[] inverses = training.optimizer.state().get("inverses").toFloatArray();
        training.step();
        boolean measured = (step - 1) % 2 == 0;
        int turn = (step - 1) / 2 + 1; // of measurements
        assertEquals(
            measured, changed(factors, training, "factors", 0, factors.length), "step " + step);
        boolean firstLayer = measured && (turn == 1 || turn % 2 == 0);
        boolean secondLayer = measured && turn % 2 == 1;
        assertEquals(firstLayer, changed(inverses, training, "inverses", 0, first), "step " + step);
        assertEquals(
            secondLayer,
            changed(inverses, training, "inverses", first, inverses.length),
            "step " + step);
      }
    }
  }

  private static boolean changed(float[] before, Training training, String name, int from, int to) {
    float[] after = training.optimizer.state().get(name).toFloatArray();
    for (int i = from; i < to; i++) {
      if (before[i] != after[i]) {
        return true;
      }
    }
    return false;
  }

  /** A factor without an inverse is told, by layer and step, and the inverse before it stays. */
  @Test
  void aFactorThatCannotBeInvertedKeepsTheInverseBefore() {
    KfacConfig settings = new KfacConfig(0.1, 1e-3, 0.9, 1, 1, false);
    List<String> told = new ArrayList<>();
    Handler handler =
        new Handler() {
          @Override
          public void publish(LogRecord logged) {
            told.add(MessageFormat.format(logged.getMessage(), logged.getParameters()));
          }

          @Override
          public void flush() {}

          @Override
          public void close() {}
        };
    Logger logger = Logger.getLogger("io.jtrelu.train");
    logger.addHandler(handler);
    try (Training training = new Training("cpu", convolutionAlone(2), config(4, settings))) {
      training.fillImages(1);
      training.step();
      assertEquals(List.of(), told);
      float[] inverses = training.optimizer.state().get("inverses").toFloatArray();
      training.optimizer.state().get("factors").put(0, Float.NaN);
      training.step();
      assertArrayEquals(
          Arrays.copyOf(inverses, 19 * 19),
          Arrays.copyOf(training.optimizer.state().get("inverses").toFloatArray(), 19 * 19));
      assertEquals(1, told.size(), told.toString());
      assertTrue(told.getFirst().contains("step 2, layer c, input factor"), told.getFirst());
      for (float value : training.parameters.arena().toFloatArray()) {
        assertTrue(Float.isFinite(value));
      }
    } finally {
      logger.removeHandler(handler);
    }
  }

  @Test
  void networksWithoutFactorsAreRefused() {
    Network.Builder b = Network.builder("groups", 4, 4, 4);
    int x =
        b.add(
            new ConvolutionLayer(
                "g",
                b.input(),
                new Conv2dDescriptor(1, 4, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 2)));
    b.linear("logits", b.globalMeanPool("pool", x), 2);
    Network network = b.build();
    try (Backend backend = Backends.open("cpu")) {
      UnsupportedException refused =
          assertThrows(
              UnsupportedException.class,
              () -> new Optimizer(network, backend, config(4, KfacConfig.DEFAULTS)).close());
      assertTrue(refused.getMessage().contains("layer g"), refused.getMessage());
      assertEquals(0, backend.memory().inUse());
    }
  }

  @Test
  void settingsOutOfRangeAreRefused() {
    for (double bad : new double[] {0, -1, Double.NaN, 1e7}) {
      refuse(() -> new KfacConfig(bad, 1, 0.9, 1, 1, false), "damping");
    }
    refuse(() -> new KfacConfig(1, 0, 0.9, 1, 1, false), "norm constraint");
    refuse(() -> new KfacConfig(1, 1, 1, 1, 1, false), "decay");
    refuse(() -> new KfacConfig(1, 1, 0.9, 0, 1, false), "between measurements");
    refuse(() -> new KfacConfig(1, 1, 0.9, 2, 3, false), "between inversions");
  }

  private static void refuse(Runnable make, String word) {
    IllegalArgumentException refused = assertThrows(IllegalArgumentException.class, make::run);
    assertTrue(refused.getMessage().contains(word), refused.getMessage());
  }
}
