// A Haar-distributed (semi-)orthogonal matrix by Stewart's method (1980): Q = H_0 ... H_{k-1} D E,
// H_j the Householder reflection of Gaussian vector j; definition in io.jtrelu.backend.Orthogonal.
//
// Reflections are applied in panels of 32 in compact WY form, last panel first:
//   H_j0 ... H_j0+31 = I - V T V^T,   Y <- Y - V (T (V^T Y)) on rows and columns from j0 on
// with V [m, 32] unit vectors and T upper triangular, T_jj = 2, T_aj = -2 sum_{l<j} T_al (V^T V)_lj.
//
//   orthogonal_reflectors  one block per vector: Philox normals in double, the norm, V and D's sign
//   orthogonal_factors     one block per panel: V^T V and T, in double
//   orthogonal_apply       one block per 32 columns of Y, one launch per panel: two sweeps over rows
//
// Y lies in dst as it is, or transposed where rows < cols (strides); dst must be zero before. m =
// max(rows, cols), k = min. Threads: 256; shared memory 9 to 27 KiB; aims at 64 registers. Bound:
// FFMA, 2 m k^2 multiply-adds. Limits: m, k < 2^31. Oracle: OrthogonalContract.
#include "philox.cuh"
#include "reduce.cuh"

constexpr int kThreads = 256;
constexpr int kPanel = 32;
constexpr int kPitch = kPanel + 4;  // keeps float4 aligned and columns on different banks

struct OrthogonalParameters {
  float* dst;
  float* reflectors;  // [panels, m, 32]
  float* factors;  // [panels, 32, 32]
  unsigned long long seed;
  unsigned long long sequence;
  long long row_stride;  // of Y in dst
  long long column_stride;
  int m;
  int k;
  int panel;
  float gain;
};

