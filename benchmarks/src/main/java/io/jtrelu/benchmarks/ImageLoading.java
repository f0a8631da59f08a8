package io.jtrelu.benchmarks;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.sun.management.OperatingSystemMXBean;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.Augmentation;
import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDecoder;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.data.Reading;
import io.jtrelu.nn.Networks;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.awt.image.BufferedImage;
import java.io.BufferedOutputStream;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.stream.Stream;
import javax.imageio.IIOImage;
import javax.imageio.ImageIO;
import javax.imageio.ImageWriteParam;
import javax.imageio.ImageWriter;
import javax.imageio.stream.MemoryCacheImageOutputStream;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveOutputStream;

/**
 * JPEGs on disk: what it costs to decode them to 224x224 with a random crop and flip, what a
 * training step costs with them and with the same images in memory, and how much memory a streamed
 * set takes. {@code benchmarks/run images}; takes minutes.
 *
 * <p>Measured is the CPU time of the process, contenders in turn, so that waiting on a shared
 * machine does not count. Of steps that is what a quiet machine's clock shows too, as long as no
 * step waits for images: network and decoding then share the same cores. Given are medians and the
 * least and greatest of the rounds' ratios. Arguments: decode, steps, memory; all by default.
 */
public final class ImageLoading {
  private static final int SIZE = 224;
  private static final int BATCH = 8;
  private static final int PICTURES = 24;
  private static final int ROUNDS = 9;
  private static final Augmentation CROP = new Augmentation(0, true, 0.08);
  private static final OperatingSystemMXBean SYSTEM =
      ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);

  private ImageLoading() {}

  private interface Contender {
    void batch() throws Throwable;
  }

  /** Prints all of it. */
  public static void main(String[] args) throws Throwable {
    System.out.printf(
        Locale.ROOT,
        "JPEG decoder: %s; Java %s; load average %.1f on %d cores%n",
        ImageDecoder.jpegDecoder(),
        System.getProperty("java.version"),
        SYSTEM.getSystemLoadAverage(),
        SYSTEM.getAvailableProcessors());
    Path folder = Files.createTempDirectory("jtrelu-images");
    List<String> parts = args.length == 0 ? List.of("decode", "steps", "memory") : List.of(args);
    try {
      if (parts.contains("decode")) {
        for (int[] size : new int[][] {{375, 500}, {768, 1024}, {1536, 2048}}) {
          decode(folder.resolve("decode-" + size[0]), size[0], size[1]);
        }
      }
      if (parts.contains("steps")) {
        steps(folder.resolve("steps"));
      }
      if (parts.contains("memory")) {
        memory(folder.resolve("memory"));
      }
    } finally {
      try (Stream<Path> files = Files.walk(folder)) {
        for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
          Files.delete(file);
        }
      }
    }
    System.exit(0);
  }

  // --- decoding ---

  /** Pictures of two classes, and something to measure on. */
  private static List<byte[]> write(Path folder, int height, int width) throws IOException {
    List<byte[]> jpegs = new ArrayList<>();
    Path in = Files.createDirectories(folder.resolve("train/a"));
    for (int i = 0; i < PICTURES; i++) {
      byte[] jpeg = jpeg(height, width, i);
      jpegs.add(jpeg);
      Files.write(in.resolve(String.format(Locale.ROOT, "%03d.jpg", i)), jpeg);
    }
    for (String other : List.of("train/b", "test/a")) {
      Files.createDirectories(folder.resolve(other));
      Files.write(folder.resolve(other).resolve("x.jpg"), jpegs.getFirst());
    }
    return jpegs;
  }

  private static void decode(Path folder, int height, int width) throws Throwable {
    List<byte[]> jpegs = write(folder, height, width);
    Datasets data = open(folder, SIZE, Reading.Place.STREAM);
    BatchLoader.Builder description =
        BatchLoader.over(data.train(), PerLocationNormalization.plain(3, Homogeneous.ONE))
            .bytes()
            .batch(BATCH)
            .prefetch(1)
            .threads(1)
            .augment(CROP, 1)
            .dropLast();
    TurboDecoder turbo = new TurboDecoder();
    agree(description, jpegs, height, width, turbo);
    try (BatchLoader loader = description.open()) {
      int[] next = new int[2];
      List<Contender> contenders =
          List.of(
              () -> loader.next().close(),
              () -> {
                for (int i = 0; i < BATCH; i++, next[0]++) {
                  int index = next[0] % PICTURES;
                  byte[] pixels = turbo.decode(jpegs.get(index), height, width);
                  cropped(pixels, height, width, next[0] / PICTURES, index);
                }
              },
              () -> {
                for (int i = 0; i < BATCH; i++, next[1]++) {
                  int index = next[1] % PICTURES;
                  byte[] pixels = imageIo(jpegs.get(index));
                  cropped(pixels, height, width, next[1] / PICTURES, index);
                }
              });
      int batches = Math.max(2, 3 * 400_000 / (height * width));
      double[][] times = new double[contenders.size()][ROUNDS];
      for (int round = -2; round < ROUNDS; round++) {
        for (int c = 0; c < times.length; c++) {
          for (int i = 0; i < 3; i++) {
            contenders.get(c).batch(); // the loader has some ready
          }
          long begin = SYSTEM.getProcessCpuTime();
          for (int i = 0; i < batches; i++) {
            contenders.get(c).batch();
          }
          if (round >= 0) {
            times[c][round] = (SYSTEM.getProcessCpuTime() - begin) * 1e-9 / (batches * BATCH);
          }
          Thread.sleep(20L * BATCH); // the loader comes to rest
        }
      }
      int bytes = jpegs.stream().mapToInt(j -> j.length).sum() / PICTURES / 1000;
      System.out.printf(
          Locale.ROOT,
          "%dx%d, %d kB: ours %.0f images/s a core; full libjpeg-turbo %s, ImageIO %s of its time%n",
          height,
          width,
          bytes,
          1 / median(times[0]),
          ratio(times[1], times[0]),
          ratio(times[2], times[0]));
    }
  }

  /** All see the same windows: means over the image differ by less than 3 of 255. */
  private static void agree(
      BatchLoader.Builder ours, List<byte[]> jpegs, int height, int width, TurboDecoder turbo)
      throws Throwable {
    try (BatchLoader loader = ours.open();
        Batch batch = loader.next()) {
      byte[] all = batch.src().segment().toArray(ValueLayout.JAVA_BYTE);
      for (int i = 0; i < BATCH; i++) {
        byte[] own = Arrays.copyOfRange(all, i * SIZE * SIZE * 3, (i + 1) * SIZE * SIZE * 3);
        for (byte[] pixels :
            List.of(turbo.decode(jpegs.get(i), height, width), imageIo(jpegs.get(i)))) {
          byte[] other = cropped(pixels, height, width, 0, i);
          long sum = 0;
          for (int k = 0; k < own.length; k++) {
            sum += Math.abs((own[k] & 0xff) - (other[k] & 0xff));
          }
          if (!(sum < 3L * own.length)) {
            throw new IllegalStateException(
                "image " + i + " differs by " + (double) sum / own.length);
          }
        }
      }
    }
  }

  private static byte[] cropped(byte[] pixels, int height, int width, int epoch, int index) {
    Augmentation.Rectangle r = CROP.rectangle(height, width, 1, epoch, index);
    byte[] crop =
        PillowResize.resize(pixels, width, r.top(), r.left(), r.height(), r.width(), SIZE, SIZE);
    if (!CROP.window(1, epoch, index).flip()) {
      return crop;
    }
    byte[] mirrored = new byte[crop.length];
    for (int at = 0; at < crop.length; at += 3) {
      int row = at / (3 * SIZE) * 3 * SIZE;
      System.arraycopy(crop, at, mirrored, row + 3 * SIZE - 3 - (at - row), 3);
    }
    return mirrored;
  }

  private static byte[] imageIo(byte[] jpeg) throws IOException {
    BufferedImage image = ImageIO.read(new ByteArrayInputStream(jpeg));
    byte[] bgr = ((java.awt.image.DataBufferByte) image.getRaster().getDataBuffer()).getData();
    byte[] rgb = new byte[bgr.length];
    for (int i = 0; i < bgr.length; i += 3) {
      rgb[i] = bgr[i + 2];
      rgb[i + 1] = bgr[i + 1];
      rgb[i + 2] = bgr[i];
    }
    return rgb;
  }

  /** Waves of all lengths and noise: about as many bytes as a photograph has. */
  private static byte[] jpeg(int height, int width, long seed) throws IOException {
    Random random = new Random(seed);
    BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_3BYTE_BGR);
    double[][] across = new double[12][width];
    double[][] down = new double[12][height];
    for (int k = 0; k < 12; k++) {
      double length = Math.pow(2, 1 + random.nextInt(8));
      double phase = random.nextDouble();
      for (int x = 0; x < width; x++) {
        across[k][x] = 30 / Math.sqrt(k + 1) * Math.sin(6.3 * (x * length / width + phase));
      }
      for (int y = 0; y < height; y++) {
        down[k][y] = Math.cos(6.3 * (y * length / height * random.nextInt(1, 3) / 2 + phase));
      }
    }
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        double[] rgb = {110, 120, 130};
        for (int k = 0; k < 12; k++) {
          double value = across[k][x] * down[k][y];
          rgb[0] += value;
          rgb[1] += k % 2 == 0 ? value : 0.8 * value;
          rgb[2] += k % 3 == 0 ? value : 0.7 * value;
        }
        double noise = 6 * random.nextGaussian();
        int packed = 0;
        for (double value : rgb) {
          packed = packed << 8 | Math.clamp(Math.round(value + noise), 0, 255);
        }
        image.setRGB(x, y, packed);
      }
    }
    ImageWriter writer = ImageIO.getImageWritersByFormatName("jpeg").next();
    ImageWriteParam quality = writer.getDefaultWriteParam();
    quality.setCompressionMode(ImageWriteParam.MODE_EXPLICIT);
    quality.setCompressionQuality(0.9f);
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try (MemoryCacheImageOutputStream stream = new MemoryCacheImageOutputStream(out)) {
      writer.setOutput(stream);
      writer.write(null, new IIOImage(image, null, null), quality);
    } finally {
      writer.dispose();
    }
    return out.toByteArray();
  }

  private static Datasets open(Path folder, int size, Reading.Place place) {
    return Datasets.open(
        folder.toString(), Datasets.Options.size(size, size, 3).reading(Reading.DEFAULT.at(place)));
  }

  // --- training steps ---

  private static void steps(Path folder) throws IOException {
    write(folder, 375, 500);
    int size = 112;
    TrainingConfig config = TrainingConfig.builder().batch(8).epochs(10_000).flip(true).build();
    try (Backend backend = Backends.open("cpu")) {
      Datasets stored = open(folder, size, Reading.Place.MEMORY);
      Datasets streamed = open(folder, size, Reading.Place.STREAM);
      Networks.Options network = new Networks.Options("plain50", Networks.Block.V2, 0, 0);
      Run first = Run.of(network, ShapingConfig.DEFAULT, config, stored, "photos");
      Run second = Run.of(network, ShapingConfig.DEFAULT, config, streamed, "photos");
      try (Trainer a = Trainer.start(first, stored, backend, null);
          Trainer b = Trainer.start(second, streamed, backend, null)) {
        double[][] times = new double[2][11];
        for (int round = -2; round < 11; round++) {
          for (int which = 0; which < 2; which++) {
            Trainer trainer = which == 0 ? a : b;
            trainer.step(); // from now on a batch is read for each that is taken
            long begin = SYSTEM.getProcessCpuTime();
            for (int i = 0; i < 3; i++) {
              trainer.step();
            }
            if (round >= 0) {
              times[which][round] = SYSTEM.getProcessCpuTime() - begin;
            }
          }
        }
        System.out.printf(
            Locale.ROOT,
            "plain50, 112x112, batch 8: a step with JPEGs of 375x500 takes %s of one from"
                + " memory; waited for images %.1f %% of the time%n",
            ratio(times[1], times[0]),
            100 * b.waitedShare());
      }
    }
  }

  // --- memory ---

  private static void memory(Path folder) throws IOException {
    BufferedImage small = new BufferedImage(8, 8, BufferedImage.TYPE_BYTE_GRAY);
    ByteArrayOutputStream jpeg = new ByteArrayOutputStream();
    ImageIO.write(small, "jpeg", jpeg);
    for (int images : new int[] {10_000, 40_000, 160_000}) {
      Path set = folder.resolve(Integer.toString(images));
      for (String part : List.of("train", "test")) {
        Path in = Files.createDirectories(set.resolve(part));
        int count = part.equals("test") ? 100 : images;
        for (int first = 0; first < count; first += 10_000) {
          Path tar = in.resolve(String.format(Locale.ROOT, "%06d.tar", first / 10_000));
          try (TarArchiveOutputStream out =
              new TarArchiveOutputStream(
                  new BufferedOutputStream(Files.newOutputStream(tar), 1 << 20))) {
            for (int i = first; i < Math.min(count, first + 10_000); i++) {
              String key = String.format(Locale.ROOT, "n%08d_%05d", i % 1000, i);
              member(out, key + ".jpg", jpeg.toByteArray());
              member(out, key + ".cls", Integer.toString(i % 1000).getBytes(UTF_8));
            }
          }
        }
      }
      long before = used();
      long begin = System.nanoTime();
      Datasets data = open(set, SIZE, Reading.Place.STREAM);
      double opened = (System.nanoTime() - begin) * 1e-9;
      try (BatchLoader loader =
          BatchLoader.over(data.train(), PerLocationNormalization.plain(3, Homogeneous.ONE))
              .bytes()
              .shuffle(1)
              .batch(64)
              .open()) {
        for (int i = 0; i < 20; i++) {
          loader.next().close();
        }
        System.out.printf(
            Locale.ROOT,
            "%,d images in shards: %.1f MB of heap, %.0f bytes an image (decoded %.0f MB); opened in"
                + " %.1f s%n",
            images,
            (used() - before) / 1e6,
            (double) (used() - before) / images,
            images * 3e-6 * SIZE * SIZE,
            opened);
      }
    }
  }

  private static long used() {
    for (int i = 0; i < 3; i++) {
      System.gc();
    }
    return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
  }

  private static void member(TarArchiveOutputStream tar, String name, byte[] content)
      throws IOException {
    TarArchiveEntry entry = new TarArchiveEntry(name);
    entry.setSize(content.length);
    tar.putArchiveEntry(entry);
    tar.write(content);
    tar.closeArchiveEntry();
  }

  // --- figures ---

  private static double median(double[] values) {
    return Campaign.median(values.clone());
  }

  private static String ratio(double[] times, double[] base) {
    double[] ratios = new double[times.length];
    for (int i = 0; i < ratios.length; i++) {
      ratios[i] = times[i] / base[i];
    }
    return String.format(
        Locale.ROOT,
        "%.2fx (%.2f to %.2f)",
        median(ratios),
        Arrays.stream(ratios).min().orElse(Double.NaN),
        Arrays.stream(ratios).max().orElse(Double.NaN));
  }
}
