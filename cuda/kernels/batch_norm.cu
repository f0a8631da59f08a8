// Batch normalisation over all locations of a batch, and a rectifier.
//
//   xhat     = (src - mean[c]) / sqrt(variance[c] + epsilon)
//   forward  out = phi(gamma[c] * xhat + beta[c])
//   backward out = [out +] gamma[c] / sqrt(variance[c] + epsilon) * (diff - (S0[c] + xhat * S1[c]) / count)
//
//   batch_norm_moments     mean and sum of squared deviations of a slab of locations
//   batch_norm_merge       the same of all slabs, or (divide) mean and variance of all parts of a batch
//   batch_norm_sums        sums of diff and of diff * xhat over a slab
//   batch_norm_total       the same of all slabs, and the parameters' gradients
//
// Layout NHWC, locations = n*h*w. moments and sums: a block of 32 channels x 8 rows of locations, one of at
// most 128 slabs, a division that depends on the sizes alone; a row takes every eighth location, rows are added in
// order in 1 KiB of shared memory, in f32; slabs by a thread per channel, in order, in f64. forward and backward:
// elementwise, 256 threads, 4 packs of 16 bytes each; aims at 40 registers, backward 128. Bound: memory, 2 passes for
// moments (the second from the caches where a slab fits), 2 for sums, 2 forward, 3 or 4 backward. Limits: none.
// Oracle: BatchNormContract.
#include "elementwise.cuh"

struct BatchNormParameters {
  const void* src;
  const void* diff;
  const float* mean;
  const float* variance;
  const float* gamma;  // forward, backward
  const float* beta;  // forward
  const float* sums;  // backward: [parts, 2, c]
  void* out;  // moments, sums: partial [slabs, 2, c]
  long long locations;
  int c;
  int parts;
  int slabs;
  float epsilon;
  Rectifier rectifier;
  int accumulate;
};

struct BatchNormMergeParameters {
  const float* from;  // [pieces, 2, c]
  float* first;  // mean, or the first sum
  float* second;  // sum of squares, variance, or the second sum
  float* diff_gamma;  // total only
  float* diff_beta;
  long long
      locations;  // of all pieces; pieces of ceil(locations / pieces), the last may be smaller
  int c;
  int pieces;
  int divide;
  int accumulate;
};

constexpr int kLanes = 32;
constexpr int kRows = kThreads / kLanes;

// The sum over the rows of a block, valid in all of them.
__device__ __forceinline__ float sum_rows(float x) {
  __shared__ float partial[kRows][kLanes];
  const int lane = threadIdx.x % kLanes;
  __syncthreads();  // a former use is over
  partial[threadIdx.x / kLanes][lane] = x;
  __syncthreads();
  float sum = partial[0][lane];
#pragma unroll
  for (int row = 1; row < kRows; ++row) {
    sum += partial[row][lane];
  }
  return sum;
}

__host__ __device__ __forceinline__ long long slab_size(long long locations, int slabs) {
  return (locations + slabs - 1) / slabs;
}

// Where a block works: its channel and its slab's locations.
struct Slab {
  int c;
  bool inside;
  long long begin, end;
  int index;

  __device__ __forceinline__ explicit Slab(const BatchNormParameters& p) {
    const int tiles = (p.c + kLanes - 1) / kLanes;
    index = blockIdx.x / tiles;
    c = (blockIdx.x % tiles) * kLanes + threadIdx.x % kLanes;
    inside = c < p.c;
    const long long size = slab_size(p.locations, p.slabs);
    begin = index * size;
    end = begin + size < p.locations ? begin + size : p.locations;
  }

  __device__ __forceinline__ int row() const { return threadIdx.x / kLanes; }

  __device__ __forceinline__ void put(const BatchNormParameters& p, float first,
                                      float second) const {
    if (inside && row() == 0) {
      float* out = static_cast<float*>(p.out) + 2LL * index * p.c + c;
      out[0] = first;
      out[p.c] = second;
    }
  }
};

__device__ __forceinline__ float inverse_deviation(const BatchNormParameters& p, int c) {
  return 1.0f / sqrtf(p.variance[c] + p.epsilon);
}

template <typename T>
__device__ __forceinline__ void batch_norm_moments(const BatchNormParameters& p) {
  const Slab slab(p);
  const T* src = static_cast<const T*>(p.src) + slab.c;
  float sum = 0;
  for (long long i = slab.begin + slab.row(); slab.inside && i < slab.end; i += kRows) {
    sum += widen(src[i * p.c]);
  }
  const float mean = sum_rows(sum) / static_cast<float>(slab.end - slab.begin);
  float squares = 0;
  for (long long i = slab.begin + slab.row(); slab.inside && i < slab.end; i += kRows) {
    const float deviation = widen(src[i * p.c]) - mean;
    squares += deviation * deviation;
  }
  slab.put(p, mean, sum_rows(squares));
}

