package io.jtrelu.shaping;

/**
 * A node of a {@link SignalGraph} under construction. Inputs have smaller numbers than the node, so
 * the numbering is a topological order.
 *
 * @param kind what the node does
 * @param inputs the nodes it reads
 * @param squaredWeights for a sum, one for each input, adding up to 1; else empty
 * @param key for an activation, which function it is; else empty
 */
@SuppressWarnings("ArrayRecordComponent") // internal, never compared, arrays never change
record SignalNode(Kind kind, int[] inputs, double[] squaredWeights, String key) {
  enum Kind {
    INPUT,
    AFFINE,
    ACTIVATION,
    SUM
  }

  boolean isActivation() {
    return kind == Kind.ACTIVATION;
  }
}
