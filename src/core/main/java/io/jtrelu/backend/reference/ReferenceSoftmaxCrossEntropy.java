package io.jtrelu.backend.reference;

import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;

/** Row by row; exponentials relative to the largest logit. */
final class ReferenceSoftmaxCrossEntropy extends SoftmaxCrossEntropy {

  ReferenceSoftmaxCrossEntropy(int n, int classes, DataType type, float smoothing) {
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
    ReferenceStream.require(stream);
    float[] x = Elements.read(logits);
    int[] label = Elements.readInts(labels);
    double[] dx = Elements.zeros(diffLogits);
    double[] loss = Elements.zeros(losses);
    int[] hit = new int[n()];
    for (int i = 0; i < n(); i++) {
      if (label[i] == -1) {
        continue; // a row of padding: all zero
      }
      int first = i * classes();
      int largest = 0;
      for (int k = 1; k < classes(); k++) {
        if (x[first + k] > x[first + largest]) {
          largest = k;
        }
      }
      double sum = 0;
      for (int k = 0; k < classes(); k++) {
        sum += Math.exp((double) x[first + k] - x[first + largest]);
      }
      double logSum = x[first + largest] + Math.log(sum);
      for (int k = 0; k < classes(); k++) {
        double logP = x[first + k] - logSum;
        double target = (k == label[i] ? 1.0 - smoothing() : 0) + (double) smoothing() / classes();
        if (target > 0) {
          loss[i] -= target * logP;
        }
        dx[first + k] = gradientScale * (Math.exp(logP) - target);
      }
      if (label[i] < 0 || label[i] >= classes()) {
        loss[i] = Double.NaN;
      }
      if (!Float.isFinite((float) loss[i])) {
        Arrays.fill(dx, first, first + classes(), Double.NaN);
      }
      hit[i] = label[i] == largest ? 1 : 0;
    }
    Elements.store(dx, diffLogits);
    Elements.store(loss, losses);
    Elements.storeInts(hit, correct);
  }
}
