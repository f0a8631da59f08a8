package io.jtrelu.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Program;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * A configuration with what data and solver made of it: all that is needed, beside the parameters,
 * to train or use a network. Stored as config.json.
 *
 * @param training the configuration
 * @param classes names of the classes, in the order of the logits
 * @param height rows of an image
 * @param width columns of an image
 * @param channels channels of an image, without the homogeneous one
 * @param mean per channel, of the training set
 * @param std per channel, of the training set
 * @param homogeneous how the homogeneous channel is made
 * @param activation what the solver made of the activation
 */
public record Model(
    @JsonProperty(required = true) TrainingConfig training,
    @JsonProperty(required = true) List<String> classes,
    @JsonProperty(required = true) int height,
    @JsonProperty(required = true) int width,
    @JsonProperty(required = true) int channels,
    @JsonProperty(required = true) List<Double> mean,
    @JsonProperty(required = true) List<Double> std,
    @JsonProperty(required = true) PerLocationNormalization.Homogeneous homogeneous,
    @JsonProperty(required = true) ShapedActivation activation) {
  /** Name of its file in a run's folder. */
  public static final String FILE = "config.json";

  /**
   * A solver's answer in numbers: phi_hat(x) = outputScale * (phi(inputScale * x + inputShift) +
   * outputShift).
   *
   * @param function name of phi
   * @param inputScale factor of the input
   * @param inputShift added to the scaled input
   * @param outputScale factor of the shifted output
   * @param outputShift added to phi's value
   * @param negativeSlope of leaky_relu
   * @param weightScale factor of the initial weights
   * @param biasDeviation standard deviation of the initial biases
   */
  public record ShapedActivation(
      @JsonProperty(required = true) String function,
      @JsonProperty(required = true) double inputScale,
      @JsonProperty(required = true) double inputShift,
      @JsonProperty(required = true) double outputScale,
      @JsonProperty(required = true) double outputShift,
      @JsonProperty(required = true) double negativeSlope,
      @JsonProperty(required = true) double weightScale,
      @JsonProperty(required = true) double biasDeviation) {

    /** Of a network whose activations are all alike, as those with a name are. */
    private static ShapedActivation of(Network network) {
      TransformedActivation f =
          network.layers().stream()
              .filter(ActivationLayer.class::isInstance)
              .map(layer -> ((ActivationLayer) layer).function())
              .findFirst()
              .orElseThrow();
      return new ShapedActivation(
          f.function().activationName(),
          f.inputScale(),
          f.inputShift(),
          f.outputScale(),
          f.outputShift(),
          f.negativeSlope(),
          network.weightScale(),
          network.biasDeviation());
    }

    /** As a function. */
    public TransformedActivation transformed() {
      return new TransformedActivation(
          ShapingConfig.of("none", function).function(),
          inputScale,
          inputShift,
          outputScale,
          outputShift,
          negativeSlope);
    }
  }

  private static final ObjectMapper JSON =
      new ObjectMapper()
          .enable(SerializationFeature.INDENT_OUTPUT)
          .enable(DeserializationFeature.FAIL_ON_MISSING_CREATOR_PROPERTIES)
          .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES);

  /**
   * Builds the network for the data and shapes it.
   *
   * @throws io.jtrelu.shaping.ShapingException if the network cannot reach the shaping target
   * @throws IllegalArgumentException if the configuration names something unknown
   */
  public static Model of(TrainingConfig config, Datasets data) {
    ImageDataset train = data.train();
    PerLocationNormalization pln = PerLocationNormalization.of(train);
    Extent input = new Extent(train.height(), train.width(), pln.outputChannels());
    Network network = build(config, input, train.classes().size());
    Network shaped = config.shaping().shape(network);
    return new Model(
        config,
        train.classes(),
        train.height(),
        train.width(),
        train.channels(),
        Arrays.stream(pln.mean()).boxed().toList(),
        Arrays.stream(pln.std()).boxed().toList(),
        pln.homogeneous(),
        ShapedActivation.of(shaped));
  }

  private static Network build(TrainingConfig config, Extent input, int classes) {
    return Networks.build(
        new Networks.Options(
            config.network(), config.block(), config.shortcutWeight(), (float) config.dropout()),
        input,
        classes);
  }

  /** The network, shaped. */
  public Network network() {
    return build(training, new Extent(height, width, channels + 1), classes.size())
        .with(activation.transformed(), activation.weightScale(), activation.biasDeviation());
  }

  /** Fills parameters as the configuration asks for. */
  public Initializer initializer() {
    return Initializer.delta(training.seed());
  }

  /** What makes the network's input of an image. */
  public PerLocationNormalization normalization() {
    return new PerLocationNormalization(
        mean.stream().mapToDouble(x -> x).toArray(),
        std.stream().mapToDouble(x -> x).toArray(),
        homogeneous);
  }

  /** What programs are compiled with. */
  public Program.Options options(boolean forTraining) {
    return new Program.Options(
        training.type(), (float) training.labelSmoothing(), forTraining, training.seed());
  }

  /**
   * Checks that a data set is of the kind that the network was made for.
   *
   * @throws IllegalArgumentException saying what differs
   */
  public void requireFits(ImageDataset data) {
    if (data.height() != height || data.width() != width || data.channels() != channels) {
      throw new IllegalArgumentException(
          String.format(
              "the model reads images of %dx%dx%d, the data %s has %dx%dx%d",
              height, width, channels, data.name(), data.height(), data.width(), data.channels()));
    }
    if (data.classes().size() != classes.size()) {
      throw new IllegalArgumentException(
          "the model knows "
              + classes.size()
              + " classes, the data "
              + data.name()
              + " has "
              + data.classes().size());
    }
  }

  /**
   * Checks that a checkpoint was saved by this very run: parameters of another activation or seed
   * would fit too, and mean nothing.
   *
   * @throws CheckpointException if its configuration is another one
   */
  public void requireOwn(Checkpoint checkpoint) {
    if (!toJson().equals(checkpoint.state().config())) {
      throw new CheckpointException(
          "the checkpoint belongs to another run: the configuration it was saved with differs from "
              + FILE
              + " beside it");
    }
  }

  /** As JSON, for people and programs. */
  public String toJson() {
    try {
      return JSON.writeValueAsString(this) + "\n";
    } catch (JsonProcessingException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  /**
   * Reads a run's config.json.
   *
   * @throws IOException naming the file and what is wrong with it
   */
  public static Model read(Path directory) throws IOException {
    Path file = directory.resolve(FILE);
    try {
      return JSON.readValue(Files.readString(file), Model.class);
    } catch (NoSuchFileException missing) {
      throw new IOException(
          file + " does not exist: " + directory + " is no folder of a training run", missing);
    } catch (JsonProcessingException malformed) {
      throw new IOException(
          file + " is not a configuration of this version: " + malformed.getOriginalMessage(),
          malformed);
    }
  }

  /** Saves it in a run's folder, atomically. */
  public void write(Path directory) throws IOException {
    AtomicFile.writeString(directory.resolve(FILE), toJson());
  }
}
