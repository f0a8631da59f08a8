package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.reference.ReferenceProvider;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Networks of any outputs, whose gradients come from outside and go out to the input. */
class OutputsTest {
  private static final int BATCH = 3;

  /** An activation that is read by another layer, and one that nothing reads. */
  static Network maps() {
    Network.Builder b = Network.builder("maps", 6, 5, 2);
    int first = b.activation("first.act", b.convolution("first", b.input(), 4, 3, 1));
    int second = b.activation("second.act", b.convolution("second", first, 5, 3, 2));
    return b.build(second, first);
  }

  /** Values that would not exist if they were no outputs. */
  static Network inner() {
    Network.Builder b = Network.builder("inner", 6, 6, 3);
    int before = b.convolution("before", b.input(), 4, 3, 1); // else fused, or overwritten
    int act = b.activation("act", before);
    int branch = b.convolution("branch", act, 4, 3, 1); // else absorbed by the sum
    int sum = b.normalizedSum("sum", act, branch, 0.6);
    int after = b.activation("after", sum);
    int pool = b.maxPool("pool", after, 3, 2);
    int mean = b.globalMeanPool("mean", pool);
    int dropped = b.dropout("dropped", mean, 0.3f);
    int logits = b.linear("logits", dropped, 3);
    return b.build(logits, before, branch, sum, pool, dropped);
  }

  /** Two heads; parameters in only one of them, and none behind one output. */
  static Network heads() {
    Network.Builder b = Network.builder("heads", 6, 6, 2);
    int pooled = b.maxPool("pool", b.input(), 2, 2);
    int map = b.activation("act", b.convolution("conv", pooled, 3, 3, 1));
    int mean = b.globalMeanPool("mean", map);
    int direct = b.globalMeanPool("direct", b.input());
    return b.build(mean, direct, pooled);
  }

  static Stream<Network> networks() {
    List<TransformedActivation> functions = ProgramTest.activations();
    return Stream.of(maps(), inner(), heads())
        .flatMap(
            network ->
                Stream.concat(
                    functions.stream().map(network::with), Stream.of(ProgramTest.mixed(network))));
  }

  private static float[] normals(long count, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  private static float[] moved(float[] values, float[] direction, double step) {
    float[] result = values.clone();
    for (int i = 0; i < result.length; i++) {
      result[i] += (float) (step * direction[i]);
    }
    return result;
  }

  private static double dot(float[] a, float[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += (double) a[i] * b[i];
    }
    return sum;
  }

  /** The loss is the sum of <output k, G_k>, so the gradients of the outputs are the G_k. */
  @ParameterizedTest
  @MethodSource("networks")
  void gradientsAgreeWithCentralDifferences(Network network) {
    Program.Options options = new Program.Options(DataType.F32, 0, true, 5, true);
    try (Backend backend = new ReferenceProvider().open(0);
        Program program = new Program(network, backend, BATCH, options);
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream);
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = ProgramTest.images(network, BATCH, 2)) {
      new Initializer(3, false).fill(backend, parameters);
      for (int p = 0; p < network.parameters().size(); p++) {
        Tensor view = parameters.view(p);
        view.set(moved(view.toFloatArray(), normals(view.shape().elements(), 40 + p), 0.1));
      }
      program.load(stream, parameters);
      Tensor first = workspace.forward(images, 7);
      assertEquals(workspace.output(0), first);
      List<float[]> outputs = new ArrayList<>();
      List<float[]> outside = new ArrayList<>();
      double loss = 0;
      for (int k = 0; k < network.outputs().size(); k++) {
        Tensor output = workspace.output(k);
        Layer layer = network.layers().get(network.outputs().get(k));
        assertEquals(layer.extent().batch(BATCH), output.shape());
        outputs.add(output.toFloatArray());
        outside.add(normals(output.shape().elements(), 70 + k));
        loss += dot(outputs.get(k), outside.get(k));
      }
      for (int k = 0; k < outside.size(); k++) {
        workspace.outputGradient(k).set(outside.get(k));
      }
      gradients.arena().set(normals(gradients.arena().shape().elements(), 8)); // poison
      workspace.backward(gradients, Write.OVERWRITE);
      for (int k = 0; k < outputs.size(); k++) {
        assertArrayEquals(outputs.get(k), workspace.output(k).toFloatArray(), "output " + k);
      }
      float[] inputGradient = workspace.inputGradient().toFloatArray();

      double noise = 0;
      for (int k = 0; k < outputs.size(); k++) {
        for (int i = 0; i < outputs.get(k).length; i++) {
          noise += Math.abs(outputs.get(k)[i] * outside.get(k)[i]);
        }
      }
      Losses losses = new Losses(program, stream, workspace, parameters, images, outside);
      for (int p = -1; p < network.parameters().size(); p++) {
        Tensor at = p < 0 ? images : parameters.view(p);
        float[] gradient = p < 0 ? inputGradient : gradients.view(p).toFloatArray();
        String name =
            network + " " + (p < 0 ? "input" : network.parameters().get(p).name()) + " " + loss;
        check(name, losses, at, gradient, noise);
      }
    }
  }

