package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Stream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.bytedeco.dnnl.global.dnnl;
import org.jspecify.annotations.Nullable;

/** One lane: runs each operation on the calling thread before the call returns. */
final class OneDnnStream implements Stream {
  private static final long ALIGNMENT = 4096;

  private final OneDnnBackend backend;
  private final int lane;
  private final long handle;
  private final float[][] chunks = new float[3][Elements.CHUNK];
  private @Nullable Arena arena;
  private MemorySegment workspace = MemorySegment.NULL;
  private boolean closed;

  OneDnnStream(OneDnnBackend backend, int lane) {
    this.backend = backend;
    this.lane = lane;
    Dnnl library = backend.library();
    this.handle =
        library.create("dnnl_stream_create", library.engine(), dnnl.dnnl_stream_default_flags);
  }

  /** A small number that no other open stream of the backend has. */
  int lane() {
    return lane;
  }

  /** oneDNN's stream. */
  long handle() {
    return handle;
  }

  /** The backend that made it. */
  OneDnnBackend backend() {
    return backend;
  }

  boolean isClosed() {
    return closed;
  }

  /** A chunk-sized array of this lane; which holds nothing between operations. */
  float[] chunk(int index) {
    return chunks[index];
  }

  /** Working memory of this lane; holds nothing between operations, grows when it is too small. */
  long workspace(long bytes) {
    if (workspace.byteSize() < bytes) {
      releaseWorkspace();
      Arena next = Arena.ofShared();
      workspace = next.allocate(bytes, ALIGNMENT);
      arena = next;
    }
    return workspace.address();
  }

  private void releaseWorkspace() {
    if (arena != null) {
      arena.close();
      arena = null;
    }
    workspace = MemorySegment.NULL;
  }

  @Override
  public void synchronize() {} // an operation has run when its call returns

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      releaseWorkspace();
      backend.library().destroy("stream", handle);
      backend.releaseLane(lane);
    }
  }
}
