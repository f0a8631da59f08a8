package io.jtrelu.nn;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import io.jtrelu.shaping.EdgeOfChaos;
import io.jtrelu.shaping.KernelMap;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Unshaped;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.function.DoubleUnaryOperator;
import java.util.function.IntConsumer;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/**
 * Whether a network at initialisation does what the theory says: builds it with random weights on a
 * backend, passes inputs of known mean square and cosines through it and compares q and c after
 * every activation.
 *
 * <p>Three numbers belong to each q and each c:
 *
 * <ul>
 *   <li><b>predicted</b> by the theory, which is the limit of infinite width;
 *   <li><b>expected</b> at the network's own width, with the <b>spread</b> between networks that
 *       differ in their weights only. At n channels q fluctuates by about sqrt((fourth moment - 1)
 *       / n) at every layer, which adds up with depth and shifts means by O(depth / n). Both are
 *       found by drawing many networks in double precision by another way ({@code FiniteWidth}:
 *       random matrices replaced by random rotations of the few inputs), exactly, with no expansion
 *       in 1 / n and nothing in common with initialiser, layers and backend;
 *   <li><b>measured</b>, the mean over a few networks on the backend.
 * </ul>
 *
 * <p>It passes if every measured mean lies within {@link #TOLERANCE} standard errors of what is
 * expected, and if what is expected approaches the prediction as the network is made {@value
 * #WIDENING} times as wide: the distance must fall to {@link #SHRINKING} of itself, where O(1 / n)
 * makes it 1 / {@value #WIDENING}.
 *
 * <p>q is averaged over inputs and networks as log q, since it is a product of random factors, one
 * for each layer; what is reported is the geometric mean. Both are taken as the next affine layer
 * sees them, sigma_w^2 q + sigma_b^2, which makes a difference at the edge of chaos only. Images
 * larger than one location hold other inputs at each; their mean varies less than the spread says,
 * so that the check is then on the safe side.
 *
 * <p>Source of the maps: see {@link KernelMap}.
 */
public final class SignalCheck {
  /** Standard errors that a measured mean may lie away from the expected one. */
  public static final double TOLERANCE = 5;

  /** What may be left of the distance between expectation and prediction in the wide network. */
  public static final double SHRINKING = 0.25;

  private static final int WIDENING = 8;

  /** Cosines of the first input with the others. */
  private static final double[] COSINES = {0, 0.5, 0.9};

  /** Rounding in binary32, through all layers. */
  private static final double ROUNDING = 1e-5;

  private SignalCheck() {}

  /**
   * How much is computed.
   *
   * @param seed key of all random numbers
   * @param networks networks on the backend, at least 2
   * @param draws networks drawn to find mean and spread at the network's width, at least 2
   * @param wideDraws likewise for the wide network, at least 2
   */
  public record Options(long seed, int networks, int draws, int wideDraws) {
    /**
     * @throws IllegalArgumentException if a count is below 2
     */
    public Options {
      if (networks < 2 || draws < 2 || wideDraws < 2) {
        throw new IllegalArgumentException(
            "a spread needs at least 2 networks, got "
                + networks
                + ", "
                + draws
                + " and "
                + wideDraws);
      }
    }

    /** Enough to see an error of a few percent at any layer. */
    public static Options of(long seed) {
      return new Options(seed, 8, 400, 40);
    }
  }

  /**
   * One q or c after one activation.
   *
   * @param predicted by the theory of infinite width
   * @param wide mean in a network {@value #WIDENING} times as wide
   * @param expected mean at the network's width
   * @param spread standard deviation between networks of this width (of q: relative)
   * @param measured mean over the networks on the backend
   * @param z distance between measured and expected mean, in standard errors
   * @param limit whether wide lies close enough to predicted
   */
  public record Quantity(
      double predicted,
      double wide,
      double expected,
      double spread,
      double measured,
      double z,
      boolean limit) {
    /** Whether both comparisons hold. */
    public boolean passed() {
      return limit && Math.abs(z) <= TOLERANCE;
    }
  }

