// Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, CVPR 2016). Included once for each instruction set, with
// LANES (floats in a vector), INSTRUCTION_SET (its name) and KERNELS (the table to define).
//
//   forward          y tile = A^T [ sum over c of (G g G^T) * (B^T d B) ] A           16 products for 4 outputs, not 36
//   backward data    the same with the kernel turned by 180 degrees and channels exchanged
//   gradients        diff g = G^T [ sum over tiles of (A e A^T) * (B^T d B) ] G
//
//   B^T = | 1  0 -1  0 |   G = | 1    0    0  |   A^T = | 1  1  1  0 |
//         | 0  1  1  0 |       | 1/2  1/2  1/2|         | 0  1 -1 -1 |
//         | 0 -1  1  0 |       | 1/2 -1/2  1/2|
//         | 0  1  0 -1 |       | 0    0    1  |
//
// d is a 4x4 tile of x (tiles lie two apart), e and y tiles are 2x2. The sums are matrix products, one for each of
// the 16 places (i, j) in a tile. Where the extent of the output is odd, the last tiles have one row or column: A^T
// shows that place 3 of that axis does not count, and it is left out (7x7 outputs: 225 products, not 256).
//
// All of a place's tiles lie in blocks of LANES channels, [channel block][tile][LANES]: transforms and products then
// read and write whole vectors at constant distances. Work goes in units of some rows of tiles (of one or several
// images), as many as stay in the second-level cache between transform, product and transform back. The order of sums
// depends on the sizes alone.
#include "cpu_kernels.h"

#include <algorithm>
#include <array>
#include <utility>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

constexpr int kPlaces = 16;
constexpr int64_t kUnitBytes = 384 * 1024;  // of a second-level cache of 512 KiB to 2 MiB
constexpr int64_t kUnitTiles = 96;          // at least, so that reading weights does not dominate

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const float *p) { return *reinterpret_cast<const Unaligned *>(p); }
INLINE void store(float *p, Vector v) { *reinterpret_cast<Unaligned *>(p) = v; }

// A type of activations, and how products of it are added up: a sum takes kGroup terms at once, which lie side by side.
struct F32 {
  using Element = float;
  using Operand = Vector;
  static constexpr int kGroup = 1;
  static INLINE Operand operand(const Element *p) { return *reinterpret_cast<const Vector *>(p); }
  static INLINE Operand repeat(const Element *p) { return *p - Vector{}; }
  static INLINE Vector multiplyAdd(Vector sum, Operand a, Operand b) { return sum + a * b; }
  static INLINE void storeGroup(Element *p, const Vector *terms) { store(p, terms[0]); }
};

#ifdef __AVX512BF16__
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

INLINE Words widened(Halves bits) { return __builtin_convertvector(bits, Words); }
INLINE Halves rounded(Vector v) { return Halves(_mm512_cvtneps_pbh(__m512(v))); }
INLINE Vector load(const uint16_t *p) {
  Halves bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return Vector(widened(bits) << 16);
}
INLINE void store(uint16_t *p, Vector v) {
  const Halves bits = rounded(v);
  __builtin_memcpy(p, &bits, sizeof bits);
}

// Transformed values and weights are rounded to bfloat16; products are exact, sums are kept in float.
struct Bf16 {
  using Element = uint16_t;
  using Operand = __m512bh;
  static constexpr int kGroup = 2;
  static INLINE Operand operand(const Element *p) { return Operand(_mm512_load_si512(p)); }
  static INLINE Operand repeat(const Element *p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return Operand(_mm512_set1_epi32(pair));
  }
  static INLINE Vector multiplyAdd(Vector sum, Operand a, Operand b) {
    return Vector(_mm512_dpbf16_ps(__m512(sum), a, b));
  }
  static INLINE void storeGroup(Element *p, const Vector *terms) {
    const Words pairs = widened(rounded(terms[0])) | widened(rounded(terms[1])) << 16;
    __builtin_memcpy(p, &pairs, sizeof pairs);
  }
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

// Elements from one place to the next for so many each: 3 or 6 cache lines beyond a multiple of 2048 or 4096 bytes, so
// that the places fall into different sets.
constexpr int64_t placeStride(int64_t elements) { return (elements + 1023) / 1024 * 1024 + 96; }

// How x and y are cut into tiles, and where a unit's tiles lie in memory.
struct Tiling {
  JtreluWinograd s;
  int high, wide;     // tiles in a column, in a row
  int oddH, oddW;     // whether the last tiles have one row or column
  int rows;           // rows of tiles in a unit
  int total;          // rows of tiles in all images
  int64_t inStride;   // elements from one place to the next: transformed x
  int64_t outStride;  // and y or e

