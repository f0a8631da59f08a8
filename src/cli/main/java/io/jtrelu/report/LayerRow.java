package io.jtrelu.report;

/**
 * A layer as a report shows it.
 *
 * @param name its name in the network
 * @param operation what it does, for people: {@code conv 3x3 + TReLU}
 * @param height rows of its output, 1 for a vector
 * @param width columns of its output, 1 for a vector
 * @param channels channels of its output
 * @param parameters number of trained values
 * @param negativeSlope of its activation; NaN if it has none
 */
public record LayerRow(
    String name,
    String operation,
    int height,
    int width,
    int channels,
    long parameters,
    double negativeSlope) {
  /** The extent of the output: {@code 28 x 28 x 32}. */
  String output() {
    return height == 1 && width == 1
        ? Integer.toString(channels)
        : height + "\u2009\u00d7\u2009" + width + "\u2009\u00d7\u2009" + channels;
  }

  /** Whether a table may show one of the two for both. */
  boolean alike(LayerRow other) {
    return operation.equals(other.operation)
        && height == other.height
        && width == other.width
        && channels == other.channels
        && parameters == other.parameters
        && Double.compare(negativeSlope, other.negativeSlope) == 0;
  }
}
