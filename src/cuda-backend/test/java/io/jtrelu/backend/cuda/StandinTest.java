package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.backend.Backend;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import jcuda.driver.CUcontext;
import jcuda.driver.CUgraph;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.JCudaDriver;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * What the stand-ins for cuBLAS and cuDNN refuse, as NVIDIA's libraries do: a test of the tests,
 * for what they let pass the contract tests would not find. The calls that are right come first.
 */
@ParameterizedClass
@ValueSource(strings = {"cuda12", "cuda13"})
class StandinTest {
  private static final int F32 = 0;
  private static final int BF16 = 14;
  private static final int COMPUTE_32F = 68;

  private final String generation;
  private final Arena arena = Arena.ofConfined();
  private Backend backend;
  private CUcontext context;
  private final Driver.StreamHandle stream = new Driver.StreamHandle();
  private final Driver.DevicePointer memory = new Driver.DevicePointer();

  StandinTest(String generation) {
    this.generation = generation;
  }

  @BeforeEach
  void open() {
    LibrariesSubject.folder(generation);
    backend = EmulatedSubject.openPlain();
    context = new CUcontext();
    Driver.check(JCudaDriver.cuDevicePrimaryCtxRetain(context, CudaDevice.handle(0)), "retain");
    Driver.check(JCudaDriver.cuCtxPushCurrent(context), "push");
    Driver.check(JCudaDriver.cuStreamCreate(stream, 1), "cuStreamCreate");
    Driver.check(JCudaDriver.cuMemAlloc(memory, 1 << 20), "cuMemAlloc");
    Driver.check(JCudaDriver.cuMemsetD8(memory, (byte) 0, 1 << 20), "cuMemsetD8");
  }

  @AfterEach
  void close() {
    if (context == null) {
      return;
    }
    JCudaDriver.cuStreamDestroy(stream);
    JCudaDriver.cuMemFree(memory);
    JCudaDriver.cuCtxPopCurrent(new CUcontext());
    JCudaDriver.cuDevicePrimaryCtxRelease(CudaDevice.handle(0));
    backend.close();
    arena.close();
  }

  private ForeignLibrary library(String stem, int of12, int of13) {
    int major = generation.equals("cuda12") ? of12 : of13;
    return LibrariesSubject.with(
        generation, "own", () -> NvidiaLibrary.open(stem, List.of(major), true).functions());
  }

  private long create(ForeignLibrary library, String function) {
    MemorySegment created = arena.allocate(JAVA_LONG);
    library.call(function, "", created);
    return created.get(JAVA_LONG, 0);
  }

  private static void refuses(String status, Runnable call) {
    assertEquals(status, assertThrows(CudaException.class, call::run).name());
  }

  /** c = a b of 8 x 4 matrices in depth 6 with these leading dimensions. */
  private void multiply(
      ForeignLibrary cublas, long handle, int lda, int ldb, int ldc, int type, long a) {
    MemorySegment one = arena.allocateFrom(JAVA_FLOAT, 1);
    long at = memory.address();
    cublas.call(
        "cublasGemmEx",
        "",
        handle,
        0,
        0,
        8,
        4,
        6,
        one,
        a,
        type,
        lda,
        at + 4096,
        type,
        ldb,
        arena.allocateFrom(JAVA_FLOAT, 0),
        at + 8192,
        F32,
        ldc,
        COMPUTE_32F,
        -1);
  }

  @Test
  void cublas() {
    ForeignLibrary cublas = library("cublas", 12, 13);
    long handle = create(cublas, "cublasCreate_v2");
    cublas.call("cublasSetStream_v2", "", handle, stream.address());
    long a = memory.address();
    long workspace = a + (64 << 10);
    long bytes = 64 << 10;
    cublas.call("cublasSetWorkspace_v2", "", handle, workspace, bytes);
    multiply(cublas, handle, 8, 6, 8, F32, a);
    multiply(cublas, handle, 8, 6, 8, BF16, a);
    String invalid = "CUBLAS_STATUS_INVALID_VALUE";
    refuses(invalid, () -> multiply(cublas, handle, 7, 6, 8, F32, a));
    refuses(invalid, () -> multiply(cublas, handle, 8, 5, 8, F32, a));
    refuses(invalid, () -> multiply(cublas, handle, 8, 6, 7, F32, a));
    refuses(invalid, () -> multiply(cublas, handle, 8, 6, 8, F32, 0));
    refuses(invalid, () -> multiply(cublas, handle, 8, 6, 8, F32, a + 2));
    refuses("CUBLAS_STATUS_NOT_SUPPORTED", () -> multiply(cublas, handle, 8, 6, 8, 1, a));
    refuses("CUBLAS_STATUS_NOT_INITIALIZED", () -> multiply(cublas, 0, 8, 6, 8, F32, a));
    refuses(
        invalid, () -> cublas.call("cublasSetWorkspace_v2", "", handle, workspace + 128, bytes));
    cublas.call("cublasSetWorkspace_v2", "", handle, workspace, 1024L);
    refuses("CUBLAS_STATUS_ALLOC_FAILED", () -> multiply(cublas, handle, 8, 6, 8, F32, a));
    // A recording must not take memory that the library has; and a new stream forgets the caller's.
    cublas.call("cublasSetWorkspace_v2", "", handle, workspace, bytes);
    cublas.call("cublasSetStream_v2", "", handle, stream.address());
    Driver.check(
        JCudaDriver.cuStreamBeginCapture(
            stream, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED),
        "begin");
    refuses("CUBLAS_STATUS_EXECUTION_FAILED", () -> multiply(cublas, handle, 8, 6, 8, F32, a));
    CUgraph graph = new CUgraph();
    Driver.check(JCudaDriver.cuStreamEndCapture(stream, graph), "end");
    Driver.check(JCudaDriver.cuGraphDestroy(graph), "destroy");
    // Another context is none of this handle's.
    CUcontext other = new CUcontext();
    Driver.check(JCudaDriver.cuCtxCreate(other, 0, CudaDevice.handle(0)), "cuCtxCreate");
    refuses("CUBLAS_STATUS_EXECUTION_FAILED", () -> multiply(cublas, handle, 8, 6, 8, F32, a));
    Driver.check(JCudaDriver.cuCtxDestroy(other), "cuCtxDestroy");
    cublas.call("cublasDestroy_v2", "", handle);
  }

