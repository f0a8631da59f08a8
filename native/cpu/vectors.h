// Vectors of LANES floats, and how floats and bfloat16 are read and written by them.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>
#if LANES >= 8
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Vector repeat(float value) { return value - Vector{}; }
INLINE Vector load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
INLINE void store(float* p, Vector v) { *reinterpret_cast<Unaligned*>(p) = v; }

// bfloat16: the upper half of a float, rounded to nearest, ties to even; a NaN stays one. AVX512_BF16's instruction
// takes subnormal numbers for zero.
INLINE Vector load(const uint16_t* p) {
  Halves bits;
  std::memcpy(&bits, p, sizeof bits);
  return Vector(__builtin_convertvector(bits, Words) << 16);
}
INLINE void store(uint16_t* p, Vector v) {
#ifdef __AVX512BF16__
  const Halves halves = Halves(_mm512_cvtneps_pbh(__m512(v)));
#else
  const Words bits = Words(v);
  const Words nearest = bits + 0x7fff + (bits >> 16 & 1);
  const Halves halves = __builtin_convertvector((v == v ? nearest : bits | 0x400000) >> 16, Halves);
#endif
  std::memcpy(p, &halves, sizeof halves);
}

// Past the caches where that is possible for whole lines; finished by endStream().
INLINE void stream(void* p, Vector v) {
#if LANES == 16
  _mm512_stream_ps(static_cast<float*>(p), __m512(v));
#else
  std::memcpy(p, &v, sizeof v);
#endif
}
INLINE void endStream() {
#if LANES == 16
  _mm_sfence();
#endif
}

// Memory that is read soon, fetched into the second-level cache in equal steps of what is done meanwhile: a burst would have to be
// waited for where it comes from beyond the third level.
class Upcoming {
 public:
  Upcoming(const void* begin, int64_t bytes, int64_t steps)
      : from(static_cast<const char*>(begin)),
        end(from + bytes),
        share((bytes + steps * kLine - 1) / (steps * kLine)) {}

  /// One of the steps.
  INLINE void fetch() {
    for (int64_t line = 0; line < share && from < end; line++, from += kLine) __builtin_prefetch(from, 0, 2);
  }

  static constexpr int64_t kLine = 64;

 private:
  const char *from, *end;
  int64_t share;
};

// Likewise some bytes of each of `rows` that begin `below` bytes apart.
class UpcomingRows {
 public:
  UpcomingRows(const void* begin, int64_t bytes, int64_t rows, int64_t below, int64_t steps)
      : row(static_cast<const char*>(begin)),
        size(bytes),
        step(below),
        left(rows),
        share((bytes * rows + steps * Upcoming::kLine - 1) / (steps * Upcoming::kLine)) {}

  /// One of the steps.
  INLINE void fetch() {
    for (int64_t line = 0; line < share && left > 0; line++) {
      __builtin_prefetch(row + at, 0, 2);
      at += Upcoming::kLine;
      if (at < size) continue;
      at = 0;
      row += step;
      left--;
    }
  }

 private:
  const char* row;
  int64_t at = 0, size, step, left, share;
};

INLINE void transpose(float (*rows)[LANES]) {
  for (int i = 1; i < LANES; i++) {
    for (int j = 0; j < i; j++) std::swap(rows[i][j], rows[j][i]);
  }
}

}  // namespace
