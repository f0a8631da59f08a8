// Launches with attributes: clusters of blocks, and kernels that may start before the one ahead of them has ended.
#include <algorithm>

#include "driver.h"

namespace emu {

CUresult placeClusters(const FunctionObject& f, const unsigned* grid, KernelWork& work) {
  const Program& p = *f.program;
  auto wrong = [&](const std::string& what, CUresult code = CUDA_ERROR_INVALID_CLUSTER_SIZE) {
    return refuse(code, "launch_limit", p.name, what);
  };
  auto text = [](const auto* e) {
    return std::to_string(e[0]) + " x " + std::to_string(e[1]) + " x " + std::to_string(e[2]);
  };
  unsigned* cluster = work.cluster;
  const bool asked = cluster[0] | cluster[1] | cluster[2], required = p.cluster[0] != 0;
  if (!asked && !required && p.explicitCluster)
    return wrong("the kernel is .explicitcluster, and the launch does not say how many blocks a cluster has");
  if (asked && required && !std::equal(cluster, cluster + 3, p.cluster, [](unsigned a, int b) { return (int)a == b; }))
    return wrong("the launch asks for clusters of " + std::string(text(cluster)) + " blocks, the kernel requires " +
                 text(p.cluster));
  if (!asked && required) std::copy(p.cluster, p.cluster + 3, cluster);
  work.explicitCluster = asked || required;
  if (!work.explicitCluster) std::fill(cluster, cluster + 3, 1);
  const uint64_t blocks = (uint64_t)cluster[0] * cluster[1] * cluster[2];
  if (blocks > 1 && driver().settings.major < 9)
    return wrong("clusters need compute capability 9.0", CUDA_ERROR_NOT_SUPPORTED);
  const uint64_t most =
      p.maxClusterRank ? std::min<uint64_t>((uint64_t)p.maxClusterRank, mostClusterBlocks) : mostClusterBlocks;
  if (blocks == 0 || blocks > most)
    return wrong("a cluster of " + std::string(text(cluster)) + " blocks; at most " + std::to_string(most) +
                 " are allowed" + (most == mostClusterBlocks ? " everywhere" : " by .maxclusterrank"));
  for (int i = 0; i < 3; i++)
    if (grid[i] % cluster[i])
      return wrong("a grid of " + std::string(text(grid)) + " blocks is not divided by clusters of " + text(cluster));
  return CUDA_SUCCESS;
}

namespace {

CUresult attributesOf(const CUlaunchConfig& c, KernelWork& work) {
  auto wrong = [](CUresult code, int id, const char* what) {
    return refuse(code, "launch_limit", "", "launch attribute " + std::to_string(id) + what);
  };
  if (c.numAttrs && !c.attrs) return wrong(CUDA_ERROR_INVALID_VALUE, 0, ": the array of attributes is null");
  for (unsigned i = 0; i < c.numAttrs; i++) {
    const CUlaunchAttribute& a = c.attrs[i];
    switch (a.id) {
      case CU_LAUNCH_ATTRIBUTE_IGNORE: break;
      case CU_LAUNCH_ATTRIBUTE_COOPERATIVE: work.cooperative = a.value.number; break;
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        std::copy(a.value.cluster, a.value.cluster + 3, work.cluster);
        if (!a.value.cluster[0] || !a.value.cluster[1] || !a.value.cluster[2])
          return wrong(CUDA_ERROR_INVALID_CLUSTER_SIZE, a.id, ": a cluster without blocks");
        break;
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        if (a.value.number < 0 || a.value.number > 2)
          return wrong(CUDA_ERROR_INVALID_VALUE, a.id, ": there is no such scheduling policy");
        break;
      case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: work.programmatic = a.value.number; break;
      default:
        if (a.id < 0 || a.id > CU_LAUNCH_ATTRIBUTE_LAST)
          return wrong(CUDA_ERROR_INVALID_VALUE, a.id, " does not exist");
        return wrong(CUDA_ERROR_NOT_SUPPORTED, a.id, " is not modelled by the emulated device");
    }
  }
  return CUDA_SUCCESS;
}

/// Blocks of a kernel that the whole device holds at once.
uint64_t resident(const FunctionObject& f, const CUlaunchConfig& c) {
  const int blocks = occupancy(f, (int)(c.blockDimX * c.blockDimY * c.blockDimZ), c.sharedMemBytes);
  return (uint64_t)std::max(0, blocks) * (uint64_t)driver().settings.multiprocessors;
}

}  // namespace
}  // namespace emu

using namespace emu;

CUDA_EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig* config, void* f, void** params, void** extra) {
  if (!config) return CUDA_ERROR_INVALID_VALUE;
  const CUlaunchConfig& c = *config;
  KernelWork work;
  if (CUresult r = attributesOf(c, work)) return r;
  const unsigned grid[] = {c.gridDimX, c.gridDimY, c.gridDimZ}, block[] = {c.blockDimX, c.blockDimY, c.blockDimZ};
  {
    ENTER();
    d.calls[__func__]++;  // also among all launches
  }
  return launch(f, grid, block, c.sharedMemBytes, c.hStream, params, extra, std::move(work));
}

// The groups of multiprocessors that hold a cluster are not modelled: as many clusters as the whole device has room for.
CUDA_EXPORT CUresult cuOccupancyMaxActiveClusters(int* clusters, void* function, const CUlaunchConfig* c) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  if (!clusters || !c) return CUDA_ERROR_INVALID_VALUE;
  KernelWork work;
  if (CUresult r = attributesOf(*c, work)) return r;
  const unsigned grid[] = {c->gridDimX, c->gridDimY, c->gridDimZ};
  if (CUresult r = placeClusters(*f, grid, work)) return r;
  if (!work.explicitCluster)
    return refuse(CUDA_ERROR_INVALID_CLUSTER_SIZE, "launch_limit", f->program->name,
                  "neither the kernel nor the launch says how many blocks a cluster has");
  *clusters = (int)(resident(*f, *c) / ((uint64_t)work.cluster[0] * work.cluster[1] * work.cluster[2]));
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuOccupancyMaxPotentialClusterSize(int* blocks, void* function, const CUlaunchConfig* c) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  if (!blocks || !c) return CUDA_ERROR_INVALID_VALUE;
  const Program& p = *f->program;
  if (p.cluster[0]) {
    *blocks = p.cluster[0] * p.cluster[1] * p.cluster[2];
    return CUDA_SUCCESS;
  }
  const uint64_t most = std::min<uint64_t>(mostClusterBlocks, resident(*f, *c));
  *blocks = 1;
  while ((uint64_t)*blocks * 2 <= most && (!p.maxClusterRank || *blocks * 2 <= p.maxClusterRank)) *blocks *= 2;
  return CUDA_SUCCESS;
}
