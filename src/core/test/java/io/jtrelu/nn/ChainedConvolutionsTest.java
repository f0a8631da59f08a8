package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Networks whose 1x1 convolutions run two at a time, or whose first convolution with its pooling,
 * against the same networks whose do not: the reference backend gives the same bits.
 */
class ChainedConvolutionsTest {
  private static final int BATCH = 3;
  private static final TransformedActivation RECTIFIER = TransformedActivation.rectifier(0.3, 1.3);

  /**
   * A network and its chains.
   *
   * @param chains how many
   */
  record Case(Network network, int chains) {
    @Override
    public String toString() {
      return network.name();
    }
  }

  static List<Case> cases() {
    return List.of(
        new Case(bottlenecks(), 2),
        new Case(run(), 2),
        new Case(read("a second reader", true, false), 0),
        new Case(read("an output between", false, true), 0),
        new Case(beforeSum(), 0),
        new Case(fromImages(), 0));
  }

  private static Network shaped(Network.Builder b) {
    return b.build().with(RECTIFIER);
  }

  private static int convolution(Network.Builder b, String name, int x, int channels, int kernel) {
    return b.activation(name + ".act", b.convolution(name, x, channels, kernel, 1));
  }

  private static Network bottlenecks() {
    Network.Builder b = Network.builder("bottlenecks", 6, 5, 2);
    int x = convolution(b, "stem", b.input(), 32, 3);
    for (int block = 0; block < 3; block++) {
      x = convolution(b, "reduce" + block, x, 32, 1);
      x = convolution(b, "window" + block, x, 32, 3);
      x = convolution(b, "expand" + block, x, 64, 1);
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return shaped(b);
  }

  /** Five in a row, of which the last has no other. */
  private static Network run() {
    Network.Builder b = Network.builder("run", 4, 4, 2);
    int x = convolution(b, "stem", b.input(), 8, 3);
    for (int i = 0; i < 5; i++) {
      x = convolution(b, "c" + i, x, 8 + 4 * i, 1);
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return shaped(b);
  }

  private static Network read(String name, boolean source, boolean between) {
    Network.Builder b = Network.builder(name, 4, 4, 2);
    int x = convolution(b, "stem", b.input(), 8, 3);
    int wide = convolution(b, "expand", x, 16, 1);
    int narrow = convolution(b, "reduce", wide, 8, 1);
    int last =
        b.normalizedSum("sum", source ? x : narrow, convolution(b, "more", narrow, 8, 3), 0.6);
    int logits = b.linear("logits", b.globalMeanPool("pool", last), 3);
    Network network = between ? b.build(wide, logits) : b.build();
    return network.with(RECTIFIER);
  }

  /** A sum computes the second one along with itself. */
  private static Network beforeSum() {
    Network.Builder b = Network.builder("before a sum", 4, 4, 2);
    int x = convolution(b, "stem", b.input(), 8, 3);
    int branch = convolution(b, "reduce", convolution(b, "three", x, 8, 3), 4, 1);
    int sum = b.normalizedSum("sum", x, b.convolution("expand", branch, 8, 1, 1), 0.6);
    b.linear("logits", b.globalMeanPool("pool", b.activation("act", sum)), 3);
    return shaped(b);
  }

  /** Nobody wants the gradient of the images. */
  private static Network fromImages() {
    Network.Builder b = Network.builder("from images", 4, 4, 2);
    int x = convolution(b, "reduce", convolution(b, "expand", b.input(), 16, 1), 4, 1);
    b.linear("logits", b.globalMeanPool("pool", convolution(b, "window", x, 4, 3)), 3);
    return shaped(b);
  }

  /** The reference backend, which has chains or has none, and counts those that it prepares. */
  private static Backend reference(boolean chains, int[] prepared) {
    Backend backend = Backends.open("reference");
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) -> {
              String name = method.getName();
              if ((name.equals("chains") || name.equals("pools")) && !chains) {
                return false;
              }
              if (name.equals("conv2dChain") || name.equals("conv2dPool")) {
                prepared[0]++;
              }
              try {
                return method.invoke(backend, arguments);
              } catch (InvocationTargetException thrown) {
                throw thrown.getCause();
              }
            });
  }

  /**
   * What a network gives, and takes.
   *
   * @param completed layers whose gradients were told to be there, in their order
   */
  private record Outcome(
      List<float[]> arrays, int chains, long held, long workspace, List<Integer> completed) {}

  private static Outcome outcome(
      Network network, boolean chains, Program.Options options, boolean backward) {
    int[] prepared = new int[1];
    List<float[]> arrays = new ArrayList<>();
    List<Integer> completed = new ArrayList<>();
    try (Backend backend = reference(chains, prepared);
        Stream stream = backend.newStream();
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Program program = new Program(network, backend, BATCH, options);
        Program.Workspace workspace = program.newWorkspace(stream);
        Tensor images = Tensor.allocate(network.input().batch(BATCH), options.type(), Layout.NHWC);
        Tensor labels = ProgramTest.labels(BATCH)) {
      SplittableRandom random = new SplittableRandom(5);
      fill(parameters.arena(), random);
      fill(gradients.arena(), random);
      fill(images, random);
      program.load(stream, parameters);
      arrays.add(workspace.forward(images, 3).toFloatArray());
      if (backward) {
        if (network.isClassifier()) {
          workspace.loss(labels, 1);
        }
        for (int i = network.isClassifier() ? 1 : 0; i < network.outputs().size(); i++) {
          fill(workspace.outputGradient(i), random);
        }
        List<List<float[]>> seen = new ArrayList<>();
        workspace.backward(
            gradients,
            Write.ACCUMULATE,
            layer -> {
              completed.add(layer);
              seen.add(views(network, gradients, layer));
            });
        for (int i = 0; i < seen.size(); i++) {
          List<float[]> last = views(network, gradients, completed.get(i));
          for (int p = 0; p < last.size(); p++) {
            assertArrayEquals(last.get(p), seen.get(i).get(p), "complete too early");
          }
        }
        arrays.add(gradients.arena().toFloatArray());
        if (options.inputGradient()) {
          arrays.add(workspace.inputGradient().toFloatArray());
        }
      }
      Program.Memory memory = Program.memory(network, backend, BATCH, options);
      assertTrue(memory.activations() >= program.workspaceBytes());
      return new Outcome(
          arrays, prepared[0], program.activationBytes(), program.workspaceBytes(), completed);
    }
  }

