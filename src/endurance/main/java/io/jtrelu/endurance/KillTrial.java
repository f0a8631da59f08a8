package io.jtrelu.endurance;

import io.jtrelu.cli.Main;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/**
 * Kills training with SIGKILL at random moments and resumes it, until it has finished: a chain. Its
 * folder must then be what an undisturbed run leaves, bit for bit, and after every kill hold a
 * checkpoint that is whole and no older than the one before.
 */
final class KillTrial {
  private static final int STEPS_OF_EPOCH = 6;
  private static final long LONGEST_SECONDS = 300;

  private final Path folder;
  private final long seed;
  private final SmallRun run;
  private final Path undisturbed;

  /** Longest wait for a kill; follows the machine's load, so that kills meet training. */
  private double seconds;

  private int kills;
  private int chains;
  private int lost;
  private int different;
  private int leftovers;
  private final List<String> failures = Collections.synchronizedList(new ArrayList<>());

  /**
   * Trains once, undisturbed.
   *
   * @param folder for all files; exists
   * @throws IOException if that does not succeed
   */
  KillTrial(Path folder, String device, int epochs, long seed) throws IOException {
    this.folder = folder;
    this.seed = seed;
    this.run = SmallRun.on(folder.resolve("data"), device, epochs, STEPS_OF_EPOCH);
    this.undisturbed = folder.resolve("undisturbed");
    long begin = System.nanoTime();
    Process process = start(undisturbed);
    if (!ended(process, LONGEST_SECONDS) || process.exitValue() != 0) {
      process.destroyForcibly();
      throw new IOException("training fails even undisturbed:\n" + said(undisturbed));
    }
    this.seconds = (System.nanoTime() - begin) * 1e-9;
  }

  /** Told after every kill and every chain. */
  @FunctionalInterface
  interface Listener {
    void told(KillTrial trial);
  }

  /**
   * Kills.
   *
   * @param goal kills after which the last chain is left to finish
   * @param stop whether to give up the chain that is under way
   */
  void run(int goal, BooleanSupplier stop, Listener listener) throws IOException {
    for (int chain = 0; kills < goal && !stop.getAsBoolean(); chain++) {
      Path out = folder.resolve("chain-" + chain);
      int before = failures.size();
      if (!chain(chain, out, goal, stop, listener)) {
        return;
      }
      chains++;
      listener.told(this);
      if (failures.size() == before) { // else it stays, to be looked at
        Folders.remove(out);
        Files.deleteIfExists(log(out));
      }
    }
  }

  /** Runs a chain to its end, or its first failure; false if it was given up. */
  private boolean chain(int chain, Path out, int goal, BooleanSupplier stop, Listener listener)
      throws IOException {
    SplittableRandom random = new SplittableRandom(seed + chain);
    long steps = -1;
    while (true) {
      double wait = kills < goal ? random.nextDouble() * seconds : LONGEST_SECONDS;
      Process process = start(out);
      boolean ended = ended(process, wait);
      if (!ended) {
        process.destroyForcibly();
        ended(process, LONGEST_SECONDS);
      }
      if (stop.getAsBoolean()) {
        return false; // who stopped us has stopped the child too
      }
      if (ended && process.exitValue() != 0) {
        lost++;
        fail(chain, "does not go on after step " + steps + ":\n" + said(out));
        return true;
      }
      if (ended) {
        seconds *= 0.8;
        finished(chain, out);
        return true;
      }
      if (wait == LONGEST_SECONDS) {
        fail(chain, "hangs after step " + steps);
        return true;
      }
      kills++;
      listener.told(this);
      try {
        long now = SmallRun.steps(out);
        if (now < steps) {
          throw new IOException("the checkpoint of step " + steps + " became one of step " + now);
        }
        seconds *= now == steps ? 1.05 : 1;
        steps = now;
      } catch (IOException | RuntimeException damaged) {
        lost++;
        fail(chain, "lost its checkpoint of step " + steps + ": " + damaged);
        return true;
      }
    }
  }

  private void finished(int chain, Path out) throws IOException {
    List<String> differences = SmallRun.differences(out, undisturbed);
    if (!differences.isEmpty()) {
      different++;
      fail(chain, "ended otherwise than an undisturbed run: " + String.join(", ", differences));
    }
    List<String> left = SmallRun.leftovers(out);
    if (!left.isEmpty()) {
      leftovers += left.size();
      fail(chain, "left " + String.join(", ", left));
    }
  }

  private void fail(int chain, String what) {
    failures.add("seed " + (seed + chain) + ": " + what);
  }

  private Process start(Path out) throws IOException {
    return ChildJava.of(Main.class.getName(), options(), run.arguments(out))
        .redirectErrorStream(true)
        .redirectOutput(ProcessBuilder.Redirect.appendTo(log(out).toFile()))
        .start();
  }

  /** What lets a JVM start soon: most of them do not live long. */
  private List<String> options() {
    List<String> options = new ArrayList<>(List.of("-Xmx512m", "-XX:TieredStopAtLevel=1"));
    boolean jars =
        Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator, -1))
            .allMatch(entry -> entry.endsWith(".jar"));
    if (jars) { // archives of classes do not know folders
      options.addAll(List.of("-Xlog:disable", "-XX:+AutoCreateSharedArchive"));
      options.add("-XX:SharedArchiveFile=" + folder.resolve("classes.jsa"));
    }
    return options;
  }

  private static boolean ended(Process process, double seconds) throws IOException {
    try {
      return process.waitFor(Math.round(seconds * 1e9), TimeUnit.NANOSECONDS);
    } catch (InterruptedException stopped) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", stopped);
    }
  }

  private static Path log(Path out) {
    return out.resolveSibling(out.getFileName() + ".log");
  }

  private static String said(Path out) throws IOException {
    String all = Files.readString(log(out));
    return all.substring(Math.max(0, all.length() - 2000));
  }

  /** Processes killed. */
  int kills() {
    return kills;
  }

  /** What went wrong, with the seed that repeats it as that of a trial's first chain. */
  List<String> failures() {
    return List.copyOf(failures);
  }

  /** The figures so far. */
  @Override
  public String toString() {
    return kills
        + " kills, "
        + chains
        + " chains, "
        + lost
        + " checkpoints lost, "
        + different
        + " chains different, "
        + leftovers
        + " leftovers";
  }
}
