// State of a running launch: blocks, warps, shared memory, and the checks that ride along.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "counters.h"
#include "device_memory.h"
#include "program.h"
#include "report.h"
#include "work_order.h"

namespace emu {

// Generic addresses of shared, local and parameter memory lie in windows that no host mapping uses.
constexpr uint64_t sharedWindow = 0x0001'0000'0000ull, localWindow = 0x0002'0000'0000ull,
                   paramWindow = 0x0003'0000'0000ull;
constexpr uint64_t windowSize = 0x0001'0000'0000ull;
constexpr uint64_t mostClusterBlocks = 8;  // that all devices with clusters allow

/// A fault stops the launch, as the hardware would.
struct Fault {
  std::string kind, message, space;
  int cudaError;
  int lane;
  uint64_t address = 0;
  int bytes = 0;
};

enum Cuda : int {
  illegalAddress = 700,
  assertFailed = 710,
  misalignedAddress = 716,
  launchFailed = 719,
  launchTimeout = 702,
  illegalInstruction = 715
};

struct Launch;
struct Block;
struct Worker;
class AsyncProxy;
class Cluster;
class DistributedShared;

/// What of a block comes before something: of each warp the accesses before a time of its clock, of each warpgroup the groups of wgmma
/// before a number, of each mbarrier the phases before one.
struct BlockKnowledge {
  static constexpr int warpgroups = 32, barriers = 40, count = 96;
  uint32_t of[count] = {};
  uint32_t fenced[32] = {};  // by warp: writes before that time are known to the asynchronous proxy as well
  uint32_t begun = 0;  // 0: the block may not have started; else 1 plus its fences of mbarriers' initialisations

  uint32_t& operator[](size_t actor) { return of[actor]; }
  uint32_t operator[](size_t actor) const { return of[actor]; }
  void join(const BlockKnowledge& other) {
    for (int i = 0; i < count; i++) of[i] = std::max(of[i], other.of[i]);
    for (int i = 0; i < 32; i++) fenced[i] = std::max(fenced[i], other.fenced[i]);
    begun = std::max(begun, other.begun);
  }
  void meet(const BlockKnowledge& other) {
    for (int i = 0; i < count; i++) of[i] = std::min(of[i], other.of[i]);
    for (int i = 0; i < 32; i++) fenced[i] = std::min(fenced[i], other.fenced[i]);
    begun = std::min(begun, other.begun);
  }
  /// What is known becomes known to the asynchronous proxy as well.
  void fence() {
    for (int i = 0; i < 32; i++) fenced[i] = std::max(fenced[i], of[i]);
  }
  /// Of warps nothing but what lies before their clocks' last start.
  void forgetWarps() {
    for (int i = 0; i < 32; i++) of[i] = fenced[i] = 1;
  }
};

/// The same of all blocks of a cluster, as one of them keeps it: itself, and by rank the others (of kernels that know of clusters).
struct Knowledge : BlockKnowledge {
  std::vector<BlockKnowledge> others;
  bool awaited = false;  // a griddepcontrol.wait was there: the kernels ahead are done

