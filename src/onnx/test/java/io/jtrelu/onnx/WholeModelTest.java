package io.jtrelu.onnx;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.activation.Activation;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.inference.Prediction;
import io.jtrelu.inference.Predictor;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Networks.Block;
import io.jtrelu.nn.Parameters;
import io.jtrelu.onnx.OnnxExporter.Options;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.StringStringEntryProto;
import io.jtrelu.train.Model;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.io.TempDir;

/** Models with their normalisation: bytes of images in, probabilities out. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class WholeModelTest {
  private static final List<String> CLASSES = List.of("hat", "a \"b\"", "schön");

  @TempDir private Path folder;
  private Cases cases;

  @BeforeAll
  void open() {
    cases = new Cases();
  }

  @AfterAll
  void close() {
    cases.close();
  }

  private static Model model(int channels, Homogeneous homogeneous, boolean plain) {
    double[] mean = new double[channels];
    double[] std = new double[channels];
    for (int c = 0; c < channels; c++) {
      mean[c] = plain ? 0 : 0.3 + 0.1 * c;
      std[c] = plain ? 1 : 0.2 + 0.05 * c;
    }
    PerLocationNormalization normalization = new PerLocationNormalization(mean, std, homogeneous);
    ShapingConfig shaping = ShapingConfig.of("eoc", "leaky_relu");
    Network network =
        shaping.shape(
            Networks.build(
                new Networks.Options("plain:4:8", Block.V2, 0, 0.1f),
                new Extent(6, 5, normalization.outputChannels()),
                3));
    return new Model(network, CLASSES, 6, 5, channels, normalization, shaping);
  }

  private static byte[][] images(int channels, int count) {
    Random random = new Random(9);
    byte[][] images = new byte[count][6 * 5 * channels];
    for (int i = 1; i < count; i++) { // the first is black
      random.nextBytes(images[i]);
    }
    Arrays.fill(images[1], (byte) 255);
    return images;
  }

  /** What {@link Predictor} makes of images. */
  private List<float[]> predictions(Path trained, byte[][] images) throws IOException {
    try (Predictor predictor = Predictor.open(trained, cases.backend)) {
      List<float[]> all = new ArrayList<>();
      for (Prediction prediction : predictor.predict(List.of(images))) {
        float[] probabilities = new float[CLASSES.size()];
        prediction.classes().forEach(c -> probabilities[c.index()] = (float) c.probability());
        all.add(probabilities);
      }
      return all;
    }
  }

  @Test
  void bytesInProbabilitiesOut() throws IOException {
    for (int channels : new int[] {1, 3}) {
      for (Homogeneous homogeneous : Homogeneous.values()) {
        for (boolean plain : new boolean[] {false, true}) {
          if (plain && homogeneous != Homogeneous.IMAGE_RMS) {
            continue; // only there black images are a case of their own
          }
          Model model = model(channels, homogeneous, plain);
          String name = channels + " " + homogeneous + " " + plain;
          Path run = folder.resolve(name.replace(' ', '-'));
          try (Parameters parameters = cases.parameters(model.network(), 5)) {
            new Run(model, TrainingConfig.builder().build(), "none", null).save(run, parameters);
          }
          byte[][] images = images(channels, 5);
          List<float[]> expected = predictions(run, images);
          for (int opset : new int[] {17, 18}) {
            OnnxModel exported = OnnxExporter.export(run, new Options(opset, true));
            assertEquals(List.of("images uint8[N, 6, 5, " + channels + "]"), exported.inputs());
            assertEquals(List.of("probabilities float32[N, 3]"), exported.outputs());
            byte[] all = new byte[5 * images[0].length];
            for (int i = 0; i < 5; i++) {
              System.arraycopy(images[i], 0, all, i * images[0].length, images[0].length);
            }
            try (Ort ort = new Ort(exported.toByteArray())) {
              float[] found = ort.run(all, 5, 6, 5, channels).getFirst().values;
              for (int i = 0; i < 5; i++) {
                Cases.assertClose(
                    expected.get(i), Arrays.copyOfRange(found, 3 * i, 3 * i + 3), 1e-4, name);
              }
            }
            importedAgain(exported, model);
          }
        }
      }
    }
  }

  private void importedAgain(OnnxModel exported, Model model) throws IOException {
    Path file = folder.resolve("again.onnx");
    exported.write(file);
    assertEquals(exported.bytes(), Files.size(file));
    try (ImportedNetwork read = OnnxImporter.read(file)) {
      assertEquals(model.toJson(), read.model().orElseThrow().toJson());
      long opset = exported.proto().getOpsetImport(0).getVersion();
      assertArrayEquals(
          exported.toByteArray(),
          OnnxExporter.export(model, read.parameters(), new Options((int) opset, true))
              .toByteArray());
    }
  }

  @Test
  void metadataTellWhatTheModelIs() throws IOException {
    Model model = model(1, Homogeneous.ONE, false);
    ModelProto proto;
    try (Parameters parameters = cases.parameters(model.network(), 5)) {
      proto = OnnxExporter.export(model, parameters, Options.DEFAULT).proto();
    }
    Map<String, String> metadata =
        proto.getMetadataPropsList().stream()
            .collect(
                Collectors.toMap(StringStringEntryProto::getKey, StringStringEntryProto::getValue));
    ObjectMapper json = new ObjectMapper();
    assertEquals(CLASSES, json.readValue(metadata.get("jtrelu.classes"), List.class));
    assertEquals("eoc", json.readTree(metadata.get("jtrelu.shaping")).get("method").asText());
    var function = json.readTree(metadata.get("jtrelu.activations")).get(0);
    assertEquals("leaky_relu", function.get("function").asText());
    assertEquals(0.01, function.get("negativeSlope").asDouble());
    assertTrue(function.get("outputScale").asDouble() >= 1);
    assertTrue(metadata.containsKey("jtrelu.version"));
    assertEquals("jtrelu", proto.getProducerName());
  }

  @Test
  void aFolderThatIsTakenIsLeftAlone() throws IOException {
    Path taken = Files.createDirectory(folder.resolve("taken"));
    Files.writeString(taken.resolve("file"), "mine");
    Model model = model(1, Homogeneous.NONE, false);
    try (Parameters parameters = cases.parameters(model.network(), 5)) {
      Run run = new Run(model, TrainingConfig.builder().build(), "none", null);
      assertThrows(IOException.class, () -> run.save(taken, parameters));
    }
    assertFalse(Files.exists(taken.resolve(Run.FILE)));
    assertThrows(
        IllegalArgumentException.class,
        () -> {
          try (Parameters parameters = cases.parameters(model.network(), 5)) {
            OnnxExporter.export(model.network(), parameters, new Options(17, true));
          }
        });
  }

  /** ONNX's own checker, where Python has it. */
  @Test
  void onnxsCheckerFindsNoFault() throws Exception {
    String python = "/usr/bin/python3"; // Debian's packages are for this one
    assumeTrue(
        Files.isExecutable(Path.of(python)) && python(python, "-c", "import onnx").isEmpty(),
        "python3 with onnx is not installed: apt-get install python3-onnx");
    List<String> files = new ArrayList<>();
    for (Homogeneous homogeneous : Homogeneous.values()) {
      Model model = model(3, homogeneous, false);
      try (Parameters parameters = cases.parameters(model.network(), 5)) {
        for (boolean whole : new boolean[] {false, true}) {
          Path file = folder.resolve(homogeneous + "-" + whole + ".onnx");
          OnnxExporter.export(model, parameters, new Options(17, whole)).write(file);
          files.add(file.toString());
        }
      }
    }
    List<Network> networks = new ArrayList<>();
    Extent input = new Extent(8, 8, 3);
    for (Block block : Block.values()) {
      networks.add(Networks.build(new Networks.Options("resnet18", block, 0.5, 0.1f), input, 4));
    }
    for (Activation function : Activation.values()) {
      networks.add(Networks.build(Networks.Options.of("plain:2:4"), input, 4).with(function));
    }
    for (Network network : networks) {
      try (Parameters parameters = cases.parameters(network, 5)) {
        Path file = folder.resolve(files.size() + ".onnx");
        OnnxExporter.export(network, parameters, Options.DEFAULT).write(file);
        files.add(file.toString());
      }
    }
    List<String> command = new ArrayList<>();
    command.addAll(
        List.of(
            python,
            "-c",
            """
            import onnx, sys
            for file in sys.argv[1:]:
                onnx.checker.check_model(onnx.load(file), full_check=True)
            """));
    command.addAll(files);
    assertEquals("", python(command.toArray(String[]::new)));
  }

  /** What a command says; nothing if it succeeds. */
  private static String python(String... command) throws IOException, InterruptedException {
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertTrue(process.waitFor(60, TimeUnit.SECONDS));
    return process.exitValue() == 0 ? "" : "failed: " + output;
  }
}
