package io.jtrelu.pytorch;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.data.PerLocationNormalization;
import io.jtrelu.data.PerLocationNormalization.Homogeneous;
import io.jtrelu.interop.SafeTensors;
import io.jtrelu.interop.SafeTensorsException;
import io.jtrelu.nn.Initializer;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Tat;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.Model;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.io.TempDir;

@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class PyTorchFileTest {
  private static final int BATCH = 3;

  private Backend backend;

  @TempDir Path folder;

  @BeforeAll
  void open() {
    backend = Backends.open("cpu");
  }

  @AfterAll
  void close() {
    backend.close();
  }

  private static Model model(Network network, Homogeneous homogeneous) {
    Extent in = network.input();
    int appended = homogeneous == Homogeneous.NONE ? 0 : 1;
    double[] mean =
        IntStream.range(appended, in.channels()).mapToDouble(c -> 0.3 + 0.1 * c).toArray();
    double[] std =
        IntStream.range(appended, in.channels()).mapToDouble(c -> 0.2 + 0.05 * c).toArray();
    List<String> classes =
        IntStream.range(0, network.classes()).mapToObj(c -> "class " + c).toList();
    return new Model(
        network,
        classes,
        in.height(),
        in.width(),
        in.channels() - appended,
        new PerLocationNormalization(mean, std, homogeneous),
        null);
  }

  private static Network resnet(
      int depth, Networks.Block block, double w, int size, float dropout) {
    Networks.Options options = new Networks.Options("resnet" + depth, block, w, dropout);
    return Networks.build(options, new Extent(size, size, 4), 5).shape(Tat.eta(0.8));
  }

  private static Network chain(Activation function) {
    Network.Builder b = Network.builder("chain", 7, 6, 2);
    int x = b.input();
    for (int i = 0; i < 13; i++) {
      x = b.activation("act" + i, b.convolution("conv" + i, x, 5, 3, i == 3 ? 2 : 1), function);
    }
    b.linear("logits", b.globalMeanPool("pool", x), 4);
    Network network = b.build();
    return switch (function) {
      case LEAKY_RELU -> network.shape(Tat.eta(0.8));
      case SQUARE -> // which no method can shape
          network.with(new TransformedActivation(function, 0.3, 0.8, 0.9, -0.2, 0));
      default -> network.shape(new Dks());
    };
  }

  /** What the builders never make: groups, dilation, padding on one side, names within names. */
  private static Network odd() {
    Network.Builder b = Network.builder("odd", 9, 11, 4);
    int x = b.input();
    x =
        b.convolution(
            "a.b", x, new Conv2dDescriptor(1, 9, 11, 4, 6, 3, 5, 2, 1, 0, 1, 2, 3, 1, 1, 2));
    x = b.activation("act", x);
    Extent e = b.extent(x);
    x =
        b.convolution(
            "a",
            x,
            new Conv2dDescriptor(1, e.height(), e.width(), 6, 8, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2, 1));
    x = b.maxPool("max", b.activation("weight", x), 3, 2);
    x = b.globalMeanPool("pool", x);
    x = b.activation("hidden.act", b.linear("type", x, 7));
    // Not a fully connected layer, though its kernel and its images are 1x1.
    x =
        b.convolution(
            "padded", x, new Conv2dDescriptor(1, 1, 1, 7, 5, 1, 1, 1, 1, 1, 0, 1, 2, 1, 1, 1));
    b.linear("a.b.c", b.globalMeanPool("last", x), 3);
    return b.build().shape(Tat.eta(0.3));
  }

  private Parameters parameters(Network network) {
    Parameters parameters = Parameters.allocate(network, backend);
    Initializer.delta(5).fill(backend, parameters);
    Random random = new Random(2);
    for (int p = 0; p < network.parameters().size(); p++) {
      Tensor view = parameters.view(p); // biases too, and no zeros in the kernels
      float[] values = view.toFloatArray();
      for (int i = 0; i < values.length; i++) {
        values[i] += (float) (0.05 * random.nextGaussian());
      }
      view.set(values);
    }
    return parameters;
  }

  @Test
  void whatIsWrittenIsReadBack() throws IOException {
    for (TensorNames names : TensorNames.values()) {
      Model model = model(resnet(18, Networks.Block.V1, 0.6, 16, 0), Homogeneous.ONE);
      Path file = folder.resolve(names + ".safetensors");
      try (Parameters there = parameters(model.network());
          Parameters back = Parameters.allocate(model.network(), backend)) {
        PyTorchFile.write(file, model, there, names);
        Model read = PyTorchFile.model(file);
        assertEquals(model.toJson(), read.toJson());
        PyTorchFile.read(file, back);
        assertArrayEquals(there.arena().toFloatArray(), back.arena().toFloatArray());
      }
    }
    assertTrue(Files.isRegularFile(folder.resolve(PyTorchFile.MODULE)));
  }

  /** The published names of torchvision's resnet18, of its convolutions and its classifier. */
  @Test
  void namesOfTimmAreThoseOfItsResnets() throws IOException {
    TreeSet<String> expected = new TreeSet<>(List.of("conv1", "fc"));
    for (int layer = 1; layer <= 4; layer++) {
      for (int block = 0; block < 2; block++) {
        expected.add("layer" + layer + "." + block + ".conv1");
        expected.add("layer" + layer + "." + block + ".conv2");
      }
      if (layer > 1) {
        expected.add("layer" + layer + ".0.downsample.0");
      }
    }
    Model model = model(resnet(18, Networks.Block.V1, 0.6, 16, 0), Homogeneous.ONE);
    Path file = folder.resolve("timm.safetensors");
    try (Parameters parameters = parameters(model.network())) {
      PyTorchFile.write(file, model, parameters, TensorNames.TIMM);
    }
    try (SafeTensors tensors = SafeTensors.open(file)) {
      TreeSet<String> names = new TreeSet<>();
      tensors
          .entries()
          .keySet()
          .forEach(name -> names.add(name.replaceFirst("\\.(weight|bias)$", "")));
      assertEquals(expected, names);
      assertEquals(Shape.of(64, 4, 3, 3), tensors.entries().get("conv1.weight").shape());
      assertEquals(Shape.of(5, 512), tensors.entries().get("fc.weight").shape());
    }
  }

  @Test
  void valuesLieWherePyTorchExpectsThem() throws IOException {
    Network.Builder b = Network.builder("one", 4, 4, 3);
    b.linear("head", b.globalMeanPool("pool", b.convolution("conv", b.input(), 2, 3, 1)), 2);
    Model model = model(b.build(), Homogeneous.ONE);
    Path file = folder.resolve("one.safetensors");
    try (Parameters parameters = Parameters.allocate(model.network(), backend)) {
      Tensor krsc = parameters.view(0);
      assertEquals(Shape.of(2, 3, 3, 3), krsc.shape());
      for (int k = 0; k < 2; k++) {
        for (int r = 0; r < 3; r++) {
          for (int s = 0; s < 3; s++) {
            for (int c = 0; c < 3; c++) {
              krsc.put(((k * 3 + r) * 3 + s) * 3 + c, 1000 * k + 100 * r + 10 * s + c);
            }
          }
        }
      }
      PyTorchFile.write(file, model, parameters, TensorNames.JTRELU);
    }
    try (SafeTensors tensors = SafeTensors.open(file);
        Tensor oihw = tensors.load("conv.weight", Layout.ROW_MAJOR)) {
      assertEquals(Shape.of(2, 3, 3, 3), oihw.shape());
      assertEquals(1021, oihw.get(((1 * 3 + 1) * 3 + 0) * 3 + 2)); // k 1, c 1, r 0, s 2
      assertEquals(202, oihw.get(((0 * 3 + 2) * 3 + 2) * 3 + 0)); // k 0, c 2, r 2, s 0
    }
  }

  @Test
  void foreignFilesAreReadStrictly() throws IOException {
    Network.Builder b = Network.builder("one", 4, 4, 3);
    b.linear("head", b.globalMeanPool("pool", b.convolution("conv", b.input(), 2, 1, 1)), 2);
    Network network = b.build();
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    try (Parameters parameters = Parameters.allocate(network, backend)) {
      tensors.put("conv.weight", filled(DataType.F16, 2, 3, 1, 1));
      tensors.put("conv.bias", filled(DataType.F32, 2));
      tensors.put("head.weight", filled(DataType.BF16, 2, 2, 1, 1)); // timm's are so, at times
      tensors.put("head.bias", filled(DataType.F32, 2));
      Path good = written("good", tensors);
      PyTorchFile.read(good, parameters);
      assertArrayEquals(
          new float[] {1, 2, 3, 4, 5, 6}, parameters.view(0).toFloatArray()); // 1x1: as it was
      assertThrows(SafeTensorsException.class, () -> PyTorchFile.model(good));

      tensors.put("bn.running_mean", filled(DataType.F32, 2));
      tensors.remove("conv.bias").close();
      tensors.put("head.bias", filled(DataType.F32, 3));
      Path wrong = written("wrong", tensors);
      parameters.view(2).set(new float[] {7, 8});
      String message =
          assertThrows(SafeTensorsException.class, () -> PyTorchFile.read(wrong, parameters))
              .getMessage();
      assertTrue(message.contains("conv.bias is missing"), message);
      assertTrue(message.contains("head.bias is [3] there and [2] here"), message);
      assertTrue(message.contains("bn.running_mean"), message);
      assertArrayEquals(new float[] {7, 8}, parameters.view(2).toFloatArray());
    } finally {
      tensors.values().forEach(Tensor::close);
    }
  }

  private static Tensor filled(DataType type, int... dims) {
    Tensor tensor = Tensor.allocate(Shape.of(dims), type, Layout.ROW_MAJOR);
    for (int i = 0; i < tensor.shape().elements(); i++) {
      tensor.put(i, i + 1);
    }
    return tensor;
  }

  private Path written(String name, Map<String, Tensor> tensors) throws IOException {
    Path file = folder.resolve(name + ".safetensors");
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
      SafeTensors.write(channel, tensors, Map.of());
    }
    return file;
  }

  @Test
  void whatPythonWouldNotKnowIsRefused() {
    Model chain = model(chain(Activation.LEAKY_RELU), Homogeneous.ONE);
    Path file = folder.resolve("refused.safetensors");
    try (Parameters parameters = parameters(chain.network())) {
      String message =
          assertThrows(
                  IllegalArgumentException.class,
                  () -> PyTorchFile.write(file, chain, parameters, TensorNames.TIMM))
              .getMessage();
      assertTrue(message.contains("conv0"), message);
      Network own =
          chain
              .network()
              .with(ActivationFunction.of("mine", Math::sin, Math::cos, x -> -Math.sin(x)));
      Model custom = model(own, Homogeneous.ONE);
      message =
          assertThrows(
                  IllegalArgumentException.class,
                  () -> PyTorchFile.write(file, custom, parameters, TensorNames.JTRELU))
              .getMessage();
      assertTrue(message.contains("mine"), message);
    }
    assertTrue(Files.notExists(file));
  }

  /** PyTorch, where it is installed (Debian: python3-torch), is the judge. */
  @Test
  void pyTorchComputesTheSameLogitsAndGradients() throws Exception {
    Optional<String> python = pythonWithTorch();
    assumeTrue(
        python.isPresent(), "python3 with torch is not installed: apt install python3-torch");
    Map<String, Model> models = new LinkedHashMap<>();
    for (Activation function : Activation.values()) {
      models.put(function.name(), model(chain(function), Homogeneous.ONE));
    }
    models.put("v1", model(resnet(18, Networks.Block.V1, 0.6, 8, 0), Homogeneous.IMAGE_RMS));
    models.put("v2", model(resnet(50, Networks.Block.V2, 0.4, 4, 0), Homogeneous.ONE));
    models.put("dropout", model(resnet(18, Networks.Block.V1, 0, 8, 0.5f), Homogeneous.ONE));
    models.put("odd", model(odd(), Homogeneous.IMAGE_RMS));
    models.put("standardised", model(chain(Activation.TANH), Homogeneous.NONE));
    List<String> command = new ArrayList<>(List.of(python.get(), script().toString()));
    Map<String, float[]> logits = new LinkedHashMap<>();
    Map<String, float[]> gradients = new LinkedHashMap<>();
    Map<String, float[]> normalized = new LinkedHashMap<>();
    for (Map.Entry<String, Model> entry : models.entrySet()) {
      Path here = Files.createDirectory(folder.resolve(entry.getKey()));
      command.add(here.toString());
      Model model = entry.getValue();
      boolean timm = entry.getKey().equals("v1");
      try (Parameters parameters = parameters(model.network());
          Tensor images = images(model.network().input())) {
        PyTorchFile.write(
            here.resolve("model.safetensors"),
            model,
            parameters,
            timm ? TensorNames.TIMM : TensorNames.JTRELU);
        Files.write(here.resolve("images"), bytes(images.toFloatArray()));
        Files.writeString(here.resolve("names"), String.join("\n", names(model, timm)));
        normalized.put(entry.getKey(), normalized(model, here));
        step(model.network(), parameters, images, entry.getKey(), logits, gradients);
      }
    }
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertTrue(process.waitFor(5, TimeUnit.MINUTES), output);
    assertEquals(0, process.exitValue(), output);
    assertEquals(models.size() - 1, gradients.size());
    for (String name : models.keySet()) {
      Path here = folder.resolve(name);
      requireClose(name + " logits", logits.get(name), floats(here.resolve("logits")), 1e-4);
      requireClose(name + " input", normalized.get(name), floats(here.resolve("normalized")), 1e-5);
      if (gradients.containsKey(name)) {
        requireClose(
            name + " gradients", gradients.get(name), floats(here.resolve("gradients")), 1e-3);
      }
    }
  }

  private static Optional<String> pythonWithTorch() throws Exception {
    for (String python : List.of("python3", "/usr/bin/python3")) {
      try {
        Process process =
            new ProcessBuilder(python, "-c", "import torch").redirectErrorStream(true).start();
        process.getInputStream().readAllBytes();
        if (process.waitFor() == 0) {
          return Optional.of(python);
        }
      } catch (IOException absent) {
        // the next, then
      }
    }
    return Optional.empty();
  }

  private Path script() throws IOException {
    try (var in = PyTorchFileTest.class.getResourceAsStream("step.py")) {
      return Files.write(folder.resolve("step.py"), in.readAllBytes());
    }
  }

  private static List<String> names(Model model, boolean timm) {
    List<String> names = new ArrayList<>();
    for (ParameterSpec spec : model.network().parameters()) {
      String layer = model.network().layers().get(spec.layer()).name();
      String name = timm ? TensorNames.TIMM.of(layer).orElseThrow() : layer;
      names.add(name + (spec.kind() == ParameterSpec.Kind.WEIGHTS ? ".weight" : ".bias"));
    }
    return names;
  }

  private static Tensor images(Extent in) {
    Tensor images = Tensor.allocate(in.batch(BATCH), DataType.F32, Layout.NHWC);
    Random random = new Random(11);
    float[] values = new float[(int) images.shape().elements()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    images.set(values);
    return images;
  }

  /** Random bytes, one image all zero, and what they become, NCHW. */
  private static float[] normalized(Model model, Path here) throws IOException {
    int channels = model.channels();
    Shape shape = Shape.of(2, model.height(), model.width(), channels);
    byte[] raw = new byte[(int) shape.elements()];
    new Random(3).nextBytes(raw);
    Files.write(here.resolve("bytes"), raw);
    Extent in = model.network().input();
    try (Tensor src = Tensor.allocate(shape, DataType.U8, Layout.NHWC);
        Tensor dst = Tensor.allocate(in.batch(2), DataType.F32, Layout.NHWC)) {
      src.segment().asByteBuffer().put(raw);
      model.normalization().apply(src, dst);
      float[] nhwc = dst.toFloatArray();
      float[] nchw = new float[nhwc.length];
      int locations = in.height() * in.width();
      for (int i = 0; i < nhwc.length; i++) {
        int image = i / (locations * in.channels());
        int location = i / in.channels() % locations;
        nchw[(image * in.channels() + i % in.channels()) * locations + location] = nhwc[i];
      }
      return nchw;
    }
  }

  /** The same step here; gradients in the order and layout of the file. */
  private void step(
      Network network,
      Parameters parameters,
      Tensor images,
      String name,
      Map<String, float[]> logits,
      Map<String, float[]> gradients)
      throws IOException {
    boolean still = network.layers().stream().noneMatch(layer -> layer.kind().equals("dropout"));
    Program.Options options = new Program.Options(DataType.F32, 0, still, 1);
    try (Program program = new Program(network, backend, BATCH, options);
        Stream stream = backend.newStream();
        Program.Workspace workspace = program.newWorkspace(stream);
        Parameters result = Parameters.allocate(network, backend);
        Tensor labels = Tensor.allocate(Shape.of(BATCH), DataType.I32, Layout.ROW_MAJOR)) {
      for (int i = 0; i < BATCH; i++) {
        labels.put(i, i % network.classes());
      }
      program.load(stream, parameters);
      logits.put(name, workspace.forward(images, 1).toFloatArray());
      if (!still) {
        return; // the module is loaded in evaluation mode
      }
      workspace.loss(labels, 1f / BATCH);
      workspace.backward(result, Write.OVERWRITE);
      Path file = folder.resolve("gradients.safetensors");
      PyTorchFile.write(file, model(network, Homogeneous.ONE), result, TensorNames.JTRELU);
      List<Float> all = new ArrayList<>();
      try (SafeTensors tensors = SafeTensors.open(file)) {
        for (String parameter : names(model(network, Homogeneous.ONE), false)) {
          try (Tensor tensor = tensors.load(parameter, Layout.ROW_MAJOR)) {
            for (float value : tensor.toFloatArray()) {
              all.add(value);
            }
          }
        }
      }
      float[] flat = new float[all.size()];
      for (int i = 0; i < flat.length; i++) {
        flat[i] = all.get(i);
      }
      gradients.put(name, flat);
    }
  }

  private static byte[] bytes(float[] values) {
    ByteBuffer buffer =
        ByteBuffer.allocate(values.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    for (float value : values) {
      buffer.putFloat(value);
    }
    return buffer.array();
  }

  private static float[] floats(Path file) throws IOException {
    ByteBuffer buffer = ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
    float[] values = new float[buffer.remaining() / Float.BYTES];
    buffer.asFloatBuffer().get(values);
    return values;
  }

  private static void requireClose(String what, float[] ours, float[] theirs, double bound) {
    assertEquals(ours.length, theirs.length, what);
    double largest = 0;
    for (float value : theirs) {
      largest = Math.max(largest, Math.abs(value));
    }
    assertTrue(largest > 0, what + " are all zero");
    for (int i = 0; i < ours.length; i++) {
      double difference = Math.abs((double) ours[i] - theirs[i]);
      if (!(difference <= bound * largest)) {
        throw new AssertionError(
            what + " " + i + ": " + ours[i] + " here, " + theirs[i] + " by PyTorch");
      }
    }
  }
}
