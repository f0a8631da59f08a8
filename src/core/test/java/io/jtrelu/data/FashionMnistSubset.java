package io.jtrelu.data;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.Deflater;
import java.util.zip.GZIPInputStream;
import java.util.zip.GZIPOutputStream;

/**
 * Cuts the embedded data set out of the full Fashion-MNIST: the first images of each class, in file
 * order. Run once by hand (arguments: the folder of the full set, the folder to write); its output
 * is committed. Reads IDX by its own few lines, so that it can vouch for the reader.
 */
final class FashionMnistSubset {
  static final int TRAIN_PER_CLASS = 1000;
  static final int TEST_PER_CLASS = 200;

  private FashionMnistSubset() {}

  public static void main(String[] arguments) throws IOException {
    Path full = Path.of(arguments[0]);
    Path subset = Path.of(arguments[1]);
    cut(full, subset, "train", TRAIN_PER_CLASS);
    cut(full, subset, "t10k", TEST_PER_CLASS);
  }

  private static void cut(Path full, Path subset, String split, int perClass) throws IOException {
    byte[] images = unzip(full.resolve(split + "-images-idx3-ubyte.gz"));
    byte[] labels = unzip(full.resolve(split + "-labels-idx1-ubyte.gz"));
    int count = ByteBuffer.wrap(labels).getInt(4);
    int rows = ByteBuffer.wrap(images).getInt(8);
    int columns = ByteBuffer.wrap(images).getInt(12);
    List<Integer> kept = new ArrayList<>();
    int[] taken = new int[10];
    for (int i = 0; i < count; i++) {
      if (taken[labels[8 + i]]++ < perClass) {
        kept.add(i);
      }
    }
    ByteArrayOutputStream imageBytes = new ByteArrayOutputStream();
    ByteArrayOutputStream labelBytes = new ByteArrayOutputStream();
    try (DataOutputStream imageOut = new DataOutputStream(imageBytes);
        DataOutputStream labelOut = new DataOutputStream(labelBytes)) {
      imageOut.writeInt(0x803);
      imageOut.writeInt(kept.size());
      imageOut.writeInt(rows);
      imageOut.writeInt(columns);
      labelOut.writeInt(0x801);
      labelOut.writeInt(kept.size());
      for (int i : kept) {
        imageOut.write(images, 16 + i * rows * columns, rows * columns);
        labelOut.write(labels[8 + i]);
      }
    }
    zip(subset.resolve(split + "-images-idx3-ubyte.gz"), imageBytes.toByteArray());
    zip(subset.resolve(split + "-labels-idx1-ubyte.gz"), labelBytes.toByteArray());
  }

  private static byte[] unzip(Path file) throws IOException {
    try (InputStream in = new GZIPInputStream(Files.newInputStream(file))) {
      return in.readAllBytes();
    }
  }

  private static final class SmallestGzip extends GZIPOutputStream {
    SmallestGzip(OutputStream out) throws IOException {
      super(out);
      def.setLevel(Deflater.BEST_COMPRESSION);
    }
  }

  private static void zip(Path file, byte[] content) throws IOException {
    try (OutputStream out = new SmallestGzip(Files.newOutputStream(file))) {
      out.write(content);
    }
  }
}
