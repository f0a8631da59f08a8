package io.jtrelu.benchmarks;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.benchmarks.Group.Curve;
import io.jtrelu.benchmarks.Group.Probe;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What is measured, most important first: a campaign that runs out of time ends early. */
final class Plan {
  private static final List<String> DJL =
      List.of(
          "djl-nchw-plain",
          "djl-nchw-in_place",
          "djl-nchw-folded",
          "djl-nhwc-in_place",
          "djl-nhwc-folded");
  private static final List<String> DJL_SHORT = List.of("djl-nchw-folded", "djl-nhwc-folded");
  private static final List<String> ND4J = List.of("nd4j-samediff", "nd4j-layers");
  private static final List<String> GPU_PEERS =
      List.of("jtrelu-bf16", "pytorch-eager-bf16", "pytorch-compiled-bf16");
  private static final int CORES = Runtime.getRuntime().availableProcessors();

  private static final List<String> SGEMM =
      CORES == 1 ? List.of("sgemm-1") : List.of("sgemm-1", "sgemm-" + CORES);

  /** Channels of a chain of 20 layers, and the batch. */
  private static final int[][] WIDTHS = {{16, 64}, {32, 64}, {64, 32}, {128, 16}, {256, 4}};

  private static final List<String> DJL_SUMS = List.of("djl-nchw-in_place", "djl-nhwc-in_place");

  private final List<Group> groups = new ArrayList<>();

  private Plan() {}

  /** Sets by name, each with what it is for. */
  static final Map<String, String> SETS =
      map(
          "smoke", "does everything run? the figures mean nothing",
          "quick", "the most important comparisons, under 10 minutes",
          "full", "all of the below and more, up to two hours",
          "scaling", "cost against batch, width, depth and threads",
          "calls", "what a call costs: wrapping, views, the smallest operation",
          "roofline", "each layer under this machine's ceilings",
          "gpu", "kernels, training step and host cost on a GPU");

  /** A set's groups, those that need a GPU last. */
  static List<Group> of(String name) {
    Plan plan = new Plan();
    switch (name) {
      case "smoke" -> plan.smoke();
      case "quick" -> plan.quick();
      case "full" -> plan.full();
      case "scaling" -> {
        plan.sgemm(3, 0.5);
        plan.scaling(DJL_SHORT);
      }
      case "calls" -> plan.calls(5, 0.3);
      case "roofline" -> plan.roofline("plain50", "resnet50");
      case "gpu" -> plan.gpu();
      default ->
          throw new IllegalArgumentException(
              "unknown set '" + name + "'; known are " + String.join(", ", SETS.keySet()));
    }
    int rounds = name.equals("smoke") ? 1 : Integer.MAX_VALUE;
    return plan.groups.stream().map(group -> group.withRounds(rounds)).toList();
  }

  private void smoke() {
    sgemm(1, 0.1);
    network("forward", "ForwardPass.forward", 1, "chain:13:16", 4, 1, 0.1, forward(DJL_SHORT));
    layer("resnet50/stage4-3x3", 1, "forwardBackward", 1, 0.1);
    orthogonal(64, 1, 0.1);
    shaping("tat:leaky_relu", "chain:49", 1, 0.1);
    loading("none", 1, 0.1);
    memory("chain:13:16", 4);
    firstStep("chain:13:16", 4, 1);
    threads("chain:13:16", 4, 1, 0.1, List.of("djl-nchw-folded"));
    for (int batch : new int[] {4, 8}) {
      step("chain:13:16", batch, 1, 0.1, all(DJL_SHORT), batch(batch));
    }
    calls(1, 0.1);
    network(
        "training step against ND4J", "TrainingStep.step", 3, "chain:13:16", 4, 1, 0.1, all(ND4J));
    roofline("plain50");
    gpu();
  }

