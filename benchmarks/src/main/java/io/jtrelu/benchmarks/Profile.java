package io.jtrelu.benchmarks;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.GlobalMeanPool;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.SoftmaxCrossEntropy;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.BufferedReader;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import org.bytedeco.dnnl.global.dnnl;

/**
 * Where the time of a training step goes on one lane: this library's operations by kind and sizes,
 * and within them oneDNN's primitives as its own log counts them. What an operation takes beyond
 * its primitives is this library's elementwise work and overhead. Operations are timed by CPU time.
 *
 * <p>Arguments: network (plain50), batch (64), micro-batch (as the library chooses), f32 or bf16.
 */
public final class Profile {
  private static final int STEPS = 5;
  private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

  private final Map<String, Entry> entries = new TreeMap<>();

  /** Of this thread: waiting for a shared core does not count. */
  private static long cpuTime() {
    return THREADS.getCurrentThreadCpuTime();
  }

  private static final class Entry {
    long calls;
    long nanos;
    double multiplyAdds;
  }

  private Profile() {}

  /** Runs in a child process whose oneDNN logs, and prints both tables. */
  public static void main(String[] args) throws IOException, InterruptedException {
    if (args.length > 0 && args[0].equals("--child")) {
      child(args);
      return;
    }
    String network = args.length > 0 ? args[0] : "plain50";
    int batch = args.length > 1 ? Integer.parseInt(args[1]) : 64;
    String type = args.length > 3 ? args[3] : "f32";
    int micro;
    try (Backend backend = Backends.open("cpu")) {
      micro =
          args.length > 2
              ? Integer.parseInt(args[2])
              : BatchExecutor.microBatch(
                  Workload.of(network, 1).network(),
                  backend,
                  DataType.valueOf(type.toUpperCase(Locale.ROOT)),
                  batch);
    }
    for (boolean primitives : new boolean[] {false, true}) {
      List<String> command = new ArrayList<>();
      command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
      command.add("--enable-native-access=ALL-UNNAMED");
      command.add("-cp");
      command.add(System.getProperty("java.class.path"));
      command.add(Profile.class.getName());
      command.addAll(
          List.of("--child", network, Integer.toString(batch), Integer.toString(micro), type));
      ProcessBuilder builder = new ProcessBuilder(command);
      builder.redirectError(ProcessBuilder.Redirect.INHERIT);
      builder.environment().put("OMP_NUM_THREADS", "1");
      if (primitives) {
        builder.environment().put("ONEDNN_VERBOSE", "profile_exec");
      }
      Process process = builder.start();
      try (BufferedReader lines = process.inputReader()) {
        if (primitives) {
          primitives(lines);
        } else {
          lines.lines().forEach(System.out::println);
        }
      }
      if (process.waitFor() != 0) {
        System.exit(1);
      }
    }
  }

