// The inverse of a symmetric positive definite matrix: F + shift I = L L', X = L^-1, inverse = X' X.
//
// Everything is binary64, so that nothing has to be done twice for an ill-conditioned matrix: a device
// whose FP64 units are few takes longer, but an inverse is computed every so many steps. In blocks of 32 rows and columns, right-looking (Golub and Van Loan, Matrix Computations,
// 4.2.6), a launch for each of
//
//   symmetric_inverse_begin      A = lower triangle of F + shift I
//   symmetric_inverse_diagonal   for each block column j: X_jj = L_jj^-1 of A_jj = L_jj L_jj'
//   symmetric_inverse_below        L_ij = A_ij X_jj'                            i > j
//   symmetric_inverse_rest         A_ik -= L_ij L_kj'                           i >= k > j
//   symmetric_inverse_row        for each block row i: X_ij = -X_ii sum_k L_ik X_kj   j <= k < i
//   symmetric_inverse_product    X' X, rounded to float, where L was
//   symmetric_inverse_solve, _left, _end
//                                residual = |v - (F + shift I) inverse v| / |v|, v of ones and minus
//                                ones; then the inverse is written, if all is finite
//
// A pivot that is not positive and finite, or an element of the inverse that is not finite, marks the
// matrix as failed: the residual is NaN then, and the inverse stays as it was. The shift may lie in
// memory, so that a captured launch takes another each time it runs; a NaN fails. Threads: 256; shared
// memory 16 to 33 KiB; aims at 96 registers. Bound: FP64, n^3 multiply-adds. Limits: n <= 65,535.
// Oracle: SymmetricInverseContractTest.
#include "reduce.cuh"

constexpr int kThreads = 256;
constexpr int kBlock = 32;
constexpr int kTile = 64;
constexpr int kPitch = kBlock + 1;  // doubles of a column on different banks

struct SymmetricInverseParameters {
  const float* matrix;  // [n, n]
  const float* shift;  // null for the argument below
  float* inverse;  // [n, n]
  float* residual;
  double* a;  // [n, n]: A, then L, then (as floats) the inverse to be
  double* x;  // [n, n]
  double* solved;  // [n]
  double* left;  // [n]: squares
  int* failed;
  int n;
  int block;  // j or i
  float shift_argument;
};

__device__ __forceinline__ double shift_of(const SymmetricInverseParameters& p) {
  return p.shift != nullptr ? *p.shift : p.shift_argument;
}

__device__ __forceinline__ bool is_finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

// io.jtrelu.backend.SymmetricInverse.probe.
__device__ __forceinline__ double probe(int index) {
  return static_cast<int>(index * 0x9E3779B9u) < 0 ? -1.0 : 1.0;
}

