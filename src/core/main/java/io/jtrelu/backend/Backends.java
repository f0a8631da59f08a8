package io.jtrelu.backend;

import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Finds backends and opens one by name. Thread-safe. */
public final class Backends {
  /** The largest number of lanes that can be asked for. */
  public static final int LARGEST_LANES = 256;

  private static final Pattern PROVIDER_CLASS = Pattern.compile("\\bProvider ([\\w.$]+)");

  /** A loader whose search itself fails would fail for ever. */
  private static final int MOST_FAILURES = 100;

  /**
   * What was said already. What is missing on a machine is said once in the life of a process,
   * however often and by whomever in it a backend is opened; no object lives as long, so this is
   * the one mutable static field here. It changes nothing but the log, and holds a few lines.
   */
  private static final Set<String> SAID = ConcurrentHashMap.newKeySet();

  private Backends() {}

  /**
   * All providers, best first: those that the class loader of this library sees, then those that
   * only the calling thread's context loader sees. One that cannot be loaded stands first, as a
   * provider of the name of its class that is not available for that reason.
   */
  public static List<BackendProvider> providers() {
    List<BackendProvider> providers = new ArrayList<>();
    find(Backends.class.getClassLoader(), providers);
    ClassLoader context = Thread.currentThread().getContextClassLoader();
    if (context != null) {
      find(context, providers);
    }
    providers.sort(Comparator.comparingInt(BackendProvider::priority).reversed());
    return providers;
  }

  private static void find(ClassLoader loader, List<BackendProvider> found) {
    var iterator = ServiceLoader.load(BackendProvider.class, loader).stream().iterator();
    int failures = 0;
    while (failures < MOST_FAILURES) {
      ServiceLoader.Provider<BackendProvider> next = null;
      try {
        if (!iterator.hasNext()) {
          return;
        }
        next = iterator.next();
        if (isNew(next.type().getName(), found)) {
          found.add(next.get());
        }
      } catch (ServiceConfigurationError | LinkageError failure) {
        failures++;
        String name = next != null ? next.type().getName() : providerOf(failure);
        // A loader that has a copy of this library besides ours names providers that are here.
        if (isNew(name, found)) {
          found.add(new UnloadableProvider(name, reason(failure)));
        }
      }
    }
  }

  private static boolean isNew(String className, List<BackendProvider> found) {
    return found.stream()
        .noneMatch(
            provider ->
                provider.getClass().getName().equals(className)
                    || provider.name().equals(className));
  }

  private static String providerOf(Throwable failure) {
    Matcher matcher = PROVIDER_CLASS.matcher(String.valueOf(failure.getMessage()));
    return matcher.find() ? matcher.group(1) : "unknown";
  }

  private static String reason(Throwable failure) {
    Throwable cause = failure.getCause();
    return "it cannot be loaded ("
        + failure.getMessage()
        + (cause == null ? "" : ": " + cause)
        + "): see that its jar and those it needs are of one version, and all there";
  }

  /** In place of a provider that could not be loaded. */
  private record UnloadableProvider(String name, String reason) implements BackendProvider {
    @Override
    public int priority() {
      return Integer.MAX_VALUE; // it might have been the best
    }

    @Override
    public Availability availability() {
      return new Availability.Unavailable(reason);
    }

    @Override
    public Backend open(int index) {
      throw new BackendUnavailableException(name + ": " + reason);
    }
  }

  /**
   * Opens a device by its specification. The caller closes the result.
   *
   * <p>What a number means depends on the backend: on a GPU it is the device's index, {@code
   * cuda:1}, from 0; on the CPU it is the number of lanes, {@code cpu:4}, from 1 to {@value
   * #LARGEST_LANES}, which may be more than there are cores. Without a number it is the first
   * device, or a lane for each core.
   *
   * @param specification {@code auto} (the best that is available), {@code cpu} (the best on the
   *     CPU), or a provider's name: {@code cuda}, {@code onednn}, {@code reference}. The latter two
   *     kinds take a number. A provider asked for by name is never replaced by another; why one
   *     that would have been better was not taken is logged, once per process
   * @throws BackendUnavailableException if it cannot be used, with the reason
   * @throws IllegalArgumentException if the name is unknown, with those that are known, or the
   *     number is none
   */
  public static Backend open(String specification) {
    return open(specification, 0);
  }

