// 1x1 convolutions of stride 1 with fewer products: one level of Strassen's method (Numerische Mathematik 13, 1969) in Winograd's
// form (Linear Algebra and its Applications 4, 1971), seven products of half the size in each direction instead of eight. y = x w is
// cut into blocks: pixels into the even and the odd ones of an image, channels read and written into halves.
//
//     [y11 y12]   [x11 x12] [w11 w12]     s1 = x21 + x22    t1 = w12 - w11      y11 = x11 w11 + x12 w21
//     [y21 y22] = [x21 x22] [w21 w22]     s2 = s1 - x11     t2 = w22 - t1       u2  = x11 w11 + s2 t2
//                                         s3 = x11 - x21    t3 = w22 - w12      y12 = u2 + s1 t1 + s4 w22
//                                         s4 = x12 - s2     t4 = t2 - w21       u3  = u2 + s3 t3
//                                                                               y21 = u3 - x22 t4
//                                                                               y22 = u3 + s1 t1
//
// So a pixel's rounding errors come from its neighbour's values too (io.jtrelu.backend.Conv2d has the bound), and not from others;
// whole numbers stay whole. Where an image's last pixel has no neighbour, it is paired with zeros.
//
// The seven t and w are made when weights are packed, 7/4 of their bytes; the four s for a unit of pixels, which stays in the second
// level of the cache. Products begin with the sums that they are added to. In gradients of weights, dw = e^T x, the rows are channels of e
// in halves, which meet pixels of e and x, the even and the odd ones of all images; both sides are mixed as they are brought into rows.
// Numbers of channels are multiples of 2 LANES and of 32. The order of sums depends on the sizes alone.
#pragma once
#include "direct_kernels.h"

namespace {
namespace strassen {

using direct::beginOf;
using direct::blocksOf;
using direct::Epilogue;
using direct::kPanel;
using direct::kPixels;
using direct::kVectors;

constexpr int64_t kUnitBytes = 416 * 1024;  // of x and s, of a second-level cache of 1 MiB

// Gradients: of half of the channels of e so many at a time, over pairs of pixels.
constexpr int kGradientRows = 128, kGradientPairs = 128;

// Products in their order: the rows of pixels, and from which half of their channels; what sums begin with, where they are kept, and
// what the result then adds; which channels and pixels of y are the result. A panel of weights is there for each, in this order.
enum Rows { kEven, kOdd, kS2, kS1, kS4, kS3, kAllRows };
enum Sum { kU, kV, kOwn, kAllSums, kNone };
constexpr int kProducts = 7, kMixed = 4;
struct Step {
  Rows rows;
  int rowsHalf;
  Sum from, to, more;
  bool result, odd;
  int half;
};
constexpr Step kSteps[kProducts] = {
    {kEven, 0, kNone, kU, kNone, false, false, 0},  // U = x11 w11
    {kEven, 1, kU, kOwn, kNone, true, false, 0},  // y11 = U + x12 w21
    {kS2, 0, kU, kU, kNone, false, false, 0},  // U = u2 = U + s2 t2
    {kS1, 0, kNone, kV, kNone, false, false, 0},  // V = s1 t1
    {kS4, 0, kU, kOwn, kV, true, false, 1},  // y12 = U + s4 w22 + V
    {kS3, 0, kU, kU, kV, true, true, 1},  // U = u3 = U + s3 t3, y22 = U + V
    {kOdd, 1, kU, kU, kNone, true, true, 0},  // y21 = U - x22 t4
};

// Operands of the products, in their order.
struct Operands {
  Vector of[kProducts];
};
INLINE Operands left(Vector x11, Vector x12, Vector x21, Vector x22) {
  const Vector s1 = x21 + x22, s2 = s1 - x11;
  return {{x11, x12, s2, s1, x12 - s2, x11 - x21, x22}};
}
INLINE Operands right(Vector w11, Vector w12, Vector w21, Vector w22) {
  const Vector t1 = w12 - w11, t2 = w22 - t1;
  return {{w11, w21, t2, t1, w22, w22 - w12, w21 - t2}};
}

// Pairs of pixels of a unit at most.
int64_t unitPairs(int64_t in) { return std::max<int64_t>(kUnitBytes / (4 * in * sizeof(float)), 8 * kPixels); }

// Working memory of a pass that reads `in` channels.
struct Workspace {
  int64_t row;  // floats of a row of s: rows that lie a multiple of 4096 bytes apart would share a set of the cache
  float *zeros, *mixed, *sums[kAllSums];
  const float** rows[kAllRows];
  int64_t* to[2];
  int64_t bytes;

