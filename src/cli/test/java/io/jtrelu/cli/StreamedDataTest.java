package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.data.Tar;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The commands on JPEGs, in folders and in shards, as a user types them. */
class StreamedDataTest {
  @TempDir Path folder;
  private final StringWriter results = new StringWriter();
  private final StringWriter notes = new StringWriter();

  private int run(List<String> arguments) {
    results.getBuffer().setLength(0);
    notes.getBuffer().setLength(0);
    Console console = new Console(new PrintWriter(results), new PrintWriter(notes), false);
    return Main.run(console, arguments.toArray(String[]::new));
  }

  /** Bright in the upper or the lower half. */
  private static byte[] jpeg(int label, long seed) throws IOException {
    SplittableRandom random = new SplittableRandom(seed);
    BufferedImage image =
        new BufferedImage(
            30 + random.nextInt(20), 20 + random.nextInt(9), BufferedImage.TYPE_INT_RGB);
    for (int y = 0; y < image.getHeight(); y++) {
      for (int x = 0; x < image.getWidth(); x++) {
        int bright = 2 * y / image.getHeight() == label ? 130 : 20;
        image.setRGB(x, y, (bright + random.nextInt(40)) * 0x010203);
      }
    }
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    ImageIO.write(image, "jpeg", out);
    return out.toByteArray();
  }

  /** 24 training and 8 test images of two classes; one of them damaged behind its header. */
  private Path data(boolean shards, int damaged) throws IOException {
    Path data = folder.resolve(shards ? "shards" : "folders");
    int number = 0;
    for (String part : List.of("train", "test")) {
      Tar tar = new Tar();
      for (int i = 0; i < (part.equals("train") ? 24 : 8); i++, number++) {
        int label = i % 2;
        byte[] jpeg = jpeg(label, number);
        if (number == damaged) {
          jpeg = Arrays.copyOf(jpeg, jpeg.length - 40);
        }
        String key = String.format(Locale.ROOT, "%d-%03d", label, i);
        if (shards) {
          tar.add(key + ".jpg", jpeg).add(key + ".cls", Integer.toString(label));
        } else {
          Path in = Files.createDirectories(data.resolve(part).resolve("" + label));
          Files.write(in.resolve(key + ".jpg"), jpeg);
        }
      }
      if (shards) {
        Files.write(Files.createDirectories(data.resolve(part)).resolve("000000.tar"), tar.bytes());
      }
    }
    return data;
  }

  private List<String> train(Path data, Path out, String... more) {
    List<String> all =
        new ArrayList<>(
            List.of(
                "train",
                "--network",
                "plain:13:4",
                "--device",
                "cpu",
                "--batch",
                "4",
                "--epochs",
                "2",
                "--image-size",
                "16",
                "--data",
                data.toString(),
                "--out",
                out.toString()));
    all.addAll(List.of(more));
    return all;
  }