  private void quick() {
    sgemm(3, 0.5);
    List<String> first = new ArrayList<>(all(DJL));
    first.add(1, "jtrelu-micro-16");
    first.add(2, "onednn");
    network("training step", "TrainingStep.step", 3, "plain50", 64, 4, 1, first);
    network("training step", "TrainingStep.step", 3, "chain:20:32", 32, 3, 1, all(DJL_SHORT));
    network("training step", "TrainingStep.step", 3, "chain:20:128", 8, 3, 1, all(DJL_SHORT));
    network("forward", "ForwardPass.forward", 1, "plain50", 64, 3, 1, forward(DJL_SHORT));
    network(
        "training step in bf16",
        "TrainingStep.step",
        3,
        "plain50",
        64,
        3,
        1,
        List.of("jtrelu-bf16", "jtrelu-exact-bf16", "jtrelu"));
    orthogonal(256, 2, 0.5);
    orthogonal(1024, 2, 1);
    memory("plain50", 64);
    layer("resnet50/stage2-3x3", 4, "forwardBackward", 2, 0.5);
    layer("resnet50/stage4-3x3", 4, "forwardBackward", 2, 0.5);
    shaping("tat:leaky_relu", "chain:49", 2, 0.3);
    loading("crop-flip", 2, 0.3);
    firstStep("plain50", 64, 2);
    roofline("plain50");
    calls(2, 0.2);
    nd4j("chain:20:32", 4);
  }

  private void full() {
    sgemm(5, 1);
    List<String> peers = new ArrayList<>(DJL);
    peers.addFirst("onednn");
    scaling(peers);
    network("forward", "ForwardPass.forward", 1, "plain50", 64, 5, 1, forward(DJL));
    for (int[] chain : WIDTHS) {
      network(
          "forward",
          "ForwardPass.forward",
          1,
          "chain:20:" + chain[0],
          chain[1],
          4,
          1,
          all(DJL_SHORT));
    }
    network("training step", "TrainingStep.step", 3, "resnet50:0", 8, 4, 1, all(DJL_SHORT));
    network("training step", "TrainingStep.step", 3, "resnet50:0.8", 8, 4, 1, all(DJL_SUMS));
    for (String network : List.of("plain50", "chain:20:64")) {
      network(
          "training step in bf16",
          "TrainingStep.step",
          3,
          network,
          32,
          4,
          1,
          List.of("jtrelu-bf16", "jtrelu-exact-bf16", "jtrelu"));
    }
    for (int n : new int[] {64, 128, 256, 512, 1024, 2048, 4096}) {
      orthogonal(n, n > 1024 ? 2 : 4, 1);
    }
    for (String shape : Shapes.names("resnet50")) {
      layer(shape, 4, "forward", 3, 0.5);
      layer(shape, 4, "forwardBackward", 3, 0.5);
    }
    for (String network : List.of("plain50", "chain:20:64")) {
      memory(network, 32);
    }
    for (String network : List.of("chain:50", "chain:200", "resnet50:0.8")) {
      shaping("tat:leaky_relu", network, 3, 0.5);
      shaping("tat:tanh", network, 3, 0.5);
      shaping("dks:softplus", network, 3, 0.5);
    }
    loading("none", 3, 0.5);
    loading("crop-flip", 3, 0.5);
    firstStep("plain50", 64, 5);
    roofline("plain50", "resnet50");
    calls(5, 0.3);
    nd4j("chain:20:32", 16);
    nd4j("chain:20:64", 16);
    nd4j("plain50", 16);
    gpu();
  }

  /**
   * Training steps along batch, width, depth and threads.
   *
   * @param peers of the groups that stand in the table for themselves: plain50 with batch 64, and
   *     the chains of each width
   */
  private void scaling(List<String> peers) {
    step("plain50", 64, 5, 1, all(peers), batch(64));
    for (int[] width : WIDTHS) {
      step(
          "chain:20:" + width[0],
          width[1],
          4,
          1,
          all(peers),
          new Curve("width, chain of 20 layers", "channels", width[0], width[1]));
    }
    for (String network : List.of("plain50", "chain:20:32", "chain:20:128")) {
      threads(network, 16, 4, 1, DJL_SHORT);
    }
    for (int batch : new int[] {4, 8, 16, 32, 128}) {
      step("plain50", batch, 3, 1, all(DJL_SHORT), batch(batch));
    }
    for (int depth : new int[] {15, 25, 50, 100}) {
      step(
          "chain:" + depth + ":32",
          16,
          3,
          1,
          all(DJL_SHORT),
          new Curve("depth, chain of width 32", "layers", depth, 16));
    }
  }

