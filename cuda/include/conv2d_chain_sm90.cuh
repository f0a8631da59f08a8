// What conv2d_chain_fprop_sm90 and conv2d_chain_bprop_sm90 share. A chain is a 1x1 convolution from 64 to 256 channels, a rectifier, and a 1x1
// convolution back to 64, whose wide tensor never exists: a block computes 64 of its channels, a quarter, for 128 pixels at a time, and takes
// them into the next product at once. Per tile of 128 pixels, x of src, W of the first convolution [wide, src], V of the second [dst, wide]:
//
//   wide_j = phi(x W_j^T + bias_j), rounded to the type      for each quarter j
//
// A block is a warpgroup that loads and two that multiply, each 64 pixels. As many blocks run as there are multiprocessors, each taking tiles in
// turn. All weights stay in shared memory: rows of 64 channels for each wide channel, of W as packed "forward", of V as packed "backward"
// (conv2d_pack.cu). Every matrix here is rows of 128 bytes, swizzled by as many: wgmma takes one by rows (K-major) or by columns (MN-major), so
// the same copy serves a product and its transpose.
#pragma once

#include "conv2d_sm90_epilogues.cuh"

struct Conv2dChainSm90Params {
  Conv2dSm90Params
      result;  //   0 in: src, boxes of a tile's pixels; filter: W, a box; out: dst or diff_src, boxes of
  //     64 pixels; tiles, pixels, outC, tilesN (1), and of the epilogue as of a convolution alone
  TensorMap second;  // 512 V, a box
  TensorMap diffDst;  // 640 bprop: boxes as of src
  const float* bias;  // 768 [256] of the first convolution
  float* firstSums;  // 776 bprop: from each block gradients of W and of that bias, as conv2d_wgrad
  float* secondSums;  // 784 leaves those of a split; and of V and the second bias
  float scale;  // 792 of the rectifier between
  float slope;  // 796
};
static_assert(sizeof(Conv2dChainSm90Params) == 832, "padded to 64 bytes");

constexpr int kWide = 256;
constexpr int kNarrow = 64;
constexpr int kQuarters = kWide / 64;
constexpr int kMatrixBytes = kWide * kRowBytes;  // all weights of a convolution
constexpr int kPixelsBytes = 2 * kBlockBytes;  // 64 channels of a tile

// Sizes as Sm90Tile has them. A stage has kTensors times 64 channels of a tile; behind them come kMatrices as large that the warpgroups
// fill.
template <int kStages_, int kTensors, int kMatrices>
struct Sm90ChainTile {
  static constexpr int kCluster = 1;
  static constexpr int kGroups = 2;
  static constexpr int kBlocks = 1;
  static constexpr int kColumns = kNarrow;
  static constexpr int kSlices = 1;
  static constexpr int kStages = kStages_;
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kStageBytes = kTensors * kPixelsBytes;
  static constexpr int kSliceBytes = kPixelsBytes;
  static constexpr int kFilled = kStages * kStageBytes;
  static constexpr int kWeights = kFilled + kMatrices * kPixelsBytes;
  static constexpr int kBarriers = kWeights + 2 * kMatrixBytes;
  static constexpr int kWeightsFull = kBarriers + 16 * kStages;
  static constexpr int kBytes = kWeightsFull + 8;
  static constexpr int kLoaderRegisters = 40;
  static constexpr int kRegisters = 232;
};

// d = a (64 pixels x 64 channels) times the transpose of 64 rows of 64 channels.
template <class T>
__device__ __forceinline__ void multiplyRows(float (&d)[32], uint32_t a, uint32_t b) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {  // 16 channels each: 32 bytes further
    Wgmma<T>::multiply(d, matrixOf(a) + 2 * k, matrixOf(b) + 2 * k, k > 0);
  }
}

// Rows of 16 elements of a matrix by columns come after each other.
constexpr int kNextRows = 16 * kRowBytes >> 4;

template <class Tile>
__device__ __forceinline__ uint32_t weightsFull(const Sm90Ring<Tile>& ring) {
  return ring.base + Tile::kWeightsFull;
}

// 16 channels of the wide tensor from a lane's sums of them: as A of a product takes them, and four matrices of storeMatrices.
template <class T>
__device__ __forceinline__ void rectify16(const Conv2dChainSm90Params& p, int sixteen,
                                          const float* sums, uint32_t (&words)[4]) {
  const float* const bias = p.bias + sixteen * 16 + threadAgain() % 4 * 2;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float2 const b = __ldg(reinterpret_cast<const float2*>(bias + 8 * j));
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float* const x = sums + 4 * j + 2 * i;
      words[2 * j + i] =
          T::pack(rectify(x[0] + b.x, p.scale, p.slope), rectify(x[1] + b.y, p.scale, p.slope));
    }
  }
}

// The tensors of tiles, one after the other, by one thread.
template <class Tile, bool kBackward>
__device__ __forceinline__ void loadChain(const Conv2dChainSm90Params& p, Sm90Ring<Tile> ring) {
  mbarrierArriveExpecting(weightsFull(ring), 2 * kMatrixBytes);
  loadBox(ring.base + Tile::kWeights, p.result.filter, weightsFull(ring), 0, 0, 0);
  loadBox(ring.base + Tile::kWeights + kMatrixBytes, p.second, weightsFull(ring), 0, 0, 0);
  for (int tile = blockIdx.x; tile < p.result.tiles; tile += gridDim.x, ring.next()) {
    uint32_t const full = ring.full(ring.stage);
    mbarrierWait(ring.empty(ring.stage), ring.phase ^ 1);
    mbarrierArriveExpecting(full, Tile::kStageBytes);
    loadBox(ring.pixels(), p.result.in, full, 0, 0, tile * Tile::kRows);
    if constexpr (kBackward) {
      loadBox(ring.pixels() + kPixelsBytes, p.diffDst, full, 0, 0, tile * Tile::kRows);
    }
  }
}

// Makes the mbarriers; `readers` hand each stage back.
template <class Tile>
__device__ __forceinline__ void initChain(const Sm90Ring<Tile>& ring, int readers) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kStages; ++i) {
      mbarrierInit(ring.full(i), 1);
      mbarrierInit(ring.empty(i), readers);
    }
    mbarrierInit(weightsFull(ring), 1);
    mbarrierInitFence();
  }
}
