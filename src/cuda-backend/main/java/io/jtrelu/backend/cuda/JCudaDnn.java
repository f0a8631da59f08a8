package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import jcuda.Pointer;
import jcuda.driver.CUstream;
import jcuda.jcudnn.JCudnn;
import jcuda.jcudnn.cudnnConvolutionBwdDataAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionBwdFilterAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionDescriptor;
import jcuda.jcudnn.cudnnConvolutionFwdAlgoPerf;
import jcuda.jcudnn.cudnnFilterDescriptor;
import jcuda.jcudnn.cudnnHandle;
import jcuda.jcudnn.cudnnStatus;
import jcuda.jcudnn.cudnnTensorDescriptor;
import jcuda.runtime.cudaStream_t;
import org.jspecify.annotations.Nullable;

/** cuDNN 8 through JCudnn, whose natives are bound to that version alone. */
final class JCudaDnn implements Dnn {
  /** File name of its natives, without platform. */
  static final String LIBRARY = "JCudnn-11.7.0";

  private final cudnnHandle handle = new cudnnHandle();
  private final Arena arena = Arena.ofShared();
  private final MemorySegment scalars = arena.allocate(2 * Float.BYTES, Float.BYTES);
  private final Pointer one = Driver.host(scalars.address());
  private final Pointer beta = Driver.host(scalars.address() + Float.BYTES);

  JCudaDnn(CUstream stream) {
    scalars.set(ValueLayout.JAVA_FLOAT, 0, 1);
    check(JCudnn.cudnnCreate(handle), "cudnnCreate", "");
    check(JCudnn.cudnnSetStream(handle, new cudaStream_t(stream)), "cudnnSetStream", "");
  }

  private static void check(int status, String call, Object sizes) {
    if (status != cudnnStatus.CUDNN_STATUS_SUCCESS) {
      throw CudaException.ofLibrary(status, cudnnStatus.stringFor(status), call, sizes);
    }
  }

  private static final class Described implements Descriptors {
    final cudnnTensorDescriptor src = new cudnnTensorDescriptor();
    final cudnnFilterDescriptor weights = new cudnnFilterDescriptor();
    final cudnnTensorDescriptor dst = new cudnnTensorDescriptor();
    final cudnnConvolutionDescriptor convolution = new cudnnConvolutionDescriptor();

    Described() {
      check(JCudnn.cudnnCreateTensorDescriptor(src), "cudnnCreateTensorDescriptor", "");
      check(JCudnn.cudnnCreateFilterDescriptor(weights), "cudnnCreateFilterDescriptor", "");
      check(JCudnn.cudnnCreateTensorDescriptor(dst), "cudnnCreateTensorDescriptor", "");
      check(
          JCudnn.cudnnCreateConvolutionDescriptor(convolution),
          "cudnnCreateConvolutionDescriptor",
          "");
    }

    @Override
    public void close() {
      check(JCudnn.cudnnDestroyTensorDescriptor(src), "cudnnDestroyTensorDescriptor", "");
      check(JCudnn.cudnnDestroyFilterDescriptor(weights), "cudnnDestroyFilterDescriptor", "");
      check(JCudnn.cudnnDestroyTensorDescriptor(dst), "cudnnDestroyTensorDescriptor", "");
      check(
          JCudnn.cudnnDestroyConvolutionDescriptor(convolution),
          "cudnnDestroyConvolutionDescriptor",
          "");
    }
  }

  @Override
  public Descriptors describe(ConvolutionProblem problem) {
    Described all = new Described();
    try {
      fill(problem, all);
      return all;
    } catch (RuntimeException failure) {
      all.close();
      throw failure;
    }
  }

  private static void fill(ConvolutionProblem problem, Described all) {
    Conv2dDescriptor d = problem.d();
    int type = Dnn.dataType(problem);
    check(
        JCudnn.cudnnSetTensor4dDescriptor(all.src, NHWC, type, d.n(), d.ic(), d.h(), d.w()),
        "cudnnSetTensor4dDescriptor",
        d);
    check(
        JCudnn.cudnnSetFilter4dDescriptor(all.weights, type, NHWC, d.oc(), d.ic(), d.kh(), d.kw()),
        "cudnnSetFilter4dDescriptor",
        d);
    check(
        JCudnn.cudnnSetTensor4dDescriptor(all.dst, NHWC, type, d.n(), d.oc(), d.oh(), d.ow()),
        "cudnnSetTensor4dDescriptor",
        d);
    check(
        JCudnn.cudnnSetConvolution2dDescriptor(
            all.convolution,
            d.padTop(),
            d.padLeft(),
            d.strideH(),
            d.strideW(),
            d.dilationH(),
            d.dilationW(),
            CROSS_CORRELATION,
            DATA_FLOAT),
        "cudnnSetConvolution2dDescriptor",
        d);
    math(problem, all, Dnn.mathType(problem));
  }