  private static Curve batch(int batch) {
    return new Curve("batch, plain network", "images in a batch", batch, batch);
  }

  /** This library and peers on 1, 2, 4 ... threads, up to the number of cores. */
  private void threads(
      String network, int batch, int iterations, double seconds, List<String> peers) {
    List<String> contenders = new ArrayList<>();
    for (String contender : all(peers)) {
      for (int threads = 1; threads < CORES; threads *= 2) {
        contenders.add(contender + "@" + threads);
      }
      contenders.add(contender + "@" + CORES);
    }
    groups.add(
        new Group(
            "training step by threads, " + network + ", batch " + batch,
            Probe.JMH,
            "TrainingStep.step",
            map("network", network, "batch", Integer.toString(batch)),
            contenders,
            2,
            iterations,
            seconds,
            3 * Workload.forwardMultiplyAdds(network, batch),
            5,
            new Curve("threads, " + network, "threads", Double.NaN, batch)));
  }

  private void roofline(String... shapes) {
    groups.add(
        new Group(
            "roofline of " + String.join(" and ", shapes),
            Probe.PICTURE,
            "Roofline",
            map("shapes", String.join(",", shapes)),
            List.of("jtrelu"),
            0,
            1,
            10,
            0,
            1,
            null));
  }

  private void calls(int iterations, double seconds) {
    Map<String, List<String>> calls = new LinkedHashMap<>();
    calls.put("wrap", List.of("jtrelu", "djl"));
    calls.put("slice", List.of("jtrelu", "djl"));
    calls.put("smallest", List.of("jtrelu", "djl", "ffm"));
    calls.put("onGpu", List.of("launch", "replay"));
    calls.forEach(
        (call, contenders) ->
            groups.add(
                new Group(
                    "call, " + CallOverhead.describe(call),
                    Probe.JMH,
                    call.equals("onGpu") ? "CallOnGpu.call" : "CallOverhead." + call,
                    map(),
                    contenders,
                    2,
                    iterations,
                    seconds,
                    0,
                    3,
                    null)));
  }

  private void gpu() {
    for (String shape : Shapes.names("resnet50")) {
      if (!shape.endsWith("logits") && !shape.endsWith("-first")) {
        for (String work : List.of("forward", "backward_data", "backward_weights")) {
          onGpu(work, map("shape", shape, "batch", "256"), GPU_PEERS);
        }
      }
    }
    for (String work : List.of("rectify_forward", "rectify_backward")) {
      onGpu(work, map("elements", Integer.toString(1 << 26)), GPU_PEERS);
    }
    for (int n : new int[] {256, 1024, 4096}) {
      onGpu("orthogonal", map("elements", Integer.toString(n)), List.of("jtrelu", "pytorch-eager"));
    }
    Map<String, String> network = map("network", "resnet50:0", "batch", "256");
    onGpu("step", network, GPU_PEERS);
    onGpu("activation_bytes", network, List.of("jtrelu-bf16", "pytorch-eager-bf16"));
    onGpu("captured", network, List.of("jtrelu-bf16", "jtrelu-bf16-host"));
  }

  private void onGpu(String work, Map<String, String> parameters, List<String> contenders) {
    groups.add(
        new Group(
            "GPU " + work.replace('_', ' ') + ", " + String.join(", batch ", parameters.values()),
            Probe.GPU,
            work,
            parameters,
            contenders,
            10,
            20,
            0.1,
            0,
            3,
            null));
  }

  private static List<String> all(List<String> peers) {
    List<String> all = new ArrayList<>();
    all.add("jtrelu");
    all.addAll(peers);
    return all;
  }

  private static List<String> forward(List<String> peers) {
    List<String> all = all(peers);
    all.add("onednn");
    all.add("onnxruntime");
    return all;
  }

  private static Map<String, String> map(String... pairs) {
    Map<String, String> map = new LinkedHashMap<>();
    for (int i = 0; i < pairs.length; i += 2) {
      map.put(pairs[i], pairs[i + 1]);
    }
    return map;
  }

  private void network(
      String what,
      String target,
      int passes,
      String network,
      int batch,
      int iterations,
      double seconds,
      List<String> contenders) {
    network(what, target, passes, network, batch, iterations, seconds, contenders, null);
  }

