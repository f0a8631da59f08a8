// What conv2d_fprop_sm90 and conv2d_dgrad_sm90 share: parameters, tiles, and the product by wgmma and TMA. Both gather rows of an activation
// `in` under a window and multiply them with packed weights, as conv2d.cuh tells for the kernels of all devices; here a dgrad is of stride 1,
// hence an fprop of diff_dst whose taps come in reverse.
//
// A block is a warpgroup that loads (one of its threads; the others idle) and two or three that multiply. As many blocks run as there are
// multiprocessors, each taking tiles in turn: pixels by channels of out. For each 64 channels of `in` and each tap, pixels (an im2col tensor
// map) and weights (a tiled one) come into a ring of stages, rows of 128 bytes swizzled by as many. A stage is handed back when the product after
// it was given. A tile's result leaves in slices of 64 channels, through shared memory by TMA, while the loads of the next tile are under way.
//
// A pair is a cluster of two blocks that take the tiles of neighbouring pixels and the same channels of out: each loads half of the weights, for
// both. So a stage is handed back to both, and where the tiles of pixels are odd in number, the last one lies outside and stores nothing.
//
// A kernel may be launched so that it starts while the one ahead still runs (programmatic dependent launch): before it waits for that one it
// makes its mbarriers and touches no global memory, and it lets the next one start when its blocks have asked for all that they load.
#pragma once

#include <cstdint>

#include "element.cuh"
#include "pipeline_sm90.cuh"

struct Conv2dSm90Params {
  TensorMap in;  //   0 im2col [batch, inH, inW, inC], boxes of 64 channels and a tile's pixels; for
      //     window tiles [pixel][1][inC], boxes of 64 channels and 32 pixels
  TensorMap
      filter;  // 128 [outC][tap][inC], boxes of 64 channels, one tap, a tile's columns, or half of them
  TensorMap out;  // 256 [pixel][1][outC], boxes of 64 channels and a warpgroup's pixels
  const float* bias;  // 384 fprop: [outC]
  const void* gate;  // 392 as out, or null; fprop: shortcut of a normalised sum; dgrad: src
  const void* old;  // 400 dgrad: out, where the gradient is added to it, or null
  uint32_t* signs;  // 408 as of conv2d.cuh, a word of 32 channels at once, or null
  float scale;  // 416
  float slope;  // 420
  float branchWeight;  // 424
  float shortcutWeight;  // 428
  int32_t tiles;  // 432 of a block, or of a pair
  int32_t tilesN;  // 436
  int32_t pixels;  // 440 batch * gridH * gridW
  int32_t outC;  // 444 a multiple of 8
  int32_t chunks;  // 448 of 64 channels of `in`, the last one filled with zeros
  int32_t taps;  // 452
  int32_t reversed;  // 456 1: tap t has the weights of tap taps - 1 - t
  int32_t steps;  // 460 taps * chunks
  int32_t kernelW;  // 464
  int32_t gridH;  // 468 of out
  int32_t gridW;  // 472
  int32_t strideH;  // 476
  int32_t strideW;  // 480
  int32_t padTop;  // 484
  int32_t padLeft;  // 488
  int32_t dilationH;  // 492
  int32_t dilationW;  // 496
  int32_t boxes;  // 500 of pixels that a window tile's buffer receives; else 0
  int32_t reserved[2];  // 504 zero
};
static_assert(sizeof(Conv2dSm90Params) == 512, "no padding");

constexpr int kRowBytes = 128;  // 64 channels, of a pixel or of an output channel's weights
constexpr int kBlockBytes = 64 * kRowBytes;  // what a wgmma takes of A, and a slice of its results

