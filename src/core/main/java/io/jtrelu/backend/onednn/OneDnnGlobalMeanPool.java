package io.jtrelu.backend.onednn;

import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;

/** Sums over locations in binary64, all channels of a location at once. */
final class OneDnnGlobalMeanPool extends GlobalMeanPool {

  OneDnnGlobalMeanPool(Shape src, DataType type, Rectifier srcActivation) {
    super(Device.CPU, src, type, srcActivation);
  }

  @Override
  protected void runForward(Stream stream, Tensor source, Tensor destination) {
    OneDnnStream lane = OneDnnStream.of(stream);
    int pixels = src().dim(1) * src().dim(2);
    int channels = src().dim(3);
    int size = type().bytes();
    float[] x = lane.chunk(0);
    double[] sum = lane.sums();
    for (long n = 0; n < src().dim(0); n++) {
      for (int c = 0; c < channels; c += Elements.CHUNK) {
        int count = Math.min(Elements.CHUNK, channels - c);
        Arrays.fill(sum, 0, count, 0);
        for (long pixel = n * pixels; pixel < (n + 1) * pixels; pixel++) {
          Elements.load(type(), source.address() + (pixel * channels + c) * size, x, count);
          add(x, sum, count);
        }
        for (int i = 0; i < count; i++) {
          x[i] = (float) (sum[i] / pixels);
        }
        Elements.store(type(), x, destination.address() + (n * channels + c) * size, count);
      }
    }
  }

  private static void add(float[] x, double[] sum, int count) {
    for (int i = 0; i < count; i++) {
      sum[i] += x[i];
    }
  }

  @Override
  protected void runBackward(
      Stream stream, Tensor diffDst, Tensor source, Tensor diffSrc, Write write) {
    OneDnnStream lane = OneDnnStream.of(stream);
    int pixels = src().dim(1) * src().dim(2);
    int channels = src().dim(3);
    int size = type().bytes();
    float[] mean = lane.chunk(3);
    float[] diff = lane.chunk(0);
    for (long n = 0; n < src().dim(0); n++) {
      for (int c = 0; c < channels; c += Elements.CHUNK) {
        int count = Math.min(Elements.CHUNK, channels - c);
        Elements.load(type(), diffDst.address() + (n * channels + c) * size, mean, count);
        for (int i = 0; i < count; i++) {
          mean[i] /= pixels;
        }
        for (long pixel = n * pixels; pixel < (n + 1) * pixels; pixel++) {
          System.arraycopy(mean, 0, diff, 0, count);
          long offset = (pixel * channels + c) * size;
          Elements.storeGradient(
              lane,
              diff,
              srcActivation(),
              type(),
              source.address() + offset,
              diffSrc.address() + offset,
              count,
              write);
        }
      }
    }
  }
}
