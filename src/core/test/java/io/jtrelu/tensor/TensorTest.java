package io.jtrelu.tensor;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

/** Shapes, tensors, their owners and views. */
class TensorTest {
  private static void refused(Class<? extends Exception> type, Runnable action, String... words) {
    String message = assertThrows(type, action::run).getMessage();
    for (String word : words) {
      assertTrue(message.contains(word), "'" + word + "' not in: " + message);
    }
  }

  @Test
  void shapes() {
    Shape shape = Shape.of(2, 3, 5);
    assertEquals(3, shape.rank());
    assertEquals(30, shape.elements());
    assertEquals(5, shape.dim(2));
    assertEquals(Shape.of(2, 3, 5), shape);
    assertEquals(Shape.of(2, 3, 5).hashCode(), shape.hashCode());
    assertNotEquals(Shape.of(2, 5, 3), shape);
    assertEquals(1, Shape.of().elements());
    assertEquals(0, Shape.of(4, 0, 4).elements());
    shape.dims()[0] = 99; // a copy
    assertEquals(2, shape.dim(0));
    int[] dims = {7};
    Shape kept = Shape.of(dims);
    dims[0] = 8;
    assertEquals(7, kept.dim(0));
    refused(IllegalArgumentException.class, () -> Shape.of(2, -1), "[2, -1]");
    int big = Integer.MAX_VALUE;
    refused(IllegalArgumentException.class, () -> Shape.of(big, big, 3), "2^63");
    refused(
        IllegalArgumentException.class,
        () -> Tensor.byteSize(Shape.of(big, big), DataType.F32),
        "too large");
  }

  @Test
  void storesEveryType() {
    float[] values = {0, 1, 2, 100, 255};
    for (DataType type : DataType.values()) {
      try (Tensor tensor = Tensor.allocate(Shape.of(5), type, Layout.ROW_MAJOR)) {
        assertArrayEquals(new float[5], tensor.toFloatArray(), "zeroed");
        assertEquals(5L * type.bytes(), tensor.bytes());
        assertArrayEquals(values, tensor.set(values).toFloatArray());
        tensor.put(3, 7);
        assertEquals(7f, tensor.get(3));
        assertEquals(0, tensor.address() % HostMemory.ALIGNMENT);
        refused(IndexOutOfBoundsException.class, () -> tensor.get(5), "element 5", "has 5");
        refused(IndexOutOfBoundsException.class, () -> tensor.put(-1, 0), "element -1", "has 5");
        refused(
            IndexOutOfBoundsException.class,
            () -> tensor.put(Long.MAX_VALUE, 0),
            "element 9223372036854775807");
        refused(IllegalArgumentException.class, () -> tensor.set(1, 2), "2 values", "5 elements");
      }
    }
  }

  /** The bits lie where and as the type says. */
  @Test
  void storageFormat() {
    try (Tensor brain = Tensor.allocate(Shape.of(2), DataType.BF16, Layout.ROW_MAJOR);
        Tensor half = Tensor.allocate(Shape.of(2), DataType.F16, Layout.ROW_MAJOR)) {
      brain.set(1, -2);
      half.set(1, -2);
      assertEquals((short) 0x3f80, brain.segment().get(ValueLayout.JAVA_SHORT, 0));
      assertEquals((short) 0xc000, brain.segment().get(ValueLayout.JAVA_SHORT, 2));
      assertEquals((short) 0x3c00, half.segment().get(ValueLayout.JAVA_SHORT, 0));
      assertEquals((short) 0xc000, half.segment().get(ValueLayout.JAVA_SHORT, 2));
    }
  }

  @Test
  void wrapsABufferWithoutACopy() {
    ByteBuffer buffer = ByteBuffer.allocateDirect(4 * 8).order(ByteOrder.nativeOrder());
    buffer.position(8);
    Tensor tensor = Tensor.wrap(buffer, Shape.of(2, 3), DataType.F32, Layout.ROW_MAJOR);
    buffer.putFloat(8 + 4 * 4, 42);
    assertEquals(42f, tensor.get(4));
    tensor.put(0, -1);
    assertEquals(-1f, buffer.getFloat(8));
    assertEquals(MemorySegment.ofBuffer(buffer).address(), tensor.address());
    tensor.close(); // the caller's memory stays, and so does the tensor
    assertEquals(42f, tensor.get(4));
    refused(
        IllegalArgumentException.class,
        () -> Tensor.wrap(buffer, Shape.of(7), DataType.F32, Layout.ROW_MAJOR),
        "28 bytes",
        "24");
    refused(
        IllegalArgumentException.class,
        () -> Tensor.wrap(ByteBuffer.allocate(64), Shape.of(2), DataType.F32, Layout.ROW_MAJOR),
        "allocateDirect");
  }

