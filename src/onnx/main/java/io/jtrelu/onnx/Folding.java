package io.jtrelu.onnx;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.DropoutLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NormalizedSumLayer;
import io.jtrelu.nn.SumLayer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Where the constants of a network go when it is written for a runtime that has no scaled
 * rectifiers and no weighted sums.
 *
 * <p>A rectifier is positively homogeneous, s phi(x) = phi(s x) for s > 0, so its scale moves into
 * what produces x: into the weights and bias of a convolution, through pooling and dropout, into
 * the constants of a sum, and these into its own producers. The affine input of any activation goes
 * the same way. All this only where nothing else reads the values in between. What cannot move
 * backwards moves into the readers, if they are convolutions and sums; the rest stays as operators.
 * So a runtime sees Conv and LeakyRelu side by side, which it fuses.
 */
final class Folding {
  /** A convolution computes outputScale * (W * (inputScale * x) + bias) + outputShift. */
  private final double[] inputScale;

  private final double[] outputScale;
  private final double[] outputShift;

  /** An activation computes postScale * phi(preScale * x + preShift) + postShift. */
  private final double[] preScale;

  private final double[] preShift;
  private final double[] postScale;
  private final double[] postShift;

  /** The factors of a sum's sources. */
  private final double[][] weights;

  private final List<Layer> layers;
  private final List<List<Integer>> readers = new ArrayList<>();
  private final boolean[] output;

  Folding(Network network) {
    layers = network.layers();
    int count = layers.size();
    inputScale = ones(count);
    outputScale = ones(count);
    outputShift = new double[count];
    preScale = ones(count);
    preShift = new double[count];
    postScale = ones(count);
    postShift = new double[count];
    weights = new double[count][];
    output = new boolean[count];
    network.outputs().forEach(node -> output[node] = true);
    for (int i = 0; i < count; i++) {
      readers.add(new ArrayList<>());
      for (int source : layers.get(i).sources()) {
        readers.get(source).add(i);
      }
      if (layers.get(i) instanceof NormalizedSumLayer sum) {
        weights[i] = new double[] {sum.shortcutWeight(), sum.branchWeight()};
      } else if (layers.get(i) instanceof SumLayer) {
        weights[i] = ones(2);
      }
    }
    for (int i = 0; i < count; i++) {
      switch (layers.get(i)) {
        case ActivationLayer layer -> activation(i, layer);
        case NormalizedSumLayer layer -> sum(i, layer);
        default -> {}
      }
    }
  }

  private static double[] ones(int count) {
    double[] ones = new double[count];
    Arrays.fill(ones, 1);
    return ones;
  }

  /** The value of a convolution's weight in the file. */
  float weight(int node, float value) {
    return (float) (outputScale[node] * inputScale[node] * value);
  }

  /** The value of a convolution's bias in the file. */
  float bias(int node, float value) {
    return (float) (outputScale[node] * value + outputShift[node]);
  }

  /** About the weight that has a value in the file. */
  double originalWeight(int node, float value) {
    return value / (outputScale[node] * inputScale[node]);
  }

  /** About the bias that has a value in the file. */
  double originalBias(int node, float value) {
    return (value - outputShift[node]) / outputScale[node];
  }

  /** Factor of an activation's input that is left; it comes before {@link #preShift}. */
  double preScale(int node) {
    return preScale[node];
  }

  /** Summand of an activation's input that is left. */
  double preShift(int node) {
    return preShift[node];
  }

  /** Factor of an activation's value that is left; it comes before {@link #postShift}. */
  double postScale(int node) {
    return postScale[node];
  }

  /** Summand of an activation's value that is left. */
  double postShift(int node) {
    return postShift[node];
  }

  /** Factor of a sum's source that is left. */
  double weight(int node, int source) {
    return weights[node][source];
  }

  private static boolean isRectifier(Layer layer) {
    return layer instanceof ActivationLayer activation
        && isRectifier(activation.function().function());
  }

  static boolean isRectifier(ActivationFunction function) {
    return function == Activation.LEAKY_RELU || function == Activation.RELU;
  }

