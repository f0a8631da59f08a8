package io.jtrelu.backend;

/** A tensor given to an operation has the wrong shape, type, layout or device. */
public final class OperandException extends IllegalArgumentException {
  private static final long serialVersionUID = 1;

  /**
   * An exception with a message naming operation, operand, what was expected and what was found.
   */
  public OperandException(String message) {
    super(message);
  }
}
