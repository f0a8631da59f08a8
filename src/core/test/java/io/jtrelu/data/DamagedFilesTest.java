package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.management.ThreadMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Optional;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Random truncations, byte flips and overwritten words of valid files: the answer is a
 * DataException or a data set, never another exception, a hang, or memory beyond the file's due.
 */
@Timeout(120)
class DamagedFilesTest {
  private static final long MOST_BYTES_ALLOCATED = 32L << 20;

  @TempDir Path folder;

  private final ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();

  private static byte[] damage(byte[] valid, SplittableRandom random) {
    byte[] damaged = valid.clone();
    switch (random.nextInt(4)) {
      case 0 -> damaged = Arrays.copyOf(valid, random.nextInt(valid.length));
      case 1 -> {
        for (int i = random.nextInt(4); i >= 0; i--) {
          damaged[random.nextInt(valid.length)] ^= (byte) (1 << random.nextInt(8));
        }
      }
      case 2 -> damaged[random.nextInt(Math.min(valid.length, 40))] = (byte) random.nextInt();
      default -> {
        int at = random.nextInt(Math.min(valid.length, 40)); // headers are where sizes are
        byte value = (byte) (random.nextBoolean() ? 0xff : random.nextInt());
        Arrays.fill(damaged, at, Math.min(at + 4, valid.length), value);
      }
    }
    return damaged;
  }

  private void attack(String file, int times) throws IOException {
    Path path = folder.resolve(file);
    byte[] valid = Files.readAllBytes(path);
    Datasets.open(folder.toString());
    int refused = 0;
    for (int seed = 0; seed < times; seed++) {
      Files.write(path, damage(valid, new SplittableRandom(seed)));
      long before = threads.getCurrentThreadAllocatedBytes();
      try {
        Datasets.open(folder.toString());
      } catch (DataException expected) {
        refused++;
        assertTrue(expected.getMessage().length() > 20, expected.getMessage());
      } catch (Throwable wrong) {
        throw new AssertionError(file + " damaged with seed " + seed + ": " + wrong, wrong);
      }
      long allocated = threads.getCurrentThreadAllocatedBytes() - before;
      assertTrue(
          allocated <= MOST_BYTES_ALLOCATED,
          file + " damaged with seed " + seed + " allocated " + allocated + " bytes");
    }
    Files.write(path, valid);
    assertTrue(refused > times / 20, "only " + refused + " of " + times + " noticed: " + file);
  }

  @Test
  void idx() throws IOException {
    Idx.writeSmallSet(folder);
    attack("train-images-idx3-ubyte", 500);
    attack("train-labels-idx1-ubyte", 500);
    attack("t10k-images-idx3-ubyte.gz", 500);
    attack("t10k-labels-idx1-ubyte.gz", 500);
  }

  @Test
  void cifar() throws IOException {
    byte[] two = new byte[2 * 3074];
    Files.write(folder.resolve("train.bin"), two);
    Files.write(folder.resolve("test.bin"), two);
    attack("train.bin", 300);
  }

  @Test
  void png() throws IOException {
    images("png");
    attack("train/a/1.png", 300);
  }

  @Test
  void jpeg() throws IOException {
    images("jpeg");
    attack("train/a/1.jpeg", 300);
  }

  private void images(String format) throws IOException {
    for (String part : new String[] {"train/a", "train/b", "test/a", "test/b"}) {
      Files.createDirectories(folder.resolve(part));
      Files.write(
          folder.resolve(part + "/1." + format),
          ImageFolderReaderTest.encode(
              ImageFolderReaderTest.gray(13, 9, 3, 1, 4, 1, 5, 92, 65, 35, 200), format));
    }
  }

  /** What a PNG gives is what was written, or a complaint: its checksums see every damage. */
  @ParameterizedTest
  @ValueSource(strings = {"palette-4.png", "rgb-interlaced.png", "rgba-16.png", "exif-8.png"})
  void aDamagedPngIsNeverReadWrongly(String name) throws IOException {
    byte[] valid = ImageDecoderTest.resource(name);
    ImageDecoder decoder = ImageDecoder.of(9, 12, 3);
    byte[] expected = decoder.decode(valid, name);
    for (int seed = 0; seed < 500; seed++) {
      byte[] damaged = damage(valid, new SplittableRandom(seed));
      decode(decoder, damaged, name + " damaged with seed " + seed)
          .ifPresent(pixels -> assertArrayEquals(expected, pixels));
    }
  }

  /** A JPEG has no checksums: it gives some image of its size, or a complaint. */
  @ParameterizedTest
  @ValueSource(
      strings = {"ycc-420.jpg", "progressive.jpg", "ycck.jpg", "icc.jpg", "exif-big-6.jpg"})
  void aDamagedJpegIsAnImageOrRefused(String name) throws IOException {
    byte[] valid = ImageDecoderTest.resource(name);
    ImageDecoder decoder = ImageDecoder.of(9, 12, 3);
    int refused = 0;
    for (int seed = 0; seed < 500; seed++) {
      byte[] damaged = damage(valid, new SplittableRandom(seed));
      refused += decode(decoder, damaged, name + " damaged with seed " + seed).isEmpty() ? 1 : 0;
    }
    assertTrue(refused > 100, name + ": only " + refused + " noticed");
  }

  private Optional<byte[]> decode(ImageDecoder decoder, byte[] encoded, String what) {
    long before = threads.getCurrentThreadAllocatedBytes();
    Optional<byte[]> pixels = Optional.empty();
    try {
      pixels = Optional.of(decoder.decode(encoded, what));
    } catch (DataException expected) {
      assertTrue(expected.getMessage().startsWith(what), expected.getMessage());
    } catch (Throwable wrong) {
      throw new AssertionError(what + ": " + wrong, wrong);
    }
    long allocated = threads.getCurrentThreadAllocatedBytes() - before;
    assertTrue(allocated <= MOST_BYTES_ALLOCATED, what + " allocated " + allocated + " bytes");
    return pixels;
  }

  @Test
  void aJpegThatClaimsAHugeSizeIsRefusedBeforeItIsDecoded() throws IOException {
    byte[] damaged = ImageDecoderTest.resource("ycc-420.jpg");
    int frame = 0;
    while ((damaged[frame] & 0xff) != 0xff || (damaged[frame + 1] & 0xff) != 0xc0) {
      frame++;
    }
    ImageDecoder decoder = ImageDecoder.of(9, 12, 3);
    for (int side : new int[] {0xffff, 8000, 2000}) {
      ByteBuffer.wrap(damaged).putShort(frame + 5, (short) side).putShort(frame + 7, (short) side);
      assertEquals(Optional.empty(), decode(decoder, damaged, "side " + side));
    }
  }
}
