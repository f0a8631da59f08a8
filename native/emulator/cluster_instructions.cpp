// Instructions of clusters: whose shared memory an address lies in, and barrier.cluster. What reaches into another block's shared memory is
// with its family: loads, stores and atomics in memory_instructions.cpp, mbarriers and bulk copies in async_instructions.cpp.
#include "async_proxy.h"
#include "cluster.h"
#include "instructions.h"
#include "lanes.h"

namespace emu {

namespace {

/// Generic addresses hold those of shared::cluster in the window of shared memory.
uint64_t windowStart(const Op& op) { return (op.aux & auxSpace) == Generic ? sharedWindow : 0; }

[[noreturn]] void notShared(const char* what, int lane, uint64_t at) {
  throw Fault{"out_of_bounds",
              std::string(what) + " of an address outside of shared memory",
              "generic",
              illegalAddress,
              lane,
              at,
              1};
}

template <class T> void map(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const T* a = w.reg<T>(o[1]);
  const uint32_t* rank = w.reg<uint32_t>(o[2]);
  alignas(64) T t[32] = {};
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    const uint64_t start = windowStart(op);
    if (start && windowOf(a[i]) != Shared) notShared("mapa", i, a[i]);
    if (rank[i] >= (uint32_t)w.block->cluster->size())
      throw Fault{
          "cluster_rank",
          "mapa to block " + std::to_string(rank[i]) + " of a cluster of " + std::to_string(w.block->cluster->size()),
          "shared",
          illegalAddress,
          i,
          a[i],
          1};
    const uint64_t offset = (a[i] - start) & clusterOffset;
    t[i] = (T)(start + ((int)rank[i] == w.block->rank ? offset : clusterAddress((int)rank[i], offset)));
  }
  merge(w.reg<T>(o[0]), t, m);
}

void rankOf(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const uint64_t* a = w.reg<uint64_t>(o[1]);
  alignas(64) uint32_t t[32] = {};
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    if (windowStart(op) && windowOf(a[i]) != Shared) notShared("getctarank", i, a[i]);
    const uint64_t at = a[i] - windowStart(op);
    t[i] = at > clusterOffset ? (uint32_t)(at >> 24) - 1 : (uint32_t)w.block->rank;
  }
  merge(w.reg<uint32_t>(o[0]), t, m);
}

void checkAligned(Warp& w, const Op& op, uint32_t m) {
  if (!(op.aux & clusterAligned) || m == w.alive) return;
  throw Fault{"divergent_barrier",
              "barrier.cluster.aligned reached by " + std::to_string(__builtin_popcount(m)) + " of " +
                  std::to_string(__builtin_popcount(w.alive)) + " threads of the warp",
              "", launchFailed, firstLane(m)};
}
void arriveAtCluster(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  checkAligned(w, op, m);
  w.block->cluster->arrive(w, op, m, op.aux & clusterRelaxed);
}
void waitForCluster(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  checkAligned(w, op, m);
  if (!w.block->cluster->wait(w, op, m)) w.blocked = waitsForCluster;
}

}  // namespace

Handler mapHandler(int width) { return width == 8 ? map<uint64_t> : map<uint32_t>; }
Handler rankHandler() { return rankOf; }
Handler clusterArriveHandler() { return arriveAtCluster; }
Handler clusterWaitHandler() { return waitForCluster; }

}  // namespace emu