  private record Losses(
      Program program,
      io.jtrelu.backend.Stream stream,
      Program.Workspace workspace,
      Parameters parameters,
      Tensor images,
      List<float[]> outside) {
    double now() {
      program.load(stream, parameters);
      workspace.forward(images, 7);
      double sum = 0;
      for (int k = 0; k < outside.size(); k++) {
        sum += dot(workspace.output(k).toFloatArray(), outside.get(k));
      }
      return sum;
    }
  }

  private static void check(String name, Losses losses, Tensor at, float[] gradient, double noise) {
    float[] values = at.toFloatArray();
    float[] direction = normals(values.length, 11);
    double step = 1e-4; // no window of a pool has two largest values this close
    at.set(moved(values, direction, step));
    double up = losses.now();
    at.set(moved(values, direction, -step));
    double down = losses.now();
    at.set(values);
    double expected = dot(gradient, direction);
    double size = 0;
    for (int i = 0; i < gradient.length; i++) {
      size += Math.abs(gradient[i] * direction[i]);
    }
    assertTrue(size > 0, name + ": the gradient is zero");
    // Values are rounded to F32 on both sides; errors of the elements are independent.
    double tolerance = 2e-3 * size + 0.1 * noise * 0x1p-23 / step;
    double slope = (up - down) / (2 * step);
    assertTrue(
        Math.abs(slope - expected) <= tolerance,
        name + ": central difference " + slope + ", gradient " + expected + " +- " + tolerance);
  }

  /** Outputs of a network agree with those of networks that end there. */
  @ParameterizedTest
  @MethodSource("networks")
  void outputsAreThoseOfNetworksThatEndThere(Network network) {
    try (Backend backend = new ReferenceProvider().open(0);
        Tensor images = ProgramTest.images(network, BATCH, 2)) {
      List<float[]> all = outputs(backend, network, images);
      for (int k = 0; k < all.size(); k++) {
        Network.Builder b =
            new Network.Builder(network.name(), (InputLayer) network.layers().getFirst());
        int end = network.outputs().get(k);
        int[] node = new int[end + 1];
        for (int i = 1; i <= end; i++) {
          node[i] = b.add(network.layers().get(i));
        }
        List<Integer> ends = new ArrayList<>(List.of(end));
        for (int i = 1; i < end; i++) { // whatever does not lead there
          int at = i;
          if (network.layers().subList(0, end + 1).stream()
              .noneMatch(l -> l.sources().contains(at))) {
            ends.add(i);
          }
        }
        Network part = b.build(ends.stream().mapToInt(i -> node[i]).toArray());
        // With fewer outputs more is fused, so that values are rounded less often.
        assertArrayEquals(outputs(backend, part, images).getFirst(), all.get(k), 2e-6f);
      }
    }
  }

