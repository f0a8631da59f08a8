package io.jtrelu.train;

import io.jtrelu.interop.SafeTensors;
import io.jtrelu.tensor.PrintableText;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * A saved run, open for reading: parameters, the optimiser's tensors and the {@link TrainingState}
 * in one {@link SafeTensors} file. So it is replaced as a whole or not at all, and any reader of
 * the format finds the parameters under their own names.
 *
 * <p>Each tensor's SHA-256 is in the metadata and compared when it is read, so that a damaged or
 * foreign tensor is never taken for what was saved. Tensors are matched by name, type and shape.
 * Those of the optimiser are stored with the prefix {@value #OPTIMIZER}.
 */
public final class Checkpoint implements AutoCloseable {
  /** Prefix that sets the optimiser's tensors apart from the parameters. */
  public static final String OPTIMIZER = "optimizer.";

  private static final String FORMAT = "jtrelu-checkpoint-1";
  private static final String SEED = "seed.";

  /** Prefix of each tensor's SHA-256. */
  private static final String DIGEST = "sha256.";

  private static final int LISTED_DIFFERENCES = 12;

  private final SafeTensors tensors;
  private final TrainingState state;

  private Checkpoint(SafeTensors tensors, TrainingState state) {
    this.tensors = tensors;
    this.state = state;
  }

  /**
   * Saves a run, replacing the file atomically.
   *
   * @param parameters host tensors by name; no name begins with {@value #OPTIMIZER}
   * @param optimizer host tensors by name, without the prefix; empty for a model that is finished
   * @throws IOException naming file and cause; the old file is then untouched
   */
  public static void save(
      Path file, TrainingState state, Map<String, Tensor> parameters, Map<String, Tensor> optimizer)
      throws IOException {
    for (String name : parameters.keySet()) {
      if (name.startsWith(OPTIMIZER)) {
        throw new IllegalArgumentException("a parameter's name cannot begin with " + OPTIMIZER);
      }
    }
    Map<String, Tensor> all = combined(parameters, optimizer);
    Map<String, String> metadata = metadata(state);
    all.forEach((name, tensor) -> metadata.put(DIGEST + name, digest(tensor)));
    AtomicFile.write(file, channel -> SafeTensors.write(channel, all, metadata));
  }

  /**
   * Opens a saved run. The caller closes the result.
   *
   * @throws io.jtrelu.interop.SafeTensorsException if the file is malformed
   * @throws CheckpointException if it is a safetensors file but not a checkpoint
   * @throws IOException if it cannot be read
   */
  public static Checkpoint open(Path file) throws IOException {
    SafeTensors tensors = SafeTensors.open(file);
    try {
      return new Checkpoint(tensors, state(tensors));
    } catch (Throwable failure) {
      tensors.close();
      throw failure;
    }
  }

  /**
   * What was saved.
   *
   * @throws CheckpointException if the configuration in it cannot be read
   */
  public Run run() {
    try {
      return Run.parse(state.config(), tensors.file() + ": the configuration in it");
    } catch (IOException malformed) {
      throw new CheckpointException(String.valueOf(malformed.getMessage()), malformed);
    }
  }

  /** Where the run stood. */
  public TrainingState state() {
    return state;
  }

  /**
   * Copies the parameters into tensors of the caller; the optimiser's are ignored.
   *
   * @param parameters host tensors by name
   * @throws CheckpointException listing the differences, if names, types or shapes differ; nothing
   *     was copied then. Or if a tensor is not what was saved
   * @throws IOException if the file cannot be read
   */
  public void restore(Map<String, Tensor> parameters) throws IOException {
    restore(parameters, false);
  }

  /**
   * Copies parameters and the optimiser's tensors into tensors of the caller.
   *
   * @param parameters host tensors by name
   * @param optimizer host tensors by name, without the prefix
   * @throws CheckpointException listing the differences, if names, types or shapes differ; nothing
   *     was copied then. Or if a tensor is not what was saved
   * @throws IOException if the file cannot be read
   */
  public void restore(Map<String, Tensor> parameters, Map<String, Tensor> optimizer)
      throws IOException {
    restore(combined(parameters, optimizer), true);
  }

  /**
   * Copies one parameter into a tensor of the caller, if the file has it in that type and shape.
   *
   * @param destination a host tensor
   * @return whether it has
   * @throws IOException if the file cannot be read
   */
  public boolean read(String parameter, Tensor destination) throws IOException {
    SafeTensors.Entry entry = tensors.entries().get(parameter);
    if (entry == null
        || entry.type() != destination.type()
        || !entry.shape().equals(destination.shape())) {
      return false;
    }
    readChecked(parameter, destination);
    return true;
  }

  private void restore(Map<String, Tensor> destinations, boolean withOptimizer) throws IOException {
    List<String> differences = differences(destinations, withOptimizer);
    if (!differences.isEmpty()) {
      int listed = Math.min(LISTED_DIFFERENCES, differences.size());
      StringBuilder message =
          new StringBuilder(
              tensors.file() + " belongs to another network or optimiser (" + differences.size());
      message.append(differences.size() == 1 ? " difference):" : " differences):");
      differences.subList(0, listed).forEach(line -> message.append("\n  ").append(line));
      if (listed < differences.size()) {
        message.append("\n  and ").append(differences.size() - listed).append(" more");
      }
      throw new CheckpointException(message.toString());
    }
    for (Map.Entry<String, Tensor> destination : destinations.entrySet()) {
      readChecked(destination.getKey(), destination.getValue());
    }
  }

  /** A tensor whose bytes are those that were saved. (The first version saved no digests.) */
  private void readChecked(String name, Tensor destination) throws IOException {
    tensors.read(name, destination);
    String saved = tensors.metadata().get(DIGEST + name);
    if (saved != null && !saved.equals(digest(destination))) {
      throw new CheckpointException(
          tensors.file()
              + ": tensor "
              + PrintableText.quoted(name)
              + " is not what was saved: its SHA-256 differs. The file was damaged or changed; go"
              + " back to another checkpoint, such as "
              + Trainer.BEST);
    }
  }

  private static String digest(Tensor tensor) {
    try {
      MessageDigest sha = MessageDigest.getInstance("SHA-256");
      MemorySegment segment = tensor.segment();
      long chunk = 1 << 26;
      for (long at = 0; at < tensor.bytes(); at += chunk) {
        sha.update(segment.asSlice(at, Math.min(chunk, tensor.bytes() - at)).asByteBuffer());
      }
      return HexFormat.of().formatHex(sha.digest());
    } catch (NoSuchAlgorithmException impossible) {
      throw new IllegalStateException(impossible); // every Java platform has it
    }
  }

  private List<String> differences(Map<String, Tensor> destinations, boolean withOptimizer) {
    List<String> differences = new ArrayList<>();
    destinations.forEach(
        (name, tensor) -> {
          SafeTensors.Entry entry = tensors.entries().get(name);
          String wanted = tensor.type() + "" + tensor.shape();
          if (entry == null) {
            differences.add("missing in the file: " + name + " " + wanted);
          } else if (entry.type() != tensor.type() || !entry.shape().equals(tensor.shape())) {
            differences.add(
                "different: "
                    + name
                    + " is "
                    + entry.type()
                    + entry.shape()
                    + " in the file, "
                    + wanted
                    + " in the network");
          }
        });
    for (SafeTensors.Entry entry : tensors.entries().values()) {
      if (!destinations.containsKey(entry.name())
          && (withOptimizer || !entry.name().startsWith(OPTIMIZER))) {
        differences.add(
            "unexpected in the file: "
                + PrintableText.of(entry.name())
                + " "
                + entry.type()
                + entry.shape());
      }
    }
    return differences;
  }

  @Override
  public void close() throws IOException {
    tensors.close();
  }

  private static Map<String, Tensor> combined(
      Map<String, Tensor> parameters, Map<String, Tensor> optimizer) {
    Map<String, Tensor> all = new LinkedHashMap<>(parameters);
    optimizer.forEach((name, tensor) -> all.put(OPTIMIZER + name, tensor));
    return all;
  }

  private static Map<String, String> metadata(TrainingState state) {
    Map<String, String> metadata = new LinkedHashMap<>();
    metadata.put("format", FORMAT);
    metadata.put("step", Long.toString(state.step()));
    metadata.put("epoch", Integer.toString(state.epoch()));
    metadata.put("position", Long.toString(state.position()));
    metadata.put("bestMetric", Double.toString(state.bestMetric()));
    metadata.put("config", state.config());
    new TreeMap<>(state.seeds())
        .forEach((name, seed) -> metadata.put(SEED + name, Long.toString(seed)));
    return metadata;
  }

  private static TrainingState state(SafeTensors tensors) {
    Map<String, String> metadata = tensors.metadata();
    if (!FORMAT.equals(metadata.get("format"))) {
      throw new CheckpointException(
          tensors.file()
              + " is a safetensors file but no checkpoint of this library: its metadata lack"
              + " format = "
              + FORMAT);
    }
    Map<String, Long> seeds = new LinkedHashMap<>();
    try {
      for (Map.Entry<String, String> entry : metadata.entrySet()) {
        if (entry.getKey().startsWith(SEED)) {
          seeds.put(entry.getKey().substring(SEED.length()), Long.valueOf(entry.getValue()));
        }
      }
      return new TrainingState(
          Long.parseLong(required(tensors, "step")),
          Integer.parseInt(required(tensors, "epoch")),
          Long.parseLong(required(tensors, "position")),
          seeds,
          required(tensors, "config"),
          Double.parseDouble(required(tensors, "bestMetric")));
    } catch (NumberFormatException notANumber) {
      throw new CheckpointException(
          tensors.file()
              + ": the metadata hold no number where one is expected: "
              + notANumber.getMessage(),
          notANumber);
    }
  }

  private static String required(SafeTensors tensors, String key) {
    String value = tensors.metadata().get(key);
    if (value == null) {
      throw new CheckpointException(tensors.file() + ": the metadata lack '" + key + "'");
    }
    return value;
  }
}
