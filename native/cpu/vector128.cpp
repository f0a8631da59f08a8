#define LANES 4
#define INSTRUCTION_SET "128-bit vectors"
#define KERNELS jtreluCpuVector128
#include "instruction_set.h"
