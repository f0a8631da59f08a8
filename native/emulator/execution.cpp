// Runs a launch: blocks over threads, warps within a block, groups of lanes within a warp.
//
// Divergence: lanes of a warp that are at different places form groups; the group with the lowest program counter runs, and groups
// that meet merge. A loop's late lanes therefore wait at its exit for the others, as a compiler laid the code out to be run.
#include "execution.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <thread>

#include "async_proxy.h"
#include "cluster.h"
#include "host_guard.h"
#include "instructions.h"

namespace emu {

// --- reports -----------------------------------------------------------------------------------------------------

std::string threadName(const Block& b, int thread) {
  const unsigned* n = b.launch->block;
  return "(" + std::to_string(thread % n[0]) + "," + std::to_string(thread / n[0] % n[1]) + "," +
         std::to_string(thread / n[0] / n[1]) + ")";
}

namespace {

Finding findingAt(Warp& w, const Op* op, int lane) {
  const Block& b = *w.block;
  const Program& p = *b.launch->program;
  Finding f;
  f.kernel = p.name;
  if (op) {
    const OpOrigin& origin = p.origins[(size_t)(op - p.code.data())];
    f.line = origin.line;
    f.instruction = origin.text ? *origin.text : "";
    f.sourceLine = origin.source.line;
    f.sourceFile =
        origin.source.line && p.files.count(origin.source.file) ? p.files.at(origin.source.file) : std::string();
  }
  f.hasThread = true;
  unsigned t = (unsigned)(w.index * 32 + lane);
  const unsigned* n = b.launch->block;
  for (int k = 0; k < 3; k++) f.block[k] = b.index[k];
  f.thread[0] = t % n[0], f.thread[1] = t / n[0] % n[1], f.thread[2] = t / n[0] / n[1];
  return f;
}

void add(Warp& w, const Op& op, int lane, bool warning, const char* kind, const char* space, uint64_t address,
         int bytes, const std::string& message) {
  auto& seen = w.worker->reported[(size_t)(&op - w.block->launch->program->code.data())];
  if (seen >= 200) return;  // the first ones are enough to see what is wrong
  seen++;
  Finding f = findingAt(w, &op, lane);
  f.warning = warning;
  f.kind = kind;
  f.space = space;
  f.address = address;
  f.bytes = bytes;
  f.message = message;
  reports().add(std::move(f));
}
}  // namespace

void report(Warp& w, const Op& op, int lane, bool warning, const char* kind, const char* space, uint64_t address,
            int bytes, const std::string& message) {
  if (!warning) w.block->launch->findings++;
  add(w, op, lane, warning, kind, space, address, bytes, message);
}
void reportUnordered(Warp& w, const Op& op, int lane, const char* space, uint64_t address, int bytes,
                     const std::string& message) {
  add(w, op, lane, false, "stream_race", space, address, bytes, message);
}

// --- warps -------------------------------------------------------------------------------------------------------

void Warp::leastKnown() {
  uint32_t least = ~0u;
  for (size_t u = 0; u < block->warps.size(); u++) least = std::min(least, known[u]);
  knownLeast = least;
}

const BlockKnowledge& Warp::knownOf(int lane, const Block& b) const { return knownTo(lane).about(b.rank, block->rank); }

void Warp::learn(uint32_t learning, const Knowledge& what) {
  if (learning == alive) {
    known.join(what);
    if (aheadLanes) ahead.join(what);
    leastKnown();
    return;
  }
  if (!aheadLanes) ahead = known;
  aheadLanes |= learning;
  ahead.join(what);
}

/// Puts the group that shall run next into pc and lanes; false when none can.
bool Block::schedule(Warp& w) {
  if (w.lanes) w.groups.push_back({w.pc, w.lanes, -1, false});
  w.lanes = 0;
  // Merge groups that stand at the same place.
  for (size_t i = 0; i < w.groups.size(); i++) {
    if (w.groups[i].waiting >= 0) continue;
    for (size_t j = i + 1; j < w.groups.size();) {
      if (w.groups[j].waiting < 0 && w.groups[j].pc == w.groups[i].pc) {
        w.groups[i].lanes |= w.groups[j].lanes;
        w.groups[i].parked &= w.groups[j].parked;
        w.groups.erase(w.groups.begin() + (long)j);
      } else {
        j++;
      }
    }
  }
  int best = -1;
  for (size_t i = 0; i < w.groups.size(); i++) {
    const Group& g = w.groups[i];
    if (g.waiting < 0 && !g.parked && (best < 0 || g.pc < w.groups[(size_t)best].pc)) best = (int)i;
  }
  if (best >= 0) {
    w.pc = w.groups[(size_t)best].pc;
    w.lanes = w.groups[(size_t)best].lanes;
    w.groups.erase(w.groups.begin() + best);
  }
  w.watch = 1 << 30;
  for (const Group& g : w.groups)
    if (g.waiting < 0) w.watch = std::min(w.watch, g.pc);
  return best >= 0;
}

void Block::runWarp(Warp& w, uint64_t slice) {
  const Op* const code = launch->program->code.data();
  const int32_t* const operands = launch->program->operands.data();
  Counters& counters = worker->counters;
  uint64_t end = w.executed + slice;
  if (!w.lanes && !schedule(w)) return;
  while (w.executed < end) {
    const Op& op = code[w.pc];
    uint32_t m = w.lanes;
    w.at = &op;
    w.executed++;
    if (op.guard) m &= w.predicate(op.guard);
    counters.instructions[(int)op.klass]++;
    counters.lanes[(int)op.klass] += (uint64_t)__builtin_popcount(m);
    switch (op.flow) {
      case Flow::Next:
        if (m) op.run(w, op, operands + op.first, m);
        w.pc++;
        break;
      case Flow::Branch:
        if (m == w.lanes) {
          w.pc = op.target;
        } else if (m == 0) {
          w.pc++;
        } else {
          w.groups.push_back({op.target, m, -1, false});
          w.lanes &= ~m;
          w.pc++;
          w.watch = std::min(w.watch, op.target);
        }
        break;
      case Flow::Indexed: {
        const auto& table = launch->program->branchTables[(size_t)op.immediate];
        const uint32_t* index = w.reg<uint32_t>(operands[op.first]);
        uint32_t rest = w.lanes & ~m;
        if (rest) w.groups.push_back({w.pc + 1, rest, -1, false});
        for (int i = 0; i < 32; i++) {
          if (!(m >> i & 1)) continue;
          if (index[i] >= table.size())
            throw Fault{"branch_out_of_table", "brx.idx with index " + std::to_string(index[i]), "", illegalInstruction,
                        i};
          w.groups.push_back({table[index[i]], 1u << i, -1, false});
        }
        w.lanes = 0;
        schedule(w);
        break;
      }
      case Flow::Exit:
        if (!m) {
          w.pc++;
          break;
        }
        if (m & w.alive) {
          for (auto& p : w.pending)
            if (p->lanes & m) {
              report(w, op, firstLane(p->lanes & m), false, "async_copy_unfinished", "shared",
                     p->to[firstLane(p->lanes & m)], p->bytes, "ends with a cp.async that was never waited for");
              break;
            }
        }
        w.alive &= ~m;
        exited += __builtin_popcount(m);
        w.lanes &= ~m;
        if (w.lanes) w.pc++;
        checkExitedAtBarrier();
        cluster->exited(w, m);
        if (!w.lanes && !schedule(w)) return;
        break;
      case Flow::Barrier:
        if (!m) {
          w.pc++;
          break;
        }
        barrier(w, op, m);
        if (!w.lanes && !schedule(w)) return;
        break;
      case Flow::Converge: {
        if (!m) {
          w.pc++;
          break;
        }
        uint32_t members = w.reg<uint32_t>(operands[op.first + op.maskOperand])[firstLane(m)];
        uint32_t missing = members & ~m & w.alive;
        if (missing) {  // lanes that come later: wait for them here
          if (m != w.lanes) {  // lanes whose guard is false go on
            w.groups.push_back({w.pc, m, -1, true});
            w.lanes &= ~m;
            w.watch = std::min(w.watch, w.pc);
            w.pc++;
          } else {
            w.groups.push_back({w.pc, m, -1, true});
            w.lanes = 0;
          }
          if (!schedule(w)) return;
          continue;
        }
        if (m & ~members) {
          report(w, op, firstLane(m & ~members), false, "not_in_member_mask", "", 0, 0,
                 "executes a warp-level operation whose member mask does not name it");
        } else if (members & ~m) {
          int gone = firstLane(members & ~m);
          bool launched = w.index * 32 + gone < threads;
          report(w, op, firstLane(m), false, "member_mask_of_absent_lanes", "", 0, 0,
                 "the member mask names lane " + std::to_string(gone) +
                     (launched ? ", which has exited" : ", which the block does not have"));
        }
        op.run(w, op, operands + op.first, m);
        if (!waits(w, m)) w.pc++;
        if (!w.lanes && !schedule(w)) return;
        break;
      }
      case Flow::Wait:
        if (m) op.run(w, op, operands + op.first, m);
        if (!waits(w, m)) w.pc++;
        if (!w.lanes && !schedule(w)) return;
        break;
    }
    if (w.yields) {
      if (w.pc >= w.watch) schedule(w);
      return;
    }
    if (w.pc >= w.watch && !schedule(w)) return;
  }
  if (w.executed > launch->instructionLimit)
    throw Fault{"timeout", "the warp executed " + std::to_string(w.executed) + " instructions and is not done", "",
                launchTimeout, w.lanes ? firstLane(w.lanes) : 0};
}

// --- barriers ----------------------------------------------------------------------------------------------------

/// operands: barrier id, thread count (0: all), and for bar.red d, p. aux: 1 waits, 2 aligned, 4 has a count, 8 popc, 16 and, 32 or
void Block::barrier(Warp& w, const Op& op, uint32_t m) {
  const int32_t* o = launch->program->operands.data() + op.first;
  int lane = firstLane(m);
  uint32_t id = w.reg<uint32_t>(o[0])[lane], count = op.aux & 4 ? w.reg<uint32_t>(o[1])[lane] : 0;
  if (id > 15)
    throw Fault{"bad_barrier", "barrier " + std::to_string(id) + " does not exist", "", illegalInstruction, lane};
  if ((op.aux & 2) && m != w.alive) {
    uint32_t absent = w.alive & ~m;
    throw Fault{"divergent_barrier",
                "reached by " + std::to_string(__builtin_popcount(m)) + " of " +
                    std::to_string(__builtin_popcount(w.alive)) + " threads of the warp; thread " +
                    threadName(*this, w.index * 32 + firstLane(absent)) + " is elsewhere",
                "", launchFailed, lane};
  }
  BarrierState& b = barriers[id];
  int expected = count ? (int)count : threads;
  if (count && count % 32)
    throw Fault{"bad_barrier", "the thread count " + std::to_string(count) + " is not a multiple of 32", "",
                launchFailed, lane};
  if (b.arrived && b.expected != expected)
    throw Fault{"divergent_barrier",
                "barrier " + std::to_string(id) + " is waited at for " + std::to_string(b.expected) +
                    " threads and for " + std::to_string(expected),
                "", launchFailed, lane};
  if ((op.aux & 1) == 0 && !count)
    throw Fault{"bad_barrier", "bar.arrive needs a thread count", "", launchFailed, lane};
  b.expected = expected;
  b.arrived += count ? 32 : __builtin_popcount(m);
  // What the warp did until now happens before what those do that wait here.
  if (w.aheadLanes) w.known.join(w.ahead), w.aheadLanes = 0;
  tick(w);
  b.joined.join(w.known);
  b.joined[(size_t)w.index] = w.clock;
  w.accessed = 0;
  if (op.aux & 1) b.waiters |= 1u << w.index;
  worker->counters.barriers++;
  if (op.aux & (8 | 16 | 32)) {
    uint32_t p = w.predicate(o[3]) & m;
    b.trueCount += (uint32_t)__builtin_popcount(p);
    b.results.push_back({&w, &op, m});
  }
  if (op.aux & 1) {
    w.groups.push_back({w.pc + 1, m, (int)id, false});
    w.lanes &= ~m;
    if (w.lanes) w.pc++;
  } else {
    w.pc++;
  }
  if (b.arrived > b.expected)
    throw Fault{"divergent_barrier", "more threads arrived than barrier " + std::to_string(id) + " expects", "",
                launchFailed, lane};
  if (b.arrived == b.expected) release((int)id);
  else checkExitedAtBarrier();
}

void Block::checkExitedAtBarrier() {
  if (!exited) return;
  for (int id = 0; id < 16; id++) {
    BarrierState& b = barriers[id];
    if (!b.arrived || b.expected != threads || b.arrived + exited < threads) continue;
    for (Warp& w : warps)
      for (Group& g : w.groups)
        if (g.waiting == id) {
          report(w, launch->program->code[(size_t)g.pc - 1], firstLane(g.lanes), false, "divergent_barrier", "", 0, 0,
                 std::to_string(exited) + " of the block's " + std::to_string(threads) +
                     " threads have exited and never reach the barrier");
          release(id);
          return;
        }
  }
}

void Block::release(int id) {
  BarrierState& b = barriers[id];
  for (auto& r : b.results) {
    const int32_t* o = launch->program->operands.data() + r.op->first;
    if (r.op->aux & 8) {
      uint32_t* d = r.w->reg<uint32_t>(o[2]);
      for (int i = 0; i < 32; i++)
        if (r.lanes >> i & 1) d[i] = b.trueCount;
    } else {
      bool all = b.trueCount == (uint32_t)b.arrived;
      r.w->setPredicate(o[2], (r.op->aux & 16 ? all : b.trueCount > 0) ? ~0u : 0, r.lanes);
    }
  }
  for (size_t u = 0; u < warps.size(); u++) {
    if (!(b.waiters >> u & 1)) continue;
    warps[u].known.join(b.joined);
    warps[u].leastKnown();
  }
  b.joined = Knowledge{};
  b.arrived = b.expected = 0;
  b.waiters = b.trueCount = 0;
  b.results.clear();
  wake(id);
}

void Block::wake(int waiting) {
  for (Warp& w : warps) {
    for (Group& g : w.groups)
      if (g.waiting == waiting) {
        g.waiting = -1;
        w.watch = std::min(w.watch, g.pc);
      }
  }
}

bool Block::waits(Warp& w, uint32_t lanes) {
  if (w.blocked < 0) return false;
  w.groups.push_back({w.pc, lanes, w.blocked, false});
  w.blocked = -1;
  w.lanes &= ~lanes;
  if (w.lanes) w.pc++;  // lanes whose guard is false go on
  return true;
}

void Block::tick(Warp& w) {
  if (++w.clock >= 0xfff0) restartClocks();
}

void Block::synchronise(Warp& w) {
  if (w.aheadLanes) w.known.join(w.ahead), w.aheadLanes = 0;
  tick(w);
  w.known[(size_t)w.index] = w.clock;
  w.accessed = 0;
  w.leastKnown();
}

/// The 16 bits of the cells' times are used up: forget the past, keep what is initialised or pending.
void Block::restartClocks() {
  for (auto& c : shared.writers) c = c >= SharedMemory::apart ? c : c & 0xffff;
  for (auto& c : shared.readers) c = 0;
  for (auto& b : barriers) b.joined.forgetWarps();
  if (async) async->forgetWarps(rank);
  for (Warp& w : warps) {
    w.clock = 1;
    for (Knowledge* k : {&w.known, &w.ahead, &w.fenceReleased, &w.fenceAcquired}) k->forgetWarps();
    w.knownLeast = 1;
  }
  cluster->forgetWarps(rank);
}

void Block::stuck() {
  std::string where;
  Warp* first = nullptr;
  const Op* op = nullptr;
  int lane = 0;
  for (Warp& w : warps)
    if (w.lanes) w.groups.push_back({w.pc, w.lanes}), w.lanes = 0;
  for (Warp& w : warps)
    for (Group& g : w.groups) {
      const Op* at = &launch->program->code[(size_t)(g.waiting >= 0 && g.waiting < 16 ? g.pc - 1 : g.pc)];
      if (!first) first = &w, op = at, lane = firstLane(g.lanes);
      if (where.size() < 300)
        where += "; warp " + std::to_string(w.index) + ": " + std::to_string(__builtin_popcount(g.lanes)) +
                 " threads wait " +
                 (g.waiting >= waitsForMbarrier    ? "for " + async->describe(g.waiting - waitsForMbarrier)
                  : g.waiting == waitsForCluster   ? cluster->describeBarrier()
                  : g.waiting == waitsForRegisters ? std::string("for registers")
                  : g.waiting == waitsForWarpgroup ? std::string("for the other warps of the warpgroup")
                  : g.waiting >= 0                 ? "at barrier " + std::to_string(g.waiting)
                  : g.parked                       ? std::string("for lanes of their member mask")
                                                   : std::string("for an mbarrier by asking again and again")) +
                 ", PTX line " +
                 std::to_string(launch->program->origins[(size_t)(at - launch->program->code.data())].line);
    }
  if (first) first->at = op, running = first;
  const char* of = cluster->size() > 1 ? "cluster" : "block";
  throw Fault{"deadlock", std::string("no thread of the ") + of + " can go on" + where, "", launchTimeout, lane};
}

// --- blocks ------------------------------------------------------------------------------------------------------

void SharedMemory::start(uint32_t n) {
  size = n;
  uint32_t words = (n + 3) / 4;
  if (bytes.size() < n + 64) bytes.resize(n + 64);
  memset(bytes.data(), 0xff, bytes.size());  // a NaN
  writers.assign(words + 16, 0);
  readers.assign(words + 16, 0);
  initialised.assign(words + 16, 0);
}

void Block::start(Launch& l, Worker& k, Cluster& c, int rankInCluster, uint64_t at) {
  launch = &l;
  worker = &k;
  cluster = &c;
  rank = rankInCluster;
  linear = at;
  index[0] = (unsigned)(at % l.grid[0]), index[1] = (unsigned)(at / l.grid[0] % l.grid[1]),
  index[2] = (unsigned)(at / l.grid[0] / l.grid[1]);
  serial = l.firstSerial + (uint32_t)at;
  fenced = triggered = false;
  exited = 0;
  threads = (int)(l.block[0] * l.block[1] * l.block[2]);
  acquired.clear();
  for (auto& b : barriers) b = BarrierState{};
  const Program& p = *l.program;
  shared.start(l.sharedBytes);
  registerPool = 0;
  idleRounds = lastEvents = 0;
  still = false;
  distributed.reset();
  cache.start(l.firstLevelCache);
  size_t n = (size_t)(threads + 31) / 32;
  size_t perWarp = (size_t)p.registerBytes + ((size_t)(p.predicateCount + p.trackedCount) * 4 + 63) / 64 * 64;
  if (storage.size() < perWarp * n + 64) storage.resize(perWarp * n + 64);
  char* at64 = (char*)(((uintptr_t)storage.data() + 63) & ~(uintptr_t)63);
  warps.resize(n);
  uint64_t mixed = (l.seed + 0x9e3779b97f4a7c15ull) * (at + 1);
  k.random = mixed ^ mixed >> 29;
  order.resize(n);
  for (size_t u = 0; u < n; u++) order[u] = (int)u;
  if (l.seed)
    for (size_t u = n; u > 1; u--) std::swap(order[u - 1], order[k.next() % u]);
  for (size_t u = 0; u < n; u++) {
    Warp& w = warps[u];
    w.block = this;
    w.worker = &k;
    w.index = (int)u;
    w.base[0] = at64 + u * perWarp;
    w.base[1] = const_cast<char*>(k.constantBase);
    w.predicates = (uint32_t*)(w.base[0] + p.registerBytes);
    w.tracked = w.predicates + p.predicateCount;
    memset(w.predicates, 0, (size_t)(p.predicateCount + p.trackedCount) * 4);
    w.predicates[0] = ~0u;
    int here = std::min(32, threads - (int)u * 32);
    w.alive = w.lanes = here == 32 ? ~0u : (1u << here) - 1;
    w.pc = 0;
    w.groups.clear();
    w.watch = 1 << 30;
    w.executed = 0;
    w.clock = 1;
    w.known = Knowledge{};
    w.known.forgetWarps();
    w.known.begun = 1;
    if (p.usesCluster) w.known.others.resize((size_t)c.size());
    w.clusterArrived[0] = w.clusterArrived[1] = 0;
    w.fenceReleased = w.fenceAcquired = Knowledge{};
    w.knownLeast = 1;
    w.aheadLanes = w.accessed = w.unfenced = w.refusals = 0;
    w.blocked = -1;
    w.yields = false;
    w.accumulators.assign((size_t)p.accumulatorCount, {});
    w.matrixGroups = w.matrixDone = w.matrixLast = 0;
    w.matrixFenced = false;
    w.registers = 0;
    for (auto& c : w.pending) w.spare.push_back(std::move(c));
    w.pending.clear();
    w.copyGroups.clear();
    w.firstGroup = 0;
    if (p.localBytes) {
      w.local.resize((size_t)p.localBytes * 32);
      w.localWritten.assign((size_t)p.localBytes * 32, 0);
    }
    for (auto& s : p.specials) {
      uint32_t* d = w.reg<uint32_t>(s.slot);
      for (unsigned i = 0; i < 32; i++) {
        unsigned t = (unsigned)u * 32 + i;
        switch (s.id) {
          case TidX: d[i] = t % l.block[0]; break;
          case TidY: d[i] = t / l.block[0] % l.block[1]; break;
          case TidZ: d[i] = t / l.block[0] / l.block[1]; break;
          case NtidX:
          case NtidY:
          case NtidZ: d[i] = l.block[s.id - NtidX]; break;
          case CtaidX:
          case CtaidY:
          case CtaidZ: d[i] = index[s.id - CtaidX]; break;
          case NctaidX:
          case NctaidY:
          case NctaidZ: d[i] = l.grid[s.id - NctaidX]; break;
          case ClusterIdX:
          case ClusterIdY:
          case ClusterIdZ: d[i] = index[s.id - ClusterIdX] / l.cluster[s.id - ClusterIdX]; break;
          case NClusterIdX:
          case NClusterIdY:
          case NClusterIdZ: d[i] = l.grid[s.id - NClusterIdX] / l.cluster[s.id - NClusterIdX]; break;
          case ClusterCtaIdX:
          case ClusterCtaIdY:
          case ClusterCtaIdZ: d[i] = index[s.id - ClusterCtaIdX] % l.cluster[s.id - ClusterCtaIdX]; break;
          case ClusterNCtaIdX:
          case ClusterNCtaIdY:
          case ClusterNCtaIdZ: d[i] = l.cluster[s.id - ClusterNCtaIdX]; break;
          case ClusterCtaRank: d[i] = (uint32_t)rank; break;
          case ClusterNCtaRank: d[i] = (uint32_t)c.size(); break;
          case IsExplicitCluster: d[i] = l.explicitCluster; break;
          case LaneId: d[i] = i; break;
          case WarpId: d[i] = (uint32_t)u; break;
          case NWarpId: d[i] = 64; break;
          case SmId: d[i] = (uint32_t)(at % 108); break;
          case NSmId: d[i] = 108; break;
          case GridId: d[i] = (uint32_t)l.id; break;
          case LaneMaskEq: d[i] = 1u << i; break;
          case LaneMaskLe: d[i] = ~0u >> (31 - i); break;
          case LaneMaskLt: d[i] = (1u << i) - 1; break;
          case LaneMaskGe: d[i] = ~0u << i; break;
          case LaneMaskGt: d[i] = ~0u << i & ~(1u << i); break;
          case DynamicSharedSize: d[i] = l.dynamicShared; break;
          case TotalSharedSize: d[i] = l.sharedBytes; break;
          default: d[i] = 0; break;
        }
      }
    }
  }
  if (p.usesAsyncProxy) {
    if (!async) async = std::make_unique<AsyncProxy>();
    async->start(*this);
  } else {
    async.reset();
  }
}

bool Block::acquiredFrom(uint32_t who) {
  for (auto& [variable, length] : acquired) {
    std::lock_guard lock(variable->mutex);
    auto it = variable->position.find(who);
    if (it != variable->position.end() && it->second < length) return true;
  }
  return false;
}

bool Block::run(uint64_t slice) {
  uint64_t before = 0, after = 0;
  bool done = true, idle = true, moved = false;
  for (Warp& w : warps) before += w.executed;
  for (int u : order) {
    Warp& w = warps[(size_t)u];
    running = &w;
    uint64_t until = w.executed;
    w.yields = false;
    if (w.alive) runWarp(w, slice);
    idle &= w.executed == until || w.yields;
    if (async) moved |= async->progress(false);
  }
  for (Warp& w : warps) {
    after += w.executed;
    done &= w.alive == 0;
  }
  if (done) {
    // A block that has let none start does so when it ends.
    if (!triggered && std::any_of(warps.begin(), warps.end(),
                                  [](const Warp& w) { return w.known.awaited || (w.aheadLanes && w.ahead.awaited); }))
      launch->awaitedFirst = true;
    if (distributed) distributed->finish(*this);
    if (async) async->finish();
    for (Warp& w : warps) {
      const Warp& first = warps[(size_t)w.index / 4 * 4];
      if (w.registers == first.registers) continue;
      report(w, *w.at, 0, false, "setmaxnreg", "", 0, 0,
             "ends with " + std::to_string(w.registers) +
                 " registers by setmaxnreg, the first warp of its warpgroup with " + std::to_string(first.registers) +
                 ": all four warps must execute the same ones (0: none)");
      break;
    }
    return true;
  }
  if (async) {  // who asks again and again for what nobody does is stuck as well
    idleRounds = idle && async->events == lastEvents ? idleRounds + 1 : 0;
    lastEvents = async->events;
  }
  constexpr uint64_t patience = 1000;
  still = (after == before && !moved) || idleRounds > patience;
  return false;
}

bool Block::unblock() {
  if (!async || !async->progress(true)) return false;
  idleRounds = 0;
  return true;
}

Block::Block() = default;
Block::~Block() = default;

// --- launches ----------------------------------------------------------------------------------------------------

Allocation* Worker::find(uint64_t address) {
  if (recent && address - recent->base < recent->size) return recent;
  const auto& all = launch->allocations;
  auto it =
      std::upper_bound(all.begin(), all.end(), address, [](uint64_t a, const Allocation* x) { return a < x->base; });
  if (it == all.begin()) return nullptr;
  Allocation* a = *std::prev(it);
  if (address - a->base >= a->size) return nullptr;
  return recent = a;
}

constexpr size_t mostPatterns = 128;  // programs

void Worker::start(Launch& l) {
  launch = &l;
  counters = Counters{};
  recent = nullptr;
  if (patternsOf.size() >= mostPatterns && !patternsOf.count(l.program->id)) patternsOf.clear();
  patterns = &patternsOf[l.program->id];
  patterns->of.resize(l.program->code.size(), -1);
  reported.assign(l.program->code.size(), 0);
  constants.resize(l.program->constants.size() / 8 + 16);
  char* at = (char*)(((uintptr_t)constants.data() + 63) & ~(uintptr_t)63);
  memcpy(at, l.program->constants.data(), l.program->constants.size());
  constantBase = at;
}

Worker::Worker() = default;
Worker::~Worker() = default;

SyncVariable& Launch::syncVariable(uint64_t address) {
  std::lock_guard lock(syncMutex);
  auto& v = syncVariables[address];
  if (!v) v = std::make_unique<SyncVariable>();
  return *v;
}

namespace {

/// Threads that stay for the next launch.
class Crew {
 public:
  void run(int n, const std::function<void(int)>& task) {
    while ((int)threads.size() < n - 1) {
      int id = (int)threads.size() + 1;
      threads.emplace_back([this, id, seen = generation] { loop(id, seen); });
      threads.back().detach();
    }
    {
      std::lock_guard lock(mutex);
      job = &task;
      wanted = n;
      running = n - 1;
      generation++;
    }
    wake.notify_all();
    task(0);
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return running == 0; });
    job = nullptr;
  }

