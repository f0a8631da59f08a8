// Convolutions by the definition, where Winograd's method does not apply: 1x1 kernels, other strided ones, linear layers.
//
//   forward          y[p] = sum over taps of W[tap] x[p * stride + tap - padding]
//   backward data    the same of diff_dst and W transposed; results whose taps fall between the pixels of diff_dst in the same way
//                    are a class, done by itself: strides make one for each remainder
//   gradients        diff W[tap] = sum over p of e[p] x[p * stride + tap - padding]^T
//
// All are matrix products whose rows are pixels, which in NHWC have their channels side by side. Forward and backward data read
// them where they lie: a product takes pointers to some pixels and a panel of packed weights. A panel holds as many channels of x
// as fit into the first-level cache, where it stays while all pixels of a unit pass by; what is added up for a unit waits in the
// second. Gradients sum over pixels: blocks of both operands are brought into rows for that. The order of sums depends on the sizes alone.
#pragma once
#include "cpu_kernels.h"
#include "vectors.h"

#include <algorithm>
#include <array>
#include <utility>

namespace {
namespace direct {

// Register tiles: pixels by vectors of channels are added up, the rest of the registers holds operands.
constexpr int kPixels = 6, kVectors = LANES == 16 ? 4 : 2;
constexpr int kPanel = kVectors * LANES;
constexpr int kDepth = LANES == 16 ? 128 : 256;  // channels of a panel at most: 32 or 16 KiB and less
constexpr int kStep = 16;  // of these, after which some of the next panel are fetched
constexpr int64_t kUnitBytes = 384 * 1024;  // of x and y, of a second-level cache of 1 MiB
// And of gradients: channels of e by vectors of channels of x, over so many pixels.
constexpr int kErrors = 4, kErrorPixels = 128;
constexpr int kCacheLine = 64;
constexpr int kFloats = kCacheLine / sizeof(float);

constexpr int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
constexpr int64_t beginOf(int64_t part, int64_t parts, int64_t n) { return n * part / parts; }
constexpr int blocksOf(int channels) { return (channels + kDepth - 1) / kDepth; }

// Some of a vector's lanes at p, the others 0.
INLINE Vector loadSome(const float* p, int64_t count) {
  if (count >= LANES) return load(p);
  Vector v{};
  std::memcpy(&v, p, count * sizeof *p);
  return v;
}

// Results along one axis that the same taps reach: begin, begin + step, ... The i-th reads x at i * factor + offset.
struct Class {
  struct Tap {
    int index, offset;
  };
  int begin, step, count, factor, taps;
  Tap tap[kJtreluMostTaps];

  /// Whether results read one element each, one after the other.
  bool readsInOrder() const { return taps == 1 && step == 1 && factor == 1 && tap[0].offset == 0; }
};

Class forwardClass(int extent, int kernel, int stride, int padding) {
  Class c{0, 1, extent, stride, 0, {}};
  for (int r = 0; r < kernel; r++) c.tap[c.taps++] = {r, r - padding};
  return c;
}

Class backwardClass(int extent, int kernel, int stride, int padding, int remainder) {
  Class c{remainder, stride, (extent - remainder + stride - 1) / stride, 1, 0, {}};
  for (int r = 0; r < kernel; r++) {
    const int at = remainder + padding - r;
    if (at % stride == 0) c.tap[c.taps++] = {r, at / stride};
  }
  return c;
}

// A walk over pixels of images [image][high][wide].
struct Walk {
  int64_t image, row, column;
  int high, wide;

  Walk(int64_t pixel, int rows, int columns)
      : image(pixel / columns / rows),
        row(pixel / columns % rows),
        column(pixel % columns),
        high(rows),
        wide(columns) {}
  INLINE void next() {
    if (++column < wide) return;
    column = 0;
    if (++row < high) return;
    row = 0;
    image++;
  }
};

// Images that a tap reads a pixel of.
struct Source {
  const float* x;
  int h, w, channels;

