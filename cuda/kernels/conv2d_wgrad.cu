// conv2d_wgrad_* and conv2d_wgrad_reduce: gradients of weights and bias, deterministic.
//
//   diff_weights[k,r,s,c] = [itself +] sum_{n,p,q} diff_dst[n,p,q,k]
//                                      * src[n, p*sh - pt + r*dh, q*sw - pl + s*dw, c]
//   diff_bias[k]          = [itself +] sum_{n,p,q} diff_dst[n,p,q,k]
//
// A matrix product with M = k, N = the filter columns (r,s,c), and the pixels (n,p,q) contracted.
// The output is small and the contraction long, so pixels are split over blocks; each split writes
// its own piece of a workspace and conv2d_wgrad_reduce adds the pieces in order. No atomics: the
// result is the same in every run. Blocks of the first column tile sum diff_dst for the bias from
// the operand they hold anyway.
//
// A tile's columns are taken in units of up to 64 channels, all taps of a unit before the next unit:
// the taps that share a tile read nearly the same pixels, for which src is copied through L1.
//
// src, diff_dst NHWC; gradients f32 KRSC; sums in f32; one group. Variants (conv2d_variants.def):
// _stem for few source channels (1 to 7: columns are gathered element by element, so no product is
// spent on padded channels), _stem4 for four (a copy of 8 bytes per tap), _any for every channel
// count. Registers: 212 for 64x64 warp tiles of tensor cores, 92 to 160 for the others; no local
// memory. Oracle: backend/reference, cuda/tests.
#include "conv2d.cuh"
#include "wgrad_tile.cuh"

namespace {

// The tap and the source channel of a column in the order of tiles.
__device__ __forceinline__ uint32_t tapOf(const Conv2dWgradParams& p, uint32_t column,
                                          uint32_t& channel) {
  uint32_t inUnit;
  uint32_t tap;
  uint32_t const unit = p.byTaps.split(p.byUnit.split(column, inUnit), tap);
  channel = unit * p.byUnit.divisor + inUnit;
  return tap;
}

// How many rows of so many chunks the threads of a block fill at a time: a power of two, so that it
// divides a stage; threads that are left over fill none.
constexpr int rowsPerPass(int threads, int chunks) {
  int rows = 1;
  while (2 * rows * chunks <= threads) {
    rows *= 2;
  }
  return rows;
}

// Fills stages. A thread owns one chunk of kVector channels of diff_dst and one of filter columns,
// and every kRowsPerPass-th pixel row of a stage.
template <class T, class Tile, int kBlockM, int kBlockN, int kDstChannels, int kSrcChannels>
struct WgradLoader {
  using Storage = typename T::Storage;
  static constexpr int kVector = T::kVector;
  static constexpr int kChunksA = kBlockM / kVector;
  static constexpr int kChunksB = kBlockN / kVector;
  static constexpr int kRowsPerPassA = rowsPerPass(Tile::kThreads, kChunksA);
  static constexpr int kRowsPerPassB = rowsPerPass(Tile::kThreads, kChunksB);
  static constexpr int kPassesA = Tile::kStageK / kRowsPerPassA;
  static constexpr int kPassesB = Tile::kStageK / kRowsPerPassB;
  static_assert(Tile::kStageK % kRowsPerPassA == 0 && Tile::kStageK % kRowsPerPassB == 0);
  static constexpr int kKeyPeriod = sizeof(Storage) == 2 ? 8 : 4;
  static_assert(kRowsPerPassA % kKeyPeriod == 0 && kRowsPerPassB % kKeyPeriod == 0,
                "rows of a thread share their swizzle");
  static constexpr bool kAllFillA = kRowsPerPassA * kChunksA == Tile::kThreads;
  static_assert(kRowsPerPassB * kChunksB == Tile::kThreads && (kAllFillA || kDstChannels > 1));
  // Taps that a chunk of columns may hold.
  static constexpr int kTaps = kSrcChannels < kVector ? kVector / kSrcChannels : 1;
  // 16-bit elements cannot be copied one by one asynchronously: they pass through registers, loaded
  // before the block multiplies a stage and stored after it.
  static constexpr bool kHoldsA = kDstChannels == 1 && sizeof(Storage) == 2;
  static constexpr bool kHoldsB = kSrcChannels == 1 && sizeof(Storage) == 2;

  const Conv2dWgradParams& p;
  int end;  // one past the last pixel of this split
  int channel;
  int rowA;
  int rowB;
  uint32_t offsetA;  // of its first row in a stage
  uint32_t offsetB;
  int dy[kTaps];
  int dx[kTaps];
  int64_t tapOffset[kTaps];
  uint4 heldA[kHoldsA ? kPassesA : 1];
  uint4 heldB[kHoldsB ? kPassesB : 1];

