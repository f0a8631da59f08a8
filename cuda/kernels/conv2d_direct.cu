// Direct convolution: any groups, stride, padding, dilation and channel count. The fallback where no
// tiled kernel fits; simple rather than fast.
//
//   fprop  out[n,p,q,k] = phi(bias[k] + sum_{r,s,c} in[n, p*sh-pt+r*dh, q*sw-pl+s*dw, g*icg+c] w[k,r,s,c])
//          or phi(branch_weight * that before phi + shortcut_weight * gate[n,p,q,k]) where gate is given
//   dgrad  out[n,y,x,c] = ([out +] sum over taps and k of in[n,p,q,k] w[k,r,s,c]) * psi'(gate)
//   wgrad  partial[split][k,r,s,c] = sum over the split's rows (n,p) and q of in * gate, then [oc]
//          column sums of gate for the bias; conv2d_wgrad_reduce adds the splits in their order
//   pack   weights KRSC -> RSCK, so that fprop's warps read along k
//
// Layout NHWC; icg, ocg = channels per group; in/gate: fprop src/shortcut, dgrad diff_dst/src, wgrad
// src/diff_dst. A thread owns one output (wgrad: one weight and split). Threads: 256; no shared
// memory; aims at 64 registers. Accumulation in float. Bound: load issue, about 1/10 of FFMA peak.
// Limits: none. Oracle: Conv2dContract.
#include "storage.cuh"

constexpr int kThreads = 256;

struct Conv2dDirectParameters {
  const void* in;
  const void* gate;
  const float* weights;
  const float* bias;
  void* out;
  long long count;  // outputs: threads in x with work
  long long split_stride;  // wgrad: floats from one split to the next
  int n, h, w, ic, oc, oh, ow;
  int kh, kw, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups;
  Rectifier rectifier;
  int accumulate;
  int derivative;
  int rows_per_split;  // of n * oh
  float branch_weight;
  float shortcut_weight;
};

template <typename T>
__device__ __forceinline__ void conv2d_direct_fprop(const Conv2dDirectParameters& p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.count) {
    return;
  }
  int k, q, row;
  const long long image = divide(divide(divide(i, p.oc, &k), p.ow, &q), p.oh, &row);
  const int icg = p.ic / p.groups;
  const int group = k / (p.oc / p.groups);
  const T* src = static_cast<const T*>(p.in) + image * p.h * p.w * p.ic + group * icg;
  float sum = 0;
  for (int r = 0; r < p.kh; ++r) {
    const int y = row * p.stride_h - p.pad_top + r * p.dilation_h;
    if (y < 0 || y >= p.h) {
      continue;
    }
    for (int s = 0; s < p.kw; ++s) {
      const int x = q * p.stride_w - p.pad_left + s * p.dilation_w;
      if (x < 0 || x >= p.w) {
        continue;
      }
      const T* pixel = src + (static_cast<long long>(y) * p.w + x) * p.ic;
      const float* weight = p.weights + static_cast<long long>(r * p.kw + s) * icg * p.oc + k;
      for (int c = 0; c < icg; ++c) {
        sum += widen(pixel[c]) * *weight;
        weight += p.oc;
      }
    }
  }
  sum += p.bias[k];
  if (p.gate != nullptr) {
    sum = p.branch_weight * sum + p.shortcut_weight * widen(static_cast<const T*>(p.gate)[i]);
  }
  static_cast<T*>(p.out)[i] = narrow<T>(p.rectifier(sum));
}

