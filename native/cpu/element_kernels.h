// Passes over elements: sums of tensors, rectifiers, and what an optimiser does to parameters.
//
// Memory limits all of them, so each is one pass over it. A result's bits do not depend on where in a tensor it lies:
// the elements that do not fill a vector are computed by the same code, on a copy, or one by one where only sums are taken.
#pragma once
#include "vectors.h"

#include <cstring>
#include <tuple>
#include <type_traits>

namespace {
namespace elements {

typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

// What is left of an array, filled up to a vector with zeros.
template <class E> struct Rest {
  std::remove_const_t<E> values[LANES] = {};

  Rest(E* from, int64_t count) { std::memcpy(values, from, count * sizeof(E)); }
  void putBack(E* to, int64_t count) const {
    if constexpr (!std::is_const_v<E>) std::memcpy(to, values, count * sizeof(E));
  }
};

// Calls body(pointers...) for each vector of elements; what is not const is written.
template <class Body, class... E> INLINE void forEachVector(int64_t n, Body body, E*... arrays) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) body((arrays + i)...);
  if (i == n) return;
  std::tuple<Rest<E>...> rest{Rest<E>(arrays + i, n - i)...};
  std::apply(
      [&](auto&... of) {
        body(of.values...);
        (of.putBack(arrays + i, n - i), ...);
      },
      rest);
}

struct Rectifier {
  float slope, scale;

  bool isIdentity() const { return slope == 1 && scale == 1; }
};

// phi(v). A slope of 0 takes no product, as 0 * infinity is not 0; a NaN stays one.
INLINE Vector rectified(Vector v, Rectifier phi) {
  const Vector below = phi.slope == 0 ? Vector{} : phi.slope * v;
  return phi.scale * (below >= v ? below : v);
}

// phi'(x) from x or from phi(x), which has the same sign; a NaN counts by its sign.
INLINE Vector derivative(Vector y, Rectifier phi) {
  return Ints(y) > 0 ? repeat(phi.scale) : repeat(phi.scale * phi.slope);
}

double sumOfSquares(int64_t n, const float* x) {
  constexpr int kSums = 16, kHalf = LANES / 2;  // the same sums, whatever the vectors
  typedef float Floats __attribute__((vector_size(4 * kHalf)));
  typedef double Doubles __attribute__((vector_size(8 * kHalf)));
  Doubles sums[kSums / kHalf] = {};
  auto add = [&](const float* from) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int k = 0; k < kSums / kHalf; k++) {
      Floats f;
      std::memcpy(&f, from + k * kHalf, sizeof f);
      const Doubles d = __builtin_convertvector(f, Doubles);
      sums[k] += d * d;
    }
  };
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) add(x + i);
  if (i < n) {
    float rest[kSums] = {};
    std::memcpy(rest, x + i, (n - i) * sizeof *x);
    add(rest);
  }
  double sum = 0;
  for (int k = 0; k < kSums; k++) sum += sums[k / kHalf][k % kHalf];
  return sum;
}

void sum(int64_t n, int32_t count, const float* const* parts, float* to) {
  if (count == 0) return;
  constexpr int kVectors = 4;  // a block of sums is kept in registers
  constexpr int64_t kBlock = kVectors * LANES;
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    Vector sums[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) sums[v] = load(to + i + v * LANES);
    for (int k = 0; k < count; k++) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) sums[v] += load(parts[k] + i + v * LANES);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) store(to + i + v * LANES, sums[v]);
  }
  for (; i < n; i++) {
    for (int k = 0; k < count; k++) to[i] += parts[k][i];
  }
}

void sgd(int64_t n, float* parameters, const float* gradient, float* velocity, float learningRate, float gradientScale,
         float momentum, float weightDecay, int32_t nesterov) {
  // The step is ownStep * g + velocityStep * v.
  const float ownStep = nesterov ? 1 : 0, velocityStep = nesterov ? momentum : 1;
  if (momentum == 0) {  // no velocity either
    forEachVector(
        n,
        [&](float* p, const float* g) __attribute__((always_inline)) {
          const Vector x = load(p);
          store(p, x - learningRate * (gradientScale * load(g) + weightDecay * x));
        },
        parameters, gradient);
    return;
  }
  forEachVector(
      n,
      [&](float* p, const float* g, float* v) __attribute__((always_inline)) {
        const Vector x = load(p);
        const Vector total = gradientScale * load(g) + weightDecay * x;
        const Vector next = momentum * load(v) + total;
        store(v, next);
        store(p, x - learningRate * (ownStep * total + velocityStep * next));
      },
      parameters, gradient, velocity);
}