  private byte[] model(String run) throws IOException {
    return Files.readAllBytes(folder.resolve(run).resolve("model.safetensors"));
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void trainsAndEvaluates(boolean shards) throws IOException {
    Path data = data(shards, -1);
    Path one = folder.resolve("one");
    String[] augmented = {"--random-resized-crop", "0.5", "--flip", "--loader-threads", "1"};
    assertEquals(0, run(train(data, one, augmented)), notes.toString());
    assertTrue(notes.toString().contains("2 classes, streamed, because"), notes.toString());
    assertTrue(notes.toString().contains("JPEGs decoded by"), notes.toString());
    assertTrue(
        results.toString().contains("% of the training time waited for images"), "" + results);
    assertTrue(Files.readString(one.resolve("report.html")).contains("JPEG decoder"));
    augmented[4] = "5";
    List<String> again = train(data, folder.resolve("five"), augmented);
    again.add("--json");
    assertEquals(0, run(again), notes.toString());
    JsonNode trained = new ObjectMapper().readTree(results.toString());
    assertTrue(trained.get("streamed").asBoolean());
    assertEquals(12, trained.get("steps").asInt());
    assertEquals(0, trained.get("skipped").asInt());
    assertArrayEquals(model("one"), model("five"));

    List<String> evaluate = List.of("evaluate", "--model", one.toString(), "--json");
    assertEquals(0, run(evaluate), notes.toString());
    JsonNode stored = new ObjectMapper().readTree(results.toString());
    assertEquals(trained.get("test_accuracy").asDouble(), stored.get("test_accuracy").asDouble());
    assertEquals(8, stored.get("images").asInt());
    List<String> streamed = new ArrayList<>(evaluate);
    streamed.addAll(List.of("--data-in", "stream", "--loader-threads", "2"));
    assertEquals(0, run(streamed), notes.toString());
    assertEquals(stored, new ObjectMapper().readTree(results.toString()));
  }

  @Test
  void smallSetsLieInMemoryAndARunKeepsTheirPlace() throws IOException {
    Path data = data(true, -1);
    Path out = folder.resolve("run");
    assertEquals(0, run(train(data, out)), notes.toString());
    assertTrue(notes.toString().contains("in memory, where they fit"), notes.toString());
    assertFalse(results.toString().contains("waited for images"), results.toString());
    assertEquals(
        0, run(List.of("train", "--device", "cpu", "--resume", out.toString())), notes.toString());
    assertTrue(notes.toString().contains("in memory"), notes.toString());
    String[] asked = {"--data-in", "stream", "--random-resized-crop", "0.5"};
    List<String> streamed = train(data, folder.resolve("streamed"), asked);
    assertEquals(0, run(streamed), notes.toString());
    assertTrue(notes.toString().contains("classes, streamed, JPEGs"), notes.toString());
    assertEquals(
        0,
        run(
            List.of(
                "train",
                "--device",
                "cpu",
                "--loader-threads",
                "3",
                "--resume",
                folder.resolve("streamed").toString())),
        notes.toString());
    assertTrue(notes.toString().contains("classes, streamed"), notes.toString());
    assertEquals(
        2,
        run(List.of("train", "--resume", out.toString(), "--data-in", "stream")),
        notes.toString());
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void badImagesStopOrAreSkippedAndNamed(boolean shards) throws IOException {
    Path data = data(shards, 9);
    Path out = folder.resolve("run");
    assertEquals(1, run(train(data, out, "--data-in", "stream")));
    assertTrue(notes.toString().contains("1-009.jpg"), notes.toString());
    assertTrue(notes.toString().contains("damaged or cut off"), notes.toString());
    String[] skip = {"--data-in", "stream", "--on-bad-image", "skip", "--json"};
    assertEquals(0, run(train(data, out, skip)), notes.toString());
    assertTrue(notes.toString().contains("1 bad train images were skipped: "), notes.toString());
    assertEquals(1, new ObjectMapper().readTree(results.toString()).get("skipped").asInt());
    String report = Files.readString(out.resolve("report.html"));
    assertTrue(report.contains("bad images") && report.contains("1-009.jpg"), report);
    String[] inMemory = {"--data-in", "memory", "--on-bad-image", "skip"};
    assertEquals(0, run(train(data, folder.resolve("memory"), inMemory)), notes.toString());
    assertTrue(notes.toString().contains("1 bad images were left out"), notes.toString());
  }

  @Test
  void evaluationLeavesBadImagesOut() throws IOException {
    Path data = data(true, 27); // of the test images
    Path out = folder.resolve("run");
    String[] skip = {"--data-in", "stream", "--on-bad-image", "skip", "--json"};
    assertEquals(0, run(train(data, out, skip)), notes.toString());
    double accuracy =
        new ObjectMapper().readTree(results.toString()).get("test_accuracy").asDouble();
    List<String> evaluate = new ArrayList<>(List.of("evaluate", "--model", out.toString()));
    evaluate.addAll(List.of(skip));
    assertEquals(0, run(evaluate), notes.toString());
    JsonNode evaluated = new ObjectMapper().readTree(results.toString());
    assertEquals(7, evaluated.get("images").asInt());
    assertEquals(1, evaluated.get("skipped").asInt());
    assertEquals(accuracy, evaluated.get("test_accuracy").asDouble());
    assertTrue(notes.toString().contains("1 bad test images were skipped"), notes.toString());
    evaluate.set(evaluate.indexOf("skip"), "stop");
    assertEquals(1, run(evaluate));
    assertTrue(notes.toString().contains("1-003.jpg"), notes.toString());
  }

  @Test
  void optionsAreChecked() throws IOException {
    Path data = data(false, -1);
    Path out = folder.resolve("run");
    assertEquals(2, run(train(data, out, "--loader-threads", "0")));
    assertTrue(notes.toString().contains("--loader-threads"), notes.toString());
    assertEquals(2, run(train(data, out, "--image-size", "0")));
    assertEquals(2, run(train(data, out, "--image-size", "5x")));
    assertEquals(2, run(train(data, out, "--random-resized-crop", "0")));
    assertEquals(2, run(train(data, out, "--random-resized-crop", "0.5", "--random-crop", "2")));
    assertEquals(2, run(train(data, out, "--on-bad-image", "ignore")));
    assertFalse(Files.exists(out));
  }

  @Test
  void devicesSaysWhatDecodesJpegs() {
    assertEquals(0, run(List.of("devices")));
    String last = results.toString().strip().lines().reduce((a, b) -> b).orElseThrow();
    assertTrue(last.matches("jpeg +(libjpeg-turbo [0-9.]+ \\(.*\\)|Java's ImageIO.*)"), last);
  }
}
