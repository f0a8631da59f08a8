// Kernels that nvcc compiles, for nvcc_test.cpp: what real code makes of the common functions and intrinsics.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>

struct Arguments {
  const float* in;
  float* out;
  int n;
  float table[4];
};

extern "C" __global__ void functions(const __grid_constant__ Arguments a) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.n) return;
  float x = a.in[i], *o = a.out + 16 * i;
  o[0] = expf(x), o[1] = logf(fabsf(x)), o[2] = sinf(x), o[3] = cosf(x), o[4] = tanhf(x), o[5] = erff(x),
  o[6] = powf(fabsf(x), 1.5f), o[7] = x / 3.7f;
  o[8] = sqrtf(fabsf(x)), o[9] = rsqrtf(fabsf(x) + 1), o[10] = fmodf(x, 0.7f), o[11] = (float)(int)x, o[12] = floorf(x),
  o[13] = log1pf(fabsf(x));
  o[14] = a.table[i & 3] * x, o[15] = sinf(x * 100000);  // the slow path of the argument reduction, in local memory
}

__device__ __noinline__ double horner(const double* c, int n, double x) {
  double r = 0;
  for (int i = n - 1; i >= 0; i--) r = r * x + c[i];
  return r;
}
extern "C" __global__ void polynomial(const double* c, int n, const double* x, double* y) {
  y[threadIdx.x] = horner(c, n, x[threadIdx.x]);
}

// C = A B^T in f32, through shared memory filled by cp.async, two stages.
extern "C" __global__ void product(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float sa[2][32][20], sb[2][32][20];
  int row = threadIdx.x / 16, column = threadIdx.x % 16, stages = (k + 15) / 16;
  float sum[2][2] = {};
  auto load = [&](int stage) {
    for (int r = threadIdx.x; r < 32 * 4; r += 256) {
      int y = r / 4, x = r % 4 * 4, ka = stage * 16 + x;
      int am = blockIdx.y * 32 + y, bn = blockIdx.x * 32 + y;
      size_t da = am < m && ka < k ? 0 : 16, db = bn < n && ka < k ? 0 : 16;
      __pipeline_memcpy_async(&sa[stage & 1][y][x], da ? a : a + (size_t)am * k + ka, 16, da);
      __pipeline_memcpy_async(&sb[stage & 1][y][x], db ? b : b + (size_t)bn * k + ka, 16, db);
    }
    __pipeline_commit();
  };
  load(0);
  for (int s = 0; s < stages; s++) {
    if (s + 1 < stages) load(s + 1);
    else __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    for (int x = 0; x < 16; x++)
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) sum[i][j] += sa[s & 1][row + 16 * i][x] * sb[s & 1][column + 16 * j][x];
    __syncthreads();
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) {
      int y = blockIdx.y * 32 + row + 16 * i, x = blockIdx.x * 32 + column + 16 * j;
      if (y < m && x < n) c[(size_t)y * n + x] = sum[i][j];
    }
}

extern "C" __global__ void halves(const float* x, float* y, int n) {
  int i = threadIdx.x;
  if (2 * i + 1 >= n) return;
  __half2 h = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
  __nv_bfloat162 b = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  h = __hfma2(h, h, __float2half2_rn(1));
  b = __hadd2(__hmul2(b, b), __float2bfloat162_rn(1));
  y[4 * i] = __low2float(h), y[4 * i + 1] = __high2float(h), y[4 * i + 2] = __low2float(b),
        y[4 * i + 3] = __high2float(b);
}

extern "C" __global__ void blockSum(const float* x, float* sums, int n) {
  __shared__ float partial[32];
  float v = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  for (int o = 16; o; o /= 2) v += __shfl_down_sync(~0u, v, o);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0;
    for (int o = 16; o; o /= 2) v += __shfl_down_sync(~0u, v, o);
    if (threadIdx.x == 0) sums[blockIdx.x] = v;
  }
}

extern "C" __global__ void outOfBounds(float* x, int n) {
  int i = threadIdx.x;
  if (i <= n) x[i] = 1;  // line 93: one too many
}
