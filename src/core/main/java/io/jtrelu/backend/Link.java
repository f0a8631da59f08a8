package io.jtrelu.backend;

import io.jtrelu.tensor.Tensor;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What carries tensors between the devices of several processes, without their hosts: {@link
 * Backend#link}. All processes give the same exchanges to their streams in the same order.
 *
 * <p>Used by one thread at a time, but for {@link #failure} and {@link #abort}. A recording holds
 * it open; it is closed before its backend.
 */
public interface Link extends AutoCloseable {
  /** What carries the bytes, and its version, for people. */
  String name();

  /**
   * Sends a tensor to each process and receives one from each, as work of a stream: it begins after
   * what the stream was given before, and what is given later sees what came. It can be recorded.
   *
   * @param send what goes to each process, on this device; null or an empty tensor for nothing, and
   *     this process's own entry is not looked at
   * @param receive where what comes from each goes, of the size and type that it sends; likewise
   */
  void exchange(
      Stream on, List<? extends @Nullable Tensor> send, List<? extends @Nullable Tensor> receive);

  /** What has gone wrong with it since it was made; null while nothing has. For any thread. */
  @Nullable String failure();

  /**
   * Ends what is under way without waiting for others, who see it fail; nothing can be exchanged
   * any more. For any thread.
   */
  void abort();

  /**
   * Leaves the others in order; its work must be done. Idempotent.
   *
   * @throws IllegalStateException if a recording holds it; it stays open
   */
  @Override
  void close();
}
