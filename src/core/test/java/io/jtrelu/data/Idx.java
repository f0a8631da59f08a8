package io.jtrelu.data;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.zip.GZIPOutputStream;

/** Writes IDX files by the format's definition (big-endian integers). */
final class Idx {
  private Idx() {}

  static byte[] images(int rows, int columns, byte[]... images) {
    ByteBuffer out = ByteBuffer.allocate(16 + images.length * rows * columns);
    out.putInt(0x803).putInt(images.length).putInt(rows).putInt(columns);
    for (byte[] image : images) {
      out.put(image);
    }
    return out.array();
  }

  static byte[] labels(int... labels) {
    ByteBuffer out = ByteBuffer.allocate(8 + labels.length);
    out.putInt(0x801).putInt(labels.length);
    for (int label : labels) {
      out.put((byte) label);
    }
    return out.array();
  }

  static byte[] gzip(byte[] content) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (GZIPOutputStream out = new GZIPOutputStream(bytes)) {
      out.write(content);
    } catch (IOException impossible) {
      throw new AssertionError(impossible);
    }
    return bytes.toByteArray();
  }

  /** Image i of a set: pixel p is 40 i + 7 p, wrapping. */
  static byte[] image(int i, int pixels) {
    byte[] image = new byte[pixels];
    for (int p = 0; p < pixels; p++) {
      image[p] = (byte) (40 * i + 7 * p);
    }
    return image;
  }

  static byte[][] imageSet(int count, int pixels) {
    byte[][] images = new byte[count][];
    for (int i = 0; i < count; i++) {
      images[i] = image(i, pixels);
    }
    return images;
  }

  /** Six training and three test images of 3x4, three classes. */
  static void writeSmallSet(Path folder) throws IOException {
    Files.write(folder.resolve("train-images-idx3-ubyte"), images(3, 4, imageSet(6, 12)));
    Files.write(folder.resolve("train-labels-idx1-ubyte"), labels(0, 1, 2, 2, 1, 0));
    Files.write(folder.resolve("t10k-images-idx3-ubyte.gz"), gzip(images(3, 4, imageSet(3, 12))));
    Files.write(folder.resolve("t10k-labels-idx1-ubyte.gz"), gzip(labels(2, 0, 1)));
  }
}
