// Arithmetic, logic, comparison, selection and movement.
#include <xmmintrin.h>

#include "instructions.h"
#include "lanes.h"

namespace emu {

namespace {

template <class T>
using Wide = std::conditional_t<
    std::is_same_v<T, int16_t>, int32_t,
    std::conditional_t<std::is_same_v<T, uint16_t>, uint32_t,
                       std::conditional_t<std::is_same_v<T, int32_t>, int64_t,
                                          std::conditional_t<std::is_same_v<T, uint32_t>, uint64_t,
                                                             std::conditional_t<std::is_same_v<T, int64_t>, __int128,
                                                                                unsigned __int128>>>>>;
template <class T> using Unsigned = std::make_unsigned_t<T>;
template <class T> constexpr int bitsOf = sizeof(T) * 8;

// --- integers; overflow wraps ------------------------------------------------------------------------------------
template <class T> struct IAdd {
  static T f(T a, T b) { return (T)((Unsigned<T>)a + (Unsigned<T>)b); }
};
template <class T> struct ISub {
  static T f(T a, T b) { return (T)((Unsigned<T>)a - (Unsigned<T>)b); }
};
template <class T> struct IMul {
  static T f(T a, T b) { return (T)((uint64_t)a * (uint64_t)b); }
};
template <class T> struct IMulHi {
  static T f(T a, T b) { return (T)((Wide<T>)a * (Wide<T>)b >> bitsOf<T>); }
};
template <class T> struct IMulWide {
  static Wide<T> f(T a, T b) { return (Wide<T>)a * (Wide<T>)b; }
};
template <class T> struct IMad {
  static T f(T a, T b, T c) { return (T)((uint64_t)a * (uint64_t)b + (uint64_t)c); }
};
template <class T> struct IMadHi {
  static T f(T a, T b, T c) { return (T)((Unsigned<T>)IMulHi<T>::f(a, b) + (Unsigned<T>)c); }
};
template <class T> struct IMadWide {
  static Wide<T> f(T a, T b, Wide<T> c) {
    return (Wide<T>)((Unsigned<Wide<T>>)((Wide<T>)a * (Wide<T>)b) + (Unsigned<Wide<T>>)c);
  }
};
// The hardware's answers where the quotient is not defined.
template <class T> struct IDiv {
  static T f(T a, T b) {
    if (b == 0) return (T)-1;
    if (std::is_signed_v<T> && b == (T)-1) return ISub<T>::f(0, a);
    return a / b;
  }
};
template <class T> struct IRem {
  static T f(T a, T b) {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == (T)-1) return 0;
    return a % b;
  }
};
template <class T> struct IMin {
  static T f(T a, T b) { return a < b ? a : b; }
};
template <class T> struct IMax {
  static T f(T a, T b) { return a > b ? a : b; }
};
template <class T> struct IAbs {
  static T f(T a) { return a < 0 ? ISub<T>::f(0, a) : a; }
};
template <class T> struct INeg {
  static T f(T a) { return ISub<T>::f(0, a); }
};
template <class T> struct ISad {
  static T f(T a, T b, T c) { return IAdd<T>::f(c, a < b ? ISub<T>::f(b, a) : ISub<T>::f(a, b)); }
};
struct AddSat {
  static int32_t f(int32_t a, int32_t b) {
    int64_t r = (int64_t)a + b;
    return (int32_t)(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r);
  }
};
struct SubSat {
  static int32_t f(int32_t a, int32_t b) {
    int64_t r = (int64_t)a - b;
    return (int32_t)(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r);
  }
};
struct MadHiSat {
  static int32_t f(int32_t a, int32_t b, int32_t c) { return AddSat::f(IMulHi<int32_t>::f(a, b), c); }
};
template <class T> T low24(T a) {
  return std::is_signed_v<T> ? (T)((int32_t)((uint32_t)a << 8) >> 8) : (T)((uint32_t)a & 0xffffff);
}
template <class T> struct Mul24 {
  static T f(T a, T b) { return (T)((int64_t)low24(a) * (int64_t)low24(b)); }
};
template <class T> struct Mul24Hi {
  static T f(T a, T b) { return (T)((int64_t)low24(a) * (int64_t)low24(b) >> 16); }
};
template <class T> struct Mad24 {
  static T f(T a, T b, T c) { return IAdd<T>::f(Mul24<T>::f(a, b), c); }
};

template <class T> struct And {
  static T f(T a, T b) { return a & b; }
};
template <class T> struct Or {
  static T f(T a, T b) { return a | b; }
};
template <class T> struct Xor {
  static T f(T a, T b) { return a ^ b; }
};
template <class T> struct Not {
  static T f(T a) { return (T)~a; }
};
template <class T> struct CNot {
  static T f(T a) { return a == 0; }
};
template <class T> struct Shl {
  static T f(T a, uint32_t b) { return b >= (unsigned)bitsOf<T> ? (T)0 : (T)((Unsigned<T>)a << (b & (bitsOf<T> - 1))); }
};
template <class T> struct Shr {
  static T f(T a, uint32_t b) {
    if constexpr (std::is_signed_v<T>) return (T)(a >> (b >= (unsigned)bitsOf<T> ? bitsOf<T> - 1 : (int)b));
    else return b >= (unsigned)bitsOf<T> ? (T)0 : (T)(a >> (b & (bitsOf<T> - 1)));
  }
};
template <class T> struct Clz {
  static uint32_t f(T a) {
    return a == 0 ? bitsOf<T> : sizeof(T) == 8 ? __builtin_clzll(a) : __builtin_clz((uint32_t)a);
  }
};
template <class T> struct Popc {
  static uint32_t f(T a) { return (uint32_t)__builtin_popcountll(a); }
};
template <class T> struct Brev {
  static T f(T a) {
    T r = 0;
    for (int k = 0; k < bitsOf<T>; k++) r |= (a >> k & 1) << (bitsOf<T> - 1 - k);
    return r;
  }
};
template <class T, bool Shift> struct Bfind {
  static uint32_t f(T a) {
    Unsigned<T> v = (Unsigned<T>)(std::is_signed_v<T> && a < 0 ? ~a : a);
    if (v == 0) return ~0u;
    uint32_t at = 63 - __builtin_clzll(v);
    return Shift ? bitsOf<T> - 1 - at : at;
  }
};
template <class T> struct Bfe {
  static T f(T a, uint32_t b, uint32_t c) {
    uint32_t pos = b & 0xff, len = c & 0xff;
    if (len == 0) return 0;
    constexpr int n = bitsOf<T>;
    int top = (int)std::min<uint32_t>(pos + len - 1, n - 1);
    bool sign = std::is_signed_v<T> && ((Unsigned<T>)a >> top & 1);
    Unsigned<T> v = pos >= (unsigned)n ? 0 : (Unsigned<T>)a >> pos;
    uint32_t kept = pos >= (unsigned)n ? 0 : std::min<uint32_t>(len, n - pos);
    if (kept < (unsigned)n) {
      Unsigned<T> m = ((Unsigned<T>)1 << kept) - 1;
      v = (v & m) | (sign ? ~m : 0);
    }
    return (T)v;
  }
};

// --- float and double --------------------------------------------------------------------------------------------
template <class T> struct FAdd {
  static T f(T a, T b) { return canonical(a + b); }
};
template <class T> struct FSub {
  static T f(T a, T b) { return canonical(a - b); }
};
template <class T> struct FMul {
  static T f(T a, T b) { return canonical(a * b); }
};
template <class T> struct FDiv {
  static T f(T a, T b) { return canonical(a / b); }
};
template <class T> struct FFma {
  static T f(T a, T b, T c) { return canonical(std::fma(a, b, c)); }
};
template <class T> struct FRcp {
  static T f(T a) { return canonical(T(1) / a); }
};
template <class T> struct FSqrt {
  static T f(T a) { return canonical(std::sqrt(a)); }
};
template <class T> struct FRsqrt {
  static T f(T a) { return canonical((T)(1.0 / std::sqrt((double)a))); }
};
template <class T> struct FNeg {
  static T f(T a) { return -a; }
};
template <class T> struct FAbs {
  static T f(T a) { return std::fabs(a); }
};
template <class T> T minOf(T a, T b) { return a < b ? a : b < a ? b : std::signbit(a) ? a : b; }
template <class T> T maxOf(T a, T b) { return a > b ? a : b > a ? b : std::signbit(a) ? b : a; }
template <class T> struct FMin {
  static T f(T a, T b) { return a != a ? canonical(b) : b != b ? a : minOf(a, b); }
};
template <class T> struct FMax {
  static T f(T a, T b) { return a != a ? canonical(b) : b != b ? a : maxOf(a, b); }
};
template <class T> struct FMinNaN {
  static T f(T a, T b) { return a != a || b != b ? canonical(a + b) : minOf(a, b); }
};
template <class T> struct FMaxNaN {
  static T f(T a, T b) { return a != a || b != b ? canonical(a + b) : maxOf(a, b); }
};
template <class T> struct CopySign {
  static T f(T a, T b) { return std::copysign(b, a); }
};  // copysign d, a, b: the sign of a on b
struct Ex2 {
  static float f(float a) { return canonical(exp2f(a)); }
};
struct Lg2 {
  static float f(float a) { return canonical(log2f(a)); }
};
struct Sin {
  static float f(float a) { return canonical((float)std::sin((double)a)); }
};
struct Cos {
  static float f(float a) { return canonical((float)std::cos((double)a)); }
};
struct Tanh {
  static float f(float a) { return canonical(tanhf(a)); }
};
struct TestNan {
  static bool f(float a) { return a != a; }
};

template <class F> struct Ftz {  // subnormal operands and results become zeros of the same sign
  static float f(float a) { return flushed(F::f(flushed(a))); }
  static float f(float a, float b) { return flushed(F::f(flushed(a), flushed(b))); }
  static float f(float a, float b, float c) { return flushed(F::f(flushed(a), flushed(b), flushed(c))); }
};
template <class F> struct Sat {
  template <class T> static T f(T a) { return saturated(F::f(a)); }
  template <class T> static T f(T a, T b) { return saturated(F::f(a, b)); }
  template <class T> static T f(T a, T b, T c) { return saturated(F::f(a, b, c)); }
};
template <class F> struct Relu {
  static float f(float a, float b, float c) {
    float r = F::f(a, b, c);
    return r != r ? r : r > 0 ? r : 0.f;
  }
};

/// The hardware's rounding mode around a handler; each handler is a function of its own, so nothing moves across the switch.
template <Handler H, unsigned Mode> void rounded(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  unsigned saved = _mm_getcsr();
  _mm_setcsr((saved & ~_MM_ROUND_MASK) | Mode);
  H(w, op, o, m);
  _mm_setcsr(saved);
}
template <Handler H> Handler withRounding(Rounding r) {
  switch (r) {
    case Rounding::Zero: return rounded<H, _MM_ROUND_TOWARD_ZERO>;
    case Rounding::Down: return rounded<H, _MM_ROUND_DOWN>;
    case Rounding::Up: return rounded<H, _MM_ROUND_UP>;
    default: return H;
  }
}

template <class T, class F> Handler pick1(const Variant& v) {
  if constexpr (std::is_same_v<T, float>) {
    if (v.ftz && v.sat) return withRounding<map1<T, T, Sat<Ftz<F>>>>(v.rounding);
    if (v.ftz) return withRounding<map1<T, T, Ftz<F>>>(v.rounding);
  }
  if (v.sat) return withRounding<map1<T, T, Sat<F>>>(v.rounding);
  return withRounding<map1<T, T, F>>(v.rounding);
}
template <class T, class F> Handler pick2(const Variant& v) {
  if constexpr (std::is_same_v<T, float>) {
    if (v.ftz && v.sat) return withRounding<map2<T, T, T, Sat<Ftz<F>>>>(v.rounding);
    if (v.ftz) return withRounding<map2<T, T, T, Ftz<F>>>(v.rounding);
  }
  if (v.sat) return withRounding<map2<T, T, T, Sat<F>>>(v.rounding);
  return withRounding<map2<T, T, T, F>>(v.rounding);
}
template <class T, class F> Handler pick3(const Variant& v) {
  if constexpr (std::is_same_v<T, float>) {
    if (v.ftz && v.sat) return withRounding<map3<T, T, T, T, Sat<Ftz<F>>>>(v.rounding);
    if (v.ftz) return withRounding<map3<T, T, T, T, Ftz<F>>>(v.rounding);
  }
  if (v.sat) return withRounding<map3<T, T, T, T, Sat<F>>>(v.rounding);
  return withRounding<map3<T, T, T, T, F>>(v.rounding);
}

template <class T> Handler integerHandler(const std::string& op, const Variant& v, int sources) {
  using W = Wide<T>;
  if (v.sat) {
    if constexpr (std::is_same_v<T, int32_t>) {
      if (op == "add") return map2<T, T, T, AddSat>;
      if (op == "sub") return map2<T, T, T, SubSat>;
      if (op == "mad" && v.hi) return map3<T, T, T, T, MadHiSat>;
    }
    return nullptr;
  }
  if (op == "add") return map2<T, T, T, IAdd<T>>;
  if (op == "sub") return map2<T, T, T, ISub<T>>;
  if constexpr (sizeof(T) < 8) {
    if (op == "mul" && v.wide) return map2<W, T, T, IMulWide<T>>;
    if (op == "mad" && v.wide) return map3<W, T, T, W, IMadWide<T>>;
  } else if (v.wide) {
    return nullptr;
  }
  if (op == "mul") return v.hi ? map2<T, T, T, IMulHi<T>> : map2<T, T, T, IMul<T>>;
  if (op == "mad") return v.hi ? map3<T, T, T, T, IMadHi<T>> : map3<T, T, T, T, IMad<T>>;
  if (op == "div") return map2<T, T, T, IDiv<T>>;
  if (op == "rem") return map2<T, T, T, IRem<T>>;
  if (op == "min") return map2<T, T, T, IMin<T>>;
  if (op == "max") return map2<T, T, T, IMax<T>>;
  if (op == "sad") return map3<T, T, T, T, ISad<T>>;
  if (op == "shr") return map2<T, T, uint32_t, Shr<T>>;
  if constexpr (std::is_signed_v<T>) {
    if (op == "abs") return map1<T, T, IAbs<T>>;
    if (op == "neg") return map1<T, T, INeg<T>>;
  }
  if constexpr (sizeof(T) >= 4) {
    if (op == "bfe") return map3<T, T, uint32_t, uint32_t, Bfe<T>>;
    if (op == "bfind") return v.hi ? map1<uint32_t, T, Bfind<T, true>> : map1<uint32_t, T, Bfind<T, false>>;
  }
  if constexpr (sizeof(T) == 4) {
    if (op == "mul24") return v.hi ? map2<T, T, T, Mul24Hi<T>> : map2<T, T, T, Mul24<T>>;
    if (op == "mad24" && !v.hi) return map3<T, T, T, T, Mad24<T>>;
  }
  (void)sources;
  return nullptr;
}
template <class T> Handler bitsHandler(const std::string& op) {
  if (op == "and") return map2<T, T, T, And<T>>;
  if (op == "or") return map2<T, T, T, Or<T>>;
  if (op == "xor") return map2<T, T, T, Xor<T>>;
  if (op == "not") return map1<T, T, Not<T>>;
  if (op == "cnot") return map1<T, T, CNot<T>>;
  if (op == "shl") return map2<T, T, uint32_t, Shl<T>>;
  if (op == "shr") return map2<T, T, uint32_t, Shr<T>>;
  if constexpr (sizeof(T) >= 4) {
    if (op == "clz") return map1<uint32_t, T, Clz<T>>;
    if (op == "popc") return map1<uint32_t, T, Popc<T>>;
    if (op == "brev") return map1<T, T, Brev<T>>;
  }
  return nullptr;
}
template <class T> Handler realHandler(const std::string& op, const Variant& v) {
  if (op == "add") return pick2<T, FAdd<T>>(v);
  if (op == "sub") return pick2<T, FSub<T>>(v);
  if (op == "mul") return pick2<T, FMul<T>>(v);
  if (op == "div") return pick2<T, FDiv<T>>(v);
  if (op == "fma" || op == "mad") return pick3<T, FFma<T>>(v);
  if (op == "min") return v.nan ? pick2<T, FMinNaN<T>>(v) : pick2<T, FMin<T>>(v);
  if (op == "max") return v.nan ? pick2<T, FMaxNaN<T>>(v) : pick2<T, FMax<T>>(v);
  if (op == "neg") return pick1<T, FNeg<T>>(v);
  if (op == "abs") return pick1<T, FAbs<T>>(v);
  if (op == "rcp") return pick1<T, FRcp<T>>(v);
  if (op == "sqrt") return pick1<T, FSqrt<T>>(v);
  if (op == "rsqrt") return pick1<T, FRsqrt<T>>(v);
  if (op == "copysign") return map2<T, T, T, CopySign<T>>;
  if constexpr (std::is_same_v<T, float>) {
    if (op == "ex2") return pick1<T, Ex2>(v);
    if (op == "lg2") return pick1<T, Lg2>(v);
    if (op == "sin") return pick1<T, Sin>(v);
    if (op == "cos") return pick1<T, Cos>(v);
    if (op == "tanh") return pick1<T, Tanh>(v);
  }
  return nullptr;
}

// --- f16, bf16 and their pairs -----------------------------------------------------------------------------------
struct HalfFma {
  static float f(float a, float b, float c) { return fmaForRounding(a, b, c); }
};

template <class Format, class F, int N, int Sources> void mapHalf(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  alignas(64) float a[N], b[N], c[N];
  alignas(64) uint16_t t[N];
  Format::template load<N>(w.reg<uint16_t>(o[1]), a);
  if constexpr (Sources > 1) Format::template load<N>(w.reg<uint16_t>(o[2]), b);
  if constexpr (Sources > 2) Format::template load<N>(w.reg<uint16_t>(o[3]), c);
  for (int i = 0; i < N; i++) {
    if constexpr (Sources == 1) a[i] = F::f(a[i]);
    else if constexpr (Sources == 2) a[i] = F::f(a[i], b[i]);
    else a[i] = F::f(a[i], b[i], c[i]);
  }
  Format::template store<N>(a, t);
  using Lane = std::conditional_t<N == 64, uint32_t, uint16_t>;
  merge(w.reg<Lane>(o[0]), (const Lane*)t, m);
}
template <uint32_t Mask, bool Clear, class Lane> struct SignBits {
  static Lane f(Lane a) { return Clear ? (Lane)(a & (Lane)~Mask) : (Lane)(a ^ (Lane)Mask); }
};
template <class Format, int N> Handler halfHandler(const std::string& op, const Variant& v) {
  using Lane = std::conditional_t<N == 64, uint32_t, uint16_t>;
  constexpr uint32_t signs = N == 64 ? 0x80008000u : 0x8000u;
  if (op == "neg") return map1<Lane, Lane, SignBits<signs, false, Lane>>;
  if (op == "abs") return map1<Lane, Lane, SignBits<signs, true, Lane>>;
#define HALF(F, sources) (v.sat ? mapHalf<Format, Sat<F>, N, sources> : mapHalf<Format, F, N, sources>)
  if (op == "add") return HALF(FAdd<float>, 2);
  if (op == "sub") return HALF(FSub<float>, 2);
  if (op == "mul") return HALF(FMul<float>, 2);
  if (op == "fma") return v.relu ? mapHalf<Format, Relu<HalfFma>, N, 3> : HALF(HalfFma, 3);
  if (op == "min") return v.nan ? mapHalf<Format, FMinNaN<float>, N, 2> : mapHalf<Format, FMin<float>, N, 2>;
  if (op == "max") return v.nan ? mapHalf<Format, FMaxNaN<float>, N, 2> : mapHalf<Format, FMax<float>, N, 2>;
  if (op == "ex2") return mapHalf<Format, Ex2, N, 1>;
  if (op == "tanh") return mapHalf<Format, Tanh, N, 1>;
  return nullptr;
#undef HALF
}

}  // namespace

