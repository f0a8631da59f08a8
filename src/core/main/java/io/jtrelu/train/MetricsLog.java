package io.jtrelu.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Writes the metrics of a run to a file, a line at a time, so that it can be read while the run
 * goes on and after it was killed. {@link Metrics} reads it and describes the lines.
 *
 * <p>Write an epoch's metric before the checkpoint at its end: then a resumed run finds it. Not
 * thread-safe.
 */
public final class MetricsLog implements TrainingListener, AutoCloseable {
  private final Path file;
  private final FileChannel channel;

  private MetricsLog(Path file, StandardOpenOption mode) throws IOException {
    this.file = file;
    this.channel =
        FileChannel.open(file, StandardOpenOption.WRITE, StandardOpenOption.CREATE, mode);
  }

  /**
   * Begins a file, replacing one of the same name. The caller closes the result.
   *
   * @throws IOException if it cannot be written
   */
  public static MetricsLog create(Path file) throws IOException {
    return new MetricsLog(file, StandardOpenOption.TRUNCATE_EXISTING);
  }

  /**
   * Continues a file from a checkpoint: what was written after it, and a line torn by a kill, are
   * cut off; the steps will be taken again. A file that is missing begins anew, and lines that are
   * damaged are left out: figures are worth less than the parameters that they are about. The
   * caller closes the result.
   *
   * @param step steps taken when the checkpoint was saved
   * @param notes receives what was left out, a sentence each
   * @throws IOException if the file cannot be read or written
   */
  public static MetricsLog resume(Path file, long step, List<String> notes) throws IOException {
    List<Metrics.Line> lines = new ArrayList<>();
    if (Files.exists(file)) {
      List<String> damaged = Metrics.readable(file, lines);
      if (!damaged.isEmpty()) {
        notes.add(
            file
                + ": "
                + damaged.size()
                + (damaged.size() == 1 ? " line was" : " lines were")
                + " damaged and left out ("
                + damaged.getFirst()
                + ")");
      }
    } else {
      notes.add(file + " is missing; it begins anew at step " + step);
    }
    StringBuilder kept = new StringBuilder();
    Set<List<Object>> seen = new HashSet<>();
    for (Metrics.Line line : lines) {
      if (line.step() <= step && seen.add(List.of(line.isEpoch(), line.step()))) {
        kept.append(line.text()).append('\n');
      }
    }
    AtomicFile.writeString(file, kept.toString());
    return new MetricsLog(file, StandardOpenOption.APPEND);
  }

  /**
   * Waits until all that was written is on the disk.
   *
   * @throws IOException naming the file, if it cannot be written
   */
  void sync() throws IOException {
    try {
      channel.force(false);
    } catch (IOException cause) {
      throw new IOException("cannot write " + file + ": " + cause.getMessage(), cause);
    }
  }

  /**
   * Appends a step's metrics.
   *
   * @throws IOException naming the file, if it cannot be written
   */
  public void append(StepMetric metric) throws IOException {
    append(Metrics.line(metric));
  }

  /**
   * Appends an epoch's metrics.
   *
   * @throws IOException naming the file, if it cannot be written
   */
  public void append(EpochMetric metric) throws IOException {
    append(Metrics.line(metric));
  }

  @Override
  public void step(Trainer trainer, StepMetric metric) throws IOException {
    append(metric);
  }

  @Override
  public void epoch(Trainer trainer, EpochMetric metric) throws IOException {
    append(metric);
  }

  private void append(String line) throws IOException {
    ByteBuffer bytes = StandardCharsets.UTF_8.encode(line);
    try {
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
    } catch (IOException cause) {
      throw new IOException("cannot write " + file + ": " + cause.getMessage(), cause);
    }
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
