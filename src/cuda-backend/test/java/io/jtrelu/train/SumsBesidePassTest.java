package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.EmulatedSubject;
import io.jtrelu.distributed.SoloCommunicator;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Gradients of two shards that are added up beside the second one's backward pass, as they should
 * be and with an edge missing that should be between the two: the emulated device must name it,
 * whatever order it works in.
 */
class SumsBesidePassTest {
  private static final int SHARD = 2;

  private static Network network() {
    Network.Builder b = Network.builder("shards", 6, 6, 2);
    int x = b.input();
    for (int i = 0; i < 4; i++) {
      x = b.activation("a" + i, b.convolution("c" + i, x, 8, 3, 1));
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.2));
  }

  /**
   * @param early layers that are said to be complete before they are
   * @param joins whether the pass waits for the sums in the end
   * @return the sums
   */
  private static float[] sums(Backend backend, boolean overlaps, int early, boolean joins) {
    Network network = network();
    Program.Options options = new Program.Options(DataType.F32, 0, true, 5);
    Partition partition =
        Partition.ofShards(
            Parameters.weightElements(network), Parameters.learntElements(network), 1, 2, 1);
    try (RankExchange exchange =
            new RankExchange(
                backend, new SoloCommunicator(), partition, GradientExchange.TREE, overlaps);
        Program program = new Program(network, backend, SHARD, options);
        Program.Workspace workspace = program.newWorkspace(exchange.stream());
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters first = Parameters.allocate(network, backend);
        Parameters second = Parameters.allocate(network, backend);
        Tensor sequence = backend.allocate(Shape.of(2), DataType.I32, Layout.ROW_MAJOR);
        Tensor images = backend.allocate(network.input().batch(SHARD), DataType.F32, Layout.NHWC);
        Tensor labels = backend.allocate(Shape.of(SHARD), DataType.I32, Layout.ROW_MAJOR);
        Tensor host = Tensor.allocate(first.arena().shape(), DataType.F32, Layout.ROW_MAJOR)) {
      Stream stream = exchange.stream();
      Initializer.delta(9).fill(backend, parameters);
      backend.fill(stream, sequence, 0);
      backend.fill(stream, labels, 1);
      backend.fill(stream, images, 0.5f);
      program.load(stream, parameters);
      stream.synchronize();
      Recording recording =
          backend.record(
              stream,
              () -> {
                RankExchange.Sums sums = exchange.new Sums(List.of(first, second));
                for (Parameters shard : List.of(first, second)) {
                  workspace.forward(images, sequence);
                  workspace.loss(labels, 0.5f);
                  if (shard.equals(first)) {
                    workspace.backward(shard, Write.OVERWRITE);
                  } else {
                    workspace.backward(
                        shard, Write.OVERWRITE, layer -> sums.complete(Math.max(0, layer - early)));
                  }
                }
                if (joins) {
                  sums.finish();
                }
              });
      try (recording) {
        recording.replay(stream);
        recording.replay(stream);
        backend.copy(stream, first.arena(), host);
        stream.synchronize();
      }
      return host.toFloatArray();
    }
  }

  /** One after the other at once, late, and by seeds. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2, 3})
  void sumsAreThoseWithoutOverlap(long order) {
    try (Backend backend = EmulatedSubject.inOrder(order)) {
      float[] after = sums(backend, false, 0, true);
      assertArrayEquals(after, sums(backend, true, 0, true));
      float size = 0;
      for (float value : after) {
        size += Math.abs(value);
      }
      assertTrue(size > 1e-3, "nothing was added up");
    }
  }

  /** By one layer and its activation. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void whatGoesOutTooEarlyIsFound(long order) {
    Backend backend = EmulatedSubject.inOrder(order);
    sums(backend, true, 2, true);
    String told = String.valueOf(assertThrows(AssertionError.class, backend::close).getMessage());
    assertTrue(told.contains("stream_race"), told);
    assertTrue(told.contains("weighted_sum"), told);
  }

  @Test
  void sumsThatNobodyWaitsForAreRefused() {
    try (Backend backend = EmulatedSubject.inOrder(1)) {
      String told =
          String.valueOf(
              assertThrows(RuntimeException.class, () -> sums(backend, true, 0, false))
                  .getMessage());
      assertTrue(told.contains("UNJOINED"), told);
    }
  }
}
