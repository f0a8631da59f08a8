// Building blocks of instruction handlers: loops over 32 lanes that the compiler turns into vector code.
#pragma once
#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "execution.h"

namespace emu {

#define EMU_LANES for (int i = 0; i < 32; i++)

template <class To, class From> inline To bitsAs(From f) {
  static_assert(sizeof(To) == sizeof(From));
  return std::bit_cast<To>(f);
}

/// d = t for the lanes in m.
template <class T> inline void merge(T* d, const T* t, uint32_t m) {
#pragma GCC ivdep
  EMU_LANES d[i] = m >> i & 1 ? t[i] : d[i];
}

/// One result from one, two or three operands, lane by lane. F::f is evaluated for inactive lanes too and must not trap.
template <class D, class A, class F> void map1(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  D* d = w.reg<D>(o[0]);
  const A* a = w.reg<A>(o[1]);
  if (m == ~0u) {
#pragma GCC ivdep
    EMU_LANES d[i] = F::f(a[i]);
  } else {
    alignas(64) D t[32];
    EMU_LANES t[i] = F::f(a[i]);
    merge(d, t, m);
  }
}
template <class D, class A, class B, class F> void map2(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  D* d = w.reg<D>(o[0]);
  const A* a = w.reg<A>(o[1]);
  const B* b = w.reg<B>(o[2]);
  if (m == ~0u) {
#pragma GCC ivdep
    EMU_LANES d[i] = F::f(a[i], b[i]);
  } else {
    alignas(64) D t[32];
    EMU_LANES t[i] = F::f(a[i], b[i]);
    merge(d, t, m);
  }
}
template <class D, class A, class B, class C, class F> void map3(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  D* d = w.reg<D>(o[0]);
  const A* a = w.reg<A>(o[1]);
  const B* b = w.reg<B>(o[2]);
  const C* c = w.reg<C>(o[3]);
  if (m == ~0u) {
#pragma GCC ivdep
    EMU_LANES d[i] = F::f(a[i], b[i], c[i]);
  } else {
    alignas(64) D t[32];
    EMU_LANES t[i] = F::f(a[i], b[i], c[i]);
    merge(d, t, m);
  }
}

/// Bit i of the result is b[i] != 0.
inline uint32_t packed(const uint8_t* b) {
#ifdef __AVX2__
  __m256i v = _mm256_load_si256((const __m256i*)b);
  return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256()));
#else
  uint32_t r = 0;
  EMU_LANES r |= (uint32_t)(b[i] != 0) << i;
  return r;
#endif
}

inline float canonical(float x) { return x != x ? bitsAs<float>(0x7fffffffu) : x; }
inline double canonical(double x) { return x != x ? bitsAs<double>(0x7ff8000000000000ull) : x; }
inline float flushed(float x) {
  uint32_t b = bitsAs<uint32_t>(x);
  return bitsAs<float>((b & 0x7f800000u) == 0 ? b & 0x80000000u : b);
}
inline double flushed(double x) { return x; }
template <class T> inline T saturated(T x) { return x > T(0) ? (x < T(1) ? x : T(1)) : T(0); }  // NaN becomes +0

// 16-bit floating formats. Arithmetic on them is done in wider types and rounded once.
inline float fromBf16(uint16_t h) { return bitsAs<float>((uint32_t)h << 16); }
inline uint16_t toBf16(float x) {
  uint32_t b = bitsAs<uint32_t>(x);
  uint16_t r = (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
  return x != x ? (uint16_t)0x7fff : r;
}
inline float fromF16(uint16_t h) { return _cvtsh_ss(h); }
inline uint16_t toF16(float x) {
  uint16_t r = _cvtss_sh(x, 0);
  return x != x ? (uint16_t)0x7fff : r;
}

struct F16Format {
  static float from(uint16_t h) { return fromF16(h); }
  static uint16_t to(float x) { return toF16(x); }
  static constexpr uint16_t one = 0x3c00;
  template <int N> static void load(const uint16_t* s, float* d) {
    for (int i = 0; i < N; i += 8) _mm256_storeu_ps(d + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(s + i))));
  }
  template <int N> static void store(const float* s, uint16_t* d) {
    for (int i = 0; i < N; i += 8)
      _mm_storeu_si128((__m128i*)(d + i), _mm256_cvtps_ph(_mm256_loadu_ps(s + i), _MM_FROUND_TO_NEAREST_INT));
    for (int i = 0; i < N; i++) d[i] = s[i] != s[i] ? (uint16_t)0x7fff : d[i];
  }
};
struct Bf16Format {
  static float from(uint16_t h) { return fromBf16(h); }
  static uint16_t to(float x) { return toBf16(x); }
  static constexpr uint16_t one = 0x3f80;
  template <int N> static void load(const uint16_t* s, float* d) {
    for (int i = 0; i < N; i++) d[i] = fromBf16(s[i]);
  }
  template <int N> static void store(const float* s, uint16_t* d) {
    for (int i = 0; i < N; i++) d[i] = toBf16(s[i]);
  }
};

/// An 8x8 matrix of 16-bit elements, rows of 16 bytes, transposed.
inline void transpose8(const uint16_t* s, uint16_t* d) {
#ifdef __AVX512BW__
  alignas(64) static const uint16_t index[64] = {0, 8,  16, 24, 32, 40, 48, 56, 1, 9,  17, 25, 33, 41, 49, 57,
                                                 2, 10, 18, 26, 34, 42, 50, 58, 3, 11, 19, 27, 35, 43, 51, 59,
                                                 4, 12, 20, 28, 36, 44, 52, 60, 5, 13, 21, 29, 37, 45, 53, 61,
                                                 6, 14, 22, 30, 38, 46, 54, 62, 7, 15, 23, 31, 39, 47, 55, 63};
  __m512i a = _mm512_loadu_si512(s), b = _mm512_loadu_si512(s + 32);
  _mm512_storeu_si512(d, _mm512_permutex2var_epi16(a, _mm512_load_si512(index), b));
  _mm512_storeu_si512(d + 32, _mm512_permutex2var_epi16(a, _mm512_load_si512(index + 32), b));
#else
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 8; j++) d[i * 8 + j] = s[j * 8 + i];
#endif
}

/// a*b+c of 16-bit floats: the float nearest to it whose rounding to 16 bits is the correctly rounded result (rounding to odd on the way).
inline float fmaForRounding(float a, float b, float c) {
  double p = (double)a * b, s = p + c, t = s - p, e = (p - (s - t)) + (c - t);
  uint64_t bits = bitsAs<uint64_t>(s);
  if (e != 0 && e == e && s - s == 0) bits = (((e > 0) == (s > 0)) ? bits : bits - 1) | 1;
  s = bitsAs<double>(bits);
  float f = (float)s;
  if ((double)f != s && f == f) {
    uint32_t fb = bitsAs<uint32_t>(f);
    if (std::fabs((double)f) > std::fabs(s)) fb--;
    f = bitsAs<float>(fb | 1);
  }
  return f;
}

}  // namespace emu
