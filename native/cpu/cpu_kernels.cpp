// Which kernels this machine can run.
#include "cpu_kernels.h"

extern const JtreluCpuKernels jtreluCpuAvx512Bf16, jtreluCpuAvx512, jtreluCpuAvx2, jtreluCpuVector128;

#define EXPORT __attribute__((visibility("default")))

EXPORT int32_t jtreluCpuVersion() { return kJtreluCpuVersion; }

EXPORT const JtreluCpuKernels* jtreluCpuKernels(int32_t index) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && index-- == 0) return &jtreluCpuAvx512Bf16;
  if (avx512 && index-- == 0) return &jtreluCpuAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && index-- == 0) return &jtreluCpuAvx2;
#endif
  return index == 0 ? &jtreluCpuVector128 : nullptr;
}