  /** Sums oneDNN's log between the marks. */
  private static void primitives(BufferedReader lines) throws IOException {
    Map<String, double[]> sums = new TreeMap<>();
    boolean measured = false;
    double total = 0;
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      if (line.startsWith("profile ")) {
        measured = line.endsWith("begin");
      } else if (measured && line.startsWith("onednn_verbose") && line.contains(",exec,")) {
        String[] fields = line.substring(line.indexOf(",exec,") + 6).split(",");
        // engine, primitive, implementation, propagation, formats, attributes, auxiliary, sizes, ms
        double ms = Double.parseDouble(fields[fields.length - 1]);
        String key =
            String.format(
                Locale.ROOT,
                "%-14s %-22s %-16s %s",
                fields[1],
                fields[2],
                fields[3].replace("undef", ""),
                fields[fields.length - 2]);
        double[] sum = sums.computeIfAbsent(key, k -> new double[2]);
        sum[0] += ms;
        sum[1]++;
        total += ms;
      }
    }
    System.out.printf(
        "%noneDNN's primitives (its own log; logging makes small ones look slower)%n%7s %6s  %s%n",
        "share", "calls", "primitive");
    double all = total;
    sums.entrySet().stream()
        .sorted((a, b) -> Double.compare(b.getValue()[0], a.getValue()[0]))
        .forEach(
            entry ->
                System.out.printf(
                    Locale.ROOT,
                    "%6.1f%% %6.0f  %s%n",
                    100 * entry.getValue()[0] / all,
                    entry.getValue()[1] / STEPS,
                    entry.getKey()));
  }

  private static void child(String[] args) {
    new Profile()
        .run(
            args[1],
            Integer.parseInt(args[2]),
            Integer.parseInt(args[3]),
            DataType.valueOf(args[4].toUpperCase(Locale.ROOT)));
  }

  private void run(String name, int batch, int micro, DataType type) {
    Workload workload = Workload.of(name, batch);
    try (Backend real = Backends.open("cpu");
        Parameters parameters = Parameters.allocate(workload.network(), real);
        Parameters gradients = Parameters.allocate(workload.network(), real)) {
      Backend timed = timed(real);
      parameters.arena().set(workload.parameters());
      Program.Options options = new Program.Options(type, Workload.LABEL_SMOOTHING, true, 1);
      var in = workload.network().input();
      Shape one = Shape.of(micro, in.height(), in.width(), in.channels());
      float[] images = new float[Math.toIntExact(one.elements())];
      System.arraycopy(workload.images(), 0, images, 0, images.length);
      try (Program program = new Program(workload.network(), timed, micro, options);
          Stream stream = timed.newStream();
          Program.Workspace workspace = program.newWorkspace(stream);
          Tensor src = Tensor.allocate(one, type, Layout.NHWC).set(images);
          Tensor labels = Tensor.allocate(Shape.of(micro), DataType.I32, Layout.ROW_MAJOR)) {
        long wall = 0;
        for (int step = -3; step < STEPS; step++) {
          if (step == 0) {
            entries.clear();
            System.out.println("profile begin");
          }
          long begin = cpuTime();
          program.load(stream, parameters);
          for (int m = 0; m < batch / micro; m++) {
            workspace.forward(src, m);
            workspace.loss(labels, 1f / batch);
            workspace.backward(gradients, m == 0 ? Write.OVERWRITE : Write.ACCUMULATE);
          }
          stream.synchronize();
          wall += step >= 0 ? cpuTime() - begin : 0;
        }
        System.out.println("profile end");
        double peak = peak();
        print(name, batch, micro, type, wall, peak);
      }
    }
  }

  /** Multiply-adds per nanosecond of sgemm on one thread, in this process. */
  private static double peak() {
    SgemmPeak sgemm = new SgemmPeak();
    sgemm.contender = "sgemm-1";
    sgemm.open();
    double best = Double.POSITIVE_INFINITY;
    for (int i = 0; i < 8; i++) {
      long begin = cpuTime();
      int status = sgemm.multiply();
      if (status != dnnl.dnnl_success) {
        throw new IllegalStateException("sgemm status " + status);
      }
      best = Math.min(best, cpuTime() - begin);
    }
    return Math.pow(SgemmPeak.SIZE, 3) / best;
  }

  private void print(String name, int batch, int micro, DataType type, long wall, double peak) {
    System.out.printf(
        Locale.ROOT,
        "%n%s, batch %d in micro-batches of %d, %s, one lane; \"of peak\" is of sgemm on one core%n"
            + "%7s %8s %6s  %s%n",
        name,
        batch,
        micro,
        type,
        "share",
        "of peak",
        "calls",
        "operation");
    long accounted = 0;
    double multiplyAdds = 0;
    List<Map.Entry<String, Entry>> sorted = new ArrayList<>(entries.entrySet());
    sorted.sort((a, b) -> Long.compare(b.getValue().nanos, a.getValue().nanos));
    for (Map.Entry<String, Entry> e : sorted) {
      Entry entry = e.getValue();
      accounted += entry.nanos;
      multiplyAdds += entry.multiplyAdds;
      System.out.printf(
          Locale.ROOT,
          "%6.1f%% %8s %6d  %s%n",
          100.0 * entry.nanos / wall,
          entry.multiplyAdds > 0
              ? String.format(Locale.ROOT, "%.0f%%", 100 * entry.multiplyAdds / entry.nanos / peak)
              : "",
          entry.calls / STEPS,
          e.getKey());
    }
    System.out.printf(
        Locale.ROOT,
        "%6.1f%% %8s %6s  between operations%n%6.1f%% %7.0f%% %6s  step%n",
        100.0 * (wall - accounted) / wall,
        "",
        "",
        100.0,
        100 * multiplyAdds / wall / peak,
        "");
  }

  private void time(String key, double multiplyAdds, Runnable work) {
    long begin = cpuTime();
    work.run();
    long nanos = cpuTime() - begin;
    Entry entry = entries.computeIfAbsent(key, k -> new Entry());
    entry.calls++;
    entry.nanos += nanos;
    entry.multiplyAdds += multiplyAdds;
  }

  /** The backend with its operations' times taken. */
  private Backend timed(Backend real) {
    return (Backend)
        Proxy.newProxyInstance(
            Profile.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, arguments) -> {
              try {
                Object result = method.invoke(real, arguments);
                return switch (result) {
                  case Conv2d op -> new TimedConv2d(real, op);
                  case GlobalMeanPool op -> new TimedPool(real, op, (Rectifier) arguments[2]);
                  case SoftmaxCrossEntropy op -> new TimedLoss(real, op);
                  case null -> null;
                  default -> result;
                };
              } catch (InvocationTargetException failure) {
                throw failure.getCause();
              }
            });
  }

  private final class TimedConv2d extends Conv2d {
    private final Conv2d op;
    private final String sizes;

    TimedConv2d(Backend backend, Conv2d op) {
      super(backend.device(), op.descriptor(), op.type(), op.activation(), op.srcActivation());
      this.op = op;
      Conv2dDescriptor d = op.descriptor();
      this.sizes =
          String.format(
              Locale.ROOT,
              "%dx%dx%d -> %dx%dx%d, kernel %d",
              d.h(),
              d.w(),
              d.ic(),
              d.oh(),
              d.ow(),
              d.oc(),
              d.kh());
    }

    @Override
    protected PackedWeights allocatePackedWeights() {
      return op.newPackedWeights();
    }

    @Override
    protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
      time("pack weights      " + sizes, 0, () -> op.pack(stream, weights, packed));
    }

    @Override
    protected void runForward(
        Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
      time(
          "forward           " + sizes,
          op.descriptor().multiplyAdds(),
          () -> op.forward(stream, src, weights, bias, dst));
    }

    @Override
    protected void runBackwardData(
        Stream stream,
        Tensor diffDst,
        PackedWeights weights,
        Tensor src,
        Tensor diffSrc,
        Write write) {
      time(
          "backward data     " + sizes,
          op.descriptor().multiplyAdds(),
          () -> op.backwardData(stream, diffDst, weights, src, diffSrc, write));
    }

    @Override
    protected void runBackwardWeights(
        Stream stream,
        Tensor src,
        Tensor diffDst,
        Tensor diffWeights,
        Tensor diffBias,
        Write write) {
      time(
          "backward weights  " + sizes,
          op.descriptor().multiplyAdds(),
          () -> op.backwardWeights(stream, src, diffDst, diffWeights, diffBias, write));
    }

    @Override
    protected void release() {
      op.close();
    }
  }

  private final class TimedPool extends GlobalMeanPool {
    private final GlobalMeanPool op;

    TimedPool(Backend backend, GlobalMeanPool op, Rectifier srcActivation) {
      super(backend.device(), op.src(), op.type(), srcActivation);
      this.op = op;
    }

    @Override
    protected void runForward(Stream stream, Tensor src, Tensor dst) {
      time("mean pool forward", 0, () -> op.forward(stream, src, dst));
    }

    @Override
    protected void runBackward(
        Stream stream, Tensor diffDst, Tensor src, Tensor diffSrc, Write write) {
      time("mean pool backward", 0, () -> op.backward(stream, diffDst, src, diffSrc, write));
    }

    @Override
    protected void release() {
      op.close();
    }
  }

  private final class TimedLoss extends SoftmaxCrossEntropy {
    private final SoftmaxCrossEntropy op;

    TimedLoss(Backend backend, SoftmaxCrossEntropy op) {
      super(backend.device(), op.n(), op.classes(), op.type(), op.smoothing());
      this.op = op;
    }

    @Override
    protected void compute(
        Stream stream,
        Tensor logits,
        Tensor labels,
        float gradientScale,
        Tensor diffLogits,
        Tensor losses,
        Tensor correct) {
      time(
          "softmax cross-entropy",
          0,
          () -> op.run(stream, logits, labels, gradientScale, diffLogits, losses, correct));
    }

    @Override
    protected void release() {
      op.close();
    }
  }
}
