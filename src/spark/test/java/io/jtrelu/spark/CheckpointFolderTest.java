package io.jtrelu.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.jtrelu.train.Run;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.apache.hadoop.conf.Configuration;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CheckpointFolderTest {
  @TempDir Path temporary;

  private Path run(String content) throws IOException {
    Path folder = Files.createTempDirectory(temporary, "run");
    for (String file : List.of(Run.FILE, Trainer.METRICS, Trainer.CHECKPOINT)) {
      Files.writeString(folder.resolve(file), content + " " + file);
    }
    return folder;
  }

  /** One that was not completed is as if it were not there. */
  @Test
  void theLastCompleteOneIsKept() throws IOException {
    Path root = temporary.resolve("kept in / here");
    CheckpointFolder folder = CheckpointFolder.of(root.toUri().toString(), new Configuration());
    assertEquals(Optional.empty(), folder.last());
    folder.save(run("first"), 9);
    folder.save(run("second"), 10);
    Files.createDirectories(root.resolve("step-000000000011"));
    String last = folder.last().orElseThrow();
    assertEquals("step-000000000010", last);
    Path to = Files.createDirectory(temporary.resolve("fetched"));
    folder.fetch(last, to);
    assertEquals("second model.safetensors", Files.readString(to.resolve(Trainer.CHECKPOINT)));
    assertEquals("second config.json", Files.readString(to.resolve(Run.FILE)));
    folder.save(run("third"), 11);
    try (Stream<Path> left = Files.list(root)) {
      assertEquals(
          List.of("step-000000000011"), left.map(p -> p.getFileName().toString()).toList());
    }
  }
}