template <typename T>
__device__ __forceinline__ void batch_norm_sums(const BatchNormParameters& p) {
  const Slab slab(p);
  const T* src = static_cast<const T*>(p.src) + slab.c;
  const T* diff = static_cast<const T*>(p.diff) + slab.c;
  const float mean = slab.inside ? p.mean[slab.c] : 0;
  float sum = 0;
  float product = 0;
  for (long long i = slab.begin + slab.row(); slab.inside && i < slab.end; i += kRows) {
    const float d = widen(diff[i * p.c]);
    sum += d;
    product += d * (widen(src[i * p.c]) - mean);
  }
  sum = sum_rows(sum);
  product = sum_rows(product);
  slab.put(p, sum, slab.inside ? product * inverse_deviation(p, slab.c) : 0);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    batch_norm_merge(const __grid_constant__ BatchNormMergeParameters p) {
  const int c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= p.c) {
    return;
  }
  const long long size = slab_size(p.locations, p.pieces);
  double sum = 0;
  for (int piece = 0; piece < p.pieces; ++piece) {
    const long long begin = piece * size;
    const long long count = begin + size < p.locations ? size : p.locations - begin;
    sum += static_cast<double>(p.from[2LL * piece * p.c + c]) * count;
  }
  const double mean = sum / p.locations;
  double squares = 0;
  for (int piece = 0; piece < p.pieces; ++piece) {
    const long long begin = piece * size;
    const long long count = begin + size < p.locations ? size : p.locations - begin;
    const double difference = p.from[2LL * piece * p.c + c] - mean;
    squares += p.from[(2LL * piece + 1) * p.c + c] + difference * difference * count;
  }
  p.first[c] = static_cast<float>(mean);
  p.second[c] = static_cast<float>(p.divide ? squares / p.locations : squares);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    batch_norm_total(const __grid_constant__ BatchNormMergeParameters p) {
  const int c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= p.c) {
    return;
  }
  double sum = 0;
  double product = 0;
  for (int piece = 0; piece < p.pieces; ++piece) {
    sum += p.from[2LL * piece * p.c + c];
    product += p.from[(2LL * piece + 1) * p.c + c];
  }
  const float beta = static_cast<float>(sum);
  const float gamma = static_cast<float>(product);
  p.first[c] = beta;
  p.second[c] = gamma;
  p.diff_beta[c] = p.accumulate ? p.diff_beta[c] + beta : beta;
  p.diff_gamma[c] = p.accumulate ? p.diff_gamma[c] + gamma : gamma;
}

// Calls f(lane, channel) for the elements of a pack that begins at i.
template <int N, typename F>
__device__ __forceinline__ void for_each_channel(long long i, int c, F f) {
  int channel;
  divide(i, c, &channel);
#pragma unroll
  for (int lane = 0; lane < N; ++lane) {
    f(lane, channel);
    channel = channel + 1 == c ? 0 : channel + 1;
  }
}

template <typename T>
__device__ __forceinline__ void batch_norm_forward(const BatchNormParameters& p) {
  constexpr int N = kPackOf<T>;
  const T* const in[] = {static_cast<const T*>(p.src)};
  map_packs<N>(in, static_cast<T*>(p.out), p.locations * p.c,
               [&](long long i, const float(&x)[1][N], float(&y)[N]) {
                 for_each_channel<N>(i, p.c, [&](int lane, int c) {
                   const float factor = p.gamma[c] * inverse_deviation(p, c);
                   y[lane] = p.rectifier((x[0][lane] - p.mean[c]) * factor + p.beta[c]);
                 });
               });
}

// The gradient of src, without what was there.
__device__ __forceinline__ float gradient(const BatchNormParameters& p, float diff, float x,
                                          int c) {
  float sum = 0;
  float product = 0;
  for (int part = 0; part < p.parts; ++part) {
    sum += p.sums[2LL * part * p.c + c];
    product += p.sums[(2LL * part + 1) * p.c + c];
  }
  const float inverse = inverse_deviation(p, c);
  const float count = static_cast<float>(p.locations) * static_cast<float>(p.parts);
  const float normalised = (x - p.mean[c]) * inverse;
  return p.gamma[c] * inverse * (diff - (sum + normalised * product) / count);
}

template <typename T>
__device__ __forceinline__ void batch_norm_backward(const BatchNormParameters& p) {
  constexpr int N = kPackOf<T>;
  const T* diff = static_cast<const T*>(p.diff);
  const T* src = static_cast<const T*>(p.src);
  T* out = static_cast<T*>(p.out);
  if (p.accumulate) {
    const T* const in[] = {diff, src, out};
    map_packs<N>(in, out, p.locations * p.c, [&](long long i, const float(&x)[3][N], float(&y)[N]) {
      for_each_channel<N>(i, p.c, [&](int lane, int c) {
        y[lane] = x[2][lane] + gradient(p, x[0][lane], x[1][lane], c);
      });
    });
  } else {
    const T* const in[] = {diff, src};
    map_packs<N>(in, out, p.locations * p.c, [&](long long i, const float(&x)[2][N], float(&y)[N]) {
      for_each_channel<N>(
          i, p.c, [&](int lane, int c) { y[lane] = gradient(p, x[0][lane], x[1][lane], c); });
    });
  }
}

ENTRY_POINTS(batch_norm_moments, BatchNormParameters, kThreads)
ENTRY_POINTS(batch_norm_sums, BatchNormParameters, kThreads)
ENTRY_POINTS(batch_norm_forward, BatchNormParameters, kThreads)
ENTRY_POINTS(batch_norm_backward, BatchNormParameters, kThreads)
