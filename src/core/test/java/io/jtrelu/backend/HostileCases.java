package io.jtrelu.backend;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.HostileCalls.Call;
import io.jtrelu.backend.HostileCalls.Operand;
import io.jtrelu.backend.HostileCalls.Prepared;
import io.jtrelu.backend.reference.ReferenceBackend;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NetworkFunction;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import java.util.stream.Stream;

/**
 * Misuse of every call, case by case, in a process of its own: each case ends with the right result
 * or an exception of a documented type, never with a crash, a hang or a wrong value.
 */
final class HostileCases {
  /** What a line says before the id of a case: it begins, ended well, or failed (why follows). */
  static final String BEGIN = "hostile-begin ";

  static final String GOOD = "hostile-good ";
  static final String BAD = "hostile-bad ";

  private static final long DEADLINE_NANOS = 30_000_000_000L;
  private static final DataType F32 = DataType.F32;

  /** What a case does with a backend of its own, which it may close. */
  interface Body {
    void run(Backend backend, SplittableRandom random) throws Exception;
  }

  /** A case and the name that repeats it. */
  record Case(String id, Body body) {}

  private final Subject subject;
  private final boolean host;
  private final int rounds; // of a race, for each thing that is closed
  private final List<Case> cases = new ArrayList<>();

  private HostileCases(Subject subject, boolean host) {
    this.subject = subject;
    this.host = host;
    this.rounds = host ? 2 : 1; // an emulated device is slow
  }

  /** All cases of a backend, which is looked at and not kept. */
  static List<Case> of(Subject subject, Backend backend) {
    boolean host = backend.device().equals(Device.CPU);
    HostileCases all = new HostileCases(subject, host);
    // Large enough that freed memory is unmapped, where the device is fast enough.
    List<Call> calls = HostileCalls.all(backend, host ? 1 << 16 : 5000);
    for (Call call : calls) {
      all.add(call);
    }
    all.addRecordings(calls);
    all.addHostMemory();
    all.addCallbacks();
    all.addFunctions();
    all.addLifecycles();
    return all.cases;
  }

  /**
   * Runs cases of a backend and tells of each.
   *
   * @param arguments name of the backend, seed, then the ids
   */
  public static void main(String[] arguments) {
    PrintStream out = System.out;
    Subject subject =
        Subject.all().filter(s -> s.name().equals(arguments[0])).findFirst().orElseThrow();
    List<Case> all;
    try (Backend backend = subject.open()) {
      all = of(subject, backend);
    }
    List<String> wanted = Arrays.asList(arguments).subList(2, arguments.length);
    for (Case test : all) {
      if (wanted.contains(test.id)) {
        out.println(BEGIN + test.id);
        out.flush();
        String failure = run(subject, test, Long.parseLong(arguments[1]));
        out.println(failure == null ? GOOD + test.id : BAD + test.id + "\t" + failure);
        out.flush();
      }
    }
    System.exit(0); // threads that hang have been told of
  }

