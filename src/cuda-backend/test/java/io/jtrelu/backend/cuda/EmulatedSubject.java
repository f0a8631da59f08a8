package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Subject;
import io.jtrelu.tensor.DataType;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import org.junit.jupiter.api.Assumptions;

/**
 * The CUDA backend on the emulated device. Each stream that is made has the device work in another
 * order: as late as synchronisation allows, so that a wait that is missing shows, or by one of
 * three seeds. Every open backend must end without a finding of the device's checkers; and blocks,
 * warps and lanes run in another order after each copy, so that what depends on the order differs
 * between the two runs of a case.
 */
public final class EmulatedSubject implements Subject {
  /** In which the device works: late, and by seeds. */
  private static final long[] ORDERS = {1, 2, 1, 3, 1, 4};

  /** For {@link java.util.ServiceLoader}. */
  public EmulatedSubject() {}

  @Override
  public String name() {
    return "emulated";
  }

  @Override
  public int randomCases() {
    return 60;
  }

  @Override
  public long largestConvolution() {
    return 300_000;
  }

  @Override
  public int largestVector() {
    return 20_000;
  }

  @Override
  public boolean addsInTensorCores(DataType type) {
    return type != DataType.F32;
  }

  @Override
  public int largestMatrix() {
    return 97; // four blocks of rows, and tiles of several of them
  }

  @Override
  public Backend open() {
    return open(ORDERS);
  }

  /** The backend on a device that works in one order, with the checks at its end. */
  public static Backend inOrder(long order) {
    return open(order);
  }

  private static Backend open(long... orders) {
    Backend backend = openPlain();
    EmulatorControl.delay(orders[0]);
    EmulatorControl.clear();
    long[] seed = {1};
    int[] streams = {0};
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) -> {
              switch (method.getName()) {
                case "newStream" -> {
                  seed[0] = Long.getLong("jtrelu.seed", 1);
                  EmulatorControl.delay(orders[streams[0]++ % orders.length]);
                }
                case "copy" -> EmulatorControl.seed(++seed[0]);
                default -> {}
              }
              Object result = invoke(backend, method, arguments);
              if (method.getName().equals("close") && EmulatorControl.errors() > 0) {
                throw new AssertionError(EmulatorControl.report());
              }
              return result;
            });
  }

  private static Object invoke(Backend backend, Method method, Object[] arguments)
      throws Throwable {
    try {
      return method.invoke(backend, arguments);
    } catch (InvocationTargetException thrown) {
      throw thrown.getCause();
    }
  }

  /** As {@link #open}, for tests of other packages that look at memory. */
  public static Backend openForOthers() {
    return openPlain();
  }

  /** The backend without what is checked at its end. */
  static Backend openPlain() {
    Assumptions.assumeFalse(
        System.getProperty("jtrelu.cuda", "emulated").equals("real"),
        "this process tests a real GPU");
    EmulatedCudaProvider provider = new EmulatedCudaProvider();
    if (provider.availability() instanceof Availability.Unavailable missing) {
      Assumptions.abort(missing.reason());
    }
    Backend backend = provider.open(0);
    EmulatorControl.delay(1);
    return backend;
  }

  @Override
  public String toString() {
    return name();
  }
}
