// The kernels of a pass, one for each tile and type: PASS names it, EPILOGUE<type> is its own part, PARAMS what it is given.
#define NAME(...) NAME_(__VA_ARGS__)
#define NAME_(pass, type, rows, columns) conv2d_##pass##_sm90_##type##_##rows##x##columns
#define KERNEL(clusters, name, type, rows, columns, bytes, threads, ...)                           \
  static_assert(Sm90Tile<__VA_ARGS__>::kRows == rows);                                             \
  static_assert(Sm90Tile<__VA_ARGS__>::kColumns == columns);                                       \
  static_assert(Sm90Tile<__VA_ARGS__>::kThreads == threads);                                       \
  static_assert(Sm90Tile<__VA_ARGS__>::kBytes == bytes);                                           \
  extern "C" __global__ void clusters __launch_bounds__(threads, 1)                                \
      NAME(PASS, name, rows, columns)(const __grid_constant__ PARAMS params) {                     \
    convolve<type, Sm90Tile<__VA_ARGS__>, EPILOGUE<type>>(params);                                 \
  }
#define WINDOW_KERNEL(clusters, name, type, rows, columns, bytes, ...)                             \
  static_assert(Sm90Window<__VA_ARGS__>::kRows == rows);                                           \
  static_assert(Sm90Window<__VA_ARGS__>::kColumns == columns);                                     \
  static_assert(Sm90Window<__VA_ARGS__>::kBytes == bytes);                                         \
  extern "C" __global__ void clusters __launch_bounds__(384, 1)                                    \
      NAME(PASS, name, rows, columns)(const __grid_constant__ PARAMS params) {                     \
    convolveWindows<type, Sm90Window<__VA_ARGS__>, EPILOGUE<type>>(params);                        \
  }
#define WINDOWS(clusters, cluster, suffix, rows, columns, stages, pixels, bytes)                   \
  WINDOW_KERNEL(clusters, bf16##suffix, Bf16, rows, columns, bytes, cluster, columns, stages,      \
                pixels)                                                                            \
  WINDOW_KERNEL(clusters, f16##suffix, F16, rows, columns, bytes, cluster, columns, stages, pixels)
#define TILES(clusters, cluster, suffix, rows, columns, groups, blocks, stages, slices, threads,   \
              bytes)                                                                               \
  KERNEL(clusters, bf16##suffix, Bf16, rows, columns, bytes, threads, cluster, groups, blocks,     \
         columns, stages, slices)                                                                  \
  KERNEL(clusters, f16##suffix, F16, rows, columns, bytes, threads, cluster, groups, blocks,       \
         columns, stages, slices)
#define PANEL_KERNEL(clusters, name, type, rows, columns, bytes, ...)                              \
  static_assert(Sm90Panel<__VA_ARGS__>::kRows == rows);                                            \
  static_assert(Sm90Panel<__VA_ARGS__>::kParts * Sm90Panel<__VA_ARGS__>::kColumns == columns);     \
  static_assert(Sm90Panel<__VA_ARGS__>::kBytes == bytes);                                          \
  extern "C" __global__ void clusters __launch_bounds__(384, 1)                                    \
      NAME(PASS, name, rows, columns)(const __grid_constant__ PARAMS params) {                     \
    convolvePanels<type, Sm90Panel<__VA_ARGS__>, EPILOGUE<type>>(params);                          \
  }
#define PANELS(clusters, cluster, suffix, rows, columns, stages, bytes)                            \
  PANEL_KERNEL(clusters, bf16##suffix, Bf16, rows, columns, bytes, cluster, stages)                \
  PANEL_KERNEL(clusters, f16##suffix, F16, rows, columns, bytes, cluster, stages)
#ifndef PANEL
#define PANEL(...) PANELS(, 1, _panel, __VA_ARGS__)
#define PANEL_PAIR(...) PANELS(__cluster_dims__(2), 2, _panel_pair, __VA_ARGS__)
#endif
#define WINDOW(...) WINDOWS(, 1, _window, __VA_ARGS__)
#define WINDOW_PAIR(...) WINDOWS(__cluster_dims__(2), 2, _window_pair, __VA_ARGS__)
#define TILE(...) TILES(, 1, , __VA_ARGS__)
#define PAIR(...) TILES(__cluster_dims__(2), 2, _pair, __VA_ARGS__)
#define WGRAD_WINDOW(...)
#define WGRAD_TILE(...)
#define WGRAD_PAIR(...)
#include "../kernels/conv2d_sm90_variants.def"
