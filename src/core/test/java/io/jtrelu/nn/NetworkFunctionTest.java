package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Subject;
import io.jtrelu.backend.WithLanes;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.reference.ReferenceProvider;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

class NetworkFunctionTest {
  private static final DataType F32 = DataType.F32;

  /** Sizes of every kind: 11 images in micro-batches of 2 are 6, the last one half empty. */
  private static NetworkFunction.Options options(int batch, int microBatch) {
    return new NetworkFunction.Options(batch, microBatch, F32, true, true, 5);
  }

  static Stream<Network> networks() {
    TransformedActivation rectifier = ProgramTest.activations().getFirst();
    return Stream.of(OutputsTest.maps(), OutputsTest.inner(), OutputsTest.heads())
        .flatMap(n -> Stream.of(n.with(rectifier), ProgramTest.mixed(n)));
  }

  private static float[] normals(long count, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  /** A function with tensors for everything that it reads and writes, in host memory. */
  private static final class Run implements AutoCloseable {
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    final Network network;
    final Backend backend;
    final NetworkFunction function;
    final Parameters parameters;
    final Parameters gradients;
    int rows;
    Tensor input;
    Tensor inputGradient;
    final List<Tensor> outputs = new ArrayList<>();
    final List<Tensor> outputGradients = new ArrayList<>();

    Run(Network network, Backend backend, NetworkFunction.Options options) {
      this.network = network;
      this.backend = backend;
      parameters = own(Parameters.allocate(network, backend));
      gradients = own(Parameters.allocate(network, backend));
      function = own(new NetworkFunction(network, backend, options));
      new Initializer(3, false).fill(backend, parameters);
      function.load(parameters);
    }

    <T extends AutoCloseable> T own(T resource) {
      owned.push(resource);
      return resource;
    }

    /** The first rows of a batch whose rows do not depend on how many there are. */
    Run batch(int n) {
      rows = n;
      input = tensor(network.input(), 2);
      inputGradient = tensor(network.input(), 3);
      outputs.clear();
      outputGradients.clear();
      for (int k = 0; k < network.outputs().size(); k++) {
        Layer.Extent extent = network.layers().get(network.outputs().get(k)).extent();
        outputs.add(tensor(extent, 80 + k)); // poison
        outputGradients.add(tensor(extent, 70 + k));
      }
      return this;
    }

    private Tensor tensor(Layer.Extent extent, long seed) {
      Tensor tensor = own(Tensor.allocate(extent.batch(rows), F32, Layout.NHWC));
      return tensor.set(normals(tensor.shape().elements(), seed));
    }

    Run forward() {
      function.forward(input, outputs, 9);
      return this;
    }

    Run backward(Write mode) {
      function.backward(outputGradients, gradients, mode, inputGradient);
      return this;
    }

    List<float[]> results() {
      List<float[]> all = new ArrayList<>();
      outputs.forEach(output -> all.add(output.toFloatArray()));
      all.add(inputGradient.toFloatArray());
      all.add(arena(gradients));
      return all;
    }

    private float[] arena(Parameters of) {
      try (Tensor host = Tensor.allocate(of.arena().shape(), F32, Layout.ROW_MAJOR);
          var stream = backend.newStream()) {
        backend.copy(stream, of.arena(), host);
        stream.synchronize();
        return host.toFloatArray();
      }
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

  private static void assertSame(List<float[]> expected, List<float[]> actual) {
    assertEquals(expected.size(), actual.size());
    for (int i = 0; i < expected.size(); i++) {
      assertArrayEquals(expected.get(i), actual.get(i), "result " + i);
    }
  }

  /** {@link OutputsTest} holds those of a program to central differences. */
  @ParameterizedTest
  @MethodSource("networks")
  void oneMicroBatchIsAPassOfAProgram(Network network) {
    int batch = 3;
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(network, backend, options(batch, batch));
        Program program =
            new Program(network, backend, batch, new Program.Options(F32, 0, true, 5, true));
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream);
        Parameters gradients = Parameters.allocate(network, backend)) {
      run.batch(batch).forward().backward(Write.OVERWRITE);
      program.load(stream, run.parameters);
      workspace.forward(run.input, 9);
      for (int k = 0; k < run.outputs.size(); k++) {
        workspace.outputGradient(k).set(run.outputGradients.get(k).toFloatArray());
      }
      workspace.backward(gradients, Write.OVERWRITE);
      List<float[]> expected = new ArrayList<>();
      for (int k = 0; k < run.outputs.size(); k++) {
        expected.add(workspace.output(k).toFloatArray());
      }
      expected.add(workspace.inputGradient().toFloatArray());
      expected.add(gradients.arena().toFloatArray());
      assertSame(expected, run.results());
    }
  }

  /** The loss is the sum of <output k, G_k>; several micro-batches, the last one not full. */
  @ParameterizedTest
  @MethodSource("networks")
  void gradientsAgreeWithCentralDifferences(Network network) {
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(network, backend, options(7, 2))) {
      run.batch(5).forward().backward(Write.OVERWRITE);
      double noise = 0;
      for (int k = 0; k < run.outputs.size(); k++) {
        float[] values = run.outputs.get(k).toFloatArray();
        float[] outside = run.outputGradients.get(k).toFloatArray();
        for (int i = 0; i < values.length; i++) {
          noise += Math.abs(values[i] * outside[i]);
        }
      }
      float[] inputGradient = run.inputGradient.toFloatArray();
      for (int p = -1; p < network.parameters().size(); p++) {
        Tensor at = p < 0 ? run.input : run.parameters.view(p);
        float[] gradient = p < 0 ? inputGradient : run.gradients.view(p).toFloatArray();
        float[] values = at.toFloatArray();
        float[] direction = normals(values.length, 11);
        double step = 1e-4;
        double[] losses = new double[2];
        for (int side = 0; side < 2; side++) {
          float[] moved = values.clone();
          for (int i = 0; i < moved.length; i++) {
            moved[i] += (float) ((side == 0 ? -step : step) * direction[i]);
          }
          at.set(moved);
          run.function.load(run.parameters);
          run.forward();
          for (int k = 0; k < run.outputs.size(); k++) {
            losses[side] +=
                dot(run.outputs.get(k).toFloatArray(), run.outputGradients.get(k).toFloatArray());
          }
        }
        at.set(values);
        double size = 0;
        for (int i = 0; i < gradient.length; i++) {
          size += Math.abs(gradient[i] * direction[i]);
        }
        String name = network + " " + (p < 0 ? "input" : network.parameters().get(p).name());
        assertTrue(size > 0, name + ": the gradient is zero");
        double slope = (losses[1] - losses[0]) / (2 * step);
        double tolerance = 2e-3 * size + 0.1 * noise * 0x1p-23 / step;
        double expected = dot(gradient, direction);
        assertTrue(
            Math.abs(slope - expected) <= tolerance,
            name + ": central difference " + slope + ", gradient " + expected);
      }
    }
  }

