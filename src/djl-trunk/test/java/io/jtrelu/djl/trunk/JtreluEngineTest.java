package io.jtrelu.djl.trunk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.djl.Application;
import ai.djl.MalformedModelException;
import ai.djl.Model;
import ai.djl.engine.Engine;
import ai.djl.inference.Predictor;
import ai.djl.modality.Classifications;
import ai.djl.modality.cv.Image;
import ai.djl.modality.cv.ImageFactory;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.repository.zoo.Criteria;
import ai.djl.repository.zoo.ZooModel;
import ai.djl.translate.TranslateException;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.inference.Prediction;
import io.jtrelu.nn.Network;
import io.jtrelu.shaping.Tat;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** DJL's inference with models that this library has trained, against the library's own. */
class JtreluEngineTest {
  private static final int HEIGHT = 9;
  private static final int WIDTH = 7;

  @TempDir static Path folder;
  private static Path run;

  /** Colour images whose left, middle or right is bright. */
  private static ImageDataset thirds(int count, Split split, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    byte[][] images = new byte[count][HEIGHT * WIDTH * 3];
    int[] labels = new int[count];
    for (int i = 0; i < count; i++) {
      labels[i] = i % 3;
      for (int p = 0; p < images[i].length; p++) {
        int bright = p / 3 % WIDTH / 3 == labels[i] ? 100 : 0;
        images[i][p] = (byte) (bright + random.nextInt(120));
      }
    }
    List<String> classes = List.of("left", "middle", "right");
    return ImageDataset.of("thirds", split, HEIGHT, WIDTH, 3, classes, images, labels);
  }

  @BeforeAll
  static void train() throws IOException {
    Datasets data = new Datasets(thirds(48, Split.TRAIN, 1), thirds(12, Split.TEST, 2), List.of());
    Network.Builder b = Network.builder("small", HEIGHT, WIDTH, 4);
    int x = b.input();
    for (int i = 0; i < 14; i++) {
      x = b.activation("a" + i, b.convolution("c" + i, x, 6, 3, 1));
    }
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    Network network = b.build().shape(Tat.eta(0.9));
    run = folder.resolve("run");
    TrainingConfig config = TrainingConfig.builder().epochs(2).batch(8).build();
    try (Backend backend = Backends.open("cpu");
        Trainer trainer =
            Trainer.start(
                io.jtrelu.train.Model.of(network, data.train()), config, data, backend, run)) {
      trainer.train();
    }
  }

  /** Of another size than the model's, and of all colours. */
  private static BufferedImage picture(long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    BufferedImage picture = new BufferedImage(20, 16, BufferedImage.TYPE_INT_RGB);
    for (int y = 0; y < 16; y++) {
      for (int x = 0; x < 20; x++) {
        picture.setRGB(x, y, random.nextInt(1 << 24));
      }
    }
    return picture;
  }

  private static <I> Criteria<I, Classifications> criteria(Class<I> input, Path trained) {
    return Criteria.builder()
        .setTypes(input, Classifications.class)
        .optApplication(Application.CV.IMAGE_CLASSIFICATION)
        .optEngine("JTReLU")
        .optModelPath(trained)
        .optTranslatorFactory(new JtreluTranslatorFactory())
        .build();
  }

  private static void same(Prediction expected, Classifications actual) {
    assertEquals(List.of("left", "middle", "right"), actual.getClassNames());
    for (Prediction.Ranked ranked : expected.classes()) {
      double probability = actual.getProbabilities().get(ranked.index());
      assertEquals((float) ranked.probability(), probability, 0); // rounded to float
    }
    assertEquals(expected.name(), actual.best().getClassName());
  }

