#!/usr/bin/env bash
# libjpeg-turbo 2.1.5: decoding a JPEG at 7/8, 6/8 or 5/8 of its size takes longer than decoding all of it. The inverse
# transforms of 8x8, 4x4, 2x2 and 1x1 have vector instructions, those between are plain C; so "the smallest scale that still
# covers the size" is the wrong rule for whoever wants thumbnails quickly.
#
# Below: a picture of 1024x768 with noise, decoded 60 times at each scale, best of 5, as multiples of the full size's time.
#
# Seen with OpenJDK 25.0.3 on Linux, AMD EPYC, shared: 7/8 takes 1.6 to 2.4 times as long as 8/8, 5/8 1.2 to 1.5 times, 4/8 0.8 times
# Ends with 1 if that changes. Needs a JDK from 22 on and libturbojpeg0 (Debian's name).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >Scales.java <<'JAVA'
import static java.lang.foreign.ValueLayout.*;

import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.*;
import java.lang.invoke.MethodHandle;
import java.util.Random;
import javax.imageio.ImageIO;

public class Scales {
  public static void main(String[] arguments) throws Throwable {
    Random random = new Random(1);
    BufferedImage picture = new BufferedImage(1024, 768, BufferedImage.TYPE_INT_RGB);
    for (int p = 0; p < 1024 * 768; p++) {
      picture.setRGB(p % 1024, p / 1024, (100 + p % 1024 / 10 + random.nextInt(30)) * 0x010101);
    }
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    ImageIO.write(picture, "jpeg", out);
    byte[] jpeg = out.toByteArray();
    SymbolLookup turbo = SymbolLookup.libraryLookup("libturbojpeg.so.0", Arena.global());
    Linker linker = Linker.nativeLinker();
    MethodHandle init =
        linker.downcallHandle(turbo.find("tjInitDecompress").get(), FunctionDescriptor.of(ADDRESS));
    MethodHandle decompress =
        linker.downcallHandle(
            turbo.find("tjDecompress2").get(),
            FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, JAVA_INT, JAVA_INT,
                JAVA_INT, JAVA_INT, JAVA_INT));
    MemorySegment handle = (MemorySegment) init.invokeExact();
    MemorySegment src = Arena.global().allocate(jpeg.length);
    src.copyFrom(MemorySegment.ofArray(jpeg));
    MemorySegment dst = Arena.global().allocate(1024 * 768 * 3);
    double[] times = new double[9];
    for (int m = 8; m >= 1; m--) {
      int width = 1024 * m / 8;
      int height = 768 * m / 8;
      double best = Double.POSITIVE_INFINITY;
      for (int round = 0; round < 6; round++) { // the first one warms up
        long begin = System.nanoTime();
        for (int i = 0; i < 60; i++) {
          int status =
              (int) decompress.invokeExact(handle, src, (long) jpeg.length, dst, width, 3 * width, height, 0, 0);
          if (status != 0) {
            throw new IllegalStateException();
          }
        }
        best = round == 0 ? best : Math.min(best, System.nanoTime() - begin);
      }
      times[m] = best;
      System.out.printf("%d/8 %.2f%n", m, best / times[8]);
    }
    System.exit(times[7] > times[8] && times[6] > times[8] && times[4] < times[8] ? 0 : 1);
  }
}
JAVA
jdk=${JAVA25_HOME:-}
for release in /usr/lib/jvm/*/release; do
  [ -n "$jdk" ] || ! grep -q '^JAVA_VERSION="25' "$release" || jdk=$(dirname "$release")
done
[ -x "$jdk/bin/java" ] || { echo "no JDK 25 found" >&2; exit 2; }
"$jdk/bin/java" --enable-native-access=ALL-UNNAMED -Djava.awt.headless=true Scales.java