  /// The channels at row y and column z of an image, or zeros.
  const float* at(int64_t image, int64_t y, int64_t z, const float* zeros) const {
    const bool inside = y >= 0 && y < h && z >= 0 && z < w;
    return inside ? x + ((image * h + y) * w + z) * channels : zeros;
  }
};

// What follows a convolution: see JtreluF32Convolutions.
struct Epilogue {
  float* y;
  const float* bias;
  const float* gate;
  float slope, scale;
  bool accumulate;

  /// So that its memory is there when it is needed.
  INLINE void fetch(int64_t at, int floats) const {
    for (int f = 0; f < floats; f += kFloats) {
      __builtin_prefetch(y + at + f, 1, 3);
      if (gate != nullptr) __builtin_prefetch(gate + at + f, 0, 3);
    }
  }

  enum Kind { kBias, kGate, kPlain };
  Kind kind() const { return bias != nullptr ? kBias : gate != nullptr ? kGate : kPlain; }

  /// The result r at y + at, of which `count` lanes are kept; `added` is its bias.
  template <Kind kind, bool whole> INLINE void finish(Vector r, Vector added, int64_t at, int64_t count) const {
    auto old = [&](const float* p) __attribute__((always_inline)) { return whole ? load(p) : loadSome(p, count); };
    const Vector positive = repeat(scale), negative = repeat(scale * slope);
    if constexpr (kind == kBias) {
      r += added;
      r *= r > 0 ? positive : negative;
    } else {
      if (accumulate) r += old(y + at);
      if constexpr (kind == kGate) r *= old(gate + at) > 0 ? positive : negative;
    }
    if constexpr (whole) {
      store(y + at, r);
    } else {
      std::memcpy(y + at, &r, count * sizeof(float));
    }
  }

  /// Finishes sums of some vectors of channels from n on, of which there are `channels`, of pixels that begin at `to`.
  template <Kind kind>
  void finish(const float* sums, const int64_t* to, int pixels, int vectors, int n, int channels) const {
    for (int v = 0; v < vectors; v++) {
      const int channel = n + v * LANES, count = channels - channel;
      const Vector added = kind == kBias ? loadSome(bias + channel, count) : Vector{};
      const float* from = sums + v * LANES;
      for (int m = 0; m < pixels; m++, from += vectors * LANES) {
        if (count >= LANES) {
          finish<kind, true>(load(from), added, to[m] + channel, LANES);
        } else {
          finish<kind, false>(load(from), added, to[m] + channel, count);
        }
      }
    }
  }

