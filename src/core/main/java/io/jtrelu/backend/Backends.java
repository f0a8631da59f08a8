package io.jtrelu.backend;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.ServiceLoader;

/** Finds backends and opens one by name. */
public final class Backends {
  private Backends() {}

  /** All providers on the class path, best first. */
  public static List<BackendProvider> providers() {
    List<BackendProvider> providers = new ArrayList<>();
    ServiceLoader.load(BackendProvider.class).forEach(providers::add);
    providers.sort(Comparator.comparingInt(BackendProvider::priority).reversed());
    return providers;
  }

  /**
   * Opens a device by its specification. The caller closes the result.
   *
   * @param specification {@code auto} (the best that is available; why better ones are not is
   *     logged), {@code cpu} (the best on the CPU), or a provider's name with an optional index
   *     such as {@code cuda:1}; a provider asked for by name is never replaced by another
   * @throws BackendUnavailableException if it cannot be used, with the reason
   * @throws IllegalArgumentException if the name is unknown, with those that are known
   */
  public static Backend open(String specification) {
    String text = specification.strip().toLowerCase(Locale.ROOT);
    List<BackendProvider> providers = providers();
    if (text.equals("auto") || text.equals("cpu")) {
      return openBest(providers, text.equals("cpu"));
    }
    String name = text;
    int index = 0;
    int colon = text.indexOf(':');
    if (colon >= 0) {
      name = text.substring(0, colon);
      try {
        index = Integer.parseUnsignedInt(text.substring(colon + 1));
      } catch (NumberFormatException notANumber) {
        throw new IllegalArgumentException(
            "device '" + specification + "': a device index is a number, as in cuda:0", notANumber);
      }
    }
    for (BackendProvider provider : providers) {
      if (provider.name().equals(name)) {
        return provider.open(index);
      }
    }
    throw new IllegalArgumentException(
        "unknown device '"
            + specification
            + "'; known are auto, cpu, "
            + String.join(", ", providers.stream().map(BackendProvider::name).toList()));
  }

  private static Backend openBest(List<BackendProvider> providers, boolean cpuOnly) {
    List<String> reasons = new ArrayList<>();
    for (BackendProvider provider : providers) {
      if (provider.priority() < 0 || (cpuOnly && provider.name().equals("cuda"))) {
        continue; // a negative priority is for those asked for by name only
      }
      switch (provider.availability()) {
        case Availability.Available available -> {
          for (String reason : reasons) {
            System.getLogger("io.jtrelu.backend").log(System.Logger.Level.INFO, reason);
          }
          return provider.open(0);
        }
        case Availability.Unavailable unavailable ->
            reasons.add(provider.name() + " is not available: " + unavailable.reason());
      }
    }
    throw new BackendUnavailableException("no backend is available: " + String.join("; ", reasons));
  }
}
