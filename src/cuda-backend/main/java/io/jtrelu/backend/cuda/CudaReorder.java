package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Reorder;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/** reorder.cu. */
final class CudaReorder extends Reorder {
  private static final long TILE = 64;

  private final CudaBackend backend;
  private final Kernel kernel;
  private final long tilesDown;
  private final long tilesAcross;
  private final long blocks;

  CudaReorder(CudaBackend backend, Shape src, DataType type, Layout from, Layout to) {
    super(backend.device(), src, type, from, to);
    this.backend = backend;
    kernel = backend.kernels().get("reorder_" + type.bytes());
    tilesDown = Math.ceilDiv(rows(), TILE);
    tilesAcross = Math.ceilDiv(cols(), TILE);
    blocks = batch() * tilesDown * tilesAcross;
    if (blocks > Integer.MAX_VALUE) {
      throw new UnsupportedException(
          "a reorder of " + src + " takes " + blocks + " blocks, and a grid has at most 2^31 - 1");
    }
  }

  /** struct ReorderParameters. */
  @Override
  protected void compute(Stream stream, Tensor srcTensor, Tensor dstTensor) {
    CudaStream on = backend.own(stream);
    if (isCopy()) {
      if (srcTensor.bytes() > 0) {
        on.copyOnDevice(srcTensor.address(), dstTensor.address(), srcTensor.bytes());
      }
      return;
    }
    on.arguments()
        .pointer(srcTensor)
        .pointer(dstTensor)
        .i64(rows())
        .i64(cols())
        .i64(tilesDown)
        .i64(tilesAcross);
    on.launch(kernel, blocks);
  }
}