  /**
   * After one activation.
   *
   * @param name of the layer
   * @param channels its width
   * @param q mean square
   * @param c cosines, one for each of {@link Result#cosines}
   */
  public record LayerCheck(String name, int channels, Quantity q, List<Quantity> c) {
    public LayerCheck {
      c = List.copyOf(c);
    }

    /** Whether all comparisons hold. */
    public boolean passed() {
      return q.passed() && c.stream().allMatch(Quantity::passed);
    }
  }

  /**
   * The outcome.
   *
   * @param cosines the cosines that the inputs have at the first pre-activations
   * @param networks networks measured
   * @param layers one for each activation, in order
   */
  public record Result(List<Double> cosines, int networks, List<LayerCheck> layers) {
    public Result {
      cosines = List.copyOf(cosines);
      layers = List.copyOf(layers);
    }

    /** Whether all comparisons hold. */
    public boolean passed() {
      return layers.stream().allMatch(LayerCheck::passed);
    }

    /** The largest distance from what is expected, in standard errors. */
    public double worst() {
      double worst = 0;
      for (LayerCheck layer : layers) {
        worst = Math.max(worst, Math.abs(layer.q.z));
        for (Quantity c : layer.c) {
          worst = Math.max(worst, Math.abs(c.z));
        }
      }
      return worst;
    }
  }

  /**
   * Checks a network of one activation function as a shaping method and the library's initialiser
   * make it.
   *
   * @param backend runs the networks
   * @param network its activations lie on one path; any image size
   * @param shaping the solution for this network
   * @param progress told how many networks were measured
   * @throws IllegalArgumentException if the theory does not cover the network: max-pooling, groups,
   *     activations on parallel paths, a shortcut past the weights of the edge of chaos, q* = 0, or
   *     an input of one channel
   */
  public static Result run(
      Backend backend, Network network, Shaping shaping, Options options, IntConsumer progress) {
    ActivationFunction function = shaping.activation().function();
    return run(
        backend,
        network.with(function),
        Map.of(function.activationName(), shaping),
        options,
        progress);
  }

  /**
   * Checks a network of one or more activation functions.
   *
   * @param shapings the solution for each function, as {@link Network#solve} finds them
   * @throws IllegalArgumentException as for one function, or if the functions need weights of
   *     different scales, as without shaping they do
   */
  public static Result run(
      Backend backend,
      Network network,
      Map<String, Shaping> shapings,
      Options options,
      IntConsumer progress) {
    Network shaped = shaped(network, shapings, Scales.of(shapings.values()));
    return run(
        backend,
        network,
        shapings,
        shaped,
        (seed, parameters) -> Initializer.delta(seed).fill(backend, parameters),
        options,
        progress);
  }

  /** Sets a network's parameters. */
  interface Filling {
    void fill(long seed, Parameters parameters);
  }

  private static Network shaped(Network network, Map<String, Shaping> shapings, Scales scales) {
    return network.with(
        f -> shapings.get(f.function().activationName()).activation(),
        Math.sqrt(scales.weights),
        Math.sqrt(scales.biases));
  }

