// Winograd's minimal filtering (Lavin and Gray, CVPR 2016) of 3x3 convolutions at the points 0, 1, -1, i, -i and
// infinity (Meng and Brothers, 2019, arXiv:1901.01965).
//
//   forward          y tile = A^T [ sum over c of (G g G^T) * (B^T d B) ] A
//   backward data    the same with the kernel turned by 180 degrees and channels exchanged
//   gradients        diff g = G^T [ sum over tiles of (A e A^T) * (B^T d B) ] G
//
// Along an axis a tile has four results (six of x) or two (four of x); values at i and -i are conjugate, so one of
// the two is kept, as a real and an imaginary part:
//
//            G: weights                  B^T: four results      two          A^T: four results                  two
//     0      g0                          d0 - d4                d0 - d2      y0 = m0 + (m1 + m-1) + re          m0 + 2 (m1 + m-1)
//     1     (g0 + g1 + g2) / 4           (d2 + d4) + (d1 + d3)  d2 + d1      y1 =      (m1 - m-1) - im          2 (m1 - m-1) + moo
//    -1     (g0 - g1 + g2) / 4           (d2 + d4) - (d1 + d3)  d2 - d1      y2 =      (m1 + m-1) - re
//    oo      g2                          d5 - d1                d3 - d1      y3 =      (m1 - m-1) + im + moo
//     i     (g0 - g2) / 2 + i g1 / 2     d4 - d2 + i (d3 - d1)  -            (m = re + i im at i)
//
// All factors are powers of two and all points have modulus one, so small whole numbers stay exact and errors hardly
// grow. A product of complex numbers takes three real ones; of the four pairs (+-i, +-i) two are kept. So 16 results
// of a 4x4 tile take 16 + 2 * 4 * 3 + 2 * 3 = 46 products instead of 144; the four of a 2x2 tile take 16 instead of 36.
// An axis is cut into tiles of four; what remains is a tile of two (1 or 2 results) or four (3). Where a tile has one
// result less than its kind, A^T shows that infinity does not count, and it is left out: 7x7 results take 157 products.
//
// The sums are matrix products, one for each of the 46 places in a tile (winograd_products.h). Work goes in units of some rows of
// tiles (of one or several images), as many as stay in the second-level cache between transform, product and transform back. The
// order of sums depends on the sizes alone.
#pragma once
#include "cpu_kernels.h"
#include "winograd_products.h"

namespace {

// Values of a tile along one axis, as in the table above.
enum Point { kZero, kOne, kMinusOne, kInfinity, kRe, kIm, kPoints };

// Places: products of a tile. First those of real values, at 4 i + j; then threes of a complex value, for row i (its
// columns complex) or column j (its rows complex); then threes at (i, i) and at (i, -i).
constexpr int kRealPlaces = 16, kPlaces = 46;
constexpr int complexColumns(int i) { return 16 + 3 * i; }
constexpr int complexRows(int j) { return 28 + 3 * j; }
constexpr int kSame = 40, kOpposite = 43;

// Which tiles have a point: all; all but an odd last one; those of four results.
enum PointClass { kAlways, kNotOdd, kFours, kPointClasses };
constexpr PointClass classOf(int point) { return point < kInfinity ? kAlways : point == kInfinity ? kNotOdd : kFours; }
constexpr PointClass rowClass(int place) {
  return place < complexColumns(0) ? classOf(place / 4)
         : place < complexRows(0)  ? classOf((place - complexColumns(0)) / 3)
                                   : kFours;
}
constexpr PointClass columnClass(int place) {
  return place < complexColumns(0) ? classOf(place % 4)
         : place < complexRows(0)  ? kFours
         : place < kSame           ? classOf((place - complexRows(0)) / 3)
                                   : kFours;
}

// Points and values of x of a tile with `results` (4 or 2) along an axis.
constexpr int pointsOf(int results) { return results == 4 ? 6 : 4; }
constexpr int sourcesOf(int results) { return results + 2; }

// How an axis of y is cut: tiles of four results, then tiles of two, the last of which may lack one result.
struct Axis {
  int fours, twos;
  bool odd;

