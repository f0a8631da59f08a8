package io.jtrelu.train;

import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A model with its parameters in host memory: read from a run, for whoever wants the values (to
 * classify images there is {@link io.jtrelu.inference.Predictor}). Owns the memory.
 */
public final class TrainedModel implements AutoCloseable {
  private final Model model;
  private final List<Tensor> tensors = new ArrayList<>();
  private final Parameters parameters;

  /** With parameters that are all zero. */
  public TrainedModel(Model model) {
    this.model = model;
    for (ParameterSpec spec : model.network().parameters()) {
      tensors.add(Tensor.allocate(spec.shape(), DataType.F32, spec.layout()));
    }
    this.parameters = Parameters.over(model.network(), tensors);
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
        Network network = result.model.network();
        Map<String, Tensor> byName = new LinkedHashMap<>();
        for (int p = 0; p < result.tensors.size(); p++) {
          byName.put(network.parameters().get(p).name(), result.tensors.get(p));
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
    tensors.forEach(Tensor::close);
  }
}