  void finish(const float* sums, const int64_t* to, int pixels, int vectors, int n, int channels) const {
    switch (kind()) {
      case kBias: return finish<kBias>(sums, to, pixels, vectors, n, channels);
      case kGate: return finish<kGate>(sums, to, pixels, vectors, n, channels);
      case kPlain: return finish<kPlain>(sums, to, pixels, vectors, n, channels);
    }
  }
};

// sums += values[m][i] * weights[i], vectors, for i from begin on: the loop of a register tile. `weights` are those of i and behind.
template <int MR, int NV>
INLINE const float* addProducts(const float* const (&values)[MR], int64_t begin, int64_t end, const float* weights,
                                Vector (&sums)[MR][NV]) {
  for (int64_t i = begin; i < end; i++, weights += NV * LANES) {
    Vector row[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) row[v] = load(weights + v * LANES);
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++) {
      const Vector value = repeat(values[m][i]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) sums[m][v] += value * row[v];
    }
  }
  return weights;
}

// Operands of product().
struct Factors {
  const float* const* pixels;
  int64_t k;  // first of their channels that is read
  const float* weights;  // [depth][NV vectors]
  int depth;
  const float* from;  // [MR][NV vectors], what sums begin with; null for zeros
  float* sums;  // likewise
  const float* more;  // what results add to their sums, which are then kept too; null for nothing
  const int64_t* to;  // where pixels' results begin, and those of the next pixels
  int n;  // first channel of results
  int next;  // pixels of the product after this one
};

// sums = from + pixels * weights, for MR pixels; or the results that follow from them: kind is that of the epilogue, or kSums.
constexpr int kSums = 3, kKinds = 4;
template <int kind, int MR, int NV>
void product(const Factors& f, const Epilogue& e, Upcoming& weights, Upcoming& pixels) {
  Vector sum[MR][NV];
  const float* pixel[MR];
  const float* b = f.weights;
  [[maybe_unused]] int fetched = 0;
#pragma GCC unroll 8
  for (int m = 0; m < MR; m++) {
    pixel[m] = f.pixels[m] + f.k;
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) sum[m][v] = Vector{};
  }
  for (int begin = 0; begin < f.depth; begin += kStep) {
    const int end = std::min(begin + kStep, f.depth);
    b = addProducts(pixel, begin, end, b, sum);
    weights.fetch();
    pixels.fetch();
    if constexpr (kind != kSums) {
      for (; fetched * f.depth < f.next * end; fetched++) e.fetch(f.to[MR + fetched] + f.n, NV * LANES);
    }
  }
  if (f.from != nullptr) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) sum[m][v] = load(f.from + (m * NV + v) * LANES) + sum[m][v];
  }
  if (kind != kSums && f.more != nullptr) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        store(f.sums + (m * NV + v) * LANES, sum[m][v]);
        sum[m][v] += load(f.more + (m * NV + v) * LANES);
      }
  }
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) {
    Vector bias{};
    if constexpr (kind == Epilogue::kBias) bias = load(e.bias + f.n + v * LANES);
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++) {
      if constexpr (kind == kSums) {
        store(f.sums + (m * NV + v) * LANES, sum[m][v]);
      } else {
        e.finish<Epilogue::Kind(kind), true>(sum[m][v], bias, f.to[m] + f.n + v * LANES, LANES);
      }
    }
  }
}

// product() for each kind, 1 to kVectors vectors and 1 to kPixels pixels.
using Product = void (*)(const Factors&, const Epilogue&, Upcoming&, Upcoming&);
template <int kind, int NV, int... M>
constexpr std::array<Product, kPixels> products(std::integer_sequence<int, M...>) {
  return {product<kind, M + 1, NV>...};
}
template <int kind, int... V>
constexpr std::array<std::array<Product, kPixels>, kVectors> products(std::integer_sequence<int, V...>) {
  return {products<kind, V + 1>(std::make_integer_sequence<int, kPixels>())...};
}
template <int... K> constexpr auto allProducts(std::integer_sequence<int, K...>) {
  return std::array{products<K>(std::make_integer_sequence<int, kVectors>())...};
}
constexpr auto kProducts = allProducts(std::make_integer_sequence<int, kKinds>());

// Pixels of a unit at most.
int64_t unitPixels(int64_t in, int64_t out) {
  return std::max<int64_t>(kUnitBytes / ((in + out) * sizeof(float)), 8 * kPixels);
}

// Working memory, handed out piece by piece.
struct Pieces {
  char* at;

  template <class T> void take(T*& piece, int64_t count) {
    piece = reinterpret_cast<T*>(at);
    at += roundUp(count * sizeof(T), kCacheLine);
  }
};

// Working memory of a pass that reads `in` channels a tap and writes `out`.
struct Workspace {
  float *zeros, *sums;
  const float** from;
  int64_t* to;
  int64_t bytes;

  Workspace(void* memory, int64_t in, int64_t out) {
    Pieces pieces{static_cast<char*>(memory)};
    const int64_t pixels = unitPixels(in, out);
    pieces.take(zeros, std::max(in, roundUp(out, LANES)));
    pieces.take(sums, pixels * roundUp(out, LANES));
    pieces.take(from, pixels);
    pieces.take(to, pixels);
    bytes = pieces.at - static_cast<char*>(memory);
  }
};

