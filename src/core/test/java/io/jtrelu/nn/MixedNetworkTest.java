package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Subject;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.Tat;
import io.jtrelu.shaping.Unshaped;
import io.jtrelu.shaping.UnsuitableActivationException;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Networks of several activation functions. (Their gradients: {@link ProgramTest}.) */
class MixedNetworkTest {
  private static final int BATCH = 4;

  static Stream<Arguments> backends() {
    return Subject.all()
        .flatMap(
            subject ->
                ProgramTest.networks().stream()
                    .map(network -> Arguments.of(subject, ProgramTest.mixed(network))));
  }

  @ParameterizedTest
  @MethodSource("backends")
  void backendsAgreeWithTheReference(Subject subject, Network network) {
    try (Backend reference = Backends.open("reference");
        Backend backend = subject.open()) {
      double[] expected = lossAndGradients(reference, network);
      double[] actual = lossAndGradients(backend, network);
      double norm = 0;
      for (double value : expected) {
        norm += value * value;
      }
      // Rounding of some 20 layers; the largest gradients are of the size of the norm.
      double tolerance = 3e-5 * Math.sqrt(norm);
      for (int i = 0; i < expected.length; i++) {
        assertEquals(expected[i], actual[i], tolerance, subject.name() + " " + i);
      }
    }
  }

  private static double[] lossAndGradients(Backend backend, Network network) {
    try (Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = ProgramTest.images(network, BATCH, 2);
        Tensor labels = ProgramTest.labels(BATCH);
        BatchExecutor executor =
            new BatchExecutor(network, backend, BATCH, 2, ProgramTest.training());
        var stream = backend.newStream();
        Tensor host = Tensor.allocate(gradients.arena().shape(), DataType.F32, Layout.ROW_MAJOR)) {
      // Not Delta, and with biases, so that no value comes near a kink by symmetry.
      new Initializer(3, false).fill(backend, parameters);
      executor.load(parameters);
      var result = executor.forwardBackward(images, labels, gradients, Write.OVERWRITE, 1, 7);
      backend.copy(stream, gradients.arena(), host);
      stream.synchronize();
      float[] values = host.toFloatArray();
      double[] all = new double[values.length + 1];
      for (int i = 0; i < values.length; i++) {
        all[i] = values[i];
      }
      all[values.length] = result.loss();
      return all;
    }
  }

  private static Network chain(int layers, ActivationFunction... functions) {
    Network.Builder b = Network.builder("mixed", 3, 3, 4);
    int x = b.input();
    for (int i = 0; i < layers; i++) {
      x = b.convolution("layer" + i, x, 32, 3, 1);
      x = b.activation("layer" + i + ".activation", x, functions[i % functions.length]);
    }
    b.linear("logits", b.globalMeanPool("pool", x), 5);
    return b.build();
  }

  private static List<TransformedActivation> activations(Network network) {
    List<TransformedActivation> result = new ArrayList<>();
    for (Layer layer : network.layers()) {
      if (layer instanceof ActivationLayer activation) {
        result.add(activation.function());
      }
    }
    return result;
  }

  /** DKS over 20 layers, each with C'(1)^20 = zeta, whichever function it has. */
  @Test
  void everyLayerGetsTheParametersOfItsFunction() {
    Network network = chain(20, Activation.TANH, Activation.GELU, Activation.LEAKY_RELU);
    Network shaped = network.shape(new Dks(1.5));
    assertEquals(List.of("tanh", "gelu", "leaky_relu"), List.copyOf(shaped.functions().keySet()));
    List<TransformedActivation> activations = activations(shaped);
    for (int i = 0; i < 20; i++) {
      TransformedActivation f = activations.get(i);
      assertEquals(activations(network).get(i).function(), f.function());
      assertEquals(Math.pow(1.5, 0.05), slope(f), 1e-6, () -> f.toString());
    }
    assertEquals(1, shaped.weightScale());
    assertEquals(0, shaped.biasDeviation());
    // The network it came from is as it was; shaping again begins from the functions.
    assertEquals(1, activations(network).getFirst().inputScale());
    assertEquals(activations, activations(shaped.shape(new Dks(2)).shape(new Dks(1.5))));
    assertEquals(activations(network), activations(shaped.shape(new Unshaped())));
  }

