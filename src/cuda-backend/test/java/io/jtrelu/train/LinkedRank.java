package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.cuda.EmulatedSubject;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.distributed.ContractRank;
import io.jtrelu.nn.Networks;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.stream.IntStream;

/** A rank with an emulated device that the stand-in for NCCL links with those of others. */
final class LinkedRank {
  private static final int STEPS_BEFORE = 3;

  private LinkedRank() {}

  /** Does what is asked for; the exit code is 5 where that throws. */
  public static void main(String[] arguments) throws InterruptedException {
    Communicator ranks = Communicator.open(Duration.ofSeconds(20));
    try {
      // Late, so that a wait that is missing shows; each other rank in an order of its own.
      try (Backend backend = EmulatedSubject.inOrder(1 + ranks.rank())) {
        switch (arguments[0]) {
          case "contract" -> contract(ranks, backend);
          case "train" -> train(ranks, backend, Path.of(arguments[1]), arguments[2]);
          default -> fail(ranks, backend, arguments[0]);
        }
      }
      ranks.close();
    } catch (Throwable failure) {
      failure.printStackTrace();
      System.out.println("rank " + ranks.rank() + " says: " + failure.getMessage());
      Thread.sleep(500); // a launcher may not pass on what it has not read before an abort
      ranks.abort(5);
    }
  }

  /** The communicator's contract; then steps, whose results are told. */
  private static void contract(Communicator ranks, Backend backend) {
    try (Communicator linked = ranks.on(backend)) {
      ContractRank.check(linked, backend);
      System.out.println("rank " + ranks.rank() + " fulfils the contract of " + linked.name());
    }
    for (Optimizer.Kind kind : Optimizer.Kind.values()) {
      System.out.println(
          told(ranks.rank(), kind, RecordedShardsTest.train(ranks, backend, kind, true, -1)));
    }
    Optimizer.Kind kind = Optimizer.Kind.ADAM;
    System.out.println(
        told(
            ranks.rank(),
            kind,
            RecordedShardsTest.train(ranks, backend, kind, true, -1, 100, false)));
    RecordedShardsTest.train(ranks, backend, kind, true, STEPS_BEFORE);
  }

  /** Bits of parameters and figures in a line. */
  static String told(int rank, Optimizer.Kind kind, RecordedShardsTest.Result result) {
    return String.format(
        "rank %d %s %08x %08x",
        rank, kind, Arrays.hashCode(result.parameters), result.figures.hashCode());
  }

  /** Begins a run, or goes on with it, for so many steps. */
  static void train(Communicator ranks, Backend backend, Path folder, String steps)
      throws Exception {
    TrainingConfig config =
        TrainingConfig.builder()
            .epochs(2)
            .batch(8)
            .shards(4)
            .optimizer(Optimizer.Kind.ADAM)
            .clipNorm(0.5)
            .cropPadding(1)
            .flip(true)
            .seed(7)
            .build();
    var data = TrainerTest.data(31, 65); // three steps an epoch; two batches to evaluate
    Networks.Options network = new Networks.Options("plain:14:8", Networks.Block.V2, 0, 0.2f);
    try (Trainer trainer =
        Files.exists(folder.resolve(Trainer.CHECKPOINT))
            ? Trainer.resume(folder, data, backend, ranks)
            : Trainer.start(
                Run.of(network, ShapingConfig.DEFAULT, config, data, "bars"),
                data,
                backend,
                folder,
                null,
                ranks)) {
      while (trainer.steps() < Integer.parseInt(steps)) {
        trainer.advance();
      }
      trainer.save();
    }
  }

  /** The last rank does something else than the others: it dies, leaves, or has other sizes. */
  private static void fail(Communicator ranks, Backend backend, String how) {
    try (Communicator linked = ranks.on(backend);
        Stream stream = backend.newStream();
        Event done = backend.newEvent();
        Tensor values =
            backend.allocate(Shape.of(8 * ranks.size()), DataType.F32, Layout.ROW_MAJOR)) {
      boolean last = ranks.rank() == ranks.size() - 1;
      if (last && how.equals("dies")) {
        Runtime.getRuntime().halt(9);
      }
      if (last && how.equals("leaves")) {
        return; // to where it waits for the others, who end it
      }
      int each = last && how.equals("differs") ? 7 : 8;
      List<Tensor> parts =
          Collections.nCopies(ranks.size(), values.slice(0, Shape.of(each), Layout.ROW_MAJOR));
      linked.allToAll(stream, parts, separate(values, ranks.size(), each));
      done.record(stream);
      linked.await(done);
      System.out.println("rank " + ranks.rank() + " noticed nothing");
    }
  }

  private static List<Tensor> separate(Tensor values, int count, int each) {
    return IntStream.range(0, count)
        .mapToObj(i -> values.slice(8L * i, Shape.of(each), Layout.ROW_MAJOR))
        .toList();
  }
}
