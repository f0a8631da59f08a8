package io.jtrelu.djl.trunk;

import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.pytorch.engine.PtNDArray;
import ai.djl.pytorch.jni.JniUtils;
import ai.djl.training.GradientCollector;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.List;

/**
 * A gradient collector that goes through blocks of ours. PyTorch's graph ends at the outputs of a
 * block, which are leaves to it. So a backward pass is PyTorch's from the loss to those leaves,
 * then for each block, the last one first: its own, and PyTorch's again from the block's input on.
 * What PyTorch adds up at a leaf is complete when its block's turn comes, for all that reads it
 * came later in the forward pass.
 */
final class Tape implements GradientCollector {
  private final GradientCollector engine;
  private final Collection<JtreluBlock> blocks;
  private final Deque<JtreluBlock.Pass> passes = new ArrayDeque<>();
  private final List<JtreluBlock.Pass> done = new ArrayList<>();
  private boolean closed;

  /**
   * A tape that blocks write on from now on.
   *
   * @param engine PyTorch's collector, closed with this one
   */
  Tape(GradientCollector engine, Collection<JtreluBlock> blocks) {
    this.engine = engine;
    this.blocks = blocks;
    blocks.forEach(block -> block.record(this));
  }

  boolean isClosed() {
    return closed;
  }

  void add(JtreluBlock.Pass pass) {
    passes.addLast(pass);
  }

  @Override
  public void backward(NDArray target) {
    if (closed) {
      throw new IllegalStateException("this gradient collector is closed: open a new one");
    }
    if (passes.isEmpty() && done.isEmpty()) {
      engine.backward(target);
      return;
    }
    try (NDManager scope = target.getManager().newSubManager()) {
      NDArray ones = scope.ones(target.getShape(), target.getDataType());
      // The graph before a block may be passed twice: along what leads around it, and from it.
      JniUtils.backward((PtNDArray) target, (PtNDArray) ones, true, false);
    }
    done.forEach(JtreluBlock.Pass::requireNoFurtherGradient);
    while (!passes.isEmpty()) {
      JtreluBlock.Pass pass = passes.removeLast();
      try {
        pass.backward();
      } finally {
        pass.release();
      }
      done.add(pass);
    }
  }

  @Override
  public void zeroGradients() {
    engine.zeroGradients();
  }

  @Override
  public void close() {
    if (closed) {
      return;
    }
    closed = true;
    passes.forEach(JtreluBlock.Pass::release);
    passes.clear();
    done.clear();
    blocks.forEach(block -> block.record(null));
    engine.close();
  }
}
