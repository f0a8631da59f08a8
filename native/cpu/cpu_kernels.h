// Kernels of the CPU backend that oneDNN has not, or not as fast: the C interface that
// io.jtrelu.backend.onednn.CpuKernels calls.
//
// Convolutions, forward and backward, with bias, rectifier and its derivative fused: 3x3 by Winograd's minimal filtering, of stride 1
// in winograd_kernels.h and of stride 2 in winograd_strided_kernels.h, 1x1 by Strassen's method, strassen_kernels.h, and others by the
// definition, direct_kernels.h, of few channels few_channels_kernels.h. Random orthogonal matrices: orthogonal_kernels.h. Passes over
// parameters and activations: element_kernels.h; those of batch normalisation: batch_norm_kernels.h. Max-pooling:
// max_pool_kernels.h.
#pragma once
#include <cstdint>

/// Sizes of a pass that reads x [n, h, w, in] and writes y [n, outH, outW, out], both NHWC. Channels are
/// multiples of 16. Forward: x is src; backward data: x is diff_dst and padding is 2 - padding. `tile` is 4 for tiles
/// of 4x4 results, of which what remains is cut into smaller ones, and 2 for 2x2: more products, but less weights.
struct JtreluWinograd {
  int32_t n, h, w, in, outH, outW, out, top, left, tile;
};

/// Convolutions with one type of activations: float, or bfloat16 as its 16 bits. Weights, bias and their gradients are
/// float always. No function throws, allocates, keeps state or checks its operands. Tensors are aligned to their type;
/// packed weights and workspace to 64 bytes.
struct JtreluConvolutions {
  /// Bytes of one packed form for `in` and `out` channels.
  int64_t (*packedBytes)(int32_t in, int32_t out, int32_t tile);
  /// Bytes of working memory for any pass.
  int64_t (*workspaceBytes)(const JtreluWinograd*);
  /// KRSC weights [oc, 3, 3, ic] to the form of the forward pass and to that of backward data.
  void (*pack)(const float* weights, int32_t ic, int32_t oc, int32_t tile, void* forward, void* backward);
  /// With r the convolution of x:
  ///   forward, bias not null    y = phi(r + bias)
  ///   backward data             y = ((accumulate ? y : 0) + r) * phi'(gate), without phi' where gate is null
  /// phi(v) = scale * (max(v, 0) + slope * min(v, 0)); phi' at 0 is that of negative values, and at a NaN.
  /// A NaN stays one, and infinity times a slope of 0 becomes one.
  void (*convolve)(const JtreluWinograd*, const void* x, const void* packed, void* y, const float* bias,
                   const void* gate, float slope, float scale, int32_t accumulate, void* workspace);
  /// diff_weights [oc, 3, 3, ic] and diff_bias [oc] of x = src and e = diff_dst; sizes as in forward.
  void (*gradients)(const JtreluWinograd*, const void* x, const void* e, float* diffWeights, float* diffBias,
                    int32_t accumulate, void* workspace);
};

/// Sizes of a convolution of src [n, h, w, ic] to dst [n, oh, ow, oc], with at most kJtreluMostTaps taps along an axis.
struct JtreluConvolutionSizes {
  int32_t n, h, w, ic, oh, ow, oc, kh, kw, strideH, strideW, top, left;
};
constexpr int32_t kJtreluMostTaps = 11;

/// Convolutions of floats, of one method. No function throws, allocates, keeps state or checks its
/// operands. Tensors are aligned to their type; packed weights and workspace to 64 bytes. The rest is as in JtreluConvolutions.
struct JtreluF32Convolutions {
  /// Bytes of the packed form of the forward pass, or of that of backward data.
  int64_t (*packedBytes)(const JtreluConvolutionSizes*, int32_t backward);
  /// Bytes of working memory for any pass.
  int64_t (*workspaceBytes)(const JtreluConvolutionSizes*);
  /// KRSC weights [oc, kh, kw, ic] to the form of the forward pass and to that of backward data.
  void (*pack)(const JtreluConvolutionSizes*, const float* weights, float* forward, float* backward);
  /// dst = phi(convolution + bias)
  void (*forward)(const JtreluConvolutionSizes*, const float* src, const float* packed, const float* bias, float slope,
                  float scale, float* dst, void* workspace);
  /// diff_src = ((accumulate ? diff_src : 0) + transposed convolution) * phi'(gate), without phi' where gate is null. The gate may
  /// be diff_src.
  void (*backwardData)(const JtreluConvolutionSizes*, const float* diffDst, const float* packed, const float* gate,
                       float slope, float scale, int32_t accumulate, float* diffSrc, void* workspace);
  /// diff_weights [oc, kh, kw, ic] and diff_bias [oc].
  void (*gradients)(const JtreluConvolutionSizes*, const float* src, const float* diffDst, float* diffWeights,
                    float* diffBias, int32_t accumulate, void* workspace);
};

/// Orthogonal matrices with rows of length m >= k, or columns, as io.jtrelu.backend.Orthogonal defines them: reflections in
/// blocks of 64, through which panels of 64 columns of Q pass. Blocks are independent, and so are panels once all blocks are
/// drawn. No function throws, allocates, keeps state or checks its operands; working memory is aligned to 64 bytes.
struct JtreluOrthogonal {
  /// Bytes of all blocks of reflections, and of working memory for a panel.
  int64_t (*reflectionBytes)(int64_t m, int64_t k);
  int64_t (*panelBytes)(int64_t m, int64_t k);
  /// Draws a block.
  void (*draw)(int64_t m, int64_t k, int64_t block, uint64_t seed, uint64_t sequence, float* reflections);
  /// Writes a panel of gain * Q into dst [m, k], or [k, m] where transposed.
  void (*panel)(int64_t m, int64_t k, int64_t index, float gain, int32_t transposed, const float* reflections,
                float* dst, float* workspace);
};

