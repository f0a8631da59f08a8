package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;

/**
 * In the reduce form a source row adds its sum over the places of each column of the kernel, once,
 * to all rows of the kernel that see it: kw additions an element instead of kh kw. Sums are F32,
 * over a row first and then over rows.
 */
final class OneDnnFisherRows extends FisherRows {
  OneDnnFisherRows(Conv2dDescriptor descriptor, DataType type, Form form) {
    super(Device.CPU, descriptor, type, form);
  }

  @Override
  protected void compute(
      Stream stream, Tensor src, Tensor diffDst, Tensor inputs, Tensor gradients) {
    OneDnnStream lane = OneDnnStream.of(stream);
    Conv2dDescriptor d = descriptor();
    for (int n = 0; n < d.n(); n++) {
      if (form() == Form.REDUCE) {
        meanPatch(lane, src, n, inputs);
        sumOfGradients(lane, diffDst, n, gradients);
      } else {
        patches(lane, src, n, inputs);
      }
    }
    if (form() == Form.EXPAND) {
      widen(lane, diffDst, gradients);
    }
  }

  private void patches(OneDnnStream lane, Tensor src, int n, Tensor inputs) {
    Conv2dDescriptor d = descriptor();
    int width = inputs(d);
    int ic = d.ic();
    int places = d.oh() * d.ow();
    int elements = d.h() * d.w() * ic;
    float[] image = lane.array(0, elements);
    float[] patch = lane.array(1, width);
    long bytes = (long) elements * type().bytes();
    Elements.load(type(), src.address() + n * bytes, image, elements);
    float factor = (float) (1 / Math.sqrt(places));
    Elements.scale(factor, image, elements);
    for (int place = 0; place < places; place++) {
      int top = place / d.ow() * d.strideH() - d.padTop();
      int left = place % d.ow() * d.strideW() - d.padLeft();
      for (int tap = 0; tap < d.kh() * d.kw(); tap++) {
        int y = top + tap / d.kw() * d.dilationH();
        int x = left + tap % d.kw() * d.dilationW();
        if (y >= 0 && y < d.h() && x >= 0 && x < d.w()) {
          System.arraycopy(image, (y * d.w() + x) * ic, patch, tap * ic, ic);
        } else {
          Arrays.fill(patch, tap * ic, (tap + 1) * ic, 0);
        }
      }
      patch[width - 1] = factor;
      long row = (long) n * places + place;
      Elements.store(DataType.F32, patch, inputs.address() + row * width * Float.BYTES, width);
    }
  }

  private void widen(OneDnnStream lane, Tensor diffDst, Tensor gradients) {
    int line = descriptor().oc() * descriptor().ow();
    float[] row = lane.array(0, line);
    long rows = (long) descriptor().n() * descriptor().oh();
    for (long i = 0; i < rows; i++) {
      Elements.load(type(), diffDst.address() + i * line * type().bytes(), row, line);
      Elements.store(DataType.F32, row, gradients.address() + i * line * Float.BYTES, line);
    }
  }

  private void meanPatch(OneDnnStream lane, Tensor src, int n, Tensor inputs) {
    Conv2dDescriptor d = descriptor();
    int width = inputs(d);
    int line = d.w() * d.ic();
    int sums = d.kw() * d.ic();
    float[] patch = lane.array(0, width + sums + d.ic());
    float[] row = lane.array(1, line);
    Arrays.fill(patch, 0, width, 0);
    for (int y = 0; y < d.h(); y++) {
      if (!isSeen(y)) {
        continue;
      }
      long at = ((long) n * d.h() + y) * line;
      Elements.load(type(), src.address() + at * type().bytes(), row, line);
      sumOverPlaces(row, patch, width);
      for (int r = 0; r < d.kh(); r++) {
        if (sees(r, y)) {
          add(patch, width, patch, r * sums, sums);
        }
      }
    }
    Elements.scale(1f / ((float) d.oh() * d.ow()), patch, width - 1);
    patch[width - 1] = 1;
    Elements.store(DataType.F32, patch, inputs.address() + (long) n * width * Float.BYTES, width);
  }

  /**
   * For each column of the kernel the sum over what it sees of a row. With a stride of 1 columns
   * see nearly the same, which is summed once.
   *
   * @param to receives kw sums from an index on, and is used ic further
   */
  private void sumOverPlaces(float[] row, float[] to, int at) {
    Conv2dDescriptor d = descriptor();
    int ic = d.ic();
    int first = d.strideW() == 1 ? Math.max(0, firstSeen(d.kw() - 1)) : 0;
    int end = d.strideW() == 1 ? Math.max(first, Math.min(d.w(), firstSeen(0) + d.ow())) : 0;
    int shared = at + d.kw() * ic;
    Arrays.fill(to, shared, shared + ic, 0);
    for (int column = first; column < end; column++) {
      add(row, column * ic, to, shared, ic);
    }
    for (int s = 0; s < d.kw(); s++) {
      System.arraycopy(to, shared, to, at + s * ic, ic);
      for (int z = 0; z < d.ow(); z++) {
        int column = firstSeen(s) + z * d.strideW();
        boolean counted = column >= first && column < end;
        if (!counted && column >= 0 && column < d.w()) {
          add(row, column * ic, to, at + s * ic, ic);
        }
      }
    }
  }

  /** Column of the source that a column of the kernel sees at the first place. */
  private int firstSeen(int s) {
    return s * descriptor().dilationW() - descriptor().padLeft();
  }

  private boolean isSeen(int y) {
    for (int r = 0; r < descriptor().kh(); r++) {
      if (sees(r, y)) {
        return true;
      }
    }
    return false;
  }

  /** Whether row r of the kernel sees row y of the source at some place. */
  private boolean sees(int r, int y) {
    Conv2dDescriptor d = descriptor();
    int place = y + d.padTop() - r * d.dilationH();
    return place >= 0 && place % d.strideH() == 0 && place / d.strideH() < d.oh();
  }

  private void sumOfGradients(OneDnnStream lane, Tensor diffDst, int n, Tensor gradients) {
    Conv2dDescriptor d = descriptor();
    int line = d.ow() * d.oc();
    float[] sum = lane.array(0, d.oc());
    float[] row = lane.array(1, line);
    Arrays.fill(sum, 0, d.oc(), 0);
    for (int y = 0; y < d.oh(); y++) {
      long at = ((long) n * d.oh() + y) * line;
      Elements.load(type(), diffDst.address() + at * type().bytes(), row, line);
      for (int z = 0; z < d.ow(); z++) {
        add(row, z * d.oc(), sum, 0, d.oc());
      }
    }
    Elements.store(
        DataType.F32, sum, gradients.address() + (long) n * d.oc() * Float.BYTES, d.oc());
  }

  private static void add(float[] from, int at, float[] to, int toAt, int count) {
    for (int i = 0; i < count; i++) {
      to[toAt + i] += from[at + i];
    }
  }
}
