// The kernels of a pass, one for each tile and type: PASS names it, EPILOGUE<type> is its own part.
#define NAME(...) NAME_(__VA_ARGS__)
#define NAME_(pass, type, rows, columns) conv2d_##pass##_sm90_##type##_##rows##x##columns
#define KERNEL(name, type, rows, columns, groups, blocks, stages, slices, threads, bytes)          \
  static_assert(Sm90Tile<groups, blocks, columns, stages, slices>::kRows == rows);                 \
  static_assert(Sm90Tile<groups, blocks, columns, stages, slices>::kThreads == threads);           \
  static_assert(Sm90Tile<groups, blocks, columns, stages, slices>::kBytes == bytes);               \
  extern "C" __global__ void __launch_bounds__(threads, 1)                                         \
      NAME(PASS, name, rows, columns)(const __grid_constant__ Conv2dSm90Params params) {           \
    convolve<type, Sm90Tile<groups, blocks, columns, stages, slices>, EPILOGUE<type>>(params);     \
  }
#define WINDOW_KERNEL(name, type, rows, columns, stages, pixels, bytes)                            \
  static_assert(Sm90Window<columns, stages, pixels>::kRows == rows);                               \
  static_assert(Sm90Window<columns, stages, pixels>::kBytes == bytes);                             \
  extern "C" __global__ void __launch_bounds__(384, 1)                                             \
      NAME(PASS, name##_window, rows, columns)(const __grid_constant__ Conv2dSm90Params params) {  \
    convolveWindows<type, Sm90Window<columns, stages, pixels>, EPILOGUE<type>>(params);            \
  }
#define WINDOW(...) WINDOW_KERNEL(bf16, Bf16, __VA_ARGS__) WINDOW_KERNEL(f16, F16, __VA_ARGS__)
#define TILE(...) KERNEL(bf16, Bf16, __VA_ARGS__) KERNEL(f16, F16, __VA_ARGS__)
#include "../kernels/conv2d_sm90_variants.def"
