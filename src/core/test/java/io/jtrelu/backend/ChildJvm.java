package io.jtrelu.backend;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Predicate;
import java.util.regex.Pattern;

/**
 * A Java process with a class path, a module path, options and an environment of the test's own.
 */
public final class ChildJvm {
  private final List<String> options = new ArrayList<>();
  private final Map<String, String> environment = new TreeMap<>();
  private String classPath = System.getProperty("java.class.path");
  private String modulePath = "";

  /** The folders and jars that this process runs with. */
  public static List<String> entries() {
    return Pattern.compile(File.pathSeparator, Pattern.LITERAL)
        .splitAsStream(System.getProperty("java.class.path"))
        .filter(entry -> !entry.isEmpty())
        .map(entry -> Path.of(entry).toAbsolutePath().toString())
        .toList();
  }

  /** Keeps some entries of this process's class path. */
  public ChildJvm classPath(Predicate<String> kept) {
    classPath = String.join(File.pathSeparator, entries().stream().filter(kept).toList());
    return this;
  }

  /** Moves some entries of the class path to the module path. */
  public ChildJvm modulePath(Predicate<String> moved) {
    List<String> all = List.of(classPath.split(File.pathSeparator, -1));
    modulePath = String.join(File.pathSeparator, all.stream().filter(moved).toList());
    classPath = String.join(File.pathSeparator, all.stream().filter(moved.negate()).toList());
    return this;
  }

  /** Adds options of the JVM. */
  public ChildJvm options(String... more) {
    options.addAll(Arrays.asList(more));
    return this;
  }

  /** Sets a variable of the environment. */
  public ChildJvm environment(String name, String value) {
    environment.put(name, value);
    return this;
  }

  /** Starts a main class; its errors are part of its output. */
  public Process start(Class<?> main, String... arguments) throws IOException {
    Process process = builder(main, arguments).start();
    process.getOutputStream().close();
    return process;
  }

  private ProcessBuilder builder(Class<?> main, String... arguments) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    // Over before the optimising compiler pays.
    command.addAll(List.of("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"));
    command.addAll(options);
    if (!modulePath.isEmpty()) {
      command.addAll(List.of("--module-path", modulePath));
    }
    command.addAll(List.of("-cp", classPath, main.getName()));
    command.addAll(Arrays.asList(arguments));
    ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().putAll(environment);
    return builder;
  }

  /** Runs a main class and returns what it printed, errors included; fails where it fails. */
  public String run(Class<?> main, String... arguments) {
    try {
      Process process = start(main, arguments);
      String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      int status = process.waitFor();
      if (status != 0) {
        throw new AssertionError(
            builder(main, arguments).command() + " ended with status " + status + ":\n" + output);
      }
      return output;
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    }
  }
}
