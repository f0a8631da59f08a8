package io.jtrelu.backend.onednn;

import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** Sums of squares in binary64, in a fixed order. */
final class OneDnnGradientNorm extends GradientNorm {
  private static final int PARTIAL_SUMS = 16; // independent, so that the loop is vectorised

  private final CpuKernels.@Nullable ParameterPasses kernels; // null: a loop in Java

  OneDnnGradientNorm(CpuKernels.@Nullable ParameterPasses kernels, long elements) {
    super(Device.CPU, elements);
    this.kernels = kernels;
  }

  @Override
  protected void compute(Stream stream, Tensor gradient, float maxNorm, Tensor result) {
    OneDnnStream lane = OneDnnStream.of(stream);
    double sum =
        kernels != null
            ? kernels.sumOfSquares(elements(), gradient.address())
            : sumOfSquares(lane, gradient);
    double norm = Math.sqrt(sum);
    double factor = norm == 0 ? 1 : Math.min(1, maxNorm / norm);
    Elements.put(result.address(), (float) norm);
    boolean good = Float.isFinite((float) norm) && !Float.isNaN(Elements.get(result.address() + 4));
    Elements.put(result.address() + 4, good ? (float) factor : Float.NaN);
  }

  /** The same sums as the kernels', to the bit. */
  private double sumOfSquares(OneDnnStream lane, Tensor gradient) {
    float[] x = lane.chunk(0);
    double[] sums = lane.sums();
    Arrays.fill(sums, 0, PARTIAL_SUMS, 0);
    for (long i = 0; i < elements(); i += Elements.CHUNK) {
      int count = (int) Math.min(Elements.CHUNK, elements() - i);
      Elements.load(DataType.F32, gradient.address() + 4 * i, x, count);
      Arrays.fill(x, count, Math.ceilDiv(count, PARTIAL_SUMS) * PARTIAL_SUMS, 0);
      addSquares(x, sums, count);
    }
    double sum = 0;
    for (int k = 0; k < PARTIAL_SUMS; k++) {
      sum += sums[k];
    }
    return sum;
  }

  private static void addSquares(float[] x, double[] sums, int count) {
    for (int i = 0; i < count; i += PARTIAL_SUMS) {
      for (int k = 0; k < PARTIAL_SUMS; k++) {
        double value = x[i + k];
        sums[k] += value * value;
      }
    }
  }
}
