package io.jtrelu.inference;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.Batch;
import io.jtrelu.data.BatchLoader;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.ImageDecoder;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NetworkFunction;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Checkpoint;
import io.jtrelu.train.Model;
import io.jtrelu.train.Run;
import io.jtrelu.train.Trainer;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.CompletionException;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Tells classes of images apart with a trained model:
 *
 * <pre>{@code
 * try (Predictor predictor = Predictor.open(Path.of("runs/plain50"))) {
 *   System.out.println(predictor.predict(Path.of("shirt.png")).best());
 * }
 * }</pre>
 *
 * <p>Images of any size and colour are brought to what the model reads (see {@link ImageDecoder})
 * and normalised as its training images were.
 *
 * <p><b>Threads.</b> Any number of threads may call at once. One of them computes, which spares a
 * request that comes alone being handed over: it takes what is waiting, up to the largest batch,
 * until its own images are done, so that small requests that come together share a pass and none
 * waits for others to come. An image's result does not depend on what it shares a pass with.
 *
 * <p><b>Ownership.</b> {@link #close} waits for the requests that have been made and refuses later
 * ones. A backend that the caller gave stays his.
 */
public final class Predictor implements AutoCloseable {
  /** Images of a pass at most. */
  public static final int LARGEST_BATCH = 64;

  private final Model model;
  private final DataType type;
  private final ImageDecoder decoder;
  private final PerLocationNormalization normalization;
  private final Deque<AutoCloseable> owned = new ArrayDeque<>();
  private final Tensor pixels;
  private final Tensor images;
  private final Tensor results;
  private final NetworkFunction single;
  private final NetworkFunction many;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition computed = lock.newCondition();
  private final Deque<Request> waiting = new ArrayDeque<>();
  private boolean computing;
  private boolean closed;

  /** An image that waits, and what comes of it. */
  private static final class Request {
    final byte[] pixels;
    float @Nullable [] logits;
    @Nullable Throwable failure;

    Request(byte[] pixels) {
      this.pixels = pixels.clone();
    }

    boolean isDone() {
      return logits != null || failure != null;
    }

    float[] result() {
      if (failure instanceof RuntimeException cause) {
        throw cause;
      }
      if (logits == null) {
        throw new CompletionException(failure);
      }
      return logits;
    }
  }

  /**
   * Opens a trained model on the best device.
   *
   * @param trained folder of a run, for its last checkpoint, or a checkpoint such as {@value
   *     Trainer#BEST}, which needs nothing beside it
   * @throws IOException if it cannot be read or is not one
   * @throws io.jtrelu.train.CheckpointException if a parameter in it is not finite
   */
  public static Predictor open(Path trained) throws IOException {
    return open(trained, "auto");
  }

  /**
   * Opens a trained model on a device.
   *
   * @param device as {@link Backends#open} takes it
   * @throws IOException as above
   * @throws io.jtrelu.backend.BackendUnavailableException if the device cannot be used
   */
  public static Predictor open(Path trained, String device) throws IOException {
    Backend backend = Backends.open(device);
    try {
      return new Predictor(trained, backend, backend);
    } catch (Throwable failure) {
      backend.close();
      throw failure;
    }
  }

  /**
   * Opens a trained model on a backend of the caller's, which he closes after the predictor.
   *
   * @throws IOException as above
   */
  public static Predictor open(Path trained, Backend backend) throws IOException {
    return new Predictor(trained, backend, null);
  }

  private Predictor(Path trained, Backend backend, @Nullable Backend own) throws IOException {
    try {
      Path file = Files.isDirectory(trained) ? trained.resolve(Trainer.CHECKPOINT) : trained;
      try (Checkpoint checkpoint = Checkpoint.open(file)) {
        Run run = checkpoint.run();
        model = run.model();
        type = backend.supports(run.training().type()) ? run.training().type() : DataType.F32;
        decoder = ImageDecoder.of(model.height(), model.width(), model.channels());
        normalization = model.normalization();
        Network network = model.network();
        Parameters parameters = own(Parameters.allocate(network, backend));
        Trainer.restoreParameters(checkpoint, backend, parameters);
        pixels = own(batch(DataType.U8, model.height(), model.width(), model.channels()));
        images =
            own(batch(DataType.F32, model.height(), model.width(), normalization.outputChannels()));
        results = own(batch(DataType.F32, 1, 1, model.classes().size()));
        // A few images at a time, so that one costs one; or as many as are quick together.
        single = own(function(network, backend, backend.lanes(), 1));
        many = own(function(network, backend, LARGEST_BATCH, 0));
        single.load(parameters);
        many.load(parameters);
      }
    } catch (Throwable failure) {
      release();
      throw failure;
    }
    if (own != null) {
      owned.addLast(own); // closed last
    }
  }

  private NetworkFunction function(Network network, Backend backend, int batch, int microBatch) {
    return new NetworkFunction(
        network, backend, new NetworkFunction.Options(batch, microBatch, type, false, false, 0));
  }

  private static Tensor batch(DataType type, int height, int width, int channels) {
    return Tensor.allocate(Shape.of(LARGEST_BATCH, height, width, channels), type, Layout.NHWC);
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  /** What is predicted with. */
  public Model model() {
    return model;
  }

  /** Type of activations: that of the training where the device has it, else F32. */
  public DataType type() {
    return type;
  }

  /**
   * Classifies an image file (PNG or JPEG).
   *
   * @throws io.jtrelu.data.DataException if it cannot be read or is no image
   * @throws IllegalStateException after close
   */
  public Prediction predict(Path image) {
    return predict(decoder.decode(image));
  }

  /**
   * Classifies an image.
   *
   * @throws IllegalStateException after close
   */
  public Prediction predict(BufferedImage image) {
    return predict(decoder.decode(image));
  }

  /**
   * Classifies an image in the bytes of a file (PNG or JPEG).
   *
   * @param name what to call it in messages
   * @throws io.jtrelu.data.DataException if it is no image
   * @throws IllegalStateException after close
   */
  public Prediction predict(byte[] encoded, String name) {
    return predict(decoder.decode(encoded, name));
  }

  /**
   * Classifies an image that is of the model's size and colour already.
   *
   * @param pixels [height, width, channels], unsigned bytes; copied
   * @throws IllegalArgumentException if there are too few or too many
   * @throws IllegalStateException after close
   */
  public Prediction predict(byte[] pixels) {
    return predict(List.of(pixels)).getFirst();
  }

  /**
   * Classifies several images, in order.
   *
   * @param images each as in {@link #predict(byte[])}
   */
  public List<Prediction> predict(List<byte[]> images) {
    List<Prediction> predictions = new ArrayList<>();
    for (float[] logits : logits(images)) {
      predictions.add(Prediction.of(model.classes(), logits));
    }
    return predictions;
  }

  /**
   * Logits of several images, in order: one array an image, in the order of the model's classes.
   *
   * @param images each as in {@link #predict(byte[])}
   */
  public List<float[]> logits(List<byte[]> images) {
    int size = model.height() * model.width() * model.channels();
    for (byte[] image : images) {
      if (image.length != size) {
        throw new IllegalArgumentException(
            "the model reads images of "
                + model.height()
                + "x"
                + model.width()
                + "x"
                + model.channels()
                + " = "
                + size
                + " bytes, got "
                + image.length);
      }
    }
    List<Request> requests = images.stream().map(Request::new).toList();
    lock.lock();
    try {
      if (closed) {
        throw new IllegalStateException("use after close: this predictor is closed");
      }
      waiting.addAll(requests);
      for (Request request : requests) {
        while (!request.isDone()) {
          if (computing) {
            computed.awaitUninterruptibly();
          } else {
            computeWaiting();
          }
        }
      }
    } finally {
      lock.unlock();
    }
    return requests.stream().map(Request::result).toList();
  }

  /**
   * Measures the model on labelled images. Bad ones that the data skip are left out.
   *
   * @param data of the model's size and colour, its classes among the model's; see {@link
   *     ImageDataset}
   * @throws IllegalArgumentException if the data are not of the kind that the model was made for
   */
  public Classification evaluate(ImageDataset data) {
    model.requireFits(data);
    Classification.Builder result = new Classification.Builder(model.classes());
    int bytes = model.height() * model.width() * model.channels();
    try (BatchLoader loader =
        BatchLoader.over(data, normalization).bytes().batch(LARGEST_BATCH).open()) {
      for (int step = 0; step < loader.stepsPerEpoch(); step++) {
        List<byte[]> images = new ArrayList<>();
        List<Integer> places = new ArrayList<>();
        try (Batch batch = loader.next()) {
          for (int row = 0; row < batch.valid(); row++) {
            if (batch.label(row) != Batch.PADDING) { // a bad image, skipped
              byte[] image = new byte[bytes];
              MemorySegment.copy(
                  batch.src().segment(), JAVA_BYTE, (long) row * bytes, image, 0, bytes);
              images.add(image);
              places.add(step * LARGEST_BATCH + row);
            }
          }
        }
        List<float[]> logits = logits(images);
        for (int k = 0; k < places.size(); k++) {
          result.add(places.get(k), data.label(places.get(k)), logits.get(k));
        }
      }
    }
    return result.build();
  }

  /** Takes what is waiting, up to the largest batch, and computes it, without the lock. */
  private void computeWaiting() {
    List<Request> batch = new ArrayList<>();
    while (!waiting.isEmpty() && batch.size() < LARGEST_BATCH) {
      batch.add(waiting.remove());
    }
    computing = true;
    lock.unlock();
    float[] logits = {};
    Throwable thrown = null;
    try {
      logits = compute(batch);
    } catch (Throwable failure) {
      thrown = failure;
    } finally {
      lock.lock();
    }
    computing = false;
    computed.signalAll();
    int classes = model.classes().size();
    for (int i = 0; i < batch.size(); i++) {
      batch.get(i).failure = thrown;
      if (thrown == null) {
        batch.get(i).logits = Arrays.copyOfRange(logits, i * classes, (i + 1) * classes);
      }
    }
  }

  private float[] compute(List<Request> batch) {
    int count = batch.size();
    NetworkFunction function = count <= single.options().batch() ? single : many;
    Tensor source = first(pixels, count);
    Tensor input = first(images, count);
    Tensor output = first(results, count);
    MemorySegment bytes = source.segment();
    for (int i = 0; i < count; i++) {
      byte[] image = batch.get(i).pixels;
      MemorySegment.copy(image, 0, bytes, JAVA_BYTE, (long) i * image.length, image.length);
    }
    normalization.apply(source, input);
    function.forward(input, List.of(output));
    return output.toFloatArray();
  }

  private static Tensor first(Tensor of, int count) {
    int[] dims = of.shape().dims();
    dims[0] = count;
    return of.slice(0, Shape.of(dims), of.layout());
  }

  /** Waits until what was asked for is done and releases all. Idempotent. */
  @Override
  public void close() {
    lock.lock();
    try {
      closed = true;
      while (computing || !waiting.isEmpty()) {
        computed.awaitUninterruptibly(); // memory is in use until then
      }
    } finally {
      lock.unlock();
    }
    release();
  }

  private synchronized void release() {
    while (!owned.isEmpty()) {
      try {
        owned.pop().close();
      } catch (Exception failure) {
        throw new IllegalStateException("closing a predictor failed", failure);
      }
    }
  }
}
