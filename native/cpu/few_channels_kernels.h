// Convolutions that read fewer than 16 channels, such as those of images, by the definition. Channels of results come in multiples
// of 16.
//
// The kernels of direct_kernels.h would multiply as few channels at a time. Here all taps of a window are one sum: the source rows
// that a row of results reads are copied side by side into a strip [column][row of the kernel][channel], padding included, in which
// the kh * kw * ic values of a window lie in a row, and those of the next window begin strideW * kh * ic values later. With windows
// w[p]
//
//   forward      y[p] = sum over values of W[value] w[p][value]
//   gradients    diff W[value] = sum over p of w[p][value] e[p]
//
// are products of single values and vectors of channels. A copy takes kh * strideW moves for a pixel, products kh * kw * ic * oc /
// LANES. Gradients add up some rows of pixels in registers before sums are loaded and stored.
//
//   backward data    a row of diff_src = sum over p of (sum over rows r of the kernel that reach it of W[r] e[p]), at p * strideW * ic
//
// has the kw * ic values of a row of the kernel for vectors, and adds up windows where they overlap. The order of sums depends on the
// sizes alone.
#pragma once
#include "cpu_kernels.h"
#include "direct_kernels.h"
#include "vectors.h"

#include <algorithm>
#include <array>
#include <utility>

namespace {
namespace few {

using direct::beginOf, direct::kFloats, direct::kPixels, direct::kVectors, direct::roundUp;

constexpr int kMostChannels = 15;
// Register tiles of gradients: values by vectors of channels.
constexpr int kValues = LANES == 16 ? 14 : 6, kErrors = 2;
// Strips and e that are added up at once, of a second-level cache of 1 MiB, and pixels after which some of the next e is fetched.
constexpr int64_t kBlockBytes = 192 * 1024;
constexpr int kStep = 16;

constexpr int tilesOf(int64_t n, int64_t tile) { return int((n + tile - 1) / tile); }

// to [column][row][C] = rows [row][column][C]; the number of rows is R, or `count` where that is 0.
template <int C, int R> void interleave(const float* const* rows, int count, int64_t columns, float* to) {
  constexpr int kMoved = C == 3 ? 4 : C;  // what one move too much overwrites comes next; but for the last column
  const float* from[kJtreluMostTaps];
  const int n = R > 0 ? R : count;
#pragma GCC unroll 8
  for (int r = 0; r < n; r++) from[r] = rows[r];
  int64_t at = 0;
  for (; at < (columns - (kMoved > C)) * C; at += C) {
#pragma GCC unroll 8
    for (int r = 0; r < n; r++, to += C) std::memcpy(to, from[r] + at, kMoved * sizeof *to);
  }
  for (; at < columns * C; at += C) {
    for (int r = 0; r < n; r++, to += C) std::memcpy(to, from[r] + at, C * sizeof *to);
  }
}

using Interleave = void (*)(const float* const*, int, int64_t, float*);
template <int R, int... C>
constexpr std::array<Interleave, kMostChannels> interleaves(std::integer_sequence<int, C...>) {
  return {interleave<C + 1, R>...};
}
template <int R> constexpr auto kInterleaves = interleaves<R>(std::make_integer_sequence<int, kMostChannels>());
constexpr Interleave interleaveOf(int channels, int rows) {
  switch (rows) {
    case 3: return kInterleaves<3>[channels - 1];
    case 5: return kInterleaves<5>[channels - 1];
    case 7: return kInterleaves<7>[channels - 1];
    default: return kInterleaves<0>[channels - 1];
  }
}

// Strips of a convolution. All but `columns` and `rows` in floats.
struct Strips {
  const JtreluConvolutionSizes& s;
  int values;  // of a window
  int64_t column, step, columns, size;  // step: from a window to the next
  int64_t rows;  // of results, in all images

