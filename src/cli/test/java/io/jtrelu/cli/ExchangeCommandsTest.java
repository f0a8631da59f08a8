package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Parameters;
import io.jtrelu.onnx.OnnxExporter;
import io.jtrelu.train.Model;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The commands export and import as a user types them. */
class ExchangeCommandsTest {
  @TempDir Path folder;
  private Path data;
  private Path trained;
  private Path file;
  private final StringWriter results = new StringWriter();
  private final StringWriter notes = new StringWriter();

  @BeforeEach
  void name() throws IOException {
    data = Files.createDirectory(folder.resolve("data"));
    trained = folder.resolve("run");
    file = folder.resolve("model.onnx");
  }

  private int run(Object... arguments) {
    results.getBuffer().setLength(0);
    notes.getBuffer().setLength(0);
    Console console = new Console(new PrintWriter(results), new PrintWriter(notes), false);
    String[] texts = new String[arguments.length];
    for (int i = 0; i < texts.length; i++) {
      texts[i] = arguments[i].toString();
    }
    return Main.run(console, texts);
  }

  private void succeed(Object... arguments) {
    assertEquals(0, run(arguments), notes.toString());
  }

  private JsonNode json() throws IOException {
    return new ObjectMapper().readTree(results.toString());
  }

  private void train() throws IOException {
    RunCommandsTest.writeData(data);
    succeed(
        "train",
        "--network",
        "plain:13:4",
        "--data",
        data,
        "--batch",
        4,
        "--epochs",
        1,
        "--out",
        trained);
  }

  @Test
  void aTrainedNetworkGoesOutAndComesBack() throws IOException {
    train();
    succeed("export", "--model", trained, file, "--json");
    assertEquals("onnx", json().get("format").asText());
    assertEquals(Files.size(file), json().get("bytes").asLong());
    assertEquals("images float32[N, 2, 8, 8]", json().get("inputs").get(0).asText());
    assertEquals("logits float32[N, 2]", json().get("outputs").get(0).asText());
    succeed("evaluate", "--model", trained, "--json");
    JsonNode before = json();

    Path back = folder.resolve("back");
    succeed("import", file, "--out", back);
    assertEquals("", notes.toString());
    assertTrue(results.toString().contains("13 activations deep"), results.toString());
    succeed("evaluate", "--model", back, "--data", data, "--json");
    assertEquals(before.get("test_accuracy"), json().get("test_accuracy"));
    assertEquals(
        before.get("cross_entropy").asDouble(), json().get("cross_entropy").asDouble(), 1e-5);

    Path again = folder.resolve("again.onnx");
    succeed("export", "--model", back, again);
    assertArrayEquals(Files.readAllBytes(file), Files.readAllBytes(again));
    succeed(
        "train",
        "--from",
        back,
        "--data",
        data,
        "--batch",
        4,
        "--epochs",
        1,
        "--out",
        folder.resolve("further"));
    assertFalse(notes.toString().contains("begun anew"), notes.toString());
    // Not over what is there.
    assertEquals(1, run("import", file, "--out", back));
    assertTrue(notes.toString().contains("not empty"), notes.toString());
  }

  @Test
  void theNormalisationGoesWithItIfAsked() throws IOException {
    train();
    succeed("export", "--model", trained.resolve(Trainer.BEST), file, "--with-normalization");
    assertTrue(results.toString().contains("images uint8[N, 8, 8, 1]"), results.toString());
    assertTrue(results.toString().contains("probabilities float32[N, 2]"), results.toString());
    succeed("import", file, "--out", folder.resolve("back"));
    assertEquals(Model.read(trained).toJson(), Model.read(folder.resolve("back")).toJson());
    assertEquals(2, run("import", file, "--out", folder.resolve("other"), "--mean", "0.5"));
    assertTrue(notes.toString().contains("--mean has no effect"), notes.toString());
  }

