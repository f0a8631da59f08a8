package io.jtrelu.backend;

/** A backend that was asked for by name cannot be used; the message says why and what to do. */
public final class BackendUnavailableException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public BackendUnavailableException(String message) {
    super(message);
  }

  /** An exception with a message for people and the failure behind it. */
  public BackendUnavailableException(String message, Throwable cause) {
    super(message, cause);
  }
}
