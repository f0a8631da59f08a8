package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Subject;
import io.jtrelu.tensor.DataType;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.List;

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
    return 33;
  }

  @Override
  public boolean addsInTensorCores(DataType type) {
    return type != DataType.F32;
  }

  @Override
  public synchronized Backend open() {
    List<HopperTile> tiles = HopperTile.all();
    HopperTile tile = tiles.get(opened++ % tiles.size());
    return open(tile.title());
  }

  /**
   * Opens the backend; until it is closed the device has compute capability 9.0.
   *
   * @param tile of the kernels to take, as {@link CudaBackend#TILE_PROPERTY} has it, empty for the
   *     launcher's choice
   */
  static Backend open(String tile) {
    EmulatedSubject.openPlain().close(); // loads the driver, or skips the test
    EmulatorControl.computeCapability(9, 0);
    System.setProperty(
        CudaBackend.TILE_PROPERTY, tile.isEmpty() ? "" : "sm90_bf16" + tile + ",sm90_f16" + tile);
    Backend backend = new EmulatedSubject().open();
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) -> {
              if (method.getName().equals("close")) {
                EmulatorControl.computeCapability(8, 0);
                System.clearProperty(CudaBackend.TILE_PROPERTY);
              }
              try {
                return method.invoke(backend, arguments);
              } catch (InvocationTargetException thrown) {
                throw thrown.getCause();
              }
            });
  }

  @Override
  public String toString() {
    return name();
  }
}
