// mma.sync. A fragment register holds an 8x8 tile of 16-bit elements row by row (an 8x4 tile of 32-bit ones), lane after lane, so operands
// unpack without shuffling.
//
// Sums are those of the hardware (Xie et al., "MMA-Sim", arXiv 2511.10909, and microsoft/MMA-Sim; Khattak and Mikaitis, arXiv 2512.07004;
// Fasi et al., PeerJ CS 7:e330, 2021). A unit adds the accumulator and the products of some neighbouring k at once: each is cut off
// (towards zero) below a last place that lies `bits` below the largest of their exponents, the exponent of a product being the sum of
// its factors' ones. These are added exactly, and the sum is cut off to f32, or rounded to nearest f16. Then the next products follow.
// Later: wgmma, which reads its operands from shared memory, adds likewise and belongs here as well.
#include <algorithm>

#include "instructions.h"
#include "lanes.h"

namespace emu {

namespace {

enum class Element { F16, BF16, TF32 };

/// Tile of 64 16-bit elements to floats.
template <Element E> void widen(const void* from, float* to) {
  if constexpr (E == Element::F16) F16Format::load<64>((const uint16_t*)from, to);
  else Bf16Format::load<64>((const uint16_t*)from, to);
}
float tf32(uint32_t bits) { return bitsAs<float>(bits & ~0x1fffu); }  // the unit ignores the low bits

void transpose(const float* s, float* d, int rows, int columns) {  // d[c][r] = s[r][c]
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) d[c * rows + r] = s[r * columns + c];
}

// Exponents that no number has; sums of two of them can be told from all others too.
constexpr int exponentOfZero = -10000, exponentOfInfinity = 30000;

/// Exponents of floats whose type has none below `least`: subnormal numbers keep that one.
template <int Least> void exponents(const float* from, int* to, int count) {
  for (int i = 0; i < count; i++) {
    uint32_t b = bitsAs<uint32_t>(from[i]) & 0x7fffffff;
    int e = (int)(b >> 23) - 127;
    e = e < Least ? Least : e;
    e = b >= 0x7f800000 ? exponentOfInfinity : e;
    to[i] = b == 0 ? exponentOfZero : e;
  }
}

/// The float next to a number towards zero; or, to be rounded to 16 bits, the one of the two floats beside it that is odd.
float cut(double x, bool odd) {
  float f = (float)x;
  if ((double)f == x || x != x) return f;
  if (std::fabs(x) >= 0x1p128) return std::copysign(std::numeric_limits<float>::infinity(), (float)x);
  uint32_t b = bitsAs<uint32_t>(f);
  if (std::fabs((double)f) > std::fabs(x)) b--;
  return bitsAs<float>(odd ? b | 1 : b);
}

/// One addition, for numbers of any size; b and its exponents lie in a column of 8.
float addOnce(const float* a, const int* ea, const float* b, const int* eb, int count, float c, int ec, int bits,
              bool odd) {
  double plain = c;
  int e = std::max(ec, -126);
  for (int k = 0; k < count; k++) {
    plain += (double)a[k] * b[8 * k];
    e = std::max(e, ea[k] + eb[8 * k]);
  }
  if (!std::isfinite(plain)) return (float)plain;
  double sum = std::trunc(std::ldexp((double)c, bits - e));
  for (int k = 0; k < count; k++) sum += std::trunc(std::ldexp((double)a[k] * b[8 * k], bits - e));
  return cut(std::ldexp(sum, e - bits), odd);
}

/// c (16 x 8) += a (16 x K) * b (K x 8), L products in each addition.
template <int K, int L, int Least, bool HalfSum>
void multiply(const float (&a)[16][K], const float (&b)[K][8], float (&c)[16][8], int bits) {
  alignas(64) int ea[16][K], eb[K][8];
  exponents<Least>(a[0], ea[0], 16 * K);
  exponents<Least>(b[0], eb[0], K * 8);
  for (int first = 0; first < K; first += L)
    for (int i = 0; i < 16; i++) {
      alignas(64) int ec[8], e[8];
      exponents<HalfSum ? -14 : -126>(c[i], ec, 8);
      for (int j = 0; j < 8; j++) e[j] = ec[j];
      for (int k = first; k < first + L; k++)
        for (int j = 0; j < 8; j++) e[j] = std::max(e[j], ea[i][k] + eb[k][j]);
      int unusual = 0;  // where f32 does not hold all products; columns of nothing but zeros are fine
      for (int j = 0; j < 8; j++) unusual |= (e[j] > 100) | ((e[j] < -90) & (e[j] > exponentOfZero + 1000));
      if (unusual) {
        for (int j = 0; j < 8; j++)
          c[i][j] = addOnce(&a[i][first], &ea[i][first], &b[first][j], &eb[first][j], L, c[i][j], ec[j], bits, HalfSum);
      } else {
        alignas(64) float scale[8];
        alignas(64) int low[8], high[8];  // 17 terms below 2^27 each
        for (int j = 0; j < 8; j++) {
          e[j] = std::max(e[j], -90);
          scale[j] = bitsAs<float>((uint32_t)(127 + bits - e[j]) << 23);
          low[j] = (int)(c[i][j] * scale[j]);
          high[j] = 0;
        }
        for (int k = first; k < first + L / 2; k++)
          for (int j = 0; j < 8; j++) low[j] += (int)(a[i][k] * b[k][j] * scale[j]);
        for (int k = first + L / 2; k < first + L; k++)
          for (int j = 0; j < 8; j++) high[j] += (int)(a[i][k] * b[k][j] * scale[j]);
        for (int j = 0; j < 8; j++) {
          double sum = ((double)low[j] + (double)high[j]) * bitsAs<double>((uint64_t)(1023 + e[j] - bits) << 52);
          constexpr uint64_t beyond = (1ull << 29) - 1;  // bits of a double that a float has not
          uint64_t x = bitsAs<uint64_t>(sum), odd = HalfSum && (x & beyond) ? beyond + 1 : 0;
          c[i][j] = (float)bitsAs<double>((x & ~beyond) | odd);
        }
      }
      if constexpr (HalfSum) {
        alignas(16) uint16_t rounded[8];
        F16Format::store<8>(c[i], rounded);
        F16Format::load<8>(rounded, c[i]);
      }
    }
}

template <Element E, int K, bool HalfSum> void mma(Warp& w, const Op&, const int32_t* o, uint32_t) {
  constexpr int perRegister = E == Element::TF32 ? 4 : 8;  // columns of A in one register
  constexpr int aRegisters = 2 * K / perRegister, bRegisters = K / perRegister, cRegisters = HalfSum ? 2 : 4;
  const int32_t *od = o + 1, *oa = od + cRegisters, *ob = oa + aRegisters, *oc = ob + bRegisters;
  alignas(64) float a[16][K], b[K][8], c[16][8], tile[64];
  for (int r = 0; r < aRegisters; r++) {
    int row = (r & 1) * 8, column = (r >> 1) * perRegister;
    if constexpr (E == Element::TF32) {
      const uint32_t* s = w.reg<uint32_t>(oa[r]);
      EMU_LANES a[row + i / 4][column + i % 4] = tf32(s[i]);
    } else {
      widen<E>(w.reg<uint32_t>(oa[r]), tile);
      for (int i = 0; i < 8; i++) memcpy(&a[row + i][column], tile + i * 8, 32);
    }
  }
  for (int r = 0; r < bRegisters; r++) {
    if constexpr (E == Element::TF32) {
      const uint32_t* s = w.reg<uint32_t>(ob[r]);
      EMU_LANES b[r * 4 + i % 4][i / 4] = tf32(s[i]);
    } else {
      widen<E>(w.reg<uint32_t>(ob[r]), tile);
      transpose(tile, b[r * 8], 8, 8);
    }
  }
  for (int r = 0; r < 2; r++) {
    if constexpr (HalfSum) {
      F16Format::load<64>(w.reg<uint16_t>(oc[r]), c[r * 8]);
    } else {
      const float *x = w.reg<float>(oc[2 * r]), *y = w.reg<float>(oc[2 * r + 1]);
      EMU_LANES {
        c[r * 8 + i / 4][i % 4 * 2] = x[i];
        c[r * 8 + i / 4][i % 4 * 2 + 1] = y[i];
      }
    }
  }
  // Ampere's units take 16 bytes of a row of A at once and keep 24 bits, Hopper's and later ones 32 and 25.
  constexpr int size = E == Element::TF32 ? 4 : 2, least = E == Element::F16 ? -14 : -126;
  if (w.block->launch->computeCapability >= 90) multiply<K, std::min(K, 32 / size), least, HalfSum>(a, b, c, 25);
  else multiply<K, std::min(K, 16 / size), least, HalfSum>(a, b, c, 24);
  for (int r = 0; r < 2; r++) {
    if constexpr (HalfSum) {
      F16Format::store<64>(c[r * 8], w.reg<uint16_t>(od[r]));
    } else {
      float *x = w.reg<float>(od[2 * r]), *y = w.reg<float>(od[2 * r + 1]);
      EMU_LANES {
        x[i] = canonical(c[r * 8 + i / 4][i % 4 * 2]);
        y[i] = canonical(c[r * 8 + i / 4][i % 4 * 2 + 1]);
      }
    }
  }
  w.worker->counters.tensorMultiplyAdds += 16 * 8 * K;
}

}  // namespace

Handler matrixHandler(const std::string& shape, Type d, Type a, Type b, Type c) {
  if (a != b || d != c) return nullptr;
  if (a == Type::F16 && d == Type::F16)
    return shape == "m16n8k16"  ? mma<Element::F16, 16, true>
           : shape == "m16n8k8" ? mma<Element::F16, 8, true>
                                : nullptr;
  if (d != Type::F32) return nullptr;
  if (a == Type::F16)
    return shape == "m16n8k16"  ? mma<Element::F16, 16, false>
           : shape == "m16n8k8" ? mma<Element::F16, 8, false>
                                : nullptr;
  if (a == Type::BF16)
    return shape == "m16n8k16"  ? mma<Element::BF16, 16, false>
           : shape == "m16n8k8" ? mma<Element::BF16, 8, false>
                                : nullptr;
  if (a == Type::TF32)
    return shape == "m16n8k8"   ? mma<Element::TF32, 8, false>
           : shape == "m16n8k4" ? mma<Element::TF32, 4, false>
                                : nullptr;
  return nullptr;
}

}  // namespace emu
