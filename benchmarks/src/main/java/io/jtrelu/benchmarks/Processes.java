package io.jtrelu.benchmarks;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.GradientSum;
import io.jtrelu.backend.Stream;
import io.jtrelu.data.Datasets;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Networks;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * One of the processes that {@code benchmarks/run processes} starts, by MPI or alone.
 *
 * <ul>
 *   <li>{@code step DEVICE SHARDS}: the median time of a training step of plain50, batch 64
 *   <li>{@code exchange KIB...}: all-to-all, sum in a tree and all-gather against the library's
 *       all-reduce of the same bytes, in turn, as ratios
 *   <li>{@code share DEVICE SHARDS}: steps of plain50 and exchanges of its gradients, in turn: the
 *       exchange's share of a step, which is the most that doing both at once could save
 * </ul>
 */
public final class Processes {
  private static final int WARM_UP = 8;
  private static final int STEPS = 25;

  private Processes() {}

  /** Runs; the first rank prints. */
  public static void main(String[] args) throws IOException {
    try (Communicator ranks = Communicator.open(Communicator.DEADLINE)) {
      switch (args[0]) {
        case "step" -> step(ranks, args[1], Integer.parseInt(args[2]));
        case "share" -> share(ranks, args[1], Integer.parseInt(args[2]));
        default -> {
          for (String size : Arrays.asList(args).subList(1, args.length)) {
            exchange(ranks, Integer.parseInt(size));
          }
        }
      }
    }
  }

  private static Run run(Datasets data, int shards) {
    TrainingConfig config =
        TrainingConfig.builder().batch(64).shards(shards).optimizer(Optimizer.Kind.SGD).build();
    Networks.Options network = new Networks.Options("plain50", Networks.Block.V2, 0, 0);
    return Run.of(network, ShapingConfig.DEFAULT, config, data, Datasets.EMBEDDED);
  }

  private static void step(Communicator ranks, String device, int shards) throws IOException {
    Datasets data = Datasets.open(Datasets.EMBEDDED);
    double[] times = new double[STEPS];
    try (Backend backend = Backends.open(device);
        Trainer trainer = Trainer.start(run(data, shards), data, backend, null, null, ranks)) {
      for (int i = -WARM_UP; i < STEPS; i++) {
        long begin = System.nanoTime();
        trainer.step();
        if (i >= 0) {
          times[i] = (System.nanoTime() - begin) * 1e-9;
        }
      }
    }
    if (ranks.rank() == 0) {
      Arrays.sort(times);
      System.out.println(times[STEPS / 2]);
    }
  }

  private static void share(Communicator ranks, String device, int shards) throws IOException {
    Datasets data = Datasets.open(Datasets.EMBEDDED);
    double[] shares = new double[STEPS];
    long elements;
    try (Backend backend = Backends.open(device);
        Trainer trainer = Trainer.start(run(data, shards), data, backend, null, null, ranks)) {
      elements = trainer.network().parameterCount();
      try (Exchange exchange = new Exchange(ranks, (int) elements / ranks.size())) {
        for (int i = -WARM_UP; i < STEPS; i++) {
          long begin = System.nanoTime();
          trainer.step();
          long step = System.nanoTime() - begin;
          double of = (double) exchange.ours() / step;
          if (i >= 0) {
            shares[i] = of;
          }
        }
      }
    }
    if (ranks.rank() == 0) {
      Arrays.sort(shares);
      System.out.printf(
          Locale.ROOT,
          "%s, %d ranks: the exchange of %.1f MB takes %.1f %% of a step's time (middle half %.1f to"
              + " %.1f, %d steps)%n",
          ranks.name(),
          ranks.size(),
          elements * 4e-6,
          100 * shares[STEPS / 2],
          100 * shares[STEPS / 4],
          100 * shares[STEPS * 3 / 4],
          STEPS);
    }
  }

  /** Sums of gradients by both ways. */
  private static final class Exchange implements AutoCloseable {
    private final Communicator ranks;
    private final Backend backend = Backends.open("cpu:1");
    private final Stream stream = backend.newStream();
    private final GradientSum sum;
    private final Tensor values;
    private final Tensor others;
    private final List<Tensor> parts;
    private final List<Tensor> received;

    /**
     * @param part elements of a rank's part
     */
    Exchange(Communicator ranks, int part) {
      this.ranks = ranks;
      int size = ranks.size();
      sum = backend.gradientSum(part);
      values = backend.allocate(Shape.of(part * size), DataType.F32, Layout.ROW_MAJOR);
      others = backend.allocate(Shape.of(part * size), DataType.F32, Layout.ROW_MAJOR);
      parts = parts(values, size, part);
      received = parts(others, size, part);
    }

    /** Nanoseconds of an exchange as a step does it. */
    long ours() {
      ranks.barrier(stream);
      long begin = System.nanoTime();
      ranks.allToAll(stream, parts, received);
      List<Tensor> terms = new ArrayList<>(received);
      terms.set(ranks.rank(), parts.get(ranks.rank()));
      BatchExecutor.addTree(sum, stream, terms);
      if (ranks.rank() != 0) {
        backend.copy(stream, terms.getFirst(), parts.get(ranks.rank()));
      }
      ranks.allGather(stream, parts);
      return System.nanoTime() - begin;
    }

    /** Of the library's all-reduce. */
    long library() {
      ranks.barrier(stream);
      long begin = System.nanoTime();
      ranks.allReduce(stream, others);
      return System.nanoTime() - begin;
    }

    @Override
    public void close() {
      values.close();
      others.close();
      sum.close();
      stream.close();
      backend.close();
    }
  }

  private static void exchange(Communicator ranks, int kib) {
    int rounds = kib < 4096 ? 8 * STEPS : STEPS;
    double[] ratios = new double[rounds];
    try (Exchange exchange = new Exchange(ranks, (kib << 10) / Float.BYTES / ranks.size())) {
      for (int i = -rounds / 2; i < rounds; i++) {
        double ratio = (double) exchange.ours() / exchange.library();
        if (i >= 0) {
          ratios[i] = ratio;
        }
      }
    }
    if (ranks.rank() == 0) {
      Arrays.sort(ratios);
      System.out.printf(
          Locale.ROOT,
          "%s, %d ranks, %d KiB: the exchange takes %.2f times as long as the library's all-reduce"
              + " (middle half %.2f to %.2f, %d rounds)%n",
          ranks.name(),
          ranks.size(),
          kib,
          ratios[rounds / 2],
          ratios[rounds / 4],
          ratios[rounds * 3 / 4],
          rounds);
    }
  }

  private static List<Tensor> parts(Tensor of, int count, int elements) {
    List<Tensor> parts = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      parts.add(of.slice((long) i * elements, Shape.of(elements), Layout.ROW_MAJOR));
    }
    return parts;
  }
}
