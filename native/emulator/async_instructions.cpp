// mbarriers, proxy fences, bulk copies (TMA), and the small instructions that kernels with roles for their warps need.
#include <algorithm>

#include "async_proxy.h"
#include "cluster.h"
#include "instructions.h"
#include "lanes.h"
#include "memory_access.h"
#include "tensor_map.h"

namespace emu {

namespace {

AsyncProxy& proxy(Warp& w) { return *w.block->async; }

uint32_t sharedAddress(const Op& op, int lane, uint64_t at) {
  if ((op.aux & auxSpace) == Generic) {
    if (windowOf(at) != Shared)
      throw Fault{"out_of_bounds", "an mbarrier lies in shared memory", "generic", illegalAddress, lane, at, 8};
    at -= sharedWindow;
  }
  return (uint32_t)std::min<uint64_t>(at, ~7u);
}

/// A place in shared memory, with shared::cluster perhaps another block's.
struct Place {
  Block& block;
  uint32_t at;
  AsyncProxy& proxy() const { return *block.async; }
};
Place placeOf(Warp& w, const Op& op, int lane, uint64_t at, uint32_t bytes) {
  if (!(op.aux & auxCluster)) return {*w.block, (uint32_t)std::min<uint64_t>(at, ~15u)};
  return {w.block->cluster->reach(w, op, lane, at, bytes), (uint32_t)(at & clusterOffset)};
}
/// Where asynchronous bytes go whose mbarrier must lie in the same block.
Place destination(Warp& w, const Op& op, int lane, uint64_t to, uint32_t bytes, uint64_t barrier) {
  const Place p = placeOf(w, op, lane, to, bytes);
  if (&placeOf(w, op, lane, barrier, 8).block == &p.block) return p;
  throw Fault{"cluster_mbarrier",
              "the mbarrier lies in another block than what is written",
              "shared",
              launchFailed,
              lane,
              barrier & clusterOffset,
              8};
}
/// The mbarrier at an address, of whichever block.
struct Found {
  Block& block;
  Mbarrier& barrier;
};
Found mbarrierAt(Warp& w, const Op& op, int lane, uint64_t at) {
  Place p = placeOf(w, op, lane, sharedAddress(op, lane, at), 8);
  Mbarrier& b = p.proxy().use(w, op, lane, p.at);
  if (&p.block != w.block) distributed(p.block).arrived(w, op, lane, p.at, p.proxy().slotOf(b), b.phase);
  return {p.block, b};
}

// --- mbarriers ---------------------------------------------------------------------------------------------------

void initialise(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  EMU_LANES if (m >> i & 1) proxy(w).initialise(w, op, i, sharedAddress(op, i, w.reg<uint64_t>(o[0])[i]),
                                                w.reg<uint32_t>(o[1])[i]);
}
void invalidate(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  EMU_LANES if (m >> i & 1) proxy(w).invalidate(w, op, i, sharedAddress(op, i, w.reg<uint64_t>(o[0])[i]));
}
/// immediate: 1 expect_tx, -1 complete_tx
void expect(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    auto [block, b] = mbarrierAt(w, op, i, w.reg<uint64_t>(o[0])[i]);
    block.async->expect(w, op, i, b, op.immediate * w.reg<uint32_t>(o[1])[i]);
  }
}
void arrive(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  alignas(64) uint64_t state[32] = {};
  const Mbarrier* released = nullptr;
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    auto [block, b] = mbarrierAt(w, op, i, w.reg<uint64_t>(o[1])[i]);
    uint32_t operand = w.reg<uint32_t>(o[2])[i];
    int64_t count = op.aux & barrierExpects ? 1 : operand;
    state[i] = (uint64_t)b.phase << 32 | (uint64_t)b.pending;
    if (op.aux & barrierRelaxed) b.arriving.join(w.fenceReleased, block.rank, w.block->rank);
    else if (released != &b) release(w, m, b.arriving, block.rank);
    released = &b;
    uint32_t phase = b.phase;
    if (op.aux & barrierExpects) b.transactions += operand;
    if (op.aux & barrierDrops) b.expected = std::max<int64_t>(b.expected - count, 0);
    block.async->arrive(w, op, i, b, count);
    if ((op.aux & barrierNoComplete) && b.phase != phase)
      report(w, op, i, false, "mbarrier_phase", "shared", b.address, 8, "completes the phase in spite of .noComplete");
  }
  merge(w.reg<uint64_t>(o[0]), state, m);
}

