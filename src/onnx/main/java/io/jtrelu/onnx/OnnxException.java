package io.jtrelu.onnx;

import io.jtrelu.tensor.PrintableText;

/**
 * A file is no ONNX model, is damaged, or holds what this library has no layer for; or a network
 * what ONNX has no operator for. The message names the file and node, or the layer, and says what
 * would help; control characters in it are spelt out ({@link PrintableText}).
 */
public final class OnnxException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** An exception with a message for people. */
  public OnnxException(String message) {
    super(PrintableText.of(message));
  }

  /** An exception with a message for people and the failure behind it. */
  public OnnxException(String message, Throwable cause) {
    super(PrintableText.of(message), cause);
  }
}
