package io.jtrelu.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.backend.Backend;
import io.jtrelu.data.Datasets;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.Evaluation;
import io.jtrelu.train.Model;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu evaluate}: measures a trained network on test images. */
@Command(name = "evaluate", description = "Measure a trained network on test images.")
final class EvaluateCommand implements Callable<Integer> {
  private static final int BATCH = 64;

  @ParentCommand private Main main;

  @Option(
      names = "--model",
      paramLabel = "DIR",
      required = true,
      description = "Folder of a training run.")
  private Path directory;

  @Option(
      names = "--data",
      paramLabel = "DATA",
      description = "Data whose test images are used; by default that of the run.")
  private @Nullable String data;

  @Option(
      names = "--device",
      paramLabel = "DEVICE",
      defaultValue = "auto",
      description =
          "auto, cpu[:lanes], reference[:lanes], cuda[:index] or emulated (${DEFAULT-VALUE}).")
  private String device = "auto";

  @Option(names = "--json", description = "Print the result as JSON.")
  private boolean json;

  @Override
  public Integer call() throws IOException {
    Console console = main.console();
    Model model = Model.read(directory);
    String name = data != null ? data : model.training().data();
    Datasets datasets = RunOptions.open(name, console);
    model.requireFits(datasets.test());
    Network network = model.network();
    Evaluation result;
    try (Backend backend = RunOptions.openDevice(device);
        Parameters parameters = Parameters.allocate(network, backend);
        Checkpoint checkpoint = Checkpoint.open(directory.resolve(Trainer.CHECKPOINT));
        BatchExecutor executor =
            new BatchExecutor(
                network,
                backend,
                BATCH,
                BatchExecutor.microBatch(network, backend, model.training().type(), BATCH),
                model.options(false))) {
      model.requireOwn(checkpoint);
      Trainer.restoreParameters(checkpoint, backend, parameters);
      executor.load(parameters);
      result = Evaluation.run(executor, model, datasets.test(), BATCH);
    }
    if (json) {
      ObjectMapper mapper = new ObjectMapper();
      console.print(
          mapper
              .writerWithDefaultPrettyPrinter()
              .writeValueAsString(
                  mapper
                      .createObjectNode()
                      .put("model", directory.toString())
                      .put("data", name)
                      .put("images", result.images())
                      .put("test_loss", result.loss())
                      .put("test_accuracy", result.accuracy())));
    } else {
      console.print(
          String.format(
              Locale.ROOT,
              "%s on %,d test images of %s: accuracy %.2f %%, loss %.4f",
              network.name(),
              result.images(),
              datasets.test().name(),
              100 * result.accuracy(),
              result.loss()));
    }
    return 0;
  }
}
