package io.jtrelu.endurance;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.DisabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** The short form of {@code src/endurance/run kill}. */
@DisabledOnOs(OS.WINDOWS)
class KillTrialTest {
  @TempDir Path folder;

  @Test
  void killedTrainingEndsAsIfNothingHadHappened() throws IOException {
    KillTrial trial = new KillTrial(folder, "reference", 4, 1);
    trial.run(5, () -> false, told -> {});
    assertEquals(List.of(), trial.failures());
    assertEquals(5, trial.kills());
    assertTrue(trial.toString().contains("0 checkpoints lost"), trial.toString());
  }
}
