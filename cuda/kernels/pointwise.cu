// A transformed activation as an operation of its own, one kernel per named function phi:
//
//   forward   out = g * (phi(a * src + b) + d)                       out may be src
//   backward  out = [out +] diff * g * a * phi'(z)                   out may be diff
//             z = saved / g - d = phi's value where the output is saved, else a * saved + b
//
// The functions and their derivatives are those of io.jtrelu.activation.Activation. Shapes: any, as
// a flat run of n elements. Threads: 256, each one pack of 16 bytes; no shared memory; aims at 64
// registers. Bound: memory for the algebraic functions, else the special-function units; 2 passes
// forward, 3 backward (4 when accumulating). Accuracy: a few units in the last place. Limits: none.
// Oracle: PointwiseContract.
#include "elementwise.cuh"

struct PointwiseParameters {
  const void* src;  // backward: what was saved
  const void* diff;
  void* out;
  long long n;
  float input_scale;
  float input_shift;
  float output_scale;
  float output_shift;
  float negative_slope;
  int accumulate;
  int saves_output;
};

// 1 / (1 + exp(-x)) and its derivative, without overflow.
__device__ __forceinline__ float logistic(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

__device__ __forceinline__ float logistic_slope(float x) {
  const float e = expf(-fabsf(x));
  return e / ((1.0f + e) * (1.0f + e));
}

// sqrt(x^2 + 1), without overflow.
__device__ __forceinline__ float root(float x) {
  return fabsf(x) > 1e4f ? fabsf(x) : sqrtf(fmaf(x, x, 1.0f));
}

constexpr float kSeluScale = 1.0507009873554805f;
constexpr float kSeluAlpha = 1.6732632423543772f;
constexpr float kGeluScale = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float kGeluCubic = 0.044715f;
constexpr float kSaturated = 100.0f;  // beyond it logistic functions are 0 or 1

// Each function: value(x), and slope(z) with z the value where the output is saved, else x.

struct Tanh {
  __device__ static float value(float x, float) { return tanhf(x); }
  __device__ static float slope(float y, const PointwiseParameters&) { return (1 - y) * (1 + y); }
};

struct Softplus {
  __device__ static float value(float x, float) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
  __device__ static float slope(float y, const PointwiseParameters&) { return -expm1f(-y); }
};

struct LeakyRelu {
  __device__ static float value(float x, float slope) { return x >= 0 ? x : slope * x; }
  __device__ static float slope(float z, const PointwiseParameters& p) {
    return z > 0 ? 1.0f : p.negative_slope;
  }
};

struct Relu {
  __device__ static float value(float x, float) { return x <= 0 ? 0.0f : x; }  // NaN stays
  __device__ static float slope(float x, const PointwiseParameters&) { return x > 0 ? 1.0f : 0.0f; }
};

struct Selu {
  __device__ static float value(float x, float) {
    return kSeluScale * (x >= 0 ? x : kSeluAlpha * expm1f(x));
  }
  __device__ static float slope(float y, const PointwiseParameters&) {
    return y > 0 ? kSeluScale : y + kSeluScale * kSeluAlpha;
  }
};

struct Elu {
  __device__ static float value(float x, float) { return x >= 0 ? x : expm1f(x); }
  __device__ static float slope(float y, const PointwiseParameters&) {
    return y > 0 ? 1.0f : y + 1.0f;
  }
};

struct Swish {
  __device__ static float value(float x, float) {
    return x < -kSaturated ? -0.0f : x * logistic(x);
  }
  __device__ static float slope(float x, const PointwiseParameters&) {
    if (fabsf(x) > kSaturated) {
      return x > 0 ? 1.0f : 0.0f;
    }
    return logistic(x) + x * logistic_slope(x);
  }
};

struct Sigmoid {
  __device__ static float value(float x, float) { return logistic(x); }
  __device__ static float slope(float y, const PointwiseParameters&) { return y * (1 - y); }
};

struct Erf {
  __device__ static float value(float x, float) { return erff(x); }
  __device__ static float slope(float x, const PointwiseParameters&) {
    return 1.1283791670955126f * expf(-x * x);  // 2 / sqrt(pi)
  }
};

struct Bentid {
  __device__ static float value(float x, float) {
    return fabsf(x) > 1e4f ? x + (fabsf(x) - 1) / 2 : x + x * x / (2 * (root(x) + 1));
  }
  __device__ static float slope(float x, const PointwiseParameters&) {
    return 1 + x / (2 * root(x));
  }
};

struct Atan {
  __device__ static float value(float x, float) { return atanf(x); }
  __device__ static float slope(float x, const PointwiseParameters&) {
    return 1 / fmaf(x, x, 1.0f);
  }
};

struct Asinh {
  __device__ static float value(float x, float) { return asinhf(x); }
  __device__ static float slope(float x, const PointwiseParameters&) { return 1 / root(x); }
};

struct Square {
  __device__ static float value(float x, float) { return x * x; }
  __device__ static float slope(float x, const PointwiseParameters&) { return 2 * x; }
};

struct Softsign {
  __device__ static float value(float x, float) { return x / (1 + fabsf(x)); }
  __device__ static float slope(float y, const PointwiseParameters&) {
    return (1 - fabsf(y)) * (1 - fabsf(y));
  }
};

struct Gelu {
  __device__ static float argument(float x) {
    return 2 * kGeluScale * (x + kGeluCubic * x * x * x);
  }
  __device__ static float value(float x, float) {
    if (fabsf(x) > kSaturated) {
      return x > 0 ? x : -0.0f;
    }
    return x * logistic(argument(x));
  }
  __device__ static float slope(float x, const PointwiseParameters&) {
    if (fabsf(x) > kSaturated) {
      return x > 0 ? 1.0f : 0.0f;
    }
    const float u = argument(x);
    return logistic(u) + x * logistic_slope(u) * (2 * kGeluScale * (1 + 3 * kGeluCubic * x * x));
  }
};

struct GeluExact {
  __device__ static float value(float x, float) {
    return x < -kSaturated ? -0.0f : x * normcdff(x);
  }
  __device__ static float slope(float x, const PointwiseParameters&) {
    if (fabsf(x) > kSaturated) {
      return x > 0 ? 1.0f : 0.0f;
    }
    return normcdff(x) + x * (0.3989422804014327f * expf(-x * x / 2));  // 1 / sqrt(2 pi)
  }
};

constexpr int kPacks = 1;  // the functions are long; two packs would double the code

template <typename F, typename T>
__device__ __forceinline__ void forward(const PointwiseParameters& p) {
  constexpr int N = kPackOf<T>;
  const T* const in[] = {static_cast<const T*>(p.src)};
  map_packs<N, kPacks>(
      in, static_cast<T*>(p.out), p.n, [&](long long, const float(&x)[1][N], float(&y)[N]) {
#pragma unroll
        for (int lane = 0; lane < N; ++lane) {
          const float inner = fmaf(p.input_scale, x[0][lane], p.input_shift);
          y[lane] = p.output_scale * (F::value(inner, p.negative_slope) + p.output_shift);
        }
      });
}

template <typename F, typename T, int INPUTS>
__device__ __forceinline__ void backward(const PointwiseParameters& p,
                                         const T* const (&in)[INPUTS]) {
  constexpr int N = kPackOf<T>;
  const float factor = p.output_scale * p.input_scale;
  map_packs<N, kPacks>(
      in, static_cast<T*>(p.out), p.n, [&](long long, const float(&x)[INPUTS][N], float(&y)[N]) {
#pragma unroll
        for (int lane = 0; lane < N; ++lane) {
          const float z = p.saves_output ? x[0][lane] / p.output_scale - p.output_shift
                                         : fmaf(p.input_scale, x[0][lane], p.input_shift);
          const float gradient = x[1][lane] * (factor * F::slope(z, p));
          y[lane] = INPUTS == 3 ? x[INPUTS - 1][lane] + gradient : gradient;
        }
      });
}

template <typename F, typename T>
__device__ __forceinline__ void backward(const PointwiseParameters& p) {
  const T* saved = static_cast<const T*>(p.src);
  const T* diff = static_cast<const T*>(p.diff);
  if (p.accumulate) {
    const T* const in[] = {saved, diff, static_cast<const T*>(p.out)};
    backward<F>(p, in);
  } else {
    const T* const in[] = {saved, diff};
    backward<F>(p, in);
  }
}

#define POINTWISE(name, F)                                                                         \
  template <typename T>                                                                            \
  __device__ __forceinline__ void pointwise_forward_##name(const PointwiseParameters& p) {         \
    forward<F, T>(p);                                                                              \
  }                                                                                                \
  template <typename T>                                                                            \
  __device__ __forceinline__ void pointwise_backward_##name(const PointwiseParameters& p) {        \
    backward<F, T>(p);                                                                             \
  }                                                                                                \
  ENTRY_POINTS(pointwise_forward_##name, PointwiseParameters, kThreads)                            \
  ENTRY_POINTS(pointwise_backward_##name, PointwiseParameters, kThreads)

POINTWISE(tanh, Tanh)
POINTWISE(softplus, Softplus)
POINTWISE(leaky_relu, LeakyRelu)
POINTWISE(relu, Relu)
POINTWISE(selu, Selu)
POINTWISE(elu, Elu)
POINTWISE(swish, Swish)
POINTWISE(sigmoid, Sigmoid)
POINTWISE(erf, Erf)
POINTWISE(bentid, Bentid)
POINTWISE(atan, Atan)
POINTWISE(asinh, Asinh)
POINTWISE(square, Square)
POINTWISE(softsign, Softsign)
POINTWISE(gelu, Gelu)
POINTWISE(gelu_exact, GeluExact)
