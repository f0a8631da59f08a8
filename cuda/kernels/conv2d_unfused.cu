// What a library's convolution leaves to be done, as it knows no epilogue of ours.
//
//   conv2d_epilogue  out = phi(branchWeight * (in + bias[k]) + shortcutWeight * shortcut)     in f32, NHWC
//   column_sums      partial[split][k] = sum over the split's rows of in[row][k]
//
// The first is a pass that our own convolutions do not need. Its input is f32, as a sum that cancels with the bias must
// not have been rounded to 16 bits before; where out is f32 too it may be the same.
// The second gives the bias gradient: conv2d_wgrad_reduce adds the splits in order, so the result repeats.
// Threads: 256. conv2d_epilogue: packs of 16 bytes, no shared memory, 2 passes (3 with a shortcut).
// column_sums: 32 columns of 8 rows at a time, 1 KiB of shared memory, 1 pass. Limits: none. Oracle: Conv2dContract.
#include "elementwise.cuh"

struct EpilogueParameters {
  const float* in;
  void* out;
  const void* shortcut;  // or null
  const float* bias;
  long long n;
  int channels;
  Rectifier rectifier;
  float branchWeight;
  float shortcutWeight;
};

template <typename T>
__device__ __forceinline__ void conv2d_epilogue(const EpilogueParameters& p) {
  constexpr int N = kPackOf<T>;
  const float* const in[] = {p.in};
  const T* shortcut = static_cast<const T*>(p.shortcut);
  const bool vector = aligned<16>(shortcut);
  map_packs<N>(in, static_cast<T*>(p.out), p.n,
               [&](long long i, const float(&x)[1][N], float(&y)[N]) {
                 int channel;
                 divide(i, p.channels, &channel);
                 Pack<T, N> branch{};
                 if (shortcut != nullptr) {
                   branch = load<N>(shortcut, i, p.n, vector);
                 }
#pragma unroll
                 for (int lane = 0; lane < N; ++lane) {
                   float sum = x[0][lane] + p.bias[channel];
                   if (shortcut != nullptr) {
                     sum = p.branchWeight * sum + p.shortcutWeight * widen(branch.get(lane));
                   }
                   y[lane] = p.rectifier(sum);
                   channel = channel + 1 == p.channels ? 0 : channel + 1;
                 }
               });
}

struct ColumnSumsParameters {
  const void* in;
  float* partial;
  long long rows;
  long long rowsPerSplit;
  long long splitStride;  // floats from one split to the next
  int columns;
};

template <typename T>
__device__ __forceinline__ void column_sums(const ColumnSumsParameters& p) {
  constexpr int kRows = kThreads / 32;
  __shared__ float sums[kRows][32];
  const int column = blockIdx.x * 32 + threadIdx.x % 32;
  const int row = threadIdx.x / 32;
  const long long first = blockIdx.y * p.rowsPerSplit;
  const long long end = min(first + p.rowsPerSplit, p.rows);
  const T* in = static_cast<const T*>(p.in);
  float sum = 0;
  if (column < p.columns) {
    for (long long r = first + row; r < end; r += kRows) {
      sum += widen(in[r * p.columns + column]);
    }
  }
  sums[row][threadIdx.x % 32] = sum;
  __syncthreads();
  if (row == 0 && column < p.columns) {
    for (int r = 1; r < kRows; ++r) {
      sum += sums[r][threadIdx.x];
    }
    p.partial[blockIdx.y * p.splitStride + column] = sum;
  }
}

ENTRY_POINTS(conv2d_epilogue, EpilogueParameters, kThreads)
ENTRY_POINTS(column_sums, ColumnSumsParameters, kThreads)
