#define LANES 16
#define INSTRUCTION_SET "AVX-512 with BF16, and AMX"
#define KERNELS jtreluCpuAmx
#include "instruction_set.h"
