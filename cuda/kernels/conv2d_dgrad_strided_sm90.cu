// conv2d_dgrad_strided_sm90_*: what conv2d_dgrad does for filters of a stride, for compute capability 9.0: data gradient, and the derivative of
// the rectifier below, in one pass, by wgmma and TMA. The formula is conv2d_dgrad_sm90's with
//
//   sum over all k, r, s for which y = p*sh - pt + r*dh and x = q*sw - pl + s*dw with whole p, q inside diff_dst: diff_dst[n,p,q,k] * weights[k,r,s,c]
//
// diff_dst NHWC, weights packed "backward" (conv2d_pack.cu), diff_src and src NHWC (they may be the same tensor: a warp reads what it then
// writes), bf16 or f16; sums in f32. Channels are multiples of 8, for signs those of src of 32; one group; at most 16 phases, the product of
// the strides. Tiles, threads and shared memory: conv2d_sm90_variants.def. Registers: as of conv2d_fprop_sm90; no local memory. Phases are told
// of in conv2d_sm90_strided.cuh. Oracle: backend/reference (HopperConvolutionTest).
#include "conv2d_sm90_epilogues.cuh"
#include "conv2d_sm90_strided.cuh"

// Panels are for stride 1.
#define PANEL(...)
#define PANEL_PAIR(...)
#define PASS dgrad_strided
#define EPILOGUE DgradEpilogue
#define PARAMS Conv2dSm90StridedParams
#include "conv2d_sm90_kernels.cuh"
