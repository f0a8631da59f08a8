package io.jtrelu.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Program;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.Tat;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

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
 * @param negativeSlope of the rectifier
 * @param outputScale of the rectifier
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
    @JsonProperty(required = true) double negativeSlope,
    @JsonProperty(required = true) double outputScale) {
  /** Name of its file in a run's folder. */
  public static final String FILE = "config.json";

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
    Rectifier rectifier = rectifier(shape(config, network));
    return new Model(
        config,
        train.classes(),
        train.height(),
        train.width(),
        train.channels(),
        Arrays.stream(pln.mean()).boxed().toList(),
        Arrays.stream(pln.std()).boxed().toList(),
        pln.homogeneous(),
        rectifier.slope(),
        rectifier.scale());
  }

  private static Network build(TrainingConfig config, Extent input, int classes) {
    return Networks.build(
        new Networks.Options(
            config.network(), config.block(), config.shortcutWeight(), (float) config.dropout()),
        input,
        classes);
  }

  /** The solver's answer for a configuration, or null where it asks for none. */
  public static @Nullable Shaping shape(TrainingConfig config, Network network) {
    ShapingConfig shaping = config.shaping();
    return switch (shaping.method()) {
      case "tat" ->
          Tat.eta(shaping.eta())
              .solve(network.signalGraph(), io.jtrelu.shaping.Activation.LEAKY_RELU);
      case "he" -> null;
      default ->
          throw new IllegalArgumentException(
              "unknown shaping method '" + shaping.method() + "'; known are tat, he");
    };
  }

  private static Rectifier rectifier(@Nullable Shaping shaping) {
    return shaping == null
        ? Rectifier.tailored(0)
        : Rectifier.tailored(shaping.activation().negativeSlope());
  }

  /** The network. */
  public Network network() {
    return build(training, new Extent(height, width, channels + 1), classes.size());
  }

  /** The activation. */
  public Rectifier rectifier() {
    return new Rectifier((float) negativeSlope, (float) outputScale);
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
        rectifier(),
        training.type(),
        (float) training.labelSmoothing(),
        forTraining,
        training.seed());
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