  private static String run(Subject subject, Case test, long seed) {
    try {
      Backend backend = subject.open();
      try {
        test.body.run(backend, new SplittableRandom(seed + test.id.hashCode()));
      } finally {
        backend.close();
      }
      long left = backend.memory().inUse();
      return left == 0 ? null : left + " bytes still in use at the end";
    } catch (Throwable failure) {
      StringBuilder text = new StringBuilder();
      for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
        text.append(cause).append(" at ").append(Arrays.toString(first(cause.getStackTrace())));
      }
      return text.toString().replaceAll("\\s+", " ");
    }
  }

  private static StackTraceElement[] first(StackTraceElement[] trace) {
    return Arrays.copyOf(trace, Math.min(5, trace.length));
  }

  /** An action that may throw. */
  interface Action {
    void run() throws Exception;
  }

  /** Requires an exception of a type, or of one below it. */
  private static void refused(String what, Class<? extends Exception> type, Action action) {
    try {
      action.run();
    } catch (Exception thrown) {
      if (type.isInstance(thrown)) {
        return;
      }
      throw new AssertionError(what + ": expected " + type.getSimpleName(), thrown);
    }
    throw new AssertionError(what + ": expected " + type.getSimpleName() + ", nothing was thrown");
  }

  /** Whether something was closed; false where that was refused, as it may. */
  private static boolean closes(AutoCloseable thing) throws Exception {
    try {
      thing.close();
      return true;
    } catch (IllegalStateException refused) {
      return false;
    }
  }

  /** Closes what is in use as soon as that lets it. */
  private static void closeWhenFree(String what, AutoCloseable thing) throws Exception {
    long end = System.nanoTime() + DEADLINE_NANOS;
    while (!closes(thing)) {
      if (System.nanoTime() > end) {
        throw new AssertionError(what + ": could not be closed by the deadline");
      }
      Thread.onSpinWait();
    }
  }

  private static void join(String what, Thread thread) throws InterruptedException {
    thread.join(DEADLINE_NANOS / 1_000_000);
    if (thread.isAlive()) {
      throw new AssertionError(
          what + ": hangs in " + Arrays.toString(first(thread.getStackTrace())));
    }
  }

  /** What each call should give, by the reference. */
  private static final class Expected {
    private final Map<String, float[][]> byCall = new HashMap<>();

    float[][] of(Call call) throws Exception {
      float[][] known = byCall.get(call.name());
      if (known == null) {
        try (Backend reference = new ReferenceBackend();
            Setup setup = new Setup(reference, call)) {
          setup.run();
          known = setup.values();
        }
        byCall.put(call.name(), known);
      }
      return known;
    }
  }

  private final Expected expected = new Expected();

  /** A call with operands on a backend. */
  private static final class Setup implements AutoCloseable {
    final Backend backend;
    final Call call;
    final Prepared prepared;
    final io.jtrelu.backend.Stream stream;
    final Tensor[] tensors;

    Setup(Backend backend, Call call) {
      this.backend = backend;
      this.call = call;
      this.prepared = call.preparation().prepare(backend);
      this.stream = backend.newStream();
      this.tensors = new Tensor[call.operands().size()];
      for (int k = 0; k < tensors.length; k++) {
        tensors[k] = newTensor(k);
      }
    }

    /** A tensor with the values of an operand. */
    Tensor newTensor(int k) {
      Operand operand = call.operands().get(k);
      Tensor tensor = backend.allocate(operand.shape(), operand.type(), operand.layout());
      try (Tensor values = operand.onHost();
          var uploads = backend.newStream()) {
        backend.copy(uploads, values, tensor);
        uploads.synchronize();
      }
      return tensor;
    }

    void run() {
      run(stream, tensors);
    }

    void run(io.jtrelu.backend.Stream on, Tensor[] with) {
      prepared.runner().run(on, with);
      on.synchronize();
    }

    /** Runs with another operand. */
    void runWith(int k, Tensor other) {
      Tensor[] changed = tensors.clone();
      changed[k] = other;
      run(stream, changed);
    }

    float[] values(int k) {
      Operand operand = call.operands().get(k);
      try (Tensor on = Tensor.allocate(operand.shape(), operand.type(), operand.layout());
          var downloads = backend.newStream()) {
        backend.copy(downloads, tensors[k], on);
        downloads.synchronize();
        return on.toFloatArray();
      }
    }

    float[][] values() {
      float[][] all = new float[tensors.length][];
      for (int k = 0; k < all.length; k++) {
        all[k] = values(k);
      }
      return all;
    }

    /** Requires the values of all operands but one. */
    void check(float[][] expected, int but) {
      for (int k = 0; k < tensors.length; k++) {
        if (k != but) {
          float[] found = values(k);
          for (int i = 0; i < found.length; i++) {
            float right = expected[k][i];
            if (!(Math.abs(found[i] - right) <= 1e-3 * (1 + Math.abs(right)))) {
              throw new AssertionError(
                  call.operands().get(k).name()
                      + "["
                      + i
                      + "] is "
                      + found[i]
                      + ", should be "
                      + right);
            }
          }
        }
      }
    }

    @Override
    public void close() {
      stream.close();
      for (Tensor tensor : tensors) {
        tensor.close();
      }
      prepared.close();
    }
  }

  private void add(String id, Body body) {
    cases.add(new Case(id, body));
  }

  private void add(Call call) {
    add("closed before: " + call.name(), (b, random) -> closedBefore(b, call));
    add("null or foreign: " + call.name(), (b, random) -> nullOrForeign(b, call));
    add("backend closed before: " + call.name(), (b, random) -> backendClosedBefore(b, call));
    add("closed meanwhile: " + call.name(), (b, random) -> closedMeanwhile(b, call, random));
    add("two threads: " + call.name(), (b, random) -> twoThreads(b, call));
    if (call.operands().size() > 1) {
      add("overlap: " + call.name(), (b, random) -> overlap(b, call));
    }
    if (host) {
      add("wrapped: " + call.name(), (b, random) -> wrapped(b, call));
    }
  }

  private void closedBefore(Backend backend, Call call) throws Exception {
    try (Setup setup = new Setup(backend, call)) {
      for (int k = 0; k < setup.tensors.length; k++) {
        int operand = k;
        String name = call.operands().get(k).name();
        Tensor closed = setup.newTensor(k);
        closed.close();
        closed.close();
        refused(name, IllegalStateException.class, () -> setup.runWith(operand, closed));
      }
      var other = backend.newStream();
      other.close();
      other.close();
      refused("stream", IllegalStateException.class, () -> setup.run(other, setup.tensors.clone()));
      setup.run();
      setup.check(expected.of(call), -1);
      if (setup.prepared.packed() != null) {
        setup.prepared.packed().close();
        setup.prepared.packed().close();
        refused("packed weights", IllegalStateException.class, setup::run);
      }
      if (setup.prepared.operation() != null) {
        setup.prepared.close();
        setup.prepared.close();
        refused("operation", IllegalStateException.class, setup::run);
      }
    }
  }

  private void nullOrForeign(Backend backend, Call call) throws Exception {
    try (Setup setup = new Setup(backend, call);
        Backend stranger = new ReferenceBackend();
        Backend twin = subject.open();
        var strange = stranger.newStream();
        var twins = twin.newStream()) {
      for (int k = 0; k < setup.tensors.length; k++) {
        int operand = k;
        refused(
            call.operands().get(k).name() + " null",
            IllegalArgumentException.class,
            () -> setup.runWith(operand, null));
      }
      refused(
          "stream null",
          IllegalArgumentException.class,
          () -> setup.run(null, setup.tensors.clone()));
      if (!subject.name().equals("reference")) {
        refused(
            "another kind's stream",
            IllegalArgumentException.class,
            () -> setup.run(strange, setup.tensors.clone()));
      }
      try {
        setup.run(twins, setup.tensors.clone());
      } catch (IllegalArgumentException documented) {
        setup.run();
      }
      setup.check(expected.of(call), -1);
    }
  }

  private void backendClosedBefore(Backend backend, Call call) throws Exception {
    Setup setup = new Setup(backend, call);
    setup.run();
    backend.close();
    backend.close();
    refused("call", IllegalStateException.class, setup::run);
    if (setup.prepared.packed() != null) {
      closes(setup.prepared.packed());
    }
    if (setup.prepared.operation() != null) {
      refused("prepare", IllegalStateException.class, () -> call.preparation().prepare(backend));
    }
    closes(setup);
    closes(setup);
  }

  /** A thread that runs a call until that is refused. */
  private static final class Worker {
    private final AtomicInteger runs = new AtomicInteger();
    private final AtomicReference<Throwable> end = new AtomicReference<>();
    private final Thread thread;
    private volatile boolean stopped;

    Worker(Action action) {
      thread =
          Thread.ofPlatform()
              .daemon()
              .start(
                  () -> {
                    try {
                      while (!stopped) {
                        action.run();
                        if (runs.incrementAndGet() % 4 == 0) {
                          LockSupport.parkNanos(20_000); // lets whoever closes find a gap
                        }
                      }
                    } catch (Throwable failure) {
                      end.set(failure);
                    }
                  });
    }

    /** Waits until it has run at least once, or has ended, and then a little. */
    void awaitRun(SplittableRandom random) {
      long deadline = System.nanoTime() + DEADLINE_NANOS;
      while (runs.get() == 0 && end.get() == null && System.nanoTime() < deadline) {
        Thread.onSpinWait();
      }
      long until = System.nanoTime() + random.nextLong(1, 300_000);
      while (System.nanoTime() < until) {
        Thread.onSpinWait();
      }
    }

    /** Waits until it was refused as something was closed. */
    void requireRefused(String what) throws InterruptedException {
      join(what, thread);
      if (!(end.get() instanceof IllegalStateException)) {
        throw new AssertionError(what + ": expected IllegalStateException", end.get());
      }
    }

    void stop() throws InterruptedException {
      stopped = true;
      join("worker", thread);
    }
  }

  /** Another thread closes what is in use: operands, stream, operation, weights, backend. */
  private void closedMeanwhile(Backend backend, Call call, SplittableRandom random)
      throws Exception {
    float[][] right = expected.of(call);
    for (int round = 0; round < rounds; round++) {
      for (int k = 0; k < call.operands().size(); k++) {
        try (Setup setup = new Setup(backend, call)) {
          Worker worker = new Worker(setup::run);
          worker.awaitRun(random);
          String name = call.operands().get(k).name();
          closeWhenFree(name, setup.tensors[k]);
          worker.requireRefused(name);
          if (call.repeats()) {
            setup.check(right, k);
          }
        }
      }
      try (Setup setup = new Setup(backend, call)) {
        Worker worker = new Worker(setup::run);
        worker.awaitRun(random);
        closeWhenFree("stream", setup.stream);
        worker.requireRefused("stream");
        if (call.repeats()) {
          setup.check(right, -1);
        }
      }
      try (Setup setup = new Setup(backend, call)) {
        AutoCloseable packed = setup.prepared.packed();
        AutoCloseable target =
            packed != null && random.nextBoolean() ? packed : setup.prepared.operation();
        if (target != null) {
          Worker worker = new Worker(setup::run);
          worker.awaitRun(random);
          closeWhenFree("operation", target);
          worker.requireRefused("operation");
          if (call.repeats()) {
            setup.check(right, -1);
          }
        }
      }
    }
    Setup setup = new Setup(backend, call);
    Worker worker = new Worker(setup::run);
    worker.awaitRun(random);
    closeWhenFree("backend", backend);
    worker.requireRefused("backend");
    closes(setup);
    closes(setup);
  }

  /** Two threads on one stream: each call is refused or right. */
  private void twoThreads(Backend backend, Call call) throws Exception {
    float[][] right = expected.of(call);
    try (Setup one = new Setup(backend, call);
        Setup two = new Setup(backend, call)) {
      AtomicInteger done = new AtomicInteger();
      List<Worker> workers = new ArrayList<>();
      List<Setup> ran = new ArrayList<>();
      for (Setup setup : List.of(one, two)) {
        AtomicInteger own = new AtomicInteger();
        workers.add(
            new Worker(
                () -> {
                  if (call.repeats() || own.get() == 0) {
                    try {
                      setup.prepared.runner().run(one.stream, setup.tensors);
                      own.incrementAndGet();
                      done.incrementAndGet();
                      synchronized (ran) {
                        if (!ran.contains(setup)) {
                          ran.add(setup);
                        }
                      }
                    } catch (IllegalStateException otherThread) {
                      Thread.onSpinWait();
                    }
                  }
                }));
      }
      long end = System.nanoTime() + DEADLINE_NANOS;
      while ((ran.size() < 2 || (call.repeats() && done.get() < 40)) && System.nanoTime() < end) {
        LockSupport.parkNanos(100_000);
      }
      for (Worker worker : workers) {
        worker.stop();
        if (worker.end.get() != null) {
          throw new AssertionError("two threads", worker.end.get());
        }
      }
      if (ran.size() < 2) {
        throw new AssertionError("a thread never had its turn");
      }
      one.stream.synchronize();
      one.check(right, -1);
      two.check(right, -1);
    }
  }

  /** What is written overlaps another operand in part: refused. */
  private void overlap(Backend backend, Call call) throws Exception {
    try (Setup setup = new Setup(backend, call)) {
      List<Operand> operands = call.operands();
      for (int w = 0; w < operands.size(); w++) {
        for (int o = 0; o < operands.size(); o++) {
          Operand written = operands.get(w);
          Operand other = operands.get(o);
          if (w == o || !written.isWritten()) {
            continue;
          }
          long bytes = setup.tensors[w].bytes() + setup.tensors[o].bytes() + 64;
          Shape all = Shape.of(Math.toIntExact(Math.ceilDiv(bytes, 4)));
          try (Tensor block = backend.allocate(all, DataType.I32, Layout.ROW_MAJOR)) {
            int step = Math.max(written.type().bytes(), other.type().bytes());
            Tensor[] with = setup.tensors.clone();
            boolean behind = with[o].bytes() > step; // else it is small and lies within
            with[w] =
                Tensor.view(
                    block.memory(),
                    behind ? step : 0,
                    written.shape(),
                    written.type(),
                    written.layout());
            with[o] =
                Tensor.view(
                    block.memory(), behind ? 0 : step, other.shape(), other.type(), other.layout());
            if (behind || with[w].bytes() > step) {
              refused(
                  written.name() + " over " + other.name(),
                  OperandException.class,
                  () -> setup.run(setup.stream, with));
            }
          }
        }
      }
      setup.run();
      setup.check(expected.of(call), -1);
    }
  }

  /** Memory of the caller: read-only, freed, or another thread's. */
  private void wrapped(Backend backend, Call call) throws Exception {
    try (Setup setup = new Setup(backend, call)) {
      for (int k = 0; k < setup.tensors.length; k++) {
        int operand = k;
        Operand of = call.operands().get(k);
        long bytes = setup.tensors[k].bytes();
        if (of.isWritten()) {
          readOnly(setup, k, bytes);
        }
        Tensor freed;
        try (Arena arena = Arena.ofShared()) {
          freed = wrap(arena.allocate(bytes, 64), of);
        }
        refused(
            of.name() + " freed", IllegalStateException.class, () -> setup.runWith(operand, freed));
        try (var owner = Executors.newSingleThreadExecutor()) {
          Arena arena = owner.submit(Arena::ofConfined).get();
          Tensor confined = wrap(owner.submit(() -> arena.allocate(bytes, 64)).get(), of);
          refused(
              of.name() + " of another thread",
              WrongThreadException.class,
              () -> setup.runWith(operand, confined));
          owner.submit(arena::close).get();
        }
      }
      setup.run();
      setup.check(expected.of(call), -1);
    }
  }

  private static Tensor wrap(MemorySegment segment, Operand as) {
    return Tensor.wrap(segment, as.shape(), as.type(), as.layout());
  }

  private static void readOnly(Setup setup, int k, long bytes) throws IOException {
    Operand of = setup.call.operands().get(k);
    ByteBuffer buffer = ByteBuffer.allocateDirect(Math.toIntExact(bytes) + 64);
    for (int i = 0; i < buffer.capacity(); i++) {
      buffer.put(i, (byte) 0x3f);
    }
    refused(
        of.name() + " a read-only buffer",
        OperandException.class,
        () -> setup.runWith(k, wrap(MemorySegment.ofBuffer(buffer.asReadOnlyBuffer()), of)));
    for (int i = 0; i < buffer.capacity(); i++) {
      if (buffer.get(i) != 0x3f) {
        throw new AssertionError(of.name() + ": read-only memory was written");
      }
    }
    Path file = Files.createTempFile("jtrelu", ".bytes");
    try (FileChannel channel = FileChannel.open(Files.write(file, new byte[(int) bytes]));
        Arena arena = Arena.ofShared()) {
      MemorySegment mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, bytes, arena);
      refused(
          of.name() + " a read-only file",
          OperandException.class,
          () -> setup.runWith(k, wrap(mapped, of)));
    } finally {
      Files.delete(file);
    }
  }

  /** Recorded work whose parts are closed: the close is refused, or the replay. */
  private void addRecordings(List<Call> calls) {
    for (Call call : calls) {
      if (List.of("copy", "forward 3x3", "rectify", "sum strided").contains(call.name())) {
        for (int k = 0; k < call.operands().size() + 3; k++) {
          int target = k;
          String what =
              k < call.operands().size()
                  ? call.operands().get(k).name()
                  : List.of("operation", "weights", "stream").get(k - call.operands().size());
          add(
              "recording, " + what + " closed: " + call.name(),
              (b, random) -> recording(b, call, target));
        }
      }
    }
    add("recording, host source closed", this::recordedUpload);
    add("recording, backend closed", this::recordingAfterBackend);
    add("recording closed meanwhile", this::recordingClosedMeanwhile);
  }

  private void recording(Backend backend, Call call, int target) throws Exception {
    try (Setup setup = new Setup(backend, call);
        var other = backend.newStream()) {
      Recording recording =
          backend.record(
              setup.stream, () -> setup.prepared.runner().run(setup.stream, setup.tensors));
      try (recording) {
        int operands = setup.tensors.length;
        AutoCloseable thing =
            target < operands
                ? setup.tensors[target]
                : Arrays.<AutoCloseable>asList(
                        setup.prepared.operation(), setup.prepared.packed(), setup.stream)
                    .get(target - operands);
        boolean isStream = target == operands + 2;
        boolean closed = thing != null && closes(thing);
        if (closed) {
          refused("replay", IllegalStateException.class, () -> recording.replay(setup.stream));
        } else {
          recording.replay(isStream ? other : setup.stream);
          other.synchronize();
          setup.stream.synchronize();
          setup.check(expected.of(call), -1);
        }
      }
      recording.close();
      refused("replay", IllegalStateException.class, () -> recording.replay(other));
    }
  }

  private void recordedUpload(Backend backend, SplittableRandom random) throws Exception {
    Shape shape = Shape.of(1 << 16);
    try (var stream = backend.newStream();
        Tensor device = backend.allocate(shape, F32, Layout.ROW_MAJOR)) {
      Tensor source = Tensor.allocate(shape, F32, Layout.ROW_MAJOR);
      try (Recording recording =
          backend.record(stream, () -> backend.copy(stream, source, device))) {
        if (closes(source)) {
          refused("replay", IllegalStateException.class, () -> recording.replay(stream));
        } else {
          recording.replay(stream);
          stream.synchronize();
        }
      }
      source.close();
    }
  }

  private void recordingAfterBackend(Backend backend, SplittableRandom random) throws Exception {
    Tensor device = backend.allocate(Shape.of(100), F32, Layout.ROW_MAJOR);
    var stream = backend.newStream();
    Recording recording = backend.record(stream, () -> backend.fill(stream, device, 1));
    backend.close();
    refused("replay", IllegalStateException.class, () -> recording.replay(stream));
    recording.close();
    recording.close();
    device.close();
  }

  private void recordingClosedMeanwhile(Backend backend, SplittableRandom random) throws Exception {
    for (int round = 0; round < 10; round++) {
      try (Tensor device = backend.allocate(Shape.of(1000), F32, Layout.ROW_MAJOR);
          var stream = backend.newStream()) {
        Recording recording = backend.record(stream, () -> backend.fill(stream, device, 1));
        Worker worker =
            new Worker(
                () -> {
                  recording.replay(stream);
                  stream.synchronize();
                });
        worker.awaitRun(random);
        closeWhenFree("recording", recording);
        worker.requireRefused("recording");
      }
    }
  }

  /** Memory that a backend allocates on the host. */
  private void addHostMemory() {
    add(
        "host memory read after close",
        (backend, random) -> {
          Tensor tensor = backend.allocateOnHost(Shape.of(1 << 16), F32, Layout.ROW_MAJOR);
          MemorySegment segment = tensor.segment();
          tensor.close();
          refused("segment", IllegalStateException.class, () -> segment.get(JAVA_BYTE, 5));
          refused("segment", IllegalStateException.class, () -> segment.fill((byte) 1));
          refused("tensor", IllegalStateException.class, tensor::toFloatArray);
        });
    add(
        "host memory read after the backend's close",
        (backend, random) -> {
          Tensor tensor = backend.allocateOnHost(Shape.of(1 << 16), F32, Layout.ROW_MAJOR);
          MemorySegment segment = tensor.segment();
          backend.close();
          try {
            segment.fill((byte) 1);
            tensor.toFloatArray();
          } catch (IllegalStateException documented) {
            refused("address", IllegalStateException.class, tensor::address);
          }
          tensor.close();
        });
    add(
        "host memory closed while it is read",
        (backend, random) -> {
          for (int round = 0; round < 20; round++) {
            Tensor tensor = backend.allocateOnHost(Shape.of(1 << 16), F32, Layout.ROW_MAJOR);
            Worker worker = new Worker(tensor::toFloatArray);
            worker.awaitRun(random);
            closeWhenFree("tensor", tensor);
            worker.requireRefused("tensor");
          }
        });
    add(
        "wrapped memory freed, in a copy",
        (backend, random) -> {
          Shape shape = Shape.of(1 << 16);
          Tensor freed;
          try (Arena arena = Arena.ofShared()) {
            freed = Tensor.wrap(arena.allocate(4 << 16, 64), shape, F32, Layout.ROW_MAJOR);
          }
          try (var stream = backend.newStream();
              Tensor device = backend.allocate(shape, F32, Layout.ROW_MAJOR)) {
            refused("src", IllegalStateException.class, () -> backend.copy(stream, freed, device));
            refused("dst", IllegalStateException.class, () -> backend.copy(stream, device, freed));
          }
        });
    add(
        "read-only file, in a copy",
        (backend, random) -> {
          Path file = Files.createTempFile("jtrelu", ".bytes");
          Shape shape = Shape.of(1 << 14);
          Files.write(file, new byte[4 << 14]);
          try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ);
              Arena arena = Arena.ofShared();
              var stream = backend.newStream();
              Tensor device = backend.allocate(shape, F32, Layout.ROW_MAJOR)) {
            MemorySegment mapped =
                channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
            Tensor tensor = Tensor.wrap(mapped, shape, F32, Layout.ROW_MAJOR);
            backend.copy(stream, tensor, device);
            refused("dst", OperandException.class, () -> backend.copy(stream, device, tensor));
            stream.synchronize();
          } finally {
            Files.delete(file);
          }
        });
  }

  /** Functions of the caller's that are evaluated within an operation close what it uses. */
  private void addCallbacks() {
    addCallback("operand", (setup, backend) -> setup.tensors[1].close());
    addCallback("stream", (setup, backend) -> setup.stream.close());
    addCallback("operation", (setup, backend) -> setup.prepared.operation().close());
    addCallback("backend", (setup, backend) -> backend.close());
    addCallback("use of the stream", (setup, backend) -> setup.run());
  }

  private interface Hostility {
    void run(Setup setup, Backend backend) throws Exception;
  }

  private void addCallback(String what, Hostility hostility) {
    add(
        "in a callback: " + what,
        (backend, random) -> {
          AtomicReference<Action> action = new AtomicReference<>();
          AtomicInteger refusals = new AtomicInteger();
          ActivationFunction function =
              ActivationFunction.of(
                  "hostile",
                  x -> {
                    Action now = x > 90 ? action.getAndSet(null) : null;
                    if (now != null) {
                      try {
                        now.run();
                      } catch (IllegalStateException documented) {
                        refusals.incrementAndGet();
                      } catch (Exception other) {
                        throw new AssertionError(other);
                      }
                    }
                    return 2 * x;
                  },
                  x -> 2,
                  x -> 0);
          float[] values = new float[5000];
          Arrays.fill(values, 100);
          Shape shape = Shape.of(values.length);
          Layout flat = Layout.ROW_MAJOR;
          Operand src = new Operand("src", shape, F32, flat, HostileCalls.Access.READ, values);
          Operand dst = new Operand("dst", shape, F32, flat, HostileCalls.Access.WRITE, values);
          Call call =
              new Call(
                  "hostile pointwise",
                  List.of(src, dst),
                  true,
                  b -> {
                    Pointwise op =
                        b.pointwise(5000, F32, TransformedActivation.unchanged(function));
                    return new Prepared(op, null, (s, t) -> op.forward(s, t[0], t[1]));
                  });
          try (Setup setup = new Setup(backend, call)) {
            action.set(() -> hostility.run(setup, backend));
            setup.run();
            if (action.get() != null || refusals.get() != 1) {
              throw new AssertionError(what + " within the operation was not refused");
            }
            float[] right = new float[values.length];
            Arrays.fill(right, 200);
            setup.check(new float[][] {values, right}, -1);
          } catch (UnsupportedException noFunctionsOfUsers) {
            if (host) {
              throw noFunctionsOfUsers;
            }
          }
        });
  }

  /** A network function and what it computes on, in host memory. */
  private static final class FunctionSetup implements AutoCloseable {
    final Network network =
        Networks.plain(
                "hostile", new Layer.Extent(8, 8, 3), 10, List.of(new Networks.Stage(2, 16, 1)), 0)
            .with(TransformedActivation.rectifier(0.5, 1.2));
    final Parameters parameters;
    final NetworkFunction function;
    final Tensor input;
    final Tensor output;

    FunctionSetup(Backend backend) {
      parameters = Parameters.allocate(network, backend);
      new Initializer(3, false).fill(backend, parameters);
      function =
          new NetworkFunction(
              network, backend, new NetworkFunction.Options(16, 4, F32, false, false, 1));
      function.load(parameters);
      input = Tensor.allocate(Shape.of(16, 8, 8, 3), F32, Layout.NHWC);
      for (int i = 0; i < input.shape().elements(); i++) {
        input.put(i, (i % 17 - 8) / 8f);
      }
      output = Tensor.allocate(Shape.of(16, 1, 1, 10), F32, Layout.NHWC);
    }

    void run() {
      function.forward(input, List.of(output), 0);
    }

    @Override
    public void close() {
      function.close();
      parameters.close();
      input.close();
      output.close();
    }
  }

  private void addFunctions() {
    addFunctionRace("function", setup -> setup.function);
    addFunctionRace("parameters", setup -> setup.parameters);
    addFunctionRace("input", setup -> setup.input);
    addFunctionRace("output", setup -> setup.output);
    add(
        "network function, backend closed meanwhile",
        (backend, random) -> {
          FunctionSetup setup = new FunctionSetup(backend);
          Worker worker = new Worker(setup::run);
          worker.awaitRun(random);
          closeWhenFree("backend", backend);
          worker.requireRefused("backend");
          closes(setup);
          closes(setup);
        });
    add(
        "network function, two threads",
        (backend, random) -> {
          try (FunctionSetup setup = new FunctionSetup(backend)) {
            setup.run();
            float[] right = setup.output.toFloatArray();
            AtomicInteger done = new AtomicInteger();
            Consumer<Tensor> run =
                output -> {
                  try {
                    setup.function.forward(setup.input, List.of(output), 0);
                    done.incrementAndGet();
                  } catch (IllegalStateException otherThread) {
                    Thread.onSpinWait();
                  }
                };
            try (Tensor second = Tensor.allocate(setup.output.shape(), F32, Layout.NHWC)) {
              Worker one = new Worker(() -> run.accept(setup.output));
              Worker two = new Worker(() -> run.accept(second));
              long end = System.nanoTime() + DEADLINE_NANOS;
              while (done.get() < (host ? 300 : 6) && System.nanoTime() < end) {
                LockSupport.parkNanos(100_000);
              }
              one.stop();
              two.stop();
              if (one.end.get() != null || two.end.get() != null) {
                throw new AssertionError("" + one.end.get(), two.end.get());
              }
              setup.function.forward(setup.input, List.of(second), 0);
              if (!Arrays.equals(right, setup.output.toFloatArray())
                  || !Arrays.equals(right, second.toFloatArray())) {
                throw new AssertionError("wrong outputs");
              }
            }
          }
        });
    add(
        "network function, closed or unsuitable operands",
        (backend, random) -> {
          try (FunctionSetup setup = new FunctionSetup(backend);
              Arena arena = Arena.ofShared()) {
            long bytes = setup.output.bytes();
            Shape shape = setup.output.shape();
            MemorySegment readOnly = arena.allocate(bytes, 64).asReadOnly();
            refused(
                "read-only output",
                OperandException.class,
                () ->
                    setup.function.forward(
                        setup.input, List.of(Tensor.wrap(readOnly, shape, F32, Layout.NHWC)), 0));
            Tensor freed;
            try (Arena own = Arena.ofShared()) {
              freed =
                  Tensor.wrap(
                      own.allocate(setup.input.bytes(), 64), setup.input.shape(), F32, Layout.NHWC);
            }
            refused(
                "freed input",
                IllegalStateException.class,
                () -> setup.function.forward(freed, List.of(setup.output), 0));
            try (Arena own = Arena.ofConfined()) {
              Tensor confined =
                  Tensor.wrap(
                      own.allocate(setup.input.bytes(), 64), setup.input.shape(), F32, Layout.NHWC);
              refused(
                  "confined input",
                  WrongThreadException.class,
                  () -> setup.function.forward(confined, List.of(setup.output), 0));
            }
            setup.run();
            setup.function.close();
            setup.function.close();
            refused("closed function", IllegalStateException.class, setup::run);
            refused(
                "closed function",
                IllegalStateException.class,
                () -> setup.function.load(setup.parameters));
          }
        });
  }

  private interface Target {
    AutoCloseable of(FunctionSetup setup);
  }

  private void addFunctionRace(String what, Target target) {
    add(
        "network function, " + what + " closed meanwhile",
        (backend, random) -> {
          for (int round = 0; round < rounds; round++) {
            try (FunctionSetup setup = new FunctionSetup(backend)) {
              Worker worker = new Worker(setup::run);
              worker.awaitRun(random);
              closeWhenFree(what, target.of(setup));
              worker.requireRefused(what);
            }
          }
        });
  }

  private void addLifecycles() {
    add(
        "events, closed and misplaced",
        (backend, random) -> {
          Event event = backend.newEvent();
          try (var stream = backend.newStream()) {
            event.record(stream);
            var closed = backend.newStream();
            closed.close();
            if (!host) {
              refused("record", IllegalStateException.class, () -> event.record(closed));
            }
          }
          event.close();
          event.close();
          refused("synchronize", IllegalStateException.class, event::synchronize);
          Event late = backend.newEvent();
          backend.close();
          closes(late);
          closes(late);
        });
    add(
        "impossible sizes",
        (backend, random) -> {
          for (long bad : new long[] {-1, Long.MIN_VALUE}) {
            for (Stream<Action> actions :
                List.of(
                    Stream.<Action>of(
                        () -> backend.rectify(bad, F32, Rectifier.IDENTITY).close(),
                        () -> backend.dropout(bad, F32, 0.5f).close(),
                        () -> backend.gradientNorm(bad).close(),
                        () -> backend.gradientSum(bad).close(),
                        () -> backend.sgd(bad, 0, false, 0).close(),
                        () -> backend.adam(bad, 0, 0, 0, 0).close(),
                        () -> Shape.of((int) bad, -3)))) {
              actions.forEach(a -> refused("" + bad, IllegalArgumentException.class, a));
            }
          }
          refused(
              "NaN",
              IllegalArgumentException.class,
              () -> backend.dropout(4, F32, Float.NaN).close());
          refused(
              "NaN",
              IllegalArgumentException.class,
              () -> backend.rectify(4, F32, new Rectifier(Float.NaN, 1)).close());
        });
    add(
        "weights that were never packed",
        (backend, random) -> {
          for (int stride = 1; stride <= 2; stride++) {
            Conv2dDescriptor d = Conv2dDescriptor.of(1, 8, 8, 16, 16, 3, stride, 1);
            try (Conv2d conv = backend.conv2d(d, F32, Rectifier.IDENTITY, Rectifier.IDENTITY);
                PackedWeights never = conv.newPackedWeights();
                var stream = backend.newStream();
                Tensor src = backend.allocate(d.src(), F32, Layout.NHWC);
                Tensor bias = backend.allocate(d.bias(), F32, Layout.ROW_MAJOR);
                Tensor dst = backend.allocate(d.dst(), F32, Layout.NHWC)) {
              refused(
                  "forward",
                  IllegalStateException.class,
                  () -> conv.forward(stream, src, never, bias, dst));
              refused(
                  "backwardData",
                  IllegalStateException.class,
                  () -> conv.backwardData(stream, dst, never, src, src, Write.OVERWRITE));
            }
          }
        });
    add(
        "many threads open and close",
        (backend, random) -> {
          List<Worker> workers = new ArrayList<>();
          for (int i = 0; i < 3; i++) {
            workers.add(
                new Worker(
                    () -> {
                      try (var stream = backend.newStream();
                          Tensor tensor = backend.allocate(Shape.of(4000), F32, Layout.ROW_MAJOR)) {
                        backend.fill(stream, tensor, 1);
                        stream.synchronize();
                      }
                    }));
          }
          for (Worker worker : workers) {
            worker.awaitRun(random);
          }
          closeWhenFree("backend", backend);
          for (Worker worker : workers) {
            worker.requireRefused("backend");
          }
        });
  }
}
