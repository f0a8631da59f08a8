package io.jtrelu.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.List;
import javax.imageio.ImageIO;
import org.apache.spark.ml.image.ImageSchema;
import org.apache.spark.ml.linalg.SQLDataTypes;
import org.apache.spark.ml.linalg.Vectors;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.types.DataTypes;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import scala.jdk.javaapi.CollectionConverters;

/** One picture of 1x2 pixels in all the forms that a column may have. */
class ImagesTest {
  private static final Images IMAGES = new Images("x", 1, 2, 3);
  private static final byte[] PIXELS = {1, 2, 3, (byte) 254, (byte) 128, 5};

  private static byte[] read(@Nullable Object value) {
    return IMAGES.pixels(RowFactory.create("before", value), 1);
  }

  private static Object sequence(Object... values) {
    return CollectionConverters.asScala(List.of(values)).toSeq();
  }

  @Test
  void pixelsAreNumbersInAnyForm() {
    assertArrayEquals(PIXELS, read(PIXELS));
    assertArrayEquals(PIXELS, read(sequence(1, 2, 3, 254, 128, 5)));
    assertArrayEquals(PIXELS, read(sequence(1.0, 2.0, 3.0, 254.0, 128.0, 5.0)));
    byte[] b = PIXELS;
    assertArrayEquals(PIXELS, read(sequence(b[0], b[1], b[2], b[3], b[4], b[5])));
    assertArrayEquals(PIXELS, read(Vectors.dense(new double[] {1, 2, 3, 254, 128, 5})));
    assertArrayEquals(
        new byte[] {0, 0, 7, 0, 0, 0}, read(Vectors.sparse(6, new int[] {2}, new double[] {7})));
  }

  @Test
  void filesAreDecoded() throws IOException {
    BufferedImage picture = new BufferedImage(2, 1, BufferedImage.TYPE_INT_RGB);
    picture.setRGB(0, 0, 0x010203);
    picture.setRGB(1, 0, 0xfe8005);
    ByteArrayOutputStream file = new ByteArrayOutputStream();
    ImageIO.write(picture, "png", file);
    assertArrayEquals(PIXELS, read(file.toByteArray()));
  }

  /** Spark's struct has blue first. */
  @Test
  void structsOfSparkAreTurnedRound() {
    Row colour = RowFactory.create("a.png", 1, 2, 3, 16, new byte[] {3, 2, 1, 5, -128, -2});
    assertArrayEquals(PIXELS, read(colour));
    Row alpha = RowFactory.create("a.png", 1, 2, 4, 24, new byte[] {3, 2, 1, 9, 5, -128, -2, 9});
    assertArrayEquals(PIXELS, read(alpha));
    Row gray = RowFactory.create("a.png", 1, 2, 1, 0, new byte[] {7, -1});
    assertArrayEquals(new byte[] {7, 7, 7, -1, -1, -1}, read(gray));
    refused("a.png could not be read", RowFactory.create("a.png", -1, -1, -1, -1, new byte[0]));
  }

  @Test
  void whatIsNoImageIsRefused() {
    refused("a row has none", null);
    refused("5 bytes that are no PNG or JPEG file, but pixels of 1x2x3 would be 6", new byte[5]);
    refused("7 numbers", Vectors.zeros(7));
    refused(
        "whole numbers from 0 to 255, got 0.5", Vectors.dense(new double[] {1, 2, 3, 4, 5, .5}));
    refused("whole numbers from 0 to 255, got 256.0", sequence(1, 2, 3, 4, 5, 256));
    refused("whole numbers from 0 to 255, got -1.0", sequence(1, 2, 3, 4, 5, -1));
    refused("java.lang.String", "text");
  }

  private static void refused(String why, @Nullable Object value) {
    String message = assertThrows(IllegalArgumentException.class, () -> read(value)).getMessage();
    assertTrue(message.contains(why), message);
  }

  @Test
  void columnsAreToldByTheirType() {
    for (var type :
        List.of(
            DataTypes.BinaryType,
            DataTypes.createArrayType(DataTypes.FloatType),
            SQLDataTypes.VectorType(),
            ImageSchema.columnSchema())) {
      assertDoesNotThrow(() -> Images.requireType("x", type));
    }
    for (var type :
        List.of(DataTypes.StringType, DataTypes.createArrayType(DataTypes.StringType))) {
      assertThrows(IllegalArgumentException.class, () -> Images.requireType("x", type));
    }
  }
}
