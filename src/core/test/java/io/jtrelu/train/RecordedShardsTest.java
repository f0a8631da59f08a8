package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.distributed.SoloCommunicator;
import io.jtrelu.distributed.ThreadRanks;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Steps over shards as a GPU takes them, on a CPU backend and with ranks that are threads: against
 * the steps that a CPU takes, which a test of their own holds to a tree that is written down.
 */
class RecordedShardsTest {
  private static final int SHARDS = 4;
  private static final int SHARD = 2;
  private static final int BATCH = SHARDS * SHARD;
  private static final int EXTENT = 6;
  private static final int ACCUMULATE = 2;
  private static final int STEPS = 4;
  private static final Program.Options OPTIONS = new Program.Options(DataType.F32, 0.1f, true, 5);

  /** With dropout, and more parameters than a slice has. */
  private static Network network() {
    Network.Builder b = Network.builder("shards", EXTENT, EXTENT, 2);
    int x = b.input();
    for (int i = 0; i < 3; i++) {
      x = b.activation("a" + i, b.convolution("c" + i, x, 8, 3, 1));
    }
    b.linear("logits", b.dropout("d", b.globalMeanPool("pool", x), 0.3f), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.2));
  }

  /** Nothing is clipped: the norm's last bits go by slices, which differ between the two. */
  private static TrainingConfig config(Optimizer.Kind kind) {
    return TrainingConfig.builder()
        .batch(BATCH)
        .shards(SHARDS)
        .microBatch(SHARD)
        .accumulate(ACCUMULATE)
        .optimizer(kind)
        .weightDecay(1e-3)
        .clipNorm(Double.POSITIVE_INFINITY)
        .kfac(new KfacConfig(0.3, 1e-3, 0.95, 1, 2, false))
        .build();
  }

  private static Tensor images(int pass) {
    SplittableRandom random = new SplittableRandom(pass);
    Shape shape = Shape.of(BATCH, EXTENT, EXTENT, 2);
    Tensor all = Tensor.allocate(shape, DataType.F32, Layout.NHWC);
    for (long i = 0; i < shape.elements(); i++) {
      all.put(i, (float) random.nextGaussian());
    }
    return all;
  }

  private static Tensor labels() {
    Tensor labels = Tensor.allocate(Shape.of(BATCH), DataType.I32, Layout.ROW_MAJOR);
    for (int i = 0; i < BATCH; i++) {
      labels.put(i, i % 3);
    }
    return labels;
  }

  private static Tensor part(Tensor of, Communicator ranks) {
    int[] dims = of.shape().dims();
    dims[0] /= ranks.size();
    Shape shape = Shape.of(dims);
    return of.slice(shape.elements() * ranks.rank(), shape, of.layout());
  }

  /** Parameters and figures of a rank. */
  static final class Result {
    final float[] parameters;
    final List<Steps.Figures> figures;

    Result(float[] parameters, List<Steps.Figures> figures) {
      this.parameters = parameters;
      this.figures = figures;
    }
  }

  private static Result train(Communicator ranks, Optimizer.Kind kind, boolean recorded, int bad) {
    try (Backend backend = Backends.open("cpu:1")) {
      return train(ranks, backend, kind, recorded, bad);
    }
  }

  /** In buckets of one block, while the backward pass goes on. */
  static Result train(
      Communicator ranks, Backend backend, Optimizer.Kind kind, boolean recorded, int bad) {
    return train(ranks, backend, kind, recorded, bad, 1, true);
  }

  static Partition partition(Network network, int ranks, int bucket) {
    long weights = Parameters.weightElements(network);
    long elements = Parameters.learntElements(network);
    return Partition.ofShards(weights, elements, ranks, SHARDS, bucket);
  }

  /**
   * Takes some steps.
   *
   * @param bad number of a pass whose last image is not finite, after which it ends
   * @param bucket blocks of one
   */
  static Result train(
      Communicator ranks,
      Backend backend,
      Optimizer.Kind kind,
      boolean recorded,
      int bad,
      int bucket,
      boolean overlaps) {
    TrainingConfig config = config(kind);
    Network network = network();
    Partition partition = partition(network, ranks.size(), bucket);
    assertEquals(bucket == 1 ? 7 : 2, partition.buckets());
    int here = BATCH / ranks.size();
    try (Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        RankExchange exchange =
            new RankExchange(backend, ranks, partition, GradientExchange.TREE, overlaps);
        Optimizer optimizer = new Optimizer(network, backend, config, exchange.owned());
        Steps steps =
            recorded
                ? new RecordedSteps(
                    network,
                    backend,
                    here,
                    ACCUMULATE,
                    OPTIONS,
                    parameters,
                    gradients,
                    optimizer,
                    null,
                    ShardSteps.shards(config, ranks),
                    exchange)
                : new ShardSteps(
                    network,
                    backend,
                    config,
                    ranks,
                    exchange,
                    OPTIONS,
                    parameters,
                    gradients,
                    optimizer)) {
      Initializer.delta(9).fill(backend, parameters);
      steps.load();
      List<Steps.Figures> figures = new ArrayList<>();
      for (int pass = 0; pass < STEPS * ACCUMULATE; pass++) {
        int within = pass % ACCUMULATE;
        Steps.Pass what =
            new Steps.Pass(
                within == 0,
                within == ACCUMULATE - 1,
                (1L << 33) + pass,
                0.01,
                pass / ACCUMULATE + 1);
        try (Tensor images = images(pass);
            Tensor labels = labels()) {
          if (pass == bad) {
            images.put(images.shape().elements() - 1, Float.POSITIVE_INFINITY);
          }
          steps.submit(part(images, ranks), part(labels, ranks), what);
        }
        figures.add(steps.take());
        if (pass == bad) {
          assertFalse(Double.isFinite(figures.getLast().loss()));
          String on = ranks.size() == 1 ? "" : " on rank " + (ranks.size() - 1);
          assertEquals("c0" + on, steps.firstNonFiniteLayer());
          steps.forgive();
          break;
        }
      }
      return new Result(onHost(backend, parameters), figures);
    }
  }

  private static float[] onHost(Backend backend, Parameters parameters) {
    Tensor arena = parameters.arena();
    try (Stream stream = backend.newStream();
        Tensor host = Tensor.allocate(arena.shape(), arena.type(), arena.layout())) {
      backend.copy(stream, arena, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  @ParameterizedTest
  @EnumSource
  void ranksGiveTheBitsOfOneAndOfTheCpusSteps(Optimizer.Kind kind) {
    Result expected = train(new SoloCommunicator(), kind, false, -1);
    Result alone = train(new SoloCommunicator(), kind, true, -1);
    assertArrayEquals(expected.parameters, alone.parameters);
    for (int i = 0; i < expected.figures.size(); i++) {
      assertEquals(expected.figures.get(i).loss(), alone.figures.get(i).loss(), 1e-6 * BATCH);
      assertEquals(expected.figures.get(i).correct(), alone.figures.get(i).correct());
      float norm = expected.figures.get(i).norm();
      if (i % ACCUMULATE == ACCUMULATE - 1) {
        assertEquals(norm, alone.figures.get(i).norm(), 1e-5 * norm);
      }
    }
    for (int count : new int[] {2, 4}) {
      for (Result rank : ThreadRanks.run(count, ranks -> train(ranks, kind, true, -1))) {
        assertArrayEquals(alone.parameters, rank.parameters);
        assertEquals(alone.figures, rank.figures);
      }
    }
  }

  /** Norms included. */
  @Test
  void bucketsAndOverlapDoNotMatter() {
    for (int count : new int[] {1, 2, 4}) {
      List<List<Result>> all = new ArrayList<>();
      for (int bucket : new int[] {1, 100}) {
        for (boolean overlaps : new boolean[] {true, false}) {
          all.add(
              ThreadRanks.run(
                  count,
                  ranks -> {
                    try (Backend backend = Backends.open("cpu:1")) {
                      return train(ranks, backend, Optimizer.Kind.SGD, true, -1, bucket, overlaps);
                    }
                  }));
        }
      }
      for (List<Result> ranks : all) {
        for (Result rank : ranks) {
          assertArrayEquals(all.getFirst().getFirst().parameters, rank.parameters);
          assertEquals(all.getFirst().getFirst().figures, rank.figures);
        }
      }
    }
  }

  /** By hand: 144, 576, 576 and 24 weights in buckets of 256, and then biases. */
  @Test
  void bucketsAreCompleteWithTheirFirstLayer() {
    Network network = network();
    List<Integer> layers = RankExchange.completing(network, partition(network, 2, 1));
    List<String> names = layers.stream().map(i -> network.layers().get(i).name()).toList();
    assertEquals(List.of("c0", "c1", "c1", "c2", "c2", "c2", "c0"), names);
  }

  /** An infinite pixel that the last rank sees, in the pass that ends the second step. */
  @Test
  void aValueThatIsNotFiniteOnOneRankChangesNothingOnAny() {
    Optimizer.Kind kind = Optimizer.Kind.ADAM;
    int bad = 2 * ACCUMULATE - 1;
    Result alone = train(new SoloCommunicator(), kind, true, bad);
    Result good = train(new SoloCommunicator(), kind, true, -1);
    assertFalse(Arrays.equals(good.parameters, alone.parameters));
    for (Result rank : ThreadRanks.run(2, ranks -> train(ranks, kind, true, bad))) {
      assertArrayEquals(alone.parameters, rank.parameters);
    }
  }
}
