package io.jtrelu.backend.onednn;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import io.jtrelu.backend.NativeCache;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.net.URL;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * This library's own kernels for the CPU, through the JDK's foreign-function interface: {@code
 * native/cpu/cpu_kernels.h}, one table of functions for each instruction set. Thread-safe.
 */
final class CpuKernels implements AutoCloseable {
  /**
   * Set to true, F32 convolutions by the definition are done on the CPU's matrix units where it has
   * some (AMX): see {@link F32Conv2d}. They are not by default, as a core that is shared with
   * another thread is slower by them ({@code docs/performance.md} has the figures).
   */
  static final String MATRIX_UNITS_PROPERTY = "jtrelu.cpu.matrix-units";

  private static final int VERSION = 10;

  /**
   * Fields of the table: the instruction set's name, five functions for convolutions in F32, five
   * in BF16 and five in rounded BF16, four for orthogonal matrices, four for parameters, four for
   * activations in F32 and four in BF16, four for batch normalisation in F32 and four in BF16, six
   * for convolutions by the definition, two for max-pooling in F32 and two in BF16, six for strided
   * convolutions by Winograd's method, six for convolutions of few channels, six for 1x1 ones by
   * Strassen's method.
   */
  private static final MemoryLayout TABLE = MemoryLayout.sequenceLayout(68, ADDRESS);

  private static final long NAME_BYTES = 64; // at most

