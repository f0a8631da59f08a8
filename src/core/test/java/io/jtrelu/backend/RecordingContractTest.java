package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;

/** Recorded work: nothing happens when it is recorded, and the same each time it is replayed. */
class RecordingContractTest extends Contract {
  private static final int LENGTH = 1000;

  private Tensor device() {
    return backend.allocate(Shape.of(LENGTH), DataType.F32, Layout.ROW_MAJOR);
  }

  private static Tensor host(float value) {
    float[] values = new float[LENGTH];
    Arrays.fill(values, value);
    return Tensor.allocate(Shape.of(LENGTH), DataType.F32, Layout.ROW_MAJOR).set(values);
  }

  private static float[] all(float value) {
    float[] values = new float[LENGTH];
    Arrays.fill(values, value);
    return values;
  }

  /** x <- 2x + b, b copied from the host, then the norm: kernels, copies and a workspace. */
  @Test
  void replays() {
    try (Stream stream = backend.newStream();
        Tensor x = device();
        Tensor b = device();
        Tensor norm = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        Tensor source = host(3);
        Tensor result = host(-1);
        Tensor normOnHost = Tensor.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        WeightedSum sum = backend.weightedSum(LENGTH, DataType.F32, 2, 1, Rectifier.IDENTITY);
        GradientNorm gradientNorm = backend.gradientNorm(LENGTH)) {
      Recording recording =
          backend.record(
              stream,
              () -> {
                backend.copy(stream, source, b);
                sum.forward(stream, x, b, x);
                gradientNorm.run(stream, x, 1, norm);
                backend.copy(stream, x, result);
              });
      stream.synchronize();
      assertArrayEquals(all(-1), result.toFloatArray(), "recording does not run");
      recording.replay(stream);
      stream.synchronize();
      assertArrayEquals(all(3), result.toFloatArray());
      source.set(all(5)); // read again
      recording.replay(stream);
      recording.replay(stream);
      stream.synchronize();
      assertArrayEquals(all(2 * (2 * 3 + 5) + 5), result.toFloatArray());
      backend.copy(stream, norm, normOnHost); // ordinary work goes on
      stream.synchronize();
      double expected = 27 * Math.sqrt(LENGTH);
      assertEquals(expected, normOnHost.get(0), 1e-6 * expected);
      recording.close();
      recording.close();
      assertThrows(IllegalStateException.class, () -> recording.replay(stream));
    }
  }

  /** Another stream and the host wait for an event; host memory of the backend serves both ways. */
  @Test
  void eventsOrderStreams() {
    try (Stream uploads = backend.newStream();
        Stream stream = backend.newStream();
        Tensor x = device();
        Tensor y = device();
        Tensor source = backend.allocateOnHost(x.shape(), DataType.F32, Layout.ROW_MAJOR);
        Tensor result = backend.allocateOnHost(x.shape(), DataType.F32, Layout.ROW_MAJOR);
        Event uploaded = backend.newEvent();
        Event done = backend.newEvent();
        WeightedSum sum = backend.weightedSum(LENGTH, DataType.F32, 2, 1, Rectifier.IDENTITY)) {
      assertArrayEquals(all(0), source.toFloatArray());
      done.synchronize(); // was never recorded
      Recording recording = backend.record(stream, () -> sum.forward(stream, y, x, y));
      try (recording) {
        float expected = 0;
        for (int value = 1; value <= 4; value++) {
          source.set(all(value));
          backend.copy(uploads, source, x);
          uploaded.record(uploads);
          uploaded.await(stream);
          recording.replay(stream);
          backend.copy(stream, y, result);
          done.record(stream);
          done.synchronize();
          expected = 2 * expected + value;
          assertArrayEquals(all(expected), result.toFloatArray());
        }
      }
      Event closed = backend.newEvent();
      closed.close();
      closed.close();
      assertThrows(IllegalStateException.class, () -> closed.record(uploads));
      assertThrows(IllegalStateException.class, () -> closed.await(stream));
      assertThrows(IllegalStateException.class, closed::synchronize);
    }
  }