  /**
   * Compares a network with what the theory says about a shaping.
   *
   * @param run the network as it really is
   * @param filling the weights that it really has
   */
  static Result run(
      Backend backend,
      Network network,
      Map<String, Shaping> shapings,
      Network run,
      Filling filling,
      Options options,
      IntConsumer progress) {
    SignalGraph graph = network.signalGraph();
    List<Integer> activations = activations(network);
    Scales scales = Scales.of(shapings.values());
    if (activations.size() != graph.activations()) {
      throw new IllegalArgumentException(
          network + ": the check needs all activations on one path from input to logits");
    }
    requireScaledShortcuts(network, scales);
    Inputs inputs = new Inputs(network.input().channels(), scales);
    Network shaped = shaped(network, shapings, scales);
    Sample wide = draw(shaped, scales, inputs, activations, WIDENING, options);
    Sample own = draw(shaped, scales, inputs, activations, 1, options);
    Sample measured = new Sample(activations.size(), 1 + COSINES.length);
    measure(backend, run, filling, scales, inputs, activations, options, measured, progress);

    double[][] predicted = new double[1 + COSINES.length][];
    Map<String, DoubleUnaryOperator> q = new HashMap<>();
    Map<String, DoubleUnaryOperator> c = new HashMap<>();
    shapings.forEach(
        (function, shaping) -> {
          KernelMap map = KernelMap.of(shaping);
          boolean scaled = shaping.edgeOfChaos() != null;
          q.put(function, scaled ? map::q : x -> scales.weights * map.q(x));
          c.put(function, map::c);
        });
    predicted[0] = graph.throughDepth(q, scales.q);
    for (int k = 0; k < COSINES.length; k++) {
      predicted[1 + k] = graph.throughDepth(c, inputs.cosine(k));
    }
    List<LayerCheck> checks = new ArrayList<>();
    for (int at = 0; at < activations.size(); at++) {
      Layer layer = network.layers().get(activations.get(at));
      List<Quantity> quantities = new ArrayList<>();
      for (int j = 0; j <= COSINES.length; j++) {
        double theory = predicted[j][at + 1];
        quantities.add(compare(j == 0, theory, wide, own, measured, at, j));
      }
      checks.add(
          new LayerCheck(
              layer.name(),
              layer.extent().channels(),
              quantities.getFirst(),
              quantities.subList(1, quantities.size())));
    }
    List<Double> cosines = new ArrayList<>();
    for (int k = 0; k < COSINES.length; k++) {
      cosines.add(inputs.cosine(k));
    }
    return new Result(cosines, options.networks(), checks);
  }

  private static Quantity compare(
      boolean logarithm, double theory, Sample wide, Sample own, Sample measured, int at, int j) {
    double target = logarithm ? Math.log(theory) : theory;
    double mean = own.mean(at, j);
    double deviation = own.deviation(at, j);
    double error = deviation * Math.sqrt(1.0 / measured.count() + 1.0 / own.count()) + ROUNDING;
    double z = (measured.mean(at, j) - mean) / error;
    double wideError = wide.deviation(at, j) / Math.sqrt(wide.count()) + ROUNDING;
    double allowed = SHRINKING * Math.abs(mean - target) + TOLERANCE * wideError;
    boolean limit = Math.abs(wide.mean(at, j) - target) <= allowed;
    DoubleUnaryOperator shown = logarithm ? Math::exp : x -> x;
    return new Quantity(
        theory,
        shown.applyAsDouble(wide.mean(at, j)),
        shown.applyAsDouble(mean),
        deviation,
        shown.applyAsDouble(measured.mean(at, j)),
        z,
        limit);
  }

  private static List<Integer> activations(Network network) {
    List<Integer> result = new ArrayList<>();
    for (int i = 0; i < network.layers().size(); i++) {
      if (network.layers().get(i) instanceof ActivationLayer) {
        result.add(i);
      }
    }
    return result;
  }

  /** An activation's output and a convolution's have one q only where weights are not scaled. */
  private static void requireScaledShortcuts(Network network, Scales scales) {
    for (Layer layer : network.layers()) {
      if (layer instanceof NormalizedSumLayer sum
          && network.layers().get(sum.shortcut()) instanceof ActivationLayer
          && !(scales.weights == 1 && scales.biases == 0)) {
        throw new IllegalArgumentException(
            "layer "
                + layer.name()
                + ": the shortcut goes past the weights, whose scale is part of the method, so that"
                + " q differs between shortcut and branch; take V2 blocks or no shortcuts");
      }
    }
  }

  private static Sample draw(
      Network network,
      Scales scales,
      Inputs inputs,
      List<Integer> activations,
      int widening,
      Options options) {
    FiniteWidth simulation = new FiniteWidth(network, widening);
    int draws = widening == 1 ? options.draws() : options.wideDraws();
    Sample sample = new Sample(activations.size(), 1 + COSINES.length);
    for (int d = 0; d < draws; d++) {
      // Seeds in a row are fine for this generator, which mixes them.
      RandomGenerator random = new SplittableRandom(options.seed() + 1_000_003L * d + widening);
      double[][] seen = new double[activations.size()][];
      simulation.draw(
          inputs.location(random),
          random,
          (layer, values) ->
              seen[activations.indexOf(layer)] =
                  scales.observe(values.length, values[0].length, (k, i) -> values[k][i]));
      sample.add(seen);
    }
    return sample;
  }

