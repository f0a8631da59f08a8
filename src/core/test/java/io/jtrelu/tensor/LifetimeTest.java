package io.jtrelu.tensor;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;

class LifetimeTest {
  /** Whoever uses it never notices that another thread tries in vain to close it. */
  @Test
  void refusedClosesDisturbNoUse() throws InterruptedException {
    Lifetime lifetime = new Lifetime("thing");
    AtomicBoolean done = new AtomicBoolean();
    AtomicReference<Throwable> failure = new AtomicReference<>();
    lifetime.acquire();
    Thread closing =
        Thread.ofPlatform()
            .start(
                () -> {
                  try {
                    while (!done.get()) {
                      assertThrows(IllegalStateException.class, lifetime::close);
                    }
                  } catch (Throwable failed) {
                    failure.set(failed);
                  }
                });
    try {
      long until = System.nanoTime() + 200_000_000;
      while (System.nanoTime() < until) {
        lifetime.requireOpen();
        assertFalse(lifetime.isClosed());
        lifetime.acquire(); // of an operation within the operation
        lifetime.release();
      }
    } finally {
      done.set(true);
      closing.join();
    }
    assertNull(failure.get());
    lifetime.release();
    assertTrue(lifetime.close());
    assertFalse(lifetime.close());
    assertThrows(IllegalStateException.class, lifetime::acquire);
    assertThrows(IllegalStateException.class, lifetime::requireOpen);
  }
}
