package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.FactorScalars;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.SymmetricInverse;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.FisherSamples;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * K-FAC's factors and their inverses, and the natural gradient that they give.
 *
 * <p>The Fisher matrix of a layer's weights and bias is taken for the Kronecker product of A, the
 * mean of a a' over mean patches a, and G, the mean of g g' over summed gradients g (in the reduce
 * form; in the expand form they are sums over places, see {@link FisherRows}). With D = [dW, db]
 * the step's gradient,
 *
 * <pre>
 * natural gradient  U  = (G + r/pi I)^-1 D (A + pi r I)^-1    r = sqrt(damping), pi = sqrt((tr A / dim A) / (tr G / dim G))
 * norm constraint   nu = min(1, sqrt(normConstraint / (rate^2 sum over layers of |&lt;U, D&gt;|)))
 * </pre>
 *
 * after Martens and Grosse 2015 (arXiv 1503.05671, sections 4 to 6), with kfac-jax's norm
 * constraint. A and G are moving averages whose first measurements count alike: the k-th has weight
 * max(1 - decay, 1/k).
 *
 * <p>Each factor belongs to one layer, and each layer's work is one piece: results do not depend on
 * how many lanes share it. All of it is operations on the device, also where a measurement or an
 * inverse fails: what was there before stays, and the {@linkplain #figures figures} tell it to
 * whoever looks at them later.
 */
final class Kfac implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger("io.jtrelu.train");

  /** Floats of {@link #steering}: weights of a measurement, and the learning rate in two parts. */
  static final int STEERING = 4;

  // Floats of a layer's figures: weights of A's and of G's measurement, what is added to their
  // diagonals, and the residuals of their inverses.
  private static final int SCALES = 0;
  private static final int SHIFTS = 4;
  private static final int RESIDUALS = 6;
  private static final int FIGURES = 8;

  private final KfacConfig config;
  private final long seed;
  private final int batch;
  private final Network network;
  private final FisherSamples samples;
  private final Parameters natural;
  private final FactorScalars scalars;
  private final Tensor figures;
  private final Tensor inners; // <U, D> of each layer's weights, and of its bias
  private final @Nullable Tensor scratch; // of inversions, which follow each other on a GPU
  private final List<Block> blocks = new ArrayList<>();
  private final Map<String, Tensor> state = new LinkedHashMap<>();
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();

  /**
   * What a step does beside the natural gradient.
   *
   * @param measures whether its first pass measures, and its end takes that in
   * @param first whether nothing was measured before: all factors are inverted
   * @param turn of the layers whose factors are inverted otherwise: the index of the first of them,
   *     or their number where there is none
   */
  record Phase(boolean measures, boolean first, int turn) {
    static final Phase PLAIN = new Phase(false, false, 0);

    /** That of a step, by its number, from 1. */
    static Phase of(KfacConfig config, int layers, long step) {
      if ((step - 1) % config.measureEvery() != 0) {
        return PLAIN;
      }
      long measurement = measurements(config, step);
      return measurement == 1
          ? new Phase(true, true, 0)
          : new Phase(true, false, (int) Math.min(layers, measurement % turns(config)));
    }
  }

  private static long measurements(KfacConfig config, long step) {
    return (step - 1) / config.measureEvery() + 1;
  }

  private static int turns(KfacConfig config) {
    return config.invertEvery() / config.measureEvery();
  }

  /** Factors of one layer. */
  private final class Block {
    final FisherSamples.Block rows;
    final int index;
    final Factor inputs;
    final Factor gradients;
    final Tensor shifts;
    final Tensor halfway; // [outputs, inputs]: (G + r/pi I)^-1 D
    final MatrixProduct leftWeights;
    final MatrixProduct leftBias;
    final MatrixProduct rightWeights;
    final MatrixProduct rightBias;
    final MatrixProduct innerWeights;
    final MatrixProduct innerBias;

    Block(Backend backend, FisherSamples.Block rows, int index, Storage storage) {
      this.rows = rows;
      this.index = index;
      int k = rows.inputWidth();
      int oc = rows.outputWidth();
      int at = FIGURES * index;
      inputs = new Factor(backend, rows, "input", rows.inputs(), at, 0, storage);
      gradients = new Factor(backend, rows, "gradient", rows.gradients(), at, 1, storage);
      shifts = vector(figures, at + SHIFTS, 2);
      halfway = own(backend.allocate(Shape.of(oc, k), DataType.F32, Layout.ROW_MAJOR));
      int weights = oc * (k - 1);
      leftWeights = product(backend, oc, k - 1, oc, oc, k - 1, k);
      leftBias = product(backend, oc, 1, oc, oc, 1, k);
      rightWeights = product(backend, oc, k - 1, k, k, k, k - 1);
      rightBias = product(backend, oc, 1, k, k, k, 1);
      innerWeights = product(backend, 1, 1, weights, weights, 1, 1);
      innerBias = product(backend, 1, 1, oc, oc, 1, 1);
    }

    /** Takes in measurements, and inverts, as the step's phase says. */
    void learn(Stream on, Phase phase, Tensor weights, Tensor gate) {
      if (phase.measures()) {
        inputs.measure(on, weights, gate);
        gradients.measure(on, weights, gate);
      }
      if (inverts(phase, index)) {
        scalars.damping(on, inputs.mean, gradients.mean, config.damping(), gate, shifts);
        inputs.invert(on, vector(shifts, 0, 1));
        gradients.invert(on, vector(shifts, 1, 1));
      }
    }

    /** Writes the layer's part of the natural gradient. */
    void precondition(Stream on, Parameters gradient) {
      Tensor weights = gradient.view(rows.weights());
      Tensor bias = gradient.view(rows.bias());
      Tensor naturalWeights = natural.view(rows.weights());
      Tensor naturalBias = natural.view(rows.bias());
      int last = rows.inputWidth() - 1;
      multiply(leftWeights, on, gradients.inverse, weights, halfway);
      multiply(leftBias, on, gradients.inverse, bias, from(halfway, last));
      multiply(rightWeights, on, halfway, inputs.inverse, naturalWeights);
      multiply(rightBias, on, halfway, from(inputs.inverse, last), naturalBias);
      multiply(innerWeights, on, naturalWeights, weights, vector(inners, 2L * index, 1));
      multiply(innerBias, on, naturalBias, bias, vector(inners, 2L * index + 1, 1));
    }
  }

  /** A tensor from an element on. */
  private static Tensor from(Tensor tensor, int first) {
    long rest = tensor.shape().elements() - first;
    return vector(tensor, first, Math.toIntExact(rest));
  }

  private static Tensor vector(Tensor of, long first, int count) {
    return of.slice(first, Shape.of(count), Layout.ROW_MAJOR);
  }

  /** C = A B. */
  private static void multiply(MatrixProduct product, Stream on, Tensor a, Tensor b, Tensor c) {
    product.run(on, 1, a, b, 0, c);
  }

  private MatrixProduct product(Backend backend, int m, int n, int k, int lda, int ldb, int ldc) {
    var sizes = new MatrixProduct.Sizes(m, n, k, false, false, lda, ldb, ldc);
    return own(backend.matrixProduct(sizes));
  }

  /** A or G of a layer. */
  private final class Factor {
    final String layer;
    final String name;
    final Tensor rows;
    final Tensor mean;
    final Tensor inverse;
    final long scaleAt;
    final long residualAt;
    final MatrixProduct gram;
    final SymmetricInverse inversion;

    Factor(
        Backend backend,
        FisherSamples.Block of,
        String name,
        Tensor rows,
        long figuresAt,
        int which,
        Storage storage) {
      this.layer = network.layers().get(of.layer()).name();
      this.name = name;
      this.rows = rows;
      int n = rows.shape().dim(1);
      this.mean = storage.next(storage.factors, n);
      this.inverse = storage.next(storage.inverses, n);
      storage.at += square(n);
      scaleAt = figuresAt + SCALES + 2L * which;
      residualAt = figuresAt + RESIDUALS + which;
      int count = rows.shape().dim(0);
      gram = own(backend.matrixProduct(MatrixProduct.Sizes.dense(n, n, count, true, false)));
      inversion = own(backend.symmetricInverse(n));
      fillInverse(backend, n);
    }

    /** That of a factor of zeros. */
    private void fillInverse(Backend backend, int n) {
      float diagonal = (float) (1 / Math.sqrt(config.damping()));
      try (Stream stream = backend.newStream();
          Tensor host = Tensor.allocate(Shape.of(n, n), DataType.F32, Layout.ROW_MAJOR)) {
        for (int i = 0; i < n; i++) {
          host.put((long) i * n + i, diagonal);
        }
        backend.copy(stream, host, inverse);
        stream.synchronize();
      }
    }

    /** Takes in a measurement, unless it holds what is not finite. */
    void measure(Stream on, Tensor weights, Tensor gate) {
      Tensor scale = vector(figures, scaleAt, 2);
      scalars.measurement(on, rows, weights, gate, scale);
      gram.run(on, scale, rows, rows, mean);
    }

    void invert(Stream on, Tensor shift) {
      inversion.run(on, mean, shift, inverse, vector(figures, residualAt, 1), scratch);
    }

    void tellOfMeasurement(long step, Tensor from) {
      if (Float.isNaN(from.get(scaleAt))) {
        tell(step, "a measurement is not finite", "factor");
      }
    }

    void tellOfInverse(long step, Tensor from, float shift) {
      if (Float.isNaN(from.get(residualAt))) {
        tell(step, "the factor plus " + shift + " has no finite inverse", "inverse");
      }
    }

    private void tell(long step, String why, String what) {
      LOG.log(
          System.Logger.Level.WARNING,
          "K-FAC, step {0}, layer {1}, {2} factor: {3}; the {4} before is kept",
          step,
          layer,
          name,
          why,
          what);
    }
  }

  /** All factors and all inverses, one behind the other in the order of layers. */
  private static final class Storage {
    final Tensor factors;
    final Tensor inverses;
    long at;

    Storage(Tensor factors, Tensor inverses) {
      this.factors = factors;
      this.inverses = inverses;
    }

    Tensor next(Tensor of, int n) {
      return of.slice(at, Shape.of(n, n), Layout.ROW_MAJOR);
    }
  }

  /**
   * Allocates factors of zeros.
   *
   * @param batch samples of a measurement
   * @param seed of the labels that are drawn
   * @throws UnsupportedException if the backend cannot, or a layer has no factors
   */
  Kfac(Network network, Backend backend, KfacConfig config, int batch, long seed) {
    this.network = network;
    this.config = config;
    this.batch = batch;
    this.seed = seed;
    try {
      this.samples = own(new FisherSamples(network, backend, batch, config.form()));
      this.natural = own(Parameters.allocate(network, backend));
      this.scalars = own(backend.factorScalars());
      int count = samples.blocks().size();
      this.figures = own(floats(backend, FIGURES * count));
      this.inners = own(floats(backend, 2 * count));
      long elements = 0;
      long most = 0;
      for (FisherSamples.Block rows : samples.blocks()) {
        elements += square(rows.inputWidth()) + square(rows.outputWidth());
        most = Math.max(most, scratchBytes(backend, rows.inputWidth(), rows.outputWidth()));
      }
      this.scratch =
          most == 0 ? null : own(backend.allocate(words(most), DataType.F32, Layout.ROW_MAJOR));
      int flat = Math.toIntExact(elements);
      Storage storage = new Storage(own(floats(backend, flat)), own(floats(backend, flat)));
      state.put("factors", storage.factors);
      state.put("inverses", storage.inverses);
      for (FisherSamples.Block rows : samples.blocks()) {
        blocks.add(new Block(backend, rows, blocks.size(), storage));
      }
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  /**
   * Bytes that the factors of a network take on a device, with all that is needed to use them;
   * nothing is allocated.
   *
   * @throws UnsupportedException if the backend cannot invert a factor
   */
  static long memory(Network network, Backend backend, KfacConfig config, int batch) {
    // As the constructor does.
    long factors = 0;
    long others = 0;
    long most = 0;
    int count = 0;
    List<ParameterSpec> specs = network.parameters();
    for (ParameterSpec spec : specs) {
      Layer layer = network.layers().get(spec.layer());
      int k = layer.fisherInputs();
      if (spec.kind() == ParameterSpec.Kind.BIAS && k > 0) {
        int oc = Math.toIntExact(spec.shape().elements());
        factors += (square(k) + square(oc)) * Float.BYTES;
        long rows = (long) batch * layer.fisherRows(config.form());
        others += backend.allocationBytes(rows * k * Float.BYTES);
        others += backend.allocationBytes(rows * oc * Float.BYTES);
        others += backend.allocationBytes((long) oc * k * Float.BYTES);
        most = Math.max(most, scratchBytes(backend, k, oc));
        count++;
      }
    }
    long natural = backend.allocationBytes(Parameters.arenaElements(network) * Float.BYTES);
    return 2 * backend.allocationBytes(factors)
        + others
        + natural
        + (most == 0 ? 0 : backend.allocationBytes(words(most).elements() * Float.BYTES))
        + backend.allocationBytes((long) FIGURES * count * Float.BYTES)
        + backend.allocationBytes(2L * count * Float.BYTES);
  }

  private static long scratchBytes(Backend backend, int... sizes) {
    long most = 0;
    for (int n : sizes) {
      try (SymmetricInverse inverse = backend.symmetricInverse(n)) {
        most = Math.max(most, inverse.scratchBytes());
      }
    }
    return most;
  }

  /** With two axes, as an int may not hold the count. */
  private static Shape words(long bytes) {
    return Shape.of(Math.toIntExact(Math.ceilDiv(bytes, 64L)), 16);
  }

  private static Tensor floats(Backend backend, int count) {
    return backend.allocate(Shape.of(count), DataType.F32, Layout.ROW_MAJOR);
  }

  private static long square(int n) {
    return (long) n * n;
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  /** Bytes of a network's factors, their inverses, and the rows that are measured. */
  long bytes() {
    long bytes = samples.bytes();
    for (Tensor tensor : state.values()) {
      bytes += tensor.bytes();
    }
    return bytes;
  }

  /** Where the natural gradient is. */
  Parameters natural() {
    return natural;
  }

  /** Factors and inverses, by name. */
  Map<String, Tensor> state() {
    return state;
  }

  /** What a step that has measured or inverted tells of it, on the device. */
  Tensor figures() {
    return figures;
  }

  /** How it measures. */
  FisherRows.Form form() {
    return config.form();
  }

  /** Samples of a measurement. */
  int batch() {
    return batch;
  }

  /** What is done in a step, by its number, from 1. */
  Phase phase(long step) {
    return Phase.of(config, blocks.size(), step);
  }

  private boolean inverts(Phase phase, int block) {
    return phase.measures() && (phase.first() || block % turns(config) == phase.turn());
  }

  /** What the first pass of a step that measures leaves. */
  BatchExecutor.Fisher measurement() {
    return new BatchExecutor.Fisher(samples, !config.empirical(), seed);
  }

  /** What differs between steps of one phase: {@value #STEERING} floats. */
  float[] steering(double learningRate, long step) {
    double weight = Math.max(1 - config.decay(), 1.0 / measurements(config, step));
    float rate = (float) learningRate;
    return new float[] {
      (float) (weight / batch), (float) (1 - weight), rate, (float) (learningRate - rate)
    };
  }

  /**
   * Takes in what the step has measured, if anything, inverts the factors whose turn it is, and
   * computes the natural gradient and nu.
   *
   * @param gradient of the step
   * @param steering F32 on the device: {@link #steering(double, long)}
   * @param result F32 [2] on the device: norm and factor of the gradient; the factor becomes nu
   * @param on for what follows the layers; the layers' own work is shared among the lanes
   */
  void run(
      BatchExecutor executor,
      Stream on,
      Phase phase,
      Parameters gradient,
      Tensor steering,
      Tensor result) {
    Tensor weights = vector(steering, 0, 2);
    Tensor gate = vector(result, 1, 1);
    executor.share(
        blocks.size(),
        (lane, i) -> {
          blocks.get(i).learn(lane, phase, weights, gate);
          blocks.get(i).precondition(lane, gradient);
        });
    constrain(on, steering, result);
  }

  /** As above, all of it on one stream, to run or to be recorded. */
  void run(Stream on, Phase phase, Parameters gradient, Tensor steering, Tensor result) {
    Tensor weights = vector(steering, 0, 2);
    Tensor gate = vector(result, 1, 1);
    for (Block block : blocks) {
      block.learn(on, phase, weights, gate);
      block.precondition(on, gradient);
    }
    constrain(on, steering, result);
  }

  private void constrain(Stream on, Tensor steering, Tensor result) {
    scalars.constraint(on, inners, vector(steering, 2, 2), config.normConstraint(), result);
  }

  /**
   * Tells of what a step could not measure or invert.
   *
   * @param from the step's figures, on the host
   */
  void tell(long step, Tensor from) {
    Phase phase = phase(step);
    for (Block block : blocks) {
      if (phase.measures()) {
        block.inputs.tellOfMeasurement(step, from);
        block.gradients.tellOfMeasurement(step, from);
      }
      if (inverts(phase, block.index)) {
        long shifts = (long) FIGURES * block.index + SHIFTS;
        block.inputs.tellOfInverse(step, from, from.get(shifts));
        block.gradients.tellOfInverse(step, from, from.get(shifts + 1));
      }
    }
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      try {
        owned.pop().close();
      } catch (Exception failure) {
        throw new IllegalStateException("closing K-FAC's factors failed", failure);
      }
    }
  }
}
