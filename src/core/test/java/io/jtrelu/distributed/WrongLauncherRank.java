package io.jtrelu.distributed;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/** A rank that takes its launcher for another one's. */
final class WrongLauncherRank {
  private WrongLauncherRank() {}

  /** Prints why it cannot open a communicator. */
  public static void main(String[] arguments) {
    Map<String, String> environment = new HashMap<>(System.getenv());
    if (environment.containsKey("JTRELU_TEST_LAUNCHER")) {
      environment.keySet().removeIf(name -> name.startsWith("OMPI_COMM_WORLD"));
      environment.put("PMI_SIZE", "2");
      environment.put("PMI_RANK", "0");
    }
    try (Communicator ranks = Communicator.open(environment, Duration.ofSeconds(5))) {
      System.out.println("opened " + ranks.name());
    } catch (DistributedException refused) {
      System.out.println(refused.getMessage());
      Runtime.getRuntime().halt(4);
    }
  }
}
