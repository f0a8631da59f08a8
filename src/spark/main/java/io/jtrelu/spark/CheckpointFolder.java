package io.jtrelu.spark;

import io.jtrelu.train.Run;
import io.jtrelu.train.Trainer;
import java.io.IOException;
import java.io.Serializable;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/**
 * A run's files at the ends of epochs, in a file system that driver and executors reach through
 * Hadoop: a folder for each, which is complete once it holds {@code _SUCCESS}. Older ones are
 * removed.
 *
 * @param folder as a URI
 * @param hadoop settings of the driver
 */
record CheckpointFolder(String folder, Map<String, String> hadoop) implements Serializable {
  private static final String COMPLETE = "_SUCCESS";
  private static final List<String> FILES = List.of(Run.FILE, Trainer.METRICS, Trainer.CHECKPOINT);

  /** With the settings of a driver. */
  static CheckpointFolder of(String folder, Configuration hadoop) {
    Map<String, String> settings = new TreeMap<>();
    hadoop.iterator().forEachRemaining(entry -> settings.put(entry.getKey(), entry.getValue()));
    return new CheckpointFolder(folder, settings);
  }

  private FileSystem files() throws IOException {
    Configuration configuration = new Configuration(false);
    hadoop.forEach(configuration::set);
    return new Path(folder).getFileSystem(configuration);
  }

  /** The last one that is complete, by its name; empty if there is none. */
  Optional<String> last() throws IOException {
    return complete(files()).map(Path::getName).max(Comparator.naturalOrder());
  }

  private Stream<Path> complete(FileSystem files) throws IOException {
    Path root = new Path(folder);
    if (!files.exists(root)) {
      return Stream.empty();
    }
    Stream.Builder<Path> found = Stream.builder();
    for (FileStatus status : files.listStatus(root)) {
      if (files.exists(new Path(status.getPath(), COMPLETE))) {
        found.add(status.getPath());
      }
    }
    return found.build();
  }

  /** Brings one to a local folder. */
  void fetch(String name, java.nio.file.Path to) throws IOException {
    FileSystem files = files();
    for (String file : FILES) {
      Path local = new Path(to.resolve(file).toUri());
      files.copyToLocalFile(false, new Path(new Path(folder, name), file), local, true);
    }
  }

  /** Saves a local folder as the one of a step, and removes those before it. */
  void save(java.nio.file.Path from, long step) throws IOException {
    FileSystem files = files();
    List<Path> before = complete(files).toList();
    Path to = new Path(folder, String.format("step-%012d", step));
    files.delete(to, true); // of an attempt that did not complete it
    for (String file : FILES) {
      files.copyFromLocalFile(
          false, true, new Path(from.resolve(file).toUri()), new Path(to, file));
    }
    files.create(new Path(to, COMPLETE), true).close();
    for (Path old : before) {
      if (!old.getName().equals(to.getName())) {
        files.delete(old, true);
      }
    }
  }
}
