package io.jtrelu.spark;

import io.jtrelu.data.ImageDecoder;
import java.awt.image.BufferedImage;
import java.awt.image.DataBufferByte;
import java.io.Serializable;
import java.util.Arrays;
import org.apache.spark.ml.image.ImageSchema;
import org.apache.spark.ml.linalg.SQLDataTypes;
import org.apache.spark.ml.linalg.Vector;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.BinaryType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.NumericType;
import org.apache.spark.sql.types.StructType;
import org.jspecify.annotations.Nullable;
import scala.collection.Seq;
import scala.jdk.javaapi.CollectionConverters;

/**
 * Reads images of one size from a column:
 *
 * <ul>
 *   <li>binary: the content of a PNG or JPEG file, or pixels [height, width, channels]
 *   <li>an array or a vector of as many numbers: pixels, whole numbers from 0 to 255
 *   <li>the struct of Spark's data source {@code image}
 * </ul>
 *
 * Files and structs are brought to the size as {@link ImageDecoder} does it.
 *
 * @param column name, for messages
 */
record Images(String column, int height, int width, int channels) implements Serializable {
  private static final byte[] PNG = {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  private static final byte[] JPEG = {(byte) 0xff, (byte) 0xd8, (byte) 0xff};

  /** Refuses a column that holds something else. */
  static void requireType(String column, DataType type) {
    boolean known =
        type instanceof BinaryType
            || (type instanceof ArrayType array && array.elementType() instanceof NumericType)
            || type.equals(SQLDataTypes.VectorType())
            || isStruct(type);
    if (!known) {
      throw new IllegalArgumentException(
          "column "
              + column
              + " must hold images, as binary (PNG, JPEG or pixels), an array or vector of numbers,"
              + " or the struct of the data source image; it is "
              + type.catalogString());
    }
  }

  static boolean isStruct(DataType type) {
    return type instanceof StructType struct
        && Arrays.asList(struct.fieldNames()).containsAll(Arrays.asList(ImageSchema.imageFields()));
  }

  /** Pixels [height, width, channels] of the image in a row. */
  byte[] pixels(Row row, int index) {
    @Nullable Object value = row.get(index);
    return switch (value) {
      case byte[] bytes -> ofBytes(bytes);
      case Vector vector -> ofNumbers(vector.toArray());
      case Seq<?> numbers ->
          ofNumbers(
              CollectionConverters.asJava(numbers).stream()
                  .mapToDouble(number -> number(number))
                  .toArray());
      case Row image -> ofStruct(image);
      case null -> throw problem("a row has none");
      default -> throw problem("it holds " + value.getClass().getName());
    };
  }

  private IllegalArgumentException problem(String what) {
    return new IllegalArgumentException("column " + column + " must hold images: " + what);
  }

  private double number(@Nullable Object value) {
    if (value instanceof Byte signed) {
      return signed & 0xff; // bytes have signs in Java only
    }
    if (value instanceof Number number) {
      return number.doubleValue();
    }
    throw problem("an array with " + value);
  }

  private byte[] ofBytes(byte[] bytes) {
    if (beginsWith(PNG, bytes) || beginsWith(JPEG, bytes)) {
      return decoder().decode(bytes, "a file in column " + column);
    }
    requireLength(bytes.length, "bytes that are no PNG or JPEG file");
    return bytes;
  }

  private static boolean beginsWith(byte[] head, byte[] bytes) {
    return bytes.length >= head.length
        && Arrays.equals(head, 0, head.length, bytes, 0, head.length);
  }

  private ImageDecoder decoder() {
    return ImageDecoder.of(height, width, channels);
  }

  private void requireLength(int length, String what) {
    if (length != (long) height * width * channels) {
      throw problem(
          length
              + " "
              + what
              + ", but pixels of "
              + height
              + "x"
              + width
              + "x"
              + channels
              + " would be "
              + (long) height * width * channels
              + " (imageHeight, imageWidth, imageChannels)");
    }
  }

  private byte[] ofNumbers(double[] numbers) {
    requireLength(numbers.length, "numbers");
    byte[] pixels = new byte[numbers.length];
    for (int i = 0; i < pixels.length; i++) {
      int value = (int) numbers[i];
      if (value != numbers[i] || value < 0 || value > 255) {
        throw problem("pixels are whole numbers from 0 to 255, got " + numbers[i]);
      }
      pixels[i] = (byte) value;
    }
    return pixels;
  }

  /** Rows from the top, blue, green, red (and alpha, which is left out). */
  private byte[] ofStruct(Row image) {
    int rows = ImageSchema.getHeight(image);
    int columns = ImageSchema.getWidth(image);
    int samples = ImageSchema.getNChannels(image);
    byte[] data = ImageSchema.getData(image);
    if (rows < 1
        || columns < 1
        || (samples != 1 && samples != 3 && samples != 4)
        || data.length != (long) rows * columns * samples) {
      throw problem(
          "image "
              + ImageSchema.getOrigin(image)
              + " could not be read, or has no 8-bit samples (mode "
              + ImageSchema.getMode(image)
              + ")");
    }
    BufferedImage picture =
        new BufferedImage(
            columns,
            rows,
            samples == 1 ? BufferedImage.TYPE_BYTE_GRAY : BufferedImage.TYPE_3BYTE_BGR);
    byte[] to = ((DataBufferByte) picture.getRaster().getDataBuffer()).getData();
    int kept = Math.min(samples, 3);
    for (int i = 0; i < to.length; i++) {
      to[i] = data[i / kept * samples + i % kept];
    }
    return decoder().decode(picture);
  }
}
