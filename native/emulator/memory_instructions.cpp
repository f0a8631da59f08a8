// Loads, stores, atomics and asynchronous copies, with the checks and counts that belong to them.
//
// Every access goes the same way: compute the lanes' addresses, resolve them in their space (bounds, alignment, initialisation, races,
// counters), move the bytes between memory and a lane-major buffer, and spread the buffer over registers.
#include <algorithm>
#include <cinttypes>

#include "async_proxy.h"
#include "cluster.h"
#include "instructions.h"
#include "lanes.h"
#include "memory_access.h"

namespace emu {

const char* spaceName(uint32_t space) {
  static const char* const names[] = {"generic", "global", "shared", "local", "const", "param"};
  return names[space];
}

std::string blockName(const Launch& l, uint64_t linear) {
  return "(" + std::to_string(linear % l.grid[0]) + "," + std::to_string(linear / l.grid[0] % l.grid[1]) + "," +
         std::to_string(linear / l.grid[0] / l.grid[1]) + ")";
}

namespace {

[[noreturn]] void outOfBounds(const Request& r, int lane, const char* space, const std::string& where) {
  throw Fault{"out_of_bounds", where, space, illegalAddress, lane, r.at[lane], (int)r.bytes};
}
/// All bits where the lane takes part: loops over all lanes, without branches, are vector code.
uint64_t active(const Request& r, int i) { return -(uint64_t)(r.lanes >> i & 1); }
void checkAlignment(const Request& r, const char* space) {
  uint64_t low = 0;
  EMU_LANES low |= r.at[i] & active(r, i);
  if (!(low & (r.bytes - 1))) return;
  EMU_LANES
  if ((r.lanes >> i & 1) && (r.at[i] & (r.bytes - 1)))
    throw Fault{
        "misaligned", "address is not a multiple of " + std::to_string(r.bytes), space, misalignedAddress, i, r.at[i],
        (int)r.bytes};
}

// --- global memory -----------------------------------------------------------------------------------------------

/// Lanes first..first+count-1 access consecutive addresses.
struct Extent {
  uint64_t low = ~0ull, high = 0;
  bool contiguous = false;
  int first = 0, count = 0;
};
Extent extentOf(const Request& r) {
  Extent e;
  e.first = firstLane(r.lanes);
  uint32_t run = r.lanes >> e.first;
  uint64_t start = r.at[e.first];
  if ((run & (run + 1)) == 0) {
    uint64_t off = 0, expected = start - (uint64_t)e.first * r.bytes;
    EMU_LANES off |= (r.at[i] ^ (expected + (uint64_t)i * r.bytes)) & active(r, i);
    if (off == 0) {
      e.count = __builtin_popcount(run);
      e.contiguous = true;
      e.low = start;
      e.high = start + (uint64_t)e.count * r.bytes;
      return e;
    }
  }
  uint64_t low = ~0ull, high = 0;
  EMU_LANES {
    uint64_t a = r.at[i] | ~active(r, i), b = r.at[i] & active(r, i);
    low = a < low ? a : low;
    high = b > high ? b : high;
  }
  e.low = low;
  e.high = high + r.bytes;
  return e;
}

/// The one allocation holding all of it, or null when lanes touch several; faults when a lane touches none.
Allocation* resolve(const Request& r, const Extent& e, const char* space) {
  Allocation* a = r.w.worker->find(e.low);
  if (a && e.high <= a->end()) return a;
  EMU_LANES {
    if (!(r.lanes >> i & 1)) continue;
    Allocation* x = r.w.worker->find(r.at[i]);
    if (x && r.at[i] + r.bytes <= x->end()) continue;
    bool freed = false;
    std::string where = memory().describe(r.at[i], (int)r.bytes, &freed);
    if (freed) throw Fault{"use_after_free", where, space, illegalAddress, i, r.at[i], (int)r.bytes};
    outOfBounds(r, i, space, where);
  }
  return nullptr;
}

/// The pattern of a request if its operation was seen with it lately; else one to be filled, in which `known` is false.
Pattern& patternOf(const Request& r, uint64_t low, uint32_t phase, bool& known) {
  Patterns& patterns = *r.w.worker->patterns;
  int32_t& at = patterns.of[(size_t)(&r.op - r.w.block->launch->program->code.data())];
  if (at < 0) {
    at = (int32_t)patterns.all.size();
    patterns.all.emplace_back();
  }
  Patterns::Recent& recent = patterns.all[(size_t)at];
  alignas(64) uint32_t relative[32];
  EMU_LANES relative[i] = (uint32_t)((r.at[i] - low) & active(r, i));
  for (Pattern& p : recent.each) {
    if (p.lanes != r.lanes || p.phase != phase) continue;
    uint32_t off = 0;
    EMU_LANES off |= p.relative[i] ^ relative[i];
    known = off == 0;
    if (known) return p;
  }
  known = false;
  Pattern& p = recent.each[recent.next++ % recent.each.size()];
  memcpy(p.relative, relative, sizeof relative);
  p.lanes = r.lanes;
  p.phase = phase;
  return p;
}

/// Of the sectors that a load asks for, those that the block's first-level cache does not hold.
uint64_t sectorsMissed(const Request& r, uint64_t sectors) {
  if (r.w.block->launch->firstLevelCache == 0) return sectors;
  uint64_t missed = 0;
  EMU_LANES {
    if (!(r.lanes >> i & 1)) continue;
    for (uint64_t s = r.at[i] >> 5; s <= (r.at[i] + r.bytes - 1) >> 5; s++) missed += !r.w.block->cache.ask(s);
  }
  return missed;
}

void countSectors(const Request& r, const Extent& e, bool store) {
  uint64_t sectors, least;
  if (e.contiguous) {
    sectors = ((e.high - 1) >> 5) - (e.low >> 5) + 1;
    least = (e.high - e.low + 31) >> 5;
  } else {
    bool known;
    Pattern& p = patternOf(r, e.low & ~31ull, 0, known);
    const uint32_t* relative = p.relative;
    if (!known) {
      uint32_t sorted[32];
      int n = 0;
      EMU_LANES if (r.lanes >> i & 1) sorted[n++] = relative[i];
      std::sort(sorted, sorted + n);
      uint32_t count = 0, covered = 0;
      int64_t lastSector = -1, end = -1;
      for (int k = 0; k < n; k++) {
        int64_t from = sorted[k] >> 5, to = ((uint64_t)sorted[k] + r.bytes - 1) >> 5;
        count += (uint32_t)(to - std::max(from, lastSector + 1) + 1 > 0 ? to - std::max(from, lastSector + 1) + 1 : 0);
        lastSector = std::max(lastSector, to);
        int64_t start = std::max<int64_t>(sorted[k], end), stop = (int64_t)sorted[k] + r.bytes;
        if (stop > start) covered += (uint32_t)(stop - start);
        end = std::max(end, stop);
      }
      p.result = count;
      p.least = (covered + 31) / 32;
    }
    sectors = p.result;
    least = p.least;
  }
  Counters& c = r.w.worker->counters;
  uint64_t bytes = (uint64_t)__builtin_popcount(r.lanes) * r.bytes;
  if (store) {
    c.globalStoreRequests++, c.globalStoreSectors += sectors, c.globalStoreSectorsMinimum += least,
        c.globalStoreBytes += bytes;
  } else {
    c.globalLoadRequests++, c.globalLoadSectors += sectors, c.globalLoadSectorsMinimum += least,
        c.globalLoadBytes += bytes;
    c.globalLoadSectorsMissed += r.is(auxPastFirstLevel) || r.is(auxStrong) ? sectors : sectorsMissed(r, sectors);
  }
}

bool orderedBefore(Warp& w, uint32_t serial) {
  return w.block->acquiredFrom(serial) || w.block->cluster->orders(w, serial);
}

/// Reports another piece of work that touched bytes of the word, if nothing orders it and this one.
void checkOrder(const Request& r, int lane, uint64_t at, Cell mask, Cell cell, const char* does, const char* did) {
  Launch& l = *r.w.block->launch;
  const bool awaited = r.w.knownTo(lane).awaited;
  if (!(cell & mask) || cell >> 6 < l.firstUnordered[awaited] || (r.is(auxStrong) && (cell & cellStrong))) return;
  const Work* other = l.order->unordered(cell >> 6, awaited);
  if (!other) return;
  if (!awaited && !l.order->unordered(cell >> 6, true))
    report(r.w, r.op, lane, false, "grid_dependency", "global", at, (int)r.bytes,
           std::string(does) + " what " + other->text(cell >> 6) + " " + did +
               ", which may not have ended; griddepcontrol.wait comes first");
  else
    reportUnordered(r.w, r.op, lane, "global", at, (int)r.bytes,
                    std::string(does) + " what " + other->text(cell >> 6) + " " + did + ", and nothing orders the two");
}

/// Race bookkeeping for one word that another block touched in this launch, or for part of a word. Returns nothing; reports.
void wordRead(const Request& r, int lane, uint64_t at, Cell mask) {
  Warp& w = r.w;
  const uint32_t first = w.block->launch->firstSerial, me = w.block->serial;
  Cell *writer = memory().writer(at), *reader = memory().reader(at);
  Cell c = __atomic_load_n(writer, __ATOMIC_RELAXED), d = __atomic_load_n(reader, __ATOMIC_RELAXED);
  bool strong = r.is(auxStrong);
  if (c >> 6 >= first && c >> 6 != me && (c & mask) && !(strong && (c & cellStrong)) && !orderedBefore(w, c >> 6))
    report(w, r.op, lane, false, "global_race", "global", at, (int)r.bytes,
           "reads what block " + blockName(*w.block->launch, (c >> 6) - first) +
               " wrote in the same launch, with nothing to order the two");
  else if (c >> 6 < first) checkOrder(r, lane, at, mask, c, "reads", "wrote");
  if (strong) return;
  Launch& l = *w.block->launch;
  const bool awaited = w.knownTo(lane).awaited;
  Cell shared = d >> 6 >= l.firstUnordered[0] ? d & cellShared : 0;
  if (d >> 6 >= l.firstUnordered[awaited] && d >> 6 < first && l.order->unordered(d >> 6, awaited)) {
    l.order->share(at, d);
    shared = cellShared;
  }
  if (d >> 6 >= first && d >> 6 != me && (d & mask)) d = (d & ~15u) | cellSeveral | (d & mask);
  else d = me << 6 | shared | mask | (d >> 6 == me ? d & 15 : 0);
  __atomic_store_n(reader, d, __ATOMIC_RELAXED);
}
void wordWritten(const Request& r, int lane, uint64_t at, Cell mask, bool sameValue) {
  Warp& w = r.w;
  const uint32_t first = w.block->launch->firstSerial, me = w.block->serial;
  Cell *writer = memory().writer(at), *reader = memory().reader(at);
  Cell c = __atomic_load_n(writer, __ATOMIC_RELAXED), d = __atomic_load_n(reader, __ATOMIC_RELAXED);
  bool strong = r.is(auxStrong);
  if (c >> 6 >= first && c >> 6 != me && (c & mask) && !(strong && (c & cellStrong)) && !orderedBefore(w, c >> 6))
    report(w, r.op, lane, sameValue, sameValue ? "global_race_same_value" : "global_race", "global", at, (int)r.bytes,
           "writes what block " + blockName(*w.block->launch, (c >> 6) - first) + " also wrote in the same launch" +
               (sameValue ? "; both wrote the same value" : ""));
  if (d >> 6 >= first && (d >> 6 != me || (d & cellSeveral)) && (d & mask) &&
      !(d >> 6 != me && orderedBefore(w, d >> 6)))
    report(w, r.op, lane, sameValue, sameValue ? "global_race_same_value" : "global_race", "global", at, (int)r.bytes,
           "writes what block " +
               (d >> 6 != me ? blockName(*w.block->launch, (d >> 6) - first) : std::string("(another)")) +
               " read in the same launch, with nothing to order the two");
  const uint32_t unordered = w.block->launch->firstUnordered[w.knownTo(lane).awaited];
  if (unordered < first) {
    if (c >> 6 < first) checkOrder(r, lane, at, mask, c, "writes", "wrote");
    if (d >> 6 < first) checkOrder(r, lane, at, mask, d & ~cellShared, "writes", "read");
    if (d >> 6 >= unordered)
      for (Cell e : w.block->launch->order->shared(at)) checkOrder(r, lane, at, mask, e, "writes", "read");
  }
  __atomic_store_n(writer, me << 6 | (strong ? cellStrong : 0) | mask | (c >> 6 == me ? c & 15 : 0), __ATOMIC_RELAXED);
}
template <class F> void eachWord(uint64_t at, uint32_t bytes, F f) {
  if (bytes >= 4)
    for (uint32_t k = 0; k < bytes; k += 4) f(at + k, 15u);
  else f(at & ~3ull, ((1u << bytes) - 1) << (at & 3));
}

/// Whole words read by this block: true when one of them must be looked at: another block wrote it in this launch, or a work that does
/// not come before this one touched it; such readers are left in place.
[[gnu::always_inline]] inline bool wordsRead(const Cell* writer, Cell* reader, uint32_t words, const Launch& l,
                                             bool awaited, Cell me) {
  const Cell first = l.firstSerial << 6, unordered = l.firstUnordered[awaited] << 6;
  Cell bad = 0;
  if (unordered == first) {
#pragma GCC ivdep
    for (uint32_t k = 0; k < words; k++) {
      Cell c = writer[k], d = reader[k];
      bad |= (Cell)(c >= first) & (Cell)((c ^ me) >= 64);
      reader[k] = (d >= first) & ((d ^ me) >= 64) ? d | cellSeveral : me;
    }
    return bad;
  }
#pragma GCC ivdep
  for (uint32_t k = 0; k < words; k++) {
    Cell c = writer[k], d = reader[k];
    bad |= ((Cell)(c >= unordered) & (Cell)((c ^ me) >= 64)) | ((Cell)(d >= unordered) & (Cell)(d < first));
    Cell kept = d >= first ? d | cellSeveral : d;
    reader[k] = (d >= unordered) & ((d ^ me) >= 64) ? kept : me | ((d ^ me) < 64 ? d & cellShared : 0);
  }
  return bad;
}
/// Whether one of the words, which this block writes, must be looked at.
bool wordsConflict(const Cell* writer, const Cell* reader, uint32_t words, Cell unordered, Cell me) {
  Cell bad = 0;
#pragma GCC ivdep
  for (uint32_t k = 0; k < words; k++) {
    Cell c = writer[k], d = reader[k];
    bad |= ((Cell)(c >= unordered) & (Cell)((c ^ me) >= 64)) |
           ((Cell)(d >= unordered) & ((Cell)((d ^ me) >= 64) | (Cell)((d & (cellSeveral | cellShared)) != 0)));
  }
  return bad;
}

void checkGlobalRead(const Request& r, const Extent& e, Allocation* a) {
  if (!a || !a->initialised) {
    bool fine = e.contiguous && memory().written(e.low, e.high - e.low);
    if (!fine) EMU_LANES {
        if (!(r.lanes >> i & 1)) continue;
        uint64_t missing = memory().firstUnwritten(r.at[i], r.bytes);
        if (missing)
          report(r.w, r.op, r.lane(i), false, "uninitialised", "global", r.at[i], (int)r.bytes,
                 "reads bytes that nothing has written since they were allocated; " +
                     memory().describe(missing, 1, nullptr));
      }
  }
  if (a && (a->kind == Allocation::Registered || a->kind == Allocation::Constant)) return;
  if (r.bytes >= 4 && a && !r.is(auxStrong)) {
    const Launch& l = *r.w.block->launch;
    const Cell me = r.w.block->serial << 6 | 15;
    const bool awaited = r.w.known.awaited;
    bool bad = false;
    if (e.contiguous) {
      bad = wordsRead(memory().writer(e.low), memory().reader(e.low), (uint32_t)(e.high - e.low) / 4, l, awaited, me);
    } else {
      auto each = [&](uint32_t words) {
        EMU_LANES if (r.lanes >> i & 1) bad |=
            wordsRead(memory().writer(r.at[i]), memory().reader(r.at[i]), words, l, awaited, me);
      };
      if (r.bytes == 4) each(1);
      else if (r.bytes == 8) each(2);
      else each(4);
    }
    if (!bad) return;
  }
  EMU_LANES
  if ((r.lanes >> i & 1) && memory().holds(r.at[i]))
    eachWord(r.at[i], r.bytes, [&](uint64_t at, Cell mask) { wordRead(r, r.lane(i), at, mask); });
}

void checkGlobalWrite(const Request& r, const Extent& e, Allocation* a, const uint8_t* values) {
  if (a && a->kind == Allocation::Constant)
    throw Fault{"write_to_constant", "writes to constant memory", "global", illegalAddress, e.first, r.at[e.first],
                (int)r.bytes};
  if (!a || !a->initialised) {
    if (e.contiguous) memory().markWritten(e.low, e.high - e.low);
    else EMU_LANES if (r.lanes >> i & 1) memory().markWritten(r.at[i], r.bytes);
  }
  if (a && a->kind == Allocation::Registered) return;
  if (r.bytes >= 4 && a && !r.is(auxStrong) && e.contiguous) {
    const Cell unordered = r.w.block->launch->firstUnordered[r.w.known.awaited] << 6, me = r.w.block->serial << 6 | 15;
    Cell* writer = memory().writer(e.low);
    uint32_t words = (uint32_t)(e.high - e.low) / 4;
    if (!wordsConflict(writer, memory().reader(e.low), words, unordered, me)) {
      for (uint32_t k = 0; k < words; k++) writer[k] = me;
      return;
    }
  }
  EMU_LANES {
    if (!(r.lanes >> i & 1) || !memory().holds(r.at[i])) continue;
    bool same = values && memcmp((const void*)r.at[i], values + i * r.bytes, r.bytes) == 0;
    eachWord(r.at[i], r.bytes, [&](uint64_t at, Cell mask) { wordWritten(r, r.lane(i), at, mask, same); });
  }
  // Two lanes of one instruction storing to the same place.
  if (values && !e.contiguous && e.high - e.low < (uint64_t)__builtin_popcount(r.lanes) * r.bytes) {
    for (int i = 0; i < 32; i++)
      for (int j = 0; j < i; j++)
        if ((r.lanes >> i & 1) && (r.lanes >> j & 1) && r.at[i] == r.at[j]) {
          bool same = memcmp(values + i * r.bytes, values + j * r.bytes, r.bytes) == 0;
          report(r.w, r.op, i, same, same ? "global_race_same_value" : "global_race", "global", r.at[i], (int)r.bytes,
                 "two lanes of one store write the same place");
        }
  }
}

template <int N> void gatherBytes(const Request& r, uint8_t* to) {
  EMU_LANES if (r.lanes >> i & 1) memcpy(to + i * N, (const void*)r.at[i], N);
}
template <int N> void scatterBytes(const Request& r, const uint8_t* from) {
  for (int i = 0; i < 32; i++)
    if (r.lanes >> i & 1) memcpy((void*)r.at[i], from + i * N, N);
}

}  // namespace

const uint8_t* fetchGlobal(const Request& r, uint8_t* buffer, const char* space) {
  checkAlignment(r, space);
  Extent e = extentOf(r);
  Allocation* a = resolve(r, e, space);
  checkGlobalRead(r, e, a);
  if (space[0] == 'g') countSectors(r, e, false);
  if (e.contiguous && r.lanes == ~0u) return (const uint8_t*)e.low;
  if (e.contiguous) {
    memcpy(buffer + e.first * r.bytes, (const void*)e.low, e.high - e.low);
    return buffer;
  }
  switch (r.bytes) {
    case 1: gatherBytes<1>(r, buffer); break;
    case 2: gatherBytes<2>(r, buffer); break;
    case 4: gatherBytes<4>(r, buffer); break;
    case 8: gatherBytes<8>(r, buffer); break;
    default: gatherBytes<16>(r, buffer); break;
  }
  return buffer;
}
void commitGlobal(const Request& r, const uint8_t* values) {
  checkAlignment(r, "global");
  Extent e = extentOf(r);
  Allocation* a = resolve(r, e, "global");
  checkGlobalWrite(r, e, a, values);
  countSectors(r, e, true);
  if (e.contiguous) {
    memcpy((void*)e.low, values + e.first * r.bytes, e.high - e.low);
    return;
  }
  switch (r.bytes) {
    case 1: scatterBytes<1>(r, values); break;
    case 2: scatterBytes<2>(r, values); break;
    case 4: scatterBytes<4>(r, values); break;
    case 8: scatterBytes<8>(r, values); break;
    default: scatterBytes<16>(r, values); break;
  }
}

namespace {

// --- shared memory -----------------------------------------------------------------------------------------------

}  // namespace

uint32_t sharedCell(const Warp& w, int lane, uint32_t mask) {
  return w.clock << 16 | (uint32_t)lane << 10 | (uint32_t)w.index << 5 | mask;
}

void checkSharedBounds(const Request& r) {
  const SharedMemory& s = r.block().shared;
  checkAlignment(r, "shared");
  uint64_t most = 0;
  EMU_LANES most = std::max(most, r.at[i] & active(r, i));
  if (most + r.bytes <= s.size) return;
  EMU_LANES
  if ((r.lanes >> i & 1) && r.at[i] + r.bytes > s.size)
    outOfBounds(r, i, "shared",
                "the block has " + std::to_string(s.size) + " bytes of shared memory" +
                    (r.at[i] > clusterOffset ? "; that of another block is reached by .shared::cluster" : ""));
}

std::string cellThread(const Warp& w, const Block& b, uint32_t cell) {
  uint32_t lane = cell >> 10 & 63;
  std::string r = lane < 32 ? "thread " + threadName(b, (int)((cell >> 5 & 31) * 32 + lane))
                            : "threads of warp " + std::to_string(cell >> 5 & 31);
  return w.block == &b ? r : r + " of block " + blockName(*b.launch, b.linear);
}

namespace {

/// A word that a cp.async, a bulk copy or another block writes, or that belongs to an mbarrier.
void checkApart(const Request& r, int lane, uint64_t at, uint32_t cell, const char* does) {
  if ((cell & SharedMemory::lanes) == SharedMemory::clusterLane) {
    const DistributedShared& d = *r.block().distributed;
    if (r.is(auxStrong) && d.strongWriter(at)) return;
    auto found = d.afterWriter(r.w, lane, r.w.knownTo(lane), r.block(), at, false);
    if (found.kind)
      report(r.w, r.op, lane, false, found.kind, "shared", at, (int)r.bytes, std::string(does) + " " + found.what);
    return;
  }
  if (r.block().async) {
    r.block().async->checkThread(r, lane, at, cell, does);
    return;
  }
  report(r.w, r.op, lane, false, "async_copy_pending", "shared", at, (int)r.bytes,
         std::string(does) + " bytes that a cp.async of warp " + std::to_string(cell >> 5 & 31) +
             " will write and that has not been waited for");
}

/// The exact check of one word; `strong` for atomics and volatile accesses.
void sharedWordRead(const Request& r, int lane, uint64_t at, uint32_t mask) {
  Warp& w = r.w;
  SharedMemory& s = r.block().shared;
  uint32_t c = s.writers[at >> 2];
  bool strong = r.is(auxStrong);
  uint32_t have = (c & 15) | s.initialised[at >> 2];
  if (mask & ~have) {
    report(w, r.op, lane, false, "uninitialised", "shared", at, (int)r.bytes,
           "reads shared memory that this block has not written");
    s.initialised[at >> 2] |= mask;
  }
  if ((c & mask) == 0) return;
  if (c >= SharedMemory::apart) {
    checkApart(r, lane, at, c, "reads");
    return;
  }
  bool other = r.remote() || ((c ^ sharedCell(w, lane, 0)) & 0xffe0);
  if (other && c >> 16 >= w.knownOf(lane, r.block())[c >> 5 & 31] && !(strong && (c & SharedMemory::strong)))
    report(w, r.op, lane, false, "shared_race", "shared", at, (int)r.bytes,
           "reads what " + cellThread(w, r.block(), c) + " wrote, with no barrier between");
}
void sharedWordWritten(const Request& r, int lane, uint64_t at, uint32_t mask, bool sameValue) {
  Warp& w = r.w;
  const Block& b = r.block();
  uint32_t c = b.shared.writers[at >> 2], d = b.shared.readers[at >> 2], me = sharedCell(w, lane, 0);
  bool strong = r.is(auxStrong);
  const BlockKnowledge& known = w.knownOf(lane, b);
  auto other = [&](uint32_t cell) { return r.remote() || ((cell ^ me) & 0xffe0); };
  auto race = [&](const std::string& what) {
    report(w, r.op, lane, sameValue, sameValue ? "shared_race_same_value" : "shared_race", "shared", at, (int)r.bytes,
           "writes " + what);
  };
  if (b.async) b.async->checkReaders(r, lane, at, w.knownTo(lane));
  if ((c & mask) && c >= SharedMemory::apart) {
    checkApart(r, lane, at, c, "writes");
  } else if ((c & mask) && other(c) && c >> 16 >= known[c >> 5 & 31] && !(strong && (c & SharedMemory::strong))) {
    race("what " + cellThread(w, b, c) + " wrote, with no barrier between" +
         (sameValue ? "; both wrote the same value" : ""));
  }
  if ((d & mask) && other(d) && d >> 16 >= known[d >> 5 & 31] && !(strong && (d & SharedMemory::strong)))
    race("what " + cellThread(w, b, d) + " read, with no barrier between");
  if (b.distributed) {
    auto found = b.distributed->afterReader(w, lane, w.knownTo(lane), at, mask, strong);
    if (found.kind) race(found.what);
  }
}
void rememberSharedRead(const Request& r, int lane, uint64_t at, uint32_t mask) {
  if (r.remote()) return distributed(r.block()).read(r, lane, at, mask);
  uint32_t& d = r.w.block->shared.readers[at >> 2];
  uint32_t me = sharedCell(r.w, lane, mask) | (r.is(auxStrong) ? SharedMemory::strong : 0);
  uint32_t x = (d ^ me) & ~15u;
  if (x == 0) d |= mask;
  else if ((x & ~(63u << 10)) == 0 && (d & mask)) d = me | SharedMemory::several;
  else d = me;
}
void rememberSharedWrite(const Request& r, int lane, uint64_t at, uint32_t mask) {
  if (r.remote()) return distributed(r.block()).wrote(r, lane, at, mask);
  SharedMemory& s = r.w.block->shared;
  uint32_t& c = s.writers[at >> 2];
  uint32_t me = sharedCell(r.w, lane, mask) | (r.is(auxStrong) ? SharedMemory::strong : 0);
  if (mask != 15) s.initialised[at >> 2] |= (uint8_t)((c & 15) | mask);
  c = ((c ^ me) & ~31u) == 0 ? me | (c & 15) : me;
}

/// Neighbouring words, worked on at once.
template <int N> struct Words { typedef uint32_t type __attribute__((vector_size(4 * N), aligned(4))); };
template <> struct Words<1> { typedef uint32_t type; };
template <class V> bool any(V bad) {
  constexpr V zero = {};
  return memcmp(&bad, &zero, sizeof bad) != 0;
}
/// Remembers what the lanes read, in whole words; whether one of these must be looked at.
template <int N> bool sharedRead(const Request& r, uint32_t me, uint32_t limit) {
  using V = typename Words<N>::type;
  SharedMemory& s = r.w.block->shared;
  V bad = {};
  for (uint32_t left = r.lanes; left; left &= left - 1) {
    const int i = firstLane(left);
    const uint64_t k = r.at[i] >> 2;
    const V c = *(const V*)&s.writers[k], mine = V{} + (me | (uint32_t)i << 10);
    V& reader = *(V*)&s.readers[k];
    const V x = reader ^ mine;
    bad |= (V)(c >= limit) | (V)((c & 15) != 15);
    reader = ((x & ~SharedMemory::lanes) == 0) & (x != 0) ? mine | SharedMemory::several : mine;
  }
  return any(bad);
}
template <int N> bool sharedConflict(const uint32_t* writer, const uint32_t* reader, uint32_t limit) {
  using V = typename Words<N>::type;
  return any((V)(*(const V*)writer >= limit) | (V)(*(const V*)reader >= limit));
}

bool sharedContiguous(const Request& r) {
  if (r.lanes != ~0u) return false;
  uint64_t off = 0;
  EMU_LANES off |= r.at[i] ^ (r.at[0] + (uint64_t)i * r.bytes);
  return off == 0;
}

void checkSharedRead(const Request& r) {
  Warp& w = r.w;
  w.accessed |= r.lanes;
  SharedMemory& s = w.block->shared;
  const uint32_t limit = w.knownLeast << 16, me = sharedCell(w, 0, 15);
  bool bad = true;
  if (r.bytes >= 4 && !r.is(auxStrong) && !r.remote()) {
    if (r.bytes == 4 && sharedContiguous(r)) {
      const uint32_t* writer = &s.writers[r.at[0] >> 2];
      uint32_t *reader = &s.readers[r.at[0] >> 2], any = 0;
#pragma GCC ivdep
      EMU_LANES {
        uint32_t c = writer[i];
        any |= (uint32_t)(c >= limit) | (uint32_t)((c & 15) != 15);
        reader[i] = me | (uint32_t)i << 10;
      }
      bad = any;
    } else {
      bad = r.bytes == 16  ? sharedRead<4>(r, me, limit)
            : r.bytes == 8 ? sharedRead<2>(r, me, limit)
                           : sharedRead<1>(r, me, limit);
    }
  } else {
    EMU_LANES if (r.lanes >> i & 1)
        eachWord(r.at[i], r.bytes, [&](uint64_t at, uint32_t mask) { rememberSharedRead(r, i, at, mask); });
  }
  if (bad)
    EMU_LANES if (r.lanes >> i & 1)
        eachWord(r.at[i], r.bytes, [&](uint64_t at, uint32_t mask) { sharedWordRead(r, i, at, mask); });
}

}  // namespace

/// Checks and remembers a store, lane by lane in order, so that lanes storing to the same place are seen too.
void checkSharedWrite(const Request& r, const uint8_t* values) {
  Warp& w = r.w;
  w.accessed |= r.lanes;
  w.unfenced |= r.lanes;
  SharedMemory& s = r.block().shared;
  const uint32_t limit = w.knownLeast << 16, me = sharedCell(w, 0, 15);
  bool plain = r.bytes >= 4 && !r.is(auxStrong) && !r.remote();
  bool watched = r.block().async || r.block().distributed;  // by the asynchronous proxy, or by other blocks
  if (plain && !watched && sharedContiguous(r)) {
    uint32_t* writer = &s.writers[r.at[0] >> 2];
    const uint32_t* reader = &s.readers[r.at[0] >> 2];
    uint32_t words = r.bytes / 4, bad = 0;
    for (uint32_t k = 0; k < words * 32; k++) bad |= (uint32_t)(writer[k] >= limit) | (uint32_t)(reader[k] >= limit);
    if (!bad) {
      if (words == 1) EMU_LANES writer[i] = me | (uint32_t)i << 10;
      else
        for (int i = 0; i < 32; i++)
          for (uint32_t k = 0; k < words; k++) writer[i * words + k] = me | (uint32_t)i << 10;
      return;
    }
  }
  for (int i = 0; i < 32; i++) {
    if (!(r.lanes >> i & 1)) continue;
    uint64_t k = r.at[i] >> 2;
    bool exact = !plain || watched;
    if (!exact) {
      const uint32_t *writer = &s.writers[k], *reader = &s.readers[k];
      exact = r.bytes == 16  ? sharedConflict<4>(writer, reader, limit)
              : r.bytes == 8 ? sharedConflict<2>(writer, reader, limit)
                             : sharedConflict<1>(writer, reader, limit);
    }
    if (exact) {
      // A lane that stored before in this instruction has not stored its bytes yet, so it is compared with in the buffer.
      bool same = values && memcmp(&s.bytes[r.at[i]], values + i * r.bytes, r.bytes) == 0;
      for (int j = 0; values && j < i; j++)
        if ((r.lanes >> j & 1) && r.at[j] == r.at[i])
          same = memcmp(values + j * r.bytes, values + i * r.bytes, r.bytes) == 0;
      eachWord(r.at[i], r.bytes, [&](uint64_t at, uint32_t mask) { sharedWordWritten(r, i, at, mask, same); });
    }
    if (plain)
      for (uint32_t j = 0; j < r.bytes / 4; j++) s.writers[k + j] = me | (uint32_t)i << 10;
    else eachWord(r.at[i], r.bytes, [&](uint64_t at, uint32_t mask) { rememberSharedWrite(r, i, at, mask); });
  }
}

void checkOverwrite(const Request& r) {
  checkSharedBounds(r);
  EMU_LANES if (r.lanes >> i & 1)
      eachWord(r.at[i], r.bytes, [&](uint64_t at, uint32_t mask) { sharedWordWritten(r, i, at, mask, false); });
}

namespace {

/// Wavefronts of a request: 32 banks of 4 bytes; 8-byte accesses go in two, 16-byte accesses in four phases.
void wavefrontsOf(const uint32_t* relative, uint32_t lanes, uint32_t bytes, uint32_t& total, uint32_t& least) {
  int phaseLanes = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  total = least = 0;
  for (int p = 0; p < 32; p += phaseLanes) {
    uint32_t words[32], ofBank[32], banks = 0;
    int n = 0;
    bool shared = false;  // whether two words are in one bank
    for (int i = p; i < p + phaseLanes; i++) {
      if (!(lanes >> i & 1)) continue;
      for (uint32_t k = 0; k < std::max(1u, bytes / 4); k++) {
        uint32_t word = (relative[i] >> 2) + k, bank = word & 31;
        shared |= (banks >> bank & 1) && ofBank[bank] != word;
        banks |= 1u << bank;
        ofBank[bank] = words[n++] = word;
      }
    }
    if (n == 0) continue;
    least++;
    if (!shared) {
      total++;
      continue;
    }
    std::sort(words, words + n);
    n = (int)(std::unique(words, words + n) - words);
    int perBank[32] = {}, most = 0;
    for (int k = 0; k < n; k++) most = std::max(most, ++perBank[words[k] & 31]);
    total += (uint32_t)most;
  }
}
void countShared(const Request& r, bool store) {
  if (r.remote()) {
    Counters& c = r.w.worker->counters;
    (store ? c.clusterStoreBytes : c.clusterLoadBytes) += (uint64_t)__builtin_popcount(r.lanes) * r.bytes;
    return;
  }
  uint64_t low = r.at[firstLane(r.lanes)];
  bool known;
  Pattern& p = patternOf(r, low, 4 | (uint32_t)(low & 3), known);  // 4: not to be taken for a pattern of sectors
  if (!known) {
    alignas(64) uint32_t absolute[32];
    EMU_LANES absolute[i] = (uint32_t)r.at[i];
    wavefrontsOf(absolute, r.lanes, r.bytes, p.result, p.least);
  }
  Counters& c = r.w.worker->counters;
  uint64_t bytes = (uint64_t)__builtin_popcount(r.lanes) * r.bytes;
  if (store)
    c.sharedStoreWavefronts += p.result, c.sharedStoreConflicts += p.result - p.least, c.sharedStoreBytes += bytes;
  else c.sharedLoadWavefronts += p.result, c.sharedLoadConflicts += p.result - p.least, c.sharedLoadBytes += bytes;
}

template <int N> void scatterShared(const Request& r, const uint8_t* from) {
  uint8_t* to = r.block().shared.bytes.data();
  for (int i = 0; i < 32; i++)
    if (r.lanes >> i & 1) memcpy(to + r.at[i], from + i * N, N);
}
template <int N> void gatherShared(const Request& r, uint8_t* to) {
  const uint8_t* from = r.block().shared.bytes.data();
  if (r.lanes == ~0u) EMU_LANES memcpy(to + i * N, from + r.at[i], N);
  else EMU_LANES if (r.lanes >> i & 1) memcpy(to + i * N, from + r.at[i], N);
}
const uint8_t* fetchShared(const Request& r, uint8_t* buffer) {
  checkSharedBounds(r);
  checkSharedRead(r);
  countShared(r, false);
  switch (r.bytes) {
    case 1: gatherShared<1>(r, buffer); break;
    case 2: gatherShared<2>(r, buffer); break;
    case 4: gatherShared<4>(r, buffer); break;
    case 8: gatherShared<8>(r, buffer); break;
    default: gatherShared<16>(r, buffer); break;
  }
  return buffer;
}
void commitShared(const Request& r, const uint8_t* values) {
  checkSharedBounds(r);
  checkSharedWrite(r, values);
  countShared(r, true);
  switch (r.bytes) {
    case 1: scatterShared<1>(r, values); break;
    case 2: scatterShared<2>(r, values); break;
    case 4: scatterShared<4>(r, values); break;
    case 8: scatterShared<8>(r, values); break;
    default: scatterShared<16>(r, values); break;
  }
}

/// Addresses of shared::cluster: what the lanes do in the memory of each block in turn.
template <class F> void eachOwner(const Request& r, F f) {
  uint64_t at[32];
  EMU_LANES at[i] = r.at[i] & clusterOffset;
  for (uint32_t left = r.lanes; left;) {
    const int lane = firstLane(left);
    Block& b = r.w.block->cluster->reach(r.w, r.op, lane, r.at[lane], r.bytes);
    uint32_t same = 0;
    EMU_LANES same |= (uint32_t)(r.at[i] >> 24 == r.at[lane] >> 24) << i;
    same &= left;
    left &= ~same;
    f(Request{r.w, r.op, at, same, r.bytes, &b});
  }
}
const uint8_t* fetchCluster(const Request& r, uint8_t* buffer) {
  alignas(64) uint8_t part[32 * 16];
  eachOwner(r, [&](const Request& q) {
    fetchShared(q, part);
    EMU_LANES if (q.lanes >> i & 1) memcpy(buffer + i * r.bytes, part + i * r.bytes, r.bytes);
  });
  return buffer;
}
void commitCluster(const Request& r, const uint8_t* values) {
  eachOwner(r, [&](const Request& q) { commitShared(q, values); });
}
/// Whether shared addresses of a request may be those of other blocks.
bool inCluster(const Request& r, bool generic) {
  return generic ? r.w.block->launch->program->usesCluster : r.is(auxCluster);
}

// --- local and parameter memory ----------------------------------------------------------------------------------

void checkLocalBounds(const Request& r) {
  checkAlignment(r, "local");
  uint64_t size = (uint64_t)r.w.block->launch->program->localBytes;
  EMU_LANES
  if ((r.lanes >> i & 1) && r.at[i] + r.bytes > size)
    outOfBounds(r, i, "local", "the thread has " + std::to_string(size) + " bytes of local memory");
}
const uint8_t* fetchLocal(const Request& r, uint8_t* buffer) {
  checkLocalBounds(r);
  size_t size = (size_t)r.w.block->launch->program->localBytes;
  EMU_LANES {
    if (!(r.lanes >> i & 1)) continue;
    size_t at = (size_t)i * size + r.at[i];
    if (memchr(&r.w.localWritten[at], 0, r.bytes)) {
      report(r.w, r.op, i, false, "uninitialised", "local", r.at[i], (int)r.bytes,
             "reads local memory that this thread has not written");
      memset(&r.w.localWritten[at], 1, r.bytes);
    }
    memcpy(buffer + i * r.bytes, &r.w.local[at], r.bytes);
  }
  r.w.worker->counters.localLoadBytes += (uint64_t)__builtin_popcount(r.lanes) * r.bytes;
  return buffer;
}
void commitLocal(const Request& r, const uint8_t* values) {
  checkLocalBounds(r);
  size_t size = (size_t)r.w.block->launch->program->localBytes;
  EMU_LANES {
    if (!(r.lanes >> i & 1)) continue;
    size_t at = (size_t)i * size + r.at[i];
    memcpy(&r.w.local[at], values + i * r.bytes, r.bytes);
    memset(&r.w.localWritten[at], 1, r.bytes);
  }
  r.w.worker->counters.localStoreBytes += (uint64_t)__builtin_popcount(r.lanes) * r.bytes;
}
const uint8_t* fetchParam(const Request& r, uint8_t* buffer) {
  checkAlignment(r, "param");
  const auto& p = r.w.block->launch->parameters;
  EMU_LANES {
    if (!(r.lanes >> i & 1)) continue;
    if (r.at[i] + r.bytes > p.size())
      outOfBounds(r, i, "param", "the kernel has " + std::to_string(p.size()) + " bytes of parameters");
    memcpy(buffer + i * r.bytes, &p[r.at[i]], r.bytes);
  }
  return buffer;
}

// --- all spaces --------------------------------------------------------------------------------------------------

}  // namespace

uint32_t windowOf(uint64_t address) {
  return address - sharedWindow < windowSize  ? Shared
         : address - localWindow < windowSize ? Local
         : address - paramWindow < windowSize ? Param
                                              : Global;
}

namespace {

constexpr uint64_t windowBase(uint32_t space) {
  return space == Shared ? sharedWindow : space == Local ? localWindow : space == Param ? paramWindow : 0;
}

const uint8_t* fetch(const Request& r, uint32_t space, uint8_t* buffer, bool generic = false) {
  switch (space) {
    case Global: return fetchGlobal(r, buffer);
    case Shared: return inCluster(r, generic) ? fetchCluster(r, buffer) : fetchShared(r, buffer);
    case Local: return fetchLocal(r, buffer);
    case Param: return fetchParam(r, buffer);
    case Const: return fetchGlobal(r, buffer, "const");
    default: break;
  }
  uint64_t at[32];
  alignas(64) uint8_t part[32 * 16];
  for (uint32_t s : {Global, Shared, Local, Param}) {
    uint32_t in = 0;
    EMU_LANES in |= (uint32_t)((r.lanes >> i & 1) && windowOf(r.at[i]) == s) << i;
    if (!in) continue;
    if (in == r.lanes && s == Global) return fetchGlobal(r, buffer);
    EMU_LANES at[i] = r.at[i] - windowBase(s);
    Request q{r.w, r.op, at, in, r.bytes};
    const uint8_t* got = fetch(q, s, part, true);
    EMU_LANES if (in >> i & 1) memcpy(buffer + i * r.bytes, got + i * r.bytes, r.bytes);
  }
  return buffer;
}
void commit(const Request& r, uint32_t space, const uint8_t* values, bool generic = false) {
  switch (space) {
    case Global: return commitGlobal(r, values);
    case Shared: return inCluster(r, generic) ? commitCluster(r, values) : commitShared(r, values);
    case Local: return commitLocal(r, values);
    case Param:
    case Const:
      throw Fault{"write_to_constant", "writes to parameter or constant memory",
                  spaceName(space),    illegalAddress,
                  firstLane(r.lanes),  r.at[firstLane(r.lanes)],
                  (int)r.bytes};
    default: break;
  }
  uint64_t at[32];
  for (uint32_t s : {Global, Shared, Local, Param}) {
    uint32_t in = 0;
    EMU_LANES in |= (uint32_t)((r.lanes >> i & 1) && windowOf(r.at[i]) == s) << i;
    if (!in) continue;
    EMU_LANES at[i] = r.at[i] - windowBase(s);
    commit(Request{r.w, r.op, at, in, r.bytes}, s, values, true);
  }
}

void addressesOf(const Warp& w, const Op& op, int32_t operand, uint64_t* at) {
  if (op.aux & auxAddress32) {
    const uint32_t* a = w.reg<uint32_t>(operand);
    uint32_t plus = (uint32_t)op.immediate;
    EMU_LANES at[i] = (uint32_t)(a[i] + plus);
  } else {
    const uint64_t* a = w.reg<uint64_t>(operand);
    uint64_t plus = (uint64_t)op.immediate;
    EMU_LANES at[i] = a[i] + plus;
  }
}

template <class T, class R, int V> void spread(Warp& w, const T* s, const int32_t* o, uint32_t m) {
  if (m == ~0u) {
    for (int k = 0; k < V; k++) {
      R* d = w.reg<R>(o[k]);
      EMU_LANES d[i] = (R)s[i * V + k];
    }
  } else {
    for (int k = 0; k < V; k++) {
      alignas(64) R t[32];
      EMU_LANES t[i] = (R)s[i * V + k];
      merge(w.reg<R>(o[k]), t, m);
    }
  }
}

template <class T, class R, int V> void load(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  uint32_t space = op.aux & auxSpace;
  if (space == Param &&
      (op.aux & auxUniformAddress)) {  // a kernel parameter named in the instruction: the same for all lanes
    T v[V];
    memcpy(v, &w.block->launch->parameters[(size_t)op.immediate], sizeof v);
    for (int k = 0; k < V; k++) {
      R* d = w.reg<R>(o[k]);
      EMU_LANES d[i] = m >> i & 1 ? (R)v[k] : d[i];
    }
    return;
  }
  alignas(64) uint64_t at[32];
  alignas(64) uint8_t buffer[32 * sizeof(T) * V];
  if (m != ~0u) memset(buffer, 0, sizeof buffer);
  addressesOf(w, op, o[V], at);
  const uint8_t* s = fetch(Request{w, op, at, m, sizeof(T) * V}, space, buffer);
  spread<T, R, V>(w, (const T*)s, o, m);
}
template <class T, class R, int V> void store(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  alignas(64) uint64_t at[32];
  alignas(64) T buffer[32 * V];
  addressesOf(w, op, o[0], at);
  for (int k = 0; k < V; k++) {
    const R* s = w.reg<R>(o[1 + k]);
    EMU_LANES buffer[i * V + k] = (T)s[i];
  }
  commit(Request{w, op, at, m, sizeof(T) * V}, op.aux & auxSpace, (const uint8_t*)buffer);
}

template <class T, class R> Handler pickLoad(int vector) {
  if (vector == 1) return load<T, R, 1>;
  if (vector == 2) return load<T, R, 2>;
  if constexpr (sizeof(T) <= 4)
    if (vector == 4) return load<T, R, 4>;
  return nullptr;
}
template <class T, class R> Handler pickStore(int vector) {
  if (vector == 1) return store<T, R, 1>;
  if (vector == 2) return store<T, R, 2>;
  if constexpr (sizeof(T) <= 4)
    if (vector == 4) return store<T, R, 4>;
  return nullptr;
}

// --- atomics -----------------------------------------------------------------------------------------------------

enum AtomicOp { AtomAdd, AtomMin, AtomMax, AtomExch, AtomCas, AtomAnd, AtomOr, AtomXor, AtomInc, AtomDec };
template <class Format> struct PairAdd {
  static uint32_t f(uint32_t a, uint32_t b) {
    return (uint32_t)Format::to(Format::from((uint16_t)a) + Format::from((uint16_t)b)) |
           (uint32_t)Format::to(Format::from((uint16_t)(a >> 16)) + Format::from((uint16_t)(b >> 16))) << 16;
  }
};
/// T: how the bits are read; U: unsigned of the same size.
template <class T, class U, AtomicOp K> U applied(U old, U b, U c) {
  T x = bitsAs<T>(old), y = bitsAs<T>(b);
  switch (K) {
    case AtomAdd:
      if constexpr (std::is_floating_point_v<T>) return bitsAs<U>(canonical(x + y));
      else return old + b;
    case AtomMin: return y < x ? b : old;
    case AtomMax: return y > x ? b : old;
    case AtomExch: return b;
    case AtomCas: return old == b ? c : old;
    case AtomInc: return old >= b ? 0 : old + 1;
    case AtomDec: return old == 0 || old > b ? b : old - 1;
    default: break;
  }
  if constexpr (!std::is_floating_point_v<T>) return K == AtomAnd ? old & b : K == AtomOr ? old | b : old ^ b;
  return old;
}
template <class U, U (*F)(U, U, U)> void atomic(Warp& w, const Op& op, const int32_t* o, uint32_t m, bool result) {
  alignas(64) uint64_t at[32];
  addressesOf(w, op, result ? o[1] : o[0], at);
  const U* b = w.reg<U>(result ? o[2] : o[1]);
  const U* c = result ? w.reg<U>(o[3]) : b;
  alignas(64) U old[32] = {};
  uint32_t space = op.aux & auxSpace;
  uint32_t turn = w.block->launch->seed ? (uint32_t)w.worker->next() & 31 : 0;  // lanes go in an order of their own
  uint32_t inShared = 0;
  EMU_LANES {
    if (!(m >> i & 1)) continue;
    uint32_t in = space == Generic ? windowOf(at[i]) : space;
    if (in == Shared) {
      inShared |= 1u << i;
      if (space == Generic) at[i] -= sharedWindow;
    } else if (in != Global) {
      throw Fault{"out_of_bounds",
                  "atomic on memory that is neither global nor shared",
                  spaceName(in),
                  illegalAddress,
                  i,
                  at[i],
                  sizeof(U)};
    }
  }
  w.worker->counters.atomics += (uint64_t)__builtin_popcount(m);
  auto performShared = [&](const Request& r) {
    checkSharedBounds(r);
    countShared(r, true);
    SharedMemory& s = r.block().shared;
    w.accessed |= r.lanes;
    w.unfenced |= r.lanes;
    for (int k = 0; k < 32; k++) {
      int i = (int)((k + turn) & 31);
      if (!(r.lanes >> i & 1)) continue;
      eachWord(r.at[i], sizeof(U), [&](uint64_t x, uint32_t mask) {
        sharedWordRead(r, i, x, mask);
        sharedWordWritten(r, i, x, mask, false);
        rememberSharedWrite(r, i, x, mask);
      });
      memcpy(&old[i], &s.bytes[r.at[i]], sizeof(U));
      U v = F(old[i], b[i], c[i]);
      memcpy(&s.bytes[r.at[i]], &v, sizeof(U));
    }
  };
  if (inShared) {
    Request r{w, op, at, inShared, sizeof(U)};
    if (inCluster(r, space == Generic)) eachOwner(r, performShared);
    else performShared(r);
  }
  if (uint32_t inGlobal = m & ~inShared) {
    Request r{w, op, at, inGlobal, sizeof(U)};
    checkAlignment(r, "global");
    Extent e = extentOf(r);
    Allocation* a = resolve(r, e, "global");
    checkGlobalRead(r, e, a);
    checkGlobalWrite(r, e, a, nullptr);
    countSectors(r, e, true);
    bool releases = w.block->fenced || op.target;  // target: .acq_rel, .release, .acquire
    for (int k = 0; k < 32; k++) {
      int i = (int)((k + turn) & 31);
      if (!(inGlobal >> i & 1)) continue;
      U* p = (U*)at[i];
      auto perform = [&] {
        U was = __atomic_load_n(p, __ATOMIC_SEQ_CST), next;
        do next = F(was, b[i], c[i]);
        while (!__atomic_compare_exchange_n(p, &was, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
        old[i] = was;
      };
      if (!releases) {
        perform();
        continue;
      }
      SyncVariable& v = w.block->launch->syncVariable(at[i]);
      std::lock_guard lock(v.mutex);
      perform();
      if (!v.position.empty()) w.block->acquired.emplace_back(&v, v.position.size());
      v.position.emplace(w.block->serial, v.position.size());
    }
  }
  if (result) merge(w.reg<U>(o[0]), old, m);
}
template <class U, U (*F)(U, U, U)> void atom(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  atomic<U, F>(w, op, o, m, true);
}
template <class U, U (*F)(U, U, U)> void red(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  atomic<U, F>(w, op, o, m, false);
}
template <class Format> uint32_t pairAdd(uint32_t old, uint32_t b, uint32_t) { return PairAdd<Format>::f(old, b); }
template <class Format> uint16_t halfAdd(uint16_t old, uint16_t b, uint16_t) {
  return Format::to(Format::from(old) + Format::from(b));
}

template <class U, U (*F)(U, U, U)> Handler either(bool result) { return result ? atom<U, F> : red<U, F>; }
template <class T, class U> Handler pickAtomic(const std::string& op, bool result) {
  if (op == "add") return either<U, applied<T, U, AtomAdd>>(result);
  if constexpr (!std::is_floating_point_v<T>) {
    if (op == "min") return either<U, applied<T, U, AtomMin>>(result);
    if (op == "max") return either<U, applied<T, U, AtomMax>>(result);
    if (op == "exch") return either<U, applied<T, U, AtomExch>>(result);
    if (op == "cas") return either<U, applied<T, U, AtomCas>>(result);
    if (op == "and") return either<U, applied<T, U, AtomAnd>>(result);
    if (op == "or") return either<U, applied<T, U, AtomOr>>(result);
    if (op == "xor") return either<U, applied<T, U, AtomXor>>(result);
    if (op == "inc") return either<U, applied<T, U, AtomInc>>(result);
    if (op == "dec") return either<U, applied<T, U, AtomDec>>(result);
  }
  return nullptr;
}

// --- cp.async ----------------------------------------------------------------------------------------------------

template <int Bytes> void asyncCopy(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  alignas(64) uint64_t to[32], from[32];
  if (op.aux & auxAddress32) EMU_LANES to[i] = w.reg<uint32_t>(o[0])[i] + (uint32_t)op.immediate;
  else EMU_LANES to[i] = w.reg<uint64_t>(o[0])[i] + (uint64_t)op.immediate;
  EMU_LANES from[i] = w.reg<uint64_t>(o[1])[i] + (uint64_t)(int64_t)op.target;
  const uint32_t* size = w.reg<uint32_t>(o[2]);
  Request shared{w, op, to, m, Bytes};
  checkSharedBounds(shared);
  std::unique_ptr<PendingCopy> p;
  if (w.spare.empty()) {
    p = std::make_unique<PendingCopy>();
  } else {
    p = std::move(w.spare.back());
    w.spare.pop_back();
  }
  p->lanes = m;
  p->group = -1;
  p->bytes = Bytes;
  uint32_t whole = 0, partial = 0;
  EMU_LANES {
    whole |= (uint32_t)(size[i] >= Bytes) << i;
    partial |= (uint32_t)(size[i] > 0 && size[i] < Bytes) << i;
  }
  whole &= m, partial &= m;
  if (whole != m) memset(p->data, 0, sizeof p->data);
  if (whole) {
    const uint8_t* s = fetchGlobal(Request{w, op, from, whole, Bytes}, p->data);
    if (s != p->data) memcpy(p->data, s, 32 * Bytes);
    else if (whole != ~0u) EMU_LANES if (!(whole >> i & 1)) memset(p->data + i * Bytes, 0, Bytes);
  }
  for (; partial; partial &= partial - 1) {  // rare: part of the bytes, the rest zero
    int lane = firstLane(partial);
    uint64_t one[32];
    for (uint32_t k = 0; k < size[lane]; k++) {
      alignas(64) uint8_t byte[32 * 16];
      one[lane] = from[lane] + k;
      fetchGlobal(Request{w, op, one, 1u << lane, 1}, byte);
      p->data[lane * Bytes + k] = byte[lane];
    }
  }
  // The destination may not be in use by anybody, and nobody may touch it until the copy has been waited for.
  SharedMemory& s = w.block->shared;
  checkSharedWrite(shared, nullptr);
  EMU_LANES {
    if (!(m >> i & 1)) continue;
    p->to[i] = (uint32_t)to[i];
    if (w.block->async) w.block->async->forgetLoad(p->to[i]);
    for (uint64_t k = to[i] >> 2; k < (to[i] + Bytes) >> 2; k++)
      s.writers[k] = SharedMemory::apart | SharedMemory::asyncLane | (uint32_t)w.index << 5 | 15;
  }
  // Counted apart from st.shared: the bytes go past the registers.
  w.pending.push_back(std::move(p));
}
void asyncCommit(Warp& w, const Op&, const int32_t*, uint32_t m) {
  int group = w.firstGroup + (int)w.copyGroups.size();
  w.copyGroups.push_back(m);
  for (size_t k = 0, n = w.pending.size(); k < n; k++) {
    PendingCopy& p = *w.pending[k];
    if (p.group >= 0 || !(p.lanes & m)) continue;
    if (p.lanes & ~m) {  // some lanes have not committed theirs
      auto rest = std::make_unique<PendingCopy>(p);
      rest->lanes = p.lanes & ~m;
      p.lanes &= m;
      w.pending.push_back(std::move(rest));
    }
    w.pending[k]->group = group;
  }
}
template <int Bytes> void finish(Warp& w, PendingCopy& p, uint32_t lanes) {
  SharedMemory& s = w.block->shared;
  for (int i = 0; i < 32; i++) {
    if (!(lanes >> i & 1)) continue;
    memcpy(&s.bytes[p.to[i]], p.data + i * Bytes, Bytes);
    uint32_t me = sharedCell(w, i, 15);
    for (uint32_t k = 0; k < Bytes / 4; k++) s.writers[(p.to[i] >> 2) + k] = me;
  }
  p.lanes &= ~lanes;
}
/// immediate >= 0: wait_group; -1: wait_all, which takes uncommitted copies too.
void asyncWait(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  uint8_t newer[32] = {};
  static thread_local std::vector<uint32_t> done;
  done.assign(w.copyGroups.size(), 0);
  for (size_t g = w.copyGroups.size(); g-- > 0;) {
    uint32_t lanes = w.copyGroups[g] & m;
    EMU_LANES {
      if (!(lanes >> i & 1)) continue;
      if (op.immediate < 0 || newer[i] >= op.immediate) done[g] |= 1u << i;
      else newer[i]++;
    }
  }
  for (auto& p : w.pending) {
    uint32_t lanes =
        p->group < 0 ? (op.immediate < 0 ? p->lanes & m : 0) : done[(size_t)(p->group - w.firstGroup)] & p->lanes;
    if (lanes) (p->bytes == 16 ? finish<16> : p->bytes == 8 ? finish<8> : finish<4>)(w, *p, lanes);
  }
  for (size_t k = 0; k < w.pending.size();) {
    if (w.pending[k]->lanes == 0) {
      w.spare.push_back(std::move(w.pending[k]));
      w.pending.erase(w.pending.begin() + (long)k);
    } else {
      k++;
    }
  }
  for (size_t g = 0; g < done.size(); g++) w.copyGroups[g] &= ~done[g];
  while (!w.copyGroups.empty() && w.copyGroups.front() == 0) {
    w.copyGroups.erase(w.copyGroups.begin());
    w.firstGroup++;
  }
}

// --- addresses ---------------------------------------------------------------------------------------------------

/// aux: space << 1 | to generic; 64-bit or 32-bit registers.
template <class T> void convertSpace(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  uint64_t base = windowBase(op.aux >> 1);
  const T* a = w.reg<T>(o[1]);
  alignas(64) T t[32];
  if (op.aux & 1) EMU_LANES t[i] = (T)(a[i] + base);
  else EMU_LANES t[i] = (T)(a[i] - base);
  merge(w.reg<T>(o[0]), t, m);
}
void isSpace(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const uint64_t* a = w.reg<uint64_t>(o[1]);
  uint32_t r = 0;
  const uint32_t space = op.aux & auxSpace;
  const uint64_t least = space == Shared && !(op.aux & auxCluster) ? sharedWindow + clusterOffset : ~0ull;
  EMU_LANES r |= (uint32_t)(windowOf(a[i]) == space && a[i] <= least) << i;
  w.setPredicate(o[0], r, m);
}

// --- ldmatrix, stmatrix ------------------------------------------------------------------------------------------

template <int Count, bool Transposed> void loadMatrix(Warp& w, const Op& op, const int32_t* o, uint32_t) {
  alignas(64) uint64_t at[32];
  alignas(64) uint8_t rows[32 * 16], turned[128];
  addressesOf(w, op, o[Count], at);
  uint32_t lanes = Count == 4 ? ~0u : (1u << (8 * Count)) - 1;  // only these lanes' addresses are looked at
  if ((op.aux & auxSpace) == Generic) EMU_LANES at[i] -= sharedWindow;
  fetchShared(Request{w, op, at, lanes, 16}, rows);
  for (int k = 0; k < Count; k++) {
    if (Transposed) transpose8((const uint16_t*)(rows + k * 128), (uint16_t*)turned);
    memcpy(w.reg<uint8_t>(o[k]), Transposed ? turned : rows + k * 128, 128);
  }
}
template <int Count, bool Transposed> void storeMatrix(Warp& w, const Op& op, const int32_t* o, uint32_t) {
  alignas(64) uint64_t at[32];
  alignas(64) uint8_t rows[32 * 16];
  addressesOf(w, op, o[0], at);
  uint32_t lanes = Count == 4 ? ~0u : (1u << (8 * Count)) - 1;
  if ((op.aux & auxSpace) == Generic) EMU_LANES at[i] -= sharedWindow;
  for (int k = 0; k < Count; k++) {
    if (Transposed) transpose8(w.reg<uint16_t>(o[1 + k]), (uint16_t*)(rows + k * 128));
    else memcpy(rows + k * 128, w.reg<uint8_t>(o[1 + k]), 128);
  }
  commitShared(Request{w, op, at, lanes, 16}, rows);
}

}  // namespace

Handler loadHandler(Type type, int width, int vector) {
  bool s = isSigned(type);
  switch (sizeOf(type) * 16 + width) {
    case 1 * 16 + 2: return s ? pickLoad<int8_t, uint16_t>(vector) : pickLoad<uint8_t, uint16_t>(vector);
    case 1 * 16 + 4: return s ? pickLoad<int8_t, uint32_t>(vector) : pickLoad<uint8_t, uint32_t>(vector);
    case 1 * 16 + 8: return s ? pickLoad<int8_t, uint64_t>(vector) : pickLoad<uint8_t, uint64_t>(vector);
    case 2 * 16 + 2: return pickLoad<uint16_t, uint16_t>(vector);
    case 2 * 16 + 4: return s ? pickLoad<int16_t, uint32_t>(vector) : pickLoad<uint16_t, uint32_t>(vector);
    case 2 * 16 + 8: return s ? pickLoad<int16_t, uint64_t>(vector) : pickLoad<uint16_t, uint64_t>(vector);
    case 4 * 16 + 4: return pickLoad<uint32_t, uint32_t>(vector);
    case 4 * 16 + 8: return s ? pickLoad<int32_t, uint64_t>(vector) : pickLoad<uint32_t, uint64_t>(vector);
    case 8 * 16 + 8: return pickLoad<uint64_t, uint64_t>(vector);
    default: return nullptr;
  }
}
Handler storeHandler(Type type, int width, int vector) {
  switch (sizeOf(type) * 16 + width) {
    case 1 * 16 + 2: return pickStore<uint8_t, uint16_t>(vector);
    case 1 * 16 + 4: return pickStore<uint8_t, uint32_t>(vector);
    case 1 * 16 + 8: return pickStore<uint8_t, uint64_t>(vector);
    case 2 * 16 + 2: return pickStore<uint16_t, uint16_t>(vector);
    case 2 * 16 + 4: return pickStore<uint16_t, uint32_t>(vector);
    case 2 * 16 + 8: return pickStore<uint16_t, uint64_t>(vector);
    case 4 * 16 + 4: return pickStore<uint32_t, uint32_t>(vector);
    case 4 * 16 + 8: return pickStore<uint32_t, uint64_t>(vector);
    case 8 * 16 + 8: return pickStore<uint64_t, uint64_t>(vector);
    default: return nullptr;
  }
}
Handler atomicHandler(const std::string& op, Type type, bool result) {
  switch (type) {
    case Type::B32:
    case Type::U32: return pickAtomic<uint32_t, uint32_t>(op, result);
    case Type::S32: return pickAtomic<int32_t, uint32_t>(op, result);
    case Type::B64:
    case Type::U64: return pickAtomic<uint64_t, uint64_t>(op, result);
    case Type::S64: return pickAtomic<int64_t, uint64_t>(op, result);
    case Type::F32: return pickAtomic<float, uint32_t>(op, result);
    case Type::F64: return pickAtomic<double, uint64_t>(op, result);
    case Type::B16: return op == "cas" ? either<uint16_t, applied<uint16_t, uint16_t, AtomCas>>(result) : nullptr;
    case Type::F16: return op == "add" ? either<uint16_t, halfAdd<F16Format>>(result) : nullptr;
    case Type::BF16: return op == "add" ? either<uint16_t, halfAdd<Bf16Format>>(result) : nullptr;
    case Type::F16x2: return op == "add" ? either<uint32_t, pairAdd<F16Format>>(result) : nullptr;
    case Type::BF16x2: return op == "add" ? either<uint32_t, pairAdd<Bf16Format>>(result) : nullptr;
    default: return nullptr;
  }
}
Handler asyncCopyHandler(int bytes) {
  return bytes == 4 ? asyncCopy<4> : bytes == 8 ? asyncCopy<8> : bytes == 16 ? asyncCopy<16> : nullptr;
}
Handler asyncCommitHandler() { return asyncCommit; }
Handler asyncWaitHandler() { return asyncWait; }
Handler spaceConversionHandler(bool, uint32_t, int width) {
  return width == 8 ? convertSpace<uint64_t> : convertSpace<uint32_t>;
}
Handler isSpaceHandler(uint32_t) { return isSpace; }
Handler loadMatrixHandler(int count, bool t) {
  if (count == 1) return t ? loadMatrix<1, true> : loadMatrix<1, false>;
  if (count == 2) return t ? loadMatrix<2, true> : loadMatrix<2, false>;
  return t ? loadMatrix<4, true> : loadMatrix<4, false>;
}
Handler storeMatrixHandler(int count, bool t) {
  if (count == 1) return t ? storeMatrix<1, true> : storeMatrix<1, false>;
  if (count == 2) return t ? storeMatrix<2, true> : storeMatrix<2, false>;
  return t ? storeMatrix<4, true> : storeMatrix<4, false>;
}

}  // namespace emu
