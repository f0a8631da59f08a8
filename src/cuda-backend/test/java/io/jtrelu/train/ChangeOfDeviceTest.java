package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.cuda.EmulatedSubject;
import io.jtrelu.data.Datasets;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Runs that change from one device to another. */
class ChangeOfDeviceTest {
  @TempDir Path folder;

  /** A micro-batch is for CPUs: a device that takes whole batches goes on without it. */
  @Test
  void runWithMicroBatchesGoesOnOnADeviceThatTakesWholeBatches() throws IOException {
    Datasets data = TrainerTest.data(60, 9);
    Run start = TrainerTest.withoutChance(2, data);
    float[] whole;
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.start(start, data, backend, null)) {
      while (!trainer.finished()) {
        trainer.step();
      }
      whole = TrainerTest.parameters(trainer);
    }
    Path run = folder.resolve("run");
    try (Backend backend = Backends.open("cpu");
        Trainer trainer = Trainer.start(start, data, backend, run)) {
      trainer.step();
      trainer.save();
    }
    try (Backend backend = new EmulatedSubject().open();
        Trainer trainer = Trainer.resume(run, data, backend)) {
      assertEquals(1, trainer.steps());
      while (!trainer.finished()) {
        trainer.step();
      }
      Tensor arena = trainer.parameters().arena();
      try (Stream stream = backend.newStream();
          Tensor host = Tensor.allocate(arena.shape(), arena.type(), arena.layout())) {
        backend.copy(stream, arena, host);
        stream.synchronize();
        assertArrayEquals(whole, host.toFloatArray(), 1e-3f); // sums in another order
      }
    }
  }
}