  private static final Linker LINKER = Linker.nativeLinker();
  private static final MethodHandle PACKED_BYTES =
      LINKER.downcallHandle(FunctionDescriptor.of(JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT));
  private static final MethodHandle WORKSPACE_BYTES =
      LINKER.downcallHandle(FunctionDescriptor.of(JAVA_LONG, JAVA_LONG));
  private static final MethodHandle PACK =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle CONVOLVE =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_INT,
              JAVA_LONG));
  private static final MethodHandle GRADIENTS =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG));

  private static final MethodHandle BYTES =
      LINKER.downcallHandle(FunctionDescriptor.of(JAVA_LONG, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle DRAW =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle PANEL =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_INT,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG));

  private static final MethodHandle SUM =
      LINKER.downcallHandle(FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle SUM_OF_SQUARES =
      LINKER.downcallHandle(FunctionDescriptor.of(JAVA_DOUBLE, JAVA_LONG, JAVA_LONG));
  private static final MethodHandle SGD =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_INT));
  private static final MethodHandle ADAM =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_FLOAT));
  private static final MethodHandle WEIGHTED_SUM =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_LONG));
  private static final MethodHandle WEIGHTED_SUM_GRADIENT =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_FLOAT,
              JAVA_FLOAT,
              JAVA_INT,
              JAVA_LONG));
  private static final MethodHandle RECTIFY =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_LONG, JAVA_FLOAT, JAVA_FLOAT, JAVA_LONG));
  private static final MethodHandle RECTIFY_GRADIENT =
      LINKER.downcallHandle(
          FunctionDescriptor.ofVoid(
              JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_FLOAT, JAVA_FLOAT, JAVA_INT, JAVA_LONG));

  private final Arena library;
  private final String instructionSet;
  private final Convolutions f32;
  private final Convolutions bf16;
  private final @Nullable Convolutions roundedBf16;
  private final Orthogonals orthogonals;
  private final ParameterPasses parameters;
  private final ActivationPasses f32Activations;
  private final ActivationPasses bf16Activations;
  private final BatchNormPasses f32BatchNorm;
  private final BatchNormPasses bf16BatchNorm;
  private final F32Convolutions direct;
  private final MaxPoolPasses f32MaxPool;
  private final MaxPoolPasses bf16MaxPool;
  private final F32Convolutions stridedWinograd;
  private final F32Convolutions fewChannels;
  private final F32Convolutions strassen;

  private CpuKernels(Arena library, MemorySegment table) {
    this.library = library;
    this.instructionSet = table.getAtIndex(ADDRESS, 0).reinterpret(NAME_BYTES).getString(0);
    this.f32 = new Convolutions(instructionSet, table, 1, library);
    this.bf16 = new Convolutions(instructionSet + ", BF16", table, 6, library);
    boolean none = table.getAtIndex(ADDRESS, 11).address() == 0;
    this.roundedBf16 =
        none ? null : new Convolutions(instructionSet + ", rounded BF16", table, 11, library);
    this.orthogonals = new Orthogonals(table, 16, library);
    this.parameters = new ParameterPasses(table, 20, library);
    this.f32Activations = new ActivationPasses(table, 24, library);
    this.bf16Activations = new ActivationPasses(table, 28, library);
    this.f32BatchNorm = new BatchNormPasses(table, 32, library);
    this.bf16BatchNorm = new BatchNormPasses(table, 36, library);
    this.direct = new F32Convolutions("direct, " + instructionSet, 1, table, 40, library);
    this.f32MaxPool = new MaxPoolPasses(table, 46, library);
    this.bf16MaxPool = new MaxPoolPasses(table, 48, library);
    this.stridedWinograd =
        new F32Convolutions("strided winograd, " + instructionSet, 2, table, 50, library);
    this.fewChannels =
        new F32Convolutions("few channels, " + instructionSet, 1, table, 56, library);
    // Two rows hold pairs of pixels whatever their length is.
    this.strassen = new F32Convolutions("strassen, " + instructionSet, 2, table, 62, library);
  }

  /** 3x3 convolutions with one type of activations. */
  static final class Convolutions {
    private final String name;
    private final MemorySegment packedBytes;
    private final MemorySegment workspaceBytes;
    private final MemorySegment pack;
    private final MemorySegment convolve;
    private final MemorySegment gradients;

    /** Five functions of the table; they cannot be called after the library's close. */
    private Convolutions(String name, MemorySegment table, int first, Arena library) {
      this.name = name;
      this.packedBytes = table.getAtIndex(ADDRESS, first).reinterpret(library, null);
      this.workspaceBytes = table.getAtIndex(ADDRESS, first + 1).reinterpret(library, null);
      this.pack = table.getAtIndex(ADDRESS, first + 2).reinterpret(library, null);
      this.convolve = table.getAtIndex(ADDRESS, first + 3).reinterpret(library, null);
      this.gradients = table.getAtIndex(ADDRESS, first + 4).reinterpret(library, null);
    }

    /** Instruction set and type, for people. */
    @Override
    public String toString() {
      return name;
    }

    /** Bytes of one packed form of weights. */
    long packedBytes(int in, int out, int tile) {
      return (long) call(PACKED_BYTES, packedBytes, in, out, tile);
    }

    /** Bytes of working memory for passes of sizes at an address. */
    long workspaceBytes(long sizes) {
      return (long) call(WORKSPACE_BYTES, workspaceBytes, sizes);
    }

    /** Transforms KRSC weights for both directions. */
    void pack(long weights, int ic, int oc, int tile, long forward, long backward) {
      try {
        PACK.invokeExact(pack, weights, ic, oc, tile, forward, backward);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /**
     * Forward (bias not 0), or backward data.
     *
     * @param phi the rectifier of the result, or the one whose derivative at gate is applied
     * @param gate source of the derivative; 0 for none
     */
    void convolve(
        long sizes,
        long x,
        long packed,
        long y,
        long bias,
        long gate,
        Rectifier phi,
        Write write,
        long workspace) {
      try {
        CONVOLVE.invokeExact(
            convolve,
            sizes,
            x,
            packed,
            y,
            bias,
            gate,
            phi.slope(),
            phi.scale(),
            write == Write.ACCUMULATE ? 1 : 0,
            workspace);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /** Gradients of weights and bias. */
    void gradients(
        long sizes, long x, long e, long diffWeights, long diffBias, Write write, long workspace) {
      try {
        GRADIENTS.invokeExact(
            gradients,
            sizes,
            x,
            e,
            diffWeights,
            diffBias,
            write == Write.ACCUMULATE ? 1 : 0,
            workspace);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }
  }

  /**
   * Random orthogonal matrices of {@code m >= k} rows and columns, or columns and rows: blocks of
   * reflections, and panels of columns that pass through them.
   */
  static final class Orthogonals {
    /** Reflections of a block, and columns of a panel. */
    static final int BLOCK = 64;

    private final MemorySegment reflectionBytes;
    private final MemorySegment panelBytes;
    private final MemorySegment draw;
    private final MemorySegment panel;

    /** Four functions of the table; they cannot be called after the library's close. */
    private Orthogonals(MemorySegment table, int first, Arena library) {
      this.reflectionBytes = table.getAtIndex(ADDRESS, first).reinterpret(library, null);
      this.panelBytes = table.getAtIndex(ADDRESS, first + 1).reinterpret(library, null);
      this.draw = table.getAtIndex(ADDRESS, first + 2).reinterpret(library, null);
      this.panel = table.getAtIndex(ADDRESS, first + 3).reinterpret(library, null);
    }

    /** Bytes of all blocks of reflections. */
    long reflectionBytes(long m, long k) {
      return (long) call(BYTES, reflectionBytes, m, k);
    }

    /** Bytes of working memory for a panel. */
    long panelBytes(long m, long k) {
      return (long) call(BYTES, panelBytes, m, k);
    }

    /** Draws a block of reflections. */
    void draw(long m, long k, long block, long seed, long sequence, long reflections) {
      try {
        DRAW.invokeExact(draw, m, k, block, seed, sequence, reflections);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /** Writes a panel of the matrix, or of its transpose, when all blocks are drawn. */
    void panel(
        long m,
        long k,
        long index,
        float gain,
        boolean transposed,
        long reflections,
        long dst,
        long workspace) {
      try {
        PANEL.invokeExact(
            panel, m, k, index, gain, transposed ? 1 : 0, reflections, dst, workspace);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }
  }

  /** Passes over parameters, their gradients and moments, all F32. */
  static final class ParameterPasses {
    private final MemorySegment sum;
    private final MemorySegment sumOfSquares;
    private final MemorySegment sgd;
    private final MemorySegment adam;

    /** Four functions of the table; they cannot be called after the library's close. */
    private ParameterPasses(MemorySegment table, int first, Arena library) {
      this.sum = table.getAtIndex(ADDRESS, first).reinterpret(library, null);
      this.sumOfSquares = table.getAtIndex(ADDRESS, first + 1).reinterpret(library, null);
      this.sgd = table.getAtIndex(ADDRESS, first + 2).reinterpret(library, null);
      this.adam = table.getAtIndex(ADDRESS, first + 3).reinterpret(library, null);
    }

    /**
     * to = to + the parts, in their order.
     *
     * @param parts where the parts' addresses lie
     */
    void sum(long n, int count, long parts, long to) {
      try {
        SUM.invokeExact(sum, n, count, parts, to);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /** The sum of squares, in binary64. */
    double sumOfSquares(long n, long x) {
      try {
        return (double) SUM_OF_SQUARES.invokeExact(sumOfSquares, n, x);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /** A step of {@link io.jtrelu.backend.Sgd}. */
    void sgd(
        long n,
        long parameters,
        long gradient,
        long velocity,
        float learningRate,
        float gradientScale,
        float momentum,
        float weightDecay,
        boolean nesterov) {
      try {
        SGD.invokeExact(
            sgd,
            n,
            parameters,
            gradient,
            velocity,
            learningRate,
            gradientScale,
            momentum,
            weightDecay,
            nesterov ? 1 : 0);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /**
     * A step of {@link io.jtrelu.backend.Adam}.
     *
     * @param correction1 1 / (1 - beta1^t)
     * @param correction2 1 / (1 - beta2^t)
     */
    void adam(
        long n,
        long parameters,
        long gradient,
        long moment1,
        long moment2,
        float learningRate,
        float gradientScale,
        float beta1,
        float beta2,
        float epsilon,
        float weightDecay,
        float correction1,
        float correction2) {
      try {
        ADAM.invokeExact(
            adam,
            n,
            parameters,
            gradient,
            moment1,
            moment2,
            learningRate,
            gradientScale,
            beta1,
            beta2,
            epsilon,
            weightDecay,
            correction1,
            correction2);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }
  }

  /** Passes over activations of one type. */
  static final class ActivationPasses {
    private final MemorySegment weightedSum;
    private final MemorySegment weightedSumGradient;
    private final MemorySegment rectify;
    private final MemorySegment rectifyGradient;

    /** Four functions of the table; they cannot be called after the library's close. */
    private ActivationPasses(MemorySegment table, int first, Arena library) {
      this.weightedSum = table.getAtIndex(ADDRESS, first).reinterpret(library, null);
      this.weightedSumGradient = table.getAtIndex(ADDRESS, first + 1).reinterpret(library, null);
      this.rectify = table.getAtIndex(ADDRESS, first + 2).reinterpret(library, null);
      this.rectifyGradient = table.getAtIndex(ADDRESS, first + 3).reinterpret(library, null);
    }

    /** dst = phi(weightA * a + weightB * b). */
    void weightedSum(
        long n, float weightA, long a, float weightB, long b, Rectifier phi, long dst) {
      try {
        WEIGHTED_SUM.invokeExact(
            weightedSum, n, weightA, a, weightB, b, phi.slope(), phi.scale(), dst);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /** diff_src = ([diff_src +] weight * diff_dst) * psi'(src). */
    void weightedSumGradient(
        long n, float weight, long diffDst, long src, Rectifier psi, Write write, long diffSrc) {
      try {
        WEIGHTED_SUM_GRADIENT.invokeExact(
            weightedSumGradient,
            n,
            weight,
            diffDst,
            src,
            psi.slope(),
            psi.scale(),
            write == Write.ACCUMULATE ? 1 : 0,
            diffSrc);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /** dst = phi(src). */
    void rectify(long n, long src, Rectifier phi, long dst) {
      try {
        RECTIFY.invokeExact(rectify, n, src, phi.slope(), phi.scale(), dst);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }

    /** diff_src = [diff_src +] diff_dst * phi'(dst). */
    void rectifyGradient(long n, long dst, long diffDst, Rectifier phi, Write write, long diffSrc) {
      try {
        RECTIFY_GRADIENT.invokeExact(
            rectifyGradient,
            n,
            dst,
            diffDst,
            phi.slope(),
            phi.scale(),
            write == Write.ACCUMULATE ? 1 : 0,
            diffSrc);
      } catch (Throwable failure) {
        throw unchecked(failure);
      }
    }
  }

  /**
   * Loads those for the best instruction set that may be used, which the caller closes.
   *
   * @throws UnsupportedException where this build has none for the platform
   * @throws IOException if the library cannot be unpacked
   */
  static CpuKernels best() throws IOException {
    CpuKernels best = load(0);
    if (Boolean.getBoolean(MATRIX_UNITS_PROPERTY) || !best.usesMatrixUnits()) {
      return best;
    }
    best.close();
    return load(1);
  }

  /**
   * Loads the kernels, which the caller closes.
   *
   * @param index which of the instruction sets that this machine has: 0 for the best
   * @throws UnsupportedException where this build has none for the platform, or the machine no such
   *     instruction set
   * @throws IOException if the library cannot be unpacked
   */
  static CpuKernels load(int index) throws IOException {
    String platform = LibraryFiles.forThisPlatform().platform();
    String name = platform.startsWith("macosx") ? "libjtrelu_cpu.dylib" : "libjtrelu_cpu.so";
    URL source = CpuKernels.class.getResource(platform + "/" + name);
    if (source == null) {
      throw new UnsupportedException(
          "this build has no kernels for "
              + platform
              + " (they are built where cmake and a C++ compiler are found)");
    }
    return NativeCache.ofThisProcess()
        .load("cpu-" + platform, List.of(source), files -> load(files.getFirst(), index));
  }

  @SuppressWarnings("MustBeClosedChecker") // the result owns the arena
  private static CpuKernels load(Path file, int index) throws IOException {
    Arena arena = Arena.ofShared();
    try {
      return bind(arena, SymbolLookup.libraryLookup(file.toString(), arena), index);
    } catch (IllegalArgumentException failure) {
      arena.close();
      throw new IOException(file + " cannot be loaded", failure);
    } catch (Throwable failure) {
      arena.close();
      throw failure;
    }
  }

  private static CpuKernels bind(Arena arena, SymbolLookup library, int index) {
    MethodHandle versionOf =
        LINKER.downcallHandle(symbol(library, "jtreluCpuVersion"), FunctionDescriptor.of(JAVA_INT));
    int version = (int) call(versionOf);
    if (version != VERSION) {
      throw new UnsupportedException(
          "the CPU kernels have version " + version + ", this program needs " + VERSION);
    }
    MethodHandle tableOf =
        LINKER.downcallHandle(
            symbol(library, "jtreluCpuKernels"),
            FunctionDescriptor.of(ADDRESS.withTargetLayout(TABLE), JAVA_INT));
    MemorySegment table = (MemorySegment) call(tableOf, index);
    if (table.address() == 0) {
      throw new UnsupportedException(
          "the CPU kernels have no instruction set " + index + " for this machine");
    }
    return new CpuKernels(arena, table);
  }

  private static MemorySegment symbol(SymbolLookup library, String name) {
    return library
        .find(name)
        .orElseThrow(() -> new UnsupportedException("the CPU kernels have no function " + name));
  }

  private static Object call(MethodHandle function, Object... arguments) {
    try {
      return function.invokeWithArguments(arguments);
    } catch (Throwable failure) {
      throw unchecked(failure);
    }
  }

  /** C functions throw nothing; what is thrown tells of a call after close. */
  static RuntimeException unchecked(Throwable failure) {
    return failure instanceof RuntimeException runtime
        ? runtime
        : new IllegalStateException(failure);
  }

  /** Name of the instruction set, for people. */
  String instructionSet() {
    return instructionSet;
  }

  /** Whether convolutions by the definition are done on matrix units. */
  boolean usesMatrixUnits() {
    return instructionSet.contains("AMX");
  }

  /** The convolutions for a type of activations, or null where there are none. */
  @Nullable Convolutions convolutions(DataType type) {
    return switch (type) {
      case F32 -> f32;
      case BF16 -> bf16;
      default -> null;
    };
  }

  /** BF16 convolutions whose transforms are rounded too, or null where the machine has none. */
  @Nullable Convolutions roundedConvolutions() {
    return roundedBf16;
  }

  /** Convolutions of F32 by the definition. */
  F32Convolutions directConvolutions() {
    return direct;
  }

  /** 3x3 convolutions of F32 and stride 2 by Winograd's method. */
  F32Convolutions stridedWinograd() {
    return stridedWinograd;
  }

  /** Convolutions of F32 that read few channels, by the definition. */
  F32Convolutions fewChannels() {
    return fewChannels;
  }

  /** 1x1 convolutions of F32 by Strassen's method. */
  F32Convolutions strassen() {
    return strassen;
  }

  /** Random orthogonal matrices. */
  Orthogonals orthogonals() {
    return orthogonals;
  }

  /** Passes over parameters. */
  ParameterPasses parameters() {
    return parameters;
  }

  /** Passes over activations of a type, or null where there are none. */
  @Nullable ActivationPasses activations(DataType type) {
    return switch (type) {
      case F32 -> f32Activations;
      case BF16 -> bf16Activations;
      default -> null;
    };
  }

  /** Passes of batch normalisation over activations of a type, or null where there are none. */
  @Nullable BatchNormPasses batchNorm(DataType type) {
    return switch (type) {
      case F32 -> f32BatchNorm;
      case BF16 -> bf16BatchNorm;
      default -> null;
    };
  }

  /** Max-pooling of a type, or null where there is none. */
  @Nullable MaxPoolPasses maxPool(DataType type) {
    return switch (type) {
      case F32 -> f32MaxPool;
      case BF16 -> bf16MaxPool;
      default -> null;
    };
  }

  /** Unloads the library; its functions then throw. */
  @Override
  public void close() {
    library.close();
  }
}
