package io.jtrelu.benchmarks;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.report.Axis;
import io.jtrelu.report.LineChart;
import io.jtrelu.report.Series;
import io.jtrelu.report.Series.Point;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;

/**
 * The roofline of one core (S. Williams, A. Waterman, D. Patterson, <i>Roofline</i>, Communications
 * of the ACM 52, 2009): for each operation of this library on the layers of a network, the rate
 * against the flops per byte, below the rate of sgemm and the bandwidth of triads in the second
 * cache and in memory, all measured in turn in this process by the thread's CPU time.
 *
 * <p>Flops are two per multiply-add of the direct method (Winograd can pass sgemm); bytes are those
 * of every operand once. Data are warm where they fit into a cache, as in a network whose
 * micro-batch does.
 */
public final class Roofline {
  private static final int ROUNDS = 7;
  private static final double NANOS = 2e7; // of one measurement, at least
  private static final int BATCH = 4; // a micro-batch
  private static final int ELEMENTS = 4 << 20;
  private static final Rectifier PHI = Rectifier.tailored(0.4259071946);
  private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

  /**
   * An operation's place.
   *
   * @param kind of operation: a colour of the picture
   * @param name layer
   * @param intensity flops per byte
   * @param rate over that of sgemm: median over the rounds
   */
  public record Place(String kind, String name, double intensity, double rate) {}

  private final Backend backend = Backends.open("cpu");
  private final Stream stream = backend.newStream();
  private final SgemmPeak sgemm = new SgemmPeak();
  private final Bandwidth memory = new Bandwidth(384L << 20);
  private final Bandwidth cache = new Bandwidth(384L << 10);
  private final List<Place> places = new ArrayList<>();
  private final List<double[]> ceilings = new ArrayList<>();

  private Roofline() {
    sgemm.contender = "sgemm-1";
    sgemm.open();
  }

  /**
   * Runs.
   *
   * @param args ignored, names of shape files with commas between, folder of the results
   */
  public static void main(String[] args) throws IOException {
    Roofline roofline = new Roofline();
    for (String file : args[1].split(",")) {
      for (String shape : Shapes.names(file)) {
        roofline.convolution(shape);
      }
    }
    roofline.elementwise();
    roofline.write(Path.of(args[2]));
    System.exit(0);
  }

  private interface Scope extends AutoCloseable {
    @Override
    void close();
  }

