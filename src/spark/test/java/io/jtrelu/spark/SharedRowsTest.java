package io.jtrelu.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Stream;
import io.jtrelu.data.Datasets;
import io.jtrelu.distributed.ThreadRanks;
import io.jtrelu.spark.SharedRows.InTurn;
import io.jtrelu.spark.SharedRows.Sample;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import scala.Tuple2;

class SharedRowsTest {
  private static final int ROWS = 7;

  static Settings settings(List<String> classes) {
    return new Settings(
        "plain:13:4",
        "tat",
        "leaky_relu",
        "sgd",
        null,
        1,
        4,
        4,
        0,
        1,
        0.1,
        0,
        false,
        1,
        "cpu",
        new Images("x", 1, 2, 1),
        classes,
        10,
        null,
        "");
  }

  @TempDir Path folder;

  /** Every rank has all of them in their order, in one round of exchanges or in several. */
  @ParameterizedTest
  @CsvSource({"1, 100", "2, 100", "2, 1", "2, 2", "4, 100", "4, 1", "7, 1"})
  void rowsComeTogetherInTheirOrder(int count, int round) {
    InTurn owner = new InTurn(count);
    try (Arena arena = Arena.ofShared()) {
      requireAll(
          ThreadRanks.run(
              count,
              ranks -> {
                List<Tuple2<Long, Sample>> mine = new ArrayList<>();
                for (long i = 0; i < ROWS; i++) {
                  if (owner.getPartition(i) == ranks.rank()) {
                    byte[] pixels = {(byte) i, (byte) (200 + i)};
                    mine.add(new Tuple2<>(i, new Sample(pixels, (int) i % 3, i % 4 == 1)));
                  }
                }
                try (Backend backend = Backends.open("reference");
                    Stream stream = backend.newStream()) {
                  Path own = Files.createDirectory(folder.resolve("rank" + ranks.rank()));
                  return SharedRows.gather(
                      ranks, stream, mine.iterator(), settings(List.of()), own, arena, round);
                }
              }));
    }
  }

  private static void requireAll(List<Datasets> all) {
    for (Datasets data : all) {
      assertEquals(List.of("0", "1", "2"), data.train().classes());
      int[] train = {0, 2, 3, 4, 6};
      assertEquals(train.length, data.train().size());
      for (int i = 0; i < train.length; i++) {
        assertEquals(train[i] % 3, data.train().label(i));
        byte[] expected = {(byte) train[i], (byte) (200 + train[i])};
        assertArrayEquals(expected, data.train().image(i));
      }
      assertEquals(2, data.test().size());
      assertArrayEquals(new byte[] {5, (byte) 205}, data.test().image(1));
      assertEquals(2, data.test().label(1));
    }
  }
}
