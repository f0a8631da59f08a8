package io.jtrelu.backend;

/** A backend cannot run an operation at these sizes or types; the message says which and why. */
public final class UnsupportedException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public UnsupportedException(String message) {
    super(message);
  }
}
