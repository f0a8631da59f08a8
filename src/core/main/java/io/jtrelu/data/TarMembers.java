package io.jtrelu.data;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * The members of a tar file, one after the other, without what they hold: POSIX ustar, the older
 * format before it, and the extensions that writers make for long names and sizes (pax headers,
 * GNU's L records and binary numbers). Every header's checksum is verified, and every size against
 * the file's. For one thread.
 */
final class TarMembers implements AutoCloseable {
  private static final int BLOCK = 512;

  /** A header, a label behind it, and the next header. */
  private static final int READ_AHEAD = 8 * BLOCK;

  /** Long names and pax headers; a damaged size asks for no more. */
  private static final int MOST_EXTENSION_BYTES = 1 << 20;

  private final Path file;
  private final FileChannel channel;
  private final long size;
  private final ByteBuffer buffer = ByteBuffer.allocate(READ_AHEAD).limit(0);
  private long bufferAt;
  private long next;

  /**
   * A regular file in the tar file.
   *
   * @param name as the tar file has it
   * @param offset of its content
   * @param length of its content in bytes
   */
  record Member(String name, long offset, long length) {}

  @SuppressWarnings("MustBeClosed")
  private TarMembers(Path file) throws IOException {
    this.file = file;
    this.channel = FileChannel.open(file);
    this.size = channel.size();
  }

  @SuppressWarnings("MustBeClosed")
  static TarMembers open(Path file) {
    try {
      return new TarMembers(file);
    } catch (NoSuchFileException missing) {
      throw new DataException.Missing(file.toString(), "no such file");
    } catch (IOException failure) {
      throw unreadable(file, failure);
    }
  }

  private static DataException unreadable(Path file, IOException failure) {
    return new DataException.Unreadable(file, "cannot be read (" + failure + ")", failure);
  }

  /**
   * The next regular file; folders, links and the like are passed over.
   *
   * @return null at the end
   * @throws DataException if the file is damaged, cut off or no tar file, or cannot be read
   */
  @Nullable Member next() {
    String longName = null;
    long longSize = -1;
    while (true) {
      long at = next;
      byte[] header = header(at);
      if (isZero(header)) {
        return null;
      }
      requireChecksum(header, at);
      long length = number(header, 124, 12, at);
      char type = (char) header[156];
      boolean extension = type == 'x' || type == 'g' || type == 'L' || type == 'K';
      if (!extension && longSize >= 0) {
        length = longSize;
      }
      boolean hasContent = extension || type == '0' || type == 0 || type == '7' || type > '7';
      long content = at + BLOCK;
      if (hasContent && (length < 0 || length > size - content)) {
        throw malformed(
            at,
            "a member of "
                + length
                + " bytes begins here, but "
                + Math.max(0, size - content)
                + " follow; the file is cut off, fetch it again");
      }
      next = content + (hasContent ? Math.ceilDiv(length, BLOCK) * BLOCK : 0);
      switch (type) {
        case 'L' -> longName = text(extension(at, length), 0, (int) length);
        case 'x' -> {
          byte[] records = extension(at, length);
          if (pax(records, "GNU.sparse.major", at) != null) {
            throw sparse(at);
          }
          String path = pax(records, "path", at);
          String bytes = pax(records, "size", at);
          longName = path == null ? longName : path;
          longSize = bytes == null ? longSize : decimal(bytes, at);
        }
        case 'g', 'K' -> {} // of all members, or of links: no names of files
        case '0', 0, '7' -> {
          String name = longName == null ? name(header) : longName;
          if (!name.endsWith("/")) { // how the oldest format marks a folder
            return new Member(name, content, length);
          }
          longName = null;
          longSize = -1;
        }
        case 'S' -> throw sparse(at);
        default -> {
          longName = null;
          longSize = -1;
        }
      }
    }
  }

  /** A small member's content. */
  String read(Member member, int most) {
    if (member.length > most) {
      throw malformed(
          member.offset,
          member.name + " has " + member.length + " bytes; at most " + most + " were expected");
    }
    return new String(bytes(member.offset, (int) member.length, "a member"), UTF_8);
  }

  private byte[] header(long at) {
    if (at >= size) {
      throw malformed(
          size,
          size == 0
              ? "the file is empty, not even an archive of nothing"
              : "the file ends without the zero blocks that end a tar file; it is cut off, fetch it"
                  + " again");
    }
    return bytes(at, BLOCK, "a header");
  }

  private byte[] extension(long at, long length) {
    if (length > MOST_EXTENSION_BYTES) {
      throw malformed(at, "a name of " + length + " bytes; the file is damaged");
    }
    return bytes(at + BLOCK, (int) length, "a name");
  }

  private byte[] bytes(long at, int count, String what) {
    if (at + count > size) {
      throw malformed(
          size, "the file ends in the middle of " + what + "; it is cut off, fetch it again");
    }
    byte[] result = new byte[count];
    try {
      if (count > READ_AHEAD) {
        fill(ByteBuffer.wrap(result), at);
        return result;
      }
      if (at < bufferAt || at + count > bufferAt + buffer.limit()) {
        buffer.clear().limit((int) Math.min(READ_AHEAD, size - at));
        fill(buffer, at);
        bufferAt = at;
      }
    } catch (IOException failure) {
      throw unreadable(file, failure);
    }
    buffer.get((int) (at - bufferAt), result);
    return result;
  }

  private void fill(ByteBuffer to, long at) throws IOException {
    while (to.hasRemaining()) {
      if (channel.read(to, at + to.position()) < 0) {
        throw new EOFException("the file became shorter while it was read");
      }
    }
  }

  private static boolean isZero(byte[] block) {
    for (byte value : block) {
      if (value != 0) {
        return false;
      }
    }
    return true;
  }

  /**
   * The sum of the header's bytes, its own field taken as spaces; old writers summed signed ones.
   */
  private void requireChecksum(byte[] header, long at) {
    int unsigned = 0;
    int signed = 0;
    for (int i = 0; i < BLOCK; i++) {
      byte value = i >= 148 && i < 156 ? (byte) ' ' : header[i];
      unsigned += value & 0xff;
      signed += value;
    }
    long said = number(header, 148, 8, at);
    if (said != unsigned && said != signed) {
      throw malformed(
          at,
          at == 0
              ? "this is no tar file, or it is compressed or damaged; shards are plain .tar files"
              : "the checksum of a header is wrong; the file is damaged, fetch it again");
    }
  }

  /** Octal digits, or since GNU tar a binary number whose first bit is set. */
  private long number(byte[] header, int from, int count, long at) {
    if ((header[from] & 0x80) != 0) {
      long value = header[from] & 0x3f;
      for (int i = from + 1; i < from + count; i++) {
        if (value > Long.MAX_VALUE >> 8) {
          throw malformed(at, "a number in a header passes 2^63; the file is damaged");
        }
        value = value << 8 | (header[i] & 0xff);
      }
      return value;
    }
    long value = 0;
    boolean begun = false;
    for (int i = from; i < from + count; i++) {
      int digit = header[i] - '0';
      if (digit >= 0 && digit < 8) {
        value = value << 3 | digit;
        begun = true;
      } else if (begun || header[i] != ' ') {
        break;
      }
    }
    return value;
  }

  /** Names of ustar have a prefix; GNU's own format uses its place otherwise. */
  private static String name(byte[] header) {
    String name = text(header, 0, 100);
    boolean ustar = text(header, 257, 6).equals("ustar") && header[262] == 0;
    String prefix = ustar ? text(header, 345, 155) : "";
    return prefix.isEmpty() ? name : prefix + "/" + name;
  }

  /** Up to a zero byte. */
  private static String text(byte[] bytes, int from, int most) {
    int end = from;
    while (end < from + most && bytes[end] != 0) {
      end++;
    }
    return new String(bytes, from, end - from, UTF_8);
  }

  /** A value of a pax header, whose records are "length key=value\n"; null if it is not there. */
  private @Nullable String pax(byte[] records, String key, long at) {
    String found = null;
    int from = 0;
    while (from < records.length) {
      int space = from;
      while (space < records.length && records[space] >= '0' && records[space] <= '9') {
        space++;
      }
      String digits = new String(records, from, space - from, UTF_8);
      long length = digits.isEmpty() || digits.length() > 9 ? 0 : Long.parseLong(digits);
      long end = from + length;
      if (end <= space + 1 || end > records.length || records[(int) end - 1] != '\n') {
        throw malformed(at, "a pax header whose records do not add up; the file is damaged");
      }
      byte[] wanted = (" " + key + "=").getBytes(UTF_8);
      if (end - 1 - space >= wanted.length
          && Arrays.equals(records, space, space + wanted.length, wanted, 0, wanted.length)) {
        int value = space + wanted.length;
        found = new String(records, value, (int) end - 1 - value, UTF_8);
      }
      from = (int) end;
    }
    return found;
  }

  private long decimal(String digits, long at) {
    try {
      return Long.parseLong(digits);
    } catch (NumberFormatException malformed) {
      throw malformed(at, "a pax header with a size of '" + digits + "'; the file is damaged");
    }
  }

  private DataException sparse(long at) {
    return malformed(at, "a sparse file, which is not supported; write the shard without --sparse");
  }

  private DataException malformed(long at, String problem) {
    return new DataException.Malformed(file.toString(), at, problem);
  }

  @Override
  public void close() {
    try {
      channel.close();
    } catch (IOException failure) {
      throw unreadable(file, failure);
    }
  }
}
