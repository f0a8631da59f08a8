// conv2d_fprop_sm90_*: what conv2d_fprop does, for compute capability 9.0: convolution, bias, normalised sum and rectifier in one pass, by
// wgmma and TMA.
//
//   dst[n,p,q,k] = phi(bias[k] + sum_{r,s,c} src[n, p*sh - pt + r*dh, q*sw - pl + s*dw, c]
//                                            * weights[k,r,s,c]),   phi(x) = scale * (x>0 ? x : slope*x)
//   and, where asked for, a bit for each element of dst: whether it is above zero
//   or, where `gate` is a shortcut: dst = phi(branchWeight * (that before phi) + shortcutWeight * gate)
//
// src NHWC, weights packed "forward" (conv2d_pack.cu), bias f32, dst NHWC, bf16 or f16; sums in f32; any filter and stride that an im2col
// tensor map tells. Channels are multiples of 8, for signs those of dst of 32; one group. Tiles, threads and shared memory:
// conv2d_sm90_variants.def. Registers: 168 or 128 by the size of the block, of which the loading warps leave the others 232 or 160; no
// local memory. The main loop is conv2d_sm90.cuh; only the epilogue is here. Oracle: backend/reference (HopperConvolutionTest).
#include "conv2d_sm90_window.cuh"

namespace {

template <class T>
struct FpropEpilogue {
  const Conv2dSm90Params& p;
  Sm90Slice at;
  uint32_t signs = 0;  // 8 * (j % 4) + 4 * pixel + 2 * (j / 4) is the first bit of two channels

  __device__ __forceinline__ FpropEpilogue(const Conv2dSm90Params& params, Sm90Slice slice)
      : p(params), at(slice) {}

  __device__ __forceinline__ void pack(int j, const float* x, uint32_t* packed) {
    int const k = at.channelOf(j);
    float2 const bias =
        k < p.outC ? __ldg(reinterpret_cast<const float2*>(p.bias + k)) : float2{0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float2 y = {x[2 * i] + bias.x, x[2 * i + 1] + bias.y};
      if (p.gate != nullptr) {
        float2 const other = pairAt<T>(p.gate, p, at.pixel + 8 * i, k);
        y.x = p.branchWeight * y.x + p.shortcutWeight * other.x;
        y.y = p.branchWeight * y.y + p.shortcutWeight * other.y;
      }
      packed[i] = T::pack(rectify(y.x, p.scale, p.slope), rectify(y.y, p.scale, p.slope));
      signs |= above(unpackPair<T>(packed[i])) << (j % 4 * 8 + 4 * i + j / 4 * 2);
    }
  }

  // A lane's bits where they belong in the word of 32 channels of a pixel.
  __device__ __forceinline__ uint32_t wordOf(int pixel, bool second, uint32_t lane) const {
    return (signs >> (4 * pixel + (second ? 2 : 0)) & 0x03030303u) << (lane % 4 * 2);
  }

  // The four lanes of a pixel share four words: each puts one together, and stores it.
  __device__ __forceinline__ void finish() const {
    if (p.signs == nullptr) {
      return;
    }
    uint32_t const lane = at.lane;
    bool const second = lane & 1;  // 32 channels
    bool const below = lane & 2;  // pixel
    uint32_t of[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t const given = wordOf(i, !second, lane);
      of[i] = wordOf(i, second, lane) | __shfl_xor_sync(0xffffffffu, given, 1);
    }
    uint32_t const given = __shfl_xor_sync(0xffffffffu, below ? of[0] : of[1], 2);
    int const pixel = at.pixel + (below ? 8 : 0);
    int const channel = at.channel + (second ? 32 : 0);
    if (pixel < p.pixels && channel < p.outC) {
      *signWord(p, pixel, channel) = (below ? of[1] : of[0]) | given;
    }
  }
};

}  // namespace

#define PASS fprop
#define EPILOGUE FpropEpilogue
#include "conv2d_sm90_kernels.cuh"
