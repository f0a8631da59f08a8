// Kernels of sm_90a that nvcc compiles, for hopper_test.cpp: a convolution by im2col TMA, wgmma and TMA stores, with a warp that loads, two
// warpgroups that multiply, and tiles taken in turn; and the same by clusters of two blocks that share the weights by multicast. It shows that all of these work together on the emulated device.
#include <cooperative_groups.h>
#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace {

constexpr int tileRows = 128, tileColumns = 64, depth = 64, stages = 3;  // pixels, output channels, channels
constexpr int rowBytes = 128, sourceBytes = tileRows * rowBytes, weightBytes = tileColumns * rowBytes,
              stageBytes = sourceBytes + weightBytes, resultBytes = tileRows * rowBytes;

struct Problem {
  int tilesM, tilesN, steps, tapsX, taps, outX, outY, stride, pad;
};

__device__ uint32_t shared(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ void await(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra "
      "WAIT;\nDONE:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
__device__ uint64_t described(uint32_t address) {  // K-major, 128-byte swizzle
  return (uint64_t)(address >> 4) | (uint64_t)1 << 16 | (uint64_t)(8 * rowBytes >> 4) << 32 | (uint64_t)1 << 62;
}
__device__ void multiply(float (&d)[32], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %34, 0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, adds, 1, 1, 0, 0;\n}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"((int)adds));
}
/// The compiler may not move accesses to the sums past here.
__device__ void hold(float (&d)[32]) {
#pragma unroll
  for (int i = 0; i < 32; i++) asm volatile("" : "+f"(d[i])::"memory");
}
__device__ uint32_t pair(float x, float y) {
  __nv_bfloat162 h = __floats2bfloat162_rn(x, y);
  return *(uint32_t*)&h;
}
/// The block of the cluster, and what an address of this one is in another.
__device__ uint32_t rankInCluster() {
  uint32_t r;
  asm volatile("mov.u32 %0, %cluster_ctarank;" : "=r"(r));
  return r;
}
__device__ uint32_t mapped(uint32_t address, uint32_t rank) {
  uint32_t r;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
  return r;
}

/// Blocks of a cluster take neighbouring tiles of pixels; each loads its part of the weights for all of them.
template <int blocks>
__device__ void convolveTiles(const CUtensorMap& source, const CUtensorMap& weights, const CUtensorMap& result,
                              const Problem& p) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const uint32_t base = shared(memory), results = base + stages * stageBytes, full = results + resultBytes,
                 empty = full + 8 * stages;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = threadIdx.x / 128;
  const int rank = blocks > 1 ? (int)rankInCluster() : 0, all = p.tilesM * p.tilesN / blocks,
            first = (int)blockIdx.x / blocks, step = (int)gridDim.x / blocks;
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; s++) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * s));
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(empty + 8 * s), "r"(2 * blocks));
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  if constexpr (blocks > 1)
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
  else __syncthreads();
  // A consumer has read a stage: all blocks may write their parts of it again.
  auto release = [&](int s) {
    if constexpr (blocks == 1) {
      arrive(empty + 8 * s);
    } else {
      for (int r = 0; r < blocks; r++)
        asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(mapped(empty + 8 * s, r))
                     : "memory");
    }
  };
  int stage = 0;
  uint32_t phase = 0;
  auto next = [&] {
    if (++stage == stages) stage = 0, phase ^= 1;
  };
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    uint32_t elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, -1;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
    if (warp || !elected) return;
    for (int tile = first; tile < all; tile += step) {
      const int m = (tile / p.tilesN * blocks + rank) * tileRows, n = tile % p.tilesN * tileColumns;
      const int x = m % p.outX * p.stride - p.pad, y = m / p.outX % p.outY * p.stride - p.pad,
                image = m / p.outX / p.outY;
      for (int tap = 0; tap < p.taps; tap++)
        for (int c = 0; c < p.steps; c++, next()) {
          const uint32_t to = base + stage * stageBytes, bar = full + 8 * stage;
          await(empty + 8 * stage, phase ^ 1);
          asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(stageBytes) : "memory");
          asm volatile(
              "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
              "%5, %6}], [%2], "
              "{%7, %8};" ::"r"(to),
              "l"(&source), "r"(bar), "r"(c * depth), "r"(x), "r"(y), "r"(image), "h"((uint16_t)(tap % p.tapsX)),
              "h"((uint16_t)(tap / p.tapsX))
              : "memory");
          if constexpr (blocks > 1)
            asm volatile(
                "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to + sourceBytes + rank * (weightBytes / blocks)),
                "l"(&weights), "r"(bar), "r"((tap * p.steps + c) * depth), "r"(n + rank * (tileColumns / blocks)),
                "h"((uint16_t)((1 << blocks) - 1))
                : "memory");
          else
            asm volatile(
                "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
                "%4}], [%2];" ::"r"(to + sourceBytes),
                "l"(&weights), "r"(bar), "r"((tap * p.steps + c) * depth), "r"(n)
                : "memory");
        }
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
  const int consumer = group - 1, local = threadIdx.x % 128;
  const uint32_t mine = results + consumer * (resultBytes / 2);
  float sums[32];
  for (int tile = first; tile < all; tile += step) {
    const int m = (tile / p.tilesN * blocks + rank) * tileRows, n = tile % p.tilesN * tileColumns,
              last = p.taps * p.steps;
    int previous = 0;
    for (int k = 0; k < last; k++, next()) {
      const uint32_t from = base + stage * stageBytes;
      await(full + 8 * stage, phase);
      hold(sums);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int j = 0; j < depth / 16; j++)
        multiply(sums, described(from + consumer * (sourceBytes / 2) + 32 * j), described(from + sourceBytes + 32 * j),
                 k + j > 0);
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      if (k) {
        asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (local == 0) release(previous);
      }
      previous = stage;
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    hold(sums);
    if (local == 0) {
      release(previous);
      asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");  // of the tile before
    }
    asm volatile("bar.sync %0, 128;" ::"r"(1 + consumer) : "memory");
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      const int row = warp % 4 * 16 + (lane / 8 & 1) * 8 + lane % 8, chunk = j + lane / 16;
      asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(mine + row * rowBytes +
                                                                                            ((chunk ^ (row & 7)) << 4)),
                   "r"(pair(sums[4 * j], sums[4 * j + 1])), "r"(pair(sums[4 * j + 2], sums[4 * j + 3])),
                   "r"(pair(sums[4 * j + 4], sums[4 * j + 5])), "r"(pair(sums[4 * j + 6], sums[4 * j + 7]))
                   : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync %0, 128;" ::"r"(1 + consumer) : "memory");
    if (local == 0) {
      asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&result),
                   "r"(n), "r"(m + consumer * tileRows / 2), "r"(mine)
                   : "memory");
      asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    }
  }
  if (local == 0) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
  // The others may still arrive at this block's mbarriers.
  if constexpr (blocks > 1) asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

}  // namespace

