#define LANES 16
#define INSTRUCTION_SET "AVX-512"
#define KERNELS jtreluCpuAvx512
#include "element_kernels.h"
#include "winograd_kernels.h"
