package io.jtrelu.backend.reference;

import io.jtrelu.backend.Dropout;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.random.Philox;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Element by element, four to a block of random words. */
final class ReferenceDropout extends Dropout {

  ReferenceDropout(long elements, DataType type, float rate) {
    super(Device.CPU, elements, type, rate);
  }

  @Override
  protected void run(
      Stream stream, Tensor from, Tensor to, long seed, Tensor sequence, Write write) {
    ReferenceStream.require(stream);
    float[] x = Elements.read(from);
    double[] y = Elements.zeros(to);
    int[] half = Elements.readInts(sequence);
    long number = Integer.toUnsignedLong(half[0]) | (long) half[1] << 32;
    int[] words = new int[4];
    for (int i = 0; i < y.length; i++) {
      if (i % 4 == 0) {
        Philox.block(seed, number, i / 4, words);
      }
      boolean keep = Philox.uniform(words[i % 4]) >= rate();
      y[i] = keep ? x[i] / (1.0 - rate()) : 0;
    }
    Elements.store(y, to, write);
  }
}
