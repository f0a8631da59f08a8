// Matrices divided by their Frobenius norms, which is how the iteration for polar factors begins; the
// rest of it is matrix_product.cu.
//
//   partial[m, b] = sum of x^2 over block b's part of matrix m, in double
//   to[m] = from[m] / sqrt(sum of partial[m])          0 for a matrix of zeros
//
//   polar_squares   a block of 256 threads for every 4096 elements of a matrix
//   polar_scale     the same blocks; each adds up all partial sums of its matrix, in order
//
// The division into blocks depends on a matrix's size alone, so that a result repeats bitwise on every
// device. Threads read single floats side by side: matrices need not be aligned to more. Aims at 32
// registers. Bound: memory, 2 passes. Limits: none. Oracle: PolarFactorContractTest.
#include "reduce.cuh"

constexpr int kThreads = 256;
constexpr int kPart = 4096;

struct PolarFactorParameters {
  const float* from;
  float* to;
  double* partial;
  long long elements;  // of a matrix
  int parts;
};

extern "C" __global__ void __launch_bounds__(kThreads)
    polar_squares(const __grid_constant__ PolarFactorParameters p) {
  const float* from = p.from + blockIdx.y * p.elements;
  const long long first = static_cast<long long>(blockIdx.x) * kPart;
  double sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < kPart; i += kThreads) {
    const double x = first + i < p.elements ? from[first + i] : 0.0f;
    sum += x * x;
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    p.partial[static_cast<long long>(blockIdx.y) * p.parts + blockIdx.x] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    polar_scale(const __grid_constant__ PolarFactorParameters p) {
  const double* partial = p.partial + static_cast<long long>(blockIdx.y) * p.parts;
  double sum = 0;
  for (int i = threadIdx.x; i < p.parts; i += kThreads) {
    sum += partial[i];
  }
  sum = block_sum<kThreads>(sum);
  const double factor = sum == 0 ? 0.0 : 1.0 / sqrt(sum);
  const long long at = blockIdx.y * p.elements;
  const long long first = static_cast<long long>(blockIdx.x) * kPart;
#pragma unroll 4
  for (int i = threadIdx.x; i < kPart; i += kThreads) {
    if (first + i < p.elements) {
      p.to[at + first + i] = static_cast<float>(p.from[at + first + i] * factor);
    }
  }
}