// Sizes of a tile: kGroups warpgroups multiply kBlocks times 64 pixels each; kCluster blocks share weights.
template <int kCluster_, int kGroups_, int kBlocks_, int kColumns_, int kStages_, int kSlices_>
struct Sm90Tile {
  static constexpr int kCluster = kCluster_;
  static constexpr int kGroups = kGroups_;
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kStages = kStages_;
  static constexpr int kSlices = kSlices_;  // that may be on their way out at once
  static_assert(kColumns / 64 % kSlices == 0, "a slice's place is the same in every tile");
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kRows = 64 * kGroups * kBlocks;
  static constexpr int kStageBytes = (kRows + kColumns) * kRowBytes;
  static constexpr int kSliceBytes = kRows * kRowBytes;
  static constexpr int kBarriers = kStages * kStageBytes + kSlices * kSliceBytes;
  static constexpr int kBytes = kBarriers + 16 * kStages;
  static constexpr int kLoaderRegisters = kGroups == 2 ? 40 : 32;
  static constexpr int kRegisters = kGroups == 2 ? 232 : 160;
};

// Where a stage lies.
template <class Tile>
struct Sm90Ring : Sm90Stages<Tile> {
  using Sm90Stages<Tile>::Sm90Stages;
  using Sm90Stages<Tile>::base;
  using Sm90Stages<Tile>::stage;

  __device__ __forceinline__ uint32_t pixels() const { return base + stage * Tile::kStageBytes; }
  __device__ __forceinline__ uint32_t weights() const { return pixels() + Tile::kRows * kRowBytes; }
  __device__ __forceinline__ uint32_t slices() const {
    return base + Tile::kStages * Tile::kStageBytes;
  }
};

// The taps that a tile multiplies, and where its pixels lie in `out`. Here all taps, and pixels side by side; conv2d_sm90_strided.cuh has
// those of a phase. `tapsOf` chooses by the type of the parameters.
struct Sm90Taps {
  const Conv2dSm90Params& p;
  const int& tile;  // among those of the same taps; not a copy, for which 192x256 has no register

  __device__ __forceinline__ int steps() const { return p.steps; }
  __device__ __forceinline__ int chunks() const { return p.chunks; }
  __device__ __forceinline__ int firstChannel() const { return 0; }
  __device__ __forceinline__ int count() const { return p.taps; }
  __device__ __forceinline__ int width() const { return p.kernelW; }
  // Of the first one, from the corner of a box.
  __device__ __forceinline__ int offsetH() const { return 0; }
  __device__ __forceinline__ int offsetW() const { return 0; }
  // The filter's tap whose weights are multiplied.
  __device__ __forceinline__ int weightsOf(int tap, int, int) const {
    return p.reversed ? p.taps - 1 - tap : tap;
  }
};
__device__ __forceinline__ Sm90Taps tapsOf(const Conv2dSm90Params& p, const int& tile) {
  return {p, tile};
}

// Of a block's tile.
template <class Tile>
__device__ __forceinline__ int firstPixel(const Conv2dSm90Params& p, int tile) {
  int const block = blockIdx.x % Tile::kCluster;
  return (tile / p.tilesN * Tile::kCluster + block) * Tile::kRows;
}

// A stage's weights: all of a tile's, or this block's part of them, for all blocks of the cluster.
template <class Tile>
__device__ __forceinline__ void loadWeights(const Conv2dSm90Params& p, uint32_t to, uint32_t full,
                                            int channel, int of, int n) {
  if constexpr (Tile::kCluster == 1) {
    loadBox(to, p.filter, full, channel, of, n);
  } else {
    int const row = blockIdx.x % Tile::kCluster * (Tile::kColumns / Tile::kCluster);
    loadBoxFor((1 << Tile::kCluster) - 1, to + row * kRowBytes, p.filter, full, channel, of,
               n + row);
  }
}

