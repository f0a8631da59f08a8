// What the kernels of Winograd's method share, winograd_kernels.h and winograd_strided_kernels.h: matrix products of transformed
// values, one for each place in a tile, outer products of them, packed weights, gradients' way back, and what follows a convolution.
//
// All of a place's tiles lie in blocks of LANES channels, [channel block][tile][LANES]: transforms and products then read and write
// whole vectors at constant distances.
#pragma once
#include "vectors.h"

#include <algorithm>
#include <array>
#include <utility>

namespace {

// Transformed values of a unit, counted as floats, of a second-level cache of 1 MiB: what they read and write needs room
// too.
constexpr int64_t kConvolutionBytes = 384 * 1024, kGradientBytes = 768 * 1024, kPlaneBytes = 512 * 1024;

// A type of activations, that of transformed values and weights, and how products of these are added up: a sum takes
// kGroup terms at once, which lie side by side.
struct F32 {
  using Activation = float;
  using Element = float;
  using Operand = Vector;
  static constexpr int kGroup = 1;
  static INLINE Operand operand(const Element* p) { return load(p); }
  static INLINE Operand repeat(const Element* p) { return *p - Vector{}; }
  static INLINE Vector multiplyAdd(Vector sum, Operand a, Operand b) { return sum + a * b; }
  using Held = Vector;  // groups of one wait for nothing
  static INLINE Vector group(const Vector* terms) { return terms[0]; }
};

// Only what lies in memory is rounded.
struct Bf16 : F32 {
  using Activation = uint16_t;
};

#ifdef __AVX512BF16__
// Transformed values and weights are rounded too; products are exact, sums are kept in float.
struct RoundedBf16 {
  using Activation = uint16_t;
  using Element = uint16_t;
  using Operand = __m512bh;
  static constexpr int kGroup = 2;
  static INLINE Operand operand(const Element* p) { return Operand(_mm512_load_si512(p)); }
  static INLINE Operand repeat(const Element* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return Operand(_mm512_set1_epi32(pair));
  }
  static INLINE Vector multiplyAdd(Vector sum, Operand a, Operand b) {
    return Vector(_mm512_dpbf16_ps(__m512(sum), a, b));
  }
  /// The first of two terms, rounded, until the second is there.
  using Held = __m256i;
  static INLINE Held hold(Vector first) { return Held(_mm512_cvtneps_pbh(__m512(first))); }
  static INLINE Vector pair(Held first, Vector second) {
    typedef uint16_t Pairs __attribute__((vector_size(4 * LANES)));
    constexpr Pairs kInterleaved = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                    8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    return Vector(_mm512_permutex2var_epi16(_mm512_castsi256_si512(first), __m512i(kInterleaved),
                                            _mm512_castsi256_si512(hold(second))));
  }
  static INLINE Vector group(const Vector* terms) { return pair(hold(terms[0]), terms[1]); }
};
#endif

// Register tiles: MR rows by NV vectors are accumulated. The rest of the registers holds operands.
#if LANES == 16
constexpr int kAccumulators = 24;  // of 32 registers
constexpr int widest(int blocks) { return blocks % 4 == 0 ? 4 : blocks % 3 == 0 ? 3 : blocks % 2 == 0 ? 2 : 1; }
#elif LANES == 8
constexpr int kAccumulators = 12;  // of 16 registers
constexpr int widest(int blocks) { return blocks % 2 == 0 ? 2 : 1; }
#else
constexpr int kAccumulators = 24;
constexpr int widest(int) { return 4; }  // channels are multiples of 16
#endif

// Vectors of a panel of weights: as many as divide the channels of y, but two where four would not stay in the first-level cache while
// all tiles pass by.
constexpr int kPanelBytes = 32 * 1024;
template <class T> int panelVectors(int in, int out) {
  const int most = widest(out / LANES);
  const int64_t bytes = int64_t(in) * most * LANES * sizeof(typename T::Element);
  return LANES == 16 && most == 4 && bytes > kPanelBytes ? 2 : most;
}

// Elements from one place to the next for so many each: 3 or 6 cache lines beyond a multiple of 2048 or 4096 bytes, so
// that the places fall into different sets.
constexpr int64_t placeStride(int64_t elements) { return (elements + 1023) / 1024 * 1024 + 96; }

constexpr int kLine = 64;  // bytes of a cache line

// c [MR, NV vectors] = a b for MR tiles: a in blocks of channels, b packed [in / group][NV * LANES][group].
template <class T, int MR, int NV>
void product(const typename T::Element* a, int64_t aBlock, const typename T::Element* b, float* c, int64_t cBlock,
             int blocks, Upcoming& upcoming) {
  constexpr int G = T::kGroup;
  constexpr int kRow = NV * G * LANES;
  Vector sum[MR][NV];
#pragma GCC unroll 32
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) sum[m][v] = Vector{};
  for (int block = 0; block < blocks; block++) {
    for (int k = 0; k < LANES; k += G) {
      typename T::Operand row[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) row[v] = T::operand(b + v * G * LANES);
#pragma GCC unroll 32
      for (int m = 0; m < MR; m++) {
        const typename T::Operand s = T::repeat(a + m * LANES + k);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) sum[m][v] = T::multiplyAdd(sum[m][v], s, row[v]);
      }
      b += kRow;
    }
    upcoming.fetch();
    a += aBlock;
  }
