// Winograd's minimal filtering of 3x3 convolutions of stride 2, by phases. Along an axis the even and the odd values of x each pass a
// filter of their own at stride 1: y[p] = (g0 x[2p] + g2 x[2p + 2]) + g1 x[2p + 1]. For two results the phase of two taps takes three
// products instead of four, at the points 0, 1 and infinity (Winograd; Lavin and Gray, CVPR 2016), that of one tap two:
//
//            G: weights   B^T: values of a phase   A^T: its results
//     0      g0           d0 - d1                  y0 = m0 + m1
//     1      g0 + g2      d1                       y1 = m1 + moo
//    oo      g2           d2 - d1
//
// So a tile of 2x2 results takes 5 * 5 products for a pair of channels instead of 36. Weights are those of 4 * 4 places: all results of
// the phase of one tap share theirs. Where the last tile of an axis has one result only, A^T shows that infinity does not count, and it
// is left out: 7x7 results take 18 * 18 products instead of 441. Whole numbers stay whole, and errors hardly grow.
//
//   forward          y = the sum of both phases' results
//   backward data    diff x[2q], of the taps g2 and g0, and diff x[2q + 1], of g1, are results of the same phases, both of which read
//                    diff y at stride 1: a tile is 4x4
//   gradients        diff g = G^T [ sum over tiles of (A e A^T) * (B^T d B) ] G, the phase of one tap as it is
//
// Products, layout and units are those of winograd_kernels.h. The order of sums depends on the sizes alone. Tiles of 3x3 would take 49
// products instead of 81, at 0, 1, -1 and infinity, but 25 weights instead of 16: in all no faster.
#pragma once
#include "cpu_kernels.h"
#include "winograd_products.h"

namespace {
namespace strided {

// Results of a phase in a tile, along an axis; points: those of the phase of two taps, then kMiddle, at which the other has kTile
// products; and all these values of a tile.
constexpr int kTile = 2;
enum Point { kZero, kOne, kInfinity, kMiddle, kPoints };
constexpr int kValues = kMiddle + kTile, kPlaces = kPoints * kPoints;
constexpr int pointOf(int value) { return std::min<int>(value, kMiddle); }

// Results of each phase in a tile along an axis.
struct Counts {
  int two, one;
  bool has(int value) const {
    return value >= kMiddle ? value - kMiddle < one : value == kInfinity ? two == kTile : two > 0;
  }
};
constexpr Counts kWhole = {kTile, kTile};

// An axis of a pass: what each phase reads, and how the results are cut.
struct Axis {
  int extent;  // of what is read
  int step;  // from one value that a phase reads to the next
  int from[2];  // the first that each phase reads
  int count[2];  // results of each phase
  int results;  // extent of the results
  int resultStep;  // from one result of a phase to the next
  int to[2];  // the first result of each phase

  int tiles() const { return (std::max(count[0], count[1]) + kTile - 1) / kTile; }
  Counts of(int k) const {
    return {std::clamp(count[0] - kTile * k, 0, kTile), std::clamp(count[1] - kTile * k, 0, kTile)};
  }
  /// Products at a point in all tiles, and in those before the k-th.
  int slots(int point) const { return point == kMiddle ? count[1] : (count[0] - std::max(point, 1) + kTile) / kTile; }
  int slot(int point, int k) const { return point == kMiddle ? kTile * k : k; }
  /// Where the i-th value of tile k lies that the transform reads, or result.
  int source(int k, int i) const { return (kTile * k + (i < kMiddle ? i : i - kMiddle)) * step + from[i >= kMiddle]; }
  int result(int k, int phase, int i) const { return (kTile * k + i) * resultStep + to[phase]; }
  int begin(int k) const { return kTile * k * resultStep; }
};

Axis forwardAxis(int extent, int results, int padding) {
  return {extent, 2, {-padding, 1 - padding}, {results, results}, results, 1, {0, 0}};
}
Axis backwardAxis(int extent, int results, int padding) {
  const int odd = padding % 2, two = (results + 1 - odd) / 2;
  return {extent, 1, {(padding + 1) / 2 - 1, padding / 2}, {two, results - two}, results, 2, {odd, 1 - odd}};
}

// How a pass is cut into units, and where a unit's transformed values lie in memory.
struct Tiling {
  Axis high, wide;
  int in, out;
  int rows;  // rows of tiles in a unit
  int total;  // rows of tiles in all images
  int64_t inAt[kPlaces + 1], outAt[kPlaces + 1];  // elements before each place: of x, of y or e

