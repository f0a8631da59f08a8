// conv2d_chain_bprop_sm90_*: all gradients of two 1x1 convolutions and the rectifier between them in one pass, for compute capability 9.0, by
// wgmma and TMA. The wide tensor between them is computed again; neither it nor its gradient leaves the multiprocessor.
//
//   wide[m,w]      = phi1(bias1[w] + sum_c src[m,c] * W[w,c]), rounded to the type
//   diffWide[m,w]  = phi1'(wide[m,w]) * sum_k diff_dst[m,k] * V[k,w], rounded to the type
//   diff_src[m,c]  = ([diff_src +] sum_w diffWide[m,w] * W[w,c]) * g(src), g as of conv2d_dgrad
//   of V, bias2:     sum_m diff_dst[m,k] * wide[m,w], sum_m diff_dst[m,k]
//   of W, bias1:     sum_m diffWide[m,w] * src[m,c], sum_m diffWide[m,w]
//
// src, diff_dst and diff_src NHWC of 64 channels, 256 wide ones; bf16 or f16, sums f32. It reads 256 bytes of a pixel and writes 128; 5 products
// of 64 x 256. Sums over pixels stay in registers over all tiles of a block, which writes them once, as a split for conv2d_wgrad_reduce: so the
// grid decides their order, and they repeat. Per quarter j of the wide channels both warpgroups multiply their 64 pixels with W_j, V_j and W_j
// again; then, of all 128 pixels, one multiplies for W, the other for V: 4 x 32 sums, 32 of diff_src and 32 of the quarter at hand fill a thread's
// registers. The product for the next quarter is given before those three, so it is rectified under them. One of the loading warps adds up
// diffWide, another diff_dst.
//
// Tiles of 128 pixels: two stages of them, two quarters of wide in turn, all four of diffWide, and weights, in 225 KiB of shared memory. 384 threads;
// registers: 168 of the launch, 40 loading, 232 multiplying; no local memory. Shared parts: conv2d_chain_sm90.cuh. Oracle: backend/reference
// (HopperChainTest, Conv2dChainContractTest).
#include "conv2d_chain_sm90.cuh"

namespace {

using BackwardTile = Sm90ChainTile<2, 2, 2 + kQuarters>;

constexpr int kQuarterBarrier = 3;  // of those that multiply and the warp that adds up diffWide
constexpr int kQuarterThreads = 256 + 32;
constexpr int kFirstSums = kWide * kNarrow + kWide;  // from one block to the next
constexpr int kSecondSums = kWide * kNarrow + kNarrow;

__device__ __forceinline__ void quarterBarrier() {
  asm volatile("bar.sync %0, %1;\n" ::"n"(kQuarterBarrier), "n"(kQuarterThreads) : "memory");
}

// Where quarters lie: of W, V behind it; of the wide tensor; of its gradient.
__device__ __forceinline__ uint32_t weightsAt(const Sm90Ring<BackwardTile>& ring, int j) {
  return ring.base + BackwardTile::kWeights + j * kBlockBytes;
}
__device__ __forceinline__ uint32_t wideAt(const Sm90Ring<BackwardTile>& ring, int j) {
  return ring.base + BackwardTile::kFilled + j % 2 * kPixelsBytes;
}
__device__ __forceinline__ uint32_t diffWideAt(const Sm90Ring<BackwardTile>& ring, int j) {
  return ring.base + BackwardTile::kFilled + (2 + j) * kPixelsBytes;
}

// Where a lane stores 16 channels of a warpgroup's rows; further ones differ in bits 5 and 6.
__device__ __forceinline__ uint32_t laneOf(uint32_t rows) {
  uint32_t const thread = threadAgain() % 128;
  uint32_t const row = thread / 32 * 16 + thread % 16;
  return rows + row * kRowBytes + ((thread % 32 / 16 ^ row % 8) << 4);
}

// A thread's sums for the gradient of weights: rows that are kPitch apart, quarters kQuarter.
template <int kPitch, int kQuarter>
__device__ __forceinline__ void writeWeights(float* gradient, const float (&sums)[kQuarters][32]) {
  uint32_t const thread = threadAgain() % 128;
  float* const to = gradient + (thread / 32 * 16 + thread % 32 / 4) * kPitch + thread % 4 * 2;
#pragma unroll
  for (int j = 0; j < kQuarters; ++j) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      *reinterpret_cast<float2*>(to + j * kQuarter + i % 2 * 8 * kPitch + i / 2 * 8) =
          make_float2(sums[j][2 * i], sums[j][2 * i + 1]);
    }
  }
}

