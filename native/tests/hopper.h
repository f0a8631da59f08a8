// What the tests of sm_90a share: a device of compute capability 9.0, tensor maps, and kernels with planted bugs.
#pragma once
#include "../emulator/cuda_abi.h"
#include "harness.h"

struct alignas(64) EncodedMap {
  uint64_t opaque[16] = {};
};
extern "C" {
int cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const uint64_t* extents,
                           const uint64_t* strides, const unsigned* box, const unsigned* steps, int interleave,
                           int swizzle, int promotion, int fill);
int cuTensorMapEncodeIm2col(void* map, int type, unsigned rank, void* address, const uint64_t* extents,
                            const uint64_t* strides, const int* lower, const int* upper, unsigned channels,
                            unsigned pixels, const unsigned* steps, int interleave, int swizzle, int promotion,
                            int fill);
int cuLaunchKernelEx(const CUlaunchConfig*, void*, void**, void**);
}

/// While it lives the device has compute capability 9.0.
struct Hopper {
  Hopper() { jtreluEmulatorSetComputeCapability(9, 0); }
  ~Hopper() { jtreluEmulatorSetComputeCapability(8, 0); }
  Hopper(const Hopper&) = delete;
};

namespace hopper {

inline const std::string head = ".version 8.0\n.target sm_90a\n.address_size 64\n";
// The first line of a body is line 7.
inline const std::string bugHead = head +
                                   ".visible .entry bug(.param .u64 po, .param .u64 pi, .param .align 64 .b8 pm[128]) "
                                   ".maxntid 384 {\n.reg .u32 r, a, b, "
                                   "x, y, t, u; .reg .u64 o, i, w, m, v; .reg .pred p, q; .reg .b16 h; .reg .b32 f<8>, "
                                   "g<4>; .reg .b64 da, db;\nmov.u32 t, "
                                   "%tid.x; "
                                   "ld.param.u64 o, [po]; ld.param.u64 i, [pi]; mov.u64 m, pm; cvta.param.u64 m, m; "
                                   "mov.u32 r, 0; mov.u32 u, 0; setp.eq.u32 "
                                   "p, t, 0;\n";

struct Expectation {
  const char* kind;
  int code;  // of the launch
  int line;  // of PTX; 0: any
  const char* thread = "";  // "" for any
  const char* space = "";
  const char* message = "";  // part of it
};

/// Threads of a block, and where there is more than one, all of which are a cluster: blocks.
struct Shape {
  unsigned threads, blocks;
  Shape(unsigned threads, unsigned blocks = 1) : threads(threads), blocks(blocks) {}
};

inline CUlaunchAttribute clusterOf(unsigned x, unsigned y = 1, unsigned z = 1) {
  CUlaunchAttribute a{};
  a.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  a.value.cluster[0] = x, a.value.cluster[1] = y, a.value.cluster[2] = z;
  return a;
}

inline int launch(const std::string& body, const Shape& s, uint64_t out, uint64_t in, const EncodedMap& map,
                  unsigned shared) {
  Module m(bugHead + body + "\nret;\n}\n");
  if (s.blocks == 1) return m.launch("bug", 1, s.threads, shared, out, in, map);
  EncodedMap copy = map;
  void* arguments[] = {&out, &in, &copy};
  const CUlaunchAttribute cluster = clusterOf(s.blocks);
  const CUlaunchConfig c{s.blocks, 1, 1, s.threads, 1, 1, shared, nullptr, &cluster, 1};
  return cuLaunchKernelEx(&c, m.function("bug"), arguments, nullptr);
}

/// Runs a body on 4096 words of output and as many initialised words of input; it must be found out.
inline void bug(const std::string& body, const Expectation& e, Shape shape = 64, const EncodedMap& map = {}) {
  Hopper device;
  for (uint64_t seed : {0ull, 5ull}) {
    jtreluEmulatorClear();
    jtreluEmulatorSetSeed(seed);
    Buffer<uint32_t> out(std::vector<uint32_t>(4096)), in(std::vector<uint32_t>(4096, 7));
    int code = launch(body, shape, out.at, in.at, map, 0);
    std::string found = findings();
    auto has = [&](const std::string& what) {
      checks++;
      if (found.find(what) == std::string::npos)
        fail(__FILE__, __LINE__, "no '" + what + "' in: " + found + "\nfor " + body + "\nseed " + std::to_string(seed));
    };
    std::string where = e.line ? std::to_string(e.line) + " (" : "";
    has(std::string("error: ") + e.kind + " in bug, PTX line " + where);
    if (*e.thread && !seed) has(std::string("thread ") + e.thread);
    if (*e.space) has(std::string(e.space) + " address 0x");
    has(e.message);
    if (code != e.code)
      fail(__FILE__, __LINE__,
           std::string(e.kind) + ": launch gave " + std::to_string(code) + "\n" + found + "\nfor " + body);
    jtreluEmulatorClear();
  }
  jtreluEmulatorSetSeed(0);
}
/// Nothing must be found, whatever the order; returns the output.
inline std::vector<uint32_t> clean(const std::string& body, Shape shape = 64, const EncodedMap& map = {},
                                   const std::vector<uint32_t>& in = std::vector<uint32_t>(4096, 7)) {
  Hopper device;
  std::vector<uint32_t> first;
  for (uint64_t seed : {0ull, 5ull, 6ull, 7ull}) {
    jtreluEmulatorClear();
    jtreluEmulatorSetSeed(seed);
    Buffer<uint32_t> out(std::vector<uint32_t>(4096)), input(in);
    int code = launch(body, shape, out.at, input.at, map, 0);
    if (code || !findings().empty())
      fail(__FILE__, __LINE__,
           "launch gave " + std::to_string(code) + "\n" + findings() + "\nfor " + body + "\nseed " +
               std::to_string(seed));
    if (seed) CHECK(out.get() == first);
    else first = out.get();
  }
  jtreluEmulatorSetSeed(0);
  return first;
}

}  // namespace hopper
