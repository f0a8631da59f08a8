package io.jtrelu.djl.trunk;

import ai.djl.Device;
import ai.djl.Model;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Block;
import ai.djl.nn.Parameter;
import ai.djl.pytorch.engine.PtNDArray;
import ai.djl.training.DefaultTrainingConfig;
import ai.djl.training.EasyTrain;
import ai.djl.training.Trainer;
import ai.djl.training.dataset.Batch;
import ai.djl.training.loss.Loss;
import ai.djl.training.optimizer.Optimizer;
import ai.djl.training.tracker.Tracker;
import ai.djl.translate.Batchifier;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.shaping.Tat;
import io.jtrelu.tensor.Layout;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Scanner;
import java.util.SplittableRandom;
import java.util.TreeMap;

/**
 * plain50 as a block of ours against the same network in DJL's operations, both in DJL's training
 * loop: {@code TrunkBenchmark [batch] [rounds] [steps]}. Each contender is a process of its own;
 * rounds alternate between them, and each gives a ratio. DJL has four variants (layout, scale in
 * place or not), of which the fastest of the first round goes on.
 */
final class TrunkBenchmark {
  private static final String OURS = "jtrelu";
  private static final List<String> DJL =
      List.of("djl-nchw", "djl-nchw-inplace", "djl-nhwc", "djl-nhwc-inplace");
  private static final int WARMUP = 5;

  private TrunkBenchmark() {}

  /** As above; the contenders' processes are started as {@code contend NAME BATCH}. */
  public static void main(String[] arguments) throws IOException {
    if (arguments.length > 0 && arguments[0].equals("contend")) {
      contend(arguments[1], Integer.parseInt(arguments[2]));
      return;
    }
    int batch = argument(arguments, 0, 64);
    int rounds = argument(arguments, 1, 9);
    int steps = argument(arguments, 2, 20);
    Map<String, Contender> contenders = new TreeMap<>();
    try {
      Contender ours = new Contender(OURS, batch);
      contenders.put(OURS, ours);
      String best = DJL.getFirst();
      double least = Double.POSITIVE_INFINITY;
      for (String name : DJL) {
        Contender contender = new Contender(name, batch);
        contenders.put(name, contender);
        contender.round(WARMUP);
        double time = contender.round(steps);
        if (time < least) {
          least = time;
          best = name;
        }
      }
      System.out.println("the fastest of DJL's variants: " + best);
      Contender theirs = contenders.get(best);
      ours.round(WARMUP);
      double[] ratios = new double[rounds];
      for (int r = 0; r < rounds; r++) {
        boolean oursFirst = r % 2 == 0;
        double first = (oursFirst ? ours : theirs).round(steps);
        double second = (oursFirst ? theirs : ours).round(steps);
        ratios[r] = oursFirst ? second / first : first / second;
      }
      Arrays.sort(ratios);
      System.out.printf(
          Locale.ROOT,
          "batch %d: a step in DJL takes %.2f times as long (%.2f to %.2f in %d rounds)%n",
          batch,
          ratios[rounds / 2],
          ratios[0],
          ratios[rounds - 1],
          rounds);
    } finally {
      contenders.values().forEach(Contender::close);
    }
  }

  private static int argument(String[] arguments, int index, int otherwise) {
    return index < arguments.length ? Integer.parseInt(arguments[index]) : otherwise;
  }

  /** A process that takes as many steps as it is told and says how long they took. */
  private static final class Contender {
    private final Process process;
    private final PrintWriter requests;
    private final BufferedReader answers;

    Contender(String name, int batch) throws IOException {
      List<String> command = new ArrayList<>();
      command.add(ProcessHandle.current().info().command().orElseThrow());
      command.addAll(
          List.of(
              "--enable-native-access=ALL-UNNAMED", "-Doffline=true", "-DOPT_OUT_TRACKING=true"));
      command.addAll(List.of("-cp", System.getProperty("java.class.path")));
      command.addAll(List.of(TrunkBenchmark.class.getName(), "contend", name, "" + batch));
      process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
      requests = new PrintWriter(process.outputWriter(StandardCharsets.UTF_8), true);
      answers = process.inputReader(StandardCharsets.UTF_8);
    }

