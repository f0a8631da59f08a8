// conv2d_wgrad_sm90_*: what conv2d_wgrad does, for compute capability 9.0: gradients of weights and bias by wgmma, deterministic.
//
//   diff_weights[k,r,s,c] = [itself +] sum_{n,p,q} diff_dst[n,p,q,k]
//                                      * src[n, p*sh - pt + r*dh, q*sw - pl + s*dw, c]
//   diff_bias[k]          = [itself +] sum_{n,p,q} diff_dst[n,p,q,k]
//
// Pixels are contracted and split over blocks; conv2d_wgrad_reduce adds the splits in a fixed order. _window_ kernels own all taps of 64
// channels of diff_dst by 64 of src, of filters of up to nine taps and stride 1 whose result has the extent of src (wgrad_sm90.cuh); the
// others 128 channels of diff_dst by four times 64 channels of a tap, of any filter that an im2col tensor map tells (wgrad_sm90_tile.cuh).
//
// src, diff_dst NHWC, bf16 or f16, channels multiples of 8, each starting on 16 bytes; gradients f32 KRSC, starting on 8; sums in f32; one
// group. Tiles, threads, shared memory: conv2d_sm90_variants.def. Registers: 128 or 168 by the size of the block, of which the loading warps
// leave the others 160 or 232; no local memory. Oracle: backend/reference (HopperWeightGradientTest).
#include "wgrad_sm90_tile.cuh"

#define WGRAD_KERNEL(name, type, rows, columns, bytes, ...)                                        \
  static_assert(WgradWindow<__VA_ARGS__>::kBytes == bytes);                                        \
  extern "C" __global__ void __launch_bounds__(512, 1)                                             \
      conv2d_wgrad_sm90_##name##_window_##rows##x##columns(                                        \
          const __grid_constant__ Conv2dWgradSm90Params params) {                                  \
    sumWindows<type, WgradWindow<__VA_ARGS__>>(params);                                            \
  }
#define WGRAD_WINDOW(rows, columns, stages, ring, bytes)                                           \
  static_assert(rows == 64 && columns == 64);                                                      \
  WGRAD_KERNEL(bf16, Bf16, rows, columns, bytes, stages, ring)                                     \
  WGRAD_KERNEL(f16, F16, rows, columns, bytes, stages, ring)
#define WGRAD_TILE_KERNEL(clusters, name, type, rows, columns, bytes, ...)                         \
  static_assert(WgradTileSm90<__VA_ARGS__>::kBytes == bytes);                                      \
  extern "C" __global__ void clusters __launch_bounds__(384, 1)                                    \
      conv2d_wgrad_sm90_##name##_##rows##x##columns(                                               \
          const __grid_constant__ Conv2dWgradTileSm90Params params) {                              \
    sumTiles<type, WgradTileSm90<__VA_ARGS__>>(params);                                            \
  }
#define WGRAD_TILES(clusters, cluster, suffix, rows, columns, stages, bytes)                       \
  static_assert(rows == 128 && columns == 256);                                                    \
  WGRAD_TILE_KERNEL(clusters, bf16##suffix, Bf16, rows, columns, bytes, cluster, stages)           \
  WGRAD_TILE_KERNEL(clusters, f16##suffix, F16, rows, columns, bytes, cluster, stages)
#define WGRAD_TILE(...) WGRAD_TILES(, 1, , __VA_ARGS__)
#define WGRAD_PAIR(...) WGRAD_TILES(__cluster_dims__(2), 2, _pair, __VA_ARGS__)
#define WINDOW(...)
#define TILE(...)
#define WINDOW_PAIR(...)
#define PANEL(...)
#define PANEL_PAIR(...)
#define PAIR(...)
#include "conv2d_sm90_variants.def"