  private static double dot(float[] a, float[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += (double) a[i] * b[i];
    }
    return sum;
  }

  /** Softmax cross-entropy outside, by its textbook formula. */
  @Test
  void agreesWithTheBuiltInLoss() {
    Network network =
        Networks.plain(
                "plain",
                new Layer.Extent(9, 8, 2),
                3,
                List.of(new Networks.Stage(2, 4, 1), new Networks.Stage(2, 6, 2)),
                0)
            .with(ProgramTest.activations().getFirst());
    int batch = 10;
    try (Backend backend = Backends.open("cpu");
        Run run = new Run(network, backend, options(batch, 2));
        Parameters expected = Parameters.allocate(network, backend);
        Tensor labels = ProgramTest.labels(batch);
        BatchExecutor executor =
            new BatchExecutor(network, backend, batch, 2, new Program.Options(F32, 0, true, 5))) {
      run.batch(batch).forward();
      float[] logits = run.outputs.getFirst().toFloatArray();
      float[] gradient = new float[logits.length];
      double loss = 0;
      for (int i = 0; i < batch; i++) {
        double sum = 0;
        for (int c = 0; c < 3; c++) {
          sum += Math.exp(logits[3 * i + c]);
        }
        for (int c = 0; c < 3; c++) {
          double p = Math.exp(logits[3 * i + c]) / sum;
          boolean target = c == (int) labels.get(i);
          loss -= target ? Math.log(p) : 0;
          gradient[3 * i + c] = (float) ((p - (target ? 1 : 0)) / batch);
        }
      }
      run.outputGradients.getFirst().set(gradient);
      run.backward(Write.OVERWRITE);
      executor.load(run.parameters);
      var result =
          executor.forwardBackward(run.input, labels, expected, Write.OVERWRITE, 1f / batch, 9);
      assertEquals(loss, result.loss(), 1e-5);
      float[] wanted = expected.arena().toFloatArray();
      double norm = Math.sqrt(dot(wanted, wanted));
      assertTrue(norm > 1e-3);
      assertArrayEquals(wanted, run.gradients.arena().toFloatArray(), (float) (1e-6 * norm));
    }
  }

