package io.jtrelu.backend.onednn;

import io.jtrelu.backend.PackedWeights;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Weights in oneDNN's formats for the forward and the backward-data primitive. */
final class OneDnnPackedWeights implements PackedWeights {
  private static final long ALIGNMENT = 4096;

  private final OneDnnConv2d operation;
  private final Arena arena;
  private final MemorySegment forward;
  private final MemorySegment backward;
  private volatile boolean closed;

  @SuppressWarnings("MustBeClosedChecker") // this object owns the arena
  OneDnnPackedWeights(OneDnnConv2d operation, long forwardBytes, long backwardBytes) {
    this.operation = operation;
    this.arena = Arena.ofShared();
    this.forward = arena.allocate(forwardBytes, ALIGNMENT);
    this.backward = arena.allocate(backwardBytes, ALIGNMENT);
  }

  /** The operation that made it, whose formats these are. */
  OneDnnConv2d operation() {
    return operation;
  }

  long forward() {
    return address(forward);
  }

  long backward() {
    return address(backward);
  }

  private long address(MemorySegment segment) {
    if (closed) {
      throw new IllegalStateException("use after close: these packed weights are closed");
    }
    return segment.address();
  }

  @Override
  public synchronized void close() {
    if (!closed) {
      closed = true;
      arena.close();
    }
  }
}