// y [images, outH, outW, out] of two classes. Weights are packed [tap][block of channels][panel][channel][vectors].
void convolve(int images, const Source& x, const Class& high, const Class& wide, int wideTaps, const float* packed,
              int outH, int outW, int out, const Epilogue& e, const Workspace& s) {
  const int64_t in = x.channels, padded = roundUp(out, LANES);
  const int64_t pixels = int64_t(images) * high.count * wide.count;
  const int64_t units = (pixels + unitPixels(in, out) - 1) / unitPixels(in, out);
  const int blocks = blocksOf(int(in)), steps = high.taps * wide.taps * blocks;
  const bool inOrder = high.readsInOrder() && wide.readsInOrder();
  std::fill_n(s.zeros, std::max(in, padded), 0.0f);
  for (int64_t unit = 0; unit < units; unit++) {
    const int64_t first = beginOf(unit, units, pixels), rows = beginOf(unit + 1, units, pixels) - first;
    const int64_t tiles = (rows + kPixels - 1) / kPixels;  // of even sizes
    const int64_t following = unit + 1 < units ? beginOf(unit + 2, units, pixels) - first - rows : 0;
    const int64_t depths = (in + kStep - 1) / kStep + blocks;
    Upcoming nextPixels(x.x + (first + rows) * in, inOrder ? following * in * sizeof(float) : 0,
                        tiles * depths * ((out + kPanel - 1) / kPanel));
    const Walk begin(first, high.count, wide.count);
    Walk at = begin;
    for (int64_t i = 0; i < rows; i++, at.next()) {
      const int64_t row = at.image * outH + high.begin + at.row * high.step;
      s.to[i] = (row * outW + wide.begin + at.column * wide.step) * out;
      if (steps == 0) e.finish(s.zeros, s.to + i, 1, int(padded / LANES), 0, out);
    }
    for (int step = 0; step < steps; step++) {
      const int block = step % blocks;
      const Class::Tap& r = high.tap[step / blocks / wide.taps];
      const Class::Tap& c = wide.tap[step / blocks % wide.taps];
      at = begin;
      for (int64_t i = 0; block == 0 && i < rows; i++, at.next()) {
        s.from[i] = x.at(at.image, at.row * high.factor + r.offset, at.column * wide.factor + c.offset, s.zeros);
      }
      const int64_t k = beginOf(block, blocks, in);
      const int depth = int(beginOf(block + 1, blocks, in) - k);
      const float* b = packed + ((int64_t(r.index) * wideTaps + c.index) * in + k) * padded;
      for (int n = 0; n < out; n += kPanel) {
        const int vectors = std::min<int>(kVectors, int(padded - n) / LANES);
        const float* next = b + int64_t(depth) * vectors * LANES;
        Upcoming nextWeights(next, int64_t(depth) * vectors * LANES * sizeof(float),
                             tiles * ((depth + kStep - 1) / kStep));
        const bool last = step == steps - 1, whole = out - n >= vectors * LANES;
        const auto& of = kProducts[last && whole ? e.kind() : kSums][vectors - 1];
        int64_t m = 0;
        for (int64_t tile = 0; tile < tiles; tile++) {
          const int count = int(rows / tiles + (tile < rows % tiles));
          alignas(64) float own[kPixels * kPanel];
          float* sums = steps == 1 ? own : s.sums + n * rows + m * vectors * LANES;
          const int nextCount = int(std::min<int64_t>(count, rows - m - count));
          of[count - 1]({s.from + m, k, b, depth, step > 0 ? sums : nullptr, sums, nullptr, s.to + m, n, nextCount}, e,
                        nextWeights, nextPixels);
          if (last && !whole) e.finish(sums, s.to + m, count, vectors, n, out);
          m += count;
        }
        b = next;
      }
    }
  }
}