  explicit Tiling(const JtreluWinograd &sizes) : s(sizes) {
    high = (s.outH + 1) / 2;
    wide = (s.outW + 1) / 2;
    oddH = s.outH % 2;
    oddW = s.outW % 2;
    total = s.n * high;
    int64_t tile = int64_t(kPlaces) * (s.in + s.out) * sizeof(float);
    int64_t tiles = std::max<int64_t>(kUnitBytes / tile, kUnitTiles);
    int64_t most = std::clamp<int64_t>(tiles / wide, 1, std::max(total, 1));
    int64_t units = (total + most - 1) / most;
    rows = units == 0 ? 1 : int((total + units - 1) / units);  // equal shares
    inStride = placeStride(int64_t(rows) * (wide + wide % 2) * s.in);
    outStride = placeStride(int64_t(rows) * (wide + wide % 2) * s.out);
  }
};

// A unit: rows [first, last) of tiles. Place 3 of a column has no row where an image ends in half a tile, and likewise
// in a row. In groups of tiles, all rows are filled up with zeros to whole groups.
struct Unit {
  const Tiling &t;
  int first, last;
  int group;
  int whole;  // rows that place 3 has

  Unit(const Tiling &tiling, int from, int tilesInGroup)
      : t(tiling), first(from), last(std::min(from + t.rows, t.total)), group(tilesInGroup) {
    whole = 0;
    for (int r = first; r < last; r++) whole += !half(r);
  }
  bool half(int row) const { return t.oddH && row % t.high == t.high - 1; }
  int rows(int i) const { return i == 3 ? whole : last - first; }
  int columns(int j) const { return group > 1 ? (t.wide + group - 1) / group * group : t.wide - (j == 3 ? t.oddW : 0); }
  int64_t tiles(int place) const { return int64_t(rows(place / 4)) * columns(place % 4); }
};

// Vectors of a unit for one block of channels: where place (i, j) of the tile in column 0 of a row lies.
template <class E>
struct Places {
  E *at[kPlaces];

  Places(const Unit &u, E *base, int64_t stride, int block, int row, int rowWhole) {
    for (int p = 0; p < kPlaces; p++) {
      int slot = p / 4 == 3 ? rowWhole : row;
      at[p] = base + p * stride + (block * u.tiles(p) + int64_t(slot) * u.columns(p % 4)) * LANES;
    }
  }
};

// Stores a row's transformed tiles: one by one, or in groups.
template <class T, bool grouped>
class Row {
 public:
  using E = typename T::Element;

  INLINE Row(const Unit &u, E *base, int64_t stride, int block, int row, int rowWhole, bool half)
      : places(u, base, stride, block, row, rowWhole), rows(half ? 3 : 4), columns(u.columns(3)) {}

  /// The values of row i of tile k.
  INLINE void put(int i, int k, Vector a, Vector b, Vector c, Vector d) {
    if (i >= rows) return;
    const Vector values[4] = {a, b, c, d};
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const int p = 4 * i + j;
      if constexpr (!grouped || T::kGroup == 1) {
        if (j < 3 || k < columns) store(places.at[p] + k * LANES, values[j]);
      } else if (k % 2 == 0) {
        held[p][0] = values[j];
      } else {
        held[p][1] = values[j];
        T::storeGroup(places.at[p] + (k - 1) * LANES, held[p]);
      }
    }
  }

  /// Fills up the last group; `wide` tiles have been put.
  INLINE void end(int wide) {
    if constexpr (grouped && T::kGroup > 1) {
      if (wide % 2 == 0) return;
      for (int i = 0; i < rows; i++) put(i, wide, Vector{}, Vector{}, Vector{}, Vector{});
    }
  }

 private:
  Places<E> places;
  int rows, columns;
  Vector held[kPlaces][2];
};

