// Mean over all locations of an image.
//
//   forward   out[n,c]       = 1/(h*w) * sum over locations of src[n,location,c]
//   backward  out[n,loc.,c]  = ([out +] diff[n,c] / (h*w)) * psi'(src)
//
// Layout NHWC, locations = h*w. Forward: a block of 32 channels x 8 rows of locations for one image;
// each row sums every eighth location, the rows are added in order in 1 KiB of shared memory.
// Backward: a thread per pack of channels (16 bytes where the channel count divides and all pointers
// are aligned, else one channel). Threads: 256; aims at 40 registers. Bound: memory (one pass over
// src; one to three passes backward). Limits: none. Oracle: GlobalMeanPoolContract.
#include "storage.cuh"

struct GlobalMeanPoolParameters {
  const void* src;
  const void* diff;
  void* out;
  long long n;  // images forward, packs of out backward
  int locations;
  int c;
  Rectifier rectifier;
  int accumulate;
  int derivative;
};

constexpr int kLanes = 32;
constexpr int kRows = 8;
constexpr int kThreads = kLanes * kRows;

template <typename T>
__device__ __forceinline__ void global_mean_pool_forward(const GlobalMeanPoolParameters& p) {
  __shared__ float partial[kRows][kLanes];
  const int lane = threadIdx.x % kLanes;
  const int row = threadIdx.x / kLanes;
  const int tiles = (p.c + kLanes - 1) / kLanes;
  const long long image = blockIdx.x / tiles;
  const int c = (blockIdx.x % tiles) * kLanes + lane;
  float sum = 0;
  if (c < p.c) {
    const T* src = static_cast<const T*>(p.src) + image * p.locations * p.c + c;
    for (int location = row; location < p.locations; location += kRows) {
      sum += widen(src[static_cast<long long>(location) * p.c]);
    }
  }
  partial[row][lane] = sum;
  __syncthreads();
  if (row == 0 && c < p.c) {
#pragma unroll
    for (int other = 1; other < kRows; ++other) {
      sum += partial[other][lane];
    }
    static_cast<T*>(p.out)[image * p.c + c] = narrow<T>(sum / static_cast<float>(p.locations));
  }
}

template <int N, typename T>
__device__ __forceinline__ void backward(const GlobalMeanPoolParameters& p) {
  const long long pack = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack >= p.n) {
    return;
  }
  int c, location;
  const long long image = divide(divide(pack, p.c / N, &c), p.locations, &location);
  const long long from = image * p.c + c * N;
  const long long i = pack * N;
  T* out = static_cast<T*>(p.out);
  const Pack<T, N> diff = load<N>(static_cast<const T*>(p.diff), from, from + N, true);
  const Pack<T, N> old = p.accumulate ? load<N>(out, i, i + N, true) : Pack<T, N>{};
  const Pack<T, N> source =
      p.derivative ? load<N>(static_cast<const T*>(p.src), i, i + N, true) : Pack<T, N>{};
  Pack<T, N> result;
#pragma unroll
  for (int lane = 0; lane < N; ++lane) {
    float gradient = widen(diff.get(lane)) / static_cast<float>(p.locations);
    if (p.accumulate) {
      gradient += widen(old.get(lane));
    }
    if (p.derivative) {
      gradient *= p.rectifier.derivative(widen(source.get(lane)));
    }
    result.put(lane, narrow<T>(gradient));
  }
  store<N>(out, i, i + N, true, result);
}

template <typename T>
__device__ __forceinline__ void global_mean_pool_backward(const GlobalMeanPoolParameters& p) {
  backward<kPackOf<T>, T>(p);
}

template <typename T>
__device__ __forceinline__ void global_mean_pool_backward_scalar(
    const GlobalMeanPoolParameters& p) {
  backward<1, T>(p);
}

ENTRY_POINTS(global_mean_pool_forward, GlobalMeanPoolParameters, kThreads)
ENTRY_POINTS(global_mean_pool_backward, GlobalMeanPoolParameters, kThreads)
ENTRY_POINTS(global_mean_pool_backward_scalar, GlobalMeanPoolParameters, kThreads)
