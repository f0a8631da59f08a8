package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.shaping.SignalGraph;
import java.util.List;
import java.util.function.IntUnaryOperator;

/**
 * shortcutWeight * shortcut + sqrt(1 - shortcutWeight^2) * branch: a normalised sum. A convolution
 * that only its branch reads is computed along with it.
 *
 * @param name unique name
 * @param shortcut index of the first node it reads
 * @param branch index of the second node it reads
 * @param shortcutWeight in (0, 1)
 * @param extent size of sources and result
 */
public record NormalizedSumLayer(
    String name, int shortcut, int branch, double shortcutWeight, Extent extent) implements Layer {
  static final String KIND = "normalized-sum";

  static Layer read(LayerDescription in) {
    List<Integer> sources = in.sources(2);
    return new NormalizedSumLayer(
        in.name(), sources.get(0), sources.get(1), in.number("shortcutWeight"), in.source(1));
  }

  /** Weight of the branch: the squares of both weights sum to one. */
  public double branchWeight() {
    return Math.sqrt(1 - shortcutWeight * shortcutWeight);
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
    if (!(shortcutWeight > 0 && shortcutWeight < 1)) {
      throw new IllegalArgumentException(
          "layer "
              + name
              + ": the shortcut weight must lie in (0, 1), got "
              + shortcutWeight
              + "; for 0 leave the sum out");
    }
    if (!extents.get(0).equals(extents.get(1))) {
      throw new IllegalArgumentException(
          "layer "
              + name
              + ": shortcut "
              + extents.get(0)
              + " and branch "
              + extents.get(1)
              + " differ in size");
    }
    extent.requireSame(name, extents);
  }

  @Override
  public void describe(ObjectNode attributes) {
    attributes.put("shortcutWeight", shortcutWeight);
  }

  @Override
  public int signal(SignalGraph.Builder graph, IntUnaryOperator node) {
    return graph.sum(
        new double[] {shortcutWeight, branchWeight()},
        node.applyAsInt(shortcut),
        node.applyAsInt(branch));
  }

  @Override
  public double[][] draw(List<double[][]> sources, AffineDraw affine) {
    double[][] a = sources.get(0);
    double[][] b = sources.get(1);
    double[][] y = new double[a.length][a[0].length];
    for (int k = 0; k < y.length; k++) {
      for (int i = 0; i < y[k].length; i++) {
        y[k][i] = shortcutWeight * a[k][i] + branchWeight() * b[k][i];
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
    SumLayer.lower(lowering, shortcut, branch, (float) shortcutWeight, (float) branchWeight());
  }
}
