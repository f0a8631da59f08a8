package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.BackendUnavailableException;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MainTest {
  private record Result(int exitCode, String out, String err) {}

  private static Result run(String... arguments) {
    StringWriter out = new StringWriter();
    StringWriter err = new StringWriter();
    int exitCode =
        Main.run(new Console(new PrintWriter(out), new PrintWriter(err), false), arguments);
    return new Result(exitCode, out.toString(), err.toString());
  }

  @Test
  void helpAndVersionSucceed() {
    Result help = run("--help");
    assertEquals(0, help.exitCode());
    assertTrue(help.out().contains("devices") && help.out().contains("Exit codes:"), help.out());
    Result version = run("--version");
    assertEquals(0, version.exitCode());
    assertTrue(version.out().startsWith("jtrelu "), version.out());
    assertEquals(0, run("devices", "--help").exitCode());
    assertEquals("", help.err() + version.err());
  }

  @Test
  void wrongUsageEndsWith2AndAHint() {
    assertEquals(new Result(2, "", "error: a command is missing\nSee jtrelu --help\n"), run());
    Result command = run("devises");
    assertEquals(2, command.exitCode());
    assertTrue(command.err().contains("did you mean 'devices'?"), command.err());
    Result option = run("devices", "--jsno");
    assertEquals(2, option.exitCode());
    assertTrue(
        option.err().contains("did you mean '--json'?\nSee jtrelu devices --help"), option.err());
    Result nothingNear = run("frobnicate");
    assertEquals(2, nothingNear.exitCode());
    assertFalse(nothingNear.err().contains("did you mean"), nothingNear.err());
  }

  @Test
  void stackTracesAreForVerboseOnly() {
    assertFalse(run("devises").err().contains("\tat "));
    assertTrue(run("--verbose", "devices", "--jsno").err().contains("\tat "));
    assertTrue(run("devices", "--verbose", "--jsno").err().contains("\tat "));
  }

  @Test
  void devicesPrintsJson() throws IOException {
    Result result = run("devices", "--json");
    assertEquals(0, result.exitCode());
    assertTrue(new ObjectMapper().readTree(result.out()).isArray(), result.out());
  }

  private record Provider(String name, int priority, Availability availability)
      implements BackendProvider {
    @Override
    public Backend open(int index) {
      throw new BackendUnavailableException("never opened");
    }
  }

  private static final List<BackendProvider> PROVIDERS =
      List.of(
          new Provider("cuda", 20, new Availability.Unavailable("no driver: install one")),
          new Provider("onednn", 10, new Availability.Available("3.11", List.of("8 cores"))),
          new Provider("reference", 0, new Availability.Available("1", List.of())),
          new Provider("hidden", -1, new Availability.Available("1", List.of())));

  @Test
  void devicesSaysWhatIsThereAndWhyNot() throws IOException {
    assertEquals(
        """
        cuda      not available: no driver: install one
        onednn    available, version 3.11 (taken by default)
                  8 cores
        reference available, version 1
        hidden    available, version 1""",
        DevicesCommand.text(DevicesCommand.look(PROVIDERS)));
    JsonNode json =
        new ObjectMapper()
            .readTree(DevicesCommand.json(DevicesCommand.look(PROVIDERS), "Java's ImageIO"));
    assertEquals(
        new ObjectMapper()
            .readTree(
                """
                [{"name": "cuda", "available": false, "reason": "no driver: install one",
                  "default": false},
                 {"name": "onednn", "available": true, "version": "3.11",
                  "devices": ["8 cores"], "default": true},
                 {"name": "reference", "available": true, "version": "1", "devices": [],
                  "default": false},
                 {"name": "hidden", "available": true, "version": "1", "devices": [],
                  "default": false},
                 {"name": "jpeg", "available": true, "decoder": "Java's ImageIO"}]"""),
        json);
  }

  @Test
  void devicesNamesLibraries() throws IOException {
    List<DevicesCommand.Device> devices =
        List.of(
            new DevicesCommand.Device(
                "cuda",
                new Availability.Available("CUDA 13.0", List.of("cuda:0 H200")),
                true,
                List.of("cuBLAS 13.0.0 (/lib)")));
    assertEquals(
        """
        cuda      available, version CUDA 13.0 (taken by default)
                  cuda:0 H200
                  cuBLAS 13.0.0 (/lib)""",
        DevicesCommand.text(devices));
    JsonNode json = new ObjectMapper().readTree(DevicesCommand.json(devices, "Java's ImageIO"));
    assertEquals("cuBLAS 13.0.0 (/lib)", json.get(0).get("libraries").get(0).asText());
  }

  @Test
  void failuresAreToldInWords(@TempDir Path folder) {
    Path missing = folder.resolve("missing");
    try {
      Files.readString(missing);
    } catch (NoSuchFileException failure) {
      assertEquals("there is no file or folder " + missing, ErrorMessage.of(failure));
      assertEquals(
          "there is no file or folder " + missing,
          ErrorMessage.of(new UncheckedIOException(failure)));
    } catch (IOException other) {
      throw new UncheckedIOException(other);
    }
    assertEquals("no GPU", ErrorMessage.of(new BackendUnavailableException("no GPU")));
    assertEquals("bad", ErrorMessage.of(new IllegalArgumentException("bad")));
    assertTrue(ErrorMessage.of(new NullPointerException()).startsWith("internal error: "));
    assertTrue(ErrorMessage.of(new IllegalStateException()).startsWith("internal error: "));
    assertTrue(ErrorMessage.of(new OutOfMemoryError()).contains("JTRELU_JAVA_OPTS"));
  }

  @Test
  void progressInLinesGivesTheTimeLeft() {
    StringWriter err = new StringWriter();
    Console console = new Console(new PrintWriter(err), new PrintWriter(err), false);
    ProgressInLines progress = new ProgressInLines(console, "train", 0, 400);
    // 100 of 400 steps took 30 s, so 300 more take 90 s.
    assertEquals("train 100/400, 1:30 left, loss 0.8", progress.status(100, "loss 0.8", 30));
    assertEquals("train 0/400, loss 2.3", progress.status(0, "loss 2.3", 0));
    try (Progress shown = console.progress("train", 0, 400)) {
      shown.update(1, "loss 2.3"); // too soon for a line
      shown.line("epoch 1: 80 %");
    }
    assertEquals("epoch 1: 80 %\n", err.toString());
  }
}