    double round(int steps) throws IOException {
      requests.println(steps);
      String answer = answers.readLine();
      if (answer == null) {
        throw new IOException("a contender ended: run it by hand, as 'contend NAME BATCH'");
      }
      return Double.parseDouble(answer);
    }

    void close() {
      process.destroy();
    }
  }

  private static void contend(String name, int batch) {
    Network network =
        Networks.build(Networks.Options.of("plain50"), new Extent(28, 28, 2), 10)
            .shape(Tat.eta(0.9));
    boolean channelsLast = name.contains("nhwc");
    try (Model model = Model.newInstance(name, "PyTorch")) {
      JtreluBlock trunk = new JtreluBlock(network);
      Block block = name.equals(OURS) ? trunk : new Twin(trunk, name.endsWith("inplace"));
      model.setBlock(block);
      DefaultTrainingConfig config =
          new DefaultTrainingConfig(Loss.softmaxCrossEntropyLoss())
              .optDevices(new Device[] {Device.cpu()})
              .optOptimizer(
                  Optimizer.sgd()
                      .setLearningRateTracker(Tracker.fixed(1e-4f))
                      .optMomentum(0.9f)
                      .build());
      try (Trainer trainer = new JtreluTrainer(model, config);
          Scanner requests = new Scanner(System.in, StandardCharsets.UTF_8)) {
        trainer.initialize(new Shape(batch, 2, 28, 28));
        if (block != trunk) {
          likeOurs(model, trunk, block, channelsLast);
        }
        while (requests.hasNextInt()) {
          int steps = requests.nextInt();
          long begin = System.nanoTime();
          for (int i = 0; i < steps; i++) {
            step(trainer, batch, channelsLast || block == trunk);
          }
          System.out.println((System.nanoTime() - begin) * 1e-9 / steps);
        }
      }
    }
  }

  /** Gives the twin our initial values, in the layout of its variant. */
  private static void likeOurs(Model model, JtreluBlock trunk, Block twin, boolean channelsLast) {
    trunk.initialize(model.getNDManager(), model.getDataType(), new Shape(1, 2, 28, 28));
    Twin.copyParameters(trunk, twin);
    for (Parameter parameter : twin.getParameters().values()) {
      PtNDArray array = (PtNDArray) parameter.getArray();
      Shape s = array.getShape();
      if (channelsLast && s.dimension() == 4) {
        io.jtrelu.tensor.Shape krsc =
            io.jtrelu.tensor.Shape.of(
                (int) s.get(0), (int) s.get(2), (int) s.get(3), (int) s.get(1));
        PtNDArray memory = Views.allocate(model.getNDManager(), krsc);
        try (NDManager scope = model.getNDManager().newSubManager()) {
          Views.tensor(memory, krsc, Layout.KRSC)
              .segment()
              .copyFrom(Views.tensor(scope, array, true, krsc, Layout.KRSC).segment());
        }
        array.intern(Views.seen(memory, s));
        array.setRequiresGradient(true);
      }
    }
  }

  private static void step(Trainer trainer, int rows, boolean channelsLast) {
    NDManager manager = trainer.getManager().newSubManager();
    SplittableRandom random = new SplittableRandom(1);
    float[] pixels = new float[rows * 2 * 28 * 28];
    float[] labels = new float[rows];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = (float) random.nextDouble(-1, 1);
    }
    for (int i = 0; i < rows; i++) {
      labels[i] = i % 10;
    }
    NDArray images =
        channelsLast
            ? manager.create(pixels, new Shape(rows, 28, 28, 2)).transpose(0, 3, 1, 2)
            : manager.create(pixels, new Shape(rows, 2, 28, 28));
    try (Batch batch =
        new Batch(
            manager,
            new NDList(images),
            new NDList(manager.create(labels)),
            rows,
            Batchifier.STACK,
            Batchifier.STACK,
            0,
            0)) {
      EasyTrain.trainBatch(trainer, batch);
      trainer.step();
    }
  }
}
