package io.jtrelu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.DiagnosticCollector;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The README's example must compile and run as it stands, and be as short as its heading says. */
class ReadmeTest {
  private static final String IMPORTS =
      """
      import io.jtrelu.activation.*;
      import io.jtrelu.backend.*;
      import io.jtrelu.shaping.*;
      import io.jtrelu.tensor.*;
      """;

  @TempDir Path folder;

  @Test
  void theExampleCompilesAndRuns() throws Exception {
    Matcher code =
        Pattern.compile("## The API in 15 lines\n.*?```java\n(.*?)```", Pattern.DOTALL)
            .matcher(Files.readString(Path.of("README.md")));
    assertTrue(code.find(), "the README has no example");
    String body = code.group(1);
    long statements = body.lines().filter(line -> !line.equals("}")).count();
    assertTrue(statements <= 15, statements + " lines");
    Path source = folder.resolve("Example.java");
    Files.writeString(
        source, IMPORTS + "public class Example { public static void run() {\n" + body + "}}\n");
    JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    DiagnosticCollector<JavaFileObject> problems = new DiagnosticCollector<>();
    try (var files = compiler.getStandardFileManager(problems, null, null)) {
      List<String> options = List.of("-d", folder.toString());
      boolean compiled =
          compiler
              .getTask(null, files, problems, options, null, files.getJavaFileObjects(source))
              .call();
      assertTrue(compiled, problems.getDiagnostics().toString());
    }
    try (URLClassLoader loader = new URLClassLoader(new URL[] {folder.toUri().toURL()})) {
      Method run = loader.loadClass("Example").getMethod("run");
      run.invoke(null);
    }
    assertEquals(1, body.split("Backends.open", -1).length - 1);
  }
}
