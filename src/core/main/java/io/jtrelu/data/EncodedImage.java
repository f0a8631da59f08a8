package io.jtrelu.data;

import java.awt.image.Raster;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.zip.CRC32;
import javax.imageio.ImageIO;
import javax.imageio.ImageReader;
import javax.imageio.spi.IIORegistry;
import javax.imageio.spi.ImageReaderSpi;
import javax.imageio.stream.MemoryCacheImageInputStream;

/**
 * A PNG or JPEG file in memory. Its structure is checked and its header read on construction;
 * {@link #decode} makes the pixels. What is done with them is said at {@link ImageDecoder}.
 *
 * <p>The JDK's decoders, or for JPEG libjpeg-turbo where it is found ({@link TurboJpeg}), undo the
 * compression; the meaning of the samples is found here, because the decoders convert colours by
 * embedded profiles, have no CMYK, and know no orientation.
 */
final class EncodedImage {
  /** Beyond any use in training; keeps a damaged header from asking for gigabytes. */
  private static final long MOST_PIXELS = 1L << 26;

  private static final int MOST_SIDE = 1 << 16;

  /** A black-and-white PNG packs 8 pixels into a byte, which deflate shrinks 1032 times. */
  private static final long MOST_PNG_PIXELS_PER_BYTE = 8 * 1032;

  /** A block of 8x8 takes a bit; sampling factors of 4x1 and 1x4 stretch 8 blocks over 16. */
  private static final long MOST_JPEG_PIXELS_PER_BYTE = 1024;

  private static final long MOST_FILE_BYTES = 1L << 28;

