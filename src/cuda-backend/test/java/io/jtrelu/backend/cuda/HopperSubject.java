package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Subject;
import io.jtrelu.tensor.DataType;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;

/**
 * The CUDA backend on the emulated device of compute capability 9.0, whose convolutions are done by
 * wgmma and TMA wherever these can, by another tile in each backend that is opened.
 */
public final class HopperSubject implements Subject {
  private static int opened;

  /** For {@link java.util.ServiceLoader}. */
  public HopperSubject() {}

  @Override
  public String name() {
    return "hopper";
  }

  @Override
  public int randomCases() {
    return 30;
  }

  @Override
  public long largestConvolution() {
    return 100_000;
  }

  @Override
  public int largestVector() {
    return 1000;
  }

  @Override
  public int largestMatrix() {
    return 97;
  }

  @Override
  public boolean addsInTensorCores(DataType type) {
    return type != DataType.F32;
  }

  @Override
  public synchronized Backend open() {
    List<HopperTile> tiles = HopperTile.all();
    HopperTile tile = tiles.get(opened++ % tiles.size());
    List<HopperWeightTile> sums = HopperWeightTile.all();
    HopperWeightTile sum = sums.get(opened % sums.size());
    return taking(tile.title(), sum.title(), "_128x64", "_pair_128x256"); // windows do not do all
  }

  /**
   * Opens the backend; until it is closed the device has compute capability 9.0.
   *
   * @param titles of the tiles to take where they can, the first that can; none for the launcher's
   *     choice
   */
  public static Backend taking(String... titles) {
    EmulatedSubject.openPlain().close(); // loads the driver, or skips the test
    EmulatorControl.computeCapability(9, 0);
    System.setProperty(
        CudaBackend.TILE_PROPERTY,
        Arrays.stream(titles)
            .map(title -> "sm90_bf16" + title + ",sm90_f16" + title)
            .collect(Collectors.joining(",")));
    Backend backend = new EmulatedSubject().open();
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) -> {
              boolean closed = method.getName().equals("close");
              try {
                return method.invoke(backend, arguments);
              } catch (InvocationTargetException thrown) {
                // Refused as it is in use: what runs there needs the device as it is.
                closed &= !(thrown.getCause() instanceof IllegalStateException);
                throw thrown.getCause();
              } finally {
                if (closed) {
                  EmulatorControl.computeCapability(8, 0);
                  System.clearProperty(CudaBackend.TILE_PROPERTY);
                }
              }
            });
  }

  @Override
  public String toString() {
    return name();
  }
}
