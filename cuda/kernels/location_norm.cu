// Input of a network from images: cast, crop, flip, standardise, and per-location normalisation, in one
// pass.
//
//   v[k]         = src[n, y + dy, (flip ? w-1-x : x) + dx, k], or 0 outside the image, k < c
//   x[k]         = v[k] * factor[k] + offset[k] of f32, table[k][v[k]] of u8;   x[c] = appended
//   dst[n,y,x,k] = x[k] / sqrt(mean over k = 0..c of x[k]^2)
//   appended     = scale, or scale * the root mean square of x over the image (location_norm_rms_*;
//                  an image that is zero everywhere counts as one of root mean square 1)
//
// src NHWC [n, h, w, c], u8 or f32; windows i32 [n, 3]: dy, dx, flip; dst NHWC [n, h, w, c+1]. A thread
// owns a location; 1 and 3 channels, whose results fill a whole access, are unrolled.
// location_norm_rms_*: a block owns an image; its sum has a fixed order. From squares on all is f64, so
// that no finite value overflows, and the host's normalisation of bytes gives the same bits. Threads: 256; shared memory: 64 bytes for the sum; registers: 36 to
// 71. Bound: memory, one pass over src (two with the image's root mean square) and one over
// dst. Limits: none. Oracle: LocationNormContract.
#include "reduce.cuh"
#include "storage.cuh"

constexpr int kThreads = 256;

struct LocationNormParameters {
  const void* src;
  const int* windows;  // null: images as they are
  const float* constants;  // factor[c], then offset[c]; u8: table[c][256]
  float* appended;  // [n]: written by location_norm_rms_*; null: scale
  void* out;
  long long locations;  // n * h * w
  int h;
  int w;
  int c;
  float scale;
};

// The values that a location shows, null outside the image.
template <typename In>
__device__ __forceinline__ const In* shown(const LocationNormParameters& p, long long image, int y,
                                           int x) {
  unsigned from_y = y;  // unsigned: what wraps around lies outside
  unsigned from_x = x;
  if (p.windows != nullptr) {
    const int* window = p.windows + 3 * image;
    from_y += static_cast<unsigned>(window[0]);
    from_x = (window[2] != 0 ? p.w - 1 - x : x) + static_cast<unsigned>(window[1]);
  }
  if (from_y >= static_cast<unsigned>(p.h) || from_x >= static_cast<unsigned>(p.w)) {
    return nullptr;
  }
  return static_cast<const In*>(p.src) +
         ((image * p.h + static_cast<int>(from_y)) * p.w + static_cast<int>(from_x)) * p.c;
}

template <typename In>
__device__ __forceinline__ float standardised(const LocationNormParameters& p, const In* pixel,
                                              int k) {
  if constexpr (sizeof(In) == 1) {
    return __ldg(p.constants + 256 * k + (pixel == nullptr ? 0 : pixel[k].bits));
  } else {
    const float v = pixel == nullptr ? 0.0f : pixel[k];
    return fmaf(v, __ldg(p.constants + k), __ldg(p.constants + p.c + k));
  }
}

__device__ __forceinline__ double square(float x) { return static_cast<double>(x) * x; }

// C channels, known to the compiler.
template <int C, typename In, typename Out>
__device__ __forceinline__ void normalise(const LocationNormParameters& p, const In* pixel,
                                          float appended, long long location) {
  float x[C + 1];
  double squares = square(appended);
#pragma unroll
  for (int k = 0; k < C; ++k) {
    x[k] = standardised(p, pixel, k);
    squares += square(x[k]);
  }
  x[C] = appended;
  const double factor = 1 / sqrt(squares / (C + 1));
  Pack<Out, C + 1> pack;
#pragma unroll
  for (int k = 0; k <= C; ++k) {
    pack.put(k, narrow<Out>(static_cast<float>(x[k] * factor)));
  }
  Out* out = static_cast<Out*>(p.out);
  store<C + 1>(out, location * (C + 1), p.locations * (C + 1), aligned<(C + 1) * sizeof(Out)>(out),
               pack);
}

template <typename In, typename Out>
__device__ __forceinline__ void normalise_any(const LocationNormParameters& p, const In* pixel,
                                              float appended, long long location) {
  double squares = square(appended);
  for (int k = 0; k < p.c; ++k) {
    squares += square(standardised(p, pixel, k));
  }
  const double factor = 1 / sqrt(squares / (p.c + 1));
  Out* out = static_cast<Out*>(p.out) + location * (p.c + 1);
  for (int k = 0; k < p.c; ++k) {
    out[k] = narrow<Out>(static_cast<float>(standardised(p, pixel, k) * factor));
  }
  out[p.c] = narrow<Out>(static_cast<float>(appended * factor));
}

template <typename In, typename Out>
__device__ __forceinline__ void location_norm(const LocationNormParameters& p) {
  const long long location = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (location >= p.locations) {
    return;
  }
  int x, y;
  const long long image = divide(divide(location, p.w, &x), p.h, &y);
  const In* pixel = shown<In>(p, image, y, x);
  const float appended = p.appended != nullptr ? p.appended[image] : p.scale;
  if (p.c == 1) {
    normalise<1, In, Out>(p, pixel, appended, location);
  } else if (p.c == 3) {
    normalise<3, In, Out>(p, pixel, appended, location);
  } else {
    normalise_any<In, Out>(p, pixel, appended, location);
  }
}

template <typename In>
__device__ __forceinline__ void location_norm_rms(const LocationNormParameters& p) {
  const int locations = p.h * p.w;
  double squares = 0;
  for (int i = threadIdx.x; i < locations; i += kThreads) {
    const int y = i / p.w;
    const In* pixel = shown<In>(p, blockIdx.x, y, i - y * p.w);
    for (int k = 0; k < p.c; ++k) {
      squares += square(standardised(p, pixel, k));
    }
  }
  squares = block_sum<kThreads>(squares);
  if (threadIdx.x == 0) {
    const double mean = squares / (static_cast<double>(locations) * p.c);
    p.appended[blockIdx.x] = mean == 0 ? p.scale : static_cast<float>(p.scale * sqrt(mean));
  }
}

#define LOCATION_NORM(name, In, Out)                                                               \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                        \
      name(const __grid_constant__ LocationNormParameters p) {                                     \
    location_norm<In, Out>(p);                                                                     \
  }
#define LOCATION_NORM_RMS(name, In)                                                                \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                        \
      name(const __grid_constant__ LocationNormParameters p) {                                     \
    location_norm_rms<In>(p);                                                                      \
  }
LOCATION_NORM(location_norm_u8_f32, u8, float)
LOCATION_NORM(location_norm_u8_bf16, u8, bf16)
LOCATION_NORM(location_norm_u8_f16, u8, f16)
LOCATION_NORM(location_norm_f32_f32, float, float)
LOCATION_NORM(location_norm_f32_bf16, float, bf16)
LOCATION_NORM(location_norm_f32_f16, float, f16)
LOCATION_NORM_RMS(location_norm_rms_u8, u8)
LOCATION_NORM_RMS(location_norm_rms_f32, float)
