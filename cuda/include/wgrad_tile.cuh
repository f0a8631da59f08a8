// One pipeline stage of wgrad in shared memory, and the block's product with it.
//
// A stage holds blockK pixels: of each, blockM channels of diff_dst and blockN filter columns of the
// source patch. Contraction runs over pixels, so both operands lie "transposed": the rows of a stage
// are pixels. A 16-byte chunk of row r is stored at chunk ^ key(r), which makes the eight rows that
// ldmatrix.trans reads at once (16-bit types), or the 4 x 8 elements of a tf32 fragment, fall into
// all 32 banks. FFMA reads along rows and needs no swizzle.
#pragma once

#include "element.cuh"
#include "ptx.cuh"

template <class T>
__device__ __forceinline__ int swizzleKey(int row);
template <>
__device__ __forceinline__ int swizzleKey<Bf16>(int row) {
  return row & 7;
}
template <>
__device__ __forceinline__ int swizzleKey<F16>(int row) {
  return row & 7;
}
template <>
__device__ __forceinline__ int swizzleKey<Tf32>(int row) {
  return (row & 3) << 1;
}
template <>
__device__ __forceinline__ int swizzleKey<F32>(int) {
  return 0;
}

// Tensor-core product of m16n8 instructions; warps tile the block. Thread (g, t) = (lane / 4,
// lane % 4) holds rows g and g + 8 of each m16 tile and columns 2t, 2t + 1 of each n8 tile: a quad
// of threads holds 32 bytes of f32 output, one sector.
template <class T, int kBlockM, int kBlockN, int kWarpM, int kWarpN>
struct WgradTile {
  static constexpr int kThreads = 32 * (kBlockM / kWarpM) * (kBlockN / kWarpN);
  static constexpr int kStageK = 64 / sizeof(typename T::Storage);
  static constexpr int kSteps = 2;  // instructions' worth of contraction in a stage
  static constexpr int kVector = 2;
  static constexpr int kRows = kWarpM / 8;
  static constexpr int kVectors = kWarpN / 8;
  static constexpr int kPitchA = kBlockM * sizeof(typename T::Storage);
  static constexpr int kPitchB = kBlockN * sizeof(typename T::Storage);
  static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0 && kPitchA % 128 == 0 && kPitchB % 128 == 0);
  static_assert(kWarpM % 32 == 0 && kWarpN % 32 == 0 && kWarpM <= 64 && kWarpN <= 64);

  float sums[kWarpM / 16][kWarpN / 8][4];
  float biasSums[kWarpM / 16][4];
  int warpRow;
  int warpColumn;
  int lane;
  uint32_t aOffset;  // of this lane's first ldmatrix row
  uint32_t bOffset;

  __device__ __forceinline__ WgradTile() {
    lane = threadIdx.x % 32;
    int const warp = threadIdx.x / 32;
    warpRow = warp / (kBlockN / kWarpN) * kWarpM;
    warpColumn = warp % (kBlockN / kWarpN) * kWarpN;
    int const high = lane >> 4;
    int const middle = (lane >> 3) & 1;
    int const key = swizzleKey<T>(lane);
    aOffset = ((lane & 7) + 8 * high) * kPitchA + (((warpRow / 8 + middle) ^ key) << 4);
    bOffset = ((lane & 7) + 8 * middle) * kPitchB + (((warpColumn / 8 + high) ^ key) << 4);
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        biasSums[i][k] = 0.0f;
#pragma unroll
        for (int j = 0; j < kWarpN / 8; ++j) {
          sums[i][j][k] = 0.0f;
        }
      }
    }
  }

  // Whether this thread's warp is the one that sums its rows for the bias.
  __device__ __forceinline__ bool ownsBias() const { return warpColumn == 0; }

  // Adds one step of a stage's contraction to the sums.
  __device__ __forceinline__ void multiply(uint32_t aStage, uint32_t bStage, bool withBias,
                                           int step) {
    uint32_t a[kWarpM / 16][4];
    uint32_t b[kWarpN / 16][4];
    if constexpr (sizeof(typename T::Storage) == 2) {
      // The next m16 tile lies two chunks on, which flips bits of the swizzled offset.
#pragma unroll
      for (int i = 0; i < kWarpM / 16; ++i) {
        loadMatricesTransposed(a[i], aStage + (aOffset ^ (i << 5)) + 16 * step * kPitchA);
      }
#pragma unroll
      for (int j = 0; j < kWarpN / 16; ++j) {
        loadMatricesTransposed(b[j], bStage + (bOffset ^ (j << 5)) + 16 * step * kPitchB);
      }
    } else {
      int const pixel = 8 * step + lane % 4;
#pragma unroll
      for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {  // k: 0 (g, t), 1 (g + 8, t), 2 (g, t + 4), 3 (g + 8, t + 4)
          a[i][k] = element(aStage, kPitchA, pixel + k / 2 * 4, warpRow + 16 * i + k % 2 * 8);
        }
      }
#pragma unroll
      for (int j = 0; j < kWarpN / 16; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          b[j][k] = element(bStage, kPitchB, pixel + k % 2 * 4, warpColumn + 16 * j + k / 2 * 8);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kWarpN / 8; ++j) {
        T::multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
    if (withBias) {  // a matrix of ones sums the pixels
#pragma unroll
      for (int i = 0; i < kWarpM / 16; ++i) {
        T::multiply(biasSums[i], a[i], T::kOnes, T::kOnes);
      }
    }
  }

  // Element (pixel, column + g) of a tf32 stage, rounded.
  __device__ __forceinline__ uint32_t element(uint32_t stage, int pitch, int pixel,
                                              int column) const {
    int const chunk = column / 4 + (lane >> 4);
    uint32_t const at =
        stage + pixel * pitch + ((chunk ^ swizzleKey<T>(lane)) << 4) + (((lane >> 2) & 3) << 2);
    return roundToTf32(loadShared4(at));
  }

  __device__ __forceinline__ int row(int i) const { return warpRow + lane / 4 + 8 * i; }
  __device__ __forceinline__ int column(int v) const { return warpColumn + 2 * (lane % 4) + 8 * v; }
  __device__ __forceinline__ void read(int i, int v, float (&out)[kVector]) const {
    out[0] = sums[i / 2][v][i % 2 * 2];
    out[1] = sums[i / 2][v][i % 2 * 2 + 1];
  }
  __device__ __forceinline__ bool writesBias() const { return lane % 4 == 0; }
  __device__ __forceinline__ float readBias(int i) const { return biasSums[i / 2][i % 2 * 2]; }
};

