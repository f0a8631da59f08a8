package io.jtrelu.djl.trunk;

import ai.djl.ndarray.NDManager;
import ai.djl.pytorch.engine.PtNDArray;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;

/**
 * Arrays of PyTorch as tensors of ours and back. An array that lies in memory as [n, h, w, c] (or
 * [k, r, s, c]) is one with channels in front for PyTorch, by its strides: the memory is shared,
 * and who owns the array keeps it alive. Others are copied by PyTorch into an array of the scope.
 */
final class Views {
  private static final int[] CHANNELS_LAST = {0, 2, 3, 1};
  private static final int[] CHANNELS_FIRST = {0, 3, 1, 2};

  private Views() {}

  /** Images, [n, c, h, w], or [n, c] where they are 1x1. */
  static Tensor images(NDManager scope, PtNDArray array, Extent extent) {
    int rows = Math.toIntExact(array.getShape().get(0));
    return tensor(scope, array, array.getShape().dimension() == 4, extent.batch(rows), Layout.NHWC);
  }

  /**
   * The elements of an array.
   *
   * @param scope what is made on the way is closed with it
   * @param turned whether the array has four axes, channels second, and ours come last
   */
  static Tensor tensor(
      NDManager scope, PtNDArray array, boolean turned, Shape shape, Layout layout) {
    PtNDArray plain = in(scope, (PtNDArray) array.stopGradient());
    PtNDArray ours = turned ? in(scope, plain.transpose(CHANNELS_LAST)) : plain;
    return Tensor.wrap(ours.toByteBuffer(true), shape, DataType.F32, layout);
  }

  /** An array with memory in our order, to be written through the tensor that it gives. */
  static PtNDArray allocate(NDManager manager, Shape shape) {
    int[] dims = shape.dims();
    long[] extents = new long[dims.length];
    for (int i = 0; i < dims.length; i++) {
      extents[i] = dims[i];
    }
    return (PtNDArray)
        manager.create(
            new ai.djl.ndarray.types.Shape(extents), ai.djl.ndarray.types.DataType.FLOAT32);
  }

  /** All elements of an array that lies in memory as its shape says. */
  static Tensor tensor(PtNDArray array, Shape shape, Layout layout) {
    return Tensor.wrap(array.toByteBuffer(true), shape, DataType.F32, layout);
  }

  /**
   * What users see of an array in our order: channels second, and 1x1 images as rows.
   *
   * @param array closed by this; the result shares its memory
   */
  static PtNDArray seen(PtNDArray array, ai.djl.ndarray.types.Shape shape) {
    try (array) {
      return shape.dimension() == 4 ? array.transpose(CHANNELS_FIRST) : array.reshape(shape);
    }
  }

  private static PtNDArray in(NDManager scope, PtNDArray array) {
    array.attach(scope);
    return array;
  }
}
