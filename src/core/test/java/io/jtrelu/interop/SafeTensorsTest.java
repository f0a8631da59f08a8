package io.jtrelu.interop;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.Channels;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SafeTensorsTest {
  @TempDir Path folder;

  private static byte[] file(String header, byte... data) {
    byte[] text = header.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(8 + text.length + data.length)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(text.length)
        .put(text)
        .put(data)
        .array();
  }

  private SafeTensors open(byte[] content) throws IOException {
    return SafeTensors.open(Files.write(folder.resolve("x.safetensors"), content));
  }

  private String refusal(byte[] content) {
    SafeTensorsException refused =
        assertThrows(SafeTensorsException.class, () -> open(content).close());
    assertTrue(refused.getMessage().contains("x.safetensors"), refused.getMessage());
    return String.valueOf(refused.getMessage());
  }

  private static Tensor tensor(DataType type, Shape shape, float... values) {
    return Tensor.allocate(shape, type, Layout.ROW_MAJOR).set(values);
  }

  private static byte[] written(Map<String, Tensor> tensors, Map<String, String> metadata)
      throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    SafeTensors.write(Channels.newChannel(bytes), tensors, metadata);
    return bytes.toByteArray();
  }

  /** The example of the format's description, byte by byte. */
  @Test
  void readsAFileWrittenByHand() throws IOException {
    byte[] content =
        file(
            "{\"__metadata__\":{\"made by\":\"hand \\u00e9\"},"
                + "\"b\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[4,8]},"
                + "\"a\":{\"data_offsets\":[0,4],\"shape\":[2,1],\"dtype\":\"BF16\"},"
                + "\"none\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[8,8]}}   ",
            // bfloat16: 1 = 3f80, -2 = c000; int32 258 = 0x00000102
            new byte[] {(byte) 0x80, 0x3f, 0x00, (byte) 0xc0, 2, 1, 0, 0});
    try (SafeTensors tensors = open(content);
        Tensor a = tensors.load("a", Layout.ROW_MAJOR);
        Tensor b = tensors.load("b", Layout.ROW_MAJOR);
        Tensor none = tensors.load("none", Layout.ROW_MAJOR)) {
      assertEquals(Map.of("made by", "hand é"), tensors.metadata());
      assertEquals(Shape.of(2, 1), a.shape());
      assertArrayEquals(new float[] {1, -2}, a.toFloatArray());
      assertArrayEquals(new float[] {258}, b.toFloatArray());
      assertEquals(0, none.bytes());
    }
  }

  @Test
  void writesTheBytesOfTheFormat() throws IOException {
    try (Tensor bytes = tensor(DataType.U8, Shape.of(3), 1, 2, 255);
        Tensor half = tensor(DataType.F16, Shape.of(1), 1)) {
      Map<String, Tensor> tensors = new LinkedHashMap<>();
      tensors.put("bytes", bytes);
      tensors.put("half", half);
      byte[] content = written(tensors, Map.of("k", "\"v\""));
      // Widest type first, header padded with blanks to a multiple of 8; 1 in binary16 is 3c00.
      String header =
          "{\"__metadata__\":{\"k\":\"\\\"v\\\"\"},"
              + "\"half\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
              + "\"bytes\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[2,5]}}";
      String padded = header + " ".repeat((8 - header.length() % 8) % 8);
      assertArrayEquals(
          file(padded, (byte) 0, (byte) 0x3c, (byte) 1, (byte) 2, (byte) 255), content);
    }
  }

  @Test
  void returnsWhatWasWritten() throws IOException {
    Random random = new Random(1);
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    Map<String, float[]> expected = new LinkedHashMap<>();
    for (DataType type : DataType.values()) {
      float[] values = new float[6 * 7];
      for (int i = 0; i < values.length; i++) {
        values[i] = random.nextInt(128); // exact in every type
      }
      expected.put("tensor é " + type, values);
      tensors.put("tensor é " + type, tensor(type, Shape.of(6, 7), values));
    }
    byte[] content = written(tensors, Map.of());
    try (SafeTensors read = open(content)) {
      assertEquals(expected.keySet(), read.entries().keySet());
      for (Map.Entry<String, float[]> entry : expected.entrySet()) {
        try (Tensor tensor = read.load(entry.getKey(), Layout.ROW_MAJOR)) {
          assertEquals(tensors.get(entry.getKey()).type(), tensor.type());
          assertArrayEquals(entry.getValue(), tensor.toFloatArray());
        }
      }
    }
    tensors.values().forEach(Tensor::close);
  }

  @Test
  void readsIntoAPartOfACallersTensor() throws IOException {
    try (Tensor source = tensor(DataType.F32, Shape.of(2), 5, 6);
        Tensor arena = Tensor.allocate(Shape.of(4), DataType.F32, Layout.ROW_MAJOR);
        SafeTensors read = open(written(Map.of("x", source), Map.of()))) {
      read.read("x", arena.slice(1, Shape.of(2), Layout.ROW_MAJOR));
      assertArrayEquals(new float[] {0, 5, 6, 0}, arena.toFloatArray());

      SafeTensorsException shape =
          assertThrows(SafeTensorsException.class, () -> read.read("x", arena));
      assertTrue(
          String.valueOf(shape.getMessage())
              .contains("'x' is F32[2] in the file; it was asked for as F32[4]"),
          shape.getMessage());
      assertThrows(SafeTensorsException.class, () -> read.read("y", arena));
    }
  }

  @Test
  void aFileCutAfterOpeningIsRefused() throws IOException {
    try (Tensor source = Tensor.allocate(Shape.of(100), DataType.F32, Layout.ROW_MAJOR);
        SafeTensors read = open(written(Map.of("x", source), Map.of()))) {
      byte[] content = Files.readAllBytes(read.file());
      Files.write(read.file(), Arrays.copyOf(content, content.length - 1));
      assertThrows(SafeTensorsException.class, () -> read.read("x", source));
    }
  }

  @Test
  void aClosedTensorIsRefusedBeforeAnythingIsWritten() {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    Tensor closed = Tensor.allocate(Shape.of(1), DataType.F32, Layout.ROW_MAJOR);
    closed.close();
    assertThrows(
        IllegalStateException.class,
        () -> SafeTensors.write(Channels.newChannel(bytes), Map.of("x", closed), Map.of()));
    assertEquals(0, bytes.size());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        // each tells one lie about four bytes of data
        "[]",
        "{} x",
        "{",
        "{\"x\":1}",
        "{\"x\":null}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}",
        "{\"x\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}",
        // 2^62 elements, then 2^64: the product overflows
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1073741824,1073741824,4],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1073741824,1073741824,16],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
            + "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        // hole before, hole behind, overlap
        "{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[1,4]}}",
        "{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
        "{}",
        "{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
            + "\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
        "{\"__metadata__\":{\"a\":1},"
            + "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"__metadata__\":[],\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
      })
  void refusesALyingHeader(String header) {
    refusal(file(header, new byte[4]));
  }

  @Test
  void refusesDeepNestingAndBrokenText() {
    refusal(file("{\"x\":" + "[".repeat(100_000)));
    byte[] broken = file("{\"x\":{}}");
    broken[10] = (byte) 0xff;
    refusal(broken);
  }

  /** Files of others hold all kinds of tensors beside those that are wanted. */
  @Test
  void aTensorOfAnotherTypeIsRefusedWhenItIsAskedFor() throws IOException {
    String header =
        "{\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
            + "\"new\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[8,11]},"
            + "\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[11,13]}}";
    byte[] data = new byte[13];
    data[11] = 5;
    data[12] = 9;
    try (SafeTensors read = open(file(header, data));
        Tensor x = read.load("x", Layout.ROW_MAJOR)) {
      assertArrayEquals(new float[] {5, 9}, x.toFloatArray());
      assertEquals(Map.of("n", "I64", "new", "F4"), read.others());
      String message =
          assertThrows(SafeTensorsException.class, () -> read.load("n", Layout.ROW_MAJOR))
              .getMessage();
      assertTrue(message.contains("'n' has type 'I64'"), message);
    }
  }

  @Test
  void messagesNamePlaceAndExpectation() {
    assertTrue(
        refusal(
                file(
                    "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
                    new byte[4]))
            .contains("tensor 'x' of F32[2] takes 8 bytes; data_offsets give it 4"));
    assertTrue(refusal(new byte[3]).contains("3 bytes are too few"));
    // Names from the file cannot move the cursor or flood the screen.
    String flood = refusal(file("{\"\\u001b[2J" + "n".repeat(9000) + "\":{\"dtype\":\"F64\"}}"));
    assertTrue(!flood.contains("\u001b") && flood.length() < 400, flood);
    String turned = refusal(file("{\"a\u202eb\u0085\":{\"c\u009bd\":1}}"));
    assertTrue(turned.contains("'a\\u202eb\\u0085', got 'c\\u009bd'"), turned);
  }

  /** Sizes that must be refused without an attempt to allocate them. */
  @Test
  void refusesAbsurdHeaderSizes() {
    for (long size : new long[] {0, 1, 3, 1L << 31, 1L << 40, Long.MAX_VALUE, -1, Long.MIN_VALUE}) {
      byte[] content = file("{}");
      ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN).putLong(size);
      refusal(content);
    }
  }

  private byte[] sample() throws IOException {
    try (Tensor weights = tensor(DataType.F32, Shape.of(2, 3), 1, 2, 3, 4, 5, 6);
        Tensor labels = tensor(DataType.U8, Shape.of(5), 1, 2, 3, 4, 5)) {
      Map<String, Tensor> tensors = new LinkedHashMap<>();
      tensors.put("weights", weights);
      tensors.put("labels", labels);
      return written(tensors, Map.of("step", "7"));
    }
  }

  @Test
  void everyTruncationIsRefused() throws IOException {
    byte[] content = sample();
    for (int length = 0; length < content.length; length++) {
      refusal(Arrays.copyOf(content, length));
    }
    refusal(Arrays.copyOf(content, content.length + 1));
  }

  /** Whatever bytes are changed, the outcome is a tensor or a SafeTensorsException. */
  @Test
  void changedBytesNeverCauseAnotherException() throws IOException {
    byte[] content = sample();
    Random random = new Random(20);
    int refused = 0;
    for (int round = 0; round < 4000; round++) {
      byte[] changed = content.clone();
      for (int change = 0; change < 1 + round % 3; change++) {
        int at = random.nextInt(changed.length);
        changed[at] =
            round % 2 == 0
                ? (byte) random.nextInt(256)
                : (byte) "{}[]\":,0123456789-.eE \\".charAt(random.nextInt(23));
      }
      try (SafeTensors read = open(changed)) {
        for (SafeTensors.Entry entry : read.entries().values()) {
          assertTrue(entry.bytes() <= content.length);
          read.load(entry.name(), Layout.ROW_MAJOR).close();
        }
      } catch (SafeTensorsException expected) {
        refused++;
      } catch (RuntimeException other) {
        fail("round " + round + ": " + new String(changed, StandardCharsets.ISO_8859_1), other);
      }
    }
    assertTrue(refused > 2000, "refused " + refused);
  }
}
