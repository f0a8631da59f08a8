package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.onnx.ImportedNetwork;
import io.jtrelu.onnx.OnnxImporter;
import io.jtrelu.pytorch.PyTorchFile;
import io.jtrelu.train.Model;
import io.jtrelu.train.Run;
import io.jtrelu.train.TrainedModel;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.nio.charset.MalformedInputException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu import}: makes the folder of a model of an ONNX or PyTorch file. */
@Command(
    name = "import",
    description =
        "Read a network from an ONNX or safetensors file into a folder, as training leaves one.",
    footer = {
      "",
      "predict, evaluate, export and train --from take the folder; say --data for evaluate and train."
          + " What jtrelu export wrote comes back whole, with classes and normalisation. Of others"
          + " plain convolutional networks for gray or colour images of a fixed size are read; their"
          + " images are (bytes / 255 - mean) / std."
    })
final class ImportCommand implements Callable<Integer> {
  private static final long MOST_BYTES = 1 << 20;

  @ParentCommand private Main main;

  @Parameters(paramLabel = "FILE", description = "The model, .onnx or .safetensors.")
  private Path file;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      required = true,
      description = "Folder to make; must not exist or be empty.")
  private Path out;

  @Option(
      names = "--classes",
      paramLabel = "FILE",
      description = "Names of the classes, one a line; by default those in the file, or numbers.")
  private @Nullable Path classes;

  @Option(
      names = "--mean",
      paramLabel = "R,G,B",
      hideParamSyntax = true,
      split = ",",
      description = "What is subtracted from each channel, where white is 1 (0).")
  private double @Nullable [] mean;

  @Option(
      names = "--std",
      paramLabel = "R,G,B",
      hideParamSyntax = true,
      split = ",",
      description = "What each channel is divided by, where white is 1 (1).")
  private double @Nullable [] std;

  @Option(
      names = "--like",
      paramLabel = "RUN",
      description =
          "A model of the same network, for a PyTorch file that does not say which that is. Names of"
              + " its tensors are the network's, or those of timm's ResNets.")
  private @Nullable Path like;

  @Option(names = "--json", description = "Print the result as JSON.")
  private boolean json;

  @Override
  public Integer call() throws IOException {
    Console console = main.console();
    Model model = isPyTorch() ? pyTorch() : onnx(console);
    console.print(json ? json(model) : text(model));
    return 0;
  }

  private boolean isPyTorch() {
    String name = String.valueOf(file.getFileName()).toLowerCase(Locale.ROOT);
    return name.endsWith(".safetensors");
  }

  /** Parameters by PyTorch's names, for the network that the file or another model describes. */
  private Model pyTorch() throws IOException {
    Model known;
    if (like == null) {
      known = PyTorchFile.model(file);
    } else {
      try (TrainedModel other = TrainedModel.open(like)) {
        known = other.model();
      }
    }
    Model model = renamed(known);
    try (TrainedModel read = new TrainedModel(model)) {
      PyTorchFile.read(file, read.parameters());
      new Run(model, TrainingConfig.builder().build(), "imported", null)
          .save(out, read.parameters());
    }
    return model;
  }

  private Model onnx(Console console) throws IOException {
    if (like != null) {
      throw new UsageException("--like is for PyTorch's files; an ONNX model says what it is");
    }
    Model model;
    try (ImportedNetwork imported = OnnxImporter.read(file)) {
      imported.notes().forEach(console::note);
      Model known = imported.model().orElse(null);
      model = known != null ? renamed(known) : model(imported.network(), console);
      new Run(model, TrainingConfig.builder().build(), "imported", null)
          .save(out, imported.parameters());
    }
    return model;
  }

  /** A model that the file describes. */
  private Model renamed(Model known) throws IOException {
    if (mean != null || std != null) {
      throw new UsageException(
          (mean != null ? "--mean" : "--std")
              + " has no effect: "
              + file
              + " says itself how images are normalised");
    }
    if (classes == null) {
      return known;
    }
    return new Model(
        known.network(),
        names(classes, known.classes().size()),
        known.height(),
        known.width(),
        known.channels(),
        known.normalization(),
        known.shaping());
  }

  /** A model around a network of others. */
  private Model model(Network network, Console console) throws IOException {
    Extent in = network.input();
    int channels = in.channels();
    if (channels != 1 && channels != 3) {
      throw new IOException(
          file
              + ": the network reads "
              + channels
              + " channels, pictures have 1 or 3; with OnnxImporter a program can use it all the"
              + " same");
    }
    if (!network.isClassifier()) {
      throw new IOException(
          file
              + ": the network has outputs other than one vector of logits; with OnnxImporter a"
              + " program can use it all the same");
    }
    if (mean == null && std == null) {
      console.note("without --mean and --std, the network is given bytes / 255");
    }
    PerLocationNormalization normalization;
    try {
      normalization =
          new PerLocationNormalization(
              constants("--mean", mean, channels, 0),
              constants("--std", std, channels, 1),
              Homogeneous.NONE);
    } catch (IllegalArgumentException outOfRange) {
      throw new UsageException(String.valueOf(outOfRange.getMessage()), outOfRange);
    }
    int count = network.classes();
    List<String> names =
        classes != null
            ? names(classes, count)
            : IntStream.range(0, count).mapToObj(Integer::toString).toList();
    return new Model(network, names, in.height(), in.width(), channels, normalization, null);
  }

  private static double[] constants(
      String option, double @Nullable [] given, int channels, double otherwise) {
    if (given == null) {
      double[] all = new double[channels];
      Arrays.fill(all, otherwise);
      return all;
    }
    if (given.length != channels) {
      throw new UsageException(
          option + " has " + given.length + " numbers for " + channels + " channels");
    }
    return given;
  }

  private static List<String> names(Path file, int count) throws IOException {
    if (Files.size(file) > MOST_BYTES) {
      throw new UsageException(file + " is too large for names of classes");
    }
    List<String> names;
    try {
      names =
          Files.readAllLines(file).stream().map(String::strip).filter(n -> !n.isEmpty()).toList();
    } catch (MalformedInputException notText) {
      throw new IOException(file + " is no text in UTF-8", notText);
    }
    if (names.size() != count) {
      throw new UsageException(file + " has " + names.size() + " names for " + count + " classes");
    }
    return names;
  }

  private String text(Model model) {
    return String.format(
        Locale.ROOT,
        "%s: %d activations deep, %,d parameters, %d classes, images of %dx%dx%d%nmodel: %s",
        model.network().name(),
        model.network().depth(),
        model.network().parameterCount(),
        model.classes().size(),
        model.height(),
        model.width(),
        model.channels(),
        out);
  }

  private String json(Model model) throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode node =
        mapper
            .createObjectNode()
            .put("network", model.network().name())
            .put("directory", out.toString())
            .put("depth", model.network().depth())
            .put("parameters", model.network().parameterCount());
    model.classes().forEach(node.withArray("classes")::add);
    return mapper.writerWithDefaultPrettyPrinter().writeValueAsString(node);
  }
}
