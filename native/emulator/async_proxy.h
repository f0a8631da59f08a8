// The asynchronous proxy of sm_90 as a block sees it: mbarriers, bulk copies and the tensor cores of warpgroups, which read and write shared
// memory apart from the threads' own accesses, and what is known about each of its 16 bytes on their account.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "execution.h"
#include "memory_access.h"

namespace emu {

/// What a group of lanes can wait for besides the block's 16 barriers (Group::waiting); these run their operation again.
constexpr int waitsForWarpgroup = 16, waitsForRegisters = 17, waitsForCluster = 18,
              waitsForMbarrier = 19;  // and the mbarrier's slot

/// Phases are counted over all objects that lived at an address, so that a number names one of them.
struct Mbarrier {
  uint32_t address = 0;
  bool alive = false;
  bool proxied = false;  // a fence made its initialisation known to the asynchronous proxy
  bool observed = true;  // somebody has seen the last phase complete
  uint32_t published = 0;  // the fence.mbarrier_init that made it known, counted in its block; 0: none
  uint32_t firstPhase = 0, phase = 0;
  int64_t expected = 0, pending = 0, transactions = 0;
  uint32_t initialiser = 0;  // a cell of shared memory
  Knowledge arriving, completed;  // what the arrivals of this phase, and those of the last one released
};

/// A bulk copy as it is issued.
struct BulkCopy {
  Warp* warp = nullptr;
  const Op* op = nullptr;
  int lane = 0;
  uint32_t at = 0, bytes = 0;  // in shared memory
};
/// What an mbarrier completes: a bulk copy into the block, or a thread's st.async.
struct BulkLoad : BulkCopy {
  int slot = 0;  // of its mbarrier
  uint32_t phase = 0;
  bool landed = false;
  std::vector<uint8_t> data;
};
/// A copy from this block's shared memory to that of a block of its cluster, whose mbarrier tells when it has been read.
struct BulkSend : BulkCopy {
  int rank = 0, slot = 0;
  uint32_t phase = 0;
};
struct BulkStore : BulkCopy {
  struct Part {
    uint64_t to;
    uint32_t from;  // in shared memory
    uint32_t bytes;
  };
  int64_t group = -1;  // of its thread; -1: not committed
  bool read = false, written = false, waited = false;
  std::vector<Part> parts;
  std::vector<uint8_t> data;  // once it is read
};

class AsyncProxy {
 public:
  void start(Block& block);

  // mbarriers
  Mbarrier& initialise(Warp& w, const Op& op, int lane, uint32_t address, uint32_t count);
  /// The object at an address, whose initialisation the lane knows of; faults where there is none.
  Mbarrier& use(Warp& w, const Op& op, int lane, uint32_t address);
  void invalidate(Warp& w, const Op& op, int lane, uint32_t address);
  void arrive(Warp& w, const Op& op, int lane, Mbarrier& b, int64_t count);
  void expect(Warp& w, const Op& op, int lane, Mbarrier& b, int64_t bytes);
  int slotOf(const Mbarrier& b) const { return (int)(&b - barriers.data()); }
  Mbarrier& barrier(int slot) { return barriers[(size_t)slot]; }
  /// fence.mbarrier_init or fence.proxy.async: initialisations that are known make their way to the asynchronous proxy.
  void fenceInitialisations(Warp& w, int lane, bool publishes);

  // bulk copies
  void load(BulkLoad&& load);
  void store(BulkStore&& store);
  void send(BulkSend&& send);
  /// A thread's store that will land here, and be known when its mbarrier is.
  void storeLater(const Request& r, BulkLoad&& store);
  void commit(Warp& w, uint32_t lanes);
  void wait(Warp& w, uint32_t lanes, int64_t groups, bool onlyRead);
  /// Does some of what is pending; all that can be done when the block cannot go on without. True when something was done.
  bool progress(bool stuck);
  /// All threads have exited.
  void finish();
  /// The clocks of a block of the cluster begin again.
  void forgetWarps(int rank);
  std::string describe(int slot) const;

  // accesses to 16 bytes of shared memory; each returns false when it reported something
  /// By a thread, to words that a bulk copy wrote or an mbarrier occupies.
  bool checkThread(const Request& r, int lane, uint64_t at, uint32_t cell, const char* does);
  /// A write by a thread to what the proxy may still read.
  bool checkReaders(const Request& r, int lane, uint64_t at, const Knowledge& known);
  /// A read by the proxy of what threads or bulk copies wrote.
  bool checkRead(Warp& w, const Op& op, int lane, uint32_t at, const Knowledge& known);
  /// A write by the proxy.
  bool checkWrite(Warp& w, const Op& op, int lane, uint32_t at, const Knowledge& known);
  void matrixReads(uint32_t at, int warpgroup, uint32_t group) { pieces[at >> 4].matrix[warpgroup] = group + 1; }

  /// A cp.async will write here, which is none of the proxy's.
  void forgetLoad(uint32_t at) { pieces[at >> 4].load = 0; }

  uint64_t events = 0;  // arrivals, transactions, completions: what those wait for that ask again and again

 private:
  /// By 16 bytes; numbers of copies count from 1.
  struct Piece {
    uint32_t load = 0, store = 0, send = 0;
    uint32_t matrix[Knowledge::barriers - Knowledge::warpgroups] =
        {};  // the last group that reads, plus 1, by warpgroup
  };
  Block* block = nullptr;
  std::vector<Mbarrier> barriers;
  std::vector<Piece> pieces;
  std::deque<BulkLoad> loads;
  std::deque<BulkStore> stores;
  std::deque<BulkSend> sends;
  std::vector<uint32_t> flying;  // loads that have not landed
  uint32_t fences = 0;  // fence.mbarrier_init
  size_t firstStore = 0;  // those before are done and waited for
  int64_t groups[32][32];  // bulk groups committed, by warp and lane

  void settle(Mbarrier& b);
  void land(BulkLoad& l);
  void read(BulkStore& s);
  void write(BulkStore& s);
};

/// What the lanes know is released to whoever acquires `to`, which the block of that rank keeps (-1: none does).
void release(Warp& w, uint32_t lanes, Knowledge& to, int keeper);

}  // namespace emu
