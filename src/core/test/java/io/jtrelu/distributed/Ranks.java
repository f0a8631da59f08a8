package io.jtrelu.distributed;

import io.jtrelu.backend.Availability;
import io.jtrelu.distributed.Launcher.Family;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;

/** Processes of this class path that an MPI's launcher starts, for tests; they have two minutes. */
public final class Ranks {
  private static final int SECONDS = 120;

  private final Family family;
  private final int count;
  private final Map<String, String> environment = new TreeMap<>();

  /** What became of the processes: the launcher's exit code, and what all of them printed. */
  public record Outcome(int status, String output, double seconds) {
    /** Fails unless all ended well. */
    public String succeeded() {
      if (status != 0) {
        throw new AssertionError("ended with status " + status + ":\n" + output);
      }
      return output;
    }
  }

  private Ranks(Family family, int count) {
    this.family = family;
    this.count = count;
  }

  /** So many processes; the test is skipped where that MPI is not there. */
  public static Ranks of(Family family, int count) {
    if (MpiCommunicator.availability(family) instanceof Availability.Unavailable missing) {
      Assumptions.abort(missing.reason());
    }
    Assumptions.assumeTrue(
        Files.isExecutable(launcher(family)), launcher(family) + " is not installed");
    return new Ranks(family, count);
  }

  private static Path launcher(Family family) {
    return Path.of("/usr/bin", family == Family.OPENMPI ? "mpirun.openmpi" : "mpiexec.mpich");
  }

  /** Sets a variable of the processes' environment. */
  public Ranks with(String variable, String value) {
    environment.put(variable, value);
    return this;
  }

  /** Runs a main class on all ranks. */
  public Outcome run(Class<?> main, String... arguments) {
    return run(List.of(), main, arguments);
  }

  /** The same, with options of the virtual machine. */
  public Outcome run(List<String> options, Class<?> main, String... arguments) {
    List<String> command = new ArrayList<>(List.of(launcher(family).toString()));
    if (family == Family.OPENMPI) {
      command.addAll(List.of("--oversubscribe", "--bind-to", "none"));
    }
    command.addAll(List.of("-np", String.valueOf(count)));
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(
        List.of("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"));
    command.addAll(List.of("--enable-native-access=ALL-UNNAMED", "-Djava.awt.headless=true"));
    command.addAll(options);
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), main.getName()));
    command.addAll(List.of(arguments));
    ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().put("OMPI_ALLOW_RUN_AS_ROOT", "1");
    builder.environment().put("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    builder.environment().putAll(environment);
    long begin = System.nanoTime();
    try {
      Path output = Files.createTempFile("jtrelu-ranks", ".txt");
      try {
        Process process = builder.redirectOutput(output.toFile()).start();
        process.getOutputStream().close();
        boolean ended = process.waitFor(SECONDS, TimeUnit.SECONDS);
        if (!ended) {
          process.descendants().forEach(ProcessHandle::destroyForcibly);
          process.destroyForcibly().waitFor();
        }
        String text = new String(Files.readAllBytes(output), StandardCharsets.UTF_8);
        if (!ended) {
          throw new AssertionError(command + " did not end in " + SECONDS + " s:\n" + text);
        }
        return new Outcome(process.exitValue(), text, (System.nanoTime() - begin) * 1e-9);
      } finally {
        Files.delete(output);
      }
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    }
  }
}
