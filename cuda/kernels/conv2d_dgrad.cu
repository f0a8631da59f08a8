// conv2d_dgrad_*: data gradient, and the derivative of the rectifier below, in one pass.
//
//   diff_src[n,y,x,c] = ([diff_src +] sum_{k,r,s} diff_dst[n,p,q,k] * weights[k,r,s,c]) * g(src),
//   the sum over all taps (r,s) for which y = p*sh - pt + r*dh and x = q*sw - pl + s*dw with whole
//   p, q inside diff_dst;   g(y) = scale * (y > 0 ? 1 : slope), or 1 where `gate` is null
//
// diff_dst NHWC, weights packed "backward" (conv2d_pack.cu), diff_src and src NHWC (they may be the
// same tensor: a thread reads exactly the elements it then writes); sums in f32; one group.
// With a stride, pixels of one phase (y mod sh, x mod sw) are reached by the same taps, so each
// phase is a dense convolution of stride 1 of its own and no product with a zero is computed.
// Tiles, threads, shared memory: conv2d_variants.def. Oracle: backend/reference, cuda/tests.
#include "conv2d_gather.cuh"

namespace {

template <class T, int kBlockM, int kBlockN, int kStages, int kWarpM, int kWarpN, int kChannels>
__device__ __forceinline__ void dgrad(const Conv2dParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  using Tile = GatherTile<T, kBlockM, kBlockN, kWarpM, kWarpN>;
  using Storage = typename T::Storage;
  constexpr int kVector = T::kVector;

  TileIndex const index = tileOf(p, blockIdx.x);
  WindowAxis const h =
      dgradAxis(p.kernelH, p.strideH, p.dilationH, p.padTop, p.tapStepH, index.phaseH);
  WindowAxis const w =
      dgradAxis(p.kernelW, p.strideW, p.dilationW, p.padLeft, p.tapStepW, index.phaseW);
  Tile tile;
  gatherProduct<T, kBlockM, kBlockN, kStages, kChannels>(p, h, w, index, shared, tile);

  uint32_t const pixels = static_cast<uint32_t>(p.batch) * p.byGridPixels.divisor;
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
    uint32_t const m = static_cast<uint32_t>(index.m) * kBlockM + tile.row(i);
    uint32_t pixel;
    uint32_t gridX;
    uint32_t const n = p.byGridPixels.split(m, pixel);
    uint32_t const gridY = p.byGridW.split(pixel, gridX);
    int const y = static_cast<int>(gridY) * p.strideH + index.phaseH;
    int const x = static_cast<int>(gridX) * p.strideW + index.phaseW;
    if (m >= pixels || y >= p.outH || x >= p.outW) {
      continue;
    }
    int64_t const row =
        ((static_cast<int64_t>(n) * p.outH + y) * p.outW + x) * p.outC + index.n * kBlockN;
#pragma unroll
    for (int v = 0; v < Tile::kVectors; ++v) {
      int const column = tile.column(v);
      int const valid = p.outC - (index.n * kBlockN + column);
      if (valid <= 0) {
        continue;
      }
      float d[kVector];
      tile.read(i, v, d);
      Storage* const out = static_cast<Storage*>(p.out) + row + column;
      const Storage* const gate = static_cast<const Storage*>(p.gate) + row + column;
      if (p.vectorOut) {
        if (p.accumulate) {
          float old[kVector];
          unpackVector<T>(*reinterpret_cast<const uint4*>(out), old);
#pragma unroll
          for (int e = 0; e < kVector; ++e) {
            d[e] += old[e];
          }
        }
        if (p.gate != nullptr) {
          float y0[kVector];
          unpackVector<T>(*reinterpret_cast<const uint4*>(gate), y0);
#pragma unroll
          for (int e = 0; e < kVector; ++e) {
            d[e] *= p.scale * (y0[e] > 0.0f ? 1.0f : p.slope);
          }
        }
        *reinterpret_cast<uint4*>(out) = packVector<T>(d);
      } else {
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          if (e < valid) {
            float value = d[e];
            if (p.accumulate) {
              value += T::toFloat(out[e]);
            }
            if (p.gate != nullptr) {
              value *= p.scale * (T::toFloat(gate[e]) > 0.0f ? 1.0f : p.slope);
            }
            out[e] = T::fromFloat(value);
          }
        }
      }
    }
  }
}

}  // namespace

#define DGRAD(name, type, channels, blockM, blockN, blockK, stages, warpM, warpN, threads, bytes)   \
  static_assert(GatherTile<type, blockM, blockN, warpM, warpN>::kThreads == threads);              \
  static_assert(blockK * sizeof(type::Storage) == kRowBytes);                                      \
  static_assert(stages * (blockM + blockN) * kRowBytes == bytes);                                  \
  extern "C" __global__ void __launch_bounds__(threads, blocksPerMultiprocessor<type>(threads))    \
      name(const __grid_constant__ Conv2dParams params) {                                          \
    dgrad<type, blockM, blockN, stages, warpM, warpN, channels>(params);                           \
  }
#define FPROP(...)
#define WGRAD(...)
#include "conv2d_variants.def"
