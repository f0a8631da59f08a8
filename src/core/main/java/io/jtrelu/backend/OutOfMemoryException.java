package io.jtrelu.backend;

/** A device has no room for a tensor; the process can go on. */
public final class OutOfMemoryException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception whose message gives the bytes asked for, in use and cached, and what to do. */
  public OutOfMemoryException(String message) {
    super(message);
  }
}