  /// For units of about `unitBytes`.
  Tiling(int images, const Axis& highAxis, const Axis& wideAxis, int inChannels, int outChannels, int64_t unitBytes)
      : high(highAxis), wide(wideAxis), in(inChannels), out(outChannels), total(images * high.tiles()) {
    const int64_t bytes = int64_t(kValues) * kValues * wide.tiles() * (in + out) * sizeof(float);
    const int64_t most = std::clamp<int64_t>(unitBytes / std::max<int64_t>(bytes, 1), 1, std::max(total, 1));
    const int64_t units = (total + most - 1) / most;
    rows = units == 0 ? 1 : int((total + units - 1) / units);  // equal shares
    inAt[0] = outAt[0] = 0;
    for (int p = 0; p < kPlaces; p++) {
      const int64_t tiles = int64_t(high.slot(p / kPoints, rows)) * wide.slots(p % kPoints);
      inAt[p + 1] = inAt[p] + placeStride(tiles * in);
      outAt[p + 1] = outAt[p] + placeStride(tiles * out);
    }
  }
};

int64_t weightBytes(const JtreluConvolutionSizes& s) { return int64_t(kPlaces) * s.ic * s.oc * sizeof(float); }

// Weights, and planes of their gradients, pass by once for each unit and should not dominate.
int64_t unitBytes(const JtreluConvolutionSizes& s) { return std::max(2 * kConvolutionBytes, weightBytes(s) / 4); }
Tiling forwardTiling(const JtreluConvolutionSizes& s) {
  return {s.n, forwardAxis(s.h, s.oh, s.top), forwardAxis(s.w, s.ow, s.left), s.ic, s.oc, unitBytes(s)};
}
Tiling backwardTiling(const JtreluConvolutionSizes& s) {
  return {s.n, backwardAxis(s.oh, s.h, s.top), backwardAxis(s.ow, s.w, s.left), s.oc, s.ic, unitBytes(s)};
}
Tiling gradientTiling(const JtreluConvolutionSizes& s) {
  return {s.n,
          forwardAxis(s.h, s.oh, s.top),
          forwardAxis(s.w, s.ow, s.left),
          s.ic,
          s.oc,
          std::max(kGradientBytes, 2 * weightBytes(s))};
}

// Channels of x and e whose planes are held at once: as many as stay in the second-level cache until they are transformed back. Units
// add up in planes of all.
struct PlaneChannels {
  int in, out;
  explicit PlaneChannels(const Tiling& t) : in(t.in), out(t.out) {
    if (t.rows < t.total) return;
    in = std::min(in, 64);
    const int64_t channels = kPlaneBytes / (int64_t(kPlaces) * in * sizeof(float));
    out = int(std::clamp<int64_t>(channels / LANES * LANES, LANES, out));
  }
};

// A unit: rows [first, last) of tiles, and how many products each point has along the axes.
struct Unit {
  const Tiling& t;
  int first, last;
  int rows[kPoints], columns[kPoints];

  Unit(const Tiling& tiling, int from) : t(tiling), first(from), last(std::min(from + t.rows, t.total)) {
    for (int point = 0; point < kPoints; point++) {
      rows[point] = before(point, last) - before(point, first);
      columns[point] = t.wide.slots(point);
    }
  }
  int before(int point, int row) const {
    const int tiles = t.high.tiles();
    return row / tiles * t.high.slots(point) + t.high.slot(point, row % tiles);
  }
  int64_t tiles(int place) const { return int64_t(rows[place / kPoints]) * columns[place % kPoints]; }
};

// For a row of tiles and a block of channels: where the values of its first tile lie.
struct Places {
  float* at[kValues][kPoints];

