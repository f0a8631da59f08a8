// The weight gradient of conv2d_wgrad_sm90.cu by windows: a tap is a shift of src against diff_dst, by the same number of pixels everywhere, so
// a block that owns all taps asks L2 for its pixels once.
//
// src lies in a ring of pixels in shared memory, 8 planes of 16 bytes (8 channels) after 16 bytes: MN-major without a swizzle, where a matrix may
// start at any pixel. So B of a tap is a descriptor, shifted. A is diff_dst, transposed by ldmatrix, once for the three taps of a warpgroup;
// what a tap sees beyond the image's edge (pixels of the next row or image lie there) is multiplied by zero: each tap has a mask of A.
// Where such a pixel is not finite, neither are the sums of its channel, as are those of the taps that rightly see it.
//
// A warpgroup loads by cp.async (TMA would bring planes in pieces of 16 bytes, half sectors), and tells for each pixel which taps are inside;
// three multiply, a row of a 3x3 filter each, 96 sums a thread.
#pragma once

#include <cstdint>

#include "element.cuh"
#include "ptx_sm90.cuh"

// Blocks: grid.x = splits * tilesM * tilesN, tilesM = ceil(outC / 64), tilesN = ceil(inC / 64). Pieces of the workspace as of
// Conv2dWgradParams (conv2d.cuh).
struct Conv2dWgradSm90Params {
  const void* src;  //   0 NHWC [batch, height, width, inC]
  const void* diffDst;  //   8 NHWC [batch, height, width, outC]
  float* weights;  //  16 KRSC [outC, taps, inC] of split 0
  float* bias;  //  24 [outC] of split 0
  int64_t splitStride;  //  32 floats from one split to the next, even; 0 with one split
  int32_t accumulate;  //  40 1 adds to weights and bias; only with one split
  int32_t pixels;  //  44 batch * height * width
  int32_t pixelsPerSplit;  //  48 a multiple of 64; every split has some
  int32_t inC;  //  52
  int32_t outC;  //  56
  int32_t taps;  //  60 at most 9
  int32_t tilesM;  //  64
  int32_t tilesN;  //  68
  int32_t kernelW;  //  72
  int32_t height;  //  76
  int32_t width;  //  80
  int32_t padTop;  //  84
  int32_t padLeft;  //  88
  int32_t dilationH;  //  92
  int32_t dilationW;  //  96
  int32_t ahead;  // 100 stages of src before the first of diff_dst
};
static_assert(sizeof(Conv2dWgradSm90Params) == 104, "no padding");

template <int kStages_, int kRing_>
struct WgradWindow {
  static constexpr int kGroups = 3;  // warpgroups that multiply
  static constexpr int kTaps = 3;  // of each
  static constexpr int kStages = kStages_;  // of 64 pixels of diff_dst, swizzled rows of 128 bytes
  static constexpr int kRing = kRing_;  // pixels of src, a power of two
  static constexpr int kWrapped = 16;  // of them once more behind the last, for a wgmma from there
  static constexpr int kPitch =
      16 * (kRing + kWrapped) + 16;  // of a plane; copies fall into all banks
  static constexpr int kStageBytes = 64 * 128;
  static constexpr int kSrc = kStages * kStageBytes;
  static constexpr int kMasks = kSrc + 8 * kPitch;  // 16 bits a pixel: which taps are inside
  static constexpr int kBarriers = kMasks + kStages * 128;
  static constexpr int kLoads = kRing / 64;  // stages of src: as many may be ahead of the products
  static constexpr int kBytes = kBarriers + 8 * (kLoads + kStages);
  static constexpr int kPending = 3;  // stages whose copies are in flight
  static_assert((kRing & (kRing - 1)) == 0 && kRing % 64 == 0 && kPitch % 128 == 16);
};

// Where things are. Stage i brings 64 pixels of src, from the first that any tap of the split sees, and 64 pixels of diff_dst from those
// `ahead` stages before: with them all is there that they are multiplied with.
template <class Tile>
struct WgradRing {
  uint32_t base;

  __device__ __forceinline__ uint32_t stage(int of) const {
    return base + of % Tile::kStages * Tile::kStageBytes;
  }
  __device__ __forceinline__ uint32_t masks(int of) const {
    return base + Tile::kMasks + of % Tile::kStages * 128;
  }
  // Of what stage `of` brings; of a stage of diff_dst, and the pixels of src that only those before it need.
  __device__ __forceinline__ uint32_t full(int of) const {
    return base + Tile::kBarriers + of % Tile::kLoads * 8;
  }
  __device__ __forceinline__ uint32_t fullPhase(int of) const { return of / Tile::kLoads & 1; }
  __device__ __forceinline__ uint32_t empty(int of) const {
    return base + Tile::kBarriers + (Tile::kLoads + of % Tile::kStages) * 8;
  }
  __device__ __forceinline__ uint32_t emptyPhase(int of) const { return of / Tile::kStages & 1; }
};

// A block's part of the problem.
struct WgradPart {
  int split;
  int firstOut;  // channel of diff_dst
  int firstIn;  // of src
  int begin;  // pixels
  int stages;  // of 64 of them

