package io.jtrelu.spark;

import io.jtrelu.inference.Predictor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.function.MapPartitionsFunction;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.ml.linalg.Vectors;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.util.TaskCompletionListener;

/**
 * Scores the rows of a partition.
 *
 * @param network a checkpoint
 * @param column index of the images
 * @param outputs columns to be added
 */
record Scorer(
    Broadcast<byte[]> network, Images images, int column, List<Kind> outputs, String device)
    implements MapPartitionsFunction<Row, Row> {
  /** What a column holds. */
  enum Kind {
    LOGITS,
    PROBABILITIES,
    LABEL
  }

  /** Reads something from a file. */
  interface FromFile<T> {
    T read(Path file) throws IOException;
  }

  /** Reads from bytes what can only be read from a file. */
  static <T> T onFile(byte[] bytes, FromFile<T> from) throws IOException {
    Path file = Files.createTempFile("jtrelu", ".safetensors");
    try {
      Files.write(file, bytes);
      return from.read(file);
    } finally {
      Files.delete(file);
    }
  }

  @Override
  public Iterator<Row> call(Iterator<Row> rows) throws IOException {
    if (!rows.hasNext()) {
      return rows;
    }
    TaskContext task = TaskContext.get();
    String on = device.equals("cpu") ? "cpu:" + task.cpus() : device;
    Predictor predictor = onFile(network.value(), file -> Predictor.open(file, on));
    task.addTaskCompletionListener((TaskCompletionListener) ended -> predictor.close());
    return new Scored(rows, predictor);
  }

  /** Takes as many rows at a time as the predictor does. */
  private final class Scored implements Iterator<Row> {
    private final Iterator<Row> rows;
    private final Predictor predictor;
    private final Deque<Row> ready = new ArrayDeque<>();

    Scored(Iterator<Row> rows, Predictor predictor) {
      this.rows = rows;
      this.predictor = predictor;
    }

    @Override
    public boolean hasNext() {
      return !ready.isEmpty() || rows.hasNext();
    }

    @Override
    public Row next() {
      if (ready.isEmpty()) {
        List<Row> batch = new ArrayList<>();
        List<byte[]> pixels = new ArrayList<>();
        while (batch.size() < Predictor.LARGEST_BATCH && rows.hasNext()) {
          Row row = rows.next();
          batch.add(row);
          pixels.add(images.pixels(row, column));
        }
        List<float[]> logits = predictor.logits(pixels);
        for (int i = 0; i < batch.size(); i++) {
          ready.add(with(batch.get(i), logits.get(i)));
        }
      }
      return ready.remove(); // which throws where there is none
    }
  }

  private Row with(Row row, float[] logits) {
    Object[] values = new Object[row.size() + outputs.size()];
    for (int i = 0; i < row.size(); i++) {
      values[i] = row.get(i);
    }
    for (int i = 0; i < outputs.size(); i++) {
      values[row.size() + i] =
          switch (outputs.get(i)) {
            case LOGITS -> Vectors.dense(doubles(logits));
            case PROBABILITIES -> Vectors.dense(softmax(logits));
            case LABEL -> (double) largest(logits);
          };
    }
    return RowFactory.create(values);
  }

  private static double[] doubles(float[] logits) {
    double[] values = new double[logits.length];
    for (int i = 0; i < values.length; i++) {
      values[i] = logits[i];
    }
    return values;
  }

  static double[] softmax(float[] logits) {
    double most = logits[largest(logits)];
    double[] values = new double[logits.length];
    double sum = 0;
    for (int i = 0; i < values.length; i++) {
      values[i] = Math.exp(logits[i] - most);
      sum += values[i];
    }
    for (int i = 0; i < values.length; i++) {
      values[i] /= sum;
    }
    return values;
  }

  /** The first of the largest. */
  private static int largest(float[] logits) {
    int largest = 0;
    for (int i = 1; i < logits.length; i++) {
      largest = logits[i] > logits[largest] ? i : largest;
    }
    return largest;
  }
}