Handler arithmeticHandler(const std::string& op, Type type, const Variant& v, int sources) {
  switch (type) {
    case Type::U16: return integerHandler<uint16_t>(op, v, sources);
    case Type::S16: return integerHandler<int16_t>(op, v, sources);
    case Type::U32: return integerHandler<uint32_t>(op, v, sources);
    case Type::S32: return integerHandler<int32_t>(op, v, sources);
    case Type::U64: return integerHandler<uint64_t>(op, v, sources);
    case Type::S64: return integerHandler<int64_t>(op, v, sources);
    case Type::B16: return bitsHandler<uint16_t>(op);
    case Type::B32: return bitsHandler<uint32_t>(op);
    case Type::B64: return bitsHandler<uint64_t>(op);
    case Type::F32: return realHandler<float>(op, v);
    case Type::F64: return realHandler<double>(op, v);
    case Type::F16: return halfHandler<F16Format, 32>(op, v);
    case Type::F16x2: return halfHandler<F16Format, 64>(op, v);
    case Type::BF16: return halfHandler<Bf16Format, 32>(op, v);
    case Type::BF16x2: return halfHandler<Bf16Format, 64>(op, v);
    default: return nullptr;
  }
}

// --- carries -----------------------------------------------------------------------------------------------------
namespace {
enum CarryOp { CarryAdd, CarrySub, CarryMad, CarryMadHi };
template <class T, CarryOp K> void carry(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  using U = Unsigned<T>;
  constexpr bool mad = K == CarryMad || K == CarryMadHi;
  T *d = w.reg<T>(o[0]), *a = w.reg<T>(o[1]), *b = w.reg<T>(o[2]), *c = mad ? w.reg<T>(o[3]) : nullptr;
  int32_t flag = o[mad ? 4 : 3];
  uint32_t in = op.aux & 1 ? w.predicate(flag) : 0, out = 0;
  EMU_LANES {
    if (!(m >> i & 1)) continue;
    unsigned __int128 r;
    U carryIn = in >> i & 1;
    if (K == CarrySub) {
      r = (unsigned __int128)(U)a[i] - (U)b[i] - carryIn;
    } else if (K == CarryAdd) {
      r = (unsigned __int128)(U)a[i] + (U)b[i] + carryIn;
    } else {
      U p = K == CarryMadHi ? (U)IMulHi<T>::f(a[i], b[i]) : (U)((uint64_t)a[i] * (uint64_t)b[i]);
      r = (unsigned __int128)p + (U)c[i] + carryIn;
    }
    d[i] = (T)r;
    out |= (uint32_t)(r >> bitsOf<T> & 1) << i;
  }
  if (op.aux & 2) w.setPredicate(flag, out, m);
}
template <class T> Handler pickCarry(const std::string& op, bool hi) {
  if (op == "add") return carry<T, CarryAdd>;
  if (op == "sub") return carry<T, CarrySub>;
  return hi ? carry<T, CarryMadHi> : carry<T, CarryMad>;
}

// --- comparison --------------------------------------------------------------------------------------------------
#define COMPARISON(Name, expr)                                                                                         \
  template <class T> struct Name {                                                                                     \
    static bool f(T a, T b) { return expr; }                                                                           \
  };
COMPARISON(CmpEq, a == b)
COMPARISON(CmpNe, a<b || a> b)
COMPARISON(CmpNeInt, a != b)
COMPARISON(CmpLt, a < b)
COMPARISON(CmpLe, a <= b)
COMPARISON(CmpGt, a > b)
COMPARISON(CmpGe, a >= b)
COMPARISON(CmpEqu, !(a < b || a > b))
COMPARISON(CmpNeu, !(a == b))
COMPARISON(CmpLtu, !(a >= b))
COMPARISON(CmpLeu, !(a > b))
COMPARISON(CmpGtu, !(a <= b))
COMPARISON(CmpGeu, !(a < b))
COMPARISON(CmpNum, a == a && b == b)
COMPARISON(CmpNan, a != a || b != b)

using Comparer = uint32_t (*)(const void* a, const void* b);
template <class T, class F> uint32_t compareLanes(const void* pa, const void* pb) {
  const T *a = (const T*)pa, *b = (const T*)pb;
  alignas(32) uint8_t r[32];
  EMU_LANES r[i] = F::f(a[i], b[i]);
  return packed(r);
}
template <class F> struct FtzCompare {
  static bool f(float a, float b) { return F::f(flushed(a), flushed(b)); }
};

uint32_t combined(uint32_t r, uint32_t c, uint32_t aux) {
  switch (aux & 3) {
    case 1: return r & c;
    case 2: return r | c;
    case 3: return r ^ c;
    default: return r;
  }
}
template <class T, class F> void setp(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  uint32_t r = compareLanes<T, F>(w.reg<T>(o[2]), w.reg<T>(o[3]));
  uint32_t c = w.predicate(o[4]);
  w.setPredicate(o[0], combined(r, c, op.aux), m);
  if (op.aux & 8) w.setPredicate(o[1], combined(~r, c, op.aux), m);
}
template <class Format, class F, int N> uint32_t compareHalf(const Warp& w, int32_t oa, int32_t ob, bool high) {
  uint32_t r = 0;
  const uint16_t *a = w.reg<uint16_t>(oa), *b = w.reg<uint16_t>(ob);
  constexpr int step = N / 32;
  EMU_LANES r |= (uint32_t)F::f(Format::from(a[i * step + high]), Format::from(b[i * step + high])) << i;
  return r;
}
template <class Format, class F, int N> void setpHalf(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  uint32_t r = compareHalf<Format, F, N>(w, o[2], o[3], false), c = w.predicate(o[4]);
  uint32_t second = N == 64 ? compareHalf<Format, F, N>(w, o[2], o[3], true) : ~r;
  w.setPredicate(o[0], combined(r, c, op.aux), m);
  if (op.aux & 8) w.setPredicate(o[1], combined(second, c, op.aux), m);
}
template <class T, class F> void set(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  uint32_t r = combined(compareLanes<T, F>(w.reg<T>(o[1]), w.reg<T>(o[2])), w.predicate(o[3]), op.aux);
  uint32_t* d = w.reg<uint32_t>(o[0]);
  uint32_t yes = op.aux & 16 ? 0x3f800000u : ~0u;
  EMU_LANES if (m >> i & 1) d[i] = r >> i & 1 ? yes : 0;
}
/// set on 16-bit floats: the result has the operand's format (1.0 or 0), or all ones with an integer type.
template <class Format, class F, int N> void setHalf(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  uint32_t lo = combined(compareHalf<Format, F, N>(w, o[1], o[2], false), w.predicate(o[3]), op.aux);
  uint32_t hi = N == 64 ? combined(compareHalf<Format, F, N>(w, o[1], o[2], true), w.predicate(o[3]), op.aux) : 0;
  bool floating = op.aux & 16;
  if (N == 64) {
    uint32_t* d = w.reg<uint32_t>(o[0]);
    uint32_t yes = floating ? Format::one : 0xffff;
    EMU_LANES if (m >> i & 1) d[i] = (lo >> i & 1 ? yes : 0) | (hi >> i & 1 ? yes << 16 : 0);
  } else if (op.aux & 32) {
    uint32_t* d = w.reg<uint32_t>(o[0]);
    EMU_LANES if (m >> i & 1) d[i] = lo >> i & 1 ? ~0u : 0;
  } else {
    uint16_t* d = w.reg<uint16_t>(o[0]);
    EMU_LANES if (m >> i & 1) d[i] = lo >> i & 1 ? (floating ? Format::one : 0xffff) : 0;
  }
}

template <class T, class F, bool Set> Handler bindCompare(bool ftz) {
  if constexpr (std::is_same_v<T, float>)
    if (ftz) return Set ? set<T, FtzCompare<F>> : setp<T, FtzCompare<F>>;
  return Set ? set<T, F> : setp<T, F>;
}
template <class T, bool Set> Handler integerCompare(const std::string& c) {
  if (c == "eq") return bindCompare<T, CmpEq<T>, Set>(false);
  if (c == "ne") return bindCompare<T, CmpNeInt<T>, Set>(false);
  if (c == "lt" || c == "lo") return bindCompare<T, CmpLt<T>, Set>(false);
  if (c == "le" || c == "ls") return bindCompare<T, CmpLe<T>, Set>(false);
  if (c == "gt" || c == "hi") return bindCompare<T, CmpGt<T>, Set>(false);
  if (c == "ge" || c == "hs") return bindCompare<T, CmpGe<T>, Set>(false);
  return nullptr;
}
// clang-format off
#define REAL_COMPARISONS(CASE) \
  CASE("eq", CmpEq) CASE("ne", CmpNe) CASE("lt", CmpLt) CASE("le", CmpLe) CASE("gt", CmpGt) CASE("ge", CmpGe) CASE("equ", CmpEqu) CASE("neu", CmpNeu) \
  CASE("ltu", CmpLtu) CASE("leu", CmpLeu) CASE("gtu", CmpGtu) CASE("geu", CmpGeu) CASE("num", CmpNum) CASE("nan", CmpNan)
// clang-format on
template <class T, bool Set> Handler realCompare(const std::string& c, bool ftz) {
#define CASE(name, F)                                                                                                  \
  if (c == name) return bindCompare<T, F<T>, Set>(ftz);
  REAL_COMPARISONS(CASE)
#undef CASE
  return nullptr;
}
template <class Format, int N, bool Set> Handler halfCompare(const std::string& c) {
#define CASE(name, F)                                                                                                  \
  if (c == name) return Set ? setHalf<Format, F<float>, N> : setpHalf<Format, F<float>, N>;
  REAL_COMPARISONS(CASE)
#undef CASE
  return nullptr;
}
template <bool Set> Handler anyCompare(const std::string& c, Type t, bool ftz) {
  switch (t) {
    case Type::B16:
    case Type::U16: return integerCompare<uint16_t, Set>(c);
    case Type::S16: return integerCompare<int16_t, Set>(c);
    case Type::B32:
    case Type::U32: return integerCompare<uint32_t, Set>(c);
    case Type::S32: return integerCompare<int32_t, Set>(c);
    case Type::B64:
    case Type::U64: return integerCompare<uint64_t, Set>(c);
    case Type::S64: return integerCompare<int64_t, Set>(c);
    case Type::F32: return realCompare<float, Set>(c, ftz);
    case Type::F64: return realCompare<double, Set>(c, ftz);
    case Type::F16: return halfCompare<F16Format, 32, Set>(c);
    case Type::F16x2: return halfCompare<F16Format, 64, Set>(c);
    case Type::BF16: return halfCompare<Bf16Format, 32, Set>(c);
    case Type::BF16x2: return halfCompare<Bf16Format, 64, Set>(c);
    default: return nullptr;
  }
}

// --- selection and movement --------------------------------------------------------------------------------------
template <class T> void selp(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  T* d = w.reg<T>(o[0]);
  const T *a = w.reg<T>(o[1]), *b = w.reg<T>(o[2]);
  uint32_t p = w.predicate(o[3]);
  if (m == ~0u) {
#pragma GCC ivdep
    EMU_LANES d[i] = p >> i & 1 ? a[i] : b[i];
  } else {
    alignas(64) T t[32];
    EMU_LANES t[i] = p >> i & 1 ? a[i] : b[i];
    merge(d, t, m);
  }
}
template <class T, class S> struct Slct {
  static T f(T a, T b, S c) { return c >= S(0) ? a : b; }
};
template <class T> struct Copy {
  static T f(T a) { return a; }
};
template <class D, class S> struct Resize {
  static D f(S a) { return (D)a; }
};

template <class Whole, class Part> void pack(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  constexpr int n = sizeof(Whole) / sizeof(Part);
  alignas(64) Whole t[32] = {};
  for (int k = 0; k < n; k++) {
    const Part* p = w.reg<Part>(o[1 + k]);
    EMU_LANES t[i] |= (Whole)p[i] << (k * bitsOf<Part>);
  }
  merge(w.reg<Whole>(o[0]), t, m);
}
template <class Whole, class Part> void unpack(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  constexpr int n = sizeof(Whole) / sizeof(Part);
  alignas(64) Whole s[32];
  memcpy(s, w.reg<Whole>(o[n]), sizeof s);
  for (int k = 0; k < n; k++) {
    alignas(64) Part t[32];
    EMU_LANES t[i] = (Part)(s[i] >> (k * bitsOf<Part>));
    merge(w.reg<Part>(o[k]), t, m);
  }
}

void lop3(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const uint32_t *a = w.reg<uint32_t>(o[1]), *b = w.reg<uint32_t>(o[2]), *c = w.reg<uint32_t>(o[3]);
  alignas(64) uint32_t t[32] = {};
  for (int k = 0; k < 8; k++) {
    if (!(op.immediate >> k & 1)) continue;
    uint32_t na = k & 4 ? 0 : ~0u, nb = k & 2 ? 0 : ~0u, nc = k & 1 ? 0 : ~0u;
    EMU_LANES t[i] |= (a[i] ^ na) & (b[i] ^ nb) & (c[i] ^ nc);
  }
  merge(w.reg<uint32_t>(o[0]), t, m);
}

enum PrmtMode { PrmtIndex, PrmtF4e, PrmtB4e, PrmtRc8, PrmtEcl, PrmtEcr, PrmtRc16 };
template <PrmtMode Mode> struct Prmt {
  static uint32_t f(uint32_t a, uint32_t b, uint32_t c) {
    uint64_t both = (uint64_t)b << 32 | a;
    if constexpr (Mode == PrmtIndex) {
      uint32_t r = 0;
      for (int k = 0; k < 4; k++) {
        uint32_t s = c >> (4 * k) & 15;
        uint32_t byte = (uint32_t)(both >> ((s & 7) * 8)) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        r |= byte << (8 * k);
      }
      return r;
    } else {
      uint32_t n = c & 3, r = 0;
      for (uint32_t k = 0; k < 4; k++) {
        uint32_t s = 0;
        switch (Mode) {
          case PrmtF4e: s = n + k; break;
          case PrmtB4e: s = (8 + n - k) & 7; break;
          case PrmtRc8: s = n; break;
          case PrmtEcl: s = std::max(n, k); break;
          case PrmtEcr: s = std::min(n, k); break;
          default: s = (n & 1) * 2 + (k & 1); break;
        }
        r |= (uint32_t)(both >> (s * 8) & 0xff) << (8 * k);
      }
      return r;
    }
  }
};
template <bool Left, bool Wrap> struct Funnel {
  static uint32_t f(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t n = Wrap ? c & 31 : std::min(c, 32u);
    uint64_t v = (uint64_t)b << 32 | a;
    return Left ? (uint32_t)((n >= 32 ? (uint64_t)a << 32 : v << n) >> 32) : (uint32_t)(v >> n);
  }
};
template <class T> void bfi(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  const T *a = w.reg<T>(o[1]), *b = w.reg<T>(o[2]);
  const uint32_t *c = w.reg<uint32_t>(o[3]), *e = w.reg<uint32_t>(o[4]);
  alignas(64) T t[32];
  EMU_LANES {
    uint32_t pos = c[i] & 0xff, len = e[i] & 0xff;
    T mask = pos >= (unsigned)bitsOf<T> || len == 0
                 ? 0
                 : (T)((len >= (unsigned)bitsOf<T> ? ~(T)0 : (((T)1 << len) - 1)) << pos);
    T v = pos >= (unsigned)bitsOf<T> ? 0 : (T)(a[i] << pos);
    t[i] = (b[i] & ~mask) | (v & mask);
  }
  merge(w.reg<T>(o[0]), t, m);
}
template <bool SA, bool SB> struct Dp4a {
  static uint32_t f(uint32_t a, uint32_t b, uint32_t c) {
    for (int k = 0; k < 4; k++) {
      int32_t x = SA ? (int8_t)(a >> 8 * k) : (uint8_t)(a >> 8 * k),
              y = SB ? (int8_t)(b >> 8 * k) : (uint8_t)(b >> 8 * k);
      c += (uint32_t)(x * y);
    }
    return c;
  }
};
template <bool SA, bool SB, bool Hi> struct Dp2a {
  static uint32_t f(uint32_t a, uint32_t b, uint32_t c) {
    for (int k = 0; k < 2; k++) {
      int kb = k + (Hi ? 2 : 0);
      int32_t x = SA ? (int16_t)(a >> 16 * k) : (uint16_t)(a >> 16 * k),
              y = SB ? (int8_t)(b >> 8 * kb) : (uint8_t)(b >> 8 * kb);
      c += (uint32_t)(x * y);
    }
    return c;
  }
};
enum PredicateOp { PredAnd, PredOr, PredXor, PredNot, PredMov };
template <PredicateOp K> void predicateLogic(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  uint32_t a = w.predicate(o[1]);
  uint32_t r = K == PredAnd   ? a & w.predicate(o[2])
               : K == PredOr  ? a | w.predicate(o[2])
               : K == PredXor ? a ^ w.predicate(o[2])
               : K == PredNot ? ~a
                              : a;
  w.setPredicate(o[0], r, m);
}
using U32 = uint32_t;
}  // namespace

