// conv2d_dgrad_*: data gradient, and the derivative of the rectifier below, in one pass.
//
//   diff_src[n,y,x,c] = ([diff_src +] sum_{k,r,s} diff_dst[n,p,q,k] * weights[k,r,s,c]) * g(src),
//   the sum over all taps (r,s) for which y = p*sh - pt + r*dh and x = q*sw - pl + s*dw with whole
//   p, q inside diff_dst;   g(y) = scale * (y > 0 ? 1 : slope), from src itself or from a bit for
//   each of its elements; or 1 where there is neither
//
// diff_dst NHWC, weights packed "backward" (conv2d_pack.cu), diff_src and src NHWC (they may be the
// same tensor: a thread reads exactly the elements it then writes); sums in f32; one group.
// With a stride, pixels of one phase (y mod sh, x mod sw) are reached by the same taps, so each
// phase is a dense convolution of stride 1 of its own and no product with a zero is computed.
// Tiles, threads, shared memory: conv2d_variants.def. Registers: 246 for 64x64 warp tiles, 168 for
// 64x32 and FFMA; no local memory. The main loop is conv2d_gather.cuh; only the epilogue is here.
// Oracle: backend/reference, cuda/tests.
#include "conv2d_gather.cuh"

namespace {

// The diff_src pixel of grid row m, negative outside the tensor.
__device__ __forceinline__ int pixelOf(const Conv2dParams& p, const TileIndex& index, uint32_t m) {
  uint32_t pixel;
  uint32_t gridX;
  uint32_t const n = p.byGridPixels.split(m, pixel);
  uint32_t const gridY = p.byGridW.split(pixel, gridX);
  int const y = static_cast<int>(gridY) * p.strideH + index.phaseH;
  int const x = static_cast<int>(gridX) * p.strideW + index.phaseW;
  bool const inside = n < static_cast<uint32_t>(p.batch) && y < p.outH && x < p.outW;
  return inside ? (static_cast<int>(n) * p.outH + y) * p.outW + x : -1;
}

template <class Storage>
__device__ __forceinline__ uint4 loadVector(const void* base, int64_t element) {
  return *reinterpret_cast<const uint4*>(static_cast<const Storage*>(base) + element);
}

// The block's tile of diff_src from its sums; index.n is the column tile.
template <class T, int kBlockM, int kBlockN, class Tile>
__device__ __forceinline__ void storeTile(const Conv2dParams& p, const TileIndex& index,
                                          const Tile& tile) {
  using Storage = typename T::Storage;
  constexpr int kVector = T::kVector;
  // All loads of a batch of rows are issued before its first store: the compiler may not move a
  // load over a store that could alias it, and in place it does.
  constexpr int kInFlight = kVector == 8 ? 8 : 4;  // vectors, as many as registers allow
  constexpr int kBatch =
      Tile::kRows * Tile::kVectors < kInFlight ? Tile::kRows : kInFlight / Tile::kVectors;
  static_assert(Tile::kRows % kBatch == 0);
#pragma unroll
  for (int first = 0; first < Tile::kRows; first += kBatch) {
    int pixel[kBatch];
    uint4 gate[kBatch][Tile::kVectors];
    uint4 old[kBatch][Tile::kVectors];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      pixel[i] = pixelOf(p, index, static_cast<uint32_t>(index.m) * kBlockM + tile.row(first + i));
      int64_t const row = static_cast<int64_t>(pixel[i]) * p.outC;
#pragma unroll
      for (int v = 0; v < Tile::kVectors; ++v) {
        int const c = index.n * kBlockN + tile.column(v);
        bool const load = p.vectorOut && pixel[i] >= 0 && c < p.outC;
        if (load && p.gate != nullptr) {
          gate[i][v] = loadVector<Storage>(p.gate, row + c);
        }
        if (kVector == 8 && p.signs != nullptr && pixel[i] >= 0 && c < p.outC) {
          gate[i][v].x = p.signs[signByte(p, pixel[i], c)];
        }
        if (load && p.accumulate) {
          old[i][v] = loadVector<Storage>(p.out, row + c);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
#pragma unroll
      for (int v = 0; v < Tile::kVectors; ++v) {
        int const c = index.n * kBlockN + tile.column(v);
        if (pixel[i] < 0 || c >= p.outC) {
          continue;
        }
        int64_t const at = static_cast<int64_t>(pixel[i]) * p.outC + c;
        float d[kVector];
        tile.read(first + i, v, d);
        if (p.vectorOut) {
          if (p.accumulate) {
            float before[kVector];
            unpackVector<T>(old[i][v], before);
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
              d[e] += before[e];
            }
          }
          if (p.gate != nullptr) {
            float y[kVector];
            unpackVector<T>(gate[i][v], y);
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
              d[e] *= derivative(y[e], p.scale, p.slope);
            }
          }
          if (kVector == 8 && p.signs != nullptr) {
#pragma unroll
            for (int e = 0; e < kVector; ++e) {
              d[e] *= p.scale * (gate[i][v].x >> e & 1 ? 1.0f : p.slope);
            }
          }
          *reinterpret_cast<uint4*>(static_cast<Storage*>(p.out) + at) = packVector<T>(d);
        } else {
#pragma unroll
          for (int e = 0; e < kVector; ++e) {
            if (c + e < p.outC) {
              Storage* const out = static_cast<Storage*>(p.out) + at + e;
              float const before = p.accumulate ? T::toFloat(*out) : 0.0f;
              float factor = 1.0f;
              if (p.gate != nullptr) {
                factor = derivative(T::toFloat(static_cast<const Storage*>(p.gate)[at + e]),
                                    p.scale, p.slope);
              } else if (kVector == 8 && p.signs != nullptr) {
                factor = p.scale * (gate[i][v].x >> e & 1 ? 1.0f : p.slope);
              }
              *out = T::fromFloat((d[e] + before) * factor);
            }
          }
        }
      }
    }
  }
}

