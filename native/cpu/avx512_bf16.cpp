#define LANES 16
#define INSTRUCTION_SET "AVX-512 with BF16"
#define KERNELS jtreluCpuAvx512Bf16
#include "instruction_set.h"
