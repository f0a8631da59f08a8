package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import jcuda.driver.CUevent;
import jcuda.driver.JCudaDriver;

/**
 * Milliseconds on the device, between two of its events: of work that is recorded, as that of a
 * training step is, so that the host's calls do not count.
 */
final class EventMeter implements Meter {
  private static final int PER_RECORDING = 8;
  private static final int TRIALS = 3;

  private final CudaContext context;

  EventMeter(CudaContext context) {
    this.context = context;
  }

  @Override
  public double cost(CudaStream stream, Runnable work) {
    work.run(); // loads what is loaded at the first call
    context.enter();
    CUevent begin = new CUevent();
    CUevent end = new CUevent();
    try (CudaRecording recording =
        stream.record(
            () -> {
              for (int i = 0; i < PER_RECORDING; i++) {
                work.run();
              }
            })) {
      check(JCudaDriver.cuEventCreate(begin, 0), "cuEventCreate");
      check(JCudaDriver.cuEventCreate(end, 0), "cuEventCreate");
      recording.replay(stream); // brings clocks and caches to where they will be
      double least = Double.POSITIVE_INFINITY;
      for (int trial = 0; trial < TRIALS; trial++) {
        stream.record(begin);
        recording.replay(stream);
        stream.record(end);
        stream.synchronize();
        float[] elapsed = new float[1];
        check(JCudaDriver.cuEventElapsedTime(elapsed, begin, end), "cuEventElapsedTime");
        least = Math.min(least, elapsed[0] / PER_RECORDING);
      }
      return least;
    } finally {
      JCudaDriver.cuEventDestroy(begin);
      JCudaDriver.cuEventDestroy(end);
      context.leave();
    }
  }
}