  private static final byte[] PNG = {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

  private enum Kind {
    PNG,
    GRAY_JPEG,
    RGB_JPEG,
    YCC_JPEG,
    CMYK_JPEG,
    YCCK_JPEG
  }

  private final byte[] bytes;
  private final String name;
  private Kind kind = Kind.PNG;
  private int storedHeight;
  private int storedWidth;
  private boolean gray;
  private int orientation = 1;

  private EncodedImage(byte[] bytes, String name) {
    this.bytes = bytes;
    this.name = name;
    if (bytes.length >= PNG.length && startsWith(0, PNG)) {
      readPng();
    } else if (bytes.length > 2 && unsigned8(0) == 0xff && unsigned8(1) == 0xd8) {
      readJpeg();
    } else {
      throw malformed(
          0,
          bytes.length == 0
              ? "the file is empty"
              : "neither a PNG nor a JPEG image, whatever its name says; convert it to one");
    }
    requireSize();
  }

  /** Bytes of an image; the name stands for them in messages. The array is not copied. */
  static EncodedImage of(byte[] bytes, String name) {
    return new EncodedImage(bytes, name);
  }

  static void requireLength(long bytes, String name) {
    if (bytes > MOST_FILE_BYTES) {
      throw new DataException.TooLarge(
          name, "more than " + (MOST_FILE_BYTES >> 20) + " MiB for one image");
    }
  }

  static EncodedImage read(Path file) {
    try {
      requireLength(Files.size(file), file.toString());
      return new EncodedImage(Files.readAllBytes(file), file.toString());
    } catch (NoSuchFileException missing) {
      throw new DataException.Missing(file.toString(), "no such file");
    } catch (IOException failure) {
      throw new DataException.Unreadable(file, "cannot be read (" + failure + ")", failure);
    }
  }

  /** Rows as shown, after the orientation. */
  int height() {
    return orientation >= 5 ? storedWidth : storedHeight;
  }

  /** Columns as shown, after the orientation. */
  int width() {
    return orientation >= 5 ? storedHeight : storedWidth;
  }

  /** Whether the file is grayscale by its kind: one channel, or a palette of grays. */
  boolean gray() {
    return gray;
  }

  /** The pixels as shown: 1 channel where {@link #gray}, else 3. */
  Pixels decode() {
    return decode(1);
  }

  /**
   * The pixels as shown, of a JPEG perhaps fewer than it has: of the scales 1/8, 1/4, 1/2 and 1 the
   * smallest that still has a pixel for each that is wanted. libjpeg-turbo computes them in its
   * inverse transform; it has all eighths, but those between take longer than the full size, having
   * no vector instructions.
   *
   * @param step pixels of the image per pixel that is wanted, on the axis where it is less
   */
  Pixels decode(double step) {
    return decode(step, kind == Kind.PNG ? Optional.empty() : TurboJpeg.library());
  }

  /** As {@link #decode(double)}, a JPEG by this library, or by the JDK. */
  Pixels decode(double step, Optional<TurboJpeg> turbo) {
    int m = turbo.isEmpty() ? 8 : step >= 8 ? 1 : step >= 4 ? 2 : step >= 2 ? 4 : 8;
    long samples =
        (long) TurboJpeg.scaled(storedHeight, m)
            * TurboJpeg.scaled(storedWidth, m)
            * (gray ? 1 : 4);
    FileInput.requireMemory(name, 2 * samples, "the pixels of the image");
    Pixels pixels;
    if (kind == Kind.PNG) {
      pixels = Pixels.of(decompress("png", reader -> reader.read(0)));
    } else if (turbo.isPresent()) {
      pixels = decompress(turbo.get(), m);
    } else {
      pixels = colours(decompress("jpeg", reader -> reader.readRaster(0, null)));
    }
    return pixels.turned(orientation);
  }

  private Pixels decompress(TurboJpeg turbo, int m) {
    boolean inks = kind == Kind.CMYK_JPEG || kind == Kind.YCCK_JPEG;
    TurboJpeg.Format format =
        gray ? TurboJpeg.Format.GRAY : inks ? TurboJpeg.Format.CMYK : TurboJpeg.Format.RGB;
    byte[] samples;
    try {
      samples = turbo.decode(bytes, storedHeight, storedWidth, m, format);
    } catch (IOException complaint) {
      throw damaged(String.valueOf(complaint.getMessage()));
    }
    int height = TurboJpeg.scaled(storedHeight, m);
    int width = TurboJpeg.scaled(storedWidth, m);
    if (!inks) {
      return Pixels.of(height, width, format.channels, samples);
    }
    Pixels pixels = Pixels.allocate(height, width, 3);
    byte[] dst = pixels.values();
    for (int from = 0, to = 0; from < samples.length; from += 4) {
      int black = samples[from + 3] & 0xff; // inverted: 255 is no ink
      for (int c = 0; c < 3; c++) {
        dst[to++] = (byte) (black - product(255 - (samples[from + c] & 0xff), black));
      }
    }
    return pixels;
  }

  private DataException damaged(String complaint) {
    return malformed(
        -1, "the image is damaged or cut off (" + complaint + "); fetch it again, or remove it");
  }

  private interface Decompression<T> {
    T by(ImageReader reader) throws IOException;
  }

  /** The decoders answer damage with many unchecked exceptions, and some of it with a warning. */
  private <T> T decompress(String format, Decompression<T> decompression) {
    List<String> complaints = new ArrayList<>();
    ImageReader reader = reader(format);
    try (MemoryCacheImageInputStream in =
        new MemoryCacheImageInputStream(new ByteArrayInputStream(bytes))) {
      reader.addIIOReadWarningListener((source, warning) -> complaints.add(warning));
      reader.setInput(in, true, true);
      T result = decompression.by(reader);
      if (!complaints.isEmpty()) {
        throw damaged(complaints.getFirst());
      }
      return result;
    } catch (IOException | RuntimeException damage) {
      if (damage instanceof DataException known) {
        throw known;
      }
      throw new DataException.Malformed(
          name,
          -1,
          "the image cannot be decoded (" + damage + "); it is damaged or of an unsupported kind",
          damage);
    } finally {
      reader.dispose();
    }
  }

  /** The JDK's own: another on the class path would decide otherwise about colours and damage. */
  private static ImageReader reader(String format) {
    Iterator<ImageReaderSpi> providers =
        IIORegistry.getDefaultInstance().getServiceProviders(ImageReaderSpi.class, true);
    while (providers.hasNext()) {
      ImageReaderSpi provider = providers.next();
      if (provider.getClass().getModule() == ImageIO.class.getModule()
          && List.of(provider.getFormatNames()).contains(format)) {
        try {
          return provider.createReaderInstance();
        } catch (IOException failure) {
          throw new IllegalStateException("the JDK's " + format + " decoder fails", failure);
        }
      }
    }
    throw new IllegalStateException("this Java runtime has no " + format + " decoder");
  }

  // --- PNG ---

  private void readPng() {
    int at = PNG.length;
    boolean ended = false;
    int colourType = -1;
    while (!ended) {
      if (bytes.length - at < 12) {
        throw malformed(bytes.length, "the file ends where a chunk should begin; it is cut off");
      }
      long length = unsigned32(at);
      String type = new String(bytes, at + 4, 4, StandardCharsets.ISO_8859_1);
      if (length > bytes.length - at - 12) {
        throw malformed(
            at,
            "a chunk "
                + type
                + " of "
                + length
                + " bytes is announced, but "
                + (bytes.length - at - 12)
                + " follow; the file is cut off or damaged");
      }
      int data = at + 8;
      int end = data + (int) length;
      CRC32 crc = new CRC32();
      crc.update(bytes, at + 4, (int) length + 4);
      if (crc.getValue() != unsigned32(end)) {
        throw malformed(at, "the checksum of chunk " + type + " is wrong; the file is damaged");
      }
      if ((colourType < 0) != type.equals("IHDR") || (colourType < 0 && length != 13)) {
        throw malformed(at, "expected one IHDR chunk of 13 bytes, and first, found " + type);
      }
      switch (type) {
        case "IHDR" -> {
          storedWidth = size(data);
          storedHeight = size(data + 4);
          colourType = unsigned8(data + 9);
          gray = colourType == 0 || colourType == 4;
        }
        case "PLTE" -> gray |= colourType == 3 && isGrayPalette(data, end);
        case "eXIf" -> readExif(data, end);
        case "IEND" -> ended = true;
        default -> {}
      }
      at = end + 4;
    }
  }

  private boolean isGrayPalette(int from, int to) {
    for (int at = from; at + 2 < to; at += 3) {
      if (bytes[at] != bytes[at + 1] || bytes[at] != bytes[at + 2]) {
        return false;
      }
    }
    return true;
  }

  // --- JPEG ---

  /** Markers up to the first scan. What is a colour in it is decided as libjpeg decides it. */
  private void readJpeg() {
    boolean jfif = false;
    int adobe = -1;
    int components = 0;
    int ids = 0;
    int at = 2;
    while (true) {
      while (at < bytes.length && unsigned8(at) != 0xff) {
        at++; // libjpeg skips what is no marker, and warns
      }
      while (at < bytes.length && unsigned8(at) == 0xff) {
        at++;
      }
      if (at + 3 > bytes.length) {
        throw malformed(bytes.length, "the file ends before its pixels begin; it is cut off");
      }
      int marker = unsigned8(at++);
      if (marker == 0 || marker == 1 || (marker >= 0xd0 && marker <= 0xd8)) {
        continue; // no parameters
      }
      if (marker == 0xd9) {
        throw malformed(at - 2, "the image ends before its pixels begin; it is damaged");
      }
      int end = at + unsigned16(at);
      int data = at + 2;
      if (end < data || end > bytes.length) {
        throw malformed(
            at - 2,
            String.format(
                "segment 0x%02x announces %d bytes, but %d follow; the file is cut off or damaged",
                marker, end - at, bytes.length - at));
      }
      if (marker == 0xda) {
        break;
      }
      boolean frame =
          marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
      if (frame) {
        if (components > 0 || end - data < 6 || end - data != 6 + 3 * unsigned8(data + 5)) {
          throw malformed(at - 2, "expected one frame header, of 8 + 3 bytes per channel");
        }
        storedHeight = unsigned16(data + 1);
        storedWidth = unsigned16(data + 3);
        components = unsigned8(data + 5);
        for (int c = 0; c < Math.min(3, components); c++) {
          ids = ids << 8 | unsigned8(data + 6 + 3 * c);
        }
      } else if (marker == 0xe0 && end - data >= 14 && startsWith(data, ascii("JFIF\0"))) {
        jfif = true;
      } else if (marker == 0xee && end - data >= 12 && startsWith(data, ascii("Adobe"))) {
        adobe = unsigned8(data + 11);
      } else if (marker == 0xe1 && end - data >= 6 && startsWith(data, ascii("Exif\0\0"))) {
        readExif(data + 6, end);
      }
      at = end;
    }
    boolean namedRgb = adobe < 0 && ids == ('R' << 16 | 'G' << 8 | 'B');
    gray = components == 1;
    kind =
        switch (components) {
          case 1 -> Kind.GRAY_JPEG;
          case 3 -> !jfif && (adobe == 0 || namedRgb) ? Kind.RGB_JPEG : Kind.YCC_JPEG;
          case 4 -> adobe > 0 ? Kind.YCCK_JPEG : Kind.CMYK_JPEG;
          default ->
              throw malformed(
                  -1, "a JPEG image of " + components + " channels; 1, 3 and 4 can be read");
        };
  }

  /** Samples as the JPEG stores them, to gray or red, green, blue, in libjpeg's arithmetic. */
  private Pixels colours(Raster raster) {
    int bands = raster.getNumBands();
    Pixels pixels = Pixels.allocate(raster.getHeight(), raster.getWidth(), gray ? 1 : 3);
    byte[] dst = pixels.values();
    int[] row = new int[raster.getWidth() * bands];
    int at = 0;
    for (int y = 0; y < raster.getHeight(); y++) {
      raster.getPixels(0, y, raster.getWidth(), 1, row);
      for (int x = 0; x < row.length; x += bands) {
        if (gray) {
          dst[at++] = (byte) row[x];
          continue;
        }
        int red = row[x];
        int green = row[x + 1];
        int blue = row[x + 2];
        if (kind == Kind.YCC_JPEG || kind == Kind.YCCK_JPEG) {
          int luma = row[x];
          int cb = row[x + 1] - 128;
          int cr = row[x + 2] - 128;
          red = Math.clamp(luma + ((91881 * cr + 0x8000) >> 16), 0, 255);
          green = Math.clamp(luma + ((-22554 * cb - 46802 * cr + 0x8000) >> 16), 0, 255);
          blue = Math.clamp(luma + ((116130 * cb + 0x8000) >> 16), 0, 255);
        }
        if (kind == Kind.YCCK_JPEG) { // which carries cyan, magenta, yellow as 255 - (r, g, b)
          red = 255 - red;
          green = 255 - green;
          blue = 255 - blue;
        }
        if (bands == 4) { // inverted: 255 is no ink
          int black = row[x + 3];
          red = black - product(255 - red, black);
          green = black - product(255 - green, black);
          blue = black - product(255 - blue, black);
        }
        dst[at++] = (byte) red;
        dst[at++] = (byte) green;
        dst[at++] = (byte) blue;
      }
    }
    return pixels;
  }

  /** a * b / 255, rounded. */
  private static int product(int a, int b) {
    int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
  }

  // --- both ---

  /** Orientation, tag 0x112 of the first directory of a TIFF block; nonsense is passed over. */
  private void readExif(int from, int to) {
    if (to - from < 8) {
      return;
    }
    boolean little = bytes[from] == 'I';
    long directory = from + exif(from + 4, 4, little);
    if (directory + 2 > to) {
      return;
    }
    int entries = (int) exif((int) directory, 2, little);
    for (int i = 0; i < entries && directory + 14 + 12L * i <= to; i++) {
      int entry = (int) directory + 2 + 12 * i;
      if (exif(entry, 2, little) == 0x112 && exif(entry + 2, 2, little) == 3) {
        int value = (int) exif(entry + 8, 2, little);
        if (value >= 1 && value <= 8) {
          orientation = value;
        }
        return;
      }
    }
  }

  private long exif(int at, int count, boolean little) {
    long value = 0;
    for (int i = 0; i < count; i++) {
      value = value << 8 | unsigned8(little ? at + count - 1 - i : at + i);
    }
    return value;
  }

  private void requireSize() {
    long pixels = (long) storedHeight * storedWidth;
    String size = "the header says " + storedHeight + "x" + storedWidth + " pixels, ";
    if (pixels == 0) {
      throw malformed(-1, size + "which is no image");
    }
    if (pixels > MOST_PIXELS || storedHeight > MOST_SIDE || storedWidth > MOST_SIDE) {
      throw new DataException.TooLarge(
          name, size + "beyond the " + MOST_PIXELS + " (and " + MOST_SIDE + " a side) accepted");
    }
    long perByte = kind == Kind.PNG ? MOST_PNG_PIXELS_PER_BYTE : MOST_JPEG_PIXELS_PER_BYTE;
    if (pixels > perByte * bytes.length) {
      throw malformed(-1, size + "which " + bytes.length + " bytes cannot hold");
    }
  }

  /** A side; what passes 2^31 is refused as too large like what comes near it. */
  private int size(int at) {
    return (int) Math.min(unsigned32(at), Integer.MAX_VALUE);
  }

  private int unsigned8(int at) {
    return bytes[at] & 0xff;
  }

  private int unsigned16(int at) {
    return unsigned8(at) << 8 | unsigned8(at + 1);
  }

  private long unsigned32(int at) {
    return (long) unsigned16(at) << 16 | unsigned16(at + 2);
  }

  private boolean startsWith(int at, byte[] prefix) {
    for (int i = 0; i < prefix.length; i++) {
      if (bytes[at + i] != prefix[i]) {
        return false;
      }
    }
    return true;
  }

  private static byte[] ascii(String text) {
    return text.getBytes(StandardCharsets.US_ASCII);
  }

  private DataException malformed(long at, String problem) {
    return new DataException.Malformed(name, at, problem);
  }
}
