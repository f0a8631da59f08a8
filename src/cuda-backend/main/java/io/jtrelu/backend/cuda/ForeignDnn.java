package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.Conv2dDescriptor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/** cuDNN of any version, through the JDK's foreign-function interface. */
final class ForeignDnn implements Dnn {
  // cudnnConvolution*AlgoPerf_t, the same for the three passes.
  static final long PERFORMANCE_BYTES = 48;
  static final long PERFORMANCE_ALGORITHM = 0;
  static final long PERFORMANCE_STATUS = 4;
  static final long PERFORMANCE_MEMORY = 16;
  static final long PERFORMANCE_DETERMINISM = 24;
  static final long PERFORMANCE_MATH = 28;

  private final ForeignLibrary library;
  private final long handle;
  private final Arena arena = Arena.ofShared();
  private final MemorySegment one = arena.allocateFrom(JAVA_FLOAT, 1);
  private final MemorySegment beta = arena.allocate(JAVA_FLOAT);

  /**
   * @param stream its work goes there
   */
  ForeignDnn(ForeignLibrary library, long stream) {
    this.library = library;
    handle = create("cudnnCreate");
    library.call("cudnnSetStream", "", handle, stream);
  }

  private long create(String function) {
    try (Arena brief = Arena.ofConfined()) {
      MemorySegment created = brief.allocate(JAVA_LONG);
      library.call(function, "", created);
      return created.get(JAVA_LONG, 0);
    }
  }

  /** Addresses of descriptors: src or diff_src, weights or their gradient, dst or diff_dst. */
  private final class Described implements Descriptors {
    final long src = create("cudnnCreateTensorDescriptor");
    final long weights = create("cudnnCreateFilterDescriptor");
    final long dst = create("cudnnCreateTensorDescriptor");
    final long convolution = create("cudnnCreateConvolutionDescriptor");

    @Override
    public void close() {
      library.call("cudnnDestroyTensorDescriptor", "", src);
      library.call("cudnnDestroyFilterDescriptor", "", weights);
      library.call("cudnnDestroyTensorDescriptor", "", dst);
      library.call("cudnnDestroyConvolutionDescriptor", "", convolution);
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

  private void fill(ConvolutionProblem problem, Described all) {
    Conv2dDescriptor d = problem.d();
    int type = Dnn.dataType(problem);
    library.call("cudnnSetTensor4dDescriptor", d, all.src, NHWC, type, d.n(), d.ic(), d.h(), d.w());
    library.call(
        "cudnnSetFilter4dDescriptor", d, all.weights, type, NHWC, d.oc(), d.ic(), d.kh(), d.kw());
    library.call(
        "cudnnSetTensor4dDescriptor", d, all.dst, NHWC, type, d.n(), d.oc(), d.oh(), d.ow());
    library.call(
        "cudnnSetConvolution2dDescriptor",
        d,
        all.convolution,
        d.padTop(),
        d.padLeft(),
        d.strideH(),
        d.strideW(),
        d.dilationH(),
        d.dilationW(),
        CROSS_CORRELATION,
        DATA_FLOAT);
    library.call("cudnnSetConvolutionMathType", d, all.convolution, Dnn.mathType(problem));
  }

  @Override
  public List<Algorithm> algorithms(ConvolutionProblem problem, Descriptors descriptors) {
    Described of = (Described) descriptors;
    try (Arena brief = Arena.ofConfined()) {
      MemorySegment count = brief.allocate(JAVA_INT);
      MemorySegment proposals = brief.allocate(PERFORMANCE_BYTES * MOST_ALGORITHMS, 8);
      long c = of.convolution;
      switch (problem.pass()) {
        case FPROP -> propose("Forward", problem, of.src, of.weights, c, of.dst, count, proposals);
        case DGRAD ->
            propose("BackwardData", problem, of.weights, of.dst, c, of.src, count, proposals);
        case WGRAD ->
            propose("BackwardFilter", problem, of.src, of.dst, c, of.weights, count, proposals);
      }
      List<Algorithm> able = new ArrayList<>();
      for (int i = 0; i < count.get(JAVA_INT, 0); i++) {
        MemorySegment one = proposals.asSlice(i * PERFORMANCE_BYTES, PERFORMANCE_BYTES);
        Algorithm algorithm =
            Algorithm.of(
                problem,
                one.get(JAVA_INT, PERFORMANCE_ALGORITHM),
                one.get(JAVA_INT, PERFORMANCE_STATUS),
                one.get(JAVA_INT, PERFORMANCE_DETERMINISM),
                one.get(JAVA_INT, PERFORMANCE_MATH),
                one.get(JAVA_LONG, PERFORMANCE_MEMORY));
        if (algorithm != null) {
          able.add(algorithm);
        }
      }
      return able;
    }
  }

  private void propose(
      String pass,
      ConvolutionProblem problem,
      long a,
      long b,
      long convolution,
      long result,
      MemorySegment count,
      MemorySegment proposals) {
    library.call(
        "cudnnGetConvolution" + pass + "Algorithm_v7",
        problem,
        handle,
        a,
        b,
        convolution,
        result,
        MOST_ALGORITHMS,
        count,
        proposals);
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
    beta.set(JAVA_FLOAT, 0, scale);
    library.call("cudnnSetConvolutionMathType", problem, of.convolution, algorithm.mathType());
    switch (problem.pass()) {
      case FPROP ->
          run(
              "cudnnConvolutionForward",
              problem,
              of.src,
              a,
              of.weights,
              b,
              of.convolution,
              algorithm,
              workspace,
              of.dst,
              result);
      case DGRAD ->
          run(
              "cudnnConvolutionBackwardData",
              problem,
              of.weights,
              a,
              of.dst,
              b,
              of.convolution,
              algorithm,
              workspace,
              of.src,
              result);
      case WGRAD ->
          run(
              "cudnnConvolutionBackwardFilter",
              problem,
              of.src,
              a,
              of.dst,
              b,
              of.convolution,
              algorithm,
              workspace,
              of.weights,
              result);
    }
  }

  private void run(
      String function,
      ConvolutionProblem problem,
      long ofA,
      long a,
      long ofB,
      long b,
      long convolution,
      Algorithm algorithm,
      long workspace,
      long ofResult,
      long result) {
    library.call(
        function,
        problem,
        handle,
        one,
        ofA,
        a,
        ofB,
        b,
        convolution,
        algorithm.number(),
        workspace,
        algorithm.workspace(),
        beta,
        ofResult,
        result);
  }

  @Override
  public void close() {
    library.call("cudnnDestroy", "", handle);
    arena.close();
  }
}
