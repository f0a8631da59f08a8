package io.jtrelu.data;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.function.Consumer;

/**
 * One batch, lent by a {@link BatchLoader}: read it, then {@link #close} it, which hands its
 * tensors back to be filled again. The same object returns with other contents later. For one
 * thread at a time.
 */
public final class Batch implements AutoCloseable {
  /** Label of a row that counts for nothing. */
  public static final int PADDING = -1;

  private final Tensor src;
  private final Tensor labels;
  private final Consumer<Batch> giveBack;
  // Written by the loader only: the state under its lock, the rest while FILLING.
  State state = State.EMPTY;
  long epoch;
  int step;
  int valid;

  // Under its lock, while FILLING.
  int taken; // rows that a thread has taken; 0 again when all are
  int filled;

  /** Whose turn it is. */
  enum State {
    EMPTY,
    FILLING,
    READY,
    LENT
  }

  Batch(Shape srcShape, DataType srcType, Consumer<Batch> giveBack) {
    this.src = Tensor.allocate(srcShape, srcType, Layout.NHWC);
    this.labels = Tensor.allocate(Shape.of(srcShape.dim(0)), DataType.I32, Layout.ROW_MAJOR);
    this.giveBack = giveBack;
  }

  /**
   * Normalised images, F32 [batch, h, w, channels] NHWC on the host, owned by the loader; or the
   * images' bytes, U8, of a loader of {@linkplain BatchLoader.Builder#bytes bytes}.
   */
  public Tensor src() {
    return src;
  }

  /** Classes: I32 [batch] on the host, owned by the loader. */
  public Tensor labels() {
    return labels;
  }

  /** Class of a row, or {@link #PADDING}. */
  public int label(int row) {
    return labels.segment().getAtIndex(JAVA_INT_UNALIGNED, row);
  }

  /** Epoch (pass over the data) this batch belongs to, from 0. */
  public long epoch() {
    return epoch;
  }

  /** Step within the epoch, from 0. */
  public int step() {
    return step;
  }

  /**
   * How many images count, from the front: all of the batch but in the last one of an epoch that
   * does not drop it. The rest repeats the last valid image under the label {@link #PADDING}, as a
   * row before it has whose image was bad and passed over.
   */
  public int valid() {
    return valid;
  }

  /** Hands the tensors back to the loader. Idempotent until the loader lends this object again. */
  @Override
  public void close() {
    giveBack.accept(this);
  }

  void release() {
    src.close();
    labels.close();
  }
}