  private static List<float[]> outputs(Backend backend, Network network, Tensor images) {
    Program.Options options = new Program.Options(DataType.F32, 0, false, 5);
    try (Program program = new Program(network, backend, BATCH, options);
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream);
        Parameters parameters = Parameters.allocate(network, backend)) {
      for (int p = 0; p < network.parameters().size(); p++) {
        // By name, as parameters of a part have other places.
        long seed = network.parameters().get(p).name().hashCode();
        Tensor view = parameters.view(p);
        view.set(
            moved(
                new float[(int) view.shape().elements()],
                normals(view.shape().elements(), seed),
                0.3));
      }
      program.load(stream, parameters);
      workspace.forward(images, 0);
      List<float[]> result = new ArrayList<>();
      for (int k = 0; k < network.outputs().size(); k++) {
        result.add(workspace.output(k).toFloatArray());
      }
      return result;
    }
  }

  @Test
  void namesItsOutputs() {
    Network network = inner();
    assertEquals(
        List.of("logits", "before", "branch", "sum", "pool", "dropped"),
        network.outputs().stream().map(i -> network.layers().get(i).name()).toList());
    assertFalse(network.isClassifier());
    assertTrue(ProgramTest.networks().getFirst().isClassifier());
    assertEquals(network.outputs(), network.with(Activation.GELU).outputs());
    assertEquals(2, maps().depth());
    assertEquals(2, maps().signalGraph().activations());
    assertEquals(1, heads().signalGraph().activations()); // two ends
  }

  @Test
  void refusesOutputsThatAreNone() {
    Network.Builder b = Network.builder("wrong", 4, 4, 2);
    int x = b.convolution("a", b.input(), 3, 3, 1);
    int y = b.convolution("b", x, 3, 3, 1);
    assertThrows(IllegalArgumentException.class, () -> b.build(new int[0]));
    var missing = assertThrows(IllegalArgumentException.class, () -> b.build(7));
    assertTrue(missing.getMessage().contains("output 7"), missing.getMessage());
    var twice = assertThrows(IllegalArgumentException.class, () -> b.build(y, x, y));
    assertTrue(twice.getMessage().contains("layer b"), twice.getMessage());
    var unread = assertThrows(IllegalStateException.class, () -> b.build(x));
    assertTrue(unread.getMessage().contains("layer b"), unread.getMessage());
  }

  @Test
  void theBuiltInLossIsForClassifiers() {
    Network network = maps();
    var classes = assertThrows(IllegalStateException.class, network::classes);
    assertTrue(classes.getMessage().contains("second.act 3x3x5"), classes.getMessage());
    Program.Options training = ProgramTest.training();
    try (Backend backend = new ReferenceProvider().open(0);
        Program program = new Program(network, backend, BATCH, training);
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream);
        Parameters parameters = Parameters.allocate(network, backend);
        Tensor images = ProgramTest.images(network, BATCH, 2);
        Tensor labels = ProgramTest.labels(BATCH)) {
      program.load(stream, parameters);
      workspace.forward(images, 0);
      var loss = assertThrows(IllegalStateException.class, () -> workspace.loss(labels, 1));
      assertTrue(loss.getMessage().contains("the built-in loss"), loss.getMessage());
      assertThrows(IllegalStateException.class, workspace::inputGradient);
      assertThrows(
          IllegalStateException.class, () -> new BatchExecutor(network, backend, 4, 2, training));
      assertThrows(
          IllegalArgumentException.class,
          () -> new Program.Options(DataType.F32, 0, false, 0, true));
    }
    Program.Options inference = new Program.Options(DataType.F32, 0, false, 0);
    try (Backend backend = new ReferenceProvider().open(0);
        Program program = new Program(network, backend, BATCH, inference);
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream)) {
      assertThrows(IllegalStateException.class, () -> workspace.outputGradient(0));
    }
  }

  /** Logits that are a rectifier, or dropped out: the built-in loss finds its gradient. */
  @Test
  void logitsMayBeAnyLayer() {
    Network.Builder b = Network.builder("odd", 4, 4, 2);
    int x = b.globalMeanPool("mean", b.convolution("conv", b.input(), 5, 3, 1));
    x = b.activation("logits", b.linear("linear", x, 3));
    b.dropout("dropped", x, 0.2f);
    Network dropped = b.build();
    Network.Builder c = Network.builder("odd", 4, 4, 2);
    x = c.globalMeanPool("mean", c.convolution("conv", c.input(), 5, 3, 1));
    c.activation("logits", c.linear("linear", x, 3));
    for (Network network : List.of(dropped, c.build())) {
      new ProgramTest()
          .gradientsAgreeWithCentralDifferences(network.with(ProgramTest.activations().getFirst()));
      try (Backend backend = new ReferenceProvider().open(0);
          Parameters parameters = Parameters.allocate(network, backend);
          Tensor images = ProgramTest.images(network, 4, 2);
          Tensor labels = ProgramTest.labels(4);
          BatchExecutor executor =
              new BatchExecutor(
                  network, backend, 4, 4, new Program.Options(DataType.F32, 0, false, 0))) {
        executor.load(parameters); // zeros: all classes are equally likely
        assertEquals(4 * Math.log(3), executor.evaluate(images, labels).loss(), 1e-5);
      }
    }
  }
}
