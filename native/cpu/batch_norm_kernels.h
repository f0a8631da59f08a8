// Batch normalisation: passes over x [rows, c], whose channels lie side by side, with F32 constants for each channel.
//
// Sums are taken in float over a few rows, and these are added in double, always in the same order.
#include "cpu_kernels.h"
#include "element_kernels.h"

namespace {
namespace channels {

constexpr int kRows = 32, kSums = 4;  // rows of a sum in float, and how many of those are under way

// A vector, or what is left of one, filled up with zeros.
template <bool Whole, class E> INLINE Vector loadSome(const E* p, int64_t count) {
  if constexpr (Whole) return load(p);
  return load(elements::Rest<const E>(p, count).values);
}

template <bool Whole, class E> INLINE void storeSome(E* p, int64_t count, Vector v) {
  if constexpr (Whole) return store(p, v);
  E values[LANES];
  store(values, v);
  std::memcpy(p, values, count * sizeof(E));
}

// body(whole, first channel, channels) for each vector of channels.
template <class Body> INLINE void forEachVector(int32_t c, Body body) {
  int32_t k = 0;
  for (; k + LANES <= c; k += LANES) body(std::true_type(), k, LANES);
  if (k < c) body(std::false_type(), k, c - k);
}

// The sums over rows of term(row), for a vector of channels.
template <class Term> INLINE void sumRows(int64_t rows, Term term, double (&sums)[LANES]) {
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int64_t end = begin + kRows < rows ? begin + kRows : rows;
    Vector some[kSums] = {};
    int64_t row = begin;
    for (; row + kSums <= end; row += kSums) {
#pragma GCC unroll 4
      for (int s = 0; s < kSums; s++) some[s] += term(row + s);
    }
    for (; row < end; row++) some[0] += term(row);
    const Vector sum = (some[0] + some[1]) + (some[2] + some[3]);
    for (int i = 0; i < LANES; i++) sums[i] += sum[i];
  }
}

template <class E> void moments(int64_t rows, int32_t c, const void* src, float* mean, float* squares) {
  const E* x = static_cast<const E*>(src);
  forEachVector(
      c, [&](auto whole, int32_t k, int32_t count) __attribute__((always_inline)) {
        constexpr bool kWhole = decltype(whole)::value;
        double sums[LANES] = {}, deviations[LANES] = {};
        auto at = [&](int64_t row) __attribute__((always_inline)) { return loadSome<kWhole>(x + row * c + k, count); };
        sumRows(rows, at, sums);
        Vector middle;
        for (int i = 0; i < LANES; i++) middle[i] = static_cast<float>(sums[i] / rows);
        auto square = [&](int64_t row) __attribute__((always_inline)) {
          const Vector d = at(row) - middle;
          return d * d;
        };
        sumRows(rows, square, deviations);
        Vector total;
        for (int i = 0; i < LANES; i++) {
          const double rounding = sums[i] / rows - middle[i];
          total[i] = static_cast<float>(deviations[i] - rows * rounding * rounding);
        }
        storeSome<kWhole>(mean + k, count, middle);
        storeSome<kWhole>(squares + k, count, total);
      });
}

template <class E>
void normalize(int64_t rows, int32_t c, const void* src, const float* mean, const float* factor, const float* summand,
               float slope, float scale, void* dst) {
  const elements::Rectifier phi{slope, scale};
  auto run = [&](auto identity) __attribute__((always_inline)) {
    for (int64_t row = 0; row < rows; row++) {
      const E* x = static_cast<const E*>(src) + row * c;
      E* y = static_cast<E*>(dst) + row * c;
      forEachVector(
          c, [&](auto whole, int32_t k, int32_t count) __attribute__((always_inline)) {
            constexpr bool kWhole = decltype(whole)::value;
            const Vector v = (loadSome<kWhole>(x + k, count) - loadSome<kWhole>(mean + k, count)) *
                                 loadSome<kWhole>(factor + k, count) +
                             loadSome<kWhole>(summand + k, count);
            storeSome<kWhole>(y + k, count, identity ? v : elements::rectified(v, phi));
          });
    }
  };
  phi.isIdentity() ? run(std::true_type()) : run(std::false_type());
}

template <class E>
void gradientSums(int64_t rows, int32_t c, const void* diffDst, const void* src, const float* mean, float* sum,
                  float* product) {
  const E* dy = static_cast<const E*>(diffDst);
  const E* x = static_cast<const E*>(src);
  forEachVector(
      c, [&](auto whole, int32_t k, int32_t count) __attribute__((always_inline)) {
        constexpr bool kWhole = decltype(whole)::value;
        double sums[LANES] = {}, products[LANES] = {};
        const Vector middle = loadSome<kWhole>(mean + k, count);
        auto at = [&](int64_t row) __attribute__((always_inline)) { return loadSome<kWhole>(dy + row * c + k, count); };
        sumRows(rows, at, sums);
        auto weighted = [&](int64_t row) __attribute__((always_inline)) {
          return at(row) * (loadSome<kWhole>(x + row * c + k, count) - middle);
        };
        sumRows(rows, weighted, products);
        Vector s, p;
        for (int i = 0; i < LANES; i++) {
          s[i] = static_cast<float>(sums[i]);
          p[i] = static_cast<float>(products[i]);
        }
        storeSome<kWhole>(sum + k, count, s);
        storeSome<kWhole>(product + k, count, p);
      });
}

template <class E>
void gradient(int64_t rows, int32_t c, const void* diffDst, const void* src, const float* mean, const float* factor,
              const float* summand, const float* slope, int32_t accumulate, void* diffSrc) {
  auto run = [&](auto add) __attribute__((always_inline)) {
    for (int64_t row = 0; row < rows; row++) {
      const E* dy = static_cast<const E*>(diffDst) + row * c;
      const E* x = static_cast<const E*>(src) + row * c;
      E* dx = static_cast<E*>(diffSrc) + row * c;
      forEachVector(
          c, [&](auto whole, int32_t k, int32_t count) __attribute__((always_inline)) {
            constexpr bool kWhole = decltype(whole)::value;
            auto get = [&](auto* from) __attribute__((always_inline)) { return loadSome<kWhole>(from + k, count); };
            Vector v = get(factor) * get(dy) + (get(summand) + get(slope) * (get(x) - get(mean)));
            if (add) v += get(dx);
            storeSome<kWhole>(dx + k, count, v);
          });
    }
  };
  accumulate ? run(std::true_type()) : run(std::false_type());
}

template <class E> constexpr JtreluBatchNorm passes() {
  return {moments<E>, normalize<E>, gradientSums<E>, gradient<E>};
}

}  // namespace channels
}  // namespace
