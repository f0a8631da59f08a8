package io.jtrelu.distributed;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import java.time.Duration;

/** Ranks of which the last one does something else than the others. */
final class LateRank {
  private LateRank() {}

  /** What the last rank does: it sleeps, dies, throws, or leaves. */
  public static void main(String[] arguments) throws InterruptedException {
    Communicator ranks = Communicator.open(Duration.ofSeconds(2));
    try (Backend backend = Backends.open("reference");
        Stream stream = backend.newStream()) {
      ranks.barrier(stream);
      if (ranks.rank() == ranks.size() - 1) {
        switch (arguments[0]) {
          case "sleeps" -> Thread.sleep(20_000);
          case "dies" -> ProcessHandle.current().pid();
          case "differs" -> ranks.gatherTexts("something else");
          default -> throw new IllegalStateException("this rank fails by itself");
        }
        if (arguments[0].equals("dies")) {
          Runtime.getRuntime().halt(9);
        }
      }
      ranks.barrier(stream);
      ranks.close();
    } catch (RuntimeException failure) {
      System.out.println("rank " + ranks.rank() + " says: " + failure.getMessage());
      ranks.abort(5);
    }
  }
}
