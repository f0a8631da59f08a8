package io.jtrelu.inference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.DataException;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Network;
import io.jtrelu.shaping.Tat;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.CheckpointException;
import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Model;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PredictorTest {
  private static final double SMOOTHING = 0.1;

  @TempDir static Path folder;
  private static Datasets data;
  private static Path run;
  private static EpochMetric last;

  /** Colour images of 9x7 whose left or right half is bright. */
  private static ImageDataset halves(int count, Split split, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    byte[][] images = new byte[count][9 * 7 * 3];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 2;
      for (int p = 0; p < images[i].length; p++) {
        int bright = p / 3 % 7 / 4 == labels[i] ? 100 : 0;
        images[i][p] = (byte) (bright + random.nextInt(120));
      }
    }
    return ImageDataset.of("halves", split, 9, 7, 3, List.of("left", "right"), images, labels);
  }

  @BeforeAll
  static void train() throws IOException {
    data = new Datasets(halves(64, Split.TRAIN, 1), halves(151, Split.TEST, 2), List.of());
    Network.Builder b = Network.builder("small", 9, 7, 4);
    int x = b.input();
    for (int i = 0; i < 14; i++) {
      x = b.activation("a" + i, b.convolution("c" + i, x, 8, 3, 1));
    }
    b.linear("logits", b.globalMeanPool("pool", x), 2);
    Network network = b.build().shape(Tat.eta(0.9));
    run = folder.resolve("run");
    TrainingConfig config =
        TrainingConfig.builder().epochs(4).batch(8).labelSmoothing(SMOOTHING).build();
    try (Backend backend = Backends.open("cpu");
        Trainer trainer =
            Trainer.start(Model.of(network, data.train()), config, data, backend, run)) {
      trainer.train();
      last = Objects.requireNonNull(trainer.lastEpoch());
    }
  }

  private static BufferedImage picture(byte[] pixels) {
    BufferedImage picture = new BufferedImage(7, 9, BufferedImage.TYPE_INT_RGB);
    for (int p = 0; p < 63; p++) {
      int rgb = 0;
      for (int c = 0; c < 3; c++) {
        rgb = (rgb << 8) | (pixels[3 * p + c] & 0xff);
      }
      picture.setRGB(p % 7, p / 7, rgb);
    }
    return picture;
  }

  /** What the trainer measured with its own loss is what the predictor measures from logits. */
  @Test
  void measuresWhatTheTrainerMeasured() throws IOException {
    try (Predictor predictor = Predictor.open(run, "cpu")) {
      Classification result = predictor.evaluate(data.test());
      assertEquals(151, result.images());
      assertEquals(last.testAccuracy(), result.accuracy(), 1e-12);
      assertEquals(last.testLoss(), result.smoothedLoss(SMOOTHING), 1e-5);
      assertEquals(76, result.imagesOf(0));
      double mean = (76 * result.accuracyOf(0) + 75 * result.accuracyOf(1)) / 151;
      assertEquals(result.accuracy(), mean, 1e-12);
      assertEquals(
          Math.min(151 - result.correct(), Classification.MISTAKES), result.mistakes().size());
      for (Classification.Mistake mistake : result.mistakes()) {
        assertEquals(data.test().label(mistake.image()), mistake.label());
        assertTrue(mistake.predicted() != mistake.label() && mistake.probability() >= 0.5);
      }
    }
  }

  @Test
  void oneImageInManyForms() throws IOException {
    byte[] pixels = data.test().image(3);
    Path png = folder.resolve("three.png");
    ImageIO.write(picture(pixels), "png", png.toFile());
    try (Predictor predictor = Predictor.open(run)) {
      Prediction expected = predictor.predict(pixels);
      assertEquals(expected, predictor.predict(picture(pixels)));
      assertEquals(expected, predictor.predict(png));
      assertEquals(expected, predictor.predict(Files.readAllBytes(png), "three"));
      assertEquals("right", expected.name());
      assertEquals(
          1, expected.classes().stream().mapToDouble(Prediction.Ranked::probability).sum(), 1e-12);
      assertEquals(1, expected.top(1).size());
      assertEquals(2, expected.top(7).size());
      assertTrue(expected.best().probability() >= 0.5);
    }
  }

  /** The reference backend is another implementation of all that happens to an image. */
  @Test
  void agreesWithTheReferenceBackend() throws IOException {
    List<byte[]> images = new ArrayList<>();
    for (int i = 0; i < 70; i++) {
      images.add(data.test().image(i));
    }
    try (Predictor cpu = Predictor.open(run, "cpu");
        Predictor reference = Predictor.open(run, "reference")) {
      List<float[]> expected = reference.logits(images);
      List<float[]> actual = cpu.logits(images);
      for (int i = 0; i < images.size(); i++) {
        assertArrayEquals(expected.get(i), actual.get(i), 1e-4f);
      }
    }
  }

  @Test
  void whatSharesAPassChangesNothing() throws Exception {
    try (Predictor predictor = Predictor.open(run, "cpu");
        ExecutorService callers = Executors.newFixedThreadPool(8)) {
      List<byte[]> all = new ArrayList<>();
      for (int i = 0; i < 151; i++) {
        all.add(data.test().image(i));
      }
      List<float[]> together = predictor.logits(all);
      List<Future<float[]>> alone = new ArrayList<>();
      for (byte[] image : all) {
        alone.add(callers.submit(() -> predictor.logits(List.of(image)).getFirst()));
      }
      for (int i = 0; i < all.size(); i++) {
        assertArrayEquals(together.get(i), alone.get(i).get(), 1e-5f);
      }
    }
  }

  /** Callers compute for each other; one that is interrupted does so too, and stays interrupted. */
  @Test
  void interruptedCallersComputeAndWait() throws Exception {
    try (Predictor predictor = Predictor.open(run, "cpu");
        ExecutorService callers = Executors.newFixedThreadPool(4)) {
      List<byte[]> images = List.of(data.test().image(5), data.test().image(6));
      List<float[]> expected = predictor.logits(images);
      List<Future<Boolean>> calls = new ArrayList<>();
      for (int i = 0; i < 40; i++) {
        boolean interrupted = i % 2 == 0;
        calls.add(
            callers.submit(
                () -> {
                  if (interrupted) {
                    Thread.currentThread().interrupt();
                  }
                  List<float[]> logits = predictor.logits(images);
                  assertArrayEquals(expected.get(0), logits.get(0), 1e-5f);
                  assertArrayEquals(expected.get(1), logits.get(1), 1e-5f);
                  return Thread.interrupted() == interrupted;
                }));
      }
      for (Future<Boolean> call : calls) {
        assertTrue(call.get());
      }
    }
  }

  @Test
  void closingWaitsForWhatWasAskedAndRefusesTheRest() throws Exception {
    Predictor predictor = Predictor.open(run, "cpu");
    List<byte[]> images = new ArrayList<>();
    for (int i = 0; i < 151; i++) {
      images.add(data.test().image(i));
    }
    try (ExecutorService caller = Executors.newFixedThreadPool(4)) {
      List<Future<Integer>> asked = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        asked.add(caller.submit(() -> predictor.logits(images).size()));
      }
      Thread.sleep(5);
      predictor.close();
      for (Future<Integer> one : asked) {
        try {
          assertEquals(151, one.get()); // asked before: answered
        } catch (java.util.concurrent.ExecutionException late) {
          assertTrue(late.getCause() instanceof IllegalStateException, late.toString());
        }
      }
    }
    predictor.close();
    String message =
        assertThrows(IllegalStateException.class, () -> predictor.predict(images.getFirst()))
            .getMessage();
    assertTrue(message.contains("close"), message);
  }

  @Test
  void badInputIsRefusedByName() throws IOException {
    try (Predictor predictor = Predictor.open(run, "cpu")) {
      String message =
          assertThrows(IllegalArgumentException.class, () -> predictor.predict(new byte[5]))
              .getMessage();
      assertTrue(message.contains("9x7x3"), message);
      Path text = Files.writeString(folder.resolve("notes.png"), "no picture");
      message = assertThrows(DataException.class, () -> predictor.predict(text)).getMessage();
      assertTrue(message.contains("notes.png"), message);
    }
    assertThrows(IOException.class, () -> Predictor.open(folder.resolve("nowhere")));
  }

  /** A byte that is another, in a file that is sound else. */
  @Test
  void aFileThatWasChangedIsRefused() throws IOException {
    Path file = folder.resolve("changed.safetensors");
    Files.copy(run.resolve(Trainer.CHECKPOINT), file);
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      ByteBuffer length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
      channel.read(length, 0);
      channel.write(ByteBuffer.wrap(new byte[] {77}), 8 + length.getLong(0));
    }
    Checkpoint.open(file).close();
    String message =
        assertThrows(CheckpointException.class, () -> Predictor.open(file, "cpu")).getMessage();
    assertTrue(message.contains("c0.weights") && message.contains("SHA-256"), message);
  }

  /** A weight that is not a number, saved as such. */
  @Test
  void aSpoiltModelIsRefused() throws IOException {
    Path file = folder.resolve("spoilt.safetensors");
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    try (Checkpoint good = Checkpoint.open(run.resolve(Trainer.CHECKPOINT))) {
      for (Network.ParameterSpec spec : good.run().model().network().parameters()) {
        boolean weights = spec.kind() == Network.ParameterSpec.Kind.WEIGHTS;
        Tensor tensor =
            Tensor.allocate(spec.shape(), DataType.F32, weights ? Layout.KRSC : Layout.ROW_MAJOR);
        tensors.put(spec.name(), tensor);
        assertTrue(good.read(spec.name(), tensor));
      }
      tensors.get("c7.weights").put(3, Float.NaN);
      Checkpoint.save(file, good.state(), tensors, Map.of());
    } finally {
      tensors.values().forEach(Tensor::close);
    }
    String message =
        assertThrows(CheckpointException.class, () -> Predictor.open(file, "cpu")).getMessage();
    assertTrue(message.contains("c7.weights") && message.contains("not finite"), message);
  }
}