  Workspace(void* memory, int64_t in) : row(in / 2 + direct::kFloats) {
    direct::Pieces pieces{static_cast<char*>(memory)};
    const int64_t pairs = unitPairs(in);
    pieces.take(zeros, in);
    pieces.take(mixed, kMixed * pairs * row);
    for (auto& each : sums) pieces.take(each, pairs * kPanel);
    for (auto& each : rows) pieces.take(each, pairs);
    for (auto& each : to) pieces.take(each, pairs);
    bytes = pieces.at - static_cast<char*>(memory);
  }
};

// y [images, pixels, out] of x [images, pixels, in].
void convolve(int images, int64_t pixels, const float* x, int in, const float* packed, int out, const Epilogue& e,
              const Workspace& s) {
  const int depths = in / 2, half = out / 2, blocks = blocksOf(depths);
  const int64_t perImage = (pixels + 1) / 2, pairs = images * perImage;
  const int64_t units = (pairs + unitPairs(in) - 1) / unitPairs(in);
  auto pixelOf = [&](int64_t pair) { return pair / perImage * pixels + pair % perImage * 2; };
  std::fill_n(s.zeros, in, 0.0f);
  for (int64_t unit = 0; unit < units; unit++) {
    const int64_t first = beginOf(unit, units, pairs), end = beginOf(unit + 1, units, pairs), count = end - first;
    int64_t whole = 0, single = count;  // pixels without a neighbour come last
    for (int64_t pair = first; pair < end; pair++) {
      const int64_t pixel = pixelOf(pair);
      const bool alone = pixels % 2 == 1 && pair % perImage == perImage - 1;
      const int64_t i = alone ? --single : whole++;
      s.rows[kEven][i] = x + pixel * in;
      s.rows[kOdd][i] = alone ? s.zeros : x + (pixel + 1) * in;
      for (int odd = 0; odd < 2; odd++) s.to[odd][i] = (pixel + odd) * out;
      float* mixed = s.mixed + i * s.row;
      const float *even = s.rows[kEven][i], *odd = s.rows[kOdd][i];
      for (int j = 0; j < kMixed; j++) s.rows[kS2 + j][i] = mixed + j * count * s.row;
      for (int c = 0; c < depths; c += LANES) {
        for (int at : {c, depths + c, in + c, in + depths + c})
          __builtin_prefetch(even + 2 * in + at);  // the next pair
        const Operands all = left(load(even + c), load(even + depths + c), load(odd + c), load(odd + depths + c));
        for (int j = 0; j < kMixed; j++) store(mixed + j * count * s.row + c, all.of[kS2 + j]);
      }
    }
    const int64_t tiles = (count + kPixels - 1) / kPixels;  // of even sizes
    const int64_t after = unit + 1 < units ? beginOf(unit + 2, units, pairs) : end;
    const int64_t fetches = (depths + direct::kStep - 1) / direct::kStep + blocks;
    Upcoming nextPixels(x + pixelOf(end) * in, (pixelOf(after) - pixelOf(end)) * in * sizeof(float),
                        kProducts * tiles * fetches * ((half + kPanel - 1) / kPanel));
    const float* b = packed;
    for (int n = 0; n < half; n += kPanel) {
      const int vectors = std::min<int>(kVectors, (half - n) / LANES), width = vectors * LANES;
      for (const Step& step : kSteps) {
        const int64_t rows = step.odd ? whole : count;
        for (int block = 0; block < blocks; block++) {
          const int begin = int(beginOf(block, blocks, depths)),
                    depth = int(beginOf(block + 1, blocks, depths)) - begin;
          const Sum from = block == 0 ? step.from : step.to;
          const bool result = step.result && block == blocks - 1;
          const auto& of = direct::kProducts[result ? e.kind() : direct::kSums][vectors - 1];
          const float* next = b + int64_t(depth) * width;
          Upcoming nextWeights(next, int64_t(depth) * width * sizeof(float),
                               tiles * ((depth + direct::kStep - 1) / direct::kStep));
          for (int64_t tile = 0, m = 0; m < rows; tile++) {
            const int64_t size = count / tiles + (tile < count % tiles), now = std::min(size, rows - m);
            auto sums = [&](Sum which) { return which == kNone ? nullptr : s.sums[which] + m * width; };
            of[now - 1](
                {s.rows[step.rows] + m, step.rowsHalf * depths + begin, b, depth, sums(from), sums(step.to),
                 sums(step.more), s.to[step.odd] + m, step.half * half + n, int(std::min(size, rows - m - now))},
                e, nextWeights, nextPixels);
            m += now;
          }
          b = next;
        }
      }
    }
  }
}

void forward(const JtreluConvolutionSizes* sizes, const float* x, const float* packed, const float* bias, float slope,
             float scale, float* y, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  convolve(s.n, int64_t(s.h) * s.w, x, s.ic, packed, s.oc, {y, bias, nullptr, slope, scale, false},
           Workspace(memory, s.ic));
}

void backwardData(const JtreluConvolutionSizes* sizes, const float* e, const float* packed, const float* gate,
                  float slope, float scale, int32_t accumulate, float* y, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  convolve(s.n, int64_t(s.h) * s.w, e, s.oc, packed, s.ic, {y, nullptr, gate, slope, scale, accumulate != 0},
           Workspace(memory, s.oc));
}

// Operands of gradients: of e, whose halves of channels are the rows, [product][channels / LANES][pair][LANES], and of x,
// [product][pair][panel]; sums of a panel.
struct GradientWorkspace {
  float *left, *right, *zeros, *sums[kAllSums];
  double* biases;
  int64_t bytes;

