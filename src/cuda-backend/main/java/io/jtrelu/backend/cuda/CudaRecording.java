package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Stream;
import jcuda.driver.CUgraphExec;
import jcuda.driver.JCudaDriver;

/** A CUDA graph: launching it costs the host as much as one kernel. */
final class CudaRecording implements Recording {
  private final CudaBackend backend;
  private final CudaContext context;
  private final CUgraphExec executable;
  private final Lifetime lifetime = new Lifetime("recording");

  CudaRecording(CudaBackend backend, CudaContext context, CUgraphExec executable) {
    this.backend = backend;
    this.context = context;
    this.executable = executable;
  }

  @Override
  public void replay(Stream stream) {
    lifetime.requireOpen();
    backend.own(stream).replay(executable);
  }

  @Override
  public void close() {
    if (lifetime.close()) {
      context.enter();
      try {
        check(JCudaDriver.cuGraphExecDestroy(executable), "cuGraphExecDestroy");
      } finally {
        context.leave();
      }
    }
  }
}
