package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.MatrixProduct;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.SymmetricInverse;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.FisherSamples;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
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
 * mean of a a' over mean patches a, and G, the mean of g g' over summed gradients g (the reduce
 * form; see {@link io.jtrelu.backend.FisherRows}). With D = [dW, db] the step's gradient,
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
 * how many lanes share it. On a CPU only.
 */
final class Kfac implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger("io.jtrelu.train");

  private final KfacConfig config;
  private final long seed;
  private final int batch;
  private final Network network;
  private final FisherSamples samples;
  private final Parameters natural;
  private final List<Block> blocks = new ArrayList<>();
  private final Map<String, Tensor> state = new LinkedHashMap<>();
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();

  /** Factors of one layer. */
  private final class Block {
    final FisherSamples.Block rows;
    final Factor inputs;
    final Factor gradients;
    final Tensor halfway; // [outputs, inputs]: (G + r/pi I)^-1 D
    final Tensor product; // [1]
    final MatrixProduct leftWeights;
    final MatrixProduct leftBias;
    final MatrixProduct rightWeights;
    final MatrixProduct rightBias;
    final MatrixProduct innerWeights;
    final MatrixProduct innerBias;
    double inner; // <U, D>

    Block(Backend backend, FisherSamples.Block rows, Storage storage) {
      this.rows = rows;
      int k = rows.inputWidth();
      int oc = rows.outputWidth();
      inputs = new Factor(backend, rows, "input", rows.inputs(), storage);
      gradients = new Factor(backend, rows, "gradient", rows.gradients(), storage);
      halfway = own(backend.allocate(Shape.of(oc, k), DataType.F32, Layout.ROW_MAJOR));
      product = own(backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR));
      int weights = oc * (k - 1);
      leftWeights = product(backend, oc, k - 1, oc, oc, k - 1, k);
      leftBias = product(backend, oc, 1, oc, oc, 1, k);
      rightWeights = product(backend, oc, k - 1, k, k, k, k - 1);
      rightBias = product(backend, oc, 1, k, k, k, 1);
      innerWeights = product(backend, 1, 1, weights, weights, 1, 1);
      innerBias = product(backend, 1, 1, oc, oc, 1, 1);
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
      multiply(innerWeights, on, naturalWeights, weights, product);
      inner = product.get(0);
      multiply(innerBias, on, naturalBias, bias, product);
      inner += product.get(0);
    }

    void invert(Stream on, long step) {
      double mean = inputs.meanDiagonal() / gradients.meanDiagonal();
      double pi = mean > 0 && mean < Double.POSITIVE_INFINITY ? Math.sqrt(mean) : 1;
      double r = Math.sqrt(config.damping());
      inputs.invert(on, (float) (pi * r), step);
      gradients.invert(on, (float) (r / pi), step);
    }
  }

  /** A tensor from an element on. */
  private static Tensor from(Tensor tensor, int first) {
    long rest = tensor.shape().elements() - first;
    return tensor.slice(first, Shape.of(Math.toIntExact(rest)), Layout.ROW_MAJOR);
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
    final int n;
    final Tensor mean;
    final Tensor inverse;
    final Tensor residual;
    final MatrixProduct gram;
    final SymmetricInverse inversion;

    Factor(Backend backend, FisherSamples.Block of, String name, Tensor rows, Storage storage) {
      this.layer = network.layers().get(of.layer()).name();
      this.name = name;
      this.rows = rows;
      this.n = rows.shape().dim(1);
      this.mean = storage.next(storage.factors, n);
      this.inverse = storage.next(storage.inverses, n);
      storage.at += (long) n * n;
      residual = own(backend.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR));
      gram = own(backend.matrixProduct(MatrixProduct.Sizes.dense(n, n, batch, true, false)));
      inversion = own(backend.symmetricInverse(n));
      double r = Math.sqrt(config.damping());
      for (int i = 0; i < n; i++) {
        inverse.put((long) i * n + i, (float) (1 / r)); // of a factor of zeros
      }
    }

    /** Takes in a measurement, unless it holds what is not finite. */
    void measure(Stream on, double weight, long step) {
      for (long i = 0; i < rows.shape().elements(); i++) {
        if (!Float.isFinite(rows.get(i))) {
          keep(step, "a measurement is not finite", "factor");
          return;
        }
      }
      gram.run(on, (float) (weight / batch), rows, rows, (float) (1 - weight), mean);
    }

    double meanDiagonal() {
      double sum = 0;
      for (int i = 0; i < n; i++) {
        sum += mean.get((long) i * n + i);
      }
      return sum / n;
    }

    void invert(Stream on, float shift, long step) {
      inversion.run(on, mean, shift, inverse, residual);
      if (Float.isNaN(residual.get(0))) {
        keep(step, "the factor plus " + shift + " has no finite inverse", "inverse");
      }
    }

    private void keep(long step, String why, String what) {
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
    if (!backend.device().equals(Device.CPU)) {
      throw new UnsupportedException(
          "K-FAC runs on the CPU only so far, not on "
              + backend.name()
              + ": train with --device cpu, or with --optimizer sgd or adam");
    }
    this.network = network;
    this.config = config;
    this.batch = batch;
    this.seed = seed;
    try {
      this.samples = own(new FisherSamples(network, backend, batch));
      this.natural = own(Parameters.allocate(network, backend));
      long elements = 0;
      for (FisherSamples.Block rows : samples.blocks()) {
        elements += square(rows.inputWidth()) + square(rows.outputWidth());
      }
      Shape flat = Shape.of(Math.toIntExact(elements));
      Storage storage =
          new Storage(
              own(backend.allocate(flat, DataType.F32, Layout.ROW_MAJOR)),
              own(backend.allocate(flat, DataType.F32, Layout.ROW_MAJOR)));
      state.put("factors", storage.factors);
      state.put("inverses", storage.inverses);
      for (FisherSamples.Block rows : samples.blocks()) {
        blocks.add(new Block(backend, rows, storage));
      }
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  private static long square(int n) {
    return (long) n * n;
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  /** Bytes of a network's factors and their inverses. */
  long bytes() {
    long bytes = 0;
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

  /** What a step's first pass has to measure, or null. */
  BatchExecutor.@Nullable Fisher measurement(long step) {
    return measures(step) ? new BatchExecutor.Fisher(samples, !config.empirical(), seed) : null;
  }

  private boolean measures(long step) {
    return (step - 1) % config.measureEvery() == 0;
  }

  /**
   * Takes in what the step has measured, if anything, inverts the factors whose turn it is, and
   * computes the natural gradient.
   *
   * @param gradient of the step; finite
   * @param step its number, from 1
   * @return nu
   */
  float run(BatchExecutor executor, Parameters gradient, double learningRate, long step) {
    long measurement = (step - 1) / config.measureEvery() + 1;
    double weight = Math.max(1 - config.decay(), 1.0 / measurement);
    int turns = config.invertEvery() / config.measureEvery();
    executor.share(
        blocks.size(),
        (on, i) -> {
          Block block = blocks.get(i);
          if (measures(step)) {
            block.inputs.measure(on, weight, step);
            block.gradients.measure(on, weight, step);
            if (measurement == 1 || measurement % turns == i % turns) {
              block.invert(on, step);
            }
          }
          block.precondition(on, gradient);
        });
    double inner = 0;
    for (Block block : blocks) {
      inner += Math.abs(block.inner);
    }
    return (float)
        Math.min(1, Math.sqrt(config.normConstraint() / (learningRate * learningRate * inner)));
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
