package io.jtrelu.onnx;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.InvalidProtocolBufferException;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.interop.KernelOrder;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.NetworkFormatException;
import io.jtrelu.nn.NetworkJson;
import io.jtrelu.onnx.OnnxExporter.Options;
import io.jtrelu.onnx.schema.GraphProto;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.OperatorSetIdProto;
import io.jtrelu.onnx.schema.StringStringEntryProto;
import io.jtrelu.onnx.schema.TensorProto;
import io.jtrelu.train.Model;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Reads networks from ONNX models.
 *
 * <p>What {@link OnnxExporter} wrote comes back as it was: the network of the metadata, with the
 * scales of rectifiers taken out of the weights again; exported once more it gives the same bytes.
 *
 * <p>Of others plain convolutional networks are read, with one input float32 [N, c, h, w] of a
 * fixed size: Conv, Gemm, MatMul, Relu, LeakyRelu and the activations of {@link
 * io.jtrelu.activation.Activation}, Mul and Add with constants, Add of two values, MaxPool,
 * GlobalAveragePool, ReduceMean, Flatten, Reshape to a vector, BatchNormalization, Dropout,
 * Identity. Constants move into weights, rectifiers and sums where they can. Rectifiers have the
 * scale 1, or what a Mul gave them: whatever scale the network was made with is in its weights.
 * Anything else is refused, with the node's name.
 */
public final class OnnxImporter {
  /** Below, operators differ in ways that are not read. */
  private static final int MIN_OPSET = 7;

  private OnnxImporter() {}

  /**
   * Reads a model. The caller closes the result.
   *
   * @throws OnnxException naming the file, and the node or value where there is one, if it is
   *     damaged, no ONNX model, or holds what cannot be read
   * @throws IOException if the file cannot be read
   */
  public static ImportedNetwork read(Path file) throws IOException {
    long bytes = Files.size(file);
    if (bytes > Integer.MAX_VALUE - 8) {
      throw new OnnxException(file + ": " + bytes + " bytes are more than an ONNX file holds");
    }
    try {
      return read(Files.readAllBytes(file), networkName(file));
    } catch (OnnxException | IllegalArgumentException | IllegalStateException refused) {
      throw new OnnxException(file + ": " + refused.getMessage(), refused);
    }
  }

  private static String networkName(Path file) {
    String name = String.valueOf(file.getFileName());
    return name.endsWith(".onnx") ? name.substring(0, name.length() - ".onnx".length()) : name;
  }

  private static ImportedNetwork read(byte[] bytes, String name) {
    ModelProto proto;
    try {
      proto = ModelProto.parseFrom(bytes);
    } catch (InvalidProtocolBufferException damaged) {
      throw new OnnxException(
          "this is no ONNX model, or it is damaged: " + damaged.getMessage(), damaged);
    }
    if (!proto.hasGraph() || proto.getOpsetImportCount() == 0) {
      throw new OnnxException("this is no ONNX model: it has no graph or no version of operators");
    }
    long opset = 0;
    for (OperatorSetIdProto set : proto.getOpsetImportList()) {
      if (set.getDomain().isEmpty() || set.getDomain().equals("ai.onnx")) {
        opset = set.getVersion();
      }
    }
    if (opset < MIN_OPSET) {
      throw new OnnxException(
          "operators of opset "
              + opset
              + " are not read; convert the model to "
              + MIN_OPSET
              + " or later (onnx.version_converter)");
    }
    Map<String, String> metadata = new HashMap<>();
    for (StringStringEntryProto entry : proto.getMetadataPropsList()) {
      metadata.put(entry.getKey(), entry.getValue());
    }
    Model model = model(metadata);
    Network network = model != null ? model.network() : network(metadata);
    List<String> notes = new ArrayList<>();
    if (network != null) {
      List<float[]> values = restored(network, model, proto.getGraph(), opset);
      if (values != null) {
        return new ImportedNetwork(network, model, values, notes);
      }
      notes.add(
          "the file was changed after it was exported, or by another version: it is read as anybody's,"
              + " with scales of rectifiers left in the weights");
    }
    GraphReader.Result result = GraphReader.read(proto.getGraph(), name);
    notes.addAll(result.notes());
    return new ImportedNetwork(
        result.network(),
        model == null ? null : like(model, result.network()),
        result.parameters(),
        notes);
  }

