package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/**
 * Gradients of the layers that have many parameters and few values, computed for the whole batch at
 * once when all its parts have passed. Each part would else write a gradient of its own, which is
 * larger than all that it is computed from, and another pass over memory would add them up.
 *
 * <p>For that the values that these layers read and the gradients of what they compute are kept
 * here, of the whole batch, where workspaces {@linkplain Program.Workspace#keep write and read
 * them}. The layers are independent of each other, so that lanes can share them.
 */
final class LateGradients implements AutoCloseable {
  /** The parts' gradients of a layer that waits would take this many times what is kept for it. */
  private static final int LEAST_SAVING = 2;

  private final Backend backend;
  private final int images;
  private final int pass;
  private final List<Entry> entries = new ArrayList<>();
  private final Tensor[] values;
  private final Tensor[] gradients;
  private final Deque<Tensor> owned = new ArrayDeque<>();

  /**
   * A batch that layers may wait for.
   *
   * @param images of all of it
   * @param parts that have gradients of their own where layers do not wait
   */
  record Batch(int images, int parts) {
    /**
     * Whether what is kept for a layer that waits takes much less memory than the parts' gradients.
     */
    boolean pays(Layer layer, Layer source, DataType type) {
      long weights = 0;
      for (Layer.Parameter parameter : layer.parameters()) {
        weights += parameter.shape().elements();
      }
      long kept = layer.extent().elements() + source.extent().elements();
      return parts > 1
          && parts * weights * Float.BYTES >= LEAST_SAVING * kept * images * type.bytes();
    }
  }

  private record Entry(Lowering.LateStep step, Tensor value, Tensor gradient, long multiplyAdds) {}

  /**
   * Allocates what is kept.
   *
   * @param steps by layer
   * @param images of the whole batch
   * @param pass images that pass through the network together
   */
  LateGradients(
      Backend backend,
      Fusion fusion,
      Map<Integer, Lowering.LateStep> steps,
      int images,
      int pass,
      DataType type) {
    this.backend = backend;
    this.images = images;
    this.pass = pass;
    int count = fusion.layers.size();
    this.values = new Tensor[count];
    this.gradients = new Tensor[count];
    try {
      for (int i = 1; i < count; i++) {
        int home = fusion.home(i); // before it, or behind it if another layer absorbs it
        if (fusion.isValueKept(i)) {
          values[home] = values[home] == null ? own(fusion, home, type) : values[home];
          values[i] = values[home];
        }
        if (fusion.isGradientKept(i)) {
          gradients[i] = fusion.isFused(i) ? gradients[home] : own(fusion, i, type);
        }
      }
      steps.forEach(
          (node, step) -> {
            Layer layer = fusion.layers.get(node);
            Tensor value = values[layer.sources().getFirst()];
            entries.add(new Entry(step, value, gradients[node], layer.multiplyAdds()));
          });
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
    entries.sort(Comparator.comparingLong(Entry::multiplyAdds).reversed()); // long ones first
  }

  private Tensor own(Fusion fusion, int node, DataType type) {
    Shape shape = fusion.layers.get(node).extent().batch(images);
    Tensor tensor = backend.allocate(shape, type, Layout.NHWC);
    owned.push(tensor);
    return tensor;
  }

  /** Bytes that are kept. */
  long bytes() {
    return owned.stream()
        .mapToLong(tensor -> tensor.shape().elements() * tensor.type().bytes())
        .sum();
  }

  /** What a pass over some images of the batch works on. */
  void show(Pass to, int micro) {
    for (int i = 0; i < values.length; i++) {
      if (values[i] != null) {
        to.values[i] = slice(values[i], micro);
      }
      if (gradients[i] != null) {
        to.gradients[i] = slice(gradients[i], micro);
      }
    }
  }

  private Tensor slice(Tensor whole, int micro) {
    int[] dims = whole.shape().dims();
    long image = whole.shape().elements() / images;
    dims[0] = pass;
    return whole.slice(image * pass * micro, Shape.of(dims), whole.layout());
  }

  /**
   * Computes the gradients, a layer at a time on each lane.
   *
   * @param micros passes that the batch had; what is behind its end counts as zeros
   * @param destination receives them
   */
  <L extends AutoCloseable> void compute(
      Lanes<L> lanes, Function<L, Stream> stream, int micros, Parameters destination, Write write) {
    if (micros < images / pass) {
      lanes.share(1, (lane, all) -> clearBehind(stream.apply(lane), micros));
    }
    lanes.share(
        entries.size(),
        (lane, index) -> {
          Entry entry = entries.get(index);
          entry.step.run(stream.apply(lane), entry.value, entry.gradient, destination, write);
        });
  }

  private void clearBehind(Stream stream, int micros) {
    for (Tensor whole : owned) {
      for (int micro = micros; micro < images / pass; micro++) {
        backend.fill(stream, slice(whole, micro), 0);
      }
    }
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      owned.pop().close();
    }
  }
}
