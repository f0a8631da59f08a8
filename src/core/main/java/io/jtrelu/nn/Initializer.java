package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Orthogonal;
import io.jtrelu.backend.Stream;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.random.OrthogonalMatrix;
import io.jtrelu.random.Philox;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.Arrays;
import java.util.List;

/**
 * Scaled-corrected uniform orthogonal (SUO) initialisation (Martens et al., arXiv 2110.01765): a
 * Haar-distributed out x in matrix times max(sqrt(out/in), 1); biases zero. It preserves the mean
 * square q of activations at wide and narrow layers alike.
 *
 * <p>At the edge of chaos weights are multiplied by the network's {@link Network#weightScale}, and
 * biases are Gaussian with its {@link Network#biasDeviation}.
 *
 * <p>Where a network asks for {@linkplain Network#gaussianWeights Gaussian weights}, they are
 * independent, N(0, weightScale^2 / in) with in = kh * kw * channels, in all of the kernel (He et
 * al., ICCV 2015, where the scale is sqrt(2)).
 *
 * @param seed key of the generator; each parameter has streams of its own under it
 * @param delta true for Delta initialisation: a convolution is zero everywhere but the centre of
 *     its kernel, where it is SUO with in = channels (Xiao et al., arXiv 1806.05393); false for SUO
 *     over the whole kernel, in = kh * kw * channels
 */
public record Initializer(long seed, boolean delta) {
  /** Distance between the first streams of two parameters; more than any matrix needs. */
  private static final long STREAMS_PER_PARAMETER = 1L << 32;

  /** Delta initialisation, the default for convolutions. */
  public static Initializer delta(long seed) {
    return new Initializer(seed, true);
  }

  /**
   * Fills all parameters.
   *
   * @throws IllegalArgumentException for Delta initialisation of a kernel of even size, which has
   *     no centre
   */
  public void fill(Backend backend, Parameters parameters) {
    Network network = parameters.network();
    List<ParameterSpec> specs = network.parameters();
    try (Stream stream = backend.newStream()) {
      for (int i = 0; i < specs.size(); i++) {
        ParameterSpec spec = specs.get(i);
        Tensor view = parameters.view(i);
        long sequence = i * STREAMS_PER_PARAMETER;
        switch (spec.kind()) {
          case WEIGHTS -> {
            Weights initial =
                new Weights(
                    this,
                    backend,
                    stream,
                    network.weightScale(),
                    network.gaussianWeights(),
                    sequence);
            Layer layer = network.layers().get(spec.layer());
            layer.initialize(initial, layerIndex(layer, spec), view);
          }
          case BIAS -> fillBias(backend, stream, view, network.biasDeviation(), sequence);
          case MEAN -> backend.fill(stream, view, 0);
          case SCALE, VARIANCE -> backend.fill(stream, view, 1);
        }
      }
      stream.synchronize();
    }
  }

  private static int layerIndex(Layer layer, ParameterSpec spec) {
    List<Layer.Parameter> own = layer.parameters();
    for (int k = 0; k < own.size(); k++) {
      if (ParameterSpec.name(layer, own.get(k)).equals(spec.name())) {
        return k;
      }
    }
    throw new IllegalStateException("layer " + layer.name() + " has no " + spec.name());
  }

  private void fillBias(
      Backend backend, Stream stream, Tensor bias, double deviation, long sequence) {
    if (deviation == 0) {
      backend.fill(stream, bias, 0);
    } else {
      fillGaussian(backend, stream, bias, deviation, sequence);
    }
  }

  private void fillGaussian(
      Backend backend, Stream stream, Tensor to, double deviation, long sequence) {
    int count = Math.toIntExact(to.shape().elements());
    float[] values = new float[Math.ceilDiv(count, 4) * 4];
    int[] words = new int[4];
    for (int i = 0; i < count; i += 4) {
      Philox.block(seed, sequence, i / 4, words);
      Philox.normals(words[0], words[1], values, i);
      Philox.normals(words[2], words[3], values, i + 2);
    }
    for (int i = 0; i < values.length; i++) {
      values[i] *= (float) deviation;
    }
    try (Tensor host = Tensor.allocate(to.shape(), DataType.F32, to.layout())) {
      backend.copy(stream, host.set(Arrays.copyOf(values, count)), to);
      stream.synchronize();
    }
  }

