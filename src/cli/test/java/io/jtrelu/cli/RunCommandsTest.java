package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.backend.Availability;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.Backends;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.SplittableRandom;
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
    idx(data, "train", 24, 1);
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
    assertEquals(12, Files.readAllLines(out.resolve("metrics.jsonl")).size() - 2);
    assertEquals(0, run("evaluate", "--model", out.toString()), notes.toString());
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
}
