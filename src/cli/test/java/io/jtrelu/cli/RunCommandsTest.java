package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.backend.Availability;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.Backends;
import io.jtrelu.train.Run;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.Writer;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The commands train, evaluate and compare as a user types them, on a small folder of IDX files.
 */
class RunCommandsTest {
  private static final int EXTENT = 8;

  @TempDir Path folder;
  private Path data;
  private Path out;
  private final StringWriter results = new StringWriter();
  private final StringWriter notes = new StringWriter();

  @BeforeEach
  void writeData() throws IOException {
    data = Files.createDirectory(folder.resolve("data"));
    out = folder.resolve("run");
    writeData(data);
  }

  /** 24 training and 9 test images of two classes. */
  static void writeData(Path data) throws IOException {
    writeData(data, 24);
  }

  static void writeData(Path data, int training) throws IOException {
    idx(data, "train", training, 1);
    idx(data, "t10k", 9, 2);
  }

  /** Images that are bright in the upper or the lower half, in the format's own bytes. */
  private static void idx(Path data, String prefix, int count, long seed) throws IOException {
    SplittableRandom random = new SplittableRandom(seed);
    ByteBuffer images = ByteBuffer.allocate(16 + count * EXTENT * EXTENT);
    images.putInt(0x803).putInt(count).putInt(EXTENT).putInt(EXTENT);
    ByteBuffer labels = ByteBuffer.allocate(8 + count).putInt(0x801).putInt(count);
    for (int i = 0; i < count; i++) {
      labels.put((byte) (i % 2));
      for (int p = 0; p < EXTENT * EXTENT; p++) {
        int bright = p / (EXTENT * EXTENT / 2) == i % 2 ? 150 : 0;
        images.put((byte) (bright + random.nextInt(100)));
      }
    }
    Files.write(data.resolve(prefix + "-images-idx3-ubyte"), images.array());
    Files.write(data.resolve(prefix + "-labels-idx1-ubyte"), labels.array());
  }

  private int run(String... arguments) {
    results.getBuffer().setLength(0);
    notes.getBuffer().setLength(0);
    Console console = new Console(new PrintWriter(results), new PrintWriter(notes), false);
    return Main.run(console, arguments);
  }

  private int train(String... more) {
    String[] fixed = {
      "train", "--network", "plain:13:4", "--data", data.toString(), "--batch", "4", "--epochs", "2"
    };
    String[] all = Arrays.copyOf(fixed, fixed.length + more.length);
    System.arraycopy(more, 0, all, fixed.length, more.length);
    return run(all);
  }

  private JsonNode json() throws IOException {
    return new ObjectMapper().readTree(results.toString());
  }

  @Test
  void trainsOnTheEmulatedDeviceInBf16() throws IOException {
    Assumptions.assumeFalse(
        System.getProperty("jtrelu.cuda", "emulated").equals("real"),
        "this process tests a real GPU");
    BackendProvider emulated =
        Backends.providers().stream()
            .filter(provider -> provider.name().equals("emulated"))
            .findFirst()
            .orElseThrow();
    if (emulated.availability() instanceof Availability.Unavailable missing) {
      Assumptions.abort(missing.reason());
    }
    String[] options = {"--device", "emulated", "--type", "bf16", "--out", out.toString()};
    assertEquals(0, train(options), notes.toString());
    assertTrue(results.toString().contains("test accuracy"), results.toString());
    assertFalse(notes.toString().contains("images/s"), "its speed means nothing: " + notes);
    assertTrue(notes.toString().contains("GB of the device's memory"), notes.toString());
    assertEquals(12, Files.readAllLines(out.resolve("metrics.jsonl")).size() - 2);
    assertEquals(0, run("evaluate", "--model", out.toString()), notes.toString());
  }

  @Test
  void muonsRateIsThatOfTheDepthUnlessGiven() throws IOException {
    String deep =
        "train --network plain:121:4 --optimizer muon --batch 4 --epochs 1 --data " + data;
    assertEquals(0, run((deep + " --out " + out).split(" ")), notes.toString());
    assertEquals(0.1 / 121, Run.read(out).training().learningRate(), 1e-12);
    Path other = folder.resolve("given");
    String given = deep + " --learning-rate 0.003 --out " + other;
    assertEquals(0, run(given.split(" ")), notes.toString());
    assertEquals(0.003, Run.read(other).training().learningRate());
  }

  @Test
  void f16IsRefusedForTraining() {
    assertEquals(2, train("--type", "f16", "--out", out.toString()));
    assertTrue(notes.toString().contains("bf16"), notes.toString());
    assertFalse(Files.exists(out), "nothing is written");
  }

