package io.jtrelu.nn;

import io.jtrelu.backend.Conv2dSum;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.shaping.SignalGraph;
import java.util.List;
import java.util.function.IntUnaryOperator;

/**
 * shortcut + branch, not normalised: the sum of ordinary residual networks, which need
 * normalisation layers to keep values in bounds.
 *
 * @param name unique name
 * @param shortcut index of the first node it reads
 * @param branch index of the second node it reads
 * @param extent size of sources and result
 */
public record SumLayer(String name, int shortcut, int branch, Extent extent) implements Layer {
  static final String KIND = "sum";

  static Layer read(LayerDescription in) {
    List<Integer> sources = in.sources(2);
    return new SumLayer(in.name(), sources.get(0), sources.get(1), in.source(1));
  }

  @Override
  public String kind() {
    return KIND;
  }

  @Override
  public List<Integer> sources() {
    return List.of(shortcut, branch);
  }

  @Override
  public void check(List<Extent> extents) {
    extent.requireSame(name, extents);
  }

  @Override
  public int signal(SignalGraph.Builder graph, IntUnaryOperator node) {
    graph.unshapeable(
        name, "adds without weights, so that q grows from sum to sum; take a normalised sum");
    double half = Math.sqrt(0.5);
    return graph.sum(new double[] {half, half}, node.applyAsInt(shortcut), node.applyAsInt(branch));
  }

  @Override
  public double[][] draw(List<double[][]> sources, AffineDraw affine) {
    double[][] y = new double[sources.get(0).length][];
    for (int k = 0; k < y.length; k++) {
      y[k] = sources.get(0)[k].clone();
      for (int i = 0; i < y[k].length; i++) {
        y[k][i] += sources.get(1)[k][i];
      }
    }
    return y;
  }

  @Override
  public boolean fusesRectifier() {
    return true;
  }

  @Override
  public boolean gates() {
    return true;
  }

  @Override
  public boolean absorbs(int source, Layer layer) {
    return source == branch && layer instanceof ConvolutionLayer;
  }

  @Override
  public void lower(Lowering lowering) {
    lower(lowering, shortcut, branch, 1, 1);
  }

  /** Steps of weightA * shortcut + weightB * branch. */
  static void lower(Lowering lowering, int shortcut, int branch, float weightA, float weightB) {
    int node = lowering.node();
    WeightedSum op =
        lowering.own(
            lowering
                .backend()
                .weightedSum(
                    lowering.elements(), lowering.type(), weightA, weightB, lowering.activation()));
    ConvolutionLayer.Prepared convolution =
        lowering.handedOver(branch, ConvolutionLayer.Prepared.class);
    if (convolution != null) {
      Conv2dSum both =
          lowering.own(
              lowering
                  .backend()
                  .conv2dSum(convolution.op(), weightA, weightB, lowering.activation()));
      lowering.forward(
          pass ->
              both.forward(
                  pass.stream(),
                  pass.value(convolution.source()),
                  convolution.packed(),
                  pass.parameter(convolution.bias()),
                  pass.value(shortcut),
                  pass.value(node)));
    } else {
      lowering.forward(
          pass ->
              op.forward(
                  pass.stream(), pass.value(shortcut), pass.value(branch), pass.value(node)));
    }
    var shortcutGate = lowering.gate(shortcut);
    lowering.backwardTo(
        shortcut,
        (pass, write) ->
            op.backwardA(
                pass.stream(),
                pass.gradient(node),
                shortcutGate,
                pass.value(shortcut),
                pass.gradient(shortcut),
                write));
    var branchGate = lowering.gate(branch);
    lowering.backwardTo(
        branch,
        (pass, write) ->
            op.backwardB(
                pass.stream(),
                pass.gradient(node),
                branchGate,
                pass.value(branch),
                pass.gradient(branch),
                write));
  }
}
