package io.jtrelu.backend.cuda;

/**
 * A call of the CUDA driver, or of a library of NVIDIA's, failed. The message gives the call, its
 * sizes, the error and advice.
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

  /**
   * The exception for a library's status.
   *
   * @param sizes what the call worked on
   */
  static CudaException ofLibrary(int status, String name, String call, Object sizes) {
    String on = sizes.toString().isEmpty() ? "" : " (" + sizes + ")";
    return new CudaException(
        status, name, call, call + on + " failed: " + name + " (" + status + ")");
  }

  /** The driver's error code (CUresult), or the library's status. */
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
