package io.jtrelu.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NetworkFormatException;
import io.jtrelu.nn.NetworkJson;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A network that tells classes of images apart, with all that is needed, beside its parameters, to
 * use it: what its input is made of and what its outputs mean. Any {@link Network} with one output
 * of 1x1 will do. Immutable.
 *
 * @param network reads {@code height x width} images of as many channels as the normalisation
 *     gives, which are mostly one more, the homogeneous one; shaped already
 * @param classes names of the classes, in the order of the logits
 * @param height rows of an image
 * @param width columns of an image
 * @param channels channels of an image, 1 or 3
 * @param normalization what makes the network's input of an image
 * @param shaping how the network's activations got their parameters, for people; null where nobody
 *     said so
 */
public record Model(
    Network network,
    List<String> classes,
    int height,
    int width,
    int channels,
    PerLocationNormalization normalization,
    @Nullable ShapingConfig shaping) {
  private static final String FORMAT = "jtrelu-model-2";

  /**
   * @throws IllegalArgumentException if network, classes and images do not fit together
   */
  public Model {
    classes = List.copyOf(classes);
    if (normalization.channels() != channels) {
      throw new IllegalArgumentException(
          "the normalisation is for "
              + normalization.channels()
              + " channels, the images have "
              + channels);
    }
    Extent input = new Extent(height, width, normalization.outputChannels());
    if (!network.input().equals(input)) {
      throw new IllegalArgumentException(
          "network "
              + network
              + " reads "
              + network.input()
              + "; images of "
              + new Extent(height, width, channels)
              + " give it "
              + input
              + (input.channels() > channels ? " (the homogeneous channel is one more)" : ""));
    }
    if (!network.isClassifier()) {
      throw new IllegalArgumentException(
          "network "
              + network
              + " has outputs other than one vector of logits; it cannot tell classes apart");
    }
    if (classes.size() < 2) {
      throw new IllegalArgumentException(
          "there is nothing to tell apart: of two or more classes, "
              + classes.size()
              + " is given");
    }
    if (network.classes() != classes.size()) {
      throw new IllegalArgumentException(
          "network "
              + network
              + " has "
              + network.classes()
              + " logits for "
              + classes.size()
              + " classes");
    }
  }

  /**
   * A model of a network for a training set: image size, classes and the constants of the
   * normalisation are the set's.
   *
   * @param network shaped already, of {@link #input(ImageDataset)}
   * @throws IllegalArgumentException if the network is not one for such images and classes
   */
  public static Model of(Network network, ImageDataset train) {
    return of(network, train, null);
  }

  /**
   * As {@link #of(Network, ImageDataset)}, with a note of how the network was shaped.
   *
   * @throws IllegalArgumentException likewise
   */
  public static Model of(Network network, ImageDataset train, @Nullable ShapingConfig shaping) {
    return new Model(
        network,
        train.classes(),
        train.height(),
        train.width(),
        train.channels(),
        PerLocationNormalization.of(train),
        shaping);
  }

  /**
   * This model for other classes: itself where they are the same, else with another last layer,
   * whose parameters are to be learnt.
   *
   * @throws IllegalArgumentException if the network does not end with a fully connected layer
   */
  public Model withClasses(List<String> others) {
    if (others.equals(classes)) {
      return this;
    }
    return new Model(
        network.withClasses(others.size()),
        others,
        height,
        width,
        channels,
        normalization,
        shaping);
  }

  /**
   * What a network for such images reads with the default normalisation: their channels and the
   * homogeneous one.
   */
  public static Extent input(ImageDataset data) {
    return new Extent(data.height(), data.width(), data.channels() + 1);
  }

  /**
   * Checks that a data set is of the kind that the model was made for.
   *
   * @throws IllegalArgumentException saying what differs
   */
  public void requireFits(ImageDataset data) {
    if (data.height() != height || data.width() != width || data.channels() != channels) {
      throw new IllegalArgumentException(
          "the model reads images of "
              + new Extent(height, width, channels)
              + ", the data "
              + data.name()
              + " has "
              + new Extent(data.height(), data.width(), data.channels()));
    }
    if (!data.classes().equals(classes)) {
      throw new IllegalArgumentException(
          "the model knows the classes "
              + classes
              + ", the data "
              + data.name()
              + " has "
              + data.classes());
    }
  }

  ObjectNode json() {
    ObjectNode node = Json.MAPPER.createObjectNode().put("format", FORMAT);
    classes.forEach(node.putArray("classes")::add);
    ObjectNode image = node.putObject("image");
    image.put("height", height).put("width", width).put("channels", channels);
    for (double mean : normalization.mean()) {
      image.withArray("mean").add(mean);
    }
    for (double std : normalization.std()) {
      image.withArray("std").add(std);
    }
    image.put("homogeneous", normalization.homogeneous().name());
    node.set("shaping", Json.MAPPER.valueToTree(shaping));
    node.set("network", NetworkJson.write(network));
    return node;
  }

  static Model of(JsonNode node) throws JsonProcessingException {
    Json.requireFormat(node, "model", FORMAT);
    JsonNode image = Json.required(node, "model", "image");
    JsonNode shaping = node.get("shaping");
    return new Model(
        NetworkJson.read(Json.required(node, "model", "network")),
        Json.strings(Json.required(node, "model", "classes"), "model.classes"),
        Json.integer(image, "model.image", "height"),
        Json.integer(image, "model.image", "width"),
        Json.integer(image, "model.image", "channels"),
        new PerLocationNormalization(
            Json.numbers(Json.required(image, "model.image", "mean"), "model.image.mean"),
            Json.numbers(Json.required(image, "model.image", "std"), "model.image.std"),
            Json.MAPPER.treeToValue(
                Json.required(image, "model.image", "homogeneous"),
                PerLocationNormalization.Homogeneous.class)),
        shaping == null || shaping.isNull() ? null : ShapingConfig.read(shaping));
  }

  /**
   * All of it as JSON, for files of other kinds than a run's.
   *
   * @throws IllegalArgumentException if it could not be read back, as {@link NetworkJson#write}
   *     says
   */
  public String toJson() {
    return json().toString();
  }

  /**
   * Reads what {@link #toJson} wrote.
   *
   * @param where it was found, for messages
   * @throws IOException saying where and what is wrong with it
   */
  public static Model parse(String json, String where) throws IOException {
    try {
      return of(Json.MAPPER.readTree(json));
    } catch (JsonProcessingException malformed) {
      throw new IOException(
          where + " is no model of this version: " + malformed.getOriginalMessage(), malformed);
    } catch (IllegalArgumentException | NetworkFormatException malformed) {
      throw new IOException(
          where + " is no model of this version: " + malformed.getMessage(), malformed);
    }
  }

  /**
   * Reads the model of a training run, without its parameters.
   *
   * @param folder of the run
   * @throws IOException naming the file and what is wrong with it
   */
  public static Model read(Path folder) throws IOException {
    return Run.read(folder).model();
  }
}