  static Stream<Subject> backends() {
    return Subject.all();
  }

  @ParameterizedTest
  @MethodSource("backends")
  void resultsDoNotDependOnTheNumberOfLanes(Subject subject) {
    Network network = networks().toList().get(3);
    List<List<float[]>> results = new ArrayList<>();
    for (int lanes : new int[] {1, 3, 20}) {
      try (Backend backend = subject.open();
          Run run = new Run(network, WithLanes.of(backend, lanes), options(21, 2))) {
        run.batch(21).forward().backward(Write.OVERWRITE);
        results.add(run.results());
      }
    }
    assertSame(results.get(0), results.get(1));
    assertSame(results.get(0), results.get(2));
  }

  /** n rows give what they give within a whole batch whose other rows are zero. */
  @ParameterizedTest
  @MethodSource("backends")
  void aPartOfABatchIsTheBatchWithZerosBehind(Subject subject) {
    for (Network network : networks().toList()) {
      try (Backend backend = subject.open();
          Run whole = new Run(network, backend, options(19, 2));
          Run part = new Run(network, backend, options(19, 2))) {
        part.batch(19).forward().backward(Write.OVERWRITE); // leaves something everywhere
        for (int n : new int[] {1, 2, 5, 16, 18, 19}) {
          part.batch(n).forward().backward(Write.OVERWRITE);
          whole.batch(19);
          clear(whole.input, n);
          whole.outputGradients.forEach(gradient -> clear(gradient, n));
          whole.forward().backward(Write.OVERWRITE);
          List<float[]> expected = whole.results();
          List<float[]> actual = part.results();
          for (int i = 0; i < expected.size(); i++) {
            float[] e = expected.get(i);
            // Rows of the batch, and all gradients; +0 and -0 are one number.
            for (int at = 0; at < actual.get(i).length; at++) {
              assertEquals(e[at] + 0f, actual.get(i)[at] + 0f, network + " " + n + " " + i);
            }
          }
        }
      }
    }
  }

  private static void clear(Tensor tensor, int from) {
    float[] values = tensor.toFloatArray();
    Arrays.fill(values, from * (values.length / tensor.shape().dim(0)), values.length, 0);
    tensor.set(values);
  }

