// One pipeline stage of fprop and dgrad in shared memory, and the block's product with it.
//
// A stage holds blockM rows of the gathered activation and blockN rows of packed weights. A row is
// 64 bytes of contraction (32 16-bit or 16 32-bit elements): four 16-byte chunks, stored at
//   row * 64 + ((chunk ^ (row / 2 % 4)) * 16),
// so that eight successive rows of one chunk fall into all 32 banks: neither the copies into the
// stage nor the reads out of it (ldmatrix, 16-byte loads) conflict.
//
// Filter rows are dealt to stage rows so that every thread ends up with `kVector` successive output
// channels of a pixel, 16 bytes: the epilogue loads and stores whole vectors straight from
// registers, without a pass through shared memory. filterOfRow() is that deal.
#pragma once

#include "element.cuh"
#include "ptx.cuh"

constexpr int kRowBytes = 64;
constexpr int kRowChunks = kRowBytes / 16;

__device__ __forceinline__ uint32_t rowOffset(int row, int chunk) {
  return static_cast<uint32_t>(row * kRowBytes + ((chunk ^ ((row >> 1) & 3)) << 4));
}

// Tensor-core product. Warps tile the block in warpM x warpN pieces; the instruction is m16n8 with
// 32 bytes of contraction. Thread (g = lane / 4, t = lane % 4) of a warp holds for each m16 tile the
// rows g and g + 8, and of each group of 4 * kVector output channels the vector t.
template <class T, int kBlockM, int kBlockN, int kWarpM, int kWarpN>
struct GatherTile {
  static constexpr int kVector = T::kVector;
  static constexpr int kThreads = 32 * (kBlockM / kWarpM) * (kBlockN / kWarpN);
  static constexpr int kGroup = 4 * kVector;  // channels that a quad of threads shares
  static constexpr int kTilesPerVector = kVector / 2;
  static constexpr int kSteps = 2;  // instructions' worth of contraction in a stage
  static constexpr int kRows = kWarpM / 8;  // output pixels per thread
  static constexpr int kVectors = kWarpN / kGroup;  // vectors per thread and pixel
  static_assert(kWarpM % 16 == 0 && kWarpN % 32 == 0 && kBlockM % kWarpM == 0 &&
                kBlockN % kWarpN == 0);

  float sums[kWarpM / 16][kWarpN / 8][4];
  uint32_t aOffset;
  uint32_t bOffset;
  int firstRow;
  int firstColumn;

  // Stage row 8 * j + 2 * t + e of a group holds its channel kVector * t + 2 * j + e.
  static __device__ __forceinline__ int filterOfRow(int row) {
    int const j = (row / 8) % kTilesPerVector;
    return row / kGroup * kGroup + kVector * ((row >> 1) & 3) + 2 * j + (row & 1);
  }

  __device__ __forceinline__ GatherTile() {
    int const lane = threadIdx.x % 32;
    int const warp = threadIdx.x / 32;
    int const warpRow = warp / (kBlockN / kWarpN) * kWarpM;
    int const warpColumn = warp % (kBlockN / kWarpN) * kWarpN;
    aOffset = rowOffset(warpRow + (lane & 15), lane >> 4);
    bOffset = rowOffset(warpColumn + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
    firstRow = warpRow + lane / 4;
    firstColumn = warpColumn + kVector * (lane % 4);
    clear();
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kWarpN / 8; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          sums[i][j][k] = 0.0f;
        }
      }
    }
  }

  // Adds one step of a stage's contraction to the sums.
  __device__ __forceinline__ void multiply(uint32_t aStage, uint32_t bStage, int step) {
    // Step 1 reads chunks 2 and 3 instead of 0 and 1, which flips one bit of the swizzled offset.
    uint32_t const a0 = aStage + (aOffset ^ (step << 5));
    uint32_t const b0 = bStage + (bOffset ^ (step << 5));
    uint32_t a[kWarpM / 16][4];
    uint32_t b[kWarpN / 16][4];
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i) {
      loadMatrices(a[i], a0 + i * 16 * kRowBytes);
      if constexpr (sizeof(typename T::Storage) == 4) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          a[i][k] = roundToTf32(a[i][k]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kWarpN / 16; ++j) {
      loadMatrices(b[j], b0 + j * 16 * kRowBytes);
    }
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kWarpN / 8; ++j) {
        T::multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
  }

  __device__ __forceinline__ int row(int i) const { return firstRow + 8 * i; }
  __device__ __forceinline__ int column(int v) const { return firstColumn + kGroup * v; }
  __device__ __forceinline__ void read(int i, int v, float (&out)[kVector]) const {
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      out[e] = sums[i / 2][v * kTilesPerVector + e / 2][i % 2 * 2 + e % 2];
    }
  }
};

