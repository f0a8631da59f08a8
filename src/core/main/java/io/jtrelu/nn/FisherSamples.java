package io.jtrelu.nn;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.UnsupportedException;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * What the samples of a batch tell of the Fisher matrix: for each layer with parameters rows of
 * inputs and of gradients for every sample, one behind the other, as {@link FisherRows} defines
 * them. Owns its memory; written by {@link BatchExecutor}, read by an optimiser.
 */
public final class FisherSamples implements AutoCloseable {
  /**
   * The rows of one layer.
   *
   * @param layer index in {@link Network#layers}
   * @param weights index in {@link Network#parameters} of its weights, [outputs, inputs - 1] in any
   *     shape
   * @param bias index of its bias, [outputs]
   * @param inputs F32 [batch rows, inputs]
   * @param gradients F32 [batch rows, outputs]
   */
  public record Block(int layer, int weights, int bias, Tensor inputs, Tensor gradients) {
    /** Elements of a row of inputs. */
    public int inputWidth() {
      return inputs.shape().dim(1);
    }

    /** Elements of a row of gradients. */
    public int outputWidth() {
      return gradients.shape().dim(1);
    }
  }

  private final Network network;
  private final int batch;
  private final List<Block> blocks = new ArrayList<>();
  private final @Nullable Block[] ofLayer;

  /**
   * Allocates rows for a batch.
   *
   * @throws UnsupportedException naming a layer with parameters and no such rows
   */
  public FisherSamples(Network network, Backend backend, int batch, FisherRows.Form form) {
    this.network = network;
    this.batch = batch;
    this.ofLayer = new Block[network.layers().size()];
    List<ParameterSpec> specs = network.parameters();
    try {
      for (int i = 0; i < ofLayer.length; i++) {
        Layer layer = network.layers().get(i);
        int inputs = layer.fisherInputs();
        if (inputs > 0) {
          int rows = Math.multiplyExact(batch, layer.fisherRows(form));
          int weights = parameter(specs, i, ParameterSpec.Kind.WEIGHTS);
          int bias = parameter(specs, i, ParameterSpec.Kind.BIAS);
          int outputs = Math.toIntExact(specs.get(bias).shape().elements());
          Tensor inputRows = allocate(backend, rows, inputs);
          try {
            blocks.add(new Block(i, weights, bias, inputRows, allocate(backend, rows, outputs)));
          } catch (RuntimeException | Error failure) {
            inputRows.close();
            throw failure;
          }
          ofLayer[i] = blocks.getLast();
        } else if (!layer.parameters().isEmpty()) {
          throw new UnsupportedException(
              "layer "
                  + layer.name()
                  + " ("
                  + layer.kind()
                  + ") has parameters for which K-FAC has no factors; train with SGD, Adam or Muon");
        }
      }
    } catch (RuntimeException | Error failure) {
      close();
      throw failure;
    }
  }

  /** In the reduce form. */
  public FisherSamples(Network network, Backend backend, int batch) {
    this(network, backend, batch, FisherRows.Form.REDUCE);
  }

  private static Tensor allocate(Backend backend, int rows, int width) {
    return backend.allocate(Shape.of(rows, width), DataType.F32, Layout.ROW_MAJOR);
  }

  private static int parameter(List<ParameterSpec> specs, int layer, ParameterSpec.Kind kind) {
    for (int p = 0; p < specs.size(); p++) {
      if (specs.get(p).layer() == layer && specs.get(p).kind() == kind) {
        return p;
      }
    }
    throw new IllegalStateException("layer " + layer + " has no " + kind);
  }

  /** The network. */
  public Network network() {
    return network;
  }

  /** Samples that there is room for. */
  public int batch() {
    return batch;
  }

  /** A block for each layer with parameters, in the order of layers. */
  public List<Block> blocks() {
    return blocks;
  }

  /** Memory of all rows. */
  public long bytes() {
    return blocks.stream().mapToLong(b -> b.inputs().bytes() + b.gradients().bytes()).sum();
  }

  /** Rows of a layer's inputs, for some of the samples. */
  Tensor inputs(int layer, int first, int count) {
    return rows(Objects.requireNonNull(ofLayer[layer]).inputs(), first, count);
  }

  /** Rows of a layer's gradients, for some of the samples. */
  Tensor gradients(int layer, int first, int count) {
    return rows(Objects.requireNonNull(ofLayer[layer]).gradients(), first, count);
  }

  private Tensor rows(Tensor of, int first, int count) {
    int width = of.shape().dim(1);
    int each = of.shape().dim(0) / batch;
    return of.slice((long) first * each * width, Shape.of(count * each, width), Layout.ROW_MAJOR);
  }

  @Override
  public void close() {
    for (Block block : blocks) {
      block.inputs().close();
      block.gradients().close();
    }
  }
}