  Places(const Unit& u, int row, float* base, const int64_t* places, int block) {
    for (int i = 0; i < kValues; i++) {
      const int point = pointOf(i), slot = u.before(point, row) - u.before(point, u.first) + (i - point);
      for (int j = 0; j < kPoints; j++) {
        at[i][j] = base + places[point * kPoints + j] + (int64_t(block) * u.rows[point] + slot) * u.columns[j] * LANES;
      }
    }
  }
  /// Value (i, j) of tile k.
  INLINE float* of(int k, int i, int j) const {
    return at[i][pointOf(j)] + (j < kMiddle ? k : kTile * k + j - kMiddle) * LANES;
  }
  /// Stores the i-th row of tile k.
  INLINE void put(int k, int i, Counts wide, const Vector* values) const {
#pragma GCC unroll 5
    for (int j = 0; j < kValues; j++)
      if (wide.has(j)) store(of(k, i, j), values[j]);
  }
};

// Calls tile(k, its counts) for all tiles of a row; those of whole ones are constants.
template <class Tile> INLINE void forTiles(const Tiling& t, int row, Tile tile) {
  const Counts high = t.high.of(row % t.high.tiles());
  const bool wholeRow = high.two == kTile && high.one == kTile;
  for (int k = 0; k < t.wide.tiles(); k++) {
    const Counts wide = t.wide.of(k);
    if (wholeRow && wide.two == kTile && wide.one == kTile) {
      tile(k, kWhole, kWhole);
    } else {
      tile(k, high, wide);
    }
  }
}

// B^T d along one axis of both phases; d and v in steps of `step` vectors and of one.
INLINE void sourcePoints(const Vector* d, int step, Vector* v) {
  v[kZero] = d[0] - d[step];
  v[kOne] = d[step];
  v[kInfinity] = d[2 * step] - d[step];
#pragma GCC unroll 2
  for (int i = kMiddle; i < kValues; i++) v[i] = d[i * step];
}

// B^T d B of a unit, for all channels. A row of tiles is read whole before the next, which is fetched meanwhile.
void transformSource(const Unit& u, const float* x, float* to) {
  const Tiling& t = u.t;
  const int tiles = t.high.tiles(), blocks = t.in / LANES;
  const int64_t below = int64_t(t.wide.extent) * t.in;
  alignas(64) static const float kZeros[LANES] = {};
  auto begin = [&](int row) {  // of what it reads
    return x + (int64_t(row / tiles) * t.high.extent + std::max(t.high.source(row % tiles, 0), 0)) * below;
  };
  for (int row = u.first; row < u.last; row++) {
    Upcoming upcoming(begin(row + 1), row + 1 < u.last ? kTile * t.high.step * below * int64_t(sizeof(float)) : 0,
                      int64_t(blocks) * t.wide.tiles());
    for (int block = 0; block < blocks; block++) {
      const float* line[kValues];
      int64_t step[kValues];
      for (int i = 0; i < kValues; i++) {
        const int y = t.high.source(row % tiles, i);
        const bool inside = y >= 0 && y < t.high.extent;
        line[i] = inside ? x + (int64_t(row / tiles) * t.high.extent + y) * below + block * LANES : kZeros;
        step[i] = inside ? t.in : 0;
      }
      const Places places(u, row, to, t.inAt, block);
      Vector v[kValues][kValues];  // B^T d, by column
      auto column = [&](int k, int j) __attribute__((always_inline)) {
        const int z = t.wide.source(k, j);
        if (z < 0 || z >= t.wide.extent) {
#pragma GCC unroll 5
          for (int i = 0; i < kValues; i++) v[j][i] = Vector{};
          return;
        }
        Vector d[kValues];
#pragma GCC unroll 5
        for (int i = 0; i < kValues; i++) d[i] = load(line[i] + z * step[i]);
        sourcePoints(d, 1, v[j]);
      };
      column(0, 0);
      forTiles(
          t, row, [&](int k, Counts high, Counts wide) __attribute__((always_inline)) {
            upcoming.fetch();
            for (int j = 1; j < kValues; j++) column(k, j);
#pragma GCC unroll 5
            for (int i = 0; i < kValues; i++) {
              Vector w[kValues];
              sourcePoints(&v[0][i], kValues, w);
              if (high.has(i)) places.put(k, i, wide, w);
            }
#pragma GCC unroll 5
            for (int i = 0; i < kValues; i++) v[0][i] = v[kTile][i];  // the next tile's first
          });
    }
  }
}

// A^T m along one axis: results of the phase of two taps, then of the other; or their sums.
template <bool adds> INLINE void results(const Vector* m, Vector* y, int step) {
  y[0] = m[kZero] + m[kOne];
  y[step] = m[kOne] + m[kInfinity];
#pragma GCC unroll 2
  for (int i = 0; i < kTile; i++) {
    if constexpr (adds) {
      y[i * step] += m[kMiddle + i];
    } else {
      y[(kTile + i) * step] = m[kMiddle + i];
    }
  }
}

// A^T m A of a unit, for all channels, and what follows it.
template <bool adds, Kind kind> void transformResult(const Unit& u, float* m, float* y, const Epilogue<float>& e) {
  const Tiling& t = u.t;
  constexpr int kResults = adds ? kTile : 2 * kTile;
  const Vector positive = repeat(e.scale), negative = repeat(e.scale * e.slope);
  for (int block = 0; block < t.out / LANES; block++) {
    const Vector bias = kind == Kind::kBias ? load(e.bias + block * LANES) : Vector{};
    for (int row = u.first; row < u.last; row++) {
      const int image = row / t.high.tiles(), rowInImage = row % t.high.tiles();
      const Places places(u, row, m, t.outAt, block);
      forTiles(
          t, row, [&](int k, Counts high, Counts wide) __attribute__((always_inline)) {
            Vector h[kResults][kValues];  // A^T m
#pragma GCC unroll 5
            for (int j = 0; j < kValues; j++) {
              Vector q[kValues];
#pragma GCC unroll 5
              for (int i = 0; i < kValues; i++) {
                q[i] = high.has(i) && wide.has(j) ? load(places.of(k, i, j)) : Vector{};
              }
              results<adds>(q, &h[0][j], kValues);
            }
#pragma GCC unroll 4
            for (int i = 0; i < kResults; i++) {
              const int phase = i / kTile;
              if (i % kTile >= (phase == 0 ? high.two : high.one)) continue;
              Vector line[kResults];
              results<adds>(h[i], line, 1);
              const int64_t pixel =
                  (int64_t(image) * t.high.results + t.high.result(rowInImage, phase, i % kTile)) * t.wide.results;
#pragma GCC unroll 4
              for (int j = 0; j < kResults; j++) {
                if (j % kTile >= (j < kTile ? wide.two : wide.one)) continue;
                const int64_t at = (pixel + t.wide.result(k, j / kTile, j % kTile)) * t.out + block * LANES;
                finish<kind>(line[j], bias, kind == Kind::kGate ? e.gate + at : nullptr, y + at, positive, negative,
                             e.accumulate);
              }
            }
          });
    }
  }
}

// What a unit's results will touch.
Ahead aheadOf(const Unit& u, const Epilogue<float>& e, float* y) {
  const Tiling& t = u.t;
  const int64_t line = int64_t(t.wide.results) * t.out;
  auto begin = [&](int row) {
    const int tiles = t.high.tiles();
    return (int64_t(row / tiles) * t.high.results + t.high.begin(row % tiles)) * line;
  };
  const int vectors = panelVectors<F32>(t.in, t.out);
  int64_t calls = 0;
  for (int p = 0; p < kPlaces; p++) calls += productCalls(u.tiles(p), vectors) * (t.out / LANES / vectors);
  const int64_t from = begin(u.first), bytes = (begin(u.last) - from) * int64_t(sizeof(float));
  const float* gate = e.gate == nullptr ? nullptr : e.gate + from;
  return {reinterpret_cast<const char*>(gate), reinterpret_cast<char*>(y + from), bytes, calls};
}

template <bool adds>
void convolve(const Tiling& t, const float* x, const float* weights, float* y, const Epilogue<float>& e,
              void* workspace) {
  float* out = static_cast<float*>(workspace);
  float* in = out + t.outAt[kPlaces];
  const int64_t stride = placeStride(int64_t(t.in) * t.out);
  for (int first = 0; first < t.total; first += t.rows) {
    const Unit u(t, first);
    transformSource(u, x, in);
    Ahead ahead = aheadOf(u, e, y);
    for (int p = 0; p < kPlaces; p++) {
      const float* next = p + 1 < kPlaces ? weights + (p + 1) * stride : nullptr;
      multiply<F32>(ahead, in + t.inAt[p], weights + p * stride, next, out + t.outAt[p], u.tiles(p), t.in, t.out);
    }
    if constexpr (adds) {
      transformResult<adds, Kind::kBias>(u, out, y, e);
    } else if (e.gate != nullptr) {
      transformResult<adds, Kind::kGate>(u, out, y, e);
    } else {
      transformResult<adds, Kind::kPlain>(u, out, y, e);
    }
  }
}

void forward(const JtreluConvolutionSizes* sizes, const float* x, const float* packed, const float* bias, float slope,
             float scale, float* y, void* workspace) {
  convolve<true>(forwardTiling(*sizes), x, packed, y, {bias, nullptr, slope, scale, false}, workspace);
}

void backwardData(const JtreluConvolutionSizes* sizes, const float* e, const float* packed, const float* gate,
                  float slope, float scale, int32_t accumulate, float* y, void* workspace) {
  convolve<false>(backwardTiling(*sizes), e, packed, y, {nullptr, gate, slope, scale, accumulate != 0}, workspace);
}

// A e along one axis, for both phases.
INLINE void gradientPoints(const Vector* e, int step, Vector* v) {
  v[kZero] = e[0];
  v[kOne] = e[0] + e[step];
  v[kInfinity] = e[step];
#pragma GCC unroll 2
  for (int i = 0; i < kTile; i++) v[kMiddle + i] = e[i * step];
}

// A e A^T of a unit, for all channels; adds e to sums [out].
void transformGradient(const Unit& u, const float* e, float* to, double* sums) {
  const Tiling& t = u.t;
  const int64_t below = int64_t(t.wide.results) * t.out;
  for (int block = 0; block < t.out / LANES; block++) {
    for (int row = u.first; row < u.last; row++) {
      const int line = row / t.high.tiles() * t.high.results + t.high.begin(row % t.high.tiles());
      const float* from = e + line * below + block * LANES;
      const Places places(u, row, to, t.outAt, block);
      Vector sum{};  // of a row of tiles: few enough terms for a float
      forTiles(
          t, row, [&](int k, Counts high, Counts wide) __attribute__((always_inline)) {
            Vector v[kTile][kValues];  // A e, by column
#pragma GCC unroll 3
            for (int j = 0; j < kTile; j++) {
              Vector d[kTile];
#pragma GCC unroll 3
              for (int i = 0; i < kTile; i++) {
                const bool inside = i < high.one && j < wide.one;
                d[i] = inside ? load(from + i * below + (t.wide.begin(k) + j) * t.out) : Vector{};
                sum += d[i];
              }
              gradientPoints(d, 1, v[j]);
            }
#pragma GCC unroll 5
            for (int i = 0; i < kValues; i++) {
              Vector w[kValues];
              gradientPoints(&v[0][i], kValues, w);
              if (high.has(i)) places.put(k, i, wide, w);
            }
          });
      for (int lane = 0; lane < LANES; lane++) sums[block * LANES + lane] += sum[lane];
    }
  }
}

// G^T q along one axis, `from` and `to` vectors apart.
INLINE void kernelOf(const Vector* q, int from, Vector* g, int to) {
  g[0] = q[kZero * from] + q[kOne * from];
  g[to] = q[kMiddle * from];
  g[2 * to] = q[kOne * from] + q[kInfinity * from];
}

void transformPlanes(const float* planes, int64_t stride, int in, int out, float* diffWeights, int row, bool add) {
  writeGradients(
      planes, stride, in, out, diffWeights, row, add, [](auto value, Vector(*g)[3]) __attribute__((always_inline)) {
        Vector h[kPoints][3];  // q G
#pragma GCC unroll 4
        for (int i = 0; i < kPoints; i++) {
          Vector q[kPoints];
#pragma GCC unroll 4
          for (int j = 0; j < kPoints; j++) q[j] = value(kPoints * i + j);
          kernelOf(q, 1, h[i], 1);
        }
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) kernelOf(&h[0][j], 3, &g[0][j], 3);
      });
}

void gradients(const JtreluConvolutionSizes* sizes, const float* x, const float* e, float* diffWeights, float* diffBias,
               int32_t add, void* workspace) {
  const Tiling t = gradientTiling(*sizes);
  const PlaneChannels some(t);
  const int64_t stride = placeStride(int64_t(some.in) * some.out);
  float* planes = static_cast<float*>(workspace);  // [place, some of out, some of in]
  float* errors = planes + kPlaces * stride;
  float* sources = errors + t.outAt[kPlaces];
  double* sums = reinterpret_cast<double*>(sources + t.inAt[kPlaces]);
  std::fill_n(sums, t.out, 0.0);
  for (int first = 0; first < t.total; first += t.rows) {
    const Unit u(t, first);
    transformSource(u, x, sources);
    transformGradient(u, e, errors, sums);
    for (int n = 0; n < t.in; n += some.in) {
      const int in = std::min(some.in, t.in - n);
      for (int m = 0; m < t.out; m += some.out) {
        const int out = std::min(some.out, t.out - m);
        for (int p = 0; p < kPlaces; p++) {
          const int64_t tiles = u.tiles(p);
          accumulate<F32>(errors + t.outAt[p] + m * tiles, sources + t.inAt[p] + n * tiles, planes + p * stride, tiles,
                          in, out, first > 0);
        }
        if (u.last == t.total) {
          transformPlanes(planes, stride, in, out, diffWeights + int64_t(m) * 9 * t.in + n, t.in, add);
        }
      }
    }
  }
  if (t.total == 0 && !add) std::fill_n(diffWeights, int64_t(t.out) * 9 * t.in, 0.0f);
  for (int m = 0; m < t.out; m++) diffBias[m] = float((add ? diffBias[m] : 0) + sums[m]);
}

// G g along one axis, `step` vectors apart.
INLINE void kernelPoints(const Vector* g, int step, Vector* u) {
  u[kZero] = g[0];
  u[kOne] = g[0] + g[2 * step];
  u[kInfinity] = g[2 * step];
  u[kMiddle] = g[step];
}

// G g G^T of a kernel for a vector of channels, g [3 * 3]: all places.
INLINE void transformKernel(const Vector* g, Vector* to) {
  Vector h[3][kPoints];  // G g, by column
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) kernelPoints(g + j, 3, h[j]);
#pragma GCC unroll 4
  for (int i = 0; i < kPoints; i++) kernelPoints(&h[0][i], kPoints, to + kPoints * i);
}

