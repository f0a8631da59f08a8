package io.jtrelu.distributed;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.Link;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;
import java.time.Duration;
import java.util.Base64;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Ranks whose tensors lie on devices that a link connects: exchanges are work of a stream. What is
 * not of tensors goes by way of the host.
 *
 * <p>A watcher looks at the link: when it has failed, or the host has waited for it until the
 * deadline, the link is aborted, which ends what is under way on the device, so that the wait ends
 * too and says what was wrong.
 */
final class DeviceCommunicator extends Communicator {
  private static final long WATCH_MILLIS = 100;

  private final Communicator host;
  private final Device device;
  private final @Nullable Link link; // null for a process alone
  private final @Nullable Thread watcher;
  private volatile @Nullable String failure;

  /** When the host began to wait, by {@link System#nanoTime}; null while it does not. */
  private volatile @Nullable Long waiting;

  private DeviceCommunicator(Communicator host, Device device, @Nullable Link link) {
    super(host.rank(), host.size());
    this.host = host;
    this.device = device;
    this.link = link;
    watcher =
        link == null
            ? null
            : Thread.ofPlatform().daemon().name("jtrelu-link").start(() -> keepWatch(link));
  }

  /** Links the backends' devices of all ranks. */
  static Communicator open(Communicator host, Backend backend) {
    if (host.size() == 1) {
      return new DeviceCommunicator(host, backend.device(), null);
    }
    Link link;
    try {
      String id = host.rank() == 0 ? Base64.getEncoder().encodeToString(backend.newLinkId()) : "";
      byte[] first = Base64.getDecoder().decode(host.gatherTexts(id).getFirst());
      link = backend.link(first, host.rank(), host.size(), host.deadline());
    } catch (BackendUnavailableException missing) {
      throw new DistributedException(
          "the devices of "
              + host.size()
              + " processes cannot be brought together: "
              + missing.getMessage(),
          missing);
    }
    return new DeviceCommunicator(host, backend.device(), link);
  }

  private void keepWatch(Link watched) {
    try {
      while (failure == null) {
        watch(watched);
        Thread.sleep(WATCH_MILLIS);
      }
    } catch (InterruptedException closed) {
      // no more to watch
    }
  }

  private synchronized void watch(Link watched) {
    if (failure != null) {
      return;
    }
    Long since = waiting;
    String found = watched.failure();
    if (found == null && since != null && System.nanoTime() - since > deadline().toNanos()) {
      found =
          "waited "
              + deadline().toMillis() * 1e-3
              + " s in vain for an exchange between devices; another rank's device hangs, or its"
              + " process does";
    }
    if (found != null) {
      failure = found;
      watched.abort();
    }
  }

  @Override
  public String name() {
    return link == null ? host.name() : link.name();
  }

  @Override
  public Duration deadline() {
    return host.deadline();
  }

  @Override
  public Device device() {
    return device;
  }

  @Override
  void exchange(
      Stream on,
      String what,
      List<? extends @Nullable Tensor> send,
      List<? extends @Nullable Tensor> receive) {
    if (link != null) {
      watch(link);
      requireGood();
      link.exchange(on, send, receive);
    }
  }

  @Override
  public void await(Event event) {
    waiting = System.nanoTime();
    try {
      event.synchronize();
    } finally {
      waiting = null;
    }
    if (link != null) {
      watch(link); // the work may have ended because it failed
      requireGood();
    }
  }

  private void requireGood() {
    if (failure != null) {
      throw new DistributedException("rank " + rank() + " of " + size() + ": " + failure);
    }
  }

  @Override
  protected void exchange(
      String what,
      List<? extends @Nullable Tensor> send,
      List<? extends @Nullable Tensor> receive) {
    host.exchange(what, send, receive);
  }

  @Override
  protected void sum(Tensor values) {
    throw new UnsupportedException(
        "there is no sum over ranks on a device: add up what all-to-all brings");
  }

  @Override
  public void abort(int status) {
    host.abort(status);
  }

  /** Leaves the devices' link alone: the ranks stay. */
  @Override
  public void close() {
    if (watcher != null) {
      watcher.interrupt();
    }
    if (link != null) {
      link.close();
    }
  }
}
