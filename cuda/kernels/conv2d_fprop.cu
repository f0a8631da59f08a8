// conv2d_fprop_*: convolution, bias, normalised sum and rectifier in one pass.
//
//   dst[n,p,q,k] = phi(bias[k] + sum_{r,s,c} src[n, p*sh - pt + r*dh, q*sw - pl + s*dw, c]
//                                            * weights[k,r,s,c]),   phi(x) = scale * (x>0 ? x : slope*x)
//   and, where asked for, a bit for each element of dst: whether it is above zero
//   or, where `gate` is a shortcut: dst = phi(branchWeight * (that before phi) + shortcutWeight * gate)
//
// src NHWC, weights packed "forward" (conv2d_pack.cu), bias f32, dst NHWC; sums in f32; elements
// outside src count as zero; one group. Tiles, threads and shared memory: conv2d_variants.def.
// Registers: 245 for 64x64 warp tiles, 140 for 64x32, 168 at most for FFMA; no local memory. Variants:
// _any for every channel count, _stem for few, _stem4 for four. The main loop is conv2d_gather.cuh; only the epilogue
// is here. Oracle: backend/reference, cuda/tests.
#include <type_traits>

#include "conv2d_gather.cuh"

namespace {

// bias[k ..], zero where there is none.
template <int kVector>
__device__ __forceinline__ void loadBias(const Conv2dParams& p, int k, float (&bias)[kVector]) {
#pragma unroll
  for (int e = 0; e < kVector; e += 4) {
    if (p.vectorOut && reinterpret_cast<uintptr_t>(p.bias) % 16 == 0) {
      float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (p.bias != nullptr && k < p.outC) {
        four = __ldg(reinterpret_cast<const float4*>(p.bias + k + e));
      }
      bias[e] = four.x;
      bias[e + 1] = four.y;
      bias[e + 2] = four.z;
      bias[e + 3] = four.w;
    } else {
#pragma unroll
      for (int i = e; i < e + 4; ++i) {
        bias[i] = p.bias != nullptr && k + i < p.outC ? __ldg(p.bias + k + i) : 0.0f;
      }
    }
  }
}

// The block's tile of dst from its sums.
template <class T, int kBlockM, int kBlockN, class Tile>
__device__ __forceinline__ void storeTile(const Conv2dParams& p, int tileM, int tileN,
                                          const Tile& tile) {
  using Storage = typename T::Storage;
  constexpr int kVector = T::kVector;
  constexpr int kInFlight = kVector == 8 ? 8 : 4;  // vectors, as many as registers allow
  constexpr int kBatch = Tile::kRows < kInFlight ? Tile::kRows : kInFlight;
  static_assert(Tile::kRows % kBatch == 0);
  uint32_t const pixels = static_cast<uint32_t>(p.batch) * p.byGridPixels.divisor;
#pragma unroll
  for (int v = 0; v < Tile::kVectors; ++v) {
    int const k = tileN * kBlockN + tile.column(v);
    float bias[kVector];
    loadBias<kVector>(p, k, bias);
    // All loads of a batch of rows are issued before its first store.
#pragma unroll
    for (int first = 0; first < Tile::kRows; first += kBatch) {
      uint4 shortcut[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        uint32_t const m = static_cast<uint32_t>(tileM) * kBlockM + tile.row(first + i);
        if (p.gate != nullptr && p.vectorOut && m < pixels && k < p.outC) {
          shortcut[i] = *reinterpret_cast<const uint4*>(static_cast<const Storage*>(p.gate) +
                                                        static_cast<int64_t>(m) * p.outC + k);
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        uint32_t const m = static_cast<uint32_t>(tileM) * kBlockM + tile.row(first + i);
        if (m >= pixels || k >= p.outC) {
          continue;
        }
        int64_t const at = static_cast<int64_t>(m) * p.outC + k;
        Storage* const out = static_cast<Storage*>(p.out) + at;
        float x[kVector];
        tile.read(first + i, v, x);
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          x[e] += bias[e];
        }
        if (p.vectorOut) {
          if (p.gate != nullptr) {
            float other[kVector];
            unpackVector<T>(shortcut[i], other);
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
              x[e] = p.branchWeight * x[e] + p.shortcutWeight * other[e];
            }
          }
#pragma unroll
          for (int e = 0; e < kVector; ++e) {
            x[e] = rectify(x[e], p.scale, p.slope);
          }
          uint4 const packed = packVector<T>(x);
          *reinterpret_cast<uint4*>(out) = packed;
          if constexpr (kVector == 8) {
            if (p.signs != nullptr) {
              p.signs[signByte(p, m, k)] = static_cast<uint8_t>(signsOf<T>(packed));
            }
          }
        } else {
          uint32_t signs = 0;
#pragma unroll
          for (int e = 0; e < kVector; ++e) {
            if (k + e < p.outC) {
              if (p.gate != nullptr) {
                float const other = T::toFloat(static_cast<const Storage*>(p.gate)[at + e]);
                x[e] = p.branchWeight * x[e] + p.shortcutWeight * other;
              }
              out[e] = T::fromFloat(rectify(x[e], p.scale, p.slope));
              signs |= T::toFloat(out[e]) > 0.0f ? 1u << e : 0u;
            }
          }
          if constexpr (kVector == 8) {
            if (p.signs != nullptr) {
              p.signs[signByte(p, m, k)] = static_cast<uint8_t>(signs);
            }
          }
        }
      }
    }
  }
}

