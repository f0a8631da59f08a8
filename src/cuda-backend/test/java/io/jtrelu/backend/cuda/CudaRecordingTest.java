package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.junit.jupiter.api.Test;

/** Recordings of GPUs have all that they need. */
class CudaRecordingTest {
  private static final int LENGTH = 1000;

  private static Tensor vector(Backend backend, int elements) {
    return backend.allocate(Shape.of(elements), DataType.F32, Layout.ROW_MAJOR);
  }

  /**
   * Scratch memory of its own: it may run on another stream while operations run on the one that it
   * was recorded on, or after that one has closed.
   */
  @Test
  void outlivesItsStream() {
    try (Backend backend = EmulatedSubject.openPlain();
        Stream other = backend.newStream();
        Tensor x = vector(backend, LENGTH);
        Tensor norm = vector(backend, 2);
        Tensor normOnHost = Tensor.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        GradientNorm gradientNorm = backend.gradientNorm(LENGTH)) {
      long before = backend.memory().inUse();
      Recording recording;
      try (Stream stream = backend.newStream()) {
        recording = backend.record(stream, () -> gradientNorm.run(stream, x, 1, norm));
      }
      backend.fill(other, x, 3);
      recording.replay(other);
      backend.copy(other, norm, normOnHost);
      other.synchronize();
      assertEquals(3 * Math.sqrt(LENGTH), normOnHost.get(0), 1e-4);
      recording.close();
      assertEquals(before, backend.memory().inUse());
    }
  }

  /** What failed half-way leaves nothing behind. */
  @Test
  void failedRecordingsKeepNothing() {
    try (Backend backend = EmulatedSubject.openPlain();
        Stream stream = backend.newStream();
        Tensor x = vector(backend, LENGTH);
        Tensor norm = vector(backend, 2);
        GradientNorm gradientNorm = backend.gradientNorm(LENGTH)) {
      long before = backend.memory().inUse();
      for (int i = 0; i < 3; i++) {
        assertThrows(
            IllegalArgumentException.class,
            () ->
                backend.record(
                    stream,
                    () -> {
                      gradientNorm.run(stream, x, 1, norm);
                      throw new IllegalArgumentException("on purpose");
                    }));
        assertEquals(before, backend.memory().inUse());
      }
    }
  }
}
