package io.jtrelu.backend.reference;

import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Window by window. */
final class ReferenceMaxPool2d extends MaxPool2d {

  ReferenceMaxPool2d(MaxPool2dDescriptor descriptor, DataType type, Rectifier srcActivation) {
    super(Device.CPU, descriptor, type, srcActivation);
  }

  @Override
  protected void runForward(Stream stream, Tensor src, Tensor dst, Tensor argmax) {
    ReferenceStream.require(stream);
    MaxPool2dDescriptor d = descriptor();
    float[] x = Elements.read(src);
    double[] y = Elements.zeros(dst);
    double[] place = Elements.zeros(argmax);
    int i = 0;
    for (int n = 0; n < d.n(); n++) {
      for (int p = 0; p < d.oh(); p++) {
        for (int q = 0; q < d.ow(); q++) {
          for (int c = 0; c < d.c(); c++, i++) {
            int winner = -1;
            float best = 0;
            for (int tap = 0; tap < d.kernel() * d.kernel(); tap++) {
              int at = source(n, p, q, c, tap);
              if (at >= 0 && (winner < 0 || beats(x[at], best))) {
                winner = tap;
                best = x[at];
              }
            }
            y[i] = best;
            place[i] = winner + (marksPositive() && best > 0 ? POSITIVE : 0);
          }
        }
      }
    }
    Elements.store(y, dst);
    Elements.store(place, argmax);
  }

  /** Whether a later value replaces an earlier one: where larger, or the first NaN. */
  private static boolean beats(float later, float earlier) {
    return later > earlier || (Float.isNaN(later) && !Float.isNaN(earlier));
  }

  /** Index of the source element at a place r*kernel+s of a window, or -1 in the padding. */
  private int source(int n, int p, int q, int c, int tap) {
    MaxPool2dDescriptor d = descriptor();
    int y = p * d.stride() - d.padBegin() + tap / d.kernel();
    int x = q * d.stride() - d.padBegin() + tap % d.kernel();
    boolean inside = y >= 0 && y < d.h() && x >= 0 && x < d.w();
    return inside ? ((n * d.h() + y) * d.w() + x) * d.c() + c : -1;
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor diffDst, Tensor argmax, Tensor src, Tensor diffSrc, Write write) {
    ReferenceStream.require(stream);
    MaxPool2dDescriptor d = descriptor();
    float[] dy = Elements.read(diffDst);
    float[] place = Elements.read(argmax);
    double[] dx = Elements.zeros(diffSrc);
    boolean marked = marksPositive() && write == Write.OVERWRITE;
    boolean[] positive = new boolean[dx.length];
    int i = 0;
    for (int n = 0; n < d.n(); n++) {
      for (int p = 0; p < d.oh(); p++) {
        for (int q = 0; q < d.ow(); q++) {
          for (int c = 0; c < d.c(); c++, i++) {
            int winner = marksPositive() ? (int) place[i] % POSITIVE : (int) place[i];
            int at = source(n, p, q, c, winner);
            dx[at] += dy[i];
            positive[at] |= place[i] >= POSITIVE;
          }
        }
      }
    }
    for (int at = 0; marked && at < dx.length; at++) {
      dx[at] *= Elements.derivative(srcActivation(), positive[at] ? 1 : 0);
    }
    Elements.storeGradient(dx, marked ? Rectifier.IDENTITY : srcActivation(), src, diffSrc, write);
  }
}
