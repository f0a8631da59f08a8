package io.jtrelu.dl4j.layer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NetworkFormatException;
import io.jtrelu.nn.NetworkJson;
import java.util.Collection;
import org.deeplearning4j.exception.DL4JInvalidConfigException;
import org.deeplearning4j.nn.api.Layer;
import org.deeplearning4j.nn.api.ParamInitializer;
import org.deeplearning4j.nn.conf.CNN2DFormat;
import org.deeplearning4j.nn.conf.InputPreProcessor;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.BaseLayer;
import org.deeplearning4j.nn.conf.layers.InputTypeUtil;
import org.deeplearning4j.nn.conf.memory.LayerMemoryReport;
import org.deeplearning4j.optimize.api.TrainingListener;
import org.jspecify.annotations.Nullable;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.api.ops.executioner.OpExecutioner;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.shade.jackson.annotation.JsonProperty;

/**
 * A layer that is a whole {@link Network}, usually the trunk between images and the output layer:
 *
 * <pre>{@code
 * Network trunk = ...;                          // one input, one output, shaped
 * MultiLayerConfiguration conf = new NeuralNetConfiguration.Builder()
 *     .updater(new Nesterovs(0.02, 0.9)).list()
 *     .layer(new JtreluLayer.Builder(trunk).name("trunk").build())
 *     .layer(new OutputLayer.Builder(LossFunction.MCXENT).nOut(10).build())
 *     .setInputType(InputType.convolutional(28, 28, 1, CNN2DFormat.NHWC))
 *     .build();
 * }</pre>
 *
 * <p><b>Images.</b> NHWC is computed on where it lies; NCHW is accepted and costs a copy of the
 * input and one of the output in each direction. The format is that of the input type, and without
 * one the builder's, NHWC. A network whose output is 1x1 gives a matrix [n, channels], as dense and
 * output layers read; others give images in the input's format. A batch may have any size; when one
 * is larger than all before it, the network is compiled anew.
 *
 * <p><b>Parameters</b> are Deeplearning4j's and are computed on where they lie: all weights in
 * JTReLU's layouts (convolutions KRSC), then all biases, under the names of {@link
 * Network#parameters} with '_' written as '-'. Updaters, regularisation, constraints and gradient
 * normalisation of Deeplearning4j apply, the last to the layer as a whole. The initialiser is
 * JTReLU's, orthogonal with Delta kernels, from Deeplearning4j's seed; the builder's {@code
 * weightInit}, {@code biasInit} and {@code activation} mean nothing here. The network is kept as
 * JSON in the configuration, so that ModelSerializer keeps it too.
 *
 * <p><b>Types.</b> A network of Deeplearning4j with data type FLOAT. DOUBLE is accepted for {@code
 * GradientCheckUtil}, which demands it, but computed in FLOAT: allow a relative error of 1e-3 or an
 * absolute one of 5e-5 at an epsilon of 1e-2. HALF is refused, as is BFLOAT16 by Deeplearning4j
 * itself; do not cast what comes out to BFLOAT16 either: ND4J's cast turns NaN into -0, which hides
 * that a training has diverged.
 *
 * <p><b>Not supported</b>, with an exception that says so: ND4J on a GPU, weight noise, mask
 * arrays, networks of several outputs or with functions of the caller.
 *
 * <p>Native memory of the compiled network is released when the network is garbage, as
 * Deeplearning4j closes no layers; {@code network.getLayer(i).close()} releases it at once. Start
 * Java with {@code --enable-native-access=ALL-UNNAMED}.
 */
public final class JtreluLayer extends BaseLayer {
  private static final long serialVersionUID = 1;

  // Deeplearning4j's JSON finds a layer's properties by getters and setters, which these have not.
  @JsonProperty private String networkJson = "";
  @JsonProperty private String device = "cpu";
  @JsonProperty private CNN2DFormat dataFormat = CNN2DFormat.NHWC;

  private transient volatile @Nullable Network network;

  /** For Deeplearning4j's JSON. */
  JtreluLayer() {}

  private JtreluLayer(Builder builder) {
    super(builder);
    this.networkJson = builder.networkJson;
    this.device = builder.device;
    this.dataFormat = builder.dataFormat;
    initializeConstraints(builder);
  }

  /** The network. */
  public Network network() {
    Network read = network;
    if (read == null) {
      read = read(networkJson);
      network = read;
    }
    return read;
  }

  private static Network read(String json) {
    try {
      return NetworkJson.read(new ObjectMapper().readTree(json));
    } catch (JsonProcessingException malformed) {
      throw new NetworkFormatException("the network of a JtreluLayer is not JSON", malformed);
    }
  }

  /** Where it is computed, as {@link io.jtrelu.backend.Backends#open} takes it. */
  public String device() {
    return device;
  }

  /** Format of its images. */
  public CNN2DFormat dataFormat() {
    return dataFormat;
  }

  /** What comes out of the network. */
  Extent output() {
    return network().layers().get(network().outputs().get(0)).extent();
  }

  /** Whether channels alone come out, as the network's output is 1x1. */
  boolean isMatrix() {
    return output().height() == 1 && output().width() == 1;
  }

