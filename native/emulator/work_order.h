// What happens before what: an order between the pieces of work that streams are given and the host, whenever they are done.
//
// Each piece of work is a place in a lane, and knows by a vector clock what comes before it: the work ahead of it in its stream, what
// events that it waits for stand for, its dependencies in a graph, and all that the host had waited for when it gave it. Two accesses
// to a byte, one of them a write, by works of which none knows the other are a race, even if nothing goes wrong in this run.
// The cells of DeviceMemory say who touched a word last, by serials; so only words that works without an order touched cost more
// than a comparison.
#pragma once
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "device_memory.h"

namespace emu {

/// Times by lane. A lane is a row of works one after the other: those of a stream, or of a branch of a graph.
class VectorClock {
 public:
  void join(const VectorClock& other);
  bool knows(uint32_t lane, uint32_t time) const { return !time || (lane < times.size() && times[lane] >= time); }
  bool knows(const VectorClock& other) const;
  void set(uint32_t lane, uint32_t time);
  uint32_t at(uint32_t lane) const { return lane < times.size() ? times[lane] : 0; }

 private:
  std::vector<uint32_t> times;
};

/// Where a piece of work stands.
struct Order {
  uint32_t lane = 0, time = 0;
  uint64_t stream = 0;  // its number, for reports
  VectorClock before;
  // A kernel that may start before the one ahead of it, at this place, has ended: what comes before it whatever that one did.
  bool early = false;
  uint32_t aheadLane = 0, aheadTime = 0;
  VectorClock base;
};

/// A piece of work that was done, or is being done.
struct Work {
  uint32_t first = 0;  // of its serials: one for a block of a kernel, else one
  uint32_t lane = 0, time = 0;
  uint64_t stream = 0;
  std::string what;
  unsigned grid[3] = {0, 0, 0};  // of a kernel
  /// In words; of a kernel, the block that a serial stands for.
  std::string text(uint32_t serial) const;
};

class WorkOrder {
 public:
  /// A lane whose works all come before what the clock belongs to.
  uint32_t lane(const VectorClock& clock);
  void release(uint32_t lane) { lanes[lane].used = false; }
  /// The next place in a lane, after all that the clock knows; the clock knows it then.
  Order next(uint32_t lane, uint64_t stream, VectorClock& clock);

  /// A piece of work begins, with so many serials, of which it returns the first. Others follow its end.
  uint32_t begin(const Order& order, const std::string& what, uint64_t serials, const unsigned* grid = nullptr);
  /// A kernel has ended: what those behind it know that start early, by whether one of its threads had waited for the kernels ahead
  /// when its block let them start, and whether one has at all.
  void end(const Order& order, bool awaitedFirst, bool awaited);
  /// Serials below this one are of works that come before the one that is being done, at its start and after it has waited for the kernels
  /// ahead; but for kernels that start early these are the same.
  uint32_t ordered(bool awaited) const { return known[awaited].firstUnordered; }
  /// The work of a serial if it has no order with the one that is being done.
  const Work* unordered(uint32_t serial, bool awaited = false) const;
  /// A copy, fill or release reads or writes memory: checked and remembered.
  void touch(uint64_t at, uint64_t bytes, bool write);
  /// Remembers a reader whose cell another takes that does not come after it.
  void share(uint64_t word, Cell reader);
  /// The readers that were remembered so, who are forgotten.
  std::vector<Cell> shared(uint64_t word);

  /// Forgets works that come before all that others may still do; each of these has one of the clocks, or a later one.
  void forget(const std::vector<const VectorClock*>& clocks);

  VectorClock host;  // what the host has waited for

 private:
  struct Lane {
    uint32_t last = 0;
    bool used = false;
  };
  std::vector<Lane> lanes;
  std::deque<Work> done;  // in the order in which they were done, which is that of serials
  struct Known {
    VectorClock clock;
    uint32_t firstUnordered = 0;
  };
  Known known[2];  // to the work that is being done, at its start and later
  uint32_t first = 0;
  struct Ending {
    uint32_t time = 0;
    VectorClock atStart, later;  // what a kernel behind knows that starts early
  };
  std::unordered_map<uint32_t, Ending> endings;  // of the last kernel in a lane
  std::unordered_map<uint64_t, std::vector<Cell>> readers;  // by word, beside the last one
  std::mutex mutex;  // of these
};

}  // namespace emu