  /**
   * As above, in one of several processes of a machine: where GPUs are meant and none is named by
   * its number, each process takes another one, in turn.
   *
   * @param process its number on the machine, from 0
   */
  public static Backend open(String specification, int process) {
    if (process < 0) {
      throw new IllegalArgumentException("processes are numbered from 0, got " + process);
    }
    String text = specification.strip().toLowerCase(Locale.ROOT);
    int colon = text.indexOf(':');
    String name = colon < 0 ? text : text.substring(0, colon);
    @Nullable Integer number = colon < 0 ? null : number(specification, text.substring(colon + 1));
    List<BackendProvider> providers = providers();
    if (name.equals("auto") && number != null) {
      throw new IllegalArgumentException(
          "device '" + specification + "': auto takes no number; cpu:4 and cuda:1 do");
    }
    if (name.equals("auto") || name.equals("cpu")) {
      return openBest(specification, providers, name.equals("cpu"), number, process);
    }
    for (BackendProvider provider : providers) {
      if (provider.name().equals(name)) {
        return open(specification, provider, number, process);
      }
    }
    throw new IllegalArgumentException(
        "unknown device '"
            + specification
            + "'; known are auto, cpu, "
            + String.join(", ", providers.stream().map(BackendProvider::name).toList()));
  }

  private static int number(String specification, String digits) {
    try {
      return Integer.parseUnsignedInt(digits);
    } catch (NumberFormatException notANumber) {
      throw new IllegalArgumentException(
          "device '"
              + specification
              + "': behind the colon stands a number: of a GPU, as in cuda:0, or of lanes on the"
              + " CPU, as in cpu:4",
          notANumber);
    }
  }

  private static Backend open(
      String specification, BackendProvider provider, @Nullable Integer number, int process) {
    if (number == null) {
      return provider.open(
          process > 0
                  && !provider.onCpu()
                  && provider.availability() instanceof Availability.Available available
              ? process % Math.max(1, available.devices().size())
              : 0);
    }
    if (!provider.onCpu()) {
      return provider.open(number);
    }
    if (number < 1 || number > LARGEST_LANES) {
      throw new IllegalArgumentException(
          "device '"
              + specification
              + "': on the CPU the number is that of lanes, from 1 to "
              + LARGEST_LANES
              + ", got "
              + Integer.toUnsignedString(number));
    }
    return provider.openWithLanes(number);
  }

  private static Backend openBest(
      String specification,
      List<BackendProvider> providers,
      boolean cpuOnly,
      @Nullable Integer number,
      int process) {
    List<String> reasons = new ArrayList<>();
    boolean slow = false;
    for (BackendProvider provider : providers) {
      if (provider.priority() < 0 || (cpuOnly && !provider.onCpu())) {
        continue; // a negative priority is for those asked for by name only
      }
      switch (provider.availability()) {
        case Availability.Available available -> {
          if (!reasons.isEmpty()) {
            logOnce(
                slow ? Level.WARNING : Level.INFO,
                "computes with " + provider.name() + ": " + String.join("; ", reasons));
          }
          return open(specification, provider, number, process);
        }
        case Availability.Unavailable unavailable -> {
          reasons.add(provider.name() + " is not available: " + unavailable.reason());
          slow |= provider.onCpu(); // any machine has a CPU: there is something to be done about it
        }
      }
    }
    throw new BackendUnavailableException("no backend is available: " + String.join("; ", reasons));
  }

  /**
   * Logs a line to {@code io.jtrelu.backend} unless this process has logged it before. For
   * providers: what is missing on a machine is said once.
   */
  public static void logOnce(Level level, String line) {
    if (SAID.add(line)) {
      System.getLogger("io.jtrelu.backend").log(level, line);
    }
  }
}
