package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.PolarFactor;
import io.jtrelu.backend.Sgd;
import io.jtrelu.backend.Stream;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * The directions in which Muon moves weights: their momentum, made orthogonal.
 *
 * <pre>
 * v = momentum v + D        D, the gradient, and v as matrices: a row for each output channel
 * U = 0.2 sqrt(max(rows, columns)) polar(D + momentum v)
 * </pre>
 *
 * after Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with the scale of Liu et al. 2025
 * (arXiv 2502.16982, section 2.2), under which the elements of U have a root mean square of about
 * 0.2 whatever the matrix's shape, as Adam's steps have. A convolution in groups has a matrix for
 * each.
 *
 * <p>Each matrix is a piece of work of its own: results do not depend on how many lanes share them.
 * On a GPU, matrices of one size that lie side by side are computed together.
 */
final class Muon implements AutoCloseable {
  private static final double ROOT_MEAN_SQUARE = 0.2;

  private final Parameters directions;
  private final Tensor minusOne;
  private final List<Block> blocks = new ArrayList<>();
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();

  /** Matrices of one size, one behind the other in the arena. */
  private record Matrices(int rows, int columns, int count, long offset) {
    long elements() {
      return (long) rows * columns * count;
    }

    boolean isFollowedBy(Matrices next) {
      return rows == next.rows && columns == next.columns && offset + elements() == next.offset;
    }

    float scale() {
      return (float) (ROOT_MEAN_SQUARE * Math.sqrt(Math.max(rows, columns)));
    }

    long scratchElements() {
      return PolarFactor.scratchElements(rows, columns, count);
    }

    Tensor of(Parameters parameters) {
      Shape shape = Shape.of(Math.toIntExact(elements()));
      return parameters.arena().slice(offset, shape, Layout.ROW_MAJOR);
    }
  }

  private static List<Matrices> matrices(Network network, boolean together) {
    List<Matrices> all = new ArrayList<>();
    for (ParameterSpec spec : network.parameters()) {
      if (spec.kind() != ParameterSpec.Kind.WEIGHTS) {
        continue;
      }
      int groups =
          network.layers().get(spec.layer()) instanceof ConvolutionLayer convolution
              ? convolution.descriptor().groups()
              : 1;
      int rows = spec.shape().dim(0);
      int columns = Math.toIntExact(spec.shape().elements() / rows);
      Matrices next = new Matrices(rows / groups, columns, groups, spec.offset());
      if (together && !all.isEmpty() && all.getLast().isFollowedBy(next)) {
        Matrices before = all.removeLast();
        next = new Matrices(before.rows, columns, before.count + groups, before.offset);
      }
      all.add(next);
    }
    return all;
  }

  private final class Block {
    final Matrices matrices;
    final Tensor direction;
    final Tensor velocity;
    final Tensor scratch;
    final Sgd follow;
    final PolarFactor polar;
    final Backend backend;

    Block(Backend backend, Matrices matrices, Parameters velocity, float momentum, Tensor scratch) {
      this.backend = backend;
      this.matrices = matrices;
      this.direction = matrices.of(directions);
      this.velocity = matrices.of(velocity);
      follow = own(backend.sgd(matrices.elements(), momentum, momentum > 0, 0));
      polar =
          own(
              backend.polarFactor(
                  matrices.rows, matrices.columns, matrices.count, matrices.scale()));
      this.scratch = scratch;
    }

    /** Nothing follows a gradient behind a gate of NaN, and the direction is zero. */
    void run(Stream on, Parameters gradients, Tensor gate) {
      backend.fill(on, direction, 0); // from where a step at the rate -1 leads to D + momentum v
      follow.step(on, direction, matrices.of(gradients), velocity, minusOne, gate);
      polar.run(on, direction, scratch);
    }
  }

  /**
   * Allocates what it needs beside the momentum.
   *
   * @param velocity of all parameters, of which it moves the weights'; the caller's
   * @throws io.jtrelu.backend.UnsupportedException if the backend has no polar factors
   */
  Muon(Network network, Backend backend, float momentum, Parameters velocity) {
    boolean onHost = backend.device().equals(Device.CPU);
    try {
      directions = own(Parameters.allocate(network, backend));
      minusOne = own(floats(backend, 1));
      try (Stream stream = backend.newStream()) {
        backend.fill(stream, minusOne, -1);
        stream.synchronize();
      }
      List<Matrices> all = matrices(network, !onHost);
      // On a CPU blocks are computed side by side, each with scratch of its own.
      Tensor shared = onHost ? null : own(floats(backend, mostScratch(all)));
      for (Matrices matrices : all) {
        Tensor scratch = shared == null ? own(floats(backend, matrices.scratchElements())) : shared;
        blocks.add(new Block(backend, matrices, velocity, momentum, scratch));
      }
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  private static long mostScratch(List<Matrices> all) {
    return all.stream().mapToLong(Matrices::scratchElements).max().orElse(1);
  }

  private static Tensor floats(Backend backend, long count) {
    return backend.allocate(Shape.of(Math.toIntExact(count)), DataType.F32, Layout.ROW_MAJOR);
  }

  /** Bytes that it takes on a GPU beside the momentum; nothing is allocated. */
  static long memory(Network network, Backend backend) {
    long scratch = mostScratch(matrices(network, true));
    return backend.allocationBytes(Parameters.arenaElements(network) * Float.BYTES)
        + backend.allocationBytes(Float.BYTES)
        + backend.allocationBytes(scratch * Float.BYTES);
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  /** Where the weights' directions are; nothing is told of other parameters. */
  Parameters directions() {
    return directions;
  }

  /**
   * Computes the directions, shared among an executor's lanes.
   *
   * @param gate F32 [1]: what gradients are multiplied by; where it is NaN, momentum stays
   */
  void run(BatchExecutor executor, Parameters gradients, Tensor gate) {
    executor.share(blocks.size(), (lane, i) -> blocks.get(i).run(lane, gradients, gate));
  }

  /** As above, all of it on one stream, to run or to be recorded. */
  void run(Stream on, Parameters gradients, Tensor gate) {
    for (Block block : blocks) {
      block.run(on, gradients, gate);
    }
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      try {
        owned.pop().close();
      } catch (Exception failure) {
        throw new IllegalStateException("closing Muon's directions failed", failure);
      }
    }
  }
}
