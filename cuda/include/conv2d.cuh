// Parameter structs of the convolution kernels: one per kernel, passed by value as
// `const __grid_constant__`. Every field's byte offset is written beside it; the asserts at the
// end hold the layout, so that a launcher in another language can fill the bytes.
// Compiles on the host as well as on the device.
//
// Sizes a launcher must refuse (or split the batch): batch * height * width of any activation with its
// padding, the elements of a weights tensor, or the number of blocks reaching 2^31. Element offsets
// into activations are 64-bit throughout.
#pragma once

#include <cstdint>

#include "fast_div.cuh"

// Kernels conv2d_fprop_* and conv2d_dgrad_*. Both gather rows of an activation `in` under a window
// and multiply them with packed weights:
//
//   fprop: out = dst,      in = src,      filter = packed "forward",  in C = ic, out C = oc
//   dgrad: out = diff_src, in = diff_dst, filter = packed "backward", in C = oc, out C = ic
//
// An output pixel of the grid is gridH x gridW: all of dst for fprop; for dgrad the diff_src pixels
// of one phase (h mod strideH, w mod strideW), because these are reached by the same taps.
//   fprop: gridH = outH, tapStepH = 1, phasesW = 1, phases = 1
//   dgrad: gridH = ceil(outH / strideH), tapStepH = strideH / gcd(strideH, dilationH),
//          phasesH = min(strideH, outH), phasesW = min(strideW, outW), phases = phasesH * phasesW
// and likewise for W. Blocks: grid.x = phases * tilesM * tilesN with
//   tilesM = ceil(batch * gridH * gridW / blockM), tilesN = ceil(outC / (blockN * columnTiles)).
struct Conv2dParams {
  const void* in;  //   0 NHWC [batch, inH, inW, inC], storage type
  const void* filter;  //   8 packed weights [outC, kernelH * kernelW, inCPadded], compute type
  void* out;  //  16 NHWC [batch, outH, outW, outC], storage type
  const float* bias;  //  24 fprop: [outC], or null for none. dgrad: unused
  const void* gate;  //  32 dgrad: src, as out, or null where the rectifier is the identity.
      //     fprop: shortcut of a normalised sum, as out, or null
  float scale;  //  40 fprop: of the rectifier. dgrad: of the rectifier that produced src
  float slope;  //  44
  int32_t accumulate;  //  48 dgrad: 1 adds to out before the gate. fprop: unused
  int32_t vectorOut;  //  52 1: outC * sizeof(element), out and gate are multiples of 16 bytes
  int32_t batch;  //  56
  int32_t inH;  //  60
  int32_t inW;  //  64
  int32_t inC;  //  68
  int32_t inCPadded;  //  72 inC rounded up to a multiple of 16 bytes of the compute type; for
      //     _stem variants at least inC
  int32_t outH;  //  76
  int32_t outW;  //  80
  int32_t outC;  //  84
  int32_t kernelH;  //  88
  int32_t kernelW;  //  92
  int32_t strideH;  //  96
  int32_t strideW;  // 100
  int32_t dilationH;  // 104
  int32_t dilationW;  // 108
  int32_t padTop;  // 112
  int32_t padLeft;  // 116
  int32_t gridH;  // 120
  int32_t gridW;  // 124
  int32_t tapStepH;  // 128
  int32_t tapStepW;  // 132
  FastDiv byTilesN;  // 136 divides by tilesN
  FastDiv byTilesM;  // 148 tilesM
  FastDiv byPhasesW;  // 160 phasesW
  FastDiv byGridPixels;  // 172 gridH * gridW
  FastDiv byGridW;  // 184 gridW
  FastDiv byInCPadded;  // 196 inCPadded
  float branchWeight;  // 208 fprop with a shortcut: out = phi(branchWeight * (conv + bias) +
  float shortcutWeight;  // 212                                  shortcutWeight * shortcut)
  int32_t columnTiles;  // 216 column tiles of a block: 1, or of _panel variants any number
  int32_t reserved;  // 220 zero
  uint8_t* signs;  // 224 16-bit types only, or null. fprop: receives which elements of out are
      //     above zero; dgrad: which of src are, instead of gate. Bits [C / 32, pixels,
      //     32] of out's C, a multiple of 32, and pixels batch * outH * outW
};
static_assert(sizeof(Conv2dParams) == 232, "no padding");

// The byte of `signs` for 8 channels from c on of a pixel. Blocks of 32 channels, so that the 8 rows
// and 4 vectors of a warp are one sector.
__host__ __device__ inline int64_t signByte(const Conv2dParams& p, uint32_t pixel, int c) {
  int64_t const pixels = static_cast<int64_t>(p.batch) * p.outH * p.outW;
  return (c / 32 * pixels + pixel) * 4 + c / 8 % 4;
}

