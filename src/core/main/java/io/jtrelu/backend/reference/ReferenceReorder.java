package io.jtrelu.backend.reference;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import io.jtrelu.backend.Reorder;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;

/** Element by element, as bytes. */
final class ReferenceReorder extends Reorder {

  ReferenceReorder(Shape src, DataType type, Layout from, Layout to) {
    super(Device.CPU, src, type, from, to);
  }

  @Override
  protected void compute(Stream stream, Tensor srcTensor, Tensor dstTensor) {
    ReferenceStream.require(stream);
    MemorySegment x = srcTensor.segment();
    MemorySegment y = dstTensor.segment();
    int bytes = type().bytes();
    for (long i = 0; i < batch(); i++) {
      for (long r = 0; r < rows(); r++) {
        for (long c = 0; c < cols(); c++) {
          long read = ((i * rows() + r) * cols() + c) * bytes;
          long written = ((i * cols() + c) * rows() + r) * bytes;
          for (int b = 0; b < bytes; b++) {
            y.set(JAVA_BYTE, written + b, x.get(JAVA_BYTE, read + b));
          }
        }
      }
    }
  }
}
