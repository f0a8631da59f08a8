package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RunLockTest {
  @TempDir Path folder;

  /** A child process that takes a folder and keeps it until it is killed. */
  static final class Holder {
    private Holder() {}

    public static void main(String[] arguments) throws IOException {
      RunLock lock = RunLock.take(Path.of(arguments[0]));
      System.out.println("taken");
      System.out.flush();
      System.in.read(); // for ever: the parent kills
      lock.close();
    }
  }

  @Test
  void aSecondWriterIsRefusedByNameAndProcess() throws Exception {
    Process child =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp",
                System.getProperty("java.class.path"),
                Holder.class.getName(),
                folder.toString())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    try (BufferedReader output = child.inputReader()) {
      assertEquals("taken", output.readLine());
      String message = assertThrows(IOException.class, () -> RunLock.take(folder)).getMessage();
      assertTrue(message.contains("process " + child.pid()), message);
      assertTrue(message.contains(folder.toString()), message);
    } finally {
      child.destroyForcibly();
    }
    assertTrue(child.waitFor(20, TimeUnit.SECONDS));
    RunLock.take(folder).close(); // a process that was killed holds nothing
    assertEquals(0, Files.size(folder.resolve(RunLock.FILE)));
  }

  @Test
  void theSameProcessIsRefusedToo() throws IOException {
    RunLock first = RunLock.take(folder);
    String message = assertThrows(IOException.class, () -> RunLock.take(folder)).getMessage();
    assertTrue(message.contains("this process, " + ProcessHandle.current().pid()), message);
    first.close();
    first.close();
    RunLock.take(folder).close();
  }
}
