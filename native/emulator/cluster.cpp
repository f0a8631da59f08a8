#include "cluster.h"

#include <algorithm>

#include "async_proxy.h"

namespace emu {

namespace {
std::string named(const Block& b) { return blockName(*b.launch, b.linear); }
}  // namespace

// --- running -----------------------------------------------------------------------------------------------------

void Cluster::start(Launch& l, Worker& k, uint64_t index) {
  count = (int)l.clusterBlocks();
  while ((int)blocks.size() < count) blocks.push_back(std::make_unique<Block>());
  running = blocks[0].get();
  done.assign((size_t)count, false);
  phase = 0;
  arrived = 0;
  alive = (int64_t)count * l.block[0] * l.block[1] * l.block[2];
  arriving = completed = Knowledge{};
  const unsigned* c = l.cluster;
  const uint64_t wide = l.grid[0] / c[0], high = l.grid[1] / c[1];
  for (int r = 0; r < count; r++) {
    const unsigned at = (unsigned)r;
    uint64_t x = index % wide * c[0] + at % c[0], y = index / wide % high * c[1] + at / c[0] % c[1],
             z = index / wide / high * c[2] + at / c[0] / c[1];
    blocks[(size_t)r]->start(l, k, *this, r, x + l.grid[0] * (y + (uint64_t)l.grid[1] * z));
  }
  order.resize((size_t)count);
  for (int r = 0; r < count; r++) order[(size_t)r] = r;
  if (l.seed)
    for (int r = count; r > 1; r--) std::swap(order[(size_t)r - 1], order[(size_t)(k.next() % (uint64_t)r)]);
}

bool Cluster::run(uint64_t slice) {
  bool all = true, idle = true;
  for (int r : order) {
    if (done[(size_t)r]) continue;
    Block& b = *(running = blocks[(size_t)r].get());
    done[(size_t)r] = b.run(slice);
    all &= done[(size_t)r];
    idle &= !done[(size_t)r] && b.idle();
  }
  if (all || !idle) return all;
  bool moved = false;
  for (int r : order)
    if (!done[(size_t)r]) moved |= blocks[(size_t)r]->unblock();
  if (moved) return false;
  for (int r : order)
    if (!done[(size_t)r]) (running = blocks[(size_t)r].get())->stuck();
  return false;
}

// --- barrier.cluster ---------------------------------------------------------------------------------------------

void Cluster::arrive(Warp& w, const Op& op, uint32_t lanes, bool relaxed) {
  uint32_t &now = w.clusterArrived[phase & 1], &before = w.clusterArrived[~phase & 1];
  if (uint32_t again = (now | before) & lanes) {
    report(w, op, firstLane(again), false, "cluster_barrier", "", 0, 0,
           "arrives at barrier.cluster again, without barrier.cluster.wait between");
    before &= ~lanes;
    lanes &= ~now;
    if (!lanes) return;
  }
  const int mine = w.block->rank;
  if (relaxed) {  // nothing but what fences released, and that it is there
    arriving.join(w.fenceReleased, -1, mine);
    const Knowledge& known = w.knownTo(firstLane(lanes));
    arriving.others.resize((size_t)count);
    for (int r = 0; r < count; r++) {
      uint32_t& begun = arriving.others[(size_t)r].begun;
      begun = std::max(begun, known.about(r, mine).begun);
    }
  }
  now |= lanes;
  if (!relaxed) release(w, now, arriving, -1);  // with what lanes did that arrived on other ways
  arrived += __builtin_popcount(lanes);
  w.worker->counters.barriers++;
  settle();
}

bool Cluster::wait(Warp& w, const Op& op, uint32_t lanes) {
  uint32_t &now = w.clusterArrived[phase & 1], &before = w.clusterArrived[~phase & 1];
  if (uint32_t never = lanes & ~(now | before)) {
    report(w, op, firstLane(never), false, "cluster_barrier", "", 0, 0,
           "waits at barrier.cluster without having arrived");
    before |= never;
  }
  if (now & lanes) return false;
  before &= ~lanes;
  Knowledge what;
  what.join(completed, w.block->rank, -1);
  w.learn(lanes, what);
  return true;
}

void Cluster::exited(Warp& w, uint32_t lanes) {
  arrived -= __builtin_popcount(w.clusterArrived[phase & 1] & lanes);
  alive -= __builtin_popcount(lanes);
  for (uint32_t& a : w.clusterArrived) a &= ~lanes;
  settle();
}

void Cluster::settle() {
  if (!arrived || arrived < alive) return;
  completed = arriving;
  arriving = Knowledge{};
  arrived = 0;
  phase++;
  for (int r = 0; r < count; r++) blocks[(size_t)r]->wake(waitsForCluster);
}

std::string Cluster::describeBarrier() const {
  return "at barrier.cluster, where " + std::to_string(alive - arrived) + " of the cluster's threads have not arrived";
}

// --- reaching other blocks ---------------------------------------------------------------------------------------

Block& Cluster::reach(Warp& w, const Op& op, int lane, uint64_t address, uint32_t bytes) {
  const int rank = address > clusterOffset ? (int)std::min<uint64_t>(address >> 24, 1000) - 1 : w.block->rank;
  return reachRank(w, op, lane, rank, address, bytes);
}

Block& Cluster::reachRank(Warp& w, const Op& op, int lane, int rank, uint64_t address, uint32_t bytes) {
  // Kernels that know nothing of clusters have no addresses of other blocks.
  if (rank >= count || (rank != w.block->rank && w.known.others.empty()))
    throw Fault{"out_of_bounds",
                "there is no block " + std::to_string(rank) + " in a cluster of " + std::to_string(count),
                "shared",
                illegalAddress,
                lane,
                address,
                (int)bytes};
  Block& b = *blocks[(size_t)rank];
  if (&b == w.block) return b;
  if (b.ended())
    throw Fault{
        "cluster_exit", "reaches into the shared memory of block " + named(b) + " of its cluster, which has ended",
        "shared",       launchFailed,
        lane,           address & clusterOffset,
        (int)bytes};
  uint32_t& begun = w.knownTo(lane).others[(size_t)rank].begun;
  if (!begun) {
    report(w, op, lane, false, "cluster_start", "shared", address & clusterOffset, (int)bytes,
           "reaches into the shared memory of block " + named(b) +
               " of its cluster, which may not have started; barrier.cluster comes first");
    begun = 1;  // once is enough
  }
  return b;
}

bool Cluster::orders(const Warp& w, uint32_t serial) const {
  for (int r = 0; r < count; r++) {
    if (blocks[(size_t)r]->serial != serial) continue;
    for (const Knowledge* k : {&w.known, &w.ahead}) {
      if ((k == &w.ahead && !w.aheadLanes) || (size_t)r >= k->others.size()) continue;
      const uint32_t* times = k->others[(size_t)r].of;
      if (std::any_of(times, times + 32, [](uint32_t t) { return t > 1; })) return true;
    }
  }
  return false;
}

void Cluster::forgetWarps(int rank) {
  auto forget = [&](Knowledge& k) {
    if ((size_t)rank < k.others.size()) k.others[(size_t)rank].forgetWarps();
  };
  forget(arriving), forget(completed);
  for (int r = 0; r < count; r++) {
    Block& b = *blocks[(size_t)r];
    if (b.distributed) b.distributed->forget(rank);
    if (r == rank) continue;
    for (auto& x : b.barriers) forget(x.joined);
    for (Warp& w : b.warps)
      for (Knowledge* k : {&w.known, &w.ahead, &w.fenceReleased, &w.fenceAcquired}) forget(*k);
    if (b.async) b.async->forgetWarps(rank);
  }
}

// --- distributed shared memory -----------------------------------------------------------------------------------

DistributedShared& distributed(Block& b) {
  if (!b.distributed) b.distributed = std::make_unique<DistributedShared>(b.shared.size);
  return *b.distributed;
}

void DistributedShared::remember(Last& last, Warp& w, const Op& op, int lane, uint64_t at, uint32_t bytes, int slot,
                                 uint32_t phase) {
  last = {&w, &op, lane, slot, w.clock, phase, (uint32_t)at, bytes};
}

void DistributedShared::read(const Request& r, int lane, uint64_t at, uint32_t mask) {
  const Block& by = *r.w.block;
  readers[at >> 2] = {
      r.w.clock, (uint8_t)by.rank, (uint8_t)r.w.index, (uint8_t)lane, (uint8_t)mask, r.is(auxStrong), -1, 0};
  remember(accesses[by.rank][r.w.index], r.w, r.op, lane, at, r.bytes, -1, 0);
}
void DistributedShared::wrote(const Request& r, int lane, uint64_t at, uint32_t mask, int slot, uint32_t phase) {
  const Block& by = *r.w.block;
  SharedMemory& s = r.block().shared;
  uint32_t& cell = s.writers[at >> 2];
  Cell& mine = writers[at >> 2];
  s.initialised[at >> 2] |= (uint8_t)((cell & 15) | mask);
  mine = {r.w.clock,     (uint8_t)by.rank, (uint8_t)r.w.index, (uint8_t)lane,
          (uint8_t)mask, r.is(auxStrong),  (int16_t)slot,      phase};
  cell = SharedMemory::apart | SharedMemory::clusterLane | mask;
  Last& last = slot < 0 ? accesses[by.rank][r.w.index] : arrivals[by.rank][r.w.index];
  if (by.rank != r.block().rank) remember(last, r.w, r.op, lane, at, r.bytes, slot, phase);
}
void DistributedShared::arrived(Warp& w, const Op& op, int lane, uint32_t at, int slot, uint32_t phase) {
  remember(arrivals[w.block->rank][w.index], w, op, lane, at, 8, slot, phase);
}

DistributedShared::Wrong DistributedShared::afterWriter(const Warp& w, int lane, const Knowledge& known, const Block& b,
                                                        uint64_t at, bool proxy) const {
  const Cell& c = writers[at >> 2];
  const Block &by = *w.block->cluster->blocks[c.rank], &own = *w.block;
  const std::string who = "thread " + threadName(by, c.warp * 32 + c.lane) + " of block " + named(by);
  if (c.slot >= 0) {
    if (known.about(b.rank, own.rank)[(size_t)(Knowledge::barriers + c.slot)] > c.phase) return {};
    return {"async_copy_pending", "what an st.async of " + who + " writes, and its mbarrier has not been waited for"};
  }
  if (&by == &own && c.warp == w.index && (int)c.lane == lane) return {};
  const BlockKnowledge& theirs = known.about(c.rank, own.rank);
  if (c.time >= theirs[c.warp]) return {"shared_race", "what " + who + " wrote, with no barrier between"};
  if (proxy && c.time >= theirs.fenced[c.warp])
    return {"missing_proxy_fence",
            "by the asynchronous proxy what " + who + " wrote, with no fence.proxy.async between"};
  return {};
}
DistributedShared::Wrong DistributedShared::afterReader(const Warp& w, int lane, const Knowledge& known, uint64_t at,
                                                        uint32_t mask, bool strong) const {
  const Cell& c = readers[at >> 2];
  if (!(c.mask & mask) || (strong && c.strong)) return {};
  const Block &by = *w.block->cluster->blocks[c.rank], &own = *w.block;
  if (&by == &own && c.warp == w.index && (int)c.lane == lane) return {};
  if (c.time < known.about(c.rank, own.rank)[c.warp]) return {};
  return {"shared_race", "what thread " + threadName(by, c.warp * 32 + c.lane) + " of block " + named(by) +
                             " read, with no barrier between"};
}

void DistributedShared::finish(Block& b) {
  auto known = [&](auto what) {  // to any warp
    return std::any_of(b.warps.begin(), b.warps.end(),
                       [&](const Warp& w) { return what(w.known) || (w.aheadLanes && what(w.ahead)); });
  };
  for (auto* table : {&accesses, &arrivals})
    for (int rank = 0; rank < (int)mostClusterBlocks; rank++)
      for (int u = 0; u < 32; u++) {
        const Last& x = (*table)[rank][u];
        if (!x.warp || known([&](const Knowledge& k) {
              return (x.slot >= 0 && k[(size_t)(Knowledge::barriers + x.slot)] > x.phase) ||
                     x.time < k.about(rank, b.rank)[(size_t)u];
            }))
          continue;
        report(*x.warp, *x.op, x.lane, false, "cluster_exit", "shared", x.at, (int)x.bytes,
               "reaches into the shared memory of block " + named(b) +
                   " of its cluster, which may have ended by then: nothing that it waits for comes after this");
      }
}

void DistributedShared::forget(int rank) {
  for (auto* cells : {&writers, &readers})
    for (Cell& c : *cells)
      if (c.rank == rank) c.time = 0;
  for (auto* table : {&accesses, &arrivals})
    for (Last& x : (*table)[rank]) x.time = 0;
}

}  // namespace emu