  explicit Strips(const JtreluConvolutionSizes& sizes)
      : s(sizes),
        values(s.kh * s.kw * s.ic),
        column(s.kh * s.ic),
        step(s.strideW * column),
        columns(int64_t(s.ow - 1) * s.strideW + s.kw),
        size(roundUp(columns * column, kFloats)),
        rows(int64_t(s.n) * s.oh) {}

  /// Zeros of a row outside of the source.
  int64_t zeros() const { return roundUp(int64_t(s.w) * s.ic, kFloats); }

  /// The strip of a row of results.
  void copy(const float* x, int64_t row, const float* zeros, float* to) const {
    const int64_t image = row / s.oh, first = row % s.oh * s.strideH - s.top;
    const float* from[kJtreluMostTaps];
    for (int r = 0; r < s.kh; r++) {
      const int64_t y = first + r;
      from[r] = y >= 0 && y < s.h ? x + (image * s.h + y) * s.w * s.ic : zeros;
    }
    const int64_t begin = std::min<int64_t>(s.left, columns), end = std::min<int64_t>(s.left + s.w, columns);
    std::fill_n(to, begin * column, 0.0f);
    interleaveOf(s.ic, s.kh)(from, s.kh, end - begin, to + begin * column);
    std::fill(to + end * column, to + columns * column, 0.0f);
  }
};

// Operands of results().
struct Windows {
  const float* first;
  int64_t step;
  const float* weights;  // [depth][NV vectors]
  int depth;
  const float* bias;
  float slope, scale;
  float* y;  // rows of `channels`
  int64_t channels;
};

// y = phi(weights * windows + bias) of MR windows.
template <int MR, int NV> void results(const Windows& f) {
  Vector sum[MR][NV];
  const float* value[MR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; m++) {
    value[m] = f.first + m * f.step;
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      sum[m][v] = load(f.bias + v * LANES);
      __builtin_prefetch(f.y + (m + MR) * f.channels + v * LANES, 1, 3);  // of the next ones
    }
  }
  direct::addProducts(value, 0, f.depth, f.weights, sum);
  const Vector positive = repeat(f.scale), negative = repeat(f.scale * f.slope);
#pragma GCC unroll 8
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      const Vector r = sum[m][v];
      store(f.y + m * f.channels + v * LANES, r * (r > 0 ? positive : negative));
    }
}

// results() for 1 to kVectors vectors and 1 to kPixels windows.
using Results = void (*)(const Windows&);
template <int NV, int... M> constexpr std::array<Results, kPixels> resultsOf(std::integer_sequence<int, M...>) {
  return {results<M + 1, NV>...};
}
template <int... V> constexpr auto allResults(std::integer_sequence<int, V...>) {
  return std::array{resultsOf<V + 1>(std::make_integer_sequence<int, kPixels>())...};
}
constexpr auto kResults = allResults(std::make_integer_sequence<int, kVectors>());

void forward(const JtreluConvolutionSizes* sizes, const float* x, const float* packed, const float* bias, float slope,
             float scale, float* y, void* memory) {
  const Strips strips(*sizes);
  const int64_t width = sizes->ow, channels = sizes->oc;
  float* zeros = static_cast<float*>(memory);
  float* strip = zeros + strips.zeros();
  std::fill_n(zeros, strips.zeros(), 0.0f);
  const int tiles = tilesOf(width, kPixels);
  for (int64_t row = 0; row < strips.rows; row++) {
    strips.copy(x, row, zeros, strip);
    const float* weights = packed;
    for (int64_t n = 0; n < channels; n += kVectors * LANES) {
      const int vectors = int(std::min<int64_t>(kVectors, (channels - n) / LANES));
      for (int tile = 0; tile < tiles; tile++) {
        const int64_t m = beginOf(tile, tiles, width), end = beginOf(tile + 1, tiles, width);
        kResults[vectors - 1][end - m - 1]({strip + m * strips.step, strips.step, weights, strips.values, bias + n,
                                            slope, scale, y + (row * width + m) * channels + n, channels});
      }
      weights += int64_t(strips.values) * vectors * LANES;
    }
  }
}

