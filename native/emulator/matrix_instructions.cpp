// mma.sync and wgmma. A fragment register holds an 8x8 tile of 16-bit elements row by row (an 8x4 tile of 32-bit ones), lane after lane, so operands
// unpack without shuffling.
//
// Sums are those of the hardware (Xie et al., "MMA-Sim", arXiv 2511.10909, and microsoft/MMA-Sim; Khattak and Mikaitis, arXiv 2512.07004;
// Fasi et al., PeerJ CS 7:e330, 2021). A unit adds the accumulator and the products of some neighbouring k at once: each is cut off
// (towards zero) below a last place that lies `bits` below the largest of their exponents, the exponent of a product being the sum of
// its factors' ones. These are added exactly, and the sum is cut off to f32, or rounded to nearest f16. Then the next products follow.
// wgmma, which reads its operands from shared memory, adds likewise: it is what four warps make of as many mma.sync.
#include <algorithm>

#include "async_proxy.h"
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

// The eight columns of a tile are worked on at once, as vectors that are written out: left to itself the compiler goes along k.
typedef float Floats __attribute__((vector_size(32)));
typedef int Ints __attribute__((vector_size(32)));
typedef double Doubles __attribute__((vector_size(64)));
typedef uint64_t Longs __attribute__((vector_size(64)));

Ints larger(Ints a, Ints b) { return a > b ? a : b; }

// Exponents that no number has; sums of two of them can be told from all others too.
constexpr int exponentOfZero = -10000, exponentOfInfinity = 30000;

/// Exponents of floats whose type has none below `least`: subnormal numbers keep that one.
template <int Least> Ints exponents(Floats from) {
  const Ints b = (Ints)from & 0x7fffffff;
  Ints e = larger((b >> 23) - 127, Ints{} + Least);
  e = b >= 0x7f800000 ? Ints{} + exponentOfInfinity : e;
  return b == 0 ? Ints{} + exponentOfZero : e;
}
/// Factors and their exponents: A (16 x K) by rows, eight columns of B (K x 8).
template <int K> struct Left {
  alignas(64) float of[16][K];
  alignas(64) int exponent[16][K];

  template <int Least> void findExponents() {
    for (int i = 0; i < 16 * K / 8; i++) ((Ints*)exponent)[i] = exponents<Least>(((const Floats*)of)[i]);
  }
};
template <int K> struct Right {
  Floats of[K];
  Ints exponent[K];

  template <int Least> void findExponents() {
    for (int k = 0; k < K; k++) exponent[k] = exponents<Least>(of[k]);
  }
};

/// The float next to a number towards zero; or, to be rounded to 16 bits, the one of the two floats beside it that is odd.
float cut(double x, bool odd) {
  float f = (float)x;
  if ((double)f == x || x != x) return f;
  if (std::fabs(x) >= 0x1p128) return std::copysign(std::numeric_limits<float>::infinity(), (float)x);
  uint32_t b = bitsAs<uint32_t>(f);
  if (std::fabs((double)f) > std::fabs(x)) b--;
  return bitsAs<float>(odd ? b | 1 : b);
}

/// One addition in column j, for numbers of any size.
float addOnce(const float* a, const int* ea, const Floats* b, const Ints* eb, int count, int j, float c, int ec,
              int bits, bool odd) {
  double plain = c;
  int e = std::max(ec, -126);
  for (int k = 0; k < count; k++) {
    plain += (double)a[k] * b[k][j];
    e = std::max(e, ea[k] + eb[k][j]);
  }
  if (!std::isfinite(plain)) return (float)plain;
  double sum = std::trunc(std::ldexp((double)c, bits - e));
  for (int k = 0; k < count; k++) sum += std::trunc(std::ldexp((double)a[k] * b[k][j], bits - e));
  return cut(std::ldexp(sum, e - bits), odd);
}