extern "C" __global__ void __launch_bounds__(384, 1)
    convolve(const __grid_constant__ CUtensorMap source, const __grid_constant__ CUtensorMap weights,
             const __grid_constant__ CUtensorMap result, const Problem p) {
  convolveTiles<1>(source, weights, result, p);
}
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
    convolvePair(const __grid_constant__ CUtensorMap source, const __grid_constant__ CUtensorMap weights,
                 const __grid_constant__ CUtensorMap result, const Problem p) {
  convolveTiles<2>(source, weights, result, p);
}

/// The cluster as cooperative groups see it: the next block's words, added up in the first one, after the kernel ahead.
extern "C" __global__ void __cluster_dims__(4, 1, 1) pass(const int* from, int* to, int* sum) {
  __shared__ int words[64], total;
  cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  cudaGridDependencySynchronize();
  words[threadIdx.x] = from[blockIdx.x * 64 + threadIdx.x];
  if (threadIdx.x == 0) total = 0;
  cluster.sync();
  const int* next = cluster.map_shared_rank(words, (cluster.block_rank() + 1) % cluster.num_blocks());
  to[blockIdx.x * 64 + threadIdx.x] = next[63 - threadIdx.x];
  int* first = cluster.map_shared_rank(&total, 0);
  atomicAdd(first, next[threadIdx.x]);
  cluster.barrier_arrive();
  cluster.barrier_wait();
  cudaTriggerProgrammaticLaunchCompletion();
  if (threadIdx.x == 0 && cluster.block_rank() == 0 && __clusterDimIsSpecified())
    sum[blockIdx.x / cluster.dim_blocks().x] = total + cluster.query_shared_rank(first);
}
