package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.backend.BackendStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.function.LongConsumer;
import jcuda.driver.CUevent;
import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUresult;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;

/** A stream of the driver, with what its operations share: a parameter block and a workspace. */
final class CudaStream extends BackendStream {
  private final CudaBackend backend;
  private final CudaContext context;
  private final MemoryPool pool;
  private final Driver.StreamHandle handle = new Driver.StreamHandle();
  private final Arena arena = Arena.ofShared();
  private final Arguments arguments = new Arguments(arena);
  private final Object destruction = new Object(); // guards the handle against waits out of time
  private boolean destroyed; // guarded by it
  private final Scratch scratch;
  private final LibraryHandles libraries;
  private final PackGroup packs = new PackGroup();
  private @Nullable Staging staging;
  private volatile @Nullable CudaRecording recording; // made now of the work that is given
  private final DependentLaunch dependent;
  private boolean behindKernel; // whether what was last given is one

  CudaStream(CudaBackend backend, CudaContext context, MemoryPool pool) {
    this.backend = backend;
    this.context = context;
    this.pool = pool;
    this.scratch = new Scratch(pool, backend::expectedScratch);
    this.libraries = new LibraryHandles(backend.libraries(), context, handle);
    this.dependent = new DependentLaunch(arena, context.device());
    context.enter();
    try {
      check(
          JCudaDriver.cuStreamCreate(handle, CUstream_flags.CU_STREAM_NON_BLOCKING),
          "cuStreamCreate");
    } finally {
      context.leave();
    }
  }

  CudaBackend backend() {
    return backend;
  }

  /** NVIDIA's libraries, whose work goes to this stream. */
  LibraryHandles libraries() {
    behindKernel = false;
    return libraries;
  }

  /** Weights that are packed together. */
  PackGroup packs() {
    return packs;
  }

  /** Makes the context current for work of this stream, until the context is left. */
  private void enter() {
    requireOpen();
    context.enter();
    behindKernel = false;
  }

  /** An empty parameter block for the next {@link #launch}. */
  Arguments arguments() {
    return arguments.begin();
  }

  /** Launches a kernel over a row of blocks with the parameters last packed. */
  void launch(Kernel kernel, long blocks) {
    launch(kernel, blocks, 1);
  }

  /**
   * Launches a kernel that itself waits for those ahead of it, before it touches global memory:
   * right behind another kernel it may start before that one has ended.
   */
  void launchWaiting(Kernel kernel, long blocks) {
    launch(kernel, blocks, 1, behindKernel && dependent.available());
  }

  /** Launches a kernel over rows of blocks with the parameters last packed. */
  void launch(Kernel kernel, long blocks, int rows) {
    launch(kernel, blocks, rows, false);
  }

  private void launch(Kernel kernel, long blocks, int rows, boolean early) {
    if (blocks == 0 || rows == 0) {
      return;
    }
    if (blocks > Integer.MAX_VALUE || rows > 65535) {
      throw new io.jtrelu.backend.UnsupportedException(
          kernel.name() + ": a grid of " + blocks + " x " + rows + " blocks is too large");
    }
    if (arguments.bytes() != kernel.parameterBytes()) {
      throw new AssertionError(
          kernel.name()
              + " takes "
              + kernel.parameterBytes()
              + " bytes of parameters; "
              + arguments.bytes()
              + " were packed");
    }
    int result;
    enter();
    try {
      result =
          early
              ? dependent.launch(
                  kernel, (int) blocks, handle.address(), arguments.nativeParameters())
              : JCudaDriver.cuLaunchKernel(
                  kernel.function(),
                  (int) blocks,
                  rows,
                  1,
                  kernel.threads(),
                  1,
                  1,
                  kernel.sharedMemory(),
                  handle,
                  arguments.kernelParameters(),
                  null);
      behindKernel = true;
    } finally {
      context.leave();
    }
    if (result != CUresult.CUDA_SUCCESS) {
      throw Driver.failure(
          result,
          "cuLaunchKernel of " + kernel.name(),
          blocks
              + " x "
              + rows
              + " blocks of "
              + kernel.threads()
              + " threads, "
              + kernel.sharedMemory()
              + " bytes of shared memory");
    }
  }

  /**
   * Scratch memory, 256-byte aligned; the next operation on this stream may overwrite it. A
   * recording has its own, as it may run on another stream while this one works.
   */
  long workspace(long bytes) {
    CudaRecording now = recording;
    return (now == null ? scratch : now.scratch(this)).atLeast(bytes);
  }

  /** Device to device. */
  void copyOnDevice(long from, long to, long bytes) {
    enter();
    try {
      check(
          JCudaDriver.cuMemcpyDtoDAsync(Driver.device(to), Driver.device(from), bytes, handle),
          "cuMemcpyDtoDAsync",
          bytes);
    } finally {
      context.leave();
    }
  }

  /**
   * Host to device, through pinned memory so that the call returns at once.
   *
   * @param pinned whether the source itself is pinned
   */
  void upload(MemorySegment from, long to, long bytes, boolean pinned) {
    enter();
    try {
      // What is recorded is read again at each replay: it cannot go through memory that changes
      // hands.
      if (pinned || isRecording()) {
        check(
            JCudaDriver.cuMemcpyHtoDAsync(
                Driver.device(to), Driver.host(from.address()), bytes, handle),
            "cuMemcpyHtoDAsync",
            bytes);
        return;
      }
      if (staging == null) {
        staging = new Staging();
      }
      staging.upload(from, to, bytes, handle);
    } finally {
      context.leave();
    }
  }

