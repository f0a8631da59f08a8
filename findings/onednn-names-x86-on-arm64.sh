#!/usr/bin/env bash
# oneDNN 3.11: on arm64 dnnl_get_effective_cpu_isa answers with the numbers that its public header dnnl_types.h has for x86:
# 0x27, DNNL's avx512_core, on a CPU with SVE of 512 bits, 0x7 (avx2) with 256, 0x3 (avx) with 128, 0x1 (sse41) without SVE.
# Whoever reports them by the header, or asks "is it at least avx512_core" to choose a path, is wrong on arm64.
#
# Below: the public build for linux-arm64 (org.bytedeco:dnnl:3.11-1.5.13), asked under qemu, which is told the width of SVE.
#
# Seen with qemu-user 7.2 and g++ 12 on Debian 12:
#   sve=off 0x1, sve128=on 0x3, sve256=on 0x7, sve512=on 0x27
# Ends with 1 if that changes. Needs mvn, unzip, aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu), qemu-aarch64-static
# (qemu-user-static) and 25 MB of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mvn -q -B dependency:copy -Dartifact=org.bytedeco:dnnl:3.11-1.5.13:jar:linux-arm64 -DoutputDirectory=.
unzip -q -j dnnl-*.jar 'org/bytedeco/dnnl/linux-arm64/lib*'

cat >ask.cpp <<'CPP'
#include <cstdio>
#include <dlfcn.h>

int main() {
  void* library = dlopen("./libdnnl.so.3", RTLD_NOW);
  if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 2;
  auto isa = reinterpret_cast<int (*)()>(dlsym(library, "dnnl_get_effective_cpu_isa"));
  std::printf("0x%x\n", isa());
}
CPP
aarch64-linux-gnu-g++ -O1 ask.cpp -o ask

ask() { # CPU
  qemu-aarch64-static -cpu "$1" -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=. ./ask 2>/dev/null | tail -1
}
status=0
while read -r cpu expected; do
  seen=$(ask "max,$cpu")
  echo "$cpu: $seen"
  [ "$seen" = "$expected" ] || status=1
done <<'TABLE'
sve=off 0x1
sve128=on,sve256=off,sve512=off 0x3
sve256=on,sve512=off 0x7
sve512=on 0x27
TABLE
exit $status
