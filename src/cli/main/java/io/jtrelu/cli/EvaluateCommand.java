package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.inference.Classification;
import io.jtrelu.inference.Predictor;
import io.jtrelu.report.EvaluationReport;
import io.jtrelu.train.AtomicFile;
import io.jtrelu.train.Run;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu evaluate}: measures a trained network on labelled images. */
@Command(
    name = "evaluate",
    description = "Measure a trained network on test images.",
    footer = {
      "",
      "Classes are matched by name, and images are brought to the size and colour that the network"
          + " was trained on. The cross-entropy is that of the labels as they are; the loss of the"
          + " training, with its label smoothing, is told beside it."
    })
final class EvaluateCommand implements Callable<Integer> {
  @ParentCommand private Main main;

  @Option(
      names = "--model",
      paramLabel = "RUN",
      required = true,
      description = "Folder of a training run, or a file of it such as best.safetensors.")
  private Path trained;

  @Option(
      names = "--data",
      paramLabel = "DATA",
      description =
          "Data whose test images are used, or a folder of images by class without training images,"
              + " of which all are; by default the data of the run.")
  private @Nullable String data;

  @Mixin private ReadingOptions reading = new ReadingOptions();

  @Option(
      names = "--device",
      paramLabel = "DEVICE",
      defaultValue = "auto",
      description =
          "auto, cpu[:lanes], reference[:lanes], cuda[:index] or emulated (${DEFAULT-VALUE}).")
  private String device = "auto";

  @Option(
      names = "--report",
      paramLabel = "FILE.html",
      description = "Write a page with the confusion matrix and the most confident mistakes.")
  private @Nullable Path report;

  @Option(names = "--json", description = "Print the result as JSON.")
  private boolean json;

  @Override
  public Integer call() throws IOException {
    Console console = main.console();
    Run run = TrainCommand.earlier(trained);
    String name = data != null ? data : run.data();
    ImageDataset images = RunOptions.openTest(name, run.model(), reading.reading(), console);
    Classification result;
    try (Backend backend = RunOptions.openDevice(device);
        Predictor predictor = Predictor.open(trained, backend)) {
      if (predictor.type() != run.training().type()) {
        console.note(
            "the network was trained in "
                + run.training().type()
                + ", which "
                + backend.name()
                + " has not here; measured in "
                + predictor.type());
      }
      result = predictor.evaluate(images);
    }
    RunFigures.skipped(images).ifPresent(console::note);
    double smoothing = run.training().labelSmoothing();
    String network = run.model().network().name();
    if (report != null) {
      EvaluationReport page =
          new EvaluationReport(
              network + " on " + images.name(), "", result, images, RunFigures.environment());
      AtomicFile.writeString(report, page.html());
    }
    console.print(
        json ? json(name, images, result, smoothing) : text(network, images, result, smoothing));
    if (report != null && !json) {
      console.print("report: " + report);
    }
    return 0;
  }

  private static String text(
      String network, ImageDataset data, Classification result, double smoothing) {
    StringBuilder text = new StringBuilder();
    text.append(
        String.format(
            Locale.ROOT,
            "%s on %,d images of %s: accuracy %.2f %%, cross-entropy %.4f%s%n",
            network,
            result.images(),
            data.name(),
            100 * result.accuracy(),
            result.loss(),
            smoothing == 0
                ? ""
                : String.format(
                    Locale.ROOT,
                    ", loss of the training (smoothing %s) %.4f",
                    smoothing,
                    result.smoothedLoss(smoothing))));
    int width = result.classes().stream().mapToInt(String::length).max().orElse(0);
    for (int i = 0; i < result.classes().size(); i++) {
      int images = result.imagesOf(i);
      if (images == 0) {
        continue;
      }
      text.append(
          String.format(
              Locale.ROOT,
              "  %-" + width + "s %6.2f %% of %,d%s%n",
              result.classes().get(i),
              100 * result.accuracyOf(i),
              images,
              confusedWith(result, i)));
    }
    return text.toString().stripTrailing();
  }

  /** The class that one is most often taken for, after a comma; nothing where it never is. */
  private static String confusedWith(Classification result, int label) {
    int most = 0;
    int other = -1;
    for (int i = 0; i < result.classes().size(); i++) {
      int count = result.confusion().get(label).get(i);
      if (i != label && count > most) {
        most = count;
        other = i;
      }
    }
    return other < 0 ? "" : "; " + most + " taken for " + result.classes().get(other);
  }

  private String json(String name, ImageDataset images, Classification result, double smoothing)
      throws IOException {
    ObjectMapper mapper = new ObjectMapper();
    ObjectNode node =
        mapper
            .createObjectNode()
            .put("model", trained.toString())
            .put("data", name)
            .put("images", result.images())
            .put("skipped", images.skipped().size())
            .put("test_accuracy", result.accuracy())
            .put("cross_entropy", result.loss())
            .put("test_loss", result.smoothedLoss(smoothing))
            .put("label_smoothing", smoothing);
    ArrayNode classes = node.putArray("classes");
    for (int i = 0; i < result.classes().size(); i++) {
      ObjectNode one =
          classes
              .addObject()
              .put("name", result.classes().get(i))
              .put("images", result.imagesOf(i));
      if (result.imagesOf(i) > 0) {
        one.put("accuracy", result.accuracyOf(i));
      }
      result.confusion().get(i).forEach(one.withArray("taken_for")::add);
    }
    return mapper.writerWithDefaultPrettyPrinter().writeValueAsString(node);
  }
}
