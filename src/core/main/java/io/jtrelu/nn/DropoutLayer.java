package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Dropout;
import java.util.List;

/**
 * Dropout while training; the identity otherwise.
 *
 * @param name unique name
 * @param source index of the node it reads
 * @param rate probability of dropping a value, in [0, 1)
 * @param extent size of source and result
 */
public record DropoutLayer(String name, int source, float rate, Extent extent) implements Layer {
  static final String KIND = "dropout";

  static Layer read(LayerDescription in) {
    return new DropoutLayer(in.name(), in.sources(1).getFirst(), in.single("rate"), in.source(0));
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
    if (!(rate >= 0 && rate < 1)) {
      throw new IllegalArgumentException(
          "layer " + name + ": the dropout rate must lie in [0, 1), got " + rate);
    }
    extent.requireSame(name, extents);
  }

  @Override
  public void describe(ObjectNode attributes) {
    attributes.put("rate", (double) rate); // a decimal for a float would be rounded twice
  }

  @Override
  public boolean onlyTrains() {
    return true;
  }

  @Override
  public void lower(Lowering lowering) {
    int node = lowering.node();
    long seed = lowering.seed();
    Dropout op =
        lowering.own(lowering.backend().dropout(lowering.elements(), lowering.type(), rate));
    lowering.forward(
        pass ->
            op.forward(pass.stream(), pass.value(source), pass.value(node), seed, pass.sequence()));
    lowering.backwardTo(
        source,
        (pass, write) ->
            op.backward(
                pass.stream(),
                pass.gradient(node),
                pass.gradient(source),
                seed,
                pass.sequence(),
                write));
  }
}
