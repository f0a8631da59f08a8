package io.jtrelu.backend.onednn;

import io.jtrelu.backend.BatchNorm;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/** Constants of the channels here, passes over elements in kernels of ours or loops in Java. */
final class OneDnnBatchNorm extends BatchNorm {
  private final @Nullable BatchNormPasses kernels; // null: loops in Java

  OneDnnBatchNorm(
      @Nullable BatchNormPasses kernels,
      Shape src,
      DataType type,
      int parts,
      float epsilon,
      Rectifier activation) {
    super(Device.CPU, src, type, parts, epsilon, activation);
    this.kernels = kernels;
  }

  private long channelBytes() {
    return (long) channels() * Float.BYTES;
  }

  private double inverseDeviation(Tensor variance, int channel) {
    return 1 / Math.sqrt((double) Elements.get(variance.address() + 4L * channel) + epsilon());
  }

  @Override
  protected void runMoments(Stream stream, Tensor source, Tensor moments) {
    OneDnnStream lane = OneDnnStream.of(stream);
    long mean = moments.address();
    long squares = mean + channelBytes();
    if (kernels != null) {
      kernels.moments(locations(), channels(), source.address(), mean, squares);
      return;
    }
    float[] x = lane.chunk(0);
    double[] sums = lane.sums();
    for (int first = 0; first < channels(); first += Elements.CHUNK) {
      int count = Math.min(Elements.CHUNK, channels() - first);
      double[] means = new double[count];
      for (long row = 0; row < locations(); row++) {
        load(source, row, first, x, count);
        for (int i = 0; i < count; i++) {
          means[i] += x[i];
        }
      }
      for (int i = 0; i < count; i++) {
        means[i] /= locations();
        sums[i] = 0;
      }
      for (long row = 0; row < locations(); row++) {
        load(source, row, first, x, count);
        for (int i = 0; i < count; i++) {
          double deviation = x[i] - means[i];
          sums[i] += deviation * deviation;
        }
      }
      for (int i = 0; i < count; i++) {
        Elements.put(mean + 4L * (first + i), (float) means[i]);
        Elements.put(squares + 4L * (first + i), (float) sums[i]);
      }
    }
  }

  private void load(Tensor tensor, long row, int channel, float[] to, int count) {
    Elements.load(type(), address(tensor, row, channel), to, count);
  }

  private long address(Tensor tensor, long row, int channel) {
    return tensor.address() + (row * channels() + channel) * type().bytes();
  }

  @Override
  protected void runStatistics(Stream stream, Tensor moments, Tensor mean, Tensor variance) {
    OneDnnStream.of(stream);
    long part = 2 * channelBytes();
    for (int k = 0; k < channels(); k++) {
      long at = moments.address() + 4L * k;
      double middle = 0;
      for (int p = 0; p < parts(); p++) {
        middle += Elements.get(at + p * part);
      }
      middle /= parts();
      double squares = 0;
      for (int p = 0; p < parts(); p++) {
        double difference = Elements.get(at + p * part) - middle;
        squares += Elements.get(at + p * part + channelBytes());
        squares += locations() * difference * difference;
      }
      Elements.put(mean.address() + 4L * k, (float) middle);
      Elements.put(variance.address() + 4L * k, (float) (squares / parts() / locations()));
    }
  }

  @Override
  protected void runForward(
      Stream stream,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor beta,
      Tensor destination) {
    OneDnnStream lane = OneDnnStream.of(stream);
    long factor = lane.workspace(channelBytes());
    for (int k = 0; k < channels(); k++) {
      double scale = Elements.get(gamma.address() + 4L * k) * inverseDeviation(variance, k);
      Elements.put(factor + 4L * k, (float) scale);
    }
    if (kernels != null) {
      kernels.normalize(
          locations(),
          channels(),
          source.address(),
          mean.address(),
          factor,
          beta.address(),
          activation(),
          destination.address());
      return;
    }
    float[] x = lane.chunk(0);
    for (long row = 0; row < locations(); row++) {
      for (int first = 0; first < channels(); first += Elements.CHUNK) {
        int count = Math.min(Elements.CHUNK, channels() - first);
        load(source, row, first, x, count);
        for (int i = 0; i < count; i++) {
          long at = 4L * (first + i);
          float deviation = x[i] - Elements.get(mean.address() + at);
          x[i] = deviation * Elements.get(factor + at) + Elements.get(beta.address() + at);
        }
        Elements.rectify(activation(), x, count);
        Elements.store(type(), x, address(destination, row, first), count);
      }
    }
  }

