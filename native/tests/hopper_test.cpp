// A convolution that nvcc compiled for sm_90a: im2col loads, wgmma and tensor stores of warps with roles, against loops, in all orders.
#include <cmath>
#include <fstream>
#include <random>
#include <sstream>

#include "hopper.h"

namespace {

std::string compiled() {
  std::ifstream in(HOPPER_PTX);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}
uint16_t toBf16(float x) {
  uint32_t b;
  memcpy(&b, &x, 4);
  return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

struct Problem {
  int tilesM, tilesN, steps, tapsX, taps, outX, outY, stride, pad;
};

/// By clusters of so many blocks, as the kernel of that name takes them. Where a fault is named, it must be found.
void convolution(const char* kernel, int blocks, const std::string& ptx, const char* fault = nullptr) {
  Hopper device;
  Module module(ptx);
  void* f = module.function(kernel);
  const unsigned memory = 3 * (128 + 64) * 128 + 128 * 128 + 6 * 8;
  CHECK_EQUAL(cuFuncSetAttribute(f, 8, (int)memory), 0);
  std::mt19937 random(1);
  struct Shape {
    int n, h, w, c, k, taps, stride, pad;
  };
  for (const Shape& x :
       {Shape{2, 7, 9, 128, 64, 1, 1, 0}, Shape{3, 6, 5, 64, 128, 3, 1, 1}, Shape{2, 9, 11, 64, 72, 3, 2, 1}}) {
    const int outX = (x.w + 2 * x.pad - x.taps) / x.stride + 1, outY = (x.h + 2 * x.pad - x.taps) / x.stride + 1,
              pixels = x.n * outX * outY, all = x.taps * x.taps * x.c;
    std::vector<uint16_t> source((size_t)(x.n * x.h * x.w * x.c)), weights((size_t)(x.k * all));
    std::vector<int> s(source.size()), w(weights.size());
    for (size_t i = 0; i < s.size(); i++) source[i] = toBf16((float)(s[i] = (int)(random() % 5) - 2));
    for (size_t i = 0; i < w.size(); i++) weights[i] = toBf16((float)(w[i] = (int)(random() % 3) - 1));
    std::vector<uint16_t> expected((size_t)(pixels * x.k));
    for (int p = 0; p < pixels; p++)
      for (int k = 0; k < x.k; k++) {
        int sum = 0;
        for (int tap = 0; tap < x.taps * x.taps; tap++) {
          int ix = p % outX * x.stride - x.pad + tap % x.taps, iy = p / outX % outY * x.stride - x.pad + tap / x.taps;
          if (ix < 0 || iy < 0 || ix >= x.w || iy >= x.h) continue;
          for (int c = 0; c < x.c; c++)
            sum +=
                s[(size_t)(((p / outX / outY * x.h + iy) * x.w + ix) * x.c + c)] * w[(size_t)(k * all + tap * x.c + c)];
        }
        expected[(size_t)(p * x.k + k)] = toBf16((float)sum);
      }
    Buffer<uint16_t> ds(source), dw(weights), dr(std::vector<uint16_t>((size_t)(pixels * x.k)));
    EncodedMap maps[3];
    const unsigned ones[] = {1, 1, 1, 1}, steps[] = {1, (unsigned)x.stride, (unsigned)x.stride, 1};
    const uint64_t se[] = {(uint64_t)x.c, (uint64_t)x.w, (uint64_t)x.h, (uint64_t)x.n},
                   ss[] = {2 * se[0], 2 * se[0] * se[1], 2 * se[0] * se[1] * se[2]},
                   we[] = {(uint64_t)all, (uint64_t)x.k}, ws[] = {2 * we[0]}, re[] = {(uint64_t)x.k, (uint64_t)pixels},
                   rs[] = {2 * re[0]};
    const int lower[] = {-x.pad, -x.pad}, upper[] = {x.pad - x.taps + 1, x.pad - x.taps + 1};
    const unsigned box[] = {64, 64}, part[] = {64, 64 / (unsigned)blocks};
    CHECK_EQUAL(cuTensorMapEncodeIm2col(&maps[0], 9, 4, (void*)ds.at, se, ss, lower, upper, 64, 128, steps, 0, 3, 2, 0),
                0);
    CHECK_EQUAL(cuTensorMapEncodeTiled(&maps[1], 9, 2, (void*)dw.at, we, ws, part, ones, 0, 3, 2, 0), 0);
    CHECK_EQUAL(cuTensorMapEncodeTiled(&maps[2], 9, 2, (void*)dr.at, re, rs, box, ones, 0, 3, 0, 0), 0);
    Problem p{(pixels + 128 * blocks - 1) / (128 * blocks) * blocks,
              (x.k + 63) / 64,
              x.c / 64,
              x.taps,
              x.taps * x.taps,
              outX,
              outY,
              x.stride,
              x.pad};
    for (uint64_t seed : {0, 1, 2, 3}) {
      jtreluEmulatorSetSeed(seed);
      jtreluEmulatorCountersClear();
      CHECK_EQUAL(cuMemcpyHtoD_v2(dr.at, std::vector<uint16_t>(expected.size(), 0xffff).data(), expected.size() * 2),
                  0);
      if (fault) {
        CHECK_EQUAL(module.launch(kernel, 2, 384, memory, maps[0], maps[1], maps[2], p), 719);
        checks++;
        if (findings().find(std::string("error: ") + fault + " in " + kernel) == std::string::npos)
          fail(__FILE__, __LINE__, std::string(fault) + " not in " + findings());
        jtreluEmulatorClear();
        continue;
      }
      module.run(kernel, 2, 384, memory, maps[0], maps[1], maps[2], p);
      CHECK(findings().empty());
      CHECK(dr.get() == expected);
      const uint64_t tiles = (uint64_t)(p.tilesM * p.tilesN), rounds = tiles * (uint64_t)(p.taps * p.steps);
      std::string counters = text(jtreluEmulatorCountersJson);
      for (auto& what : {"\"bulkLoadBytes\":" + std::to_string(rounds * (128 + 64) * 128) + ",",
                         "\"bulkStoreBytes\":" + std::to_string(expected.size() * 2) + ",",
                         "\"multicastSavedBytes\":" +
                             std::to_string((blocks - 1) * (p.tilesM / blocks) * p.taps * p.steps * x.k * 128) + ",",
                         "\"warpgroupMultiplyAdds\":" + std::to_string(rounds * 128 * 64 * 64) + ","}) {
        checks++;
        if (counters.find(what) == std::string::npos) fail(__FILE__, __LINE__, what + " not in " + counters);
      }
    }
    jtreluEmulatorSetSeed(0);
  }
}

}  // namespace

TEST(hopper_convolution) { convolution("convolve", 1, compiled()); }
TEST(hopper_convolution_of_clusters) {
  const std::string ptx = compiled();
  convolution("convolvePair", 2, ptx);
  // The same without the barrier at its start, or at its end.
  auto without = [&](const std::string& barrier, const std::string& instead) {
    std::string r = ptx;
    const size_t at = r.find(barrier);
    CHECK(at != std::string::npos);
    return r.replace(at, barrier.size(), instead);
  };
  convolution("convolvePair", 2,
              without("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;", "bar.sync 0;"),
              "cluster_start");
  convolution("convolvePair", 2, without("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;", ""),
              "cluster_exit");
}
TEST(hopper_cooperative_groups) {
  Hopper device;
  Module module(compiled());
  std::vector<int> words(8 * 64);
  for (size_t i = 0; i < words.size(); i++) words[i] = (int)(i * 7919 % 1000);
  for (uint64_t seed : {0, 1, 2, 3}) {
    jtreluEmulatorSetSeed(seed);
    Buffer<int> from(words), to(std::vector<int>(words.size())), sum(std::vector<int>(2)), last(std::vector<int>(2));
    Buffer<int> again(std::vector<int>(words.size()));
    module.run("pass", 8, 64, 0, from.at, to.at, sum.at);
    // Once more behind it, on what it has written, before it need have ended.
    CUlaunchAttribute early{};
    early.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    early.value.number = 1;
    const CUlaunchConfig c{8, 1, 1, 64, 1, 1, 0, nullptr, &early, 1};
    void* arguments[] = {&to.at, &again.at, &last.at};
    CHECK_EQUAL(cuLaunchKernelEx(&c, module.function("pass"), arguments, nullptr), 0);
    CHECK(findings().empty());
    auto got = to.get(), twice = again.get();
    int sums[2] = {};
    for (size_t i = 0; i < words.size(); i++) {
      sums[i / 256] += words[i];
      const size_t cluster = i / 256 * 256, block = i % 256 / 64;
      CHECK_EQUAL(got[i], words[cluster + (block + 1) % 4 * 64 + 63 - i % 64]);
      CHECK_EQUAL(twice[i], words[cluster + (block + 2) % 4 * 64 + i % 64]);
    }
    CHECK(sum.get() == std::vector<int>({sums[0], sums[1]}) && last.get() == sum.get());
  }
  jtreluEmulatorSetSeed(0);
}