 private:
  void loop(int id, uint64_t seen) {
    HostGuard::belongsToDevice();
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return generation != seen; });
      seen = generation;
      if (id >= wanted) continue;
      auto* task = job;
      lock.unlock();
      (*task)(id);
      lock.lock();
      if (--running == 0) done.notify_all();
    }
  }
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake, done;
  const std::function<void(int)>* job = nullptr;
  int wanted = 0, running = 0;
  uint64_t generation = 0;
};

// Launches hold the driver's lock, so one crew and one set of workers serve all of them.
Crew& crew() {
  static Crew* c = new Crew;
  return *c;
}
std::vector<std::unique_ptr<Worker>>& workers() {
  static auto* w = new std::vector<std::unique_ptr<Worker>>;
  return *w;
}

}  // namespace

int Launch::run() {
  const uint64_t n = blocks() / clusterBlocks();  // clusters, most of them of one block
  constexpr uint64_t slice = 1 << 16, turn = 1 << 10;  // operations of a warp, alone and where blocks take turns
  int count = (int)std::min<uint64_t>((uint64_t)std::max(1, threads), n);
  if (cooperative) count = 1;
  while ((int)workers().size() < count) workers().push_back(std::make_unique<Worker>());
  // With a seed, clusters start in another order: i -> (i*step + offset) mod n, step coprime to n.
  uint64_t step = 1, offset = 0;
  if (seed && n > 1) {
    step = (seed * 0x9e3779b97f4a7c15ull >> 20) % n | 1;
    auto gcd = [](uint64_t a, uint64_t b) {
      while (b) {
        uint64_t t = a % b;
        a = b;
        b = t;
      }
      return a;
    };
    while (gcd(step, n) != 1) step++;
    offset = (seed * 0xbf58476d1ce4e5b9ull >> 20) % n;
  }
  std::atomic<uint64_t> next{0};
  auto guarded = [&](Cluster& c, auto&& body) {
    try {
      body();
    } catch (const Fault& f) {
      stop = true;
      std::lock_guard lock(mutex);
      if (error) return;
      error = f.cudaError;
      Warp* w = c.running->running;
      Finding x = findingAt(*w, w->at, f.lane);
      x.kind = f.kind;
      x.space = f.space;
      x.address = f.address;
      x.bytes = f.bytes;
      x.message = f.message;
      reports().add(std::move(x));
    }
  };
  auto work = [&](int id) {
    Worker& k = *workers()[(size_t)id];
    k.start(*this);
    auto& all = k.clusters;
    while (all.size() < (cooperative ? n : 1)) all.push_back(std::make_unique<Cluster>());
    if (cooperative) {  // all blocks are resident and take turns
      std::vector<bool> done((size_t)n);
      for (uint64_t i = 0; i < n; i++) all[i]->start(*this, k, (i * step + offset) % n);
      for (uint64_t left = n; left && !stop;)
        for (uint64_t i = 0; i < n && !stop; i++)
          guarded(*all[i], [&] {
            if (!done[i] && all[i]->run(turn)) done[i] = true, left--;
          });
      all.resize(1);
      return;
    }
    for (uint64_t i; !stop && (i = next.fetch_add(1)) < n;)
      guarded(*all[0], [&] {
        all[0]->start(*this, k, (i * step + offset) % n);
        while (!stop && !all[0]->run(all[0]->size() > 1 ? turn : slice)) {}
      });
  };
  if (count == 1) work(0);
  else crew().run(count, work);
  for (int i = 0; i < count; i++) counters.add(workers()[(size_t)i]->counters);
  counters.fusedMultiplyAdds += counters.lanes[(int)OpClass::Fma32];
  if (!error && strict && findings) error = launchFailed;
  return error;
}

}  // namespace emu
