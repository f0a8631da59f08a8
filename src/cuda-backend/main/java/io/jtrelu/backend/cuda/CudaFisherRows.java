package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;

/** fisher_rows.cu: means over patches, or patches; of gradients as patches of one tap. */
final class CudaFisherRows extends FisherRows {
  private static final int CHANNELS_PER_BLOCK = 32;
  private static final int ELEMENTS_PER_BLOCK = 256;

  private final CudaBackend backend;
  private final Kernel kernel;

  CudaFisherRows(CudaBackend backend, Conv2dDescriptor descriptor, DataType type, Form form) {
    super(backend.device(), descriptor, type, form);
    this.backend = backend;
    kernel = backend.kernel(form == Form.REDUCE ? "fisher_rows" : "fisher_patches", type);
  }

  /** struct FisherRowsParameters, twice. */
  @Override
  protected void compute(
      Stream stream, Tensor src, Tensor diffDst, Tensor inputs, Tensor gradients) {
    CudaStream on = backend.own(stream);
    Conv2dDescriptor d = descriptor();
    on.arguments()
        .pointer(src)
        .pointer(inputs)
        .i32(d.h())
        .i32(d.w())
        .i32(d.ic())
        .i32(d.oh())
        .i32(d.ow())
        .i32(d.kh())
        .i32(d.kw())
        .i32(d.strideH())
        .i32(d.strideW())
        .i32(d.padTop())
        .i32(d.padLeft())
        .i32(d.dilationH())
        .i32(d.dilationW())
        .i32(inputs(d))
        .f32((float) (form() == Form.REDUCE ? 1.0 / places() : 1 / Math.sqrt(places())));
    on.launch(kernel, blocks(d.ic(), d.kh() * d.kw(), inputs(d)));
    on.arguments()
        .pointer(diffDst)
        .pointer(gradients)
        .i32(d.oh())
        .i32(d.ow())
        .i32(d.oc())
        .i32(d.oh())
        .i32(d.ow())
        .i32(1)
        .i32(1)
        .i32(1)
        .i32(1)
        .i32(0)
        .i32(0)
        .i32(1)
        .i32(1)
        .i32(d.oc())
        .f32(1);
    on.launch(kernel, blocks(d.oc(), 1, d.oc()));
  }

  private double places() {
    return (double) descriptor().oh() * descriptor().ow();
  }

  private long blocks(int channels, int taps, int width) {
    int n = descriptor().n();
    return form() == Form.REDUCE
        ? (long) n * taps * Math.ceilDiv(channels, CHANNELS_PER_BLOCK)
        : (long) n * rows(descriptor(), form()) * Math.ceilDiv(width, ELEMENTS_PER_BLOCK);
  }
}
