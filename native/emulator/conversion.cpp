// cvt between all pairs of types.
#include <xmmintrin.h>

#include "instructions.h"
#include "lanes.h"

namespace emu {

namespace {

/// How a type lies in its register (Reg) and what it is computed in (Value).
template <Type T> struct Form;
#define FORM(T, R, V)                                                                                                  \
  template <> struct Form<Type::T> {                                                                                   \
    using Reg = R;                                                                                                     \
    using Value = V;                                                                                                   \
  };
// clang-format off
FORM(U8, uint16_t, uint8_t) FORM(S8, uint16_t, int8_t) FORM(U16, uint16_t, uint16_t) FORM(S16, uint16_t, int16_t)
FORM(U32, uint32_t, uint32_t) FORM(S32, uint32_t, int32_t) FORM(U64, uint64_t, uint64_t) FORM(S64, uint64_t, int64_t)
FORM(F16, uint16_t, float) FORM(BF16, uint16_t, float) FORM(F32, uint32_t, float) FORM(F64, uint64_t, double)
// clang-format on
#undef FORM

            enum : uint32_t {
              RoundingBits = 3,
              ToIntegral = 4,
              Saturate = 8,
              FlushSubnormals = 16,
              ClampNegative = 32
            };

/// The float that rounds to 16 bits as the double does (rounding to odd).
inline float towardOdd(double s) {
  float f = (float)s;
  if ((double)f != s && f == f) {
    uint32_t b = bitsAs<uint32_t>(f);
    if (std::fabs((double)f) > std::fabs(s)) b--;
    f = bitsAs<float>(b | 1);
  }
  return f;
}

template <class T> void integral(T* v, uint32_t rounding) {
  switch ((Rounding)rounding) {
    case Rounding::Nearest: EMU_LANES v[i] = std::nearbyint(v[i]); break;
    case Rounding::Zero: EMU_LANES v[i] = std::trunc(v[i]); break;
    case Rounding::Down: EMU_LANES v[i] = std::floor(v[i]); break;
    case Rounding::Up: EMU_LANES v[i] = std::ceil(v[i]); break;
  }
}

template <class DV, class SV> inline DV clampInteger(SV s) {
  if constexpr (std::is_signed_v<SV>) {
    if (s < 0) {
      if constexpr (!std::is_signed_v<DV>) return 0;
      else return (int64_t)s < (int64_t)std::numeric_limits<DV>::min() ? std::numeric_limits<DV>::min() : (DV)s;
    }
  }
  return (uint64_t)s > (uint64_t)std::numeric_limits<DV>::max() ? std::numeric_limits<DV>::max() : (DV)s;
}

template <class DV, class SV> inline DV toInteger(SV s, DV nan) {
  constexpr double top =
      std::is_signed_v<DV> ? (double)(1ull << (sizeof(DV) * 8 - 2)) * 2 : (double)(1ull << (sizeof(DV) * 8 - 1)) * 2;
  constexpr double bottom = std::is_signed_v<DV> ? -top : 0;
  double x = (double)s;
  if constexpr (sizeof(DV) <= 4) {
    double y = x < bottom ? bottom : x > top - 1 ? top - 1 : x;
    DV r = sizeof(DV) == 4 && !std::is_signed_v<DV> ? (DV)(int64_t)(y == y ? y : 0) : (DV)(int32_t)(y == y ? y : 0);
    return x == x ? r : nan;
  } else {
    if (x != x) return nan;
    if (x >= top) return std::numeric_limits<DV>::max();
    if (x <= bottom) return std::numeric_limits<DV>::min();
    return (DV)s;
  }
}

template <Type D> inline uint16_t toHalf(float f, uint32_t rounding) {
  if (D == Type::F16) {
    if (f != f) return 0x7fff;
    switch ((Rounding)rounding) {
      case Rounding::Zero: return _cvtss_sh(f, _MM_FROUND_TO_ZERO);
      case Rounding::Down: return _cvtss_sh(f, _MM_FROUND_TO_NEG_INF);
      case Rounding::Up: return _cvtss_sh(f, _MM_FROUND_TO_POS_INF);
      default: return toF16(f);
    }
  }
  if ((Rounding)rounding == Rounding::Zero && f == f) return (uint16_t)(bitsAs<uint32_t>(f) >> 16);
  return toBf16(f);
}

template <Type D, Type S> void convert(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  using DR = typename Form<D>::Reg;
  using DV = typename Form<D>::Value;
  using SR = typename Form<S>::Reg;
  using SV = typename Form<S>::Value;
  constexpr bool fromHalf = S == Type::F16 || S == Type::BF16, toHalfType = D == Type::F16 || D == Type::BF16;
  constexpr bool fromReal = std::is_floating_point_v<SV>, toReal = std::is_floating_point_v<DV>;
  const SR* source = w.reg<SR>(o[1]);
  alignas(64) SV s[32];
  alignas(64) DR t[32];
  uint32_t aux = op.aux;
  if constexpr (S == Type::F16) F16Format::load<32>(source, s);
  else if constexpr (S == Type::BF16) Bf16Format::load<32>(source, s);
  else if constexpr (S == Type::F32 || S == Type::F64) memcpy(s, source, sizeof s);
  else EMU_LANES s[i] = (SV)source[i];
  if constexpr (S == Type::F32)
    if (aux & FlushSubnormals) EMU_LANES s[i] = flushed(s[i]);

  if constexpr (!fromReal && !toReal) {
    if (aux & Saturate) EMU_LANES t[i] = (DR)clampInteger<DV, SV>(s[i]);
    else EMU_LANES t[i] = (DR)(DV)s[i];
  } else if constexpr (fromReal && !toReal) {
    integral(s, aux & RoundingBits);
    constexpr DV nan = S == Type::F64 || sizeof(DV) == 8 ? (DV)(1ull << (sizeof(DV) * 8 - 1)) : 0;
    EMU_LANES t[i] = (DR)toInteger<DV, SV>(s[i], nan);
  } else {
    using Middle = std::conditional_t<toHalfType && (S == Type::F64 || sizeof(SR) > 2) && S != Type::F32, double,
                                      std::conditional_t<toHalfType, float, DV>>;
    alignas(64) Middle v[32];
    if constexpr (fromReal) {
      if (aux & ToIntegral) integral(s, aux & RoundingBits);
    }
    unsigned saved = _mm_getcsr();
    bool direct = !toHalfType && !(aux & ToIntegral) && (aux & RoundingBits);
    if (direct) {
      static constexpr unsigned modes[] = {_MM_ROUND_NEAREST, _MM_ROUND_TOWARD_ZERO, _MM_ROUND_DOWN, _MM_ROUND_UP};
      _mm_setcsr((saved & ~_MM_ROUND_MASK) | modes[aux & RoundingBits]);
      asm volatile("" ::: "memory");
      EMU_LANES {
        volatile Middle x = (Middle) * (volatile SV*)&s[i];
        v[i] = x;
      }
      asm volatile("" ::: "memory");
      _mm_setcsr(saved);
    } else {
      EMU_LANES v[i] = (Middle)s[i];
    }
    if (aux & Saturate) EMU_LANES v[i] = saturated(v[i]);
    if constexpr (toHalfType) {
      uint32_t rounding = aux & ToIntegral ? 0 : aux & RoundingBits;
      if (aux & ClampNegative) EMU_LANES v[i] = v[i] != v[i] ? v[i] : v[i] > 0 ? v[i] : 0;
      if constexpr (std::is_same_v<Middle, float>) {
        if (rounding == 0 && D == Type::F16) F16Format::store<32>(v, t);
        else if (rounding == 0) Bf16Format::store<32>(v, t);
        else EMU_LANES t[i] = toHalf<D>(v[i], rounding);
      } else {
        EMU_LANES t[i] = toHalf<D>(towardOdd(v[i]), rounding);
      }
    } else {
      if constexpr (D == Type::F32)
        if (aux & FlushSubnormals) EMU_LANES v[i] = flushed(v[i]);
      EMU_LANES t[i] = bitsAs<DR>(canonical(v[i]));
    }
  }
  merge(w.reg<DR>(o[0]), t, m);
  (void)fromHalf;
}

template <Type D> Handler fromAny(Type from) {
  switch (from) {
    case Type::U8: return convert<D, Type::U8>;
    case Type::S8: return convert<D, Type::S8>;
    case Type::U16: return convert<D, Type::U16>;
    case Type::S16: return convert<D, Type::S16>;
    case Type::U32: return convert<D, Type::U32>;
    case Type::S32: return convert<D, Type::S32>;
    case Type::U64: return convert<D, Type::U64>;
    case Type::S64: return convert<D, Type::S64>;
    case Type::F16: return convert<D, Type::F16>;
    case Type::BF16: return convert<D, Type::BF16>;
    case Type::F32: return convert<D, Type::F32>;
    case Type::F64: return convert<D, Type::F64>;
    default: return nullptr;
  }
}

/// aux 0: nearest, ties away from zero; 64: nearest even; 1: toward zero.
void toTf32(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const uint32_t* a = w.reg<uint32_t>(o[1]);
  alignas(64) uint32_t t[32];
  uint32_t mode = op.aux & 65;
  EMU_LANES {
    uint32_t b = a[i], add = mode == 64 ? 0xfff + (b >> 13 & 1) : mode == 1 ? 0 : 0x1000;
    bool finite = (b & 0x7f800000u) != 0x7f800000u;
    t[i] = finite ? (b + add) & ~0x1fffu : (b & 0x7fffffu) ? 0x7fffffffu : b;
    if ((op.aux & ClampNegative) && (t[i] >> 31)) t[i] = 0;
  }
  merge(w.reg<uint32_t>(o[0]), t, m);
}

template <Type D> void convertPair(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const float *hi = w.reg<float>(o[1]), *lo = w.reg<float>(o[2]);
  alignas(64) uint32_t t[32];
  auto one = [&](float x) -> uint32_t {
    if ((op.aux & ClampNegative) && x == x && !(x > 0)) x = 0;
    return toHalf<D>(x, op.aux & RoundingBits);
  };
  if ((op.aux & (ClampNegative | RoundingBits)) == 0 && D == Type::BF16)
    EMU_LANES t[i] = (uint32_t)toBf16(hi[i]) << 16 | toBf16(lo[i]);
  else EMU_LANES t[i] = one(hi[i]) << 16 | one(lo[i]);
  merge(w.reg<uint32_t>(o[0]), t, m);
}

}  // namespace

Handler convertHandler(Type to, Type from) {
  switch (to) {
    case Type::U8: return fromAny<Type::U8>(from);
    case Type::S8: return fromAny<Type::S8>(from);
    case Type::U16: return fromAny<Type::U16>(from);
    case Type::S16: return fromAny<Type::S16>(from);
    case Type::U32: return fromAny<Type::U32>(from);
    case Type::S32: return fromAny<Type::S32>(from);
    case Type::U64: return fromAny<Type::U64>(from);
    case Type::S64: return fromAny<Type::S64>(from);
    case Type::F16: return fromAny<Type::F16>(from);
    case Type::BF16: return fromAny<Type::BF16>(from);
    case Type::F32: return fromAny<Type::F32>(from);
    case Type::F64: return fromAny<Type::F64>(from);
    case Type::TF32: return from == Type::F32 ? toTf32 : nullptr;
    default: return nullptr;
  }
}
Handler convertPairHandler(Type to) {
  return to == Type::F16x2 ? convertPair<Type::F16> : to == Type::BF16x2 ? convertPair<Type::BF16> : nullptr;
}

}  // namespace emu
