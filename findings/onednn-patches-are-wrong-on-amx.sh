#!/usr/bin/env bash
# oneDNN 3.11 and 3.13: on CPUs with matrix units (AMX), forward convolutions of BF16 that cut an image of 16 channels into
# patches, 4x4 with a stride of 4 and no padding, come out wrong, nearly every element by as much as the results are large. So do
# those whose result is a single column where the stride is larger than 1, such as 2x2 with a stride of 2 on images three wide.
# The implementation that dnnl_primitive_desc_query_impl_info_str names is brg_conv_fwd:avx10_1_512_amx. Nothing is reported.
# 32 channels come out right, and so does everything with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16.
#
# Below: the public builds for linux-x86_64 (org.bytedeco:dnnl), against the definition in binary64. A result counts as wrong
# that is off by more than a fiftieth of 1 + |result|; BF16 has 8 bits.
#
# Seen on an Intel Xeon with AMX (of 144, 144, 96 and 144 results):
#   3.11: 4x4 patches of 16 channels 142 wrong, of 32 none, one column 64 wrong; without AMX none
#   3.13: the same
# Ends with 1 if that changes, with 2 where the CPU has no AMX. Needs mvn, unzip, g++ and 60 MB of downloads.
set -euo pipefail
grep -qw amx_bf16 /proc/cpuinfo || {
  echo "this CPU has no matrix units (AMX)" >&2
  exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >ask.cpp <<'CPP'
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "dnnl.hpp"
using namespace dnnl;

static uint16_t rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static float value(uint16_t x) {
  uint32_t bits = uint32_t{x} << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Images h x w of `in` channels, filters kernel x kernel with a stride as large, no padding.
int main(int, char** words) {
  int h = std::atoi(words[1]), w = std::atoi(words[2]), in = std::atoi(words[3]), kernel = std::atoi(words[4]);
  int out = 16, rows = h / kernel, columns = w / kernel;
  engine cpu(engine::kind::cpu, 0);
  stream queue(cpu);
  using type = memory::data_type;
  using tag = memory::format_tag;
  memory::desc src({1, in, h, w}, type::bf16, tag::nhwc), dst({1, out, rows, columns}, type::bf16, tag::nhwc);
  memory::desc bias({out}, type::f32, tag::x), plain({out, in, kernel, kernel}, type::bf16, tag::ohwi);
  memory::desc any({out, in, kernel, kernel}, type::bf16, tag::any);
  convolution_forward::primitive_desc chosen(cpu, prop_kind::forward_training, algorithm::convolution_direct, src, any, bias,
                                             dst, {kernel, kernel}, {0, 0}, {0, 0});
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> x(h * w * in), k(out * kernel * kernel * in), y(rows * columns * out);
  std::vector<float> zeros(out);
  for (auto& e : x) e = rounded(normal(generator));
  for (auto& e : k) e = rounded(normal(generator));
  memory mx(src, cpu, x.data()), mk(plain, cpu, k.data()), packed(chosen.weights_desc(), cpu), mb(bias, cpu, zeros.data()),
      my(dst, cpu, y.data());
  reorder(mk, packed).execute(queue, mk, packed);
  convolution_forward(chosen).execute(
      queue, {{DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_BIAS, mb}, {DNNL_ARG_DST, my}});
  queue.wait();
  int wrong = 0;
  for (int p = 0; p < rows; p++)
    for (int q = 0; q < columns; q++)
      for (int o = 0; o < out; o++) {
        double sum = 0;
        for (int r = 0; r < kernel; r++)
          for (int s = 0; s < kernel; s++)
            for (int c = 0; c < in; c++)
              sum += double{value(x[((p * kernel + r) * w + q * kernel + s) * in + c])} *
                     value(k[((o * kernel + r) * kernel + s) * in + c]);
        double error = std::fabs(value(y[(p * columns + q) * out + o]) - sum);
        wrong += !(error <= 0.02 * (1 + std::fabs(sum)));
      }
  std::printf("%s %s\n", wrong == 0 ? "right" : "wrong", chosen.impl_info_str());
  std::fprintf(stderr, "  %d of %d wrong\n", wrong, rows * columns * out);
}
CPP

status=0
expect() { # ANSWER NAME COMMAND...
  local answer=$1 name=$2
  shift 2
  local seen
  seen=$("$@")
  echo "$name: $seen"
  [ "${seen%% *}" = "$answer" ] || status=1
}
for version in 3.11-1.5.13 3.13-1.5.14; do
  mkdir "$version"
  mvn -q -B dependency:copy "-Dartifact=org.bytedeco:dnnl:$version:jar:linux-x86_64" "-DoutputDirectory=$version"
  unzip -q "$version"/dnnl-*.jar 'org/bytedeco/dnnl/linux-x86_64/*' -d "$version"
  library=$PWD/$version/org/bytedeco/dnnl/linux-x86_64
  g++ -O1 -std=c++17 "-I$library/include" ask.cpp "$library/libdnnl.so.3" "$library/libgomp.so.1" "-Wl,-rpath,$library" -o ask
  expect wrong "$version, 4x4 patches of 16 channels" ./ask 12 12 16 4
  expect right "$version, 4x4 patches of 32 channels" ./ask 12 12 32 4
  expect wrong "$version, one column" ./ask 12 3 64 2
  expect right "$version, 16 channels without AMX" env ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 ./ask 12 12 16 4
done
exit $status
