package io.jtrelu.backend.onednn;

import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.tensor.HostMemory;
import io.jtrelu.tensor.Lifetime;
import java.nio.ByteBuffer;

/** Weights in oneDNN's formats for the forward and the backward-data primitive. */
final class OneDnnPackedWeights implements PackedWeights {
  private final Format format;
  private final HostMemory forward;
  private final HostMemory backward;
  private final Lifetime lifetime = new Lifetime("packed weights");
  private volatile boolean packed;

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

  /** Packed weights of a format, which stay open until the operation under way ends. */
  static OneDnnPackedWeights require(
      OneDnnStream lane, PackedWeights packed, Format format, Object operation) {
    if (!(packed instanceof OneDnnPackedWeights own)) {
      throw new OperandException(
          operation + ": weights must be packed by the onednn backend, got " + packed);
    }
    if (!own.format.equals(format)) {
      throw new OperandException(
          operation + ": weights are packed for another operation, whose format differs");
    }
    lane.hold(own.lifetime);
    return own;
  }

  /** Remembers that it holds weights. */
  void setPacked() {
    packed = true;
  }

  private void requirePacked() {
    if (!packed) {
      throw new IllegalStateException("these weights were never packed: call Conv2d.pack first");
    }
  }

  /** Where the weights of the forward pass lie, to be written. */
  long forwardToPack() {
    return forward.address();
  }

  /** Where the weights of the backward pass lie, to be written. */
  long backwardToPack() {
    return backward.address();
  }

  long forward() {
    requirePacked();
    return forward.address();
  }

  long backward() {
    requirePacked();
    return backward.address();
  }

  @Override
  public void close() {
    if (lifetime.close()) {
      forward.close();
      backward.close();
    }
  }
}