  Axis(int extent, int tile) {
    const int rest = extent % 4;
    fours = tile == 4 ? extent / 4 + (rest == 3) : 0;
    twos = tile == 4 ? (rest == 1 || rest == 2) : (extent + 1) / 2;
    odd = extent % 2;
  }
  int tiles() const { return fours + twos; }
  bool four(int k) const { return k < fours; }
  bool lacksOne(int k) const { return odd && k == tiles() - 1; }
  int begin(int k) const { return k < fours ? 4 * k : 4 * fours + 2 * (k - fours); }
  int with(PointClass c) const { return c == kAlways ? tiles() : c == kNotOdd ? tiles() - odd : fours; }
  bool has(PointClass c, int k) const { return c == kAlways || (c == kNotOdd ? !lacksOne(k) : four(k)); }
};

// How x and y are cut into tiles, and where a unit's tiles lie in memory.
struct Tiling {
  JtreluWinograd s;
  Axis high, wide;
  int places;
  int rows;  // rows of tiles in a unit
  int total;  // rows of tiles in all images
  int64_t inStride;  // elements from one place to the next: transformed x
  int64_t outStride;  // and y or e

  /// For units of about `unitBytes`.
  Tiling(const JtreluWinograd& sizes, int64_t unitBytes) : s(sizes), high(s.outH, s.tile), wide(s.outW, s.tile) {
    places = s.tile == 4 ? kPlaces : kRealPlaces;
    total = s.n * high.tiles();
    const int64_t bytes = int64_t(places) * (s.in + s.out) * sizeof(float);
    const int64_t tiles = unitBytes / bytes;
    const int64_t most = std::clamp<int64_t>(tiles / wide.tiles(), 1, std::max(total, 1));
    const int64_t units = (total + most - 1) / most;
    rows = units == 0 ? 1 : int((total + units - 1) / units);  // equal shares
    const int64_t columns = wide.tiles() + wide.tiles() % 2;
    inStride = placeStride(rows * columns * s.in);
    outStride = placeStride(rows * columns * s.out);
  }
};

int64_t weightBytes(const JtreluWinograd& s) {
  return int64_t(s.tile == 4 ? kPlaces : kRealPlaces) * s.in * s.out * sizeof(float);
}
// Weights, and planes of their gradients, pass by once for each unit and should not dominate.
Tiling convolutionTiling(const JtreluWinograd& sizes) {
  return {sizes, std::max(kConvolutionBytes, weightBytes(sizes))};
}
Tiling gradientTiling(const JtreluWinograd& sizes) { return {sizes, std::max(kGradientBytes, 2 * weightBytes(sizes))}; }

// Channels of e whose planes are held at once: as many as stay in the second-level cache until they are transformed back. Units add
// up in planes of all.
int planeChannels(const Tiling& t) {
  if (t.rows < t.total) return t.s.out;
  const int64_t channels = kPlaneBytes / (int64_t(t.places) * t.s.in * sizeof(float));
  return int(std::clamp<int64_t>(channels / LANES * LANES, LANES, t.s.out));
}

// A unit: rows [first, last) of tiles. In groups of tiles, all rows are filled up with zeros to whole groups.
struct Unit {
  const Tiling& t;
  int first, last;
  int rows[kPointClasses] = {};
  int columns[kPointClasses];

  Unit(const Tiling& tiling, int from, int group) : t(tiling), first(from), last(std::min(from + t.rows, t.total)) {
    for (int c = 0; c < kPointClasses; c++) {
      for (int r = first; r < last; r++) rows[c] += t.high.has(PointClass(c), r % t.high.tiles());
      columns[c] = (t.wide.with(PointClass(c)) + group - 1) / group * group;
    }
  }
  int64_t tiles(int place) const { return int64_t(rows[rowClass(place)]) * columns[columnClass(place)]; }
};

// A walk over a unit's rows of tiles.
struct TileRow {
  const Unit& u;
  int row;  // of all images' rows
  int slots[kPointClasses] = {};  // rows before this one that have such points
  explicit TileRow(const Unit& unit) : u(unit), row(unit.first) {}