__device__ __forceinline__ long long at(const SymmetricInverseParameters& p, int row, int column) {
  return static_cast<long long>(row) * p.n + column;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_begin(const __grid_constant__ SymmetricInverseParameters p) {
  const int row = blockIdx.y;
  const int column = blockIdx.x * kThreads + threadIdx.x;
  if (column < p.n) {
    double value = 0;
    if (column <= row) {
      value = p.matrix[at(p, row, column)];
    }
    p.a[at(p, row, column)] = column == row ? value + shift_of(p) : value;
  }
  if (row == 0 && column == 0) {
    *p.failed = 0;
  }
}

// The eliminations that factorise A_jj, done to the identity as well, leave L_jj^-1.
extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_diagonal(const __grid_constant__ SymmetricInverseParameters p) {
  __shared__ double a[kBlock][kPitch];
  __shared__ double x[kBlock][kPitch];
  const int first = p.block * kBlock;
  for (int e = threadIdx.x; e < kBlock * kBlock; e += kThreads) {
    const int row = e / kBlock;
    const int column = e % kBlock;
    const double one = row == column ? 1.0 : 0.0;
    a[row][column] = first + row < p.n && column <= row ? p.a[at(p, first + row, first + column)]
                                                        : one;  // beyond the edge: the identity
    x[row][column] = one;
  }
  __syncthreads();
  bool good = true;
  for (int pivot = 0; pivot < kBlock; ++pivot) {
    const double square = a[pivot][pivot];
    good = good && square > 0 && is_finite(square);
    const double factor = 1.0 / sqrt(square);
    if (threadIdx.x < kBlock) {
      if (threadIdx.x > pivot) {
        a[threadIdx.x][pivot] *= factor;
      }
    } else if (threadIdx.x - kBlock <= pivot) {
      x[pivot][threadIdx.x - kBlock] *= factor;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < kBlock * kBlock; e += kThreads) {
      const int row = e / kBlock;
      const int column = e % kBlock;
      if (row > pivot) {
        if (column <= pivot) {
          x[row][column] -= a[row][pivot] * x[pivot][column];
        } else if (column <= row) {
          a[row][column] -= a[row][pivot] * a[column][pivot];
        }
      }
    }
    __syncthreads();
  }
  for (int e = threadIdx.x; e < kBlock * kBlock; e += kThreads) {
    const int row = e / kBlock;
    const int column = e % kBlock;
    if (first + row < p.n && first + column < p.n) {
      p.x[at(p, first + row, first + column)] = x[row][column];
    }
  }
  if (threadIdx.x == 0 && !good) {
    *p.failed = 1;
  }
}

// Rows [row, row + ROWS) and 32 columns; zero beyond the edge.
template <int ROWS>
__device__ __forceinline__ void load(double (&to)[ROWS][kPitch], const double* from,
                                     const SymmetricInverseParameters& p, int row, int column) {
  for (int e = threadIdx.x; e < ROWS * kBlock; e += kThreads) {
    const int r = row + e / kBlock;
    const int c = column + e % kBlock;
    to[e / kBlock][e % kBlock] = r < p.n && c < p.n ? from[at(p, r, c)] : 0.0;
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_below(const __grid_constant__ SymmetricInverseParameters p) {
  __shared__ double a[kBlock][kPitch];
  __shared__ double x[kBlock][kPitch];
  const int row = (p.block + 1 + blockIdx.x) * kBlock;
  const int column = p.block * kBlock;
  load(a, p.a, p, row, column);
  load(x, p.x, p, column, column);
  __syncthreads();
  const int c = threadIdx.x % kBlock;
#pragma unroll
  for (int u = 0; u < 4; ++u) {
    const int r = threadIdx.x / kBlock + u * 8;
    double sum = 0;
    for (int term = 0; term < kBlock; ++term) {
      sum += a[r][term] * x[c][term];
    }
    if (row + r < p.n) {  // the block column is a whole one, as there are rows below it
      p.a[at(p, row + r, column + c)] = sum;
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_rest(const __grid_constant__ SymmetricInverseParameters p) {
  __shared__ double rows[kTile][kPitch];
  __shared__ double columns[kTile][kPitch];
  if (blockIdx.x > blockIdx.y) {
    return;  // above the diagonal
  }
  const int first = (p.block + 1) * kBlock;
  const int row0 = first + blockIdx.y * kTile;
  const int column0 = first + blockIdx.x * kTile;
  load(rows, p.a, p, row0, p.block * kBlock);
  load(columns, p.a, p, column0, p.block * kBlock);
  __syncthreads();
  const int tx = threadIdx.x % 16;
  const int ty = threadIdx.x / 16;
  double sum[4][4] = {};
  for (int term = 0; term < kBlock; ++term) {
    double left[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[i] = rows[ty + 16 * i][term];
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const double right = columns[tx + 16 * j][term];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum[i][j] += left[i] * right;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = row0 + ty + 16 * i;
      const int column = column0 + tx + 16 * j;
      if (row < p.n && column <= row) {
        p.a[at(p, row, column)] -= sum[i][j];
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_row(const __grid_constant__ SymmetricInverseParameters p) {
  __shared__ double left[kBlock][kPitch];
  __shared__ double right[kBlock][kPitch];
  const int row = p.block * kBlock;
  const int column = blockIdx.x * kBlock;
  const int r = threadIdx.x / kBlock;
  const int c = threadIdx.x % kBlock;
  double sum[4] = {};
  const auto multiply = [&]() {
    for (int term = 0; term < kBlock; ++term) {
      const double x = right[term][c];
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        sum[u] += left[r + u * 8][term] * x;
      }
    }
  };
  for (int block = blockIdx.x; block < p.block; ++block) {
    load(left, p.a, p, row, block * kBlock);
    load(right, p.x, p, block * kBlock, column);
    __syncthreads();
    multiply();
    __syncthreads();
  }
  load(left, p.x, p, row, row);
#pragma unroll
  for (int u = 0; u < 4; ++u) {
    right[r + u * 8][c] = sum[u];
    sum[u] = 0;
  }
  __syncthreads();
  multiply();
#pragma unroll
  for (int u = 0; u < 4; ++u) {
    if (row + r + u * 8 < p.n) {
      p.x[at(p, row + r + u * 8, column + c)] = -sum[u];
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_product(const __grid_constant__ SymmetricInverseParameters p) {
  __shared__ double left[kBlock][kTile];
  __shared__ double right[kBlock][kTile];
  if (blockIdx.x > blockIdx.y) {
    return;  // above the diagonal
  }
  const int row0 = blockIdx.y * kTile;
  const int column0 = blockIdx.x * kTile;
  const int tx = threadIdx.x % 16;
  const int ty = threadIdx.x / 16;
  double sum[4][4] = {};
  for (int first = row0; first < p.n; first += kBlock) {
    for (int e = threadIdx.x; e < kBlock * kTile; e += kThreads) {
      const int term = first + e / kTile;
      const int row = row0 + e % kTile;
      const int column = column0 + e % kTile;
      const bool inside = term < p.n;  // X is lower triangular: nothing else was written
      left[e / kTile][e % kTile] = inside && row <= term ? p.x[at(p, term, row)] : 0.0;
      right[e / kTile][e % kTile] = inside && column <= term ? p.x[at(p, term, column)] : 0.0;
    }
    __syncthreads();
    for (int term = 0; term < kBlock; ++term) {
      double x[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = left[term][ty + 16 * i];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const double y = right[term][tx + 16 * j];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[i][j] += x[i] * y;
        }
      }
    }
    __syncthreads();
  }
  float* to = reinterpret_cast<float*>(p.a);
  bool good = true;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = row0 + ty + 16 * i;
      const int column = column0 + tx + 16 * j;
      if (row < p.n && column <= row) {
        const float value = static_cast<float>(sum[i][j]);
        good = good && fabsf(value) <= 3.402823466e38f;
        to[at(p, row, column)] = value;
        if (column < row) {
          to[at(p, column, row)] = value;
        }
      }
    }
  }
  if (!good) {
    atomicOr(p.failed, 1);
  }
}

// A warp for each row of inverse v.
extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_solve(const __grid_constant__ SymmetricInverseParameters p) {
  const int row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (row >= p.n) {
    return;
  }
  const float* inverse = reinterpret_cast<const float*>(p.a) + at(p, row, 0);
  double sum = 0;
  for (int column = threadIdx.x % 32; column < p.n; column += 32) {
    sum += inverse[column] * probe(column);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) {
    p.solved[row] = sum;
  }
}

// A warp for each row of v - (F + shift I) solved.
extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_left(const __grid_constant__ SymmetricInverseParameters p) {
  const int row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (row >= p.n) {
    return;
  }
  double sum = 0;
  for (int column = threadIdx.x % 32; column < p.n; column += 32) {
    const double value = p.matrix[column <= row ? at(p, row, column) : at(p, column, row)];
    sum += (column == row ? value + shift_of(p) : value) * p.solved[column];
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) {
    const double left = probe(row) - sum;
    p.left[row] = left * left;
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    symmetric_inverse_end(const __grid_constant__ SymmetricInverseParameters p) {
  const bool failed = *p.failed != 0;
  const int row = blockIdx.y;
  const int column = blockIdx.x * kThreads + threadIdx.x;
  if (column < p.n && !failed) {
    p.inverse[at(p, row, column)] = reinterpret_cast<const float*>(p.a)[at(p, row, column)];
  }
  if (blockIdx.x == 0 && row == 0) {
    double squares = 0;
    for (int i = threadIdx.x; i < p.n; i += kThreads) {
      squares += p.left[i];
    }
    squares = block_sum<kThreads>(squares);
    if (threadIdx.x == 0) {
      *p.residual = failed ? __uint_as_float(0x7fffffffu) : static_cast<float>(sqrt(squares / p.n));
    }
  }
}
