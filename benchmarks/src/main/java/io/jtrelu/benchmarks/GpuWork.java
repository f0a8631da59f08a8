package io.jtrelu.benchmarks;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Optimizer;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * This library's side of a benchmark on a GPU; {@code peers/pytorch_gpu.py} is the other. Reads one
 * request as JSON and prints one answer:
 *
 * <pre>
 * {"work": "forward", "contender": "jtrelu-bf16", "shape": [n, h, w, ic, oc, ...], "warmup": 10, ...}
 * {"values": [milliseconds, ...], "checks": [[value, scale], ...]}
 * </pre>
 *
 * Both sides fill their tensors by the same formula ({@link #pattern}), so that the checks (a norm
 * and a projection of each result, or the loss) can be compared. A value is the wall time of a
 * sample of calls, from an idle device until it is idle again, over their number.
 *
 * <p>With 0 iterations only the checks are computed; that is all an emulated device is asked for.
 */
public final class GpuWork {
  /** Relative; of two sides that round to bf16, through a network for the loss. */
  private static final double AGREEMENT = 2e-2;

  private static final Rectifier PHI = Rectifier.tailored(0.4259071946);

  private final JsonNode request;
  private final DataType type;
  private final Backend backend;
  private final Stream stream;
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();
  private final ArrayNode checks;
  private final ObjectNode answer;

  private GpuWork(JsonNode request) {
    this.request = request;
    this.type = request.get("contender").asText().contains("bf16") ? DataType.BF16 : DataType.F32;
    String device = request.path("device").asText("cuda");
    if (!device.equals("cuda") && request.get("iterations").asInt() > 0) {
      throw new IllegalArgumentException("only a real GPU is timed, not " + device);
    }
    this.backend = own(Backends.open(device));
    this.stream = own(backend.newStream());
    this.answer = new ObjectMapper().createObjectNode();
    this.checks = answer.putArray("checks");
  }

  /** Why there is no GPU to measure; empty if there is one. */
  static String whyNot() {
    for (BackendProvider provider : Backends.providers()) {
      if (provider.name().equals("cuda")) {
        return provider.availability() instanceof Availability.Unavailable unavailable
            ? unavailable.reason().replaceFirst(" \\(.*\\)", "") // which file was tried
            : "";
      }
    }
    return "this build has no CUDA backend";
  }

  /** What both sides are asked. */
  static Map<String, Object> request(Group group, String contender) {
    Map<String, Object> request = new LinkedHashMap<>();
    request.put("work", group.target());
    request.put("contender", contender);
    group
        .parameters()
        .forEach(
            (name, value) ->
                request.put(name, value.matches("\\d+") ? Integer.valueOf(value) : value));
    if (group.parameters().containsKey("shape")) {
      int batch = Integer.parseInt(group.parameters().get("batch"));
      Conv2dDescriptor d = Shapes.read(group.parameters().get("shape")).withBatch(batch);
      request.put(
          "shape",
          List.of(
              d.n(),
              d.h(),
              d.w(),
              d.ic(),
              d.oc(),
              d.kh(),
              d.kw(),
              d.strideH(),
              d.strideW(),
              d.padTop(),
              d.padLeft(),
              d.padBottom(),
              d.padRight()));
    }
    request.put("slope", PHI.slope());
    request.put("warmup", group.warmup());
    request.put("iterations", group.iterations());
    request.put("seconds", group.seconds());
    return request;
  }

  /**
   * Holds a contender's checks against the first's.
   *
   * @throws IllegalStateException if they differ by more than rounding explains
   */
  static void requireAgreement(String contender, JsonNode first, JsonNode own) {
    if (first.size() != own.size()) {
      throw new IllegalStateException(contender + " answers with other checks");
    }
    for (int i = 0; i < own.size(); i++) {
      double distance =
          Math.abs(own.get(i).get(0).asDouble() - first.get(i).get(0).asDouble())
              / first.get(i).get(1).asDouble();
      if (!(distance <= AGREEMENT)) {
        throw new IllegalStateException(
            contender + " disagrees: check " + i + " differs by " + distance);
      }
    }
  }

  /** Reads a request from the standard input, prints the answer. */
  public static void main(String[] args) throws Exception {
    GpuWork work = new GpuWork(new ObjectMapper().readTree(System.in));
    work.run();
    System.out.println(work.answer);
    System.exit(0);
  }

  private void run() throws Exception {
    switch (request.get("work").asText()) {
      case "forward", "backward_data", "backward_weights" -> convolution();
      case "rectify_forward", "rectify_backward" -> rectify();
      case "orthogonal" -> orthogonal();
      case "step", "captured" -> pass();
      case "activation_bytes" -> activationBytes();
      default -> throw new IllegalArgumentException("unknown work " + request.get("work"));
    }
    while (!owned.isEmpty()) {
      owned.pop().close();
    }
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  /**
   * Uniform numbers of mean 0 by an integer hash of their index.
   *
   * @param seed sets tensors apart
   */
  static float[] pattern(long count, int seed, double deviation) {
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) ((hash(i, seed) / 4294967296.0 - 0.5) * Math.sqrt(12) * deviation);
    }
    return values;
  }

  private static long hash(int index, int seed) {
    int x = index + seed * 0x9E3779B9;
    x ^= x >>> 16;
    x *= 0x7FEB352D;
    x ^= x >>> 15;
    x *= 0x846CA68B;
    x ^= x >>> 16;
    return x & 0xFFFFFFFFL;
  }

  private Tensor filled(Shape shape, DataType storage, Layout layout, int seed, double deviation) {
    Tensor tensor = own(backend.allocate(shape, storage, layout));
    upload(pattern(shape.elements(), seed, deviation), tensor);
    return tensor;
  }

  private void upload(float[] values, Tensor tensor) {
    try (Tensor host = Tensor.allocate(tensor.shape(), DataType.F32, tensor.layout())) {
      backend.copy(stream, host.set(values), tensor);
      stream.synchronize();
    }
  }

  /** Norm, and projection on random signs. */
  private void check(Tensor result) {
    float[] values;
    try (Tensor host = Tensor.allocate(result.shape(), DataType.F32, result.layout())) {
      backend.copy(stream, result, host);
      stream.synchronize();
      values = host.toFloatArray();
    }
    double squares = 0;
    double projection = 0;
    for (int i = 0; i < values.length; i++) {
      squares += (double) values[i] * values[i];
      projection += hash(i, 99) < 1L << 31 ? values[i] : -values[i];
    }
    check(Math.sqrt(squares), Math.sqrt(squares));
    check(projection, Math.sqrt(squares));
  }

  private void check(double value, double scale) {
    checks.addArray().add(value).add(scale);
  }

  /** Times calls in samples that last the asked time. */
  private void time(Runnable call) {
    int iterations = request.get("iterations").asInt();
    for (int i = 0; iterations > 0 && i < request.get("warmup").asInt(); i++) {
      call.run();
    }
    stream.synchronize();
    ArrayNode values = answer.putArray("values");
    int calls = 1;
    for (int i = -3; iterations > 0 && i < iterations; i++) { // three set the number of calls
      long begin = System.nanoTime();
      for (int k = 0; k < calls; k++) {
        call.run();
      }
      stream.synchronize();
      double milliseconds = (System.nanoTime() - begin) * 1e-6;
      if (i >= 0) {
        values.add(milliseconds / calls);
      } else {
        calls =
            (int)
                Math.clamp(
                    calls * 1000 * request.get("seconds").asDouble() / milliseconds, 1, 10000);
      }
    }
  }

  private void convolution() {
    int[] v = new ObjectMapper().convertValue(request.get("shape"), int[].class);
    Conv2dDescriptor d =
        new Conv2dDescriptor(
            v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], 1, 1,
            1);
    var op = own(backend.conv2d(d, type, PHI, PHI));
    double deviation = Math.sqrt(1.0 / (d.ic() * d.kh() * d.kw()));
    Tensor src = filled(d.src(), type, Layout.NHWC, 1, 1);
    Tensor weights = filled(d.weights(), DataType.F32, Layout.KRSC, 2, deviation);
    Tensor bias = filled(d.bias(), DataType.F32, Layout.ROW_MAJOR, 3, 0.1);
    var packed = own(op.newPackedWeights());
    op.pack(stream, weights, packed);
    switch (request.get("work").asText()) {
      case "forward" -> {
        Tensor dst = own(backend.allocate(d.dst(), type, Layout.NHWC));
        op.forward(stream, src, packed, bias, dst);
        check(dst);
        time(() -> op.forward(stream, src, packed, bias, dst));
      }
      case "backward_data" -> {
        Tensor diffDst = filled(d.dst(), type, Layout.NHWC, 4, 1);
        Tensor diffSrc = own(backend.allocate(d.src(), type, Layout.NHWC));
        op.backwardData(stream, diffDst, packed, src, diffSrc, Write.OVERWRITE);
        check(diffSrc);
        time(() -> op.backwardData(stream, diffDst, packed, src, diffSrc, Write.OVERWRITE));
      }
      default -> {
        Tensor diffDst = filled(d.dst(), type, Layout.NHWC, 4, 1);
        Tensor diffWeights = own(backend.allocate(d.weights(), DataType.F32, Layout.KRSC));
        Tensor diffBias = own(backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR));
        op.backwardWeights(stream, src, diffDst, diffWeights, diffBias, Write.OVERWRITE);
        check(diffWeights);
        check(diffBias);
        time(
            () -> op.backwardWeights(stream, src, diffDst, diffWeights, diffBias, Write.OVERWRITE));
      }
    }
  }

  private void rectify() {
    int elements = request.get("elements").asInt();
    var op = own(backend.rectify(elements, type, PHI));
    Tensor src = filled(Shape.of(elements), type, Layout.ROW_MAJOR, 1, 1);
    Tensor dst = own(backend.allocate(Shape.of(elements), type, Layout.ROW_MAJOR));
    Runnable call;
    if (request.get("work").asText().equals("rectify_forward")) {
      call = () -> op.forward(stream, src, dst);
    } else {
      Tensor diffDst = filled(Shape.of(elements), type, Layout.ROW_MAJOR, 2, 1);
      call = () -> op.backward(stream, src, diffDst, dst, Write.OVERWRITE);
    }
    call.run();
    check(dst);
    time(call);
  }

  /** Checked by itself: the random numbers of both sides differ. */
  private void orthogonal() {
    int n = request.get("elements").asInt();
    var op = own(backend.orthogonal(n, n, 1));
    Tensor matrix = own(backend.allocate(Shape.of(n, n), DataType.F32, Layout.ROW_MAJOR));
    op.fill(stream, matrix, 1, 0);
    try (Tensor host = Tensor.allocate(matrix.shape(), DataType.F32, Layout.ROW_MAJOR)) {
      backend.copy(stream, matrix, host);
      stream.synchronize();
      OrthogonalMatrix.requireOrthogonal("jtrelu", n, host.toFloatArray());
    }
    time(() -> op.fill(stream, matrix, 1, 0));
  }

  /** The network that both sides build, its parameters and data by the pattern. */
  private Workload workload() {
    Workload usual = Workload.of(request.get("network").asText(), 1);
    Network network =
        usual.network().with(TransformedActivation.rectifier(PHI.slope(), PHI.scale()));
    int batch = request.get("batch").asInt();
    float[] parameters = new float[usual.parameters().length];
    for (ParameterSpec spec : network.parameters()) {
      if (spec.kind() == ParameterSpec.Kind.WEIGHTS) {
        long count = spec.shape().elements();
        float[] values =
            pattern(count, 10 + spec.layer(), Math.sqrt((double) spec.shape().dims()[0] / count));
        System.arraycopy(values, 0, parameters, Math.toIntExact(spec.offset()), values.length);
      }
    }
    int[] labels = new int[batch];
    for (int i = 0; i < batch; i++) {
      labels[i] = (int) (hash(i, 5) % network.classes());
    }
    float[] images = pattern(batch * network.input().elements(), 1, 1);
    return new Workload(network, batch, PHI, parameters, images, labels);
  }

  private Program program(Workload workload) {
    return own(
        new Program(
            workload.network(),
            backend,
            workload.batch(),
            new Program.Options(type, Workload.LABEL_SMOOTHING, true, 1)));
  }

  private void activationBytes() {
    answer.putArray("values").add(program(workload()).activationBytes());
  }

  /**
   * Forward pass, loss and backward pass as one recording: with the update that makes it a training
   * step, alone, or what its replay costs the host. Images lie on the device already.
   */
  private void pass() {
    Workload workload = workload();
    int batch = workload.batch();
    Parameters parameters = own(Parameters.allocate(workload.network(), backend));
    Parameters gradients = own(Parameters.allocate(workload.network(), backend));
    upload(workload.parameters(), parameters.arena());
    Program program = program(workload);
    program.load(stream, parameters);
    Program.Workspace workspace = own(program.newWorkspace(stream));
    var in = workload.network().input();
    Shape shape = Shape.of(batch, in.height(), in.width(), in.channels());
    Tensor images = own(backend.allocate(shape, type, Layout.NHWC));
    upload(workload.images(), images);
    Tensor labels = own(backend.allocate(Shape.of(batch), DataType.I32, Layout.ROW_MAJOR));
    try (Tensor host = Tensor.allocate(labels.shape(), DataType.I32, Layout.ROW_MAJOR)) {
      for (int i = 0; i < batch; i++) {
        host.put(i, workload.labels()[i]);
      }
      backend.copy(stream, host, labels);
      stream.synchronize();
    }
    Runnable work =
        () -> {
          workspace.forward(images, 0);
          workspace.loss(labels, 1f / batch);
          workspace.backward(gradients, Write.OVERWRITE);
        };
    work.run(); // everything is loaded before it is recorded
    checkLoss(workspace.losses());
    var recording = own(backend.record(stream, work));
    if (request.get("contender").asText().endsWith("-host")) {
      ArrayNode values = answer.putArray("values");
      for (int i = 0; i < request.get("iterations").asInt(); i++) {
        long begin = System.nanoTime();
        recording.replay(stream);
        values.add((System.nanoTime() - begin) * 1e-6);
        stream.synchronize();
      }
    } else if (request.get("work").asText().equals("captured")) {
      time(() -> recording.replay(stream));
    } else {
      var optimizer =
          own(new Optimizer(workload.network(), backend, JtreluContender.config(workload, type)));
      Shape two = Shape.of(2);
      Tensor rateAndNumber = own(backend.allocate(two, DataType.F32, Layout.ROW_MAJOR));
      Tensor norm = own(backend.allocate(two, DataType.F32, Layout.ROW_MAJOR));
      backend.fill(
          stream, rateAndNumber.slice(0, Shape.of(1), Layout.ROW_MAJOR), Workload.LEARNING_RATE);
      int[] number = new int[1];
      time(
          () -> {
            recording.replay(stream);
            backend.fill(
                stream, rateAndNumber.slice(1, Shape.of(1), Layout.ROW_MAJOR), ++number[0]);
            optimizer.update(stream, parameters, gradients, rateAndNumber, norm);
            program.load(stream, parameters);
          });
    }
  }

  private void checkLoss(Tensor losses) {
    double mean = 0;
    try (Tensor host = Tensor.allocate(losses.shape(), DataType.F32, Layout.ROW_MAJOR)) {
      backend.copy(stream, losses, host);
      stream.synchronize();
      for (float loss : host.toFloatArray()) {
        mean += loss / host.shape().elements();
      }
    }
    check(mean, Math.abs(mean));
  }
}
