package io.jtrelu.benchmarks;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;

/** libjpeg-turbo as image libraries call it: the whole picture at its full size. */
final class TurboDecoder {
  private final MethodHandle decompress;
  private final MemorySegment handle;
  private final MemorySegment memory = Arena.global().allocate(1 << 25);

  TurboDecoder() throws Throwable {
    SymbolLookup library = SymbolLookup.libraryLookup("libturbojpeg.so.0", Arena.global());
    Linker linker = Linker.nativeLinker();
    decompress =
        linker.downcallHandle(
            library.findOrThrow("tjDecompress2"),
            FunctionDescriptor.of(
                JAVA_INT, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, JAVA_INT, JAVA_INT, JAVA_INT,
                JAVA_INT, JAVA_INT));
    handle =
        (MemorySegment)
            linker
                .downcallHandle(
                    library.findOrThrow("tjInitDecompress"), FunctionDescriptor.of(ADDRESS))
                .invokeExact();
  }

  /** Red, green, blue. */
  byte[] decode(byte[] jpeg, int height, int width) throws Throwable {
    byte[] pixels = new byte[height * width * 3];
    MemorySegment.copy(jpeg, 0, memory, JAVA_BYTE, 0, jpeg.length);
    MemorySegment dst = memory.asSlice(jpeg.length);
    int status =
        (int)
            decompress.invokeExact(
                handle, memory, (long) jpeg.length, dst, width, 3 * width, height, 0, 0);
    if (status != 0) {
      throw new IllegalStateException("libjpeg-turbo failed");
    }
    MemorySegment.copy(dst, JAVA_BYTE, 0, pixels, 0, pixels.length);
    return pixels;
  }
}