// FFMA product in f32. A warp has 4 x 8 threads; a thread has warpM / 4 rows, 4 apart, and of each
// group of 32 output channels the vector lane % 8.
template <int kBlockM, int kBlockN, int kWarpM, int kWarpN>
struct GatherTile<F32, kBlockM, kBlockN, kWarpM, kWarpN> {
  static constexpr int kVector = 4;
  static constexpr int kThreads = 32 * (kBlockM / kWarpM) * (kBlockN / kWarpN);
  static constexpr int kSteps = 1;
  static constexpr int kRows = kWarpM / 4;
  static constexpr int kVectors = kWarpN / 32;

  float sums[kRows][kVectors * kVector];
  uint32_t aOffset[2];
  uint32_t bOffset;
  int firstRow;
  int firstColumn;

  // Stage row 8 * i + u of a group of 32 holds its channel 4 * u + i.
  static __device__ __forceinline__ int filterOfRow(int row) {
    return row / 32 * 32 + 4 * (row % 8) + row / 8 % 4;
  }

  __device__ __forceinline__ GatherTile() {
    int const lane = threadIdx.x % 32;
    int const warp = threadIdx.x / 32;
    int const warpRow = warp / (kBlockN / kWarpN) * kWarpM;
    int const warpColumn = warp % (kBlockN / kWarpN) * kWarpN;
    firstRow = warpRow + lane / 8;
    firstColumn = warpColumn + kVector * (lane % 8);
    // The swizzle of rows r and r + 4 differs, that of r and r + 8 does not.
    aOffset[0] = rowOffset(firstRow, 0);
    aOffset[1] = rowOffset(firstRow + 4, 0);
    bOffset = rowOffset(warpColumn + lane % 8, 0);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kVectors * kVector; ++j) {
        sums[i][j] = 0.0f;
      }
    }
  }

  // Adds a whole stage to the sums.
  __device__ __forceinline__ void multiply(uint32_t aStage, uint32_t bStage, int) {
#pragma unroll 1  // a second chunk in flight would cost 36 registers
    for (int chunk = 0; chunk < kRowChunks; ++chunk) {
      uint32_t const b0 = bStage + (bOffset ^ (chunk << 4));
      float4 a[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        a[i] = loadShared16(aStage + (aOffset[i % 2] ^ (chunk << 4)) + i / 2 * 8 * kRowBytes);
      }
#pragma unroll
      for (int j = 0; j < kVectors * kVector; ++j) {
        float4 const b = loadShared16(b0 + j * 8 * kRowBytes);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          sums[i][j] = fmaf(a[i].x, b.x, sums[i][j]);
          sums[i][j] = fmaf(a[i].y, b.y, sums[i][j]);
          sums[i][j] = fmaf(a[i].z, b.z, sums[i][j]);
          sums[i][j] = fmaf(a[i].w, b.w, sums[i][j]);
        }
      }
    }
  }

  __device__ __forceinline__ int row(int i) const { return firstRow + 4 * i; }
  __device__ __forceinline__ int column(int v) const { return firstColumn + 32 * v; }
  __device__ __forceinline__ void read(int i, int v, float (&out)[kVector]) const {
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      out[e] = sums[i][v * kVector + e];
    }
  }
};