Handler carryHandler(const std::string& op, Type type, bool hi) {
  switch (type) {
    case Type::B32:
    case Type::U32: return pickCarry<uint32_t>(op, hi);
    case Type::S32: return pickCarry<int32_t>(op, hi);
    case Type::B64:
    case Type::U64: return pickCarry<uint64_t>(op, hi);
    case Type::S64: return pickCarry<int64_t>(op, hi);
    default: return nullptr;
  }
}
Handler compareHandler(const std::string& c, Type t, bool ftz) { return anyCompare<false>(c, t, ftz); }
Handler setHandler(const std::string& c, Type t, bool ftz, Type) { return anyCompare<true>(c, t, ftz); }
Handler selectHandler(int width) { return width == 2 ? selp<uint16_t> : width == 4 ? selp<uint32_t> : selp<uint64_t>; }
Handler slctHandler(int width, Type selector) {
  bool real = selector == Type::F32;
  if (width == 2)
    return real ? map3<uint16_t, uint16_t, uint16_t, float, Slct<uint16_t, float>>
                : map3<uint16_t, uint16_t, uint16_t, int32_t, Slct<uint16_t, int32_t>>;
  if (width == 4)
    return real ? map3<U32, U32, U32, float, Slct<U32, float>> : map3<U32, U32, U32, int32_t, Slct<U32, int32_t>>;
  return real ? map3<uint64_t, uint64_t, uint64_t, float, Slct<uint64_t, float>>
              : map3<uint64_t, uint64_t, uint64_t, int32_t, Slct<uint64_t, int32_t>>;
}
Handler moveHandler(int width) {
  return width == 2   ? map1<uint16_t, uint16_t, Copy<uint16_t>>
         : width == 4 ? map1<U32, U32, Copy<U32>>
                      : map1<uint64_t, uint64_t, Copy<uint64_t>>;
}
Handler resizeHandler(int to, int from, bool sign) {
#define RESIZE(D, S, SD, SS)                                                                                           \
  if (to == sizeof(D) && from == sizeof(S)) return sign ? map1<SD, SS, Resize<SD, SS>> : map1<D, S, Resize<D, S>>;
  RESIZE(uint16_t, uint32_t, int16_t, int32_t)
  RESIZE(uint16_t, uint64_t, int16_t, int64_t)
  RESIZE(uint32_t, uint16_t, int32_t, int16_t)
  RESIZE(uint32_t, uint64_t, int32_t, int64_t)
  RESIZE(uint64_t, uint16_t, int64_t, int16_t)
  RESIZE(uint64_t, uint32_t, int64_t, int32_t)
#undef RESIZE
  return nullptr;
}
Handler packHandler(int whole, int part) {
  if (whole == 4 && part == 2) return pack<uint32_t, uint16_t>;
  if (whole == 8 && part == 4) return pack<uint64_t, uint32_t>;
  if (whole == 8 && part == 2) return pack<uint64_t, uint16_t>;
  return nullptr;
}
Handler unpackHandler(int whole, int part) {
  if (whole == 4 && part == 2) return unpack<uint32_t, uint16_t>;
  if (whole == 8 && part == 4) return unpack<uint64_t, uint32_t>;
  if (whole == 8 && part == 2) return unpack<uint64_t, uint16_t>;
  return nullptr;
}
Handler lop3Handler() { return lop3; }
Handler prmtHandler(const std::string& mode) {
#define PRMT(name, M)                                                                                                  \
  if (mode == name) return map3<U32, U32, U32, U32, Prmt<M>>;
  // clang-format off
  PRMT("", PrmtIndex) PRMT("f4e", PrmtF4e) PRMT("b4e", PrmtB4e) PRMT("rc8", PrmtRc8) PRMT("ecl", PrmtEcl) PRMT("ecr", PrmtEcr) PRMT("rc16", PrmtRc16)
  // clang-format on
#undef PRMT
          return nullptr;
}
Handler funnelHandler(bool left, bool wrap) {
  if (left) return wrap ? map3<U32, U32, U32, U32, Funnel<true, true>> : map3<U32, U32, U32, U32, Funnel<true, false>>;
  return wrap ? map3<U32, U32, U32, U32, Funnel<false, true>> : map3<U32, U32, U32, U32, Funnel<false, false>>;
}
Handler bitFieldInsertHandler(Type type) {
  return type == Type::B32 ? bfi<uint32_t> : type == Type::B64 ? bfi<uint64_t> : nullptr;
}
Handler dotHandler(const std::string& op, bool sa, bool sb, bool hi) {
#define DOT(A, B)                                                                                                      \
  if (sa == A && sb == B)                                                                                              \
    return op == "dp4a" ? map3<U32, U32, U32, U32, Dp4a<A, B>>                                                         \
           : hi         ? map3<U32, U32, U32, U32, Dp2a<A, B, true>>                                                   \
                        : map3<U32, U32, U32, U32, Dp2a<A, B, false>>;
  // clang-format off
  DOT(false, false) DOT(false, true) DOT(true, false) DOT(true, true)
  // clang-format on
#undef DOT
      return nullptr;
}
Handler predicateLogicHandler(const std::string& op) {
  if (op == "and") return predicateLogic<PredAnd>;
  if (op == "or") return predicateLogic<PredOr>;
  if (op == "xor") return predicateLogic<PredXor>;
  if (op == "not") return predicateLogic<PredNot>;
  if (op == "mov") return predicateLogic<PredMov>;
  return nullptr;
}

}  // namespace emu
