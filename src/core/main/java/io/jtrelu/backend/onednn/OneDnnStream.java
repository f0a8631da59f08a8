package io.jtrelu.backend.onednn;

import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.HostMemory;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.bytedeco.dnnl.global.dnnl;
import org.jspecify.annotations.Nullable;

/**
 * One lane: runs each operation before the call returns, on the calling thread, or forward passes
 * of our own convolutions on this and others.
 */
final class OneDnnStream extends BackendStream {
  private final OneDnnBackend backend;
  private final int lane;
  private final long handle;
  private final float[][] chunks = new float[4][Elements.CHUNK];
  private final double[] sums = new double[Elements.CHUNK];
  private final float[][] arrays = new float[2][0];
  private final int[] bits = new int[Elements.CHUNK];
  private final MemorySegment bitsSegment = MemorySegment.ofArray(bits);
  private final MemorySegment chunk2Segment = MemorySegment.ofArray(chunks[2]);
  private final int[] words = new int[4];
  private final HostMemory[] workspaces; // of each thread
  private final @Nullable Team team;

  /**
   * @param threads that take part in operations, the calling one included
   */
  OneDnnStream(OneDnnBackend backend, int lane, int threads) {
    this.backend = backend;
    this.lane = lane;
    this.workspaces = new HostMemory[threads];
    Arrays.setAll(workspaces, i -> HostMemory.allocate(0));
    Dnnl library = backend.library();
    this.handle =
        library.create("dnnl_stream_create", library.engine(), dnnl.dnnl_stream_default_flags);
    this.team = threads > 1 ? new Team(threads) : null;
  }

  /** The threads that take part; null where the calling one is alone. */
  @Nullable Team team() {
    return team;
  }

  /** A small number that no other open stream of the backend has. */
  int lane() {
    return lane;
  }

  /** oneDNN's stream. */
  long handle() {
    return handle;
  }

  /** The library that it is a stream of. */
  Dnnl library() {
    return backend.library();
  }

  /** A stream of this kind of backend. */
  static OneDnnStream of(Stream stream) {
    if (stream instanceof OneDnnStream own) {
      return own;
    }
    throw new IllegalArgumentException(
        "operations of the onednn backend run on streams of its own, got " + stream);
  }

  /** A chunk-sized array of this lane, which holds nothing between operations. */
  float[] chunk(int index) {
    return chunks[index];
  }

  /** An array of sums of this lane, which holds nothing between operations. */
  double[] sums() {
    return sums;
  }

  /** A chunk-sized array of bit patterns of this lane, which holds nothing between operations. */
  int[] bits() {
    return bits;
  }

  /** Reinterprets {@link #bits} as floats, into the third chunk. */
  void bitsToChunk2(int count) {
    MemorySegment.copy(bitsSegment, 0, chunk2Segment, 0, (long) count * Float.BYTES);
  }

  /** An array of this lane of at least some length, which holds nothing between operations. */
  float[] array(int index, int length) {
    if (arrays[index].length < length) {
      arrays[index] = new float[length];
    }
    return arrays[index];
  }

  /** A block of random words of this lane. */
  int[] words() {
    return words;
  }

  /** Working memory of this lane; holds nothing between operations, grows when it is too small. */
  long workspace(long bytes) {
    return workspace(0, bytes);
  }

  /** The same of one of the threads that take part, for it alone. */
  long workspace(int member, long bytes) {
    if (workspaces[member].bytes() < bytes) {
      workspaces[member].close();
      workspaces[member] = HostMemory.allocate(bytes);
    }
    return workspaces[member].address();
  }

  /** Size of the working memory. */
  long workspaceBytes() {
    return Arrays.stream(workspaces).mapToLong(HostMemory::bytes).sum();
  }

  @Override
  protected void await() {} // an operation has run when its call returns

  @Override
  protected void release() {
    if (team != null) {
      team.close();
    }
    for (HostMemory workspace : workspaces) {
      workspace.close();
    }
    backend.library().destroy("stream", handle);
    backend.forget(this);
  }
}
