package io.jtrelu.backend.onednn;

import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;

/**
 * Window by window forward; backward each source element gathers from the windows that cover it, so
 * that nothing is scattered and sums have a fixed order.
 */
final class OneDnnMaxPool2d extends MaxPool2d {

  OneDnnMaxPool2d(MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    super(Device.CPU, descriptor, type, srcActivation);
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst, Tensor argmax) {
    OneDnnStream lane = OneDnnStream.of(stream);
    MaxPool2dDescriptor d = descriptor();
    long source = src.address();
    long destination = dst.address();
    long winners = argmax.address();
    for (int n = 0; n < d.n(); n++) {
      for (int p = 0; p < d.oh(); p++) {
        for (int q = 0; q < d.ow(); q++) {
          long pixel = ((long) n * d.oh() + p) * d.ow() + q;
          for (int c = 0; c < d.c(); c += Elements.CHUNK) {
            int count = Math.min(Elements.CHUNK, d.c() - c);
            long at = pixel * d.c() + c;
            window(
                lane, n, p, q, c, count, source, destination + at * type().bytes(), winners + at);
          }
        }
      }
    }
  }

  /** One window of some channels. */
  private void window(
      OneDnnStream lane, int n, int p, int q, int c, int count, long src, long dst, long argmax) {
    MaxPool2dDescriptor d = descriptor();
    float[] best = lane.chunk(0);
    float[] value = lane.chunk(1);
    float[] winner = lane.chunk(2);
    boolean first = true;
    for (int r = 0; r < d.kernel(); r++) {
      int y = p * d.stride() - d.padBegin() + r;
      for (int s = 0; s < d.kernel() && y >= 0 && y < d.h(); s++) {
        int x = q * d.stride() - d.padBegin() + s;
        if (x < 0 || x >= d.w()) {
          continue;
        }
        long from = src + ((((long) n * d.h() + y) * d.w() + x) * d.c() + c) * type().bytes();
        int tap = r * d.kernel() + s;
        if (first) {
          Elements.load(type(), from, best, count);
          Arrays.fill(winner, 0, count, tap);
          first = false;
        } else {
          Elements.load(type(), from, value, count);
          challenge(best, winner, value, tap, count);
        }
      }
    }
    Elements.store(type(), best, dst, count);
    int mark = marksPositive() ? POSITIVE : 0;
    for (int i = 0; i < count; i++) {
      Elements.putByte(argmax + i, (int) winner[i] + (best[i] > 0 ? mark : 0));
    }
  }

  /** A later value wins where it is larger, or where it is the first NaN. */
  private static void challenge(float[] best, float[] winner, float[] value, int tap, int count) {
    for (int i = 0; i < count; i++) {
      float held = best[i];
      float next = value[i];
      boolean wins = !(next <= held) && !Float.isNaN(held);
      best[i] = wins ? next : held;
      winner[i] = wins ? tap : winner[i];
    }
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor diffDst, Tensor argmax, Tensor src, Tensor diffSrc, Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    MaxPool2dDescriptor d = descriptor();
    boolean marked = marksPositive() && write == Write.OVERWRITE;
    long gradient = diffDst.address();
    long winners = argmax.address();
    long source = src.address();
    long result = diffSrc.address();
    for (int n = 0; n < d.n(); n++) {
      for (int y = 0; y < d.h(); y++) {
        for (int x = 0; x < d.w(); x++) {
          long pixel = ((long) n * d.h() + y) * d.w() + x;
          for (int c = 0; c < d.c(); c += Elements.CHUNK) {
            int count = Math.min(Elements.CHUNK, d.c() - c);
            gather(lane, n, y, x, c, count, gradient, winners);
            if (marked) {
              differentiate(lane, count);
            }
            long offset = (pixel * d.c() + c) * type().bytes();
            Elements.storeGradient(
                lane,
                lane.chunk(0),
                marked ? Rectifier.IDENTITY : srcActivation(),
                type(),
                source + offset,
                result + offset,
                count,
                write);
          }
        }
      }
    }
  }

  /** Multiplies by the rectifier's derivative where {@link #gather} found maxima above 0 or not. */
  private void differentiate(OneDnnStream lane, int count) {
    float[] sum = lane.chunk(0);
    float[] positive = lane.chunk(2);
    float above = srcActivation().scale();
    float below = above * srcActivation().slope();
    for (int i = 0; i < count; i++) {
      sum[i] *= positive[i] > 0 ? above : below;
    }
  }

  /**
   * Sums into the first chunk what some channels of a location won, window by window; and into the
   * third, above 0 where what won was.
   */
  private void gather(
      OneDnnStream lane, int n, int y, int x, int c, int count, long diffDst, long argmax) {
    MaxPool2dDescriptor d = descriptor();
    float[] sum = lane.chunk(0);
    float[] diff = lane.chunk(1);
    float[] positive = lane.chunk(2);
    int places = marksPositive() ? POSITIVE - 1 : 255; // bits of a place
    Arrays.fill(sum, 0, count, 0);
    Arrays.fill(positive, 0, count, 0);
    int row = y + d.padBegin();
    int column = x + d.padBegin();
    int lastP = Math.min(row / d.stride(), d.oh() - 1);
    int lastQ = Math.min(column / d.stride(), d.ow() - 1);
    for (int p = first(row); p <= lastP; p++) {
      for (int q = first(column); q <= lastQ; q++) {
        long at = (((long) n * d.oh() + p) * d.ow() + q) * d.c() + c;
        int tap = (row - p * d.stride()) * d.kernel() + column - q * d.stride();
        Elements.load(type(), diffDst + at * type().bytes(), diff, count);
        for (int i = 0; i < count; i++) {
          int winner = Elements.getByte(argmax + at + i);
          boolean won = (winner & places) == tap;
          sum[i] += won ? diff[i] : 0;
          positive[i] += won && winner >= POSITIVE ? 1 : 0;
        }
      }
    }
  }

  /** First window that covers a padded coordinate. */
  private int first(int coordinate) {
    int past = coordinate - descriptor().kernel() + 1;
    return past <= 0 ? 0 : Math.ceilDiv(past, descriptor().stride());
  }
}
