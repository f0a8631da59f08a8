package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendUnavailableException;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** Discovery, the same for the real and the emulated driver: what is there, and why not. */
final class CudaDevices {
  private static final int OLDEST_DRIVER = 12000;

  private CudaDevices() {}

  static Availability availability(boolean emulated) {
    if (emulated && !DriverLibrary.emulatorCanBeLoaded()) {
      // Asking must not decide which libcuda this process gets.
      return new Availability.Unavailable(DriverLibrary.whyNoEmulator());
    }
    String missing = Kernels.missing();
    if (missing != null && emulated) {
      return new Availability.Unavailable(missing);
    }
    if (emulated && !DriverLibrary.isLoaded()) {
      return new Availability.Available(
          "emulated driver (no GPU; its speed means nothing)", List.of("emulated:0"));
    }
    try {
      List<CudaDevice> devices = devices(emulated);
      List<String> lines = new ArrayList<>();
      List<String> reasons = new ArrayList<>();
      for (CudaDevice device : devices) {
        String unfit = Kernels.unfit(device);
        lines.add(
            device.describe(emulated ? "emulated" : "cuda")
                + (unfit == null ? "" : " - cannot be used: " + unfit));
        if (unfit != null) {
          reasons.add(unfit);
        }
      }
      if (reasons.size() == devices.size()) {
        return new Availability.Unavailable(String.join("; ", reasons));
      }
      return new Availability.Available(
          (emulated
                  ? "emulated driver (no GPU; its speed means nothing), CUDA "
                  : "driver for CUDA ")
              + version(CudaDevice.driverVersion())
              + ", kernels for "
              + Kernels.architectures(),
          lines);
    } catch (BackendUnavailableException | CudaException failure) {
      return new Availability.Unavailable(String.valueOf(failure.getMessage()));
    } catch (LinkageError failure) {
      return new Availability.Unavailable("JCuda does not fit this library: " + failure);
    }
  }

  /** Lines on NVIDIA's libraries, where the device can be used. */
  static List<String> libraries(boolean emulated) {
    return availability(emulated) instanceof Availability.Available && DriverLibrary.isLoaded()
        ? Libraries.lines(emulated)
        : List.of();
  }

  /** All devices; throws with the reason where there is none. */
  private static List<CudaDevice> devices(boolean emulated) {
    // A missing driver is the first thing to say; the emulated one is not loaded for nothing.
    String noKernels = Kernels.missing();
    if (!emulated || noKernels == null) {
      DriverLibrary.load(emulated);
    }
    if (noKernels != null) {
      throw new BackendUnavailableException(noKernels);
    }
    int driver = CudaDevice.driverVersion();
    if (driver < OLDEST_DRIVER) {
      throw new BackendUnavailableException(
          "the NVIDIA driver is too old: it supports CUDA "
              + version(driver)
              + ", and "
              + version(OLDEST_DRIVER)
              + " is needed (driver 525 or newer)");
    }
    List<CudaDevice> devices = CudaDevice.all();
    if (devices.isEmpty()) {
      throw new BackendUnavailableException(
          "the NVIDIA driver is there but shows no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES");
    }
    return devices;
  }

  static Backend open(String name, int index, boolean emulated) {
    try {
      List<CudaDevice> devices = devices(emulated);
      if (index >= devices.size()) {
        throw new BackendUnavailableException(
            "there is no "
                + name
                + ":"
                + index
                + "; devices are "
                + String.join("; ", devices.stream().map(d -> d.describe(name)).toList()));
      }
      CudaDevice device = devices.get(index);
      @Nullable String unfit = Kernels.unfit(device);
      if (unfit != null) {
        throw new BackendUnavailableException(unfit);
      }
      return new CudaBackend(name, device, emulated);
    } catch (CudaException failure) {
      throw new BackendUnavailableException(
          name
              + ":"
              + index
              + " cannot be used (driver for CUDA "
              + version(CudaDevice.driverVersion())
              + "): "
              + failure.getMessage(),
          failure);
    }
  }

  private static String version(int cuda) {
    return cuda / 1000 + "." + cuda % 1000 / 10;
  }
}