/// Passes over n parameters, gradients or moments: floats, aligned to their type.
struct JtreluParameterPasses {
  /// to = to + parts[0] + parts[1] + ..., added in this order.
  void (*sum)(int64_t n, int32_t count, const float* const* parts, float* to);
  /// In binary64: element i adds to the sum i modulo 16; these are added in order.
  double (*sumOfSquares)(int64_t n, const float* x);
  /// io.jtrelu.backend.Sgd has the formula.
  void (*sgd)(int64_t n, float* parameters, const float* gradient, float* velocity, float learningRate,
              float gradientScale, float momentum, float weightDecay, int32_t nesterov);
  /// io.jtrelu.backend.Adam has the formula; correction is 1 / (1 - beta^t).
  void (*adam)(int64_t n, float* parameters, const float* gradient, float* moment1, float* moment2, float learningRate,
               float gradientScale, float beta1, float beta2, float epsilon, float weightDecay, float correction1,
               float correction2);
};

/// Passes over n activations of one type, in float; results are rounded to nearest even. With phi and phi' of slope and
/// scale as above; operands may be results.
struct JtreluActivationPasses {
  /// dst = phi(weightA * a + weightB * b)
  void (*weightedSum)(int64_t n, float weightA, const void* a, float weightB, const void* b, float slope, float scale,
                      void* dst);
  /// diff_src = ((accumulate ? diff_src : 0) + weight * diff_dst) * phi'(src)
  void (*weightedSumGradient)(int64_t n, float weight, const void* diffDst, const void* src, float slope, float scale,
                              int32_t accumulate, void* diffSrc);
  /// dst = phi(src)
  void (*rectify)(int64_t n, const void* src, float slope, float scale, void* dst);
  /// diff_src = (accumulate ? diff_src : 0) + diff_dst * phi'(dst)
  void (*rectifyGradient)(int64_t n, const void* dst, const void* diffDst, float slope, float scale, int32_t accumulate,
                          void* diffSrc);
};

/// Passes of batch normalisation over activations [rows, c] of one type; constants and sums are floats, one for each
/// channel. Results are rounded to nearest even; operands do not overlap them.
struct JtreluBatchNorm {
  /// mean[c] of x, and squares[c]: the sum of (x - mean)^2
  void (*moments)(int64_t rows, int32_t c, const void* x, float* mean, float* squares);
  /// dst = phi((x - mean) * factor + summand)
  void (*normalize)(int64_t rows, int32_t c, const void* x, const float* mean, const float* factor,
                    const float* summand, float slope, float scale, void* dst);
  /// sum[c] of diff_dst, and product[c]: the sum of diff_dst * (x - mean)
  void (*gradientSums)(int64_t rows, int32_t c, const void* diffDst, const void* x, const float* mean, float* sum,
                       float* product);
  /// diff_src = (accumulate ? diff_src : 0) + factor * diff_dst + (summand + slope * (x - mean))
  void (*gradient)(int64_t rows, int32_t c, const void* diffDst, const void* x, const float* mean, const float* factor,
                   const float* summand, const float* slope, int32_t accumulate, void* diffSrc);
};

/// Sizes of a max-pooling of src [n, h, w, c] to dst [n, oh, ow, c], both NHWC.
struct JtreluMaxPoolSizes {
  int32_t n, h, w, c, oh, ow, kernel, stride, padBegin;
};

/// Max-pooling of one type of activations. argmax [n, oh, ow, c] is the place of the first maximum in its window, kernel * row +
/// column, and where `marked` 128 more for a maximum above 0; a NaN wins. Results are rounded to nearest even.
struct JtreluMaxPool {
  void (*forward)(const JtreluMaxPoolSizes*, const void* src, int32_t marked, void* dst, uint8_t* argmax);
  /// diff_src = ((accumulate ? diff_src : 0) + the sum of diff_dst over the windows that an element won) * phi'(src), where src is
  /// read if neither argmax tells it nor phi is the identity. It may be diff_src.
  void (*backward)(const JtreluMaxPoolSizes*, const void* diffDst, const uint8_t* argmax, const void* src, float slope,
                   float scale, int32_t marked, int32_t accumulate, void* diffSrc);
};

/// The kernels for one instruction set.
struct JtreluCpuKernels {
  const char* instructionSet;
  JtreluConvolutions f32;
  JtreluConvolutions bf16;  // transformed values are floats
  JtreluConvolutions roundedBf16;  // and bfloat16; null pointers where the instruction set has no products of it
  JtreluOrthogonal orthogonal;
  JtreluParameterPasses parameters;
  JtreluActivationPasses f32Activations;
  JtreluActivationPasses bf16Activations;
  JtreluBatchNorm f32BatchNorm;
  JtreluBatchNorm bf16BatchNorm;
  JtreluF32Convolutions direct;  // by the definition: any sizes
  JtreluMaxPool f32MaxPool;
  JtreluMaxPool bf16MaxPool;
  JtreluF32Convolutions stridedWinograd;  // 3x3 of stride 2, channels in multiples of 16
  JtreluF32Convolutions fewChannels;  // ic < 16, oc in multiples of 16
  JtreluF32Convolutions strassen;  // 1x1 of stride 1, channels in multiples of 32
};

/// Version of this interface.
constexpr int32_t kJtreluCpuVersion = 10;

extern "C" {
int32_t jtreluCpuVersion();
/// The kernels for the index-th of the instruction sets that this machine has, the best first; null past the last.
const JtreluCpuKernels* jtreluCpuKernels(int32_t index);
}