  private Tensor tensor(Deque<Tensor> owned, Shape shape, Layout layout, double deviation) {
    Random random = new Random(owned.size());
    float[] values = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (deviation * random.nextGaussian());
    }
    Tensor tensor = Tensor.allocate(shape, DataType.F32, layout).set(values);
    owned.push(tensor);
    return tensor;
  }

  private void convolution(String name) {
    Conv2dDescriptor d = Shapes.read(name).withBatch(BATCH);
    Deque<Tensor> owned = new ArrayDeque<>();
    try (var op = backend.conv2d(d, DataType.F32, PHI, PHI);
        var packed = op.newPackedWeights();
        Scope scope = () -> owned.forEach(Tensor::close)) {
      double deviation = Math.sqrt(1.0 / (d.ic() * d.kh() * d.kw()));
      Tensor src = tensor(owned, d.src(), Layout.NHWC, 1);
      Tensor dst = tensor(owned, d.dst(), Layout.NHWC, 1);
      Tensor diffSrc = tensor(owned, d.src(), Layout.NHWC, 1);
      Tensor diffDst = tensor(owned, d.dst(), Layout.NHWC, 1);
      Tensor weights = tensor(owned, d.weights(), Layout.KRSC, deviation);
      Tensor diffWeights = tensor(owned, d.weights(), Layout.KRSC, deviation);
      Tensor bias = tensor(owned, d.bias(), Layout.ROW_MAJOR, 0.1);
      Tensor diffBias = tensor(owned, d.bias(), Layout.ROW_MAJOR, 0.1);
      op.pack(stream, weights, packed);
      double flops = 2.0 * d.multiplyAdds();
      measure(
          "forward",
          name,
          flops,
          src.bytes() + weights.bytes() + bias.bytes() + dst.bytes(),
          () -> op.forward(stream, src, packed, bias, dst));
      if (!name.endsWith("stem")) { // nobody needs the gradient of the images
        measure(
            "backward data",
            name,
            flops,
            diffDst.bytes() + weights.bytes() + src.bytes() + diffSrc.bytes(),
            () -> op.backwardData(stream, diffDst, packed, src, diffSrc, Write.OVERWRITE));
      }
      measure(
          "backward weights",
          name,
          flops,
          src.bytes() + diffDst.bytes() + diffWeights.bytes() + diffBias.bytes(),
          () -> op.backwardWeights(stream, src, diffDst, diffWeights, diffBias, Write.OVERWRITE));
    }
  }

  /** What a step does besides convolutions, on 16 MiB. */
  private void elementwise() {
    Deque<Tensor> owned = new ArrayDeque<>();
    Shape shape = Shape.of(ELEMENTS);
    Shape one = Shape.of(1);
    try (var rectify = backend.rectify(ELEMENTS, DataType.F32, PHI);
        var sum = backend.gradientSum(ELEMENTS);
        var sgd = backend.sgd(ELEMENTS, 0.9f, true, 0);
        var norm = backend.gradientNorm(ELEMENTS);
        Scope scope = () -> owned.forEach(Tensor::close)) {
      Tensor x = tensor(owned, shape, Layout.ROW_MAJOR, 1);
      Tensor y = tensor(owned, shape, Layout.ROW_MAJOR, 1);
      Tensor z = tensor(owned, shape, Layout.ROW_MAJOR, 1);
      Tensor rate = tensor(owned, one, Layout.ROW_MAJOR, 1e-9);
      Tensor clip = tensor(owned, one, Layout.ROW_MAJOR, 1);
      Tensor result = tensor(owned, Shape.of(2), Layout.ROW_MAJOR, 1);
      double n = ELEMENTS;
      String kind = "elementwise and reductions";
      measure(kind, "rectifier forward", 2 * n, 8 * n, () -> rectify.forward(stream, x, y));
      measure(
          kind,
          "rectifier backward",
          2 * n,
          12 * n,
          () -> rectify.backward(stream, x, y, z, Write.OVERWRITE));
      measure(
          kind, "sum of three gradients", 2 * n, 16 * n, () -> sum.run(stream, z, List.of(x, y)));
      measure(kind, "gradient norm", 2 * n, 4 * n, () -> norm.run(stream, x, 1, result));
      measure(kind, "SGD update", 6 * n, 20 * n, () -> sgd.step(stream, x, y, z, rate, clip));
    }
  }

  private void measure(String kind, String name, double flops, double bytes, Runnable work) {
    Runnable complete =
        () -> {
          work.run();
          stream.synchronize();
        };
    double product = 2 * Math.pow(SgemmPeak.SIZE, 3);
    int calls = calls(complete);
    double[] rates = new double[ROUNDS];
    for (int round = -1; round < ROUNDS; round++) {
      double peak = product / nanos(1, sgemm::multiply);
      double rate = flops / nanos(calls, complete);
      if (round >= 0) {
        rates[round] = rate / peak;
      }
      if (round == 0) {
        int small = 200;
        ceilings.add(
            new double[] {
              memory.bytes() / nanos(1, memory::triad) / peak,
              cache.bytes() / nanos(small, cache::triad) / peak
            });
      }
    }
    places.add(new Place(kind, name, flops / bytes, Campaign.median(rates)));
  }

  private static int calls(Runnable work) {
    int calls = 1;
    while (nanos(calls, work) * calls < NANOS / 2) {
      calls *= 2;
    }
    return calls;
  }

  /** CPU time of a call. */
  private static double nanos(int calls, Runnable work) {
    long begin = THREADS.getCurrentThreadCpuTime();
    for (int i = 0; i < calls; i++) {
      work.run();
    }
    return (double) Math.max(1, THREADS.getCurrentThreadCpuTime() - begin) / calls;
  }

  private void write(Path directory) throws IOException {
    double fromMemory = Campaign.median(ceilings.stream().mapToDouble(c -> c[0]).toArray());
    double fromCache = Campaign.median(ceilings.stream().mapToDouble(c -> c[1]).toArray());
    Map<String, Object> content = new LinkedHashMap<>();
    content.put("memoryBytesPerSgemmFlop", fromMemory);
    content.put("cacheBytesPerSgemmFlop", fromCache);
    content.put("places", places);
    new ObjectMapper()
        .enable(SerializationFeature.INDENT_OUTPUT)
        .writeValue(directory.resolve("roofline.json").toFile(), content);
    Files.writeString(directory.resolve("roofline.svg"), chart(fromMemory, fromCache).svg());
    Files.writeString(directory.resolve("roofline.md"), table(fromMemory));
  }

  private String table(double fromMemory) {
    StringBuilder out =
        new StringBuilder(
            "# Roofline of one core\n\n![roofline](roofline.svg)\n\n\"Of sgemm\" is the rate over"
                + " that of sgemm on one core; \"of the roof\" is over what the bandwidth of memory"
                + " and sgemm allow at this intensity. Above 100 %: data in a cache, or Winograd's"
                + " fewer multiplications.\n\n"
                + "| operation | layer | flops per byte | of sgemm | of the roof |\n"
                + "|---|---|---|---|---|\n");
    for (Place place : places) {
      out.append(
          String.format(
              Locale.ROOT,
              "| %s | %s | %.3g | %.0f %% | %.0f %% |%n",
              place.kind(),
              place.name(),
              place.intensity(),
              100 * place.rate(),
              100 * place.rate() / Math.min(1, fromMemory * place.intensity())));
    }
    return out.toString();
  }

  private LineChart chart(double fromMemory, double fromCache) {
    double left = 0.05;
    double right = 1000;
    List<Series> series = new ArrayList<>();
    Map<String, List<Point>> kinds = new LinkedHashMap<>();
    double least = 1;
    for (Place place : places) {
      kinds
          .computeIfAbsent(place.kind(), k -> new ArrayList<>())
          .add(new Point(place.intensity(), place.rate()));
      least = Math.min(least, place.rate());
    }
    series.add(roof("memory, then sgemm", fromMemory, left, right, Series.Style.LINE));
    series.add(roof("second cache", fromCache, left, right, Series.Style.DASHED));
    int colour = 2;
    for (Map.Entry<String, List<Point>> kind : kinds.entrySet()) {
      String name = kind.getKey();
      for (Point point : kind.getValue()) { // a line of one point is a dot
        series.add(Series.of(name, List.of(point)).with(Series.Style.DOTS).coloured(colour));
        name = ""; // once in the legend
      }
      colour++;
    }
    return new LineChart(
        "Roofline of one core, F32, " + BATCH + " images",
        Axis.log("flops per byte, every operand counted once").range(left, right),
        Axis.log("rate over that of sgemm").range(Math.min(0.01, least), 3),
        series,
        false,
        900,
        560);
  }

  private static Series roof(
      String name, double bandwidth, double left, double right, Series.Style style) {
    return Series.of(
            name,
            List.of(
                new Point(left, left * bandwidth),
                new Point(1 / bandwidth, 1),
                new Point(right, 1)))
        .with(style);
  }
}
