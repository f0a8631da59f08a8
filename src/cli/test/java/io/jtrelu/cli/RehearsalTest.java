package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RehearsalTest {
  @Test
  void itsCommandsWork(@TempDir Path folder) {
    assertEquals(0, Rehearsal.run(folder));
    assertTrue(Files.exists(folder.resolve("run/model.safetensors")), "a network was trained");
  }
}