/// operands: predicate, address, parity or state
void test(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const uint64_t* at = w.reg<uint64_t>(o[1]);
  const bool parity = op.aux & barrierParity, tries = op.aux & barrierTries;
  Worker& k = *w.worker;
  uint32_t complete = 0;
  for (uint32_t rest = m; rest;) {
    int lane = firstLane(rest);
    uint64_t asked = parity ? w.reg<uint32_t>(o[2])[lane] : w.reg<uint64_t>(o[2])[lane];
    uint32_t same = 0;
    EMU_LANES same |=
        (uint32_t)(at[i] == at[lane] && (parity ? w.reg<uint32_t>(o[2])[i] : w.reg<uint64_t>(o[2])[i]) == asked) << i;
    same &= rest;
    rest &= ~same;
    Mbarrier& b = proxy(w).use(w, op, lane, sharedAddress(op, lane, at[lane]));
    bool done;
    if (parity) {
      if (asked > 1)
        report(w, op, lane, false, "mbarrier_phase", "shared", b.address, 8,
               "a parity of " + std::to_string(asked) + ", which is neither 0 nor 1");
      done = ((b.phase - b.firstPhase) & 1) != (asked & 1);
    } else {
      uint32_t phase = (uint32_t)(asked >> 32);
      done = b.phase > phase;
      if (phase < b.firstPhase || b.phase > phase + 1 || phase > b.phase)
        report(w, op, lane, false, "mbarrier_phase", "shared", b.address, 8,
               "waits for neither the present phase of the mbarrier nor the one before");
    }
    // By a seed, try_wait gives up now and then, as it does on hardware when time runs out.
    if (tries && w.block->launch->seed && w.refusals < 3 && k.next() % 4 == 0) {
      w.refusals++;
      continue;
    }
    if (!done) {
      if (tries && same == m) w.blocked = waitsForMbarrier + proxy(w).slotOf(b);
      else w.yields = true;
      continue;
    }
    w.refusals = 0;
    complete |= same;
    if (b.phase > b.firstPhase) b.observed = true;
    Knowledge what = b.completed;
    what[(size_t)(Knowledge::barriers + proxy(w).slotOf(b))] = b.phase;
    if (!(op.aux & barrierRelaxed)) {
      w.learn(same, what);
    } else {
      w.fenceAcquired.join(what);
      w.fenceAcquired.begun = 1;
    }
  }
  if (w.blocked < 0) w.setPredicate(o[0], complete, m);
}
void pendingCount(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  alignas(64) uint32_t t[32];
  EMU_LANES t[i] = (uint32_t)w.reg<uint64_t>(o[1])[i];
  merge(w.reg<uint32_t>(o[0]), t, m);
}

// --- fences ------------------------------------------------------------------------------------------------------

/// immediate: 0 shared memory, 1 initialisations of mbarriers only
void fenceProxy(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  int lane = firstLane(m);
  proxy(w).fenceInitialisations(w, lane, op.immediate);
  if (op.immediate) return;
  // What the lanes know of becomes known to the asynchronous proxy, in all of shared memory; of their own warp, when all that wrote have
  // fenced.
  Knowledge& known = w.knownTo(lane);
  known.fence();
  for (BlockKnowledge& other : known.others) other.fence();
  w.unfenced &= ~m;
  if (!w.unfenced) {
    w.block->tick(w);
    known.fenced[w.index] = w.clock;
  }
}

// --- bulk copies -------------------------------------------------------------------------------------------------

void checkRegion(int lane, const Block& b, uint64_t at, uint64_t bytes, uint32_t alignment) {
  if (at + bytes > b.shared.size)
    throw Fault{"out_of_bounds",
                "the block has " + std::to_string(b.shared.size) + " bytes of shared memory",
                "shared",
                illegalAddress,
                lane,
                at,
                (int)bytes};
  if (at % alignment)
    throw Fault{"misaligned", "address is not a multiple of " + std::to_string(alignment),
                "shared",     misalignedAddress,
                lane,         at,
                (int)bytes};
}

