package io.jtrelu.endurance;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The short form of {@code src/endurance/run fuzz}: the corpus, and damage by a fixed seed. */
class TargetTest {
  private static final int EXECUTIONS = 1000;

  @TempDir Path folder;

  @ParameterizedTest
  @EnumSource
  @Timeout(value = 300, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void readsOrRefuses(Target target) throws IOException {
    List<byte[]> corpus = corpus(target);
    assertFalse(corpus.isEmpty());
    target.prepare(folder);
    for (byte[] input : corpus) {
      target.read(input, folder); // which is valid
      target.check(input, folder);
    }
    for (int seed = 0; seed < EXECUTIONS; seed++) {
      byte[] damaged = damaged(corpus, new SplittableRandom(seed));
      try {
        target.check(damaged, folder);
      } catch (AssertionError | RuntimeException wrong) {
        String input = HexFormat.of().formatHex(damaged);
        throw new AssertionError(target + ", seed " + seed + ": " + wrong + "\n" + input, wrong);
      }
    }
  }

  /** The check itself sees what it is for. */
  @Test
  void anUndocumentedExceptionIsSeen() {
    assertThrows(
        AssertionError.class,
        () -> Target.SAFETENSORS.check(new byte[100], folder.resolve("missing")));
  }

  private static List<byte[]> corpus(Target target) throws IOException {
    List<byte[]> corpus = new ArrayList<>();
    try (Stream<Path> files = Files.list(FuzzCommand.CORPUS.resolve(target.toString()))) {
      for (Path file : files.sorted().toList()) {
        corpus.add(Files.readAllBytes(file));
      }
    }
    return corpus;
  }

  /**
   * One to four of: bits flipped, bytes overwritten, removed, doubled, cut off, taken elsewhere.
   */
  private static byte[] damaged(List<byte[]> corpus, SplittableRandom random) {
    byte[] bytes = corpus.get(random.nextInt(corpus.size())).clone();
    for (int i = random.nextInt(1, 5); i > 0 && bytes.length > 0; i--) {
      int at = random.nextInt(bytes.length);
      int count = Math.min(random.nextInt(1, 33), bytes.length - at);
      switch (random.nextInt(7)) {
        case 0 -> bytes[at] ^= (byte) (1 << random.nextInt(8));
        case 1 -> bytes[at] = (byte) random.nextInt();
        case 2 -> Arrays.fill(bytes, at, at + Math.min(4, count), (byte) 0xff);
        case 3 -> bytes = joined(Arrays.copyOf(bytes, at), tail(bytes, at + count));
        case 4 -> bytes = joined(Arrays.copyOf(bytes, at + count), tail(bytes, at));
        case 5 -> bytes = Arrays.copyOf(bytes, at);
        default -> {
          byte[] other = corpus.get(random.nextInt(corpus.size()));
          bytes = joined(Arrays.copyOf(bytes, at), tail(other, random.nextInt(other.length)));
        }
      }
      if (random.nextInt(4) == 0) {
        byte[] word = WORDS.get(random.nextInt(WORDS.size())).getBytes(StandardCharsets.UTF_8);
        int where = random.nextInt(bytes.length + 1);
        bytes = joined(joined(Arrays.copyOf(bytes, where), word), tail(bytes, where));
      }
    }
    return bytes;
  }

  /** What the formats have in common that chance does not find. */
  private static final List<String> WORDS =
      List.of(
          "-1",
          "0",
          "99999999999999999999",
          "2147483647",
          "1e999",
          "null",
          "true",
          "\"NaN\"",
          "\"\"",
          "[]",
          "{}",
          "[[[[[[[[",
          "\"a\":",
          "\\ud800",
          "\u0000",
          "\n");

  private static byte[] tail(byte[] bytes, int from) {
    return Arrays.copyOfRange(bytes, from, bytes.length);
  }

  private static byte[] joined(byte[] first, byte[] second) {
    byte[] both = Arrays.copyOf(first, first.length + second.length);
    System.arraycopy(second, 0, both, first.length, second.length);
    return both;
  }
}
