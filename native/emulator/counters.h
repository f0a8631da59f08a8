// What a launch did, counted while it runs.
#pragma once
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "program.h"

namespace emu {

struct Counters {
  uint64_t instructions[(int)OpClass::Count] = {};  // executed by a warp
  uint64_t lanes[(int)OpClass::Count] = {};  // times active lanes
  uint64_t globalLoadSectors = 0, globalLoadSectorsMinimum = 0, globalLoadBytes = 0, globalLoadRequests = 0;
  uint64_t globalLoadSectorsMissed = 0;  // those that a block's first-level cache does not answer
  uint64_t globalStoreSectors = 0, globalStoreSectorsMinimum = 0, globalStoreBytes = 0, globalStoreRequests = 0;
  uint64_t sharedLoadWavefronts = 0, sharedLoadConflicts = 0, sharedStoreWavefronts = 0, sharedStoreConflicts = 0;
  uint64_t sharedLoadBytes = 0, sharedStoreBytes = 0;
  uint64_t clusterLoadBytes = 0, clusterStoreBytes = 0;  // of other blocks' shared memory
  uint64_t localLoadBytes = 0, localStoreBytes = 0;
  uint64_t bulkLoads = 0, bulkLoadBytes = 0, bulkStores = 0,
           bulkStoreBytes = 0;  // bytes of shared memory, of global memory
  uint64_t bulkSends = 0, bulkSendBytes = 0;  // from one block of a cluster to another
  uint64_t multicastSavedBytes = 0;  // that multicast loads did not ask the second level for again
  uint64_t warpgroupMultiplyAdds = 0;  // those of the tensor cores that wgmma does
  uint64_t tensorMultiplyAdds = 0, fusedMultiplyAdds = 0, barriers = 0, atomics = 0;
  void add(const Counters& c);
};

/// The first-level cache as one block sees it: lines of 128 bytes whose sectors come one by one; the line that was
/// used longest ago leaves first. Stores go past it.
class FirstLevelCache {
 public:
  /// Empty, with so much room; none keeps nothing.
  void start(uint64_t bytes);
  /// Whether it holds a sector of 32 bytes, by its number; from now on it does.
  bool ask(uint64_t sector);

 private:
  struct Line {
    uint32_t sectors;
    std::list<uint64_t>::iterator use;
  };
  uint64_t capacity = 0;
  std::list<uint64_t> uses;  // latest first
  std::unordered_map<uint64_t, Line> lines;
};

struct LaunchRecord {
  uint64_t id = 0;
  std::string kernel;
  unsigned grid[3], block[3];
  uint32_t staticShared = 0, dynamicShared = 0;
  int registers = 0, localBytes = 0;
  int error = 0;
  uint64_t loadFootprint = 0, storeFootprint = 0;
  Counters counters;
  std::string json() const;
};

/// The counters of the last launches, oldest first.
class LaunchLog {
 public:
  void add(LaunchRecord r);
  void clear();
  std::string json();
  uint64_t total();

 private:
  std::mutex mutex;
  std::deque<LaunchRecord> records;
  uint64_t all = 0;
};
LaunchLog& launchLog();

}  // namespace emu
