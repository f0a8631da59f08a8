// Weighted sum of two tensors, then a rectifier.
//
//   forward   out = phi(weight_a * a + weight_b * b)                      out may be a or b
//   backward  out = ([out +] weight_a * a) * psi'(b)                      out may be a
//             a is diff_dst, b the source, read only where psi (`rectifier`) is not the identity
//
// Shapes: any, flat. Threads: 256, each 4 packs of 16 bytes; no shared memory; aims at 48 registers.
// Bound: memory, 3 passes forward, 2 to 4 backward. Limits: none. Oracle: WeightedSumContract.
#include "elementwise.cuh"

struct WeightedSumParameters {
  const void* a;
  const void* b;
  void* out;
  long long n;
  float weight_a;
  float weight_b;
  Rectifier rectifier;
  int accumulate;
  int derivative;
};

template <typename T>
__device__ __forceinline__ void weighted_sum_forward(const WeightedSumParameters& p) {
  const T* const in[] = {static_cast<const T*>(p.a), static_cast<const T*>(p.b)};
  map(in, static_cast<T*>(p.out), p.n,
      [&](const float(&x)[2]) { return p.rectifier(p.weight_a * x[0] + p.weight_b * x[1]); });
}

template <typename T>
__device__ __forceinline__ void weighted_sum_backward(const WeightedSumParameters& p) {
  const T* diff = static_cast<const T*>(p.a);
  const T* src = static_cast<const T*>(p.b);
  T* out = static_cast<T*>(p.out);
  if (p.accumulate && p.derivative) {
    const T* const in[] = {diff, src, out};
    map(in, out, p.n, [&](const float(&x)[3]) {
      return (x[2] + p.weight_a * x[0]) * p.rectifier.derivative(x[1]);
    });
  } else if (p.accumulate) {
    const T* const in[] = {diff, out};
    map(in, out, p.n, [&](const float(&x)[2]) { return x[1] + p.weight_a * x[0]; });
  } else if (p.derivative) {
    const T* const in[] = {diff, src};
    map(in, out, p.n,
        [&](const float(&x)[2]) { return p.weight_a * x[0] * p.rectifier.derivative(x[1]); });
  } else {
    const T* const in[] = {diff};
    map(in, out, p.n, [&](const float(&x)[1]) { return p.weight_a * x[0]; });
  }
}

ENTRY_POINTS(weighted_sum_forward, WeightedSumParameters, kThreads)
ENTRY_POINTS(weighted_sum_backward, WeightedSumParameters, kThreads)
