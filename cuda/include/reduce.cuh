// Sums in a fixed order, so that a result repeats bitwise: lanes by butterfly, warps in turn.
#pragma once

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, distance);
  }
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
  }
  return x;
}

// The sum over a block of THREADS threads, valid in all of them.
template <int THREADS, typename T>
__device__ __forceinline__ T block_sum(T x) {
  constexpr int kWarps = THREADS / 32;
  __shared__ T partial[kWarps];
  x = warp_sum(x);
  __syncthreads();  // a former use of partial is over
  if (threadIdx.x % 32 == 0) {
    partial[threadIdx.x / 32] = x;
  }
  __syncthreads();
  T sum = partial[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) {
    sum += partial[warp];
  }
  return sum;
}