// B^T d B of a unit, for all channels.
template <class T, bool grouped>
void transformSource(const Unit &u, const typename T::Element *x, typename T::Element *to) {
  const Tiling &t = u.t;
  const int channels = t.s.in;
  alignas(64) static const typename T::Element kZeros[LANES] = {};
  for (int block = 0; block < channels / LANES; block++) {
    int whole = 0;
    for (int r = u.first; r < u.last; r++) {
      const int image = r / t.high;
      const int y0 = r % t.high * 2 - t.s.top;
      const bool half = u.half(r);
      const typename T::Element *line[4];
      int64_t step[4];
      for (int i = 0; i < 4; i++) {
        const int y = y0 + i;
        const bool inside = y >= 0 && y < t.s.h;
        line[i] = inside ? x + (int64_t(image) * t.s.h + y) * t.s.w * channels + block * LANES : kZeros;
        step[i] = inside ? channels : 0;
      }
      Row<T, grouped> row(u, to, t.inStride, block, r - u.first, whole, half);
      Vector v[4][4];  // B^T d, by column
      auto column = [&](int c, Vector *out) __attribute__((always_inline)) {
        if (c < 0 || c >= t.s.w) {
          out[0] = out[1] = out[2] = out[3] = Vector{};
          return;
        }
        const Vector a = load(line[0] + c * step[0]), b = load(line[1] + c * step[1]);
        const Vector d = load(line[2] + c * step[2]), e = load(line[3] + c * step[3]);
        out[0] = a - d;
        out[1] = b + d;
        out[2] = d - b;
        out[3] = b - e;
      };
      column(-t.s.left, v[0]);
      column(1 - t.s.left, v[1]);
      for (int k = 0; k < t.wide; k++) {
        column(2 * k + 2 - t.s.left, v[2]);
        column(2 * k + 3 - t.s.left, v[3]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          row.put(i, k, v[0][i] - v[2][i], v[1][i] + v[2][i], v[2][i] - v[1][i], v[1][i] - v[3][i]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          v[0][i] = v[2][i];
          v[1][i] = v[3][i];
        }
      }
      row.end(t.wide);
      whole += !half;
    }
  }
}

// c [MR, NV vectors] = a b for MR tiles: a in blocks of channels, b packed [in / group][NV * LANES][group].
template <class T, int MR, int NV>
void product(const typename T::Element *a, int64_t aBlock, const typename T::Element *b, float *c, int64_t cBlock,
             int blocks) {
  constexpr int G = T::kGroup;
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
      b += NV * G * LANES;
    }
    a += aBlock;
  }
#pragma GCC unroll 32
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) *reinterpret_cast<Vector *>(c + v * cBlock + m * LANES) = sum[m][v];
}

// product() for 1 to kAccumulators / NV tiles.
template <class T, int NV, int... M>
constexpr auto products(std::integer_sequence<int, M...>) {
  return std::array{product<T, M + 1, NV>...};
}

// c = a b of one place for all tiles and channels of y.
template <class T, int NV>
void multiplyBy(const typename T::Element *a, const typename T::Element *b, float *c, int64_t tiles, int in, int out) {
  constexpr int most = kAccumulators / NV;
  static constexpr auto table = products<T, NV>(std::make_integer_sequence<int, most>());
  const int64_t parts = (tiles + most - 1) / most;
  for (int n = 0; n < out; n += NV * LANES) {
    int64_t done = 0;
    for (int64_t part = 0; part < parts; part++) {
      const int64_t upTo = tiles * (part + 1) / parts;  // even shares
      table[upTo - done - 1](a + done * LANES, tiles * LANES, b, c + (n / LANES * tiles + done) * LANES, tiles * LANES,
                             in / LANES);
      done = upTo;
    }
    b += int64_t(in) * NV * LANES;
  }
}

template <class T>
void multiply(const typename T::Element *a, const typename T::Element *b, float *c, int64_t tiles, int in, int out) {
  if (tiles == 0) return;
  switch (widest(out / LANES)) {
#if LANES != 8
    case 4: return multiplyBy<T, 4>(a, b, c, tiles, in, out);
#endif
#if LANES == 16
    case 3: return multiplyBy<T, 3>(a, b, c, tiles, in, out);
#endif
#if LANES >= 8
    case 2: return multiplyBy<T, 2>(a, b, c, tiles, in, out);
    default: return multiplyBy<T, 1>(a, b, c, tiles, in, out);
#endif
  }
}

enum class Kind { kBias, kPlain, kGate };

