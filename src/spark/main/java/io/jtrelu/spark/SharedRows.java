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
import java.io.Serializable;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Comparator;
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
   * All rows, in their order; collective.
   *
   * @param mine this rank's, in any order
   */
  static Datasets gather(
      Communicator ranks, Stream on, Iterator<Tuple2<Long, Sample>> mine, Settings settings) {
    List<Tuple2<Long, Sample>> sorted = new ArrayList<>();
    mine.forEachRemaining(sorted::add);
    sorted.sort(Comparator.comparingLong(Tuple2::_1));
    List<Integer> counts =
        ranks.gatherTexts(String.valueOf(sorted.size())).stream().map(Integer::valueOf).toList();
    Images size = settings.images();
    int pixels = size.height() * size.width() * size.channels();
    List<Tensor> images = new ArrayList<>();
    List<Tensor> labels = new ArrayList<>();
    try {
      for (int count : counts) {
        images.add(Tensor.allocate(Shape.of(count, pixels), DataType.U8, Layout.ROW_MAJOR));
        labels.add(Tensor.allocate(Shape.of(count), DataType.I32, Layout.ROW_MAJOR));
      }
      for (int i = 0; i < sorted.size(); i++) {
        Sample sample = sorted.get(i)._2();
        MemorySegment.copy(
            sample.pixels(),
            0,
            images.get(ranks.rank()).segment(),
            JAVA_BYTE,
            (long) i * pixels,
            pixels);
        int label = sample.validation() ? -1 - sample.label() : sample.label();
        labels.get(ranks.rank()).segment().setAtIndex(JAVA_INT_UNALIGNED, i, label);
      }
      sorted.clear();
      ranks.allGather(on, images);
      ranks.allGather(on, labels);
      return datasets(images, labels, pixels, settings);
    } finally {
      images.forEach(Tensor::close);
      labels.forEach(Tensor::close);
    }
  }

  private static Datasets datasets(
      List<Tensor> images, List<Tensor> labels, int pixels, Settings settings) {
    int total = labels.stream().mapToInt(part -> part.shape().dim(0)).sum();
    int ranks = images.size();
    List<byte[]> train = new ArrayList<>();
    List<byte[]> test = new ArrayList<>();
    IntStream.Builder trainLabels = IntStream.builder();
    IntStream.Builder testLabels = IntStream.builder();
    int most = -1;
    for (int i = 0; i < total; i++) {
      int at = i / ranks;
      byte[] image =
          images.get(i % ranks).segment().asSlice((long) at * pixels, pixels).toArray(JAVA_BYTE);
      int label = labels.get(i % ranks).segment().getAtIndex(JAVA_INT_UNALIGNED, at);
      boolean validation = label < 0;
      int of = validation ? -1 - label : label;
      (validation ? test : train).add(image);
      (validation ? testLabels : trainLabels).add(of);
      most = Math.max(most, of);
    }
    if (train.isEmpty()) {
      throw new IllegalArgumentException("there are no rows to train on");
    }
    List<String> classes =
        settings.classes().isEmpty()
            ? IntStream.rangeClosed(0, most).mapToObj(String::valueOf).toList()
            : settings.classes();
    return Datasets.of(
        dataset(Split.TRAIN, train, trainLabels, classes, settings.images()),
        dataset(Split.TEST, test, testLabels, classes, settings.images()));
  }

  private static ImageDataset dataset(
      Split split,
      List<byte[]> images,
      IntStream.Builder labels,
      List<String> classes,
      Images size) {
    return ImageDataset.of(
        "spark",
        split,
        size.height(),
        size.width(),
        size.channels(),
        classes,
        images.toArray(byte[][]::new),
        labels.build().toArray());
  }
}
