package io.jtrelu.shaping;

/**
 * No parameters of the activation meet the local conditions of the method, though the network-level
 * target can be reached.
 */
public final class NoSolutionException extends ShapingException {
  private static final long serialVersionUID = 1;

  NoSolutionException(String message) {
    super(message);
  }
}
