// Conversion between storage types, rounding to nearest even: out[i] = round(in[i]).
//
// Shapes: any, flat. Threads: 256, each 4 packs of 4 or 8 elements (16 bytes on the wider side); no
// shared memory; aims at 40 registers. Bound: memory, one pass over each side. Limits: none.
// Oracle: CopyContract.
#include "elementwise.cuh"

struct ConvertParameters {
  const void* in;
  void* out;
  long long n;
};

template <typename In, typename Out>
__device__ __forceinline__ void convert(const ConvertParameters& p) {
  constexpr int N = 16 / (sizeof(In) > sizeof(Out) ? sizeof(In) : sizeof(Out));
  const In* const in[] = {static_cast<const In*>(p.in)};
  map_packs<N>(in, static_cast<Out*>(p.out), p.n,
               [&](long long, const float(&x)[1][N], float(&y)[N]) {
#pragma unroll
                 for (int lane = 0; lane < N; ++lane) {
                   y[lane] = x[0][lane];
                 }
               });
}

#define CONVERT(in_name, In, out_name, Out)                                                        \
  extern "C" __global__ void __launch_bounds__(kThreads)                                           \
      convert_##in_name##_##out_name(const __grid_constant__ ConvertParameters p) {                \
    convert<In, Out>(p);                                                                           \
  }

CONVERT(f32, float, bf16, bf16)
CONVERT(f32, float, f16, f16)
CONVERT(bf16, bf16, f32, float)
CONVERT(bf16, bf16, f16, f16)
CONVERT(f16, f16, f32, float)
CONVERT(f16, f16, bf16, bf16)
