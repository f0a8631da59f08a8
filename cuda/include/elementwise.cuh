// The one loop of all elementwise kernels: out[i] = f(i, in_0[i], in_1[i], ...).
//
// A thread moves UNROLL packs, and all loads are issued before the first use, so that enough bytes
// are in flight to reach memory bandwidth. A block covers one tile of kThreads * UNROLL * N elements; packs of a
// tile are dealt out to threads in turn, so that each warp access is one contiguous run. Operands
// may be the same array (in place): a thread reads its elements before it writes them.
#pragma once

#include "storage.cuh"

constexpr int kThreads = 256;
constexpr int kUnroll = 4;

// f: (index of the pack's first element, const float (&x)[INPUTS][N], float (&y)[N]).
template <int N, int UNROLL = kUnroll, int INPUTS, typename In, typename Out, typename F>
__device__ __forceinline__ void map_packs(const In* const (&in)[INPUTS], Out* out, long long n,
                                          F f) {
  bool vector = aligned<N * sizeof(Out)>(out);
#pragma unroll
  for (int k = 0; k < INPUTS; ++k) {
    vector = vector && aligned<N * sizeof(In)>(in[k]);
  }
  const long long first =
      (static_cast<long long>(blockIdx.x) * (UNROLL * kThreads) + threadIdx.x) * N;
  Pack<In, N> x[UNROLL][INPUTS];
#pragma unroll
  for (int u = 0; u < UNROLL; ++u) {
    const long long i = first + static_cast<long long>(u) * (kThreads * N);
    if (i < n) {
#pragma unroll
      for (int k = 0; k < INPUTS; ++k) {
        x[u][k] = load<N>(in[k], i, n, vector);
      }
    }
  }
#pragma unroll
  for (int u = 0; u < UNROLL; ++u) {
    const long long i = first + static_cast<long long>(u) * (kThreads * N);
    if (i < n) {
      float wide[INPUTS][N];
#pragma unroll
      for (int k = 0; k < INPUTS; ++k) {
#pragma unroll
        for (int lane = 0; lane < N; ++lane) {
          wide[k][lane] = widen(x[u][k].get(lane));
        }
      }
      float y[N];
      f(i, wide, y);
      Pack<Out, N> pack;
#pragma unroll
      for (int lane = 0; lane < N; ++lane) {
        pack.put(lane, narrow<Out>(y[lane]));
      }
      store<N>(out, i, n, vector, pack);
    }
  }
}

// f: (const float (&x)[INPUTS]) -> float.
template <int INPUTS, typename T, typename F>
__device__ __forceinline__ void map(const T* const (&in)[INPUTS], T* out, long long n, F f) {
  constexpr int N = kPackOf<T>;
  map_packs<N>(in, out, n, [&](long long, const float(&x)[INPUTS][N], float(&y)[N]) {
#pragma unroll
    for (int lane = 0; lane < N; ++lane) {
      float column[INPUTS];
#pragma unroll
      for (int k = 0; k < INPUTS; ++k) {
        column[k] = x[k][lane];
      }
      y[lane] = f(column);
    }
  });
}
