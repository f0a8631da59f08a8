// Products of pairs of row-major matrices, either of which may be transposed, or part of a wider one.
//
//   C = alpha op(A) op(B) + beta C          op(A) [m, k], op(B) [k, n], C [m, n]
//
// A row of blocks for each pair; all A lie at equal distances, and so do all B and all C.
// alpha and beta are arguments, or lie in memory (`scale`), so that a captured launch takes others
// each time it runs; where alpha is NaN, C stays as it is.
//
//   matrix_product_64, _32   a block per tile of C of 64x64 (256 threads) or 32x32 (64 threads); 16
//                            terms a stage, the next stage's on their way in registers. A thread has
//                            4 rows side by side and 4 columns a quarter of the tile apart, so that
//                            its reads of shared memory and its stores meet no bank or sector twice.
//                            Shared memory 8.5 or 4.5 KiB; aims at 128 and 168 registers
//   matrix_product_thin      a block of 256 threads per element, for one row or one column
//
// Sums are FP32 FMAs in an order that the sizes alone decide. Bound: FFMA where all extents are large,
// latency for what K-FAC multiplies. Limits: none (offsets are 64 bits). Oracle:
// MatrixProductContractTest.
#include "reduce.cuh"

struct MatrixProductParameters {
  const float* a;
  const float* b;
  float* c;
  const float* scale;  // alpha, beta; null for the arguments below
  long long a_row;  // elements from op(A)[i, l] to [i + 1, l]
  long long a_term;  // to [i, l + 1]
  long long b_term;  // elements from op(B)[l, j] to [l + 1, j]
  long long b_column;  // to [l, j + 1]
  long long ldc;
  long long a_stride;  // elements from one pair's A to the next
  long long b_stride;
  long long c_stride;
  int m;
  int n;
  int k;
  float alpha;
  float beta;
};

constexpr int kDepth = 16;

struct Scale {
  float alpha;
  float beta;
};

__device__ __forceinline__ Scale scale_of(const MatrixProductParameters& p) {
  return p.scale != nullptr ? Scale{p.scale[0], p.scale[1]} : Scale{p.alpha, p.beta};
}

__device__ __forceinline__ void store(float* c, Scale scale, float sum) {
  *c = scale.alpha * sum + (scale.beta == 0 ? 0.0f : scale.beta * *c);
}

// Which element of a stage of TILE x 16 a thread moves: along the terms where they lie side by side
// in memory (whole sectors of 8, and 4 rows beside each other on other banks), else along the tile.
template <int TILE>
__device__ __forceinline__ void place(int e, bool along_terms, int& at, int& term) {
  if (along_terms) {
    at = e / 8 % 4 + e / 64 * 4;
    term = e % 8 + e / 32 % 2 * 8;
  } else {
    at = e % TILE;
    term = e / TILE;
  }
}

// The operands of this block's pair.
struct Pair {
  const float* a;
  const float* b;
  float* c;
};

__device__ __forceinline__ Pair pair_of(const MatrixProductParameters& p) {
  return {p.a + blockIdx.y * p.a_stride, p.b + blockIdx.y * p.b_stride,
          p.c + blockIdx.y * p.c_stride};
}

template <int TILE>
__device__ __forceinline__ void tile(const MatrixProductParameters& p) {
  constexpr int kAcross = TILE / 4;  // threads
  constexpr int kThreads = kAcross * kAcross;
  constexpr int kMoved = TILE * kDepth / kThreads;
  constexpr int kPitch = TILE + 4;  // keeps float4 aligned and terms on different banks
  __shared__ alignas(16) float left[kDepth][kPitch];
  __shared__ alignas(16) float right[kDepth][kPitch];
  const Scale scale = scale_of(p);
  if (isnan(scale.alpha)) {
    return;
  }
  const Pair pair = pair_of(p);
  const int columns = (p.n + TILE - 1) / TILE;
  const int row0 = blockIdx.x / columns * TILE;
  const int column0 = blockIdx.x % columns * TILE;
  const bool a_along = p.a_term == 1;
  const bool b_along = p.b_term == 1;
  float next_left[kMoved];
  float next_right[kMoved];
  const auto fetch = [&](int first) {
#pragma unroll
    for (int u = 0; u < kMoved; ++u) {
      int at, term;
      place<TILE>(threadIdx.x + u * kThreads, a_along, at, term);
      next_left[u] = row0 + at < p.m && first + term < p.k
                         ? pair.a[(row0 + at) * p.a_row + (first + term) * p.a_term]
                         : 0.0f;
      place<TILE>(threadIdx.x + u * kThreads, b_along, at, term);
      next_right[u] = column0 + at < p.n && first + term < p.k
                          ? pair.b[(first + term) * p.b_term + (column0 + at) * p.b_column]
                          : 0.0f;
    }
  };
  const int tx = threadIdx.x % kAcross;
  const int ty = threadIdx.x / kAcross;
  float sum[4][4] = {};
  fetch(0);
  for (int first = 0; first < p.k; first += kDepth) {
    __syncthreads();  // the stage before was used
#pragma unroll
    for (int u = 0; u < kMoved; ++u) {
      int at, term;
      place<TILE>(threadIdx.x + u * kThreads, a_along, at, term);
      left[term][at] = next_left[u];
      place<TILE>(threadIdx.x + u * kThreads, b_along, at, term);
      right[term][at] = next_right[u];
    }
    __syncthreads();
    if (first + kDepth < p.k) {
      fetch(first + kDepth);
    }
#pragma unroll
    for (int term = 0; term < kDepth; ++term) {
      const float4 rows = *reinterpret_cast<const float4*>(&left[term][ty * 4]);
      const float x[4] = {rows.x, rows.y, rows.z, rows.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float y = right[term][tx + j * kAcross];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[i][j] += x[i] * y;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = row0 + ty * 4 + i;
      const int column = column0 + tx + j * kAcross;
      if (row < p.m && column < p.n) {
        store(pair.c + row * p.ldc + column, scale, sum[i][j]);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
    matrix_product_64(const __grid_constant__ MatrixProductParameters p) {
  tile<64>(p);
}

extern "C" __global__ void __launch_bounds__(64)
    matrix_product_32(const __grid_constant__ MatrixProductParameters p) {
  tile<32>(p);
}

extern "C" __global__ void __launch_bounds__(256)
    matrix_product_thin(const __grid_constant__ MatrixProductParameters p) {
  const Scale scale = scale_of(p);
  if (isnan(scale.alpha)) {
    return;
  }
  const int row = blockIdx.x / p.n;
  const int column = blockIdx.x % p.n;
  const Pair pair = pair_of(p);
  const float* a = pair.a + row * p.a_row;
  const float* b = pair.b + column * p.b_column;
  float sum = 0;
#pragma unroll 4
  for (int term = threadIdx.x; term < p.k; term += 256) {
    sum += a[term * p.a_term] * b[term * p.b_term];
  }
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) {
    store(pair.c + row * p.ldc + column, scale, sum);
  }
}
