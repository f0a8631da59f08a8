// Max-pooling: windows over NHWC, whose channels lie side by side. Backward, each element of the source gathers from the windows
// that cover it, row by row, so that nothing is scattered and sums have a fixed order.
#include "cpu_kernels.h"
#include "element_kernels.h"

#include <algorithm>

namespace {
namespace pool {

using elements::Ints;
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

constexpr int kPositive = 128;  // of argmax: see JtreluMaxPool

// Windows, or elements of the window, from first to last - 1.
struct Range {
  int first, last;
};

// Those elements of a window along an axis that lie in the image.
Range inImage(int window, const JtreluMaxPoolSizes& s, int extent) {
  const int begin = window * s.stride - s.padBegin;
  return {std::max(-begin, 0), std::min(s.kernel, extent - begin)};
}

// The windows along an axis that cover an element.
Range covering(int at, const JtreluMaxPoolSizes& s, int windows) {
  const int padded = at + s.padBegin, past = padded - s.kernel + 1;
  return {past <= 0 ? 0 : (past + s.stride - 1) / s.stride, std::min(padded / s.stride + 1, windows)};
}

// A vector, or what is left of one, filled up with zeros.
template <bool whole, class E> INLINE Vector loadSome(const E* p, int64_t count) {
  if constexpr (whole) return load(p);
  return load(elements::Rest<const E>(p, count).values);
}

template <bool whole, class E> INLINE void storeSome(E* p, int64_t count, Vector v) {
  if constexpr (whole) return store(p, v);
  E values[LANES];
  store(values, v);
  std::memcpy(p, values, count * sizeof(E));
}

template <bool whole, class E>
INLINE void forwardVector(const JtreluMaxPoolSizes& s, const E* x, Range high, Range wide, int mark, int64_t count,
                          E* y, uint8_t* argmax) {
  Vector best{};
  Ints winner{};
  bool first = true;
  for (int r = high.first; r < high.last; r++) {
    for (int c = wide.first; c < wide.last; c++) {
      const Vector value = loadSome<whole>(x + (int64_t(r) * s.w + c) * s.c, count);
      const Ints tap = r * s.kernel + c - Ints{};
      // A later value wins where it is larger, or where it is the first NaN.
      const Ints wins = first ? Ints{} == 0 : ~(value <= best) & (best == best);
      best = wins ? value : best;
      winner = wins ? tap : winner;
      first = false;
    }
  }
  storeSome<whole>(y, count, best);
  const Bytes places = __builtin_convertvector(winner + (best > 0 ? mark - Ints{} : Ints{}), Bytes);
  std::memcpy(argmax, &places, whole ? LANES : count);
}

template <class E>
void forward(const JtreluMaxPoolSizes* sizes, const void* src, int32_t marked, void* dst, uint8_t* argmax) {
  const JtreluMaxPoolSizes& s = *sizes;
  const int mark = marked ? kPositive : 0;
  int64_t to = 0;
  for (int n = 0; n < s.n; n++) {
    for (int p = 0; p < s.oh; p++) {
      const Range high = inImage(p, s, s.h);
      for (int q = 0; q < s.ow; q++, to += s.c) {
        const Range wide = inImage(q, s, s.w);
        const int64_t row = int64_t(n) * s.h + p * s.stride - s.padBegin;
        const E* x = static_cast<const E*>(src) + (row * s.w + q * s.stride - s.padBegin) * s.c;
        E* y = static_cast<E*>(dst) + to;
        int k = 0;
        for (; k + LANES <= s.c; k += LANES)
          forwardVector<true>(s, x + k, high, wide, mark, LANES, y + k, argmax + to + k);
        if (k < s.c) forwardVector<false>(s, x + k, high, wide, mark, s.c - k, y + k, argmax + to + k);
      }
    }
  }
}

// How a gradient becomes diff_src.
struct Finish {
  elements::Rectifier psi;
  bool marked, accumulate;
};

// Windows from diff_dst and argmax on; `tap` is this element's place in the window (0, 0).
template <bool whole, class E>
INLINE void backwardVector(const JtreluMaxPoolSizes& s, const E* e, const uint8_t* argmax, Range high, Range wide,
                           int tap, const Finish& f, int64_t count, const E* x, E* to) {
  const Ints places = (f.marked ? kPositive - 1 : 255) - Ints{};
  Vector sum{};
  Ints positive{};
  for (int p = high.first; p < high.last; p++) {
    for (int q = wide.first; q < wide.last; q++) {
      const int64_t at = (int64_t(p) * s.ow + q) * s.c;
      Bytes bytes{};
      std::memcpy(&bytes, argmax + at, whole ? LANES : count);
      const Ints winner = __builtin_convertvector(bytes, Ints);
      const Ints won = (winner & places) == tap - (p * s.kernel + q) * s.stride - Ints{};
      sum += won ? loadSome<whole>(e + at, count) : Vector{};
      positive |= won & (winner >= kPositive);
    }
  }
  const Vector above = repeat(f.psi.scale), below = repeat(f.psi.scale * f.psi.slope);
  if (f.accumulate) sum += loadSome<whole>(to, count);
  if (f.marked && !f.accumulate) {
    sum *= positive != 0 ? above : below;
  } else if (!f.psi.isIdentity()) {
    sum *= elements::derivative(loadSome<whole>(x, count), f.psi);
  }
  storeSome<whole>(to, count, sum);
}

template <class E>
void backward(const JtreluMaxPoolSizes* sizes, const void* diffDst, const uint8_t* argmax, const void* src, float slope,
              float scale, int32_t marked, int32_t accumulate, void* diffSrc) {
  const JtreluMaxPoolSizes& s = *sizes;
  const Finish finish{{slope, scale}, marked != 0, accumulate != 0};
  int64_t at = 0;
  for (int n = 0; n < s.n; n++) {
    const int64_t image = int64_t(n) * s.oh * s.ow * s.c;
    for (int y = 0; y < s.h; y++) {
      const Range high = covering(y, s, s.oh);
      for (int x = 0; x < s.w; x++, at += s.c) {
        const Range wide = covering(x, s, s.ow);
        const E* e = static_cast<const E*>(diffDst) + image;
        const uint8_t* winners = argmax + image;
        const E* from = static_cast<const E*>(src) + at;
        E* to = static_cast<E*>(diffSrc) + at;
        const int tap = (y + s.padBegin) * s.kernel + x + s.padBegin;
        int k = 0;
        for (; k + LANES <= s.c; k += LANES)
          backwardVector<true>(s, e + k, winners + k, high, wide, tap, finish, LANES, from + k, to + k);
        if (k < s.c) backwardVector<false>(s, e + k, winners + k, high, wide, tap, finish, s.c - k, from + k, to + k);
      }
    }
  }
}

template <class E> constexpr JtreluMaxPool passes() { return {forward<E>, backward<E>}; }

}  // namespace pool
}  // namespace
