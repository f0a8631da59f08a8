package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Shape;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;

/** Sizes that cannot be counted, and sizes that are only large. */
class LargeSizesTest {
  private static final int HUGE = Integer.MAX_VALUE;

  private static void refuse(Runnable request, String... words) {
    Refusals.requireMessage(IllegalArgumentException.class, request::run, words);
  }

  @Test
  void shapes() {
    refuse(() -> Shape.of(HUGE, HUGE, HUGE), "2147483647, 2147483647, 2147483647", "2^63");
    assertEquals(0, Shape.of(HUGE, HUGE, HUGE, 0).elements(), "an empty tensor of any extents");
    assertEquals(0, Shape.of(0, HUGE, HUGE, HUGE).elements());
    assertEquals((long) HUGE * HUGE, Shape.of(HUGE, HUGE).elements());
  }

  @Test
  void convolutions() {
    refuse(() -> Conv2dDescriptor.of(HUGE, HUGE, HUGE, 8, 8, 3, 1, 0), "source", "2147483647");
    refuse(() -> Conv2dDescriptor.of(1, 1, 1, HUGE, HUGE, 3, 1, 1), "weights", "2147483647");
    refuse(
        () -> Conv2dDescriptor.of(1 << 20, 1 << 10, 1 << 10, 1, HUGE, 1, 1, 0),
        "destination",
        "1048576");
    refuse(
        () -> Conv2dDescriptor.of(1 << 14, 1 << 14, 1 << 14, 1 << 10, 1 << 10, 1, 1, 0),
        "multiply-adds",
        "16384");
    // Extents that only overflow with their padding, or with the reach of the kernel.
    refuse(() -> Conv2dDescriptor.of(1, HUGE, 1, 1, 1, 1, 1, 1), "padded", "2147483649");
    refuse(
        () -> new Conv2dDescriptor(1, 9, 9, 1, 1, 3, 3, 1, 1, 0, 0, 0, 0, HUGE, HUGE, 1),
        "does not fit",
        "2147483647");
    refuse(() -> Conv2dDescriptor.same(1, HUGE, 8, 1, 1, HUGE, 1), "padded");
    refuse(() -> Conv2dDescriptor.same(1, 8, 8, 1, 1, 3, 0), "stride", "0");
    Conv2dDescriptor large = Conv2dDescriptor.of(1, HUGE, 1, 1, 1, 1, 1, 0);
    assertEquals(HUGE, large.oh());
    assertEquals(HUGE, large.multiplyAdds());
    Conv2dDescriptor wide =
        new Conv2dDescriptor(1, HUGE - 2, 1, 1, 1, 2, 1, 1, 1, 1, 0, 1, 0, HUGE - 1, 1, 1);
    assertEquals(1, wide.oh());
  }

  @Test
  void poolings() {
    refuse(() -> new MaxPool2dDescriptor(HUGE, HUGE, HUGE, 1, 2, 2, 0, 0), "2147483647", "counted");
    refuse(() -> new MaxPool2dDescriptor(1, HUGE, 4, 1, 2, 2, 1, 1), "2147483647", "padded");
    refuse(() -> MaxPool2dDescriptor.same(HUGE, HUGE, HUGE, 1, 3, 1), "2147483647");
    assertEquals(HUGE, new MaxPool2dDescriptor(1, HUGE, 1, 1, 1, 1, 0, 0).oh());
  }

  /** As long as oneDNN would plan these: minutes. */
  @Test
  void preparingWhatCannotRunIsRefused() {
    try (Backend backend = Backends.open("cpu")) {
      Assumptions.assumeTrue(backend.name().equals("onednn"), "the reference plans nothing");
      for (Conv2dDescriptor d :
          new Conv2dDescriptor[] {
            Conv2dDescriptor.of(1, 2_000_000_000, 1, 1, 1, 1, 1, 0),
            Conv2dDescriptor.of(1, 1 << 30, 1 << 10, 3, 8, 3, 1, 1),
            Conv2dDescriptor.of(1, 8, 8, 1 << 24, 1 << 24, 1, 1, 0)
          }) {
        Refusals.requireMessage(
            UnsupportedException.class,
            () -> backend.conv2d(d, DataType.F32, Rectifier.IDENTITY, Rectifier.IDENTITY).close(),
            d.toString());
      }
    }
  }
}
