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
 *   <li>{@code exchange MEGABYTES}: all-to-all, sum in a tree and all-gather against the library's
 *       all-reduce of the same bytes, in turn, as ratios
 * </ul>
 */
public final class Processes {
  private static final int WARM_UP = 8;
  private static final int STEPS = 25;

  private Processes() {}

  /** Runs; the first rank prints. */
  public static void main(String[] args) throws IOException {
    try (Communicator ranks = Communicator.open(Communicator.DEADLINE)) {
      if (args[0].equals("step")) {
        step(ranks, args[1], Integer.parseInt(args[2]));
      } else {
        exchange(ranks, Integer.parseInt(args[1]));
      }
    }
  }

  private static void step(Communicator ranks, String device, int shards) throws IOException {
    Datasets data = Datasets.open(Datasets.EMBEDDED);
    TrainingConfig config =
        TrainingConfig.builder().batch(64).shards(shards).optimizer(Optimizer.Kind.SGD).build();
    Networks.Options network = new Networks.Options("plain50", Networks.Block.V2, 0, 0);
    Run run = Run.of(network, ShapingConfig.DEFAULT, config, data, Datasets.EMBEDDED);
    double[] times = new double[STEPS];
    try (Backend backend = Backends.open(device);
        Trainer trainer = Trainer.start(run, data, backend, null, null, ranks)) {
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

  private static void exchange(Communicator ranks, int megabytes) {
    int size = ranks.size();
    int part = (megabytes << 20) / Float.BYTES / size;
    double[] ratios = new double[STEPS];
    try (Backend backend = Backends.open("cpu:1");
        Stream stream = backend.newStream();
        GradientSum sum = backend.gradientSum(part);
        Tensor values = backend.allocate(Shape.of(part * size), DataType.F32, Layout.ROW_MAJOR);
        Tensor others = backend.allocate(Shape.of(part * size), DataType.F32, Layout.ROW_MAJOR)) {
      List<Tensor> parts = parts(values, size, part);
      List<Tensor> received = parts(others, size, part);
      for (int i = -WARM_UP; i < STEPS; i++) {
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
        long ours = System.nanoTime() - begin;
        ranks.barrier(stream);
        begin = System.nanoTime();
        ranks.allReduce(stream, others);
        long library = System.nanoTime() - begin;
        if (i >= 0) {
          ratios[i] = (double) ours / library;
        }
      }
    }
    if (ranks.rank() == 0) {
      Arrays.sort(ratios);
      System.out.printf(
          Locale.ROOT,
          "%s, %d ranks, %d MiB: the exchange takes %.2f times as long as the library's all-reduce"
              + " (middle half %.2f to %.2f, %d rounds)%n",
          ranks.name(),
          size,
          megabytes,
          ratios[STEPS / 2],
          ratios[STEPS / 4],
          ratios[STEPS * 3 / 4],
          STEPS);
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