  @Test
  void trainsAndEvaluates() throws IOException {
    assertEquals(0, train("--out", out.toString(), "--json"), notes.toString());
    JsonNode trained = json();
    assertTrue(trained.get("finished").asBoolean());
    assertEquals(12, trained.get("steps").asInt());
    for (String file :
        new String[] {"config.json", "metrics.jsonl", "model.safetensors", "report.html"}) {
      assertTrue(Files.size(out.resolve(file)) > 0, file);
    }
    assertEquals(14, Files.readAllLines(out.resolve("metrics.jsonl")).size());
    assertEquals(0, run("evaluate", "--model", out.toString(), "--json"), notes.toString());
    JsonNode evaluated = json();
    assertEquals(9, evaluated.get("images").asInt());
    // The loss of the training, here from logits in double; and without its smoothing.
    assertEquals(trained.get("test_loss").asDouble(), evaluated.get("test_loss").asDouble(), 1e-5);
    assertTrue(evaluated.get("cross_entropy").asDouble() > 0);
    assertEquals(2, evaluated.get("classes").size());
    assertEquals(
        trained.get("test_accuracy").asDouble(), evaluated.get("test_accuracy").asDouble());
    assertEquals(0, run("train", "--resume", out.toString(), "--device", "cpu"), notes.toString());
    assertEquals(2, run("train", "--resume", out.toString(), "--epochs", "5"));
    assertTrue(notes.toString().contains("--epochs"), notes.toString());
  }

  @Test
  void trainsWithEveryMethod() throws IOException {
    for (String[] method :
        new String[][] {
          {"dks", "softplus"}, {"tat", "tanh"}, {"eoc", "tanh"}, {"none", "gelu"}, {"he", "relu"}
        }) {
      Path run = folder.resolve(method[0] + method[1]);
      int code = train("--out", run.toString(), "--method", method[0], "--activation", method[1]);
      assertEquals(0, code, notes.toString());
    }
  }

  @Test
  void trainsAndEvaluatesWithBatchNormalisation() throws IOException {
    String[] baseline = {
      "train",
      "--network",
      "bnresnet50-small",
      "--data",
      data.toString(),
      "--batch",
      "4",
      "--epochs",
      "1",
      "--out",
      out.toString(),
      "--json"
    };
    assertEquals(0, run(baseline), notes.toString());
    JsonNode trained = json();
    String report = Files.readString(out.resolve("report.html"));
    assertTrue(report.contains("batch normalisation") && report.contains("batch norm"), report);
    assertEquals(0, run("evaluate", "--model", out.toString(), "--json"), notes.toString());
    assertEquals(trained.get("test_loss").asDouble(), json().get("test_loss").asDouble(), 1e-5);
    String[] shaped = Arrays.copyOf(baseline, baseline.length + 2);
    shaped[10] = folder.resolve("shaped").toString();
    shaped[12] = "--method";
    shaped[13] = "tat";
    assertEquals(1, run(shaped), notes.toString());
    assertTrue(notes.toString().contains("is a batch normalisation"), notes.toString());
    shaped[12] = "--micro-batch";
    shaped[13] = "2";
    assertEquals(1, run(shaped), notes.toString());
    assertTrue(notes.toString().contains("leave micro-batches out"), notes.toString());
  }

  @Test
  void gaussianWeightsAreOthers() throws IOException {
    Path gaussian = folder.resolve("gaussian");
    String[] eoc = {"--method", "eoc", "--activation", "tanh", "--sigma-b2", "0.05", "--out"};
    String[] all = Arrays.copyOf(eoc, eoc.length + 3);
    all[7] = gaussian.toString();
    all[8] = "--weights";
    all[9] = "gaussian";
    assertEquals(0, train(all), notes.toString());
    String config = Files.readString(gaussian.resolve("config.json"));
    assertTrue(config.contains("gaussianWeights"), config);
    all[7] = out.toString();
    all[9] = "gauss";
    assertEquals(2, train(all), notes.toString());
    assertTrue(notes.toString().contains("orthogonal or gaussian"), notes.toString());
  }

  @Test
  void comparesShapedWithUnshaped() throws IOException {
    int code =
        run(
            "compare",
            "--network",
            "plain:13:4",
            "--data",
            data.toString(),
            "--batch",
            "4",
            "--out",
            out.toString(),
            "--json");
    assertEquals(0, code, notes.toString());
    assertEquals("tat", json().get("runs").get(0).get("method").asText());
    assertEquals("he", json().get("runs").get(1).get("method").asText());
    assertEquals(6, json().get("runs").get(1).get("steps").asInt());
    assertTrue(Files.readString(out.resolve("report.html")).contains("<svg"));
  }

