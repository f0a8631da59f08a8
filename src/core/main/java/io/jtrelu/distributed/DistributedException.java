package io.jtrelu.distributed;

/** Processes that should work together cannot: the message says who or what is missing. */
public final class DistributedException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public DistributedException(String message) {
    super(message);
  }

  /** The same, with what caused it. */
  public DistributedException(String message, Throwable cause) {
    super(message, cause);
  }
}
