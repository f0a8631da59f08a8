// Stand-alone rectifier.
//
//   forward   out = phi(src)                                  out may be src
//   backward  out = [out +] diff * phi'(src)                  src is the rectifier's output; out may be diff
//
// phi(x) = scale * (max(x,0) + slope * min(x,0)); phi' from the output (see storage.cuh).
// Shapes: any, as a flat run of n elements. Threads: 256, each 4 packs of 16 bytes; no shared
// memory; aims at 40 registers. Bound: memory, 2 passes forward, 3 backward (4 when accumulating).
// Limits: none (any n, any alignment of an element). Oracle: RectifyContract.
#include "elementwise.cuh"

struct RectifyParameters {
  const void* src;
  const void* diff;
  void* out;
  long long n;
  Rectifier rectifier;
  int accumulate;
};

template <typename T>
__device__ __forceinline__ void rectify_forward(const RectifyParameters& p) {
  const T* const in[] = {static_cast<const T*>(p.src)};
  map(in, static_cast<T*>(p.out), p.n, [&](const float(&x)[1]) { return p.rectifier(x[0]); });
}

template <typename T>
__device__ __forceinline__ void rectify_backward(const RectifyParameters& p) {
  const T* y = static_cast<const T*>(p.src);
  const T* diff = static_cast<const T*>(p.diff);
  T* out = static_cast<T*>(p.out);
  if (p.accumulate) {
    const T* const in[] = {y, diff, out};
    map(in, out, p.n,
        [&](const float(&x)[3]) { return x[2] + x[1] * p.rectifier.derivative(x[0]); });
  } else {
    const T* const in[] = {y, diff};
    map(in, out, p.n, [&](const float(&x)[2]) { return x[1] * p.rectifier.derivative(x[0]); });
  }
}

ENTRY_POINTS(rectify_forward, RectifyParameters, kThreads)
ENTRY_POINTS(rectify_backward, RectifyParameters, kThreads)