template <Kind kind, class E>
INLINE void finish(Vector r, Vector bias, const E *gate, E *y, Vector positive, Vector negative, bool accumulate) {
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
template <class E>
struct Epilogue {
  const float *bias;
  const E *gate;
  float slope, scale;
  bool accumulate;
};

// A^T m A of a unit, for all channels, and what follows it.
template <Kind kind, class E>
void transformResult(const Unit &u, float *m, E *y, const Epilogue<E> &e) {
  const Tiling &t = u.t;
  const int channels = t.s.out;
  const Vector positive = e.scale - Vector{};
  const Vector negative = e.scale * e.slope - Vector{};
  for (int block = 0; block < channels / LANES; block++) {
    const Vector bias = kind == Kind::kBias ? load(e.bias + block * LANES) : Vector{};
    int whole = 0;
    for (int r = u.first; r < u.last; r++) {
      const bool half = u.half(r);
      const Places<float> places(u, m, t.outStride, block, r - u.first, whole);
      const int64_t begin =
          (int64_t(r / t.high) * t.s.outH + r % t.high * 2) * t.s.outW * channels + block * LANES;
      const int64_t below = int64_t(t.s.outW) * channels;
      for (int k = 0; k < t.wide; k++) {
        const bool full = k < u.columns(3);
        Vector v[2][4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
          if (j == 3 && !full) {
            v[0][3] = v[1][3] = Vector{};
            break;
          }
          const Vector a = load(places.at[j] + k * LANES), b = load(places.at[4 + j] + k * LANES);
          const Vector c = load(places.at[8 + j] + k * LANES);
          v[0][j] = a + b + c;
          v[1][j] = b - c - (half ? Vector{} : load(places.at[12 + j] + k * LANES));
        }
        const int64_t at = begin + 2 * k * channels;
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
          if (i == 1 && half) break;
          const int64_t left = at + i * below, right = left + channels;
          finish<kind>(v[i][0] + v[i][1] + v[i][2], bias, e.gate + left, y + left, positive, negative, e.accumulate);
          if (full) {
            finish<kind>(v[i][1] - v[i][2] - v[i][3], bias, e.gate + right, y + right, positive, negative,
                         e.accumulate);
          }
        }
      }
      whole += !half;
    }
  }
}

template <class T>
void convolve(const JtreluWinograd *sizes, const void *x, const void *packed, void *y, const float *bias,
              const void *gate, float slope, float scale, int32_t accumulate, void *workspace) {
  using E = typename T::Element;
  const Tiling t(*sizes);
  const Epilogue<E> e{bias, static_cast<const E *>(gate), slope, scale, accumulate != 0};
  float *out = static_cast<float *>(workspace);
  E *in = reinterpret_cast<E *>(out + kPlaces * t.outStride);
  for (int first = 0; first < t.total; first += t.rows) {
    const Unit u(t, first, 1);
    transformSource<T, false>(u, static_cast<const E *>(x), in);
    for (int p = 0; p < kPlaces; p++) {
      multiply<T>(in + p * t.inStride, static_cast<const E *>(packed) + p * placeStride(int64_t(t.s.in) * t.s.out),
                  out + p * t.outStride, u.tiles(p), t.s.in, t.s.out);
    }
    if (bias != nullptr) {
      transformResult<Kind::kBias>(u, out, static_cast<E *>(y), e);
    } else if (gate != nullptr) {
      transformResult<Kind::kGate>(u, out, static_cast<E *>(y), e);
    } else {
      transformResult<Kind::kPlain>(u, out, static_cast<E *>(y), e);
    }
  }
}

// A e A^T of a unit, for all channels; adds e to sums [out].
template <class T>
void transformGradient(const Unit &u, const typename T::Element *e, typename T::Element *to, double *sums) {
  const Tiling &t = u.t;
  const int channels = t.s.out;
  for (int block = 0; block < channels / LANES; block++) {
    int whole = 0;
    for (int r = u.first; r < u.last; r++) {
      const bool half = u.half(r);
      Row<T, true> row(u, to, t.outStride, block, r - u.first, whole, half);
      const typename T::Element *line =
          e + (int64_t(r / t.high) * t.s.outH + r % t.high * 2) * t.s.outW * channels + block * LANES;
      const int64_t below = int64_t(t.s.outW) * channels;
      Vector sum{};  // of a row of tiles: few enough terms for a float
      for (int k = 0; k < t.wide; k++) {
        const bool full = 2 * k + 1 < t.s.outW;
        const typename T::Element *at = line + 2 * k * channels;
        const Vector a = load(at), b = full ? load(at + channels) : Vector{};
        const Vector c = half ? Vector{} : load(at + below);
        const Vector d = half || !full ? Vector{} : load(at + below + channels);
        sum += (a + b) + (c + d);
        const Vector v[4][2] = {{a, b}, {a + c, b + d}, {a - c, b - d}, {-c, -d}};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) row.put(i, k, v[i][0], v[i][0] + v[i][1], v[i][0] - v[i][1], -v[i][1]);
      }
      row.end(t.wide);
      for (int lane = 0; lane < LANES; lane++) sums[block * LANES + lane] += sum[lane];
      whole += !half;
    }
  }
}