/// c (16 x 8) += a (16 x K) * b (K x 8), L products in each addition.
template <int K, int L, int Least, bool HalfSum>
void multiply(const Left<K>& a, const Right<K>& b, Floats (&c)[16], int bits) {
  for (int first = 0; first < K; first += L)
    for (int i = 0; i < 16; i++) {
      const Ints ec = exponents < HalfSum ? -14 : -126 > (c[i]);
      Ints e = ec;
      for (int k = first; k < first + L; k++) e = larger(e, b.exponent[k] + a.exponent[i][k]);
      // Where f32 does not hold all products; columns of nothing but zeros are fine.
      const Ints unusual = (e > 100) | ((e < -90) & (e > exponentOfZero + 1000));
      int any = 0;
      for (int j = 0; j < 8; j++) any |= unusual[j];
      if (any) {
        for (int j = 0; j < 8; j++)
          c[i][j] = addOnce(&a.of[i][first], &a.exponent[i][first], &b.of[first], &b.exponent[first], L, j, c[i][j],
                            ec[j], bits, HalfSum);
      } else {
        e = larger(e, Ints{} - 90);
        const Floats scale = (Floats)((127 + bits - e) << 23);
        Ints low = __builtin_convertvector(c[i] * scale, Ints), high = {};  // 17 terms below 2^27 each
        for (int k = first; k < first + L / 2; k++) low += __builtin_convertvector(b.of[k] * a.of[i][k] * scale, Ints);
        for (int k = first + L / 2; k < first + L; k++)
          high += __builtin_convertvector(b.of[k] * a.of[i][k] * scale, Ints);
        const Longs power = __builtin_convertvector(1023 - bits + e, Longs) << 52;
        const Doubles sum =
            (__builtin_convertvector(low, Doubles) + __builtin_convertvector(high, Doubles)) * (Doubles)power;
        constexpr uint64_t beyond = (1ull << 29) - 1;  // bits of a double that a float has not
        Longs x = (Longs)sum;
        const Longs odd = HalfSum ? ((x & beyond) != 0 ? Longs{} + beyond + 1 : Longs{}) : Longs{};
        c[i] = __builtin_convertvector((Doubles)((x & ~beyond) | odd), Floats);
      }
      if constexpr (HalfSum) {
        alignas(16) uint16_t rounded[8];
        F16Format::store<8>((const float*)&c[i], rounded);
        F16Format::load<8>(rounded, (float*)&c[i]);
      }
    }
}

template <Element E> constexpr int perRegister = E == Element::TF32 ? 4 : 8;  // columns of A in one register

/// A (16 x K) from registers.
template <Element E, int K> void loadFragment(const Warp& w, const int32_t* o, float (&a)[16][K]) {
  alignas(64) float tile[64];
  for (int r = 0; r < 2 * K / perRegister<E>; r++) {
    int row = (r & 1) * 8, column = (r >> 1) * perRegister<E>;
    if constexpr (E == Element::TF32) {
      const uint32_t* s = w.reg<uint32_t>(o[r]);
      EMU_LANES a[row + i / 4][column + i % 4] = tf32(s[i]);
    } else {
      widen<E>(w.reg<uint32_t>(o[r]), tile);
      for (int i = 0; i < 8; i++) memcpy(&a[row + i][column], tile + i * 8, 32);
    }
  }
}
/// 16 x 8 sums of f32 from four registers, and back: neighbours in a row lie in two registers.
void loadSums(const Warp& w, const int32_t* o, Floats (&c)[16]) {
  for (int half = 0; half < 2; half++) {
    const float *x = w.reg<float>(o[2 * half]), *y = w.reg<float>(o[2 * half + 1]);
    float* to = (float*)&c[8 * half];
    EMU_LANES to[2 * i] = x[i], to[2 * i + 1] = y[i];
  }
}
void storeSums(const Warp& w, const int32_t* o, const Floats (&c)[16]) {
  for (int half = 0; half < 2; half++) {
    float *x = w.reg<float>(o[2 * half]), *y = w.reg<float>(o[2 * half + 1]);
    const float* from = (const float*)&c[8 * half];
    EMU_LANES x[i] = canonical(from[2 * i]);
    EMU_LANES y[i] = canonical(from[2 * i + 1]);
  }
}