  @Test
  void wrongUseIsTwoAndWritesNothing() {
    assertEquals(2, train("--out", out.toString(), "--method", "tta"));
    assertTrue(notes.toString().contains("did you mean 'tat'"), notes.toString());
    assertEquals(2, train("--out", out.toString(), "--activation", "tahn"));
    assertEquals(2, train("--out", out.toString(), "--shortcut-weight", "0.5"));
    assertEquals(2, train("--out", out.toString(), "--momentum", "1.5"));
    assertEquals(2, train("--out", out.toString(), "--micro-batch", "3"));
    assertTrue(notes.toString().contains("a divisor of the batch of 4"), notes.toString());
    assertEquals(2, train("--out", out.toString(), "--device", "gpu"));
    assertFalse(Files.exists(out));
  }

  @Test
  void failuresAreOneAndWriteNothing() throws IOException {
    String[] common = {"--data", data.toString(), "--out", out.toString()};
    assertEquals(1, run("train", "--batch", "25", common[0], common[1], common[2], common[3]));
    assertTrue(notes.toString().contains("24 training images"), notes.toString());
    assertEquals(
        1, run("train", "--network", "plain:12", common[0], common[1], common[2], common[3]));
    assertTrue(notes.toString().contains("0.8971"), notes.toString());
    Files.write(data.resolve("train-images-idx3-ubyte"), new byte[100]);
    assertEquals(1, train("--out", out.toString()));
    assertTrue(notes.toString().contains("train-images-idx3-ubyte"), notes.toString());
    assertFalse(notes.toString().contains("\tat "), "a stack trace");
    assertFalse(Files.exists(out));
    assertEquals(1, run("evaluate", "--model", folder.resolve("nowhere").toString()));
  }

  /** Folders of classes whose names would move a terminal's cursor; one class is renamed later. */
  private Path pictures(String first, String second) throws IOException {
    Path root = Files.createTempDirectory(folder, "pictures");
    for (String part : new String[] {"train", "test"}) {
      for (int c = 0; c < 2; c++) {
        Path of = Files.createDirectories(root.resolve(part).resolve(c == 0 ? first : second));
        for (int i = 0; i < 8; i++) {
          BufferedImage image = new BufferedImage(8, 8, BufferedImage.TYPE_BYTE_GRAY);
          for (int p = 0; p < 64; p++) {
            int bright = (p / 32 == c ? 150 : 0) + 10 * i;
            image.getRaster().setSample(p % 8, p / 8, 0, bright);
          }
          ImageIO.write(image, "png", of.resolve(i + ".png").toFile());
        }
      }
    }
    return root;
  }

  @Test
  void classesAreMatchedByNameAndNamesCannotSteerATerminal() throws IOException {
    Path one = pictures("a\u001b[2Jx", "b");
    String[] train = {
      "train",
      "--network",
      "plain:13:4",
      "--data",
      one.toString(),
      "--batch",
      "4",
      "--epochs",
      "8",
      "--out",
      out.toString()
    };
    assertEquals(0, run(train), notes.toString());
    assertEquals(0, run("evaluate", "--model", out.toString()), notes.toString());
    assertFalse(results.toString().contains("\u001b"), results.toString());
    assertTrue(results.toString().contains("a\\u001b[2Jx"), results.toString());
    assertEquals(0, run("evaluate", "--model", out.toString(), "--json"), notes.toString());
    double accuracy = json().get("test_accuracy").asDouble();
    assertEquals("a\u001b[2Jx", json().get("classes").get(0).get("name").asText());
    // The order of the folders is another one now, the pictures and their names are the same.
    Path flat = Files.createDirectory(folder.resolve("flat"));
    Files.move(one.resolve("test").resolve("b"), flat.resolve("b"));
    Files.move(one.resolve("test").resolve("a\u001b[2Jx"), flat.resolve("a\u001b[2Jx"));
    int code = run("evaluate", "--model", out.toString(), "--data", flat.toString(), "--json");
    assertEquals(0, code, notes.toString());
    assertEquals(16, json().get("images").asInt());
    assertEquals(accuracy, json().get("test_accuracy").asDouble());
    Path other = pictures("c", "b");
    assertEquals(1, run("evaluate", "--model", out.toString(), "--data", other.toString()));
    assertTrue(notes.toString().contains("wanted: c;"), notes.toString());
    // And a run does not go on with other images.
    Files.delete(one.resolve("train").resolve("b").resolve("3.png"));
    Files.createDirectories(one.resolve("test"));
    Files.move(flat.resolve("b"), one.resolve("test").resolve("b"));
    Files.move(flat.resolve("a\u001b[2Jx"), one.resolve("test").resolve("a\u001b[2Jx"));
    assertEquals(1, run("train", "--resume", out.toString()));
    assertTrue(notes.toString().contains("--from"), notes.toString());
  }