  private static void math(ConvolutionProblem problem, Described of, int mathType) {
    check(
        JCudnn.cudnnSetConvolutionMathType(of.convolution, mathType),
        "cudnnSetConvolutionMathType",
        problem);
  }

  @Override
  public List<Algorithm> algorithms(ConvolutionProblem problem, Descriptors descriptors) {
    Described of = (Described) descriptors;
    int[] count = new int[1];
    List<Algorithm> able = new ArrayList<>();
    switch (problem.pass()) {
      case FPROP -> {
        var proposals = new cudnnConvolutionFwdAlgoPerf[MOST_ALGORITHMS];
        for (int i = 0; i < proposals.length; i++) {
          proposals[i] = new cudnnConvolutionFwdAlgoPerf();
        }
        check(
            JCudnn.cudnnGetConvolutionForwardAlgorithm_v7(
                handle,
                of.src,
                of.weights,
                of.convolution,
                of.dst,
                MOST_ALGORITHMS,
                count,
                proposals),
            "cudnnGetConvolutionForwardAlgorithm_v7",
            problem);
        for (int i = 0; i < count[0]; i++) {
          var p = proposals[i];
          add(able, Algorithm.of(problem, p.algo, p.status, p.determinism, p.mathType, p.memory));
        }
      }
      case DGRAD -> {
        var proposals = new cudnnConvolutionBwdDataAlgoPerf[MOST_ALGORITHMS];
        for (int i = 0; i < proposals.length; i++) {
          proposals[i] = new cudnnConvolutionBwdDataAlgoPerf();
        }
        check(
            JCudnn.cudnnGetConvolutionBackwardDataAlgorithm_v7(
                handle,
                of.weights,
                of.dst,
                of.convolution,
                of.src,
                MOST_ALGORITHMS,
                count,
                proposals),
            "cudnnGetConvolutionBackwardDataAlgorithm_v7",
            problem);
        for (int i = 0; i < count[0]; i++) {
          var p = proposals[i];
          add(able, Algorithm.of(problem, p.algo, p.status, p.determinism, p.mathType, p.memory));
        }
      }
      case WGRAD -> {
        var proposals = new cudnnConvolutionBwdFilterAlgoPerf[MOST_ALGORITHMS];
        for (int i = 0; i < proposals.length; i++) {
          proposals[i] = new cudnnConvolutionBwdFilterAlgoPerf();
        }
        check(
            JCudnn.cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                handle,
                of.src,
                of.dst,
                of.convolution,
                of.weights,
                MOST_ALGORITHMS,
                count,
                proposals),
            "cudnnGetConvolutionBackwardFilterAlgorithm_v7",
            problem);
        for (int i = 0; i < count[0]; i++) {
          var p = proposals[i];
          add(able, Algorithm.of(problem, p.algo, p.status, p.determinism, p.mathType, p.memory));
        }
      }
    }
    return able;
  }

  private static void add(List<Algorithm> able, @Nullable Algorithm algorithm) {
    if (algorithm != null) {
      able.add(algorithm);
    }
  }

  @Override
  public void run(
      ConvolutionProblem problem,
      Descriptors descriptors,
      Algorithm algorithm,
      long a,
      long b,
      float scale,
      long result,
      long workspace) {
    Described of = (Described) descriptors;
    scalars.set(ValueLayout.JAVA_FLOAT, Float.BYTES, scale);
    math(problem, of, algorithm.mathType());
    Pointer first = Driver.device(a);
    Pointer second = Driver.device(b);
    Pointer to = Driver.device(result);
    Pointer scratch = Driver.device(workspace);
    int number = algorithm.number();
    long bytes = algorithm.workspace();
    switch (problem.pass()) {
      case FPROP ->
          check(
              JCudnn.cudnnConvolutionForward(
                  handle,
                  one,
                  of.src,
                  first,
                  of.weights,
                  second,
                  of.convolution,
                  number,
                  scratch,
                  bytes,
                  beta,
                  of.dst,
                  to),
              "cudnnConvolutionForward",
              problem);
      case DGRAD ->
          check(
              JCudnn.cudnnConvolutionBackwardData(
                  handle,
                  one,
                  of.weights,
                  first,
                  of.dst,
                  second,
                  of.convolution,
                  number,
                  scratch,
                  bytes,
                  beta,
                  of.src,
                  to),
              "cudnnConvolutionBackwardData",
              problem);
      case WGRAD ->
          check(
              JCudnn.cudnnConvolutionBackwardFilter(
                  handle,
                  one,
                  of.src,
                  first,
                  of.dst,
                  second,
                  of.convolution,
                  number,
                  scratch,
                  bytes,
                  beta,
                  of.weights,
                  to),
              "cudnnConvolutionBackwardFilter",
              problem);
    }
  }

  @Override
  public void close() {
    check(JCudnn.cudnnDestroy(handle), "cudnnDestroy", "");
    arena.close();
  }
}
