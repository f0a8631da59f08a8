// The other way to a weight gradient, for any filter that an im2col tensor map tells: both operands come by TMA, swizzled rows of 64 channels of
// a pixel, and are multiplied as they lie, MN-major, by descriptors. The columns of a tile are four boxes of 64 channels of a tap.
//
// A pair is a cluster of two blocks that take neighbouring channels of diff_dst and the same columns: each loads half of src, for both.
#pragma once

#include "pipeline_sm90.cuh"
#include "wgrad_sm90.cuh"

// Blocks: grid.x = splits * tilesN * tilesM, the last one fastest, a multiple of the cluster.
struct Conv2dWgradTileSm90Params {
  TensorMap diffDst;  //   0 [pixel][1][outC], boxes of 64 channels and 64 pixels
  TensorMap src;  // 128 im2col [batch, inH, inW, inC], boxes of 64 channels and 64 pixels
  float* weights;  // 256 KRSC [outC, taps, inC] of split 0
  float* bias;  // 264 [outC] of split 0
  int64_t splitStride;  // 272 floats from one split to the next, even; 0 with one split
  int32_t accumulate;  // 280 1 adds to weights and bias; only with one split
  int32_t pixels;  // 284 batch * gridH * gridW
  int32_t pixelsPerSplit;  // 288 a multiple of 64; every split has some
  int32_t inC;  // 292
  int32_t outC;  // 296
  int32_t taps;  // 300
  int32_t tilesM;  // 304 of 128 channels of diff_dst, a multiple of the cluster
  int32_t tilesN;  // 308 of four boxes
  int32_t kernelW;  // 312
  int32_t gridH;  // 316 of diff_dst
  int32_t gridW;  // 320
  int32_t strideH;  // 324
  int32_t strideW;  // 328
  int32_t padTop;  // 332
  int32_t padLeft;  // 336
  int32_t dilationH;  // 340
  int32_t dilationW;  // 344
};
static_assert(sizeof(Conv2dWgradTileSm90Params) == 384, "padded to 64 bytes");

constexpr int kBoxBytes = 64 * 128;  // 64 channels of 64 pixels

template <int kCluster_, int kStages_>
struct WgradTileSm90 {
  static constexpr int kCluster = kCluster_;
  static constexpr int kStages = kStages_;
  static constexpr int kGroups = 2;  // warpgroups that multiply, 64 channels of diff_dst each
  static constexpr int kBoxes = 4;  // of src
  static constexpr int kStageBytes = (kGroups + kBoxes) * kBoxBytes;
  static constexpr int kBarriers = kStages * kStageBytes;
  static constexpr int kBytes = kBarriers + 16 * kStages;
  static constexpr int kLoaderRegisters = 40;
  static constexpr int kRegisters = 232;
};

template <class Tile>
struct WgradTileRing : Sm90Stages<Tile> {
  using Sm90Stages<Tile>::Sm90Stages;
  using Sm90Stages<Tile>::base;
  using Sm90Stages<Tile>::stage;

  __device__ __forceinline__ uint32_t diffDst() const { return base + stage * Tile::kStageBytes; }
  __device__ __forceinline__ uint32_t src() const { return diffDst() + Tile::kGroups * kBoxBytes; }
};

// A block's part of the problem.
struct WgradTilePart {
  int split;
  int firstOut;  // channel of diff_dst
  int firstBox;  // of src
  int begin;  // pixels
  int stages;  // of 64 of them

  __device__ __forceinline__ explicit WgradTilePart(const Conv2dWgradTileSm90Params& p) {
    int const block = blockIdx.x;
    firstOut = block % p.tilesM * 128;
    firstBox = block / p.tilesM % p.tilesN * 4;
    split = block / p.tilesM / p.tilesN;
    begin = split * p.pixelsPerSplit;
    stages = (min(p.pixels - begin, p.pixelsPerSplit) + 63) / 64;
  }
};

