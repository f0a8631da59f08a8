package io.jtrelu.train;

/**
 * A checkpoint cannot be used: it belongs to another network, or the file is none of ours. The
 * message lists what differs.
 */
public final class CheckpointException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public CheckpointException(String message) {
    super(message);
  }

  /** An exception with a message for people and the failure behind it. */
  public CheckpointException(String message, Throwable cause) {
    super(message, cause);
  }
}
