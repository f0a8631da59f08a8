package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class BatchLoaderTest {
  private static final int H = 3;
  private static final int W = 4;
  private static final PerLocationNormalization PLN =
      PerLocationNormalization.plain(1, Homogeneous.ONE);

  /** Image i is all of value i, its label i modulo 7, so that a batch tells which images it has. */
  private static ImageDataset data(int size) {
    byte[][] images = new byte[size][H * W];
    int[] labels = new int[size];
    for (int i = 0; i < size; i++) {
      Arrays.fill(images[i], (byte) i);
      labels[i] = i % 7;
    }
    return ImageDataset.of("numbered", Split.TRAIN, H, W, 1, ClassNames.numbers(7), images, labels);
  }

  /** Which image lies at a place of a batch: from (x, 1)/rms, x = i/255. */
  private static int imageAt(Batch batch, int place) {
    float x = batch.src().get((long) place * H * W * 2);
    float one = batch.src().get((long) place * H * W * 2 + 1);
    return Math.round(255 * x / one);
  }

  private record Seen(long epoch, int step, int valid, List<Float> src, List<Float> labels) {
    static Seen of(Batch batch) {
      return new Seen(
          batch.epoch(), batch.step(), batch.valid(), list(batch.src()), list(batch.labels()));
    }

    private static List<Float> list(Tensor tensor) {
      List<Float> values = new ArrayList<>();
      for (float value : tensor.toFloatArray()) {
        values.add(value);
      }
      return values;
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

  @Test
  void inOrderWithAPaddedLastBatch() {
    try (BatchLoader loader = BatchLoader.over(data(10), PLN).batch(4).open()) {
      assertEquals(3, loader.stepsPerEpoch());
      assertEquals(Shape.of(4, H, W, 2), loader.srcShape());
      int[][] expected = {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 9, 9}};
      for (int i = 0; i < 9; i++) {
        try (Batch batch = loader.next()) {
          assertEquals(i / 3, batch.epoch());
          assertEquals(i % 3, batch.step());
          assertEquals(i % 3 == 2 ? 2 : 4, batch.valid());
          for (int place = 0; place < 4; place++) {
            int image = expected[i % 3][place];
            assertEquals(image, imageAt(batch, place));
            int label = place < batch.valid() ? image % 7 : Batch.PADDING;
            assertEquals(label, batch.labels().get(place));
          }
        }
      }
    }
  }

  @Test
  void tensorsHoldWhatNormalisationGives() {
    ImageDataset data = Datasets.open("embedded").test();
    PerLocationNormalization pln = PerLocationNormalization.of(data);
    float[] one = new float[28 * 28 * 2];
    try (BatchLoader loader = BatchLoader.over(data, pln).batch(3).startAt(0, 5).open();
        Batch batch = loader.next()) {
      float[] src = batch.src().toFloatArray();
      for (int i = 0; i < 3; i++) {
        pln.apply(data.image(15 + i), one);
        assertArrayEquals(one, Arrays.copyOfRange(src, i * one.length, (i + 1) * one.length));
        assertEquals(data.label(15 + i), batch.labels().get(i));
      }
    }
  }

  /** Batch by batch, bytes are what the values of another loader were normalised from. */
  @Test
  void bytesAreWhatValuesComeFrom() {
    ImageDataset data = gradients();
    PerLocationNormalization pln = PerLocationNormalization.of(data);
    for (Augmentation augmentation : List.of(Augmentation.NONE, new Augmentation(2, true))) {
      BatchLoader.Builder builder =
          BatchLoader.over(data, pln).batch(3).shuffle(5).augment(augmentation, 6);
      try (BatchLoader values = builder.open();
          BatchLoader bytes = builder.bytes().threads(2).open()) {
        assertEquals(Shape.of(3, data.height(), data.width(), data.channels()), bytes.srcShape());
        for (int i = 0; i < 2 * values.stepsPerEpoch(); i++) {
          try (Batch expected = values.next();
              Batch actual = bytes.next();
              Tensor normalized =
                  Tensor.allocate(expected.src().shape(), DataType.F32, Layout.NHWC)) {
            assertEquals(DataType.U8, actual.src().type());
            pln.apply(actual.src(), normalized);
            assertArrayEquals(expected.src().toFloatArray(), normalized.toFloatArray());
            assertArrayEquals(expected.labels().toFloatArray(), actual.labels().toFloatArray());
            assertEquals(expected.valid(), actual.valid());
          }
        }
      }
    }
  }

  @Test
  void anEpochIsAPermutationAndTheNextAnother() {
    List<List<Integer>> epochs = new ArrayList<>();
    try (BatchLoader loader = BatchLoader.over(data(200), PLN).batch(8).shuffle(3).open()) {
      for (int e = 0; e < 3; e++) {
        List<Integer> order = new ArrayList<>();
        for (int s = 0; s < loader.stepsPerEpoch(); s++) {
          try (Batch batch = loader.next()) {
            for (int i = 0; i < 8; i++) {
              int image = imageAt(batch, i);
              order.add(image);
              assertEquals(image % 7, batch.labels().get(i));
            }
          }
        }
        Set<Integer> all = new HashSet<>(order);
        assertEquals(200, all.size());
        epochs.add(order);
      }
    }
    assertNotEquals(epochs.get(0), epochs.get(1));
    assertNotEquals(epochs.get(1), epochs.get(2));
  }

  @Test
  void firstPlacesAreUniform() {
    // 4 images: each of the 24 orders should come about equally often over the epochs.
    int epochs = 12_000;
    Map<List<Integer>, Integer> count = new HashMap<>();
    try (BatchLoader loader = BatchLoader.over(data(4), PLN).batch(4).shuffle(11).open()) {
      for (int e = 0; e < epochs; e++) {
        try (Batch batch = loader.next()) {
          count.merge(
              List.of(imageAt(batch, 0), imageAt(batch, 1), imageAt(batch, 2), imageAt(batch, 3)),
              1,
              Integer::sum);
        }
      }
    }
    assertEquals(24, count.size());
    double chi = 0;
    for (int n : count.values()) {
      chi += (n - epochs / 24.0) * (n - epochs / 24.0) / (epochs / 24.0);
    }
    assertTrue(chi <= 58, "chi-squared " + chi); // 23 degrees of freedom, 99.99 % quantile 57.9
  }

  @Test
  void dropLastLeavesOutWhatDoesNotFill() {
    BatchLoader.Builder builder = BatchLoader.over(data(10), PLN).batch(4).shuffle(1).dropLast();
    List<Seen> seen = take(builder, 5);
    assertEquals(2, seen.get(4).epoch());
    assertEquals(0, seen.get(4).step());
    for (Seen s : seen) {
      assertEquals(4, s.valid());
    }
  }

  @Test
  void repeatsBitwiseWhateverTheThreads() {
    List<Seen> one = take(augmented().threads(1), 40);
    assertEquals(one, take(augmented().threads(1).prefetch(5), 40));
    assertEquals(one, take(augmented().threads(4).prefetch(3), 40));
    assertNotEquals(one, take(augmented().shuffle(8), 40));
    assertNotEquals(one, take(augmented().augment(new Augmentation(1, true), 10), 40));
  }

  private static BatchLoader.Builder augmented() {
    return BatchLoader.over(gradients(), PLN)
        .batch(5)
        .shuffle(7)
        .augment(new Augmentation(1, true), 9)
        .dropLast();
  }

  /** Images that a crop or a flip changes. */
  private static ImageDataset gradients() {
    return ImageDataset.of(
        "gradients",
        Split.TRAIN,
        H,
        W,
        1,
        ClassNames.numbers(1),
        Idx.imageSet(23, H * W),
        new int[23]);
  }

  @Test
  void resumesBitwise() {
    List<Seen> whole = take(augmented(), 20); // 4 steps an epoch
    assertEquals(4, whole.get(18).epoch());
    for (int from : new int[] {1, 3, 4, 7, 16}) {
      List<Seen> rest = take(augmented().startAt(from / 4, from % 4), 20 - from);
      assertEquals(whole.subList(from, 20), rest);
    }
    assertEquals(whole.subList(8, 12), take(augmented().startAt(1, 4), 4)); // end of epoch 1
  }

  @Test
  void theRingIsUsedAgain() {
    IdentityHashMap<Tensor, Boolean> tensors = new IdentityHashMap<>();
    try (BatchLoader loader = BatchLoader.over(data(50), PLN).batch(5).prefetch(2).open()) {
      for (int i = 0; i < 100; i++) {
        try (Batch batch = loader.next()) {
          tensors.put(batch.src(), true);
        }
      }
    }
    assertTrue(tensors.size() <= 3, tensors.size() + " tensors");
  }

  @Test
  void severalBatchesCanBeHeldAndTooManyAreRefused() {
    try (BatchLoader loader = BatchLoader.over(data(50), PLN).batch(5).prefetch(1).open()) {
      Batch first = loader.next();
      Batch second = loader.next();
      assertNotSame(first, second);
      assertEquals(0, imageAt(first, 0));
      assertEquals(5, imageAt(second, 0));
      IllegalStateException e = assertThrows(IllegalStateException.class, loader::next);
      assertTrue(e.getMessage().contains("all 2 batches are lent"), e.getMessage());
      first.close();
      first.close(); // idempotent
      try (Batch third = loader.next()) {
        assertSame(first, third);
        assertEquals(10, imageAt(third, 0));
        assertEquals(5, imageAt(second, 0));
      }
    }
  }

  @Test
  void aFailureInTheBackgroundReachesTheConsumer() {
    RuntimeException cause = new RuntimeException("disk on fire");
    BatchLoader.Builder builder = BatchLoader.over(data(50), PLN).batch(5);
    try (BatchLoader loader =
        builder.open(
            (index, epoch, scratch) -> {
              if (index == 12) {
                throw cause;
              }
              return scratch;
            })) {
      loader.next().close();
      loader.next().close(); // images before the failing batch still come
      IllegalStateException e = assertThrows(IllegalStateException.class, loader::next);
      assertSame(cause, e.getCause());
      assertTrue(e.getMessage().contains("disk on fire"), e.getMessage());
      assertThrows(IllegalStateException.class, loader::next);
    }
  }

  @Test
  void closeStopsInTheMiddleOfABatch() throws InterruptedException {
    CountDownLatch started = new CountDownLatch(1);
    CountDownLatch release = new CountDownLatch(1);
    AtomicInteger read = new AtomicInteger();
    BatchLoader loader =
        BatchLoader.over(data(100), PLN)
            .batch(100)
            .open(
                (index, epoch, scratch) -> {
                  read.incrementAndGet();
                  started.countDown();
                  while (release.getCount() > 0) {
                    Thread.onSpinWait();
                  }
                  return scratch;
                });
    started.await();
    Thread closer = Thread.ofPlatform().start(loader::close);
    while (closer.getState() != Thread.State.WAITING) { // for the loader's thread, so it is told
      Thread.onSpinWait();
    }
    release.countDown();
    closer.join();
    assertEquals(1, read.get());
    loader.close(); // idempotent
    assertThrows(IllegalStateException.class, loader::next);
  }

  @Test
  void closeWakesAWaitingConsumer() throws InterruptedException {
    CountDownLatch release = new CountDownLatch(1);
    CountDownLatch waiting = new CountDownLatch(1);
    BatchLoader loader =
        BatchLoader.over(data(10), PLN)
            .batch(1)
            .open(
                (index, epoch, scratch) -> {
                  waiting.countDown();
                  while (release.getCount() > 0) {
                    Thread.onSpinWait();
                  }
                  return scratch;
                });
    List<Throwable> problems = new ArrayList<>();
    Thread consumer =
        Thread.ofPlatform()
            .start(
                () -> {
                  try {
                    loader.next();
                  } catch (IllegalStateException expected) {
                    problems.add(expected);
                  }
                });
    waiting.await();
    Thread closer = Thread.ofPlatform().start(loader::close);
    consumer.join();
    release.countDown();
    closer.join();
    assertEquals(1, problems.size());
    assertTrue(problems.get(0).getMessage().contains("closed"));
  }

  @Test
  void tensorsAreInvalidAfterClose() {
    BatchLoader loader = BatchLoader.over(data(10), PLN).batch(2).open();
    Batch batch = loader.next();
    loader.close();
    assertThrows(IllegalStateException.class, () -> batch.src().get(0));
    batch.close(); // harmless
  }

  @Test
  void refusesImpossibleSettings() {
    ImageDataset data = data(10);
    DataException.BatchTooLarge e =
        assertThrows(
            DataException.BatchTooLarge.class,
            () -> BatchLoader.over(data, PLN).batch(11).dropLast().open());
    assertTrue(e.getMessage().contains("10"), e.getMessage());
    assertEquals(1, take(BatchLoader.over(data, PLN).batch(11), 1).size()); // padded
    for (BatchLoader.Builder bad :
        List.of(
            BatchLoader.over(data, PLN).batch(0),
            BatchLoader.over(data, PLN).prefetch(0),
            BatchLoader.over(data, PLN).threads(0),
            BatchLoader.over(data, PLN).startAt(-1, 0),
            BatchLoader.over(data, PLN).batch(5).startAt(0, 3),
            BatchLoader.over(data, PLN).startAt(Long.MAX_VALUE, 0),
            BatchLoader.over(data, PerLocationNormalization.plain(3, Homogeneous.ONE)),
            BatchLoader.over(data(0), PLN))) {
      assertThrows(IllegalArgumentException.class, bad::open);
    }
  }
}
