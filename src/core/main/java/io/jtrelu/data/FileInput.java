package io.jtrelu.data;

import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.zip.GZIPInputStream;
import java.util.zip.ZipException;

/**
 * A file read from front to back, decompressed where its name ends in .gz. Knows where it is, so
 * that every complaint names a byte, and how much can come at most, so that a size in a header is
 * refused before memory is allocated.
 */
final class FileInput implements AutoCloseable {
  /** No deflate stream expands by more than this factor (zlib technical details). */
  private static final long DEFLATE_RATIO = 1032;

  private final String name;
  private final InputStream in;
  private final long limit;
  private final boolean exact;
  private long position;

  private FileInput(String name, InputStream raw, long length) throws IOException {
    this.name = name;
    this.exact = !name.endsWith(".gz");
    this.limit = exact ? length : length * DEFLATE_RATIO;
    this.in = new BufferedInputStream(exact ? raw : new GZIPInputStream(raw, 1 << 16), 1 << 16);
  }

  @SuppressWarnings("MustBeClosed")
  static FileInput open(Path file) {
    InputStream raw = null;
    try {
      raw = Files.newInputStream(file);
      return new FileInput(file.toString(), raw, Files.size(file));
    } catch (NoSuchFileException missing) {
      throw new DataException.Missing(file.toString(), "no such file");
    } catch (IOException failure) {
      if (raw != null) {
        try {
          raw.close();
        } catch (IOException second) {
          failure.addSuppressed(second);
        }
      }
      if (failure instanceof ZipException || failure instanceof EOFException) {
        throw notGzip(file.toString(), failure);
      }
      throw new DataException.Unreadable(
          file, "cannot be read (" + failure + "); check that it is a readable file", failure);
    }
  }

  static FileInput of(String name, byte[] content) {
    try {
      return new FileInput(name, new ByteArrayInputStream(content), content.length);
    } catch (IOException failure) {
      throw notGzip(name, failure);
    }
  }

  private static DataException notGzip(String name, IOException failure) {
    return new DataException.Malformed(
        name, 0, "not a gzip file (" + failure.getMessage() + "); fetch it again", failure);
  }

  String name() {
    return name;
  }

  long position() {
    return position;
  }

  /** How many bytes follow (for a compressed file: at most). */
  long remaining() {
    return limit - position;
  }

  /** Reads an unsigned byte. */
  int readByte(String what) {
    return readBytes(1, what)[0] & 0xff;
  }

  /** Reads a big-endian 32-bit integer as it stands, unsigned. */
  long readUnsignedInt(String what) {
    byte[] b = readBytes(4, what);
    return (b[0] & 0xffL) << 24 | (b[1] & 0xffL) << 16 | (b[2] & 0xffL) << 8 | (b[3] & 0xffL);
  }

  /** Reads exactly this many bytes; memory grows with what really comes. */
  byte[] readBytes(int count, String what) {
    byte[] bytes;
    try {
      bytes = in.readNBytes(count);
    } catch (ZipException | EOFException corrupt) {
      throw new DataException.Malformed(
          name,
          position,
          "the gzip data is corrupt or cut off ("
              + corrupt.getMessage()
              + ") where "
              + what
              + " was expected; fetch it again",
          corrupt);
    } catch (IOException failure) {
      throw new DataException.Unreadable(
          Path.of(name), "cannot be read at byte " + position + " (" + failure + ")", failure);
    }
    if (bytes.length < count) {
      throw malformed(
          position + bytes.length,
          "the file ends here, in the middle of "
              + what
              + " ("
              + count
              + " bytes from byte "
              + position
              + " expected); it is truncated");
    }
    position += count;
    return bytes;
  }

  /** Reads all of a small text file. */
  String readText(int most) {
    try {
      byte[] bytes = in.readNBytes(most + 1);
      if (bytes.length > most) {
        throw malformed(most, "expected a text of at most " + most + " bytes");
      }
      return new String(bytes, StandardCharsets.UTF_8);
    } catch (IOException failure) {
      throw new DataException.Unreadable(
          Path.of(name), "cannot be read (" + failure + ")", failure);
    }
  }

  /**
   * Refuses a size from a header that the rest of the file cannot hold, or Java memory cannot.
   *
   * @param count how many records follow, by the header
   * @param bytes size of each
   * @param what what they are, for the message
   */
  void requireFits(long count, long bytes, String what) {
    long need;
    try {
      need = Math.multiplyExact(count, bytes);
    } catch (ArithmeticException overflow) {
      need = Long.MAX_VALUE;
    }
    if (need > limit - position || (exact && need != limit - position)) {
      throw malformed(
          position,
          "the header announces "
              + what
              + " ("
              + count
              + " x "
              + bytes
              + " bytes), but "
              + (exact ? "" : "at most ")
              + (limit - position)
              + " bytes follow; the file is damaged or of another kind");
    }
    requireMemory(name, need + 16 * count, what);
  }

  /** Refuses what the Java heap cannot hold. */
  static void requireMemory(String name, long bytes, String what) {
    long heap = Runtime.getRuntime().maxMemory();
    if (bytes > heap / 10 * 9) {
      throw new DataException.TooLarge(
          name,
          what
              + " take "
              + (bytes >> 20)
              + " MiB, but Java may use "
              + (heap >> 20)
              + " MiB; start java with a larger -Xmx or use fewer or smaller images");
    }
  }

  /** Checks that nothing follows. */
  void requireEnd() {
    long end = position;
    try {
      if (in.read() >= 0) {
        throw malformed(
            end, "the file goes on where it should end; it is damaged or of another kind");
      }
    } catch (ZipException | EOFException corrupt) {
      throw new DataException.Malformed(
          name,
          end,
          "the gzip data is corrupt at its end (" + corrupt.getMessage() + "); fetch it again",
          corrupt);
    } catch (IOException failure) {
      throw new DataException.Unreadable(
          Path.of(name), "cannot be read (" + failure + ")", failure);
    }
  }

  DataException malformed(long at, String problem) {
    return new DataException.Malformed(name, at, problem);
  }

  @Override
  public void close() {
    try {
      in.close();
    } catch (IOException failure) {
      throw new DataException.Unreadable(
          Path.of(name), "cannot be closed (" + failure + ")", failure);
    }
  }
}