  bool within() const { return row < u.last; }
  int inImage() const { return row % u.t.high.tiles(); }
  int image() const { return row / u.t.high.tiles(); }
  int begin() const { return u.t.high.begin(inImage()); }
  bool four() const { return u.t.high.four(inImage()); }
  bool lacksOne() const { return u.t.high.lacksOne(inImage()); }
  void next() {
    for (int c = 0; c < kPointClasses; c++) slots[c] += u.t.high.has(PointClass(c), inImage());
    row++;
  }
};

// For one block of channels: where each place of the tile in column 0 of a row lies.
template <class E> struct Places {
  E* at[kPlaces];

  Places(const TileRow& r, E* base, int64_t stride, int block) {
    const Unit& u = r.u;
    int64_t offset[kPointClasses][kPointClasses];
    for (int i = 0; i < kPointClasses; i++) {
      for (int j = 0; j < kPointClasses; j++) {
        offset[i][j] = (int64_t(block) * u.rows[i] + r.slots[i]) * u.columns[j] * LANES;
      }
    }
#pragma GCC unroll 46
    for (int p = 0; p < kPlaces; p++) at[p] = base + p * stride + offset[rowClass(p)][columnClass(p)];
  }
};

// Stores a row's transformed tiles: one by one, or in groups.
template <class T, bool grouped> class Row {
 public:
  using E = typename T::Element;

  INLINE Row(const TileRow& r, E* base, int64_t stride, int block) : places(r, base, stride, block), row(r) {}

  /// A value of tile k.
  INLINE void put(int p, int k, Vector value) {
    if constexpr (!grouped || T::kGroup == 1) {
      store(places.at[p] + k * LANES, value);
    } else if (k % 2 == 0) {
      held[p] = T::hold(value);
    } else {
      const Vector pairs = T::pair(held[p], value);
      __builtin_memcpy(places.at[p] + (k - 1) * LANES, &pairs, sizeof pairs);
    }
  }

  /// Fills up the last groups.
  INLINE void end() {
    if constexpr (grouped && T::kGroup > 1) {
      const Tiling& t = row.u.t;
      for (int p = 0; p < t.places; p++) {
        const int count = t.wide.with(columnClass(p));
        if (count % 2 == 1 && t.high.has(rowClass(p), row.inImage())) put(p, count, Vector{});
      }
    }
  }

 private:
  Places<E> places;
  const TileRow& row;
  typename T::Held held[grouped && T::kGroup > 1 ? kPlaces : 1];
};

// Puts all places of a tile, w [row point][column point], of which those at infinity may be left out. With weights
// u (re, im - re, re + im) and f these factors of x, a complex product is f0 u0 - f2 u2 + i (f0 u0 + f1 u1); errors e are
// multiplied by the same factors the other way round, which gives the gradients of u0, u1 and -u2.
template <int HIGH, int WIDE, bool errors, class R>
INLINE void putTile(R& row, int k, bool infiniteRow, bool infiniteColumn, const Vector (*w)[kPoints]) {
  auto put3 = [&](int p, Vector re, Vector im) __attribute__((always_inline)) {
    row.put(p, k, re + im);
    row.put(p + 1, k, errors ? im : re);
    row.put(p + 2, k, errors ? re : im);
  };
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    if (i == kInfinity && !infiniteRow) break;
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) row.put(4 * i + j, k, w[i][j]);
    if (infiniteColumn) row.put(4 * i + kInfinity, k, w[i][kInfinity]);
    if constexpr (WIDE == 4) put3(complexColumns(i), w[i][kRe], w[i][kIm]);
  }
  if constexpr (HIGH == 4) {
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) put3(complexRows(j), w[kRe][j], w[kIm][j]);
    if (infiniteColumn) put3(complexRows(kInfinity), w[kRe][kInfinity], w[kIm][kInfinity]);
    if constexpr (WIDE == 4) {
      const Vector a = w[kRe][kRe], b = w[kRe][kIm], c = w[kIm][kRe], d = w[kIm][kIm];
      put3(kSame, a - d, b + c);
      put3(kOpposite, a + d, c - b);
    }
  }
}

// B^T d along one axis; `step` vectors from one to the next.
template <int RESULTS> INLINE void sourcePoints(const Vector* d, int step, Vector* v) {
  if constexpr (RESULTS == 4) {
    const Vector even = d[2 * step] + d[4 * step], odd = d[step] + d[3 * step];
    v[kZero] = d[0] - d[4 * step];
    v[kOne] = even + odd;
    v[kMinusOne] = even - odd;
    v[kInfinity] = d[5 * step] - d[step];
    v[kRe] = d[4 * step] - d[2 * step];
    v[kIm] = d[3 * step] - d[step];
  } else {
    v[kZero] = d[0] - d[2 * step];
    v[kOne] = d[2 * step] + d[step];
    v[kMinusOne] = d[2 * step] - d[step];
    v[kInfinity] = d[3 * step] - d[step];
  }
}

