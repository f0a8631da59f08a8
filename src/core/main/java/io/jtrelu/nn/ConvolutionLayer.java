package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dChain;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.FisherRows;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.util.List;

/**
 * Convolution + bias; a fully connected layer is one of 1x1 images.
 *
 * @param name unique name
 * @param source index of the node it reads
 * @param descriptor sizes, with a batch of one
 */
public record ConvolutionLayer(String name, int source, Conv2dDescriptor descriptor)
    implements Layer {
  static final String KIND = "convolution";

  private static final int WEIGHTS = 0;
  private static final int BIAS = 1;

  /** Prepared, for a layer that computes it along with itself. */
  record Prepared(Conv2d op, PackedWeights packed, int source, int weights, int bias) {
    Conv2dChain.Weights weights(Pass pass) {
      return new Conv2dChain.Weights(packed, pass.parameter(bias));
    }

    Conv2dChain.Gradients gradients(Pass pass) {
      return new Conv2dChain.Gradients(
          pass.parameterGradient(weights), pass.parameterGradient(bias));
    }
  }

  static Layer read(LayerDescription in) {
    Extent source = in.source(0);
    int[] kernel = in.integers("kernel", 2);
    int[] stride = in.integers("stride", 2);
    int[] padding = in.integers("padding", 4);
    int[] dilation = in.integers("dilation", 2);
    return new ConvolutionLayer(
        in.name(),
        in.sources(1).getFirst(),
        new Conv2dDescriptor(
            1,
            source.height(),
            source.width(),
            source.channels(),
            in.integer("channels"),
            kernel[0],
            kernel[1],
            stride[0],
            stride[1],
            padding[0],
            padding[1],
            padding[2],
            padding[3],
            dilation[0],
            dilation[1],
            in.integer("groups")));
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
    return new Extent(descriptor.oh(), descriptor.ow(), descriptor.oc());
  }

  @Override
  public void check(List<Extent> extents) {
    Extent in = extents.getFirst();
    if (descriptor.h() != in.height()
        || descriptor.w() != in.width()
        || descriptor.ic() != in.channels()) {
      throw new IllegalArgumentException(
          "layer " + name + ": convolution " + descriptor + " does not fit a source of " + in);
    }
  }

  @Override
  public void describe(ObjectNode attributes) {
    Conv2dDescriptor d = descriptor;
    attributes.put("channels", d.oc());
    attributes.putArray("kernel").add(d.kh()).add(d.kw());
    attributes.putArray("stride").add(d.strideH()).add(d.strideW());
    attributes
        .putArray("padding")
        .add(d.padTop())
        .add(d.padLeft())
        .add(d.padBottom())
        .add(d.padRight());
    attributes.putArray("dilation").add(d.dilationH()).add(d.dilationW());
    attributes.put("groups", d.groups());
  }

  @Override
  public List<Parameter> parameters() {
    return List.of(
        new Parameter("weights", ParameterSpec.Kind.WEIGHTS, descriptor.weights()),
        new Parameter("bias", ParameterSpec.Kind.BIAS, descriptor.bias()));
  }

  @Override
  public void initialize(Initializer.Weights initial, int parameter, Tensor weights) {
    initial.orthogonal(name, descriptor, weights);
  }

  @Override
  public long multiplyAdds() {
    return descriptor.multiplyAdds();
  }

  @Override
  public boolean keepsCosines() {
    return descriptor.groups() == 1;
  }

  @Override
  public double[][] draw(List<double[][]> sources, AffineDraw affine) {
    return affine.affine(sources.getFirst(), descriptor.oc());
  }

  @Override
  public boolean fusesRectifier() {
    return true;
  }

  @Override
  public boolean gates() {
    return true;
  }

  @Override
  public boolean gradientsMayWait() {
    return true;
  }

  @Override
  public boolean backwardReadsSources() {
    return true;
  }

  @Override
  public boolean keepsSigns(Backend backend, int batch, DataType type) {
    return backend.keepsSigns(descriptor.withBatch(batch), type);
  }

  @Override
  public boolean chains(
      Layer below, Gradients gradients, Backend backend, int batch, DataType type) {
    return below instanceof ConvolutionLayer first
        && gradients != Gradients.OF_PARAMETERS
        && backend.chains(first.descriptor.withBatch(batch), descriptor.withBatch(batch), type);
  }

  @Override
  public long chainScratch(Layer below, Backend backend, int batch, DataType type) {
    Rectifier none = Rectifier.IDENTITY;
    Conv2dDescriptor first = ((ConvolutionLayer) below).descriptor.withBatch(batch);
    Conv2dDescriptor second = descriptor.withBatch(batch);
    try (Conv2d op1 = backend.conv2d(first, type, none, none);
        Conv2d op2 = backend.conv2d(second, type, none, none);
        Conv2dChain chain = backend.conv2dChain(op1, op2)) {
      return chain.scratchBytes();
    }
  }

  @Override
  public int fisherInputs() {
    return descriptor.groups() == 1 ? FisherRows.inputs(descriptor) : 0;
  }

  @Override
  public int fisherRows(FisherRows.Form form) {
    return FisherRows.rows(descriptor, form);
  }

  @Override
  public void lower(Lowering lowering) {
    int node = lowering.node();
    int weights = lowering.parameter(WEIGHTS);
    int bias = lowering.parameter(BIAS);
    Conv2d op = operation(lowering, lowering.batch());
    PackedWeights packed = lowering.own(op.newPackedWeights());
    lowering.packed(weights, op, packed);
    Prepared own = new Prepared(op, packed, source, weights, bias);
    Prepared below = lowering.chained(Prepared.class);
    if (below != null) {
      lowerChain(lowering, below, own);
      return;
    }
    if (lowering.isChained()) {
      lowering.handOver(own);
      return;
    }
    if (lowering.isAbsorbed()) {
      lowering.handOver(own);
    } else if (lowering.signs(node)) {
      lowering.forward(
          pass ->
              op.forwardWithSigns(
                  pass.stream(),
                  pass.value(source),
                  packed,
                  pass.parameter(bias),
                  pass.value(node),
                  pass.signs(node)));
    } else {
      lowering.forward(
          pass ->
              op.forward(
                  pass.stream(),
                  pass.value(source),
                  packed,
                  pass.parameter(bias),
                  pass.value(node)));
    }
    // First, as on a CPU its source is in the cache then for the gradient of the weights.
    int home = lowering.home(source);
    boolean bySigns = !lowering.gate(source).isIdentity() && lowering.signs(home);
    lowering.backwardTo(
        source,
        (pass, write) -> {
          if (bySigns) {
            op.backwardDataBySigns(
                pass.stream(),
                pass.gradient(node),
                packed,
                pass.signs(home),
                pass.gradient(source),
                write);
          } else {
            op.backwardData(
                pass.stream(),
                pass.gradient(node),
                packed,
                pass.value(source),
                pass.gradient(source),
                write);
          }
        });
    if (lowering.isLate()) {
      Conv2d whole = operation(lowering, lowering.lateBatch());
      lowering.late(
          (stream, value, gradient, to, write) ->
              whole.backwardWeights(
                  stream, value, gradient, to.view(weights), to.view(bias), write));
    } else {
      lowering.backward(
          pass ->
              op.backwardWeights(
                  pass.stream(),
                  pass.value(source),
                  pass.gradient(node),
                  pass.parameterGradient(weights),
                  pass.parameterGradient(bias),
                  pass.write()));
    }
    FisherRows.Form form = lowering.fisher();
    if (form != null) {
      FisherRows rows =
          lowering.own(
              lowering
                  .backend()
                  .fisherRows(descriptor.withBatch(lowering.batch()), lowering.type(), form));
      lowering.fisher(
          pass ->
              rows.run(
                  pass.stream(),
                  pass.value(source),
                  pass.gradient(node),
                  pass.fisherInputs(node),
                  pass.fisherGradients(node)));
    }
  }

  private Conv2d operation(Lowering lowering, int images) {
    return lowering.own(
        lowering
            .backend()
            .conv2d(
                descriptor.withBatch(images),
                lowering.type(),
                lowering.activation(),
                lowering.gate(source)));
  }

  /** Steps of two convolutions as one; nothing else reads what they begin with. */
  private static void lowerChain(Lowering lowering, Prepared first, Prepared second) {
    int node = lowering.node();
    int source = first.source();
    Conv2dChain op = lowering.own(lowering.backend().conv2dChain(first.op(), second.op()));
    if (lowering.signs(node)) {
      lowering.forward(
          pass ->
              op.forwardWithSigns(
                  pass.stream(),
                  pass.value(source),
                  first.weights(pass),
                  second.weights(pass),
                  pass.value(node),
                  pass.signs(node)));
    } else {
      lowering.forward(
          pass ->
              op.forward(
                  pass.stream(),
                  pass.value(source),
                  first.weights(pass),
                  second.weights(pass),
                  pass.value(node)));
    }
    int home = lowering.home(source);
    if (!first.op().srcActivation().isIdentity() && lowering.signs(home)) {
      lowering.backward(
          pass ->
              op.backwardBySigns(
                  pass.stream(),
                  pass.value(source),
                  pass.signs(home),
                  pass.gradient(node),
                  first.weights(pass),
                  second.packed(),
                  pass.gradient(source),
                  Write.OVERWRITE,
                  first.gradients(pass),
                  second.gradients(pass),
                  pass.write()));
    } else {
      lowering.backward(
          pass ->
              op.backward(
                  pass.stream(),
                  pass.value(source),
                  pass.gradient(node),
                  first.weights(pass),
                  second.packed(),
                  pass.gradient(source),
                  Write.OVERWRITE,
                  first.gradients(pass),
                  second.gradients(pass),
                  pass.write()));
    }
  }
}
