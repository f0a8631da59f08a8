package io.jtrelu.nn;

import io.jtrelu.backend.GlobalMeanPool;
import java.util.List;

/**
 * Mean over all locations.
 *
 * @param name unique name
 * @param source index of the node it reads
 * @param extent 1 x 1 x channels
 */
public record GlobalMeanPoolingLayer(String name, int source, Extent extent) implements Layer {
  static final String KIND = "global-mean-pooling";

  static Layer read(LayerDescription in) {
    return new GlobalMeanPoolingLayer(
        in.name(), in.sources(1).getFirst(), new Extent(1, 1, in.source(0).channels()));
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
    Extent expected = new Extent(1, 1, extents.getFirst().channels());
    if (!extent.equals(expected)) {
      throw new IllegalArgumentException(
          "layer " + name + ": its result is " + expected + ", not " + extent);
    }
  }

  @Override
  public boolean gates() {
    return true;
  }

  @Override
  public void lower(Lowering lowering) {
    int node = lowering.node();
    GlobalMeanPool op =
        lowering.own(
            lowering
                .backend()
                .globalMeanPool(lowering.shape(source), lowering.type(), lowering.gate(source)));
    lowering.forward(pass -> op.forward(pass.stream(), pass.value(source), pass.value(node)));
    lowering.backwardTo(
        source,
        (pass, write) ->
            op.backward(
                pass.stream(),
                pass.gradient(node),
                pass.value(source),
                pass.gradient(source),
                write));
  }
}
