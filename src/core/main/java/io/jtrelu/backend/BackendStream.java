package io.jtrelu.backend;

import io.jtrelu.tensor.Lifetime;
import io.jtrelu.tensor.Memory;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.tensor.Turn;
import java.util.Arrays;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * What the streams of all backends share (for backends): a thread's {@linkplain Turn turn}, and
 * what the operation under way holds open. All operations pass through {@link #use}.
 */
public abstract class BackendStream implements Stream {
  private final Turn turn = new Turn("stream");
  private final Use use = new Use();
  private Lifetime[] held = new Lifetime[16]; // of operations under way, the outermost first
  private int count;
  private int[] begins = new int[8]; // index in `held` of the first of each operation
  private String operation = "";
  private boolean alone;
  private @Nullable Consumer<Lifetime> observer;

  /** For backends. */
  protected BackendStream() {}

  /**
   * An operation that runs on this stream: between {@link BackendStream#use} and close the stream
   * is this thread's and what the operation was given stays open. The stream has one, so that none
   * is made in a step.
   */
  public final class Use implements AutoCloseable {
    private Use() {}

    /**
     * Holds a tensor that is read.
     *
     * @throws IllegalStateException if it is closed
     * @throws WrongThreadException if its memory belongs to another thread alone
     */
    public Use reads(Tensor tensor) {
      hold(tensor.memory());
      return this;
    }

    /**
     * Holds a tensor that is written.
     *
     * @param name for messages
     * @throws IllegalStateException if it is closed
     * @throws WrongThreadException if its memory belongs to another thread alone
     * @throws OperandException if its memory is read-only
     */
    public Use writes(String name, Tensor tensor) {
      if (tensor.memory().isReadOnly()) {
        throw new OperandException(
            operation
                + ": "
                + name
                + " is written, but "
                + tensor
                + " is read-only memory: give it memory that can be written");
      }
      hold(tensor.memory());
      return this;
    }

    /**
     * Holds something else that it works on.
     *
     * @throws IllegalStateException if it is closed
     */
    public Use holds(Lifetime lifetime) {
      hold(lifetime);
      return this;
    }

    /** Lets nothing else run within the operation, as it calls functions of users. */
    Use alone() {
      alone = true;
      return this;
    }

    /** Ends the operation. */
    @Override
    public void close() {
      int first = begins[turn.depth() - 1];
      while (count > first) {
        held[--count].release();
      }
      alone = false;
      turn.give();
    }
  }

  /**
   * Begins an operation, or one that is part of the operation under way.
   *
   * @param name of the operation, for messages
   * @throws IllegalStateException if the stream is closed or another thread is using it, or if the
   *     operation under way is one that runs alone
   */
  public final Use use(String name) {
    turn.take();
    if (alone) {
      turn.give();
      throw new IllegalStateException(
          "this stream is in use by thread "
              + Thread.currentThread().getName()
              + ": an operation was called from within a function that another one evaluates");
    }
    int depth = turn.depth();
    if (depth > begins.length) {
      begins = Arrays.copyOf(begins, 2 * depth);
    }
    begins[depth - 1] = count;
    operation = name;
    return use;
  }

  /**
   * Holds memory until the operation under way ends.
   *
   * @throws IllegalStateException if it is closed
   * @throws WrongThreadException if it belongs to another thread alone
   */
  public final void hold(Memory memory) {
    if (!isHeld(memory.lifetime())) {
      add(memory.acquire());
    }
  }

  /**
   * Holds something open until the operation under way ends.
   *
   * @throws IllegalStateException if it is closed
   */
  public final void hold(Lifetime lifetime) {
    if (!isHeld(lifetime)) {
      lifetime.acquire();
      add(lifetime);
    }
  }

  /** Whether this operation, or one that it is part of, holds it already: a few are compared. */
  private boolean isHeld(Lifetime lifetime) {
    for (int i = 0; i < count; i++) {
      if (held[i] == lifetime) {
        return true;
      }
    }
    return false;
  }

  private void add(Lifetime acquired) {
    if (count == held.length) {
      held = Arrays.copyOf(held, 2 * count);
    }
    held[count++] = acquired;
    if (observer != null) {
      observer.accept(acquired);
    }
  }

  /**
   * Tells of everything that operations hold from now on (for recordings), while they hold it.
   *
   * @param observer null for nobody
   */
  protected final void observe(@Nullable Consumer<Lifetime> observer) {
    this.observer = observer;
  }

  /** Throws IllegalStateException after close. */
  protected final void requireOpen() {
    turn.requireOpen();
  }

  @Override
  public final void synchronize() {
    turn.take();
    try {
      await();
    } finally {
      turn.give();
    }
  }

  /** Implements {@link #synchronize}, in the calling thread's turn. */
  protected abstract void await();

  /**
   * Takes the turn for the close of the backend.
   *
   * @return false for a stream that is closed
   * @throws IllegalStateException while a thread, be it this one, uses the stream
   */
  final boolean takeToClose() {
    if (turn.isClosed()) {
      return false;
    }
    if (turn.depth() > 0) {
      throw new IllegalStateException(
          "this stream is in use: an operation cannot close the stream or the backend it runs on");
    }
    turn.take();
    return true;
  }

  /** Gives the turn back after {@link #takeToClose}. */
  final void giveBack() {
    turn.give();
  }

  /** Closes the stream after {@link #takeToClose}. */
  final void closeTaken() {
    turn.closeTaken();
    release();
  }

  @Override
  public final synchronized void close() {
    if (takeToClose()) {
      closeTaken();
    }
  }

  /** Gives back what the stream holds; called once, when nothing uses it. */
  protected abstract void release();
}
