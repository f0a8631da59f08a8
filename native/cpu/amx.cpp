// Convolutions by the definition on matrix units. All other kernels of that instruction set are those of avx512_bf16.cpp.
#define LANES 16
#include "matrix_unit_kernels.h"

extern const JtreluF32Convolutions jtreluCpuAmx;
const JtreluF32Convolutions jtreluCpuAmx = matrix::kConvolutions;
