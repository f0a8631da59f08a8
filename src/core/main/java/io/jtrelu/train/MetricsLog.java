package io.jtrelu.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;

/**
 * Writes the metrics of a run to a file, a line at a time, so that it can be read while the run
 * goes on and after it was killed. {@link Metrics} reads it and describes the lines.
 *
 * <p>Write an epoch's metric before the checkpoint at its end: then a resumed run finds it. Not
 * thread-safe.
 */
public final class MetricsLog implements AutoCloseable {
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
   * cut off; the steps will be taken again. The caller closes the result.
   *
   * @param step steps taken when the checkpoint was saved
   * @throws IOException if the file cannot be read or written, or is damaged before its last line
   */
  public static MetricsLog resume(Path file, long step) throws IOException {
    List<Metrics.Line> lines = Metrics.lines(file);
    StringBuilder kept = new StringBuilder();
    for (Metrics.Line line : lines) {
      if (line.step() <= step) {
        kept.append(line.text()).append('\n');
      }
    }
    AtomicFile.writeString(file, kept.toString());
    return new MetricsLog(file, StandardOpenOption.APPEND);
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