// Normals 4*block .. 4*block + 3 of a stream, by Box and Muller in double.
__device__ __forceinline__ void normals(unsigned long long seed, unsigned long long sequence,
                                        unsigned long long block, float (&x)[4]) {
  const PhiloxBlock words = philox(seed, sequence, block);
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    const double radius = sqrt(-2.0 * log(static_cast<double>(uniform(words.word[2 * pair]))));
    double sine, cosine;
    sincospi(2.0 * uniform(words.word[2 * pair + 1]), &sine, &cosine);
    x[2 * pair] = static_cast<float>(radius * cosine);
    x[2 * pair + 1] = static_cast<float>(radius * sine);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    orthogonal_reflectors(const __grid_constant__ OrthogonalParameters p) {
  __shared__ float first;
  const int j = blockIdx.x;
  float* column = p.reflectors + static_cast<long long>(j / kPanel) * p.m * kPanel + j % kPanel;
  // Rows above the vector, and the columns that fill up the last panel, are zero.
  const int begin = j < p.k ? j : p.m;
  for (int row = threadIdx.x; row < begin; row += kThreads) {
    column[static_cast<long long>(row) * kPanel] = 0;
  }
  if (j >= p.k) {
    return;
  }
  const int length = p.m - j;
  column += static_cast<long long>(j) * kPanel;
  double squares = 0;  // of all elements but the first
  for (int i = 4 * threadIdx.x; i < length; i += 4 * kThreads) {
    float x[4];
    normals(p.seed, p.sequence + j, i / 4, x);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      if (i + lane < length) {
        column[static_cast<long long>(i + lane) * kPanel] = x[lane];
        if (i + lane > 0) {
          squares += static_cast<double>(x[lane]) * x[lane];
        }
      }
    }
    if (i == 0) {
      first = x[0];
    }
  }
  squares = block_sum<kThreads>(squares);
  const double x0 = first;
  const double sign = x0 >= 0 ? 1.0 : -1.0;
  const double v0 = x0 + sign * sqrt(squares + x0 * x0);
  const double inverse = 1.0 / sqrt(squares + v0 * v0);
  for (int i = threadIdx.x; i < length; i += kThreads) {
    float* v = column + static_cast<long long>(i) * kPanel;
    const double x = i == 0 ? v0 : static_cast<double>(*v);
    *v = static_cast<float>(x * inverse);
  }
  if (threadIdx.x == 0) {
    p.dst[j * (p.row_stride + p.column_stride)] = static_cast<float>(-sign) * p.gain;
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    orthogonal_factors(const __grid_constant__ OrthogonalParameters p) {
  __shared__ float tile[kPanel][kPitch];
  __shared__ double gram[kPanel][kPanel + 1];
  __shared__ double t[kPanel][kPanel + 1];
  const int panel = blockIdx.x;
  const float* v = p.reflectors + static_cast<long long>(panel) * p.m * kPanel;
  const int row = threadIdx.x / 8;
  const int quad = threadIdx.x % 8 * 4;
  double sum[4] = {0, 0, 0, 0};
  for (int base = panel * kPanel; base < p.m; base += kPanel) {
    for (int i = threadIdx.x; i < kPanel * kPanel; i += kThreads) {
      const int r = base + i / kPanel;
      tile[i / kPanel][i % kPanel] =
          r < p.m ? v[static_cast<long long>(r) * kPanel + i % kPanel] : 0;
    }
    __syncthreads();
    for (int r = 0; r < kPanel; ++r) {
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) {
        sum[lane] += static_cast<double>(tile[r][row]) * tile[r][quad + lane];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    gram[row][quad + lane] = sum[lane];
  }
  __syncthreads();
  if (threadIdx.x < kPanel) {
    const int a = threadIdx.x;
    for (int j = 0; j < kPanel; ++j) {
      double x = j == a ? 2.0 : 0.0;
      for (int l = a; l < j; ++l) {
        x -= 2.0 * t[a][l] * gram[l][j];
      }
      t[a][j] = x;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kPanel * kPanel; i += kThreads) {
    p.factors[static_cast<long long>(panel) * (kPanel * kPanel) + i] =
        static_cast<float>(t[i / kPanel][i % kPanel]);
  }
}

struct Tile {
  float element[kPanel][kPitch];
};

// Rows [row, row + 32) of a panel of V.
__device__ __forceinline__ void load_reflectors(Tile& tile, const float* v, int row, int m) {
  for (int i = threadIdx.x; i < kPanel * kPanel; i += kThreads) {
    const int r = row + i / kPanel;
    tile.element[i / kPanel][i % kPanel] =
        r < m ? v[static_cast<long long>(r) * kPanel + i % kPanel] : 0;
  }
}

// Visits the 32 x 32 elements of Y at (row, column), neighbouring threads on neighbouring addresses.
template <typename F>
__device__ __forceinline__ void visit(const OrthogonalParameters& p, int row, int column, F f) {
  for (int i = threadIdx.x; i < kPanel * kPanel; i += kThreads) {
    const int slow = i / kPanel;
    const int fast = i % kPanel;
    const int r = p.column_stride == 1 ? slow : fast;
    const int c = p.column_stride == 1 ? fast : slow;
    const bool inside = row + r < p.m && column + c < p.k;
    f(r, c, inside, (row + r) * p.row_stride + (column + c) * p.column_stride);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    orthogonal_apply(const __grid_constant__ OrthogonalParameters p) {
  __shared__ Tile v_tile;
  __shared__ Tile y_tile;
  __shared__ Tile w_tile;
  const float* v = p.reflectors + static_cast<long long>(p.panel) * p.m * kPanel;
  const float* t = p.factors + static_cast<long long>(p.panel) * (kPanel * kPanel);
  const int top = p.panel * kPanel;
  const int column = top + blockIdx.x * kPanel;
  const int row = threadIdx.x / 8;
  const int quad = threadIdx.x % 8 * 4;

  // W = V^T Y; each tile is summed by itself first, which keeps the rounding error small.
  float w[4] = {0, 0, 0, 0};
  for (int base = top; base < p.m; base += kPanel) {
    load_reflectors(v_tile, v, base, p.m);
    visit(p, base, column, [&](int r, int c, bool inside, long long i) {
      y_tile.element[r][c] = inside ? p.dst[i] : 0;
    });
    __syncthreads();
    float sum[4] = {0, 0, 0, 0};
#pragma unroll 8
    for (int r = 0; r < kPanel; ++r) {
      const float4 y = *reinterpret_cast<const float4*>(&y_tile.element[r][quad]);
      const float x = v_tile.element[r][row];
      sum[0] += x * y.x;
      sum[1] += x * y.y;
      sum[2] += x * y.z;
      sum[3] += x * y.w;
    }
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      w[lane] += sum[lane];
    }
    __syncthreads();
  }

  // Z = T W, in place of W.
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    w_tile.element[row][quad + lane] = w[lane];
  }
  for (int i = threadIdx.x; i < kPanel * kPanel; i += kThreads) {
    v_tile.element[i / kPanel][i % kPanel] = t[i];
  }
  __syncthreads();
  float z[4] = {0, 0, 0, 0};
  for (int l = row; l < kPanel; ++l) {
    const float x = v_tile.element[row][l];
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      z[lane] += x * w_tile.element[l][quad + lane];
    }
  }
  __syncthreads();
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    w_tile.element[row][quad + lane] = z[lane];
  }
  __syncthreads();

  // Y -= V Z.
  for (int base = top; base < p.m; base += kPanel) {
    load_reflectors(v_tile, v, base, p.m);
    __syncthreads();
    float sum[4] = {0, 0, 0, 0};
#pragma unroll 8
    for (int a = 0; a < kPanel; ++a) {
      const float4 y = *reinterpret_cast<const float4*>(&w_tile.element[a][quad]);
      const float x = v_tile.element[row][a];
      sum[0] += x * y.x;
      sum[1] += x * y.y;
      sum[2] += x * y.z;
      sum[3] += x * y.w;
    }
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      y_tile.element[row][quad + lane] = sum[lane];
    }
    __syncthreads();
    visit(p, base, column, [&](int r, int c, bool inside, long long i) {
      if (inside) {
        p.dst[i] -= y_tile.element[r][c];
      }
    });
    __syncthreads();
  }
}
