package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Reorder;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.function.Supplier;
import jcuda.driver.CUcontext;
import jcuda.driver.JCudaDriver;
import org.junit.jupiter.api.Test;

/** The context that is current on a calling thread is what it was when a call returns. */
class CallersContextTest {
  /** A context as a number. */
  private static final class Handle extends CUcontext {
    long address() {
      return getNativePointer();
    }
  }

  private static long current() {
    Handle handle = new Handle();
    Driver.check(JCudaDriver.cuCtxGetCurrent(handle), "cuCtxGetCurrent");
    return handle.address();
  }

  private static <T> T leaving(long expected, String call, Supplier<T> work) {
    T result = work.get();
    assertEquals(expected, current(), "the context after " + call);
    return result;
  }

  private static void leaving(long expected, String call, Runnable work) {
    work.run();
    assertEquals(expected, current(), "the context after " + call);
  }

  /** Another library's context is current. */
  @Test
  void stays() {
    try (Backend first = EmulatedSubject.openPlain()) { // loads the driver
      assertEquals("emulated", first.name());
      long none = current();
      Handle other = new Handle();
      Driver.check(JCudaDriver.cuCtxCreate(other, 0, CudaDevice.handle(0)), "cuCtxCreate");
      try {
        assertNotEquals(none, other.address());
        everyCall(other.address());
      } finally {
        Driver.check(JCudaDriver.cuCtxDestroy(other), "cuCtxDestroy");
      }
      assertEquals(none, current());
    }
  }

  /** None is current, as on a thread that has just begun. */
  @Test
  void noneStaysNone() throws InterruptedException {
    Throwable[] failure = {null};
    Thread thread =
        new Thread(
            () -> {
              try (Backend first = EmulatedSubject.openPlain()) {
                assertEquals("emulated", first.name());
                assertEquals(0, current());
                everyCall(0);
              } catch (Throwable thrown) {
                failure[0] = thrown;
              }
            });
    thread.start();
    thread.join();
    if (failure[0] instanceof org.opentest4j.TestAbortedException skipped) {
      throw skipped;
    }
    if (failure[0] != null) {
      throw new AssertionError(failure[0]);
    }
  }

  private static void everyCall(long c) {
    Backend backend = leaving(c, "open", EmulatedSubject::openPlain);
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 4, 4, 8, 8, 3, 1, 1);
    Shape images = Shape.of(1, 8, 4, 4);
    DataType f32 = DataType.F32;
    Stream stream = leaving(c, "newStream", backend::newStream);
    Tensor host =
        leaving(c, "allocateOnHost", () -> backend.allocateOnHost(images, f32, Layout.NCHW));
    Tensor first = leaving(c, "allocate", () -> backend.allocate(images, f32, Layout.NCHW));
    Tensor src = leaving(c, "allocate", () -> backend.allocate(d.src(), f32, Layout.NHWC));
    Tensor dst = leaving(c, "allocate", () -> backend.allocate(d.dst(), f32, Layout.NHWC));
    Tensor weights = leaving(c, "allocate", () -> backend.allocate(d.weights(), f32, Layout.KRSC));
    Tensor bias = leaving(c, "allocate", () -> backend.allocate(d.bias(), f32, Layout.ROW_MAJOR));
    Tensor norm =
        leaving(c, "allocate", () -> backend.allocate(Shape.of(2), f32, Layout.ROW_MAJOR));
    Tensor matrix =
        leaving(c, "allocate", () -> backend.allocate(Shape.of(8, 8), f32, Layout.ROW_MAJOR));
    Event event = leaving(c, "newEvent", backend::newEvent);
    Conv2d conv =
        leaving(
            c, "conv2d", () -> backend.conv2d(d, f32, Rectifier.tailored(0.5), Rectifier.IDENTITY));
    PackedWeights packed = leaving(c, "newPackedWeights", conv::newPackedWeights);
    Reorder reorder =
        leaving(c, "reorder", () -> backend.reorder(images, f32, Layout.NCHW, Layout.NHWC));
    GradientNorm gradientNorm =
        leaving(c, "gradientNorm", () -> backend.gradientNorm(d.weights().elements()));
    Orthogonal orthogonal = leaving(c, "orthogonal", () -> backend.orthogonal(8, 8, 1));
    try (Tensor ordinary = Tensor.allocate(images, f32, Layout.NCHW)) {
      leaving(c, "an upload", () -> backend.copy(stream, host, first));
      leaving(c, "a staged upload", () -> backend.copy(stream, ordinary, first));
      leaving(c, "a download", () -> backend.copy(stream, first, ordinary));
      leaving(c, "a copy on the device", () -> backend.copy(stream, src, dst));
      leaving(c, "fill", () -> backend.fill(stream, weights, 0.1f));
      leaving(c, "reorder", () -> reorder.run(stream, first, src));
      leaving(c, "pack", () -> conv.pack(stream, weights, packed));
      leaving(c, "forward", () -> conv.forward(stream, src, packed, bias, dst));
      leaving(
          c,
          "backwardWeights",
          () -> conv.backwardWeights(stream, src, dst, weights, bias, Write.OVERWRITE));
      leaving(c, "norm", () -> gradientNorm.run(stream, weights, 1, norm));
      leaving(c, "orthogonal", () -> orthogonal.fill(stream, matrix, 1, 1));
      leaving(c, "record", () -> event.record(stream));
      leaving(c, "await", () -> event.await(stream));
      leaving(c, "synchronize", event::synchronize);
      leaving(c, "synchronize", stream::synchronize);
      Recording recording =
          leaving(
              c,
              "record",
              () -> backend.record(stream, () -> conv.forward(stream, src, packed, bias, dst)));
      leaving(c, "replay", () -> recording.replay(stream));
      leaving(c, "synchronize", stream::synchronize);
      leaving(c, "close", recording::close);
      leaving(
          c,
          "work that cannot be recorded",
          () ->
              assertThrows(
                  IllegalStateException.class,
                  () ->
                      backend.record(
                          stream,
                          () -> {
                            throw new IllegalStateException("by the test");
                          })));
      leaving(
          c,
          "an allocation that fails",
          () ->
              assertThrows(
                  OutOfMemoryException.class,
                  () -> backend.allocate(Shape.of(1 << 30, 1 << 10), f32, Layout.ROW_MAJOR)));
    }
    for (AutoCloseable owned :
        new AutoCloseable[] {
          orthogonal,
          gradientNorm,
          reorder,
          packed,
          conv,
          event,
          matrix,
          norm,
          bias,
          weights,
          dst,
          src,
          first,
          host,
          stream,
          backend
        }) {
      leaving(
          c,
          "close of " + owned,
          () -> {
            try {
              owned.close();
            } catch (Exception impossible) {
              throw new AssertionError(impossible);
            }
          });
    }
  }
}