// Kernels conv2d_wgrad_*: sums over a range of output pixels (a split), written to the split's own
// piece of a workspace, or straight into the gradients where there is one split.
// Blocks: grid.x = splits * tilesM * tilesN with tilesM = ceil(outC / blockM),
// tilesN = ceil(columns / blockN). Workspace of `splits` pieces, each splitStride floats:
// outC * columns weights sums, then outC bias sums, rounded up to a multiple of 4.
// Tiles take columns in units of channels, all taps of a unit before the next: a unit is 64 channels
// where inC is a multiple of that, else all of them.
struct Conv2dWgradParams {
  const void* src;  //   0 NHWC [batch, inH, inW, inC], storage type
  const void* diffDst;  //   8 NHWC [batch, outH, outW, outC], storage type
  float* weights;  //  16 KRSC [outC, columns] of split 0
  float* bias;  //  24 [outC] of split 0
  int64_t splitStride;  //  32 floats from one split to the next; 0 with one split
  int32_t accumulate;  //  40 1 adds to weights and bias; only with one split
  int32_t vectorOut;  //  44 1: columns, weights and splitStride are multiples of 4 floats
  int32_t pixels;  //  48 batch * outH * outW
  int32_t pixelsPerSplit;  //  52 a multiple of blockK; splits = max(1, ceil(pixels / this))
  int32_t inH;  //  56
  int32_t inW;  //  60
  int32_t inC;  //  64
  int32_t outC;  //  68
  int32_t columns;  //  72 kernelH * kernelW * inC
  int32_t strideH;  //  76
  int32_t strideW;  //  80
  int32_t dilationH;  //  84
  int32_t dilationW;  //  88
  int32_t padTop;  //  92
  int32_t padLeft;  //  96
  FastDiv byTilesN;  // 100 divides by tilesN
  FastDiv byTilesM;  // 112 tilesM
  FastDiv byOutPixels;  // 124 outH * outW
  FastDiv byOutW;  // 136 outW
  FastDiv byUnit;  // 148 channels of a unit
  FastDiv byTaps;  // 160 kernelH * kernelW
  FastDiv byKernelW;  // 172 kernelW
};
static_assert(sizeof(Conv2dWgradParams) == 184, "no padding");

// Kernel conv2d_wgrad_reduce: weights and bias gradients = [themselves +] sum over the splits. Group
// g of `groups` adds splits floor(splits * g / groups) to floor(splits * (g + 1) / groups) in order,
// then the groups are added in order, so that the result does not depend on timing.
// 256 threads; grid.x = ceil(ceil((weightsCount + outC) / 4) / (256 / groups)); no dynamic shared
// memory.
struct Conv2dReduceParams {
  const float* partial;  //  0 workspace as conv2d_wgrad_* left it, 16-byte aligned
  float* weights;  //  8 [weightsCount]
  float* bias;  // 16 [outC]
  int64_t splitStride;  // 24 a multiple of 4
  int64_t weightsCount;  // 32 outC * columns
  int32_t outC;  // 40
  int32_t splits;  // 44
  int32_t accumulate;  // 48
  int32_t vectorOut;  // 52 1: weights is 16-byte aligned
  int32_t groups;  // 56 a power of two, 1 to 64
  int32_t reserved;  // 60 zero
};
static_assert(sizeof(Conv2dReduceParams) == 64, "no padding");

// Kernels conv2d_pack_{f32,tf32,bf16,f16}: master weights F32 KRSC [outC, taps, inC] rounded to the
// compute type (tf32: 32-bit words rounded to 10 mantissa bits) in two layouts, padded with zeros:
//   forward  [outC, taps, inCPadded]    backward [inC, taps, outCPadded]
// Either may be null. One launch packs the weights of several convolutions. 256 threads; grid.x = the
// sum of their blocks, taps * tilesK * tilesC with tilesK = ceil(outCPadded / 32), tilesC =
// ceil(inCPadded / 32).
struct Conv2dPack {
  const float* weights;  //  0
  void* forward;  //  8 16-byte aligned
  void* backward;  // 16 16-byte aligned
  int32_t outC;  // 24
  int32_t taps;  // 28 kernelH * kernelW
  int32_t inC;  // 32
  int32_t inCPadded;  // 36
  int32_t outCPadded;  // 40
  int32_t tilesK;  // 44
  int32_t tilesC;  // 48
  uint32_t firstBlock;  // 52 blocks of those before it
};
static_assert(sizeof(Conv2dPack) == 56, "no padding");

constexpr int kMostPacks = 64;  // so that they fit the 4 KiB of parameters that every device takes

struct Conv2dPackParams {
  int32_t count;  // 0 of packs in use, at least 1
  int32_t reserved;  // 4 zero
  Conv2dPack packs[kMostPacks];  // 8
};
static_assert(sizeof(Conv2dPackParams) == 8 + 56 * kMostPacks, "no padding");
