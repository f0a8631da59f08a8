package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
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
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Networks.Block;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class ProgramTest {
  private static final int BATCH = 4;
  private static final int CLASSES = 3;
  private static final TransformedActivation RECTIFIER =
      TransformedActivation.rectifier(0.7, Math.sqrt(2 / 1.49));

  /** Small networks that between them hold every way a value can be read. */
  static List<Network> networks() {
    Extent image = new Extent(9, 8, 2);
    return Stream.of(
            Networks.plain(
                "plain",
                image,
                CLASSES,
                List.of(new Networks.Stage(2, 4, 1), new Networks.Stage(2, 6, 2)),
                0),
            Networks.plain("dropout", image, CLASSES, List.of(new Networks.Stage(2, 4, 1)), 0.4f),
            residual("v1", Block.V1),
            residual("v2", Block.V2),
            pooledActivation())
        .map(network -> network.with(RECTIFIER))
        .toList();
  }

  /** Identity and projected shortcuts, nested, in either order, with a pooled stem. */
  private static Network residual(String name, Block order) {
    Network.Builder b = Network.builder(name, 9, 9, 2);
    int x = b.convolution("stem", b.input(), 4, 3, 1);
    if (order == Block.V1) {
      x = b.activation("stem.act", x);
    }
    x = b.maxPool("stem.pool", x, 3, 2);
    for (int i = 0; i < 3; i++) {
      int channels = i == 1 ? 6 : b.extent(x).channels();
      int entry = order == Block.V2 ? b.activation("pre" + i, x) : x;
      int shortcut = i == 1 ? b.convolution("project" + i, entry, channels, 1, 1) : x;
      int branch = b.convolution("a" + i, entry, 5, 3, 1);
      branch = b.activation("a" + i + ".act", branch);
      int inner = b.convolution("b" + i, branch, 5, 3, 1);
      branch = b.normalizedSum("inner" + i, branch, inner, 0.6);
      branch = b.convolution("c" + i, branch, channels, 1, 1);
      x = b.normalizedSum("sum" + i, shortcut, branch, 0.7);
      if (order == Block.V1) {
        x = b.activation("post" + i, x);
      }
    }
    if (order == Block.V2) {
      x = b.activation("final", x);
    }
    b.linear("logits", b.globalMeanPool("pool", x), CLASSES);
    return b.build();
  }

  /** Activations that cannot be fused: after a pool, after another activation, before dropout. */
  private static Network pooledActivation() {
    Network.Builder b = Network.builder("unfused", 8, 8, 2);
    int x = b.convolution("first", b.input(), 4, 3, 1);
    x = b.maxPool("pool1", x, 2, 2);
    x = b.activation("act1", x);
    x = b.activation("act2", x);
    x = b.convolution("second", x, 4, 3, 1);
    x = b.globalMeanPool("pool2", x);
    x = b.convolution("third", x, 5, 1, 1);
    x = b.activation("act3", x);
    x = b.dropout("dropout", x, 0.3f);
    b.linear("logits", x, CLASSES);
    return b.build();
  }

  static Program.Options training() {
    return new Program.Options(DataType.F32, 0.1f, true, 99);
  }

  static Tensor images(Network network, int batch, long seed) {
    Extent in = network.input();
    Shape shape = Shape.of(batch, in.height(), in.width(), in.channels());
    return Tensor.allocate(shape, DataType.F32, Layout.NHWC).set(normals(shape.elements(), seed));
  }

  private static float[] normals(long count, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  static Tensor labels(int batch) {
    Tensor labels = Tensor.allocate(Shape.of(batch), DataType.I32, Layout.ROW_MAJOR);
    for (int i = 0; i < batch; i++) {
      labels.put(i, i % CLASSES);
    }
    return labels;
  }

  private static double loss(Program.Workspace workspace, Tensor images, Tensor labels) {
    workspace.forward(images, 5);
    workspace.loss(labels, 1);
    double sum = 0;
    for (float value : workspace.losses().toFloatArray()) {
      sum += value;
    }
    return sum;
  }

  /** One function whose derivative needs the input, and one that overwrites it. */
  static List<TransformedActivation> activations() {
    return List.of(
        RECTIFIER,
        new TransformedActivation(Activation.GELU, 0.9, 0.2, 1.3, 0.1, 0),
        new TransformedActivation(Activation.TANH, 0.7, -0.3, 1.6, 0.2, 0));
  }

  /** Each activation layer with another function than the one before, two of them rectifiers. */
  static Network mixed(Network network) {
    List<TransformedActivation> functions = new ArrayList<>(activations());
    functions.add(TransformedActivation.rectifier(0.9, 0.8));
    Iterator<TransformedActivation> cycle =
        Stream.generate(() -> functions).flatMap(List::stream).iterator();
    return network.with(any -> cycle.next(), 1, 0);
  }

  static Stream<Network> cases() {
    return networks().stream()
        .flatMap(
            network ->
                Stream.concat(
                    activations().stream().map(network::with), Stream.of(mixed(network))));
  }

  @ParameterizedTest
  @MethodSource("cases")
  void gradientsAgreeWithCentralDifferences(Network network) {
    try (Backend backend = new ReferenceProvider().open(0);
        Program program = new Program(network, backend, BATCH, training());
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream);
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = images(network, BATCH, 2);
        Tensor labels = labels(BATCH)) {
      Initializer.delta(3).fill(backend, parameters);
      int count = network.parameters().size();
      // Away from zero biases, where Delta kernels put many values on the kink.
      for (int p = 0; p < count; p++) {
        Tensor view = parameters.view(p);
        float[] values = view.toFloatArray();
        float[] noise = normals(values.length, 40 + p);
        for (int i = 0; i < values.length; i++) {
          values[i] += 0.1f * noise[i];
        }
        view.set(values);
      }
      program.load(stream, parameters);
      loss(workspace, images, labels);
      gradients.arena().set(normals(gradients.arena().shape().elements(), 8)); // poison
      workspace.backward(gradients, Write.OVERWRITE);
      for (int p = 0; p < count; p++) {
        Tensor view = parameters.view(p);
        float[] values = view.toFloatArray();
        float[] direction = normals(values.length, 100 + p);
        float[] gradient = gradients.view(p).toFloatArray();
        double expected = 0;
        double size = 0;
        for (int i = 0; i < values.length; i++) {
          expected += (double) gradient[i] * direction[i];
          size += Math.abs((double) gradient[i] * direction[i]);
        }
        // No window of a max-pool has two largest values this close, nor a rectifier's input zero.
        double step = 3e-4;
        double slope =
            (shifted(
                        program,
                        stream,
                        workspace,
                        parameters,
                        view,
                        values,
                        direction,
                        step,
                        images,
                        labels)
                    - shifted(
                        program,
                        stream,
                        workspace,
                        parameters,
                        view,
                        values,
                        direction,
                        -step,
                        images,
                        labels))
                / (2 * step);
        String name = network.name() + " " + network.parameters().get(p).name();
        assertTrue(size > 0, name + ": the gradient is zero");
        // The loss is a sum of F32 values near 1: its rounding divided by the step bounds noise.
        double tolerance = 2e-3 * size + 4 * BATCH * 0x1p-23 / step;
        assertTrue(
            Math.abs(slope - expected) <= tolerance,
            name + ": central difference " + slope + ", gradient " + expected);
      }
    }
  }

  /**
   * What is said to be complete during the pass stays as it is; each layer's are told before those
   * before it begin.
   */
  @ParameterizedTest
  @MethodSource("cases")
  void gradientsAreCompleteWhenThatIsTold(Network network) {
    try (Backend backend = new ReferenceProvider().open(0); // whose work is done when it is given
        Program program = new Program(network, backend, BATCH, training());
        var stream = backend.newStream();
        var workspace = program.newWorkspace(stream);
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = images(network, BATCH, 2);
        Tensor labels = labels(BATCH)) {
      Initializer.delta(3).fill(backend, parameters);
      program.load(stream, parameters);
      loss(workspace, images, labels);
      gradients.arena().set(normals(gradients.arena().shape().elements(), 8)); // poison
      float[][] told = new float[network.parameters().size()][];
      List<Integer> layers = new ArrayList<>();
      workspace.backward(
          gradients,
          Write.OVERWRITE,
          layer -> {
            layers.add(layer);
            for (int p = 0; p < told.length; p++) {
              if (network.parameters().get(p).layer() >= layer && told[p] == null) {
                told[p] = gradients.view(p).toFloatArray();
              }
            }
          });
      for (int p = 0; p < told.length; p++) {
        String name = network.parameters().get(p).name();
        assertArrayEquals(gradients.view(p).toFloatArray(), told[p], name);
      }
      int last = network.parameters().stream().mapToInt(p -> p.layer()).max().orElseThrow();
      assertTrue(layers.contains(last), "the last layer's are not told by themselves");
      assertEquals(0, layers.getLast());
    }
  }

  private static double shifted(
      Program program,
      io.jtrelu.backend.Stream stream,
      Program.Workspace workspace,
      Parameters parameters,
      Tensor view,
      float[] values,
      float[] direction,
      double step,
      Tensor images,
      Tensor labels) {
    float[] moved = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      moved[i] = (float) (values[i] + step * direction[i]);
    }
    view.set(moved);
    program.load(stream, parameters);
    double loss = loss(workspace, images, labels);
    view.set(values);
    program.load(stream, parameters);
    return loss;
  }

  /** A device may have room for activations that no int can count. */
  @Test
  void activationsOfManyGigabytesArePlanned() {
    Network network =
        Networks.build(Networks.Options.of("resnet50"), new Extent(224, 224, 4), 1000);
    try (Backend backend = Backends.open("reference");
        Program program =
            new Program(network, backend, 256, new Program.Options(DataType.F32, 0, true, 1))) {
      // What the backward pass needs at least: each rectifier's output.
      long outputs =
          network.layers().stream()
              .filter(layer -> layer instanceof ActivationLayer)
              .mapToLong(layer -> 256 * 4 * layer.extent().elements())
              .sum();
      assertTrue(outputs > 1L << 32);
      assertTrue(program.activationBytes() >= outputs, program.activationBytes() + " bytes");
    }
  }

  @Test
  void holdsOneOutputPerFusedLayer() {
    Network network = networks().getFirst();
    try (Backend backend = new ReferenceProvider().open(0);
        Program program = new Program(network, backend, BATCH, training())) {
      long outputs = 0;
      for (Layer layer : network.layers()) {
        if (layer instanceof ConvolutionLayer && !layer.name().equals("logits")) {
          outputs += BATCH * layer.extent().elements() * 4;
        }
      }
      long pooled = BATCH * 6 * 4; // the pool's result is the last layer's source
      assertEquals(outputs + pooled, program.activationBytes());
    }
  }

  @Test
  void inferenceNeedsLessMemoryAndGivesTheSameLogits() {
    Network network = networks().get(2);
    Program.Options inference = new Program.Options(DataType.F32, 0, false, 0);
    try (Backend backend = new ReferenceProvider().open(0);
        Program train = new Program(network, backend, BATCH, training());
        Program infer = new Program(network, backend, BATCH, inference);
        var stream = backend.newStream();
        var a = train.newWorkspace(stream);
        var b = infer.newWorkspace(stream);
        Parameters parameters = Parameters.allocate(network, backend);
        Tensor images = images(network, BATCH, 1)) {
      Initializer.delta(3).fill(backend, parameters);
      train.load(stream, parameters);
      infer.load(stream, parameters);
      assertArrayEquals(a.forward(images, 0).toFloatArray(), b.forward(images, 0).toFloatArray());
      assertTrue(infer.workspaceBytes() < train.workspaceBytes() / 2);
      assertEquals(0, infer.activationBytes());
    }
  }

  /** A convolution that nothing but a sum reads is computed by the sum. */
  @Test
  void sumsTakeTheirConvolutionsAlong() {
    Network network = residual("v2", Block.V2);
    List<String> prepared = new ArrayList<>();
    try (Backend backend = new ReferenceProvider().open(0)) {
      Backend listening =
          (Backend)
              Proxy.newProxyInstance(
                  ProgramTest.class.getClassLoader(),
                  new Class<?>[] {Backend.class},
                  (proxy, method, arguments) -> {
                    prepared.add(method.getName());
                    return method.invoke(backend, arguments);
                  });
      new Program(network, listening, BATCH, training()).close();
    }
    long sums = prepared.stream().filter("conv2dSum"::equals).count();
    assertEquals(6, sums); // the outer and the inner sum of three blocks
  }

  @Test
  void resultsDoNotDependOnTheNumberOfLanes() {
    Network network = networks().get(1);
    int batch = 12;
    try (Backend backend = new ReferenceProvider().open(0);
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters one = Parameters.allocate(network, backend);
        Parameters three = Parameters.allocate(network, backend);
        Tensor images = images(network, batch, 1);
        Tensor labels = labels(batch)) {
      Initializer.delta(3).fill(backend, parameters);
      BatchExecutor.Result[] results = new BatchExecutor.Result[2];
      int run = 0;
      for (Parameters gradients : List.of(one, three)) {
        try (BatchExecutor executor =
            new BatchExecutor(
                network, WithLanes.of(backend, run == 0 ? 1 : 3), batch, 2, training())) {
          executor.load(parameters);
          results[run++] =
              executor.forwardBackward(images, labels, gradients, Write.OVERWRITE, 1f / batch, 7);
        }
      }
      assertEquals(results[0], results[1]);
      assertArrayEquals(one.arena().toFloatArray(), three.arena().toFloatArray());
    }
  }

  @Test
  void microBatchesSumToTheWholeBatch() {
    Network network = networks().getFirst();
    int batch = 12;
    try (Backend backend = new ReferenceProvider().open(0);
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters whole = Parameters.allocate(network, backend);
        Parameters split = Parameters.allocate(network, backend);
        Tensor images = images(network, batch, 1);
        Tensor labels = labels(batch)) {
      Initializer.delta(3).fill(backend, parameters);
      labels.put(batch - 1, -1); // padding
      double[] losses = new double[2];
      int run = 0;
      for (Parameters gradients : List.of(whole, split)) {
        try (BatchExecutor executor =
            new BatchExecutor(network, backend, batch, run == 0 ? batch : 1, training())) {
          executor.load(parameters);
          executor.forwardBackward(images, labels, gradients, Write.OVERWRITE, 1f / batch, 7);
          BatchExecutor.Result result =
              executor.forwardBackward(images, labels, gradients, Write.ACCUMULATE, 1f / batch, 7);
          losses[run++] = result.loss();
          assertEquals(result, executor.evaluate(images, labels));
        }
      }
      assertEquals(losses[0], losses[1], 1e-5);
      float[] expected = whole.arena().toFloatArray();
      float[] actual = split.arena().toFloatArray();
      double norm = 0;
      for (float value : expected) {
        norm += value * value;
      }
      assertNotEquals(0, norm);
      assertArrayEquals(expected, actual, (float) (1e-5 * Math.sqrt(norm)));
    }
  }

  /** n images give what they give within a whole batch of zero images without labels behind. */
  @ParameterizedTest
  @MethodSource("subjects")
  void smallerBatchesCountAsFilledUp(Subject subject) {
    Network network = networks().get(1);
    int batch = 20;
    try (Backend backend = subject.open();
        var stream = backend.newStream();
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters whole = Parameters.allocate(network, backend);
        Parameters part = Parameters.allocate(network, backend);
        Tensor images = images(network, batch, 1);
        Tensor labels = labels(batch);
        BatchExecutor executor =
            new BatchExecutor(network, WithLanes.of(backend, 1), batch, 4, training())) {
      Initializer.delta(3).fill(backend, parameters);
      executor.load(parameters);
      try (Tensor infinite = images(network, 3, 1)) { // what is left of it must not count
        float[] values = infinite.toFloatArray();
        Arrays.fill(values, Float.POSITIVE_INFINITY);
        Tensor theirLabels = labels.slice(0, Shape.of(3), Layout.ROW_MAJOR);
        executor.evaluate(infinite.set(values), theirLabels);
      }
      for (int n : List.of(1, 2, 7, 19, 20)) {
        try (Tensor padded = images(network, batch, 1);
            Tensor someLabels = labels(batch)) {
          float[] values = padded.toFloatArray();
          Arrays.fill(values, n * values.length / batch, values.length, 0);
          padded.set(values);
          for (int i = n; i < batch; i++) {
            someLabels.put(i, -1);
          }
          Tensor firstImages = images.slice(0, network.input().batch(n), Layout.NHWC);
          Tensor firstLabels = labels.slice(0, Shape.of(n), Layout.ROW_MAJOR);
          var expected = executor.forwardBackward(padded, someLabels, whole, Write.OVERWRITE, 1, 7);
          executor.forwardBackward(images, labels, part, Write.OVERWRITE, 1, 7); // leaves parts
          var actual =
              executor.forwardBackward(firstImages, firstLabels, part, Write.OVERWRITE, 1, 7);
          assertEquals(expected, actual);
          assertEquals(
              executor.evaluate(padded, someLabels), executor.evaluate(firstImages, firstLabels));
          float[] e = toHost(backend, stream, whole);
          float[] a = toHost(backend, stream, part);
          for (int i = 0; i < e.length; i++) {
            assertEquals(e[i] + 0f, a[i] + 0f, n + " images"); // +0 and -0 are one number
          }
        }
      }
      try (Tensor tooMany = images(network, batch + 1, 1);
          Tensor theirLabels = labels(batch + 1)) {
        assertThrows(OperandException.class, () -> executor.evaluate(tooMany, theirLabels));
        assertThrows(OperandException.class, () -> executor.evaluate(images, theirLabels));
      }
    }
  }

  static Stream<Subject> subjects() {
    return Subject.all();
  }

  private static float[] toHost(
      Backend backend, io.jtrelu.backend.Stream stream, Parameters parameters) {
    Shape shape = parameters.arena().shape();
    try (Tensor host = Tensor.allocate(shape, DataType.F32, Layout.ROW_MAJOR)) {
      backend.copy(stream, parameters.arena(), host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  /** 18.8 KB an image and layer, 92 KB of weights a layer. */
  @ParameterizedTest
  @CsvSource({"1, 1", "16, 4", "32, 8", "60, 10", "64, 8", "100, 10", "128, 16", "256, 16"})
  void microBatchesLeaveWorkForLanes(int batch, int expected) {
    Network network = Networks.build(Networks.Options.of("plain50"), new Extent(28, 28, 2), 10);
    try (Backend cpu = Backends.open("cpu")) {
      assertEquals(expected, BatchExecutor.microBatch(network, cpu, DataType.F32, batch));
    }
  }

  @Test
  void closesAllItsMemory() {
    Network network = networks().get(2);
    try (Backend backend = new ReferenceProvider().open(0)) {
      try (Tensor images = images(network, 4, 1);
          Tensor labels = labels(4);
          Parameters parameters = Parameters.allocate(network, backend);
          Parameters gradients = Parameters.allocate(network, backend);
          BatchExecutor executor = new BatchExecutor(network, backend, 4, 1, training())) {
        executor.load(parameters);
        executor.forwardBackward(images, labels, gradients, Write.OVERWRITE, 1, 0);
        assertTrue(backend.memory().inUse() > 0);
      }
      assertEquals(0, backend.memory().inUse());
    }
  }

  @Test
  void refusesABatchThatDoesNotDivide() {
    try (Backend backend = new ReferenceProvider().open(0)) {
      Network network = networks().getFirst();
      assertThrows(
          IllegalArgumentException.class,
          () -> new BatchExecutor(network, backend, 10, 4, training()));
    }
  }
}
