// conv2d_dgrad_sm90_*: what conv2d_dgrad does for filters of stride 1, for compute capability 9.0: data gradient, and the derivative of the
// rectifier below, in one pass, by wgmma and TMA.
//
//   diff_src[n,y,x,c] = ([diff_src +] sum_{k,r,s} diff_dst[n, y + pt - r*dh, x + pl - s*dw, k] * weights[k,r,s,c]) * g(src);
//   g(y) = scale * (y > 0 ? 1 : slope), from src itself or from a bit for each of its elements; where there is neither, scale and slope are 1
//
// Taps come in reverse: with r = R - 1 - t the gathered row is y - ((R - 1) * dh - pt) + t * dh, an fprop's. diff_dst NHWC, weights packed
// "backward" (conv2d_pack.cu), diff_src and src NHWC (they may be the same tensor: a warpgroup reads what it then writes), bf16 or f16; sums
// in f32. Channels are multiples of 8, for signs those of src of 32; one group. Tiles, threads and shared memory:
// conv2d_sm90_variants.def. Registers: as of conv2d_fprop_sm90; no local memory. The main loop is conv2d_sm90.cuh; the epilogue
// conv2d_sm90_epilogues.cuh. Oracle: backend/reference (HopperConvolutionTest).
#include "conv2d_sm90_epilogues.cuh"
#include "conv2d_sm90_window.cuh"

#define PASS dgrad
#define EPILOGUE DgradEpilogue
#include "conv2d_sm90_kernels.cuh"
