package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;
import static jcuda.driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
import static jcuda.driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
import static jcuda.driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
import static jcuda.driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR;
import static jcuda.driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import jcuda.driver.CUdevice;
import jcuda.driver.CUresult;
import jcuda.driver.JCudaDriver;

/**
 * A GPU as the driver describes it.
 *
 * @param index from 0
 * @param name its product name
 * @param capability compute capability, major * 10 + minor: 90 for Hopper
 * @param multiprocessors number of streaming multiprocessors
 * @param sharedMemory largest shared memory of a block in bytes
 * @param multiprocessorSharedMemory that the blocks on a multiprocessor share, in bytes
 * @param memory size of its memory in bytes
 */
record CudaDevice(
    int index,
    String name,
    int capability,
    int multiprocessors,
    int sharedMemory,
    int multiprocessorSharedMemory,
    long memory) {

  /** The devices that the driver shows; the driver must be loaded. */
  static List<CudaDevice> all() {
    int result = JCudaDriver.cuInit(0);
    if (result == CUresult.CUDA_ERROR_NO_DEVICE) {
      return List.of();
    }
    check(result, "cuInit");
    int[] count = new int[1];
    check(JCudaDriver.cuDeviceGetCount(count), "cuDeviceGetCount");
    List<CudaDevice> devices = new ArrayList<>();
    for (int index = 0; index < count[0]; index++) {
      devices.add(describe(index));
    }
    return devices;
  }

  private static CudaDevice describe(int index) {
    CUdevice device = handle(index);
    byte[] name = new byte[256];
    check(JCudaDriver.cuDeviceGetName(name, name.length, device), "cuDeviceGetName");
    int length = 0;
    while (length < name.length && name[length] != 0) {
      length++;
    }
    long[] memory = new long[1];
    check(JCudaDriver.cuDeviceTotalMem(memory, device), "cuDeviceTotalMem");
    return new CudaDevice(
        index,
        new String(name, 0, length, StandardCharsets.UTF_8),
        attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) * 10
            + attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR),
        memory[0]);
  }

  /** The driver's handle of a device. */
  static CUdevice handle(int index) {
    CUdevice device = new CUdevice();
    check(JCudaDriver.cuDeviceGet(device, index), "cuDeviceGet");
    return device;
  }

  private static int attribute(CUdevice device, int attribute) {
    int[] value = new int[1];
    check(JCudaDriver.cuDeviceGetAttribute(value, attribute, device), "cuDeviceGetAttribute");
    return value[0];
  }

  /** The CUDA version that the driver supports, major * 1000 + minor * 10. */
  static int driverVersion() {
    int[] version = new int[1];
    check(JCudaDriver.cuDriverGetVersion(version), "cuDriverGetVersion");
    return version[0];
  }

  /**
   * A line for people.
   *
   * @param provider name of its provider
   */
  String describe(String provider) {
    return String.format(
        "%s:%d %s, compute capability %d.%d, %d multiprocessors, %.1f GiB",
        provider,
        index,
        name,
        capability / 10,
        capability % 10,
        multiprocessors,
        memory / (double) (1L << 30));
  }
}
