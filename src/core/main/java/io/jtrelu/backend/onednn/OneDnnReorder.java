package io.jtrelu.backend.onednn;

import io.jtrelu.backend.Reorder;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * Tile by tile, so that both what is read and what is written stays in the first level cache until
 * its lines are done with.
 */
final class OneDnnReorder extends Reorder {
  private static final int TILE = 32; // rows of 64 or 128 bytes: whole cache lines

  OneDnnReorder(Shape src, DataType type, Layout from, Layout to) {
    super(Device.CPU, src, type, from, to);
  }

  @Override
  protected void compute(Stream stream, Tensor srcTensor, Tensor dstTensor) {
    OneDnnStream.of(stream);
    long x = srcTensor.address();
    long y = dstTensor.address();
    if (isCopy()) {
      Elements.copy(x, y, srcTensor.bytes());
      return;
    }
    int bytes = type().bytes();
    long rows = rows();
    long cols = cols();
    for (long i = 0; i < batch(); i++) {
      long matrix = i * rows * cols;
      for (long r = 0; r < rows; r += TILE) {
        int height = (int) Math.min(TILE, rows - r);
        for (long c = 0; c < cols; c += TILE) {
          int width = (int) Math.min(TILE, cols - c);
          Elements.transpose(
              bytes,
              x + (matrix + r * cols + c) * bytes,
              cols,
              y + (matrix + c * rows + r) * bytes,
              rows,
              height,
              width);
        }
      }
    }
  }
}
