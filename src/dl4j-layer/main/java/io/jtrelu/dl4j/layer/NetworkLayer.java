package io.jtrelu.dl4j.layer;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.MemoryStatistics;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.DropoutLayer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NetworkFunction;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Cleaner;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.deeplearning4j.exception.DL4JInvalidConfigException;
import org.deeplearning4j.exception.DL4JInvalidInputException;
import org.deeplearning4j.nn.conf.CNN2DFormat;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.gradient.DefaultGradient;
import org.deeplearning4j.nn.gradient.Gradient;
import org.deeplearning4j.nn.layers.BaseLayer;
import org.deeplearning4j.nn.workspace.ArrayType;
import org.deeplearning4j.nn.workspace.LayerWorkspaceMgr;
import org.jspecify.annotations.Nullable;
import org.nd4j.common.primitives.Pair;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.memory.MemoryWorkspace;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;

/**
 * Computes a {@link JtreluLayer}. Used by one thread at a time, as Deeplearning4j's layers are.
 *
 * <p>A pass takes the parameters' values as they are then, as anything may have written to
 * Deeplearning4j's array in between.
 */
final class NetworkLayer extends BaseLayer<JtreluLayer> {
  private static final long serialVersionUID = 1;

  /** Releases what garbage layers hold; a thread of the process, without state of its own. */
  private static final Cleaner CLEANER = Cleaner.create();

  private final transient Compiled compiled = new Compiled();
  private final transient Cleaner.Cleanable cleanable = CLEANER.register(this, compiled);

  private transient @Nullable Bound parameters;
  private transient @Nullable Bound gradients;

  /** The input of the last training pass, until its backward pass; else null. */
  private transient @Nullable INDArray trained;

  private transient long passes;

  NetworkLayer(NeuralNetConfiguration conf, DataType dataType) {
    super(conf, dataType);
  }

  /** What is open: refers to no layer, so that layers become garbage. */
  private static final class Compiled implements Runnable {
    private @Nullable Backend backend;
    private @Nullable NetworkFunction training;
    private @Nullable NetworkFunction inference;
    private boolean closed;

    NetworkFunction function(JtreluLayer layer, int batch, boolean train, long seed) {
      if (closed) {
        throw new IllegalStateException(
            "JtreluLayer '"
                + layer.getLayerName()
                + "' was closed; make a new network of its conf");
      }
      Backend open = backend;
      if (open == null) {
        open = open(layer);
        backend = open;
      }
      NetworkFunction present = train ? training : inference;
      if (present != null && present.options().batch() >= batch) {
        return present;
      }
      if (present != null) {
        present.close();
      }
      NetworkFunction compiled =
          new NetworkFunction(
              layer.network(),
              open,
              new NetworkFunction.Options(
                  batch, 0, io.jtrelu.tensor.DataType.F32, train, train, seed));
      if (train) {
        training = compiled;
      } else {
        inference = compiled;
      }
      return compiled;
    }

    private static Backend open(JtreluLayer layer) {
      Backend backend = Backends.open(layer.device());
      if (!backend.device().equals(Device.CPU)) {
        backend.close();
        throw new DL4JInvalidConfigException(
            "JtreluLayer '"
                + layer.getLayerName()
                + "' computes on ND4J's memory, so on the CPU, not on "
                + layer.device()
                + "; its device is cpu, or cpu:2 for two lanes");
      }
      return backend;
    }

    @Override
    public void run() {
      closed = true;
      for (AutoCloseable part : new AutoCloseable[] {training, inference, backend}) {
        if (part instanceof NetworkFunction function) {
          function.close();
        } else if (part instanceof Backend open) {
          open.close();
        }
      }
      training = null;
      inference = null;
      backend = null;
    }
  }

  /** Parameters that lie in a flat array of ND4J, or for one in DOUBLE in a copy of it. */
  @SuppressWarnings("ReferenceEquality") // an array is a place in memory here
  private record Bound(INDArray flat, INDArray floats, long where, Parameters parameters) {
    @SuppressWarnings("try") // the scope is left by closing it
    static Bound to(Network network, INDArray flat) {
      if (!isContiguous(flat)) {
        throw new IllegalStateException(
            "the parameters of network "
                + network
                + " and their gradients must lie in one piece, but an array with strides "
                + Arrays.toString(flat.stride())
                + " was set; give Deeplearning4j a copy, array.dup()");
      }
      INDArray floats = flat;
      if (flat.dataType() != DataType.FLOAT) {
        try (MemoryWorkspace outside = Nd4j.getMemoryManager().scopeOutOfWorkspaces()) {
          floats = flat.castTo(DataType.FLOAT);
        }
      }
      List<Tensor> tensors = new ArrayList<>();
      long where = address(floats);
      for (ParameterSpec spec : network.parameters()) {
        tensors.add(tensor(where, spec.shape(), spec.layout()));
        where += spec.shape().elements() * Float.BYTES;
      }
      return new Bound(flat, floats, address(floats), Parameters.over(network, tensors));
    }

