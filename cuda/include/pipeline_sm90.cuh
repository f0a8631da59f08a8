// What kernels of compute capability 9.0 share whose warpgroups have roles, one loading and the others multiplying: places in a ring of
// stages, how stages are handed back, and how blocks, alone or in clusters, begin and end.
#pragma once

#include "ptx_sm90.cuh"

// A place in the ring of a tile's kStages stages: a stage, and in which of its two phases its mbarriers are. These lie at kBarriers, those of
// full stages before those of empty ones.
template <class Tile>
struct Sm90Stages {
  uint32_t base;  // of shared memory
  int stage = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ explicit Sm90Stages(uint32_t address) : base(address) {}
  __device__ __forceinline__ uint32_t full(int of) const { return base + Tile::kBarriers + 8 * of; }
  __device__ __forceinline__ uint32_t empty(int of) const { return full(of + Tile::kStages); }
  // Of the stage before this one.
  __device__ __forceinline__ uint32_t emptyBefore() const {
    return empty(stage == 0 ? Tile::kStages - 1 : stage - 1);
  }
  __device__ __forceinline__ void next() {
    if (++stage == Tile::kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// A stage has been read: every block of the cluster that writes there may do so again.
template <class Tile>
__device__ __forceinline__ void handBack(uint32_t empty) {
  if constexpr (Tile::kCluster == 1) {
    mbarrierArrive(empty);
  } else {
#pragma unroll
    for (int block = 0; block < Tile::kCluster; ++block) {
      mbarrierArriveAt(empty, block);
    }
  }
}

// Before a block's mbarriers are used, and before it touches global memory.
template <class Tile>
__device__ __forceinline__ void meetAtStart() {
  if constexpr (Tile::kCluster == 1) {
    __syncthreads();
  } else {
    clusterBarrier();
  }
  awaitKernelsAhead();
}

// Before a block ends at whose mbarriers another may still arrive.
template <class Tile>
__device__ __forceinline__ void meetAtEnd() {
  if constexpr (Tile::kCluster > 1) {
    clusterBarrier();
  }
}