  /**
   * What a layer sets its weights with; see {@link Layer#initialize}.
   *
   * @param initializer seed and kind of initialisation
   * @param backend where the weights lie
   * @param stream to work on
   * @param scale factor of the weights: {@link Network#weightScale}
   * @param gaussian whether they are independent: {@link Network#gaussianWeights}
   * @param sequence first of 2^32 streams of the generator that are this parameter's own
   */
  public record Weights(
      Initializer initializer,
      Backend backend,
      Stream stream,
      double scale,
      boolean gaussian,
      long sequence) {
    /** Orthogonal ones. */
    public Weights(
        Initializer initializer, Backend backend, Stream stream, double scale, long sequence) {
      this(initializer, backend, stream, scale, false, sequence);
    }

    /**
     * Fills the weights of a convolution, orthogonal or as the network asks for; each group is a
     * matrix of its own.
     *
     * @param layer name for messages
     * @param weights F32 KRSC
     * @throws IllegalArgumentException for Delta initialisation of a kernel of even size, which has
     *     no centre
     */
    public void orthogonal(String layer, Conv2dDescriptor descriptor, Tensor weights) {
      if (gaussian) {
        double inputs = (double) descriptor.kh() * descriptor.kw() * descriptor.ic();
        double deviation = scale / Math.sqrt(inputs / descriptor.groups());
        initializer.fillGaussian(backend, stream, weights, deviation, sequence);
      } else {
        initializer.fillWeights(backend, stream, layer, descriptor, weights, scale, sequence);
      }
    }
  }

  private void fillWeights(
      Backend backend,
      Stream stream,
      String layer,
      Conv2dDescriptor d,
      Tensor weights,
      double scale,
      long sequence) {
    boolean single = d.kh() == 1 && d.kw() == 1;
    if (delta && !single && (d.kh() % 2 == 0 || d.kw() % 2 == 0)) {
      throw new IllegalArgumentException(
          "layer "
              + layer
              + ": Delta initialisation needs a kernel of odd size, got "
              + d.kh()
              + "x"
              + d.kw());
    }
    int taps = delta ? 1 : d.kh() * d.kw();
    int groupIn = d.ic() / d.groups();
    int rows = d.oc() / d.groups();
    int cols = groupIn * taps;
    float gain = (float) (scale * OrthogonalMatrix.scaleCorrection(rows, cols));
    Shape matrix = Shape.of(rows, cols);
    boolean direct = taps == d.kh() * d.kw();
    try (Orthogonal orthogonal = backend.orthogonal(rows, cols, gain)) {
      if (direct) {
        for (int g = 0; g < d.groups(); g++) {
          Tensor part = weights.slice((long) g * rows * cols, matrix, Layout.ROW_MAJOR);
          orthogonal.fill(stream, part, seed, sequence + (long) g * Math.min(rows, cols));
        }
        stream.synchronize();
        return;
      }
      // Delta: the matrix goes to the centre tap, everything else is zero.
      int centre = (d.kh() / 2) * d.kw() + d.kw() / 2;
      try (Tensor onDevice = backend.allocate(matrix, DataType.F32, Layout.ROW_MAJOR);
          Tensor onHost = Tensor.allocate(matrix, DataType.F32, Layout.ROW_MAJOR);
          Tensor kernel = Tensor.allocate(d.weights(), DataType.F32, Layout.KRSC)) {
        float[] values = new float[Math.toIntExact(d.weights().elements())];
        for (int g = 0; g < d.groups(); g++) {
          orthogonal.fill(stream, onDevice, seed, sequence + (long) g * Math.min(rows, cols));
          backend.copy(stream, onDevice, onHost);
          stream.synchronize();
          float[] block = onHost.toFloatArray();
          for (int k = 0; k < rows; k++) {
            int at = ((g * rows + k) * d.kh() * d.kw() + centre) * groupIn;
            System.arraycopy(block, k * cols, values, at, cols);
          }
        }
        backend.copy(stream, kernel.set(values), weights);
        stream.synchronize();
      }
    }
  }
}