template <class Tile>
__device__ __forceinline__ void loadTile(const Conv2dWgradTileSm90Params& p, WgradTilePart part,
                                         WgradTileRing<Tile> ring) {
  constexpr int kOwn = Tile::kBoxes / Tile::kCluster;  // boxes of src that this block loads
  int const firstOwn = blockIdx.x % Tile::kCluster * kOwn;
  for (int step = 0; step < part.stages; ++step, ring.next()) {
    int const m = part.begin + step * 64;
    int const w = m % p.gridW * p.strideW - p.padLeft;
    int const h = m / p.gridW % p.gridH * p.strideH - p.padTop;
    int const image = m / p.gridW / p.gridH;
    uint32_t const full = ring.full(ring.stage);
    mbarrierWait(ring.empty(ring.stage), ring.phase ^ 1);
    mbarrierArriveExpecting(full, Tile::kStageBytes);
#pragma unroll
    for (int box = 0; box < Tile::kGroups; ++box) {
      loadBox(ring.diffDst() + box * kBoxBytes, p.diffDst, full, part.firstOut + box * 64, 0, m);
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      int const box = part.firstBox + firstOwn + i;
      int const tap = box % p.taps;
      uint32_t const to = ring.src() + (firstOwn + i) * kBoxBytes;
      int const offsetW = tap % p.kernelW * p.dilationW;
      int const offsetH = tap / p.kernelW * p.dilationH;
      if constexpr (Tile::kCluster == 1) {
        loadPixels(to, p.src, full, box / p.taps * 64, w, h, image, offsetW, offsetH);
      } else {
        loadPixelsFor((1 << Tile::kCluster) - 1, to, p.src, full, box / p.taps * 64, w, h, image,
                      offsetW, offsetH);
      }
    }
  }
}

template <class T, class Tile>
__device__ __forceinline__ void multiplyTile(const Conv2dWgradTileSm90Params& p, WgradTilePart part,
                                             WgradTileRing<Tile> ring) {
  int const group = threadIdx.x / 128 - 1;
  int const lane = threadIdx.x % 32;
  int const warp = threadIdx.x / 32 % 4;
  float sums[1][Tile::kBoxes / 2][64];
  float biasSums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  bool const withBias = part.firstBox == 0;
  uint32_t const transposed = transposedRow(warp, lane);
  for (int step = 0; step < part.stages; ++step, ring.next()) {
    mbarrierWait(ring.full(ring.stage), ring.phase);
    uint32_t const from = ring.diffDst() + group * kBoxBytes;
    uint64_t const a = rowsOf(from, kBoxBytes);
    uint64_t const b = rowsOf(ring.src(), kBoxBytes);
    hold(sums);
    wgmmaFence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {  // 16 pixels each
#pragma unroll
      for (int panel = 0; panel < Tile::kBoxes / 2; ++panel) {
        Wgmma<T>::template multiply<1, 1>(sums[0][panel], a + k * (16 * 128 >> 4),
                                          b + panel * (2 * kBoxBytes >> 4) + k * (16 * 128 >> 4),
                                          step + k > 0);
      }
    }
    wgmmaCommit();
    if (withBias) {  // a matrix of ones sums the pixels
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        uint32_t all[4];
        loadMatricesTransposed(all, from + k * 16 * 128 + transposed);
        T::multiply(biasSums, all, T::kOnes, T::kOnes);
      }
    }
    if (step > 0) {
      wgmmaWait<1>();
      __syncwarp();
      if (lane == 0) {
        handBack<Tile>(ring.emptyBefore());
      }
    }
  }
  wgmmaWait<0>();
  hold(sums);

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    int const out = part.firstOut + group * 64 + warp * 16 + lane / 4 + 8 * i;
    if (out >= p.outC) {
      continue;
    }
    if (withBias && lane % 4 == 0) {
      storeBias(p, part.split, out, biasSums[2 * i]);
    }
#pragma unroll
    for (int box = 0; box < Tile::kBoxes; ++box) {
      int const tap = (part.firstBox + box) % p.taps;
      int const firstIn = (part.firstBox + box) / p.taps * 64;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float* const x = &sums[0][box / 2][box % 2 * 32 + 4 * j + 2 * i];
        storeWeights(p, part.split, out, tap, firstIn + j * 8 + lane % 4 * 2, x);
      }
    }
  }
}

// A kernel of that tile.
template <class T, class Tile>
__device__ __forceinline__ void sumTiles(const Conv2dWgradTileSm90Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  WgradTileRing<Tile> ring{sharedAddress(shared)};
  WgradTilePart part(p);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kStages; ++i) {
      mbarrierInit(ring.full(i), 1);
      mbarrierInit(ring.empty(i), 4 * Tile::kGroups * Tile::kCluster);  // warps
    }
    mbarrierInitFence();
  }
  meetAtStart<Tile>();
  if (threadIdx.x < 128) {
    giveRegisters<Tile::kLoaderRegisters>();
    if (threadIdx.x < 32 && elected()) {
      loadTile<Tile>(p, part, ring);
      letNextStart();
    }
  } else {
    takeRegisters<Tile::kRegisters>();
    multiplyTile<T, Tile>(p, part, ring);
    meetAtEnd<Tile>();
  }
}