// Operands of spread().
struct Errors {
  const float* const* rows;  // of e, one for each row of the kernel that reaches the source row
  const float* const* weights;  // [oc][NV vectors] of it
  int count;
  int64_t channels;
  float* to;  // of the first window
  int64_t step;
  int last;  // lanes of the last vector that belong to a window
};

// Windows of MR pixels, NV vectors of each, += the sum over rows of weights * e.
template <int MR, int NV> void spread(const Errors& f, int64_t first) {
  Vector sum[MR][NV];
#pragma GCC unroll 8
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) sum[m][v] = Vector{};
  for (int r = 0; r < f.count; r++) {
    const float* error[MR];
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++) error[m] = f.rows[r] + (first + m) * f.channels;
    direct::addProducts(error, 0, f.channels, f.weights[r], sum);
  }
  Words lanes;
  for (int i = 0; i < LANES; i++) lanes[i] = i;
  const auto own = lanes < uint32_t(f.last);
#pragma GCC unroll 8
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      float* at = f.to + (first + m) * f.step + v * LANES;
      store(at, load(at) + (v < NV - 1 ? sum[m][v] : own ? sum[m][v] : Vector{}));
    }
}

// spread() for 1 to kVectors vectors and 1 to kPixels pixels.
using Spread = void (*)(const Errors&, int64_t);
template <int NV, int... M> constexpr std::array<Spread, kPixels> spreadsOf(std::integer_sequence<int, M...>) {
  return {spread<M + 1, NV>...};
}
template <int... V> constexpr auto allSpreads(std::integer_sequence<int, V...>) {
  return std::array{spreadsOf<V + 1>(std::make_integer_sequence<int, kPixels>())...};
}
constexpr auto kSpreads = allSpreads(std::make_integer_sequence<int, kVectors>());

// A row of diff_src is the sum of windows that overlap, of kw * ic values for each pixel of the rows of e that reach it.
int64_t paddedRow(const JtreluConvolutionSizes& s) {
  const int64_t columns = std::max<int64_t>(int64_t(s.ow - 1) * s.strideW + s.kw, s.left + s.w);
  return roundUp(columns * s.ic + LANES, kFloats);
}

void backwardData(const JtreluConvolutionSizes* sizes, const float* e, const float* packed, const float* gate,
                  float slope, float scale, int32_t accumulate, float* y, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  const int window = s.kw * s.ic, vectors = tilesOf(window, LANES), tiles = tilesOf(s.ow, kPixels);
  const int64_t padded = paddedRow(s), width = int64_t(s.w) * s.ic, taps = int64_t(s.oc) * vectors * LANES;
  float* sums = static_cast<float*>(memory);
  const direct::Epilogue epilogue{y, nullptr, gate, slope, scale, accumulate != 0};
  for (int64_t row = 0; row < int64_t(s.n) * s.h; row++) {
    std::fill_n(sums, padded, 0.0f);
    for (int n = 0; n < vectors; n += kVectors) {
      const int panel = std::min(kVectors, vectors - n);
      const float *rows[kJtreluMostTaps], *weights[kJtreluMostTaps];
      int count = 0;
      for (int r = 0; r < s.kh; r++) {
        const int64_t at = row % s.h + s.top - r, from = at / s.strideH;
        if (at < 0 || at % s.strideH != 0 || from >= s.oh) continue;
        rows[count] = e + (row / s.h * s.oh + from) * s.ow * s.oc;
        weights[count++] = packed + r * taps + int64_t(n) * LANES * s.oc;
      }
      const int last = n + panel == vectors ? window - (vectors - 1) * LANES : LANES;
      const Errors f{rows, weights, count, s.oc, sums + n * LANES, int64_t(s.strideW) * s.ic, last};
      for (int tile = 0; tile < tiles; tile++) {
        const int64_t m = beginOf(tile, tiles, s.ow), end = beginOf(tile + 1, tiles, s.ow);
        kSpreads[panel - 1][end - m - 1](f, m);
      }
    }
    const int64_t to = row * width;
    epilogue.finish(sums + int64_t(s.left) * s.ic, &to, 1, tilesOf(width, LANES), 0, int(width));
  }
}

