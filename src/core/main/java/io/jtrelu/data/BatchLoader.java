package io.jtrelu.data;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Shape;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Endless batches of a data set, in memory or streamed, epoch after epoch, filled ahead by
 * background threads into a ring of host tensors that are used again and again (nothing is
 * allocated per batch; one array of indices per shuffled epoch, and what decoding a streamed image
 * takes).
 *
 * <pre>{@code
 * try (BatchLoader loader =
 *     BatchLoader.over(train, normalization).batch(64).shuffle(seed).dropLast().open()) {
 *   for (int step = 0; step < loader.stepsPerEpoch(); step++) {
 *     try (Batch batch = loader.next()) {
 *       // read batch.src(), batch.labels()
 *     }
 *   }
 * }
 * }</pre>
 *
 * <p><b>Order.</b> Batches come in the order of (epoch, step). What is in them depends on the data,
 * the seeds, epoch and step alone, not on threads or timing: a loader that starts at a given place
 * gives bitwise what one that ran through to there gives.
 *
 * <p><b>Bad images</b> of a streamed set end the loading, or are passed over, as {@link
 * Reading.OnBadImage} says; what is in a batch then depends on which images are bad as well, and on
 * nothing else.
 *
 * <p><b>Ownership.</b> The loader owns the tensors. At most prefetch + 1 batches exist; what the
 * caller holds is lent. After {@link #close} every batch is invalid.
 *
 * <p><b>Threads.</b> {@link #next}, {@link Batch#close} and {@link #close} may be called from any
 * thread; the order is that of the calls of next.
 */
public final class BatchLoader implements AutoCloseable {
  private static final int ORDER_STREAM = 1;

  private final int size;
  private final int stepsPerEpoch;
  private final Builder settings;
  private final SampleReader reader;
  private final int imageBytes;

  /** Small enough for all threads to work on a batch that is waited for. */
  private final int rowsPerShare;

  private final Batch[] ring;
  private final List<Thread> threads = new ArrayList<>();

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private volatile boolean closed;
  private @Nullable Throwable failure;
  private long failedBatch; // those before it still come
  private long nextToFill; // batches since the start of epoch 0
  private long nextToLend;
  private long orderEpoch = -1;
  private int[] order = {};
  private long waited; // nanoseconds

  /** Reads images; called by many threads. */
  interface SampleReader {
    /**
     * Reads one image as an epoch shows it.
     *
     * @param index which image
     * @param epoch pass over the data
     * @param scratch room for one augmented image
     * @return its bytes, not to be written to: scratch, or the image itself
     */
    byte[] read(int index, long epoch, byte[] scratch);
  }

  /** How to load; {@link #open} starts. Not thread-safe. */
  public static final class Builder {
    private final ImageDataset data;
    private final PerLocationNormalization normalization;
    private Augmentation augmentation = Augmentation.NONE;
    private int batch = 64;
    private int partFirst;
    private int partCount = -1; // all
    private int prefetch = 2;
    private int threads;
    private boolean dropLast;
    private boolean bytes;
    private boolean shuffled;
    private long shuffleSeed;
    private long augmentSeed;
    private long startEpoch;
    private int startStep;

    private Builder(ImageDataset data, PerLocationNormalization normalization) {
      this.data = data;
      this.normalization = normalization;
      this.threads = data.images().threads();
    }

    private Builder(Builder other) {
      this(other.data, other.normalization);
      augmentation = other.augmentation;
      batch = other.batch;
      partFirst = other.partFirst;
      partCount = other.partCount;
      prefetch = other.prefetch;
      threads = other.threads;
      dropLast = other.dropLast;
      bytes = other.bytes;
      shuffled = other.shuffled;
      shuffleSeed = other.shuffleSeed;
      augmentSeed = other.augmentSeed;
      startEpoch = other.startEpoch;
      startStep = other.startStep;
    }

    /** Images per batch (default 64). */
    public Builder batch(int images) {
      batch = images;
      return this;
    }

    /**
     * Gives of each batch consecutive images only, as one of several who share it (default: all);
     * with {@link #dropLast}.
     *
     * @param first index in the batch of the first image
     * @param count images, of which there are then so many in {@link Batch#src}
     */
    public Builder part(int first, int count) {
      partFirst = first;
      partCount = count;
      return this;
    }

    private int given() {
      return partCount < 0 ? batch : partCount;
    }

    /** Another uniformly random order in each epoch, by this seed (default: the data's order). */
    public Builder shuffle(long seed) {
      shuffled = true;
      shuffleSeed = seed;
      return this;
    }

    /** Augments each image by (seed, epoch, its index) (default: none). */
    public Builder augment(Augmentation how, long seed) {
      augmentation = how;
      augmentSeed = seed;
      return this;
    }

    /**
     * Leaves out the images of an epoch that do not fill a batch, for training (default: the last
     * batch is padded, see {@link Batch#valid}).
     */
    public Builder dropLast() {
      dropLast = true;
      return this;
    }

    /**
     * Gives the images' bytes, augmented but not normalised, for a device that normalises them
     * itself (default: normalised values).
     */
    public Builder bytes() {
      bytes = true;
      return this;
    }

    /** Batches that lie ready at most while the caller holds one (default 2). */
    public Builder prefetch(int batches) {
      prefetch = batches;
      return this;
    }

    /**
     * Threads that fill batches, which share the images of a batch (default: 1, or those that a
     * streamed set is read with). The result does not depend on it.
     */
    public Builder threads(int count) {
      threads = count;
      return this;
    }

    /**
     * The first batch to give (default epoch 0, step 0), to resume a run. A step equal to the steps
     * of an epoch means the start of the next one.
     */
    public Builder startAt(long epoch, int step) {
      startEpoch = epoch;
      startStep = step;
      return this;
    }

    /**
     * Allocates the ring and starts the threads.
     *
     * @throws DataException.BatchTooLarge if last batches are dropped and the data does not fill a
     *     single one
     * @throws IllegalArgumentException if a setting is out of range, the data set is empty, or the
     *     normalisation is for another number of channels
     */
    public BatchLoader open() {
      if (batch < 1 || prefetch < 1 || threads < 1) {
        throw new IllegalArgumentException(
            "batch, prefetch and threads must be 1 or more, got "
                + batch
                + ", "
                + prefetch
                + ", "
                + threads);
      }
      if (partCount >= 0 && !dropLast) {
        throw new IllegalArgumentException("parts are those of whole batches: call dropLast");
      }
      if (partFirst < 0 || given() < 1 || partFirst > batch - given()) {
        throw new IllegalArgumentException(
            "a part of "
                + given()
                + " images from "
                + partFirst
                + " is none of a batch of "
                + batch);
      }
      if (data.size() == 0) {
        throw new IllegalArgumentException("no images to load: " + data);
      }
      if (normalization.channels() != data.channels()) {
        throw new IllegalArgumentException(
            "the normalisation is for " + normalization.channels() + " channels; " + data);
      }
      if (dropLast && batch > data.size()) {
        throw new DataException.BatchTooLarge(
            data.name(),
            "a batch of "
                + batch
                + " is larger than the "
                + data.size()
                + " "
                + data.split()
                + " images; choose a batch of at most "
                + data.size());
      }
      Builder copy = new Builder(this);
      return new BatchLoader(copy, copy::read);
    }

    /** As {@link #open}, with another reader. */
    BatchLoader open(SampleReader reader) {
      return new BatchLoader(new Builder(this), reader);
    }

    /** An image as an epoch shows it; not to be written to. */
    private byte[] read(int index, long epoch, byte[] scratch) {
      ImageSource images = data.images();
      byte[] pixels =
          augmentation.resizes()
              ? images.window(index, augmentation, augmentSeed, epoch)
              : images.image(index);
      if (!augmentation.shifts()) {
        return pixels;
      }
      augmentation.apply(
          pixels, scratch, data.height(), data.width(), data.channels(), augmentSeed, epoch, index);
      return scratch;
    }

    private int stepsPerEpoch() {
      return dropLast ? data.size() / batch : Math.ceilDiv(data.size(), batch);
    }
  }

  /**
   * Starts the description of a loader.
   *
   * @param data images
   * @param normalization makes the network's input of them
   */
  public static Builder over(ImageDataset data, PerLocationNormalization normalization) {
    return new Builder(data, normalization);
  }

  private BatchLoader(Builder settings, SampleReader reader) {
    ImageDataset data = settings.data;
    this.settings = settings;
    this.reader = reader;
    this.size = data.size();
    this.stepsPerEpoch = settings.stepsPerEpoch();
    if (settings.startEpoch < 0
        || settings.startStep < 0
        || settings.startStep > stepsPerEpoch
        || settings.startEpoch > (Long.MAX_VALUE >> 1) / stepsPerEpoch) {
      throw new IllegalArgumentException(
          "cannot start at epoch "
              + settings.startEpoch
              + ", step "
              + settings.startStep
              + ": an epoch has "
              + stepsPerEpoch
              + " steps");
    }
    this.nextToFill = settings.startEpoch * stepsPerEpoch + settings.startStep;
    this.nextToLend = nextToFill;
    this.rowsPerShare =
        settings.threads == 1
            ? settings.given()
            : Math.max(1, settings.given() / (4 * settings.threads));
    this.imageBytes = data.height() * data.width() * data.channels();
    int channels = settings.bytes ? data.channels() : settings.normalization.outputChannels();
    Shape shape = Shape.of(settings.given(), data.height(), data.width(), channels);
    DataType type = settings.bytes ? DataType.U8 : DataType.F32;
    this.ring = new Batch[settings.prefetch + 1];
    try {
      for (int i = 0; i < ring.length; i++) {
        ring[i] = new Batch(shape, type, this::giveBack);
      }
    } catch (Throwable outOfMemory) {
      releaseRing();
      throw outOfMemory;
    }
    for (int i = 0; i < settings.threads; i++) {
      threads.add(Thread.ofPlatform().daemon().name("jtrelu-loader-" + i).start(this::fillBatches));
    }
  }

  /** Batches in an epoch. */
  public int stepsPerEpoch() {
    return stepsPerEpoch;
  }

  /** Images per batch. */
  public int batch() {
    return settings.batch;
  }

  /**
   * Shape of every {@link Batch#src}: [batch, h, w, outputChannels], or of bytes, channels; of a
   * {@linkplain Builder#part part} its images.
   */
  public Shape srcShape() {
    return ring[0].src().shape();
  }

  /**
   * The next batch, waiting until it is filled. Close it when its tensors were read.
   *
   * @throws IllegalStateException if the loader is closed, if every batch of the ring is lent
   *     (close one, or open with more prefetch), or if a background thread failed (its exception is
   *     the cause; a {@link DataException} or an Error is the cause too)
   */
  public Batch next() {
    lock.lock();
    try {
      Batch batch = ring[(int) (nextToLend % ring.length)];
      long began = batch.state == Batch.State.READY ? 0 : System.nanoTime();
      while (batch.state != Batch.State.READY) {
        if (closed) {
          throw new IllegalStateException("use after close: the batch loader is closed");
        }
        if (failure != null && nextToLend >= failedBatch) {
          String why =
              failure instanceof DataException known
                  ? String.valueOf(known.getMessage())
                  : failure.toString();
          throw new IllegalStateException("loading " + settings.data + " failed: " + why, failure);
        }
        if (batch.state == Batch.State.LENT) {
          throw new IllegalStateException(
              "all "
                  + ring.length
                  + " batches are lent: close one before asking for the next, or open the loader"
                  + " with more prefetch");
        }
        changed.awaitUninterruptibly();
        batch = ring[(int) (nextToLend % ring.length)];
      }
      if (closed) {
        throw new IllegalStateException("use after close: the batch loader is closed");
      }
      if (began != 0) {
        waited += System.nanoTime() - began;
      }
      batch.state = Batch.State.LENT;
      nextToLend++;
      return batch;
    } finally {
      lock.unlock();
    }
  }

  /** Nanoseconds that {@link #next} has waited for batches so far, of all callers together. */
  public long waited() {
    lock.lock();
    try {
      return waited;
    } finally {
      lock.unlock();
    }
  }

  private void giveBack(Batch batch) {
    lock.lock();
    try {
      if (batch.state == Batch.State.LENT) {
        batch.state = Batch.State.EMPTY;
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Some rows of a batch, for one thread. */
  private static final class Share {
    private final Batch batch;
    private final long number;
    private final int[] order;
    private final int from;
    private final int to;

    Share(Batch batch, long number, int[] order, int from, int to) {
      this.batch = batch;
      this.number = number;
      this.order = order;
      this.from = from;
      this.to = to;
    }
  }

  private void fillBatches() {
    byte[] scratch = new byte[imageBytes];
    float[] image =
        new float[settings.bytes ? 0 : imageBytes / settings.data.channels() * srcShape().dim(3)];
    Share share = null;
    try {
      share = take();
      while (share != null) {
        for (int row = share.from; row < share.to && !closed; row++) {
          fill(share.batch, row, share.order, scratch, image);
        }
        share = closed ? null : done(share);
      }
    } catch (Throwable problem) {
      lock.lock();
      try {
        long number = share == null ? nextToFill : share.number;
        if (failure == null || number < failedBatch) {
          failure = problem;
          failedBatch = number;
        }
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  /** The next rows to fill; null if there is nothing more to do. */
  private @Nullable Share take() {
    lock.lock();
    try {
      Batch batch = ring[(int) (nextToFill % ring.length)];
      while (!closed
          && failure == null
          && batch.state != Batch.State.EMPTY
          && !(batch.state == Batch.State.FILLING && batch.taken > 0)) {
        changed.awaitUninterruptibly();
        batch = ring[(int) (nextToFill % ring.length)];
      }
      if (closed || failure != null) {
        return null;
      }
      if (batch.state == Batch.State.EMPTY) {
        batch.state = Batch.State.FILLING;
        batch.epoch = nextToFill / stepsPerEpoch;
        batch.step = (int) (nextToFill % stepsPerEpoch);
        long left = size - (long) batch.step * settings.batch - settings.partFirst;
        batch.valid = (int) Math.min(settings.given(), left);
        batch.taken = 0;
        batch.filled = 0;
      }
      long number = nextToFill;
      int from = batch.taken;
      int to = Math.min(batch.valid, from + rowsPerShare);
      batch.taken = to;
      if (to == batch.valid) {
        batch.taken = 0; // no more to take
        nextToFill++;
      }
      return new Share(batch, number, orderOf(batch.epoch), from, to);
    } finally {
      lock.unlock();
    }
  }

  /** Hands on a batch whose rows are all filled, and takes the next share. */
  private @Nullable Share done(Share share) {
    Batch batch = share.batch;
    lock.lock();
    try {
      batch.filled += share.to - share.from;
      if (batch.filled == batch.valid) {
        pad(batch);
        batch.state = Batch.State.READY;
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
    return take();
  }

  private void fill(Batch batch, int row, int[] order, byte[] scratch, float[] image) {
    int place = batch.step * settings.batch + settings.partFirst + row;
    int index = order.length == 0 ? place : order[place];
    byte[] pixels = null;
    int shown = index;
    while (pixels == null) {
      try {
        pixels = reader.read(shown, batch.epoch, scratch);
      } catch (DataException bad) {
        int next = (shown + 1) % size;
        if (!settings.data.images().skips(shown, bad) || next == index) {
          throw bad;
        }
        shown = next;
      }
    }
    boolean counts = shown == index || settings.dropLast;
    int label = counts ? settings.data.label(shown) : Batch.PADDING;
    MemorySegment src = batch.src().segment();
    batch.labels().segment().setAtIndex(JAVA_INT_UNALIGNED, row, label);
    if (settings.bytes) {
      MemorySegment.copy(pixels, 0, src, JAVA_BYTE, (long) row * imageBytes, imageBytes);
    } else {
      settings.normalization.apply(pixels, image);
      long at = (long) row * image.length * Float.BYTES;
      MemorySegment.copy(image, 0, src, JAVA_FLOAT_UNALIGNED, at, image.length);
    }
  }

  /** The rows after the valid ones repeat the last of them, and count for nothing. */
  private void pad(Batch batch) {
    MemorySegment src = batch.src().segment();
    long bytes = src.byteSize() / settings.given();
    for (int row = batch.valid; row < settings.given(); row++) {
      batch.labels().segment().setAtIndex(JAVA_INT_UNALIGNED, row, Batch.PADDING);
      MemorySegment.copy(src, (batch.valid - 1) * bytes, src, row * bytes, bytes);
    }
  }

  /** The order of an epoch's images; empty for the data's own. Called with the lock held. */
  private int[] orderOf(long epoch) {
    if (settings.shuffled && orderEpoch != epoch) {
      int[] shuffled = new int[size]; // another thread may still read the last epoch's
      long key = CounterRandom.key(settings.shuffleSeed, ORDER_STREAM, epoch);
      for (int i = 0; i < size; i++) {
        int j = CounterRandom.below(key, i, i + 1); // Fisher-Yates, inside out
        shuffled[i] = shuffled[j];
        shuffled[j] = i;
      }
      order = shuffled;
      orderEpoch = epoch;
    }
    return order;
  }

  /** Stops the threads, waits for them, and releases the tensors. Idempotent. */
  @Override
  public void close() {
    lock.lock();
    try {
      closed = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    boolean interrupted = false;
    for (Thread thread : threads) {
      while (thread.isAlive()) {
        try {
          thread.join();
        } catch (InterruptedException e) {
          interrupted = true; // the threads must be gone before their memory is
        }
      }
    }
    releaseRing();
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private void releaseRing() {
    for (@Nullable Batch batch : ring) {
      if (batch != null) {
        batch.release();
      }
    }
  }
}