template <typename T>
__device__ __forceinline__ void conv2d_direct_dgrad(const Conv2dDirectParameters& p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.count) {
    return;
  }
  int c, x, y;
  const long long image = divide(divide(divide(i, p.ic, &c), p.w, &x), p.h, &y);
  const int icg = p.ic / p.groups;
  const int ocg = p.oc / p.groups;
  const int group = c / icg;
  const T* diff = static_cast<const T*>(p.in) + image * p.oh * p.ow * p.oc + group * ocg;
  const long long filter = static_cast<long long>(p.kh) * p.kw * icg;
  const float* weights = p.weights + group * ocg * filter + c % icg;
  float sum = 0;
  for (int r = 0; r < p.kh; ++r) {
    const int row = y + p.pad_top - r * p.dilation_h;
    if (row < 0 || row % p.stride_h != 0 || row / p.stride_h >= p.oh) {
      continue;
    }
    for (int s = 0; s < p.kw; ++s) {
      const int column = x + p.pad_left - s * p.dilation_w;
      if (column < 0 || column % p.stride_w != 0 || column / p.stride_w >= p.ow) {
        continue;
      }
      const T* pixel =
          diff + (static_cast<long long>(row / p.stride_h) * p.ow + column / p.stride_w) * p.oc;
      const float* weight = weights + static_cast<long long>(r * p.kw + s) * icg;
      for (int k = 0; k < ocg; ++k) {
        sum += widen(pixel[k]) * *weight;
        weight += filter;
      }
    }
  }
  T* out = static_cast<T*>(p.out);
  if (p.accumulate) {
    sum += widen(out[i]);
  }
  if (p.derivative) {
    sum *= p.rectifier.derivative(widen(static_cast<const T*>(p.gate)[i]));
  }
  out[i] = narrow<T>(sum);
}

template <typename T>
__device__ __forceinline__ void conv2d_direct_wgrad(const Conv2dDirectParameters& p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.count) {
    return;
  }
  const int icg = p.ic / p.groups;
  const long long weights = p.count - p.oc;
  const bool bias = i >= weights;
  int c = 0, s = 0, r = 0;
  const int k =
      static_cast<int>(bias ? i - weights : divide(divide(divide(i, icg, &c), p.kw, &s), p.kh, &r));
  const T* src = static_cast<const T*>(p.in) + k / (p.oc / p.groups) * icg + c;
  const T* diff = static_cast<const T*>(p.gate) + k;
  const long long rows = static_cast<long long>(p.n) * p.oh;
  const long long begin = static_cast<long long>(blockIdx.y) * p.rows_per_split;
  const long long end = begin + p.rows_per_split < rows ? begin + p.rows_per_split : rows;
  float sum = 0;
  for (long long row = begin; row < end; ++row) {
    int out_y;
    const long long image = divide(row, p.oh, &out_y);
    const T* gradient = diff + row * p.ow * p.oc;
    float row_sum = 0;
    if (bias) {
      for (int q = 0; q < p.ow; ++q) {
        row_sum += widen(gradient[static_cast<long long>(q) * p.oc]);
      }
    } else {
      const int y = out_y * p.stride_h - p.pad_top + r * p.dilation_h;
      if (y < 0 || y >= p.h) {
        continue;
      }
      const T* line = src + (image * p.h + y) * p.w * p.ic;
      for (int q = 0; q < p.ow; ++q) {
        const int x = q * p.stride_w - p.pad_left + s * p.dilation_w;
        if (x >= 0 && x < p.w) {
          row_sum += widen(gradient[static_cast<long long>(q) * p.oc]) *
                     widen(line[static_cast<long long>(x) * p.ic]);
        }
      }
    }
    sum += row_sum;
  }
  static_cast<float*>(p.out)[blockIdx.y * p.split_stride + i] = sum;
}

ENTRY_POINTS(conv2d_direct_fprop, Conv2dDirectParameters, kThreads)
ENTRY_POINTS(conv2d_direct_dgrad, Conv2dDirectParameters, kThreads)
ENTRY_POINTS(conv2d_direct_wgrad, Conv2dDirectParameters, kThreads)

struct Conv2dDirectPackParameters {
  const float* weights;  // KRSC [oc, taps * icg]
  float* packed;  // [taps * icg, oc]
  long long count;
  int oc;
  int filter;  // taps * icg
};

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    conv2d_direct_pack(const __grid_constant__ Conv2dDirectPackParameters p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < p.count) {
    int k;
    const long long position = divide(i, p.oc, &k);
    p.packed[i] = p.weights[static_cast<long long>(k) * p.filter + position];
  }
}
