package io.jtrelu.backend.cuda;

/**
 * A call of the CUDA driver failed. The message gives the call, its sizes, the error and advice.
 */
public final class CudaException extends RuntimeException {
  private static final long serialVersionUID = 1;

  private final int code;
  private final String name;
  private final String call;

  CudaException(int code, String name, String call, String message) {
    super(message);
    this.code = code;
    this.name = name;
    this.call = call;
  }

  /** The driver's error code (CUresult). */
  public int code() {
    return code;
  }

  /** The error's name, such as {@code CUDA_ERROR_ILLEGAL_ADDRESS}. */
  public String name() {
    return name;
  }

  /** The driver call that reported it; a fault inside a kernel shows at a later call. */
  public String call() {
    return call;
  }

  /**
   * Whether the device is lost to this process: a fault in a kernel or in the hardware, after which
   * every call on this device fails until the process is restarted.
   */
  public boolean isDeviceLost() {
    return Driver.isSticky(code);
  }
}
