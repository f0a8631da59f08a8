package io.jtrelu.data;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.data.Reading.OnBadImage;
import io.jtrelu.data.Reading.Place;
import java.io.IOException;
import java.lang.foreign.ValueLayout;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.Charset;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(120)
class StreamedImagesTest {
  private static final PerLocationNormalization PLN =
      PerLocationNormalization.plain(1, Homogeneous.ONE);

  @TempDir Path folder;

  private static Reading reading(Place place, OnBadImage onBadImage, int threads) {
    return new Reading(place, onBadImage, threads);
  }

  private Datasets open(Reading reading) {
    return Datasets.open(folder.toString(), Datasets.Options.DEFAULT.reading(reading));
  }

  private ImageDataset train(OnBadImage onBadImage, int threads) {
    return open(reading(Place.STREAM, onBadImage, threads)).train();
  }

  /** A picture that says its number in every pixel. */
  private static byte[] numbered(int number) throws IOException {
    return ImageFolderReaderTest.encode(ImageFolderReaderTest.gray(4, 4, number), "png");
  }

  /** Shards of numbered pictures, of classes 0 to 2 in turn, five a shard. */
  private void numberedShards(String part, int count, int... bad) throws IOException {
    Path in = Files.createDirectories(folder.resolve(part));
    for (int first = 0, shard = 0; first < count; first += 5, shard++) {
      Tar tar = new Tar();
      for (int i = first; i < Math.min(count, first + 5); i++) {
        int number = i;
        byte[] png = numbered(i);
        if (Arrays.stream(bad).anyMatch(b -> b == number)) {
          png[60] ^= 1; // its checksum tells
        }
        tar.add("%05d.png".formatted(i), png).add("%05d.cls".formatted(i), i % 3 + "\n");
      }
      Files.write(in.resolve("%06d.tar".formatted(shard)), tar.bytes());
    }
  }

  /** Photographs of several sizes, as a folder a class or as shards. */
  private void photographs(boolean shards, int count) throws IOException {
    for (String part : List.of("train", "test")) {
      Tar tar = new Tar();
      for (int label = 0; label < 2; label++) {
        Path in = folder.resolve(shards ? part : part + "/" + label);
        Files.createDirectories(in);
        for (int i = 0; i < count; i++) {
          int seed = 2 * i + label;
          byte[] jpeg =
              ImageFolderReaderTest.encode(
                  JpegDecodersTest.photograph(30 + 5 * (i % 4), 60 - 7 * (i % 3), seed), "jpeg");
          String name = label + "-" + i;
          if (shards) {
            tar.add(name + ".JPG", jpeg).add(name + ".cls", Integer.toString(label));
          } else {
            Files.write(in.resolve(name + ".JPG"), jpeg);
          }
        }
      }
      if (shards) {
        Files.write(folder.resolve(part).resolve("a.tar"), tar.bytes());
      }
    }
  }

  private record Seen(long epoch, int step, List<Integer> labels, ByteBuffer pixels) {
    static Seen of(Batch batch) {
      List<Integer> labels = new ArrayList<>();
      for (int row = 0; row < batch.labels().shape().dim(0); row++) {
        labels.add(batch.label(row));
      }
      byte[] pixels = batch.src().segment().toArray(ValueLayout.JAVA_BYTE);
      return new Seen(batch.epoch(), batch.step(), labels, ByteBuffer.wrap(pixels));
    }
  }

  private static List<Seen> take(BatchLoader.Builder builder, int count) {
    List<Seen> seen = new ArrayList<>();
    try (BatchLoader loader = builder.open()) {
      for (int i = 0; i < count; i++) {
        try (Batch batch = loader.next()) {
          seen.add(Seen.of(batch));
        }
      }
    }
    return seen;
  }

  /** The first byte of each picture of a batch of 4x4x1. */
  private static List<Integer> numbers(Seen seen) {
    List<Integer> numbers = new ArrayList<>();
    for (int at = 0; at < seen.pixels.capacity(); at += 16) {
      numbers.add(seen.pixels.get(at) & 0xff);
    }
    return numbers;
  }

