package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import org.junit.jupiter.api.Test;

/** Tensor maps are encoded once for an operation's pass and the addresses of its operands. */
class TensorMapsTest {
  private static final int MAPS = 3 + 3 + 2; // of fprop, dgrad and wgrad

  /** A training step's passes of one convolution. */
  private record Step(
      Conv2d conv,
      PackedWeights packed,
      Tensor bias,
      Tensor src,
      Tensor dst,
      Tensor diffSrc,
      Tensor diffWeights,
      Tensor diffBias) {
    void run(Stream stream) {
      conv.forward(stream, src, packed, bias, dst);
      conv.backwardData(stream, dst, packed, src, diffSrc, Write.OVERWRITE);
      conv.backwardWeights(stream, src, dst, diffWeights, diffBias, Write.OVERWRITE);
    }

    Step into(Tensor other) {
      return new Step(conv, packed, bias, src, other, diffSrc, diffWeights, diffBias);
    }
  }

  /** How many maps something encodes. */
  private static long encoded(Runnable work) {
    long before = TensorMaps.encoded();
    work.run();
    return TensorMaps.encoded() - before;
  }

  @Test
  void onceForAnOperationAndItsAddresses() {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 5, 5, 64, 64, 1, 1, 0);
    try (Backend backend = HopperSubject.taking("_128x64", "_128x256");
        Stream stream = backend.newStream();
        Conv2d conv = backend.conv2d(d, DataType.BF16, Rectifier.IDENTITY, Rectifier.IDENTITY);
        PackedWeights packed = conv.newPackedWeights();
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor src = backend.allocate(d.src(), DataType.BF16, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), DataType.BF16, Layout.NHWC);
        Tensor other = backend.allocate(d.dst(), DataType.BF16, Layout.NHWC);
        Tensor diffSrc = backend.allocate(d.src(), DataType.BF16, Layout.NHWC);
        Tensor diffWeights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor diffBias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR)) {
      backend.fill(stream, weights, 1);
      backend.fill(stream, bias, 1);
      backend.fill(stream, src, 1);
      conv.pack(stream, weights, packed);
      Step step = new Step(conv, packed, bias, src, dst, diffSrc, diffWeights, diffBias);
      assertEquals(MAPS, encoded(() -> step.run(stream)));
      assertEquals(0, encoded(() -> step.run(stream)), "the same operands");
      EmulatorControl.clearCounters();
      assertEquals(MAPS, encoded(() -> step.into(other).run(stream)), "others");
      assertEquals(0, encoded(() -> step.into(other).run(stream)));
      stream.synchronize();
      assertFalse(
          EmulatorControl.counters().stream()
              .filter(launch -> launch.get("kernel").asText().contains("_sm90_"))
              .toList()
              .isEmpty());
      Recording[] recording = new Recording[1];
      assertEquals(
          MAPS,
          encoded(() -> recording[0] = backend.record(stream, () -> step.run(stream))),
          "recorded");
      try (Recording recorded = recording[0]) {
        assertEquals(
            0,
            encoded(
                () -> {
                  for (int i = 0; i < 3; i++) {
                    recorded.replay(stream);
                  }
                  stream.synchronize();
                }),
            "replayed");
      }
    }
  }
}
