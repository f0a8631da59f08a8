package io.jtrelu.pytorch;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.interop.KernelOrder;
import io.jtrelu.interop.SafeTensors;
import io.jtrelu.interop.SafeTensorsException;
import io.jtrelu.nn.BatchNormLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NetworkFormatException;
import io.jtrelu.nn.NetworkJson;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.SumLayer;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.PrintableText;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.AtomicFile;
import io.jtrelu.train.Model;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * A model's parameters as PyTorch has them, in a <a
 * href="https://github.com/huggingface/safetensors">safetensors</a> file.
 *
 * <p>Weights of a convolution are OIHW, [oc, ic / groups, kh, kw]; those of a {@linkplain
 * Conv2dDescriptor#isLinear fully connected layer} are [outputs, inputs]; biases are [oc]. All are
 * contiguous F32. A parameter is called as its layer (see {@link TensorNames}), then {@code
 * .weight} or {@code .bias}.
 *
 * <p>{@link #write} puts the model's description into the file and the Python module {@value
 * #MODULE} beside it, which builds the same network of it and loads the parameters strictly. It
 * needs nothing but torch (1.13 or later):
 *
 * <pre>{@code
 * network = jtrelu.load("model.safetensors")
 * probabilities = torch.softmax(network(network.normalize(images)), 1)
 * }</pre>
 *
 * <p>{@link #read} takes such files and any others whose tensors have the network's names and
 * shapes, of type F32, F16 or BF16.
 */
public final class PyTorchFile {
  /** Name of the Python module. */
  public static final String MODULE = "jtrelu.py";

  private static final String FIRST_LINE = "\"\"\"A network of JTReLU in PyTorch.";
  private static final String MODEL = "jtrelu.model";
  private static final String NAMES = "jtrelu.names";
  private static final int LISTED = 8;
  private static final ObjectMapper JSON = new ObjectMapper();

  private PyTorchFile() {}

  /** A parameter as the file has it. */
  private record Entry(ParameterSpec spec, String name, Shape shape) {}

  /**
   * Writes a model and the Python module beside it; each file is replaced as a whole.
   *
   * @param file to write, by custom with the suffix .safetensors
   * @param parameters of the model's network, in host memory
   * @throws IllegalArgumentException naming the layer, if the names have none for it or Python's
   *     module would not know its kind or function
   * @throws IOException if a file cannot be written
   */
  public static void write(Path file, Model model, Parameters parameters, TensorNames names)
      throws IOException {
    Network network = model.network();
    requireKnown(network);
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    Map<String, String> metadata = new TreeMap<>();
    try {
      List<Entry> entries = entries(network, names);
      for (int p = 0; p < entries.size(); p++) {
        Tensor values = parameters.view(p);
        if (!values.device().equals(Device.CPU)) {
          throw new IllegalArgumentException(
              "parameters are written from host memory, these lie on " + values.device());
        }
        Entry entry = entries.get(p);
        Tensor tensor = Tensor.allocate(entry.shape, DataType.F32, Layout.ROW_MAJOR);
        tensors.put(entry.name, tensor);
        float[] krsc = values.toFloatArray();
        tensor.set(isKernel(entry.spec) ? KernelOrder.toKcrs(krsc, entry.spec.shape()) : krsc);
      }
      metadata.put("format", "pt"); // as other readers of such files expect
      metadata.put(MODEL, model.toJson());
      if (names != TensorNames.JTRELU) {
        metadata.put(NAMES, JSON.writeValueAsString(renamed(network, names)));
      }
      AtomicFile.write(file, channel -> SafeTensors.write(channel, tensors, metadata));
    } finally {
      tensors.values().forEach(Tensor::close);
    }
    Path module = file.resolveSibling(MODULE);
    byte[] source = module();
    AtomicFile.write(module, channel -> channel.write(ByteBuffer.wrap(source)));
  }

  /** Whether a file is the Python module, of whatever version. */
  public static boolean isModule(Path file) throws IOException {
    try (InputStream in = Files.newInputStream(file)) {
      byte[] beginning = FIRST_LINE.getBytes(StandardCharsets.UTF_8);
      return Arrays.equals(beginning, in.readNBytes(beginning.length));
    }
  }

  private static byte[] module() throws IOException {
    try (InputStream in = PyTorchFile.class.getResourceAsStream(MODULE)) {
      if (in == null) {
        throw new IOException("this build lacks its resource " + MODULE);
      }
      return in.readAllBytes();
    }
  }

  /** Python's module is written for what the library itself brings. */
  private static void requireKnown(Network network) {
    for (ActivationFunction function : network.functions().values()) {
      if (!(function instanceof Activation)) {
        throw new IllegalArgumentException(
            "network "
                + network
                + ": "
                + MODULE
                + " does not know your function "
                + function.activationName()
                + "; put one of the library's in its place: "
                + String.join(", ", Activation.names()));
      }
    }
    for (Layer layer : network.layers()) {
      if (layer instanceof BatchNormLayer || layer instanceof SumLayer) {
        throw new IllegalArgumentException(
            "network "
                + network
                + ": "
                + MODULE
                + " has no layers of kind "
                + layer.kind()
                + " (layer "
                + layer.name()
                + "), which other frameworks have of their own; export ONNX");
      }
    }
    try {
      NetworkJson.read(NetworkJson.write(network));
    } catch (NetworkFormatException unknown) {
      throw new IllegalArgumentException(
          "network "
              + network
              + " has a layer of a kind of your own, which "
              + MODULE
              + " does not know: "
              + unknown.getMessage(),
          unknown);
    }
  }

  /** Names of layers that have others in the file. */
  private static Map<String, String> renamed(Network network, TensorNames names) {
    Map<String, String> renamed = new LinkedHashMap<>();
    for (ParameterSpec spec : network.parameters()) {
      String layer = network.layers().get(spec.layer()).name();
      renamed.put(layer, names.of(layer).orElseThrow());
    }
    return renamed;
  }

  private static List<Entry> entries(Network network, TensorNames names) {
    List<Entry> entries = new ArrayList<>();
    for (ParameterSpec spec : network.parameters()) {
      Layer layer = network.layers().get(spec.layer());
      String name =
          names
              .of(layer.name())
              .orElseThrow(
                  () ->
                      new IllegalArgumentException(
                          "network "
                              + network
                              + ": there is no name for layer "
                              + layer.name()
                              + " among those of "
                              + names
                              + ", which are for ResNets; use "
                              + TensorNames.JTRELU));
      boolean weights = spec.kind() == ParameterSpec.Kind.WEIGHTS;
      entries.add(new Entry(spec, name + (weights ? ".weight" : ".bias"), shape(layer, spec)));
    }
    return entries;
  }

  private static Shape shape(Layer layer, ParameterSpec spec) {
    Shape s = spec.shape();
    if (!isKernel(spec)) {
      return s;
    }
    return layer instanceof ConvolutionLayer convolution && convolution.descriptor().isLinear()
        ? Shape.of(s.dim(0), s.dim(3))
        : Shape.of(s.dim(0), s.dim(3), s.dim(1), s.dim(2));
  }

  /** Whether it is KRSC here and OIHW there. */
  private static boolean isKernel(ParameterSpec spec) {
    return spec.layout() == Layout.KRSC;
  }

  /**
   * The model that a file of {@link #write} describes, without its parameters.
   *
   * @throws IOException if the file cannot be read, or has no such description
   */
  public static Model model(Path file) throws IOException {
    try (SafeTensors tensors = SafeTensors.open(file)) {
      String json = tensors.metadata().get(MODEL);
      if (json == null) {
        throw new SafeTensorsException(
            file
                + " holds tensors, but no description of the network that they belong to; give a"
                + " model of the same network to read them into");
      }
      return Model.parse(json, file + ": the description in it");
    }
  }

  /**
   * Reads parameters, whichever of the {@link TensorNames} they have.
   *
   * @param parameters in host memory; the file must have each of them, and nothing else
   * @throws SafeTensorsException listing what is missing, what is not expected and what has another
   *     shape; nothing was changed then
   * @throws IOException if the file cannot be read
   */
  public static void read(Path file, Parameters parameters) throws IOException {
    try (SafeTensors tensors = SafeTensors.open(file)) {
      Network network = parameters.network();
      List<Entry> entries = entries(network, namesIn(tensors, network));
      requireSame(tensors, entries);
      List<float[]> values = new ArrayList<>();
      for (Entry entry : entries) {
        try (Tensor tensor = tensors.load(entry.name, Layout.ROW_MAJOR)) {
          float[] kcrs = tensor.toFloatArray();
          values.add(isKernel(entry.spec) ? KernelOrder.toKrsc(kcrs, entry.spec.shape()) : kcrs);
        }
      }
      for (int p = 0; p < entries.size(); p++) {
        parameters.view(p).set(values.get(p));
      }
    }
  }

  /** The names of which the file has the most. */
  private static TensorNames namesIn(SafeTensors tensors, Network network) {
    TensorNames best = TensorNames.JTRELU;
    int most = 0;
    for (TensorNames names : TensorNames.values()) {
      int found = 0;
      boolean all = true;
      for (ParameterSpec spec : network.parameters()) {
        String name = names.of(network.layers().get(spec.layer()).name()).orElse(null);
        all &= name != null;
        if (name != null && tensors.entries().containsKey(name + ".weight")) {
          found++;
        }
      }
      if (all && found > most) {
        best = names;
        most = found;
      }
    }
    return best;
  }

  private static void requireSame(SafeTensors tensors, List<Entry> entries) {
    Set<String> unexpected = new LinkedHashSet<>(tensors.entries().keySet());
    unexpected.addAll(tensors.others().keySet());
    List<String> differences = new ArrayList<>();
    for (Entry entry : entries) {
      SafeTensors.Entry there = tensors.entries().get(entry.name);
      if (there == null) {
        if (!unexpected.remove(entry.name)) {
          differences.add(entry.name + " is missing");
          continue;
        }
        differences.add(entry.name + " has a type that is not read");
      } else if (!unexpected.remove(entry.name) || !sameShape(entry, there.shape())) {
        differences.add(
            entry.name + " is " + there.shape() + " there and " + entry.shape + " here");
      } else if (there.type() == DataType.I32 || there.type() == DataType.U8) {
        differences.add(entry.name + " is of type " + there.type() + ", not a floating one");
      }
    }
    unexpected.forEach(name -> differences.add(PrintableText.quoted(name) + " is not expected"));
    if (!differences.isEmpty()) {
      int more = differences.size() - LISTED;
      throw new SafeTensorsException(
          tensors.file()
              + " does not hold the parameters of this network: "
              + String.join("; ", differences.subList(0, Math.min(LISTED, differences.size())))
              + (more > 0 ? "; and " + more + " more" : ""));
    }
  }

  /** A fully connected layer may be a convolution with a 1x1 kernel there, and the reverse. */
  private static boolean sameShape(Entry entry, Shape there) {
    if (there.equals(entry.shape)) {
      return true;
    }
    Shape mine = entry.shape;
    Shape shorter = mine.rank() < there.rank() ? mine : there;
    Shape longer = mine.rank() < there.rank() ? there : mine;
    return shorter.rank() == 2
        && longer.rank() == 4
        && longer.equals(Shape.of(shorter.dim(0), shorter.dim(1), 1, 1));
  }
}
