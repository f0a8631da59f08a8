#define LANES 16
#define INSTRUCTION_SET "AVX-512"
#define KERNELS jtreluCpuAvx512
#include "instruction_set.h"
