// All kernels for one instruction set. Included once for each, with LANES (floats in a vector), INSTRUCTION_SET (its
// name) and KERNELS (the table to define).
#include "batch_norm_kernels.h"
#include "cpu_kernels.h"
#include "direct_kernels.h"
#include "element_kernels.h"
#include "few_channels_kernels.h"
#include "max_pool_kernels.h"
#include "orthogonal_kernels.h"
#include "strassen_kernels.h"
#include "winograd_kernels.h"
#include "winograd_strided_kernels.h"

extern const JtreluCpuKernels KERNELS;
const JtreluCpuKernels KERNELS = {
    INSTRUCTION_SET,
    convolutions<F32>(),
    convolutions<Bf16>(),
#ifdef __AVX512BF16__
    convolutions<RoundedBf16>(),
#else
    {},
#endif
    {orthogonal::reflectionBytes, orthogonal::panelBytes, orthogonal::draw, orthogonal::columns},
    elements::parameterPasses(),
    elements::activationPasses<float>(),
    elements::activationPasses<uint16_t>(),
    channels::passes<float>(),
    channels::passes<uint16_t>(),
    direct::kConvolutions,
    pool::passes<float>(),
    pool::passes<uint16_t>(),
    strided::kConvolutions,
    few::kConvolutions,
    strassen::kConvolutions,
};
