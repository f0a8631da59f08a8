// The other way to the product of conv2d_sm90.cuh, for filters larger than 1x1 of stride 1 whose result has the extent of `in`: a tile's pixels
// lie side by side, hence so does all that its taps see, and it is loaded once for 64 channels instead of once for each tap. Taps then shift the
// rows of A, to where no descriptor of a swizzled tile can point: a warp fetches them by ldmatrix, a row of zeros where a tap leaves the image,
// and wgmma takes A from registers.
//
// Pixels of 64 channels lie in one of two buffers, weights of a tap in a ring of stages. Two warpgroups multiply, two blocks of 64 pixels each:
// while the one is multiplied, the other's rows are fetched.
#pragma once

#include "conv2d_sm90.cuh"

constexpr int kWindowBox = 32;  // pixels that a copy brings

template <int kCluster_, int kColumns_, int kStages_, int kPixels_>
struct Sm90Window {
  static constexpr int kCluster = kCluster_;
  static constexpr int kGroups = 2;
  static constexpr int kBlocks = 2;
  static constexpr int kColumns = kColumns_;
  static constexpr int kStages = kStages_;
  static constexpr int kPixels = kPixels_;  // of in, that a buffer holds
  static constexpr int kSlices = 1;
  static constexpr int kThreads = 384;
  static constexpr int kRows = 64 * kGroups * kBlocks;
  static constexpr int kBufferBytes = kPixels * kRowBytes;
  static constexpr int kStageBytes = kColumns * kRowBytes;
  static constexpr int kSliceBytes = kRows * kRowBytes;
  static constexpr int kFirstSlice = 2 * kBufferBytes + kStages * kStageBytes;
  static constexpr int kZeros = kFirstSlice + kSliceBytes;  // where a row of them is
  static constexpr int kBarriers = kZeros + kRowBytes;
  static constexpr int kBytes = kBarriers + 16 * (kStages + 2);
  static constexpr int kLoaderRegisters = 40;
  static constexpr int kRegisters = 232;
};

// Places in the ring of weights and among the buffers of pixels.
template <class Tile>
struct Sm90WindowRing : Sm90Stages<Tile> {
  using Sm90Stages<Tile>::Sm90Stages;
  using Sm90Stages<Tile>::base;
  using Sm90Stages<Tile>::stage;
  using Sm90Stages<Tile>::full;
  uint32_t buffer = 0;  // how many before: odd ones are the second, and the second bit is the phase

  __device__ __forceinline__ uint32_t pixels() const {
    return base + buffer % 2 * Tile::kBufferBytes;
  }
  __device__ __forceinline__ uint32_t bufferPhase() const { return buffer >> 1 & 1; }
  __device__ __forceinline__ uint32_t weights() const {
    return base + 2 * Tile::kBufferBytes + stage * Tile::kStageBytes;
  }
  __device__ __forceinline__ uint32_t bufferFull(int of) const {
    return full(of + 2 * Tile::kStages);
  }
  __device__ __forceinline__ uint32_t bufferEmpty(int of) const { return bufferFull(of + 2); }
};

// Pixels before a tile's first that its taps see.
template <class Taps>
__device__ __forceinline__ int pixelsBefore(const Conv2dSm90Params& p, const Taps& taps) {
  return (p.padTop - taps.offsetH()) * p.gridW + p.padLeft - taps.offsetW();
}

// Copies that bring them.
template <class Tile>
__device__ __forceinline__ int boxesOf(const Conv2dSm90Params& p, const Sm90Taps&) {
  return p.boxes;
}

template <class Tile, class Params>
__device__ __forceinline__ void loadWindows(const Params& p, Sm90WindowRing<Tile> ring) {
  for (int tile = blockIdx.x / Tile::kCluster; tile < p.tiles; tile += gridDim.x / Tile::kCluster) {
    auto const taps = tapsOf(p, tile);
    int const m = firstPixel<Tile>(p, taps.tile) - pixelsBefore(p, taps);
    int const n = taps.tile % p.tilesN * Tile::kColumns;
    int const boxes = boxesOf<Tile>(p, taps);
    for (int chunk = 0; chunk < taps.chunks(); ++chunk, ++ring.buffer) {
      int const channel = taps.firstChannel() + chunk * 64;
      uint32_t const full = ring.bufferFull(ring.buffer % 2);
      mbarrierWait(ring.bufferEmpty(ring.buffer % 2), ring.bufferPhase() ^ 1);
      mbarrierArriveExpecting(full, boxes * kWindowBox * kRowBytes);
      for (int box = 0; box < boxes; ++box) {
        loadBox(ring.pixels() + box * kWindowBox * kRowBytes, p.in, full, channel, 0,
                m + box * kWindowBox);
      }
      int tapH = 0;
      int tapW = 0;
      for (int tap = 0; tap < taps.count(); ++tap, ring.next()) {
        uint32_t const loaded = ring.full(ring.stage);
        mbarrierWait(ring.empty(ring.stage), ring.phase ^ 1);
        mbarrierArriveExpecting(loaded, Tile::kStageBytes);
        loadWeights<Tile>(p, ring.weights(), loaded, channel, taps.weightsOf(tap, tapH, tapW), n);
        if (++tapW == taps.width()) {
          tapW = 0;
          ++tapH;
        }
      }
    }
  }
}

