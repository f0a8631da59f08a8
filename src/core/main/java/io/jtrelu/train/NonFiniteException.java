package io.jtrelu.train;

/** The loss or its gradient became NaN or infinite; nothing was updated with it. */
public final class NonFiniteException extends RuntimeException {
  private static final long serialVersionUID = 1;

  NonFiniteException(String message) {
    super(message);
  }
}