// B^T d B of a row of tiles for one block of channels.
template <class T, bool grouped, int HIGH>
void transformSourceRow(const TileRow& r, const typename T::Activation* x, typename T::Element* to, int block) {
  using E = typename T::Activation;
  const Tiling& t = r.u.t;
  const int channels = t.s.in;
  const bool infiniteRow = !r.lacksOne();
  alignas(64) static const E kZeros[LANES] = {};
  const int y0 = r.begin() - t.s.top;
  const E* line[sourcesOf(HIGH)];
  int64_t step[sourcesOf(HIGH)];
  for (int i = 0; i < sourcesOf(HIGH); i++) {
    const int y = y0 + i;
    const bool inside = y >= 0 && y < t.s.h;
    line[i] = inside ? x + (int64_t(r.image()) * t.s.h + y) * t.s.w * channels + block * LANES : kZeros;
    step[i] = inside ? channels : 0;
  }
  Row<T, grouped> row(r, to, t.inStride, block);
  constexpr int kHigh = pointsOf(HIGH);
  Vector v[sourcesOf(4)][kHigh];  // B^T d, by column
  auto column = [&](int c, Vector* out) __attribute__((always_inline)) {
    if (c < 0 || c >= t.s.w) {
#pragma GCC unroll 6
      for (int i = 0; i < kHigh; i++) out[i] = Vector{};
      return;
    }
    Vector d[sourcesOf(HIGH)];
    for (int i = 0; i < sourcesOf(HIGH); i++) d[i] = load(line[i] + c * step[i]);
    sourcePoints<HIGH>(d, 1, out);
  };
  auto tile = [&]<int WIDE>(int k, int c) __attribute__((always_inline)) {
    for (int j = 2; j < sourcesOf(WIDE); j++) column(c + j, v[j]);
    Vector w[kHigh][kPoints];
#pragma GCC unroll 6
    for (int i = 0; i < kHigh; i++) sourcePoints<WIDE>(&v[0][i], kHigh, w[i]);
    putTile<HIGH, WIDE, false>(row, k, infiniteRow, !t.wide.lacksOne(k), w);
#pragma GCC unroll 6
    for (int i = 0; i < kHigh; i++) {
      v[0][i] = v[WIDE][i];
      v[1][i] = v[WIDE + 1][i];
    }
  };
  column(-t.s.left, v[0]);
  column(1 - t.s.left, v[1]);
  int k = 0, c = -t.s.left;
  for (; k < t.wide.fours; k++, c += 4) tile.template operator()<4>(k, c);
  for (; k < t.wide.tiles(); k++, c += 2) tile.template operator()<2>(k, c);
  row.end();
}

// B^T d B of a unit, for all channels.
template <class T, bool grouped>
void transformSource(const Unit& u, const typename T::Activation* x, typename T::Element* to) {
  for (int block = 0; block < u.t.s.in / LANES; block++) {
    for (TileRow r(u); r.within(); r.next()) {
      if (r.four()) {
        transformSourceRow<T, grouped, 4>(r, x, to, block);
      } else {
        transformSourceRow<T, grouped, 2>(r, x, to, block);
      }
    }
  }
}

// A^T m along one axis.
template <int RESULTS> INLINE void results(const Vector* m, Vector* y, int step) {
  const Vector sum = m[kOne] + m[kMinusOne], difference = m[kOne] - m[kMinusOne];
  if constexpr (RESULTS == 4) {
    y[0] = m[kZero] + sum + m[kRe];
    y[step] = difference - m[kIm];
    y[2 * step] = sum - m[kRe];
    y[3 * step] = difference + m[kIm] + m[kInfinity];
  } else {
    y[0] = m[kZero] + 2 * sum;
    y[step] = 2 * difference + m[kInfinity];
  }
}

