package io.jtrelu.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Tuning;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.ImageDecoder;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NetworkFormatException;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.PrintableText;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * What is trained and how: the contents of a run's config.json, and, beside the parameters, of its
 * checkpoint. Immutable.
 *
 * @param model what is trained
 * @param training how
 * @param data on what: {@code embedded}, {@code fashion-mnist}, a folder, or any name for images
 *     that the caller has in memory
 * @param dataDigest {@link ImageDataset#digest} of the training images, so that a run does not go
 *     on with others; null if it is not known, as of the first version
 * @param choices how the backend computes what it has several ways for, by problem, where that was
 *     measured ({@link TrainingConfig#tuning}): a run that goes on takes the same ways
 */
public record Run(
    Model model,
    TrainingConfig training,
    String data,
    @Nullable String dataDigest,
    Map<String, String> choices) {
  /** Name of its file in a run's folder. */
  public static final String FILE = "config.json";

  private static final String FORMAT = "jtrelu-run-2";

  /** Copies the choices. */
  public Run {
    choices = Collections.unmodifiableSortedMap(new TreeMap<>(choices));
  }

  /** A run without choices. */
  public Run(Model model, TrainingConfig training, String data, @Nullable String dataDigest) {
    this(model, training, data, dataDigest, Map.of());
  }

  /** The same run with choices. */
  Run withChoices(Map<String, String> made) {
    return new Run(model, training, data, dataDigest, made);
  }

  /** A run of a model, with the name that its training data have. */
  public static Run of(Model model, TrainingConfig training, Datasets data) {
    return of(model, training, data, data.train().name());
  }

  /**
   * A run of a model on data that have another name.
   *
   * @throws IllegalArgumentException if the data are not of the kind that the model was made for
   */
  public static Run of(Model model, TrainingConfig training, Datasets data, String name) {
    model.requireFits(data.train());
    return new Run(model, training, name, data.train().digest());
  }

  /**
   * A run of a network that comes with the library.
   *
   * @param name where the data can be opened again, as {@link Datasets#open(String)} takes it
   * @throws io.jtrelu.shaping.ShapingException if the network cannot reach the shaping target
   * @throws IllegalArgumentException if something named is unknown
   */
  public static Run of(
      Networks.Options network,
      ShapingConfig shaping,
      TrainingConfig training,
      Datasets data,
      String name) {
    ImageDataset train = data.train();
    Network plain = Networks.build(network, Model.input(train), train.classes().size());
    return of(Model.of(shaping.shape(plain), train, shaping), training, data, name);
  }

  /** Fills parameters as the configuration asks for. */
  Initializer initializer() {
    return Initializer.delta(training.seed());
  }

  /** What programs are compiled with. */
  Program.Options options(boolean forTraining) {
    return new Program.Options(
        training.type(), (float) training.labelSmoothing(), forTraining, training.seed());
  }

  /** As JSON, for people and programs. */
  public String toJson() {
    ObjectNode node = Json.MAPPER.createObjectNode().put("format", FORMAT);
    node.put("data", data);
    node.put("dataDigest", dataDigest);
    ObjectNode how = Json.MAPPER.valueToTree(training);
    if (training.exchange() == GradientExchange.TREE) {
      how.remove("exchange");
    }
    node.set("training", how);
    if (!choices.isEmpty()) {
      node.set("choices", Json.MAPPER.valueToTree(choices));
    }
    node.set("model", model.json());
    try {
      return Json.MAPPER.writeValueAsString(node) + "\n";
    } catch (JsonProcessingException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  /**
   * Reads a configuration, of this version or the one before it.
   *
   * @param where the file's name, for messages
   * @throws IOException naming the file and what is wrong
   */
  public static Run parse(String json, String where) throws IOException {
    try {
      JsonNode node = Json.MAPPER.readTree(json);
      if (node == null || !node.isObject()) {
        throw new IllegalArgumentException("expected a JSON object");
      }
      if (!node.has("format")) {
        return firstVersion(node);
      }
      Json.requireFormat(node, "the file", FORMAT);
      return new Run(
          Model.of(Json.required(node, "the file", "model")),
          training(Json.required(node, "the file", "training")),
          Json.required(node, "the file", "data").asText(),
          node.path("dataDigest").asText(null),
          choices(node.path("choices")));
    } catch (JsonProcessingException malformed) {
      throw new IOException(
          where + " is not a configuration of this version: " + malformed.getOriginalMessage(),
          malformed);
    } catch (IllegalArgumentException | NetworkFormatException malformed) {
      throw new IOException(
          where + " is not a configuration of this version: " + malformed.getMessage(), malformed);
    }
  }

  /**
   * How it is trained; earlier versions said nothing of K-FAC, as other optimisers do, tuning, or
   * crops of random area, and runs without shards, or with the usual exchange of gradients, say
   * nothing of them.
   */
  private static TrainingConfig training(JsonNode node) throws JsonProcessingException {
    JsonNode all = node.deepCopy();
    if (all instanceof ObjectNode training) {
      if (!training.has("kfac")) {
        training.putNull("kfac");
      }
      if (!training.has("shards")) {
        training.put("shards", 0);
      }
      if (!training.has("exchange")) {
        training.put("exchange", GradientExchange.TREE.name());
      }
      if (!training.has("tuning")) {
        training.put("tuning", Tuning.OFF.name());
      }
      if (!training.has("cropArea")) {
        training.put("cropArea", 1.0);
      }
    }
    return Json.MAPPER.treeToValue(all, TrainingConfig.class);
  }

  private static Map<String, String> choices(JsonNode node) {
    Map<String, String> choices = new TreeMap<>();
    node.properties().forEach(entry -> choices.put(entry.getKey(), entry.getValue().asText()));
    return choices;
  }

  /** Configurations without a format: the network is one by name, its activations are all alike. */
  private static Run firstVersion(JsonNode node) throws JsonProcessingException {
    if (!(Json.required(node, "the file", "training") instanceof ObjectNode given)) {
      throw new IllegalArgumentException("training must be an object");
    }
    ObjectNode training = given.deepCopy();
    JsonNode a = Json.required(node, "the file", "activation");
    int channels = Json.integer(node, "the file", "channels");
    ShapingConfig shaping = ShapingConfig.read(Json.required(training, "training", "shaping"));
    Networks.Options options =
        new Networks.Options(
            Json.required(training, "training", "network").asText(),
            Networks.Block.valueOf(
                Json.required(training, "training", "block").asText().toUpperCase(Locale.ROOT)),
            Json.number(training, "training", "shortcutWeight"),
            (float) Json.number(training, "training", "dropout"));
    String data = Json.required(training, "training", "data").asText();
    training.remove(List.of("network", "block", "shortcutWeight", "shaping", "data", "dropout"));
    List<String> classes = Json.strings(Json.required(node, "the file", "classes"), "classes");
    int height = Json.integer(node, "the file", "height");
    int width = Json.integer(node, "the file", "width");
    TransformedActivation function =
        new TransformedActivation(
            ShapingConfig.of("none", Json.required(a, "activation", "function").asText())
                .function(),
            Json.number(a, "activation", "inputScale"),
            Json.number(a, "activation", "inputShift"),
            Json.number(a, "activation", "outputScale"),
            Json.number(a, "activation", "outputShift"),
            Json.number(a, "activation", "negativeSlope"));
    Network network =
        Networks.build(options, new Extent(height, width, channels + 1), classes.size())
            .with(
                function,
                Json.number(a, "activation", "weightScale"),
                Json.number(a, "activation", "biasDeviation"));
    PerLocationNormalization normalization =
        new PerLocationNormalization(
            Json.numbers(Json.required(node, "the file", "mean"), "mean"),
            Json.numbers(Json.required(node, "the file", "std"), "std"),
            Json.MAPPER.treeToValue(
                Json.required(node, "the file", "homogeneous"),
                PerLocationNormalization.Homogeneous.class));
    return new Run(
        new Model(network, classes, height, width, channels, normalization, shaping),
        training(training),
        data,
        null);
  }

  /** Whether its images are streamed from their files ({@link ImageDataset#isStreamed}). */
  public boolean isStreamed() {
    return dataDigest != null && dataDigest.startsWith(ImageDataset.OF_FILES);
  }

  /**
   * Checks that data are those that the run began with.
   *
   * @throws IllegalArgumentException saying what differs
   */
  void requireSame(Datasets datasets) {
    model.requireFits(datasets.train());
    if (dataDigest != null && !dataDigest.equals(datasets.train().digest())) {
      throw new IllegalArgumentException(
          "the training images of "
              + PrintableText.quoted(data)
              + " are not those that the run began with (now "
              + datasets.train().size()
              + "): bring them back, or begin a new run with the parameters of this one (train"
              + " --from)"
              + (isStreamed()
                  ? ""
                  : "; if only their JPEGs are decoded otherwise now, by "
                      + ImageDecoder.jpegDecoder()
                      + ", set the system property jtrelu.jpeg as it was (imageio before"
                      + " libjpeg-turbo was known)"));
    }
  }

  /**
   * Checks that a checkpoint was saved by this very run: parameters of another activation or seed
   * would fit too, and mean nothing.
   *
   * @throws CheckpointException if its configuration is another one
   */
  void requireOwn(Checkpoint checkpoint) {
    if (!toJson().equals(checkpoint.run().toJson())) {
      throw new CheckpointException(
          "the checkpoint belongs to another run: the configuration it was saved with differs from "
              + FILE
              + " beside it");
    }
  }

  /**
   * Reads a run's config.json.
   *
   * @throws IOException naming the file and what is wrong with it
   */
  public static Run read(Path folder) throws IOException {
    Path file = folder.resolve(FILE);
    try {
      return parse(Files.readString(file), file.toString());
    } catch (NoSuchFileException missing) {
      throw new IOException(
          file + " does not exist: " + folder + " is no folder of a training run", missing);
    }
  }

  /**
   * Makes the folder of a run that begins with parameters from elsewhere, before any step. Whoever
   * takes the folder of a trained run takes it: predictor, evaluation, further training.
   *
   * @param folder made if it is missing
   * @param parameters of the model's network, in host memory
   * @throws IOException if the folder holds files already, or cannot be written
   */
  public void save(Path folder, Parameters parameters) throws IOException {
    Files.createDirectories(folder);
    try (Stream<Path> files = Files.list(folder)) {
      if (files.findAny().isPresent()) {
        throw new DirectoryNotEmptyException(folder.toString());
      }
    }
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    List<ParameterSpec> specs = model.network().parameters();
    for (int p = 0; p < specs.size(); p++) {
      tensors.put(specs.get(p).name(), parameters.view(p));
    }
    TrainingState state =
        new TrainingState(0, 0, 0, Map.of("run", training.seed()), toJson(), Double.NaN);
    Checkpoint.save(folder.resolve(Trainer.CHECKPOINT), state, tensors, Map.of());
    write(folder);
  }

  /** Saves it in a run's folder, atomically. */
  void write(Path folder) throws IOException {
    AtomicFile.writeString(folder.resolve(FILE), toJson());
  }
}
