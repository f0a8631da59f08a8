package io.jtrelu.dl4j;

import io.jtrelu.shaping.SignalGraph;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deeplearning4j.nn.conf.ComputationGraphConfiguration;
import org.deeplearning4j.nn.conf.InputPreProcessor;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.conf.graph.ElementWiseVertex;
import org.deeplearning4j.nn.conf.graph.GraphVertex;
import org.deeplearning4j.nn.conf.graph.LayerVertex;
import org.deeplearning4j.nn.conf.graph.PreprocessorVertex;
import org.deeplearning4j.nn.conf.graph.ScaleVertex;
import org.deeplearning4j.nn.conf.layers.ActivationLayer;
import org.deeplearning4j.nn.conf.layers.BaseLayer;
import org.deeplearning4j.nn.conf.layers.BatchNormalization;
import org.deeplearning4j.nn.conf.layers.CnnLossLayer;
import org.deeplearning4j.nn.conf.layers.Convolution2D;
import org.deeplearning4j.nn.conf.layers.ConvolutionLayer;
import org.deeplearning4j.nn.conf.layers.DenseLayer;
import org.deeplearning4j.nn.conf.layers.DropoutLayer;
import org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer;
import org.deeplearning4j.nn.conf.layers.Layer;
import org.deeplearning4j.nn.conf.layers.LossLayer;
import org.deeplearning4j.nn.conf.layers.OutputLayer;
import org.deeplearning4j.nn.conf.layers.Pooling2D;
import org.deeplearning4j.nn.conf.layers.PoolingType;
import org.deeplearning4j.nn.conf.layers.SubsamplingLayer;
import org.deeplearning4j.nn.conf.layers.ZeroPaddingLayer;
import org.deeplearning4j.nn.conf.preprocessor.CnnToFeedForwardPreProcessor;
import org.deeplearning4j.nn.conf.preprocessor.FeedForwardToCnnPreProcessor;
import org.jspecify.annotations.Nullable;
import org.nd4j.linalg.activations.IActivation;
import org.nd4j.linalg.activations.impl.ActivationIdentity;

/** Derives the signal graph of a configuration, layer by layer. */
final class SignalWalk {
  /** How far squared weights of a sum may be from 1: they are typed with a few digits. */
  private static final double TOLERANCE = 1e-3;

  private static final String OTHERWISE =
      "; give the SignalGraph of this network yourself, to KernelShaping.apply";

  /** A node and the factor by which what it stands for is larger than its normalised value. */
  private record Signal(int node, double scale) {}

  private final SignalGraph.Builder graph = SignalGraph.builder();

  private SignalWalk() {}

  static SignalGraph of(MultiLayerConfiguration configuration) {
    SignalWalk walk = new SignalWalk();
    Signal signal = new Signal(walk.graph.input(), 1);
    for (int i = 0; i < configuration.getConfs().size(); i++) {
      Layer layer = configuration.getConf(i).getLayer();
      String name = layer.getLayerName() == null ? "layer" + i : layer.getLayerName();
      InputPreProcessor reshape = configuration.getInputPreProcess(i);
      signal = walk.layer(name, reshape, layer, signal);
    }
    return walk.graph.build(signal.node);
  }

  static SignalGraph of(ComputationGraphConfiguration configuration) {
    List<String> inputs = configuration.getNetworkInputs();
    if (inputs.size() != 1) {
      throw new IllegalArgumentException(
          "a signal graph has one input, but this network has " + inputs + OTHERWISE);
    }
    SignalWalk walk = new SignalWalk();
    Map<String, Signal> done = new HashMap<>();
    done.put(inputs.get(0), new Signal(walk.graph.input(), 1));
    Map<String, GraphVertex> waiting = new LinkedHashMap<>(configuration.getVertices());
    while (!waiting.isEmpty()) {
      boolean moved =
          waiting
              .entrySet()
              .removeIf(
                  entry -> {
                    List<Signal> sources = new ArrayList<>();
                    for (String source : configuration.getVertexInputs().get(entry.getKey())) {
                      Signal signal = done.get(source);
                      if (signal == null) {
                        return false;
                      }
                      sources.add(signal);
                    }
                    done.put(
                        entry.getKey(), walk.vertex(entry.getKey(), entry.getValue(), sources));
                    return true;
                  });
      if (!moved) {
        throw new IllegalArgumentException(
            "vertices " + waiting.keySet() + " read each other, or something that is not there");
      }
    }
    return walk.graph.build(walk.end(configuration, done));
  }

  /** The output; several, as far as nothing reads them, as joined by a normalised sum. */
  private int end(ComputationGraphConfiguration configuration, Map<String, Signal> done) {
    int[] ends =
        configuration.getNetworkOutputs().stream()
            .filter(
                name ->
                    configuration.getVertexInputs().values().stream()
                        .noneMatch(sources -> sources.contains(name)))
            .mapToInt(name -> done.get(name).node)
            .toArray();
    if (ends.length == 1) {
      return ends[0];
    }
    double[] weights = new double[ends.length];
    Arrays.fill(weights, Math.sqrt(1.0 / ends.length));
    return graph.sum(weights, ends);
  }