// A^T m A of a row of tiles for one block of channels, and what follows it.
template <Kind kind, class E, int HIGH>
void transformResultRow(const TileRow& r, float* m, E* y, const Epilogue<E>& e, int block) {
  const Tiling& t = r.u.t;
  const int channels = t.s.out;
  const Vector positive = e.scale - Vector{};
  const Vector negative = e.scale * e.slope - Vector{};
  const Vector bias = kind == Kind::kBias ? load(e.bias + block * LANES) : Vector{};
  const bool infiniteRow = !r.lacksOne();
  const int high = HIGH - r.lacksOne();
  const Places<float> places(r, m, t.outStride, block);
  const int64_t begin = (int64_t(r.image()) * t.s.outH + r.begin()) * t.s.outW * channels + block * LANES;
  const int64_t below = int64_t(t.s.outW) * channels;
  auto tile = [&]<int WIDE>(int k, int64_t at) __attribute__((always_inline)) {
    const bool infiniteColumn = !t.wide.lacksOne(k);
    auto value = [&](int p) __attribute__((always_inline)) { return load(places.at[p] + k * LANES); };
    auto complex = [&](int p, Vector& re, Vector& im) __attribute__((always_inline)) {
      const Vector f = value(p);
      re = f - value(p + 2);
      im = f + value(p + 1);
    };
    Vector h[HIGH][kPoints];  // A^T m
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      if (j == kInfinity && !infiniteColumn) {
#pragma GCC unroll 4
        for (int i = 0; i < HIGH; i++) h[i][kInfinity] = Vector{};
        break;
      }
      Vector q[kPoints];
#pragma GCC unroll 3
      for (int i = 0; i < 3; i++) q[i] = value(4 * i + j);
      q[kInfinity] = infiniteRow ? value(4 * kInfinity + j) : Vector{};
      if constexpr (HIGH == 4) complex(complexRows(j), q[kRe], q[kIm]);
      results<HIGH>(q, &h[0][j], kPoints);
    }
    if constexpr (WIDE == 4) {
      Vector re[kPoints], im[kPoints];
#pragma GCC unroll 3
      for (int i = 0; i < 3; i++) complex(complexColumns(i), re[i], im[i]);
      re[kInfinity] = im[kInfinity] = Vector{};
      if (infiniteRow) complex(complexColumns(kInfinity), re[kInfinity], im[kInfinity]);
      if constexpr (HIGH == 4) {
        Vector a, b, c, d;
        complex(kSame, a, b);
        complex(kOpposite, c, d);
        re[kRe] = a + c;
        re[kIm] = b + d;
        im[kRe] = b - d;
        im[kIm] = c - a;
      }
      results<HIGH>(re, &h[0][kRe], kPoints);
      results<HIGH>(im, &h[0][kIm], kPoints);
    }
#pragma GCC unroll 4
    for (int i = 0; i < HIGH; i++) {
      if (i == high) break;
      Vector line[WIDE];
      results<WIDE>(h[i], line, 1);
#pragma GCC unroll 4
      for (int j = 0; j < WIDE; j++) {
        if (j == WIDE - 1 && !infiniteColumn) break;
        const int64_t to = at + i * below + j * channels;
        finish<kind>(line[j], bias, kind == Kind::kGate ? e.gate + to : nullptr, y + to, positive, negative,
                     e.accumulate);
      }
    }
  };
  int k = 0;
  int64_t at = begin;
  for (; k < t.wide.fours; k++, at += 4 * channels) tile.template operator()<4>(k, at);
  for (; k < t.wide.tiles(); k++, at += 2 * channels) tile.template operator()<2>(k, at);
}

// A^T m A of a unit, for all channels, and what follows it.
template <Kind kind, class E> void transformResult(const Unit& u, float* m, E* y, const Epilogue<E>& e) {
  for (int block = 0; block < u.t.s.out / LANES; block++) {
    for (TileRow r(u); r.within(); r.next()) {
      if (r.four()) {
        transformResultRow<kind, E, 4>(r, m, y, e, block);
      } else {
        transformResultRow<kind, E, 2>(r, m, y, e, block);
      }
    }
  }
}

// What a unit's results will touch.
template <class T, class E> Ahead aheadOf(const Unit& u, const Epilogue<E>& e, E* y) {
  const Tiling& t = u.t;
  const int64_t line = int64_t(t.s.outW) * t.s.out;
  auto begin = [&](int row) {
    const int image = row / t.high.tiles();
    return (int64_t(image) * t.s.outH + t.high.begin(row % t.high.tiles())) * line;
  };
  const int vectors = panelVectors<T>(t.s.in, t.s.out);
  int64_t calls = 0;
  for (int p = 0; p < t.places; p++) calls += productCalls(u.tiles(p), vectors) * (t.s.out / LANES / vectors);
  const int64_t from = begin(u.first), bytes = (begin(u.last) - from) * int64_t(sizeof(E));
  const E* gate = e.gate == nullptr ? nullptr : e.gate + from;
  return {reinterpret_cast<const char*>(gate), reinterpret_cast<char*>(y + from), bytes, calls};
}