__device__ __forceinline__ WindowAxis axisH(const Conv2dParams& p, int phase) {
  return dgradAxis(p.kernelH, p.strideH, p.dilationH, p.padTop, p.tapStepH, phase);
}

__device__ __forceinline__ WindowAxis axisW(const Conv2dParams& p, int phase) {
  return dgradAxis(p.kernelW, p.strideW, p.dilationW, p.padLeft, p.tapStepW, phase);
}

template <class T, int kBlockM, int kBlockN, int kStages, class Tile, int kChannels>
__device__ __forceinline__ void dgrad(const Conv2dParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  TileIndex const index = tileOf(p, blockIdx.x);
  WindowAxis const h = axisH(p, index.phaseH);
  WindowAxis const w = axisW(p, index.phaseW);
  Tile tile;
  using Loader = GatherLoader<T, kBlockM, kBlockN, Tile::kThreads, kChannels>;
  gatherProduct<kBlockM, kBlockN, kStages, Loader>(p, h, w, index, shared, tile);
  storeTile<T, kBlockM, kBlockN>(p, index, tile);
}

template <class T, int kBlockM, int kBlockN, int kStages, int kBytes, class Tile>
__device__ __forceinline__ void dgradPanel(const Conv2dParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  TileIndex const index = tileOf(p, blockIdx.x);
  WindowAxis const h = axisH(p, index.phaseH);
  WindowAxis const w = axisW(p, index.phaseW);
  Tile tile;
  panelProduct<T, kBlockM, kBlockN, kStages, kBytes>(p, h, w, index, shared, tile, [&](int n) {
    TileIndex const at = {index.m, n, index.phaseH, index.phaseW};
    storeTile<T, kBlockM, kBlockN>(p, at, tile);
  });
}

}  // namespace

#define DGRAD(name, type, channels, blockM, blockN, blockK, stages, warpM, warpN, threads, bytes)  \
  static_assert(GatherTile<type, blockM, blockN, warpM, warpN>::kThreads == threads);              \
  static_assert(blockK * sizeof(type::Storage) == kRowBytes);                                      \
  static_assert(stages * (blockM + blockN) * kRowBytes == bytes);                                  \
  extern "C" __global__ void __launch_bounds__(threads, blocksPerMultiprocessor<type>(threads))    \
      name(const __grid_constant__ Conv2dParams params) {                                          \
    dgrad<type, blockM, blockN, stages, GatherTile<type, blockM, blockN, warpM, warpN>, channels>( \
        params);                                                                                   \
  }
#define DGRAD_PANEL(name, type, channels, blockM, blockN, blockK, stages, warpM, warpN, threads,   \
                    bytes)                                                                         \
  static_assert(GatherTile<type, blockM, blockN, warpM, warpN>::kThreads == threads);              \
  static_assert(blockK * sizeof(type::Storage) == kRowBytes && channels == type::kVector);         \
  extern "C" __global__ void __launch_bounds__(threads, blocksPerMultiprocessor<type>(threads))    \
      name(const __grid_constant__ Conv2dParams params) {                                          \
    dgradPanel<type, blockM, blockN, stages, bytes,                                                \
               GatherTile<type, blockM, blockN, warpM, warpN>>(params);                            \
  }
#define FPROP(...)
#define FPROP_STEM(...)
#define FPROP_PANEL(...)
#define WGRAD(...)
#include "conv2d_variants.def"