template <Element E, int K, bool HalfSum> void mma(Warp& w, const Op&, const int32_t* o, uint32_t) {
  constexpr int aRegisters = 2 * K / perRegister<E>, bRegisters = K / perRegister<E>, cRegisters = HalfSum ? 2 : 4;
  const int32_t *od = o + 1, *oa = od + cRegisters, *ob = oa + aRegisters, *oc = ob + bRegisters;
  Left<K> a;
  Right<K> b;
  Floats c[16];
  loadFragment<E, K>(w, oa, a.of);
  for (int r = 0; r < bRegisters; r++) {
    if constexpr (E == Element::TF32) {
      const uint32_t* s = w.reg<uint32_t>(ob[r]);
      float* to = (float*)&b.of[r * 4];
      EMU_LANES to[i % 4 * 8 + i / 4] = tf32(s[i]);
    } else {
      alignas(64) uint16_t turned[64];
      transpose8(w.reg<uint16_t>(ob[r]), turned);
      widen<E>(turned, (float*)&b.of[r * 8]);
    }
  }
  if constexpr (HalfSum)
    for (int r = 0; r < 2; r++) F16Format::load<64>(w.reg<uint16_t>(oc[r]), (float*)&c[r * 8]);
  else loadSums(w, oc, c);
  // Ampere's units take 16 bytes of a row of A at once and keep 24 bits, Hopper's and later ones 32 and 25.
  constexpr int size = E == Element::TF32 ? 4 : 2, least = E == Element::F16 ? -14 : -126;
  a.template findExponents<least>();
  b.template findExponents<least>();
  if (w.block->launch->computeCapability >= 90) multiply<K, std::min(K, 32 / size), least, HalfSum>(a, b, c, 25);
  else multiply<K, std::min(K, 16 / size), least, HalfSum>(a, b, c, 24);
  if constexpr (HalfSum)
    for (int r = 0; r < 2; r++) F16Format::store<64>((const float*)&c[r * 8], w.reg<uint16_t>(od[r]));
  else storeSums(w, od, c);
  w.worker->counters.tensorMultiplyAdds += 16 * 8 * K;
}

// --- wgmma -------------------------------------------------------------------------------------------------------

/// Where a matrix lies in shared memory: the canonical layouts of the PTX ISA, by 16 bytes of a row (or column) at once.
/// A swizzle's pattern is one of addresses, not of the matrix, which may start anywhere in it: in its first row, or further down, as a
/// window that is shifted over a tile does. The base offset says where the pattern starts, in lines of 128 bytes.
struct SharedMatrix {
  uint32_t start, leading, stride;  // bytes
  uint32_t pieces;  // of 16 bytes that trade places: 1 without swizzle, 2, 4, 8
  uint32_t pattern;  // an address at which the swizzle's pattern starts
  bool kMajor;