void checkWhole(int lane, const char* space, uint64_t at, uint32_t bytes) {
  if (bytes % 16 || !bytes)
    throw Fault{
        "misaligned", std::to_string(bytes) + " bytes, which is no multiple of 16", space, misalignedAddress, lane, at,
        (int)bytes};
}

std::vector<TensorPart> plainParts(int lane, uint64_t global, uint32_t shared, uint32_t bytes) {
  checkWhole(lane, "global", global, bytes);
  if (global % 16)
    throw Fault{"misaligned", "address is not a multiple of 16", "global", misalignedAddress, lane, global, (int)bytes};
  std::vector<TensorPart> parts;
  for (uint32_t k = 0; k < bytes; k += 16) parts.push_back({global + k, shared + k, 16});
  return parts;
}

TensorMap mapAt(Warp& w, const Op& op, int lane, uint64_t at, bool im2col) {
  auto wrong = [&](const std::string& what) {
    return Fault{"bad_tensor_map", what, "generic", illegalInstruction, lane, at, (int)sizeof(TensorMap)};
  };
  TensorMap map;
  const Launch& l = *w.block->launch;
  if (at % 64)
    throw Fault{"misaligned", "a tensor map lies at a multiple of 64 bytes", "generic", misalignedAddress, lane, at,
                128};
  switch (windowOf(at)) {
    case Param:
      if (at - paramWindow + sizeof map > l.parameters.size()) throw wrong("lies outside of the kernel's parameters");
      memcpy(&map, &l.parameters[at - paramWindow], sizeof map);
      break;
    case Global: {
      const Allocation* a = w.worker->find(at);
      if (!a || at + sizeof map > a->end())
        throw Fault{"out_of_bounds", memory().describe(at, sizeof map, nullptr), "global", illegalAddress, lane, at,
                    (int)sizeof map};
      memcpy(&map, (const void*)at, sizeof map);
      break;
    }
    default:
      throw wrong(
          "a tensor map lies in global, constant or parameter memory (const __grid_constant__), not in that of a "
          "thread or block");
  }
  if (map.magic != TensorMap::valid || map.checksum != map.sum())
    throw wrong("no tensor map that cuTensorMapEncodeTiled or cuTensorMapEncodeIm2col made, or it was changed");
  if (map.rank != op.target)
    throw wrong("the tensor map has " + std::to_string(map.rank) + " dimensions, the instruction " +
                std::to_string(op.target));
  if (map.im2col != im2col)
    throw wrong(im2col ? "the tensor map is tiled, the instruction im2col"
                       : "the tensor map is im2col, the instruction is not");
  return map;
}

/// Copies parts from global memory into an image of their box, with the checks of loads.
void fetchParts(Warp& w, const Op& op, int lane, const std::vector<TensorPart>& parts, uint32_t base, uint8_t* image) {
  alignas(64) uint8_t buffer[32 * 16];
  uint64_t from[32];
  uint32_t to[32];
  try {
    for (uint32_t size : {16u, 8u, 4u, 2u, 1u}) {
      uint32_t lanes = 0;
      auto flush = [&] {
        if (!lanes) return;
        const uint8_t* s =
            fetchGlobal(Request{w, op, from, (uint32_t)((1ull << lanes) - 1), size, nullptr, lane}, buffer);
        for (uint32_t i = 0; i < lanes; i++) memcpy(image + to[i], s + i * size, size);
        lanes = 0;
      };
      for (const TensorPart& p : parts) {
        if (p.bytes != size) continue;
        from[lanes] = p.global;
        to[lanes] = p.shared - base;
        if (++lanes == 32) flush();
      }
      flush();
    }
  } catch (Fault& f) {
    f.lane = lane;
    throw;
  }
}