    static Bound to(Network network, INDArray flat, @Nullable Bound before) {
      return before != null && before.flat == flat && before.where == address(before.floats)
          ? before
          : to(network, flat);
    }

    /** Brings in what Deeplearning4j wrote. */
    Parameters read() {
      if (floats != flat) {
        floats.assign(flat);
      }
      return parameters;
    }

    /** Gives Deeplearning4j what was written. */
    void written() {
      if (floats != flat) {
        flat.assign(floats);
      }
    }
  }

  @Override
  public INDArray activate(boolean training, LayerWorkspaceMgr workspaces) {
    assertInputSet(false);
    if (maskArray != null) {
      throw new UnsupportedOperationException(
          layerId() + ": a JtreluLayer reads no masks; give it images without");
    }
    trained = null;
    applyDropOutIfNecessary(training, workspaces);
    INDArray output =
        forward(training, workspaces, ArrayType.ACTIVATIONS, ArrayType.FF_WORKING_MEM);
    trained = training ? input : null;
    return output;
  }

  private INDArray forward(
      boolean training, LayerWorkspaceMgr workspaces, ArrayType result, ArrayType working) {
    Network network = layerConf().network();
    INDArray images = floats(images(input, network.input()), workspaces, working);
    int n = Math.toIntExact(images.size(0));
    Extent out = layerConf().output();
    INDArray output = workspaces.createUninitialized(result, dataType, outputShape(n), 'c');
    boolean direct = dataType == DataType.FLOAT && (isNhwc() || output.rank() == 2);
    INDArray computed =
        direct
            ? output
            : workspaces.createUninitialized(working, DataType.FLOAT, longs(out.batch(n)), 'c');
    Bound bound = Bound.to(network, params(), parameters);
    parameters = bound;
    NetworkFunction function = function(n, training);
    function.load(bound.read());
    function.forward(
        tensor(address(images), network.input().batch(n), Layout.NHWC),
        List.of(tensor(address(computed), out.batch(n), Layout.NHWC)),
        passes++);
    if (!direct) {
      output.assign(output.rank() == 2 ? computed.reshape(output.shape()) : outer(computed));
    }
    return output;
  }

  @Override
  @SuppressWarnings("ReferenceEquality") // whether it is that very input
  public Pair<Gradient, INDArray> backpropGradient(INDArray epsilon, LayerWorkspaceMgr workspaces) {
    assertInputSet(true);
    Network network = layerConf().network();
    if (trained
        != input) { // as after the forward pass of a frozen layer, which is one of inference
      if (network.layers().stream().anyMatch(DropoutLayer.class::isInstance)) {
        throw new IllegalStateException(
            layerId()
                + ": a backward pass needs a forward pass in training mode before it, as the network"
                + " has dropout; leave dropout out of what is frozen");
      }
      forward(true, workspaces, ArrayType.BP_WORKING_MEM, ArrayType.BP_WORKING_MEM);
    }
    trained = null;
    Extent out = layerConf().output();
    int n = batchSize();
    if (!Arrays.equals(epsilon.shape(), outputShape(n))) {
      throw new DL4JInvalidInputException(
          layerId()
              + ": the gradient of the output must be "
              + Arrays.toString(outputShape(n))
              + ", but is "
              + Arrays.toString(epsilon.shape()));
    }
    INDArray outputGradient =
        floats(
            epsilon.rank() == 2 ? epsilon : images(epsilon, out),
            workspaces,
            ArrayType.BP_WORKING_MEM);
    Shape in = network.input().batch(n);
    INDArray inputGradient =
        workspaces.createUninitialized(
            ArrayType.ACTIVATION_GRAD, dataType, shape(network.input(), n), 'c');
    boolean direct = dataType == DataType.FLOAT && isNhwc();
    INDArray computed =
        direct
            ? inputGradient
            : workspaces.createUninitialized(
                ArrayType.BP_WORKING_MEM, DataType.FLOAT, longs(in), 'c');
    Bound bound = Bound.to(network, getGradientsViewArray(), gradients);
    gradients = bound;
    function(n, true)
        .backward(
            List.of(tensor(address(outputGradient), out.batch(n), Layout.NHWC)),
            bound.parameters(),
            Write.OVERWRITE,
            tensor(address(computed), in, Layout.NHWC));
    bound.written();
    if (!direct) {
      inputGradient.assign(outer(computed));
    }
    Gradient gradient = new DefaultGradient(getGradientsViewArray());
    gradientViews.forEach((key, view) -> gradient.setGradientFor(key, view, 'c'));
    return new Pair<>(gradient, backpropDropOutIfPresent(inputGradient));
  }

