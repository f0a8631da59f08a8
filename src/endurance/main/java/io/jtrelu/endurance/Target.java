package io.jtrelu.endurance;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.ThreadMXBean;
import io.jtrelu.cli.Console;
import io.jtrelu.cli.Main;
import io.jtrelu.data.DataException;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDecoder;
import io.jtrelu.interop.SafeTensors;
import io.jtrelu.interop.SafeTensorsException;
import io.jtrelu.nn.NetworkFormatException;
import io.jtrelu.nn.NetworkJson;
import io.jtrelu.onnx.OnnxException;
import io.jtrelu.onnx.OnnxImporter;
import io.jtrelu.tensor.Layout;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.CheckpointException;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.MetricsLog;
import io.jtrelu.train.Run;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.zip.GZIPOutputStream;

/**
 * A reader of what comes from outside. Whatever the bytes are, it reads them or refuses them with
 * an exception that its Javadoc names and a message, and allocates no more than is their due.
 */
enum Target {
  /** A file of tensors, all of which are loaded. */
  SAFETENSORS(List.of(SafeTensorsException.class)) {
    @Override
    void read(byte[] input, Path folder) throws IOException {
      Path file = write(folder.resolve("input.safetensors"), input);
      try (SafeTensors tensors = SafeTensors.open(file)) {
        for (String name : tensors.entries().keySet()) {
          tensors.load(name, Layout.ROW_MAJOR).close();
        }
      }
    }
  },
  /** A checkpoint and the run in it. */
  CHECKPOINT(List.of(SafeTensorsException.class, CheckpointException.class)) {
    @Override
    void read(byte[] input, Path folder) throws IOException {
      try (Checkpoint checkpoint =
          Checkpoint.open(write(folder.resolve("model.safetensors"), input))) {
        checkpoint.run();
      }
    }
  },
  /** A set of IDX files; the first byte says which of them the others are. */
  IDX(List.of(DataException.class)) {
    @SuppressWarnings("ImmutableEnumChecker") // by List.of
    private final List<String> files =
        List.of(
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
            "classes.txt");

    @Override
    void prepare(Path folder) throws IOException {
      int extent = 3;
      byte[] images =
          ByteBuffer.allocate(16 + 2 * extent * extent)
              .putInt(0x803)
              .putInt(2)
              .putInt(extent)
              .putInt(extent)
              .array();
      byte[] labels = ByteBuffer.allocate(10).putInt(0x801).putInt(2).put((byte) 1).array();
      Files.write(folder.resolve(files.get(0)), images);
      Files.write(folder.resolve(files.get(1)), labels);
      Files.write(folder.resolve(files.get(2)), gzip(images));
      Files.write(folder.resolve(files.get(3)), gzip(labels));
    }

    @Override
    void read(byte[] input, Path folder) throws IOException {
      String name = files.get(input.length == 0 ? 0 : (input[0] & 0xff) % files.size());
      Path file = folder.resolve(name);
      byte[] before = Files.exists(file) ? Files.readAllBytes(file) : new byte[0];
      write(file, Arrays.copyOfRange(input, Math.min(1, input.length), input.length));
      try {
        Datasets.open(folder.toString());
      } finally {
        if (before.length == 0) {
          Files.delete(file);
        } else {
          write(file, before);
        }
      }
    }
  },
  /** The training images of CIFAR-100. */
  CIFAR(List.of(DataException.class)) {
    @Override
    void prepare(Path folder) throws IOException {
      Files.write(folder.resolve("test.bin"), new byte[3074]);
    }

    @Override
    void read(byte[] input, Path folder) throws IOException {
      write(folder.resolve("train.bin"), input);
      Datasets.open(folder.toString());
    }
  },
  /** A PNG or a JPEG. */
  IMAGE(List.of(DataException.class)) {
    @Override
    void read(byte[] input, Path folder) {
      ImageDecoder.of(9, 12, 3).decode(input, "input");
    }
  },
  /** The JSON of a network. */
  NETWORK(List.of(NetworkFormatException.class)) {
    @Override
    void read(byte[] input, Path folder) {
      JsonNode json;
      try {
        json = JSON.readTree(text(input));
      } catch (JsonProcessingException notJson) {
        return;
      }
      NetworkJson.read(json);
    }
  },
  /** An ONNX model, of this library or of others. */
  ONNX(List.of(OnnxException.class)) {
    @Override
    void read(byte[] input, Path folder) throws IOException {
      OnnxImporter.read(write(folder.resolve("input.onnx"), input)).close();
    }
  },
  /** A run's config.json. */
  CONFIG(List.of(IOException.class)) {
    @Override
    void read(byte[] input, Path folder) throws IOException {
      Run.parse(text(input), "config.json");
    }
  },
  /** A run's metrics.jsonl, read and continued. */
  METRICS(List.of(IOException.class)) {
    @Override
    void read(byte[] input, Path folder) throws IOException {
      Path file = write(folder.resolve("metrics.jsonl"), input);
      MetricsLog.resume(file, 3, new ArrayList<>()).close();
      Metrics.read(file); // what is left is whole
      Metrics.read(write(file, input));
    }
  },
  /** Arguments of the command line, a line each; every command only shows its help. */
  ARGUMENTS(List.of()) {
    @Override
    void read(byte[] input, Path folder) {
      List<String> arguments = new ArrayList<>();
      for (String argument : text(input).split("\n", -1)) {
        // Files of arguments, and what turns the --help below into a mere value.
        if (!argument.startsWith("@") && !argument.equals("--")) {
          arguments.add(argument);
        }
      }
      arguments.add("--help");
      StringWriter said = new StringWriter();
      PrintWriter writer = new PrintWriter(said);
      int code = Main.run(new Console(writer, writer, false), arguments.toArray(String[]::new));
      if (code != 0 && code != 2) {
        throw new AssertionError("exit code " + code + " for " + arguments + ": " + said);
      }
    }
  };

