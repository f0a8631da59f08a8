package io.jtrelu.dl4j;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.shaping.Tat;
import java.io.DataInputStream;
import java.io.IOException;
import java.util.List;
import java.util.zip.GZIPInputStream;
import org.deeplearning4j.nn.conf.ComputationGraphConfiguration;
import org.deeplearning4j.nn.conf.ConvolutionMode;
import org.deeplearning4j.nn.conf.GradientNormalization;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.ConvolutionLayer;
import org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer;
import org.deeplearning4j.nn.conf.layers.OutputLayer;
import org.deeplearning4j.nn.conf.layers.PoolingType;
import org.deeplearning4j.nn.graph.ComputationGraph;
import org.deeplearning4j.nn.weights.WeightInit;
import org.junit.jupiter.api.Test;
import org.nd4j.linalg.activations.impl.ActivationReLU;
import org.nd4j.linalg.activations.impl.ActivationSoftmax;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.dataset.DataSet;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.learning.config.Nesterovs;
import org.nd4j.linalg.lossfunctions.LossFunctions.LossFunction;

/** 50 layers in Deeplearning4j, shaped, learn what they do not learn with He-scaled ReLU. */
class LearningTest {
  private static final int IMAGES = 128;
  private static final int BATCH = 16;
  private static final int STEPS = 40;
  private static final int CHANNELS = 16;

  /** Trousers, bags and boots, which few steps tell apart. */
  private static final List<Integer> CLASSES = List.of(1, 8, 9);

  /** Pixels of an image's side that become one. */
  private static final int BLOCK = 4;

  private static final int SIDE = 28 / BLOCK;

  private static ComputationGraphConfiguration plain50() {
    ComputationGraphConfiguration.GraphBuilder graph =
        new NeuralNetConfiguration.Builder()
            .seed(1)
            .updater(new Nesterovs(0.02, 0.9))
            .gradientNormalization(GradientNormalization.ClipL2PerLayer)
            .gradientNormalizationThreshold(0.1)
            .weightInit(WeightInit.RELU)
            .graphBuilder()
            .addInputs("0");
    for (int i = 1; i <= 49; i++) {
      graph.addLayer(
          "" + i,
          new ConvolutionLayer.Builder(3, 3)
              .stride(i == 1 ? new int[] {2, 2} : new int[] {1, 1})
              .nOut(CHANNELS)
              .convolutionMode(ConvolutionMode.Same)
              .activation(new ActivationReLU())
              .build(),
          "" + (i - 1));
    }
    return graph
        .addLayer("pool", new GlobalPoolingLayer.Builder(PoolingType.AVG).build(), "49")
        .addLayer(
            "out",
            new OutputLayer.Builder(LossFunction.MCXENT)
                .nOut(CLASSES.size())
                .activation(new ActivationSoftmax())
                .build(),
            "pool")
        .setOutputs("out")
        .setInputTypes(InputType.convolutional(SIDE, SIDE, 2))
        .build();
  }

  /**
   * Images at a quarter of their size, with a channel of ones, each location scaled to a mean
   * square of 1.
   */
  private static DataSet read(int count) throws IOException {
    float[] pixels = new float[count * 2 * SIDE * SIDE];
    float[] labels = new float[count * CLASSES.size()];
    String folder = "/io/jtrelu/data/fashion-mnist-subset/train-";
    try (DataInputStream images = open(folder + "images-idx3-ubyte.gz", 16);
        DataInputStream classes = open(folder + "labels-idx1-ubyte.gz", 8)) {
      byte[] image = new byte[28 * 28];
      for (int n = 0; n < count; n++) {
        int kind;
        do {
          images.readFully(image);
          kind = CLASSES.indexOf(classes.readUnsignedByte());
        } while (kind < 0);
        labels[n * CLASSES.size() + kind] = 1;
        for (int at = 0; at < SIDE * SIDE; at++) {
          int corner = at / SIDE * BLOCK * 28 + at % SIDE * BLOCK;
          double sum = 0;
          for (int k = 0; k < BLOCK * BLOCK; k++) {
            sum += image[corner + k / BLOCK * 28 + k % BLOCK] & 255;
          }
          double x = (sum / (BLOCK * BLOCK) / 255 - 0.286) / 0.353;
          double root = Math.sqrt((x * x + 1) / 2);
          int to = n * 2 * SIDE * SIDE + at;
          pixels[to] = (float) (x / root);
          pixels[to + SIDE * SIDE] = (float) (1 / root);
        }
      }
    }
    INDArray features = Nd4j.createFromArray(pixels).reshape(count, 2, SIDE, SIDE);
    return new DataSet(features, Nd4j.createFromArray(labels).reshape(count, CLASSES.size()));
  }

  private static DataInputStream open(String resource, int header) throws IOException {
    DataInputStream in =
        new DataInputStream(new GZIPInputStream(LearningTest.class.getResourceAsStream(resource)));
    in.skipNBytes(header);
    return in;
  }

  /** Mean loss of the last ten steps. */
  private static double train(ComputationGraphConfiguration conf, DataSet data) {
    ComputationGraph network = new ComputationGraph(conf);
    network.init();
    double last = 0;
    for (int step = 0; step < STEPS; step++) {
      int first = step * BATCH % IMAGES;
      network.fit(data.getRange(first, first + BATCH));
      if (step >= STEPS - 10) {
        last += network.score() / 10;
      }
    }
    network.close();
    return last;
  }

  @Test
  void shapedLearnsWhereHeDoesNot() throws IOException {
    DataSet data = read(IMAGES);
    double he = train(plain50(), data);
    ComputationGraphConfiguration conf = plain50();
    KernelShaping.apply(conf, new Tat(), Activation.LEAKY_RELU);
    double shaped = train(conf, data);
    assertTrue(he >= 1, () -> "He-scaled ReLU: " + he); // chance is log 3 = 1.0986
    assertTrue(shaped <= 0.8, () -> "shaped: " + shaped);
  }
}