  /** Device to host. */
  void download(long from, MemorySegment to, long bytes) {
    enter();
    try {
      check(
          JCudaDriver.cuMemcpyDtoHAsync(
              Driver.host(to.address()), Driver.device(from), bytes, handle),
          "cuMemcpyDtoHAsync",
          bytes);
    } finally {
      context.leave();
    }
  }

  /** Sets elements of 1, 2 or 4 bytes. */
  void set(long address, int pattern, int elementBytes, long elements) {
    enter();
    try {
      int result =
          switch (elementBytes) {
            case 1 ->
                JCudaDriver.cuMemsetD8Async(
                    Driver.device(address), (byte) pattern, elements, handle);
            case 2 ->
                JCudaDriver.cuMemsetD16Async(
                    Driver.device(address), (short) pattern, elements, handle);
            default ->
                JCudaDriver.cuMemsetD32Async(Driver.device(address), pattern, elements, handle);
          };
      check(result, "cuMemset", elements * elementBytes);
    } finally {
      context.leave();
    }
  }

  /** Records work instead of doing it. */
  @SuppressWarnings("try") // the turn needs no name
  CudaRecording record(Runnable work) {
    try (Use use = use("record")) {
      CudaRecording result = new CudaRecording(backend, context, pool, this);
      try {
        libraries.prepare();
        join(result);
        result.instantiate(capture(work));
        return result;
      } catch (RuntimeException | Error failure) {
        result.close();
        throw failure;
      } finally {
        result.streams().forEach(CudaStream::leave);
        result.streams().clear();
      }
    }
  }

  /** From now on work is recorded. */
  private void join(CudaRecording now) {
    await(); // so that no work is under way that other threads might wait for meanwhile
    now.streams().add(this);
    observe(now::hold);
    setRecording(now);
  }

  private void leave() {
    setRecording(null);
    observe(null);
  }

  private CUgraph capture(Runnable work) {
    enter();
    try {
      check(
          JCudaDriver.cuStreamBeginCapture(
              handle, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED),
          "cuStreamBeginCapture");
      CUgraph graph = new CUgraph();
      try {
        work.run();
      } catch (RuntimeException | Error failure) {
        if (JCudaDriver.cuStreamEndCapture(handle, graph) == CUresult.CUDA_SUCCESS) {
          JCudaDriver.cuGraphDestroy(graph);
        }
        throw failure;
      }
      check(JCudaDriver.cuStreamEndCapture(handle, graph), "cuStreamEndCapture");
      return graph;
    } finally {
      context.leave();
    }
  }

  /** Not while another thread waits for this stream: that would end the capture. */
  private void setRecording(@Nullable CudaRecording now) {
    synchronized (destruction) {
      recording = now;
    }
  }

  /** Gives work of a library to this stream, by its handle; the context is current meanwhile. */
  void give(LongConsumer work) {
    enter();
    try {
      work.accept(handle.address());
    } finally {
      context.leave();
    }
  }

  /**
   * Marks the work so far.
   *
   * @return the recording that it is part of, if any
   */
  @Nullable CudaRecording record(CUevent event) {
    enter();
    try {
      check(JCudaDriver.cuEventRecord(event, handle), "cuEventRecord");
      return recording;
    } finally {
      context.leave();
    }
  }

  /**
   * Makes the work from now on wait; where what it waits for is being recorded, it is so too.
   *
   * @param of what the event was recorded in, if anything
   */
  void await(CUevent event, @Nullable CudaRecording of) {
    if (of != null && !of.streams().isEmpty() && recording == null) {
      join(of);
    }
    enter();
    try {
      check(JCudaDriver.cuStreamWaitEvent(handle, event, 0), "cuStreamWaitEvent");
    } finally {
      context.leave();
    }
  }

  /** Runs what was recorded. */
  void replay(CUgraphExec executable) {
    enter();
    try {
      check(JCudaDriver.cuGraphLaunch(executable, handle), "cuGraphLaunch");
    } finally {
      context.leave();
    }
  }

  boolean isRecording() {
    return recording != null;
  }

  /**
   * As {@link #synchronize}, from any thread; a stream that records has no work under way. The
   * context must be current.
   */
  void quiesce() {
    synchronized (destruction) {
      if (recording == null && !destroyed) {
        check(JCudaDriver.cuStreamSynchronize(handle), "cuStreamSynchronize");
      }
    }
  }

  @Override
  protected void await() {
    enter();
    try {
      check(JCudaDriver.cuStreamSynchronize(handle), "cuStreamSynchronize");
    } finally {
      context.leave();
    }
  }

  @Override
  protected void release() {
    try {
      context.enter();
      try {
        // Known to the backend until its work is done: whoever frees memory meanwhile waits for it.
        check(JCudaDriver.cuStreamSynchronize(handle), "cuStreamSynchronize");
        synchronized (destruction) {
          destroyed = true;
        }
        libraries.close();
        if (staging != null) {
          staging.close();
        }
        check(JCudaDriver.cuStreamDestroy(handle), "cuStreamDestroy");
      } finally {
        context.leave();
      }
    } finally {
      backend.forget(this);
      scratch.close();
      arena.close();
    }
  }
}
