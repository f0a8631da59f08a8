package io.jtrelu.benchmarks;

import io.jtrelu.backend.Conv2dDescriptor;
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
  private static final List<String> DJL_SUMS = List.of("djl-nchw-in_place", "djl-nhwc-in_place");

  private final List<Group> groups = new ArrayList<>();

  private Plan() {}

  /** A name's groups: smoke (seconds, checks that everything runs), quick or full. */
  static List<Group> of(String name) {
    Plan plan = new Plan();
    switch (name) {
      case "smoke" -> plan.smoke();
      case "quick" -> plan.quick();
      case "full" -> plan.full();
      default ->
          throw new IllegalArgumentException(
              "unknown set '" + name + "'; known are smoke, quick, full");
    }
    int rounds = name.equals("smoke") ? 1 : Integer.MAX_VALUE;
    return plan.groups.stream().map(group -> group.withRounds(rounds)).toList();
  }

  private void smoke() {
    sgemm(1, 0.1);
    network("training step", "TrainingStep.step", 3, "chain:13:16", 4, 1, 0.1, all(DJL_SHORT));
    network("forward", "ForwardPass.forward", 1, "chain:13:16", 4, 1, 0.1, forward(DJL_SHORT));
    layer("resnet50/stage4-3x3", 1, "forwardBackward", 1, 0.1);
    orthogonal(64, 1, 0.1);
    shaping("tat:leaky_relu", "chain:49", 1, 0.1);
    loading("none", 1, 0.1);
    memory("chain:13:16", 4);
    firstStep("chain:13:16", 4, 1);
  }

  private void quick() {
    sgemm(3, 0.5);
    List<String> first = new ArrayList<>(all(DJL));
    first.add(1, "onednn");
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
        List.of("jtrelu-bf16", "jtrelu"));
    orthogonal(256, 2, 0.5);
    orthogonal(1024, 2, 1);
    memory("plain50", 64);
    layer("resnet50/stage2-3x3", 4, "forwardBackward", 2, 0.5);
    layer("resnet50/stage4-3x3", 4, "forwardBackward", 2, 0.5);
    shaping("tat:leaky_relu", "chain:49", 2, 0.3);
    loading("crop-flip", 2, 0.3);
    firstStep("plain50", 64, 2);
    dl4j("chain:20:32", 4);
  }

  private void full() {
    sgemm(5, 1);
    List<String> first = new ArrayList<>(all(DJL));
    first.add(1, "onednn");
    network("training step", "TrainingStep.step", 3, "plain50", 64, 8, 1, first);
    int[][] chains = {{16, 64}, {32, 64}, {64, 32}, {128, 16}, {256, 4}};
    for (int[] chain : chains) {
      List<String> contenders = new ArrayList<>(all(DJL));
      contenders.add(1, "onednn");
      network(
          "training step",
          "TrainingStep.step",
          3,
          "chain:20:" + chain[0],
          chain[1],
          5,
          1,
          contenders);
    }
    network("forward", "ForwardPass.forward", 1, "plain50", 64, 5, 1, forward(DJL));
    for (int[] chain : chains) {
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
          List.of("jtrelu-bf16", "jtrelu"));
    }
    for (int batch : new int[] {8, 16, 32, 128}) {
      network("training step", "TrainingStep.step", 3, "plain50", batch, 3, 1, all(DJL_SHORT));
    }
    for (int depth : new int[] {25, 100}) {
      network(
          "training step",
          "TrainingStep.step",
          3,
          "chain:" + depth + ":32",
          16,
          3,
          1,
          all(DJL_SHORT));
    }
    oneCore("plain50", 64);
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
    dl4j("chain:20:32", 16);
    dl4j("chain:20:64", 16);
    dl4j("plain50", 16);
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
            List.of(),
            2,
            iterations,
            seconds,
            multiplyAdds,
            5));
  }

  /** In groups of its own: a step of it takes as long as dozens of the others. */
  private void dl4j(String network, int batch) {
    network(
        "training step against DL4J",
        "TrainingStep.step",
        3,
        network,
        batch,
        1,
        1,
        List.of("jtrelu", "dl4j"));
  }

  private void oneCore(String network, int batch) {
    groups.add(
        new Group(
            "training step on one core, " + network + ", batch " + batch,
            Probe.JMH,
            "TrainingStep.step",
            map("network", network, "batch", Integer.toString(batch)),
            all(DJL_SHORT),
            List.of("-XX:ActiveProcessorCount=1", "-Dai.djl.pytorch.num_threads=1"),
            2,
            4,
            1,
            0,
            3));
  }

  private void sgemm(int iterations, double seconds) {
    groups.add(
        new Group(
            "sgemm, size " + SgemmPeak.SIZE,
            Probe.JMH,
            "SgemmPeak.multiply",
            map(),
            List.of("sgemm-1", "sgemm-2"),
            List.of(),
            1,
            iterations,
            seconds,
            Math.pow(SgemmPeak.SIZE, 3),
            9));
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
            List.of(),
            1,
            iterations,
            seconds,
            d.multiplyAdds() * (method.equals("forward") ? 1.0 : 3.0),
            3));
  }

  private void orthogonal(int n, int iterations, double seconds) {
    groups.add(
        new Group(
            "orthogonal matrix, n = " + n,
            Probe.JMH,
            "OrthogonalMatrix.fill",
            map("size", Integer.toString(n)),
            List.of("jtrelu", "openblas"),
            List.of(),
            1,
            iterations,
            seconds,
            0,
            5));
  }

  private void shaping(String method, String network, int iterations, double seconds) {
    groups.add(
        new Group(
            "shaping, " + method + ", " + network,
            Probe.JMH,
            "SlopeSolve.solve",
            map("method", method, "network", network),
            List.of("jtrelu"),
            List.of(),
            2,
            iterations,
            seconds,
            0,
            2));
  }

  private void loading(String augmentation, int iterations, double seconds) {
    groups.add(
        new Group(
            "one batch of 64 from the loader, augmentation " + augmentation,
            Probe.JMH,
            "DataLoading.next",
            map("augmentation", augmentation),
            List.of("jtrelu"),
            List.of(),
            1,
            iterations,
            seconds,
            0,
            2));
  }

  private void memory(String network, int batch) {
    groups.add(
        new Group(
            "activation memory, " + network + ", batch " + batch,
            Probe.VALUE,
            "ActivationMemory",
            map("network", network, "batch", Integer.toString(batch)),
            List.of("jtrelu-whole", "jtrelu", "djl-nchw-plain", "djl-nchw-in_place"),
            List.of(),
            0,
            1,
            0,
            0,
            1));
  }

  private void firstStep(String network, int batch, int rounds) {
    groups.add(
        new Group(
            "process start to first step, " + network + ", batch " + batch,
            Probe.PROCESS,
            "FirstStep",
            map("network", network, "batch", Integer.toString(batch)),
            List.of("jtrelu", "djl-nchw-folded"),
            List.of(),
            0,
            1,
            0,
            0,
            rounds));
  }
}
