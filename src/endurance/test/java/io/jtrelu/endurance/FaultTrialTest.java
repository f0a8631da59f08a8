package io.jtrelu.endurance;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The short form of {@code src/endurance/run faults}. */
class FaultTrialTest {
  @TempDir Path folder;

  @Test
  void trainingSurvivesCallsThatFail() throws IOException, InterruptedException {
    FaultLibrary.missing().ifPresent(reason -> Assumptions.abort(reason));
    Process child =
        FaultsCommand.child(
                folder.toRealPath(),
                "reference",
                29,
                List.of("write:EIO", "write:ENOSPC", "write:half", "fsync:EIO", "rename:ENOSPC"))
            .redirectErrorStream(true)
            .start();
    String said = new String(child.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, child.waitFor(), said);
    assertTrue(said.matches("(?s).*\\b[1-9][0-9]+ faults, 0 checkpoints lost, 0 .*"), said);
  }
}
