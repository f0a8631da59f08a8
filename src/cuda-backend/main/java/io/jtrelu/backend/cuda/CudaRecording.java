package io.jtrelu.backend.cuda;

import static io.jtrelu.backend.cuda.Driver.check;

import io.jtrelu.backend.BackendStream;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Lifetime;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.function.LongSupplier;
import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.JCudaDriver;

/**
 * A CUDA graph: launching it costs the host as much as one kernel. It holds open what it works on.
 */
final class CudaRecording implements Recording {
  private final CudaBackend backend;
  private final CudaContext context;
  private final CUgraphExec executable = new CUgraphExec();
  private final Set<Lifetime> held = new HashSet<>(); // by identity, as lifetimes have no other
  private final Set<CudaStream> streams = new HashSet<>();
  private final Lifetime lifetime = new Lifetime("recording");
  private final MemoryPool pool;
  private final CudaStream origin;
  private final Map<CudaStream, Scratch> scratch = new HashMap<>();
  private boolean instantiated;

  CudaRecording(CudaBackend backend, CudaContext context, MemoryPool pool, CudaStream origin) {
    this.backend = backend;
    this.context = context;
    this.pool = pool;
    this.origin = origin;
  }

  /**
   * What the operations that were given to a stream use while they run; most are given to that on
   * which it began.
   */
  Scratch scratch(CudaStream of) {
    LongSupplier expected = of.equals(origin) ? backend::expectedScratch : () -> 0;
    return scratch.computeIfAbsent(of, stream -> new Scratch(pool, expected));
  }

  /** Streams whose work is recorded now: that on which it began, and those that wait for it. */
  Set<CudaStream> streams() {
    return streams;
  }

  /** Holds something until this is closed. */
  void hold(Lifetime used) {
    if (!held.contains(used)) {
      used.acquire();
      held.add(used);
    }
  }

  /** Makes what is launched of a graph, which it destroys. */
  void instantiate(CUgraph graph) {
    context.enter();
    try {
      int result = JCudaDriver.cuGraphInstantiate(executable, graph, 0);
      check(JCudaDriver.cuGraphDestroy(graph), "cuGraphDestroy");
      check(result, "cuGraphInstantiate");
      instantiated = true;
    } finally {
      context.leave();
    }
  }

  @Override
  public void replay(Stream stream) {
    lifetime.requireOpen();
    CudaStream on = backend.own(stream);
    try (BackendStream.Use use = on.use("recording")) {
      use.holds(lifetime);
      on.replay(executable);
    }
  }

  @Override
  public void close() {
    if (!lifetime.close()) {
      return;
    }
    try {
      if (instantiated && backend.isOpen()) {
        context.enter();
        try {
          backend.quiesce(); // what it works on may be closed next
          check(JCudaDriver.cuGraphExecDestroy(executable), "cuGraphExecDestroy");
        } finally {
          context.leave();
        }
      }
    } finally {
      scratch.values().forEach(Scratch::close);
      held.forEach(Lifetime::release);
    }
  }
}
