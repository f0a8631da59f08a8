package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.concurrent.Executors;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** OpenMP's count of threads on a calling thread is what it was when a call returns. */
@EnabledOnOs(OS.LINUX)
class CallersThreadsTest {
  /** The OpenMP runtime of this process, as any other library sees it. */
  private static final class OpenMp {
    private final MethodHandle get;
    private final MethodHandle set;

    OpenMp() {
      SymbolLookup runtime = SymbolLookup.libraryLookup("libgomp.so.1", Arena.global());
      get =
          Linker.nativeLinker()
              .downcallHandle(
                  runtime.findOrThrow("omp_get_max_threads"),
                  FunctionDescriptor.of(ValueLayout.JAVA_INT));
      set =
          Linker.nativeLinker()
              .downcallHandle(
                  runtime.findOrThrow("omp_set_num_threads"),
                  FunctionDescriptor.ofVoid(ValueLayout.JAVA_INT));
    }

    int threads() {
      try {
        return (int) get.invokeExact();
      } catch (Throwable failure) {
        throw new AssertionError(failure);
      }
    }

    void setThreads(int count) {
      try {
        set.invokeExact(count);
      } catch (Throwable failure) {
        throw new AssertionError(failure);
      }
    }
  }

  /** A count and what must leave it as it is. */
  private record Calls(OpenMp openMp, int count) {
    <T> T leave(String call, Supplier<T> work) {
      T result = work.get();
      assertEquals(count, openMp.threads(), "threads after " + call);
      return result;
    }

    void leave(String call, Runnable work) {
      work.run();
      assertEquals(count, openMp.threads(), "threads after " + call);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void stays(int count) throws Exception {
    new OneDnnSubject().open().close(); // loads the runtime
    try (var thread = Executors.newSingleThreadExecutor()) {
      thread
          .submit(
              () -> {
                OpenMp openMp = new OpenMp();
                openMp.setThreads(count);
                everyCall(new Calls(openMp, count));
              })
          .get();
    }
  }

  /** Nobody has set a count on this thread: it is the runtime's own. */
  @Test
  void staysUntouched() throws Exception {
    new OneDnnSubject().open().close();
    try (var thread = Executors.newSingleThreadExecutor()) {
      thread
          .submit(
              () -> {
                OpenMp openMp = new OpenMp();
                everyCall(new Calls(openMp, openMp.threads()));
              })
          .get();
    }
  }

  private static void everyCall(Calls calls) {
    Backend backend = calls.leave("open", () -> new OneDnnSubject().open());
    var stream = calls.leave("newStream", backend::newStream);
    // By the direct method, by Winograd's, without padding, grouped.
    for (Conv2dDescriptor d :
        new Conv2dDescriptor[] {
          Conv2dDescriptor.of(2, 10, 9, 16, 24, 3, 2, 1),
          Conv2dDescriptor.of(2, 8, 9, 32, 48, 3, 1, 1),
          Conv2dDescriptor.linear(3, 20, 10),
          new Conv2dDescriptor(1, 6, 6, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 2)
        }) {
      Conv2d conv =
          calls.leave(
              "conv2d",
              () -> backend.conv2d(d, DataType.F32, Rectifier.tailored(0.4), Rectifier.IDENTITY));
      try (conv;
          var packed = calls.leave("newPackedWeights", conv::newPackedWeights);
          Tensor src = backend.allocate(d.src(), DataType.F32, Layout.NHWC);
          Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
          Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
          Tensor dst = backend.allocate(d.dst(), DataType.F32, Layout.NHWC)) {
        calls.leave("fill", () -> backend.fill(stream, weights, 0.5f));
        calls.leave("pack", () -> conv.pack(stream, weights, packed));
        calls.leave("forward", () -> conv.forward(stream, src, packed, bias, dst));
        calls.leave(
            "backwardData",
            () -> conv.backwardData(stream, dst, packed, src, src, Write.OVERWRITE));
        calls.leave(
            "backwardWeights",
            () -> conv.backwardWeights(stream, src, dst, weights, bias, Write.OVERWRITE));
      }
      calls.leave("close", conv::close);
    }
    // Products of matrices, where there are no kernels of our own.
    Dnnl library = ((OneDnnBackend) backend).library();
    var orthogonal = calls.leave("orthogonal", () -> new OneDnnOrthogonal(library, 70, 40, 1));
    try (Tensor matrix = backend.allocate(Shape.of(70, 40), DataType.F32, Layout.ROW_MAJOR)) {
      calls.leave("orthogonal", () -> orthogonal.fill(stream, matrix, 1, 1));
    }
    calls.leave(
        "a refusal",
        () ->
            assertThrows(
                UnsupportedException.class,
                () -> backend.rectify(4, DataType.U8, Rectifier.IDENTITY)));
    calls.leave("synchronize", stream::synchronize);
    calls.leave("close", orthogonal::close);
    calls.leave("close", stream::close);
    calls.leave("close", backend::close);
    calls.leave("availability", () -> new OneDnnProvider().availability());
  }
}
