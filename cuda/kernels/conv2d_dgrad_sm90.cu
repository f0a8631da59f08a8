// conv2d_dgrad_sm90_*: what conv2d_dgrad does for filters of stride 1, for compute capability 9.0: data gradient, and the derivative of the
// rectifier below, in one pass, by wgmma and TMA.
//
//   diff_src[n,y,x,c] = ([diff_src +] sum_{k,r,s} diff_dst[n, y + pt - r*dh, x + pl - s*dw, k] * weights[k,r,s,c]) * g(src);
//   g(y) = scale * (y > 0 ? 1 : slope), from src itself or from a bit for each of its elements; where there is neither, scale and slope are 1
//
// Taps come in reverse: with r = R - 1 - t the gathered row is y - ((R - 1) * dh - pt) + t * dh, an fprop's. diff_dst NHWC, weights packed
// "backward" (conv2d_pack.cu), diff_src and src NHWC (they may be the same tensor: a warpgroup reads what it then writes), bf16 or f16; sums
// in f32. Channels are multiples of 8, for signs those of src of 32; one group. Tiles, threads and shared memory:
// conv2d_sm90_variants.def. Registers: as of conv2d_fprop_sm90; no local memory. The main loop is conv2d_sm90.cuh; only the epilogue is
// here. Oracle: backend/reference (HopperConvolutionTest).
#include "conv2d_sm90_window.cuh"

namespace {

template <class T>
struct DgradEpilogue {
  const Conv2dSm90Params& p;
  Sm90Slice at;
  uint32_t signs
      [2];  // of the 32 channels at hand, of both pixels: the lane's bits are the first two of each 8

  __device__ __forceinline__ DgradEpilogue(const Conv2dSm90Params& params, Sm90Slice slice)
      : p(params), at(slice) {}

  __device__ __forceinline__ uint32_t signsOf(int pixel, int j) const {
    uint32_t of = 0;
    if (p.signs != nullptr) {
      int const channel = at.channel + j * 8;
      of = pixel < p.pixels && channel < p.outC ? *signWord(p, pixel, channel) : 0;
      of >>= at.lane % 4 * 2;
    } else if (p.gate != nullptr) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        of |= above(pairAt<T>(p.gate, p, pixel, at.channelOf(j + i))) << (8 * i);
      }
    }
    return of;
  }

  __device__ __forceinline__ void pack(int j, const float* x, uint32_t* packed) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int const pixel = at.pixel + 8 * i;
      if (j % 4 == 0) {
        signs[i] = signsOf(pixel, j);
      }
      float2 d = {x[2 * i], x[2 * i + 1]};
      if (p.old != nullptr) {
        float2 const before = pairAt<T>(p.old, p, pixel, at.channelOf(j));
        d.x += before.x;
        d.y += before.y;
      }
      d.x *= p.scale * (signs[i] >> (j % 4 * 8) & 1 ? 1.0f : p.slope);
      d.y *= p.scale * (signs[i] >> (j % 4 * 8) & 2 ? 1.0f : p.slope);
      packed[i] = T::pack(d.x, d.y);
    }
  }

  __device__ __forceinline__ void finish() const {}
};

}  // namespace

#define PASS dgrad
#define EPILOGUE DgradEpilogue
#include "conv2d_sm90_kernels.cuh"