// Operands of outerProducts().
struct Block {
  const float* windows;  // of the first row
  int64_t step, size;  // from a window to the next, from a row to the next
  const float* e;  // of the first row
  int64_t channels;
  int width, rows;
  float* sums;  // rows of `channels`
};

// sums [MR][NV vectors] += sum over a block's pixels of MR values of its window times e [NV vectors].
template <int MR, int NV> void outerProducts(const Block& f, Upcoming& next) {
  Vector sum[MR][NV];
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) sum[m][v] = Vector{};
  const float* error = f.e;
  for (int row = 0; row < f.rows; row++) {
    const float* value = f.windows + row * f.size;
    for (int begin = 0; begin < f.width; begin += kStep) {
      for (int p = begin; p < std::min(begin + kStep, f.width); p++) {
        Vector errors[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) errors[v] = load(error + v * LANES);
#pragma GCC unroll 16
        for (int m = 0; m < MR; m++) {
          const Vector repeated = repeat(value[m]);
#pragma GCC unroll 4
          for (int v = 0; v < NV; v++) sum[m][v] += repeated * errors[v];
        }
        value += f.step;
        error += f.channels;
      }
      next.fetch();
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      float* at = f.sums + m * f.channels + v * LANES;
      store(at, load(at) + sum[m][v]);
    }
}

// outerProducts() for 1 to kErrors vectors and 1 to kValues values.
using OuterProducts = void (*)(const Block&, Upcoming&);
template <int NV, int... M> constexpr std::array<OuterProducts, kValues> outers(std::integer_sequence<int, M...>) {
  return {outerProducts<M + 1, NV>...};
}
template <int... V> constexpr auto allOuters(std::integer_sequence<int, V...>) {
  return std::array{outers<V + 1>(std::make_integer_sequence<int, kValues>())...};
}
constexpr auto kOuterProducts = allOuters(std::make_integer_sequence<int, kErrors>());

// Working memory of a pass: forward has one strip.
struct Workspace {
  float *zeros, *strips, *sums;  // sums [value][oc]
  double* biasSums;
  int64_t rows, bytes;  // rows of a block at most

  Workspace(void* memory, const Strips& of) {
    const int64_t errors = int64_t(of.s.ow) * of.s.oc;
    rows = std::max<int64_t>(1, kBlockBytes / ((of.size + errors) * sizeof(float)));
    zeros = static_cast<float*>(memory);
    strips = zeros + of.zeros();
    sums = strips + rows * of.size;
    biasSums = reinterpret_cast<double*>(sums + int64_t(of.values) * of.s.oc);
    bytes = reinterpret_cast<char*>(biasSums + of.s.oc) - static_cast<char*>(memory);
  }
};

// sums += those of e over some pixels.
void addErrors(const float* e, int64_t pixels, int channels, double* sums) {
  for (int n = 0; n < channels; n += kVectors * LANES) {
    const int vectors = std::min(kVectors, (channels - n) / LANES);
    Vector sum[kVectors] = {};
    for (int64_t p = 0; p < pixels; p++) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        if (v < vectors) sum[v] += load(e + p * channels + n + v * LANES);
      }
    }
    for (int v = 0; v < vectors; v++) {
      for (int lane = 0; lane < LANES; lane++) sums[n + v * LANES + lane] += sum[v][lane];
    }
  }
}

