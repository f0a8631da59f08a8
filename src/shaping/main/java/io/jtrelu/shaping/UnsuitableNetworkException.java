package io.jtrelu.shaping;

/** The method cannot be used on the network, with any activation. */
public final class UnsuitableNetworkException extends ShapingException {
  private static final long serialVersionUID = 1;

  private final String layer;

  UnsuitableNetworkException(String layer, String message) {
    super(message);
    this.layer = layer;
  }

  /** Name of the layer that stands in the way. */
  public String layer() {
    return layer;
  }
}
