// The data gradient of a strided convolution by the loops of conv2d_sm90.cuh and conv2d_sm90_window.cuh. Pixels of diff_src of one phase
// (y mod strideH, x mod strideW) are reached by the same taps: a phase is a dense convolution of stride 1 of diff_dst, over those taps in
// reverse. Its pixels are (gridY * strideH + y, gridX * strideW + x), and gridY, gridX go through as many places in every phase, so that one
// tensor map, whose corner is the first place that any phase sees, serves them all.
//
// Tiles come phase after phase, the one with most taps first. Where no tap reaches, a tile multiplies 64
// channels behind the last, which are zeros, and asks L2 for none. A phase's pixels do not lie side by
// side, so results are stored by the warps: each reads its rows of a slice back and writes whole pixels' 128 bytes.
#pragma once

#include "conv2d_sm90_window.cuh"

struct Sm90Phase {
  int32_t y;  //  0 of its pixels, mod the stride
  int32_t x;  //  4
  int32_t tapsH;  //  8 that reach them
  int32_t tapsW;  // 12
  int32_t offsetH;  // 16 of the first one, from the corner that all phases share
  int32_t offsetW;  // 20
  int32_t firstH;  // 24 the filter's tap whose weights it takes
  int32_t firstW;  // 28
  int32_t chunks;  // 32 of 64 channels
  int32_t firstChannel;  // 36
};

constexpr int kMostPhases = 16;

// As of its base, where strides are 1, dilations those from one tap of a phase to the next, kernelW is the filter's, and pixels are those of
// diff_src; out, taps, reversed, steps and boxes are not used.
struct Conv2dSm90StridedParams : Conv2dSm90Params {
  void* result;  //  512 [batch, outH, outW, outC]
  int32_t phaseTiles;  //  520 of a block, or of a pair, in each phase
  int32_t outH;  //  524
  int32_t outW;  //  528
  int32_t outStrideH;  //  532 of the convolution
  int32_t outStrideW;  //  536
  int32_t stepH;  //  540 backwards in the filter, from one tap of a phase to the next
  int32_t stepW;  //  544
  int32_t phasePixels;  //  548 batch * gridH * gridW
  Sm90Phase phases[kMostPhases];  //  552
};
static_assert(sizeof(Conv2dSm90StridedParams) == 1216, "padded to 64 bytes");

struct Sm90PhaseTaps {
  const Conv2dSm90StridedParams& p;
  const Sm90Phase& phase;
  int tile;

  __device__ __forceinline__ int count() const { return phase.tapsH * phase.tapsW; }
  __device__ __forceinline__ int chunks() const { return phase.chunks; }
  __device__ __forceinline__ int firstChannel() const { return phase.firstChannel; }
  __device__ __forceinline__ int steps() const { return count() * phase.chunks; }
  __device__ __forceinline__ int width() const { return phase.tapsW; }
  __device__ __forceinline__ int offsetH() const { return phase.offsetH; }
  __device__ __forceinline__ int offsetW() const { return phase.offsetW; }
  __device__ __forceinline__ int weightsOf(int, int tapH, int tapW) const {
    return (phase.firstH - tapH * p.stepH) * p.kernelW + phase.firstW - tapW * p.stepW;
  }
  // The pixel of diff_src of a pixel of the phase; p.pixels where there is none.
  __device__ __forceinline__ int pixelOf(int m) const {
    int const y = m / p.gridW % p.gridH * p.outStrideH + phase.y;
    int const x = m % p.gridW * p.outStrideW + phase.x;
    bool const inside = m < p.phasePixels && y < p.outH && x < p.outW;
    return inside ? (m / p.gridW / p.gridH * p.outH + y) * p.outW + x : p.pixels;
  }
};
__device__ __forceinline__ Sm90PhaseTaps tapsOf(const Conv2dSm90StridedParams& p, int tile) {
  return {p, p.phases[tile / p.phaseTiles], tile % p.phaseTiles};
}

template <class Tile>
__device__ __forceinline__ int boxesOf(const Conv2dSm90StridedParams& p,
                                       const Sm90PhaseTaps& taps) {
  int const halo =
      (taps.phase.tapsH - 1) * p.dilationH * p.gridW + (taps.phase.tapsW - 1) * p.dilationW;
  return (Tile::kRows + halo + kWindowBox - 1) / kWindowBox;
}

template <class T, class Tile, class Epilogue>
__device__ __forceinline__ void storeTile(const Conv2dSm90StridedParams& p,
                                          const Sm90PhaseTaps& taps, uint32_t slices, int group,
                                          const Sm90Sums<Tile>& sums) {
  int const thread = threadAgain() % 128;
  int const lane = thread % 32;
  int const warpRow = thread / 32 * 16;
  int const m = firstPixel<Tile>(p, taps.tile) + group * Tile::kBlocks * 64 + warpRow;
  int const n = taps.tile % p.tilesN * Tile::kColumns;
#pragma unroll
  for (int block = 0; block < Tile::kBlocks; ++block) {
    uint32_t const rows = slices + (group * Tile::kBlocks + block) * kBlockBytes;
    // Pixels of the sums that the lane has, eight apart.
    int const first = taps.pixelOf(m + block * 64 + lane / 4);
    int const second = taps.pixelOf(m + block * 64 + lane / 4 + 8);
#pragma unroll
    for (int column = 0; column < Tile::kColumns; column += 64) {
      fillSlice<Tile>(Epilogue(p, {lane, first, second - first, n + column}), rows, warpRow, lane,
                      sums[block][column / kPanel<Tile>], column);
      __syncwarp();
      int const channel = n + column + lane % 8 * 8;
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // four pixels at once, eight lanes each
        int const row = 4 * i + lane / 8;
        int const pixel = __shfl_sync(0xffffffffu, i < 2 ? first : second, row % 8 * 4);
        if (pixel < p.pixels && channel < p.outC) {
          *reinterpret_cast<float4*>(static_cast<uint16_t*>(p.result) +
                                     static_cast<int64_t>(pixel) * p.outC + channel) =
              loadShared16(rows + (warpRow + row) * kRowBytes + ((lane % 8 ^ row % 8) << 4));
        }
      }
      __syncwarp();
    }
  }
}