  @Override
  protected void runBackwardParameters(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor sums,
      Tensor diffGamma,
      Tensor diffBeta,
      Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    long sum = sums.address();
    long product = sum + channelBytes();
    if (kernels != null) {
      kernels.gradientSums(
          locations(),
          channels(),
          diffDst.address(),
          source.address(),
          mean.address(),
          sum,
          product);
    } else {
      sumGradients(lane, diffDst, source, mean, sum, product);
    }
    for (int k = 0; k < channels(); k++) {
      long at = 4L * k;
      float scaled = (float) (Elements.get(product + at) * inverseDeviation(variance, k));
      Elements.put(product + at, scaled);
      write(diffGamma.address() + at, scaled, write);
      write(diffBeta.address() + at, Elements.get(sum + at), write);
    }
  }

  private static void write(long address, float value, Write write) {
    Elements.put(address, write == Write.ACCUMULATE ? Elements.get(address) + value : value);
  }

  private void sumGradients(
      OneDnnStream lane, Tensor diffDst, Tensor source, Tensor mean, long sum, long product) {
    float[] dy = lane.chunk(0);
    float[] x = lane.chunk(1);
    double[] products = lane.sums();
    for (int first = 0; first < channels(); first += Elements.CHUNK) {
      int count = Math.min(Elements.CHUNK, channels() - first);
      double[] plain = new double[count];
      for (int i = 0; i < count; i++) {
        products[i] = 0;
      }
      for (long row = 0; row < locations(); row++) {
        load(diffDst, row, first, dy, count);
        load(source, row, first, x, count);
        for (int i = 0; i < count; i++) {
          plain[i] += dy[i];
          double deviation = x[i] - (double) Elements.get(mean.address() + 4L * (first + i));
          products[i] += dy[i] * deviation;
        }
      }
      for (int i = 0; i < count; i++) {
        Elements.put(sum + 4L * (first + i), (float) plain[i]);
        Elements.put(product + 4L * (first + i), (float) products[i]);
      }
    }
  }

  @Override
  protected void runBackwardData(
      Stream stream,
      Tensor diffDst,
      Tensor source,
      Tensor mean,
      Tensor variance,
      Tensor gamma,
      Tensor sums,
      Tensor diffSrc,
      Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    // diff_src = factor * diff_dst + summand + slope * (src - mean)
    long factor = lane.workspace(3 * channelBytes());
    long summand = factor + channelBytes();
    long slope = summand + channelBytes();
    double count = (double) parts() * locations();
    for (int k = 0; k < channels(); k++) {
      long at = 4L * k;
      double sum = 0;
      double product = 0;
      for (int p = 0; p < parts(); p++) {
        long of = sums.address() + 2L * p * channelBytes() + at;
        sum += Elements.get(of);
        product += Elements.get(of + channelBytes());
      }
      double inverse = inverseDeviation(variance, k);
      double scale = Elements.get(gamma.address() + at) * inverse;
      Elements.put(factor + at, (float) scale);
      Elements.put(summand + at, (float) (-scale * sum / count));
      Elements.put(slope + at, (float) (-scale * inverse * product / count));
    }
    if (kernels != null) {
      kernels.gradient(
          locations(),
          channels(),
          diffDst.address(),
          source.address(),
          mean.address(),
          factor,
          summand,
          slope,
          write,
          diffSrc.address());
      return;
    }
    float[] dy = lane.chunk(0);
    float[] x = lane.chunk(2);
    for (long row = 0; row < locations(); row++) {
      for (int first = 0; first < channels(); first += Elements.CHUNK) {
        int size = Math.min(Elements.CHUNK, channels() - first);
        load(diffDst, row, first, dy, size);
        load(source, row, first, x, size);
        for (int i = 0; i < size; i++) {
          long at = 4L * (first + i);
          float deviation = x[i] - Elements.get(mean.address() + at);
          dy[i] =
              Elements.get(factor + at) * dy[i]
                  + (Elements.get(summand + at) + Elements.get(slope + at) * deviation);
        }
        if (write == Write.ACCUMULATE) {
          Elements.accumulate(lane, dy, type(), address(diffSrc, row, first), size);
        }
        Elements.store(type(), dy, address(diffSrc, row, first), size);
      }
    }
  }
}