/// Bytes on their way to a place, which the mbarrier at an offset in the same block completes.
BulkLoad arriving(Warp& w, const Op& op, int lane, Place to, uint32_t bytes, uint32_t barrier) {
  AsyncProxy& p = to.proxy();
  Mbarrier& b = p.use(w, op, lane, barrier);
  BulkLoad l;
  l.warp = &w, l.op = &op, l.lane = lane, l.at = to.at, l.bytes = bytes;
  l.slot = p.slotOf(b);
  l.phase = b.phase;
  if (&to.block != w.block) distributed(to.block).arrived(w, op, lane, to.at, l.slot, l.phase);
  return l;
}
/// The same of the asynchronous proxy, with its checks.
BulkLoad bulkArriving(Warp& w, const Op& op, int lane, Place to, uint32_t bytes, uint32_t barrier) {
  BulkLoad l = arriving(w, op, lane, to, bytes, barrier);
  Mbarrier& b = to.proxy().barrier(l.slot);
  if (!b.proxied) {
    report(w, op, lane, false, "missing_proxy_fence", "shared", b.address, 8,
           "the asynchronous proxy uses an mbarrier, and no fence.mbarrier_init or fence.proxy.async followed its "
           "initialisation");
    b.proxied = true;
  }
  const Knowledge& known = w.knownTo(lane);
  for (uint32_t at = to.at; at < to.at + bytes; at += 16)
    if (!to.proxy().checkWrite(w, op, lane, at, known)) break;
  return l;
}

/// A load into the block that an address names, or into those that a mask names, where it lies at the same offset.
void issueLoad(Warp& w, const Op& op, int lane, uint64_t to, uint32_t bytes, uint64_t barrier, const uint16_t* mask,
               uint32_t alignment, const std::vector<TensorPart>& parts) {
  Cluster& cluster = *w.block->cluster;
  std::vector<Place> places;
  if (!mask) {
    places.push_back(destination(w, op, lane, to, bytes, barrier));
  } else {
    for (int r = 0; r < 16; r++)
      if (*mask >> r & 1)
        places.push_back({cluster.reachRank(w, op, lane, r, to, bytes), (uint32_t)(to & clusterOffset)});
    if (places.empty())
      report(w, op, lane, false, "cluster_mask", "shared", to, (int)bytes, "a multicast to no block of the cluster");
  }
  for (Place& p : places) checkRegion(lane, p.block, p.at, bytes, alignment);
  Counters& c = w.worker->counters;
  std::vector<uint8_t> data(bytes);  // zeros outside of the tensor
  const uint64_t before = c.globalLoadSectorsMissed;
  const uint32_t base = (uint32_t)(to & clusterOffset);
  fetchParts(w, op, lane, parts, base, data.data());
  if (places.size() > 1) c.multicastSavedBytes += 32 * (c.globalLoadSectorsMissed - before) * (places.size() - 1);
  for (Place& p : places) {
    BulkLoad l = bulkArriving(w, op, lane, p, bytes, (uint32_t)(barrier & clusterOffset));
    l.data = data;
    p.proxy().load(std::move(l));
    c.bulkLoadBytes += bytes;
  }
  c.bulkLoads++;
}

void issueStore(Warp& w, const Op& op, int lane, uint32_t from, uint32_t bytes, const std::vector<TensorPart>& parts) {
  AsyncProxy& p = proxy(w);
  const Knowledge& known = w.knownTo(lane);
  BulkStore s;
  s.warp = &w, s.op = &op, s.lane = lane, s.at = from, s.bytes = bytes;
  uint32_t last = ~0u;
  bool fine = true;
  for (const TensorPart& x : parts) {
    if (x.shared >> 4 != last && fine) fine = p.checkRead(w, op, lane, x.shared & ~15u, known);
    last = x.shared >> 4;
    s.parts.push_back({x.global, x.shared, x.bytes});
    w.worker->counters.bulkStoreBytes += x.bytes;
  }
  p.store(std::move(s));
  w.worker->counters.bulkStores++;
}

/// The blocks that a load is for, where it says so.
const uint16_t* maskOf(const Warp& w, const Op& op, const int32_t* o, int lane) {
  return op.aux & bulkMulticast ? w.reg<uint16_t>(*o) + lane : nullptr;
}

