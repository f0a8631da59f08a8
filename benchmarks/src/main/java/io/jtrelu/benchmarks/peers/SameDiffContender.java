package io.jtrelu.benchmarks.peers;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.benchmarks.Contender;
import io.jtrelu.benchmarks.Workload;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.InputLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network.ParameterSpec;
import java.io.OutputStream;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.nd4j.autodiff.listeners.At;
import org.nd4j.autodiff.listeners.BaseListener;
import org.nd4j.autodiff.listeners.Loss;
import org.nd4j.autodiff.listeners.Operation;
import org.nd4j.autodiff.loss.LossReduce;
import org.nd4j.autodiff.samediff.SDVariable;
import org.nd4j.autodiff.samediff.SameDiff;
import org.nd4j.autodiff.samediff.TrainingConfig;
import org.nd4j.enums.WeightsFormat;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.api.ops.impl.layers.convolution.config.Conv2DConfig;
import org.nd4j.linalg.api.ops.impl.layers.convolution.config.PaddingMode;
import org.nd4j.linalg.dataset.DataSet;
import org.nd4j.linalg.dataset.api.MultiDataSet;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.learning.config.Nesterovs;

/**
 * ND4J's graph (SameDiff), whose convolutions go to oneDNN in both directions: NCHW, SGD with
 * Nesterov momentum, no clipping, the scale of the rectifier multiplied into the weights that
 * follow it. Chains only.
 */
public final class SameDiffContender implements Contender {
  private final Workload workload;
  private final SameDiff graph = SameDiff.create();
  private final List<String> weights = new ArrayList<>();
  private final List<String> biases = new ArrayList<>();
  private final INDArray images;
  private final INDArray targets;
  private final LastLoss last = new LastLoss();

  /** Copies the workload into ND4J. */
  public SameDiffContender(Workload workload) {
    this.workload = workload;
    var in = workload.network().input();
    int batch = workload.batch();
    int classes = workload.network().classes();
    SDVariable value =
        graph.placeHolder("images", DataType.FLOAT, batch, in.channels(), in.height(), in.width());
    SDVariable labels = graph.placeHolder("labels", DataType.FLOAT, batch, classes);
    int count = workload.network().parameters().size() / 2;
    for (Layer layer : workload.network().layers()) {
      value =
          switch (layer) {
            case ConvolutionLayer convolution -> {
              int p = weights.size();
              weights.add("weights" + p);
              biases.add("bias" + p);
              SDVariable w = graph.var("weights" + p, toNative(p, factor(p)));
              SDVariable b = graph.var("bias" + p, Nd4j.createFromArray(values(count + p, 1)));
              yield convolution(value, convolution.descriptor(), w, b);
            }
            case ActivationLayer activation ->
                graph.nn().leakyRelu(value, workload.rectifier().slope());
            case GlobalMeanPoolingLayer pool -> value.mean(2, 3);
            case InputLayer input -> value;
            default -> throw new IllegalArgumentException("chains only, not " + layer);
          };
    }
    SDVariable logits = value.rename("logits");
    graph
        .loss()
        .softmaxCrossEntropy(
            "loss", labels, logits, null, LossReduce.MEAN_BY_NONZERO_WEIGHT_COUNT, 0);
    graph.setLossVariables("loss");
    graph.setTrainingConfig(
        new TrainingConfig.Builder()
            .updater(new Nesterovs(Workload.LEARNING_RATE, Workload.MOMENTUM))
            .dataSetFeatureMapping("images")
            .dataSetLabelMapping("labels")
            .build());
    PrintStream out = System.out;
    System.setOut(new PrintStream(OutputStream.nullOutputStream())); // it prints every operation
    try {
      graph.createGradFunction();
    } finally {
      System.setOut(out);
    }
    images =
        Nd4j.createFromArray(workload.images())
            .reshape(batch, in.height(), in.width(), in.channels())
            .permute(0, 3, 1, 2)
            .dup('c');
    targets = Nd4j.createFromArray(Dl4jContender.targets(workload)).reshape(batch, classes);
  }

  private SDVariable convolution(
      SDVariable source, Conv2dDescriptor d, SDVariable kernel, SDVariable bias) {
    if (d.h() == 1 && d.w() == 1) {
      return graph.nn().linear(source, kernel, bias);
    }
    return graph
        .cnn()
        .conv2d(
            source,
            kernel,
            bias,
            Conv2DConfig.builder()
                .kH(d.kh())
                .kW(d.kw())
                .sH(d.strideH())
                .sW(d.strideW())
                .paddingMode(PaddingMode.SAME)
                .dataFormat("NCHW")
                .weightsFormat(WeightsFormat.YXIO)
                .build());
  }

  private float factor(int parameter) {
    return parameter == 0 ? 1 : workload.rectifier().scale();
  }

  private float[] values(int parameter, float factor) {
    ParameterSpec spec = workload.network().parameters().get(parameter);
    float[] values = new float[Math.toIntExact(spec.shape().elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = factor * workload.parameters()[Math.toIntExact(spec.offset()) + i];
    }
    return values;
  }

  /**
   * KRSC to RSCK, the one format whose gradient works in this release, or to [in, out] for the
   * logits.
   */
  private INDArray toNative(int parameter, float factor) {
    int[] d = workload.network().parameters().get(parameter).shape().dims();
    INDArray ours = Nd4j.createFromArray(values(parameter, factor)).reshape(d[0], d[1], d[2], d[3]);
    boolean linear = parameter == workload.network().parameters().size() / 2 - 1;
    return (linear ? ours.reshape(d[0], d[3]).transpose() : ours.permute(1, 2, 3, 0)).dup('c');
  }

  private Map<String, INDArray> inputs() {
    return Map.of("images", images, "labels", targets);
  }

  /** Keeps the loss, which the graph tells to listeners only. */
  private static final class LastLoss extends BaseListener {
    private double value = Double.NaN;

    @Override
    public boolean isActive(Operation operation) {
      return operation == Operation.TRAINING;
    }

    @Override
    public void iterationDone(SameDiff graph, At at, MultiDataSet data, Loss loss) {
      value = loss.totalLoss();
    }
  }

  @Override
  public float step() {
    graph.fit(new DataSet(images, targets), last);
    return (float) last.value;
  }

  @Override
  public float[] forward() {
    return graph.output(inputs(), "logits").get("logits").dup('c').reshape(-1).toFloatVector();
  }

  @Override
  public Gradients gradients() {
    List<String> names = new ArrayList<>(weights);
    names.addAll(biases);
    var results = graph.calculateGradientsAndOutputs(inputs(), List.of("loss"), names);
    float[] values = new float[workload.parameters().length];
    for (int i = 0; i < names.size(); i++) {
      INDArray gradient = results.getGradients().get(names.get(i));
      INDArray ours =
          switch (gradient.rank()) {
            case 4 -> gradient.permute(3, 0, 1, 2);
            case 2 -> gradient.transpose();
            default -> gradient;
          };
      float factor = i < weights.size() ? factor(i) : 1;
      int at = Math.toIntExact(workload.network().parameters().get(i).offset());
      for (float value : ours.dup('c').reshape(-1).toFloatVector()) {
        values[at++] = value * factor;
      }
    }
    return new Gradients(results.getOutputs().get("loss").getFloat(0), values);
  }

  @Override
  public long activationBytes() {
    throw new UnsupportedOperationException("a graph keeps what it holds to itself");
  }

  @Override
  public void close() {
    images.close();
    targets.close();
  }
}
