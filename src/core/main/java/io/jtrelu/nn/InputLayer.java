package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.shaping.SignalGraph;
import java.util.List;
import java.util.function.IntUnaryOperator;

/**
 * The network's entry.
 *
 * @param name unique name
 * @param extent size of an image
 */
public record InputLayer(String name, Extent extent) implements Layer {
  static final String KIND = "input";

  static Layer read(LayerDescription in) {
    return new InputLayer(
        in.name(), new Extent(in.integer("height"), in.integer("width"), in.integer("channels")));
  }

  @Override
  public String kind() {
    return KIND;
  }

  @Override
  public List<Integer> sources() {
    return List.of();
  }

  @Override
  public void describe(ObjectNode attributes) {
    attributes.put("height", extent.height());
    attributes.put("width", extent.width());
    attributes.put("channels", extent.channels());
  }

  @Override
  public int signal(SignalGraph.Builder graph, IntUnaryOperator node) {
    return graph.input();
  }

  @Override
  public void lower(Lowering lowering) {}
}