  GradientWorkspace(void* memory, int64_t in, int64_t out) {
    direct::Pieces pieces{static_cast<char*>(memory)};
    pieces.take(left, kProducts * kGradientRows * kGradientPairs);
    pieces.take(right, kProducts * kGradientPairs * kPanel);
    pieces.take(zeros, std::max(in, out));
    for (auto& each : sums) pieces.take(each, kGradientRows * kPanel);
    pieces.take(biases, out);
    bytes = pieces.at - static_cast<char*>(memory);
  }
};

void gradients(const JtreluConvolutionSizes* sizes, const float* x, const float* e, float* diffWeights, float* diffBias,
               int32_t accumulate, void* memory) {
  const JtreluConvolutionSizes& s = *sizes;
  const int in = s.ic, out = s.oc, half = out / 2;
  const int64_t halfIn = in / 2, pixels = int64_t(s.n) * s.h * s.w, pairs = (pixels + 1) / 2;
  const int64_t blocks = (pairs + kGradientPairs - 1) / kGradientPairs;
  const GradientWorkspace w(memory, in, out);
  std::fill_n(w.zeros, std::max(in, out), 0.0f);
  std::fill_n(w.biases, out, 0.0);
  const bool past = blocks == 1 && sizeof(Vector) == direct::kCacheLine &&
                    reinterpret_cast<uintptr_t>(diffWeights) % direct::kCacheLine == 0;
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = beginOf(block, blocks, pairs);
    const int count = int(beginOf(block + 1, blocks, pairs) - first);
    const direct::Put put = accumulate || block > 0 ? direct::kAdd : past ? direct::kStream : direct::kStore;
    // A pair's pixels of images of some channels, and zeros for what there is not.
    auto pixelsOf = [&](const float* images, int64_t channels, int64_t pair) {
      const float* even = images + 2 * (first + pair) * channels;
      return std::array{even, 2 * (first + pair) + 1 < pixels ? even + channels : w.zeros};
    };
    const int64_t next = std::min(2 * (first + count), pixels);  // first pixel of the next block
    const int64_t after = block + 1 < blocks ? std::min(2 * beginOf(block + 2, blocks, pairs), pixels) - next : 0;
    Upcoming sources(x + next * in, after * in * sizeof(float),
                     kProducts * ((halfIn + kPanel - 1) / kPanel) * (half / direct::kErrors));
    for (int begin = 0; begin < half; begin += kGradientRows) {
      const int rows = std::min(kGradientRows, half - begin);
      const int64_t leftStep = int64_t(rows) * count;
      const bool more = begin + rows < half;  // the next rows of e, or the first ones of the next block
      UpcomingRows errors(more ? e + 2 * first * out + begin + rows : e + next * out, rows * sizeof(float),
                          2 * (more ? next - 2 * first : after), half * sizeof(float),
                          kProducts * (rows / direct::kErrors));
      for (int m = 0; m < rows; m += kPanel) {
        const int vectors = std::min(kPanel, rows - m) / LANES;
        Vector sums[2][kVectors] = {};
        for (int p = 0; p < count; p++) {
          const auto [even, odd] = pixelsOf(e + begin + m, out, p);
          for (int v = 0, c = 0; v < vectors; v++, c += LANES) {
            const Vector e11 = load(even + c), e12 = load(odd + c), e21 = load(even + half + c),
                         e22 = load(odd + half + c);
            const Operands all = left(e11, e12, e21, e22);
            float* to = w.left + int64_t(m + c) * count + p * LANES;
            for (int i = 0; i < kProducts; i++) store(to + i * leftStep, all.of[i]);
            sums[0][v] += e11 + e12;
            sums[1][v] += e21 + e22;
          }
        }
        for (int h = 0; h < 2; h++) {
          for (int c = 0; c < vectors * LANES; c++) w.biases[h * half + begin + m + c] += sums[h][c / LANES][c % LANES];
        }
      }
      for (int64_t n = 0; n < halfIn; n += kPanel) {
        const int vectors = int(std::min<int64_t>(kPanel, halfIn - n) / LANES), width = vectors * LANES;
        for (int p = 0; p < count && (begin == 0 || halfIn > kPanel); p++) {  // a single panel stays
          const auto [even, odd] = pixelsOf(x + n, in, p);
          for (int c = 0; c < width; c += LANES) {
            const Operands all = right(load(even + c), load(even + halfIn + c), load(odd + c), load(odd + halfIn + c));
            for (int i = 0; i < kProducts; i++) store(w.right + (i * count + p) * width + c, all.of[i]);
          }
        }
        for (int i = 0; i < kProducts; i++) {
          const Step& step = kSteps[i];
          const auto& of = direct::kOuterProducts[step.result ? put : direct::kStore][vectors - 1];
          for (int m = 0; m < rows; m += direct::kErrors) {
            auto sums = [&](Sum which) { return which == kNone ? nullptr : w.sums[which] + m * width; };
            float* result = diffWeights + int64_t(step.odd * half + begin + m) * in + step.half * halfIn + n;
            const bool kept = step.more != kNone && step.to == kU;
            of({w.left + i * leftStep + int64_t(m / LANES) * LANES * count + m % LANES, w.right + i * count * width,
                count, step.result ? result : sums(step.to), step.result ? in : width, sums(step.from),
                kept ? sums(kU) : nullptr, sums(step.more)});
            sources.fetch();
            if (halfIn - n <= kPanel) errors.fetch();  // not earlier, as the next x takes its place too
          }
        }
      }
    }
  }
  endStream();
  if (blocks == 0 && !accumulate) std::fill_n(diffWeights, int64_t(out) * in, 0.0f);
  for (int m = 0; m < out; m++) diffBias[m] = float((accumulate ? diffBias[m] : 0) + w.biases[m]);
}

// Packs a matrix as convolve() reads it, [panel][product][channel][vectors]: element (k, n) lies at weights + k * kStep + n * nStep,
// of which one step is 1.
void packMatrix(const float* weights, int in, int64_t kStep, int out, int64_t nStep, float* to) {
  const int64_t depths = in / 2, half = out / 2;
  for (int64_t panel = 0; panel < half; panel += kPanel) {
    const int64_t width = std::min<int64_t>(kPanel, half - panel), product = depths * width;
    for (int64_t n = panel; n < panel + width; n += LANES) {
      for (int64_t k = 0; k < depths; k += LANES) {
        alignas(64) float w[2][2][LANES][LANES];
        for (int i = 0; i < 2; i++) {
          for (int j = 0; j < 2; j++) {
            const float* from = weights + (i * depths + k) * kStep + (j * half + n) * nStep;
            for (int row = 0; row < LANES; row++) {
              const float* at = from + row * std::max(kStep, nStep);
              if (kStep == 1) __builtin_prefetch(at + 2 * LANES);
              store(w[i][j][row], load(at));
            }
            if (kStep == 1) transpose(w[i][j]);
          }
        }
        for (int row = 0; row < LANES; row++) {
          const Operands all = right(load(w[0][0][row]), load(w[0][1][row]), load(w[1][0][row]), load(w[1][1][row]));
          float* at = to + (k + row) * width + n - panel;
          for (int i = 0; i < kProducts; i++) stream(at + i * product, all.of[i]);
        }
      }
    }
    to += kProducts * product;
  }
  endStream();
}

void pack(const JtreluConvolutionSizes* sizes, const float* weights, float* forward, float* backward) {
  const JtreluConvolutionSizes& s = *sizes;
  packMatrix(weights, s.ic, 1, s.oc, s.ic, forward);
  packMatrix(weights, s.oc, s.ic, s.ic, 1, backward);
}

int64_t packedBytes(const JtreluConvolutionSizes* s, int32_t) {
  return int64_t(kProducts) * (s->ic / 2) * (s->oc / 2) * int64_t(sizeof(float));
}

int64_t workspaceBytes(const JtreluConvolutionSizes* s) {
  return std::max({Workspace(nullptr, s->ic).bytes, Workspace(nullptr, s->oc).bytes,
                   GradientWorkspace(nullptr, s->ic, s->oc).bytes});
}

constexpr JtreluF32Convolutions kConvolutions = {packedBytes, workspaceBytes, pack, forward, backwardData, gradients};

}  // namespace strassen
}  // namespace