// FFMA product in f32. A warp has 4 x 8 threads with 4 successive rows and columns each, repeated
// every 16 rows and every 32 columns.
template <int kBlockM, int kBlockN, int kWarpM, int kWarpN>
struct WgradTile<F32, kBlockM, kBlockN, kWarpM, kWarpN> {
  static constexpr int kThreads = 32 * (kBlockM / kWarpM) * (kBlockN / kWarpN);
  static constexpr int kStageK = 16;
  static constexpr int kSteps = 1;
  static constexpr int kVector = 4;
  static constexpr int kRows = kWarpM / 4;
  static constexpr int kVectors = kWarpN / 32;
  static constexpr int kPitchA = kBlockM * 4;
  static constexpr int kPitchB = kBlockN * 4;
  static_assert(kWarpM % 16 == 0 && kWarpN % 32 == 0);

  float sums[kRows][kVectors * kVector];
  float biasSums[kRows];
  int firstRow;
  int firstColumn;
  bool firstWarpColumn;
  bool firstLaneColumn;

  __device__ __forceinline__ WgradTile() {
    int const lane = threadIdx.x % 32;
    int const warp = threadIdx.x / 32;
    int const warpColumn = warp % (kBlockN / kWarpN) * kWarpN;
    firstRow = warp / (kBlockN / kWarpN) * kWarpM + 4 * (lane / 8);
    firstColumn = warpColumn + 4 * (lane % 8);
    firstWarpColumn = warpColumn == 0;
    firstLaneColumn = lane % 8 == 0;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      biasSums[i] = 0.0f;
#pragma unroll
      for (int j = 0; j < kVectors * kVector; ++j) {
        sums[i][j] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ bool ownsBias() const { return firstWarpColumn; }

  // Adds a whole stage to the sums.
  __device__ __forceinline__ void multiply(uint32_t aStage, uint32_t bStage, bool withBias, int) {
    uint32_t const a0 = aStage + firstRow * 4;
    uint32_t const b0 = bStage + firstColumn * 4;
#pragma unroll 4
    for (int pixel = 0; pixel < kStageK; ++pixel) {
      float a[kRows];
      float b[kVectors * kVector];
#pragma unroll
      for (int i = 0; i < kRows / 4; ++i) {
        float4 const four = loadShared16(a0 + pixel * kPitchA + i * 64);
        a[4 * i] = four.x;
        a[4 * i + 1] = four.y;
        a[4 * i + 2] = four.z;
        a[4 * i + 3] = four.w;
      }
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        float4 const four = loadShared16(b0 + pixel * kPitchB + j * 128);
        b[4 * j] = four.x;
        b[4 * j + 1] = four.y;
        b[4 * j + 2] = four.z;
        b[4 * j + 3] = four.w;
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int j = 0; j < kVectors * kVector; ++j) {
          sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
        }
      }
      if (withBias) {
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          biasSums[i] += a[i];
        }
      }
    }
  }

  __device__ __forceinline__ int row(int i) const { return firstRow + i / 4 * 16 + i % 4; }
  __device__ __forceinline__ int column(int v) const { return firstColumn + 32 * v; }
  __device__ __forceinline__ void read(int i, int v, float (&out)[kVector]) const {
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      out[e] = sums[i][v * kVector + e];
    }
  }
  __device__ __forceinline__ bool writesBias() const { return firstLaneColumn; }
  __device__ __forceinline__ float readBias(int i) const { return biasSums[i]; }
};
