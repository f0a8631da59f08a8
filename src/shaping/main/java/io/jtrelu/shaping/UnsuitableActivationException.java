package io.jtrelu.shaping;

/** The method cannot be used with the activation, on any network. */
public final class UnsuitableActivationException extends ShapingException {
  private static final long serialVersionUID = 1;

  private final String activation;

  UnsuitableActivationException(String activation, String message) {
    super(message);
    this.activation = activation;
  }

  /** Name of the activation. */
  public String activation() {
    return activation;
  }
}