  private static void measure(
      Backend backend,
      Network network,
      Filling filling,
      Scales scales,
      Inputs inputs,
      List<Integer> activations,
      Options options,
      Sample sample,
      IntConsumer progress) {
    Layer.Extent extent = network.input();
    int images = 1 + COSINES.length;
    Shape shape = Shape.of(images, extent.height(), extent.width(), extent.channels());
    Program.Options compiled = new Program.Options(DataType.F32, 0, false, options.seed());
    try (Stream stream = backend.newStream();
        Program program = new Program(network, backend, images, compiled);
        Program.Workspace workspace = program.newWorkspace(stream);
        Parameters parameters = Parameters.allocate(network, backend);
        Tensor host = Tensor.allocate(shape, DataType.F32, Layout.NHWC);
        Tensor device = backend.allocate(shape, DataType.F32, Layout.NHWC)) {
      for (int n = 0; n < options.networks(); n++) {
        filling.fill(options.seed() + n, parameters);
        program.load(stream, parameters);
        backend.copy(stream, host.set(inputs.images(extent, options.seed() + n)), device);
        double[][] seen = new double[activations.size()][];
        workspace.forward(
            device,
            (layer, value) -> {
              int at = activations.indexOf(layer);
              if (at >= 0) {
                seen[at] = scales.observe(read(backend, stream, value), value.shape());
              }
            });
        stream.synchronize();
        sample.add(seen);
        progress.accept(n + 1);
      }
    }
  }