// c [MR, NV vectors] (+)= sum over tiles of e (MR channels of a block) times x (NV blocks of channels).
template <class T, int MR, int NV>
void outerProducts(const typename T::Element *e, const typename T::Element *x, int64_t xBlock, float *c, int64_t cRow,
                   int64_t tiles, bool add) {
  constexpr int G = T::kGroup;
  Vector sum[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++)
      sum[m][v] = add ? *reinterpret_cast<const Vector *>(c + m * cRow + v * LANES) : Vector{};
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
    for (int v = 0; v < NV; v++) *reinterpret_cast<Vector *>(c + m * cRow + v * LANES) = sum[m][v];
}

// Gradients of one place, [out, in].
template <class T, int MR, int NV>
void accumulateBy(const typename T::Element *e, const typename T::Element *x, float *c, int64_t tiles, int in, int out,
                  bool add) {
  for (int n = 0; n < in; n += NV * LANES) {
    for (int m = 0; m < out; m += MR) {
      outerProducts<T, MR, NV>(e + m / LANES * tiles * LANES + m % LANES * T::kGroup, x + n / LANES * tiles * LANES, tiles * LANES,
                            c + int64_t(m) * in + n, in, tiles, add);
    }
  }
}

template <class T>
void accumulate(const typename T::Element *e, const typename T::Element *x, float *c, int64_t tiles, int in, int out,
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

template <class T>
void gradients(const JtreluWinograd *sizes, const void *x, const void *e, float *diffWeights, float *diffBias,
               int32_t add, void *workspace) {
  using E = typename T::Element;
  const Tiling t(*sizes);
  const int in = t.s.in, out = t.s.out;
  const int64_t stride = placeStride(int64_t(in) * out);
  float *planes = static_cast<float *>(workspace);  // [16, out, in]
  E *errors = reinterpret_cast<E *>(planes + kPlaces * stride);
  E *sources = errors + kPlaces * t.outStride;
  double *sums = reinterpret_cast<double *>(sources + kPlaces * t.inStride);
  std::fill_n(sums, out, 0.0);
  for (int first = 0; first < t.total; first += t.rows) {
    const Unit u(t, first, T::kGroup);
    transformSource<T, true>(u, static_cast<const E *>(x), sources);
    transformGradient<T>(u, static_cast<const E *>(e), errors, sums);
    for (int p = 0; p < kPlaces; p++) {
      accumulate<T>(errors + p * t.outStride, sources + p * t.inStride, planes + p * stride, u.tiles(p), in, out,
                    first > 0);
    }
  }
  if (t.total == 0) std::fill_n(planes, kPlaces * stride, 0.0f);
  for (int m = 0; m < out; m++) {
    diffBias[m] = float((add ? diffBias[m] : 0) + sums[m]);
    for (int n = 0; n < in; n += LANES) {
      Vector h[3][4];  // G^T m
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        Vector q[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) q[i] = load(planes + (4 * i + j) * stride + int64_t(m) * in + n);
        const Vector half = 0.5f * (q[1] + q[2]);
        h[0][j] = q[0] + half;
        h[1][j] = 0.5f * (q[1] - q[2]);
        h[2][j] = half + q[3];
      }
#pragma GCC unroll 3
      for (int i = 0; i < 3; i++) {
        const Vector half = 0.5f * (h[i][1] + h[i][2]);
        const Vector g[3] = {h[i][0] + half, 0.5f * (h[i][1] - h[i][2]), half + h[i][3]};
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) {
          float *to = diffWeights + ((int64_t(m) * 3 + i) * 3 + j) * in + n;
          store(to, add ? load(to) + g[j] : g[j]);
        }
      }
    }
  }
}

