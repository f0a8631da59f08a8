// mma.sync. A fragment register holds an 8x8 tile of 16-bit elements row by row (an 8x4 tile of 32-bit ones), lane after lane, so operands
// unpack without shuffling. Products are exact; sums are rounded to f32 after each of them, in order of k. Hardware sums in another order
// and with other roundings: results agree with it to the last bits only.
// Later: wgmma, which reads its operands from shared memory and belongs here as well.
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

/// d = a (16 x K) * b (K x 8) + c (16 x 8)
template <int K> void multiply(const float (&a)[16][K], const float (&b)[K][8], float (&c)[16][8]) {
#ifdef __FMA__
  for (int half = 0; half < 2; half++) {
    __m256 sum[8];
    for (int i = 0; i < 8; i++) sum[i] = _mm256_load_ps(c[half * 8 + i]);
    for (int k = 0; k < K; k++) {
      __m256 row = _mm256_load_ps(b[k]);
      for (int i = 0; i < 8; i++) sum[i] = _mm256_fmadd_ps(_mm256_set1_ps(a[half * 8 + i][k]), row, sum[i]);
    }
    for (int i = 0; i < 8; i++) _mm256_store_ps(c[half * 8 + i], sum[i]);
  }
#else
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 16; i++)
      for (int j = 0; j < 8; j++) c[i][j] = std::fma(a[i][k], b[k][j], c[i][j]);
#endif
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
  multiply<K>(a, b, c);
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
