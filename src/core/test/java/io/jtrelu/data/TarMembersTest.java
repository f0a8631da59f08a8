package io.jtrelu.data;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TarMembersTest {
  @TempDir Path folder;

  private Map<String, String> read(byte[] tar) throws IOException {
    Path file = Files.write(folder.resolve("x.tar"), tar);
    return read(file);
  }

  private static Map<String, String> read(Path file) throws IOException {
    Map<String, String> all = new TreeMap<>();
    byte[] bytes = Files.readAllBytes(file);
    try (TarMembers members = TarMembers.open(file)) {
      TarMembers.Member m;
      while ((m = members.next()) != null) {
        int from = (int) m.offset();
        all.put(m.name(), new String(bytes, from, (int) m.length(), UTF_8));
      }
    }
    return all;
  }

  /** What the system's tar writes, with names of every length around the formats' limits. */
  @ParameterizedTest
  @ValueSource(strings = {"v7", "ustar", "gnu", "oldgnu", "pax"})
  void readsWhatTarWrites(String format) throws IOException, InterruptedException {
    int longest = format.equals("v7") ? 99 : format.equals("ustar") ? 200 : 400;
    Map<String, String> expected = new TreeMap<>();
    Random random = new Random(1);
    Path in = Files.createDirectories(folder.resolve("in"));
    for (int length = 90; length <= longest; length += length < 110 ? 1 : 37) {
      String part = "\u00e9" + "d".repeat(40); // e with an accent: two bytes
      String name = "";
      while (name.getBytes(UTF_8).length + 60 < length) {
        name += part + "/";
      }
      name += "f".repeat(length - name.getBytes(UTF_8).length);
      String content = "c".repeat(random.nextInt(1500));
      Files.createDirectories(in.resolve(name).getParent());
      Files.writeString(in.resolve(name), content);
      expected.put(name, content);
    }
    Files.createSymbolicLink(in.resolve("link"), Path.of("elsewhere"));
    Path tar = folder.resolve(format + ".tar");
    Path names = folder.resolve("names");
    Files.writeString(names, String.join("\n", expected.keySet()) + "\nlink\n");
    Process process;
    try {
      process =
          new ProcessBuilder(
                  "tar",
                  "--format=" + format,
                  "-cf",
                  tar.toString(),
                  "-C",
                  in.toString(),
                  "-T",
                  names.toString())
              .inheritIO()
              .start();
    } catch (IOException none) {
      assumeTrue(false, "no tar on this machine: " + none.getMessage());
      return;
    }
    assertEquals(0, process.waitFor());
    assertEquals(expected, read(tar));
  }

  @Test
  void namesOfUstarHaveAPrefix() throws IOException {
    byte[] tar = new Tar().add("b.jpg", "x").bytes();
    System.arraycopy("dir/a".getBytes(UTF_8), 0, tar, 345, 5);
    int sum = "dir/a".chars().sum();
    String old = new String(tar, 148, 6, UTF_8);
    String added = String.format("%06o", Integer.parseInt(old, 8) + sum);
    System.arraycopy(added.getBytes(UTF_8), 0, tar, 148, 6);
    assertEquals(Map.of("dir/a/b.jpg", "x"), read(tar));
  }

  @Test
  void foldersLinksAndGlobalHeadersArePassedOver() throws IOException {
    Tar tar =
        new Tar()
            .add("g", 'g', "20 comment=whatever\n".getBytes(UTF_8))
            .add("folder/", '5', new byte[0])
            .add("folder-of-old/", '0', new byte[0])
            .add("link", '2', new byte[0])
            .add("a.txt", "1");
    assertEquals(Map.of("a.txt", "1"), read(tar.bytes()));
  }

  @Test
  void aPaxHeaderNamesTheNextMemberOnly() throws IOException {
    Tar tar =
        new Tar()
            .add("x", 'x', "19 path=long/name.x\n13 foo=\u00e9bar\n".getBytes(UTF_8))
            .add("short", "1")
            .add("short", "2");
    // "19 path=long/name.x\n" has 20 bytes: records that do not add up
    DataException wrong = assertThrows(DataException.Malformed.class, () -> read(tar.bytes()));
    assertTrue(wrong.getMessage().contains("do not add up"), wrong.getMessage());
    Tar right =
        new Tar()
            .add("x", 'x', "20 path=long/name.x\n13 foo=\u00e9bar\n".getBytes(UTF_8))
            .add("short", "1")
            .add("short", "2");
    assertEquals(Map.of("long/name.x", "1", "short", "2"), read(right.bytes()));
  }

  @Test
  void archivesOfNothing() throws IOException {
    assertEquals(Map.of(), read(new Tar().bytes()));
    DataException empty = assertThrows(DataException.Malformed.class, () -> read(new byte[0]));
    assertTrue(empty.getMessage().contains("empty"), empty.getMessage());
  }

  /** Wherever a file ends before its zero blocks, that is said, with the place. */
  @Test
  void truncatedFilesAreRefusedWhereverTheyEnd() throws IOException {
    byte[] whole = new Tar().add("a.txt", "a".repeat(700)).add("b.txt", "b").open();
    for (int length = 1; length <= whole.length; length += length % 512 < 508 ? 17 : 1) {
      byte[] part = Arrays.copyOf(whole, length);
      DataException e =
          assertThrows(DataException.Malformed.class, () -> read(part), "cut to " + length);
      assertTrue(e.getMessage().contains("x.tar at byte "), e.getMessage());
      assertTrue(e.getMessage().contains("cut off"), e.getMessage());
      assertTrue(e.position() <= length, e.getMessage());
    }
  }

  @Test
  void damageIsNoticed() throws IOException {
    byte[] whole = new Tar().add("a.txt", "x").bytes();
    for (int at : new int[] {0, 50, 130, 200, 300, 511}) {
      byte[] damaged = whole.clone();
      damaged[at] ^= 0x41;
      assertThrows(DataException.Malformed.class, () -> read(damaged), "byte " + at);
    }
    byte[] zipped = {0x1f, (byte) 0x8b, 8};
    DataException e =
        assertThrows(DataException.Malformed.class, () -> read(Arrays.copyOf(zipped, 4096)));
    assertTrue(e.getMessage().contains("compressed"), e.getMessage());
    // A name of gigabytes, a size near 2^63, a sparse file.
    byte[] huge = new Tar().add("x", 'L', new byte[3]).bytes();
    put(huge, 124, "77777777777\0");
    assertThrows(DataException.Malformed.class, () -> read(huge));
    byte[] beyond = new Tar().add("x", "y").bytes();
    Arrays.fill(beyond, 124, 136, (byte) 0xff);
    fix(beyond);
    DataException big = assertThrows(DataException.Malformed.class, () -> read(beyond));
    assertEquals(0, big.position());
    byte[] sparse = new Tar().add("x", 'S', new byte[3]).bytes();
    assertThrows(DataException.Malformed.class, () -> read(sparse));
  }

  /** Whatever is in the file, it is members within it or an exception that names it. */
  @Test
  void damagedFilesAreReadOrRefused() throws IOException {
    Tar tar = new Tar().add("x", 'x', "20 path=long/name.x\n".getBytes(UTF_8));
    byte[] whole = tar.add("a", "1").add("l", 'L', "longer".getBytes(UTF_8)).add("b", "2").bytes();
    Random random = new Random(5);
    int refused = 0;
    for (int i = 0; i < 2000; i++) {
      byte[] damaged = whole.clone();
      int member = 512 * random.nextInt(whole.length / 512);
      for (int k = random.nextInt(1, 4); k > 0; k--) {
        damaged[member + random.nextInt(512)] = (byte) random.nextInt();
      }
      if (random.nextBoolean()) {
        byte[] header = Arrays.copyOfRange(damaged, member, member + 512);
        fix(header); // so that what is in it is believed
        System.arraycopy(header, 0, damaged, member, 512);
      }
      try {
        read(damaged);
      } catch (DataException e) {
        assertTrue(e.getMessage().contains("x.tar at byte "), e.getMessage());
        refused++;
      }
    }
    assertTrue(refused > 200 && refused < 2000, "refused " + refused);
  }

  /** Numbers of GNU's tar for what octal digits cannot say. */
  @Test
  void binarySizes() throws IOException {
    byte[] tar = new Tar().add("a", "hello").bytes();
    Arrays.fill(tar, 124, 136, (byte) 0);
    tar[124] = (byte) 0x80;
    tar[135] = 5;
    fix(tar);
    assertEquals(Map.of("a", "hello"), read(tar));
  }

  private static void put(byte[] header, int at, String text) {
    System.arraycopy(text.getBytes(UTF_8), 0, header, at, text.length());
    fix(header);
  }

  private static void fix(byte[] header) {
    Arrays.fill(header, 148, 156, (byte) ' ');
    int sum = 0;
    for (int i = 0; i < 512; i++) {
      sum += header[i] & 0xff;
    }
    System.arraycopy(String.format("%06o\0 ", sum).getBytes(UTF_8), 0, header, 148, 8);
  }
}
