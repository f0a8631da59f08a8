// Convolutions by the definition on matrix units (Intel AMX): direct_kernels.h has the formulas, and the rest of what is used here.
//
// A matrix unit multiplies bfloat16 and adds up binary32. A float is the sum of three bfloat16, of 8 bits each: high, middle and
// low, and of the nine products of two floats' parts six are added up, all but those of middle and low. With |x| < 2^(e + 1) the
// middle part is at most 2^(e - 8) and the low one 2^(e - 17), so what is left out is at most 2^-24 (1 + 2^-10) of the product: one
// rounding more. A product is exact where both factors have at most 17 bits, or one of them 8. The unit takes subnormal numbers for
// zero, so each factor and each sum is off by 2^-126 at most besides. An infinity has no three parts: sums that meet one are NaN.
//
// Parts lie as the unit reads them, in tiles of 16 rows of 16 pairs; a pair holds channels (or pixels) i and i + 16 of 32. A step
// adds to 2 x 2 tiles of sums what 32 channels give: 2 tiles of each part of both operands. Sums of a pixel do not depend on what
// lies beside it, and are added up in the order of taps and channels.
#pragma once
#include "direct_kernels.h"

namespace {
namespace matrix {

using direct::beginOf, direct::Class, direct::Epilogue, direct::kCacheLine, direct::loadSome, direct::roundUp,
    direct::Source, direct::Walk;

constexpr int kTile = 16;  // rows of a tile, and floats of a row
constexpr int kSide = 2 * kTile;  // rows and columns of a block of sums, and channels of a step
constexpr int kRow = 32;  // bfloat16 of a tile's row
constexpr int kTileSize = kTile * kRow;
constexpr int kPart = 2 * kTileSize;
constexpr int kStep = 3 * kPart;  // bfloat16 of an operand of a step
constexpr int kDepth = 16;  // steps between which sums stay in tiles, at most
constexpr int64_t kUnitBytes = 512 * 1024;  // of parts and sums, of a second-level cache of 2 MiB
constexpr int kMostBlocks = 10;  // of pixels, of a unit

int stepsOf(int channels) { return (channels + kSide - 1) / kSide; }

// What was written before is in memory: GCC does not know what loads of tiles read.
INLINE void written() { asm volatile("" ::: "memory"); }

// The unit's tiles, for as long as this lives: four of sums, two of each operand.
class Tiles {
 public:
  Tiles() { configure(kTile); }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  /// Rows of sums and of the first operand; takes a time in proportion.
  void configure(int rows) {
    struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (int tile = 0; tile < 8; tile++) {
      config.bytes[tile] = kRow * sizeof(uint16_t);
      config.rows[tile] = uint8_t(tile < 6 ? rows : kTile);
    }
    asm volatile("" : : "m"(config));
    _tile_loadconfig(&config);
  }
};

INLINE void zeroSums() {
  written();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Sums lie in rows, `width` floats apart; of the second operand there are one or two tiles.
INLINE void loadSums(const float* from, int rows) {
  written();
  const float* below = from + rows * kSide;
  _tile_loadd(0, from, kSide * sizeof(float));
  _tile_loadd(1, from + kTile, kSide * sizeof(float));
  _tile_loadd(2, below, kSide * sizeof(float));
  _tile_loadd(3, below + kTile, kSide * sizeof(float));
}
INLINE void storeSums(float* to, int rows, int width) {
  float* below = to + rows * width;
  _tile_stored(0, to, width * sizeof(float));
  _tile_stored(2, below, width * sizeof(float));
  if (width == kTile) return;
  _tile_stored(1, to + kTile, width * sizeof(float));
  _tile_stored(3, below + kTile, width * sizeof(float));
}

template <int part> INLINE void loadFirst(const uint16_t* a) {
  _tile_loadd(4, a + part * kPart, kRow * sizeof(uint16_t));
  _tile_loadd(5, a + part * kPart + kTileSize, kRow * sizeof(uint16_t));
}
template <int part> INLINE void loadSecond(const uint16_t* b) {
  _tile_loadd(6, b + part * kPart, kRow * sizeof(uint16_t));
  _tile_loadd(7, b + part * kPart + kTileSize, kRow * sizeof(uint16_t));
}
INLINE void addProducts() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// A step. The large products come last; each needs one operand of the one before. What the core has to do besides lies between them,
// a little at a time: it looks ahead some hundred instructions, and the unit would wait.
constexpr int kProducts = 6;
template <class Aside> INLINE void addStep(const uint16_t* a, const uint16_t* b, Aside aside) {
  loadFirst<2>(a);
  loadSecond<0>(b);
  addProducts();
  aside(0);
  loadFirst<1>(a);
  addProducts();
  aside(1);
  loadSecond<1>(b);
  addProducts();
  aside(2);
  loadFirst<0>(a);
  addProducts();
  aside(3);
  loadSecond<2>(b);
  addProducts();
  aside(4);
  loadSecond<0>(b);
  addProducts();
  aside(5);
}

// To the nearest bfloat16, as a float. What would be rounded to infinity is the largest one instead, and so is infinity.
INLINE Vector nearest(Vector v) { return Vector((Words(v) + 0x8000) & 0xffff0000); }
INLINE Vector nearestFinite(Vector v) {
  constexpr float kLargest = 0x1.fep127f;
  constexpr int kLesserMagnitude = 2;
  return Vector(_mm512_range_ps(__m512(nearest(v)), _mm512_set1_ps(kLargest), kLesserMagnitude));
}

// A row of each part's tile: pairs of the parts of `even` and of `odd`. A remainder that is not finite ends as a NaN in the low part.
INLINE void split(Vector even, Vector odd, uint16_t* to) {
  const auto put = [&](int part, Vector low, Vector high) __attribute__((always_inline)) {
    const Words pairs = Words(low) >> 16 | (Words(high) & 0xffff0000);
    std::memcpy(to + part * kPart, &pairs, sizeof pairs);
  };
  Vector a = nearestFinite(even), b = nearestFinite(odd);
  put(0, a, b);
  even -= a;
  odd -= b;
  a = nearest(even);
  b = nearest(odd);
  put(1, a, b);
  put(2, even - a, odd - b);
}

// Up to 16 floats from p on, of which there are `count`.
INLINE Vector loadUpTo(const float* p, int64_t count) { return count > 0 ? loadSome(p, count) : Vector{}; }

// Parts of up to kSide floats from p on.
INLINE void splitSome(const float* p, int64_t count, uint16_t* to) {
  if (count >= kSide) {
    split(load(p), load(p + LANES), to);
  } else {
    split(loadUpTo(p, count), loadUpTo(p + LANES, count - LANES), to);
  }
}

// to[i][j] = from[j * below + i]
INLINE void transpose(const float* from, int64_t below, Vector* to) {
  typedef float Four __attribute__((vector_size(16)));
#pragma GCC unroll 4
  for (int column = 0; column < LANES; column += 4, from += 4) {
    Vector row[4];  // each four rows' pieces
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      const auto piece = [&](int j) __attribute__((always_inline)) {
        Four four;
        std::memcpy(&four, from + (i + j) * below, sizeof four);
        return four;
      };
      const auto low = __builtin_shufflevector(piece(0), piece(4), 0, 1, 2, 3, 4, 5, 6, 7);
      const auto high = __builtin_shufflevector(piece(8), piece(12), 0, 1, 2, 3, 4, 5, 6, 7);
      row[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    const auto lower = [](Vector a, Vector b) __attribute__((always_inline)) {
      return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    };
    const auto upper = [](Vector a, Vector b) __attribute__((always_inline)) {
      return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    };
    const auto lowerPairs = [](Vector a, Vector b) __attribute__((always_inline)) {
      return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    };
    const auto upperPairs = [](Vector a, Vector b) __attribute__((always_inline)) {
      return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    };
    const Vector a = lower(row[0], row[1]), b = lower(row[2], row[3]);
    const Vector c = upper(row[0], row[1]), d = upper(row[2], row[3]);
    to[column] = lowerPairs(a, b);
    to[column + 1] = upperPairs(a, b);
    to[column + 2] = lowerPairs(c, d);
    to[column + 3] = upperPairs(c, d);
  }
}

// The same of some rows and columns, others are 0.
INLINE void transposeSome(const float* from, int64_t below, int64_t rows, int64_t columns, Vector* to) {
  if (rows >= LANES && columns >= LANES) return transpose(from, below, to);
  alignas(64) float square[LANES * LANES] = {};
  for (int64_t i = 0; i < std::min<int64_t>(rows, LANES); i++) {
    if (columns > 0) store(square + i * LANES, loadSome(from + i * below, columns));
  }
  transpose(square, LANES, to);
}

// How a pass goes through its sums: units of pixels, of which some steps' parts and what is added up stay in the second-level cache.
struct Plan {
  int64_t pixels;  // of a unit at most, whole blocks of them
  int depth;  // steps at a time
  int64_t sums, parts;  // elements of the unit

  Plan(int in, int out, int taps) {
    const int64_t steps = int64_t(taps) * stepsOf(in), width = roundUp(out, kSide);
    depth = int(std::min<int64_t>(steps, kDepth));
    const int64_t waiting = steps > depth ? width : 0;
    const int64_t bytes = 3 * depth * kSide * int64_t(sizeof(uint16_t)) + waiting * int64_t(sizeof(float));
    pixels = std::clamp<int64_t>(kUnitBytes / bytes / kSide, 1, kMostBlocks) * kSide;
    sums = pixels * waiting;
    parts = pixels / kSide * depth * kStep;
  }
};

// Memory taken from a workspace, in whole cache lines.
class Memory {
 public:
  explicit Memory(void* memory) : begin(static_cast<char*>(memory)), at(begin) {}
  template <class T> T* take(int64_t count) {
    char* taken = at;
    at += roundUp(count * int64_t(sizeof(T)), kCacheLine);
    return reinterpret_cast<T*>(taken);
  }
  int64_t bytes() const { return at - begin; }

 private:
  char *begin, *at;
};

struct Workspace {
  Plan plan;
  float *zeros, *sums;
  uint16_t* parts;
  const float** from;
  int64_t* to;
  int64_t bytes;

  Workspace(void* memory, int in, int out, int taps) : plan(in, out, taps) {
    Memory m(memory);
    zeros = m.take<float>(std::max<int64_t>(in, roundUp(out, LANES)));
    sums = m.take<float>(plan.sums);
    parts = m.take<uint16_t>(plan.parts);
    from = m.take<const float*>(plan.pixels);
    to = m.take<int64_t>(plan.pixels);
    bytes = m.bytes();
  }
};

// Sums of a block that are finished while those of the next one are added up.
template <int kind> struct Finish {
  const float* sums;  // [pixels][width]
  const int64_t* to;
  int pixels = 0, width = 0, n = 0, out = 0;
  Vector bias[2] = {};

  Finish() : sums(nullptr), to(nullptr) {}
  Finish(const float* from, const int64_t* results, int count, int floats, int first, int channels, const Epilogue& e)
      : sums(from), to(results), pixels(count), width(floats), n(first), out(channels) {
    if (kind == Epilogue::kBias && whole()) {
      bias[0] = load(e.bias + n);
      if (width > LANES) bias[1] = load(e.bias + n + LANES);
    }
  }

  bool whole() const { return out - n >= width; }

  INLINE void pixel(const Epilogue& e, int i) const {
    const float* from = sums + i * width;
    if (!whole()) return e.finish(from, to + i, 1, width / LANES, n, out);
    e.finish<Epilogue::Kind(kind), true>(load(from), bias[0], to[i] + n, LANES);
    if (width > LANES) e.finish<Epilogue::Kind(kind), true>(load(from + LANES), bias[1], to[i] + n + LANES, LANES);
  }
};

// y [images, outH, outW, out] of two classes. Weights are packed [kSide channels of y][tap][step].
template <int kind>
void convolve(int images, const Source& x, const Class& high, const Class& wide, int highTaps, int wideTaps,
              const uint16_t* packed, int outH, int outW, int out, const Epilogue& e, const Workspace& s,
              Tiles& tiles) {
  const int in = x.channels, deep = stepsOf(in), steps = high.taps * wide.taps * deep;
  const int64_t panelSize = int64_t(highTaps) * wideTaps * deep * kStep;
  const int64_t pixels = int64_t(images) * high.count * wide.count;
  const int64_t units = (pixels + s.plan.pixels - 1) / s.plan.pixels;
  std::fill_n(s.zeros, std::max<int64_t>(in, roundUp(out, LANES)), 0.0f);
  for (int64_t unit = 0; unit < units; unit++) {
    const int64_t first = beginOf(unit, units, pixels), count = beginOf(unit + 1, units, pixels) - first;
    const int blocks = int((count + kSide - 1) / kSide);
    const int rows = int((count + 2 * blocks - 1) / (2 * blocks)), side = 2 * rows;  // of a tile, of a block
    tiles.configure(rows);
    const Walk begin(first, high.count, wide.count);
    Walk at = begin;
    for (int64_t i = 0; i < count; i++, at.next()) {
      const int64_t row = at.image * outH + high.begin + at.row * high.step;
      s.to[i] = (row * outW + wide.begin + at.column * wide.step) * out;
      if (steps == 0) e.finish(s.zeros, s.to + i, 1, int(roundUp(out, LANES) / LANES), 0, out);
    }
    for (int step = 0; step < steps; step += kDepth) {
      const int depth = std::min(kDepth, steps - step);
      const bool last = step + depth == steps;
      int64_t weights[kDepth];
      for (int i = 0; i < depth; i++) {
        const int tap = (step + i) / deep, k = (step + i) % deep * kSide;
        const Class::Tap &r = high.tap[tap / wide.taps], &c = wide.tap[tap % wide.taps];
        weights[i] = ((int64_t(r.index) * wideTaps + c.index) * deep + k / kSide) * kStep;
        if (i == 0 || k == 0) {
          at = begin;
          for (int64_t p = 0; p < count; p++, at.next()) {
            s.from[p] = x.at(at.image, at.row * high.factor + r.offset, at.column * wide.factor + c.offset, s.zeros);
          }
        }
        const float* const* from = s.from;
        for (int block = 0; block < blocks; block++) {
          uint16_t* to = s.parts + (int64_t(block) * depth + i) * kStep;
          const int finished = int(std::min<int64_t>(side, count - int64_t(block) * side));
          for (int p = 0; p < finished; p++, from++) {
            splitSome(*from + k, in - k, to + (p < rows ? p * kRow : kTileSize + (p - rows) * kRow));
          }
        }
      }
      alignas(64) float own[2][kSide * kSide];
      int turn = 0;
      Finish<kind> before;
      const uint16_t* b = packed;
      for (int n = 0; n < out; n += kSide, b += panelSize) {
        const int width = out - n > kTile ? kSide : kTile;
        const bool more = n + kSide < out;
        for (int block = 0; block < blocks; block++) {
          const int64_t pixel = int64_t(block) * side;
          const int finished = int(std::min<int64_t>(side, count - pixel));
          float* sums = s.sums + (int64_t(n / kSide) * blocks + block) * kSide * kSide;
          if (step == 0) {
            zeroSums();
          } else {
            loadSums(sums, rows);
          }
          const uint16_t* a = s.parts + int64_t(block) * depth * kStep;
          // Between products: results of the block before, fetches of this one's and of the next weights.
          constexpr int kLines = kStep / kRow / kProducts;
          const int line = int(beginOf(block, blocks, kLines)), endLine = int(beginOf(block + 1, blocks, kLines));
          const int slots = depth * kProducts;
          int done = 0, due = 0;
          for (int i = 0; i < depth; i++) {
            const uint16_t* weight = b + weights[i];
            addStep(
                a + i * kStep, weight, [&](int slot) __attribute__((always_inline)) {
                  if (last) {
                    for (due += side; due >= slots; due -= slots, done++) {
                      if (done < before.pixels) before.pixel(e, done);
                      if (done < finished) e.fetch(s.to[pixel + done] + n, width);
                    }
                  }
                  if (!more) return;
                  for (int l = line; l < endLine; l++) {
                    __builtin_prefetch(weight + panelSize + (slot * kLines + l) * kRow, 0, 2);
                  }
                });
          }
          if (last) {
            storeSums(own[turn], rows, width);
            before = {own[turn], s.to + pixel, finished, width, n, out, e};
            turn = 1 - turn;
          } else {
            storeSums(sums, rows, kSide);
          }
        }
      }
      for (int i = 0; i < before.pixels; i++) before.pixel(e, i);
    }
  }
}

void forward(const JtreluConvolutionSizes& s, const float* x, const uint16_t* packed, const Epilogue& e, void* memory) {
  const Workspace workspace(memory, s.ic, s.oc, s.kh * s.kw);
  Tiles tiles;
  convolve<Epilogue::kBias>(s.n, {x, s.h, s.w, s.ic}, direct::forwardClass(s.oh, s.kh, s.strideH, s.top),
                            direct::forwardClass(s.ow, s.kw, s.strideW, s.left), s.kh, s.kw, packed, s.oh, s.ow, s.oc,
                            e, workspace, tiles);
}

void backwardData(const JtreluConvolutionSizes& s, const float* e, const uint16_t* packed, const Epilogue& epilogue,
                  void* memory) {
  const Source source{e, s.oh, s.ow, s.oc};
  const Workspace workspace(memory, s.oc, s.ic, s.kh * s.kw);
  Tiles tiles;
  const auto pass = epilogue.kind() == Epilogue::kGate ? convolve<Epilogue::kGate> : convolve<Epilogue::kPlain>;
  for (int r = 0; r < std::min(s.strideH, s.h); r++) {
    for (int c = 0; c < std::min(s.strideW, s.w); c++) {
      pass(s.n, source, direct::backwardClass(s.h, s.kh, s.strideH, s.top, r),
           direct::backwardClass(s.w, s.kw, s.strideW, s.left, c), s.kh, s.kw, packed, s.h, s.w, s.ic, epilogue,
           workspace, tiles);
    }
  }
}

// Three parts' rows, past the caches.
INLINE void splitPast(Vector even, Vector odd, uint16_t* to) {
  alignas(64) uint16_t parts[2 * kPart + kRow];
  split(even, odd, parts);
  for (int part = 0; part < 3; part++) stream(to + part * kPart, load(reinterpret_cast<float*>(parts + part * kPart)));
}

// Packs a matrix for each tap as convolve() reads it: element (k, n) lies at weights + tap * tapStep + k * kStep + n * nStep, of
// which one step is 1.
void packMatrices(const float* weights, int taps, int64_t tapStep, int in, int64_t kStride, int out, int64_t nStride,
                  uint16_t* to) {
  for (int panel = 0; panel < out; panel += kSide) {
    for (int tap = 0; tap < taps; tap++) {
      for (int k = 0; k < in; k += kSide, to += kStep) {
        for (int half = 0; half < 2; half++) {
          const int n = panel + half * kTile;
          const float* from = weights + tap * tapStep + k * kStride + n * nStride;
          Vector row[kSide];
          if (nStride == 1) {
            for (int i = 0; i < kSide; i++) row[i] = k + i < in ? loadUpTo(from + i * kStride, out - n) : Vector{};
          } else {
            transposeSome(from, nStride, out - n, in - k, row);
            transposeSome(from + kTile, nStride, out - n, in - k - kTile, row + kTile);
          }
          for (int i = 0; i < kTile; i++) splitPast(row[i], row[i + kTile], to + half * kTileSize + i * kRow);
        }
      }
    }
  }
  endStream();
}

// Parts of e and of some channels of x for a block of pixels, and sums of e.
struct GradientWorkspace {
  int64_t pixels;  // of a block at most
  uint16_t *errors, *sources;
  float* zeros;
  double* sums;
  const float** from;
  int64_t bytes;

  GradientWorkspace(void* memory, int in, int out) {
    const int64_t channels = roundUp(out, kSide);
    pixels = std::clamp<int64_t>(kUnitBytes / (channels * 3 * int64_t(sizeof(uint16_t))) / kSide, 2, kDepth) * kSide;
    Memory m(memory);
    errors = m.take<uint16_t>(channels / kSide * (pixels / kSide) * kStep);
    sources = m.take<uint16_t>(pixels / kSide * kStep);
    zeros = m.take<float>(std::max(in, out));
    sums = m.take<double>(channels);
    from = m.take<const float*>(pixels);
    bytes = m.bytes();
  }
};

// Parts of e [pixels, channels] as first operand: rows are channels, pairs are of pixels; and sums over the pixels.
void splitErrors(const float* e, int pixels, int channels, uint16_t* to, double* sums) {
  const int depth = stepsOf(pixels);
  for (int p = 0; p < pixels; p += kSide) {
    for (int m = 0; m < roundUp(channels, kSide); m += kTile) {
      const float* from = e + int64_t(p) * channels + m;
      const int rows = std::min(kSide, pixels - p), columns = channels - m;
      Vector row[kSide], sum{};
      transposeSome(from, channels, rows, columns, row);
      transposeSome(from + int64_t(kTile) * channels, channels, rows - kTile, columns, row + kTile);
      uint16_t* tile = to + (int64_t(m / kSide) * depth + p / kSide) * kStep + m % kSide * kRow;
      for (int i = 0; i < kTile; i++) split(row[i], row[i + kTile], tile + i * kRow);
      if (columns <= 0) continue;
      for (int i = 0; i < rows; i++) sum += loadSome(from + int64_t(i) * channels, columns);
      for (int i = 0; i < LANES; i++) sums[m + i] += sum[i];
    }
  }
}

// Parts of `channels` channels of pixels of x, up to kSide of them, as second operand: columns are channels, pairs are of pixels.
void splitSources(const float* const* from, int64_t n, int pixels, int64_t channels, uint16_t* to) {
  for (int p = 0; p < pixels; p += kSide, to += kStep) {
    for (int i = 0; i < kTile; i++) {
      for (int half = 0; half < 2; half++) {
        const int64_t c = half * kTile;
        const auto at = [&](int pixel) __attribute__((always_inline)) {
          return pixel < pixels ? loadUpTo(from[pixel] + n + c, channels - c) : Vector{};
        };
        split(at(p + i), at(p + i + kTile), to + half * kTileSize + i * kRow);
      }
    }
  }
}

// to [rows, columns], rows `below` apart, of a block of sums.
void put(const float* sums, int rows, int columns, bool add, bool past, float* to, int64_t below) {
  for (int i = 0; i < rows; i++, sums += kSide, to += below) {
    for (int c = 0; c < columns; c += LANES) {
      const Vector v = load(sums + c);
      if (columns - c < LANES) {
        const Vector sum = add ? loadSome(to + c, columns - c) + v : v;
        std::memcpy(to + c, &sum, (columns - c) * sizeof(float));
      } else if (past) {
        stream(to + c, v);
      } else {
        store(to + c, add ? load(to + c) + v : v);
      }
    }
  }
}

void gradients(const JtreluConvolutionSizes& s, const float* x, const float* e, float* diffWeights, float* diffBias,
               bool accumulate, void* memory) {
  const Source source{x, s.h, s.w, s.ic};
  const int taps = s.kh * s.kw, in = s.ic;
  const int64_t below = int64_t(taps) * in;
  const GradientWorkspace w(memory, in, s.oc);
  std::fill_n(w.zeros, in, 0.0f);
  std::fill_n(w.sums, roundUp(s.oc, kSide), 0.0);
  const int64_t pixels = int64_t(s.n) * s.oh * s.ow, blocks = (pixels + w.pixels - 1) / w.pixels;
  const bool past =
      blocks == 1 && !accumulate && in % LANES == 0 && reinterpret_cast<uintptr_t>(diffWeights) % kCacheLine == 0;
  Tiles tiles;
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = beginOf(block, blocks, pixels);
    const int count = int(beginOf(block + 1, blocks, pixels) - first), depth = stepsOf(count);
    splitErrors(e + first * s.oc, count, s.oc, w.errors, w.sums);
    for (int tap = 0; tap < taps; tap++) {
      const int r = tap / s.kw - s.top, c = tap % s.kw - s.left;
      Walk at(first, s.oh, s.ow);
      for (int p = 0; p < count; p++, at.next()) {
        w.from[p] = source.at(at.image, at.row * s.strideH + r, at.column * s.strideW + c, w.zeros);
      }
      for (int n = 0; n < in; n += kSide) {
        splitSources(w.from, n, count, in - n, w.sources);
        const uint16_t* errors = w.errors;
        for (int m = 0; m < s.oc; m += kSide) {
          const int rows = std::min(kSide, s.oc - m), columns = std::min(kSide, in - n);
          float* to = diffWeights + m * below + int64_t(tap) * in + n;
          if (!past) {
            for (int i = 0; i < rows; i++) {
              __builtin_prefetch(to + i * below, 1, 3);
              __builtin_prefetch(to + i * below + columns - 1, 1, 3);
            }
          }
          zeroSums();
          for (int k = 0; k < depth; k++, errors += kStep) {
            addStep(errors, w.sources + k * kStep, [](int) {});
          }
          alignas(64) float sums[kSide * kSide];
          storeSums(sums, kTile, kSide);
          put(sums, rows, columns, accumulate || block > 0, past, to, below);
        }
      }
    }
  }
  endStream();
  if (blocks == 0 && !accumulate) std::fill_n(diffWeights, s.oc * below, 0.0f);
  for (int m = 0; m < s.oc; m++) diffBias[m] = float((accumulate ? diffBias[m] : 0) + w.sums[m]);
}

// Whether the unit does a convolution, by what all its bands have in common: channels fill four fifths of the tiles. Linear layers are
// a matter of reading weights, which are half as many bytes again.
bool pays(const JtreluConvolutionSizes& s) {
  const int64_t channels = int64_t(s.ic) * s.oc, computed = roundUp(s.ic, kSide) * roundUp(s.oc, kSide);
  return 5 * channels >= 4 * computed && s.ow > 1;
}

// The kernels: those of direct_kernels.h where the unit does not pay.
constexpr JtreluF32Convolutions kConvolutions = {
    [](const JtreluConvolutionSizes* s, int32_t backward) {
      if (!pays(*s)) return direct::packedBytes(s, backward);
      const int in = backward ? s->oc : s->ic, out = backward ? s->ic : s->oc;
      return s->kh * s->kw * int64_t(stepsOf(in)) * stepsOf(out) * kStep * int64_t(sizeof(uint16_t));
    },
    [](const JtreluConvolutionSizes* s) {
      if (!pays(*s)) return direct::workspaceBytes(s);
      const int taps = s->kh * s->kw;
      return std::max({Workspace(nullptr, s->ic, s->oc, taps).bytes, Workspace(nullptr, s->oc, s->ic, taps).bytes,
                       GradientWorkspace(nullptr, s->ic, s->oc).bytes});
    },
    [](const JtreluConvolutionSizes* s, const float* weights, float* forward, float* backward) {
      if (!pays(*s)) return direct::pack(s, weights, forward, backward);
      const int taps = s->kh * s->kw;
      const int64_t row = int64_t(taps) * s->ic;
      packMatrices(weights, taps, s->ic, s->ic, 1, s->oc, row, reinterpret_cast<uint16_t*>(forward));
      packMatrices(weights, taps, s->ic, s->oc, row, s->ic, 1, reinterpret_cast<uint16_t*>(backward));
    },
    [](const JtreluConvolutionSizes* s, const float* src, const float* packed, const float* bias, float slope,
       float scale, float* dst, void* workspace) {
      if (!pays(*s)) return direct::forward(s, src, packed, bias, slope, scale, dst, workspace);
      forward(*s, src, reinterpret_cast<const uint16_t*>(packed), {dst, bias, nullptr, slope, scale, false}, workspace);
    },
    [](const JtreluConvolutionSizes* s, const float* diffDst, const float* packed, const float* gate, float slope,
       float scale, int32_t accumulate, float* diffSrc, void* workspace) {
      if (!pays(*s)) {
        return direct::backwardData(s, diffDst, packed, gate, slope, scale, accumulate, diffSrc, workspace);
      }
      backwardData(*s, diffDst, reinterpret_cast<const uint16_t*>(packed),
                   {diffSrc, nullptr, gate, slope, scale, accumulate != 0}, workspace);
    },
    [](const JtreluConvolutionSizes* s, const float* src, const float* diffDst, float* diffWeights, float* diffBias,
       int32_t accumulate, void* workspace) {
      if (!pays(*s)) return direct::gradients(s, src, diffDst, diffWeights, diffBias, accumulate, workspace);
      gradients(*s, src, diffDst, diffWeights, diffBias, accumulate != 0, workspace);
    }};

}  // namespace matrix
}  // namespace
