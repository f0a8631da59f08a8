#include "async_proxy.h"

#include "cluster.h"

#include <algorithm>
#include <cstring>

namespace emu {

namespace {

constexpr size_t mostBarriers = Knowledge::count - Knowledge::barriers;
constexpr int64_t mostCount = (1 << 20) - 1;  // of arrivals and of bytes

std::string number(int64_t n) { return std::to_string(n); }

/// Whether what a cell of block b tells of comes before what the lane does; lane -1: all lanes of the warp.
bool before(const Warp& w, int lane, const Block& b, const Knowledge& known, uint32_t cell) {
  uint32_t warp = cell >> 5 & 31;
  return cell >> 16 < known.about(b.rank, w.block->rank)[warp] ||
         (lane >= 0 && w.block == &b && warp == (uint32_t)w.index && (cell >> 10 & 63) == (uint32_t)lane);
}

/// Who gave a bulk copy, for reports.
std::string giver(const BulkCopy& c) {
  const Block& b = *c.warp->block;
  return "a bulk copy of warp " + number(c.warp->index) +
         (b.cluster->size() > 1 ? " of block " + blockName(*b.launch, b.linear) : "");
}

}  // namespace

void release(Warp& w, uint32_t lanes, Knowledge& to, int keeper) {
  const int lane = firstLane(lanes), mine = w.block->rank;
  to.join(w.knownTo(lane), keeper, mine);
  if (w.accessed & ~lanes) return;  // what other lanes did since the warp synchronised is theirs to release
  w.block->tick(w);
  uint32_t& time = to.about(mine, keeper)[(size_t)w.index];
  time = std::max(time, w.clock);
}

// --- mbarriers ---------------------------------------------------------------------------------------------------

void AsyncProxy::start(Block& b) {
  block = &b;
  barriers.clear();
  barriers.reserve(mostBarriers);
  pieces.assign(b.shared.size / 16 + 1, {});
  loads.clear();
  stores.clear();
  flying.clear();
  sends.clear();
  firstStore = fences = 0;
  memset(groups, 0, sizeof groups);
  events = 0;
}

void AsyncProxy::forgetWarps(int rank) {
  const int mine = block->rank;
  for (Mbarrier& b : barriers) {
    for (Knowledge* k : {&b.arriving, &b.completed})
      if (rank == mine || (size_t)rank < k->others.size()) k->about(rank, mine).forgetWarps();
    if (rank == mine) b.initialiser &= 0xffff;
  }
}

std::string AsyncProxy::describe(int slot) const {
  const Mbarrier& b = barriers[(size_t)slot];
  char at[16];
  snprintf(at, sizeof at, "0x%x", b.address);
  return std::string("the mbarrier at ") + at + ", whose phase " + number(b.phase - b.firstPhase) + " lacks " +
         number(b.pending) + " of " + number(b.expected) + " arrivals and " + number(b.transactions) + " bytes";
}

Mbarrier& AsyncProxy::initialise(Warp& w, const Op& op, int lane, uint32_t address, uint32_t count) {
  uint64_t at[32] = {};
  at[lane] = address;
  Request r{w, op, at, 1u << lane, 8};
  checkSharedBounds(r);
  if (count < 1 || count > mostCount)
    throw Fault{"mbarrier_arrivals",
                "an mbarrier for " + number(count) + " arrivals; 1 to 1048575 are allowed",
                "shared",
                launchFailed,
                lane,
                address,
                8};
  Mbarrier* b = nullptr;
  for (Mbarrier& x : barriers)
    if (x.address == address) b = &x;
  if (b && b->alive)
    report(w, op, lane, false, "mbarrier_accessed", "shared", address, 8,
           "initialises an mbarrier that is in use; mbarrier.inval comes first");
  else checkSharedWrite(r, nullptr);
  if (!b) {
    if (barriers.size() == mostBarriers)
      throw Fault{"unsupported",
                  "more than " + number(mostBarriers) + " mbarriers in a block",
                  "shared",
                  launchFailed,
                  lane,
                  address,
                  8};
    b = &barriers.emplace_back();
    b->address = address;
  }
  b->alive = true;
  b->proxied = false;
  b->observed = true;
  b->published = 0;
  b->firstPhase = b->phase;
  b->expected = b->pending = count;
  b->transactions = 0;
  b->initialiser = sharedCell(w, lane, 15);
  b->arriving = b->completed = Knowledge{};
  for (uint32_t k = 0; k < 2; k++)
    block->shared.writers[(address >> 2) + k] =
        SharedMemory::apart | SharedMemory::barrierLane | (uint32_t)w.index << 5 | 15;
  return *b;
}

Mbarrier& AsyncProxy::use(Warp& w, const Op& op, int lane, uint32_t address) {
  uint64_t at[32] = {};
  at[lane] = address;
  checkSharedBounds(Request{w, op, at, 1u << lane, 8, block});
  for (Mbarrier& b : barriers) {
    if (b.address != address) continue;
    if (!b.alive)
      throw Fault{"mbarrier_invalid", "the mbarrier was invalidated", "shared", launchFailed, lane, address, 8};
    const bool published = b.published && w.knownOf(lane, *block).begun > b.published;
    if (!published && !before(w, lane, *block, w.knownTo(lane), b.initialiser)) {
      report(w, op, lane, false, "mbarrier_not_visible", "shared", address, 8,
             "uses an mbarrier that " + cellThread(w, *block, b.initialiser) + " initialised, with no barrier between");
      b.initialiser &= 0xffff;  // once is enough
    }
    return b;
  }
  throw Fault{"mbarrier_invalid", "no mbarrier was initialised here", "shared", launchFailed, lane, address, 8};
}

void AsyncProxy::invalidate(Warp& w, const Op& op, int lane, uint32_t address) {
  use(w, op, lane, address).alive = false;
  for (uint32_t k = 0; k < 2; k++) block->shared.writers[(address >> 2) + k] = sharedCell(w, lane, 15);
}

void AsyncProxy::fenceInitialisations(Warp& w, int lane, bool publishes) {
  Knowledge& known = w.knownTo(lane);
  if (publishes) known.begun = ++fences + 1;
  for (Mbarrier& b : barriers) {
    if (!before(w, lane, *block, known, b.initialiser)) continue;
    b.proxied = true;
    if (publishes && !b.published) b.published = fences;
  }
}

void AsyncProxy::arrive(Warp& w, const Op& op, int lane, Mbarrier& b, int64_t count) {
  if (count < 1 || count > mostCount || count > b.pending)
    report(w, op, lane, false, "mbarrier_arrivals", "shared", b.address, 8,
           number(count) + " arrivals, but the phase waits for " + number(b.pending) + " more");
  if (!b.observed) {
    report(w, op, lane, false, "mbarrier_phase", "shared", b.address, 8,
           "arrives before anybody has waited for the phase that came before");
    b.observed = true;
  }
  b.pending -= std::clamp<int64_t>(count, 0, b.pending);
  settle(b);
}

void AsyncProxy::expect(Warp& w, const Op& op, int lane, Mbarrier& b, int64_t bytes) {
  b.transactions += bytes;
  if (std::abs(b.transactions) > mostCount)
    report(w, op, lane, false, "mbarrier_transactions", "shared", b.address, 8,
           number(b.transactions) + " bytes expected at once; an mbarrier counts to 1048575");
  settle(b);
}

void AsyncProxy::settle(Mbarrier& b) {
  events++;
  if (b.pending || b.transactions) return;
  b.completed = b.arriving;
  b.phase++;
  b.pending = b.expected;
  b.observed = false;
  block->wake(waitsForMbarrier + slotOf(b));
}

// --- bulk copies -------------------------------------------------------------------------------------------------

void AsyncProxy::load(BulkLoad&& l) {
  loads.push_back(std::move(l));
  BulkLoad& x = loads.back();
  uint32_t id = (uint32_t)loads.size();
  flying.push_back(id - 1);
  for (uint32_t k = x.at >> 4; k < (x.at + x.bytes) >> 4; k++) pieces[k].load = id;
  for (uint32_t k = x.at >> 2; k < (x.at + x.bytes) >> 2; k++) {
    block->shared.writers[k] = SharedMemory::apart | SharedMemory::asyncLane | (uint32_t)x.warp->index << 5 | 15;
    block->shared.readers[k] = 0;
  }
  events++;
}

void AsyncProxy::storeLater(const Request& r, BulkLoad&& l) {
  const uint64_t end = l.at + l.bytes;
  for (uint64_t at = l.at; at < end; at += 4) distributed(*block).wrote(r, l.lane, at, 15, l.slot, l.phase);
  loads.push_back(std::move(l));
  flying.push_back((uint32_t)loads.size() - 1);
  events++;
}

void AsyncProxy::send(BulkSend&& s) {
  sends.push_back(std::move(s));
  const BulkSend& x = sends.back();
  for (uint32_t k = x.at >> 4; k < (x.at + x.bytes) >> 4; k++) pieces[k].send = (uint32_t)sends.size();
}

void AsyncProxy::land(BulkLoad& l) {
  memcpy(&block->shared.bytes[l.at], l.data.data(), l.bytes);
  std::vector<uint8_t>().swap(l.data);
  l.landed = true;
  Mbarrier& b = barriers[(size_t)l.slot];
  if (!b.alive || b.phase != l.phase) {
    report(*l.warp, *l.op, l.lane, false, "mbarrier_transactions", "shared", b.address, (int)l.bytes,
           "the phase of the mbarrier is over before these " + number(l.bytes) +
               " bytes arrive: not all of them were expected");
    events++;
    return;
  }
  b.transactions -= l.bytes;
  if (b.transactions < -mostCount)
    report(*l.warp, *l.op, l.lane, false, "mbarrier_transactions", "shared", b.address, (int)l.bytes,
           "more bytes arrive that nothing expects than an mbarrier counts");
  settle(b);
}

void AsyncProxy::store(BulkStore&& s) {
  stores.push_back(std::move(s));
  BulkStore& x = stores.back();
  for (uint32_t k = x.at >> 4; k < (x.at + x.bytes) >> 4; k++) pieces[k].store = (uint32_t)stores.size();
  const Launch& l = *block->launch;
  // Before griddepcontrol.wait it is a write of that time, whenever it is done.
  if (l.firstUnordered[0] != l.firstUnordered[1] && !x.warp->knownTo(x.lane).awaited) write(x);
}

void AsyncProxy::read(BulkStore& s) {
  if (s.read) return;
  s.data.resize(s.bytes);
  memcpy(s.data.data(), &block->shared.bytes[s.at], s.bytes);
  s.read = true;
}

void AsyncProxy::write(BulkStore& s) {
  read(s);
  if (s.written) return;
  s.written = true;
  Warp& w = *s.warp;
  alignas(64) uint8_t values[32 * 16];
  uint64_t to[32];
  // What is wrong with it is the fault of who gave it, whoever is running by now.
  const Op* at = w.at;
  Warp* running = block->running;
  w.at = s.op;
  block->running = &w;
  try {
    for (uint32_t size : {16u, 8u, 4u, 2u, 1u}) {
      uint32_t lanes = 0;
      auto flush = [&] {
        if (lanes) commitGlobal(Request{w, *s.op, to, (uint32_t)((1ull << lanes) - 1), size, nullptr, s.lane}, values);
        lanes = 0;
      };
      for (auto& p : s.parts) {
        if (p.bytes != size) continue;
        to[lanes] = p.to;
        memcpy(values + lanes * size, &s.data[p.from - s.at], size);
        if (++lanes == 32) flush();
      }
      flush();
    }
  } catch (Fault& f) {
    f.lane = s.lane;
    throw;
  }
  w.at = at;
  block->running = running;
  std::vector<uint8_t>().swap(s.data);
}

void AsyncProxy::commit(Warp& w, uint32_t lanes) {
  for (BulkStore& s : stores)
    if (s.group < 0 && s.warp == &w && (lanes >> s.lane & 1)) s.group = groups[w.index][s.lane];
  for (int i = 0; i < 32; i++)
    if (lanes >> i & 1) groups[w.index][i]++;
}

void AsyncProxy::wait(Warp& w, uint32_t lanes, int64_t pending, bool onlyRead) {
  while (firstStore < stores.size() && stores[firstStore].written && stores[firstStore].waited) firstStore++;
  for (size_t k = firstStore; k < stores.size(); k++) {
    BulkStore& s = stores[k];
    if (s.warp != &w || !(lanes >> s.lane & 1) || s.group < 0 || s.group >= groups[w.index][s.lane] - pending) continue;
    read(s);
    if (!onlyRead) write(s);
    s.waited = true;
    // From here on these were reads of that thread.
    for (uint32_t i = s.at >> 4; i < (s.at + s.bytes) >> 4; i++) {
      if (pieces[i].store != k + 1) continue;
      pieces[i].store = 0;
      for (uint32_t j = 0; j < 4; j++) block->shared.readers[i * 4 + j] = sharedCell(w, s.lane, 15);
    }
    w.accessed |= 1u << s.lane;
  }
}

bool AsyncProxy::progress(bool stuck) {
  Worker& k = *block->worker;
  const bool shuffled = block->launch->seed != 0;
  bool done = false;
  for (size_t i = 0; i < flying.size();) {
    // By a seed copies arrive late and in any order; without one as they were given.
    size_t pick = shuffled ? k.next() % flying.size() : i;
    if (shuffled && !(stuck && !done) && k.next() % 3) {
      i++;
      continue;
    }
    BulkLoad& l = loads[flying[pick]];
    flying.erase(flying.begin() + (long)pick);
    land(l);
    done = true;
    if (shuffled && stuck) break;
  }
  if (shuffled)
    for (size_t i = firstStore; i < stores.size(); i++)
      if (!stores[i].written && k.next() % 4 == 0) write(stores[i]);
  return done;
}

void AsyncProxy::finish() {
  while (!flying.empty()) {
    BulkLoad& l = loads[flying.front()];
    flying.erase(flying.begin());
    land(l);
  }
  for (const BulkLoad& l : loads) {
    bool waited = false;
    for (const Warp& w : block->warps)
      waited |= std::max(w.known[(size_t)(Knowledge::barriers + l.slot)],
                         w.aheadLanes ? w.ahead[(size_t)(Knowledge::barriers + l.slot)] : 0) > l.phase;
    if (waited) continue;
    report(*l.warp, *l.op, l.lane, false, "async_copy_unfinished", "shared", l.at, (int)l.bytes,
           "the block ends with a bulk copy that was never waited for");
    break;
  }
  for (const BulkSend& s : sends) {
    const auto done = [&](const Knowledge& k) {
      return k.about(s.rank, block->rank)[(size_t)(Knowledge::barriers + s.slot)] > s.phase;
    };
    if (std::any_of(block->warps.begin(), block->warps.end(),
                    [&](const Warp& w) { return done(w.known) || (w.aheadLanes && done(w.ahead)); }))
      continue;
    report(*s.warp, *s.op, s.lane, false, "async_copy_unfinished", "shared", s.at, (int)s.bytes,
           "the block ends with a bulk copy to another block, and does not know that it has been read");
    break;
  }
  for (const BulkStore& s : stores) {
    if (s.waited) continue;
    report(*s.warp, *s.op, s.lane, false, "async_copy_unfinished", "shared", s.at, (int)s.bytes,
           "the thread ends with a bulk copy whose reading of shared memory it has not waited for");
    break;
  }
  for (BulkStore& s : stores) write(s);
  for (Warp& w : block->warps) {
    if (w.matrixLast <= w.matrixDone) continue;
    report(w, *w.at, 0, false, "wgmma_pending", "", 0, 0, "the warp ends with a wgmma that was never waited for");
    break;
  }
  for (const Mbarrier& b : barriers) {
    if (!b.alive || !b.transactions) continue;
    Warp& w = block->warps[b.initialiser >> 5 & 31];
    const Op* op = w.at;
    report(w, *op, 0, false, "mbarrier_transactions", "shared", b.address, 8,
           "the block ends while phase " + number(b.phase - b.firstPhase) + " of this mbarrier " +
               (b.transactions > 0 ? "still expects " + number(b.transactions) + " bytes"
                                   : "has got " + number(-b.transactions) + " bytes that nothing expected"));
  }
}

// --- accesses ----------------------------------------------------------------------------------------------------

bool AsyncProxy::checkThread(const Request& r, int lane, uint64_t at, uint32_t cell, const char* does) {
  if ((cell & SharedMemory::lanes) == SharedMemory::barrierLane) {
    report(r.w, r.op, lane, false, "mbarrier_accessed", "shared", at, (int)r.bytes,
           std::string(does) + " an mbarrier as if it were data; mbarrier.inval comes first");
    return false;
  }
  uint32_t id = pieces[at >> 4].load;
  if (!id) {
    report(r.w, r.op, lane, false, "async_copy_pending", "shared", at, (int)r.bytes,
           std::string(does) + " bytes that a cp.async of warp " + number(cell >> 5 & 31) +
               " will write and that has not been waited for");
    return false;
  }
  const BulkLoad& l = loads[id - 1];
  if (l.landed && r.w.knownOf(lane, *block)[(size_t)(Knowledge::barriers + l.slot)] > l.phase) return true;
  report(r.w, r.op, lane, false, "async_copy_pending", "shared", at, (int)r.bytes,
         std::string(does) + " bytes that " + giver(l) + " writes, and this thread has not waited for its mbarrier");
  return false;
}

bool AsyncProxy::checkReaders(const Request& r, int lane, uint64_t at, const Knowledge& known) {
  const Piece& p = pieces[at >> 4];
  const BlockKnowledge& mine = known.about(block->rank, r.w.block->rank);
  for (int g = 0; g < Knowledge::barriers - Knowledge::warpgroups; g++)
    if (p.matrix[g] > mine[(size_t)(Knowledge::warpgroups + g)]) {
      report(r.w, r.op, lane, false, "wgmma_pending", "shared", at, (int)r.bytes,
             "writes what a wgmma of warpgroup " + number(g) + " reads, which has not been waited for");
      return false;
    }
  if (p.store) {
    const BulkStore& s = stores[p.store - 1];
    report(r.w, r.op, lane, false, "async_copy_pending", "shared", at, (int)r.bytes,
           "writes what a bulk copy of thread " + threadName(*block, s.warp->index * 32 + s.lane) +
               " reads, which has not been waited for");
    return false;
  }
  if (!p.send) return true;
  const BulkSend& s = sends[p.send - 1];
  if (known.about(s.rank, r.w.block->rank)[(size_t)(Knowledge::barriers + s.slot)] > s.phase) return true;
  report(r.w, r.op, lane, false, "async_copy_pending", "shared", at, (int)r.bytes,
         "writes what a bulk copy to another block reads, and nothing tells that its mbarrier there has completed");
  return false;
}

bool AsyncProxy::checkRead(Warp& w, const Op& op, int lane, uint32_t at, const Knowledge& known) {
  const int from = lane < 0 ? 0 : lane;
  const BlockKnowledge& mine = known.about(block->rank, w.block->rank);
  uint32_t last = 0;
  for (uint32_t k = at >> 2; k < (at >> 2) + 4; k++) {
    uint32_t cell = block->shared.writers[k];
    if (k > at >> 2 && cell == last) continue;
    last = cell;
    auto wrong = [&](const char* kind, const std::string& what) {
      report(w, op, from, false, kind, "shared", k * 4, 16, what);
      return false;
    };
    if (cell >= SharedMemory::apart) {
      if ((cell & SharedMemory::lanes) == SharedMemory::barrierLane)
        return wrong("mbarrier_accessed", "reads an mbarrier as if it were data");
      if ((cell & SharedMemory::lanes) == SharedMemory::clusterLane) {
        if (((cell & 15) | block->shared.initialised[k]) != 15)
          return wrong("uninitialised", "reads shared memory that this block has not written");
        auto found = block->distributed->afterWriter(w, lane, known, *block, k * 4, true);
        if (found.kind) return wrong(found.kind, "reads " + found.what);
        last = 0;  // each of these words has a writer of its own
        continue;
      }
      uint32_t id = pieces[at >> 4].load;
      if (!id)
        return wrong("async_copy_pending", "reads bytes that a cp.async of warp " + number(cell >> 5 & 31) +
                                               " will write and that has not been waited for");
      const BulkLoad& l = loads[id - 1];
      if (!l.landed || mine[(size_t)(Knowledge::barriers + l.slot)] <= l.phase)
        return wrong("async_copy_pending",
                     "reads bytes that " + giver(l) + " writes, and its mbarrier has not been waited for");
      continue;
    }
    if (((cell & 15) | block->shared.initialised[k]) != 15)
      return wrong("uninitialised", "reads shared memory that this block has not written");
    if (!before(w, lane, *block, known, cell))
      return wrong("shared_race", "reads what " + cellThread(w, *block, cell) + " wrote, with no barrier between");
    if (cell >> 16 >= mine.fenced[cell >> 5 & 31])
      return wrong("missing_proxy_fence", "the asynchronous proxy reads what " + cellThread(w, *block, cell) +
                                              " wrote, with no fence.proxy.async between");
  }
  return true;
}

bool AsyncProxy::checkWrite(Warp& w, const Op& op, int lane, uint32_t at, const Knowledge& known) {
  uint64_t where[32];
  where[lane] = at;
  Request r{w, op, where, 1u << lane, 16, block};
  if (!checkReaders(r, lane, at, known)) return false;
  const BlockKnowledge& mine = known.about(block->rank, w.block->rank);
  uint32_t lastWriter = 0, lastReader = 0;
  for (uint32_t k = at >> 2; k < (at >> 2) + 4; k++) {
    uint32_t writer = block->shared.writers[k], reader = block->shared.readers[k];
    auto wrong = [&](const char* kind, const std::string& what) {
      report(w, op, lane, false, kind, "shared", k * 4, 16, what);
      return false;
    };
    if (k == at >> 2 || reader != lastReader)
      if ((reader & 15) && !before(w, lane, *block, known, reader))
        return wrong("shared_race", "writes what " + cellThread(w, *block, reader) + " read, with no barrier between");
    lastReader = reader;
    if (block->distributed) {
      auto found = block->distributed->afterReader(w, lane, known, k * 4, 15, false);
      if (found.kind) return wrong(found.kind, "writes " + found.what);
    }
    if (k > at >> 2 && writer == lastWriter) continue;
    lastWriter = writer;
    if (writer >= SharedMemory::apart && (writer & SharedMemory::lanes) == SharedMemory::clusterLane) {
      auto found = block->distributed->afterWriter(w, lane, known, *block, k * 4, true);
      if (found.kind) return wrong(found.kind, "writes " + found.what);
      lastWriter = 0;  // each of these words has a writer of its own
    } else if (writer >= SharedMemory::apart) {
      if (!checkThread(r, lane, k * 4, writer, "writes")) return false;
    } else if (writer & 15) {
      if (!before(w, lane, *block, known, writer))
        return wrong("shared_race", "writes what " + cellThread(w, *block, writer) + " wrote, with no barrier between");
      if (writer >> 16 >= mine.fenced[writer >> 5 & 31])
        return wrong("missing_proxy_fence", "the asynchronous proxy writes what " + cellThread(w, *block, writer) +
                                                " wrote, with no fence.proxy.async between");
    }
  }
  return true;
}

}  // namespace emu