template <class T>
void convolve(const JtreluWinograd* sizes, const void* x, const void* packed, void* y, const float* bias,
              const void* gate, float slope, float scale, int32_t accumulate, void* workspace) {
  using E = typename T::Activation;
  using Element = typename T::Element;
  const Tiling t = convolutionTiling(*sizes);
  const Epilogue<E> e{bias, static_cast<const E*>(gate), slope, scale, accumulate != 0};
  float* out = static_cast<float*>(workspace);
  Element* in = reinterpret_cast<Element*>(out + t.places * t.outStride);
  const Element* weights = static_cast<const Element*>(packed);
  const int64_t stride = placeStride(int64_t(t.s.in) * t.s.out);
  for (int first = 0; first < t.total; first += t.rows) {
    const Unit u(t, first, 1);
    transformSource<T, false>(u, static_cast<const E*>(x), in);
    Ahead ahead = aheadOf<T>(u, e, static_cast<E*>(y));
    for (int p = 0; p < t.places; p++) {
      const Element* next = p + 1 < t.places ? weights + (p + 1) * stride : nullptr;
      multiply<T>(ahead, in + p * t.inStride, weights + p * stride, next, out + p * t.outStride, u.tiles(p), t.s.in,
                  t.s.out);
    }
    if (bias != nullptr) {
      transformResult<Kind::kBias>(u, out, static_cast<E*>(y), e);
    } else if (gate != nullptr) {
      transformResult<Kind::kGate>(u, out, static_cast<E*>(y), e);
    } else {
      transformResult<Kind::kPlain>(u, out, static_cast<E*>(y), e);
    }
  }
}

// A e along one axis.
template <int RESULTS> INLINE void gradientPoints(const Vector* e, int step, Vector* v) {
  if constexpr (RESULTS == 4) {
    const Vector even = e[0] + e[2 * step], odd = e[step] + e[3 * step];
    v[kZero] = e[0];
    v[kOne] = even + odd;
    v[kMinusOne] = even - odd;
    v[kInfinity] = e[3 * step];
    v[kRe] = e[0] - e[2 * step];
    v[kIm] = e[3 * step] - e[step];
  } else {
    v[kZero] = e[0];
    v[kOne] = 2 * (e[0] + e[step]);
    v[kMinusOne] = 2 * (e[0] - e[step]);
    v[kInfinity] = e[step];
  }
}

// A e A^T of a row of tiles for one block of channels; returns the sum of e.
template <class T, int HIGH>
Vector transformGradientRow(const TileRow& r, const typename T::Activation* e, typename T::Element* to, int block) {
  using E = typename T::Activation;
  const Tiling& t = r.u.t;
  const int channels = t.s.out;
  const int high = HIGH - r.lacksOne();
  Row<T, true> row(r, to, t.outStride, block);
  const E* line = e + (int64_t(r.image()) * t.s.outH + r.begin()) * t.s.outW * channels + block * LANES;
  const int64_t below = int64_t(t.s.outW) * channels;
  constexpr int kHigh = pointsOf(HIGH);
  Vector sum{};
  auto tile = [&]<int WIDE>(int k, const E* at) __attribute__((always_inline)) {
    const int wide = WIDE - t.wide.lacksOne(k);
    Vector v[WIDE][kHigh];  // A e, by column
#pragma GCC unroll 4
    for (int j = 0; j < WIDE; j++) {
      if (j == wide) {
#pragma GCC unroll 6
        for (int i = 0; i < kHigh; i++) v[j][i] = Vector{};
        break;
      }
      Vector d[HIGH];
#pragma GCC unroll 3
      for (int i = 0; i < HIGH - 1; i++) d[i] = load(at + i * below + j * channels);
      d[HIGH - 1] = high == HIGH ? load(at + (HIGH - 1) * below + j * channels) : Vector{};
      gradientPoints<HIGH>(d, 1, v[j]);
      sum += HIGH == 4 ? v[j][kOne] : d[0] + d[1];  // of a row of tiles: few enough terms for a float
    }
    Vector w[kHigh][kPoints];
#pragma GCC unroll 6
    for (int i = 0; i < kHigh; i++) gradientPoints<WIDE>(&v[0][i], kHigh, w[i]);
    putTile<HIGH, WIDE, true>(row, k, high == HIGH, wide == WIDE, w);
  };
  int k = 0;
  for (; k < t.wide.fours; k++, line += 4 * channels) tile.template operator()<4>(k, line);
  for (; k < t.wide.tiles(); k++, line += 2 * channels) tile.template operator()<2>(k, line);
  row.end();
  return sum;
}

