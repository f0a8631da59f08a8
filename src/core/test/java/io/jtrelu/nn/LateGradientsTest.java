package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.reference.ReferenceProvider;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Against a pass of the whole batch at once in the reference, where no layer waits. */
class LateGradientsTest {
  private static final int BATCH = 8;
  private static final Program.Options TRAINING = new Program.Options(DataType.F32, 0, true, 1);

  /** A little ResNet that ends in layers of many parameters, with all that may surround them. */
  private static Network network() {
    Network.Builder b = Network.builder("late", 16, 16, 2);
    int stem = b.activation("stem.act", b.convolution("stem", b.input(), 16, 3, 1));
    int pooled = b.maxPool("pool", stem, 4, 4);
    int wide = b.activation("wide.act", b.convolution("wide", pooled, 64, 3, 2)); // late
    int branch = b.activation("branch.act", b.convolution("branch", wide, 64, 3, 1)); // late
    int second = b.convolution("second", branch, 64, 1, 1); // late
    int sum = b.activation("sum.act", b.normalizedSum("sum", wide, second, 0.6));
    int above = b.activation("above.act", b.convolution("above", sum, 64, 3, 1)); // late, too
    int mean = b.globalMeanPool("mean", above);
    int logits = b.linear("logits", mean, 48); // late
    return b.build(logits).with(TransformedActivation.rectifier(0.3, 1.2), 1, 0);
  }

  /** Layers whose parameters have one gradient. */
  private static Set<String> late(BatchExecutor executor) {
    List<Network.ParameterSpec> specs = executor.program().network().parameters();
    Set<String> late = new TreeSet<>();
    for (int p = 0; p < specs.size(); p++) {
      if (!executor.program().isPartial(p)) {
        late.add(executor.program().network().layers().get(specs.get(p).layer()).name());
      }
    }
    return late;
  }

  private static Backend open(String name) {
    return name.equals("reference") ? new ReferenceProvider().open(0) : Backends.open(name);
  }

  /** Gradients of a sum of losses, by the definition. */
  private static float[] expected(Network network, Tensor images, Tensor labels, int times) {
    int batch = images.shape().dim(0);
    try (Backend backend = new ReferenceProvider().open(0);
        Stream stream = backend.newStream();
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Program program = new Program(network, backend, batch, TRAINING);
        Program.Workspace workspace = program.newWorkspace(stream)) {
      Initializer.delta(3).fill(backend, parameters);
      program.load(stream, parameters);
      for (int i = 0; i < times; i++) {
        workspace.forward(images, 0);
        workspace.loss(labels, 1);
        workspace.backward(gradients, i == 0 ? Write.OVERWRITE : Write.ACCUMULATE);
      }
      stream.synchronize();
      return gradients.arena().toFloatArray();
    }
  }

  private static void assertNear(float[] expected, Parameters actual) {
    for (int p = 0; p < actual.network().parameters().size(); p++) {
      Network.ParameterSpec spec = actual.network().parameters().get(p);
      int from = (int) spec.offset();
      int to = from + (int) spec.shape().elements();
      float[] wanted = Arrays.copyOfRange(expected, from, to);
      double squares = 0;
      for (float value : wanted) {
        squares += value * value;
      }
      assertTrue(squares > 0, spec.name());
      float tolerance = (float) (2e-6 * Math.sqrt(squares));
      assertArrayEquals(wanted, actual.view(p).toFloatArray(), tolerance, spec.name());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"reference", "cpu:1", "cpu:2", "cpu:8"})
  void areThoseOfTheWholeBatch(String name) {
    Network network = network();
    try (Backend backend = open(name);
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = ProgramTest.images(network, BATCH, 1);
        Tensor labels = ProgramTest.labels(BATCH);
        BatchExecutor executor = new BatchExecutor(network, backend, BATCH, 1, TRAINING)) {
      Initializer.delta(3).fill(backend, parameters);
      executor.load(parameters);
      assertEquals(Set.of("wide", "branch", "second", "above", "logits"), late(executor));
      executor.forwardBackward(images, labels, gradients, Write.OVERWRITE, 1, 0);
      assertNear(expected(network, images, labels, 1), gradients);
      executor.forwardBackward(images, labels, gradients, Write.ACCUMULATE, 1, 0);
      assertNear(expected(network, images, labels, 2), gradients);
    }
  }

  /** What an infinite batch before left behind the end of a smaller one does not count. */
  @ParameterizedTest
  @ValueSource(ints = {1, 3, 6, 7})
  void countNothingBehindTheEndOfABatch(int images) {
    Network network = network();
    try (Backend backend = Backends.open("cpu:2");
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor all = ProgramTest.images(network, BATCH, 1);
        Tensor infinite = ProgramTest.images(network, BATCH, 1);
        Tensor labels = ProgramTest.labels(BATCH);
        BatchExecutor executor = new BatchExecutor(network, backend, BATCH, 2, TRAINING)) {
      Initializer.delta(3).fill(backend, parameters);
      executor.load(parameters);
      assertFalse(late(executor).isEmpty());
      float[] values = infinite.toFloatArray();
      Arrays.fill(values, Float.POSITIVE_INFINITY);
      executor.forwardBackward(infinite.set(values), labels, gradients, Write.OVERWRITE, 1, 0);
      Tensor some = all.slice(0, network.input().batch(images), Layout.NHWC);
      Tensor theirs = labels.slice(0, Shape.of(images), Layout.ROW_MAJOR);
      executor.forwardBackward(some, theirs, gradients, Write.OVERWRITE, 1, 0);
      assertNear(expected(network, some, theirs, 1), gradients);
    }
  }

