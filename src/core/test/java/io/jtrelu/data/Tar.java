package io.jtrelu.data;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.util.Arrays;
import java.util.Locale;

/** Writes tar files, right or wrong. Other modules test with it too. */
public final class Tar {
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();

  /** A member as ustar has it, of any type. */
  Tar add(String name, char type, byte[] content) {
    byte[] header = new byte[512];
    put(header, 0, name);
    put(header, 100, "0000644\0");
    put(header, 124, String.format(Locale.ROOT, "%011o\0", content.length));
    put(header, 257, "ustar\00000");
    header[156] = (byte) type;
    Arrays.fill(header, 148, 156, (byte) ' ');
    int sum = 0;
    for (byte value : header) {
      sum += value & 0xff;
    }
    put(header, 148, String.format(Locale.ROOT, "%06o\0 ", sum));
    out.writeBytes(header);
    out.writeBytes(content);
    out.writeBytes(new byte[(512 - content.length % 512) % 512]);
    return this;
  }

  /** A file. */
  public Tar add(String name, byte[] content) {
    return add(name, '0', content);
  }

  /** A file. */
  public Tar add(String name, String content) {
    return add(name, content.getBytes(UTF_8));
  }

  private static void put(byte[] header, int at, String text) {
    byte[] bytes = text.getBytes(UTF_8);
    System.arraycopy(bytes, 0, header, at, bytes.length);
  }

  /** Without the blocks that end it. */
  byte[] open() {
    return out.toByteArray();
  }

  /** All of it. */
  public byte[] bytes() {
    return Arrays.copyOf(out.toByteArray(), out.size() + 1024);
  }
}