  __device__ __forceinline__ WgradLoader(const Conv2dWgradParams& params, int tileM, int tileN,
                                         int endPixel)
      : p(params), end(endPixel) {
    int const chunkA = threadIdx.x % kChunksA;
    rowA = threadIdx.x / kChunksA;
    int const chunkB = threadIdx.x % kChunksB;
    rowB = threadIdx.x / kChunksB;
    channel = tileM * kBlockM + chunkA * kVector;
    offsetA = rowA * Tile::kPitchA + ((chunkA ^ swizzleKey<T>(rowA)) << 4);
    offsetB = rowB * Tile::kPitchB + ((chunkB ^ swizzleKey<T>(rowB)) << 4);
#pragma unroll
    for (int e = 0; e < kTaps; ++e) {
      uint32_t const column = tileN * kBlockN + chunkB * kVector + e * (kVector / kTaps);
      uint32_t c;
      uint32_t s;
      uint32_t const r = p.byKernelW.split(tapOf(p, column, c), s);
      // A column past the end lies far above the image.
      dy[e] = static_cast<int>(column) < p.columns ? static_cast<int>(r) * p.dilationH - p.padTop
                                                   : -(1 << 30);
      dx[e] = static_cast<int>(s) * p.dilationW - p.padLeft;
      tapOffset[e] = (static_cast<int64_t>(dy[e]) * p.inW + dx[e]) * p.inC + c;
    }
  }

  __device__ __forceinline__ uint32_t placeA(uint32_t stage, int i) const {
    return stage + offsetA + i * kRowsPerPassA * Tile::kPitchA;
  }

  __device__ __forceinline__ uint32_t placeB(uint32_t stage, int i) const {
    return stage + offsetB + i * kRowsPerPassB * Tile::kPitchB;
  }