template <class Tile, class Params>
__device__ __forceinline__ void loadTiles(const Params& p, Sm90Ring<Tile> ring) {
  for (int tile = blockIdx.x / Tile::kCluster; tile < p.tiles; tile += gridDim.x / Tile::kCluster) {
    auto const taps = tapsOf(p, tile);
    int const m = firstPixel<Tile>(p, taps.tile);
    int const n = taps.tile % p.tilesN * Tile::kColumns;
    int const w = m % p.gridW * p.strideW - p.padLeft;
    int const h = m / p.gridW % p.gridH * p.strideH - p.padTop;
    int const image = m / p.gridW / p.gridH;
    for (int chunk = 0; chunk < taps.chunks(); ++chunk) {
      int const channel = taps.firstChannel() + chunk * 64;
      int tapH = 0;
      int tapW = 0;
      for (int tap = 0; tap < taps.count(); ++tap, ring.next()) {
        uint32_t const full = ring.full(ring.stage);
        mbarrierWait(ring.empty(ring.stage), ring.phase ^ 1);
        mbarrierArriveExpecting(full, Tile::kStageBytes);
        loadPixels(ring.pixels(), p.in, full, channel, w, h, image,
                   taps.offsetW() + tapW * p.dilationW, taps.offsetH() + tapH * p.dilationH);
        loadWeights<Tile>(p, ring.weights(), full, channel, taps.weightsOf(tap, tapH, tapW), n);
        if (++tapW == taps.width()) {
          tapW = 0;
          ++tapH;
        }
      }
    }
  }
}

// A slice, 64 channels of 16 pixels of a warp, as an epilogue sees it: a lane has two pixels, eight apart, and of each 8 channels two.
struct Sm90Slice {
  int lane;
  int pixel;  // the lane's first, of out; from Conv2dSm90Params::pixels on there are none
  int apart;  // how far the second is from it
  int channel;  // the slice's first

  __device__ __forceinline__ int pixelOf(int i) const { return pixel + i * apart; }

  // Of the j-th 8 channels, the lane's first.
  __device__ __forceinline__ int channelOf(int j) const { return channel + j * 8 + lane % 4 * 2; }
};

// Sums of a warpgroup: for each 64 pixels, panels of the columns that a wgmma takes.
template <class Tile>
constexpr int kPanel = Tile::kColumns < 128 ? Tile::kColumns : 128;
template <class Tile>
using Sm90Sums = float[Tile::kBlocks][Tile::kColumns / kPanel<Tile>][kPanel<Tile> / 2];

// 64 columns of 64 pixels from their sums to the rows of a slice; an epilogue says what is stored of the sums of 8 channels: two of its lane's
// first pixel, two of its second.
template <class Tile, class Epilogue>
__device__ __forceinline__ void fillSlice(Epilogue epilogue, uint32_t rows, int warpRow, int lane,
                                          const float (&sums)[kPanel<Tile> / 2], int column) {
  int const row = warpRow + lane % 16;
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    const float* const x = &sums[column % kPanel<Tile> / 2 + 4 * j];
    uint32_t packed[4];
    epilogue.pack(j, x, &packed[0]);
    epilogue.pack(j + 1, x + 4, &packed[2]);
    storeMatrices(rows + row * kRowBytes + (((j + lane / 16) ^ row % 8) << 4), packed);
  }
  epilogue.finish();
}

// A warpgroup's part of a tile from its sums, on its way out when it returns.
template <class T, class Tile, class Epilogue>
__device__ __forceinline__ void storeTile(const Conv2dSm90Params& p, const Sm90Taps& taps,
                                          uint32_t slices, int group, const Sm90Sums<Tile>& sums) {
  int const thread = threadAgain() % 128;
  int const lane = thread % 32;
  int const warpRow = thread / 32 * 16;
  int const m = firstPixel<Tile>(p, taps.tile) + group * Tile::kBlocks * 64;
  int const n = taps.tile % p.tilesN * Tile::kColumns;
#pragma unroll
  for (int column = 0; column < Tile::kColumns; column += 64) {
    uint32_t const to = slices + column / 64 % Tile::kSlices * Tile::kSliceBytes +
                        group * Tile::kBlocks * kBlockBytes;
    if (thread == 0) {
      bulkWaitRead<Tile::kSlices - 1>();  // the store that read this slice before
    }
    warpgroupBarrier(1 + group);
#pragma unroll
    for (int block = 0; block < Tile::kBlocks; ++block) {
      int const pixel = m + block * 64 + warpRow + lane / 4;
      fillSlice<Tile>(Epilogue(p, {lane, pixel, 8, n + column}), to + block * kBlockBytes, warpRow,
                      lane, sums[block][column / kPanel<Tile>], column);
    }
    proxyFence();
    warpgroupBarrier(1 + group);
    if (thread == 0) {
      if (n + column < p.outC) {
        storeBox(p.out, to, n + column, 0, m);
      }
      bulkCommit();
    }
  }
}

