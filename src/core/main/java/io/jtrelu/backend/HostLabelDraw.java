package io.jtrelu.backend;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.random.Philox;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;

/** In Java and binary64, for backends that compute in the host's memory. */
final class HostLabelDraw extends LabelDraw {
  HostLabelDraw(int n, int classes, DataType type) {
    super(Device.CPU, n, classes, type);
  }

  @Override
  protected void compute(
      Stream stream,
      Tensor logits,
      Tensor given,
      long seed,
      Tensor sequence,
      int first,
      Tensor labels) {
    MemorySegment words = sequence.segment();
    long number =
        Integer.toUnsignedLong(words.getAtIndex(JAVA_INT_UNALIGNED, 0))
            | (long) words.getAtIndex(JAVA_INT_UNALIGNED, 1) << 32;
    int[] random = new int[4];
    for (int i = 0; i < n(); i++) {
      Philox.block(seed, number, first + i, random);
      boolean padding = given.get(i) == -1;
      labels.put(i, padding ? -1 : draw(logits, i, Philox.uniform(random[0])));
    }
  }

  private int draw(Tensor logits, int row, double uniform) {
    long at = (long) row * classes();
    double largest = Double.NEGATIVE_INFINITY;
    for (int c = 0; c < classes(); c++) {
      largest = Math.max(largest, logits.get(at + c));
    }
    double sum = 0;
    for (int c = 0; c < classes(); c++) {
      sum += Math.exp(logits.get(at + c) - largest);
    }
    double left = uniform * sum; // in (0, sum]
    for (int c = 0; c < classes(); c++) {
      left -= Math.exp(logits.get(at + c) - largest);
      if (left <= 0) {
        return c;
      }
    }
    return classes() - 1; // rounding has left a rest
  }
}
