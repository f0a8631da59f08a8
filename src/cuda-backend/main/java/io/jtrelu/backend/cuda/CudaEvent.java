package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Turn;
import java.util.function.Consumer;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;

/** An event of the driver, without a time. */
final class CudaEvent implements Event {
  private final CudaBackend backend;
  private final CudaContext context;
  private final CUevent handle = new CUevent();
  private final Turn turn = new Turn("event");

  /** Of which the marked point is part, if any; it may be over. */
  private @Nullable CudaRecording recording;

  CudaEvent(CudaBackend backend, CudaContext context) {
    this.backend = backend;
    this.context = context;
    // The host sleeps while it waits: data loaders want its core.
    int flags = CUevent_flags.CU_EVENT_DISABLE_TIMING | CUevent_flags.CU_EVENT_BLOCKING_SYNC;
    context.enter();
    try {
      check(JCudaDriver.cuEventCreate(handle, flags), "cuEventCreate");
    } finally {
      context.leave();
    }
  }

  @Override
  public void record(Stream stream) {
    inTurn(() -> with(stream, on -> recording = on.record(handle)));
  }

  @Override
  public void await(Stream stream) {
    inTurn(() -> with(stream, on -> on.await(handle, recording)));
  }

  @Override
  public void synchronize() {
    inTurn(
        () -> {
          context.enter();
          try {
            check(JCudaDriver.cuEventSynchronize(handle), "cuEventSynchronize");
          } finally {
            context.leave();
          }
        });
  }

  private void inTurn(Runnable action) {
    turn.take();
    try {
      action.run();
    } finally {
      turn.give();
    }
  }

  private void with(Stream stream, Consumer<CudaStream> action) {
    CudaStream on = backend.own(stream);
    BackendStream.Use use = on.use("event");
    try {
      action.accept(on);
    } finally {
      use.close();
    }
  }

  @Override
  public void close() {
    if (turn.close() && backend.isOpen()) {
      context.enter();
      try {
        check(JCudaDriver.cuEventDestroy(handle), "cuEventDestroy");
      } finally {
        context.leave();
      }
    }
  }
}
