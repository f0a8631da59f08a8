package io.jtrelu.distributed;

import io.jtrelu.tensor.Tensor;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** A process without others: rank 0 of 1. Holds nothing. */
public final class SoloCommunicator extends Communicator {
  /** A process by itself. */
  public SoloCommunicator() {
    super(0, 1);
  }

  @Override
  public String name() {
    return "one process";
  }

  @Override
  protected void exchange(
      String what,
      List<? extends @Nullable Tensor> send,
      List<? extends @Nullable Tensor> receive) {}

  @Override
  protected void sum(Tensor values) {}

  @Override
  public void abort(int status) {
    Runtime.getRuntime().halt(status);
  }

  @Override
  public void close() {}
}
