package io.jtrelu.cli;

/** The command line asks for something that is not offered; the program ends with exit code 2. */
public final class UsageException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public UsageException(String message) {
    super(message);
  }

  /** An exception with a message for people and the failure behind it. */
  public UsageException(String message, Throwable cause) {
    super(message, cause);
  }
}