// A e A^T of a unit, for all channels; adds e to sums [out].
template <class T>
void transformGradient(const Unit& u, const typename T::Activation* e, typename T::Element* to, double* sums) {
  for (int block = 0; block < u.t.s.out / LANES; block++) {
    for (TileRow r(u); r.within(); r.next()) {
      const Vector sum =
          r.four() ? transformGradientRow<T, 4>(r, e, to, block) : transformGradientRow<T, 2>(r, e, to, block);
      for (int lane = 0; lane < LANES; lane++) sums[block * LANES + lane] += sum[lane];
    }
  }
}

// G^T q along one axis, `from` and `to` vectors apart.
template <bool fours> INLINE void kernelOf(const Vector* q, int from, Vector* g, int to) {
  const Vector sum = 0.25f * (q[kOne * from] + q[kMinusOne * from]);
  const Vector difference = 0.25f * (q[kOne * from] - q[kMinusOne * from]);
  if constexpr (fours) {
    const Vector re = 0.5f * q[kRe * from];
    g[0] = q[kZero * from] + sum + re;
    g[to] = difference + 0.5f * q[kIm * from];
    g[2 * to] = sum - re + q[kInfinity * from];
  } else {
    g[0] = q[kZero * from] + sum;
    g[to] = difference;
    g[2 * to] = sum + q[kInfinity * from];
  }
}

// G^T planes G, for all kernels.
template <bool fours>
void transformPlanes(const float* planes, int64_t stride, int in, int out, float* diffWeights, bool add) {
  constexpr int kAxis = fours ? kPoints : 4;
  writeGradients(
      planes, stride, in, out, diffWeights, in, add, [](auto value, Vector(*g)[3]) __attribute__((always_inline)) {
        [[maybe_unused]] auto complex = [&](int p, Vector& re, Vector& im) __attribute__((always_inline)) {
          const Vector b = value(p + 1), c = value(p + 2);
          re = value(p) - b - c;
          im = b - c;
        };
        Vector h[kAxis][3];  // q G
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          Vector q[kPoints];
#pragma GCC unroll 4
          for (int j = 0; j < 4; j++) q[j] = value(4 * i + j);
          if constexpr (fours) complex(complexColumns(i), q[kRe], q[kIm]);
          kernelOf<fours>(q, 1, h[i], 1);
        }
        if constexpr (fours) {
          Vector re[kPoints], im[kPoints];
#pragma GCC unroll 4
          for (int j = 0; j < 4; j++) complex(complexRows(j), re[j], im[j]);
          Vector a, b, c, d;
          complex(kSame, a, b);
          complex(kOpposite, c, d);
          re[kRe] = 0.5f * (a + c);
          re[kIm] = 0.5f * (b - d);
          im[kRe] = 0.5f * (b + d);
          im[kIm] = 0.5f * (c - a);
          kernelOf<fours>(re, 1, h[kRe], 1);
          kernelOf<fours>(im, 1, h[kIm], 1);
        }
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) kernelOf<fours>(&h[0][j], 3, &g[0][j], 3);
      });
}

void transformPlanes(const Tiling& t, const float* planes, int64_t stride, int out, float* diffWeights, bool add) {
  if (t.s.tile == 4) {
    transformPlanes<true>(planes, stride, t.s.in, out, diffWeights, add);
  } else {
    transformPlanes<false>(planes, stride, t.s.in, out, diffWeights, add);
  }
}

