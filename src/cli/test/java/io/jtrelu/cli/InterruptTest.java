package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.train.Checkpoint;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** Ctrl-C in a terminal, as a person presses it. */
class InterruptTest {
  private static final int CTRL_C = 3;

  @TempDir Path folder;

  private List<String> train(Path out) throws IOException {
    Path data = folder.resolve("data");
    if (!Files.exists(data)) {
      RunCommandsTest.writeData(Files.createDirectory(data));
    }
    return List.of(
        "train",
        "--device",
        "cpu",
        "--network",
        "plain:13:4",
        "--data",
        data.toString(),
        "--batch",
        "4",
        "--epochs",
        "40",
        "--out",
        out.toString());
  }

  private static int run(List<String> arguments) {
    PrintWriter nobody = new PrintWriter(new StringWriter());
    return Main.run(new Console(nobody, nobody, false), arguments.toArray(String[]::new));
  }

  /** {@code script} gives the command a pseudo-terminal, whose Ctrl-C becomes SIGINT. */
  @Test
  @EnabledOnOs(OS.LINUX)
  void savesAndCanBeResumedBitForBit() throws Exception {
    Assumptions.assumeTrue(Files.isExecutable(Path.of("/usr/bin/script")), "no script(1)");
    Path whole = folder.resolve("whole");
    assertEquals(0, run(train(whole)));

    Path parts = folder.resolve("parts");
    // Where the tests run in the background, a shell lets its children ignore SIGINT; a terminal's
    // program does not.
    List<String> command = new ArrayList<>(List.of("env", "--default-signal=INT"));
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of("--enable-native-access=ALL-UNNAMED", "-cp"));
    command.add(System.getProperty("java.class.path"));
    command.add(Main.class.getName());
    command.addAll(train(parts));
    Process terminal =
        new ProcessBuilder("/usr/bin/script", "-qefc", quoted(command), "/dev/null")
            .redirectErrorStream(true)
            .start();
    StringBuilder seen = new StringBuilder();
    try (InputStream screen = terminal.getInputStream();
        OutputStream keys = terminal.getOutputStream()) {
      boolean pressed = false;
      byte[] bytes = new byte[4096];
      for (int n = screen.read(bytes); n >= 0; n = screen.read(bytes)) {
        seen.append(new String(bytes, 0, n, StandardCharsets.UTF_8));
        if (!pressed && seen.indexOf("epoch 2/40:") >= 0) {
          pressed = true;
          keys.write(CTRL_C);
          keys.flush();
        }
      }
    } finally {
      assertTrue(terminal.waitFor(60, TimeUnit.SECONDS));
    }
    assertTrue(seen.toString().contains("--resume " + parts), seen.toString());
    try (Checkpoint checkpoint = Checkpoint.open(parts.resolve("model.safetensors"))) {
      long step = checkpoint.state().step();
      assertTrue(step >= 12 && step < 240, "step " + step + "\n" + seen);
    }
    assertEquals(0, run(List.of("train", "--device", "cpu", "--resume", parts.toString())));
    assertArrayEquals(
        Files.readAllBytes(whole.resolve("model.safetensors")),
        Files.readAllBytes(parts.resolve("model.safetensors")));
  }

  private static String quoted(List<String> command) {
    List<String> words = new ArrayList<>();
    command.forEach(word -> words.add("'" + word.replace("'", "'\\''") + "'"));
    return String.join(" ", words);
  }
}
