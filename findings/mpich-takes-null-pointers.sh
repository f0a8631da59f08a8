#!/usr/bin/env bash
# MPICH 4.0.2 of Debian 12 in a Java process: loading libmpich.so.12 is enough, MPI need not be started, and the next
# NullPointerException in compiled code ends the process. The library brings UCX, which takes SIGSEGV for itself as it is loaded;
# the virtual machine finds null pointers by that signal. UCX_ERROR_SIGNALS= (empty) in the environment before the library is
# loaded leaves the signal alone. Open MPI 4.1.4 does not take it.
#
# Below: a program that loads a library, then dereferences null and catches the exception.
#
# Seen with OpenJDK 25.0.3, MPICH 4.0.2, Open MPI 4.1.4: mpich dies, mpich with UCX_ERROR_SIGNALS= caught, openmpi caught
# Ends with 1 if that changes. Needs a JDK 25 in JAVA25_HOME or under /usr/lib/jvm, and both libraries (mpich, openmpi-bin).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

jdk=${JAVA25_HOME:-}
for release in /usr/lib/jvm/*/release; do
  [ -n "$jdk" ] || ! grep -q '^JAVA_VERSION="25' "$release" || jdk=$(dirname "$release")
done
[ -x "$jdk/bin/javac" ] || { echo "no JDK 25 found" >&2; exit 2; }

cat >Load.java <<'JAVA'
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;

class Load {
  static int length(int[] values) {
    return values.length;
  }

  public static void main(String[] arguments) {
    int[] one = new int[1];
    int sum = 0;
    for (int i = 0; i < 200_000; i++) { // compiled, after which null is found by a signal
      sum += length(one);
    }
    SymbolLookup.libraryLookup(arguments[0], Arena.global());
    try {
      length(null);
    } catch (NullPointerException expected) {
      System.out.println("caught");
    }
  }
}
JAVA
"$jdk/bin/javac" Load.java
load() {
  "$jdk/bin/java" --enable-native-access=ALL-UNNAMED -XX:-CreateCoredumpOnCrash -cp . Load "$1" 2>&1 | grep -x caught || echo dies
}
seen="mpich $(load libmpich.so.12), mpich with UCX_ERROR_SIGNALS= $(UCX_ERROR_SIGNALS="" load libmpich.so.12), openmpi $(load libmpi.so.40)"
echo "$seen"
[ "$seen" = "mpich dies, mpich with UCX_ERROR_SIGNALS= caught, openmpi caught" ]