template <class T>
__device__ __forceinline__ void multiplyBackward(const Conv2dChainSm90Params& p,
                                                 Sm90Ring<BackwardTile> ring) {
  int const group = __shfl_sync(0xffffffffu, threadIdx.x / 128 - 1, 0);
  bool const first = threadIdx.x % 128 == 0;
  uint32_t const own = group * kBlockBytes;  // rows of this warpgroup
  float wide[1][1][32];  // of a quarter, or its gradient, or diff_src
  float weights[kQuarters][32];  // gradients: of W, or of V
  mbarrierWait(weightsFull(ring), 0);
  bool adds = false;
  for (int tile = blockIdx.x; tile < p.result.tiles; tile += gridDim.x, ring.next()) {
    mbarrierWait(ring.full(ring.stage), ring.phase);
    uint32_t const x = ring.pixels();
    uint32_t const dz = x + kPixelsBytes;
    wgmmaFence();
    multiplyRows<T>(wide[0][0], x + own, weightsAt(ring, 0));
    wgmmaCommit();
#pragma unroll
    for (int j = 0; j < kQuarters; ++j) {
      if (j == 0) {
        wgmmaWait<0>();
      } else {
        wgmmaWait<1>();  // the products over pixels go on
      }
      hold(wide);
      uint32_t positive = 0;  // a bit for each of the sums
      uint32_t to = laneOf(wideAt(ring, j) + own);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        uint32_t words[4];
        rectify16<T>(p, 4 * j + k, &wide[0][0][8 * k], words);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          positive |= above(unpackPair<T>(words[i])) << (8 * k + 2 * i);
        }
        storeMatrices(to ^ (k << 5), words);
      }
      wgmmaFence();
      multiplyRows<T>(wide[0][0], dz + own, weightsAt(ring, j) + kMatrixBytes);
      wgmmaCommit();
      if (j == 0) {  // where diff_src left from in the tile before
        if (first) {
          bulkWaitRead<0>();
        }
        warpgroupBarrier(1 + group);
      }
      wgmmaWait<0>();
      hold(wide);
      to = laneOf(diffWideAt(ring, j) + own);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* const d = &wide[0][0][8 * k + 2 * i];
          uint32_t const signs = positive >> (8 * k + 2 * i);
          words[i] = T::pack(d[0] * (p.scale * (signs & 1 ? 1.0f : p.slope)),
                             d[1] * (p.scale * (signs & 2 ? 1.0f : p.slope)));
        }
        storeMatrices(to ^ (k << 5), words);
      }
      proxyFence();
      quarterBarrier();
      wgmmaFence();
      if (j + 1 < kQuarters) {
        multiplyRows<T>(wide[0][0], x + own, weightsAt(ring, j + 1));
      } else {
#pragma unroll
        for (int k = 0; k < kWide / 16; ++k) {
          Wgmma<T>::template multiply<0, 1>(
              wide[0][0], matrixOf(diffWideAt(ring, k / 4) + own) + 2 * (k % 4),
              matrixOf(weightsAt(ring, k / 4)) + k % 4 * kNextRows, k > 0);
        }
      }
      wgmmaCommit();
      uint64_t const a = matrixOf(group == 0 ? diffWideAt(ring, j) : dz);
      uint64_t const b = matrixOf(group == 0 ? x : wideAt(ring, j));