#pragma GCC unroll 32
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) store(c + v * cBlock + m * LANES, sum[m][v]);
}

// product() for 1 to kAccumulators / NV tiles.
template <class T, int NV, int... M> constexpr auto products(std::integer_sequence<int, M...>) {
  return std::array{product<T, M + 1, NV>...};
}

// Memory of y that the transform of results will touch, fetched while products run: it is long out of the caches, or
// never was in them, and waiting for it costs a tenth of a pass. Asking for the first level, which it soon overflows, is
// faster than asking for the second by another twentieth.
class Ahead {
 public:
  /// To be spread over so many calls of next().
  Ahead(const char* gateFrom, char* yFrom, int64_t bytes, int64_t calls)
      : gate(gateFrom), y(yFrom), left((bytes + kLine - 1) / kLine), share(left / std::max<int64_t>(calls, 1) + 1) {}

  INLINE void next() {
    for (int64_t lines = std::min(share, left); lines > 0; lines--, left--) {
      __builtin_prefetch(y, 1, 3);
      y += kLine;
      if (gate == nullptr) continue;
      __builtin_prefetch(gate, 0, 3);
      gate += kLine;
    }
  }

 private:
  const char* gate;
  char* y;
  int64_t left, share;
};

// Tiles of one product() at most, and their number for a place.
constexpr int mostTiles(int vectors) { return kAccumulators / vectors; }
constexpr int64_t productCalls(int64_t tiles, int vectors) {
  return (tiles + mostTiles(vectors) - 1) / mostTiles(vectors);
}

// c = a b of one place for all tiles and channels of y. b comes from beyond the second-level cache, where it waits for
// its turn in the third level or in memory: each panel is fetched during the products of the one before. `next` is b of
// the next place, or null.
template <class T, int NV>
void multiplyBy(Ahead& ahead, const typename T::Element* a, const typename T::Element* b,
                const typename T::Element* next, float* c, int64_t tiles, int in, int out) {
  static constexpr auto table = products<T, NV>(std::make_integer_sequence<int, mostTiles(NV)>());
  const int64_t parts = productCalls(tiles, NV);
  const int64_t panel = int64_t(in) * NV * LANES;
  for (int n = 0; n < out; n += NV * LANES, b += panel) {
    const typename T::Element* following = n + NV * LANES < out ? b + panel : next;
    Upcoming upcoming(following, following == nullptr ? 0 : panel * int64_t(sizeof *b), parts * (in / LANES));
    int64_t done = 0;
    for (int64_t part = 0; part < parts; part++) {
      ahead.next();
      const int64_t upTo = tiles * (part + 1) / parts;  // even shares
      table[upTo - done - 1](a + done * LANES, tiles * LANES, b, c + (n / LANES * tiles + done) * LANES, tiles * LANES,
                             in / LANES, upcoming);
      done = upTo;
    }
  }
}

