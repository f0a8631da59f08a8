package io.jtrelu.backend.onednn;

import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.tensor.HostMemory;
import java.nio.ByteBuffer;

/** Weights in oneDNN's formats for the forward and the backward-data primitive. */
final class OneDnnPackedWeights implements PackedWeights {
  private final Format format;
  private final HostMemory forward;
  private final HostMemory backward;

  /**
   * oneDNN's formats in their serialised form. Two operations whose formats are equal, such as one
   * convolution at two batch sizes, may share packed weights.
   */
  record Format(ByteBuffer forward, ByteBuffer backward) {}

  OneDnnPackedWeights(Format format, long forwardBytes, long backwardBytes) {
    this.format = format;
    this.forward = HostMemory.allocate(forwardBytes);
    this.backward = HostMemory.allocate(backwardBytes);
  }

  /** Open packed weights of a format. */
  static OneDnnPackedWeights require(PackedWeights packed, Format format, Object operation) {
    if (!(packed instanceof OneDnnPackedWeights own)) {
      throw new OperandException(
          operation + ": weights must be packed by the onednn backend, got " + packed);
    }
    if (!own.format.equals(format)) {
      throw new OperandException(
          operation + ": weights are packed for another operation, whose format differs");
    }
    return own;
  }

  long forward() {
    return forward.address();
  }

  long backward() {
    return backward.address();
  }

  @Override
  public void close() {
    forward.close();
    backward.close();
  }
}