  private static @Nullable Model model(Map<String, String> metadata) {
    String json = metadata.get(OnnxExporter.MODEL);
    if (json == null) {
      return null;
    }
    try {
      return Model.parse(json, "the metadata's " + OnnxExporter.MODEL);
    } catch (IOException malformed) {
      throw new OnnxException(String.valueOf(malformed.getMessage()), malformed);
    }
  }

  private static @Nullable Network network(Map<String, String> metadata) {
    String json = metadata.get(OnnxExporter.NETWORK);
    if (json == null) {
      return null;
    }
    try {
      return NetworkJson.read(new ObjectMapper().readTree(json));
    } catch (JsonProcessingException | NetworkFormatException malformed) {
      throw new OnnxException(
          "the metadata's " + OnnxExporter.NETWORK + " cannot be read: " + malformed.getMessage(),
          malformed);
    }
  }

  /** A model with another network, where they fit. */
  private static @Nullable Model like(Model model, Network network) {
    try {
      return new Model(
          network,
          model.classes(),
          model.height(),
          model.width(),
          model.channels(),
          model.normalization(),
          null);
    } catch (IllegalArgumentException doesNotFit) {
      return null;
    }
  }

  /** The parameters with which the exporter writes just this graph; null if there are none. */
  private static @Nullable List<float[]> restored(
      Network network, @Nullable Model model, GraphProto graph, long opset) {
    if (opset < Options.MIN_OPSET || opset > Options.MAX_OPSET) {
      return null;
    }
    Map<String, TensorProto> tensors = new HashMap<>();
    graph.getInitializerList().forEach(tensor -> tensors.put(tensor.getName(), tensor));
    Folding folding = new Folding(network);
    List<float[]> values = new ArrayList<>();
    for (ParameterSpec spec : network.parameters()) {
      TensorProto tensor = tensors.get(spec.name());
      float[] original =
          tensor == null || !(network.layers().get(spec.layer()) instanceof ConvolutionLayer layer)
              ? null
              : original(folding, spec, layer.descriptor(), tensor);
      if (original == null) {
        return null;
      }
      values.add(original);
    }
    boolean bytes =
        graph.getInputCount() == 1
            && graph.getInput(0).getType().getTensorType().getElemType()
                == TensorProto.DataType.UINT8.getNumber();
    if (bytes && model == null) {
      return null;
    }
    OnnxModel again =
        OnnxExporter.export(network, model, values::get, new Options((int) opset, bytes));
    return again.proto().getGraph().equals(graph) ? values : null;
  }

  private static float @Nullable [] original(
      Folding folding, ParameterSpec spec, Conv2dDescriptor d, TensorProto tensor) {
    boolean isBias = spec.kind() == ParameterSpec.Kind.BIAS;
    long[] dims =
        isBias
            ? new long[] {d.oc()}
            : d.isLinear()
                ? new long[] {d.oc(), d.ic()}
                : new long[] {d.oc(), d.ic() / d.groups(), d.kh(), d.kw()};
    if (!Arrays.equals(dims, TensorReader.dims(tensor))) {
      return null;
    }
    float[] file;
    try {
      file = TensorReader.floats(tensor);
    } catch (IllegalArgumentException malformed) {
      throw new OnnxException("tensor " + tensor.getName() + " " + malformed.getMessage());
    }
    if (!isBias) {
      file = KernelOrder.toKrsc(file, d.weights());
    }
    int node = spec.layer();
    float[] values = new float[file.length];
    for (int i = 0; i < file.length; i++) {
      float nearest =
          (float)
              (isBias
                  ? folding.originalBias(node, file[i])
                  : folding.originalWeight(node, file[i]));
      values[i] = nearest;
      // A neighbour, where this does not round to what is in the file.
      for (float candidate : new float[] {nearest, Math.nextUp(nearest), Math.nextDown(nearest)}) {
        float again = isBias ? folding.bias(node, candidate) : folding.weight(node, candidate);
        if (again == file[i]) {
          values[i] = candidate;
          break;
        }
      }
    }
    return values;
  }
}