  /// Of the block of a rank; `mine`: the rank of who keeps this, -1 for nobody.
  BlockKnowledge& about(int rank, int mine) { return rank == mine ? *this : others[(size_t)rank]; }
  const BlockKnowledge& about(int rank, int mine) const { return rank == mine ? *this : others[(size_t)rank]; }
  /// Of the same keeper.
  void join(const Knowledge& other) {
    BlockKnowledge::join(other);
    awaited |= other.awaited;
    if (others.size() < other.others.size()) others.resize(other.others.size());
    for (size_t r = 0; r < other.others.size(); r++) others[r].join(other.others[r]);
  }
  /// What both know; of the same keeper.
  void meet(const Knowledge& other) {
    BlockKnowledge::meet(other);
    awaited &= other.awaited;
    for (size_t r = 0; r < others.size(); r++) others[r].meet(other.others[r]);
  }
  /// Of keepers with these ranks.
  void join(const Knowledge& other, int mine, int theirs) {
    if (mine == theirs) return join(other);
    awaited |= other.awaited;
    const int n = (int)std::max(others.size(), other.others.size());
    others.resize((size_t)n);
    for (int r = 0; r < n; r++)
      if (r == theirs || (size_t)r < other.others.size()) about(r, mine).join(other.about(r, theirs));
  }
};

/// Blocks that released what they wrote by a fence followed by an atomic on some address, in order of arrival.
struct SyncVariable {
  std::mutex mutex;
  std::unordered_map<uint32_t, size_t> position;
};

/// Shared memory of a block. Each 4-byte word has a cell for its last writer and its last reader:
/// time << 16 | lane << 10 | warp << 5 | strong << 4 | mask of bytes. Lane codes 32.. mean "several lanes". Writers at time `apart` are to be
/// looked at closer: asyncLane is an unfinished cp.async or a bulk copy, barrierLane an mbarrier, clusterLane a thread of another block.
struct SharedMemory {
  static constexpr uint32_t several = 32u << 10, asyncLane = 63u << 10, barrierLane = 62u << 10,
                            clusterLane = 61u << 10, lanes = 63u << 10, strong = 16;
  static constexpr uint32_t apart = 0xffffu << 16;
  std::vector<uint8_t> bytes;
  std::vector<uint32_t> writers, readers;
  std::vector<uint8_t> initialised;  // mask of bytes written, for words that were written in parts
  uint32_t size = 0;
  void start(uint32_t size);
};

/// An issued cp.async whose bytes are not yet in shared memory.
struct PendingCopy {
  uint32_t lanes = 0;
  int group = -1;  // -1: not committed
  int bytes = 0;
  uint32_t to[32];
  alignas(64) uint8_t data[32 * 16];
};

struct Group {
  int pc;
  uint32_t lanes;
  int waiting = -1;  // barrier it waits at, or what else (async_proxy.h)
  bool parked = false;  // waits for lanes of its member mask
};

struct Warp {
  char* base[2];  // registers of this warp, constants of the program
  uint32_t* predicates;
  uint32_t* tracked;  // lanes that have written a tracked register
  Block* block;
  Worker* worker;
  int index;
  int pc = 0;
  uint32_t lanes = 0;  // of the running group
  uint32_t alive = 0;
  std::vector<Group> groups;  // the others
  uint64_t executed = 0;
  const Op* at = nullptr;  // the operation being executed
  uint32_t clock = 1;
  Knowledge known;  // of all its lanes
  uint32_t knownLeast = 1;  // of warps
  Knowledge ahead;  // of lanes that have waited for an mbarrier alone, until the warp synchronises
  uint32_t aheadLanes = 0;
  uint32_t accessed = 0,
           unfenced = 0;  // lanes that touched shared memory since the warp synchronised, wrote it since they fenced
  int blocked = -1;  // what the operation just run waits for
  bool yields = false;  // it has asked for something that others have to do
  unsigned refusals = 0;  // of mbarrier.try_wait, made up one after the other
  struct Accumulator {
    uint32_t inFlight = 0;  // the group of wgmma that uses it, plus 1
    bool sums = false;  // as an accumulator
    bool touched = false;  // by other instructions since wgmma.fence
    bool written = false;
  };
  std::vector<Accumulator> accumulators;  // registers that wgmma uses
  uint32_t matrixGroups = 0, matrixDone = 0;  // groups of wgmma committed and waited for
  uint32_t matrixLast = 0;  // the group of the last wgmma, plus 1
  bool matrixFenced = false;  // a wgmma.fence was there
  int registers = 0;  // of a thread, by setmaxnreg
  // Lanes that have arrived at barrier.cluster and not waited, by parity of the phase.
  uint32_t clusterArrived[2] = {0, 0};
  Knowledge fenceReleased;  // what relaxed operations release since a fence
  Knowledge fenceAcquired;  // what they will have acquired at the next
  std::vector<std::unique_ptr<PendingCopy>> pending, spare;
  std::vector<uint32_t> copyGroups;  // lanes of each committed group that may be unfinished, oldest first
  int firstGroup = 0;
  int watch = 1 << 30;  // lowest pc of a group that may run or be joined
  std::vector<uint8_t> local, localWritten;

  template <class T> T* reg(int32_t o) const { return (T*)(base[o & 1] + (o & ~1)); }
  uint32_t predicate(int32_t o) const { return predicates[o >> 1] ^ -(uint32_t)(o & 1); }
  void setPredicate(int32_t o, uint32_t value, uint32_t lanes) {
    predicates[o >> 1] = (predicates[o >> 1] & ~lanes) | (value & lanes);
  }
  void leastKnown();
  /// What a lane knows of a block of its cluster.
  const BlockKnowledge& knownOf(int lane, const Block& b) const;
  const Knowledge& knownTo(int lane) const { return aheadLanes >> lane & 1 ? ahead : known; }
  Knowledge& knownTo(int lane) { return aheadLanes >> lane & 1 ? ahead : known; }
  /// The lanes learn something.
  void learn(uint32_t learning, const Knowledge& what);
};

struct BarrierState {
  int arrived = 0, expected = 0;
  uint32_t waiters = 0;  // warps that wait, with any of their lanes
  Knowledge joined;  // what happened before the barrier
  uint32_t trueCount = 0;  // bar.red
  struct Result {
    Warp* w;
    const Op* op;
    uint32_t lanes;
  };
  std::vector<Result> results;
};

struct Block {
  Launch* launch = nullptr;
  Worker* worker = nullptr;
  Cluster* cluster = nullptr;
  int rank = 0;  // in it
  unsigned index[3] = {0, 0, 0};
  uint64_t linear = 0;
  uint32_t serial = 0;
  bool fenced = false;
  bool triggered = false;  // griddepcontrol.launch_dependents
  int threads = 0, exited = 0;
  std::vector<Warp> warps;
  std::vector<char> storage;
  SharedMemory shared;
  FirstLevelCache cache;
  BarrierState barriers[16];
  std::vector<std::pair<SyncVariable*, size_t>> acquired;
  std::vector<int> order;
  Warp* running = nullptr;
  std::unique_ptr<AsyncProxy> async;  // of kernels that use it
  std::unique_ptr<DistributedShared> distributed;  // once another block has used the shared memory
  int registerPool = 0;  // by setmaxnreg
  uint64_t idleRounds = 0, lastEvents = 0;
  bool still = false;