  static SharedMatrix decode(uint64_t d, bool kMajor) {
    auto wrong = [&](const std::string& what) {
      return Fault{"bad_descriptor", what, "shared", launchFailed, 0, (d & 0x3fff) << 4, 16};
    };
    if (d & 0x3ff1'c000'c000'c000ull) throw wrong("bits of the matrix descriptor that mean nothing are set");
    static const uint32_t swizzles[] = {1, 8, 4, 2};
    SharedMatrix m{(uint32_t)(d & 0x3fff) << 4, (uint32_t)(d >> 16 & 0x3fff) << 4, (uint32_t)(d >> 32 & 0x3fff) << 4,
                   swizzles[d >> 62],           (uint32_t)(d >> 49 & 7) << 7,      kMajor};
    const uint32_t row = m.pieces * 16;
    if (m.pieces == 1 && m.pattern) throw wrong("a matrix base offset without a swizzle");
    if (m.pieces > 1 && !kMajor && (m.start & (row - 1)))
      throw Fault{"misaligned",
                  "a row of the swizzle's pattern begins at a multiple of " + std::to_string(row) + " bytes",
                  "shared",
                  launchFailed,
                  0,
                  m.start,
                  16};
    if (m.pieces > 1 && kMajor && (m.start & (row - 1)) + 32 > row)
      throw wrong("32 bytes from there lie in two rows of the swizzle's pattern");
    return m;
  }
  /// Of the 16 bytes that hold element (mn, k), `per` of them.
  uint32_t at(uint32_t mn, uint32_t k, uint32_t per) const {
    uint32_t a = start;
    if (kMajor) {
      a += mn % 8 * pieces * 16 + mn / 8 * stride + (pieces == 1 ? k / per * leading : k / per * 16);
    } else if (pieces == 1) {
      a += mn / per * stride + k % 8 * 16 + k / 8 * leading;
    } else {
      a += mn / per % pieces * 16 + mn / (per * pieces) * leading + k % 8 * pieces * 16 + k / 8 * stride;
    }
    return a ^ ((a - pattern) >> 3 & (pieces - 1) << 4);
  }
};

/// Reads a matrix of `count` rows (A) or columns (B) and 32 bytes of k; place(mn, k) is where an element goes.
template <Element E, class Place>
void readMatrix(Warp& w, const Op& op, const SharedMatrix& m, uint32_t count, bool negated, const Knowledge& known,
                Place place) {
  constexpr uint32_t size = E == Element::TF32 ? 4 : 2, per = 16 / size, K = 32 / size;
  SharedMemory& s = w.block->shared;
  AsyncProxy& proxy = *w.block->async;
  const float sign = negated ? -1.f : 1.f;
  bool fine = true;
  for (uint32_t outer = 0; outer < (m.kMajor ? count : K); outer++)
    for (uint32_t inner = 0; inner < (m.kMajor ? K : count); inner += per) {
      uint32_t mn = m.kMajor ? outer : inner, k = m.kMajor ? inner : outer, at = m.at(mn, k, per);
      if (at + 16 > s.size)
        throw Fault{"out_of_bounds",
                    "the block has " + std::to_string(s.size) + " bytes of shared memory",
                    "shared",
                    illegalAddress,
                    0,
                    at,
                    16};
      if (fine) fine = proxy.checkRead(w, op, -1, at, known);
      proxy.matrixReads(at, w.index / 4, w.matrixGroups);
      for (uint32_t j = 0; j < per; j++) {
        float x;
        if constexpr (E == Element::TF32) {
          uint32_t bits;
          memcpy(&bits, &s.bytes[at + 4 * j], 4);
          x = tf32(bits);
        } else {
          uint16_t bits;
          memcpy(&bits, &s.bytes[at + 2 * j], 2);
          x = E == Element::F16 ? fromF16(bits) : fromBf16(bits);
        }
        (m.kMajor ? place(mn, k + j) : place(mn + j, k)) = sign * x;
      }
    }
}

/// One value for all lanes of the four warps, or a fault.
template <class T> T uniform(Warp* const* warps, int32_t operand, const char* what) {
  T first = warps[0]->reg<T>(operand)[0];
  for (int u = 0; u < 4; u++)
    EMU_LANES if (warps[u]->reg<T>(operand)[i] != first) throw Fault{
        "wgmma_divergent", std::string(what) + " is not the same for all threads of the warpgroup", "", launchFailed,
        i};
  return first;
}

/// Runs for all four warps once the last of them is there.
template <Element E> void warpgroup(Warp& w, const Op& op, const int32_t* o, uint32_t) {
  constexpr int K = E == Element::TF32 ? 8 : 16, least = E == Element::F16 ? -14 : -126;
  Block& b = *w.block;
  const int group = w.index / 4, columns = (int)(op.aux & matrixColumns), sums = columns / 2;
  const bool fragments = op.aux & matrixFragments;
  Warp* warps[4];
  if (b.warps.size() < (size_t)group * 4 + 4)
    throw Fault{"wgmma_divergent", "the warpgroup has fewer than four warps", "", launchFailed, 0};
  int there = 0;
  for (int u = 0; u < 4; u++) {
    Warp& v = b.warps[(size_t)(group * 4 + u)];
    warps[u] = &v;
    if (&v == &w) continue;
    for (const Group& g : v.groups) {
      if (g.waiting != waitsForWarpgroup) continue;
      if (g.pc != w.pc)
        throw Fault{"wgmma_divergent", "warps of the warpgroup are at different wgmma", "", launchFailed, 0};
      there++;
    }
  }
  if (there < 3) {
    w.blocked = waitsForWarpgroup;
    return;
  }
  for (Warp* v : warps) {
    if (v->matrixGroups != w.matrixGroups)
      throw Fault{"wgmma_divergent", "warps of the warpgroup have committed different numbers of groups", "",
                  launchFailed, 0};
    for (Group& g : v->groups)
      if (g.waiting == waitsForWarpgroup) {
        g.waiting = -1;
        g.pc++;
        v->watch = std::min(v->watch, g.pc);
      }
  }
  const int32_t *od = o + 1, *oa = od + sums, *ob = oa + (fragments ? 4 : 1), scale = ob[1];
  const uint32_t adds = w.predicate(scale) ? ~0u : 0;
  for (Warp* v : warps)
    if (v->predicate(scale) != adds)
      throw Fault{"wgmma_divergent", "scale-d is not the same for all threads of the warpgroup", "", launchFailed, 0};

  // Registers: fenced, and nobody's in between.
  const auto& used = b.launch->program->matrixOperands[(size_t)op.immediate];
  for (Warp* v : warps) {
    const char *kind = nullptr, *what = nullptr;
    if (!v->matrixFenced) kind = "wgmma_fence", what = "no wgmma.fence came before";
    for (size_t i = 0; i < used.size(); i++) {
      if (used[i] < 0) continue;
      Warp::Accumulator& a = v->accumulators[(size_t)used[i]];
      if (a.touched && !kind)
        kind = "wgmma_fence", what = "uses a register that was accessed since the last wgmma.fence";
      if (i < (size_t)sums && adds && !a.written && !kind)
        kind = "uninitialised_register", what = "adds to a register that this thread has never written";
      if (i >= (size_t)sums && a.inFlight > v->matrixDone && a.sums && !kind)
        kind = "wgmma_pending", what = "multiplies the sum of a wgmma that has not been waited for";
      a.inFlight = v->matrixGroups + 1;
      a.sums = i < (size_t)sums;
      a.touched = false;
      a.written = true;
    }
    if (kind) report(*v, op, 0, false, kind, "", 0, 0, what);
    v->matrixLast = v->matrixGroups + 1;
  }

  // Shared memory, as all four know it.
  Knowledge known = w.known;
  for (Warp* v : warps) known.meet(v->known);
  static thread_local Left<K> left[4];
  static thread_local Right<K> right[32];
  readMatrix<E>(
      w, op,
      SharedMatrix::decode(uniform<uint64_t>(warps, ob[0], "the descriptor of B"), !(op.aux & matrixTransposedB)),
      (uint32_t)columns, op.aux & matrixNegatedB, known,
      [](uint32_t n, uint32_t k) -> float& { return ((float*)&right[n / 8].of[k])[n % 8]; });
  if (!fragments)
    readMatrix<E>(
        w, op,
        SharedMatrix::decode(uniform<uint64_t>(warps, oa[0], "the descriptor of A"), !(op.aux & matrixTransposedA)), 64,
        op.aux & matrixNegatedA, known,
        [](uint32_t row, uint32_t k) -> float& { return left[row / 16].of[row % 16][k]; });
  for (int n = 0; n < columns / 8; n++) right[n].template findExponents<least>();
  for (int u = 0; u < 4; u++) {
    Warp& v = *warps[u];
    Left<K>& a = left[u];
    if (fragments) {
      loadFragment<E, K>(v, oa, a.of);
      if (op.aux & matrixNegatedA)
        for (auto& row : a.of)
          for (float& x : row) x = -x;
    }
    a.template findExponents<least>();
    for (int n = 0; n < columns / 8; n++) {
      const int32_t* d = od + n * 4;
      Floats c[16] = {};
      if (adds) loadSums(v, d, c);
      multiply<K, K, least, false>(a, right[n], c, 25);
      storeSums(v, d, c);
    }
  }
  w.worker->counters.tensorMultiplyAdds += (uint64_t)64 * (uint64_t)columns * K;
  w.worker->counters.warpgroupMultiplyAdds += (uint64_t)64 * (uint64_t)columns * K;
}

void warpgroupFence(Warp& w, const Op&, const int32_t*, uint32_t) {
  for (auto& a : w.accumulators) a.touched = false;
  w.matrixFenced = true;
}
void warpgroupCommit(Warp& w, const Op&, const int32_t*, uint32_t) { w.matrixGroups++; }
void warpgroupWait(Warp& w, const Op& op, const int32_t*, uint32_t) {
  int64_t done = (int64_t)w.matrixGroups - op.immediate;
  if (done <= (int64_t)w.matrixDone) return;
  w.matrixDone = (uint32_t)done;
  uint32_t& known = w.known[(size_t)(Knowledge::warpgroups + w.index / 4)];
  known = std::max(known, w.matrixDone);
}

void reportTouched(Warp& w, const Op& op, uint32_t m, bool writes) {
  report(w, op, firstLane(m), false, "wgmma_pending", "", 0, 0,
         std::string(writes ? "writes" : "reads") + " a register that a wgmma uses, which has not been waited for");
}
void touch(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  Warp::Accumulator& a = w.accumulators[(size_t)op.immediate];
  if (a.inFlight > w.matrixDone) {
    reportTouched(w, op, m, op.aux == 2);
    a.inFlight = 0;
  }
  a.touched = true;
  a.written |= op.aux == 2;
}
void moveAccumulator(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  Warp::Accumulator &to = w.accumulators[(size_t)op.immediate], from = w.accumulators[(size_t)op.target];
  if (to.inFlight > w.matrixDone && to.inFlight != from.inFlight) reportTouched(w, op, m, true);
  to = from;
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

Handler warpgroupHandler(Type d, Type a, Type b) {
  if (a != b || d != Type::F32) return nullptr;
  return a == Type::F16    ? warpgroup<Element::F16>
         : a == Type::BF16 ? warpgroup<Element::BF16>
         : a == Type::TF32 ? warpgroup<Element::TF32>
                           : nullptr;
}
Handler warpgroupFenceHandler() { return warpgroupFence; }
Handler warpgroupCommitHandler() { return warpgroupCommit; }
Handler warpgroupWaitHandler() { return warpgroupWait; }
Handler accumulatorTouchHandler() { return touch; }
Handler accumulatorMoveHandler() { return moveAccumulator; }

}  // namespace emu