  @Test
  void gradientsAddToWhatIsThere() {
    Network network = networks().findFirst().orElseThrow();
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(network, backend, options(11, 2))) {
      run.batch(11).forward().backward(Write.OVERWRITE);
      float[] once = run.gradients.arena().toFloatArray();
      run.forward().backward(Write.ACCUMULATE);
      float[] twice = run.gradients.arena().toFloatArray();
      double norm = Math.sqrt(dot(once, once));
      for (int i = 0; i < once.length; i++) {
        assertEquals(2 * once[i], twice[i], 1e-6 * norm);
      }
    }
  }

  @Test
  void parametersAndGradientsMayBeTheCallers() {
    Network network = networks().toList().get(2);
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(network, backend, options(11, 2))) {
      run.batch(11).forward().backward(Write.OVERWRITE);
      List<float[]> expected = run.results();
      List<Tensor> values = ParametersTest.tensors(network);
      List<Tensor> gradients = ParametersTest.tensors(network);
      for (int p = 0; p < values.size(); p++) {
        values.get(p).set(run.parameters.view(p).toFloatArray());
        gradients.get(p).set(normals(gradients.get(p).shape().elements(), p)); // poison
      }
      run.function.load(Parameters.over(network, values));
      run.forward();
      run.function.backward(
          run.outputGradients, Parameters.over(network, gradients), Write.OVERWRITE, null);
      for (int k = 0; k < run.outputs.size(); k++) {
        assertArrayEquals(expected.get(k), run.outputs.get(k).toFloatArray());
      }
      for (int p = 0; p < values.size(); p++) {
        assertArrayEquals(
            run.gradients.view(p).toFloatArray(),
            gradients.get(p).toFloatArray(),
            "parameter " + p);
      }
      values.forEach(Tensor::close);
      gradients.forEach(Tensor::close);
    }
  }

  /** Without training: dropout is the identity, and a workspace per lane is enough. */
  @Test
  void withoutTrainingItOnlyGoesForward() {
    Network network = OutputsTest.inner();
    var inference = new NetworkFunction.Options(11, 2, F32, false, false, 5);
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(network, backend, inference);
        Program program = new Program(network, backend, 11, new Program.Options(F32, 0, false, 5));
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream)) {
      program.load(stream, run.parameters);
      run.batch(11).forward();
      workspace.forward(run.input, 0);
      for (int k = 0; k < run.outputs.size(); k++) {
        assertArrayEquals(
            workspace.output(k).toFloatArray(), run.outputs.get(k).toFloatArray(), "output " + k);
      }
      assertThrows(IllegalStateException.class, () -> run.backward(Write.OVERWRITE));
    }
  }

  @Test
  void masksChangeFromPassToPass() {
    Network network = OutputsTest.inner();
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(network, backend, options(4, 2))) {
      run.batch(4);
      int dropped = network.outputs().size() - 1;
      List<float[]> seen = new ArrayList<>();
      for (int pass = 0; pass < 2; pass++) {
        run.function.forward(run.input, run.outputs);
        seen.add(run.outputs.get(dropped).toFloatArray());
      }
      assertFalse(Arrays.equals(seen.get(0), seen.get(1)));
      run.function.forward(run.input, run.outputs, 1);
      assertArrayEquals(seen.get(1), run.outputs.get(dropped).toFloatArray());
    }
  }

  /** Images and results in other types: what comes out is what goes in, rounded. */
  @Test
  void tensorsMayHaveOtherTypes() {
    Network network = networks().findFirst().orElseThrow();
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(network, backend, options(5, 2));
        Tensor rounded = Tensor.allocate(network.input().batch(5), DataType.BF16, Layout.NHWC)) {
      run.batch(5);
      rounded.set(run.input.toFloatArray());
      run.input.set(rounded.toFloatArray());
      run.forward();
      List<float[]> expected = new ArrayList<>();
      run.outputs.forEach(output -> expected.add(output.toFloatArray()));
      run.outputs.set(
          0, run.own(Tensor.allocate(run.outputs.get(0).shape(), DataType.BF16, Layout.NHWC)));
      run.function.forward(rounded, run.outputs, 9);
      try (Tensor wanted =
          Tensor.allocate(run.outputs.get(0).shape(), DataType.BF16, Layout.NHWC)) {
        wanted.set(expected.get(0));
        assertArrayEquals(wanted.toFloatArray(), run.outputs.get(0).toFloatArray());
      }
      assertArrayEquals(expected.get(1), run.outputs.get(1).toFloatArray());
    }
  }

  @Test
  void saysWhatDoesNotFit() {
    Network network = networks().findFirst().orElseThrow();
    try (Backend backend = new ReferenceProvider().open(0);
        Run run =
            new Run(network, backend, new NetworkFunction.Options(4, 0, F32, true, false, 5))) {
      run.batch(5);
      var large = assertThrows(OperandException.class, run::forward);
      assertTrue(large.getMessage().contains("1 to 4 images"), large.getMessage());
      run.batch(3);
      var early =
          assertThrows(
              IllegalStateException.class,
              () ->
                  run.function.backward(run.outputGradients, run.gradients, Write.OVERWRITE, null));
      assertTrue(early.getMessage().contains("call forward"), early.getMessage());
      var few =
          assertThrows(
              OperandException.class,
              () -> run.function.forward(run.input, run.outputs.subList(0, 1)));
      assertTrue(few.getMessage().contains("2 outputs, got 1"), few.getMessage());
      List<Tensor> swapped = List.of(run.outputs.get(1), run.outputs.get(0));
      var wrong =
          assertThrows(OperandException.class, () -> run.function.forward(run.input, swapped));
      assertTrue(wrong.getMessage().contains("output 0 (second.act)"), wrong.getMessage());
      run.forward();
      var input = assertThrows(IllegalStateException.class, () -> run.backward(Write.OVERWRITE));
      assertTrue(input.getMessage().contains("gradient of the input"), input.getMessage());
      try (Parameters other = Parameters.allocate(OutputsTest.heads(), backend)) {
        assertThrows(OperandException.class, () -> run.function.load(other));
        assertThrows(
            OperandException.class,
            () -> run.function.backward(run.outputGradients, other, Write.OVERWRITE, null));
      }
      // None of this used up the forward pass; this does, and so does loading.
      run.function.backward(run.outputGradients, run.gradients, Write.OVERWRITE, null);
      assertThrows(
          IllegalStateException.class,
          () -> run.function.backward(run.outputGradients, run.gradients, Write.OVERWRITE, null));
      run.forward();
      run.function.load(run.parameters);
      assertThrows(
          IllegalStateException.class,
          () -> run.function.backward(run.outputGradients, run.gradients, Write.OVERWRITE, null));
    }
    assertThrows(IllegalArgumentException.class, () -> options(0, 0));
    assertThrows(IllegalArgumentException.class, () -> options(4, 5));
    assertThrows(
        IllegalArgumentException.class,
        () -> new NetworkFunction.Options(4, 0, F32, false, true, 0));
  }

  @Test
  void allocatesOnceAndGivesAllBack() {
    Network network = ProgramTest.mixed(OutputsTest.inner()).with(Activation.GELU);
    try (Backend backend = new ReferenceProvider().open(0)) {
      try (Run run = new Run(network, backend, options(9, 2))) {
        run.batch(9).forward().backward(Write.OVERWRITE);
        long inUse = backend.memory().inUse();
        assertTrue(inUse > 0);
        run.batch(5).forward().backward(Write.ACCUMULATE);
        run.batch(9).forward().backward(Write.ACCUMULATE);
        assertEquals(inUse, backend.memory().inUse());
      }
      assertEquals(0, backend.memory().inUse());
    }
  }

  /** A network without parameters is a function too. */
  @Test
  void parametersAreNotNeeded() {
    Network.Builder b = Network.builder("pooling", 4, 4, 3);
    b.globalMeanPool("mean", b.input());
    try (Backend backend = new ReferenceProvider().open(0);
        Run run = new Run(b.build(), backend, options(5, 2))) {
      run.batch(3).forward().backward(Write.OVERWRITE);
      float[] x = run.input.toFloatArray();
      float[] y = run.outputs.getFirst().toFloatArray();
      float[] dy = run.outputGradients.getFirst().toFloatArray();
      float[] dx = run.inputGradient.toFloatArray();
      assertEquals(Shape.of(3, 1, 1, 3), run.outputs.getFirst().shape());
      for (int n = 0; n < 3; n++) {
        for (int c = 0; c < 3; c++) {
          double sum = 0;
          for (int at = 0; at < 16; at++) {
            sum += x[(16 * n + at) * 3 + c];
            assertEquals(dy[3 * n + c] / 16, dx[(16 * n + at) * 3 + c], 1e-7);
          }
          assertEquals(sum / 16, y[3 * n + c], 1e-6);
        }
      }
    }
  }

  /** One passes on the calling thread, which others help with rows of the results. */
  @ParameterizedTest
  @EnumSource(
      value = DataType.class,
      names = {"F32", "BF16"})
  void aSingleImageHasTheBitsThatItHasAmongOthers(DataType type) {
    Network network =
        Networks.build(
                new Networks.Options("resnet50", Networks.Block.V2, 0.8, 0),
                new Layer.Extent(96, 96, 3),
                10)
            .with(ProgramTest.activations().getFirst());
    List<float[]> four = new ArrayList<>();
    List<float[]> one = new ArrayList<>();
    for (String device : List.of("onednn:1", "onednn:3")) {
      try (Backend backend = Backends.open(device)) {
        Assumptions.assumeTrue(backend.supports(type), "no activations of this type here");
        var options = new NetworkFunction.Options(4, 1, type, false, false, 0);
        try (Run run = new Run(network, backend, options)) {
          four.add(run.batch(4).forward().outputs.getFirst().toFloatArray());
          one.add(run.batch(1).forward().outputs.getFirst().toFloatArray());
        }
      }
    }
    float[] expected = Arrays.copyOf(four.getFirst(), 10);
    assertTrue(expected[0] != expected[1] && Float.isFinite(expected[0]));
    assertArrayEquals(four.get(0), four.get(1));
    assertArrayEquals(expected, one.get(0));
    assertArrayEquals(expected, one.get(1));
  }
}