  @Test
  void cudnn() {
    ForeignLibrary cudnn = library("cudnn", 8, 9);
    long handle = create(cudnn, "cudnnCreate");
    cudnn.call("cudnnSetStream", "", handle, stream.address());
    long x = create(cudnn, "cudnnCreateTensorDescriptor");
    long y = create(cudnn, "cudnnCreateTensorDescriptor");
    long w = create(cudnn, "cudnnCreateFilterDescriptor");
    long c = create(cudnn, "cudnnCreateConvolutionDescriptor");
    cudnn.call("cudnnSetTensor4dDescriptor", "", x, 1, 0, 2, 4, 5, 6);
    cudnn.call("cudnnSetTensor4dDescriptor", "", y, 1, 0, 2, 3, 5, 6);
    cudnn.call("cudnnSetFilter4dDescriptor", "", w, 0, 1, 3, 4, 3, 3);
    cudnn.call("cudnnSetConvolution2dDescriptor", "", c, 1, 1, 1, 1, 1, 1, 1, 0);
    MemorySegment size = arena.allocate(JAVA_LONG);
    cudnn.call("cudnnGetConvolutionForwardWorkspaceSize", "", handle, x, w, c, y, 1, size);
    long bytes = size.get(JAVA_LONG, 0);
    long at = memory.address();
    forward(cudnn, handle, x, w, c, 1, at + 65536, bytes, y);
    String wrong = "CUDNN_STATUS_BAD_PARAM";
    refuses(wrong, () -> forward(cudnn, handle, x, w, c, 1, at + 65536, bytes - 1, y));
    refuses(wrong, () -> forward(cudnn, handle, x, w, c, 1, 0, bytes, y));
    refuses(wrong, () -> forward(cudnn, handle, x, c, w, 1, at + 65536, bytes, y));
    refuses(
        "CUDNN_STATUS_NOT_SUPPORTED",
        () -> forward(cudnn, handle, x, w, c, 0, at + 65536, bytes, y));
    cudnn.call("cudnnSetTensor4dDescriptor", "", y, 1, 0, 2, 3, 5, 5);
    refuses(wrong, () -> forward(cudnn, handle, x, w, c, 1, at + 65536, bytes, y));
    refuses( // channels first
        "CUDNN_STATUS_NOT_SUPPORTED",
        () -> cudnn.call("cudnnSetTensor4dDescriptor", "", y, 0, 0, 2, 3, 5, 6));
    MemorySegment version = arena.allocate(JAVA_INT);
    cudnn.call("cudnnGetProperty", "", 0, version);
    assertEquals(generation.equals("cuda12") ? 8 : 9, version.get(JAVA_INT, 0));
    cudnn.call("cudnnDestroyTensorDescriptor", "", x);
    cudnn.call("cudnnDestroyTensorDescriptor", "", y);
    cudnn.call("cudnnDestroyFilterDescriptor", "", w);
    cudnn.call("cudnnDestroyConvolutionDescriptor", "", c);
    cudnn.call("cudnnDestroy", "", handle);
  }

  private void forward(
      ForeignLibrary cudnn,
      long handle,
      long x,
      long w,
      long c,
      int algorithm,
      long workspace,
      long bytes,
      long y) {
    long at = memory.address();
    cudnn.call(
        "cudnnConvolutionForward",
        "",
        handle,
        arena.allocateFrom(JAVA_FLOAT, 1),
        x,
        at,
        w,
        at + 4096,
        c,
        algorithm,
        workspace,
        bytes,
        arena.allocateFrom(JAVA_FLOAT, 0),
        y,
        at + 8192);
  }
}
