package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Write;
import io.jtrelu.distributed.ThreadRanks;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.BatchExecutor.Shards;
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
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Against a tree over shards' gradients that is written down here. */
class RankExchangeTest {
  private static final int SHARDS = 8;
  private static final int SHARD = 2;
  private static final int BATCH = SHARDS * SHARD;
  private static final int EXTENT = 6;
  private static final long SEQUENCE = 5;
  private static final Program.Options OPTIONS = new Program.Options(DataType.F32, 0.1f, true, 5);

  /** Three slices, with dropout. */
  private static Network network() {
    Network.Builder b = Network.builder("shards", EXTENT, EXTENT, 2);
    int x = b.input();
    for (int i = 0; i < 5; i++) {
      x = b.activation("a" + i, b.convolution("c" + i, x, 32, 3, 1));
    }
    b.linear("logits", b.dropout("d", b.globalMeanPool("pool", x), 0.3f), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.2));
  }

  private static Tensor images() {
    SplittableRandom random = new SplittableRandom(1);
    Tensor images = Tensor.allocate(Shape.of(BATCH, EXTENT, EXTENT, 2), DataType.F32, Layout.NHWC);
    for (long i = 0; i < images.shape().elements(); i++) {
      images.put(i, (float) random.nextGaussian());
    }
    return images;
  }

  private static Tensor labels() {
    Tensor labels = Tensor.allocate(Shape.of(BATCH), DataType.I32, Layout.ROW_MAJOR);
    for (int i = 0; i < BATCH; i++) {
      labels.put(i, i % 3);
    }
    return labels;
  }

  private static Tensor rows(Tensor of, int first, int count) {
    int[] dims = of.shape().dims();
    long row = of.shape().elements() / dims[0];
    dims[0] = count;
    return of.slice(row * first, Shape.of(dims), of.layout());
  }

  /** Each shard by itself, as a batch of its own. */
  private static List<float[]> terms() {
    List<float[]> terms = new ArrayList<>();
    Network network = network();
    try (Backend backend = Backends.open("cpu:1");
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = images();
        Tensor labels = labels();
        BatchExecutor executor = new BatchExecutor(network, backend, SHARD, SHARD, OPTIONS)) {
      Initializer.delta(9).fill(backend, parameters);
      executor.load(parameters);
      for (int shard = 0; shard < SHARDS; shard++) {
        executor.forwardBackward(
            rows(images, shard * SHARD, SHARD),
            rows(labels, shard * SHARD, SHARD),
            gradients,
            Write.OVERWRITE,
            1f / BATCH,
            SEQUENCE * SHARDS + shard);
        terms.add(gradients.arena().toFloatArray());
      }
    }
    return terms;
  }

  /** Additions one by one. */
  private static float[] expected() {
    return tree(terms());
  }

  private static float[] tree(List<float[]> terms) {
    if (terms.size() == 1) {
      return terms.getFirst();
    }
    float[] first = tree(terms.subList(0, terms.size() / 2));
    float[] second = tree(terms.subList(terms.size() / 2, terms.size()));
    float[] sum = new float[first.length];
    for (int i = 0; i < sum.length; i++) {
      sum[i] = first[i] + second[i];
    }
    return sum;
  }

  /** What each of several ranks comes to from its shards. */
  private static List<float[]> ofRanks(int count) {
    List<float[]> terms = terms();
    int here = SHARDS / count;
    return IntStream.range(0, count)
        .mapToObj(rank -> tree(terms.subList(here * rank, here * rank + here)))
        .toList();
  }

  /** Gradients on each rank when all have received what each owns, and who owns what. */
  private static List<float[]> exchanged(int count, GradientExchange how, Partition partition) {
    List<float[]> own = ofRanks(count);
    return ThreadRanks.run(
        count,
        ranks -> {
          Network network = network();
          try (Backend backend = Backends.open("cpu:2");
              Parameters gradients = Parameters.allocate(network, backend);
              RankExchange exchange = new RankExchange(backend, ranks, partition, how, true);
              BatchExecutor executor = new BatchExecutor(network, backend, SHARD, SHARD, OPTIONS)) {
            gradients.arena().set(own.get(ranks.rank()));
            exchange.add(executor, gradients);
            exchange.gather(gradients);
            return gradients.arena().toFloatArray();
          }
        });
  }

  /** A rank's own term is not; nearest, ties to even, by the bits. */
  @ParameterizedTest
  @CsvSource({"2, 1", "2, 140000", "4, 99999999"})
  void whatOtherRanksSendIsRounded(int count, long bucketBytes) {
    Partition partition =
        Partition.ofSlices(Parameters.learntElements(network()), count, bucketBytes);
    List<float[]> own = ofRanks(count);
    List<float[]> rounded =
        own.stream()
            .map(
                term -> {
                  float[] result = new float[term.length];
                  for (int i = 0; i < result.length; i++) {
                    int bits = Float.floatToIntBits(term[i]);
                    int half = 0x7fff + (bits >>> 16 & 1);
                    result[i] = Float.intBitsToFloat(bits + half & 0xffff0000);
                  }
                  return result;
                })
            .toList();
    float[] exact = tree(own);
    boolean differs = false;
    List<float[]> all = exchanged(count, GradientExchange.BF16, partition);
    for (int rank = 0; rank < count; rank++) {
      List<float[]> terms = new ArrayList<>(rounded);
      terms.set(rank, own.get(rank));
      float[] expected = tree(terms);
      for (Partition.Range range : partition.owned(rank)) {
        for (int i = (int) range.from(); i < range.to(); i++) {
          for (float[] gradients : all) {
            assertEquals(expected[i], gradients[i]);
          }
          differs |= expected[i] != exact[i];
        }
      }
    }
    assertTrue(differs);
  }

  /** Here in the order of ranks, which is not the tree's for four. */
  @ParameterizedTest
  @CsvSource({"2, 140000", "4, 1", "4, 140000"})
  void theLibraryAddsUpInItsOwnWay(int count, long bucketBytes) {
    Partition partition =
        Partition.ofSlices(Parameters.learntElements(network()), count, bucketBytes);
    List<float[]> own = ofRanks(count);
    float[] expected = own.getFirst().clone();
    for (float[] term : own.subList(1, count)) {
      for (int i = 0; i < expected.length; i++) {
        expected[i] += term[i];
      }
    }
    assertEquals(count == 2, Arrays.equals(expected, tree(own)));
    for (float[] gradients : exchanged(count, GradientExchange.LIBRARY, partition)) {
      assertArrayEquals(expected, gradients);
    }
  }

  /** Buckets of one slice, of two, and one of all. */
  @ParameterizedTest
  @CsvSource({
    "1, 1",
    "2, 1",
    "4, 1",
    "8, 1",
    "2, 140000",
    "4, 140000",
    "2, 99999999",
    "4, 99999999"
  })
  void gradientsAreTheTreeOverShards(int count, long bucketBytes) {
    float[] expected = expected();
    double squares = 0;
    for (float value : expected) {
      squares += (double) value * value;
    }
    double norm = Math.sqrt(squares);
    List<float[]> norms =
        ThreadRanks.run(
            count,
            ranks -> {
              Network network = network();
              int here = SHARDS / count;
              Shards shards = new Shards(SHARDS, here * ranks.rank(), here);
              Partition partition =
                  Partition.ofSlices(Parameters.learntElements(network), count, bucketBytes);
              try (Backend backend = Backends.open("cpu:2");
                  Parameters parameters = Parameters.allocate(network, backend);
                  Parameters gradients = Parameters.allocate(network, backend);
                  Tensor images = images();
                  Tensor labels = labels();
                  Tensor result = Tensor.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
                  RankExchange exchange =
                      new RankExchange(backend, ranks, partition, GradientExchange.TREE, true);
                  BatchExecutor executor =
                      BatchExecutor.ofShards(network, backend, BATCH, SHARD, OPTIONS, shards)) {
                Initializer.delta(9).fill(backend, parameters);
                executor.load(parameters);
                int first = shards.first() * SHARD;
                executor.shards(
                    rows(images, first, here * SHARD),
                    rows(labels, first, here * SHARD),
                    gradients,
                    Write.OVERWRITE,
                    1f / BATCH,
                    SEQUENCE,
                    null);
                executor.addShards(gradients);
                exchange.add(executor, gradients);
                for (Partition.Range range : exchange.owned()) {
                  for (long i = range.from(); i < range.to(); i++) {
                    assertEquals(expected[(int) i], gradients.arena().get(i));
                  }
                }
                exchange.norm(0.5f, result);
                exchange.gather(gradients);
                for (int i = 0; i < expected.length; i++) {
                  assertEquals(expected[i], gradients.arena().get(i));
                }
                return result.toFloatArray();
              }
            });
    for (float[] result : norms) {
      assertEquals(norm, result[0], 1e-6 * norm);
      assertEquals(Math.min(1, 0.5 / norm), result[1], 1e-6);
    }
  }

  /** An infinite pixel that only the second of two ranks sees. */
  @Test
  void aValueThatIsNotFiniteOnOneRankChangesNothingOnAny() {
    TrainingConfig config =
        TrainingConfig.builder().batch(BATCH).shards(SHARDS).microBatch(SHARD).build();
    List<String> layers =
        ThreadRanks.run(
            2,
            ranks -> {
              Network network = network();
              Partition partition =
                  Partition.ofSlices(Parameters.learntElements(network), 2, Partition.BUCKET_BYTES);
              try (Backend backend = Backends.open("cpu:1");
                  Parameters parameters = Parameters.allocate(network, backend);
                  Parameters gradients = Parameters.allocate(network, backend);
                  Tensor images = images();
                  Tensor labels = labels();
                  RankExchange exchange =
                      new RankExchange(backend, ranks, partition, GradientExchange.TREE, true);
                  Optimizer optimizer = new Optimizer(network, backend, config, exchange.owned());
                  ShardSteps steps =
                      new ShardSteps(
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
                final float[] before = parameters.arena().toFloatArray();
                float good = images.get(images.shape().elements() - 1);
                images.put(images.shape().elements() - 1, Float.POSITIVE_INFINITY);
                int half = BATCH / 2;
                Tensor src = rows(images, half * ranks.rank(), half);
                Tensor of = rows(labels, half * ranks.rank(), half);
                steps.submit(src, of, new Steps.Pass(true, true, 1, 0.1, 1));
                Steps.Figures figures = steps.take();
                assertTrue(Double.isNaN(figures.loss()));
                assertTrue(Float.isNaN(figures.norm()));
                assertArrayEquals(before, parameters.arena().toFloatArray());
                final String layer = String.valueOf(steps.firstNonFiniteLayer());
                steps.forgive();
                images.put(images.shape().elements() - 1, good);
                steps.submit(src, of, new Steps.Pass(true, true, 1, 0.1, 1));
                assertTrue(Double.isFinite(steps.take().loss()));
                assertFalse(Arrays.equals(before, parameters.arena().toFloatArray()));
                return layer;
              }
            });
    assertEquals(List.of("c0 on rank 1", "c0 on rank 1"), layers);
  }

  /** Every element has one owner, whose ranges are whole slices. */
  @Test
  void partsCoverTheArenaOnce() {
    for (long elements : new long[] {0, 1, 5 * Partition.SLICE, 7 * Partition.SLICE + 3}) {
      for (int ranks : new int[] {1, 2, 4, 8}) {
        for (long bucket : new long[] {1, 3L * 4 * Partition.SLICE, 1 << 30}) {
          Partition partition = Partition.ofSlices(elements, ranks, bucket);
          long at = 0;
          for (int index = 0; index < partition.buckets(); index++) {
            for (int rank = 0; rank < ranks; rank++) {
              Partition.Range range = partition.range(index, rank);
              assertEquals(at, range.from());
              assertEquals(0, range.from() % Partition.SLICE * (range.elements() > 0 ? 1 : 0));
              at = range.to();
            }
          }
          assertEquals(elements, at);
        }
      }
    }
    assertNotEquals(List.of(), Partition.ofSlices(1, 2, 1).owned(1));
  }
}
