package io.jtrelu.backend.cuda;

import jcuda.Pointer;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUfunction;
import jcuda.driver.CUresult;
import jcuda.driver.CUstream;
import jcuda.driver.JCudaDriver;

/** What every call of the driver goes through: result codes and addresses. */
final class Driver {
  private Driver() {}

  /** Throws unless a call succeeded. */
  static void check(int result, String call) {
    if (result != CUresult.CUDA_SUCCESS) {
      throw failure(result, call, "");
    }
  }

  /** Throws unless a call on so many bytes succeeded. */
  static void check(int result, String call, long bytes) {
    if (result != CUresult.CUDA_SUCCESS) {
      throw failure(result, call, bytes + " bytes");
    }
  }

  /** The exception for a failed call. */
  static CudaException failure(int result, String call, String sizes) {
    String[] text = new String[1];
    String name =
        JCudaDriver.cuGetErrorName(result, text) == CUresult.CUDA_SUCCESS && text[0] != null
            ? text[0]
            : CUresult.stringFor(result);
    String description =
        JCudaDriver.cuGetErrorString(result, text) == CUresult.CUDA_SUCCESS && text[0] != null
            ? text[0]
            : "no description";
    return new CudaException(
        result,
        name,
        call,
        call
            + (sizes.isEmpty() ? "" : " (" + sizes + ")")
            + " failed: "
            + name
            + " ("
            + result
            + "), "
            + description
            + advice(result));
  }

  /** Whether an error stays with the context: a kernel or the device failed. */
  static boolean isSticky(int result) {
    return switch (result) {
      case CUresult.CUDA_ERROR_ECC_UNCORRECTABLE,
          CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
          CUresult.CUDA_ERROR_LAUNCH_TIMEOUT,
          CUresult.CUDA_ERROR_ASSERT,
          CUresult.CUDA_ERROR_HARDWARE_STACK_ERROR,
          CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION,
          CUresult.CUDA_ERROR_MISALIGNED_ADDRESS,
          CUresult.CUDA_ERROR_INVALID_ADDRESS_SPACE,
          CUresult.CUDA_ERROR_INVALID_PC,
          CUresult.CUDA_ERROR_LAUNCH_FAILED ->
          true;
      default -> false;
    };
  }

  private static String advice(int result) {
    if (isSticky(result)) {
      return ": the device is lost to this process. Restart it and resume from the last checkpoint;"
          + " if it happens again, run under compute-sanitizer and look for Xid lines in the kernel"
          + " log";
    }
    return switch (result) {
      case CUresult.CUDA_ERROR_NO_DEVICE -> ": is a GPU visible? See CUDA_VISIBLE_DEVICES";
      case CUresult.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH ->
          ": the kernel module and libcuda are of different versions; reboot after a driver update";
      case CUresult.CUDA_ERROR_SYSTEM_NOT_READY ->
          ": the driver is not ready; on NVSwitch machines check that nvidia-fabricmanager runs";
      case CUresult.CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE ->
          ": remove the CUDA compatibility package; this GPU does not support it";
      default -> "";
    };
  }

  /** A device address, to and from JCuda, which else keeps it to itself. */
  static final class DevicePointer extends CUdeviceptr {
    /** To be filled by the driver. */
    DevicePointer() {}

    DevicePointer(long address) {
      super(new CUdeviceptr(), address);
    }

    long address() {
      return getNativePointer() + getByteOffset();
    }
  }

  /** A stream, whose handle JCuda else keeps to itself. */
  static final class StreamHandle extends CUstream {
    long address() {
      return getNativePointer();
    }
  }

  /** A kernel, whose handle JCuda else keeps to itself. */
  static final class FunctionHandle extends CUfunction {
    long address() {
      return getNativePointer();
    }
  }

  /** A device address as JCuda wants it. */
  static CUdeviceptr device(long address) {
    return new DevicePointer(address);
  }

  /** A host address as JCuda wants it; passed on as it is, without marshalling. */
  static Pointer host(long address) {
    return new HostPointer(address);
  }

  /** A host address, to and from JCuda. */
  static final class HostPointer extends Pointer {
    /** To be filled by the driver. */
    HostPointer() {}

    HostPointer(long address) {
      super(address);
    }

    long address() {
      return getNativePointer() + getByteOffset();
    }
  }
}
