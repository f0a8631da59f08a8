// The epilogues of the kernels for compute capability 9.0: what storeTile (conv2d_sm90.cuh) is to store of a pass's sums. A lane has two
// channels of each 8, of two pixels.
#pragma once

#include "conv2d_sm90.cuh"

// Bias, normalised sum, rectifier, and signs of the result.
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

// The derivative of the rectifier below, by signs or by its result, and accumulation.
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