  private static final ObjectMapper JSON = new ObjectMapper();

  /** Beside what the input is the due of: decoders, JSON trees, the help's text. */
  private static final long MOST_BYTES_ALLOCATED = 32L << 20;

  /** No deflate stream expands by more than about 1032, and a picture is held a few times over. */
  private static final long MOST_PER_BYTE = 5000;

  @SuppressWarnings("ImmutableEnumChecker") // by List.of
  private final List<Class<? extends Exception>> documented;

  Target(List<Class<? extends Exception>> documented) {
    this.documented = documented;
  }

  /** Writes what the input stands among. */
  void prepare(Path folder) throws IOException {}

  abstract void read(byte[] input, Path folder) throws IOException;

  /**
   * Reads, and holds the reader to its word.
   *
   * @param folder for its files, {@linkplain #prepare prepared}; used by one thread at a time
   * @throws AssertionError if it breaks it
   */
  void check(byte[] input, Path folder) {
    long due = MOST_BYTES_ALLOCATED + MOST_PER_BYTE * input.length;
    long allocated = allocated(input, folder);
    if (allocated > due) {
      allocated = allocated(input, folder); // the first time may pay for loading classes too
    }
    if (allocated > due) {
      throw new AssertionError(
          this + " allocates " + allocated + " bytes for " + input.length + " bytes of input");
    }
  }

  private long allocated(byte[] input, Path folder) {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    long before = threads.getCurrentThreadAllocatedBytes();
    try {
      read(input, folder);
    } catch (Exception refused) {
      String message = refused.getMessage();
      if (documented.stream().noneMatch(type -> type.isInstance(refused))) {
        throw new AssertionError(this + " is not documented to throw " + refused, refused);
      }
      if (message == null || message.length() < 20) {
        throw new AssertionError(this + " refuses without a reason: " + refused, refused);
      }
    } catch (StackOverflowError | OutOfMemoryError exhausted) {
      throw new AssertionError(this + " exhausts the virtual machine", exhausted);
    }
    return threads.getCurrentThreadAllocatedBytes() - before;
  }

  /** Makes a new file: one that is cut off and written again is flushed to the disk at once. */
  private static Path write(Path file, byte[] input) throws IOException {
    Files.deleteIfExists(file);
    return Files.write(file, input);
  }

  private static String text(byte[] input) {
    return new String(input, StandardCharsets.UTF_8);
  }

  private static byte[] gzip(byte[] content) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (GZIPOutputStream out = new GZIPOutputStream(bytes)) {
      out.write(content);
    }
    return bytes.toByteArray();
  }

  /** The name on the command line and of the folder of the corpus. */
  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }
}
