package io.jtrelu.benchmarks;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;

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
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * One of the processes that {@code benchmarks/run processes} starts, by MPI or alone.
 *
 * <ul>
 *   <li>{@code step DEVICE SHARDS}: the median time of a training step of plain50, batch 64
 *   <li>{@code exchange KIB...}: all-to-all, sum in a tree and all-gather against MPI's own
 *       all-reduce of the same bytes, MPI_Allreduce and that of {@code --reduction library}, which
 *       has a deadline, in turn, as ratios
 *   <li>{@code share DEVICE SHARDS}: steps of plain50 and exchanges of its gradients, in turn: the
 *       exchange's share of a step, which is the most that doing both at once could save
 * </ul>
 */
public final class Processes {
  private static final int WARM_UP =
      120; // until each process has compiled what it runs, within an epoch
  private static final int STEPS = 25;

  /** Elements of a bucket, as runs have them on CPUs. */
  private static final int BUCKET = (25 << 20) / Float.BYTES;

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
      try (Exchange exchange = new Exchange(ranks, (int) elements)) {
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
    private final Blocking blocking;
    private final Backend backend = Backends.open("cpu:1");
    private final Stream stream = backend.newStream();
    private final GradientSum sum;
    private final Tensor values;
    private final Tensor others; // of MPI's own all-reduce
    private final Tensor arriving;
    private final List<List<Tensor>> buckets = new ArrayList<>();
    private final List<Tensor> received;

    /**
     * @param elements in all
     */
    Exchange(Communicator ranks, int elements) {
      this.ranks = ranks;
      blocking = Blocking.of(ranks);
      int part = Math.min(elements, BUCKET) / ranks.size();
      int bucket = part * ranks.size();
      sum = backend.gradientSum(part);
      values = backend.allocate(Shape.of(elements), DataType.F32, Layout.ROW_MAJOR);
      others = backend.allocate(Shape.of(elements), DataType.F32, Layout.ROW_MAJOR);
      for (int at = 0; at + bucket <= elements; at += bucket) {
        buckets.add(parts(values, at, ranks.size(), part));
      }
      arriving = backend.allocate(Shape.of(bucket), DataType.F32, Layout.ROW_MAJOR);
      received = parts(arriving, 0, ranks.size(), part);
    }

    /** Nanoseconds of an exchange as a step does it. */
    long ours() {
      ranks.barrier(stream);
      long begin = System.nanoTime();
      for (List<Tensor> parts : buckets) {
        ranks.allToAll(stream, parts, received);
        List<Tensor> terms = new ArrayList<>(received);
        terms.set(ranks.rank(), parts.get(ranks.rank()));
        BatchExecutor.addTree(sum, stream, terms, ranks.rank());
      }
      for (List<Tensor> parts : buckets) {
        ranks.allGather(stream, parts);
      }
      return System.nanoTime() - begin;
    }

    /** Of the library's all-reduce. */
    long library() {
      ranks.barrier(stream);
      long begin = System.nanoTime();
      ranks.allReduce(stream, others);
      return System.nanoTime() - begin;
    }

    /** Of MPI_Allreduce, which has no deadline. */
    long blocking() {
      ranks.barrier(stream);
      long begin = System.nanoTime();
      blocking.sum(others.segment(), Math.toIntExact(others.shape().elements()));
      return System.nanoTime() - begin;
    }

    @Override
    public void close() {
      values.close();
      others.close();
      arriving.close();
      sum.close();
      stream.close();
      backend.close();
    }
  }

  /** MPI_Allreduce of the MPI that this process has loaded, with its own handles. */
  private record Blocking(
      MethodHandle function, Object inPlace, Object type, Object op, Object all) {
    static Blocking of(Communicator ranks) {
      boolean openMpi = ranks.name().startsWith("Open MPI");
      SymbolLookup mpi =
          SymbolLookup.libraryLookup(openMpi ? "libmpi.so.40" : "libmpich.so.12", Arena.global());
      MemoryLayout handle = openMpi ? ADDRESS : JAVA_INT;
      MethodHandle function =
          Linker.nativeLinker()
              .downcallHandle(
                  mpi.findOrThrow("MPI_Allreduce"),
                  FunctionDescriptor.of(
                      JAVA_INT, ADDRESS, ADDRESS, JAVA_INT, handle, handle, handle));
      return openMpi
          ? new Blocking(
              function,
              MemorySegment.ofAddress(1),
              mpi.findOrThrow("ompi_mpi_float"),
              mpi.findOrThrow("ompi_mpi_op_sum"),
              mpi.findOrThrow("ompi_mpi_comm_world"))
          : new Blocking(function, MemorySegment.ofAddress(-1), 0x4c00040a, 0x58000003, 0x44000000);
    }

    void sum(MemorySegment values, int count) {
      try {
        Object result = function.invokeWithArguments(inPlace, values, count, type, op, all);
        if (!result.equals(0)) {
          throw new IllegalStateException("MPI_Allreduce gave " + result);
        }
      } catch (RuntimeException | Error failure) {
        throw failure;
      } catch (Throwable failure) {
        throw new IllegalStateException(failure);
      }
    }
  }

  private static void exchange(Communicator ranks, int kib) {
    int rounds = Math.clamp(128_000 / kib, 2 * STEPS, 80 * STEPS); // small ones until compiled
    double[] toBlocking = new double[rounds];
    double[] toLibrary = new double[rounds];
    try (Exchange exchange = new Exchange(ranks, (kib << 10) / Float.BYTES)) {
      for (int i = -rounds / 2; i < rounds; i++) {
        double ours = exchange.ours();
        double blocking = exchange.blocking();
        double library = exchange.library();
        if (i >= 0) {
          toBlocking[i] = ours / blocking;
          toLibrary[i] = ours / library;
        }
      }
    }
    if (ranks.rank() == 0) {
      System.out.printf(
          Locale.ROOT,
          "%s, %d ranks, %d KiB: the exchange takes %s times as long as MPI_Allreduce, %s times as"
              + " long as that of --reduction library (median, and middle half of %d rounds)%n",
          ranks.name(),
          ranks.size(),
          kib,
          told(toBlocking),
          told(toLibrary),
          rounds);
    }
  }

  private static String told(double[] ratios) {
    Arrays.sort(ratios);
    int count = ratios.length;
    return String.format(
        Locale.ROOT,
        "%.2f (%.2f to %.2f)",
        ratios[count / 2],
        ratios[count / 4],
        ratios[count * 3 / 4]);
  }

  private static List<Tensor> parts(Tensor of, int at, int count, int elements) {
    List<Tensor> parts = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      parts.add(of.slice(at + (long) i * elements, Shape.of(elements), Layout.ROW_MAJOR));
    }
    return parts;
  }
}