  __device__ __forceinline__ void load(uint32_t aStage, uint32_t bStage, int firstPixel) {
    const Storage* const rowsA = static_cast<const Storage*>(p.diffDst) +
                                 static_cast<int64_t>(firstPixel + rowA) * p.outC + channel;
#pragma unroll
    for (int i = 0; i < kPassesA; ++i) {
      int const pixel = firstPixel + rowA + i * kRowsPerPassA;
      const Storage* const from = rowsA + i * kRowsPerPassA * p.outC;
      auto const address = [&](int e) { return from + e; };
      auto const valid = [&](int e) { return (pixel < end) & (channel + e < p.outC); };
      if constexpr (kHoldsA) {
        heldA[i] = loadElements(address, valid);
      } else if constexpr (kDstChannels == 1) {
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          copyAsyncCached<4>(placeA(aStage, i) + 4 * e, address(e), valid(e));
        }
      } else {
        if (kAllFillA || rowA < kRowsPerPassA) {
          copyAsync16(placeA(aStage, i), from, valid(0));
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kPassesB; ++i) {
      int const pixel = firstPixel + rowB + i * kRowsPerPassB;
      uint32_t inImage;
      uint32_t q;
      uint32_t const n = p.byOutPixels.split(pixel, inImage);
      uint32_t const pRow = p.byOutW.split(inImage, q);
      int const y = pixel < end ? static_cast<int>(pRow) * p.strideH : -(1 << 30);
      int const x = static_cast<int>(q) * p.strideW;
      // Pixels are counted in 32 bits (unsigned: what lies outside may wrap, it is not read).
      int const source = static_cast<int>((n * p.inH + y) * p.inW + x);
      const Storage* const from =
          static_cast<const Storage*>(p.src) + static_cast<int64_t>(source) * p.inC;
      auto const address = [&](int e) { return from + tapOffset[e]; };
      auto const valid = [&](int e) {
        return (static_cast<unsigned>(y + dy[e]) < static_cast<unsigned>(p.inH)) &
               (static_cast<unsigned>(x + dx[e]) < static_cast<unsigned>(p.inW));
      };
      if constexpr (kHoldsB) {
        heldB[i] = loadElements(address, valid);
      } else {
#pragma unroll
        for (int e = 0; e < kTaps; ++e) {
          constexpr int kBytes = 16 / kTaps;
          copyAsyncCached<kBytes>(placeB(bStage, i) + e * kBytes, address(e), valid(e));
        }
      }
    }
  }

  // Stores what load() held back.
  __device__ __forceinline__ void deposit(uint32_t aStage, uint32_t bStage) const {
    if constexpr (kHoldsA) {
#pragma unroll
      for (int i = 0; i < kPassesA; ++i) {
        storeShared16(placeA(aStage, i), heldA[i]);
      }
    }
    if constexpr (kHoldsB) {
#pragma unroll
      for (int i = 0; i < kPassesB; ++i) {
        storeShared16(placeB(bStage, i), heldB[i]);
      }
    }
  }

  // 16 bytes, element by element: address(e) where valid(e), else zero.
  template <class Address, class Valid>
  static __device__ __forceinline__ uint4 loadElements(Address address, Valid valid) {
    uint32_t words[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      uint32_t const low = valid(2 * e) ? __ldg(address(2 * e)) : 0;
      uint32_t const high = valid(2 * e + 1) ? __ldg(address(2 * e + 1)) : 0;
      words[e] = low | high << 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
};

__device__ __forceinline__ void writeVector(float* out, const float (&sum)[2], bool accumulate) {
  float2* const to = reinterpret_cast<float2*>(out);
  float2 const old = accumulate ? *to : make_float2(0.0f, 0.0f);
  *to = make_float2(old.x + sum[0], old.y + sum[1]);
}

__device__ __forceinline__ void writeVector(float* out, const float (&sum)[4], bool accumulate) {
  float4* const to = reinterpret_cast<float4*>(out);
  float4 const old = accumulate ? *to : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  *to = make_float4(old.x + sum[0], old.y + sum[1], old.z + sum[2], old.w + sum[3]);
}

template <class T, int kBlockM, int kBlockN, int kStages, int kWarpM, int kWarpN, int kDstChannels,
          int kSrcChannels>
__device__ __forceinline__ void wgrad(const Conv2dWgradParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  using Tile = WgradTile<T, kBlockM, kBlockN, kWarpM, kWarpN>;
  constexpr int kStageBytes = Tile::kStageK * (Tile::kPitchA + Tile::kPitchB);
  constexpr int kOffsetB = Tile::kStageK * Tile::kPitchA;

  uint32_t tileN;
  uint32_t tileM;
  uint32_t const split = p.byTilesM.split(p.byTilesN.split(blockIdx.x, tileN), tileM);
  int const begin = static_cast<int>(split) * p.pixelsPerSplit;
  int const end = static_cast<int>(
      min(static_cast<int64_t>(begin) + p.pixelsPerSplit, static_cast<int64_t>(p.pixels)));
  int const stages = (end - begin + Tile::kStageK - 1) / Tile::kStageK;

  Tile tile;
  WgradLoader<T, Tile, kBlockM, kBlockN, kDstChannels, kSrcChannels> loader(p, tileM, tileN, end);
  bool const withBias = tileN == 0 && tile.ownsBias();
  uint32_t const base = sharedAddress(shared);
  // One group is committed per stage, empty ones too, so that waiting by count stays right.
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < stages) {
      loader.load(base + s * kStageBytes, base + s * kStageBytes + kOffsetB,
                  begin + s * Tile::kStageK);
      loader.deposit(base + s * kStageBytes, base + s * kStageBytes + kOffsetB);
    }
    copyAsyncCommit();
  }
  uint32_t readAt = base;
  uint32_t writeAt = base + (kStages - 1) * kStageBytes;
  for (int s = 0; s < stages; ++s) {
    copyAsyncWait<kStages - 2>();
    // Stage s is complete for all threads, and all have finished reading stage s - 1, whose place
    // is filled next.
    __syncthreads();
    // The first products are under way while addresses are computed for the next copies.
    tile.multiply(readAt, readAt + kOffsetB, withBias, 0);
    bool const more = s + kStages - 1 < stages;
    if (more) {
      loader.load(writeAt, writeAt + kOffsetB, begin + (s + kStages - 1) * Tile::kStageK);
    }
    copyAsyncCommit();
#pragma unroll
    for (int step = 1; step < Tile::kSteps; ++step) {
      tile.multiply(readAt, readAt + kOffsetB, withBias, step);
    }
    if (more) {
      loader.deposit(writeAt, writeAt + kOffsetB);
    }
    writeAt = readAt;
    readAt = readAt + kStageBytes < base + kStages * kStageBytes ? readAt + kStageBytes : base;
  }

  float* const weights = p.weights + static_cast<int64_t>(split) * p.splitStride;
  int place[Tile::kVectors];  // in a row of the gradient; negative past its end
#pragma unroll
  for (int v = 0; v < Tile::kVectors; ++v) {
    uint32_t const column = tileN * kBlockN + tile.column(v);
    uint32_t c;
    uint32_t const tap = tapOf(p, column, c);
    place[v] = static_cast<int>(column) < p.columns ? static_cast<int>(tap * p.inC + c) : -1;
  }
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
    int const k = static_cast<int>(tileM) * kBlockM + tile.row(i);
    if (k >= p.outC) {
      continue;
    }
    if (withBias && tile.writesBias()) {
      float* const bias = p.bias + static_cast<int64_t>(split) * p.splitStride + k;
      *bias = p.accumulate ? *bias + tile.readBias(i) : tile.readBias(i);
    }
#pragma unroll
    for (int v = 0; v < Tile::kVectors; ++v) {
      if (place[v] < 0) {
        continue;
      }
      float* const out = weights + static_cast<int64_t>(k) * p.columns + place[v];
      float sum[Tile::kVector];
      tile.read(i, v, sum);
      if (p.vectorOut) {
        writeVector(out, sum, p.accumulate != 0);
      } else {
#pragma unroll
        for (int e = 0; e < Tile::kVector; ++e) {
          if (place[v] + e < p.columns) {
            out[e] = p.accumulate ? out[e] + sum[e] : sum[e];
          }
        }
      }
    }
  }
}

}  // namespace