void pack(const JtreluConvolutionSizes* sizes, const float* weights, float* forward, float* backward) {
  packKernels<F32, kPlaces, transformKernel>(weights, sizes->ic, sizes->oc, forward, backward);
}

int64_t packedBytes(const JtreluConvolutionSizes* sizes, int32_t) {
  return kPlaces * placeStride(int64_t(sizes->ic) * sizes->oc) * int64_t(sizeof(float));
}

int64_t workspaceBytes(const JtreluConvolutionSizes* sizes) {
  auto floats = [](const Tiling& t) { return t.inAt[kPlaces] + t.outAt[kPlaces]; };
  const Tiling g = gradientTiling(*sizes);
  const PlaneChannels some(g);
  const int64_t planes = kPlaces * placeStride(int64_t(some.in) * some.out);
  const int64_t gradient = (planes + floats(g)) * int64_t(sizeof(float)) + g.out * int64_t(sizeof(double));
  return std::max({floats(forwardTiling(*sizes)) * int64_t(sizeof(float)),
                   floats(backwardTiling(*sizes)) * int64_t(sizeof(float)), gradient});
}

constexpr JtreluF32Convolutions kConvolutions = {packedBytes, workspaceBytes, pack, forward, backwardData, gradients};

}  // namespace strided
}  // namespace
