package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.List;
import java.util.concurrent.Executors;
import org.junit.jupiter.api.Test;

/** Opening, allocating, counting and closing. */
class LifecycleContractTest extends Contract {
  @Test
  void saysWhatItIs() {
    assertEquals(subject.name(), backend.name());
    assertTrue(backend.lanes() >= 1, "at least one lane");
    assertTrue(backend.supports(DataType.F32), "F32 is supported everywhere");
    assertTrue(!backend.supports(DataType.I32) && !backend.supports(DataType.U8), "no integers");
  }

  /** Memory that was used before is zeroed too, where an allocator keeps it. */
  @Test
  void allocatesZeros() {
    Shape shape = Shape.of(2, 3, 5, 7);
    for (int round = 0; round < 3; round++) {
      for (DataType type : DataType.values()) {
        try (var stream = backend.newStream();
            Tensor tensor = backend.allocate(shape, type, Layout.NHWC);
            Tensor host = Tensor.allocate(shape, type, Layout.NHWC)) {
          assertEquals(shape, tensor.shape());
          assertEquals(type, tensor.type());
          assertEquals(Layout.NHWC, tensor.layout());
          assertEquals(backend.device(), tensor.device());
          assertEquals(0, tensor.address() % 64, "alignment");
          host.segment().fill((byte) 1);
          backend.copy(stream, tensor, host);
          stream.synchronize();
          for (float value : host.toFloatArray()) {
            assertEquals(0f, value);
          }
          backend.fill(stream, tensor, 77);
          stream.synchronize();
        }
      }
    }
  }

  @Test
  void countsItsMemory() {
    MemoryStatistics before = backend.memory();
    assertEquals(0, before.inUse());
    Tensor first = backend.allocate(Shape.of(1000), DataType.F32, Layout.ROW_MAJOR);
    MemoryStatistics one = backend.memory();
    assertTrue(one.inUse() >= 4000, "in use: " + one);
    Tensor second = backend.allocate(Shape.of(3000), DataType.BF16, Layout.ROW_MAJOR);
    MemoryStatistics two = backend.memory();
    assertTrue(two.inUse() >= 10_000 && two.peak() >= two.inUse(), "in use: " + two);
    assertEquals(before.allocations() + 2, two.allocations());
    first.close();
    first.close(); // counted once
    MemoryStatistics less = backend.memory();
    assertTrue(less.inUse() >= 6000 && less.inUse() < two.inUse(), "in use: " + less);
    assertEquals(two.peak(), less.peak());
    Tensor view = second.slice(10, Shape.of(5), Layout.ROW_MAJOR);
    view.close(); // a view owns nothing
    assertEquals(less.inUse(), backend.memory().inUse());
    second.close();
    assertEquals(0, backend.memory().inUse());
    assertTrue(backend.memory().peak() >= 10_000, "the peak stays");
    assertThrows(IllegalStateException.class, second::address);
    assertThrows(IllegalStateException.class, view::address);
  }

  @Test
  void countsUnderManyThreads() throws Exception {
    try (var threads = Executors.newFixedThreadPool(4)) {
      var tasks =
          java.util.stream.IntStream.range(0, 4)
              .mapToObj(
                  thread ->
                      threads.submit(
                          () -> {
                            for (int i = 0; i < 200; i++) {
                              backend
                                  .allocate(
                                      Shape.of(1 + i * thread), DataType.F32, Layout.ROW_MAJOR)
                                  .close();
                            }
                          }))
              .toList();
      for (var task : tasks) {
        task.get();
      }
    }
    assertEquals(0, backend.memory().inUse());
    assertTrue(backend.memory().allocations() >= 800, "every allocation is counted");
  }

  @Test
  void emptyTensor() {
    try (var stream = backend.newStream();
        Tensor empty = backend.allocate(Shape.of(0, 3, 3, 2), DataType.F32, Layout.NHWC)) {
      assertEquals(0, empty.bytes());
      backend.fill(stream, empty, 1);
      stream.synchronize();
    }
  }

  /** An impossible request names its size, and the backend goes on. */
  @Test
  void outOfMemory() {
    Shape huge = Shape.of(1 << 30, 1 << 12);
    Refusals.requireMessage(
        OutOfMemoryException.class,
        () -> backend.allocate(huge, DataType.F32, Layout.ROW_MAJOR).close(),
        Long.toString(4L << 42));
    try (Tensor small = backend.allocate(Shape.of(4), DataType.F32, Layout.ROW_MAJOR)) {
      assertEquals(4, small.shape().elements());
    }
    assertThrows(
        IllegalArgumentException.class,
        () -> backend.allocate(Shape.of(3, 4), DataType.F32, Layout.NHWC).close());
  }

  @Test
  void closing() {
    var stream = backend.newStream();
    stream.synchronize();
    stream.close();
    stream.close();
    assertThrows(IllegalStateException.class, stream::synchronize);
    try (Tensor tensor = backend.allocate(Shape.of(4), DataType.F32, Layout.ROW_MAJOR)) {
      assertThrows(IllegalStateException.class, () -> backend.fill(stream, tensor, 1));
    }
    Backend closed = subject.open();
    closed.close();
    closed.close();
    Refusals.requireMessage(
        IllegalStateException.class,
        () -> closed.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR).close(),
        "close");
    Refusals.requireMessage(IllegalStateException.class, () -> closed.newStream().close(), "close");
    Refusals.requireMessage(
        IllegalStateException.class, () -> closed.gradientNorm(1).close(), "close");
  }

  /** Two backends at once do not share counters or lifetimes. */
  @Test
  void opensTwice() {
    try (Backend other = subject.open()) {
      assertNotEquals(other, backend);
      try (Tensor tensor = other.allocate(Shape.of(10), DataType.F32, Layout.ROW_MAJOR)) {
        assertEquals(10, tensor.shape().elements());
        assertEquals(0, backend.memory().inUse());
      }
    }
    try (Tensor tensor = backend.allocate(Shape.of(10), DataType.F32, Layout.ROW_MAJOR)) {
      assertEquals(10, tensor.shape().elements());
    }
  }

  @Test
  void unsupportedTypes() {
    for (DataType type : List.of(DataType.I32, DataType.U8)) {
      Refusals.requireMessage(
          UnsupportedException.class,
          () -> backend.rectify(4, type, Rectifier.IDENTITY).close(),
          type.name());
      Refusals.requireMessage(
          UnsupportedException.class,
          () ->
              backend
                  .conv2d(
                      Conv2dDescriptor.linear(1, 1, 1),
                      type,
                      Rectifier.IDENTITY,
                      Rectifier.IDENTITY)
                  .close(),
          type.name());
    }
  }
}