template <class T, class Tile, class Epilogue, class Params>
__device__ __forceinline__ void multiplyWindows(const Params& p, Sm90WindowRing<Tile> ring) {
  int const group = threadIdx.x / 128 - 1;
  int const lane = threadIdx.x % 32;
  bool const first = threadIdx.x % 128 == 0;
  // The lane's row of A in each block, and which half of 16 channels it points to.
  int const laneRow = group * Tile::kBlocks * 64 + threadIdx.x % 128 / 32 * 16 + lane % 16;
  int const half = lane / 16;
  Sm90Sums<Tile> sums;
  uint32_t a[Tile::kBlocks][4][4];  // of 16 channels each
  for (int tile = blockIdx.x / Tile::kCluster; tile < p.tiles; tile += gridDim.x / Tile::kCluster) {
    auto const taps = tapsOf(p, tile);
    int y[Tile::kBlocks];
    int x[Tile::kBlocks];
#pragma unroll
    for (int block = 0; block < Tile::kBlocks; ++block) {
      int const pixel = firstPixel<Tile>(p, taps.tile) + laneRow + block * 64;
      x[block] = pixel % p.gridW - p.padLeft + taps.offsetW();
      y[block] = pixel / p.gridW % p.gridH - p.padTop + taps.offsetH();
    }
    for (int chunk = 0; chunk < taps.chunks(); ++chunk, ++ring.buffer) {
      mbarrierWait(ring.bufferFull(ring.buffer % 2), ring.bufferPhase());
      int tapY = 0;
      int tapX = 0;
      for (int tap = 0; tap < taps.count(); ++tap, ring.next()) {
        mbarrierWait(ring.full(ring.stage), ring.phase);
        uint64_t const b = matrixOf(ring.weights());
#pragma unroll
        for (int block = 0; block < Tile::kBlocks; ++block) {
          int const row = laneRow + block * 64 + tapY * p.gridW + tapX;
          bool const inside =
              static_cast<uint32_t>(y[block] + tapY) < static_cast<uint32_t>(p.gridH) &&
              static_cast<uint32_t>(x[block] + tapX) < static_cast<uint32_t>(p.gridW);
          uint32_t const from = inside ? ring.pixels() + row * kRowBytes : ring.base + Tile::kZeros;
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            loadMatrices(a[block][k], from + (((2 * k + half) ^ row % 8) << 4));
          }
          hold(sums);
          wgmmaFence();
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            Wgmma<T>::multiply(sums[block][0], a[block][k], b + 2 * k, chunk + tap + k > 0);
          }
          wgmmaCommit();
          wgmmaWait<1>();  // the block before, whose rows are fetched next
          if (block == 0 && chunk + tap > 0 && first) {
            handBack<Tile>(ring.emptyBefore());
          }
        }
        tapX += p.dilationW;
        if (tapX == taps.width() * p.dilationW) {
          tapX = 0;
          tapY += p.dilationH;
        }
      }
      __syncwarp();
      if (lane == 0) {
        mbarrierArrive(ring.bufferEmpty(ring.buffer % 2));
      }
    }
    wgmmaWait<0>();
    hold(sums);
    if (first) {
      handBack<Tile>(ring.emptyBefore());
    }
    storeTile<T, Tile, Epilogue>(p, taps, ring.base + Tile::kFirstSlice, group, sums);
  }
  if (first) {
    bulkWaitRead<0>();
  }
}

// A kernel of that tile.
template <class T, class Tile, class Epilogue, class Params>
__device__ __forceinline__ void convolveWindows(const Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Sm90WindowRing<Tile> ring{sharedAddress(shared)};
  if (threadIdx.x < kRowBytes / 4) {
    reinterpret_cast<uint32_t*>(shared + Tile::kZeros)[threadIdx.x] = 0;
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kStages; ++i) {
      mbarrierInit(ring.full(i), 1);
      mbarrierInit(ring.empty(i), Tile::kGroups * Tile::kCluster);
    }
    for (int i = 0; i < 2; ++i) {
      mbarrierInit(ring.bufferFull(i), 1);
      mbarrierInit(ring.bufferEmpty(i), 8);  // warps that multiply
    }
    mbarrierInitFence();
  }
  meetAtStart<Tile>();
  if (threadIdx.x < 128) {
    giveRegisters<Tile::kLoaderRegisters>();
    if (threadIdx.x < 32 && elected()) {
      loadWindows<Tile>(p, ring);
      letNextStart();
    }
  } else {
    takeRegisters<Tile::kRegisters>();
    multiplyWindows<T, Tile, Epilogue>(p, ring);
    meetAtEnd<Tile>();
  }
}
