package io.jtrelu.endurance;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The short form of {@code src/endurance/run orders}. */
class OrdersTrialTest {
  @TempDir Path folder;

  @Test
  void trainingIsTheSameInWhateverOrderTheDeviceWorks() throws IOException {
    Optional<String> missing = OrdersTrial.missing();
    assumeTrue(missing.isEmpty(), () -> missing.orElse(""));
    OrdersTrial trial = new OrdersTrial(folder, 1);
    trial.run(1, 2, () -> false, told -> {});
    assertEquals(List.of(), trial.failures());
    assertEquals(2, trial.orders());
  }
}
