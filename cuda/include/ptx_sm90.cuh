// The instructions of sm_90a that warps with roles are made of: mbarriers, bulk copies of tensors (TMA), wgmma. Names follow the PTX ISA.
#pragma once

#include <cstdint>

#include "element.cuh"
#include "ptx.cuh"

// What cuTensorMapEncodeTiled or cuTensorMapEncodeIm2col made; a kernel takes it as const __grid_constant__.
struct alignas(64) TensorMap {
  uint64_t opaque[16];
};

// --- mbarriers: a phase ends when all have arrived and all bytes that were expected have come ---

__device__ __forceinline__ void mbarrierInit(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals)
               : "memory");
}
// After them, before the block's barrier: the asynchronous proxy sees them too.
__device__ __forceinline__ void mbarrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
__device__ __forceinline__ void mbarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
// At a block's mbarrier that lies where `barrier` lies in this one, of the same cluster.
__device__ __forceinline__ void mbarrierArriveAt(uint32_t barrier, int block) {
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
      "r"(block)
      : "memory");
}
__device__ __forceinline__ void mbarrierArriveExpecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void mbarrierWait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\nbra AGAIN;\nDONE:\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// --- bulk copies; one thread issues each ---

// Bytes side by side, a multiple of 16; so are both addresses.
__device__ __forceinline__ void loadBytes(uint32_t to, const void* from, int bytes,
                                          uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void loadBox(uint32_t to, const TensorMap& map, uint32_t barrier, int x,
                                        int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5}], [%2];\n" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// Into the blocks of a cluster whose bits are set, at the same place of each; so is the mbarrier of each.
__device__ __forceinline__ void loadBoxFor(uint16_t blocks, uint32_t to, const TensorMap& map,
                                           uint32_t barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;\n" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(blocks)
      : "memory");
}
// Pixels from the filter's corner at (w, h) of image n on, of the tap at an offset from it.
__device__ __forceinline__ void loadPixels(uint32_t to, const TensorMap& map, uint32_t barrier,
                                           int channel, int w, int h, int n, int offsetW,
                                           int offsetH) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5, %6}], [%2], {%7, %8};\n" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(channel), "r"(w), "r"(h), "r"(n),
      "h"(static_cast<uint16_t>(offsetW)), "h"(static_cast<uint16_t>(offsetH))
      : "memory");
}
// As loadBoxFor.
__device__ __forceinline__ void loadPixelsFor(uint16_t blocks, uint32_t to, const TensorMap& map,
                                              uint32_t barrier, int channel, int w, int h, int n,
                                              int offsetW, int offsetH) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8}, %9;\n" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(channel), "r"(w), "r"(h), "r"(n),
      "h"(static_cast<uint16_t>(offsetW)), "h"(static_cast<uint16_t>(offsetH)), "h"(blocks)
      : "memory");
}
// What threads wrote to shared memory is visible to the asynchronous proxy.
__device__ __forceinline__ void proxyFence() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}
__device__ __forceinline__ void storeBox(const TensorMap& map, uint32_t from, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];\n" ::
          "l"(&map),
      "r"(x), "r"(y), "r"(z), "r"(from)
      : "memory");
}
__device__ __forceinline__ void bulkCommit() {
  asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}
// Until all but the newest kPending groups of this thread's stores have read shared memory.
template <int kPending>
__device__ __forceinline__ void bulkWaitRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(kPending) : "memory");
}

// --- kernels that start before the one ahead of them in their stream has ended ---

// Until the kernels ahead have ended and what they did to memory is visible to this one.
__device__ __forceinline__ void awaitKernelsAhead() {
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
}
// Lets the next kernel start when all blocks have come here, or ended.
__device__ __forceinline__ void letNextStart() {
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
}

// --- warps ---

