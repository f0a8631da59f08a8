package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.data.Datasets;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Model;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Run;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import io.jtrelu.train.TrainingMemory;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.TreeSet;

/** Runs of networks on the emulated device, for tests of operations that are fused there. */
final class FusedRuns {
  private FusedRuns() {}

  /** A tensor of normal numbers of deviation 1/4. */
  static Tensor random(
      Backend backend, Stream stream, long seed, Shape shape, DataType type, Layout layout) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian() / 4;
    }
    Tensor tensor = backend.allocate(shape, type, layout);
    upload(backend, stream, values, tensor);
    return tensor;
  }

  static void upload(Backend backend, Stream stream, float[] values, Tensor tensor) {
    try (Tensor host = Tensor.allocate(tensor.shape(), tensor.type(), tensor.layout())) {
      backend.copy(stream, host.set(values), tensor);
      stream.synchronize();
    }
  }

  static float[] download(Backend backend, Stream stream, Tensor tensor) {
    try (Tensor host = Tensor.allocate(tensor.shape(), tensor.type(), tensor.layout())) {
      backend.copy(stream, tensor, host);
      stream.synchronize();
      return host.toFloatArray();
    }
  }

  /** Logits and gradients of a pass, the kernels that did it, and what it held. */
  @SuppressWarnings("ArrayRecordComponent") // compared element by element
  record Outcome(float[] logits, float[] gradients, Set<String> kernels, long held) {
    double from(Outcome other) {
      double sum = 0;
      double all = 0;
      for (int i = 0; i < gradients.length; i++) {
        sum += Math.pow(gradients[i] - other.gradients[i], 2);
        all += Math.pow(other.gradients[i], 2);
      }
      return Math.sqrt(sum / all);
    }

    /** Of random parameters and images. */
    static Outcome of(Network network, int batch, Backend opened, DataType type) {
      try (Backend backend = opened;
          Stream stream = backend.newStream();
          Parameters parameters = Parameters.allocate(network, backend);
          Parameters gradients = Parameters.allocate(network, backend);
          Program program =
              new Program(network, backend, batch, new Program.Options(type, 0, true, 1));
          Program.Workspace workspace = program.newWorkspace(stream);
          Tensor images =
              random(backend, stream, 8, network.input().batch(batch), type, Layout.NHWC);
          Tensor labels = backend.allocate(Shape.of(batch), DataType.I32, Layout.ROW_MAJOR)) {
        float[] values = new float[Math.toIntExact(parameters.arena().shape().elements())];
        SplittableRandom random = new SplittableRandom(7);
        for (int i = 0; i < values.length; i++) {
          values[i] = (float) random.nextGaussian() / 10;
        }
        upload(backend, stream, values, parameters.arena());
        program.load(stream, parameters);
        EmulatorControl.clearCounters();
        workspace.forward(images, 0);
        float[] logits = download(backend, stream, workspace.output(0));
        workspace.loss(labels, 1);
        workspace.backward(gradients, Write.OVERWRITE);
        stream.synchronize();
        Set<String> kernels = new TreeSet<>();
        EmulatorControl.counters().forEach(launch -> kernels.add(launch.get("kernel").asText()));
        float[] sums = download(backend, stream, gradients.arena());
        return new Outcome(logits, sums, kernels, program.activationBytes());
      }
    }
  }

  /** What recorded steps give, and take of the device's memory. */
  record Training(List<Double> losses, Set<String> kernels, long planned, long taken) {
    /** Of an epoch by SGD in BF16. */
    static Training of(Network network, Datasets data, int batch, Backend opened)
        throws IOException {
      TrainingConfig training =
          TrainingConfig.builder()
              .epochs(1)
              .batch(batch)
              .optimizer(Optimizer.Kind.SGD)
              .learningRate(0.02)
              .type(DataType.BF16)
              .seed(7)
              .build();
      Run run = Run.of(Model.of(network, data.train()), training, data);
      List<Double> losses = new ArrayList<>();
      Set<String> kernels = new TreeSet<>();
      try (Backend backend = opened) {
        long planned = TrainingMemory.of(run, backend, batch).total();
        EmulatorControl.clearCounters();
        try (Trainer trainer = Trainer.start(run, data, backend, null)) {
          while (!trainer.finished()) {
            losses.add(trainer.step().loss());
          }
        }
        EmulatorControl.counters().forEach(launch -> kernels.add(launch.get("kernel").asText()));
        return new Training(losses, kernels, planned, backend.memory().peak());
      }
    }
  }
}