  Block();
  ~Block();

  void start(Launch& l, Worker& w, Cluster& c, int rank, uint64_t linearIndex);
  /// Runs every warp as far as it gets, at most `slice` operations each; true when all have ended. Throws Fault.
  bool run(uint64_t slice);
  bool ended() const { return exited == threads; }
  /// Whether nothing happened when it ran last, or nothing but asking again and again for long.
  bool idle() const { return still; }
  /// Does what the asynchronous proxy can do for a block that is idle; false when nothing.
  bool unblock();
  /// Faults: nothing that it waits for will come.
  [[noreturn]] void stuck();
  bool acquiredFrom(uint32_t serial);
  /// bar.warp.sync: what the warp did so far happens before what it does from now on.
  void synchronise(Warp& w);
  /// A new time of the warp's clock: what it did until now lies before.
  void tick(Warp& w);
  /// Groups of lanes that wait for that go on.
  void wake(int waiting);

 private:
  void runWarp(Warp& w, uint64_t slice);
  bool schedule(Warp& w);
  bool waits(Warp& w, uint32_t lanes);
  void barrier(Warp& w, const Op& op, uint32_t lanes);
  void release(int id);
  void checkExitedAtBarrier();
  void restartClocks();
};

/// Cached answer for an access pattern at an operation (bank conflicts, sectors): it depends on relative addresses only.
struct Pattern {
  uint32_t relative[32];
  uint32_t lanes = 0, phase = ~0u;
  uint32_t result = 0, least = 0;
};
/// The last few of each operation of a program: swizzled tiles take turns among as many.
struct Patterns {
  struct Recent {
    std::array<Pattern, 4> each;
    unsigned next = 0;  // to be replaced
  };
  std::vector<int32_t> of;  // by operation: its place, or -1
  std::deque<Recent> all;
};

struct Worker {
  Launch* launch = nullptr;
  Counters counters;
  Allocation* recent = nullptr;
  std::unordered_map<uint64_t, Patterns> patternsOf;  // by program: they outlast launches, which are often short
  Patterns* patterns = nullptr;  // of the launch's program
  std::vector<uint16_t> reported;  // by operation: findings so far
  std::vector<uint64_t> constants;
  const char* constantBase = nullptr;
  uint64_t random = 1;
  std::vector<std::unique_ptr<Cluster>> clusters;  // in which it runs blocks, used again and again
  Worker();
  ~Worker();
  uint64_t next() { return random = random * 6364136223846793005ull + 1442695040888963407ull, random >> 33; }
  Allocation* find(uint64_t address);
  void start(Launch& l);
};

struct Launch {
  const Program* program = nullptr;
  unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  uint32_t dynamicShared = 0, sharedBytes = 0;
  std::vector<uint8_t> parameters;
  std::vector<Allocation*> allocations;
  uint32_t firstSerial = 0;
  // Serials below are of works that come before this one; 1: after griddepcontrol.wait.
  uint32_t firstUnordered[2] = {0, 0};
  WorkOrder* order = nullptr;
  uint64_t seed = 0;
  int threads = 1;
  bool cooperative = false;
  unsigned cluster[3] = {1, 1, 1};  // of blocks, which run together and reach each other's shared memory
  bool explicitCluster = false;
  uint64_t id = 0;
  uint64_t firstLevelCache = 0;  // bytes that a block has
  uint64_t instructionLimit = 0;  // per warp; a kernel that does not end is stopped
  bool strict = true;  // findings fail the launch
  int computeCapability = 80;  // of the device: tensor cores add in ways of their own
  Counters counters;

  std::atomic<bool> stop{false};
  // Whether a thread waited for the kernels ahead, and whether one had when its block let those behind start.
  std::atomic<bool> awaited{false}, awaitedFirst{false};
  std::mutex mutex;
  int error = 0;  // CUDA code of the fault that stopped the launch
  std::atomic<uint64_t> findings{0};
  std::unordered_map<uint64_t, std::unique_ptr<SyncVariable>> syncVariables;
  std::mutex syncMutex;

  uint64_t blocks() const { return (uint64_t)grid[0] * grid[1] * grid[2]; }
  uint64_t clusterBlocks() const { return (uint64_t)cluster[0] * cluster[1] * cluster[2]; }
  SyncVariable& syncVariable(uint64_t address);
  /// Runs to the end; returns 0 or a CUDA error code.
  int run();
};

/// Reports something found while `w` executes `op`.
void report(Warp& w, const Op& op, int lane, bool warning, const char* kind, const char* space, uint64_t address,
            int bytes, const std::string& message);
/// The same of what another piece of work did: the launch is not at fault and does not fail.
void reportUnordered(Warp& w, const Op& op, int lane, const char* space, uint64_t address, int bytes,
                     const std::string& message);
std::string threadName(const Block& b, int thread);

inline int firstLane(uint32_t lanes) { return __builtin_ctz(lanes); }

}  // namespace emu
