package io.jtrelu.onnx;

import com.google.protobuf.CodedOutputStream;
import io.jtrelu.onnx.schema.ModelProto;
import io.jtrelu.onnx.schema.TensorProto;
import io.jtrelu.onnx.schema.TensorShapeProto;
import io.jtrelu.onnx.schema.ValueInfoProto;
import io.jtrelu.train.AtomicFile;
import java.io.IOException;
import java.nio.channels.Channels;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;

/** An ONNX model in memory, as it goes into a file. Immutable. */
public final class OnnxModel {
  private final ModelProto proto;

  OnnxModel(ModelProto proto) {
    this.proto = proto;
  }

  ModelProto proto() {
    return proto;
  }

  /** Bytes of the file. */
  public long bytes() {
    return proto.getSerializedSize();
  }

  /** Its inputs, such as {@code images float32[N, 3, 32, 32]}. */
  public List<String> inputs() {
    return proto.getGraph().getInputList().stream().map(OnnxModel::text).toList();
  }

  /** Its outputs, such as {@code logits float32[N, 10]}. */
  public List<String> outputs() {
    return proto.getGraph().getOutputList().stream().map(OnnxModel::text).toList();
  }

  private static String text(ValueInfoProto port) {
    String type =
        port.getType().getTensorType().getElemType() == TensorProto.DataType.UINT8.getNumber()
            ? "uint8"
            : "float32";
    return port.getName()
        + " "
        + type
        + port.getType().getTensorType().getShape().getDimList().stream()
            .map(OnnxModel::text)
            .collect(Collectors.joining(", ", "[", "]"));
  }

  private static String text(TensorShapeProto.Dimension dim) {
    return dim.hasDimParam() ? dim.getDimParam() : Long.toString(dim.getDimValue());
  }

  /** The file's contents. Equal networks, parameters and options give equal bytes. */
  public byte[] toByteArray() {
    return proto.toByteArray();
  }

  /**
   * Writes the file, whole or not at all.
   *
   * @throws IOException naming the file and the cause
   */
  public void write(Path file) throws IOException {
    AtomicFile.write(
        file,
        channel -> {
          CodedOutputStream out =
              CodedOutputStream.newInstance(Channels.newOutputStream(channel), 1 << 16);
          proto.writeTo(out);
          out.flush();
        });
  }
}