  private void activation(int node, ActivationLayer layer) {
    TransformedActivation f = layer.function();
    double scale = f.inputScale();
    double shift = f.inputShift();
    double outer = f.outputScale();
    postShift[node] = outer * f.outputShift();
    if (isRectifier(layer) && outer > 0 && scaleAll(layer.source(), outer * scale)) {
      shift *= outer;
    } else {
      if (!scaleAll(layer.source(), scale)) {
        preScale[node] = scale;
      }
      // g (phi + d) to readers that take the factor g.
      if (scaleReaders(node, outer)) {
        postShift[node] = f.outputShift();
      } else {
        postScale[node] = outer;
      }
    }
    if (preScale[node] != 1 || !shift(layer.source(), shift)) {
      preShift[node] = shift;
    }
  }

  private void sum(int node, NormalizedSumLayer layer) {
    for (int k = 0; k < 2; k++) {
      if (scale(layer.sources().get(k), weights[node][k])) {
        weights[node][k] = 1;
      }
    }
  }

  private boolean scaleAll(int node, double factor) {
    return factor == 1 || scale(node, factor);
  }

  /** Multiplies a node's value within what computes it, or changes nothing. */
  private boolean scale(int node, double factor) {
    if (readers.get(node).size() != 1 || output[node]) {
      return false;
    }
    return switch (layers.get(node)) {
      case ConvolutionLayer ignored -> {
        outputScale[node] *= factor;
        outputShift[node] *= factor;
        yield true;
      }
      case NormalizedSumLayer sum -> {
        for (int k = 0; k < 2; k++) {
          if (weights[node][k] != 1 || !scale(sum.sources().get(k), factor)) {
            weights[node][k] *= factor;
          }
        }
        yield true;
      }
      case ActivationLayer activation -> scaleActivation(node, activation, factor);
      case MaxPoolingLayer pool -> factor > 0 && scale(pool.source(), factor);
      case GlobalMeanPoolingLayer pool -> scale(pool.source(), factor);
      case DropoutLayer dropout -> scale(dropout.source(), factor);
      default -> false;
    };
  }

  private boolean scaleActivation(int node, ActivationLayer layer, double factor) {
    if (postScale[node] != 1) {
      postScale[node] *= factor;
    } else if (!isRectifier(layer)
        || !(factor > 0)
        || preScale[node] != 1
        || preShift[node] != 0
        || !scale(layer.source(), factor)) {
      return false;
    }
    postShift[node] *= factor;
    return true;
  }

  /** Adds to a node's value within what computes it, or changes nothing. */
  private boolean shift(int node, double summand) {
    if (summand == 0) {
      return true;
    }
    if (readers.get(node).size() != 1 || output[node]) {
      return false;
    }
    return switch (layers.get(node)) {
      case ConvolutionLayer ignored -> {
        outputShift[node] += summand;
        yield true;
      }
      case NormalizedSumLayer sum ->
          (weights[node][0] == 1 && shift(sum.shortcut(), summand))
              || (weights[node][1] == 1 && shift(sum.branch(), summand));
      case ActivationLayer ignored -> {
        boolean shifts = postShift[node] != 0;
        postShift[node] += shifts ? summand : 0;
        yield shifts;
      }
      case MaxPoolingLayer pool -> shift(pool.source(), summand);
      case GlobalMeanPoolingLayer pool -> shift(pool.source(), summand);
      case DropoutLayer dropout -> shift(dropout.source(), summand);
      default -> false;
    };
  }

  /** Multiplies a node's value within what reads it, or changes nothing. */
  private boolean scaleReaders(int node, double factor) {
    if (factor == 1) {
      return true;
    }
    if (!readersTake(node, factor)) {
      return false;
    }
    for (int reader : readers.get(node)) {
      switch (layers.get(reader)) {
        case ConvolutionLayer ignored -> inputScale[reader] *= factor;
        case NormalizedSumLayer sum -> weights[reader][sum.shortcut() == node ? 0 : 1] *= factor;
        default -> scaleReaders(reader, factor);
      }
    }
    return true;
  }

  private boolean readersTake(int node, double factor) {
    if (output[node]) {
      return false;
    }
    for (int reader : readers.get(node)) {
      boolean takes =
          switch (layers.get(reader)) {
            case ConvolutionLayer ignored -> true;
            case NormalizedSumLayer ignored -> true;
            case MaxPoolingLayer ignored -> factor > 0 && readersTake(reader, factor);
            case GlobalMeanPoolingLayer ignored -> readersTake(reader, factor);
            case DropoutLayer ignored -> readersTake(reader, factor);
            default -> false;
          };
      if (!takes) {
        return false;
      }
    }
    return true;
  }
}
