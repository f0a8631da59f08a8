package io.jtrelu.nn;

/**
 * A description of a network is malformed, or describes no network. The message names the place,
 * such as {@code layers[3] (conv1)}, what was expected and what was found.
 */
public final class NetworkFormatException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public NetworkFormatException(String message) {
    super(message);
  }

  /** An exception with a message for people and the failure behind it. */
  public NetworkFormatException(String message, Throwable cause) {
    super(message, cause);
  }
}