  @Test
  void picturesGetTheProbabilitiesOfOurPredictor() throws Exception {
    Path around = folder.resolve("around"); // with a run as its only folder, as archives have it
    Files.createDirectories(around.resolve("run"));
    Files.copy(run.resolve(Trainer.CHECKPOINT), around.resolve("run").resolve(Trainer.CHECKPOINT));
    for (Path trained : List.of(run, run.resolve(Trainer.CHECKPOINT), around)) {
      try (io.jtrelu.inference.Predictor ours = io.jtrelu.inference.Predictor.open(run, "cpu");
          ZooModel<Image, Classifications> model = criteria(Image.class, trained).loadModel();
          Predictor<Image, Classifications> djls = model.newPredictor()) {
        List<Image> images = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
          images.add(ImageFactory.getInstance().fromImage(picture(i)));
          same(ours.predict(picture(i)), djls.predict(images.get(i)));
        }
        List<Classifications> together = djls.batchPredict(images);
        for (int i = 0; i < 5; i++) {
          same(ours.predict(picture(i)), together.get(i));
        }
      }
    }
  }

  @Test
  void filesAreReadByDjlsExpansions() throws Exception {
    Path file = folder.resolve("picture.png");
    ImageIO.write(picture(3), "png", file.toFile());
    try (io.jtrelu.inference.Predictor ours = io.jtrelu.inference.Predictor.open(run, "cpu");
        ZooModel<Path, Classifications> model = criteria(Path.class, run).loadModel();
        Predictor<Path, Classifications> djls = model.newPredictor()) {
      same(ours.predict(file), djls.predict(file));
    }
  }

  @Test
  void djlsOwnTranslatorWorksWithOurModels() throws Exception {
    Criteria<Image, Classifications> criteria =
        Criteria.builder()
            .setTypes(Image.class, Classifications.class)
            .optApplication(Application.CV.IMAGE_CLASSIFICATION)
            .optEngine("JTReLU")
            .optModelPath(run)
            .build();
    byte[] pixels = thirds(1, Split.TEST, 5).image(0);
    BufferedImage picture = new BufferedImage(WIDTH, HEIGHT, BufferedImage.TYPE_INT_RGB);
    for (int p = 0; p < HEIGHT * WIDTH; p++) {
      int rgb = 0;
      for (int c = 0; c < 3; c++) {
        rgb = (rgb << 8) | (pixels[3 * p + c] & 0xff);
      }
      picture.setRGB(p % WIDTH, p / WIDTH, rgb);
    }
    try (io.jtrelu.inference.Predictor ours = io.jtrelu.inference.Predictor.open(run, "cpu");
        ZooModel<Image, Classifications> model = criteria.loadModel();
        Predictor<Image, Classifications> djls = model.newPredictor()) {
      Image image = ImageFactory.getInstance().fromImage(picture);
      same(ours.predict(pixels), djls.predict(image));
    }
  }

  @Test
  void arraysHoldValuesAndAreComputedOnByAnotherEngine() {
    Engine engine = Engine.getEngine("JTReLU");
    assertEquals("PyTorch", engine.getAlternativeEngine().getEngineName());
    assertEquals("PyTorch", Engine.getInstance().getEngineName(), "the default stays");
    try (NDManager manager = engine.newBaseManager()) {
      NDArray a = manager.create(new float[] {1, 2, 3, 4}, new Shape(2, 2));
      assertArrayEquals(new float[] {1, 2, 3, 4}, a.toFloatArray());
      NDArray sum = manager.from(a.add(a));
      assertEquals("JTReLU", sum.getManager().getEngine().getEngineName());
      assertArrayEquals(new float[] {2, 4, 6, 8}, sum.toFloatArray());
      NDArray bytes =
          manager.create(ByteBuffer.wrap(new byte[] {1, -1}), new Shape(2), DataType.UINT8);
      assertArrayEquals(new byte[] {1, -1}, bytes.toByteArray());
      bytes.close();
      assertThrows(IllegalStateException.class, bytes::toByteBuffer);
    }
  }

  @Test
  void arraysOfBothFormsAreReadAndOthersRefused() throws Exception {
    Criteria<NDList, NDList> criteria =
        Criteria.builder()
            .setTypes(NDList.class, NDList.class)
            .optEngine("JTReLU")
            .optModelPath(run)
            .build();
    byte[] pixels = thirds(1, Split.TEST, 5).image(0);
    try (ZooModel<NDList, NDList> model = criteria.loadModel();
        Predictor<NDList, NDList> djls = model.newPredictor();
        NDManager manager = NDManager.newBaseManager("PyTorch")) {
      NDArray bytes =
          manager.create(ByteBuffer.wrap(pixels), new Shape(1, HEIGHT, WIDTH, 3), DataType.UINT8);
      NDArray floats =
          bytes.toType(DataType.FLOAT32, true).div(255).transpose(0, 3, 1, 2).duplicate();
      float[] expected = djls.predict(new NDList(bytes)).singletonOrThrow().toFloatArray();
      float[] actual = djls.predict(new NDList(floats)).singletonOrThrow().toFloatArray();
      assertArrayEquals(expected, actual);
      refused("JtreluTranslatorFactory", djls, floats.transpose(0, 2, 3, 1));
      refused("0..1", djls, floats.mul(2));
    }
  }

  private static void refused(String text, Predictor<NDList, NDList> predictor, NDArray input) {
    Exception refused =
        assertThrows(TranslateException.class, () -> predictor.predict(new NDList(input)));
    String message = String.valueOf(refused.getCause().getMessage());
    assertTrue(message.contains(text), message);
  }

  @Test
  void whatIsNoModelIsRefused() throws Exception {
    Path empty = Files.createDirectory(folder.resolve("empty"));
    assertThrows(IOException.class, () -> criteria(Image.class, empty).loadModel());
    Path damaged = Files.createDirectory(folder.resolve("damaged"));
    Files.writeString(damaged.resolve(Trainer.CHECKPOINT), "no model");
    Exception refused =
        assertThrows(
            MalformedModelException.class, () -> criteria(Image.class, damaged).loadModel());
    assertTrue(String.valueOf(refused.getMessage()).contains("damaged"), refused.getMessage());
    try (Model model = Model.newInstance("model", "JTReLU")) {
      model.load(run);
      assertThrows(UnsupportedOperationException.class, () -> model.save(folder, "copy"));
      assertThrows(UnsupportedOperationException.class, () -> model.load(run));
    }
  }
}