#pragma unroll
      for (int k = 0; k < BackwardTile::kRows / 16; ++k) {
        Wgmma<T>::template multiply<1, 1>(weights[j], a + k * kNextRows, b + k * kNextRows,
                                          adds || k > 0);
      }
      wgmmaCommit();
    }
    adds = true;
    wgmmaWait<1>();
    hold(wide);
    storeTile<T, BackwardTile, DgradEpilogue<T>>(p.result, tapsOf(p.result, tile),
                                                 diffWideAt(ring, 0), group, wide);
    wgmmaWait<0>();
    if (first) {
      mbarrierArrive(ring.empty(ring.stage));
    }
  }
  int const block = blockIdx.x;
  if (group == 0) {
    writeWeights<kNarrow, 64 * kNarrow>(p.firstSums + int64_t{block} * kFirstSums, weights);
  } else {
    writeWeights<kWide, 64>(p.secondSums + int64_t{block} * kSecondSums, weights);
  }
  if (first) {
    bulkWaitRead<0>();
  }
}

// Adds up the lane's two channels of a tile's 64.
template <class T>
__device__ __forceinline__ void addRows(float2& sum, const unsigned char* rows) {
  int const lane = threadIdx.x % 32;
#pragma unroll 8
  for (int row = 0; row < BackwardTile::kRows; ++row) {
    float2 const of = unpackPair<T>(*reinterpret_cast<const uint32_t*>(
        rows + row * kRowBytes + ((lane / 4 ^ row % 8) << 4) + lane % 4 * 4));
    sum.x += of.x;
    sum.y += of.y;
  }
}

// The gradient of the first bias, by a warp.
template <class T>
__device__ __forceinline__ void addDiffWide(const Conv2dChainSm90Params& p,
                                            const unsigned char* shared) {
  float2 sums[kQuarters] = {};
  for (int tile = blockIdx.x; tile < p.result.tiles; tile += gridDim.x) {
#pragma unroll
    for (int j = 0; j < kQuarters; ++j) {
      quarterBarrier();
      addRows<T>(sums[j], shared + BackwardTile::kFilled + (2 + j) * kPixelsBytes);
    }
  }
  float* const to = p.firstSums + static_cast<int64_t>(blockIdx.x) * kFirstSums + kWide * kNarrow;
#pragma unroll
  for (int j = 0; j < kQuarters; ++j) {
    reinterpret_cast<float2*>(to + j * 64)[threadIdx.x % 32] = sums[j];
  }
}

// The gradient of the second bias, by a warp.
template <class T>
__device__ __forceinline__ void addDiffDst(const Conv2dChainSm90Params& p,
                                           Sm90Ring<BackwardTile> ring,
                                           const unsigned char* shared) {
  float2 sum = {};
  for (int tile = blockIdx.x; tile < p.result.tiles; tile += gridDim.x, ring.next()) {
    mbarrierWait(ring.full(ring.stage), ring.phase);
    addRows<T>(sum, shared + ring.stage * BackwardTile::kStageBytes + kPixelsBytes);
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      mbarrierArrive(ring.empty(ring.stage));
    }
  }
  float* const to = p.secondSums + static_cast<int64_t>(blockIdx.x) * kSecondSums + kWide * kNarrow;
  reinterpret_cast<float2*>(to)[threadIdx.x % 32] = sum;
}

template <class T>
__device__ __forceinline__ void chainBackward(const Conv2dChainSm90Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Sm90Ring<BackwardTile> ring{sharedAddress(shared)};
  initChain(ring, BackwardTile::kGroups + 1);
  meetAtStart<BackwardTile>();
  if (threadIdx.x < 128) {
    giveRegisters<BackwardTile::kLoaderRegisters>();
    int const warp = threadIdx.x / 32;
    if (warp == 0 && elected()) {
      loadChain<BackwardTile, true>(p, ring);
      letNextStart();
    } else if (warp == 1) {
      addDiffWide<T>(p, shared);
    } else if (warp == 2) {
      addDiffDst<T>(p, ring, shared);
    }
  } else {
    takeRegisters<BackwardTile::kRegisters>();
    multiplyBackward<T>(p, ring);
  }
}

static_assert(BackwardTile::kBytes == 229416, "HopperChain");

}  // namespace

#define CHAIN(name, type)                                                                          \
  extern "C" __global__ void __launch_bounds__(384, 1)                                             \
      name(const __grid_constant__ Conv2dChainSm90Params params) {                                 \
    chainBackward<type>(params);                                                                   \
  }
CHAIN(conv2d_chain_bprop_sm90_bf16, Bf16)
CHAIN(conv2d_chain_bprop_sm90_f16, F16)