  @Test
  void pyTorchFilesGoOutAndComeBack() throws IOException {
    train();
    Path out = folder.resolve("model.safetensors");
    succeed("export", "--model", trained, out, "--json");
    assertEquals("pytorch", json().get("format").asText());
    Path module = folder.resolve("jtrelu.py");
    assertTrue(Files.readString(module).contains("def load("));
    Path back = folder.resolve("back");
    succeed("import", out, "--out", back);
    assertEquals(Model.read(trained).toJson(), Model.read(back).toJson());
    Path again = folder.resolve("again.safetensors");
    succeed("export", "--model", back, again);
    assertArrayEquals(Files.readAllBytes(out), Files.readAllBytes(again));
    succeed("import", out, "--out", folder.resolve("like"), "--like", trained);
    assertEquals(
        2, run("export", "--model", trained, folder.resolve("t.safetensors"), "--names", "timm"));
    assertTrue(notes.toString().contains("stage1.layer1"), notes.toString());
    Files.writeString(module, "print('mine')");
    assertEquals(2, run("export", "--model", trained, out, "--force"));
    assertEquals("print('mine')", Files.readString(module));
    assertEquals(2, run("import", file, "--out", folder.resolve("x"), "--like", trained));
  }

  @Test
  void filesAreNotReplacedUnlessAsked() throws IOException {
    Files.writeString(file, "mine");
    assertEquals(2, run("export", "--model", trained, file));
    assertTrue(notes.toString().contains("--force"), notes.toString());
    assertEquals(1, run("export", "--model", trained, file, "--force")); // there is no run
    assertEquals("mine", Files.readString(file));
    assertEquals(2, run("export", "--model", trained, folder));
    assertEquals(2, run("export", "--model", trained, folder.resolve("model.pb")));
    assertTrue(notes.toString().contains("--format"), notes.toString());
    assertEquals(2, run("export", "--model", trained, folder.resolve("new.onnx"), "--opset", 99));
    assertTrue(notes.toString().contains("15 to 18"), notes.toString());
    assertFalse(Files.exists(folder.resolve("new.onnx")));
  }

  @Test
  void aNetworkOfOthersIsGivenWhatItsFileLacks() throws IOException {
    Network network = Networks.build(Networks.Options.of("plain:2:4"), new Extent(8, 8, 1), 2);
    try (Backend backend = Backends.open("cpu");
        Parameters parameters = Parameters.allocate(network, backend)) {
      Initializer.delta(1).fill(backend, parameters);
      OnnxExporter.export(network, parameters, OnnxExporter.Options.DEFAULT).write(file);
    }
    RunCommandsTest.writeData(data);
    Path back = folder.resolve("back");
    Path classes = Files.writeString(folder.resolve("classes.txt"), "0\n\n 1 \n");
    succeed("import", file, "--out", back, "--classes", classes, "--mean", 0.5, "--std", 0.25);
    Model model = Model.read(back);
    assertEquals(List.of("0", "1"), model.classes());
    assertArrayEquals(new double[] {0.5}, model.normalization().mean());
    assertArrayEquals(new double[] {0.25}, model.normalization().std());
    assertEquals(1, model.normalization().outputChannels());
    succeed("evaluate", "--model", back, "--data", data);
    succeed("export", "--model", back, folder.resolve("again.onnx"), "--with-normalization");
    succeed(
        "train",
        "--from",
        back,
        "--data",
        data,
        "--batch",
        4,
        "--epochs",
        1,
        "--out",
        folder.resolve("further"));

    succeed("import", file, "--out", folder.resolve("plain"), "--json");
    assertTrue(notes.toString().contains("bytes / 255"), notes.toString());
    assertEquals(2, json().get("classes").size());
    assertEquals(2, run("import", file, "--out", folder.resolve("new"), "--mean", "0.5,0.5,0.5"));
    assertEquals(2, run("import", file, "--out", folder.resolve("new"), "--std", "0"));
    Files.writeString(classes, "one");
    assertEquals(2, run("import", file, "--out", folder.resolve("new"), "--classes", classes));
    assertTrue(notes.toString().contains("1 names for 2 classes"), notes.toString());
    Files.writeString(file, "no model");
    assertEquals(1, run("import", file, "--out", folder.resolve("new")));
    assertTrue(notes.toString().contains("model.onnx: this is no ONNX model"), notes.toString());
    assertFalse(Files.exists(folder.resolve("new")));
  }
}