  private static float[] read(Backend backend, Stream stream, Tensor value) {
    try (Tensor host = Tensor.allocate(value.shape(), DataType.F32, value.layout())) {
      backend.copy(stream, value, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  /**
   * What a layer's affine part makes of q and covariances: x -> weights * x + biases.
   *
   * @param q mean square of pre-activations
   * @param weights sigma_w^2
   * @param biases sigma_b^2
   */
  private record Scales(double q, double weights, double biases) {
    /** Those that all functions of a network have in common. */
    static Scales of(Collection<Shaping> shapings) {
      Set<Scales> all = new LinkedHashSet<>();
      shapings.forEach(shaping -> all.add(of(shaping)));
      if (all.size() != 1) {
        throw new IllegalArgumentException(
            "the check needs one scale of weights for all activations, not "
                + all.stream().map(Scales::weights).toList()
                + "; shape the network");
      }
      return all.iterator().next();
    }

    private static Scales of(Shaping shaping) {
      EdgeOfChaos edge = shaping.edgeOfChaos();
      if (edge != null) {
        if (!(edge.qStar() > 0)) {
          throw new IllegalArgumentException(
              "at this edge of chaos q* is 0: every signal vanishes and there is nothing to"
                  + " measure; ask for a variance of the biases above 0");
        }
        return new Scales(edge.qStar(), edge.sigmaW2(), edge.sigmaB2());
      }
      // Without shaping, weights that keep q at 1: what the C map of the theory takes for granted.
      double weights = shaping.method() instanceof Unshaped ? 1 / shaping.moments().q() : 1;
      return new Scales(1, weights, 0);
    }

    /** Element i of input k. */
    interface Values {
      double at(int k, int i);
    }

    /** Mean of log q over the inputs, and the cosines of the first with the others. */
    double[] observe(int inputs, int channels, Values values) {
      double[] result = new double[inputs];
      double first = 0;
      for (int k = 0; k < inputs; k++) {
        double square = 0;
        double product = 0;
        for (int i = 0; i < channels; i++) {
          square += values.at(k, i) * values.at(k, i);
          product += values.at(0, i) * values.at(k, i);
        }
        double qk = weights * square / channels + biases;
        if (k == 0) {
          first = qk;
        } else {
          result[k] = (weights * product / channels + biases) / Math.sqrt(first * qk);
        }
        result[0] += Math.log(qk) / inputs;
      }
      return result;
    }

    /** The mean over the locations of images. */
    double[] observe(float[] images, Shape shape) {
      int channels = shape.dim(3);
      int locations = shape.dim(1) * shape.dim(2);
      double[] mean = new double[shape.dim(0)];
      for (int p = 0; p < locations; p++) {
        int begin = p * channels;
        double[] here =
            observe(shape.dim(0), channels, (k, i) -> images[k * locations * channels + begin + i]);
        for (int j = 0; j < mean.length; j++) {
          mean[j] += here[j] / locations;
        }
      }
      return mean;
    }
  }

  /** Random inputs whose pre-activations have the mean square and cosines asked for. */
  private record Inputs(int channels, Scales scales) {
    Inputs {
      if (channels < 2) {
        throw new IllegalArgumentException(
            "inputs of one channel have no angles between them; the check needs two or more");
      }
    }

    private double square() {
      return (scales.q - scales.biases) / scales.weights;
    }

    private double before(int k) {
      double cosine = (COSINES[k] * scales.q - scales.biases) / (scales.weights * square());
      return Math.max(-1, cosine); // biases alone may keep pre-activations above it
    }

    /** The cosine at the first pre-activations. */
    double cosine(int k) {
      return (scales.weights * square() * before(k) + scales.biases) / scales.q;
    }

    /** One location: a row for each input. */
    double[][] location(RandomGenerator random) {
      double[] first = unit(random, null);
      double[][] rows = new double[1 + COSINES.length][channels];
      double length = Math.sqrt(channels * square());
      for (int k = 0; k < rows.length; k++) {
        double cos = k == 0 ? 1 : before(k - 1);
        double sin = Math.sqrt(1 - cos * cos);
        double[] second = unit(random, first);
        for (int i = 0; i < channels; i++) {
          rows[k][i] = length * (cos * first[i] + sin * second[i]);
        }
      }
      return rows;
    }

    private double[] unit(RandomGenerator random, double @Nullable [] orthogonalTo) {
      double[] v = new double[channels];
      for (int i = 0; i < channels; i++) {
        v[i] = random.nextGaussian();
      }
      if (orthogonalTo != null) {
        double part = FiniteWidth.dot(v, orthogonalTo);
        for (int i = 0; i < channels; i++) {
          v[i] -= part * orthogonalTo[i];
        }
      }
      double length = Math.sqrt(FiniteWidth.dot(v, v));
      for (int i = 0; i < channels; i++) {
        v[i] /= length;
      }
      return v;
    }

    /** Images, NHWC, with other inputs at each location. */
    float[] images(Layer.Extent extent, long seed) {
      RandomGenerator random = new SplittableRandom(seed);
      int images = 1 + COSINES.length;
      int locations = extent.height() * extent.width();
      float[] values = new float[images * locations * channels];
      for (int p = 0; p < locations; p++) {
        double[][] rows = location(random);
        for (int k = 0; k < images; k++) {
          for (int i = 0; i < channels; i++) {
            values[(k * locations + p) * channels + i] = (float) rows[k][i];
          }
        }
      }
      return values;
    }
  }

  /** Means and standard deviations over networks (Welford). */
  private static final class Sample {
    private final double[][] mean;
    private final double[][] squares;
    private int count;

    Sample(int layers, int quantities) {
      mean = new double[layers][quantities];
      squares = new double[layers][quantities];
    }

    void add(double[][] seen) {
      count++;
      for (int l = 0; l < mean.length; l++) {
        for (int j = 0; j < mean[l].length; j++) {
          double difference = seen[l][j] - mean[l][j];
          mean[l][j] += difference / count;
          squares[l][j] += difference * (seen[l][j] - mean[l][j]);
        }
      }
    }

    int count() {
      return count;
    }

    double mean(int layer, int quantity) {
      return mean[layer][quantity];
    }

    double deviation(int layer, int quantity) {
      return Math.sqrt(squares[layer][quantity] / (count - 1));
    }
  }
}