__device__ __forceinline__ bool elected() {
  uint32_t one;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, -1;\nselp.u32 %0, 1, 0, p;\n}\n" : "=r"(one));
  return one != 0;
}
// threadIdx.x; what follows from it is computed here, and takes no registers before.
__device__ __forceinline__ uint32_t threadAgain() {
  uint32_t thread;
  asm volatile("mov.u32 %0, %%tid.x;\n" : "=r"(thread));
  return thread;
}
template <int kRegisters>
__device__ __forceinline__ void giveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void takeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
// Barrier of a warpgroup of its own; id from 1.
__device__ __forceinline__ void warpgroupBarrier(int id) {
  asm volatile("bar.sync %0, 128;\n" ::"r"(id) : "memory");
}
// Barrier of all threads of a cluster that have not ended.
__device__ __forceinline__ void clusterBarrier() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n" ::: "memory");
}
// Two 8x8 matrices of 16-bit elements, transposed: lane i < 16 gives the address of column i % 8 of matrix i / 8.
__device__ __forceinline__ void storeMatricesTransposed(uint32_t column, uint32_t m0, uint32_t m1) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};\n" ::"r"(column),
               "r"(m0), "r"(m1)
               : "memory");
}
// Four 8x8 matrices of 16-bit elements, where lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void storeMatrices(uint32_t row, const uint32_t* m) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(row),
               "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
               : "memory");
}

// --- wgmma ---

// K-major rows of 128 bytes, swizzled by as many, eight rows after eight. Further along k: add the bytes.
__device__ __forceinline__ uint64_t matrixOf(uint32_t address) {
  constexpr uint64_t kStride = 1024 >> 4, kSwizzle128 = 1;
  return address >> 4 | uint64_t{1} << 16 | kStride << 32 | kSwizzle128 << 62;
}
// MN-major rows of 64, 128 bytes swizzled by as many, a row for each k; the next 64 after `pitch` bytes. Further along k: add the bytes.
__device__ __forceinline__ uint64_t rowsOf(uint32_t address, uint32_t pitch) {
  constexpr uint64_t kStride = 1024 >> 4, kSwizzle128 = 1;
  return address >> 4 | static_cast<uint64_t>(pitch >> 4) << 16 | kStride << 32 | kSwizzle128 << 62;
}
// MN-major without a swizzle: pieces of 8 k and 8 columns, a k after the other in 16 bytes, 128 bytes for 8 of them; 8 columns further after
// `pitch` bytes. It may start at any multiple of 16. Further along k: add 16 bytes for each.
__device__ __forceinline__ uint64_t columnsOf(uint32_t address, uint32_t pitch) {
  return address >> 4 | uint64_t{128 >> 4} << 16 | static_cast<uint64_t>(pitch >> 4) << 32;
}
// K-major without a swizzle: rows 16 bytes apart, so eight of them after 128, and the next 16 bytes of a row right behind: where rows overlap,
// a window that moves on by 16 bytes.
__device__ __forceinline__ uint64_t windowOf(uint32_t address) {
  return address >> 4 | uint64_t{16 >> 4} << 16 | uint64_t{128 >> 4} << 32;
}
__device__ __forceinline__ void wgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void wgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}
// The compiler moves no access to the sums past here.
template <int kBlocks, int kPanels, int kCount>
__device__ __forceinline__ void hold(float (&sums)[kBlocks][kPanels][kCount]) {
#pragma unroll
  for (int i = 0; i < kBlocks * kPanels * kCount; ++i) {
    asm volatile("" : "+f"(sums[i / kCount / kPanels][i / kCount % kPanels][i % kCount])::"memory");
  }
}
// d (64 x N over the warpgroup) = a (64 x 16) * b (16 x N) [+ d], for N = 64 and 128, by registers also 32 and 48. A list of ten begins at a multiple of ten.
// clang-format off
#define TEN(t) \
  "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9"
