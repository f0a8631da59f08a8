package io.jtrelu.djl.trunk;

import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.AbstractBlock;
import ai.djl.nn.Activation;
import ai.djl.nn.Block;
import ai.djl.nn.Parameter;
import ai.djl.nn.convolutional.Conv2d;
import ai.djl.nn.core.Linear;
import ai.djl.nn.pooling.Pool;
import ai.djl.training.ParameterStore;
import ai.djl.util.Pair;
import ai.djl.util.PairList;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.djl.ShapedActivation;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.InputLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NormalizedSumLayer;
import java.util.ArrayList;
import java.util.List;

/** A network in operations of DJL, with its gradients, and parameters of a JtreluBlock's names. */
final class Twin extends AbstractBlock {
  private final Network network;
  private final JtreluBlock like;
  private final boolean inPlace;

  Twin(JtreluBlock like) {
    this(like, false);
  }

  /**
   * @param inPlace whether rectifiers scale their results in place, which is faster
   */
  Twin(JtreluBlock like, boolean inPlace) {
    this.inPlace = inPlace;
    this.network = like.network();
    this.like = like;
    for (Pair<String, Parameter> of : like.getDirectParameters()) {
      addParameter(
          Parameter.builder()
              .setName(of.getKey())
              .setType(of.getValue().getType())
              .optShape(of.getValue().getShape())
              .optInitializer((m, s, t) -> m.zeros(s, t))
              .build());
    }
  }

  /** Gives the parameters of one network to another of the same names but for the blocks'. */
  static void copyParameters(Block from, Block to) {
    List<Parameter> sources = from.getParameters().values();
    List<Parameter> targets = to.getParameters().values();
    for (int i = 0; i < sources.size(); i++) {
      targets.get(i).getArray().set(sources.get(i).getArray().toFloatArray());
    }
  }

  /** x * number; x.mul(number) keeps a buffer for the gradient that Java may free. */
  static NDArray mul(NDArray x, double number) {
    return x.mul(x.getManager().full(new Shape(), (float) number));
  }

  @Override
  public Shape[] getOutputShapes(Shape[] inputShapes) {
    return like.getOutputShapes(inputShapes);
  }

  @Override
  protected NDList forwardInternal(
      ParameterStore store, NDList inputs, boolean training, PairList<String, Object> params) {
    List<NDArray> values = new ArrayList<>();
    for (Layer layer : network.layers()) {
      NDArray[] sources = layer.sources().stream().map(values::get).toArray(NDArray[]::new);
      values.add(
          switch (layer) {
            case InputLayer input -> inputs.singletonOrThrow();
            case ConvolutionLayer convolution ->
                convolution(
                    convolution,
                    sources[0],
                    value(store, layer, "weights", inputs, training),
                    value(store, layer, "bias", inputs, training));
            case ActivationLayer activation ->
                inPlace
                    ? rectified(sources[0], activation)
                    : new ShapedActivation(activation.function()).apply(sources[0]);
            case NormalizedSumLayer sum ->
                mul(sources[0], sum.shortcutWeight()).add(mul(sources[1], sum.branchWeight()));
            case MaxPoolingLayer pool -> {
              var d = pool.descriptor();
              Shape pads = new Shape(d.padBegin(), d.padEnd(), d.padBegin(), d.padEnd());
              yield Pool.maxPool2d(
                  sources[0].pad(pads, Double.NEGATIVE_INFINITY),
                  new Shape(d.kernel(), d.kernel()),
                  new Shape(d.stride(), d.stride()),
                  new Shape(0, 0),
                  false);
            }
            case GlobalMeanPoolingLayer pool -> Pool.globalAvgPool2d(sources[0]);
            default -> throw new IllegalArgumentException("no counterpart of " + layer);
          });
    }
    return new NDList(network.outputs().stream().map(values::get).toArray(NDArray[]::new));
  }

  private static NDArray rectified(NDArray x, ActivationLayer layer) {
    NDArray y = Activation.leakyRelu(x, (float) layer.function().negativeSlope());
    return y.muli(x.getManager().full(new Shape(), (float) layer.function().outputScale()));
  }

  private NDArray value(
      ParameterStore store, Layer layer, String name, NDList inputs, boolean training) {
    Parameter parameter = getDirectParameters().get(layer.name() + "." + name);
    return store.getValue(parameter, inputs.head().getDevice(), training);
  }

  private static NDArray convolution(
      ConvolutionLayer layer, NDArray x, NDArray weights, NDArray bias) {
    if (weights.getShape().dimension() == 2) {
      return Linear.linear(x, weights, bias).singletonOrThrow();
    }
    Conv2dDescriptor d = layer.descriptor();
    boolean symmetric = d.padTop() == d.padBottom() && d.padLeft() == d.padRight();
    return Conv2d.conv2d(
            symmetric
                ? x
                : x.pad(new Shape(d.padLeft(), d.padRight(), d.padTop(), d.padBottom()), 0),
            weights,
            bias,
            new Shape(d.strideH(), d.strideW()),
            symmetric ? new Shape(d.padTop(), d.padLeft()) : new Shape(0, 0),
            new Shape(d.dilationH(), d.dilationW()),
            d.groups())
        .singletonOrThrow();
  }
}
