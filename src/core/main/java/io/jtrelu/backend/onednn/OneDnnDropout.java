package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Dropout;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.random.Philox;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** A pass over the elements, four to a block of random words. */
final class OneDnnDropout extends Dropout {

  OneDnnDropout(long elements, DataType type, float rate) {
    super(Device.CPU, elements, type, rate);
  }

  @Override
  protected void run(
      Stream stream, Tensor from, Tensor to, long seed, Tensor sequence, Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    float[] x = lane.chunk(0);
    int[] words = lane.words();
    long low = Integer.toUnsignedLong(Elements.getInt(sequence.address()));
    long number = low | (long) Elements.getInt(sequence.address() + 4) << 32;
    float scale = (float) (1 / (1.0 - rate()));
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      long offset = i * type().bytes();
      Elements.load(type(), from.address() + offset, x, count);
      for (int k = 0; k < count; k++) {
        if (k % 4 == 0) { // a chunk begins with a block, as its size is a multiple of four
          Philox.block(seed, number, (i + k) / 4, words);
        }
        x[k] = Philox.uniform(words[k % 4]) >= rate() ? x[k] * scale : 0;
      }
      if (write == Write.ACCUMULATE) {
        Elements.accumulate(lane, x, type(), to.address() + offset, count);
      }
      Elements.store(type(), x, to.address() + offset, count);
    }
  }
}
