package io.jtrelu.endurance;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.Backends;
import io.jtrelu.cli.Main;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.BooleanSupplier;

/**
 * Trains on the emulated CUDA device in many orders of its work: as late as synchronisation allows,
 * and by seeds of the order of streams, graphs, blocks, warps and lanes. Each run must leave what
 * one leaves that does all work at once and in order, bit for bit, and nothing for the device's
 * checkers to find.
 */
final class OrdersTrial {
  private static final int STEPS_OF_EPOCH = 6;

  /** How the device begins its findings, where it tells them as they come. */
  private static final String FINDING = "[emulated CUDA device] error";

  private final Path folder;
  private final SmallRun run;
  private final Path atOnce;
  private int orders;
  private final List<String> failures = new ArrayList<>();

  /**
   * Trains once, with all work done at once.
   *
   * @param folder for all files; exists
   * @throws IOException if that does not succeed
   */
  OrdersTrial(Path folder, int epochs) throws IOException {
    this.folder = folder;
    this.run = SmallRun.on(folder.resolve("data"), "emulated", epochs, STEPS_OF_EPOCH);
    this.atOnce = folder.resolve("at-once");
    String problem = train(0, atOnce);
    if (!problem.isEmpty()) {
      throw new IOException("training fails even with all work done at once: " + problem);
    }
  }

  /** Why there is no emulated device here, if there is none. */
  static Optional<String> missing() {
    for (BackendProvider provider : Backends.providers()) {
      if (provider.name().equals("emulated")) {
        return provider.availability() instanceof Availability.Unavailable missing
            ? Optional.of(missing.reason())
            : Optional.empty();
      }
    }
    return Optional.of("the CUDA backend is not on the class path");
  }

  /** Told after every order. */
  @FunctionalInterface
  interface Listener {
    void told(OrdersTrial trial);
  }

  /**
   * Trains in some orders.
   *
   * @param first 1 is as late as synchronisation allows, others are seeds
   */
  void run(long first, int count, BooleanSupplier stop, Listener listener) throws IOException {
    for (long order = first; order < first + count && !stop.getAsBoolean(); order++) {
      Path out = folder.resolve("order-" + order);
      String problem = train(order, out);
      if (stop.getAsBoolean()) {
        return; // who stopped us has stopped the child too
      }
      if (problem.isEmpty()) {
        problem = String.join(", ", SmallRun.differences(out, atOnce));
      }
      orders++;
      if (problem.isEmpty()) {
        Folders.remove(out);
        Files.deleteIfExists(log(out));
      } else {
        failures.add("order " + order + ": " + problem);
      }
      listener.told(this);
    }
  }

  /** Trains in a process of its own; returns what went wrong. */
  private String train(long order, Path out) throws IOException {
    ProcessBuilder child =
        ChildJava.of(Main.class.getName(), List.of("-Xmx512m"), run.arguments(out))
            .redirectErrorStream(true)
            .redirectOutput(log(out).toFile());
    child.environment().put("JTRELU_EMULATOR_DELAY", "" + order);
    child.environment().put("JTRELU_EMULATOR_SEED", "" + order);
    child.environment().put("JTRELU_EMULATOR_VERBOSE", "1");
    Process process = child.start();
    try {
      int code = process.waitFor();
      List<String> said = Files.readAllLines(log(out));
      Optional<String> finding = said.stream().filter(line -> line.contains(FINDING)).findFirst();
      return finding.orElse(code == 0 ? "" : "exit code " + code + ", " + log(out));
    } catch (InterruptedException stopped) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", stopped);
    }
  }

  private static Path log(Path out) {
    return out.resolveSibling(out.getFileName() + ".log");
  }

  /** Orders tried. */
  int orders() {
    return orders;
  }

  /** What went wrong, with the order that repeats it. */
  List<String> failures() {
    return List.copyOf(failures);
  }

  /** The figures so far. */
  @Override
  public String toString() {
    return orders + " orders, " + failures.size() + " failures";
  }
}