template <class T, int kBlockM, int kBlockN, int kStages, class Tile, class Loader>
__device__ __forceinline__ void fprop(const Conv2dParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  TileIndex const index = tileOf(p, blockIdx.x);
  WindowAxis const h = fpropAxis(p.kernelH, p.strideH, p.dilationH, p.padTop);
  WindowAxis const w = fpropAxis(p.kernelW, p.strideW, p.dilationW, p.padLeft);
  Tile tile;
  gatherProduct<kBlockM, kBlockN, kStages, Loader>(p, h, w, index, shared, tile);
  storeTile<T, kBlockM, kBlockN>(p, index.m, index.n, tile);
}

template <class T, int kBlockM, int kBlockN, int kStages, int kBytes, class Tile>
__device__ __forceinline__ void fpropPanel(const Conv2dParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  TileIndex const index = tileOf(p, blockIdx.x);
  WindowAxis const h = fpropAxis(p.kernelH, p.strideH, p.dilationH, p.padTop);
  WindowAxis const w = fpropAxis(p.kernelW, p.strideW, p.dilationW, p.padLeft);
  Tile tile;
  panelProduct<T, kBlockM, kBlockN, kStages, kBytes>(p, h, w, index, shared, tile, [&](int n) {
    storeTile<T, kBlockM, kBlockN>(p, index.m, n, tile);
  });
}

}  // namespace

// One kernel: Loader<type, blockM, blockN, threads, ...> fills the stages.
#define KERNEL(name, type, blockM, blockN, blockK, stages, warpM, warpN, threads, bytes, ...)      \
  static_assert(GatherTile<type, blockM, blockN, warpM, warpN>::kThreads == threads);              \
  static_assert(blockK * sizeof(type::Storage) == kRowBytes);                                      \
  static_assert(stages * (blockM + blockN) * kRowBytes == bytes);                                  \
  extern "C" __global__ void __launch_bounds__(threads, blocksPerMultiprocessor<type>(threads))    \
      name(const __grid_constant__ Conv2dParams params) {                                          \
    fprop<type, blockM, blockN, stages, GatherTile<type, blockM, blockN, warpM, warpN>,            \
          __VA_ARGS__>(params);                                                                    \
  }
#define FPROP(name, type, channels, blockM, blockN, blockK, stages, warpM, warpN, threads, bytes)  \
  KERNEL(name, type, blockM, blockN, blockK, stages, warpM, warpN, threads, bytes,                 \
         GatherLoader<type, blockM, blockN, threads, channels>)
#define FPROP_STEM(name, type, channels, blockM, blockN, blockK, stages, warpM, warpN, threads,    \
                   bytes)                                                                          \
  KERNEL(name, type, blockM, blockN, blockK, stages, warpM, warpN, threads, bytes,                 \
         std::conditional_t<channels == 4, PixelLoader<type, blockM, blockN, threads>,             \
                            StemLoader<type, blockM, blockN, threads>>)
#define FPROP_PANEL(name, type, channels, blockM, blockN, blockK, stages, warpM, warpN, threads,   \
                    bytes)                                                                         \
  static_assert(GatherTile<type, blockM, blockN, warpM, warpN>::kThreads == threads);              \
  static_assert(blockK * sizeof(type::Storage) == kRowBytes && channels == type::kVector);         \
  extern "C" __global__ void __launch_bounds__(threads, blocksPerMultiprocessor<type>(threads))    \
      name(const __grid_constant__ Conv2dParams params) {                                          \
    fpropPanel<type, blockM, blockN, stages, bytes,                                                \
               GatherTile<type, blockM, blockN, warpM, warpN>>(params);                            \
  }
#define DGRAD(...)
#define DGRAD_PANEL(...)
#define WGRAD(...)
#include "conv2d_variants.def"