void forward(const JtreluConvolutionSizes* sizes, const float* x, const float* packed, const float* bias, float slope,
             float scale, float* y, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  const Workspace workspace(memory, s.ic, s.oc);
  convolve(s.n, {x, s.h, s.w, s.ic}, forwardClass(s.oh, s.kh, s.strideH, s.top),
           forwardClass(s.ow, s.kw, s.strideW, s.left), s.kw, packed, s.oh, s.ow, s.oc,
           {y, bias, nullptr, slope, scale, false}, workspace);
}

void backwardData(const JtreluConvolutionSizes* sizes, const float* e, const float* packed, const float* gate,
                  float slope, float scale, int32_t accumulate, float* y, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  const Source source{e, s.oh, s.ow, s.oc};
  const Workspace workspace(memory, s.oc, s.ic);
  for (int r = 0; r < std::min(s.strideH, s.h); r++) {
    for (int c = 0; c < std::min(s.strideW, s.w); c++) {
      convolve(s.n, source, backwardClass(s.h, s.kh, s.strideH, s.top, r),
               backwardClass(s.w, s.kw, s.strideW, s.left, c), s.kw, packed, s.h, s.w, s.ic,
               {y, nullptr, gate, slope, scale, accumulate != 0}, workspace);
    }
  }
}

// How gradients are written. What is not added to goes past the caches where it can: the gradients of a network push each other out
// before they are read.
enum Put { kAdd, kStore, kStream, kPuts };

// Operands of outerProducts().
struct OuterFactors {
  const float* e;  // [pixel][LANES], of which the first MR channels count
  const float* x;  // [pixel][NV vectors]
  int pixels;
  float* to;  // [MR][NV vectors], rows `below` apart
  int64_t below;
  const float* from = nullptr;  // [MR][NV vectors], what sums begin with; null for zeros
  float* kept = nullptr;  // likewise, where sums are kept; null for nowhere
  const float* more = nullptr;  // likewise, what results then add; null for nothing
};

// to = from + sum over pixels of e times x + more.
template <int put, int MR, int NV> void outerProducts(const OuterFactors& f) {
  const float *e = f.e, *x = f.x;
  float* to = f.to;
  const int64_t below = f.below;
  Vector sum[MR][NV];
#pragma GCC unroll 8
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      sum[m][v] = Vector{};
      if constexpr (put == kAdd) __builtin_prefetch(to + m * below + v * LANES, 1, 3);
    }
  for (int p = 0; p < f.pixels; p++) {
    Vector source[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) source[v] = load(x + v * LANES);
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++) {
      const Vector value = repeat(e[m]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) sum[m][v] += value * source[v];
    }
    x += NV * LANES;
    e += LANES;
  }
  auto each = [&](auto action) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) action(sum[m][v], (m * NV + v) * LANES);
  };
  if (f.from != nullptr) each([&](Vector& own, int at) { own = load(f.from + at) + own; });
  if (f.kept != nullptr) each([&](Vector& own, int at) { store(f.kept + at, own); });
  if (f.more != nullptr) each([&](Vector& own, int at) { own += load(f.more + at); });
#pragma GCC unroll 8
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      float* at = to + m * below + v * LANES;
      if constexpr (put == kStream) {
        stream(at, sum[m][v]);
      } else {
        store(at, put == kAdd ? load(at) + sum[m][v] : sum[m][v]);
      }
    }
}

// outerProducts() for each way to write and 1 to kVectors vectors.
using OuterProducts = void (*)(const OuterFactors&);
template <int put, int... V> constexpr std::array<OuterProducts, kVectors> outers(std::integer_sequence<int, V...>) {
  return {outerProducts<put, kErrors, V + 1>...};
}
constexpr auto kOuterProducts = std::array{outers<kAdd>(std::make_integer_sequence<int, kVectors>()),
                                           outers<kStore>(std::make_integer_sequence<int, kVectors>()),
                                           outers<kStream>(std::make_integer_sequence<int, kVectors>())};

// Blocks of e [channels / LANES][pixel][LANES] and x [pixel][panel], and sums of e.
struct GradientWorkspace {
  float *errors, *sources, *zeros;
  double* sums;
  int64_t bytes;

