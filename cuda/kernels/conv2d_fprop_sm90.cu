// conv2d_fprop_sm90_*: what conv2d_fprop does, for compute capability 9.0: convolution, bias, normalised sum and rectifier in one pass, by
// wgmma and TMA.
//
//   dst[n,p,q,k] = phi(bias[k] + sum_{r,s,c} src[n, p*sh - pt + r*dh, q*sw - pl + s*dw, c]
//                                            * weights[k,r,s,c]),   phi(x) = scale * (x>0 ? x : slope*x)
//   and, where asked for, a bit for each element of dst: whether it is above zero
//   or, where `gate` is a shortcut: dst = phi(branchWeight * (that before phi) + shortcutWeight * gate)
//
// src NHWC, weights packed "forward" (conv2d_pack.cu), bias f32, dst NHWC, bf16 or f16; sums in f32; any filter and stride that an im2col
// tensor map tells. Channels are multiples of 8, for signs those of dst of 32; one group. Tiles, threads and shared memory:
// conv2d_sm90_variants.def. Registers: 168 or 128 by the size of the block, of which the loading warps leave the others 232 or 160; no
// local memory. The main loop is conv2d_sm90.cuh; the epilogue conv2d_sm90_epilogues.cuh. Oracle: backend/reference (HopperConvolutionTest).
#include "conv2d_sm90_epilogues.cuh"
#include "conv2d_sm90_window.cuh"

#define PASS fprop
#define EPILOGUE FpropEpilogue
#include "conv2d_sm90_kernels.cuh"
