package io.jtrelu.backend;

import io.jtrelu.tensor.Device;

/** What all operations share: checks of their operands, and their lifetime. */
abstract class PreparedOperation implements Operation {
  final Operands operands;

  /**
   * @param name for messages
   * @param device where the operands lie
   */
  PreparedOperation(String name, Device device) {
    operands = new Operands(name, device);
  }

  /** Gives back what the operation holds; called once, when nothing runs it. */
  protected void release() {}

  /**
   * Closes the operation. Idempotent.
   *
   * @throws IllegalStateException if it is running or part of a recording; it stays open
   */
  @Override
  public final void close() {
    if (operands.lifetime().close()) {
      release();
    }
  }
}
