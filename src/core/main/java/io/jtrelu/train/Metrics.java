package io.jtrelu.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The metrics of a run, as {@link MetricsLog} writes them: one JSON object a line, {@code kind}
 * being "step" or "epoch" and the other fields those of {@link StepMetric} and {@link EpochMetric};
 * NaN and infinities are the strings {@code "NaN"}, {@code "Infinity"}, {@code "-Infinity"}.
 *
 * @param steps in the file's order
 * @param epochs in the file's order
 */
public record Metrics(List<StepMetric> steps, List<EpochMetric> epochs) {
  private static final ObjectMapper JSON =
      new ObjectMapper()
          .enable(DeserializationFeature.FAIL_ON_MISSING_CREATOR_PROPERTIES)
          .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES);

  /** Copies the lists. */
  public Metrics {
    steps = List.copyOf(steps);
    epochs = List.copyOf(epochs);
  }

  /**
   * Reads a file, which may be growing: a last line that is not complete is left out.
   *
   * @throws IOException if the file cannot be read, or a line but the last is no metric (the
   *     message names file and line)
   */
  public static Metrics read(Path file) throws IOException {
    List<StepMetric> steps = new ArrayList<>();
    List<EpochMetric> epochs = new ArrayList<>();
    for (Line line : lines(file)) {
      switch (line) {
        case StepLine step -> steps.add(step.metric());
        case EpochLine epoch -> epochs.add(epoch.metric());
      }
    }
    return new Metrics(steps, epochs);
  }

  /** A line of the file, without its end. */
  sealed interface Line {
    /** The line as it stands in the file. */
    String text();

    /** Whether it is of an epoch and not of a step. */
    default boolean isEpoch() {
      return this instanceof EpochLine;
    }

    /** Steps taken when it was written. */
    long step();
  }

  private record StepLine(StepMetric metric, String text) implements Line {
    @Override
    public long step() {
      return metric.step();
    }
  }

  private record EpochLine(EpochMetric metric, String text) implements Line {
    @Override
    public long step() {
      return metric.step();
    }
  }

  /** The complete lines of a file. */
  private static List<Line> lines(Path file) throws IOException {
    List<Line> lines = new ArrayList<>();
    List<String> damaged = readable(file, lines);
    if (!damaged.isEmpty()) {
      throw new IOException(file + ": " + damaged.getFirst());
    }
    return lines;
  }

  /**
   * The lines of a file that are metrics.
   *
   * @param lines receives them
   * @return what is wrong with the others but the last, which may be torn by a kill
   */
  static List<String> readable(Path file, List<Line> lines) throws IOException {
    // Decoding leniently: a torn line may end within a character.
    String text = new String(Files.readAllBytes(file), StandardCharsets.UTF_8);
    List<String> damaged = new ArrayList<>();
    int begin = 0;
    int number = 0;
    for (int end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', begin)) {
      String line = text.substring(begin, end);
      begin = end + 1;
      number++;
      try {
        lines.add(parse(line));
      } catch (JsonProcessingException | IllegalArgumentException failure) {
        if (begin < text.length()) {
          damaged.add("line " + number + " is no metric: " + reason(failure));
        }
      }
    }
    return damaged;
  }

  private static Line parse(String text) throws JsonProcessingException {
    JsonNode node = JSON.readTree(text);
    if (!(node instanceof ObjectNode fields)) {
      throw new IllegalArgumentException("expected a JSON object");
    }
    JsonNode kind = fields.remove("kind");
    return switch (kind == null ? "" : kind.asText()) {
      case "step" -> new StepLine(JSON.treeToValue(fields, StepMetric.class), text);
      case "epoch" -> new EpochLine(JSON.treeToValue(fields, EpochMetric.class), text);
      default -> throw new IllegalArgumentException("expected kind to be step or epoch");
    };
  }

  private static String reason(Exception damaged) {
    return damaged instanceof JsonProcessingException json
        ? json.getOriginalMessage()
        : String.valueOf(damaged.getMessage());
  }

  /** A metric as a line, with its end. */
  static String line(StepMetric metric) {
    return line("step", metric);
  }

  /** A metric as a line, with its end. */
  static String line(EpochMetric metric) {
    return line("epoch", metric);
  }

  private static String line(String kind, Object metric) {
    ObjectNode node = JSON.createObjectNode().put("kind", kind);
    ObjectNode fields = JSON.valueToTree(metric);
    node.setAll(fields);
    return node + "\n";
  }
}
