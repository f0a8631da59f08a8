package io.jtrelu.shaping;

/**
 * A shaping request that cannot be met. The message says which condition fails and what can be
 * done.
 */
public abstract sealed class ShapingException extends RuntimeException
    permits InfeasibleTargetException,
        UnsuitableActivationException,
        UnsuitableNetworkException,
        NoSolutionException {
  private static final long serialVersionUID = 1;

  ShapingException(String message) {
    super(message);
  }
}