  private Signal vertex(String name, GraphVertex vertex, List<Signal> sources) {
    Signal first = sources.get(0);
    if (vertex instanceof LayerVertex layer && sources.size() == 1) {
      return layer(name, layer.getPreProcessor(), layer.getLayerConf().getLayer(), first);
    }
    if (vertex instanceof PreprocessorVertex reshape) {
      requireReshape(name, reshape.getPreProcessor());
      return first;
    }
    if (vertex instanceof ScaleVertex scale && scale.getScaleFactor() != 0) {
      return new Signal(first.node, first.scale * scale.getScaleFactor());
    }
    if (vertex instanceof ElementWiseVertex sum
        && (sum.getOp() == ElementWiseVertex.Op.Add
            || sum.getOp() == ElementWiseVertex.Op.Average)) {
      return sum(name, sum.getOp() == ElementWiseVertex.Op.Add ? 1 : sources.size(), sources);
    }
    String kind = vertex.getClass().getSimpleName();
    if (vertex instanceof ElementWiseVertex other) {
      kind += " " + other.getOp();
    }
    throw new IllegalArgumentException(
        "vertex '" + name + "': what " + kind + " does to the kernel is not known" + OTHERWISE);
  }

  private Signal sum(String name, int divisor, List<Signal> sources) {
    double[] weights = sources.stream().mapToDouble(s -> s.scale / divisor).toArray();
    int[] nodes = sources.stream().mapToInt(Signal::node).toArray();
    double square = 0;
    for (double weight : weights) {
      square += weight * weight;
    }
    double scale = Math.sqrt(square);
    for (int i = 0; i < weights.length; i++) {
      weights[i] /= scale;
    }
    return new Signal(graph.label(graph.sum(weights, nodes), name), scale);
  }

  private Signal layer(
      String name, @Nullable InputPreProcessor reshape, Layer layer, Signal source) {
    requireReshape(name, reshape);
    if (layer instanceof BatchNormalization) {
      throw new IllegalArgumentException(
          "layer '"
              + name
              + "': BatchNormalization makes each channel's mean zero over the batch, so that what"
              + " happens to two inputs depends on all others and no kernel map describes it; a"
              + " shaped network trains without it: leave it out");
    }
    int node = source.node;
    if (isAffine(layer)) {
      if (layer instanceof DenseLayer dense && dense.hasLayerNorm()) {
        throw new IllegalArgumentException(
            "layer '" + name + "': layer normalisation changes the kernel; switch it off");
      }
      requireUnit(name, source);
      node = graph.label(graph.affine(node), name);
    } else if (!keepsCosines(layer) && !(layer instanceof ActivationLayer)) {
      throw new IllegalArgumentException(
          "layer '"
              + name
              + "': what "
              + layer.getClass().getSimpleName()
              + " does to the kernel is not known"
              + OTHERWISE);
    }
    if (!activates(layer)) {
      return new Signal(node, source.scale);
    }
    requireUnit(name, source);
    return new Signal(graph.label(graph.activation(node), name + " activation"), 1);
  }

  private static void requireUnit(String name, Signal source) {
    double square = source.scale * source.scale;
    if (!(Math.abs(square - 1) <= TOLERANCE)) {
      throw new IllegalArgumentException(
          "layer '"
              + name
              + "' reads a signal whose mean square is "
              + (float) square
              + " instead of 1, as sums and scales before it make it: the squared weights of a sum"
              + " must add up to 1. Put a ScaleVertex of "
              + (float) (1 / Math.abs(source.scale))
              + " before this layer, or ScaleVertices on the sum's sources");
    }
  }

  private static void requireReshape(String name, @Nullable InputPreProcessor processor) {
    if (processor != null
        && !(processor instanceof CnnToFeedForwardPreProcessor)
        && !(processor instanceof FeedForwardToCnnPreProcessor)) {
      throw new IllegalArgumentException(
          "'"
              + name
              + "': what the preprocessor "
              + processor.getClass().getSimpleName()
              + " does to the kernel is not known"
              + OTHERWISE);
    }
  }

  /** Whether orthogonal weights make it a layer that keeps cosines and mean squares. */
  static boolean isAffine(Layer layer) {
    Class<?> type = layer.getClass();
    return type == ConvolutionLayer.class
        || type == Convolution2D.class
        || type == DenseLayer.class
        || type == OutputLayer.class;
  }

  private static boolean keepsCosines(Layer layer) {
    Class<?> type = layer.getClass();
    if (type == SubsamplingLayer.class || type == Pooling2D.class) {
      PoolingType pooling = ((SubsamplingLayer) layer).getPoolingType();
      return pooling == PoolingType.MAX || pooling == PoolingType.AVG;
    }
    if (type == GlobalPoolingLayer.class) {
      PoolingType pooling = ((GlobalPoolingLayer) layer).getPoolingType();
      return pooling == PoolingType.MAX || pooling == PoolingType.AVG;
    }
    return type == DropoutLayer.class
        || type == ZeroPaddingLayer.class
        || type == LossLayer.class
        || type == CnnLossLayer.class;
  }

  /** Whether it has an activation to be shaped: not the identity, and not before a loss. */
  static boolean activates(Layer layer) {
    IActivation activation = null;
    if (layer instanceof ActivationLayer own) {
      activation = own.getActivationFn();
    } else if (layer instanceof ConvolutionLayer || layer instanceof DenseLayer) {
      activation = ((BaseLayer) layer).getActivationFn();
    }
    return activation != null && !(activation instanceof ActivationIdentity);
  }
}