template <class T>
void multiply(Ahead& ahead, const typename T::Element* a, const typename T::Element* b, const typename T::Element* next,
              float* c, int64_t tiles, int in, int out) {
  if (tiles == 0) return;
  switch (panelVectors<T>(in, out)) {
#if LANES != 8
    case 4: return multiplyBy<T, 4>(ahead, a, b, next, c, tiles, in, out);
#endif
#if LANES == 16
    case 3: return multiplyBy<T, 3>(ahead, a, b, next, c, tiles, in, out);
#endif
#if LANES >= 8
    case 2: return multiplyBy<T, 2>(ahead, a, b, next, c, tiles, in, out);
    default: return multiplyBy<T, 1>(ahead, a, b, next, c, tiles, in, out);
#endif
  }
}

enum class Kind { kBias, kPlain, kGate };

template <Kind kind, class E>
INLINE void finish(Vector r, Vector bias, const E* gate, E* y, Vector positive, Vector negative, bool accumulate) {
  if constexpr (kind == Kind::kBias) {
    r += bias;
    r *= r > 0 ? positive : negative;
  } else {
    if (accumulate) r += load(y);
    if constexpr (kind == Kind::kGate) r *= load(gate) > 0 ? positive : negative;
  }
  store(y, r);
}

// What follows a convolution: see JtreluCpuKernels.
template <class E> struct Epilogue {
  const float* bias;
  const E* gate;
  float slope, scale;
  bool accumulate;
};

