package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.nn.Layer;
import io.jtrelu.onnx.OnnxExporter;
import io.jtrelu.onnx.OnnxModel;
import io.jtrelu.pytorch.PyTorchFile;
import io.jtrelu.pytorch.TensorNames;
import io.jtrelu.train.TrainedModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu export}: writes a trained network in a format of others. */
@Command(
    name = "export",
    description = "Write a trained network as a file for other programs.",
    footer = {
      "",
      "An ONNX model takes images float32 [N, channels, height, width], normalised already, and gives"
          + " logits [N, classes], for any batch N. With --with-normalization it takes bytes uint8 [N,"
          + " height, width, channels], gray or red, green, blue, of the size that the network was"
          + " trained on, and gives probabilities. Class names and settings are in its metadata.",
      "",
      "A PyTorch file holds the parameters in PyTorch's layouts as safetensors; jtrelu.py beside it"
          + " builds the network: jtrelu.load(OUT) in Python."
    })
final class ExportCommand implements Callable<Integer> {
  /** What can be written. */
  private enum Format {
    ONNX(".onnx") {
      @Override
      Written write(ExportCommand command) throws IOException {
        OnnxModel model = OnnxExporter.export(command.trained, command.onnx());
        model.write(command.out);
        return new Written(model.inputs(), model.outputs());
      }
    },

    PYTORCH(".safetensors") {
      @Override
      Written write(ExportCommand command) throws IOException {
        Path module = command.out.resolveSibling(PyTorchFile.MODULE);
        if (Files.exists(module) && !PyTorchFile.isModule(module)) {
          throw new UsageException(
              module
                  + " exists and is not this library's; choose another folder for "
                  + command.out);
        }
        try (TrainedModel read = TrainedModel.open(command.trained)) {
          PyTorchFile.write(command.out, read.model(), read.parameters(), command.names);
          Layer.Extent in = read.model().network().input();
          return new Written(
              List.of(
                  String.format(
                      Locale.ROOT, "[N, %d, %d, %d]", in.channels(), in.height(), in.width())),
              List.of("logits [N, " + read.model().classes().size() + "]"));
        } catch (IllegalArgumentException unnamed) {
          throw new UsageException(String.valueOf(unnamed.getMessage()), unnamed);
        }
      }
    };

    private final String suffix;

    Format(String suffix) {
      this.suffix = suffix;
    }

    /** Writes the file, whole or not at all. */
    abstract Written write(ExportCommand command) throws IOException;

    /** The one that a file's name says. */
    static Format of(Path file) {
      String name = String.valueOf(file.getFileName()).toLowerCase(Locale.ROOT);
      return Arrays.stream(values())
          .filter(format -> name.endsWith(format.suffix))
          .findFirst()
          .orElseThrow(
              () ->
                  new UsageException(
                      "the name "
                          + file
                          + " does not tell the format; say --format, or end it with "
                          + Arrays.stream(values())
                              .map(format -> format.suffix)
                              .collect(Collectors.joining(" or "))));
    }
  }

  /**
   * What is in a file.
   *
   * @param inputs names, types and sizes
   * @param outputs likewise
   */
  private record Written(List<String> inputs, List<String> outputs) {}

  @ParentCommand private Main main;

  @Parameters(paramLabel = "OUT", description = "File to write.")
  private Path out;

  @Option(
      names = "--model",
      paramLabel = "RUN",
      required = true,
      description = "Folder of a training run, or a file of it such as best.safetensors.")
  private Path trained;

  @Option(
      names = "--format",
      paramLabel = "FORMAT",
      description = "${COMPLETION-CANDIDATES}; by default what the suffix of OUT says.")
  private @Nullable Format format;

  @Option(
      names = "--opset",
      paramLabel = "N",
      defaultValue = "17",
      description = "Version of ONNX's operators, 15 to 18 (${DEFAULT-VALUE}).")
  private int opset = 17;

  @Option(
      names = "--with-normalization",
      description = "Put the normalisation of images and the softmax into the model.")
  private boolean withNormalization;

  @Option(
      names = "--names",
      paramLabel = "NAMES",
      defaultValue = "JTRELU",
      description =
          "What layers are called in a PyTorch file: jtrelu, or timm for its ResNets' names"
              + " (${DEFAULT-VALUE}).")
  private TensorNames names = TensorNames.JTRELU;

  @Option(names = "--force", description = "Replace OUT if it exists.")
  private boolean force;

  @Option(names = "--json", description = "Print the result as JSON.")
  private boolean json;

  private OnnxExporter.Options onnx() {
    try {
      return new OnnxExporter.Options(opset, withNormalization);
    } catch (IllegalArgumentException outOfRange) {
      throw new UsageException(String.valueOf(outOfRange.getMessage()), outOfRange);
    }
  }

  @Override
  public Integer call() throws IOException {
    Format as = format != null ? format : Format.of(out);
    if (Files.isDirectory(out)) {
      throw new UsageException(out + " is a folder; name a file");
    }
    if (Files.exists(out) && !force) {
      throw new UsageException(out + " exists already; --force replaces it");
    }
    Written written = as.write(this);
    long bytes = Files.size(out);
    main.console().print(json ? json(as, bytes, written) : text(bytes, written));
    return 0;
  }

  private String text(long bytes, Written written) {
    return String.format(
        Locale.ROOT,
        "written: %s, %.1f MB%ninput:   %s%noutput:  %s",
        out,
        bytes / 1e6,
        String.join(", ", written.inputs),
        String.join(", ", written.outputs));
  }

  private String json(Format as, long bytes, Written written) throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode node =
        mapper
            .createObjectNode()
            .put("file", out.toString())
            .put("format", as.name().toLowerCase(Locale.ROOT))
            .put("bytes", bytes);
    written.inputs.forEach(node.withArray("inputs")::add);
    written.outputs.forEach(node.withArray("outputs")::add);
    return mapper.writerWithDefaultPrettyPrinter().writeValueAsString(node);
  }
}
