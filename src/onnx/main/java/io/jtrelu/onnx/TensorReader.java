package io.jtrelu.onnx;

import io.jtrelu.onnx.schema.TensorProto;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Values of tensors in a file. Nothing is allocated that the file does not hold: sizes that it
 * announces are compared with the bytes that are there.
 */
final class TensorReader {
  private TensorReader() {}

  /** The extents. */
  static long[] dims(TensorProto tensor) {
    return tensor.getDimsList().stream().mapToLong(Long::longValue).toArray();
  }

  /**
   * The values of a tensor of float or double.
   *
   * @throws IllegalArgumentException saying what is wrong with it
   */
  static float[] floats(TensorProto tensor) {
    int count = count(tensor);
    float[] values = new float[count];
    if (tensor.getDataType() == TensorProto.DataType.FLOAT.getNumber()) {
      if (tensor.hasRawData()) {
        raw(tensor, Float.BYTES).asFloatBuffer().get(values);
      } else {
        for (int i = 0; i < count; i++) {
          values[i] = tensor.getFloatData(i);
        }
      }
    } else if (tensor.getDataType() == TensorProto.DataType.DOUBLE.getNumber()) {
      ByteBuffer raw = tensor.hasRawData() ? raw(tensor, Double.BYTES) : null;
      for (int i = 0; i < count; i++) {
        values[i] = (float) (raw == null ? tensor.getDoubleData(i) : raw.getDouble());
      }
    } else {
      throw new IllegalArgumentException(
          "is of " + type(tensor) + "; float32 is expected (convert the model to float32)");
    }
    for (float value : values) {
      if (!Float.isFinite(value)) {
        throw new IllegalArgumentException("holds a value that is not finite");
      }
    }
    return values;
  }

  /**
   * The values of a tensor of int64 or int32.
   *
   * @throws IllegalArgumentException saying what is wrong with it
   */
  static long[] integers(TensorProto tensor) {
    int count = count(tensor);
    long[] values = new long[count];
    boolean wide = tensor.getDataType() == TensorProto.DataType.INT64.getNumber();
    if (!wide && tensor.getDataType() != TensorProto.DataType.INT32.getNumber()) {
      throw new IllegalArgumentException("is of " + type(tensor) + "; int64 is expected");
    }
    ByteBuffer raw = tensor.hasRawData() ? raw(tensor, wide ? Long.BYTES : Integer.BYTES) : null;
    for (int i = 0; i < count; i++) {
      values[i] =
          raw == null
              ? (wide ? tensor.getInt64Data(i) : tensor.getInt32Data(i))
              : (wide ? raw.getLong() : raw.getInt());
    }
    return values;
  }

  private static ByteBuffer raw(TensorProto tensor, int size) {
    ByteBuffer raw = tensor.getRawData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    assert raw.remaining() % size == 0;
    return raw;
  }

  private static String type(TensorProto tensor) {
    TensorProto.DataType known = TensorProto.DataType.forNumber(tensor.getDataType());
    return known == null ? "ONNX's type " + tensor.getDataType() : known.name();
  }

  /** Number of values, which are all there. */
  private static int count(TensorProto tensor) {
    if (tensor.getDataLocation() == TensorProto.DataLocation.EXTERNAL) {
      throw new IllegalArgumentException(
          "lies in another file; save the model with its weights inside");
    }
    long count = 1;
    for (long dim : tensor.getDimsList()) {
      if (dim < 0 || (dim > 0 && count > Integer.MAX_VALUE / dim)) {
        throw new IllegalArgumentException("has extents " + tensor.getDimsList());
      }
      count *= dim;
    }
    long there;
    TensorProto.DataType type = TensorProto.DataType.forNumber(tensor.getDataType());
    if (tensor.hasRawData()) {
      int size = type == TensorProto.DataType.DOUBLE || type == TensorProto.DataType.INT64 ? 8 : 4;
      int bytes = tensor.getRawData().size();
      there = bytes % size == 0 ? bytes / size : -1;
    } else if (type == null) {
      there = count; // refused by its type
    } else {
      there =
          switch (type) {
            case FLOAT -> tensor.getFloatDataCount();
            case DOUBLE -> tensor.getDoubleDataCount();
            case INT32 -> tensor.getInt32DataCount();
            case INT64 -> tensor.getInt64DataCount();
            default -> count; // likewise
          };
    }
    if (there != count) {
      throw new IllegalArgumentException(
          "has extents "
              + tensor.getDimsList()
              + ", but not as many values: the file is damaged or cut short");
    }
    return (int) count;
  }
}
