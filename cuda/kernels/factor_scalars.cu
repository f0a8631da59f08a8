// The scalars that steer K-FAC's factors; definition in io.jtrelu.backend.FactorScalars.
//
//   factor_measurement   scale = weights, or NaN where a row is not finite or the gate is NaN
//   factor_damping       shifts = {pi r, r / pi}, r^2 = damping, pi^2 = mean diagonal of A over that of G
//   factor_constraint    nu = min(1, sqrt(limit / (rate^2 sum |inners[2i] + inners[2i + 1]|)))
//
// One block each, sums in binary64 and in a fixed order. Threads: 256; aims at 40 registers. Bound:
// latency (tiny). Limits: none. Oracle: FactorScalarsContractTest.
#include "reduce.cuh"

constexpr int kThreads = 256;

__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fffffffu); }

struct FactorMeasurementParameters {
  const float* rows;
  const float* weights;
  const float* gate;
  float* scale;
  long long n;
};

extern "C" __global__ void __launch_bounds__(kThreads)
    factor_measurement(const __grid_constant__ FactorMeasurementParameters p) {
  bool good = !isnan(*p.gate);
#pragma unroll 8
  for (long long i = threadIdx.x; i < p.n; i += kThreads) {
    good = good && fabsf(p.rows[i]) <= 3.402823466e38f;
  }
  good = __syncthreads_and(good) != 0;
  if (threadIdx.x < 2) {
    p.scale[threadIdx.x] = good ? p.weights[threadIdx.x] : not_a_number();
  }
}

struct FactorDampingParameters {
  const float* a;
  const float* g;
  const float* gate;
  float* shifts;
  double damping;
  int n;
  int m;
};

__device__ __forceinline__ double mean_diagonal(const float* square, int n) {
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    sum += square[i * (n + 1ll)];
  }
  return block_sum<kThreads>(sum) / n;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    factor_damping(const __grid_constant__ FactorDampingParameters p) {
  const double inputs = mean_diagonal(p.a, p.n);
  const double gradients = mean_diagonal(p.g, p.m);
  if (threadIdx.x == 0) {
    const double mean = inputs / gradients;
    const double pi = mean > 0 && mean <= 1.7976931348623157e308 ? sqrt(mean) : 1.0;
    const double r = sqrt(p.damping);
    const bool closed = isnan(*p.gate);
    p.shifts[0] = closed ? not_a_number() : static_cast<float>(pi * r);
    p.shifts[1] = closed ? not_a_number() : static_cast<float>(r / pi);
  }
}

struct FactorConstraintParameters {
  const float* inners;
  const float* rate;
  float* result;
  double limit;
  int pairs;
};

extern "C" __global__ void __launch_bounds__(kThreads)
    factor_constraint(const __grid_constant__ FactorConstraintParameters p) {
  double sum = 0;
  for (int i = threadIdx.x; i < p.pairs; i += kThreads) {
    sum += fabs(static_cast<double>(p.inners[2 * i]) + p.inners[2 * i + 1]);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0 && !isnan(p.result[1])) {
    const double rate = static_cast<double>(p.rate[0]) + p.rate[1];
    const double nu = sqrt(p.limit / (rate * rate * sum));
    p.result[1] = static_cast<float>(nu > 1.0 ? 1.0 : nu);  // NaN stays
    if (isnan(nu)) {
      p.result[0] = not_a_number();
    }
  }
}