template <class T>
void gradients(const JtreluWinograd* sizes, const void* x, const void* e, float* diffWeights, float* diffBias,
               int32_t add, void* workspace) {
  using E = typename T::Element;
  const Tiling t = gradientTiling(*sizes);
  const int in = t.s.in, out = t.s.out, some = planeChannels(t);
  const int64_t stride = placeStride(int64_t(in) * some);
  float* planes = static_cast<float*>(workspace);  // [place, some of out, in]
  E* errors = reinterpret_cast<E*>(planes + t.places * stride);
  E* sources = errors + t.places * t.outStride;
  double* sums = reinterpret_cast<double*>(sources + t.places * t.inStride);
  std::fill_n(sums, out, 0.0);
  for (int first = 0; first < t.total; first += t.rows) {
    const Unit u(t, first, T::kGroup);
    transformSource<T, true>(u, static_cast<const typename T::Activation*>(x), sources);
    transformGradient<T>(u, static_cast<const typename T::Activation*>(e), errors, sums);
    for (int m = 0; m < out; m += some) {
      const int count = std::min(some, out - m);
      for (int p = 0; p < t.places; p++) {
        const int64_t tiles = u.tiles(p);
        accumulate<T>(errors + p * t.outStride + m * tiles, sources + p * t.inStride, planes + p * stride, tiles, in,
                      count, first > 0);
      }
      if (u.last == t.total) transformPlanes(t, planes, stride, count, diffWeights + int64_t(m) * 9 * in, add);
    }
  }
  if (t.total == 0 && !add) std::fill_n(diffWeights, int64_t(out) * 9 * in, 0.0f);
  for (int m = 0; m < out; m++) diffBias[m] = float((add ? diffBias[m] : 0) + sums[m]);
}

// G g along one axis, `step` vectors apart.
template <bool fours> INLINE void kernelPoints(const Vector* g, int step, Vector* u) {
  const Vector ends = 0.25f * (g[0] + g[2 * step]), middle = 0.25f * g[step];
  u[kZero] = g[0];
  u[kOne] = ends + middle;
  u[kMinusOne] = ends - middle;
  u[kInfinity] = g[2 * step];
  if constexpr (fours) {
    u[kRe] = 0.5f * (g[0] - g[2 * step]);
    u[kIm] = 0.5f * g[step];
  }
}

// G g G^T of a kernel for a vector of channels, g [3 * 3]: all places.
template <bool fours> INLINE void transformKernel(const Vector* g, Vector* to) {
  constexpr int kAxis = fours ? kPoints : 4;
  Vector h[3][kPoints], u[kAxis][kPoints];
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) kernelPoints<fours>(g + j, 3, h[j]);  // G g, by column
#pragma GCC unroll 6
  for (int i = 0; i < kAxis; i++) kernelPoints<fours>(&h[0][i], kPoints, u[i]);
#pragma GCC unroll 16
  for (int p = 0; p < kRealPlaces; p++) to[p] = u[p / 4][p % 4];
  if constexpr (fours) {
    auto put3 = [&](int p, Vector re, Vector im) __attribute__((always_inline)) {
      to[p] = re;
      to[p + 1] = im - re;
      to[p + 2] = re + im;
    };
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      put3(complexColumns(i), u[i][kRe], u[i][kIm]);
      put3(complexRows(i), u[kRe][i], u[kIm][i]);
    }
    const Vector a = 0.5f * u[kRe][kRe], b = 0.5f * u[kRe][kIm], c = 0.5f * u[kIm][kRe], d = 0.5f * u[kIm][kIm];
    put3(kSame, a - d, b + c);
    put3(kOpposite, a + d, c - b);
  }
}

template <class T>
void packWeights(const float* weights, int32_t ic, int32_t oc, int32_t tile, void* forward, void* backward) {
  using E = typename T::Element;
  if (tile == 4) {
    packKernels<T, kPlaces, transformKernel<true>>(weights, ic, oc, static_cast<E*>(forward),
                                                   static_cast<E*>(backward));
  } else {
    packKernels<T, kRealPlaces, transformKernel<false>>(weights, ic, oc, static_cast<E*>(forward),
                                                        static_cast<E*>(backward));
  }
}

template <class T> int64_t packedBytes(int32_t in, int32_t out, int32_t tile) {
  return (tile == 4 ? kPlaces : kRealPlaces) * placeStride(int64_t(in) * out) * sizeof(typename T::Element);
}

template <class T> int64_t workspaceBytes(const JtreluWinograd* sizes) {
  const int64_t element = sizeof(typename T::Element);
  const Tiling c = convolutionTiling(*sizes), g = gradientTiling(*sizes);
  const int64_t convolution = c.places * (c.inStride * element + c.outStride * int64_t(sizeof(float)));
  const int64_t planes = g.places * placeStride(int64_t(g.s.in) * planeChannels(g)) * sizeof(float);
  const int64_t gradient = planes + g.places * (g.inStride + g.outStride) * element + g.s.out * sizeof(double);
  return std::max(convolution, gradient);
}

template <class T> constexpr JtreluConvolutions convolutions() {
  return {packedBytes<T>, workspaceBytes<T>, packWeights<T>, convolve<T>, gradients<T>};
}

}  // namespace