  private NetworkFunction function(int batch, boolean training) {
    return compiled.function(layerConf(), batch, training, conf.getSeed());
  }

  private boolean isNhwc() {
    return layerConf().dataFormat() == CNN2DFormat.NHWC;
  }

  /** The shape in which Deeplearning4j sees n results. */
  private long[] outputShape(int n) {
    Extent out = layerConf().output();
    return layerConf().isMatrix() ? new long[] {n, out.channels()} : shape(out, n);
  }

  /** The shape in which Deeplearning4j sees n images. */
  private long[] shape(Extent extent, int n) {
    return isNhwc()
        ? new long[] {n, extent.height(), extent.width(), extent.channels()}
        : new long[] {n, extent.channels(), extent.height(), extent.width()};
  }

  private static long[] longs(Shape shape) {
    return Arrays.stream(shape.dims()).asLongStream().toArray();
  }

  /** Images in Deeplearning4j's order as NHWC. */
  private INDArray images(INDArray array, Extent extent) {
    if (array.rank() != 4
        || array.size(0) < 1
        || !Arrays.equals(array.shape(), shape(extent, Math.toIntExact(array.size(0))))) {
      throw new DL4JInvalidInputException(
          layerId()
              + ": expected images "
              + Arrays.toString(shape(extent, 1)).replaceFirst("1", "n")
              + " in the format "
              + layerConf().dataFormat()
              + ", got an array "
              + Arrays.toString(array.shape())
              + "; the format is that of the network's input type, or of the layer's builder");
    }
    return isNhwc() ? array : array.permute(0, 2, 3, 1);
  }

  /** NHWC in Deeplearning4j's order. */
  private INDArray outer(INDArray nhwc) {
    return isNhwc() ? nhwc : nhwc.permute(0, 3, 1, 2);
  }

  /** The same in FLOAT and row-major: itself, or a copy. */
  private static INDArray floats(INDArray array, LayerWorkspaceMgr workspaces, ArrayType working) {
    if (array.dataType() == DataType.FLOAT && isContiguous(array)) {
      return array;
    }
    INDArray copy = workspaces.createUninitialized(working, DataType.FLOAT, array.shape(), 'c');
    return copy.assign(array);
  }

  private static boolean isContiguous(INDArray array) {
    return (array.ordering() == 'c' || array.rank() < 2 || array.isRowVector())
        && org.nd4j.linalg.api.shape.Shape.hasDefaultStridesForShape(array);
  }

  /** Of the first element; a view's buffer begins where that of the whole does. */
  private static long address(INDArray array) {
    if (array.wasClosed()) {
      throw new IllegalStateException(
          "an array of this network was closed, as MultiLayerNetwork.close() does");
    }
    return array.data().address() + array.offset() * Float.BYTES;
  }

  private static Tensor tensor(long address, Shape shape, Layout layout) {
    MemorySegment memory =
        MemorySegment.ofAddress(address).reinterpret(shape.elements() * Float.BYTES);
    return Tensor.wrap(memory, shape, io.jtrelu.tensor.DataType.F32, layout);
  }

  /** What is compiled holds. */
  MemoryStatistics memory() {
    return compiled.backend == null ? new MemoryStatistics(0, 0, 0, 0) : compiled.backend.memory();
  }

  /** A layer with a copy of the parameters. */
  @Override
  public NetworkLayer clone() {
    NetworkLayer copy = new NetworkLayer(conf, dataType);
    copy.setIndex(index);
    INDArray own = params().dup();
    copy.setParamsViewArray(own);
    copy.setParamTable(layerConf().initializer().init(conf.clone(), own, false));
    return copy;
  }

  @Override
  public boolean isPretrainLayer() {
    return false;
  }

  @Override
  public Type type() {
    return Type.CONVOLUTIONAL;
  }

  /** Releases what was compiled; the layer cannot be used afterwards. */
  @Override
  public void close() {
    cleanable.clean();
  }

  @Override
  public boolean equals(@Nullable Object other) {
    return this == other;
  }

  @Override
  public int hashCode() {
    return System.identityHashCode(this);
  }
}