/// operands: shared address, global address, bytes, mbarrier, mask
void bulkLoad(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    uint64_t to = w.reg<uint64_t>(o[0])[i], from = w.reg<uint64_t>(o[1])[i];
    uint32_t bytes = w.reg<uint32_t>(o[2])[i];
    const uint32_t offset = (uint32_t)(to & clusterOffset);
    issueLoad(w, op, i, to, bytes, w.reg<uint64_t>(o[3])[i], maskOf(w, op, o + 4, i), 16,
              plainParts(i, from, offset, bytes));
  }
}
/// operands: global address, shared address, bytes
void bulkStore(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    uint64_t to = w.reg<uint64_t>(o[0])[i], from = w.reg<uint64_t>(o[1])[i];
    uint32_t bytes = w.reg<uint32_t>(o[2])[i];
    checkRegion(i, *w.block, from, bytes, 16);
    issueStore(w, op, i, (uint32_t)from, bytes, plainParts(i, to, (uint32_t)from, bytes));
  }
}

/// operands: address in shared::cluster, shared address, bytes, mbarrier
void bulkSend(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    const uint32_t from = w.reg<uint32_t>(o[1])[i], bytes = w.reg<uint32_t>(o[2])[i];
    const uint64_t barrier = w.reg<uint64_t>(o[3])[i];
    const Place to = destination(w, op, i, w.reg<uint64_t>(o[0])[i], bytes, barrier);
    checkWhole(i, "shared", from, bytes);
    checkRegion(i, *w.block, from, bytes, 16);
    checkRegion(i, to.block, to.at, bytes, 16);
    const Knowledge& known = w.knownTo(i);
    for (uint32_t at = from; at < from + bytes; at += 16)
      if (!proxy(w).checkRead(w, op, i, at, known)) break;
    BulkLoad l = bulkArriving(w, op, i, to, bytes, (uint32_t)(barrier & clusterOffset));
    const uint8_t* data = &w.block->shared.bytes[from];
    l.data.assign(data, data + bytes);
    BulkSend s;
    s.warp = &w, s.op = &op, s.lane = i, s.at = from, s.bytes = bytes;
    s.rank = to.block.rank, s.slot = l.slot, s.phase = l.phase;
    proxy(w).send(std::move(s));
    to.proxy().load(std::move(l));
    w.worker->counters.bulkSends++;
    w.worker->counters.bulkSendBytes += bytes;
  }
}

/// operands: address in shared::cluster, mbarrier, values; target: bytes of each
void storeLater(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const uint32_t size = (uint32_t)op.target, bytes = size * (uint32_t)(op.operandCount - 2);
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    const uint64_t barrier = w.reg<uint64_t>(o[1])[i];
    const Place to = destination(w, op, i, w.reg<uint64_t>(o[0])[i], bytes, barrier);
    BulkLoad l = arriving(w, op, i, to, bytes, (uint32_t)(barrier & clusterOffset));
    for (int k = 2; k < op.operandCount; k++) {
      const auto* value = w.reg<uint8_t>(o[k]) + (uint32_t)i * size;
      l.data.insert(l.data.end(), value, value + size);
    }
    uint64_t at[32];
    at[i] = to.at;
    Request r{w, op, at, 1u << i, bytes, &to.block};
    checkOverwrite(r);
    to.proxy().storeLater(r, std::move(l));
    w.worker->counters.clusterStoreBytes += bytes;
  }
}

/// operands: shared address, tensor map, mbarrier (null for a store), coordinates, offsets, mask; target: dimensions
void tensorCopy(Warp& w, const Op& op, const int32_t* o, uint32_t m, bool store) {
  const bool im2col = op.aux & tensorIm2col;
  const int rank = op.target;
  for (int i = 0; i < 32; i++) {
    if (!(m >> i & 1)) continue;
    uint64_t at = w.reg<uint64_t>(o[0])[i], mapAddress = w.reg<uint64_t>(o[1])[i];
    TensorMap map = mapAt(w, op, i, mapAddress, im2col);
    int32_t coordinates[5] = {};
    uint16_t offsets[3] = {};
    for (int d = 0; d < rank; d++) coordinates[d] = w.reg<int32_t>(o[3 + d])[i];
    if (im2col)
      for (int d = 0; d < rank - 2; d++) offsets[d] = w.reg<uint16_t>(o[3 + rank + d])[i];
    std::string wrong = wrongCoordinates(map, coordinates, offsets, store);
    if (!wrong.empty()) report(w, op, i, false, "tensor_coordinates", "global", map.address, 0, wrong);
    uint32_t bytes = map.bytes();
    if (store) checkRegion(i, *w.block, at, bytes, map.alignment());
    std::vector<TensorPart> parts;
    walk(map, coordinates, offsets, (uint32_t)(at & clusterOffset), parts);
    if (store) issueStore(w, op, i, (uint32_t)at, bytes, parts);
    else
      issueLoad(w, op, i, at, bytes, w.reg<uint64_t>(o[2])[i], maskOf(w, op, o + op.operandCount - 1, i),
                map.alignment(), parts);
  }
}
void tensorLoad(Warp& w, const Op& op, const int32_t* o, uint32_t m) { tensorCopy(w, op, o, m, false); }
void tensorStore(Warp& w, const Op& op, const int32_t* o, uint32_t m) { tensorCopy(w, op, o, m, true); }