  GradientWorkspace(void* memory, int64_t in, int64_t out) {
    const int64_t e = roundUp(out, LANES), taken = roundUp(in, kFloats);
    errors = static_cast<float*>(memory);
    sources = errors + e * kErrorPixels;
    zeros = sources + int64_t(kPanel) * kErrorPixels;
    sums = reinterpret_cast<double*>(zeros + taken);
    bytes = reinterpret_cast<char*>(sums + e) - static_cast<char*>(memory);
  }
};

void gradients(const JtreluConvolutionSizes* sizes, const float* x, const float* e, float* diffWeights, float* diffBias,
               int32_t accumulate, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  const Source source{x, s.h, s.w, s.ic};
  const int taps = s.kh * s.kw, in = s.ic;
  const int64_t below = int64_t(taps) * in;
  const GradientWorkspace w(memory, in, s.oc);
  std::fill_n(w.zeros, in, 0.0f);
  std::fill_n(w.sums, roundUp(s.oc, LANES), 0.0);
  const int64_t pixels = int64_t(s.n) * s.oh * s.ow;
  const int64_t blocks = (pixels + kErrorPixels - 1) / kErrorPixels;
  const bool past = blocks == 1 && sizeof(Vector) == kCacheLine && in % LANES == 0 &&
                    reinterpret_cast<uintptr_t>(diffWeights) % kCacheLine == 0;
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = beginOf(block, blocks, pixels);
    const int count = int(beginOf(block + 1, blocks, pixels) - first);
    const bool add = accumulate || block > 0;
    for (int m = 0; m < s.oc; m += kPanel) {  // some vectors side by side, so that whole lines are read in a row
      Vector sums[kVectors] = {};
      for (int p = 0; p < count; p++) {
        const float* from = e + (first + p) * s.oc;
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) {
          const int channel = m + v * LANES;
          if (channel >= s.oc) break;
          const Vector value = loadSome(from + channel, s.oc - channel);
          store(w.errors + int64_t(channel) * count + p * LANES, value);
          sums[v] += value;
        }
      }
      for (int v = 0; v < kVectors && m + v * LANES < s.oc; v++) {
        for (int lane = 0; lane < LANES; lane++) w.sums[m + v * LANES + lane] += sums[v][lane];
      }
    }
    const int64_t after = block + 1 < blocks ? beginOf(block + 2, blocks, pixels) - first - count : 0;
    const int64_t tiles = (s.oc + kErrors - 1) / kErrors, products = taps * ((in + kPanel - 1) / kPanel) * tiles;
    const bool inOrder = taps == 1 && s.strideH == 1 && s.strideW == 1;  // pixels of x
    Upcoming sources(x + (first + count) * in, inOrder ? after * in * sizeof(float) : 0, products);
    Upcoming nextErrors(e + (first + count) * s.oc, after * s.oc * sizeof(float), tiles);
    for (int tap = 0; tap < taps; tap++) {
      const int r = tap / s.kw - s.top, c = tap % s.kw - s.left;
      for (int64_t n = 0; n < in; n += kPanel) {
        const int vectors = int(std::min<int64_t>(kPanel, roundUp(in - n, LANES)) / LANES);
        Walk at(first, s.oh, s.ow);
        for (int p = 0; p < count; p++, at.next()) {
          const float* from = n + source.at(at.image, at.row * s.strideH + r, at.column * s.strideW + c, w.zeros);
          float* to = w.sources + p * vectors * LANES;
          for (int v = 0; v < vectors; v++) store(to + v * LANES, loadSome(from + v * LANES, in - n - v * LANES));
        }
        for (int m = 0; m < s.oc; m += kErrors) {
          const int rows = std::min(kErrors, s.oc - m);
          float* to = diffWeights + m * below + tap * in + n;
          sources.fetch();
          if (tap == taps - 1 && in - n <= kPanel) nextErrors.fetch();
          const float* errors = w.errors + int64_t(m / LANES) * LANES * count + m % LANES;
          if (rows == kErrors && in - n >= vectors * LANES) {
            kOuterProducts[add ? kAdd : past ? kStream : kStore][vectors - 1]({errors, w.sources, count, to, below});
            continue;
          }
          alignas(64) float sums[kErrors * kPanel];
          const int64_t width = vectors * LANES;
          kOuterProducts[kStore][vectors - 1]({errors, w.sources, count, sums, width});
          for (int i = 0; i < rows; i++) {
            for (int64_t k = 0; k < std::min(width, in - n); k++) {
              to[i * below + k] = (add ? to[i * below + k] : 0) + sums[i * width + k];
            }
          }
        }
      }
    }
  }
  endStream();
  if (blocks == 0 && !accumulate) std::fill_n(diffWeights, s.oc * below, 0.0f);
  for (int m = 0; m < s.oc; m++) diffBias[m] = float((accumulate ? diffBias[m] : 0) + w.sums[m]);
}

