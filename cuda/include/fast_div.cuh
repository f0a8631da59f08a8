// Division of 31-bit numbers by a divisor that is fixed per launch: one multiply and one shift.
#pragma once

#include <cstdint>

// quotient(n) = floor(n / divisor) for 0 <= n < 2^31 and 1 <= divisor < 2^31, where
//   shift      = ceil(log2(divisor))
//   multiplier = ceil(2^(31 + shift) / divisor), which always fits 32 bits.
// Source: Granlund and Montgomery, Division by invariant integers using multiplication, 1994.
// The host fills it in (FastDiv::of below, or the same three lines in Java).
struct FastDiv {
  uint32_t divisor;
  uint32_t multiplier;
  uint32_t shift;

#ifdef __CUDACC__
  __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
    return __umulhi(n << 1, multiplier) >> shift;
  }

  // n = quotient * divisor + remainder; returns the quotient.
  __device__ __forceinline__ uint32_t split(uint32_t n, uint32_t& remainder) const {
    uint32_t const q = quotient(n);
    remainder = n - q * divisor;
    return q;
  }
#endif

  static FastDiv of(uint32_t divisor) {
    uint32_t shift = 0;
    while ((uint64_t{1} << shift) < divisor) {
      ++shift;
    }
    uint64_t const power = uint64_t{1} << (31 + shift);
    return {divisor, static_cast<uint32_t>((power + divisor - 1) / divisor), shift};
  }
};
static_assert(sizeof(FastDiv) == 12, "three 32-bit words");