void gradients(const JtreluConvolutionSizes* sizes, const float* x, const float* e, float* diffWeights, float* diffBias,
               int32_t accumulate, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  const Strips strips(s);
  const Workspace w(memory, strips);
  const int64_t channels = s.oc, row = s.ow * channels;
  std::fill_n(w.zeros, strips.zeros(), 0.0f);
  std::fill_n(w.sums, strips.values * channels, 0.0f);
  std::fill_n(w.biasSums, channels, 0.0);
  const int64_t blocks = (strips.rows + w.rows - 1) / w.rows;
  const int tiles = tilesOf(strips.values, kValues), panels = tilesOf(channels, kErrors * LANES);
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = beginOf(block, blocks, strips.rows), end = beginOf(block + 1, blocks, strips.rows);
    const int64_t after = block + 1 < blocks ? beginOf(block + 2, blocks, strips.rows) - end : 0;
    const int count = int(end - first);
    const int64_t steps = int64_t(panels) * tiles * count * tilesOf(s.ow, kStep);
    Upcoming following(e + end * row, after * row * sizeof(float), steps);
    for (int i = 0; i < count; i++) strips.copy(x, first + i, w.zeros, w.strips + i * strips.size);
    addErrors(e + first * row, count * s.ow, s.oc, w.biasSums);
    for (int64_t n = 0; n < channels; n += kErrors * LANES) {
      const int vectors = int(std::min<int64_t>(kErrors, (channels - n) / LANES));
      for (int tile = 0; tile < tiles; tile++) {
        const int64_t m = beginOf(tile, tiles, strips.values), next = beginOf(tile + 1, tiles, strips.values);
        kOuterProducts[vectors - 1][next - m - 1]({w.strips + m, strips.step, strips.size, e + first * row + n,
                                                   channels, s.ow, count, w.sums + m * channels + n},
                                                  following);
      }
    }
  }
  for (int64_t k = 0; k < channels; k++) {
    for (int r = 0; r < s.kh; r++) {
      for (int c = 0; c < s.kw; c++) {
        for (int i = 0; i < s.ic; i++, diffWeights++) {
          const float sum = w.sums[((c * s.kh + r) * s.ic + i) * channels + k];
          *diffWeights = accumulate ? *diffWeights + sum : sum;
        }
      }
    }
  }
  for (int64_t k = 0; k < channels; k++) diffBias[k] = float((accumulate ? diffBias[k] : 0) + w.biasSums[k]);
}

// Weights for the forward pass: [panel][value][channels], and for backward data [row of the kernel][panel][oc][values of the row].
void pack(const JtreluConvolutionSizes* sizes, const float* weights, float* forward, float* backward) {
  const JtreluConvolutionSizes& s = *sizes;
  const int window = s.kw * s.ic;
  for (int r = 0; r < s.kh; r++) {
    for (int n = 0; n < window; n += kVectors * LANES) {
      const int64_t panel = std::min<int64_t>(kVectors * LANES, roundUp(window - n, LANES));
      for (int k = 0; k < s.oc; k++) {
        const float* from = weights + (int64_t(k) * s.kh + r) * window + n;
        for (int i = 0; i < panel; i++) *backward++ = n + i < window ? from[i] : 0;
      }
    }
  }
  for (int n = 0; n < s.oc; n += kVectors * LANES) {
    const int end = std::min(n + kVectors * LANES, s.oc);
    for (int c = 0; c < s.kw; c++) {
      for (int r = 0; r < s.kh; r++) {
        for (int i = 0; i < s.ic; i++) {
          for (int k = n; k < end; k++) *forward++ = weights[((int64_t(k) * s.kh + r) * s.kw + c) * s.ic + i];
        }
      }
    }
  }
}

int64_t packedBytes(const JtreluConvolutionSizes* s, int32_t backward) {
  const int64_t window = int64_t(s->kw) * s->ic;
  return s->kh * (backward ? roundUp(window, LANES) : window) * s->oc * int64_t(sizeof(float));
}

int64_t workspaceBytes(const JtreluConvolutionSizes* s) {
  return std::max(Workspace(nullptr, Strips(*s)).bytes, paddedRow(*s) * int64_t(sizeof(float)));
}

constexpr JtreluF32Convolutions kConvolutions = {packedBytes, workspaceBytes, pack, forward, backwardData, gradients};

}  // namespace few
}  // namespace