  __device__ __forceinline__ explicit WgradPart(const Conv2dWgradSm90Params& p) {
    int const block = blockIdx.x;
    firstIn = block % p.tilesN * 64;
    firstOut = block / p.tilesN % p.tilesM * 64;
    split = block / p.tilesN / p.tilesM;
    begin = split * p.pixelsPerSplit;
    stages = (min(p.pixels - begin, p.pixelsPerSplit) + 63) / 64;
  }
};

// What taps see of src around a pixel lies inside the image: a bit for each.
__device__ __forceinline__ uint32_t tapsInside(const Conv2dWgradSm90Params& p, int pixel) {
  int const left = pixel % p.width - p.padLeft;
  int y = pixel / p.width % p.height - p.padTop;
  int x = left;
  uint32_t inside = 0;
  int column = 0;
  for (int tap = 0; tap < p.taps; ++tap) {
    bool const is = static_cast<uint32_t>(y) < static_cast<uint32_t>(p.height) &&
                    static_cast<uint32_t>(x) < static_cast<uint32_t>(p.width);
    inside |= (is ? 1u : 0u) << tap;
    x += p.dilationW;
    if (++column == p.kernelW) {
      column = 0;
      x = left;
      y += p.dilationH;
    }
  }
  return inside;
}

// What this thread copied has come, for the tensor cores too: with the other three warps a stage is full.
__device__ __forceinline__ void handOver(uint32_t full) {
  proxyFence();
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    mbarrierArrive(full);
  }
}

// Where a lane finds its row of 8 channels for loadMatricesTransposed, among 16 pixels of 128 bytes, swizzled by as many.
__device__ __forceinline__ uint32_t transposedRow(int warp, int lane) {
  return (lane % 8 + lane / 16 * 8) * 128 + (((warp * 2 + lane / 8 % 2) ^ lane % 8) << 4);
}

// A split's sum for the bias of a channel.
template <class Params>
__device__ __forceinline__ void storeBias(const Params& p, int split, int out, float sum) {
  float* const bias = p.bias + split * p.splitStride + out;
  *bias = p.accumulate ? *bias + sum : sum;
}

// A split's sums for two successive channels of src.
template <class Params>
__device__ __forceinline__ void storeWeights(const Params& p, int split, int out, int tap, int in,
                                             const float* sum) {
  if (tap < p.taps && in < p.inC) {
    float2* const to =
        reinterpret_cast<float2*>(p.weights + split * p.splitStride +
                                  (static_cast<int64_t>(out) * p.taps + tap) * p.inC + in);
    float2 const old = p.accumulate ? *to : float2{0.0f, 0.0f};
    *to = {old.x + sum[0], old.y + sum[1]};
  }
}

// Of 128 threads, each copies 8 channels of every 16th pixel.
template <class Tile>
__device__ __forceinline__ void loadWindow(const Conv2dWgradSm90Params& p, WgradPart part,
                                           WgradRing<Tile> ring) {
  int const plane = threadIdx.x % 8;
  int const row = threadIdx.x / 8;
  int const inChannel = part.firstIn + plane * 8;
  int const outChannel = part.firstOut + plane * 8;
  const uint16_t* const src = static_cast<const uint16_t*>(p.src) + inChannel;
  const uint16_t* const diffDst = static_cast<const uint16_t*>(p.diffDst) + outChannel;
  uint32_t const toSrc = ring.base + Tile::kSrc + plane * Tile::kPitch;
  uint32_t const toDst = row * 128 + ((plane ^ row % 8) << 4);
  int const firstSeen = part.begin - p.padTop * p.width - p.padLeft;
  int const loads = part.stages + p.ahead;
  for (int i = 0; i < loads; ++i) {
    int const step = i - p.ahead;
    if (step >= 0) {
      mbarrierWait(ring.empty(step), ring.emptyPhase(step) ^ 1);
    }
#pragma unroll
    for (int r = 0; r < 64; r += 16) {
      int const pixel = firstSeen + i * 64 + r + row;
      uint32_t const slot = (i * 64 + r + row) % Tile::kRing;
      bool const valid =
          static_cast<uint32_t>(pixel) < static_cast<uint32_t>(p.pixels) && inChannel < p.inC;
      const void* const from = src + static_cast<int64_t>(pixel) * p.inC;
      copyAsync16(toSrc + slot * 16, from, valid);
      if (slot < Tile::kWrapped) {
        copyAsync16(toSrc + (Tile::kRing + slot) * 16, from, valid);
      }
    }
    if (step >= 0) {
#pragma unroll
      for (int r = 0; r < 64; r += 16) {
        int const pixel = part.begin + step * 64 + r + row;
        copyAsync16(ring.stage(step) + toDst + r * 128,
                    diffDst + static_cast<int64_t>(pixel) * p.outC,
                    pixel < p.pixels && outChannel < p.outC);
      }
      if (threadIdx.x < 64) {
        uint32_t const inside = tapsInside(p, part.begin + step * 64 + threadIdx.x);
        asm volatile("st.shared.b16 [%0], %1;\n" ::"r"(ring.masks(step) + threadIdx.x * 2),
                     "h"(static_cast<uint16_t>(inside))
                     : "memory");
      }
    }
    copyAsyncCommit();
    if (i >= Tile::kPending) {
      copyAsyncWait<Tile::kPending>();
      handOver(ring.full(i - Tile::kPending));
    }
  }
  copyAsyncWait<0>();
  for (int i = max(loads - Tile::kPending, 0); i < loads; ++i) {
    handOver(ring.full(i));
  }
}

