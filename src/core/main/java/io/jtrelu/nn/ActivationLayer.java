package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Pointwise;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.shaping.SignalGraph;
import java.util.List;
import java.util.function.IntUnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * A nonlinearity.
 *
 * @param name unique name
 * @param source index of the node it reads
 * @param function what is applied to every value; see {@link Network#shape}
 * @param extent size of source and result
 */
public record ActivationLayer(
    String name, int source, TransformedActivation function, Extent extent) implements Layer {
  static final String KIND = "activation";

  static Layer read(LayerDescription in) {
    return new ActivationLayer(
        in.name(),
        in.sources(1).getFirst(),
        new TransformedActivation(
            in.function("function"),
            in.number("inputScale"),
            in.number("inputShift"),
            in.number("outputScale"),
            in.number("outputShift"),
            in.number("negativeSlope")),
        in.source(0));
  }

  /** This layer with another function. */
  ActivationLayer with(TransformedActivation other) {
    return new ActivationLayer(name, source, other, extent);
  }

  @Override
  public String kind() {
    return KIND;
  }

  @Override
  public List<Integer> sources() {
    return List.of(source);
  }

  @Override
  public void check(List<Extent> extents) {
    extent.requireSame(name, extents);
  }

  @Override
  public void describe(ObjectNode attributes) {
    attributes.put("function", function.function().activationName());
    attributes.put("inputScale", function.inputScale());
    attributes.put("inputShift", function.inputShift());
    attributes.put("outputScale", function.outputScale());
    attributes.put("outputShift", function.outputShift());
    attributes.put("negativeSlope", function.negativeSlope());
  }

  @Override
  public int signal(SignalGraph.Builder graph, IntUnaryOperator node) {
    return graph.activation(node.applyAsInt(source), function.function().activationName());
  }

  @Override
  public double[][] draw(List<double[][]> sources, AffineDraw affine) {
    double[][] x = sources.getFirst();
    double[][] y = new double[x.length][x[0].length];
    for (int k = 0; k < x.length; k++) {
      for (int i = 0; i < y[k].length; i++) {
        y[k][i] = function.value(x[k][i]);
      }
    }
    return y;
  }

  @Override
  public @Nullable Rectifier rectifier() {
    return function.isScaledRectifier()
        ? new Rectifier((float) function.negativeSlope(), (float) function.outputScale())
        : null;
  }

  @Override
  public boolean backwardReadsResult() {
    return rectifier() != null || function.derivativeFollowsFromValue();
  }

  @Override
  public boolean backwardReadsSources() {
    return !backwardReadsResult();
  }

  @Override
  public boolean overwritesSource() {
    return backwardReadsResult();
  }

  @Override
  public void lower(Lowering lowering) {
    int node = lowering.node();
    Rectifier rectifier = rectifier();
    if (rectifier != null) {
      Rectify op =
          lowering.own(lowering.backend().rectify(lowering.elements(), lowering.type(), rectifier));
      lowering.forward(pass -> op.forward(pass.stream(), pass.value(source), pass.value(node)));
      lowering.backwardTo(
          source,
          (pass, write) ->
              op.backward(
                  pass.stream(),
                  pass.value(node),
                  pass.gradient(node),
                  pass.gradient(source),
                  write));
    } else {
      Pointwise op =
          lowering.own(
              lowering.backend().pointwise(lowering.elements(), lowering.type(), function));
      int saved = op.savesOutput() ? node : source;
      lowering.forward(pass -> op.forward(pass.stream(), pass.value(source), pass.value(node)));
      lowering.backwardTo(
          source,
          (pass, write) ->
              op.backward(
                  pass.stream(),
                  pass.value(saved),
                  pass.gradient(node),
                  pass.gradient(source),
                  write));
    }
  }
}
