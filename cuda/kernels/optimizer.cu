// Gradient norm, stochastic gradient descent and Adam over one flat arena of parameters.
//
//   gradient_norm   partial[b] = sum of g^2 over the elements of block b, in double; then one block
//                   adds the partials in order: result = { norm, min(1, max_norm / norm) }, the
//                   factor NaN where the norm is not finite or the factor was NaN before
//   sgd             g = scale * gradient + decay * w;  v = momentum * v + g (without momentum: g, and
//                   the velocity is left alone)
//                   w -= rate * (nesterov ? g + momentum * v : v)
//   adam            g = scale * gradient;  m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2
//                   w -= rate * ((m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + epsilon) + decay * w)
//
// All arrays are float; rate, t and scale lie on the device. A scale of NaN leaves everything as it
// is: neither a bad step nor those queued behind it change anything, and no host need look before the
// next is queued. The division of the norm over blocks
// depends on n alone, so a result repeats bitwise on every device. Threads: 256, 4 packs of 16 bytes
// (optimisers: one pack of each array); aims at 64 registers. Bound: memory; 1 pass, 5, and 7.
// Limits: none. Oracle: GradientNormContract, SgdContract, AdamContract.
#include "reduce.cuh"
#include "storage.cuh"

constexpr int kThreads = 256;
constexpr int kUnroll = 4;

struct GradientNormParameters {
  const float* gradient;
  double* partial;
  float* result;
  long long n;
  int partials;
  float max_norm;
};

extern "C" __global__ void __launch_bounds__(kThreads)
    gradient_norm_partial(const __grid_constant__ GradientNormParameters p) {
  const bool vector = aligned<16>(p.gradient);
  const long long packs = (p.n + 3) / 4;
  const long long step = static_cast<long long>(p.partials) * (kThreads * kUnroll);
  double sum = 0;
  for (long long base = static_cast<long long>(blockIdx.x) * (kThreads * kUnroll) + threadIdx.x;
       base < packs; base += step) {
    Pack<float, 4> g[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const long long pack = base + u * kThreads;
      g[u] = load<4>(p.gradient, (pack < packs ? pack : packs) * 4, p.n, vector);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) {
        const double x = g[u].get(lane);
        sum += x * x;
      }
    }
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    p.partial[blockIdx.x] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    gradient_norm(const __grid_constant__ GradientNormParameters p) {
  double sum = 0;
  for (int i = threadIdx.x; i < p.partials; i += kThreads) {
    sum += p.partial[i];
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    const float norm = static_cast<float>(sqrt(sum));
    const bool finite = norm <= 3.402823466e38f;
    const bool good = finite && !isnan(p.result[1]);
    p.result[0] = norm;
    p.result[1] = good ? fminf(1.0f, p.max_norm / norm) : __uint_as_float(0x7fffffffu);
  }
}

struct SgdParameters {
  float* parameters;
  const float* gradient;
  float* velocity;
  const float* rate;
  const float* scale;
  long long n;
  float momentum;
  float decay;
  int nesterov;
};

extern "C" __global__ void __launch_bounds__(kThreads)
    sgd(const __grid_constant__ SgdParameters p) {
  const bool vector =
      aligned<16>(p.parameters) && aligned<16>(p.gradient) && aligned<16>(p.velocity);
  const long long i = (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (i >= p.n) {
    return;
  }
  const float scale = *p.scale;
  if (isnan(scale)) {
    return;
  }
  const float rate = *p.rate;
  Pack<float, 4> w = load<4>(p.parameters, i, p.n, vector);
  const Pack<float, 4> gradient = load<4>(p.gradient, i, p.n, vector);
  const bool moves = p.momentum != 0;
  Pack<float, 4> v = {};
  if (moves) {
    v = load<4>(p.velocity, i, p.n, vector);
  }
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    const float g = scale * gradient.get(lane) + p.decay * w.get(lane);
    const float velocity = p.momentum * v.get(lane) + g;
    v.put(lane, velocity);
    w.put(lane, w.get(lane) - rate * (p.nesterov ? g + p.momentum * velocity : velocity));
  }
  if (moves) {
    store<4>(p.velocity, i, p.n, vector, v);
  }
  store<4>(p.parameters, i, p.n, vector, w);
}

struct AdamParameters {
  float* parameters;
  const float* gradient;
  float* moment1;
  float* moment2;
  const float* scalars;  // learning rate, step number from 1
  const float* scale;
  long long n;
  float beta1;
  float beta2;
  float epsilon;
  float decay;
};

// base^exponent by squaring, in double: 1 - beta^t cancels in float.
__device__ __forceinline__ double power(double base, unsigned exponent) {
  double result = 1;
  for (; exponent != 0; exponent /= 2) {
    if (exponent % 2 != 0) {
      result *= base;
    }
    base *= base;
  }
  return result;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    adam(const __grid_constant__ AdamParameters p) {
  __shared__ float correction[2];
  if (threadIdx.x < 2) {
    const unsigned t = static_cast<unsigned>(p.scalars[1]);
    const double beta = threadIdx.x == 0 ? p.beta1 : p.beta2;
    correction[threadIdx.x] = static_cast<float>(1 - power(beta, t));
  }
  __syncthreads();
  const bool vector = aligned<16>(p.parameters) && aligned<16>(p.gradient) &&
                      aligned<16>(p.moment1) && aligned<16>(p.moment2);
  const long long i = (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (i >= p.n) {
    return;
  }
  const float scale = *p.scale;
  if (isnan(scale)) {
    return;
  }
  const float rate = p.scalars[0];
  Pack<float, 4> w = load<4>(p.parameters, i, p.n, vector);
  const Pack<float, 4> gradient = load<4>(p.gradient, i, p.n, vector);
  Pack<float, 4> m = load<4>(p.moment1, i, p.n, vector);
  Pack<float, 4> v = load<4>(p.moment2, i, p.n, vector);
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) {
    const float g = scale * gradient.get(lane);
    const float m1 = p.beta1 * m.get(lane) + (1.0f - p.beta1) * g;
    const float m2 = p.beta2 * v.get(lane) + (1.0f - p.beta2) * g * g;
    const float step = (m1 / correction[0]) / (sqrtf(m2 / correction[1]) + p.epsilon);
    m.put(lane, m1);
    v.put(lane, m2);
    w.put(lane, w.get(lane) - rate * (step + p.decay * w.get(lane)));
  }
  store<4>(p.moment1, i, p.n, vector, m);
  store<4>(p.moment2, i, p.n, vector, v);
  store<4>(p.parameters, i, p.n, vector, w);
}