  /** E[phi'^2] by the trapezoidal rule. */
  private static double slope(TransformedActivation f) {
    double sum = 0;
    double step = 1e-4;
    for (double z = -9 + step / 2; z < 9; z += step) {
      double d = f.derivative(z);
      sum += d * d * Math.exp(-z * z / 2) * step;
    }
    return sum / Math.sqrt(2 * Math.PI);
  }

  @Test
  void theEdgeOfChaosSetsWeightsAndBiases() {
    Network shaped = chain(5, Activation.TANH).shape(new Eoc(0.05));
    // Published: sigma_w^2 = 1.7609546396 for tanh and sigma_b^2 = 0.05.
    assertEquals(Math.sqrt(1.7609546396), shaped.weightScale(), 1e-9);
    assertEquals(Math.sqrt(0.05), shaped.biasDeviation(), 1e-15);
    try (Backend backend = Backends.open("reference");
        Parameters parameters = Parameters.allocate(shaped, backend)) {
      Initializer.delta(1).fill(backend, parameters);
      List<Network.ParameterSpec> specs = shaped.parameters();
      for (int p = 0; p < specs.size(); p++) {
        double squares = 0;
        for (float value : parameters.view(p).toFloatArray()) {
          squares += value * value;
        }
        if (specs.get(p).name().equals("layer1.weights")) {
          assertEquals(32 * 1.7609546396, squares, 1e-3); // of an orthogonal 32 x 32 matrix
        } else if (specs.get(p).name().equals("layer1.bias")) {
          assertEquals(0.05, squares / 32, 0.05 * 4 * Math.sqrt(2.0 / 32));
        }
      }
    }
  }

  @Test
  void whatDoesNotMixIsRefused() {
    Network withRectifier = chain(20, Activation.TANH, Activation.LEAKY_RELU);
    var tat =
        assertThrows(UnsuitableActivationException.class, () -> withRectifier.shape(new Tat()));
    assertTrue(tat.getMessage().contains("tanh, leaky_relu; use DKS"), tat.getMessage());
    var eoc =
        assertThrows(UnsuitableActivationException.class, () -> withRectifier.shape(new Eoc(0.05)));
    assertTrue(eoc.getMessage().contains("tanh, leaky_relu; use DKS"), eoc.getMessage());
    ActivationFunction one = ActivationFunction.derived("sine", x -> x.sin());
    ActivationFunction other = ActivationFunction.derived("sine", x -> x.sin().add(x));
    assertNotEquals(one, other);
    var names = assertThrows(IllegalArgumentException.class, () -> chain(2, one, other));
    assertTrue(names.getMessage().contains("another function named sine"), names.getMessage());
  }

  /** The whole chain for mixtures: solver, layers, initialiser, theory. */
  @ParameterizedTest
  @MethodSource("mixtures")
  void mixturesFollowTheTheory(io.jtrelu.shaping.ShapingMethod method, Network network) {
    try (Backend backend = Backends.open("cpu")) {
      Map<String, Shaping> solved = network.solve(method);
      var options = new SignalCheck.Options(7, 20, 150, 20);
      SignalCheck.Result result = SignalCheck.run(backend, network, solved, options, done -> {});
      assertTrue(result.passed(), result::toString);
      // The same network with one of its functions left as it was.
      Network faulty =
          network
              .shape(method)
              .with(
                  f ->
                      f.function() == Activation.SOFTPLUS
                          ? TransformedActivation.unchanged(Activation.SOFTPLUS)
                          : f,
                  1,
                  0);
      SignalCheck.Result caught =
          SignalCheck.run(
              backend,
              network,
              solved,
              faulty,
              (seed, parameters) -> Initializer.delta(seed).fill(backend, parameters),
              options,
              done -> {});
      assertTrue(!caught.passed());
    }
  }

  static Stream<Arguments> mixtures() {
    return Stream.of(
        Arguments.of(
            new Dks(), chain(12, Activation.TANH, Activation.SOFTPLUS, Activation.LEAKY_RELU)),
        Arguments.of(new Tat(), chain(12, Activation.SOFTPLUS, Activation.ERF)));
  }

  @Test
  void namedNetworksTakeAnyFunction() {
    Network network =
        Networks.build(Networks.Options.of("plain:30:8"), new Extent(8, 8, 2), 3)
            .with(Activation.SOFTPLUS);
    assertEquals(List.of("softplus"), List.copyOf(network.functions().keySet()));
    assertEquals(
        new Dks().solve(network.signalGraph(), Activation.SOFTPLUS).activation(),
        activations(network.shape(new Dks())).getLast());
  }
}