// G g G^T of one kernel for a vector of source channels.
INLINE void transformWeights(const float *krsc, int ic, bool turned, Vector *to) {
  Vector h[4][3];  // G g
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) {
    Vector g[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) g[i] = load(krsc + (turned ? (2 - i) * 3 + 2 - j : i * 3 + j) * int64_t(ic));
    const Vector sum = 0.5f * (g[0] + g[2]), half = 0.5f * g[1];
    h[0][j] = g[0];
    h[1][j] = sum + half;
    h[2][j] = sum - half;
    h[3][j] = g[2];
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const Vector sum = 0.5f * (h[i][0] + h[i][2]), half = 0.5f * h[i][1];
    to[4 * i + 0] = h[i][0];
    to[4 * i + 1] = sum + half;
    to[4 * i + 2] = sum - half;
    to[4 * i + 3] = h[i][2];
  }
}

INLINE void transpose(float (*rows)[LANES]) {
  for (int i = 1; i < LANES; i++) {
    for (int j = 0; j < i; j++) std::swap(rows[i][j], rows[j][i]);
  }
}

// Index in a place's panels [out / panel][in / group][panel][group] of product(); fromChannel begins a group.
INLINE int64_t packedIndex(int in, int out, int fromChannel, int toChannel, int group) {
  const int panel = widest(out / LANES) * LANES;
  return (int64_t(toChannel) / panel * in + fromChannel) * panel + toChannel % panel * group;
}

template <class T>
void pack(const float *weights, int32_t ic, int32_t oc, void *forward, void *backward) {
  using E = typename T::Element;
  constexpr int G = T::kGroup;
  const int64_t stride = placeStride(int64_t(ic) * oc);
  for (int k0 = 0; k0 < oc; k0 += LANES) {
    for (int c0 = 0; c0 < ic; c0 += LANES) {
      alignas(64) float block[kPlaces][LANES][LANES];  // [place][k][c]
      for (int k = 0; k < LANES; k += G) {
        Vector u[kPlaces], turned[kPlaces][G];
        for (int g = 0; g < G; g++) {
          const float *kernel = weights + int64_t(k0 + k + g) * 9 * ic + c0;
          transformWeights(kernel, ic, true, u);
          for (int p = 0; p < kPlaces; p++) turned[p][g] = u[p];
          transformWeights(kernel, ic, false, u);
          for (int p = 0; p < kPlaces; p++) store(block[p][k + g], u[p]);
        }
        E *to = static_cast<E *>(backward) + packedIndex(oc, ic, k0 + k, c0, G);
        for (int p = 0; p < kPlaces; p++) T::storeGroup(to + p * stride, turned[p]);
      }
      for (int p = 0; p < kPlaces; p++) {
        transpose(block[p]);
        for (int c = 0; c < LANES; c += G) {
          Vector terms[G];
          for (int g = 0; g < G; g++) terms[g] = load(block[p][c + g]);
          T::storeGroup(static_cast<E *>(forward) + p * stride + packedIndex(ic, oc, c0 + c, k0, G), terms);
        }
      }
    }
  }
}

template <class T>
int64_t packedBytes(int32_t in, int32_t out) {
  return kPlaces * placeStride(int64_t(in) * out) * sizeof(typename T::Element);
}

template <class T>
int64_t workspaceBytes(const JtreluWinograd *sizes) {
  const Tiling t(*sizes);
  const int64_t elements = kPlaces * (t.inStride + t.outStride);
  const int64_t floats = kPlaces * std::max(t.outStride, placeStride(int64_t(t.s.in) * t.s.out));
  return elements * sizeof(typename T::Element) + floats * sizeof(float) + t.s.out * sizeof(double);
}

template <class T>
constexpr JtreluConvolutions convolutions() {
  return {packedBytes<T>, workspaceBytes<T>, pack<T>, convolve<T>, gradients<T>};
}

}  // namespace

#include "orthogonal_kernels.h"

extern const JtreluCpuKernels KERNELS;
const JtreluCpuKernels KERNELS = {
    INSTRUCTION_SET,
    convolutions<F32>(),
#ifdef __AVX512BF16__
    convolutions<Bf16>(),
#else
    {},
#endif
    {orthogonal::reflectionBytes, orthogonal::panelBytes, orthogonal::draw, orthogonal::columns},
};
