package io.jtrelu.train;

import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A model with its parameters in host memory: read from a run, for whoever wants the values (to
 * classify images there is {@link io.jtrelu.inference.Predictor}). Owns the memory.
 */
public final class TrainedModel implements AutoCloseable {
  private final Model model;
  private final Parameters parameters;

  /** With parameters that are all zero. */
  public TrainedModel(Model model) {
    this.model = model;
    this.parameters = Parameters.onHost(model.network());
  }

  /**
   * Reads a trained model. The caller closes the result.
   *
   * @param trained folder of a run, for its last checkpoint, or a checkpoint
   * @throws CheckpointException if a tensor in it is not what was saved
   * @throws IOException if it cannot be read or is not one
   */
  public static TrainedModel open(Path trained) throws IOException {
    Path file = Files.isDirectory(trained) ? trained.resolve(Trainer.CHECKPOINT) : trained;
    try (Checkpoint checkpoint = Checkpoint.open(file)) {
      TrainedModel result = new TrainedModel(checkpoint.run().model());
      try {
        Map<String, Tensor> byName = new LinkedHashMap<>();
        List<ParameterSpec> specs = result.model.network().parameters();
        for (int p = 0; p < specs.size(); p++) {
          byName.put(specs.get(p).name(), result.parameters.view(p));
        }
        checkpoint.restore(byName);
        return result;
      } catch (Throwable failure) {
        result.close();
        throw failure;
      }
    }
  }

  /** The model. */
  public Model model() {
    return model;
  }

  /** The values, in host memory, until this is closed. */
  public Parameters parameters() {
    return parameters;
  }

  /** Releases the parameters. Idempotent. */
  @Override
  public void close() {
    parameters.close();
  }
}
