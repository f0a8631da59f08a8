package io.jtrelu.backend.reference;

import io.jtrelu.backend.BatchNorm;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;

/** Channel by channel. */
final class ReferenceBatchNorm extends BatchNorm {

  ReferenceBatchNorm(Shape src, DataType type, int parts, float epsilon, Rectifier activation) {
    super(Device.CPU, src, type, parts, epsilon, activation);
  }

  @Override
  protected void runMoments(Stream stream, Tensor source, Tensor moments) {
    ReferenceStream.require(stream);
    float[] x = Elements.read(source);
    int c = channels();
    double[] result = Elements.zeros(moments);
    for (int i = 0; i < x.length; i++) {
      result[i % c] += x[i];
    }
    for (int k = 0; k < c; k++) {
      result[k] /= locations();
    }
    for (int i = 0; i < x.length; i++) {
      double deviation = x[i] - result[i % c];
      result[c + i % c] += deviation * deviation;
    }
    Elements.store(result, moments);
  }

  @Override
  protected void runStatistics(Stream stream, Tensor moments, Tensor mean, Tensor variance) {
    ReferenceStream.require(stream);
    float[] m = Elements.read(moments);
    int c = channels();
    double[] means = Elements.zeros(mean);
    double[] variances = Elements.zeros(variance);
    for (int k = 0; k < c; k++) {
      for (int p = 0; p < parts(); p++) {
        means[k] += m[2 * p * c + k] / (double) parts();
      }
      for (int p = 0; p < parts(); p++) {
        double difference = m[2 * p * c + k] - means[k];
        variances[k] += m[(2 * p + 1) * c + k] + locations() * difference * difference;
      }
      variances[k] /= (double) parts() * locations();
    }
    Elements.store(means, mean);
    Elements.store(variances, variance);
  }

  /** 1 / sqrt(variance + epsilon). */
  private double[] inverseDeviations(Tensor variance) {
    float[] v = Elements.read(variance);
    double[] inverse = new double[v.length];
    for (int k = 0; k < v.length; k++) {
      inverse[k] = 1 / Math.sqrt((double) v[k] + epsilon());
    }
    return inverse;
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
    ReferenceStream.require(stream);
    float[] x = Elements.read(source);
    float[] means = Elements.read(mean);
    double[] inverse = inverseDeviations(variance);
    float[] scale = Elements.read(gamma);
    float[] shift = Elements.read(beta);
    double[] y = Elements.zeros(destination);
    for (int i = 0; i < x.length; i++) {
      int k = i % channels();
      double normalized = (x[i] - (double) means[k]) * inverse[k];
      y[i] = Elements.apply(activation(), scale[k] * normalized + shift[k]);
    }
    Elements.store(y, destination);
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
    ReferenceStream.require(stream);
    float[] dy = Elements.read(diffDst);
    float[] x = Elements.read(source);
    float[] means = Elements.read(mean);
    double[] inverse = inverseDeviations(variance);
    int c = channels();
    double[] both = Elements.zeros(sums);
    for (int i = 0; i < x.length; i++) {
      int k = i % c;
      both[k] += dy[i];
      both[c + k] += dy[i] * (x[i] - (double) means[k]) * inverse[k];
    }
    Elements.store(both, sums);
    Elements.store(Arrays.copyOfRange(both, 0, c), diffBeta, write);
    Elements.store(Arrays.copyOfRange(both, c, 2 * c), diffGamma, write);
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
    ReferenceStream.require(stream);
    float[] dy = Elements.read(diffDst);
    float[] x = Elements.read(source);
    float[] means = Elements.read(mean);
    double[] inverse = inverseDeviations(variance);
    float[] scale = Elements.read(gamma);
    float[] s = Elements.read(sums);
    int c = channels();
    double count = (double) parts() * locations();
    double[] total = new double[2 * c];
    for (int i = 0; i < s.length; i++) {
      total[i % (2 * c)] += s[i];
    }
    double[] dx = Elements.zeros(diffSrc);
    for (int i = 0; i < x.length; i++) {
      int k = i % c;
      double normalized = (x[i] - (double) means[k]) * inverse[k];
      dx[i] = scale[k] * inverse[k] * (dy[i] - (total[k] + normalized * total[c + k]) / count);
    }
    Elements.store(dx, diffSrc, write);
  }
}