  /** A second stream does part of what is recorded, in scratch of its own, and work after it. */
  @Test
  void anotherStreamTakesPart() {
    try (Stream stream = backend.newStream();
        Stream side = backend.newStream();
        Event begun = backend.newEvent();
        Event done = backend.newEvent();
        Tensor x = device();
        Tensor y = device();
        Tensor normOfX = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        Tensor normOfY = backend.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        Tensor result = host(0);
        Tensor norms = Tensor.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR);
        WeightedSum sum = backend.weightedSum(LENGTH, DataType.F32, 1, 1, Rectifier.IDENTITY);
        GradientNorm norm = backend.gradientNorm(LENGTH)) {
      backend.fill(stream, x, 1);
      backend.fill(side, y, 0);
      Recording recording =
          backend.record(
              stream,
              () -> {
                sum.forward(stream, x, x, x);
                begun.record(stream);
                begun.await(side);
                sum.forward(side, x, y, y);
                norm.run(side, y, Float.POSITIVE_INFINITY, normOfY);
                norm.run(stream, x, Float.POSITIVE_INFINITY, normOfX);
                done.record(side);
                done.await(stream);
                sum.forward(stream, x, y, x);
              });
      float expectedX = 1;
      float expectedY = 0;
      try (recording) {
        side.synchronize();
        for (int i = 0; i < 3; i++) {
          recording.replay(stream);
          float doubled = 2 * expectedX;
          expectedY += doubled;
          expectedX = doubled + expectedY;
          backend.copy(stream, element(normOfX, 0), element(norms, 0));
          backend.copy(stream, element(normOfY, 0), element(norms, 1));
          backend.copy(stream, x, result);
          stream.synchronize();
          assertArrayEquals(all(expectedX), result.toFloatArray());
          double root = Math.sqrt(LENGTH);
          assertEquals(root * doubled, norms.get(0), 1e-6 * root * doubled);
          assertEquals(root * expectedY, norms.get(1), 1e-6 * root * expectedY);
        }
      }
      backend.copy(side, y, result); // an ordinary stream again
      side.synchronize();
      assertArrayEquals(all(expectedY), result.toFloatArray());
    }
  }

  private static Tensor element(Tensor of, int index) {
    return of.slice(index, Shape.of(1), Layout.ROW_MAJOR);
  }

  /** What other threads allocate and free does not end up in the recording, nor spoil it. */
  @Test
  void othersAllocateMeanwhile() throws InterruptedException {
    AtomicBoolean done = new AtomicBoolean();
    AtomicReference<Throwable> failure = new AtomicReference<>();
    Thread allocating =
        Thread.ofPlatform()
            .start(
                () -> {
                  try {
                    while (!done.get()) {
                      device().close(); // waits for all work before memory is used again
                    }
                  } catch (Throwable failed) {
                    failure.set(failed);
                  }
                });
    try (Stream stream = backend.newStream();
        Tensor x = device();
        Tensor result = host(0);
        WeightedSum sum = backend.weightedSum(LENGTH, DataType.F32, 1, 1, Rectifier.IDENTITY)) {
      for (int i = 0; i < 300; i++) {
        backend.fill(stream, x, 1);
        Recording recording =
            backend.record(
                stream,
                () -> {
                  sum.forward(stream, x, x, x);
                  sum.forward(stream, x, x, x);
                });
        recording.replay(stream);
        backend.copy(stream, x, result);
        stream.synchronize();
        recording.close();
        assertArrayEquals(all(4), result.toFloatArray());
      }
    } finally {
      done.set(true);
      allocating.join();
    }
    assertNull(failure.get());
  }

  /** Where the work throws, the stream is as before. */
  @Test
  void survivesWorkThatFails() {
    try (Stream stream = backend.newStream();
        Tensor x = device();
        Tensor result = host(0)) {
      try {
        Recording recording =
            backend.record(
                stream,
                () -> {
                  backend.fill(stream, x, 1);
                  throw new IllegalArgumentException("on purpose");
                });
        try (recording) {
          assertThrows(IllegalArgumentException.class, () -> recording.replay(stream));
        }
      } catch (IllegalArgumentException onPurpose) {
        Refusals.requireMessage(
            IllegalArgumentException.class,
            () -> {
              throw onPurpose;
            },
            "on purpose");
      }
      backend.fill(stream, x, 2);
      backend.copy(stream, x, result);
      stream.synchronize();
      assertArrayEquals(all(2), result.toFloatArray());
    }
  }
}
