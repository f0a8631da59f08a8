package io.jtrelu.djl.trunk;

import ai.djl.MalformedModelException;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.AbstractBlock;
import ai.djl.nn.Parameter;
import ai.djl.pytorch.engine.PtNDArray;
import ai.djl.pytorch.jni.JniUtils;
import ai.djl.training.ParameterStore;
import ai.djl.util.PairList;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NetworkFunction;
import io.jtrelu.nn.NetworkJson;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A {@link Network} of this library as a block of DJL on PyTorch: its forward and backward pass are
 * ours, its parameters are DJL's, so that DJL's optimisers change them and DJL's models save them.
 * A whole trunk should be one block; a block per layer would lose what makes it fast, the fusion
 * between layers.
 *
 * <p><b>Arrays.</b> One FLOAT32 array on the CPU in, [n, c, h, w] (or [n, c] for 1x1 images); for
 * each of {@link Network#outputs} one out, [n, c, h, w], or [n, c] where it is 1x1. n may change
 * from call to call. Outputs lie in memory as [n, h, w, c], PyTorch's channels-last; an input that
 * does so too is read where it is, others are copied by PyTorch first.
 *
 * <p><b>Parameters</b> have our names and DJL's shapes: [oc, ic / groups, kh, kw] for a
 * convolution, [out, in] for a fully connected layer, [oc] for a bias. The first training pass
 * brings their memory to our order (strides tell PyTorch so); from then on DJL's optimisers write
 * what our kernels read. They begin as {@link Initializer#delta} sets them, unless an initialiser
 * of the caller's is set for them. Frozen ones get no gradient.
 *
 * <p><b>Training</b> needs a {@link JtreluTrainer}, whose gradient collector knows of these blocks.
 * Before, after and around them (in the branches of a sum) there may be anything of DJL's; a block
 * may be used several times in a pass, and takes the memory for its activations as often.
 *
 * <p><b>Inference</b> needs nothing. Calls by several threads wait for each other. Parameters that
 * changed since the last call are found by comparing them.
 *
 * <p><b>Files.</b> A model's file also says which network its parameters are for, constants of
 * activations included, and is refused by a block of another one.
 *
 * <p>Owns native memory, which is released with the manager that it was initialised or loaded with,
 * usually the model's, or by {@link #close}. Training is for one thread at a time.
 */
public final class JtreluBlock extends AbstractBlock implements AutoCloseable {
  private static final byte VERSION = 1;

  private final Network network;
  private final long seed;
  private final boolean ownsBackend;
  private @Nullable Backend backend;
  private final List<Parameter> own = new ArrayList<>();

  /** For each parameter the array whose memory is known to be in our order. */
  private final @Nullable Long[] arranged;

  private float @Nullable [][] initial;
  private @Nullable Tape tape;
  private long passes;
  private boolean attached;
  private boolean closed;

  private final Deque<NetworkFunction> free = new ArrayDeque<>();
  private @Nullable Gradients gradients;

  private @Nullable NetworkFunction inference;
  private @Nullable Parameters snapshot;

  /** Gradients of the parameters: our tensors and, over the same memory, what PyTorch is given. */
  private record Gradients(NDManager manager, Parameters tensors, List<PtNDArray> arrays) {}

  /** A block on the CPU, with a lane for each core. */
  public JtreluBlock(Network network) {
    this(network, 0, null);
  }

  /**
   * A block on a backend of the caller's, who closes it after the block.
   *
   * @param seed of initial weights and dropout masks
   * @throws IllegalArgumentException if the backend does not compute in host memory
   */
  public JtreluBlock(Network network, Backend backend, long seed) {
    this(network, seed, backend);
    if (!backend.device().equals(Device.CPU)) {
      throw new IllegalArgumentException(
          "a JtreluBlock shares memory with PyTorch on the CPU; backend "
              + backend.name()
              + " computes on "
              + backend.device()
              + ": open one by Backends.open(\"cpu\")");
    }
  }

  /**
   * A block on the CPU, with a lane for each core.
   *
   * @param seed of initial weights and dropout masks
   */
  public JtreluBlock(Network network, long seed) {
    this(network, seed, null);
  }

  private JtreluBlock(Network network, long seed, @Nullable Backend backend) {
    super(VERSION);
    if (network.looksAtBatches()) {
      throw new IllegalArgumentException(
          "network "
              + network
              + " has batch normalisation, whose running statistics a JtreluBlock has no place for:"
              + " take DJL's own blocks for it");
    }
    this.network = network;
    this.seed = seed;
    this.backend = backend;
    this.ownsBackend = backend == null;
    List<ParameterSpec> specs = network.parameters();
    this.arranged = new Long[specs.size()];
    for (int p = 0; p < specs.size(); p++) {
      int index = p;
      ParameterSpec spec = specs.get(p);
      boolean weights = spec.kind() == ParameterSpec.Kind.WEIGHTS;
      own.add(
          addParameter(
              Parameter.builder()
                  .setName(spec.name())
                  .setType(weights ? Parameter.Type.WEIGHT : Parameter.Type.BIAS)
                  .optShape(shape(spec))
                  .optInitializer((manager, shape, type) -> initial(manager, index, type))
                  .build()));
    }
  }

  /** The network. */
  public Network network() {
    return network;
  }

  /** A fully connected layer's weights are a matrix to DJL, a 1x1 convolution to us. */
  private boolean isMatrix(ParameterSpec spec) {
    return network.layers().get(spec.layer()) instanceof ConvolutionLayer layer
        && layer.descriptor().isLinear();
  }

  private boolean isTurned(ParameterSpec spec) {
    return spec.layout() == Layout.KRSC && !isMatrix(spec);
  }

  private Shape shape(ParameterSpec spec) {
    int[] d = spec.shape().dims();
    if (isTurned(spec)) {
      return new Shape(d[0], d[3], d[1], d[2]);
    }
    if (spec.shape().rank() == 4) {
      return new Shape(d[0], d[3]);
    }
    long[] extents = new long[d.length];
    for (int i = 0; i < d.length; i++) {
      extents[i] = d[i];
    }
    return new Shape(extents);
  }

  private NDArray initial(NDManager manager, int index, DataType type) {
    if (type != DataType.FLOAT32) {
      throw new IllegalArgumentException(
          "parameter "
              + network.parameters().get(index).name()
              + " cannot be "
              + type
              + ": a JtreluBlock has FLOAT32 parameters; leave the model's data type as it is");
    }
    requirePyTorch(manager);
    if (initial == null) {
      try (Parameters all = Parameters.allocate(network, backend())) {
        Initializer.delta(seed).fill(backend(), all);
        initial = new float[own.size()][];
        for (int p = 0; p < initial.length; p++) {
          initial[p] = all.view(p).toFloatArray();
        }
      }
    }
    ParameterSpec spec = network.parameters().get(index);
    PtNDArray array = Views.allocate(manager, spec.shape());
    Views.tensor(array, spec.shape(), spec.layout()).set(initial[index]);
    return Views.seen(array, shape(spec));
  }

  private static void requirePyTorch(NDManager manager) {
    String engine = manager.getEngine().getEngineName();
    if (!engine.equals("PyTorch")) {
      throw new IllegalArgumentException(
          "a JtreluBlock is for DJL's engine PyTorch, but the model's is "
              + engine
              + ": make it by Model.newInstance(name, \"PyTorch\")");
    }
  }

  private Backend backend() {
    if (closed) {
      throw new IllegalStateException("this JtreluBlock of " + network + " is closed");
    }
    if (backend == null) {
      backend = Backends.open("cpu");
    }
    return backend;
  }

  /**
   * Sets the parameters that have no value yet.
   *
   * @throws IllegalArgumentException if the manager is not of the engine PyTorch, or an input is
   *     not what the network reads
   */
  @Override
  public void initialize(NDManager manager, DataType dataType, Shape... inputShapes) {
    requirePyTorch(manager);
    super.initialize(manager, dataType, inputShapes);
    initial = null;
    closeWith(manager);
  }

  @Override
  protected void beforeInitialize(Shape... inputShapes) {
    requireInputs(inputShapes);
    super.beforeInitialize(inputShapes);
  }

  private void requireInputs(Shape... inputs) {
    Extent in = network.input();
    boolean fits = inputs.length == 1 && inputs[0].dimension() > 0;
    if (fits) {
      Shape image = inputs[0].slice(1);
      boolean row = in.height() == 1 && in.width() == 1;
      fits =
          image.equals(new Shape(in.channels(), in.height(), in.width()))
              || (row && image.equals(new Shape(in.channels())));
    }
    if (!fits) {
      throw new IllegalArgumentException(
          "network "
              + network
              + " reads one array (n, "
              + in.channels()
              + ", "
              + in.height()
              + ", "
              + in.width()
              + "), got "
              + List.of(inputs));
    }
  }

  @Override
  public Shape[] getOutputShapes(Shape[] inputShapes) {
    requireInputs(inputShapes);
    long n = inputShapes[0].get(0);
    return network.outputs().stream()
        .map(output -> outputShape(n, network.layers().get(output).extent()))
        .toArray(Shape[]::new);
  }

  private static Shape outputShape(long n, Extent extent) {
    return extent.height() == 1 && extent.width() == 1
        ? new Shape(n, extent.channels())
        : new Shape(n, extent.channels(), extent.height(), extent.width());
  }

  /** What writes down the passes from now on; null for nothing. */
  void record(@Nullable Tape on) {
    tape = on;
  }

  @Override
  protected NDList forwardInternal(
      ParameterStore store,
      NDList inputs,
      boolean training,
      @Nullable PairList<String, Object> params) {
    requireInputs(inputs.getShapes());
    PtNDArray input = checked("input", inputs.singletonOrThrow());
    if (input.getShape().get(0) < 1) {
      throw new IllegalArgumentException("the input of network " + network + " has no images");
    }
    List<PtNDArray> values = values(store, input, training);
    return training ? train(input, values) : infer(input, values);
  }

  private PtNDArray checked(String what, NDArray array) {
    String wrong = null;
    if (!(array instanceof PtNDArray)) {
      wrong =
          "an array of the engine "
              + array.getManager().getEngine().getEngineName()
              + ": make it by a manager of PyTorch's";
    } else if (!array.getDevice().equals(ai.djl.Device.cpu())) {
      wrong = "on " + array.getDevice() + ": a JtreluBlock computes on the CPU; use toDevice";
    } else if (array.getDataType() != DataType.FLOAT32) {
      wrong =
          "of type "
              + array.getDataType()
              + ": a JtreluBlock computes in FLOAT32; use toType(DataType.FLOAT32, false)";
    } else if (array.isSparse()) {
      wrong = "sparse: use toDense";
    }
    if (wrong != null) {
      throw new IllegalArgumentException("the " + what + " of network " + network + " is " + wrong);
    }
    return (PtNDArray) array;
  }

  private List<PtNDArray> values(ParameterStore store, PtNDArray input, boolean training) {
    List<PtNDArray> values = new ArrayList<>();
    for (int p = 0; p < own.size(); p++) {
      ParameterSpec spec = network.parameters().get(p);
      NDArray value = store.getValue(own.get(p), input.getDevice(), training);
      PtNDArray array = checked("parameter " + spec.name(), value);
      if (!array.getShape().equals(shape(spec))) {
        throw new IllegalArgumentException(
            "parameter "
                + spec.name()
                + " of network "
                + network
                + " is "
                + shape(spec)
                + ", got "
                + array.getShape());
      }
      values.add(array);
    }
    return values;
  }

  private NDList train(PtNDArray input, List<PtNDArray> values) {
    Tape on = tape;
    if (on == null) {
      throw new IllegalStateException(
          "a training pass through network "
              + network
              + " needs a gradient collector of a JtreluTrainer, since its gradients are not"
              + " PyTorch's: train by new JtreluTrainer(model, config), within"
              + " newGradientCollector(); or pass training = false");
    }
    boolean inputGradient = isTracked(input);
    int rows = Math.toIntExact(input.getShape().get(0));
    NetworkFunction function = take(rows, inputGradient);
    try (NDManager scope = input.getManager().newSubManager()) {
      List<Tensor> tensors = new ArrayList<>();
      for (int p = 0; p < values.size(); p++) {
        arrange(p, values.get(p));
        tensors.add(tensor(scope, p, values.get(p)));
      }
      function.load(Parameters.over(network, tensors));
      NDList outputs = new NDList();
      forward(scope, function, input, outputs);
      boolean tracked = inputGradient || own.stream().anyMatch(Parameter::requiresGradient);
      if (!tracked) {
        free.push(function);
        return outputs;
      }
      outputs.forEach(output -> output.setRequiresGradient(true));
      on.add(new Pass(function, input, inputGradient, values, outputs));
      return outputs;
    } catch (RuntimeException | Error failure) {
      free.push(function);
      throw failure;
    }
  }

  private synchronized NDList infer(PtNDArray input, List<PtNDArray> values) {
    int rows = Math.toIntExact(input.getShape().get(0));
    boolean changed = false;
    if (inference == null || inference.options().batch() < rows) {
      if (inference != null) {
        inference.close();
        inference = null;
      }
      inference = new NetworkFunction(network, backend(), options(rows, false, false));
      changed = true;
    }
    if (snapshot == null) {
      snapshot = Parameters.allocate(network, backend());
    }
    try (NDManager scope = input.getManager().newSubManager()) {
      for (int p = 0; p < values.size(); p++) {
        MemorySegment now = tensor(scope, p, values.get(p)).segment();
        MemorySegment taken = snapshot.view(p).segment();
        if (taken.mismatch(now) != -1) {
          taken.copyFrom(now);
          changed = true;
        }
      }
      if (changed) {
        inference.load(snapshot);
      }
      NDList outputs = new NDList();
      forward(scope, inference, input, outputs);
      return outputs;
    }
  }

  private void forward(NDManager scope, NetworkFunction function, PtNDArray input, NDList outputs) {
    int rows = Math.toIntExact(input.getShape().get(0));
    List<PtNDArray> arrays = new ArrayList<>();
    List<Tensor> results = new ArrayList<>();
    for (int output : network.outputs()) {
      Extent extent = network.layers().get(output).extent();
      PtNDArray array = Views.allocate(scope, extent.batch(rows));
      arrays.add(array);
      results.add(Views.tensor(array, extent.batch(rows), Layout.NHWC));
    }
    function.forward(Views.images(scope, input, network.input()), results, passes++);
    for (int k = 0; k < arrays.size(); k++) {
      Extent extent = network.layers().get(network.outputs().get(k)).extent();
      PtNDArray seen = Views.seen(arrays.get(k), outputShape(rows, extent));
      seen.attach(input.getManager());
      outputs.add(seen);
    }
  }

  private Tensor tensor(NDManager scope, int p, PtNDArray value) {
    ParameterSpec spec = network.parameters().get(p);
    return Views.tensor(scope, value, isTurned(spec), spec.shape(), spec.layout());
  }

  /** Brings an array's memory to our order, once: it is read until the backward pass. */
  private void arrange(int p, PtNDArray value) {
    if (value.getHandle().equals(arranged[p])) {
      return;
    }
    ParameterSpec spec = network.parameters().get(p);
    boolean tracked = value.hasGradient();
    try (NDManager scope = value.getManager().newSubManager()) {
      PtNDArray array = Views.allocate(value.getManager(), spec.shape());
      Views.tensor(array, spec.shape(), spec.layout())
          .segment()
          .copyFrom(tensor(scope, p, value).segment());
      value.intern(Views.seen(array, shape(spec)));
    }
    value.setRequiresGradient(tracked);
    arranged[p] = value.getHandle();
  }

  /** Whether PyTorch needs the gradient of an array. */
  private static boolean isTracked(PtNDArray array) {
    if (array.hasGradient()) {
      return true;
    }
    try {
      // Of a leaf it may be said again that it has none. Of a result of tracked arrays it may not;
      // hasGradient is false of it, and there is no other question that DJL can put.
      JniUtils.attachGradient(array, false);
      return false;
    } catch (RuntimeException result) {
      return true;
    }
  }

  private NetworkFunction.Options options(int batch, boolean training, boolean inputGradient) {
    return new NetworkFunction.Options(
        batch, 0, io.jtrelu.tensor.DataType.F32, training, inputGradient, seed);
  }

  private NetworkFunction take(int rows, boolean inputGradient) {
    NetworkFunction function = free.poll();
    if (function == null) {
      return new NetworkFunction(network, backend(), options(rows, true, inputGradient));
    }
    NetworkFunction.Options has = function.options();
    if (has.batch() >= rows && (has.inputGradient() || !inputGradient)) {
      return function;
    }
    function.close();
    boolean both = has.inputGradient() || inputGradient;
    return new NetworkFunction(
        network, backend(), options(Math.max(rows, has.batch()), true, both));
  }

  private Gradients gradients(NDManager parent) {
    if (gradients == null) {
      NDManager manager = parent.newSubManager();
      List<Tensor> tensors = new ArrayList<>();
      List<PtNDArray> arrays = new ArrayList<>();
      for (ParameterSpec spec : network.parameters()) {
        PtNDArray array = Views.allocate(manager, spec.shape());
        tensors.add(Views.tensor(array, spec.shape(), spec.layout()));
        arrays.add(Views.seen(array, shape(spec)));
      }
      gradients = new Gradients(manager, Parameters.over(network, tensors), arrays);
    }
    return gradients;
  }

  /** A forward pass whose backward pass is to come. */
  final class Pass {
    private final PtNDArray input;
    private final boolean inputGradient;
    private final List<PtNDArray> values;
    private final NDList outputs;
    private @Nullable NetworkFunction function;

    Pass(
        NetworkFunction function,
        PtNDArray input,
        boolean inputGradient,
        List<PtNDArray> values,
        NDList outputs) {
      this.function = function;
      this.input = input;
      this.inputGradient = inputGradient;
      this.values = values;
      this.outputs = new NDList(outputs);
    }

    /** Adds to the gradients of the parameters and of what the input was made of. */
    void backward() {
      NetworkFunction passed = function;
      if (passed == null) {
        throw new IllegalStateException("a backward pass was called for twice");
      }
      if (input.isReleased() || outputs.stream().anyMatch(y -> ((PtNDArray) y).isReleased())) {
        throw new IllegalStateException(
            "input or output of network "
                + network
                + " was closed between its forward and its backward pass: keep them open");
      }
      try (NDManager scope = input.getManager().newSubManager()) {
        List<Tensor> slopes = outputGradients(scope);
        if (slopes.isEmpty()) {
          return; // the loss does not depend on this block
        }
        int rows = Math.toIntExact(input.getShape().get(0));
        io.jtrelu.tensor.Shape images = network.input().batch(rows);
        PtNDArray slope = inputGradient ? Views.allocate(scope, images) : null;
        Gradients sums = gradients(values.getFirst().getManager());
        passed.backward(
            slopes,
            sums.tensors,
            Write.OVERWRITE,
            slope == null ? null : Views.tensor(slope, images, Layout.NHWC));
        for (int p = 0; p < values.size(); p++) {
          if (values.get(p).hasGradient()) {
            JniUtils.backward(values.get(p), sums.arrays.get(p), false, false);
          }
        }
        if (slope != null) {
          JniUtils.backward(input, Views.seen(slope, input.getShape()), true, false);
        }
      }
    }

    /** Of all outputs; empty if none has one. */
    private List<Tensor> outputGradients(NDManager scope) {
      List<Tensor> slopes = new ArrayList<>();
      boolean any = false;
      for (int k = 0; k < outputs.size(); k++) {
        PtNDArray output = (PtNDArray) outputs.get(k);
        Extent extent = network.layers().get(network.outputs().get(k)).extent();
        PtNDArray slope = JniUtils.getGradient(output);
        if (slope == null) {
          slope = (PtNDArray) scope.zeros(output.getShape());
        } else {
          slope.attach(scope);
          any = true;
        }
        slopes.add(Views.images(scope, slope, extent));
      }
      return any ? slopes : List.of();
    }

    /** The function may be used again. */
    void release() {
      if (function != null) {
        outputs.forEach(y -> forget((PtNDArray) y));
        free.push(function);
        function = null;
      }
    }

    private static void forget(PtNDArray output) {
      if (!output.isReleased()) {
        JniUtils.zeroGrad(output);
      }
    }

    /** Fails if PyTorch brought a gradient after the pass was done. */
    void requireNoFurtherGradient() {
      for (NDArray y : outputs) {
        PtNDArray output = (PtNDArray) y;
        if (output.isReleased()) {
          continue;
        }
        try (NDManager scope = output.getManager().newSubManager()) {
          PtNDArray slope = JniUtils.getGradient(output);
          if (slope == null) {
            continue;
          }
          slope.attach(scope);
          NDArray largest = slope.abs().max();
          largest.attach(scope);
          if (!(largest.getFloat() == 0)) {
            throw new IllegalStateException(
                "a second loss depends on the same forward pass through network "
                    + network
                    + ", whose backward pass is done: add the losses up and call backward once");
          }
        }
      }
    }
  }

  @Override
  protected void saveMetadata(DataOutputStream os) throws IOException {
    saveInputShapes(os);
    byte[] description = description().getBytes(StandardCharsets.UTF_8);
    os.writeInt(description.length);
    os.write(description);
  }

  private String description() {
    return NetworkJson.write(network).toString();
  }

  @Override
  protected void loadMetadata(byte loadVersion, DataInputStream is)
      throws IOException, MalformedModelException {
    super.loadMetadata(loadVersion, is);
    byte[] description = new byte[Math.max(0, is.readInt())];
    is.readFully(description);
    String saved = new String(description, StandardCharsets.UTF_8);
    if (!saved.equals(description())) {
      throw new MalformedModelException(
          "the model was saved with another network than "
              + network
              + " of this block (layers or constants of activations differ): "
              + saved);
    }
  }

  @Override
  public void loadParameters(NDManager manager, DataInputStream is)
      throws IOException, MalformedModelException {
    requirePyTorch(manager);
    super.loadParameters(manager, is);
    closeWith(manager);
  }

  private void closeWith(NDManager manager) {
    if (!attached) {
      attached = true;
      manager.attachInternal(NDManager.nextUid(), this);
    }
  }

  /** Releases the native memory. Idempotent; the parameters are their model's. */
  @Override
  public synchronized void close() {
    if (closed) {
      return;
    }
    closed = true;
    free.forEach(NetworkFunction::close);
    free.clear();
    if (inference != null) {
      inference.close();
    }
    if (snapshot != null) {
      snapshot.close();
    }
    if (gradients != null) {
      gradients.manager().close();
    }
    if (ownsBackend && backend != null) {
      backend.close();
    }
  }
}
