package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.tensor.Tensor;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Kinds of layers that the library does not know: each is one class. */
class LayerKindTest {
  private static final TransformedActivation RECTIFIER = TransformedActivation.rectifier(0.7, 1.15);

  /** gain[c] * src + shift[c], which takes part in fusion as a convolution does. */
  private record ChannelScaling(String name, int source, Extent extent) implements Layer {
    @Override
    public String kind() {
      return "channel-scaling";
    }

    @Override
    public List<Integer> sources() {
      return List.of(source);
    }

    private Conv2dDescriptor descriptor(int batch) {
      int c = extent.channels();
      return new Conv2dDescriptor(
          batch, extent.height(), extent.width(), c, c, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, c);
    }

    @Override
    public List<Parameter> parameters() {
      return List.of(
          new Parameter("gain", ParameterSpec.Kind.WEIGHTS, descriptor(1).weights()),
          new Parameter("shift", ParameterSpec.Kind.BIAS, descriptor(1).bias()));
    }

    @Override
    public void initialize(Initializer.Weights initial, int parameter, Tensor weights) {
      initial.backend().fill(initial.stream(), weights, 1);
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
    public boolean backwardReadsSources() {
      return true;
    }

    @Override
    public void lower(Lowering lowering) {
      int node = lowering.node();
      int gain = lowering.parameter(0);
      int shift = lowering.parameter(1);
      Conv2d op =
          lowering.own(
              lowering
                  .backend()
                  .conv2d(
                      descriptor(lowering.batch()),
                      lowering.type(),
                      lowering.activation(),
                      lowering.gate(source)));
      PackedWeights packed = lowering.own(op.newPackedWeights());
      lowering.packed(gain, op, packed);
      lowering.forward(
          p -> op.forward(p.stream(), p.value(source), packed, p.parameter(shift), p.value(node)));
      lowering.backwardTo(
          source,
          (p, write) ->
              op.backwardData(
                  p.stream(),
                  p.gradient(node),
                  packed,
                  p.value(source),
                  p.gradient(source),
                  write));
      lowering.backward(
          p ->
              op.backwardWeights(
                  p.stream(),
                  p.value(source),
                  p.gradient(node),
                  p.parameterGradient(gain),
                  p.parameterGradient(shift),
                  p.write()));
    }
  }

  /** factor * src, with nothing but what an interface's defaults allow. */
  private record Scaling(String name, int source, float factor, Extent extent) implements Layer {
    @Override
    public String kind() {
      return "scaling";
    }

    @Override
    public List<Integer> sources() {
      return List.of(source);
    }

    @Override
    public boolean backwardReadsResult() {
      return true;
    }

    @Override
    public void lower(Lowering lowering) {
      int node = lowering.node();
      Rectify op =
          lowering.own(
              lowering
                  .backend()
                  .rectify(lowering.elements(), lowering.type(), new Rectifier(1, factor)));
      lowering.forward(p -> op.forward(p.stream(), p.value(source), p.value(node)));
      lowering.backwardTo(
          source,
          (p, write) ->
              op.backward(p.stream(), p.value(node), p.gradient(node), p.gradient(source), write));
    }
  }

  /** Each kind before and after convolutions, activations and a sum; an activation fused in one. */
  private static Network network() {
    Network.Builder b = Network.builder("new kinds", 7, 6, 2);
    int x = b.convolution("first", b.input(), 4, 3, 1);
    x = b.activation("act1", x);
    int scaled = b.add(new ChannelScaling("channels", x, b.extent(x)));
    int branch = b.activation("act2", scaled);
    branch = b.add(new Scaling("half", branch, 0.5f, b.extent(branch)));
    branch = b.convolution("second", branch, 4, 3, 1);
    x = b.normalizedSum("sum", x, branch, 0.6);
    x = b.add(new Scaling("double", x, 2, b.extent(x)));
    b.linear("logits", b.globalMeanPool("pool", x), 3);
    return b.build().with(RECTIFIER);
  }

  @Test
  void gradientsGoThroughThem() {
    new ProgramTest().gradientsAgreeWithCentralDifferences(network());
    for (TransformedActivation activation : ProgramTest.activations()) {
      new ProgramTest().gradientsAgreeWithCentralDifferences(network().with(activation));
    }
  }

  @Test
  void theyTrain() {
    Network network = network();
    int batch = 6;
    try (Backend backend = Backends.open("cpu");
        Parameters parameters = Parameters.allocate(network, backend);
        Parameters gradients = Parameters.allocate(network, backend);
        Tensor images = ProgramTest.images(network, batch, 4);
        Tensor labels = ProgramTest.labels(batch);
        BatchExecutor executor =
            new BatchExecutor(network, backend, batch, 2, ProgramTest.training())) {
      Initializer.delta(3).fill(backend, parameters);
      executor.load(parameters);
      double first = executor.evaluate(images, labels).loss();
      float[] before = parameters.view(parameter(network, "channels.gain")).toFloatArray();
      for (float gain : before) {
        assertEquals(1, gain);
      }
      for (int step = 0; step < 30; step++) {
        executor.forwardBackward(images, labels, gradients, Write.OVERWRITE, 1f / batch, step);
        float[] values = parameters.arena().toFloatArray();
        float[] gradient = gradients.arena().toFloatArray();
        for (int i = 0; i < values.length; i++) {
          values[i] -= 0.2f * gradient[i];
        }
        parameters.arena().set(values);
        executor.load(parameters);
      }
      double last = executor.evaluate(images, labels).loss();
      assertTrue(last < 0.7 * first, first + " to " + last);
    }
  }

  private static int parameter(Network network, String name) {
    return network.parameters().stream().map(ParameterSpec::name).toList().indexOf(name);
  }

  /** Cosines pass a linear layer unchanged, so the theory is that of the network without it. */
  @Test
  void theyAreInTheSignalGraph() {
    assertEquals(2, network().signalGraph().activations());
    assertEquals(2, network().depth());
  }

  @Test
  void aNetworkChecksWhatItIsGiven() {
    Network.Builder b = Network.builder("wrong", 4, 4, 2);
    var missing =
        assertThrows(
            IllegalArgumentException.class,
            () -> b.add(new Scaling("s", 3, 1, new Layer.Extent(4, 4, 2))));
    assertEquals("layer s: there is no node 3", missing.getMessage());
    var empty =
        assertThrows(
            IllegalArgumentException.class,
            () -> b.add(new Scaling("s", 0, 1, new Layer.Extent(4, 0, 2))));
    assertTrue(empty.getMessage().startsWith("layer s: "), empty.getMessage());
    var taken =
        assertThrows(
            IllegalArgumentException.class,
            () -> b.add(new Scaling("input", 0, 1, new Layer.Extent(4, 4, 2))));
    assertEquals("two layers are named input", taken.getMessage());
    var twice =
        assertThrows(
            IllegalArgumentException.class,
            () -> b.add(new NormalizedSumLayer("s", 0, 0, 0.5, new Layer.Extent(4, 4, 2))));
    assertTrue(twice.getMessage().contains("reads node input twice"), twice.getMessage());
  }
}
