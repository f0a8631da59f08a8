package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Network;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Model;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Run;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.TreeSet;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/**
 * A plain chain of bottlenecks trained on the emulated device of compute capability 9.0 by recorded
 * steps: the same bits twice, and no further from what F32 gives than by the kernels of all
 * devices.
 */
class HopperTrainingTest {
  private static final int STEPS = 4;

  @AfterEach
  void reset() {
    System.clearProperty(HopperConvolution.PROPERTY);
    System.clearProperty(DependentLaunch.PROPERTY);
  }

  /** Losses, parameters, and the kernels that convolved. */
  @SuppressWarnings("ArrayRecordComponent") // compared element by element
  private record Outcome(List<Double> losses, float[] parameters, Set<String> kernels) {
    double from(Outcome other) {
      double sum = 0;
      for (int i = 0; i < parameters.length; i++) {
        sum += Math.pow(parameters[i] - other.parameters[i], 2);
      }
      return Math.sqrt(sum);
    }
  }

  private static Network network() {
    Network.Builder b = Network.builder("bottlenecks", 12, 12, 2);
    int x = b.activation("stem", b.convolution("c0", b.input(), 64, 3, 1));
    for (int block = 0; block < 3; block++) {
      int stride = block == 1 ? 2 : 1;
      String name = "b" + block;
      x = b.activation(name + "a", b.convolution(name + ".reduce", x, 64, 1, 1));
      x = b.activation(name + "b", b.convolution(name + ".window", x, 64, 3, stride));
      x = b.activation(name + "c", b.convolution(name + ".expand", x, 160, 1, 1));
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().with(TransformedActivation.rectifier(0.3, 1.3));
  }

  private static ImageDataset images(int count, Split split) {
    SplittableRandom random = new SplittableRandom(count);
    byte[][] images = new byte[count][12 * 12];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 3;
      for (int p = 0; p < 144; p++) {
        images[i][p] = (byte) ((p / 48 == labels[i] ? 120 : 0) + random.nextInt(100));
      }
    }
    return ImageDataset.of(
        "bars", split, 12, 12, 1, List.of("top", "middle", "bottom"), images, labels);
  }

  private static Outcome train(Backend backend, DataType type) throws IOException {
    Datasets data =
        new Datasets(images(4 * STEPS + 1, Split.TRAIN), images(4, Split.TEST), List.of());
    TrainingConfig training =
        TrainingConfig.builder()
            .epochs(1)
            .batch(4)
            .optimizer(Optimizer.Kind.SGD)
            .learningRate(0.03)
            .type(type)
            .seed(7)
            .build();
    Run run = Run.of(Model.of(network(), data.train()), training, data);
    List<Double> losses = new ArrayList<>();
    EmulatorControl.clearCounters();
    try (backend;
        Trainer trainer = Trainer.start(run, data, backend, null);
        Stream stream = backend.newStream()) {
      while (losses.size() < STEPS) {
        losses.add(trainer.step().loss());
      }
      Set<String> kernels = new TreeSet<>();
      EmulatorControl.counters()
          .forEach(
              launch -> {
                String kernel = launch.get("kernel").asText();
                if (kernel.matches("conv2d_(fprop|dgrad|wgrad)_.*")) {
                  kernels.add(kernel);
                }
              });
      Tensor arena = trainer.parameters().arena();
      try (Tensor host = Tensor.allocate(arena.shape(), DataType.F32, Layout.ROW_MAJOR)) {
        backend.copy(stream, arena, host);
        stream.synchronize();
        return new Outcome(losses, host.toFloatArray(), kernels);
      }
    }
  }

  @Test
  void trainsAsByTheKernelsOfAllDevices() throws IOException {
    String[] titles = {"_window_256x64", "_128x128", "_window_64x64", "_pair_128x256"};
    Outcome first = train(HopperSubject.taking(titles), DataType.BF16);
    System.setProperty(DependentLaunch.PROPERTY, "false"); // each kernel behind the end of another
    Outcome second = train(HopperSubject.taking(titles), DataType.BF16);
    assertEquals(first.losses(), second.losses());
    assertArrayEquals(first.parameters(), second.parameters());
    for (String pass : List.of("fprop", "dgrad")) {
      for (String tile : List.of("window_256x64", "128x128")) {
        String kernel = "conv2d_" + pass + "_sm90_bf16_" + tile;
        assertTrue(first.kernels().contains(kernel), kernel + " of " + first.kernels());
      }
    }
    for (String tile : List.of("window_64x64", "pair_128x256")) {
      String kernel = "conv2d_wgrad_sm90_bf16_" + tile;
      assertTrue(first.kernels().contains(kernel), kernel + " of " + first.kernels());
    }
    System.setProperty(HopperConvolution.PROPERTY, "false");
    Outcome tiles = train(HopperSubject.taking(), DataType.BF16);
    assertTrue(
        tiles.kernels().stream().noneMatch(kernel -> kernel.contains("sm90")),
        tiles.kernels().toString());
    Outcome exact = train(Backends.open("reference"), DataType.F32);
    assertTrue(tiles.from(exact) > 0, "BF16 rounds");
    assertTrue(
        first.from(exact) <= 1.5 * tiles.from(exact),
        first.from(exact) + " from F32, by tiles " + tiles.from(exact));
    for (int step = 0; step < STEPS; step++) {
      double loss = exact.losses().get(step);
      assertEquals(loss, first.losses().get(step), loss * (1 + step) / 128, "step " + step);
    }
  }
}
