package io.jtrelu.benchmarks;

import ai.djl.engine.Engine;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.nn.Activation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/**
 * What a call costs when there is next to nothing to compute: a tensor over the caller's memory, a
 * view of a part, a rectifier of one element. The peer is DJL with PyTorch, and for the last one
 * also the JDK's foreign-function call of a C function that returns its argument.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
public class CallOverhead {
  private static final int ELEMENTS = 1024;
  private static final MethodHandle ABSOLUTE =
      Linker.nativeLinker()
          .downcallHandle(
              Linker.nativeLinker().defaultLookup().findOrThrow("labs"),
              FunctionDescriptor.of(ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG));

  /** Who is called. */
  @Param({"jtrelu", "djl", "ffm"})
  public String contender;

  private final ByteBuffer memory =
      ByteBuffer.allocateDirect(ELEMENTS * Float.BYTES).order(ByteOrder.nativeOrder());
  private Backend backend;
  private Stream stream;
  private Rectify rectify;
  private Tensor tensor;
  private Tensor element;
  private NDManager manager;
  private NDArray array;
  private NDArray arrayElement;
  private long argument = -7;

  static String describe(String call) {
    return switch (call) {
      case "wrap" -> "tensor over host memory";
      case "slice" -> "view of a part of a tensor";
      case "smallest" -> "rectifier of one element";
      case "onGpu" -> "launch of a kernel and replay of a recording of 100 on a GPU";
      default -> throw new IllegalArgumentException(call);
    };
  }

  /** Opens all but what the contender does not use. */
  @Setup(Level.Trial)
  public void open() {
    if (contender.equals("djl")) {
      manager = Engine.getEngine("PyTorch").newBaseManager();
      array = manager.create(memory, new ai.djl.ndarray.types.Shape(ELEMENTS), DataType.FLOAT32);
      arrayElement = manager.create(new float[] {1});
      return;
    }
    backend = Backends.open("cpu");
    stream = backend.newStream();
    rectify = backend.rectify(1, io.jtrelu.tensor.DataType.F32, Rectifier.tailored(0.5));
    tensor = Tensor.allocate(Shape.of(ELEMENTS), io.jtrelu.tensor.DataType.F32, Layout.ROW_MAJOR);
    element = tensor.slice(0, Shape.of(1), Layout.ROW_MAJOR);
    if (labs() != 7) {
      throw new IllegalStateException("labs(-7) is " + labs());
    }
  }

  private long labs() {
    try {
      return (long) ABSOLUTE.invokeExact(argument);
    } catch (Throwable failure) {
      throw new IllegalStateException(failure);
    }
  }

  /** A tensor over 4 KiB of the caller. */
  @Benchmark
  public Object wrap() {
    memory.clear();
    if (contender.equals("jtrelu")) {
      return Tensor.wrap(
          memory, Shape.of(ELEMENTS), io.jtrelu.tensor.DataType.F32, Layout.ROW_MAJOR);
    }
    try (NDArray wrapped =
        manager.create(memory, new ai.djl.ndarray.types.Shape(ELEMENTS), DataType.FLOAT32)) {
      return wrapped;
    }
  }

  /** A view of its second half. */
  @Benchmark
  public Object slice() {
    if (contender.equals("jtrelu")) {
      return tensor.slice(ELEMENTS / 2, Shape.of(ELEMENTS / 2), Layout.ROW_MAJOR);
    }
    try (NDArray view = array.get(ELEMENTS / 2 + ":")) {
      return view;
    }
  }

  /** One element in place (the peer returns a new array), or the bare call of C. */
  @Benchmark
  public Object smallest() {
    return switch (contender) {
      case "jtrelu" -> {
        rectify.forward(stream, element, element);
        yield element;
      }
      case "djl" -> {
        try (NDArray result = Activation.leakyRelu(arrayElement, 0.5f)) {
          yield result;
        }
      }
      default -> labs();
    };
  }

  /** Releases what was opened. */
  @TearDown(Level.Trial)
  public void close() {
    if (manager != null) {
      manager.close();
      return;
    }
    rectify.close();
    tensor.close();
    stream.close();
    backend.close();
  }
}