void adam(int64_t n, float* parameters, const float* gradient, float* moment1, float* moment2, float learningRate,
          float gradientScale, float beta1, float beta2, float epsilon, float weightDecay, float correction1,
          float correction2) {
  forEachVector(
      n,
      [&](float* p, const float* gradients, float* m, float* v) __attribute__((always_inline)) {
        const Vector g = gradientScale * load(gradients);
        const Vector first = beta1 * load(m) + (1 - beta1) * g;
        const Vector second = beta2 * load(v) + (1 - beta2) * g * g;
        store(m, first);
        store(v, second);
        const Vector square = correction2 * second;
        Vector root;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) root[i] = __builtin_sqrtf(square[i]);
        const Vector x = load(p);
        store(p, x - learningRate * (correction1 * first / (root + epsilon) + weightDecay * x));
      },
      parameters, gradient, moment1, moment2);
}

template <class E>
void weightedSum(int64_t n, float weightA, const void* a, float weightB, const void* b, float slope, float scale,
                 void* dst) {
  const Rectifier phi{slope, scale};
  auto run = [&](auto identity) __attribute__((always_inline)) {
    forEachVector(
        n,
        [&](const E* x, const E* y, E* to) __attribute__((always_inline)) {
          const Vector sum = weightA * load(x) + weightB * load(y);
          store(to, identity ? sum : rectified(sum, phi));
        },
        static_cast<const E*>(a), static_cast<const E*>(b), static_cast<E*>(dst));
  };
  phi.isIdentity() ? run(std::true_type()) : run(std::false_type());
}

template <class E>
void weightedSumGradient(int64_t n, float weight, const void* diffDst, const void* src, float slope, float scale,
                         int32_t accumulate, void* diffSrc) {
  const Rectifier psi{slope, scale};
  auto run = [&](auto identity, auto add) __attribute__((always_inline)) {
    forEachVector(
        n,
        [&](const E* dy, const E* x, E* to) __attribute__((always_inline)) {
          Vector diff = weight * load(dy);
          if (add) diff += load(to);
          if (!identity) diff *= derivative(load(x), psi);
          store(to, diff);
        },
        static_cast<const E*>(diffDst), static_cast<const E*>(psi.isIdentity() ? diffDst : src),
        static_cast<E*>(diffSrc));
  };
  auto choose = [&](auto identity) __attribute__((always_inline)) {
    accumulate ? run(identity, std::true_type()) : run(identity, std::false_type());
  };
  psi.isIdentity() ? choose(std::true_type()) : choose(std::false_type());
}

template <class E> void rectify(int64_t n, const void* src, float slope, float scale, void* dst) {
  forEachVector(
      n,
      [&](const E* x, E* to) __attribute__((always_inline)) {
        store(to, rectified(load(x), {slope, scale}));
      },
      static_cast<const E*>(src), static_cast<E*>(dst));
}

template <class E>
void rectifyGradient(int64_t n, const void* dst, const void* diffDst, float slope, float scale, int32_t accumulate,
                     void* diffSrc) {
  auto run = [&](auto add) __attribute__((always_inline)) {
    forEachVector(
        n,
        [&](const E* y, const E* dy, E* to) __attribute__((always_inline)) {
          const Vector diff = load(dy) * derivative(load(y), {slope, scale});
          store(to, add ? load(to) + diff : diff);
        },
        static_cast<const E*>(dst), static_cast<const E*>(diffDst), static_cast<E*>(diffSrc));
  };
  accumulate ? run(std::true_type()) : run(std::false_type());
}

template <class E> constexpr JtreluActivationPasses activationPasses() {
  return {weightedSum<E>, weightedSumGradient<E>, rectify<E>, rectifyGradient<E>};
}

constexpr JtreluParameterPasses parameterPasses() { return {sum, sumOfSquares, sgd, adam}; }

}  // namespace elements
}  // namespace
