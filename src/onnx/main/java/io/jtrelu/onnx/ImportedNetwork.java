package io.jtrelu.onnx;

import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.train.Model;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/** A network that was read from an ONNX file. Owns the parameters' memory; close it. */
public final class ImportedNetwork implements AutoCloseable {
  private final Network network;
  private final @Nullable Model model;
  private final Parameters parameters;
  private final List<String> notes;

  ImportedNetwork(
      Network network, @Nullable Model model, List<float[]> values, List<String> notes) {
    this.network = network;
    this.model = model;
    this.notes = List.copyOf(notes);
    this.parameters = Parameters.onHost(network);
    for (int p = 0; p < values.size(); p++) {
      parameters.view(p).set(values.get(p));
    }
  }

  /** The network. */
  public Network network() {
    return network;
  }

  /** Its parameters, in host memory, until this is closed. */
  public Parameters parameters() {
    return parameters;
  }

  /** Classes, image size and normalisation, where the file has them: those of this library do. */
  public Optional<Model> model() {
    return Optional.ofNullable(model);
  }

  /** What is worth knowing, a sentence each. */
  public List<String> notes() {
    return notes;
  }

  /** Releases the parameters. Idempotent. */
  @Override
  public void close() {
    parameters.close();
  }
}
