package io.jtrelu.backend.reference;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** The sums as they are written, in binary64. */
final class ReferenceFisherRows extends FisherRows {
  ReferenceFisherRows(Conv2dDescriptor descriptor, DataType type, Form form) {
    super(Device.CPU, descriptor, type, form);
  }

  @Override
  protected void compute(
      Stream stream, Tensor src, Tensor diffDst, Tensor inputs, Tensor gradients) {
    ReferenceStream.require(stream);
    Conv2dDescriptor d = descriptor();
    float[] x = Elements.read(src);
    float[] e = Elements.read(diffDst);
    int width = inputs(d);
    int rows = rows(d, form());
    int places = d.oh() * d.ow();
    double[] patches = Elements.zeros(inputs);
    double[] sums = Elements.zeros(gradients);
    for (int n = 0; n < d.n(); n++) {
      for (int y = 0; y < d.oh(); y++) {
        for (int z = 0; z < d.ow(); z++) {
          int place = n * rows + (rows == 1 ? 0 : y * d.ow() + z);
          for (int r = 0; r < d.kh(); r++) {
            for (int s = 0; s < d.kw(); s++) {
              int row = y * d.strideH() - d.padTop() + r * d.dilationH();
              int column = z * d.strideW() - d.padLeft() + s * d.dilationW();
              if (row >= 0 && row < d.h() && column >= 0 && column < d.w()) {
                for (int c = 0; c < d.ic(); c++) {
                  patches[place * width + (r * d.kw() + s) * d.ic() + c] +=
                      x[((n * d.h() + row) * d.w() + column) * d.ic() + c];
                }
              }
            }
          }
          for (int k = 0; k < d.oc(); k++) {
            sums[place * d.oc() + k] += e[((n * d.oh() + y) * d.ow() + z) * d.oc() + k];
          }
        }
      }
    }
    double divisor = form() == Form.REDUCE ? places : Math.sqrt(places);
    for (int row = 0; row < d.n() * rows; row++) {
      for (int i = 0; i < width - 1; i++) {
        patches[row * width + i] /= divisor;
      }
      patches[row * width + width - 1] = form() == Form.REDUCE ? 1 : 1 / divisor;
    }
    Elements.store(patches, inputs);
    Elements.store(sums, gradients);
  }
}
