package io.jtrelu.data;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * The system's libjpeg-turbo, by the functions of TurboJPEG 2.0 (which 3.x has as well). What it
 * complains of, warnings included, is an exception; the memory it writes to has the size that it is
 * told, so that a damaged file cannot reach beyond it.
 *
 * <p>Safe to share between threads: each decompression borrows an instance of the library's
 * decompressor, which are kept as many as there were threads at a time.
 */
final class TurboJpeg {
  /** {@code auto}, {@code imageio}, or the library's file. */
  static final String PROPERTY = "jtrelu.jpeg";

  /** What pixels are decoded to; the number is TurboJPEG's. */
  enum Format {
    RGB(0, 3),
    GRAY(6, 1),
    /** As stored: Adobe's, inverted, and of YCCK what libjpeg makes of it. */
    CMYK(11, 4);

    private final int code;
    final int channels;

    Format(int code, int channels) {
      this.code = code;
      this.channels = channels;
    }
  }

  /** Stop at warnings, the accurate DCT, and at most 500 scans in a progressive image. */
  private static final int FLAGS = 8192 | 4096 | 32768;

  /** Memory that is kept for the next image; more is given back. */
  private static final long MOST_KEPT = 1L << 24;

  private static final Pattern VERSION = Pattern.compile("libjpeg-turbo version ([0-9.]+)");

  private static final class Found {
    static final @Nullable TurboJpeg LIBRARY;
    static final String DESCRIPTION;

    static {
      TurboJpeg library = null;
      String description;
      String wanted = System.getProperty(PROPERTY, "auto");
      if (wanted.equals("imageio")) {
        description = "Java's ImageIO, as -D" + PROPERTY + " asks for";
      } else {
        String file = wanted.equals("auto") ? usualName() : wanted;
        try {
          library = new TurboJpeg(file);
          description = "libjpeg-turbo " + library.version();
        } catch (IllegalArgumentException
            | IllegalCallerException
            | UnsupportedOperationException e) {
          description =
              "Java's ImageIO, several times slower: no libjpeg-turbo ("
                  + e.getMessage()
                  + "); on Debian and Ubuntu: sudo apt-get install libturbojpeg0 (libturbojpeg on"
                  + " Ubuntu); a library elsewhere is named by -D"
                  + PROPERTY
                  + "=FILE";
        }
      }
      LIBRARY = library;
      DESCRIPTION = description;
    }
  }

  private final String file;
  private final MethodHandle init;
  private final MethodHandle decompress;
  private final MethodHandle errorText;
  private final ConcurrentLinkedQueue<Decompressor> idle = new ConcurrentLinkedQueue<>();

  /** The library, if it was found and is not switched off. Loaded on first use. */
  static Optional<TurboJpeg> library() {
    return Optional.ofNullable(Found.LIBRARY);
  }

  /** Which decoder JPEGs are given to: version and file, or why it is Java's. */
  static String description() {
    return Found.DESCRIPTION;
  }

  private static String usualName() {
    String system = System.getProperty("os.name", "").toLowerCase(Locale.ROOT);
    return system.startsWith("windows")
        ? "turbojpeg.dll"
        : system.startsWith("mac") ? "libturbojpeg.0.dylib" : "libturbojpeg.so.0";
  }

  private TurboJpeg(String file) {
    this.file = file;
    SymbolLookup symbols = SymbolLookup.libraryLookup(file, Arena.global());
    this.init = function(symbols, "tjInitDecompress", FunctionDescriptor.of(ADDRESS));
    MemoryLayout size = Linker.nativeLinker().canonicalLayouts().get("long"); // unsigned long
    if (size == null || size.byteSize() != JAVA_LONG.byteSize()) {
      throw new UnsupportedOperationException("a C long of 8 bytes is needed");
    }
    this.decompress =
        function(
            symbols,
            "tjDecompress2",
            FunctionDescriptor.of(
                JAVA_INT, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, JAVA_INT, JAVA_INT, JAVA_INT,
                JAVA_INT, JAVA_INT));
    this.errorText = function(symbols, "tjGetErrorStr2", FunctionDescriptor.of(ADDRESS, ADDRESS));
  }

