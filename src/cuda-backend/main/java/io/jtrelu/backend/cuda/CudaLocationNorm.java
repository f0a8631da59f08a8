package io.jtrelu.backend.cuda;

import io.jtrelu.backend.LocationNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** location_norm.cu: one launch, or one more for the images' root mean squares. */
final class CudaLocationNorm extends LocationNorm {
  private final CudaBackend backend;
  private final Kernel normalize;
  private final @Nullable Kernel imageRms;
  private final long locations;

  /**
   * For F32, x = src * factor + offset: the factors of all channels, then their offsets. For U8, x
   * of each byte.
   */
  private final Tensor constants;

  CudaLocationNorm(
      CudaBackend backend, Shape src, DataType srcType, DataType type, Settings settings) {
    super(backend.device(), src, srcType, type, settings);
    this.backend = backend;
    normalize = backend.kernel("location_norm" + Kernels.suffix(srcType), type);
    imageRms =
        settings.homogeneous() == Homogeneous.IMAGE_RMS
            ? backend.kernel("location_norm_rms", srcType)
            : null;
    locations = (long) src.dim(0) * src.dim(1) * src.dim(2);
    Math.multiplyExact(src.dim(1), src.dim(2)); // an image has fewer than 2^31 locations
    constants =
        upload(backend, srcType == DataType.U8 ? standardizedBytes(settings) : linear(settings));
  }

  private static float[] linear(Settings settings) {
    int channels = settings.mean().size();
    float[] values = new float[2 * channels];
    for (int k = 0; k < channels; k++) {
      double std = settings.std().get(k);
      values[k] = (float) (1 / std);
      values[channels + k] = (float) (-settings.mean().get(k) / std);
    }
    return values;
  }

  private static Tensor upload(CudaBackend backend, float[] values) {
    Shape shape = Shape.of(values.length);
    Tensor constants = backend.allocate(shape, DataType.F32, Layout.ROW_MAJOR);
    try (Stream stream = backend.newStream();
        Tensor host = Tensor.allocate(shape, DataType.F32, Layout.ROW_MAJOR).set(values)) {
      backend.copy(stream, host, constants);
      stream.synchronize();
      return constants;
    } catch (RuntimeException failure) {
      constants.close();
      throw failure;
    }
  }

  @Override
  protected void runForward(
      Stream stream, Tensor source, @Nullable Tensor windows, Tensor destination) {
    CudaStream on = backend.own(stream);
    long appended = imageRms == null ? 0 : on.workspace((long) src().dim(0) * Float.BYTES);
    if (imageRms != null) {
      arguments(on, source, windows, appended, destination);
      on.launch(imageRms, src().dim(0));
    }
    arguments(on, source, windows, appended, destination);
    on.launch(normalize, normalize.blocksFor(locations));
  }

  /** struct LocationNormParameters. */
  private void arguments(
      CudaStream on, Tensor source, @Nullable Tensor windows, long appended, Tensor destination) {
    on.arguments()
        .pointer(source)
        .pointer(windows == null ? 0 : windows.address())
        .pointer(constants)
        .pointer(appended)
        .pointer(destination)
        .i64(locations)
        .i32(src().dim(1))
        .i32(src().dim(2))
        .i32(src().dim(3))
        .f32(settings().scale());
  }

  @Override
  protected void release() {
    constants.close();
  }
}
