#define LANES 8
#define INSTRUCTION_SET "AVX2"
#define KERNELS jtreluCpuAvx2
#include "instruction_set.h"
