// Inverted dropout; the mask is recomputed from the counter, never stored.
//
//   out[i] = [out[i] +] (uniform_i >= rate ? factor * in[i] : 0)            out may be in
//   uniform_i = element i of the Philox stream (seed, sequence); factor = 1 / (1 - rate)
//
// The sequence number is read from memory, low word first, so that a captured launch takes another
// mask each time it runs.
// Shapes: any, flat. Threads: 256, each 4 packs of 16 bytes; a pack of 4 elements is one Philox
// block. No shared memory; aims at 64 registers. Bound: memory (2 passes, 3 when accumulating) for
// 16-bit types, about balanced with the integer pipe. Limits: none. Oracle: DropoutContract.
#include "elementwise.cuh"
#include "philox.cuh"

struct DropoutParameters {
  const void* in;
  void* out;
  const unsigned* sequence;
  long long n;
  unsigned long long seed;
  float rate;
  float factor;
  int accumulate;
};

template <int INPUTS, typename T>
__device__ __forceinline__ void drop(const T* const (&in)[INPUTS], T* out,
                                     const DropoutParameters& p) {
  constexpr int N = kPackOf<T>;
  const unsigned long long sequence = p.sequence[0] | static_cast<unsigned long long>(p.sequence[1])
                                                          << 32;
  map_packs<N>(in, out, p.n, [&](long long i, const float(&x)[INPUTS][N], float(&y)[N]) {
#pragma unroll
    for (int quad = 0; quad < N / 4; ++quad) {
      const PhiloxBlock block =
          philox(p.seed, sequence, static_cast<unsigned long long>(i) / 4 + quad);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const int lane = quad * 4 + w;
        const float kept = uniform(block.word[w]) >= p.rate ? x[0][lane] * p.factor : 0.0f;
        y[lane] = INPUTS == 2 ? x[INPUTS - 1][lane] + kept : kept;
      }
    }
  });
}

template <typename T>
__device__ __forceinline__ void dropout(const DropoutParameters& p) {
  const T* from = static_cast<const T*>(p.in);
  T* out = static_cast<T*>(p.out);
  if (p.accumulate) {
    const T* const in[] = {from, out};
    drop(in, out, p);
  } else {
    const T* const in[] = {from};
    drop(in, out, p);
  }
}

ENTRY_POINTS(dropout, DropoutParameters, kThreads)