  private void network(
      String what,
      String target,
      int passes,
      String network,
      int batch,
      int iterations,
      double seconds,
      List<String> contenders,
      Curve curve) {
    // Forward, data gradient and weight gradient take the same number of multiply-adds each, but
    // that the first layer has no data gradient.
    double multiplyAdds = passes * Workload.forwardMultiplyAdds(network, batch);
    groups.add(
        new Group(
            what + ", " + network + ", batch " + batch,
            Probe.JMH,
            target,
            map("network", network, "batch", Integer.toString(batch)),
            contenders,
            2,
            iterations,
            seconds,
            multiplyAdds,
            5,
            curve));
  }

  private void step(
      String network,
      int batch,
      int iterations,
      double seconds,
      List<String> contenders,
      Curve curve) {
    network(
        "training step",
        "TrainingStep.step",
        3,
        network,
        batch,
        iterations,
        seconds,
        contenders,
        curve);
  }

  /** In groups of its own: a step of it takes long. */
  private void nd4j(String network, int batch) {
    network("training step against ND4J", "TrainingStep.step", 3, network, batch, 1, 1, all(ND4J));
  }

  private void sgemm(int iterations, double seconds) {
    groups.add(
        new Group(
            "sgemm, size " + SgemmPeak.SIZE,
            Probe.JMH,
            "SgemmPeak.multiply",
            map(),
            SGEMM,
            1,
            iterations,
            seconds,
            Math.pow(SgemmPeak.SIZE, 3),
            9,
            null));
  }

  private void layer(String shape, int batch, String method, int iterations, double seconds) {
    Conv2dDescriptor d = Shapes.read(shape).withBatch(batch);
    groups.add(
        new Group(
            "layer "
                + (method.equals("forward") ? "forward" : "forward and backward")
                + " on one core, "
                + shape
                + ", batch "
                + batch,
            Probe.JMH,
            "FusedLayer." + method,
            map("shape", shape, "batch", Integer.toString(batch)),
            List.of("jtrelu", "djl-nchw", "djl-nhwc"),
            1,
            iterations,
            seconds,
            d.multiplyAdds() * (method.equals("forward") ? 1.0 : 3.0),
            3,
            null));
  }

  private void orthogonal(int n, int iterations, double seconds) {
    groups.add(
        new Group(
            "orthogonal matrix, n = " + n,
            Probe.JMH,
            "OrthogonalMatrix.fill",
            map("size", Integer.toString(n)),
            List.of("jtrelu", "openblas"),
            1,
            iterations,
            seconds,
            0,
            5,
            null));
  }

  private void shaping(String method, String network, int iterations, double seconds) {
    groups.add(
        new Group(
            "shaping, " + method + ", " + network,
            Probe.JMH,
            "SlopeSolve.solve",
            map("method", method, "network", network),
            List.of("jtrelu"),
            2,
            iterations,
            seconds,
            0,
            2,
            null));
  }

  private void loading(String augmentation, int iterations, double seconds) {
    groups.add(
        new Group(
            "one batch of 64 from the loader, augmentation " + augmentation,
            Probe.JMH,
            "DataLoading.next",
            map("augmentation", augmentation),
            List.of("jtrelu"),
            1,
            iterations,
            seconds,
            0,
            2,
            null));
  }

  private void memory(String network, int batch) {
    groups.add(
        new Group(
            "activation memory, " + network + ", batch " + batch,
            Probe.VALUE,
            "ActivationMemory",
            map("network", network, "batch", Integer.toString(batch)),
            List.of("jtrelu-whole", "jtrelu", "djl-nchw-plain", "djl-nchw-in_place"),
            0,
            1,
            0,
            0,
            1,
            null));
  }

  private void firstStep(String network, int batch, int rounds) {
    groups.add(
        new Group(
            "process start to first step, " + network + ", batch " + batch,
            Probe.PROCESS,
            "FirstStep",
            map("network", network, "batch", Integer.toString(batch)),
            List.of("jtrelu", "djl-nchw-folded"),
            0,
            1,
            0,
            0,
            rounds,
            null));
  }
}