  private static MethodHandle function(SymbolLookup symbols, String name, FunctionDescriptor type) {
    MemorySegment address =
        symbols
            .find(name)
            .orElseThrow(() -> new IllegalArgumentException("the library has no function " + name));
    return Linker.nativeLinker().downcallHandle(address, type);
  }

  /** A side of an image that is decoded at a scale of m / 8. */
  static int scaled(int side, int m) {
    return (int) Math.ceilDiv((long) side * m, 8);
  }

  /**
   * Decodes an image at m / 8 of its size.
   *
   * @param height rows as stored
   * @param width columns as stored
   * @param m 1 to 8
   * @return [scaled(height, m), scaled(width, m), channels]
   * @throws IOException with what the library complains of
   */
  byte[] decode(byte[] jpeg, int height, int width, int m, Format format) throws IOException {
    Decompressor decompressor = idle.poll();
    if (decompressor == null) {
      decompressor = new Decompressor();
    }
    try {
      return decompressor.decode(jpeg, scaled(height, m), scaled(width, m), format);
    } finally {
      idle.add(decompressor);
    }
  }

  private final class Decompressor {
    private final MemorySegment handle;
    private @Nullable Arena arena;
    private MemorySegment memory = MemorySegment.NULL;

    Decompressor() {
      try {
        handle = (MemorySegment) init.invokeExact();
      } catch (Throwable impossible) {
        throw unexpected(impossible);
      }
      if (handle.address() == 0) {
        throw new OutOfMemoryError("libjpeg-turbo has no memory for a decompressor");
      }
    }

    byte[] decode(byte[] jpeg, int height, int width, Format format) throws IOException {
      int row = Math.multiplyExact(width, format.channels);
      byte[] pixels = new byte[Math.multiplyExact(height, row)];
      try {
        reserve((long) jpeg.length + pixels.length);
        MemorySegment src = memory.asSlice(0, jpeg.length);
        MemorySegment dst = memory.asSlice(jpeg.length, pixels.length);
        MemorySegment.copy(jpeg, 0, src, JAVA_BYTE, 0, jpeg.length);
        int status =
            (int)
                decompress.invokeExact(
                    handle, src, (long) jpeg.length, dst, width, row, height, format.code, FLAGS);
        if (status != 0) {
          MemorySegment text = (MemorySegment) errorText.invokeExact(handle);
          throw new IOException(text.reinterpret(256).getString(0, StandardCharsets.US_ASCII));
        }
        MemorySegment.copy(dst, JAVA_BYTE, 0, pixels, 0, pixels.length);
        return pixels;
      } catch (IOException complaint) {
        throw complaint;
      } catch (Throwable impossible) {
        throw unexpected(impossible);
      } finally {
        if (memory.byteSize() > MOST_KEPT) {
          release();
        }
      }
    }

    @SuppressWarnings("MustBeClosed") // by release
    private void reserve(long bytes) {
      if (memory.byteSize() < bytes) {
        release();
        arena = Arena.ofShared(); // the next image may be another thread's
        memory = arena.allocate(bytes + bytes / 4, 64);
      }
    }

    private void release() {
      if (arena != null) {
        arena.close();
        arena = null;
        memory = MemorySegment.NULL;
      }
    }
  }

  private static RuntimeException unexpected(Throwable failure) {
    if (failure instanceof Error error) {
      throw error;
    }
    return failure instanceof RuntimeException known
        ? known
        : new IllegalStateException("a call of libjpeg-turbo failed", failure);
  }

  /** Version and file; the functions of TurboJPEG do not tell, but its text does. */
  private String version() {
    Path library = loadedFrom().orElse(Path.of(file));
    String version = "of unknown version";
    try {
      Matcher text =
          VERSION.matcher(new String(Files.readAllBytes(library), StandardCharsets.ISO_8859_1));
      version = text.find() ? text.group(1) : version;
    } catch (IOException unreadable) {
      // loaded from somewhere that only the system's loader knows
    }
    return version + " (" + library + ")";
  }

  private static Optional<Path> loadedFrom() {
    try (Stream<String> maps = Files.lines(Path.of("/proc/self/maps"))) {
      List<String> files = maps.filter(line -> line.contains("turbojpeg")).toList();
      return files.stream().findFirst().map(line -> Path.of(line.substring(line.indexOf('/'))));
    } catch (IOException noSuchFile) {
      return Optional.empty();
    }
  }
}
