// The CPU kernels against their definitions (cpu/cpu_kernels.h) in plain loops and binary64, for every instruction set that the
// machine has. The Java tests hold them to more; this one runs where there is no JDK, such as under an emulated processor.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../cpu/cpu_kernels.h"

namespace {

constexpr double kEpsilon = 0x1p-24;
std::mt19937_64 engine(1);
long checks = 0;

float normal() {
  static std::normal_distribution<float> distribution;
  return distribution(engine);
}

std::vector<float> normals(size_t n) {
  std::vector<float> values(n);
  for (float& v : values) v = normal();
  return values;
}

[[noreturn]] void fail(const char* what, size_t at, double got, double expected, double bound) {
  printf("FAILED: %s[%zu] is %.9g, expected %.9g within %.3g\n", what, at, got, expected, bound);
  exit(1);
}

void near(const char* what, size_t at, double got, double expected, double bound) {
  checks++;
  if (!(std::abs(got - expected) <= bound)) fail(what, at, got, expected, bound);
}

double phi(double v, double slope, double scale) { return scale * (v > 0 ? v : slope * v); }
double phiGradient(double v, double slope, double scale) { return v > 0 ? scale : scale * slope; }

/// Activations of one type, and how their elements are rounded.
struct F32 {
  using Element = float;
  static constexpr double kRounding = kEpsilon;
  static Element of(float v) { return v; }
  static double value(Element e) { return e; }
};
struct Bf16 {
  using Element = uint16_t;
  static constexpr double kRounding = 0x1p-8;
  static Element of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  static double value(Element e) {
    const uint32_t bits = uint32_t(e) << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
  }
};

template <class T> std::vector<typename T::Element> activations(size_t n) {
  std::vector<typename T::Element> values(n);
  for (auto& v : values) v = T::of(normal());
  return values;
}

struct Aligned {
  explicit Aligned(int64_t bytes) : memory(static_cast<char*>(aligned_alloc(64, (bytes + 127) / 64 * 64)), free) {}
  operator void*() const { return memory.get(); }
  std::unique_ptr<char, void (*)(void*)> memory;
};

const int64_t kLengths[] = {1, 3, 4, 15, 16, 17, 63, 64, 65, 1000};

void parameters(const JtreluParameterPasses& p) {
  for (int64_t n : kLengths) {
    const auto a = normals(n), b = normals(n), start = normals(n);
    auto to = start;
    const float* parts[] = {a.data(), b.data()};
    p.sum(n, 2, parts, to.data());
    double squares = 0;
    for (int64_t i = 0; i < n; i++) {
      near("sum", i, to[i], float(float(start[i] + a[i]) + b[i]), 0);
      squares += double(a[i]) * a[i];
    }
    near("sum of squares", 0, p.sumOfSquares(n, a.data()), squares, 1e-12 * squares);
    for (float momentum : {0.0f, 0.9f}) {
      for (int nesterov : {0, 1}) {
        auto x = start, v = b;
        p.sgd(n, x.data(), a.data(), v.data(), 0.1f, 0.5f, momentum, 0.01f, nesterov);
        for (int64_t i = 0; i < n; i++) {
          const double g = 0.5 * a[i] + double(0.01f) * start[i];
          const double moved = momentum * double(b[i]) + g;
          const double size = std::abs(start[i]) + std::abs(a[i]) + std::abs(b[i]);
          near("velocity", i, v[i], momentum == 0 ? b[i] : moved, 4 * kEpsilon * size);
          near("sgd", i, x[i], start[i] - 0.1f * (nesterov ? g + momentum * moved : moved), 8 * kEpsilon * size);
        }
      }
    }
    auto x = start, m = b, v = normals(n);
    for (float& e : v) e = std::abs(e);
    const auto v0 = v;
    p.adam(n, x.data(), a.data(), m.data(), v.data(), 0.01f, 1, 0.9f, 0.99f, 1e-8f, 0.1f, 2, 3);
    for (int64_t i = 0; i < n; i++) {
      const double first = 0.9f * double(b[i]) + (1 - 0.9f) * double(a[i]);
      const double second = 0.99f * double(v0[i]) + (1 - 0.99f) * double(a[i]) * a[i];
      const double step = 2 * first / (std::sqrt(3 * second) + 1e-8) + 0.1f * double(start[i]);
      near("adam, first moment", i, m[i], first, 8 * kEpsilon * (std::abs(a[i]) + std::abs(b[i])));
      near("adam, second moment", i, v[i], second, 8 * kEpsilon * (v0[i] + a[i] * a[i]));
      const double size = (std::abs(a[i]) + std::abs(b[i])) / std::sqrt(3 * second) + std::abs(start[i]);
      near("adam", i, x[i], start[i] - 0.01f * step, 32 * kEpsilon * size + kEpsilon * std::abs(start[i]));
    }
  }
}

template <class T> void elements(const JtreluActivationPasses& p) {
  const float slope = 0.3f, scale = 1.25f;
  for (int64_t n : kLengths) {
    const auto a = activations<T>(n), b = activations<T>(n), start = activations<T>(n);
    auto to = start;
    p.weightedSum(n, 0.75f, a.data(), -0.5f, b.data(), slope, scale, to.data());
    for (int64_t i = 0; i < n; i++) {
      const double x = 0.75 * T::value(a[i]), y = -0.5 * T::value(b[i]);
      near("weighted sum", i, T::value(to[i]), phi(x + y, slope, scale),
           4 * (std::abs(x) + std::abs(y)) * kEpsilon + T::kRounding * std::abs(phi(x + y, slope, scale)));
    }
    p.rectify(n, a.data(), slope, scale, to.data());
    for (int64_t i = 0; i < n; i++) {
      const double y = phi(T::value(a[i]), slope, scale);
      near("rectify", i, T::value(to[i]), y, (T::kRounding + 4 * kEpsilon) * std::abs(y));
    }
    for (int accumulate : {0, 1}) {
      to = start;
      p.weightedSumGradient(n, 0.75f, b.data(), a.data(), slope, scale, accumulate, to.data());
      for (int64_t i = 0; i < n; i++) {
        const double old = accumulate ? T::value(start[i]) : 0, g = 0.75 * T::value(b[i]);
        const double y = (old + g) * phiGradient(T::value(a[i]), slope, scale);
        near("gradient of a sum", i, T::value(to[i]), y,
             8 * kEpsilon * (std::abs(old) + std::abs(g)) + T::kRounding * std::abs(y));
      }
      to = start;
      p.rectifyGradient(n, a.data(), b.data(), slope, scale, accumulate, to.data());
      for (int64_t i = 0; i < n; i++) {
        const double old = accumulate ? T::value(start[i]) : 0;
        const double g = T::value(b[i]) * phiGradient(T::value(a[i]), slope, scale);
        near("gradient of a rectifier", i, T::value(to[i]), old + g,
             8 * kEpsilon * (std::abs(old) + std::abs(g)) + T::kRounding * std::abs(old + g));
      }
    }
  }
}

template <class T> void normalisation(const JtreluBatchNorm& p) {
  for (int32_t c : {1, 5, 16, 40}) {
    const int64_t rows = 37;
    const auto x = activations<T>(rows * c), d = activations<T>(rows * c);
    const auto factor = normals(c), summand = normals(c), slopes = normals(c);
    std::vector<float> mean(c), squares(c), sum(c), product(c);
    p.moments(rows, c, x.data(), mean.data(), squares.data());
    p.gradientSums(rows, c, d.data(), x.data(), mean.data(), sum.data(), product.data());
    auto y = x, g = x;
    p.normalize(rows, c, x.data(), mean.data(), factor.data(), summand.data(), 0.3f, 1.25f, y.data());
    p.gradient(rows, c, d.data(), x.data(), mean.data(), factor.data(), summand.data(), slopes.data(), 1, g.data());
    for (int32_t k = 0; k < c; k++) {
      double m = 0, s = 0, gs = 0, gp = 0;
      for (int64_t r = 0; r < rows; r++) m += T::value(x[r * c + k]) / rows;
      for (int64_t r = 0; r < rows; r++) {
        const double off = T::value(x[r * c + k]) - mean[k], dst = T::value(d[r * c + k]);
        s += off * off;
        gs += dst;
        gp += dst * off;
        const double normal = off * factor[k] + summand[k];
        near("normalised", r * c + k, T::value(y[r * c + k]), phi(normal, 0.3f, 1.25f),
             16 * kEpsilon * (std::abs(off * factor[k]) + std::abs(summand[k])) +
                 T::kRounding * std::abs(normal) * 1.25);
        const double old = T::value(x[r * c + k]), a = factor[k] * dst, b = slopes[k] * off;
        near("gradient of normalisation", r * c + k, T::value(g[r * c + k]), old + a + summand[k] + b,
             16 * kEpsilon * (std::abs(old) + std::abs(a) + std::abs(summand[k]) + std::abs(b)) +
                 T::kRounding * std::abs(old + a + summand[k] + b));
      }
      near("mean", k, mean[k], m, 1e-6);
      near("squares", k, squares[k], s, 1e-5 * s);
      near("sum of gradients", k, sum[k], gs, 1e-4);
      near("sum of products", k, product[k], gp, 1e-4 * rows);
    }
  }
}

template <class T> void maxPool(const JtreluMaxPool& p) {
  const JtreluMaxPoolSizes shapes[] = {{2, 7, 9, 40, 4, 5, 3, 2, 1},
                                       {1, 6, 6, 5, 3, 3, 2, 2, 0},
                                       {1, 5, 4, 16, 5, 4, 3, 1, 1},
                                       {1, 14, 14, 1, 2, 2, 13, 5, 3}};
  const float slope = 0.3f, scale = 1.25f;
  for (const JtreluMaxPoolSizes& s : shapes) {
    auto x = activations<T>(size_t(s.n) * s.h * s.w * s.c);
    const size_t results = size_t(s.n) * s.oh * s.ow * s.c;
    const auto d = activations<T>(results);
    const bool marked = s.kernel * s.kernel <= 128;
    auto y = d;
    std::vector<uint8_t> argmax(results);
    p.forward(&s, x.data(), marked, y.data(), argmax.data());
    std::vector<double> sums(x.size()), magnitudes(x.size());
    for (size_t at = 0; at < results; at++) {
      const int c = int(at % s.c), q = int(at / s.c % s.ow), row = int(at / s.c / s.ow % s.oh),
                n = int(at / s.c / s.ow / s.oh);
      double best = -INFINITY;
      int winner = -1;
      size_t from = 0;
      for (int tap = 0; tap < s.kernel * s.kernel; tap++) {
        const int i = row * s.stride - s.padBegin + tap / s.kernel, j = q * s.stride - s.padBegin + tap % s.kernel;
        if (i < 0 || i >= s.h || j < 0 || j >= s.w) continue;
        const size_t source = ((size_t(n) * s.h + i) * s.w + j) * s.c + c;
        if (T::value(x[source]) <= best) continue;
        best = T::value(x[source]);
        winner = tap;
        from = source;
      }
      near("maximum", at, T::value(y[at]), best, 0);
      near("place of the maximum", at, argmax[at], winner + (marked && best > 0 ? 128 : 0), 0);
      sums[from] += T::value(d[at]);
      magnitudes[from] += std::abs(T::value(d[at]));
    }
    for (int accumulate : {0, 1}) {
      auto g = x;
      p.backward(&s, d.data(), argmax.data(), x.data(), slope, scale, marked, accumulate, g.data());
      for (size_t i = 0; i < g.size(); i++) {
        const double old = accumulate ? T::value(x[i]) : 0, derivative = phiGradient(T::value(x[i]), slope, scale);
        const double expected = (old + sums[i]) * derivative;
        near("gradient of a maximum", i, T::value(g[i]), expected,
             16 * kEpsilon * (std::abs(old) + magnitudes[i]) + T::kRounding * std::abs(expected));
      }
    }
  }
}

/// The convolution r of x [n, h, w, in] and weights [out, 3, 3, in], and the sum of its terms' magnitudes.
struct Direct {
  std::vector<double> r, magnitude;
  Direct(const JtreluWinograd& s, const std::vector<double>& x, const std::vector<double>& weights)
      : r(size_t(s.n) * s.outH * s.outW * s.out), magnitude(r.size()) {
    size_t at = 0;
    for (int n = 0; n < s.n; n++)
      for (int y = 0; y < s.outH; y++)
        for (int z = 0; z < s.outW; z++)
          for (int o = 0; o < s.out; o++, at++)
            for (int i = 0; i < 3; i++)
              for (int j = 0; j < 3; j++) {
                const int row = y + i - s.top, column = z + j - s.left;
                if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
                const double* from = &x[((size_t(n) * s.h + row) * s.w + column) * s.in];
                const double* w = &weights[((size_t(o) * 3 + i) * 3 + j) * s.in];
                for (int c = 0; c < s.in; c++) {
                  r[at] += from[c] * w[c];
                  magnitude[at] += std::abs(from[c] * w[c]);
                }
              }
  }
};

template <class T> std::vector<double> wide(const std::vector<T>& values, double (*value)(T)) {
  std::vector<double> result(values.size());
  for (size_t i = 0; i < values.size(); i++) result[i] = value(values[i]);
  return result;
}

/// Errors of Winograd's transforms: some 30 roundings of the sum of magnitudes for tiles of 4x4 (Lavin and Gray 2016 see 2e-5 for
/// sums of 2000 terms); of sums, a rounding for each of some terms.
double winogradBound(double magnitude) { return 300 * kEpsilon * magnitude; }

template <class T> void convolutions(const JtreluConvolutions& k) {
  using Element = typename T::Element;
  const float slope = 0.3f, scale = 1.25f;
  for (JtreluWinograd s : {JtreluWinograd{1, 4, 4, 16, 4, 4, 16, 1, 1, 4},
                           {2, 7, 9, 32, 7, 9, 16, 1, 1, 4},
                           {1, 5, 6, 16, 3, 4, 48, 0, 0, 2},
                           {2, 13, 6, 16, 13, 6, 32, 1, 1, 2}}) {
    const auto x = activations<T>(size_t(s.n) * s.h * s.w * s.in);
    const auto e = activations<T>(size_t(s.n) * s.outH * s.outW * s.out);
    const auto weights = normals(size_t(s.out) * 9 * s.in), bias = normals(s.out);
    const auto wideX = wide<Element>(x, T::value), wideE = wide<Element>(e, T::value);
    const std::vector<double> wideWeights(weights.begin(), weights.end());
    Aligned forward(k.packedBytes(s.in, s.out, s.tile)), backward(k.packedBytes(s.out, s.in, s.tile));
    k.pack(weights.data(), s.in, s.out, s.tile, forward, backward);

    std::vector<Element> y(e.size());
    Aligned workspace(k.workspaceBytes(&s));
    k.convolve(&s, x.data(), forward, y.data(), bias.data(), nullptr, slope, scale, 0, workspace);
    const Direct direct(s, wideX, wideWeights);
    for (size_t i = 0; i < y.size(); i++) {
      const double expected = phi(direct.r[i] + bias[i % s.out], slope, scale);
      near("forward", i, T::value(y[i]), expected,
           winogradBound(direct.magnitude[i] + std::abs(bias[i % s.out])) + T::kRounding * std::abs(expected));
    }

    // Backward data: the convolution of diff_dst with turned filters, whose channels change places.
    const JtreluWinograd b = {s.n, s.outH, s.outW, s.out, s.h, s.w, s.in, 2 - s.top, 2 - s.left, s.tile};
    std::vector<double> turned(wideWeights.size());
    for (int o = 0; o < s.out; o++)
      for (int t = 0; t < 9; t++)
        for (int c = 0; c < s.in; c++)
          turned[(size_t(c) * 9 + 8 - t) * s.out + o] = wideWeights[(size_t(o) * 9 + t) * s.in + c];
    const Direct back(b, wideE, turned);
    Aligned backWorkspace(k.workspaceBytes(&b));
    for (int accumulate : {0, 1}) {
      auto g = x;
      k.convolve(&b, e.data(), backward, g.data(), nullptr, x.data(), slope, scale, accumulate, backWorkspace);
      for (size_t i = 0; i < g.size(); i++) {
        const double sum = (accumulate ? wideX[i] : 0) + back.r[i];
        const double expected = sum * phiGradient(wideX[i], slope, scale);
        near("backward data", i, T::value(g[i]), expected,
             winogradBound(back.magnitude[i] + std::abs(wideX[i])) + T::kRounding * std::abs(expected));
      }
    }

    std::vector<float> dw(weights.size(), 1), db(s.out, 1);
    k.gradients(&s, x.data(), e.data(), dw.data(), db.data(), 1, workspace);
    std::vector<double> expected(dw.size(), 1), magnitude(dw.size(), 1), biases(s.out, 1), biasMagnitude(s.out, 1);
    size_t at = 0;
    for (int n = 0; n < s.n; n++)
      for (int row = 0; row < s.outH; row++)
        for (int column = 0; column < s.outW; column++)
          for (int o = 0; o < s.out; o++, at++) {
            biases[o] += wideE[at];
            biasMagnitude[o] += std::abs(wideE[at]);
            for (int t = 0; t < 9; t++) {
              const int r = row + t / 3 - s.top, c = column + t % 3 - s.left;
              if (r < 0 || r >= s.h || c < 0 || c >= s.w) continue;
              for (int i = 0; i < s.in; i++) {
                const double term = wideE[at] * wideX[((size_t(n) * s.h + r) * s.w + c) * s.in + i];
                expected[(size_t(o) * 9 + t) * s.in + i] += term;
                magnitude[(size_t(o) * 9 + t) * s.in + i] += std::abs(term);
              }
            }
          }
    for (size_t i = 0; i < dw.size(); i++)
      near("weights' gradient", i, dw[i], expected[i], winogradBound(magnitude[i]));
    for (int o = 0; o < s.out; o++) near("bias' gradient", o, db[o], biases[o], winogradBound(biasMagnitude[o]));
  }
}

/// All three passes of convolutions in F32, errors within `bound` of the sum of magnitudes.
void f32Convolutions(const JtreluF32Convolutions& k, const std::vector<JtreluConvolutionSizes>& shapes, double bound) {
  const float slope = 0.3f, scale = 1.25f;
  for (JtreluConvolutionSizes s : shapes) {
    const size_t pixels = size_t(s.n) * s.oh * s.ow, taps = size_t(s.kh) * s.kw;
    const auto x = normals(size_t(s.n) * s.h * s.w * s.ic), e = normals(pixels * s.oc);
    const auto weights = normals(s.oc * taps * s.ic), bias = normals(s.oc);
    std::vector<double> y(e.size()), dx(x.size()), dw(weights.size(), 1), db(s.oc, 1);
    auto yMagnitude = y, dxMagnitude = dx, dwMagnitude = dw, dbMagnitude = db;
    for (size_t at = 0; at < e.size(); at++) {
      const size_t o = at % s.oc, q = at / s.oc % s.ow, p = at / s.oc / s.ow % s.oh, n = at / s.oc / s.ow / s.oh;
      db[o] += e[at];
      dbMagnitude[o] += std::abs(e[at]);
      for (size_t t = 0; t < taps; t++) {
        const int row = int(p) * s.strideH + int(t) / s.kw - s.top,
                  column = int(q) * s.strideW + int(t) % s.kw - s.left;
        if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
        for (int c = 0; c < s.ic; c++) {
          const size_t from = ((n * s.h + row) * s.w + column) * s.ic + c, w = (o * taps + t) * s.ic + c;
          const auto add = [](std::vector<double>& sums, std::vector<double>& magnitudes, size_t i, double term) {
            sums[i] += term;
            magnitudes[i] += std::abs(term);
          };
          add(y, yMagnitude, at, double(x[from]) * weights[w]);
          add(dx, dxMagnitude, from, double(e[at]) * weights[w]);
          add(dw, dwMagnitude, w, double(e[at]) * x[from]);
        }
      }
    }
    Aligned forward(k.packedBytes(&s, 0)), backward(k.packedBytes(&s, 1)), workspace(k.workspaceBytes(&s));
    k.pack(&s, weights.data(), static_cast<float*>(static_cast<void*>(forward)),
           static_cast<float*>(static_cast<void*>(backward)));
    std::vector<float> result(e.size(), NAN);
    k.forward(&s, x.data(), static_cast<float*>(static_cast<void*>(forward)), bias.data(), slope, scale, result.data(),
              workspace);
    for (size_t i = 0; i < result.size(); i++) {
      const double expected = phi(y[i] + bias[i % s.oc], slope, scale);
      near("F32 forward", i, result[i], expected, bound * scale * (yMagnitude[i] + std::abs(bias[i % s.oc])));
    }
    for (int accumulate : {0, 1}) {
      auto g = x;  // the gate, too
      k.backwardData(&s, e.data(), static_cast<float*>(static_cast<void*>(backward)), g.data(), slope, scale,
                     accumulate, g.data(), workspace);
      for (size_t i = 0; i < g.size(); i++) {
        const double old = accumulate ? x[i] : 0;
        near("F32 backward data", i, g[i], (old + dx[i]) * phiGradient(x[i], slope, scale),
             bound * scale * (dxMagnitude[i] + std::abs(old)));
      }
    }
    for (int accumulate : {0, 1}) {
      std::vector<float> weightGradients(dw.size(), 1), biasGradients(s.oc, 1);
      k.gradients(&s, x.data(), e.data(), weightGradients.data(), biasGradients.data(), accumulate, workspace);
      for (size_t i = 0; i < dw.size(); i++)
        near("F32 weights' gradient", i, weightGradients[i], dw[i] - 1 + accumulate, bound * dwMagnitude[i]);
      for (int o = 0; o < s.oc; o++)
        near("F32 bias' gradient", o, biasGradients[o], db[o] - 1 + accumulate, bound * dbMagnitude[o]);
    }
  }
}

void directConvolutions(const JtreluF32Convolutions& k) {
  f32Convolutions(k,
                  {{1, 1, 1, 300, 1, 1, 20, 1, 1, 1, 1, 0, 0},
                   {2, 7, 9, 33, 7, 9, 70, 1, 1, 1, 1, 0, 0},
                   {3, 8, 8, 17, 8, 8, 16, 1, 1, 1, 1, 0, 0},
                   {2, 2, 2, 1100, 2, 2, 24, 1, 1, 1, 1, 0, 0},
                   {2, 9, 8, 16, 5, 4, 40, 1, 1, 2, 2, 0, 0},
                   {1, 7, 10, 20, 4, 5, 17, 3, 3, 2, 2, 1, 1},
                   {1, 5, 6, 5, 2, 2, 3, 2, 3, 3, 4, 1, 2},
                   {1, 24, 24, 30, 24, 24, 61, 1, 1, 1, 1, 0, 0},
                   {2, 7, 9, 94, 7, 9, 30, 1, 1, 1, 1, 0, 0},
                   {1, 7, 10, 62, 4, 5, 93, 3, 3, 2, 2, 1, 1},
                   {1, 9, 9, 96, 5, 5, 80, 3, 3, 2, 2, 1, 1},
                   {2, 3, 3, 600, 3, 3, 60, 1, 1, 1, 1, 0, 0}},
                  8 * kEpsilon);  // errors of random signs
}

/// By Winograd's method: tiles of two results and one, padding above and on the left or not, several units.
void stridedWinograd(const JtreluF32Convolutions& k) {
  f32Convolutions(k,
                  {{1, 11, 12, 16, 6, 6, 32, 3, 3, 2, 2, 1, 1},
                   {2, 13, 14, 48, 7, 7, 16, 3, 3, 2, 2, 1, 0},
                   {3, 16, 15, 32, 8, 8, 64, 3, 3, 2, 2, 0, 1},
                   {2, 34, 46, 96, 17, 23, 80, 3, 3, 2, 2, 0, 0}},
                  32 * kEpsilon);  // of all of a tile
}

/// Few channels: one to 15 of them, strides, paddings, all widths of tiles, several blocks of rows.
void fewChannels(const JtreluF32Convolutions& k) {
  f32Convolutions(k,
                  {{2, 9, 11, 1, 9, 11, 32, 3, 3, 1, 1, 1, 1},
                   {2, 8, 9, 2, 8, 9, 16, 3, 3, 1, 1, 1, 1},
                   {1, 23, 21, 3, 12, 11, 64, 7, 7, 2, 2, 3, 3},
                   {1, 22, 20, 4, 11, 10, 64, 7, 7, 2, 2, 2, 2},
                   {1, 5, 6, 5, 2, 2, 80, 2, 3, 3, 4, 1, 2},
                   {3, 60, 61, 15, 30, 31, 48, 3, 3, 2, 2, 1, 1}},
                  8 * kEpsilon);  // errors of random signs
}

/// By Strassen's method: images of odd and even numbers of pixels, several panels, blocks of channels and units.
void strassen(const JtreluF32Convolutions& k) {
  f32Convolutions(k,
                  {{1, 1, 1, 32, 1, 1, 64, 1, 1, 1, 1, 0, 0},
                   {2, 7, 9, 160, 7, 9, 96, 1, 1, 1, 1, 0, 0},
                   {3, 6, 8, 64, 6, 8, 224, 1, 1, 1, 1, 0, 0},
                   {1, 24, 25, 96, 24, 25, 32, 1, 1, 1, 1, 0, 0},
                   {2, 3, 3, 608, 3, 3, 64, 1, 1, 1, 1, 0, 0}},
                  32 * kEpsilon);  // of all of a pair
}

/// Packed weights and what a pass by them gives: dst with slope 1, scale 1.
struct DirectPass {
  const JtreluF32Convolutions& k;
  JtreluConvolutionSizes s;
  std::vector<float> bias;
  Aligned forward, backward, workspace;