  /**
   * The order that the manual gives, by the JDK's SplitMix64: a key is mixed from seed and place,
   * and the n-th value decides the n-th exchange of a Fisher-Yates shuffle.
   */
  private static List<Integer> shuffled(int size, long seed, long epoch) {
    long key = new SplittableRandom(seed).nextLong();
    for (long part : new long[] {1, epoch}) {
      SplittableRandom values = new SplittableRandom(key);
      for (long skip = 0; skip < part; skip++) {
        values.nextLong();
      }
      key = values.nextLong();
    }
    SplittableRandom values = new SplittableRandom(key);
    List<Integer> order = new ArrayList<>();
    for (int i = 0; i < size; i++) {
      BigInteger uniform = BigInteger.valueOf(values.nextLong() >>> 1);
      int j = uniform.multiply(BigInteger.valueOf(i + 1)).shiftRight(63).intValue();
      order.add(i);
      order.set(i, order.get(j));
      order.set(j, i);
    }
    return order;
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 5})
  void theWholeSetIsShuffledWhateverTheShards(int threads) throws IOException {
    numberedShards("train", 33);
    numberedShards("test", 3);
    ImageDataset train = train(OnBadImage.STOP, threads);
    assertTrue(train.isStreamed());
    assertEquals(33, train.size());
    List<Seen> seen =
        take(BatchLoader.over(train, PLN).bytes().batch(4).shuffle(9).dropLast(), 3 * 8);
    for (int epoch = 0; epoch < 3; epoch++) {
      List<Integer> order = new ArrayList<>();
      for (Seen batch : seen.subList(8 * epoch, 8 * epoch + 8)) {
        List<Integer> numbers = numbers(batch);
        order.addAll(numbers);
        assertEquals(numbers.stream().map(n -> n % 3).toList(), batch.labels);
      }
      assertEquals(shuffled(33, 9, epoch).subList(0, 32), order, "epoch " + epoch);
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void bitsAreTheSameForAnyThreadsAndFromAnyStep(boolean shards) throws IOException {
    photographs(shards, 7);
    List<Seen> whole = take(augmented(1), 15);
    assertEquals(whole, take(augmented(2), 15));
    assertEquals(whole, take(augmented(5), 15));
    for (int from : new int[] {1, 4, 5, 9}) { // 4 steps an epoch
      List<Seen> rest = take(augmented(3).startAt(from / 4, from % 4), 15 - from);
      assertEquals(whole.subList(from, 15), rest, "from " + from);
    }
    assertNotEquals(whole.get(0), whole.get(4), "another epoch, another order");
  }

  private BatchLoader.Builder augmented(int threads) {
    Datasets data =
        Datasets.open(
            folder.toString(),
            Datasets.Options.size(24, 24, 3)
                .reading(reading(Place.STREAM, OnBadImage.STOP, threads)));
    return BatchLoader.over(data.train(), PerLocationNormalization.plain(3, Homogeneous.ONE))
        .bytes()
        .batch(3)
        .shuffle(7)
        .augment(new Augmentation(0, true, 0.1), 8)
        .dropLast();
  }

  @Test
  void memoryAndFilesGiveTheSameImages() throws IOException {
    photographs(false, 5);
    Datasets stored = open(reading(Place.MEMORY, OnBadImage.STOP, 2));
    Datasets streamed = open(reading(Place.STREAM, OnBadImage.STOP, 2));
    assertFalse(stored.train().isStreamed());
    assertTrue(streamed.train().isStreamed());
    assertEquals(stored.train().toString(), streamed.train().toString());
    for (int i = 0; i < stored.train().size(); i++) {
      assertArrayEquals(stored.train().image(i), streamed.train().image(i));
      assertEquals(stored.train().label(i), streamed.train().label(i));
    }
    PerLocationNormalization a = PerLocationNormalization.of(stored.train());
    PerLocationNormalization b = PerLocationNormalization.of(streamed.train());
    assertArrayEquals(a.mean(), b.mean());
    assertArrayEquals(a.std(), b.std());
    Augmentation shift = new Augmentation(2, true);
    assertEquals(
        take(BatchLoader.over(stored.train(), a).batch(3).shuffle(1).augment(shift, 2), 6),
        take(BatchLoader.over(streamed.train(), b).batch(3).shuffle(1).augment(shift, 2), 6));
  }

  @Test
  void theDigestIsThatOfNamesSizesAndLabels() throws IOException {
    numberedShards("here/train", 7);
    numberedShards("here/test", 7);
    String digest = digest("here", OnBadImage.STOP, 1);
    assertTrue(digest.matches("files:[0-9a-f]{64}"), digest);
    assertEquals(digest, digest("here", OnBadImage.SKIP, 4));
    Files.move(folder.resolve("here"), folder.resolve("there"));
    assertEquals(digest, digest("there", OnBadImage.STOP, 1));
    Path shards = folder.resolve("there/train");
    Files.move(shards.resolve("000001.tar"), shards.resolve("000002.tar"));
    assertNotEquals(digest, digest("there", OnBadImage.STOP, 1));
  }

  private String digest(String set, OnBadImage onBadImage, int threads) {
    return Datasets.open(
            folder.resolve(set).toString(),
            Datasets.Options.DEFAULT.reading(reading(Place.STREAM, onBadImage, threads)))
        .train()
        .digest();
  }

  @Test
  void shardsCanBeSplitAndReadWhole() throws IOException {
    numberedShards("", 30);
    Files.writeString(folder.resolve("classes.txt"), "ant\nbee\ncat\n");
    Datasets parts = open(reading(Place.STREAM, OnBadImage.STOP, 2));
    assertEquals(List.of("ant", "bee", "cat"), parts.train().classes());
    assertEquals(24, parts.train().size());
    assertEquals(6, parts.test().size());
    for (int i = 0; i < 6; i++) {
      assertEquals(parts.test().image(i)[0] % 3, parts.test().label(i));
    }
    Datasets.Options options =
        Datasets.Options.DEFAULT.reading(reading(Place.STREAM, OnBadImage.STOP, 2));
    assertEquals(30, Datasets.openTest(folder.toString(), options).size());
    assertEquals(30, Datasets.openWhole(folder.toString(), options).size());
    Datasets stored = open(reading(Place.MEMORY, OnBadImage.STOP, 2));
    assertEquals(parts.test().image(3)[0], stored.test().image(3)[0]);
    Files.writeString(folder.resolve("classes.txt"), "ant\nbee\n");
    DataException e =
        assertThrows(
            DataException.Malformed.class, () -> open(reading(Place.STREAM, OnBadImage.STOP, 1)));
    assertTrue(e.getMessage().contains("labels up to 2"), e.getMessage());
  }

  // --- bad images ---

  @Test
  void aBadImageStopsAndIsNamed() throws IOException {
    numberedShards("train", 12, 7);
    numberedShards("test", 3);
    // The header is looked at when the set is opened: this one's is damaged.
    DataException e = assertThrows(DataException.Malformed.class, () -> train(OnBadImage.STOP, 3));
    assertTrue(e.getMessage().contains("000001.tar at byte "), e.getMessage());
    assertTrue(e.getMessage().contains("00007.png"), e.getMessage());
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 5})
  void theNextIntactImageStandsInForABadOne(int threads) throws IOException {
    numberedShards("train", 12, 3, 7, 8, 11);
    numberedShards("test", 3);
    ImageDataset train = train(OnBadImage.SKIP, threads);
    List<Seen> seen = take(BatchLoader.over(train, PLN).bytes().batch(4).shuffle(2).dropLast(), 6);
    int[] shown = {0, 1, 2, 4, 4, 5, 6, 9, 9, 9, 10, 0};
    for (int epoch = 0; epoch < 2; epoch++) {
      List<Integer> expected = shuffled(12, 2, epoch).stream().map(i -> shown[i]).toList();
      List<Integer> actual = new ArrayList<>();
      for (Seen batch : seen.subList(3 * epoch, 3 * epoch + 3)) {
        actual.addAll(numbers(batch));
        assertEquals(numbers(batch).stream().map(n -> n % 3).toList(), batch.labels);
      }
      assertEquals(expected, actual);
    }
    assertEquals(4, train.skipped().size());
    assertTrue(train.skipped().get(0).contains("00003.png"), train.skipped().get(0));
    assertTrue(train.skipped().get(3).contains("00011.png"), train.skipped().get(3));
  }

  @Test
  void whereAllAreMeasuredABadOneIsPadding() throws IOException {
    numberedShards("train", 12, 3, 7, 8, 11);
    numberedShards("test", 3);
    ImageDataset train = train(OnBadImage.SKIP, 3);
    List<Integer> labels = new ArrayList<>();
    take(BatchLoader.over(train, PLN).bytes().batch(5), 3).forEach(b -> labels.addAll(b.labels));
    assertEquals(List.of(0, 1, 2, -1, 1, 2, 0, -1, -1, 0, 1, -1, -1, -1, -1), labels);
  }

  @Test
  void inMemoryBadOnesAreLeftOut() throws IOException {
    numberedShards("train", 12, 0, 7, 8, 11); // the first one's size is the set's
    numberedShards("test", 3);
    Datasets data = open(reading(Place.MEMORY, OnBadImage.SKIP, 3));
    assertEquals(8, data.train().size());
    int[] left = {1, 2, 3, 4, 5, 6, 9, 10};
    for (int i = 0; i < left.length; i++) {
      assertEquals(left[i], data.train().image(i)[0]);
      assertEquals(left[i] % 3, data.train().label(i));
    }
    assertTrue(
        data.notes().stream().anyMatch(n -> n.startsWith("4 bad images were left out")),
        data.notes().toString());
  }

  @Test
  void whatCannotBeReadStopsEvenWhereBadImagesAreSkipped() throws IOException {
    photographs(false, 4);
    ImageDataset train = train(OnBadImage.SKIP, 2);
    Files.delete(folder.resolve("train/1/1-2.JPG"));
    try (BatchLoader loader =
        BatchLoader.over(train, PerLocationNormalization.plain(3, Homogeneous.ONE))
            .batch(8)
            .open()) {
      IllegalStateException e = assertThrows(IllegalStateException.class, loader::next);
      assertInstanceOf(DataException.Missing.class, e.getCause());
      assertTrue(e.getMessage().contains("1-2.JPG"), e.getMessage());
    }
  }

  @Test
  void aSetWithoutIntactImagesIsRefused() throws IOException {
    numberedShards("train", 3, 0, 1, 2);
    numberedShards("test", 3, 0, 1, 2);
    assertThrows(DataException.Malformed.class, () -> train(OnBadImage.SKIP, 2));
  }

  // --- shards that are wrong ---

  private DataException refused(Tar tar) throws IOException {
    Files.createDirectories(folder.resolve("train"));
    Files.write(folder.resolve("train/x.tar"), tar.bytes());
    return assertThrows(DataException.class, () -> train(OnBadImage.SKIP, 2));
  }

  @Test
  void samplesThatAreWrongAreNamed() throws IOException {
    numberedShards("test", 3);
    byte[] png = numbered(1);
    DataException unlabelled =
        refused(new Tar().add("a.png", png).add("a.cls", "0").add("d/b.png", png));
    assertTrue(
        unlabelled.getMessage().contains("x.tar at byte 2560: d/b.png has no label"),
        unlabelled.getMessage());
    String text =
        String.valueOf(refused(new Tar().add("a.png", png).add("a.cls", "cat")).getMessage());
    assertTrue(text.contains("a.cls should hold the number of a class"), text);
    Tar enormous = new Tar().add("a.png", png).add("a.cls", "1000000");
    text = String.valueOf(refused(enormous).getMessage());
    assertTrue(text.contains("0 to 999999, and holds '1000000'"), text);
    text = String.valueOf(refused(new Tar().add("a.png", png).add("a.jpg", png)).getMessage());
    assertTrue(text.contains("second image of the sample a"), text);
    text = String.valueOf(refused(new Tar().add("a.cls", "1")).getMessage());
    assertTrue(text.contains("no images in its 1 shards"), text);
    byte[] cut = Arrays.copyOf(new Tar().add("a.png", png).add("a.cls", "1").open(), 1700);
    Files.write(folder.resolve("train/x.tar"), cut);
    DataException e = assertThrows(DataException.class, () -> train(OnBadImage.SKIP, 1));
    assertTrue(e.getMessage().contains("x.tar at byte "), e.getMessage());
    assertTrue(e.getMessage().contains("cut off"), e.getMessage());
  }

  @Test
  void otherMembersArePassedOverAndCounted() throws IOException {
    byte[] png = numbered(5);
    Tar tar = new Tar().add("LICENSE", "x");
    for (int i = 0; i < 4; i++) {
      tar.add("s/" + i + ".json", "{}")
          .add("s/" + i + ".cls", "" + i % 2)
          .add("s/" + i + ".png", png);
    }
    tar.add("s/9.cls", "1");
    Files.write(folder.resolve("a.tar"), tar.bytes());
    Files.write(folder.resolve("b.tar"), new Tar().bytes());
    Files.write(folder.resolve("README"), "x".getBytes(UTF_8));
    Datasets data = open(reading(Place.STREAM, OnBadImage.STOP, 2));
    assertEquals(4, data.train().size() + data.test().size());
    String notes = String.join("\n", data.notes());
    assertTrue(notes.contains("4 members .json"), notes);
    assertTrue(notes.contains("1 labels (.cls) without an image"), notes);
    assertTrue(notes.contains("1 members without a name before a dot"), notes);
  }

  // --- memory ---

  /** Reads a set that its heap cannot hold: in a process of its own. */
  static final class Reader {
    public static void main(String[] args) {
      Datasets data = Datasets.open(args[0]);
      if (!data.train().isStreamed()) {
        throw new IllegalStateException("in memory");
      }
      System.out.println(data.notes());
      long sum = 0;
      PerLocationNormalization pln = PerLocationNormalization.of(data.train());
      try (BatchLoader loader =
          BatchLoader.over(data.train(), pln).bytes().batch(8).shuffle(1).open()) {
        for (int step = 0; step < 2 * loader.stepsPerEpoch(); step++) {
          try (Batch batch = loader.next()) {
            sum += batch.label(0);
          }
        }
      }
      System.out.println("read " + data.train().size() + " twice, " + sum);
      try {
        Datasets.open(args[0], Datasets.Options.DEFAULT.reading(Reading.DEFAULT.at(Place.MEMORY)));
      } catch (DataException.TooLarge refused) {
        System.out.println("refused: " + refused.getMessage());
      }
    }
  }

  @Test
  void aSetBeyondTheHeapIsStreamed() throws IOException, InterruptedException {
    byte[] jpeg = ImageFolderReaderTest.encode(JpegDecodersTest.photograph(160, 160, 1), "jpeg");
    for (int i = 0; i < 600; i++) { // 46 MB of pixels
      Path in = Files.createDirectories(folder.resolve("c" + i % 2));
      Files.write(in.resolve(i + ".jpg"), jpeg);
    }
    Process child = reader("C.UTF-8");
    String said = new String(child.getInputStream().readAllBytes(), UTF_8);
    assertEquals(0, child.waitFor(), said);
    assertTrue(said.contains("read from disk as they are needed"), said);
    assertTrue(said.contains("read 480 twice"), said);
    assertTrue(said.contains("refused: "), said);
  }

  private Process reader(String locale) throws IOException {
    ProcessBuilder child =
        new ProcessBuilder(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-Xmx24m",
            "-XX:+UseSerialGC",
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            System.getProperty("java.class.path"),
            Reader.class.getName(),
            folder.toString());
    child.environment().put("LC_ALL", locale);
    return child.redirectErrorStream(true).start();
  }

  /** A name that this process cannot say is not looked for under another. */
  @Test
  @EnabledOnOs(OS.LINUX)
  void namesOfAnotherEncodingAreRefused() throws IOException, InterruptedException {
    assumeTrue(
        Charset.forName(System.getProperty("sun.jnu.encoding")).equals(UTF_8),
        "this process cannot write such names");
    for (String name : List.of("a/x", "b/x\u00e9")) {
      Path file = folder.resolve(name + ".png");
      Files.createDirectories(file.getParent());
      Files.write(file, numbered(1));
    }
    Process child = reader("C");
    String said = new String(child.getInputStream().readAllBytes(), UTF_8);
    assertEquals(1, child.waitFor(), said);
    assertTrue(said.contains("the name of this image cannot be read as ANSI"), said);
    assertTrue(said.contains("set LC_ALL=C.UTF-8"), said);
  }

  // --- windows of random area ---

  @Test
  void windowsHaveTheirAreaAndProportions() {
    Augmentation how = new Augmentation(0, false, 0.08);
    int cells = 10;
    int[] areas = new int[cells];
    int draws = 20_000;
    for (int i = 0; i < draws; i++) {
      Augmentation.Rectangle r = how.rectangle(1000, 1000, 3, 1, i);
      assertTrue(r.top() >= 0 && r.top() + r.height() <= 1000);
      assertTrue(r.left() >= 0 && r.left() + r.width() <= 1000);
      double proportion = (double) r.width() / r.height();
      assertTrue(proportion > 0.745 && proportion < 1.342, "" + proportion);
      double area = r.height() * r.width() / 1e6;
      assertTrue(area > 0.079 && area <= 1, "" + area);
      areas[(int) Math.min(cells - 1, (area - 0.08) / 0.92 * cells)]++;
    }
    // Small areas always fit: below half of the picture they are uniform. Large ones fit rarely.
    for (int cell = 0; cell < 5; cell++) {
      assertTrue(
          Math.abs(areas[cell] - areas[0]) < 5 * Math.sqrt(2 * areas[0]), Arrays.toString(areas));
    }
    assertTrue(areas[9] > draws / 100, Arrays.toString(areas)); // a seventh of a tenth fits
    // A strip of 1 : 10 has no window of such an area and proportions: the widest is cut out.
    assertEquals(
        new Augmentation.Rectangle(43, 0, 13, 10),
        new Augmentation(0, false, 0.9).rectangle(100, 10, 1, 1, 1));
  }

  /** What a window shows of a ramp is where it lies: the mean of a pixel's part of the columns. */
  @Test
  void aWindowShowsItsPartOfThePicture() throws IOException {
    int[] ramp = new int[80 * 200];
    for (int i = 0; i < ramp.length; i++) {
      ramp[i] = i % 200;
    }
    byte[] png = ImageFolderReaderTest.encode(ImageFolderReaderTest.gray(80, 200, ramp), "png");
    for (String part : List.of("train/a", "train/b", "test/a")) {
      Path in = Files.createDirectories(folder.resolve(part));
      Files.write(in.resolve("x.png"), png);
    }
    ImageDataset train =
        Datasets.open(
                folder.toString(),
                Datasets.Options.size(16, 16, 1).reading(reading(Place.STREAM, OnBadImage.STOP, 1)))
            .train();
    Augmentation how = new Augmentation(0, false, 0.1);
    for (long epoch = 0; epoch < 20; epoch++) {
      Augmentation.Rectangle r = how.rectangle(80, 200, 5, epoch, 1);
      byte[] window = train.images().window(1, how, 5, epoch);
      for (int x = 0; x < 16; x++) {
        double expected = r.left() + (x + 0.5) * r.width() / 16 - 0.5;
        boolean edge = expected < 1 || expected > 198;
        for (int y = 0; y < 16; y++) {
          double difference = (window[16 * y + x] & 0xff) - expected;
          assertTrue(
              Math.abs(difference) <= (edge ? 1.5 : 0.51), r + " at " + x + ": " + difference);
        }
      }
    }
  }

  @Test
  void argumentsAreChecked() {
    assertThrows(IllegalArgumentException.class, () -> new Reading(Place.AUTO, OnBadImage.STOP, 0));
    assertThrows(IllegalArgumentException.class, () -> new Augmentation(0, false, 0));
    assertThrows(IllegalArgumentException.class, () -> new Augmentation(0, false, 1.1));
    assertThrows(IllegalArgumentException.class, () -> new Augmentation(1, false, 0.5));
  }
}
