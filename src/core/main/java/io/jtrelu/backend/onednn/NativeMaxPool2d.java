package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.HostMemory;
import io.jtrelu.tensor.Tensor;

/** Max-pooling by {@code native/cpu/max_pool_kernels.h}. */
final class NativeMaxPool2d extends MaxPool2d {
  private final MaxPoolPasses passes;
  private final HostMemory sizes;

  NativeMaxPool2d(
      MaxPoolPasses passes, MaxPool2dDescriptor d, DataType type, Rectifier srcActivation) {
    super(Device.CPU, d, type, srcActivation);
    this.passes = passes;
    int[] values = {
      d.n(), d.h(), d.w(), d.c(), d.oh(), d.ow(), d.kernel(), d.stride(), d.padBegin()
    };
    this.sizes = HostMemory.allocate((long) values.length * Integer.BYTES);
    for (int i = 0; i < values.length; i++) {
      sizes.segment().setAtIndex(JAVA_INT, i, values[i]);
    }
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst, Tensor argmax) {
    OneDnnStream.of(stream); // refuses another kind's
    passes.forward(
        sizes.address(), src.address(), marksPositive(), dst.address(), argmax.address());
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor diffDst, Tensor argmax, Tensor src, Tensor diffSrc, Write write) {
    OneDnnStream.of(stream);
    passes.backward(
        sizes.address(),
        diffDst.address(),
        argmax.address(),
        src.address(),
        srcActivation(),
        marksPositive(),
        write,
        diffSrc.address());
  }

  @Override
  protected void release() {
    sizes.close();
  }
}