  DirectPass(const JtreluF32Convolutions& kernels, const JtreluConvolutionSizes& sizes,
             const std::vector<float>& weights)
      : k(kernels),
        s(sizes),
        bias(sizes.oc),
        forward(k.packedBytes(&s, 0)),
        backward(k.packedBytes(&s, 1)),
        workspace(k.workspaceBytes(&s)) {
    k.pack(&s, weights.data(), static_cast<float*>(static_cast<void*>(forward)),
           static_cast<float*>(static_cast<void*>(backward)));
  }

  std::vector<float> run(const JtreluConvolutionSizes& part, const float* x) {
    std::vector<float> y(size_t(part.n) * part.oh * part.ow * part.oc, NAN);
    k.forward(&part, x, static_cast<float*>(static_cast<void*>(forward)), bias.data(), 1, 1, y.data(), workspace);
    return y;
  }

  std::vector<float> back(const std::vector<float>& e) {
    std::vector<float> y(size_t(s.n) * s.h * s.w * s.ic, NAN);
    k.backwardData(&s, e.data(), static_cast<float*>(static_cast<void*>(backward)), nullptr, 1, 1, 0, y.data(),
                   workspace);
    return y;
  }
};

/// Results of a pixel have the same bits whatever is computed beside it: images or rows of them.
void parts(const JtreluF32Convolutions& k, int32_t in, int32_t out) {
  const JtreluConvolutionSizes whole = {3, 11, 12, in, 11, 12, out, 1, 1, 1, 1, 0, 0};
  const auto x = normals(size_t(whole.n) * whole.h * whole.w * whole.ic);
  DirectPass pass(k, whole, normals(size_t(whole.oc) * whole.ic));
  const auto all = pass.run(whole, x.data());
  JtreluConvolutionSizes part = whole;
  part.n = 1;
  for (int rows : {11, 4, 1}) {
    part.h = part.oh = rows;
    for (int image = 0; image < whole.n; image++) {
      for (int row = 0; row + rows <= whole.h; row += rows) {
        const size_t pixel = size_t(image * whole.h + row) * whole.w;
        const auto y = pass.run(part, x.data() + pixel * whole.ic);
        for (size_t i = 0; i < y.size(); i++) near("part", i, y[i], all[pixel * whole.oc + i], 0);
      }
    }
  }
}

/// What is no ordinary number: all bits of a product by one, the largest numbers, subnormal ones, NaN and infinity.
void directExtremes(const JtreluF32Convolutions& k) {
  const int c = 60;
  const JtreluConvolutionSizes s = {1, 6, 7, c, 6, 7, c, 1, 1, 1, 1, 0, 0};
  const size_t pixels = size_t(s.h) * s.w, elements = pixels * c;
  std::vector<float> one(c * c);
  for (int i = 0; i < c; i++) one[i * c + i] = 1;
  DirectPass identity(k, s, one);
  std::vector<float> x(elements), tiny(elements);
  std::uniform_int_distribution<uint32_t> bits(0x0c000000, 0x7f7fffff), subnormal(0, 0x00ffffff);
  for (size_t i = 0; i < elements; i++) {
    uint32_t b = bits(engine) | uint32_t(engine() & 1) << 31;
    memcpy(&x[i], &b, 4);
    b = subnormal(engine);
    memcpy(&tiny[i], &b, 4);
  }
  x[5] = 0x1.fffffep127f;
  x[6] = -0x1.ff0002p127f;  // to which bfloat16 is infinity nearest
  auto y = identity.run(s, x.data());
  for (size_t i = 0; i < elements; i++) near("times one", i, y[i], x[i], 0);
  y = identity.back(x);
  for (size_t i = 0; i < elements; i++) near("back, times one", i, y[i], x[i], 0);
  y = identity.run(s, tiny.data());
  for (size_t i = 0; i < elements; i++) near("subnormal", i, y[i], tiny[i], 0x1p-125);
  std::vector<float> e(elements), dw(c * c), db(c);
  for (int i = 0; i < c; i++) e[i * c + i % c] = i < int(pixels) ? 1 : 0;
  k.gradients(&s, x.data(), e.data(), dw.data(), db.data(), 0, identity.workspace);
  for (int i = 0; i < c * c; i++) near("gradient, by one", i, dw[i], i / c < int(pixels) ? x[i] : 0, 0);

  // A single product is off by what is left out of it and a rounding.
  const auto factors = normals(c), ordinary = normals(elements);
  std::vector<float> diagonal(c * c);
  for (int i = 0; i < c; i++) diagonal[i * c + i] = factors[i];
  y = DirectPass(k, s, diagonal).run(s, ordinary.data());
  for (size_t i = 0; i < elements; i++) {
    const double product = double(ordinary[i]) * factors[i % c];
    near("product", i, y[i], product, 2.25 * kEpsilon * std::abs(product));
  }

  // All of a pixel's results depend on what is not finite in it, and nothing else does.
  const auto weights = normals(c * c);
  DirectPass dense(k, s, weights);
  for (float value : {float(NAN), float(INFINITY), -float(INFINITY)}) {
    auto z = normals(elements);
    const auto finite = dense.run(s, z.data());
    z[2 * c + 1] = value;  // which lies just behind another pixel
    y = dense.run(s, z.data());
    for (size_t i = 0; i < elements; i++) {
      if (i / c == 2) {
        checks++;
        if (std::isnan(value) ? !std::isnan(y[i]) : std::isfinite(y[i])) fail("not finite", i, y[i], value, 0);
      } else {
        near("beside what is not finite", i, y[i], finite[i], 0);
      }
    }
    std::vector<float> gradient(c * c);
    k.gradients(&s, z.data(), finite.data(), gradient.data(), db.data(), 0, dense.workspace);
    for (int i = 0; i < c * c; i++) {
      checks++;
      if (std::isfinite(gradient[i]) != (i % c != 1)) fail("gradient of what is not finite", i, gradient[i], 0, 0);
    }
    auto poisoned = weights;
    poisoned[3 * c + 4] = value;
    y = DirectPass(k, s, poisoned).run(s, x.data());
    for (size_t i = 3; i < elements; i += c) {
      checks++;
      if (std::isfinite(y[i])) fail("by a weight that is not finite", i, y[i], value, 0);
    }
  }
}

void orthogonal(const JtreluOrthogonal& q) {
  const int64_t sizes[][2] = {{1, 1}, {7, 3}, {64, 64}, {100, 65}, {300, 130}};
  for (auto [m, k] : sizes) {
    for (int transposed : {0, 1}) {
      Aligned reflections(q.reflectionBytes(m, k)), workspace(q.panelBytes(m, k));
      for (int64_t block = 0; block < (k + 63) / 64; block++)
        q.draw(m, k, block, 7, 3, static_cast<float*>(static_cast<void*>(reflections)));
      std::vector<float> matrix(m * k, NAN);
      for (int64_t panel = 0; panel < (k + 63) / 64; panel++)
        q.panel(m, k, panel, 2, transposed, static_cast<float*>(static_cast<void*>(reflections)), matrix.data(),
                static_cast<float*>(static_cast<void*>(workspace)));
      const auto at = [&](int64_t row, int64_t column) {
        return double(transposed ? matrix[column * m + row] : matrix[row * k + column]);
      };
      for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) {
          double inner = 0;
          for (int64_t row = 0; row < m; row++) inner += at(row, i) * at(row, j);
          near("inner product of columns", i * k + j, inner, i == j ? 4 : 0, 1e-5);
        }
    }
  }
}

}  // namespace

int main() {
  if (jtreluCpuVersion() != kJtreluCpuVersion) {
    printf("FAILED: version %d, expected %d\n", jtreluCpuVersion(), kJtreluCpuVersion);
    return 1;
  }
  for (int index = 0;; index++) {
    const JtreluCpuKernels* k = jtreluCpuKernels(index);
    if (k == nullptr) break;
    checks = 0;
    parameters(k->parameters);
    elements<F32>(k->f32Activations);
    elements<Bf16>(k->bf16Activations);
    normalisation<F32>(k->f32BatchNorm);
    normalisation<Bf16>(k->bf16BatchNorm);
    maxPool<F32>(k->f32MaxPool);
    maxPool<Bf16>(k->bf16MaxPool);
    convolutions<F32>(k->f32);
    convolutions<Bf16>(k->bf16);
    directConvolutions(k->direct);
    stridedWinograd(k->stridedWinograd);
    fewChannels(k->fewChannels);
    strassen(k->strassen);
    parts(k->direct, 94, 62);
    parts(k->strassen, 96, 64);
    directExtremes(k->direct);
    orthogonal(k->orthogonal);
    printf("%s: %ld checks passed\n", k->instructionSet, checks);
  }
  return checks > 0 ? 0 : 1;
}
