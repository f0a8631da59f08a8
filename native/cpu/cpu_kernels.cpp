// Which kernels this machine can run.
#include "cpu_kernels.h"

#ifdef JTRELU_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const JtreluCpuKernels jtreluCpuAvx512Bf16, jtreluCpuAvx512, jtreluCpuAvx2, jtreluCpuVector128;

#define EXPORT __attribute__((visibility("default")))

#ifdef JTRELU_AMX
extern const JtreluF32Convolutions jtreluCpuAmx;

namespace {
// Linux saves the tiles of a process that has asked for them; what it answers stays the same.
bool mayUseTiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Those for AVX-512 with BF16, but for convolutions by the definition.
JtreluCpuKernels withMatrixUnits() {
  JtreluCpuKernels kernels = jtreluCpuAvx512Bf16;
  kernels.instructionSet = "AVX-512 with BF16, and AMX";
  kernels.direct = jtreluCpuAmx;
  return kernels;
}
}  // namespace
#endif

EXPORT int32_t jtreluCpuVersion() { return kJtreluCpuVersion; }

EXPORT const JtreluCpuKernels* jtreluCpuKernels(int32_t index) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
#ifdef JTRELU_AMX
  static const bool tiles = bf16 && mayUseTiles();
  static const JtreluCpuKernels matrixUnits = withMatrixUnits();
  if (tiles && index-- == 0) return &matrixUnits;
#endif
  if (bf16 && index-- == 0) return &jtreluCpuAvx512Bf16;
  if (avx512 && index-- == 0) return &jtreluCpuAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && index-- == 0) return &jtreluCpuAvx2;
#endif
  return index == 0 ? &jtreluCpuVector128 : nullptr;
}