void bulkCommit(Warp& w, const Op&, const int32_t*, uint32_t m) { proxy(w).commit(w, m); }
/// immediate: groups that may stay unfinished; aux: 1 only reading shared memory must be done
void bulkWait(Warp& w, const Op& op, const int32_t*, uint32_t m) { proxy(w).wait(w, m, op.immediate, op.aux); }

// --- roles -------------------------------------------------------------------------------------------------------

/// operands: mask, lane, predicate. Which lane is elected is the device's affair, but the same for the same mask.
void elect(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  uint32_t members = w.reg<uint32_t>(o[0])[firstLane(m)] & m, rest = members ? members : m;
  uint64_t skip = (w.block->launch->seed * 0x9e3779b97f4a7c15ull >> 40) % (uint64_t)__builtin_popcount(rest);
  for (; skip; skip--) rest &= rest - 1;
  int leader = firstLane(rest);
  alignas(64) uint32_t t[32];
  EMU_LANES t[i] = (uint32_t)leader;
  merge(w.reg<uint32_t>(o[1]), t, m);
  w.setPredicate(o[2], 1u << leader, m);
}

/// immediate: registers of a thread; aux: 1 more, 0 fewer
void setRegisters(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  Block& b = *w.block;
  const Program& p = *b.launch->program;
  const int wanted = (int)op.immediate, lane = firstLane(m);
  if (!w.registers) {
    w.registers = p.registerBound();
    if (!w.registers) {
      report(w, op, lane, false, "setmaxnreg", "", 0, 0,
             "has no effect: the kernel has neither .maxnreg nor .maxntid, so its registers are not known");
      return;
    }
  }
  bool more = op.aux;
  if (more ? wanted < w.registers : wanted > w.registers) {
    report(w, op, lane, false, "setmaxnreg", "", 0, 0,
           std::string(more ? "asks for no more" : "gives nothing back") + ": " + std::to_string(wanted) +
               " registers, and the warp has " + std::to_string(w.registers));
    return;
  }
  int change = (wanted - w.registers) * 32;
  if (change > b.registerPool) {
    w.blocked = waitsForRegisters;
    return;
  }
  b.registerPool -= change;
  w.registers = wanted;
  if (!more) b.wake(waitsForRegisters);
}

}  // namespace

Handler mbarrierHandler(const std::string& what) {
  return what == "init"            ? initialise
         : what == "inval"         ? invalidate
         : what == "expect_tx"     ? expect
         : what == "complete_tx"   ? expect
         : what == "arrive"        ? arrive
         : what == "arrive_drop"   ? arrive
         : what == "test_wait"     ? test
         : what == "try_wait"      ? test
         : what == "pending_count" ? pendingCount
                                   : nullptr;
}
Handler proxyFenceHandler() { return fenceProxy; }
Handler bulkCopyHandler(bool store) { return store ? bulkStore : bulkLoad; }
Handler tensorCopyHandler(bool store) { return store ? tensorStore : tensorLoad; }
Handler bulkSendHandler() { return bulkSend; }
Handler storeLaterHandler() { return storeLater; }
Handler bulkCommitHandler() { return bulkCommit; }
Handler bulkWaitHandler() { return bulkWait; }
Handler electHandler() { return elect; }
Handler setRegistersHandler() { return setRegisters; }

}  // namespace emu
