package io.jtrelu.interop;

import io.jtrelu.tensor.PrintableText;

/**
 * A file is not what the safetensors format allows, or holds what this library has no type for. The
 * message names the file, the position in it, what was expected and what was found; control
 * characters in it are spelt out ({@link PrintableText}).
 */
public final class SafeTensorsException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public SafeTensorsException(String message) {
    super(PrintableText.of(message));
  }

  /** An exception with a message for people and the failure behind it. */
  public SafeTensorsException(String message, Throwable cause) {
    super(PrintableText.of(message), cause);
  }
}