  /** Gradients of a layer's parameters and of those behind it. */
  private static List<float[]> views(Network network, Parameters gradients, int layer) {
    List<float[]> views = new ArrayList<>();
    for (int p = 0; p < network.parameters().size(); p++) {
      if (network.parameters().get(p).layer() >= layer) {
        views.add(gradients.view(p).toFloatArray());
      }
    }
    return views;
  }

  private static void fill(Tensor tensor, SplittableRandom random) {
    float[] values = new float[Math.toIntExact(tensor.shape().elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian() / 3;
    }
    tensor.set(values);
  }

  private static void same(Outcome expected, Outcome actual) {
    assertEquals(expected.arrays().size(), actual.arrays().size());
    for (int i = 0; i < expected.arrays().size(); i++) {
      assertArrayEquals(expected.arrays().get(i), actual.arrays().get(i), "result " + i);
    }
  }

  @ParameterizedTest
  @MethodSource("cases")
  void trainingGivesTheSameBits(Case of) {
    Program.Options options = new Program.Options(DataType.BF16, 0.1f, true, 9);
    Outcome apart = outcome(of.network(), false, options, true);
    Outcome chained = outcome(of.network(), true, options, true);
    same(apart, chained);
    assertEquals(0, apart.chains());
    int ofProgramAndItsMemory = 2 * of.chains();
    assertEquals(ofProgramAndItsMemory, chained.chains());
    if (of.chains() > 0) {
      assertTrue(chained.held() < apart.held(), "the wide tensors are not held");
      assertTrue(chained.workspace() < apart.workspace());
    }
    assertEquals(0, chained.completed().getLast(), "all layers' gradients are told");
  }

  /** The wide tensors of two chains, and their signs, are what is not held. */
  @Test
  void heldIsWhatIsNotBetween() {
    Program.Options options = new Program.Options(DataType.BF16, 0, true, 9);
    Outcome apart = outcome(bottlenecks(), false, options, true);
    Outcome chained = outcome(bottlenecks(), true, options, true);
    long wide = BATCH * 6 * 5 * 64;
    assertEquals(2 * (wide * 2 + wide / 8), apart.held() - chained.held());
  }

  @ParameterizedTest
  @MethodSource("cases")
  void inferenceGivesTheSameBits(Case of) {
    Program.Options options = new Program.Options(DataType.BF16, 0, false, 9);
    Outcome apart = outcome(of.network(), false, options, false);
    Outcome chained = outcome(of.network(), true, options, false);
    same(apart, chained);
    assertEquals(0, apart.chains());
  }

  /** With a gradient of the images, the first convolutions may be a chain too. */
  @Test
  void gradientOfImages() {
    Program.Options options = new Program.Options(DataType.F16, 0, true, 9, true);
    Outcome apart = outcome(fromImages(), false, options, true);
    Outcome chained = outcome(fromImages(), true, options, true);
    same(apart, chained);
    assertEquals(2, chained.chains());
  }

  /** K-FAC reads what lies between, and F32 has no chains. */
  @Test
  void notForFisherSamplesNorF32() {
    Program.Options fisher = new Program.Options(DataType.BF16, 0, true, 9).withFisher();
    assertEquals(0, outcome(bottlenecks(), true, fisher, true).chains());
    Program.Options single = new Program.Options(DataType.F32, 0, true, 9);
    assertEquals(0, outcome(bottlenecks(), true, single, true).chains());
  }

  private static Network pooled(boolean readTwice) {
    Network.Builder b = Network.builder("pooled", 12, 9, 4);
    int stem = convolution(b, "stem", b.input(), 8, 5);
    int x = b.maxPool("max", stem, 3, 2);
    x = convolution(b, "window", x, 8, 3);
    if (readTwice) {
      x = b.normalizedSum("sum", b.maxPool("other", stem, 3, 2), x, 0.6);
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return shaped(b);
  }

  /** The first convolution is pooled as one where no gradient of the images is asked for. */
  @Test
  void pooling() {
    for (boolean training : new boolean[] {true, false}) {
      Program.Options options = new Program.Options(DataType.BF16, 0.1f, training, 9);
      Outcome apart = outcome(pooled(false), false, options, training);
      Outcome asOne = outcome(pooled(false), true, options, training);
      same(apart, asOne);
      assertEquals(2, asOne.chains(), "by the program, and where its memory is told");
      assertTrue(asOne.workspace() < apart.workspace());
    }
  }

  /** Where something else reads what is pooled, or wants the gradient of the images. */
  @Test
  void notPooled() {
    Program.Options plain = new Program.Options(DataType.BF16, 0, true, 9);
    Program.Options ofImages = new Program.Options(DataType.BF16, 0, true, 9, true);
    Program.Options single = new Program.Options(DataType.F32, 0, true, 9);
    assertEquals(0, outcome(pooled(true), true, plain, true).chains());
    assertEquals(0, outcome(pooled(false), true, ofImages, true).chains());
    assertEquals(0, outcome(pooled(false), true, plain.withFisher(), true).chains());
    assertEquals(0, outcome(pooled(false), true, single, true).chains());
  }
}