// c [MR, NV vectors] (+)= sum over tiles of e (MR channels of a block) times x (NV blocks of channels).
template <class T, int MR, int NV>
void outerProducts(const typename T::Element* e, const typename T::Element* x, int64_t xBlock, float* c, int64_t cRow,
                   int64_t tiles, bool add) {
  constexpr int G = T::kGroup;
  Vector sum[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) sum[m][v] = add ? load(c + m * cRow + v * LANES) : Vector{};
  for (int64_t k = 0; k < tiles; k += G) {
    typename T::Operand row[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) row[v] = T::operand(x + v * xBlock + k * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < MR; m++) {
      const typename T::Operand s = T::repeat(e + k * LANES + m * G);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) sum[m][v] = T::multiplyAdd(sum[m][v], s, row[v]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) store(c + m * cRow + v * LANES, sum[m][v]);
}

// Gradients of one place, [out, in].
template <class T, int MR, int NV>
void accumulateBy(const typename T::Element* e, const typename T::Element* x, float* c, int64_t tiles, int in, int out,
                  bool add) {
  for (int n = 0; n < in; n += NV * LANES) {
    for (int m = 0; m < out; m += MR) {
      outerProducts<T, MR, NV>(e + m / LANES * tiles * LANES + m % LANES * T::kGroup, x + n / LANES * tiles * LANES,
                               tiles * LANES, c + int64_t(m) * in + n, in, tiles, add);
    }
  }
}

template <class T>
void accumulate(const typename T::Element* e, const typename T::Element* x, float* c, int64_t tiles, int in, int out,
                bool add) {
#if LANES == 16
  switch (in / LANES % 6) {
    case 0:
    case 3: return accumulateBy<T, 8, 3>(e, x, c, tiles, in, out, add);
    case 2:
    case 4: return accumulateBy<T, 8, 2>(e, x, c, tiles, in, out, add);
    default: return accumulateBy<T, 16, 1>(e, x, c, tiles, in, out, add);
  }
#elif LANES == 8
  accumulateBy<T, 4, 2>(e, x, c, tiles, in, out, add);
#else
  accumulateBy<T, 4, 4>(e, x, c, tiles, in, out, add);
#endif
}

// Gradients of kernels [out, 3 * 3, row], of which `in` channels are written, from planes [place, out, in]: transform(value, g) makes
// g [3][3] of value(place), vectors of channels. The gradients of a network push each other out of the caches before they are read, so what is not added to goes past
// them, where vectors are whole lines.
template <class Transform>
void writeGradients(const float* planes, int64_t stride, int in, int out, float* diffWeights, int row, bool add,
                    Transform transform) {
  const bool wholeLines = sizeof(Vector) == kLine && reinterpret_cast<uintptr_t>(diffWeights) % kLine == 0;
  for (int m = 0; m < out; m++) {
    for (int n = 0; n < in; n += LANES) {
      auto value = [&](int p) __attribute__((always_inline)) {
        return load(planes + p * stride + int64_t(m) * in + n);
      };
      Vector g[3][3];
      transform(value, g);
#pragma GCC unroll 9
      for (int k = 0; k < 9; k++) {
        float* to = diffWeights + (int64_t(m) * 9 + k) * row + n;
        const Vector gradient = g[k / 3][k % 3];
        if (!add && wholeLines) {
          stream(to, gradient);
        } else {
          __builtin_prefetch(to + 9 * row, 1);  // the next kernel: all of them are out of the caches
          store(to, add ? load(to) + gradient : gradient);
        }
      }
    }
  }
  endStream();
}

// Index in a place's panels [out / panel][in / group][panel][group] of product(); fromChannel begins a group.
template <class T> INLINE int64_t packedIndex(int in, int out, int fromChannel, int toChannel, int group) {
  const int panel = panelVectors<T>(in, out) * LANES;
  return (int64_t(toChannel) / panel * in + fromChannel) * panel + toChannel % panel * group;
}

// Packs LANES x LANES kernels g [3 * 3][from][to], which `transform` brings to their places: rows of `from` in groups, vectors over
// `to`.
template <class T, int PLACES, void (*transform)(const Vector*, Vector*)>
void packBlock(const float (*g)[LANES][LANES], bool turned, int in, int out, int from, int to, int64_t stride,
               typename T::Element* packed) {
  constexpr int G = T::kGroup;
  for (int k = 0; k < LANES; k += G) {
    Vector u[G][PLACES];
    for (int term = 0; term < G; term++) {
      Vector kernel[9];
#pragma GCC unroll 9
      for (int i = 0; i < 9; i++) kernel[i] = load(g[turned ? 8 - i : i][k + term]);
      transform(kernel, u[term]);
    }
    typename T::Element* at = packed + packedIndex<T>(in, out, from + k, to, G);
    for (int p = 0; p < PLACES; p++) {
      Vector terms[G];
      for (int term = 0; term < G; term++) terms[term] = u[term][p];
      stream(at + p * stride, T::group(terms));  // they would push each other out of the caches before they are read
    }
  }
}

// KRSC weights [oc, 3, 3, ic] to the forms of both directions.
template <class T, int PLACES, void (*transform)(const Vector*, Vector*)>
void packKernels(const float* weights, int ic, int oc, typename T::Element* forward, typename T::Element* backward) {
  const int64_t stride = placeStride(int64_t(ic) * oc);
  for (int k0 = 0; k0 < oc; k0 += LANES) {
    for (int c0 = 0; c0 < ic; c0 += LANES) {
      alignas(64) float g[9][LANES][LANES];  // [place in the kernel][k][c], then [c][k]
      for (int k = 0; k < LANES; k++) {
        for (int i = 0; i < 9; i++) store(g[i][k], load(weights + (int64_t(k0 + k) * 9 + i) * ic + c0));
      }
      packBlock<T, PLACES, transform>(g, true, oc, ic, k0, c0, stride, backward);
      for (int i = 0; i < 9; i++) transpose(g[i]);
      packBlock<T, PLACES, transform>(g, false, ic, oc, c0, k0, stride, forward);
    }
  }
  endStream();
}

}  // namespace
