package io.jtrelu.interop;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.PrintableText;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.io.StringWriter;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A file of named tensors and string metadata in the <a
 * href="https://github.com/huggingface/safetensors">safetensors</a> format, open for reading.
 *
 * <p>The file is: the header's size in bytes (64 bits, little endian), the header (a JSON object),
 * the elements. The header gives for each name {@code dtype}, {@code shape} and {@code
 * data_offsets}, and under {@code __metadata__} a map of strings. The elements must be covered by
 * the tensors without a hole or an overlap. Types: F32, BF16, F16, I32, U8; tensors of other types
 * may be there, and are refused when they are asked for.
 *
 * <p>Opening reads the header alone; {@link #read} then copies one tensor from the file straight
 * into memory of the caller. Everything the header claims is checked against the size of the file
 * before anything is allocated for it.
 *
 * <p>Thread-safe, except for {@link #close}. For little-endian machines.
 */
public final class SafeTensors implements AutoCloseable {
  /** Largest header accepted, in bytes: the limit of the format's reference implementation. */
  public static final long MAX_HEADER_BYTES = 100_000_000;

  private static final String METADATA = "__metadata__";
  private static final int CHUNK = 1 << 26;

  /** Bytes of an element of the format's types that are not read here. */
  private static final Map<String, Integer> OTHER_TYPES =
      Map.of(
          "F64", 8, "I64", 8, "U64", 8, "U32", 4, "I16", 2, "U16", 2, "I8", 1, "BOOL", 1, "F8_E4M3",
          1, "F8_E5M2", 1);

  private static final JsonFactory JSON =
      JsonFactory.builder().enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION).build();

  /**
   * Where a tensor lies in a file.
   *
   * @param name name
   * @param type type of the elements
   * @param shape shape
   * @param position byte of the file where the elements begin
   */
  public record Entry(String name, DataType type, Shape shape, long position) {
    /** Size of the elements in bytes. */
    public long bytes() {
      return Tensor.byteSize(shape, type);
    }
  }

  private final Path file;
  private final FileChannel channel;
  private final Map<String, String> metadata;
  private final Map<String, Entry> entries;
  private final Map<String, String> others;

  private SafeTensors(
      Path file,
      FileChannel channel,
      Map<String, String> metadata,
      Map<String, Entry> entries,
      Map<String, String> others) {
    this.file = file;
    this.channel = channel;
    this.metadata = Collections.unmodifiableMap(metadata);
    this.entries = Collections.unmodifiableMap(entries);
    this.others = Collections.unmodifiableMap(others);
  }

  /**
   * Opens a file and checks its header. The caller closes the result.
   *
   * @throws SafeTensorsException if the content is malformed
   * @throws IOException if the file cannot be read
   */
  public static SafeTensors open(Path file) throws IOException {
    FileChannel channel = FileChannel.open(file, StandardOpenOption.READ);
    try {
      return new HeaderReader(file, channel).read();
    } catch (Throwable failure) {
      channel.close();
      throw failure;
    }
  }

  /** The file. */
  public Path file() {
    return file;
  }

  /** The metadata, in the file's order; empty if there is none. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** The tensors by name, in the header's order. */
  public Map<String, Entry> entries() {
    return entries;
  }

  /** Types of tensors in the file that cannot be read, by name: such as I64, F64, BOOL. */
  public Map<String, String> others() {
    return others;
  }

  /**
   * Copies a tensor into memory of the caller.
   *
   * @param name name of a tensor in the file
   * @param dst a host tensor of the same type and shape (the layout is the caller's business)
   * @throws SafeTensorsException if the file has no such tensor, its type or shape differs from
   *     dst's, its type is none that can be read, or the file has become shorter since it was
   *     opened
   * @throws IOException if the file cannot be read
   */
  public void read(String name, Tensor dst) throws IOException {
    Entry entry = entry(name);
    if (entry.type() != dst.type() || !entry.shape().equals(dst.shape())) {
      throw new SafeTensorsException(
          file
              + ": tensor "
              + PrintableText.quoted(name)
              + " is "
              + entry.type()
              + entry.shape()
              + " in the file; it was asked for as "
              + dst.type()
              + dst.shape());
    }
    MemorySegment segment = dst.segment();
    long done = 0;
    while (done < entry.bytes()) {
      ByteBuffer buffer =
          segment.asSlice(done, Math.min(CHUNK, entry.bytes() - done)).asByteBuffer();
      int count = channel.read(buffer, entry.position() + done);
      if (count < 0) {
        throw new SafeTensorsException(
            file
                + ": the file ends at byte "
                + channel.size()
                + " within tensor "
                + PrintableText.quoted(name)
                + ", which reaches to byte "
                + (entry.position() + entry.bytes())
                + "; it was changed while it was read");
      }
      done += count;
    }
  }

  /**
   * Reads a tensor into new host memory, owned by the result.
   *
   * @param layout meaning of the axes, which the format does not record
   * @throws SafeTensorsException if the file has no such tensor
   * @throws IOException if the file cannot be read
   */
  public Tensor load(String name, Layout layout) throws IOException {
    Entry entry = entry(name);
    Tensor tensor = Tensor.allocate(entry.shape(), entry.type(), layout);
    try {
      read(name, tensor);
      return tensor;
    } catch (Throwable failure) {
      tensor.close();
      throw failure;
    }
  }

  private Entry entry(String name) {
    Entry entry = entries.get(name);
    if (entry == null) {
      String type = others.get(name);
      throw new SafeTensorsException(
          file
              + (type == null
                  ? ": there is no tensor " + PrintableText.quoted(name)
                  : ": tensor "
                      + PrintableText.quoted(name)
                      + " has type "
                      + PrintableText.quoted(type)
                      + ", which is not read; those that are: "
                      + Arrays.toString(DataType.values())));
    }
    return entry;
  }

  /** Closes the file. Idempotent. */
  @Override
  public void close() throws IOException {
    channel.close();
  }

  /**
   * Writes tensors and metadata. To replace a file so that a reader never sees half of it, write
   * through a temporary file that is renamed.
   *
   * <p>The elements are stored widest type first, so that each is aligned, and else in the map's
   * order; the header is padded to 8 bytes. Equal contents give equal bytes.
   *
   * @param channel receives the bytes; stays open
   * @param tensors host tensors by name
   * @param metadata strings
   * @throws IllegalArgumentException if a name is {@code __metadata__} or the header exceeds {@link
   *     #MAX_HEADER_BYTES}
   * @throws IllegalStateException if a tensor is not in host memory or closed
   * @throws IOException if the channel fails
   */
  public static void write(
      WritableByteChannel channel, Map<String, Tensor> tensors, Map<String, String> metadata)
      throws IOException {
    List<Map.Entry<String, Tensor>> sorted = new ArrayList<>(tensors.entrySet());
    sorted.sort(
        Comparator.comparingInt(
            (Map.Entry<String, Tensor> entry) -> -entry.getValue().type().bytes()));
    List<MemorySegment> segments = new ArrayList<>();
    for (Map.Entry<String, Tensor> entry : sorted) {
      segments.add(entry.getValue().segment()); // fails before the first byte is written
    }
    byte[] header = header(sorted, metadata);
    int padding = -header.length & 7;
    ByteBuffer head =
        ByteBuffer.allocate(Long.BYTES + header.length + padding).order(ByteOrder.LITTLE_ENDIAN);
    head.putLong(header.length + padding).put(header);
    for (int i = 0; i < padding; i++) {
      head.put((byte) ' ');
    }
    writeFully(channel, head.flip());
    for (int i = 0; i < segments.size(); i++) {
      long bytes = sorted.get(i).getValue().bytes();
      for (long done = 0; done < bytes; done += CHUNK) {
        MemorySegment chunk = segments.get(i).asSlice(done, Math.min(CHUNK, bytes - done));
        writeFully(channel, chunk.asByteBuffer());
      }
    }
  }

  private static byte[] header(
      List<Map.Entry<String, Tensor>> tensors, Map<String, String> metadata) throws IOException {
    StringWriter text = new StringWriter();
    try (JsonGenerator json = JSON.createGenerator(text)) {
      json.writeStartObject();
      if (!metadata.isEmpty()) {
        json.writeObjectFieldStart(METADATA);
        for (Map.Entry<String, String> entry : metadata.entrySet()) {
          json.writeStringField(entry.getKey(), entry.getValue());
        }
        json.writeEndObject();
      }
      long position = 0;
      for (Map.Entry<String, Tensor> entry : tensors) {
        if (entry.getKey().equals(METADATA)) {
          throw new IllegalArgumentException("a tensor cannot be named " + METADATA);
        }
        Tensor tensor = entry.getValue();
        json.writeObjectFieldStart(entry.getKey());
        json.writeStringField("dtype", tensor.type().name());
        json.writeFieldName("shape");
        json.writeArray(tensor.shape().dims(), 0, tensor.shape().rank());
        json.writeFieldName("data_offsets");
        json.writeArray(new long[] {position, position + tensor.bytes()}, 0, 2);
        json.writeEndObject();
        position += tensor.bytes();
      }
      json.writeEndObject();
    }
    byte[] header = text.toString().getBytes(StandardCharsets.UTF_8);
    if (header.length > MAX_HEADER_BYTES - Long.BYTES) {
      throw new IllegalArgumentException(
          "names, shapes and metadata take "
              + header.length
              + " bytes; a safetensors header has at most "
              + MAX_HEADER_BYTES);
    }
    return header;
  }

  private static void writeFully(WritableByteChannel channel, ByteBuffer buffer)
      throws IOException {
    while (buffer.hasRemaining()) {
      channel.write(buffer);
    }
  }

  /** Reads and checks the header of one file. */
  private static final class HeaderReader {
    private final Path file;
    private final FileChannel channel;
    private final Map<String, String> metadata = new LinkedHashMap<>();
    private final Map<String, Entry> entries = new LinkedHashMap<>();
    private final Map<String, String> others = new LinkedHashMap<>();
    private final List<Span> spans = new ArrayList<>();

    /** Where the elements of a tensor of any type lie. */
    private record Span(String name, long begin, long end) {}

    /** First byte of the elements. */
    private long dataStart;

    private long dataBytes;

    HeaderReader(Path file, FileChannel channel) {
      this.file = file;
      this.channel = channel;
    }

    SafeTensors read() throws IOException {
      String header = headerText();
      try (JsonParser json = JSON.createParser(header)) {
        expect(json, json.nextToken(), JsonToken.START_OBJECT, "a JSON object");
        while (json.nextToken() == JsonToken.FIELD_NAME) {
          String name = json.currentName();
          if (name.equals(METADATA)) {
            readMetadata(json);
          } else {
            readEntry(json, name); // the parser refuses a second of the name
          }
        }
        if (json.nextToken() != null) {
          throw malformed(json, "expected the end of the header after its JSON object");
        }
      } catch (JsonProcessingException notJson) {
        throw new SafeTensorsException(
            file
                + ": header, character "
                + (notJson.getLocation() == null ? 0 : notJson.getLocation().getCharOffset())
                + ": not valid JSON: "
                + firstLine(notJson.getOriginalMessage()),
            notJson);
      }
      requireGapless();
      return new SafeTensors(file, channel, metadata, entries, others);
    }

    private String headerText() throws IOException {
      long fileBytes = channel.size();
      if (fileBytes < Long.BYTES) {
        throw new SafeTensorsException(
            file + ": " + fileBytes + " bytes are too few for a safetensors file");
      }
      ByteBuffer length = ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN);
      readFully(length, 0);
      long headerBytes = length.getLong(0);
      if (headerBytes < 2 || headerBytes > Math.min(MAX_HEADER_BYTES, fileBytes - Long.BYTES)) {
        throw new SafeTensorsException(
            file
                + ": byte 0: a header of "
                + Long.toUnsignedString(headerBytes)
                + " bytes is announced; expected 2 to "
                + Math.min(MAX_HEADER_BYTES, fileBytes - Long.BYTES)
                + " in a file of "
                + fileBytes
                + " bytes; this is no safetensors file, or it is cut short");
      }
      dataStart = Long.BYTES + headerBytes;
      dataBytes = fileBytes - dataStart;
      ByteBuffer header = ByteBuffer.allocate((int) headerBytes);
      readFully(header, Long.BYTES);
      if (header.get(0) != '{') {
        throw new SafeTensorsException(file + ": byte 8: a header begins with '{'");
      }
      try {
        return StandardCharsets.UTF_8.newDecoder().decode(header.flip()).toString();
      } catch (CharacterCodingException notText) {
        throw new SafeTensorsException(file + ": the header is not valid UTF-8", notText);
      }
    }

    private void readFully(ByteBuffer buffer, long position) throws IOException {
      while (buffer.hasRemaining()) {
        if (channel.read(buffer, position + buffer.position()) < 0) {
          throw new SafeTensorsException(file + ": the file was cut while it was read");
        }
      }
    }

    private void readMetadata(JsonParser json) throws IOException {
      expect(json, json.nextToken(), JsonToken.START_OBJECT, "an object of strings as metadata");
      while (json.nextToken() == JsonToken.FIELD_NAME) {
        String key = json.currentName();
        expect(
            json,
            json.nextToken(),
            JsonToken.VALUE_STRING,
            "a string as value of " + PrintableText.quoted(key));
        metadata.put(key, json.getText());
      }
    }

    private void readEntry(JsonParser json, String name) throws IOException {
      String of = " of tensor " + PrintableText.quoted(name);
      expect(
          json,
          json.nextToken(),
          JsonToken.START_OBJECT,
          "an object for tensor " + PrintableText.quoted(name));
      String type = null;
      List<Long> shape = null;
      List<Long> offsets = null;
      while (json.nextToken() == JsonToken.FIELD_NAME) {
        String key = json.currentName();
        switch (key) {
          case "dtype" -> {
            expect(json, json.nextToken(), JsonToken.VALUE_STRING, "a string as dtype" + of);
            type = json.getText();
          }
          case "shape" -> shape = readNumbers(json, "shape" + of, 64);
          case "data_offsets" -> offsets = readNumbers(json, "data_offsets" + of, 2);
          default ->
              throw malformed(
                  json,
                  "expected dtype, shape or data_offsets"
                      + of
                      + ", got "
                      + PrintableText.quoted(key));
        }
      }
      if (type == null || shape == null || offsets == null || offsets.size() != 2) {
        throw malformed(
            json,
            "tensor " + PrintableText.quoted(name) + " needs dtype, shape and two data_offsets");
      }
      requireInside(json, name, offsets);
      spans.add(new Span(name, dataStart + offsets.get(0), dataStart + offsets.get(1)));
      DataType known = typeOf(type);
      if (known == null) {
        requireSize(json, name, type, shape, offsets.get(1) - offsets.get(0));
        others.put(name, type);
      } else {
        entries.put(name, checkedEntry(json, name, known, shapeOf(json, shape, name), offsets));
      }
    }

    /** Of a type that is not read; one that is not even known can have any size. */
    private void requireSize(
        JsonParser json, String name, String type, List<Long> shape, long bytes) {
      Integer size = OTHER_TYPES.get(type);
      if (size == null) {
        return;
      }
      long expected = size;
      try {
        for (long dim : shape) {
          expected = Math.multiplyExact(expected, dim);
        }
      } catch (ArithmeticException tooLarge) {
        expected = -1;
      }
      if (expected != bytes) {
        throw malformed(
            json,
            "tensor "
                + PrintableText.quoted(name)
                + " of "
                + type
                + shape
                + " does not take the "
                + bytes
                + " bytes that data_offsets give it");
      }
    }

    private static @Nullable DataType typeOf(String text) {
      for (DataType type : DataType.values()) {
        if (type.name().equals(text)) {
          return type;
        }
      }
      return null;
    }

    private Shape shapeOf(JsonParser json, List<Long> numbers, String name) {
      int[] dims = new int[numbers.size()];
      for (int i = 0; i < dims.length; i++) {
        long dim = numbers.get(i);
        if (dim > Integer.MAX_VALUE) {
          throw malformed(
              json,
              "tensor "
                  + PrintableText.quoted(name)
                  + " has an extent of "
                  + dim
                  + "; at most 2^31-1");
        }
        dims[i] = (int) dim;
      }
      try {
        return Shape.of(dims);
      } catch (IllegalArgumentException tooLarge) {
        throw malformed(
            json, "tensor " + PrintableText.quoted(name) + ": " + tooLarge.getMessage());
      }
    }

    private void requireInside(JsonParser json, String name, List<Long> offsets) {
      long begin = offsets.get(0);
      long end = offsets.get(1);
      if (begin > end || end > dataBytes) {
        throw malformed(
            json,
            "tensor "
                + PrintableText.quoted(name)
                + " lies at ["
                + begin
                + ", "
                + end
                + "); the file has elements at [0, "
                + dataBytes
                + "); it is damaged or cut short");
      }
    }

    private Entry checkedEntry(
        JsonParser json, String name, DataType type, Shape shape, List<Long> offsets) {
      long begin = offsets.get(0);
      long end = offsets.get(1);
      long bytes;
      try {
        bytes = Tensor.byteSize(shape, type);
      } catch (IllegalArgumentException tooLarge) {
        throw malformed(
            json, "tensor " + PrintableText.quoted(name) + ": " + tooLarge.getMessage());
      }
      if (bytes != end - begin) {
        throw malformed(
            json,
            "tensor "
                + PrintableText.quoted(name)
                + " of "
                + type
                + shape
                + " takes "
                + bytes
                + " bytes; data_offsets give it "
                + (end - begin));
      }
      return new Entry(name, type, shape, dataStart + begin);
    }

    private List<Long> readNumbers(JsonParser json, String what, int atMost) throws IOException {
      expect(json, json.nextToken(), JsonToken.START_ARRAY, "an array as " + what);
      List<Long> numbers = new ArrayList<>();
      while (json.nextToken() != JsonToken.END_ARRAY) {
        expect(json, json.currentToken(), JsonToken.VALUE_NUMBER_INT, "an integer in " + what);
        long number = json.getLongValue();
        if (number < 0 || numbers.size() == atMost) {
          throw malformed(json, "expected at most " + atMost + " integers of 0 or more in " + what);
        }
        numbers.add(number);
      }
      return numbers;
    }

    private void requireGapless() {
      spans.sort(Comparator.comparingLong(Span::begin).thenComparingLong(Span::end));
      long position = dataStart;
      for (Span span : spans) {
        if (span.begin() != position) {
          throw new SafeTensorsException(
              file
                  + ": byte "
                  + position
                  + ": "
                  + (span.begin() < position ? "an overlap" : "a hole")
                  + " before tensor "
                  + PrintableText.quoted(span.name())
                  + " at byte "
                  + span.begin());
        }
        position = span.end();
      }
      if (position != dataStart + dataBytes) {
        throw new SafeTensorsException(
            file
                + ": byte "
                + position
                + ": "
                + (dataStart + dataBytes - position)
                + " bytes after the last tensor belong to none");
      }
    }

    private void expect(
        JsonParser json, @Nullable JsonToken found, JsonToken expected, String what) {
      if (found != expected) {
        throw malformed(json, "expected " + what);
      }
    }

    private SafeTensorsException malformed(JsonParser json, String what) {
      return new SafeTensorsException(
          file
              + ": header, character "
              + json.currentTokenLocation().getCharOffset()
              + ": "
              + what);
    }

    private static String firstLine(String text) {
      int end = text.indexOf('\n');
      return end < 0 ? text : text.substring(0, end);
    }
  }
}