#define WGRAD(name, type, dstChannels, srcChannels, blockM, blockN, blockK, stages, warpM, warpN,  \
              threads, bytes)                                                                      \
  static_assert(WgradTile<type, blockM, blockN, warpM, warpN>::kThreads == threads);               \
  static_assert(WgradTile<type, blockM, blockN, warpM, warpN>::kStageK == blockK);                 \
  static_assert(stages * blockK * (blockM + blockN) * sizeof(type::Storage) == bytes);             \
  extern "C" __global__ void __launch_bounds__(threads, blocksPerMultiprocessor<type>(threads))    \
      name(const __grid_constant__ Conv2dWgradParams params) {                                     \
    wgrad<type, blockM, blockN, stages, warpM, warpN, dstChannels, srcChannels>(params);           \
  }
#define FPROP(...)
#define FPROP_STEM(...)
#define FPROP_PANEL(...)
#define DGRAD(...)
#define DGRAD_PANEL(...)
#include "conv2d_variants.def"

__device__ __forceinline__ void addVector(float (&sum)[4], float4 term) {
  sum[0] += term.x;
  sum[1] += term.y;
  sum[2] += term.z;
  sum[3] += term.w;
}

// Sums of four successive gradients over all splits. Elements past the weights are the bias. The
// threads of a block form `groups` groups, each of which adds a range of splits in their order; the
// groups' sums are added in theirs. 4 KiB of shared memory.
extern "C" __global__ void __launch_bounds__(256)
    conv2d_wgrad_reduce(const __grid_constant__ Conv2dReduceParams p) {
  __shared__ float4 partial[256];
  int const columns = 256 / p.groups;
  int const group = static_cast<int>(threadIdx.x) / columns;
  int64_t const first =
      (static_cast<int64_t>(blockIdx.x) * columns + static_cast<int>(threadIdx.x) % columns) * 4;
  int const count = static_cast<int>(
      max(min(p.weightsCount + p.outC - first, static_cast<int64_t>(4)), static_cast<int64_t>(0)));
  int s = static_cast<int>(static_cast<int64_t>(p.splits) * group / p.groups);
  int const end = static_cast<int>(static_cast<int64_t>(p.splits) * (group + 1) / p.groups);
  // Pieces are padded to a multiple of 4, so whole vectors can be read even at the end; what lies
  // behind the bias is never written by anyone and is not read either.
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  const float* from = p.partial + s * p.splitStride + first;
  if (count == 4) {
    constexpr int kBatch = 8;  // loads in flight
    for (; s + kBatch <= end; s += kBatch, from += kBatch * p.splitStride) {
      float4 part[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        part[i] = __ldg(reinterpret_cast<const float4*>(from + i * p.splitStride));
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        addVector(sum, part[i]);
      }
    }
    for (; s < end; ++s, from += p.splitStride) {
      addVector(sum, __ldg(reinterpret_cast<const float4*>(from)));
    }
  } else {
    for (; s < end; ++s, from += p.splitStride) {
#pragma unroll
      for (int e = 0; e < 3; ++e) {
        sum[e] += e < count ? __ldg(from + e) : 0.0f;
      }
    }
  }
  if (p.groups > 1) {
    partial[threadIdx.x] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    __syncthreads();
    for (int other = 1; group == 0 && other < p.groups; ++other) {
      addVector(sum, partial[other * columns + threadIdx.x]);
    }
  }
  if (group > 0) {
    return;
  }
  if (p.vectorOut && first + 4 <= p.weightsCount) {
    writeVector(p.weights + first, sum, p.accumulate != 0);
    return;
  }
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    if (e < count) {
      float* const out = first + e < p.weightsCount ? p.weights + first + e
                                                    : p.bias + (first + e - p.weightsCount);
      *out = p.accumulate ? *out + sum[e] : sum[e];
    }
  }
}
