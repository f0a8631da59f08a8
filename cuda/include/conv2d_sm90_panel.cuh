// The third way to the product of conv2d_sm90.cuh, for 1x1 filters of stride 1 over few channels and many results: a tile is wide, kParts times
// the columns that are summed at once, and its pixels stay in shared memory while the parts are multiplied one after another. So L2 is asked
// for pixels once for all of a tile's columns, and the sums of a part leave while the next one's weights are under way.
//
// Pixels of 64 channels lie in one of kBuffers buffers, so a tile of half as many channels is loaded while the one before is multiplied; weights
// of a part pass through a ring of stages.
#pragma once

#include "conv2d_sm90.cuh"

template <int kCluster_, int kStages_>
struct Sm90Panel {
  static constexpr int kCluster = kCluster_;
  static constexpr int kGroups = 2;
  static constexpr int kBlocks = 2;
  static constexpr int kColumns = 128;  // of a part
  static constexpr int kParts = 4;
  static constexpr int kStages = kStages_;
  static constexpr int kBuffers = 4;
  static constexpr int kSlices = 1;
  static constexpr int kThreads = 384;
  static constexpr int kRows = 64 * kGroups * kBlocks;
  static constexpr int kBufferBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kColumns * kRowBytes;
  static constexpr int kSliceBytes = kRows * kRowBytes;
  static constexpr int kFirstStage = kBuffers * kBufferBytes;
  static constexpr int kFirstSlice = kFirstStage + kStages * kStageBytes;
  static constexpr int kBarriers = kFirstSlice + kSliceBytes;
  static constexpr int kBytes = kBarriers + 16 * (kStages + kBuffers);
  static constexpr int kLoaderRegisters = 40;
  static constexpr int kRegisters = 232;
};

// Places in the ring of weights and among the buffers of pixels.
template <class Tile>
struct Sm90PanelRing : Sm90Stages<Tile> {
  using Sm90Stages<Tile>::Sm90Stages;
  using Sm90Stages<Tile>::base;
  using Sm90Stages<Tile>::stage;
  using Sm90Stages<Tile>::full;
  uint32_t buffer = 0;  // how many before the tile's first

  __device__ __forceinline__ uint32_t pixels(uint32_t of) const {
    return base + of % Tile::kBuffers * Tile::kBufferBytes;
  }
  __device__ __forceinline__ uint32_t weights() const {
    return base + Tile::kFirstStage + stage * Tile::kStageBytes;
  }
  __device__ __forceinline__ uint32_t bufferFull(uint32_t of) const {
    return full(2 * Tile::kStages + of % Tile::kBuffers);
  }
  __device__ __forceinline__ uint32_t bufferEmpty(uint32_t of) const {
    return bufferFull(of) + 8 * Tile::kBuffers;
  }
  static __device__ __forceinline__ uint32_t bufferPhase(uint32_t of) {
    return of / Tile::kBuffers & 1;
  }
};

template <class Tile>
__device__ __forceinline__ void loadPanels(const Conv2dSm90Params& p, Sm90PanelRing<Tile> ring) {
  for (int tile = blockIdx.x / Tile::kCluster; tile < p.tiles; tile += gridDim.x / Tile::kCluster) {
    int const m = firstPixel<Tile>(p, tile * Tile::kParts);
    for (int part = 0; part < Tile::kParts; ++part) {
      int const n = (tile * Tile::kParts + part) % p.tilesN * Tile::kColumns;
      for (int chunk = 0; chunk < p.chunks; ++chunk, ring.next()) {
        if (part == 0) {
          uint32_t const of = ring.buffer + chunk;
          mbarrierWait(ring.bufferEmpty(of), ring.bufferPhase(of) ^ 1);
          mbarrierArriveExpecting(ring.bufferFull(of), Tile::kBufferBytes);
          loadBox(ring.pixels(of), p.in, ring.bufferFull(of), chunk * 64, 0, m);
        }
        uint32_t const full = ring.full(ring.stage);
        mbarrierWait(ring.empty(ring.stage), ring.phase ^ 1);
        mbarrierArriveExpecting(full, Tile::kStageBytes);
        loadWeights<Tile>(p, ring.weights(), full, chunk * 64, 0, n);
      }
    }
    ring.buffer += p.chunks;
  }
}

template <class T, class Tile, class Epilogue>
__device__ __forceinline__ void multiplyPanels(const Conv2dSm90Params& p,
                                               Sm90PanelRing<Tile> ring) {
  int const group = threadIdx.x / 128 - 1;
  bool const first = threadIdx.x % 128 == 0;
  Sm90Sums<Tile> sums;
  for (int tile = blockIdx.x / Tile::kCluster; tile < p.tiles; tile += gridDim.x / Tile::kCluster) {
    for (int part = 0; part < Tile::kParts; ++part) {
      for (int chunk = 0; chunk < p.chunks; ++chunk, ring.next()) {
        uint32_t const of = ring.buffer + chunk;
        if (part == 0) {
          mbarrierWait(ring.bufferFull(of), ring.bufferPhase(of));
        }
        mbarrierWait(ring.full(ring.stage), ring.phase);
        uint64_t const a = matrixOf(ring.pixels(of) + group * Tile::kBlocks * kBlockBytes);
        uint64_t const b = matrixOf(ring.weights());
        hold(sums);
        wgmmaFence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int block = 0; block < Tile::kBlocks; ++block) {
            Wgmma<T>::multiply(sums[block][0], a + block * (kBlockBytes >> 4) + 2 * k, b + 2 * k,
                               chunk + k > 0);
          }
        }
        wgmmaCommit();
        if (chunk > 0) {
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
        for (int chunk = 0; chunk < p.chunks && part == Tile::kParts - 1; ++chunk) {
          mbarrierArrive(ring.bufferEmpty(ring.buffer + chunk));
        }
      }
      storeTile<T, Tile, Epilogue>(p, tapsOf(p, tile * Tile::kParts + part),
                                   ring.base + Tile::kFirstSlice, group, sums);
    }
    ring.buffer += p.chunks;
  }
  if (first) {
    bulkWaitRead<0>();
  }
}

// A kernel of that tile.
template <class T, class Tile, class Epilogue>
__device__ __forceinline__ void convolvePanels(const Conv2dSm90Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Sm90PanelRing<Tile> ring{sharedAddress(shared)};
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kStages; ++i) {
      mbarrierInit(ring.full(i), 1);
      mbarrierInit(ring.empty(i), Tile::kGroups * Tile::kCluster);
    }
    for (int i = 0; i < Tile::kBuffers; ++i) {
      mbarrierInit(ring.bufferFull(i), 1);
      mbarrierInit(ring.bufferEmpty(i), Tile::kGroups);
    }
    mbarrierInitFence();
  }
  meetAtStart<Tile>();
  if (threadIdx.x < 128) {
    giveRegisters<Tile::kLoaderRegisters>();
    if (threadIdx.x < 32 && elected()) {
      loadPanels<Tile>(p, ring);
      letNextStart();
    }
  } else {
    takeRegisters<Tile::kRegisters>();
    multiplyPanels<T, Tile, Epilogue>(p, ring);
    meetAtEnd<Tile>();
  }
}
