package io.jtrelu.spark;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.backend.Stream;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.io.Serializable;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.stream.IntStream;
import org.apache.spark.Partitioner;
import scala.Tuple2;

/**
 * The rows of a table, of which each rank has every so many-th, brought together on all of them: an
 * epoch takes images in an order over all.
 */
final class SharedRows {
  /** Of all ranks' rows that are told of at once. */
  private static final long ROUND_BYTES = 4 << 20;

  private SharedRows() {}

  /** An image with its class. */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  record Sample(byte[] pixels, int label, boolean validation) implements Serializable {}

  /** Row i goes to rank i modulo their number. */
  static final class InTurn extends Partitioner {
    private final int ranks;

    InTurn(int ranks) {
      this.ranks = ranks;
    }

    @Override
    public int numPartitions() {
      return ranks;
    }

    @Override
    public int getPartition(Object row) {
      return (int) ((Long) row % ranks);
    }
  }

  /**
   * All rows, in their order; collective. They are held in files, of which the operating system
   * keeps in memory what fits; on the way a few megabytes of them are in memory at a time, and
   * labels.
   *
   * @param mine this rank's, in their order
   * @param folder for the files
   * @param arena of the files' mapping: the result is used as long as it is open
   */
  static Datasets gather(
      Communicator ranks,
      Stream on,
      Iterator<Tuple2<Long, Sample>> mine,
      Settings settings,
      Path folder,
      Arena arena)
      throws IOException {
    Images size = settings.images();
    int pixels = size.height() * size.width() * size.channels();
    return gather(
        ranks,
        on,
        mine,
        settings,
        folder,
        arena,
        (int) Math.max(1, ROUND_BYTES / pixels / ranks.size()));
  }

  /**
   * @param round rows that a rank tells the others of at once
   */
  static Datasets gather(
      Communicator ranks,
      Stream on,
      Iterator<Tuple2<Long, Sample>> mine,
      Settings settings,
      Path folder,
      Arena arena,
      int round)
      throws IOException {
    Images size = settings.images();
    int pixels = size.height() * size.width() * size.channels();
    List<Tensor> images = new ArrayList<>();
    List<Tensor> labels = new ArrayList<>();
    try (Rows train = new Rows(folder.resolve("train"));
        Rows test = new Rows(folder.resolve("test"))) {
      for (int rank = 0; rank < ranks.size(); rank++) {
        images.add(Tensor.allocate(Shape.of(round, pixels), DataType.U8, Layout.ROW_MAJOR));
        labels.add(Tensor.allocate(Shape.of(round), DataType.I32, Layout.ROW_MAJOR));
      }
      MemorySegment here = images.get(ranks.rank()).segment();
      int most = round;
      while (most == round) { // the last round has fewer, or none
        Tensor told = labels.get(ranks.rank());
        told.segment().fill((byte) 0);
        for (int i = 0; i < round && mine.hasNext(); i++) {
          Sample sample = mine.next()._2();
          MemorySegment.copy(sample.pixels(), 0, here, JAVA_BYTE, (long) i * pixels, pixels);
          int label = 1 + sample.label();
          told.segment().setAtIndex(JAVA_INT_UNALIGNED, i, sample.validation() ? -label : label);
        }
        ranks.allGather(on, images);
        ranks.allGather(on, labels);
        most = 0;
        for (int i = 0; i < round * ranks.size(); i++) {
          int at = i / ranks.size();
          int of = i % ranks.size();
          int label = labels.get(of).segment().getAtIndex(JAVA_INT_UNALIGNED, at);
          if (label != 0) { // else there is no row
            MemorySegment image = images.get(of).segment().asSlice((long) at * pixels, pixels);
            (label < 0 ? test : train).add(image, Math.abs(label) - 1);
            most = at + 1;
          }
        }
      }
      return datasets(train, test, settings, arena);
    } finally {
      images.forEach(Tensor::close);
      labels.forEach(Tensor::close);
    }
  }

  /** Images that are written to a file, and their labels. */
  private static final class Rows implements AutoCloseable {
    private final FileChannel file;
    private final IntStream.Builder labels = IntStream.builder();

    Rows(Path path) throws IOException {
      file =
          FileChannel.open(
              path,
              StandardOpenOption.CREATE_NEW,
              StandardOpenOption.WRITE,
              StandardOpenOption.READ);
    }

    void add(MemorySegment image, int label) throws IOException {
      ByteBuffer bytes = image.asByteBuffer();
      while (bytes.hasRemaining()) {
        file.write(bytes);
      }
      labels.add(label);
    }

    ImageDataset over(Split split, List<String> classes, Images size, int[] ofImages, Arena arena)
        throws IOException {
      return ImageDataset.over(
          "spark",
          split,
          size.height(),
          size.width(),
          size.channels(),
          classes,
          file.map(FileChannel.MapMode.READ_ONLY, 0, file.size(), arena),
          ofImages);
    }

    /** The file stays, and what it was mapped to. */
    @Override
    public void close() throws IOException {
      file.close();
    }
  }

  private static Datasets datasets(Rows train, Rows test, Settings settings, Arena arena)
      throws IOException {
    int[] trainLabels = train.labels.build().toArray();
    int[] testLabels = test.labels.build().toArray();
    if (trainLabels.length == 0) {
      throw new IllegalArgumentException("there are no rows to train on");
    }
    int most =
        IntStream.concat(IntStream.of(trainLabels), IntStream.of(testLabels)).max().orElse(0);
    List<String> classes =
        settings.classes().isEmpty()
            ? IntStream.rangeClosed(0, most).mapToObj(String::valueOf).toList()
            : settings.classes();
    Images size = settings.images();
    return Datasets.of(
        train.over(Split.TRAIN, classes, size, trainLabels, arena),
        test.over(Split.TEST, classes, size, testLabels, arena));
  }
}
