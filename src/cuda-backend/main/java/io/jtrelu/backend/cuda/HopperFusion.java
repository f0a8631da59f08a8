package io.jtrelu.backend.cuda;

import io.jtrelu.tensor.DataType;

/** What operations that the kernels of compute capability 9.0 fuse ask for alike. */
final class HopperFusion {
  private HopperFusion() {}

  /**
   * Whether the device runs such kernels.
   *
   * @param sharedMemory what they take of it
   */
  static boolean isPossible(CudaBackend backend, DataType type, int sharedMemory) {
    CudaDevice device = backend.cudaDevice();
    return device.capability() == 90
        && TensorMaps.available()
        && device.sharedMemory() >= sharedMemory
        && type.bytes() == 2;
  }

  /**
   * Whether nobody turned them off, or asked for other kernels.
   *
   * @param property the system property that turns the operation off
   * @param kernel one of its kernels
   */
  static boolean isWanted(CudaBackend backend, String property, String kernel) {
    ConvolutionChooser chooser = backend.chooser();
    return !System.getProperty(property, "true").equals("false")
        && !System.getProperty(HopperConvolution.PROPERTY, "true").equals("false")
        && !chooser.considers(ConvolutionProvider.CUBLAS)
        && !chooser.considers(ConvolutionProvider.CUDNN)
        && (!backend.prefersSome() || backend.prefers(kernel));
  }
}