  @Override
  public Layer instantiate(
      NeuralNetConfiguration conf,
      Collection<TrainingListener> trainingListeners,
      int layerIndex,
      INDArray layerParamsView,
      boolean initializeParams,
      DataType networkDataType) {
    if (networkDataType != DataType.FLOAT && networkDataType != DataType.DOUBLE) {
      throw new DL4JInvalidConfigException(
          where()
              + " computes in FLOAT, but the network's data type is "
              + networkDataType
              + "; set .dataType(DataType.FLOAT) on its builder");
    }
    if (Nd4j.getExecutioner().type() != OpExecutioner.ExecutionerType.NATIVE_CPU) {
      throw new DL4JInvalidConfigException(
          where()
              + " computes on the CPU, where ND4J's arrays must lie, but ND4J computes on "
              + Nd4j.getExecutioner().type()
              + "; use nd4j-native, or Deeplearning4j's own layers shaped by KernelShaping");
    }
    if (getWeightNoise() != null) {
      throw new DL4JInvalidConfigException(
          where() + " has no weight noise: its kernels read the parameters themselves");
    }
    NetworkLayer layer = new NetworkLayer(conf, networkDataType);
    layer.setListeners(trainingListeners);
    layer.setIndex(layerIndex);
    layer.setParamsViewArray(layerParamsView);
    layer.setParamTable(initializer().init(conf, layerParamsView, initializeParams));
    return layer;
  }

  private String where() {
    return "JtreluLayer '" + getLayerName() + "' (" + network() + ")";
  }

  @Override
  public ParamInitializer initializer() {
    return NetworkParameters.INSTANCE;
  }

  @Override
  public InputType getOutputType(int layerIndex, InputType inputType) {
    requireImages(inputType);
    Extent out = output();
    return isMatrix()
        ? InputType.feedForward(out.channels())
        : InputType.convolutional(out.height(), out.width(), out.channels(), dataFormat);
  }

  @Override
  public void setNIn(InputType inputType, boolean override) {
    dataFormat = requireImages(inputType).getFormat();
  }

  private InputType.InputTypeConvolutional requireImages(@Nullable InputType inputType) {
    Extent in = network().input();
    if (inputType instanceof InputType.InputTypeConvolutional images
        && images.getHeight() == in.height()
        && images.getWidth() == in.width()
        && images.getChannels() == in.channels()) {
      return images;
    }
    throw new DL4JInvalidConfigException(
        where()
            + " reads images of "
            + in
            + " (height, width, channels), but its input type is "
            + inputType);
  }

  @Override
  public @Nullable InputPreProcessor getPreProcessorForInputType(InputType inputType) {
    return InputTypeUtil.getPreProcessorForInputTypeCnnLayers(inputType, getLayerName());
  }

  @Override
  public boolean isPretrainParam(String paramName) {
    return false;
  }

  /** An estimate: one output for each layer of the network that is not computed with another. */
  @Override
  public LayerMemoryReport getMemoryReport(InputType inputType) {
    long activations =
        network().layers().stream().mapToLong(layer -> layer.extent().batch(1).elements()).sum();
    long parameters = initializer().numParams(this);
    long state = getIUpdater() == null ? 0 : getIUpdater().stateSize(parameters);
    return new LayerMemoryReport.Builder(
            getLayerName(), JtreluLayer.class, inputType, getOutputType(-1, inputType))
        .standardMemory(parameters, state)
        .workingMemory(parameters, activations, parameters, activations)
        .cacheMemory(0, 0)
        .build();
  }

  @Override
  public JtreluLayer clone() {
    return (JtreluLayer) super.clone();
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof JtreluLayer layer
        && super.equals(other)
        && layer.networkJson.equals(networkJson)
        && layer.device.equals(device)
        && layer.dataFormat == dataFormat;
  }

  @Override
  public int hashCode() {
    return 31 * super.hashCode() + networkJson.hashCode();
  }

  @Override
  public String toString() {
    return "JtreluLayer(layerName="
        + getLayerName()
        + ", network="
        + network()
        + ", device="
        + device
        + ", dataFormat="
        + dataFormat
        + ")";
  }

  /** Makes the layer. */
  @SuppressWarnings("unchecked") // build returns what it is asked for
  public static final class Builder extends BaseLayer.Builder<Builder> {
    private final String networkJson;
    private String device = "cpu";
    private CNN2DFormat dataFormat = CNN2DFormat.NHWC;

    /**
     * A layer of this network.
     *
     * @throws IllegalArgumentException if it has several outputs, no parameters, names that cannot
     *     be those of Deeplearning4j's parameters, or functions of the caller, which JSON does not
     *     keep
     */
    public Builder(Network network) {
      if (network.outputs().size() != 1) {
        throw new IllegalArgumentException(
            "network "
                + network
                + " has "
                + network.outputs().size()
                + " outputs, a layer has one; build it with one, and the others as layers behind");
      }
      if (network.looksAtBatches()) {
        throw new IllegalArgumentException(
            "network "
                + network
                + " has batch normalisation, whose running statistics a JtreluLayer has no place"
                + " for: take Deeplearning4j's own layers for it");
      }
      if (NetworkParameters.keys(network).isEmpty()) {
        throw new IllegalArgumentException(
            "network " + network + " has no parameters: Deeplearning4j's own layers do as well");
      }
      this.networkJson = NetworkJson.write(network).toString();
      read(networkJson);
    }

    /**
     * Where it is computed: {@code cpu} (the default: all cores), {@code cpu:2}, or a backend of
     * the CPU by name.
     */
    public Builder device(String newDevice) {
      this.device = newDevice;
      return this;
    }

    /** Format of images, for a network without an input type. */
    public Builder dataFormat(CNN2DFormat format) {
      this.dataFormat = format;
      return this;
    }

    @Override
    public JtreluLayer build() {
      return new JtreluLayer(this);
    }
  }
}
