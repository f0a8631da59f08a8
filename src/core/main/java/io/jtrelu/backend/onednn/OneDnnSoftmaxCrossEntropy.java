package io.jtrelu.backend.onednn;

import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/** Row by row in binary64, relative to the largest logit. */
final class OneDnnSoftmaxCrossEntropy extends SoftmaxCrossEntropy {

  OneDnnSoftmaxCrossEntropy(int n, int classes, DataType type, float smoothing) {
    super(Device.CPU, n, classes, type, smoothing);
  }

  @Override
  protected void compute(
      Stream stream,
      Tensor logits,
      Tensor labels,
      float gradientScale,
      Tensor diffLogits,
      Tensor losses,
      Tensor correct) {
    OneDnnStream lane = OneDnnStream.of(stream);
    long rowBytes = (long) classes() * type().bytes();
    for (long i = 0; i < n(); i++) {
      int label = Elements.getInt(labels.address() + 4 * i);
      long from = logits.address() + i * rowBytes;
      long to = diffLogits.address() + i * rowBytes;
      if (label == -1) {
        Elements.zero(to, rowBytes);
        Elements.put(losses.address() + 4 * i, 0);
        Elements.putInt(correct.address() + 4 * i, 0);
        continue;
      }
      int largest = largest(lane, from);
      boolean hit = largest == label;
      double loss = row(lane, from, largest, label, gradientScale, to);
      Elements.put(losses.address() + 4 * i, (float) loss);
      Elements.putInt(correct.address() + 4 * i, hit ? 1 : 0);
    }
  }

  /** Index of the first largest logit. */
  private int largest(OneDnnStream lane, long logits) {
    float[] x = lane.chunk(0);
    int largest = 0;
    float best = 0;
    for (int first = 0; first < classes(); first += Elements.CHUNK) {
      int count = Math.min(Elements.CHUNK, classes() - first);
      Elements.load(type(), logits + (long) first * type().bytes(), x, count);
      for (int k = 0; k < count; k++) {
        if (first + k == 0 || x[k] > best) {
          best = x[k];
          largest = first + k;
        }
      }
    }
    return largest;
  }

  /** Writes a row's gradient and returns its loss. */
  private double row(
      OneDnnStream lane, long logits, int largest, int label, float gradientScale, long diff) {
    float[] x = lane.chunk(0);
    int size = type().bytes();
    Elements.load(type(), logits + (long) largest * size, x, 1);
    double top = x[0];
    double sum = 0;
    for (int first = 0; first < classes(); first += Elements.CHUNK) {
      int count = Math.min(Elements.CHUNK, classes() - first);
      Elements.load(type(), logits + (long) first * size, x, count);
      for (int k = 0; k < count; k++) {
        sum += Math.exp(x[k] - top);
      }
    }
    double logSum = top + Math.log(sum);
    double even = (double) smoothing() / classes();
    double loss = label < 0 || label >= classes() ? Double.NaN : 0;
    for (int first = 0; first < classes(); first += Elements.CHUNK) {
      int count = Math.min(Elements.CHUNK, classes() - first);
      Elements.load(type(), logits + (long) first * size, x, count);
      for (int k = 0; k < count; k++) {
        double logP = x[k] - logSum;
        double target = even + (first + k == label ? 1.0 - smoothing() : 0);
        if (target > 0) { // 0 * -infinity is not wanted
          loss -= target * logP;
        }
        x[k] = (float) (gradientScale * (Math.exp(logP) - target));
      }
      Elements.store(type(), x, diff + (long) first * size, count);
    }
    if (!Float.isFinite((float) loss)) {
      Elements.fill(type(), diff, classes(), Float.NaN);
    }
    return loss;
  }
}