  @Test
  void predictsPictures() throws IOException {
    Path data = pictures("top", "bottom");
    String[] train = {
      "train",
      "--network",
      "plain:13:4",
      "--data",
      data.toString(),
      "--batch",
      "4",
      "--epochs",
      "12",
      "--out",
      out.toString()
    };
    assertEquals(0, run(train), notes.toString());
    Path picture = data.resolve("test").resolve("top").resolve("2.png");
    String model = out.resolve("best.safetensors").toString();
    assertEquals(0, run("predict", "--model", model, picture.toString(), "--top", "2", "--json"));
    JsonNode classes = json().get(0).get("classes");
    assertEquals(2, classes.size());
    String best = classes.get(0).get("name").asText();
    assertTrue(List.of("top", "bottom").contains(best), best);
    assertTrue(classes.get(0).get("probability").asDouble() >= 0.5);
    double sum = classes.get(0).get("probability").asDouble();
    sum += classes.get(1).get("probability").asDouble();
    assertEquals(1, sum, 1e-9);
    String missing = folder.resolve("missing.png").toString();
    assertEquals(1, run("predict", "--model", model, missing, picture.toString()));
    assertTrue(results.toString().contains("2.png: " + best + " "), results.toString());
    assertTrue(notes.toString().contains("missing.png"), notes.toString());
    // What evaluate makes of this picture alone is the same.
    Path alone = Files.createDirectories(folder.resolve("alone").resolve("top"));
    Files.copy(picture, alone.resolve("2.png"));
    String of = alone.getParent().toString();
    assertEquals(0, run("evaluate", "--model", model, "--data", of, "--json"), notes.toString());
    assertEquals(best.equals("top") ? 1 : 0, json().get("test_accuracy").asDouble());
    assertEquals(2, run("predict", "--model", model, picture.toString(), "--top", "0"));
    assertEquals(2, run("predict"));
  }

  @Test
  void goesOnFromAnEarlierRun() throws IOException {
    assertEquals(0, train("--out", out.toString()));
    Path more = folder.resolve("more");
    String[] from = {"train", "--from", out.toString(), "--epochs", "1", "--out", more.toString()};
    assertEquals(0, run(from), notes.toString());
    JsonNode config = new ObjectMapper().readTree(more.resolve("config.json").toFile());
    assertEquals(4, config.get("training").get("batch").asInt(), "as there");
    assertEquals(1, config.get("training").get("epochs").asInt(), "as asked for");
    assertEquals(2, run("train", "--from", out.toString(), "--network", "plain50"));
    assertTrue(notes.toString().contains("--network"), notes.toString());
    // Other classes: another last layer, which begins anew; pictures are brought to the size.
    Path pictures = pictures("top", "bottom");
    Path other = folder.resolve("other");
    int code =
        run(
            "train",
            "--from",
            out.resolve("best.safetensors").toString(),
            "--data",
            pictures.toString(),
            "--epochs",
            "1",
            "--out",
            other.toString());
    assertEquals(0, code, notes.toString());
    assertTrue(new ObjectMapper().readTree(other.resolve("config.json").toFile()).has("model"));
  }

  @Test
  void patienceEndsARun() throws IOException {
    String[] patient = {
      "train",
      "--network",
      "plain:13:4",
      "--data",
      data.toString(),
      "--batch",
      "4",
      "--epochs",
      "60",
      "--patience",
      "1",
      "--out",
      out.toString()
    };
    assertEquals(0, run(patient), notes.toString());
    assertTrue(notes.toString().contains("has not risen for 1 epochs"), notes.toString());
    assertTrue(Files.exists(out.resolve("best.safetensors")));
    assertEquals(2, train("--out", folder.resolve("no").toString(), "--patience", "0"));
  }

  @Test
  void namesOfNothingAreRefused() {
    assertEquals(2, train("--out="));
    assertTrue(notes.toString().contains("--out"), notes.toString());
    assertEquals(2, run("shape", "--plot", folder.resolve("x.png").toString()));
    assertTrue(notes.toString().contains(".svg"), notes.toString());
  }

  /** A full disk, or a reader that has gone. */
  @Test
  void aResultThatCannotBeWrittenIsAFailure() {
    Writer full =
        new Writer() {
          @Override
          public void write(char[] text, int from, int count) throws IOException {
            throw new IOException("No space left on device");
          }

          @Override
          public void flush() {}

          @Override
          public void close() {}
        };
    Console console = new Console(new PrintWriter(full), new PrintWriter(notes), false);
    assertEquals(1, Main.run(console, "shape"));
    assertTrue(notes.toString().contains("could not be written"), notes.toString());
  }
}
