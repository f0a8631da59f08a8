// Clusters: blocks that run together, meet at barrier.cluster and reach each other's shared memory (distributed shared memory). Every block
// is in one, most of them alone.
#pragma once
#include <memory>
#include <vector>

#include "execution.h"
#include "memory_access.h"

namespace emu {

/// Addresses of shared::cluster: an offset as in shared::cta for the own block, above it the rank plus 1 for others.
constexpr uint64_t clusterOffset = (1ull << 24) - 1;
constexpr uint64_t clusterAddress(int rank, uint64_t offset) { return (uint64_t)(rank + 1) << 24 | offset; }

class Cluster {
 public:
  std::vector<std::unique_ptr<Block>> blocks;  // by rank; those beyond size() rest
  Block* running = nullptr;

  int size() const { return count; }
  void start(Launch& l, Worker& k, uint64_t index);
  /// Runs every block as far as it gets, at most `slice` operations of each warp; true when all have ended. Throws Fault.
  bool run(uint64_t slice);

  // barrier.cluster
  void arrive(Warp& w, const Op& op, uint32_t lanes, bool relaxed);
  /// Whether the lanes may go on; else they wait.
  bool wait(Warp& w, const Op& op, uint32_t lanes);
  void exited(Warp& w, uint32_t lanes);
  std::string describeBarrier() const;

  /// The block whose shared memory an address of shared::cluster lies in. Faults where there is none, or when it has ended; reports when
  /// nothing shows that it has started.
  Block& reach(Warp& w, const Op& op, int lane, uint64_t address, uint32_t bytes);
  Block& reachRank(Warp& w, const Op& op, int lane, int rank, uint64_t address, uint32_t bytes);
  /// Whether a block of this cluster, by its serial, has told the warp of anything.
  bool orders(const Warp& w, uint32_t serial) const;
  /// A block's clocks begin again.
  void forgetWarps(int rank);

 private:
  int count = 1;
  std::vector<int> order;
  std::vector<bool> done;
  uint32_t phase = 0;
  int64_t arrived = 0, alive = 0;  // threads
  Knowledge arriving, completed;  // of this phase and the last one; kept by no block

  void settle();
};

/// What other blocks of a cluster do to a block's shared memory: who wrote and read each word last, and what each of their warps did last,
/// which must come before the block's end.
class DistributedShared {
 public:
  struct Cell {
    uint32_t time = 0;
    uint8_t rank = 0, warp = 0, lane = 0, mask = 0;
    bool strong = false;
    int16_t slot = -1;  // of a store that an mbarrier of the block completes (st.async), and its phase
    uint32_t phase = 0;
  };
  explicit DistributedShared(uint32_t bytes) : writers(bytes / 4 + 16), readers(bytes / 4 + 16) {}

  void read(const Request& r, int lane, uint64_t at, uint32_t mask);
  void wrote(const Request& r, int lane, uint64_t at, uint32_t mask, int slot = -1, uint32_t phase = 0);
  /// An arrival at an mbarrier's phase.
  void arrived(Warp& w, const Op& op, int lane, uint32_t at, int slot, uint32_t phase);

  struct Wrong {
    const char* kind = nullptr;  // null: nothing is
    std::string what;
  };
  // What is wrong with an access to a word of block b after its writer, or after its reader, by a lane that knows something (-1: all
  // lanes of its warp).
  Wrong afterWriter(const Warp& w, int lane, const Knowledge& known, const Block& b, uint64_t at, bool proxy) const;
  Wrong afterReader(const Warp& w, int lane, const Knowledge& known, uint64_t at, uint32_t mask, bool strong) const;
  bool strongWriter(uint64_t at) const { return writers[at >> 2].strong; }

  /// The block ends: it must know of all accesses by others.
  void finish(Block& b);
  void forget(int rank);

 private:
  struct Last {
    Warp* warp = nullptr;
    const Op* op = nullptr;
    int lane = 0, slot = -1;
    uint32_t time = 0, phase = 0, at = 0, bytes = 0;
  };
  std::vector<Cell> writers, readers;
  Last accesses[mostClusterBlocks][32], arrivals[mostClusterBlocks][32];

  static void remember(Last& last, Warp& w, const Op& op, int lane, uint64_t at, uint32_t bytes, int slot,
                       uint32_t phase);
};
/// The same of a block, made when it is first needed.
DistributedShared& distributed(Block& b);

}  // namespace emu