  @Test
  void wrapsASegmentWithoutACopy() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment segment = arena.allocate(64);
      Tensor tensor = Tensor.wrap(segment, Shape.of(1, 2, 2, 4), DataType.F32, Layout.NHWC);
      tensor.put(15, 3);
      assertEquals(3f, segment.getAtIndex(ValueLayout.JAVA_FLOAT, 15));
      assertEquals(segment.address(), tensor.address());
    }
    refused(
        IllegalArgumentException.class,
        () ->
            Tensor.wrap(
                MemorySegment.ofArray(new float[4]), Shape.of(4), DataType.F32, Layout.ROW_MAJOR),
        "heap");
  }

  @Test
  void views() {
    try (Tensor owner = Tensor.allocate(Shape.of(4, 6), DataType.BF16, Layout.ROW_MAJOR)) {
      Tensor view = owner.slice(8, Shape.of(1, 2, 2, 3), Layout.NHWC);
      view.put(0, 5);
      assertEquals(5f, owner.get(8));
      assertEquals(owner.address() + 16, view.address());
      assertEquals(24, view.bytes());
      Tensor inner = view.slice(3, Shape.of(2), Layout.ROW_MAJOR);
      inner.put(1, 9);
      assertEquals(9f, owner.get(12));
      view.close(); // owns nothing
      assertEquals(5f, view.get(0));
      assertEquals(0, owner.slice(24, Shape.of(0), Layout.ROW_MAJOR).bytes());
      for (long first : new long[] {-1, 23, Long.MAX_VALUE}) {
        refused(
            IllegalArgumentException.class,
            () -> owner.slice(first, Shape.of(2), Layout.ROW_MAJOR),
            "does not fit",
            Long.toString(first));
      }
      refused(
          IllegalArgumentException.class,
          () -> owner.slice(0, Shape.of(3, 4), Layout.KRSC),
          "four axes");
    }
  }

  /** Closing the owner ends all views; closing twice does nothing. */
  @Test
  void useAfterClose() {
    Tensor owner = Tensor.allocate(Shape.of(4), DataType.F32, Layout.ROW_MAJOR);
    Tensor view = owner.slice(1, Shape.of(2), Layout.ROW_MAJOR);
    owner.close();
    owner.close();
    assertTrue(owner.memory().isClosed());
    for (Tensor tensor : new Tensor[] {owner, view}) {
      refused(IllegalStateException.class, tensor::address, "close");
      refused(IllegalStateException.class, tensor::segment, "close");
      refused(IllegalStateException.class, tensor::toFloatArray, "close");
      refused(IllegalStateException.class, () -> tensor.get(0), "close");
      refused(
          IllegalStateException.class,
          () -> tensor.set(new float[(int) tensor.shape().elements()]),
          "close");
    }
    assertEquals(Shape.of(4), owner.shape()); // what it was can still be said
  }

  @Test
  void releasesOnce() throws Exception {
    AtomicInteger released = new AtomicInteger();
    HostMemory memory = HostMemory.allocate(64, released::incrementAndGet);
    assertFalse(memory.isClosed());
    Thread[] threads = new Thread[8];
    for (int i = 0; i < threads.length; i++) {
      threads[i] = Thread.ofPlatform().start(memory::close);
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertEquals(1, released.get());
  }

  @Test
  void viewsOfABlock() {
    try (HostMemory block = HostMemory.allocate(256)) {
      Tensor tensor = Tensor.view(block, 64, Shape.of(3), DataType.F32, Layout.ROW_MAJOR);
      tensor.set(1, 2, 3).close();
      assertEquals(2f, block.segment().get(ValueLayout.JAVA_FLOAT, 68));
      refused(
          IllegalArgumentException.class,
          () -> Tensor.view(block, 248, Shape.of(3), DataType.F32, Layout.ROW_MAJOR),
          "12 bytes",
          "248",
          "256");
    }
  }

  @Test
  void describesItself() {
    try (Tensor tensor = Tensor.allocate(Shape.of(1, 2, 3, 4), DataType.BF16, Layout.NHWC)) {
      assertEquals("BF16[1, 2, 3, 4] NHWC on cpu", tensor.toString());
    }
    assertEquals("cuda:1", Device.cuda(1).toString());
  }
}