  /** A batch that does not divide, whole and cut short, of a function that others embed. */
  @ParameterizedTest
  @ValueSource(ints = {7, 4, 1})
  void areThoseOfTheWholeBatchInAFunction(int images) {
    Network network = network();
    NetworkFunction.Options options =
        new NetworkFunction.Options(7, 2, DataType.F32, true, false, 0);
    try (Backend backend = Backends.open("cpu:2");
        Stream stream = backend.newStream();
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Parameters expected = Parameters.allocate(network, backend);
        Tensor all = ProgramTest.images(network, 7, 1);
        Tensor outputs = Tensor.allocate(Shape.of(7, 1, 1, 48), DataType.F32, Layout.NHWC);
        Tensor above = Tensor.allocate(Shape.of(7, 1, 1, 48), DataType.F32, Layout.NHWC);
        NetworkFunction function = new NetworkFunction(network, backend, options);
        Program program = new Program(network, backend, images, TRAINING);
        Program.Workspace workspace = program.newWorkspace(stream)) {
      Initializer.delta(3).fill(backend, parameters);
      float[] values = above.toFloatArray();
      for (int i = 0; i < values.length; i++) {
        values[i] = (i * 37 % 101 - 50) / 50f;
      }
      above.set(values);
      function.load(parameters);
      function.forward(all, List.of(outputs)); // leaves something behind a smaller one
      Tensor some = all.slice(0, network.input().batch(images), Layout.NHWC);
      Shape logits = Shape.of(images, 1, 1, 48);
      Tensor gradient = above.slice(0, logits, Layout.NHWC);
      function.forward(some, List.of(outputs.slice(0, logits, Layout.NHWC)));
      function.backward(List.of(gradient), gradients, Write.OVERWRITE, null);

      program.load(stream, parameters);
      workspace.forward(some, 0);
      backend.copy(stream, gradient, workspace.outputGradient(0));
      workspace.backward(expected, Write.OVERWRITE);
      stream.synchronize();
      assertNear(expected.arena().toFloatArray(), gradients);
    }
  }

  /** A norm is one of all gradients, late or not. */
  @Test
  void countInTheNorm() {
    Network network = network();
    try (Backend backend = Backends.open("cpu:2");
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = ProgramTest.images(network, BATCH, 1);
        Tensor labels = ProgramTest.labels(BATCH);
        Tensor norm = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        BatchExecutor executor = new BatchExecutor(network, backend, BATCH, 1, TRAINING);
        Stream stream = backend.newStream()) {
      Initializer.delta(3).fill(backend, parameters);
      executor.load(parameters);
      executor.forwardBackward(images, labels, gradients, Write.OVERWRITE, 1, 0);
      executor.gradientNorm(stream, Float.POSITIVE_INFINITY, norm);
      stream.synchronize();
      double squares = 0;
      for (float value : expected(network, images, labels, 1)) {
        squares += (double) value * value;
      }
      assertEquals(Math.sqrt(squares), norm.get(0), 1e-5 * Math.sqrt(squares));
    }
  }

  /** Where a gradient of each part is smaller than what would be kept, nothing waits. */
  @Test
  void takeLessMemoryThanGradientsOfEachPart() {
    Network network = network();
    try (Backend backend = Backends.open("cpu:1");
        BatchExecutor few = new BatchExecutor(network, backend, BATCH, 1, TRAINING);
        BatchExecutor many = new BatchExecutor(network, backend, 512, 64, TRAINING);
        BatchExecutor one = new BatchExecutor(network, backend, BATCH, BATCH, TRAINING)) {
      assertFalse(late(few).isEmpty());
      assertEquals(Set.of(), late(many));
      assertEquals(Set.of(), late(one)); // one part
    }
    try (Backend backend = Backends.open("cpu:1")) {
      long before = backend.memory().inUse();
      long elements = Parameters.arenaElements(network);
      try (BatchExecutor executor = new BatchExecutor(network, backend, BATCH, 1, TRAINING)) {
        long perImage = executor.program().workspaceBytes() + executor.activationBytes();
        assertTrue(
            backend.memory().inUse() - before < (BATCH - 1) * elements * Float.BYTES + perImage,
            "as much memory as gradients of all parts");
      }
      assertEquals(before, backend.memory().inUse());
    }
  }

  @Test
  void ofAPartDoNotExist() {
    Network network = network();
    try (Backend backend = Backends.open("cpu:1");
        Parameters some = Parameters.allocate(network, backend, parameter -> parameter == 0)) {
      assertEquals(network.parameters().getFirst().shape(), some.view(0).shape());
      String message = assertThrows(IllegalStateException.class, () -> some.view(1)).getMessage();
      assertTrue(message.contains(network.parameters().get(1).name()), message);
    }
  }
}
