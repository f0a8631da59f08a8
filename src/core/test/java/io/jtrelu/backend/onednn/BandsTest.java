package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.Objects;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.Test;

/** Forward passes that several threads share. */
class BandsTest {
  private static final Rectifier PHI = Rectifier.tailored(0.4);

  /** Bands are the rows of all images, once each, and begin where the kernel's tiles do. */
  @Test
  void bandsCoverAllRowsOnce() {
    SplittableRandom random = new SplittableRandom(1);
    int several = 0;
    for (int i = 0; i < 2000; i++) {
      int together = List.of(1, 2, 3, 4).get(i % 4);
      int n = random.nextInt(6);
      Conv2dDescriptor d = Conv2dDescriptor.of(n, random.nextInt(1, 60), 40, 64, 64, 1, 1, 0);
      List<Bands.Band> bands = Bands.cut(d, together, random.nextInt(1, 20));
      BitSet rows = new BitSet();
      for (Bands.Band band : bands) {
        assertEquals(0, band.row() % together);
        assertTrue(band.images() == 1 || band.rows() == d.oh());
        for (int image = band.image(); image < band.image() + band.images(); image++) {
          for (int row = band.row(); row < band.row() + band.rows(); row++) {
            int place = image * d.oh() + row;
            assertTrue(!rows.get(place) && row < d.oh() && image < n, d + " " + bands);
            rows.set(place);
          }
        }
      }
      assertTrue(bands.isEmpty() || rows.cardinality() == n * d.oh(), d + " " + bands);
      several += bands.size() > 2 ? 1 : 0;
    }
    assertTrue(several > 500, several + " of several bands");
  }

  /** Fourteen rows in tiles of four for two threads; a classifier is too little for two. */
  @Test
  void rowsThatAreComputedTogetherStayTogether() {
    assertEquals(
        List.of(new Bands.Band(0, 1, 0, 8), new Bands.Band(0, 1, 8, 6)),
        Bands.cut(Conv2dDescriptor.of(1, 14, 14, 64, 64, 3, 1, 1), 4, 2));
    assertEquals(
        List.of(new Bands.Band(0, 2, 0, 14), new Bands.Band(2, 3, 0, 14)),
        Bands.cut(Conv2dDescriptor.of(5, 14, 14, 64, 64, 3, 1, 1), 4, 2));
    assertEquals(List.of(), Bands.cut(Conv2dDescriptor.of(1, 1, 1, 64, 10, 1, 1, 0), 1, 2));
  }

  /** The same bits on three threads as on one. */
  @Test
  void sharedPassesGiveTheBitsOfTheWhole() throws IOException {
    SplittableRandom random = new SplittableRandom(2);
    try (OneDnnBackend backend = (OneDnnBackend) new OneDnnSubject().open();
        CpuKernels kernels = CpuKernels.load(0);
        Stream alone = backend.newStream();
        Stream shared = backend.newSharedStream(3)) {
      for (int i = 0; i < 150; i++) {
        int turn = i / 5;
        boolean winograd = i % 5 == 0;
        boolean strided = i % 5 == 1;
        boolean strassen = i % 5 == 2;
        boolean few = i % 5 == 3;
        int kernel = winograd || strided ? 3 : strassen ? 1 : random.nextInt(1, 6);
        int least =
            winograd || strided || few
                ? 16
                : strassen ? 32 : 1; // of channels, of which others are multiples
        Conv2dDescriptor d =
            new Conv2dDescriptor(
                random.nextInt(1, 5),
                random.nextInt(kernel, 40),
                random.nextInt(kernel, 40),
                few
                    ? random.nextInt(1, 16)
                    : least > 1 ? least * random.nextInt(1, 7) : random.nextInt(16, 90),
                least > 1 ? least * random.nextInt(1, 7) : random.nextInt(16, 90),
                kernel,
                kernel,
                winograd || strassen ? 1 : strided ? 2 : random.nextInt(1, 4),
                winograd || strassen ? 1 : strided ? 2 : random.nextInt(1, 4),
                Math.min(random.nextInt(3), kernel - 1),
                Math.min(random.nextInt(3), kernel - 1),
                Math.min(random.nextInt(3), kernel - 1),
                Math.min(random.nextInt(3), kernel - 1),
                1,
                1,
                1);
        boolean bf16 = winograd && turn % 2 == 0 && backend.supports(DataType.BF16);
        DataType type = bf16 ? DataType.BF16 : DataType.F32;
        Conv2d operation =
            winograd
                ? new WinogradConv2d(
                    Objects.requireNonNull(kernels.convolutions(type)),
                    d,
                    type,
                    PHI,
                    PHI,
                    turn % 4 < 2 ? 2 : 4,
                    5)
                : new F32Conv2d(
                    strided
                        ? kernels.stridedWinograd()
                        : strassen
                            ? kernels.strassen()
                            : few ? kernels.fewChannels() : kernels.directConvolutions(),
                    d,
                    PHI,
                    PHI,
                    5);
        try (operation) {
          float[] expected = forward(backend, operation, type, alone);
          assertArrayEquals(expected, forward(backend, operation, type, shared), d.toString());
        }
      }
    }
  }

  private static float[] forward(
      OneDnnBackend backend, Conv2d operation, DataType type, Stream stream) {
    Conv2dDescriptor d = operation.descriptor();
    SplittableRandom random = new SplittableRandom(3);
    try (Tensor src = backend.allocate(d.src(), type, Layout.NHWC);
        Tensor dst = backend.allocate(d.dst(), type, Layout.NHWC);
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        PackedWeights packed = operation.newPackedWeights()) {
      for (Tensor tensor : List.of(src, weights, bias)) {
        for (long i = 0; i < tensor.shape().elements(); i++) {
          tensor.put(i, random.nextFloat() - 0.5f);
        }
      }
      operation.pack(stream, weights, packed);
      operation.forward(stream, src, packed, bias, dst);
      return dst.toFloatArray();
    }
  }

  /** Each part once, by members of numbers of their own, awake or asleep. */
  @Test
  void aTeamDoesEachPartOnce() {
    Assertions.assertTimeoutPreemptively(
        Duration.ofSeconds(30),
        () -> {
          try (Team team = new Team(4)) {
            assertEquals(4, team.members());
            for (int round = 0; round < 2000; round++) {
              int count = round % 9;
              AtomicIntegerArray done = new AtomicIntegerArray(count);
              AtomicIntegerArray inside = new AtomicIntegerArray(4);
              team.share(
                  count,
                  (i, member) -> {
                    assertEquals(1, inside.incrementAndGet(member));
                    done.incrementAndGet(i);
                    inside.decrementAndGet(member);
                  });
              for (int i = 0; i < count; i++) {
                assertEquals(1, done.get(i));
              }
              if (round % 500 == 0) {
                Thread.sleep(20); // they fall asleep
              }
            }
          }
        });
  }

  /** What a part throws comes back once all are done, and the team goes on. */
  @Test
  void aTeamOutlivesFailures() {
    try (Team team = new Team(3)) {
      List<Integer> done = new ArrayList<>();
      IllegalStateException failure =
          assertThrows(
              IllegalStateException.class,
              () ->
                  team.share(
                      6,
                      (i, member) -> {
                        if (i == 2) {
                          throw new IllegalStateException("part " + i);
                        }
                        synchronized (done) {
                          done.add(i);
                        }
                      }));
      assertEquals("part 2", failure.getMessage());
      assertEquals(5, done.size());
      team.share(1, (i, member) -> done.add(i));
      assertEquals(6, done.size());
    }
  }
}
