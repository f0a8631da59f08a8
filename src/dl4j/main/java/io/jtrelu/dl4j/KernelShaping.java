package io.jtrelu.dl4j;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.shaping.EdgeOfChaos;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
import java.util.ArrayList;
import java.util.List;
import org.deeplearning4j.nn.conf.ComputationGraphConfiguration;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.graph.LayerVertex;
import org.deeplearning4j.nn.conf.layers.ActivationLayer;
import org.deeplearning4j.nn.conf.layers.BaseLayer;
import org.deeplearning4j.nn.conf.layers.Layer;
import org.nd4j.linalg.activations.IActivation;

/**
 * Chooses the activations of a configuration by a method of kernel shaping, and sets them and the
 * initialiser that belongs to them, in place and before the network is made of it.
 *
 * <p>The activations of convolutions, dense layers and ActivationLayers become the given function,
 * except the identity, which stays. Weights of ConvolutionLayer, DenseLayer and OutputLayer become
 * {@linkplain WeightInitDelta orthogonal}, their biases 0. Layers of other kinds, which are
 * possible where the graph is given, keep their initialiser.
 *
 * <p>What an activation may be follows from the network as a {@link SignalGraph}; {@link
 * #signalGraph(MultiLayerConfiguration)} derives it where it knows all layers, and names the one
 * that it does not know where not. For other networks give the graph yourself.
 */
public final class KernelShaping {
  private KernelShaping() {}

  /**
   * What a network does to the kernel.
   *
   * <p>Known are ConvolutionLayer, DenseLayer, ActivationLayer, SubsamplingLayer and
   * GlobalPoolingLayer (maximum and mean), DropoutLayer, ZeroPaddingLayer, OutputLayer, LossLayer,
   * CnnLossLayer and the reshaping preprocessors.
   *
   * @throws IllegalArgumentException if a layer is not known, or has something in it that changes
   *     the kernel otherwise, such as BatchNormalization; the message names it and says why
   */
  public static SignalGraph signalGraph(MultiLayerConfiguration configuration) {
    return SignalWalk.of(configuration);
  }

  /**
   * What a network does to the kernel.
   *
   * <p>Besides the layers of {@link #signalGraph(MultiLayerConfiguration)} it knows
   * ElementWiseVertex (Add, Average), ScaleVertex and PreprocessorVertex. Sums must be normalised,
   * squared weights adding up to 1: with w = 0.8 put a ScaleVertex of 0.8 behind the shortcut and
   * one of 0.6 behind the branch.
   *
   * @throws IllegalArgumentException if a layer or vertex is not known, there are several inputs,
   *     or a sum is not normalised; the message names it and says what to do
   */
  public static SignalGraph signalGraph(ComputationGraphConfiguration configuration) {
    return SignalWalk.of(configuration);
  }

  /**
   * Shapes a network whose graph can be derived.
   *
   * @return what was found
   * @throws IllegalArgumentException as {@link #signalGraph(MultiLayerConfiguration)} does; nothing
   *     was changed
   * @throws io.jtrelu.shaping.ShapingException if there is no solution; the message says why
   */
  public static Shaping apply(
      MultiLayerConfiguration configuration, ShapingMethod method, ActivationFunction function) {
    return apply(configuration, signalGraph(configuration), method, function);
  }

  /**
   * Shapes a network.
   *
   * @param graph what it does to the kernel
   * @return what was found
   * @throws io.jtrelu.shaping.ShapingException if there is no solution; the message says why
   */
  public static Shaping apply(
      MultiLayerConfiguration configuration,
      SignalGraph graph,
      ShapingMethod method,
      ActivationFunction function) {
    List<Layer> layers = new ArrayList<>();
    for (NeuralNetConfiguration conf : configuration.getConfs()) {
      layers.add(conf.getLayer());
    }
    return apply(layers, graph, method, function);
  }

  /**
   * Shapes a network whose graph can be derived.
   *
   * @return what was found
   * @throws IllegalArgumentException as {@link #signalGraph(ComputationGraphConfiguration)} does;
   *     nothing was changed
   * @throws io.jtrelu.shaping.ShapingException if there is no solution; the message says why
   */
  public static Shaping apply(
      ComputationGraphConfiguration configuration,
      ShapingMethod method,
      ActivationFunction function) {
    return apply(configuration, signalGraph(configuration), method, function);
  }

  /**
   * Shapes a network.
   *
   * @param graph what it does to the kernel
   * @return what was found
   * @throws io.jtrelu.shaping.ShapingException if there is no solution; the message says why
   */
  public static Shaping apply(
      ComputationGraphConfiguration configuration,
      SignalGraph graph,
      ShapingMethod method,
      ActivationFunction function) {
    List<Layer> layers = new ArrayList<>();
    configuration
        .getVertices()
        .forEach(
            (name, vertex) -> {
              if (vertex instanceof LayerVertex layer) {
                layers.add(layer.getLayerConf().getLayer());
              }
            });
    return apply(layers, graph, method, function);
  }

  private static Shaping apply(
      List<Layer> layers, SignalGraph graph, ShapingMethod method, ActivationFunction function) {
    Shaping shaping = method.solve(graph, function);
    EdgeOfChaos edge = shaping.edgeOfChaos();
    if (edge != null && edge.sigmaB2() != 0) {
      throw new IllegalArgumentException(
          "Deeplearning4j sets all biases of a layer to one number, so that their variance cannot be "
              + edge.sigmaB2()
              + "; use the edge of chaos with sigmaB2 = 0");
    }
    WeightInitDelta weights = new WeightInitDelta(edge == null ? 1 : Math.sqrt(edge.sigmaW2()));
    IActivation activation = ActivationShaped.of(shaping.activation());
    for (Layer layer : layers) {
      set(layer, activation, weights);
    }
    return shaping;
  }

  private static void set(Layer layer, IActivation activation, WeightInitDelta weights) {
    if (SignalWalk.isAffine(layer)) {
      BaseLayer affine = (BaseLayer) layer;
      affine.setWeightInitFn(weights);
      affine.setBiasInit(0);
    }
    if (SignalWalk.activates(layer)) {
      if (layer instanceof ActivationLayer own) {
        own.setActivationFn(activation);
      } else {
        ((BaseLayer) layer).setActivationFn(activation);
      }
    }
  }
}
