package io.jtrelu.nn;

import java.util.ArrayList;
import java.util.List;
import java.util.random.RandomGenerator;

/**
 * What a network of finite width does to a few inputs at one location, drawn at random without any
 * weights.
 *
 * <p>A Haar-distributed matrix turns k vectors into k vectors of the same lengths and angles in a
 * direction that is uniformly random, whatever came before. So a layer is drawn by replacing an
 * orthonormal basis of its inputs by a random one: O(k n) numbers instead of n^2, in double, and no
 * line of it shared with initialiser, layers or backends. A wider layer scales by sqrt(out / in); a
 * narrower one keeps the first coordinates.
 */
final class FiniteWidth {
  private final Network network;
  private final int widening;

  /**
   * @param widening factor of all widths but that of the input
   * @throws IllegalArgumentException for layers that mix locations or channels in other ways
   */
  FiniteWidth(Network network, int widening) {
    this.network = network;
    this.widening = widening;
    for (Layer layer : network.layers()) {
      if (!layer.keepsCosines()) {
        throw new IllegalArgumentException(
            "layer "
                + layer.name()
                + ": grouped convolutions and max-pooling keep cosines only roughly, batch"
                + " normalisation does not; check a"
                + " network without them (for a ResNet, images below 64 pixels)");
      }
    }
  }

  /** Sees the outputs of activation layers, in order. */
  interface Observer {
    /**
     * An activation's outputs.
     *
     * @param layer index of the layer
     * @param values one row for each input; valid during the call
     */
    void value(int layer, double[][] values);
  }

  /** Draws a network and passes inputs, one row each, through it. */
  void draw(double[][] inputs, RandomGenerator random, Observer observer) {
    List<Layer> layers = network.layers();
    double[][][] values = new double[layers.size()][][];
    values[0] = inputs;
    for (int i = 1; i < layers.size(); i++) {
      Layer layer = layers.get(i);
      List<double[][]> sources = layer.sources().stream().map(source -> values[source]).toList();
      values[i] = layer.draw(sources, (x, channels) -> affine(x, widening * channels, random));
      if (layer instanceof ActivationLayer) {
        observer.value(i, values[i]);
      }
    }
  }

  private double[][] affine(double[][] x, int out, RandomGenerator random) {
    int in = x[0].length;
    int size = Math.max(in, out);
    double gain = network.weightScale() * Math.sqrt((double) size / in);
    double[] bias = new double[out];
    for (int i = 0; i < out && network.biasDeviation() > 0; i++) {
      bias[i] = network.biasDeviation() * random.nextGaussian();
    }
    List<double[]> basis = new ArrayList<>();
    List<double[]> image = new ArrayList<>();
    double[][] y = new double[x.length][out];
    for (int k = 0; k < x.length; k++) {
      double[] rest = x[k].clone();
      double[] turned = new double[size];
      double length = Math.sqrt(dot(rest, rest));
      for (int pass = 0; pass < 2; pass++) { // the second takes away what rounding left
        for (int b = 0; b < basis.size(); b++) {
          double part = dot(basis.get(b), rest);
          add(-part, basis.get(b), rest);
          add(part, image.get(b), turned);
        }
      }
      double left = Math.sqrt(dot(rest, rest));
      if (left > 1e-10 * length) {
        scale(1 / left, rest);
        double[] direction = direction(size, image, random);
        add(left, direction, turned);
        basis.add(rest);
        image.add(direction);
      }
      for (int i = 0; i < out; i++) {
        y[k][i] = gain * turned[i] + bias[i];
      }
    }
    return y;
  }

  /** A unit vector, uniformly random among those orthogonal to others. */
  private static double[] direction(int size, List<double[]> others, RandomGenerator random) {
    double[] v = new double[size];
    for (int i = 0; i < size; i++) {
      v[i] = random.nextGaussian();
    }
    for (int pass = 0; pass < 2; pass++) {
      for (double[] other : others) {
        add(-dot(other, v), other, v);
      }
    }
    scale(1 / Math.sqrt(dot(v, v)), v);
    return v;
  }

  static double dot(double[] a, double[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += a[i] * b[i];
    }
    return sum;
  }

  private static void add(double factor, double[] from, double[] to) {
    for (int i = 0; i < to.length; i++) {
      to[i] += factor * from[i];
    }
  }

  private static void scale(double factor, double[] v) {
    for (int i = 0; i < v.length; i++) {
      v[i] *= factor;
    }
  }
}