#define FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)
#define SIXTY_FOUR(i) SIXTEEN(i), SIXTEEN(i + 16), SIXTEEN(i + 32), SIXTEEN(i + 48)
// A from shared memory, by a descriptor. Majors: 0 for K-major, 1 for MN-major.
#define WGMMA_64(type, majorA, majorB) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %34, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" \
        TEN() ", " TEN(1) ", " TEN(2) ", %30, %31" \
      "}, %32, %33, adds, 1, 1, %35, %36;\n}\n" \
      : SIXTEEN(0), SIXTEEN(16) \
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)), "n"(majorA), "n"(majorB))
#define WGMMA_128(type, majorA, majorB) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %66, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" \
        TEN() ", " TEN(1) ", " TEN(2) ", " TEN(3) ", " TEN(4) ", " TEN(5) ", %60, %61, %62, %63" \
      "}, %64, %65, adds, 1, 1, %67, %68;\n}\n" \
      : SIXTY_FOUR(0) \
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)), "n"(majorA), "n"(majorB))
// A from registers: of a warp 16 x 16, as loadMatrices leaves it.
#define WGMMA_32_REGISTERS(type, majorB) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %21, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type " {" \
        TEN() ", %10, %11, %12, %13, %14, %15" \
      "}, {%16, %17, %18, %19}, %20, adds, 1, 1, %22;\n}\n" \
      : SIXTEEN(0) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)), "n"(majorB))
#define WGMMA_48_REGISTERS(type, majorB) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %29, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n48k16.f32." type "." type " {" \
        TEN() ", " TEN(1) ", %20, %21, %22, %23" \
      "}, {%24, %25, %26, %27}, %28, adds, 1, 1, %30;\n}\n" \
      : SIXTEEN(0), FOUR(16), FOUR(20) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)), "n"(majorB))
#define WGMMA_64_REGISTERS(type, majorB) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %37, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" \
        TEN() ", " TEN(1) ", " TEN(2) ", %30, %31" \
      "}, {%32, %33, %34, %35}, %36, adds, 1, 1, %38;\n}\n" \
      : SIXTEEN(0), SIXTEEN(16) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)), "n"(majorB))
#define WGMMA_128_REGISTERS(type) \
  asm volatile( \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %69, 0;\n" \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" \
        TEN() ", " TEN(1) ", " TEN(2) ", " TEN(3) ", " TEN(4) ", " TEN(5) ", %60, %61, %62, %63" \
      "}, {%64, %65, %66, %67}, %68, adds, 1, 1, 0;\n}\n" \
      : SIXTY_FOUR(0) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)))
// clang-format on
template <class T>
struct Wgmma;
#define WGMMA_TYPE(type, name)                                                                     \
  template <>                                                                                      \
  struct Wgmma<type> {                                                                             \
    template <int kMajorA = 0, int kMajorB = 0>                                                    \
    static __device__ __forceinline__ void multiply(float (&d)[32], uint64_t a, uint64_t b,        \
                                                    bool adds) {                                   \
      WGMMA_64(name, kMajorA, kMajorB);                                                            \
    }                                                                                              \
    template <int kMajorA = 0, int kMajorB = 0>                                                    \
    static __device__ __forceinline__ void multiply(float (&d)[64], uint64_t a, uint64_t b,        \
                                                    bool adds) {                                   \
      WGMMA_128(name, kMajorA, kMajorB);                                                           \
    }                                                                                              \
    template <int kMajorB = 0>                                                                     \
    static __device__ __forceinline__ void multiply(float (&d)[16], const uint32_t (&a)[4],        \
                                                    uint64_t b, bool adds) {                       \
      WGMMA_32_REGISTERS(name, kMajorB);                                                           \
    }                                                                                              \
    template <int kMajorB = 0>                                                                     \
    static __device__ __forceinline__ void multiply(float (&d)[24], const uint32_t (&a)[4],        \
                                                    uint64_t b, bool adds) {                       \
      WGMMA_48_REGISTERS(name, kMajorB);                                                           \
    }                                                                                              \
    template <int kMajorB = 0>                                                                     \
    static __device__ __forceinline__ void multiply(float (&d)[32], const uint32_t (&a)[4],        \
                                                    uint64_t b, bool adds) {                       \
      WGMMA_64_REGISTERS(name, kMajorB);                                                           \
    }                                                                                              \
    static __device__ __forceinline__ void multiply(float (&d)[64], const uint32_t (&a)[4],        \
                                                    uint64_t b, bool adds) {                       \
      WGMMA_128_REGISTERS(name);                                                                   \
    }                                                                                              \
  };
WGMMA_TYPE(Bf16, "bf16")
WGMMA_TYPE(F16, "f16")
