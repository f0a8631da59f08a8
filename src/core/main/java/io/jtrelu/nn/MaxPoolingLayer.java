package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Conv2dPool;
import io.jtrelu.backend.MaxPool2d;
import io.jtrelu.backend.MaxPool2dDescriptor;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.tensor.DataType;
import java.util.List;

/**
 * Max-pooling.
 *
 * @param name unique name
 * @param source index of the node it reads
 * @param descriptor sizes, with a batch of one
 */
public record MaxPoolingLayer(String name, int source, MaxPool2dDescriptor descriptor)
    implements Layer {
  static final String KIND = "max-pooling";

  static Layer read(LayerDescription in) {
    Extent source = in.source(0);
    int[] padding = in.integers("padding", 2);
    return new MaxPoolingLayer(
        in.name(),
        in.sources(1).getFirst(),
        new MaxPool2dDescriptor(
            1,
            source.height(),
            source.width(),
            source.channels(),
            in.integer("kernel"),
            in.integer("stride"),
            padding[0],
            padding[1]));
  }

  @Override
  public String kind() {
    return KIND;
  }

  @Override
  public List<Integer> sources() {
    return List.of(source);
  }

  @Override
  public Extent extent() {
    return new Extent(descriptor.oh(), descriptor.ow(), descriptor.c());
  }

  @Override
  public void check(List<Extent> extents) {
    Extent in = extents.getFirst();
    if (descriptor.h() != in.height()
        || descriptor.w() != in.width()
        || descriptor.c() != in.channels()) {
      throw new IllegalArgumentException(
          "layer " + name + ": max-pooling " + descriptor + " does not fit a source of " + in);
    }
  }

  @Override
  public void describe(ObjectNode attributes) {
    attributes.put("kernel", descriptor.kernel());
    attributes.put("stride", descriptor.stride());
    attributes.putArray("padding").add(descriptor.padBegin()).add(descriptor.padEnd());
  }

  @Override
  public boolean keepsCosines() {
    return false;
  }

  @Override
  public boolean gates() {
    return true;
  }

  /** The places of maxima tell which are above 0, where a byte has a bit left for it. */
  @Override
  public boolean gatesByReserve() {
    return MaxPool2d.leavesBit(descriptor);
  }

  /** Where in its window each maximum lies. */
  @Override
  public DataType reserve() {
    return DataType.U8;
  }

  private MaxPool2dDescriptor withBatch(int batch) {
    MaxPool2dDescriptor d = descriptor;
    return new MaxPool2dDescriptor(
        batch, d.h(), d.w(), d.c(), d.kernel(), d.stride(), d.padBegin(), d.padEnd());
  }

  /** With a network's first convolution, which leads no gradient back. */
  @Override
  public boolean chains(
      Layer below, Gradients gradients, Backend backend, int batch, DataType type) {
    return below instanceof ConvolutionLayer first
        && gradients != Gradients.OF_SOURCE
        && backend.pools(first.descriptor().withBatch(batch), withBatch(batch), type);
  }

  @Override
  public long chainScratch(Layer below, Backend backend, int batch, DataType type) {
    Rectifier none = Rectifier.IDENTITY;
    Conv2dDescriptor first = ((ConvolutionLayer) below).descriptor().withBatch(batch);
    try (Conv2d convolution = backend.conv2d(first, type, none, none);
        MaxPool2d pooling = backend.maxPool2d(withBatch(batch), type, none);
        Conv2dPool op = backend.conv2dPool(convolution, pooling)) {
      return op.scratchBytes();
    }
  }

  @Override
  public void lower(Lowering lowering) {
    int node = lowering.node();
    MaxPool2d op =
        lowering.own(
            lowering
                .backend()
                .maxPool2d(withBatch(lowering.batch()), lowering.type(), lowering.gate(source)));
    ConvolutionLayer.Prepared below = lowering.chained(ConvolutionLayer.Prepared.class);
    if (below != null) {
      lowerPooled(lowering, below, op);
      return;
    }
    lowering.forward(
        pass ->
            op.forward(pass.stream(), pass.value(source), pass.value(node), pass.reserve(node)));
    lowering.backwardTo(
        source,
        (pass, write) ->
            op.backward(
                pass.stream(),
                pass.gradient(node),
                pass.reserve(node),
                pass.value(source),
                pass.gradient(source),
                write));
  }

  /** Steps of a convolution and this as one. */
  private static void lowerPooled(
      Lowering lowering, ConvolutionLayer.Prepared first, MaxPool2d pooling) {
    int node = lowering.node();
    int images = first.source();
    Conv2dPool op = lowering.own(lowering.backend().conv2dPool(first.op(), pooling));
    lowering.forward(
        pass ->
            op.forward(
                pass.stream(),
                pass.value(images),
                first.packed(),
                pass.parameter(first.bias()),
                pass.value(node),
                pass.reserve(node)));
    lowering.backward(
        pass ->
            op.backwardWeights(
                pass.stream(),
                pass.value(images),
                pass.gradient(node),
                pass.reserve(node),
                pass.parameterGradient(first.weights()),
                pass.parameterGradient(first.bias()),
                pass.write()));
  }
}
