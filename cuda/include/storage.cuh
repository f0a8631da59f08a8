// Storage types and vector access.
//
// A tensor is stored as float, bf16 or f16; arithmetic is always in float. A Pack is up to 16 bytes
// of consecutive elements, moved by one instruction where the address allows it.
#pragma once

// An unsigned byte, such as a position within a pooling window.
struct u8 {
  unsigned char bits;
};

struct bf16 {
  unsigned short bits;
};

struct f16 {
  unsigned short bits;
};

__device__ __forceinline__ float widen(float x) { return x; }

__device__ __forceinline__ float widen(bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

__device__ __forceinline__ float widen(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// Rounds to nearest even.
template <typename T>
__device__ __forceinline__ T narrow(float x);

template <>
__device__ __forceinline__ float narrow<float>(float x) {
  return x;
}

template <>
__device__ __forceinline__ bf16 narrow<bf16>(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

template <>
__device__ __forceinline__ f16 narrow<f16>(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

// phi(x) = scale * (max(x, 0) + slope * min(x, 0)).
struct Rectifier {
  float slope;
  float scale;

  __device__ __forceinline__ float operator()(float x) const {
    return scale * (x > 0 ? x : slope * x);
  }

  // phi' from the output y, which has the sign of x; at the kink the negative side's.
  __device__ __forceinline__ float derivative(float y) const {
    return scale * (y > 0 ? 1.0f : slope);
  }
};

// N elements in whole registers: kept as words, so that a 16-bit element does not take one each.
template <typename T, int N>
struct alignas(N * sizeof(T) < 4 ? 4 : N * sizeof(T)) Pack {
  static constexpr int kPerWord = 4 / sizeof(T);
  static constexpr int kWords = (N + kPerWord - 1) / kPerWord;
  unsigned word[kWords];

  __device__ __forceinline__ T get(int lane) const {
    const unsigned bits = word[lane / kPerWord] >> (lane % kPerWord * 8 * sizeof(T));
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(bits);
    } else {
      return T{static_cast<decltype(T::bits)>(bits)};
    }
  }

  // Lanes are put in order: the first of a word clears the others.
  __device__ __forceinline__ void put(int lane, T x) {
    unsigned bits;
    if constexpr (sizeof(T) == 4) {
      bits = __float_as_uint(x);
    } else {
      bits = x.bits;
    }
    const int shift = lane % kPerWord * 8 * sizeof(T);
    word[lane / kPerWord] = shift == 0 ? bits : word[lane / kPerWord] | bits << shift;
  }
};

// Elements that fill 16 bytes.
template <typename T>
constexpr int kPackOf = 16 / sizeof(T);

template <int BYTES>
__device__ __forceinline__ bool aligned(const void* p) {
  return (reinterpret_cast<unsigned long long>(p) & (BYTES - 1)) == 0;
}

// Elements [i, i + N) of p; those from n on read as zero. `vector` promises that p is aligned to a
// whole pack; i is a multiple of N.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load(const T* p, long long i, long long n, bool vector) {
  Pack<T, N> pack;
  if (N > 1 && vector && i + N <= n) {
    pack = *reinterpret_cast<const Pack<T, N>*>(p + i);
  } else {
#pragma unroll
    for (int lane = 0; lane < N; ++lane) {
      pack.put(lane, i + lane < n ? p[i + lane] : T{});
    }
  }
  return pack;
}

// The counterpart of load.
template <int N, typename T>
__device__ __forceinline__ void store(T* p, long long i, long long n, bool vector,
                                      const Pack<T, N>& pack) {
  if (N > 1 && vector && i + N <= n) {
    *reinterpret_cast<Pack<T, N>*>(p + i) = pack;
  } else {
#pragma unroll
    for (int lane = 0; lane < N; ++lane) {
      if (i + lane < n) {
        p[i + lane] = pack.get(lane);
      }
    }
  }
}

// Quotient and remainder; 64-bit division is slow, and rarely needed.
__device__ __forceinline__ long long divide(long long dividend, int divisor, int* remainder) {
  if (static_cast<unsigned long long>(dividend) <= 0xffffffffull) {
    unsigned quotient = static_cast<unsigned>(dividend) / static_cast<unsigned>(divisor);
    *remainder = static_cast<int>(static_cast<unsigned>(dividend) - quotient * divisor);
    return quotient;
  }
  long long quotient = dividend / divisor;
  *remainder = static_cast<int>(dividend - quotient * divisor);
  return quotient;
}

// Makes one entry point per storage type from a template `name<T>(parameters)`.
#define ENTRY_POINTS(name, Parameters, threads)                                                    \
  extern "C" __global__ void __launch_bounds__(threads, 1)                                         \
      name##_f32(const __grid_constant__ Parameters p) {                                           \
    name<float>(p);                                                                                \
  }                                                                                                \
  extern "C" __global__ void __launch_bounds__(threads, 1)                                         \
      name##_bf16(const __grid_constant__ Parameters p) {                                          \
    name<bf16>(p);                                                                                 \
  }                                                                                                \
  extern "C" __global__ void __launch_bounds__(threads, 1)                                         \
      name##_f16(const __grid_constant__ Parameters p) {                                           \
    name<f16>(p);                                                                                  \
  }
