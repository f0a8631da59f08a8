package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.data.DataException;
import io.jtrelu.inference.Prediction;
import io.jtrelu.inference.Predictor;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu predict}: tells what is on pictures. */
@Command(
    name = "predict",
    description = "Classify pictures with a trained network.",
    footer = {
      "",
      "Pictures are brought to the size and colour that the network was trained on. A picture that"
          + " cannot be read is named, the others are classified, and the exit code is 1."
    })
final class PredictCommand implements Callable<Integer> {
  @ParentCommand private Main main;

  @Parameters(paramLabel = "IMAGE", arity = "1..*", description = "PNG or JPEG files.")
  private List<Path> images = List.of();

  @Option(
      names = "--model",
      paramLabel = "RUN",
      description =
          "Folder of a training run, or a file of it such as best.safetensors; by default the run in"
              + " runs/ that was trained last.")
  private @Nullable Path trained;

  @Option(
      names = "--top",
      paramLabel = "K",
      defaultValue = "1",
      description = "Show the K most probable classes (${DEFAULT-VALUE}).")
  private int top = 1;

  @Option(
      names = "--device",
      paramLabel = "DEVICE",
      defaultValue = "auto",
      description = "auto, cpu, reference, cuda[:n] or emulated (${DEFAULT-VALUE}).")
  private String device = "auto";

  @Option(names = "--json", description = "Print the result as JSON.")
  private boolean json;

  @Override
  public Integer call() throws IOException {
    if (top < 1) {
      throw new UsageException("--top must be 1 or more, got " + top);
    }
    Console console = main.console();
    Path model = trained;
    if (model == null) {
      model = trainedLast();
      console.note("model: " + model);
    }
    ObjectMapper mapper = new ObjectMapper();
    ArrayNode results = mapper.createArrayNode();
    boolean all = true;
    try (Backend backend = RunOptions.openDevice(device);
        Predictor predictor = Predictor.open(model, backend)) {
      for (Path image : images) {
        try {
          Prediction prediction = predictor.predict(image);
          if (json) {
            results.add(json(mapper, image, prediction));
          } else {
            console.print(text(image, prediction));
          }
        } catch (DataException unreadable) {
          all = false;
          console.note("error: " + unreadable.getMessage());
        }
      }
    }
    if (json) {
      console.print(mapper.writerWithDefaultPrettyPrinter().writeValueAsString(results));
    }
    return all ? 0 : 1;
  }

  private static Path trainedLast() throws IOException {
    Path runs = Path.of("runs");
    Path last = null;
    FileTime newest = null;
    if (Files.isDirectory(runs)) {
      List<Path> folders;
      try (Stream<Path> entries = Files.list(runs)) {
        folders = new ArrayList<>(entries.sorted().toList());
      }
      for (Path folder : folders) {
        Path checkpoint = folder.resolve(Trainer.CHECKPOINT);
        if (Files.isRegularFile(checkpoint)) {
          FileTime time = Files.getLastModifiedTime(checkpoint);
          if (newest == null || time.compareTo(newest) > 0) {
            newest = time;
            last = folder;
          }
        }
      }
    }
    if (last == null) {
      throw new UsageException(
          "there is no trained network in "
              + runs.toAbsolutePath()
              + ": train one with jtrelu train,"
              + " or name one with --model RUN");
    }
    return last;
  }

  private String text(Path image, Prediction prediction) {
    List<String> ranked = new ArrayList<>();
    for (Prediction.Ranked one : prediction.top(top)) {
      ranked.add(String.format(Locale.ROOT, "%s %.1f %%", one.name(), 100 * one.probability()));
    }
    return image + ": " + String.join(", ", ranked);
  }

  private ObjectNode json(ObjectMapper mapper, Path image, Prediction prediction) {
    ObjectNode node = mapper.createObjectNode().put("image", image.toString());
    ArrayNode ranked = node.putArray("classes");
    for (Prediction.Ranked one : prediction.top(top)) {
      ranked.addObject().put("name", one.name()).put("probability", one.probability());
    }
    return node;
  }
}