// Packs a matrix for each tap as convolve() reads it: element (k, n) lies at weights + tap * tapStep + k * kStep + n * nStep, of
// which one step is 1.
void packMatrices(const float* weights, int taps, int64_t tapStep, int in, int64_t kStep, int out, int64_t nStep,
                  float* to) {
  const int blocks = blocksOf(in);
  for (int tap = 0; tap < taps; tap++) {
    for (int block = 0; block < blocks; block++) {
      const int begin = int(beginOf(block, blocks, in)), end = int(beginOf(block + 1, blocks, in));
      for (int panel = 0; panel < out; panel += kPanel) {
        const int width = int(std::min<int64_t>(kPanel, roundUp(out - panel, LANES)));
        for (int n = panel; n < panel + width; n += LANES) {
          float* column = to + n - panel;
          const float* from = weights + tap * tapStep + n * nStep;
          const int count = std::min(LANES, out - n);
          int k = begin;
          if (nStep != 1) {
            for (; k + LANES <= end && count == LANES; k += LANES) {
              alignas(64) float square[LANES][LANES];
              for (int i = 0; i < LANES; i++) {
                __builtin_prefetch(from + i * nStep + k + 2 * LANES);
                store(square[i], load(from + i * nStep + k));
              }
              transpose(square);
              for (int i = 0; i < LANES; i++) stream(column + (k - begin + i) * width, load(square[i]));
            }
          }
          for (; k < end; k++) {
            Vector v{};
            if (nStep == 1) {
              v = loadSome(from + k * kStep, count);
            } else {
              for (int i = 0; i < count; i++) v[i] = from[i * nStep + k];
            }
            stream(column + (k - begin) * width, v);
          }
        }
        to += int64_t(end - begin) * width;
      }
    }
  }
  endStream();
}

void pack(const JtreluConvolutionSizes* sizes, const float* weights, float* forward, float* backward) {
  const JtreluConvolutionSizes& s = *sizes;
  const int taps = s.kh * s.kw;
  packMatrices(weights, taps, s.ic, s.ic, 1, s.oc, int64_t(taps) * s.ic, forward);
  packMatrices(weights, taps, s.ic, s.oc, int64_t(taps) * s.ic, s.ic, 1, backward);
}

int64_t packedBytes(const JtreluConvolutionSizes* s, int32_t backward) {
  const int64_t matrix = backward ? s->oc * roundUp(s->ic, LANES) : s->ic * roundUp(s->oc, LANES);
  return s->kh * s->kw * matrix * int64_t(sizeof(float));
}

int64_t workspaceBytes(const JtreluConvolutionSizes* s) {
  return std::max({Workspace(nullptr, s->ic, s->oc).bytes, Workspace(nullptr, s->oc, s->ic).bytes,
                   GradientWorkspace(nullptr, s->ic, s->oc).bytes});
}

constexpr JtreluF32Convolutions kConvolutions = {packedBytes, workspaceBytes, pack, forward, backwardData, gradients};

}  // namespace direct
}  // namespace