template <class T, class Tile>
__device__ __forceinline__ void multiplyWindow(const Conv2dWgradSm90Params& p, WgradPart part,
                                               WgradRing<Tile> ring) {
  int const group = threadIdx.x / 128 - 1;
  int const lane = threadIdx.x % 32;
  int const warp = threadIdx.x / 32 % 4;
  float sums[Tile::kTaps][1][32];
  float biasSums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  bool const withBias = part.firstIn == 0 && group == 0;
  int shift[Tile::kTaps];  // pixels of src
#pragma unroll
  for (int t = 0; t < Tile::kTaps; ++t) {
    int const tap = group * Tile::kTaps + t;
    shift[t] =
        tap < p.taps ? tap / p.kernelW * p.dilationH * p.width + tap % p.kernelW * p.dilationW : 0;
  }
  uint64_t const b = columnsOf(ring.base + Tile::kSrc, Tile::kPitch);
  uint32_t const transposed = transposedRow(warp, lane);
  uint32_t a[2][Tile::kTaps][4];
  for (int i = 0; i < part.stages + p.ahead; ++i) {
    mbarrierWait(ring.full(i), ring.fullPhase(i));
    int const step = i - p.ahead;
    if (step < 0) {
      continue;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {  // 16 pixels each
      uint32_t all[4];
      loadMatricesTransposed(all, ring.stage(step) + k * 16 * 128 + transposed);
      uint32_t const masks = ring.masks(step) + k * 32 + lane % 4 * 4;
      uint32_t const low = loadShared4(masks) >> group * Tile::kTaps;  // of two pixels
      uint32_t const high = loadShared4(masks + 16) >> group * Tile::kTaps;
#pragma unroll
      for (int t = 0; t < Tile::kTaps; ++t) {
        uint32_t const insideLow = (low >> t & 0x00010001u) * 0xffffu;
        uint32_t const insideHigh = (high >> t & 0x00010001u) * 0xffffu;
        a[k % 2][t][0] = all[0] & insideLow;
        a[k % 2][t][1] = all[1] & insideLow;
        a[k % 2][t][2] = all[2] & insideHigh;
        a[k % 2][t][3] = all[3] & insideHigh;
      }
      if (withBias) {  // a matrix of ones sums the pixels
        T::multiply(biasSums, all, T::kOnes, T::kOnes);
      }
      hold(sums);
#pragma unroll
      for (int r = 0; r < Tile::kTaps * 4; ++r) {  // computed before the fence, not after it
        asm volatile("" : "+r"(a[k % 2][r / 4][r % 4]));
      }
      wgmmaFence();
#pragma unroll
      for (int t = 0; t < Tile::kTaps; ++t) {
        uint32_t const slot = (step * 64 + k * 16 + shift[t]) % Tile::kRing;
        Wgmma<T>::template multiply<1>(sums[t][0], a[k % 2][t], b + slot, step + k > 0);
      }
      wgmmaCommit();
      wgmmaWait<1>();
      if (k == 0 && step > 0) {  // of the stage before all has been multiplied
        __syncwarp();
        if (lane == 0) {
          mbarrierArrive(ring.empty(step - 1));
        }
      }
    }
  }
  wgmmaWait<0>();
  hold(sums);

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    int const out = part.firstOut + warp * 16 + lane / 4 + 8 * i;
    if (out >= p.outC) {
      continue;
    }
    if (withBias && lane % 4 == 0) {
      storeBias(p, part.split, out, biasSums[2 * i]);
    }
#pragma unroll
    for (int t = 0; t < Tile::kTaps; ++t) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        storeWeights(p, part.split, out, group * Tile::kTaps + t,
                     part.firstIn + j * 8 + lane % 4 * 2, &sums[t][0][4 * j + 2 * i]);
      }
    }
  }
}

// A kernel of that tile.
template <class T, class Tile>
__device__ __forceinline__ void sumWindows(const Conv2dWgradSm90Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  WgradRing<Tile> ring{sharedAddress(shared)};
  WgradPart part(p);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kLoads; ++i) {
      mbarrierInit(ring.full(i), 4);  // warps
    }
    for (int i = 0; i < Tile::kStages; ++i) {
      mbarrierInit(ring.empty(i), 4 * Tile::kGroups);
    }
  }
  __syncthreads();
  awaitKernelsAhead();
  if (threadIdx.x < 128) {
    giveRegisters<32>();
    loadWindow<Tile>(p, part, ring);
    letNextStart();
  } else {
    takeRegisters<160>();
    multiplyWindow<T, Tile>(p, part, ring);
  }
}