template <class T, class Tile, class Epilogue, class Params>
__device__ __forceinline__ void multiplyTiles(const Params& p, Sm90Ring<Tile> ring) {
  int const group = threadIdx.x / 128 - 1;
  bool const first = threadIdx.x % 128 == 0;
  Sm90Sums<Tile> sums;
  for (int tile = blockIdx.x / Tile::kCluster; tile < p.tiles; tile += gridDim.x / Tile::kCluster) {
    auto const taps = tapsOf(p, tile);
    for (int step = 0; step < taps.steps(); ++step, ring.next()) {
      mbarrierWait(ring.full(ring.stage), ring.phase);
      uint64_t const a = matrixOf(ring.pixels() + group * Tile::kBlocks * kBlockBytes);
      uint64_t const b = matrixOf(ring.weights());
      hold(sums);
      wgmmaFence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {  // 16 channels each: 32 bytes further
#pragma unroll
        for (int block = 0; block < Tile::kBlocks; ++block) {
#pragma unroll
          for (int panel = 0; panel < Tile::kColumns / kPanel<Tile>; ++panel) {
            Wgmma<T>::multiply(sums[block][panel], a + block * (kBlockBytes >> 4) + 2 * k,
                               b + panel * (kPanel<Tile> * kRowBytes >> 4) + 2 * k, step + k > 0);
          }
        }
      }
      wgmmaCommit();
      if (step > 0) {
        wgmmaWait<1>();
        if (first) {
          handBack<Tile>(ring.emptyBefore());
        }
      }
    }
    wgmmaWait<0>();
    hold(sums);
    if (first) {
      handBack<Tile>(ring.emptyBefore());
    }
    storeTile<T, Tile, Epilogue>(p, taps, ring.slices(), group, sums);
  }
  if (first) {
    bulkWaitRead<0>();
  }
}

// A kernel of that tile.
template <class T, class Tile, class Epilogue, class Params>
__device__ __forceinline__ void convolve(const Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Sm90Ring<Tile> ring{sharedAddress(shared)};
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kStages; ++i) {
      mbarrierInit(ring.full(i), 1);
      mbarrierInit(ring.empty(i), Tile::kGroups * Tile::kCluster);
    }
    mbarrierInitFence();
  }
  meetAtStart<Tile>();
  if (threadIdx.x < 128) {
    giveRegisters<Tile::kLoaderRegisters>();
    if (threadIdx.x < 32 && elected()) {
      loadTiles<Tile>(p, ring);
      letNextStart();
    }
  } else {
    takeRegisters<Tile::kRegisters>();
    multiplyTiles<T, Tile, Epilogue>(p, ring);
    meetAtEnd<Tile>();
  }
}

// Two bits: which of two are above zero.
__device__ __forceinline__ uint32_t above(float2 of) {
  return (of.x > 0.0f ? 1u : 0u) | (of.y > 0.0f ? 2u : 0u);
}

// A lane's two elements of a pixel of a tensor like out, zeros outside of it.
template <class T>
__device__ __forceinline__ float2 pairAt(const void* tensor, const Conv2dSm90Params& p, int pixel,
                                         int channel) {
  uint32_t both = 0;
  if (pixel < p.pixels && channel < p.outC) {
    both = *reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(tensor) +
                                              static_cast<int64_t>(pixel) * p.outC + channel);
  }
  return unpackPair<T>(both);
}

// The word of signs of 32 channels of a pixel.
__device__ __forceinline__ uint32_t* signWord(const Conv2dSm90Params& p, int pixel, int channel) {
  return p.signs + static_cast<int64_t>(channel / 32) * p.pixels + pixel;
}
