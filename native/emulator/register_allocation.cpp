// Registers of PTX are endless; slots should be few, so that a warp's registers stay in the cache. Linear scan over live ranges.
#include <algorithm>
#include <queue>

#include "instructions.h"
#include "lowering.h"

namespace emu {

namespace {

using Bits = std::vector<uint64_t>;
inline bool has(const Bits& b, int i) { return b[(size_t)i >> 6] >> (i & 63) & 1; }
inline void put(Bits& b, int i) { b[(size_t)i >> 6] |= 1ull << (i & 63); }
inline void drop(Bits& b, int i) { b[(size_t)i >> 6] &= ~(1ull << (i & 63)); }

struct BasicBlock {
  int begin, end;
  std::vector<int> next, previous;
};

std::vector<BasicBlock> blocksOf(const Program& p, const VirtualCode& code) {
  int n = (int)p.code.size();
  std::vector<bool> leader((size_t)n + 1, false);
  leader[0] = true;
  for (int i = 0; i < n; i++) {
    const Op& op = p.code[(size_t)i];
    if (op.flow == Flow::Branch) leader[(size_t)op.target] = leader[(size_t)i + 1] = true;
    if (op.flow == Flow::Exit) leader[(size_t)i + 1] = true;
    if (op.flow == Flow::Indexed) {
      leader[(size_t)i + 1] = true;
      for (int t : p.branchTables[(size_t)op.immediate]) leader[(size_t)t] = true;
    }
  }
  std::vector<BasicBlock> blocks;
  std::vector<int> blockAt((size_t)n + 1, -1);
  for (int i = 0; i < n;) {
    int j = i + 1;
    while (j < n && !leader[(size_t)j]) j++;
    blockAt[(size_t)i] = (int)blocks.size();
    blocks.push_back({i, j, {}, {}});
    i = j;
  }
  for (size_t b = 0; b < blocks.size(); b++) {
    const Op& last = p.code[(size_t)blocks[b].end - 1];
    bool guarded = !code.guards[(size_t)blocks[b].end - 1].constant;
    auto to = [&](int at) {
      if (at < n) blocks[b].next.push_back(blockAt[(size_t)at]);
    };
    if (last.flow == Flow::Branch) to(last.target);
    if (last.flow == Flow::Indexed)
      for (int t : p.branchTables[(size_t)last.immediate]) to(t);
    bool ends = (last.flow == Flow::Branch || last.flow == Flow::Exit || last.flow == Flow::Indexed) && !guarded;
    if (!ends) to(blocks[b].end);
    for (int s : blocks[b].next) blocks[(size_t)s].previous.push_back((int)b);
  }
  return blocks;
}

/// Registers and predicates in one numbering: predicates follow the registers.
struct Numbering {
  int registers, all;
  int of(const Ref& r) const { return r.constant || r.role == Ref::None ? -1 : r.predicate ? registers + r.id : r.id; }
};

template <class F> void eachRef(const Program& p, const VirtualCode& code, int at, F f) {
  const Op& op = p.code[(size_t)at];
  for (int k = 0; k < op.operandCount; k++) f(code.refs[op.first + (size_t)k]);
}

/// The code once more, with operations put between.
class Insertion {
 public:
  Insertion(Program& p, VirtualCode& code) : p(p), code(code), moved(p.code.size() + 1) {}
  /// What follows comes before the i-th operation.
  void at(size_t i) { moved[now = i] = (int)ops.size(); }
  void add(Handler h, int64_t immediate, uint32_t aux, int32_t target, bool guarded) {
    Op op;
    op.run = h;
    op.immediate = immediate;
    op.first = p.code[now].first;
    op.aux = aux;
    op.target = target;
    put(op, guarded ? code.guards[now] : Ref{0, Ref::None, true, false, true});
  }
  void keep() { put(p.code[now], code.guards[now]); }
  void finish() {
    moved[p.code.size()] = (int)ops.size();
    for (auto& op : ops)
      if (op.flow == Flow::Branch) op.target = moved[(size_t)op.target];
    for (auto& t : p.branchTables)
      for (auto& x : t) x = moved[(size_t)x];
    p.code = std::move(ops);
    p.origins = std::move(origins);
    code.guards = std::move(guards);
  }

 private:
  Program& p;
  VirtualCode& code;
  std::vector<Op> ops;
  std::vector<OpOrigin> origins;
  std::vector<Ref> guards;
  std::vector<int> moved;
  size_t now = 0;
  void put(const Op& op, const Ref& guard) {
    ops.push_back(op);
    origins.push_back(p.origins[now]);
    guards.push_back(guard);
  }
};

/// Adds a check before each read of a register that some path reaches without a write, and notes the writes of such registers.
void trackUnwritten(Program& p, VirtualCode& code) {
  Numbering number{(int)code.widths.size(), (int)code.widths.size() + code.predicates};
  auto blocks = blocksOf(p, code);
  size_t words = (size_t)number.all / 64 + 1;
  std::vector<Bits> written(blocks.size(), Bits(words, ~0ull)), in(blocks.size(), Bits(words, ~0ull));
  Bits entry(words, 0);
  for (auto& s : code.specials) put(entry, s.second);
  auto pass = [&](size_t b, Bits now, auto&& onUse) {
    for (int i = blocks[b].begin; i < blocks[b].end; i++) {
      const Ref& g = code.guards[(size_t)i];
      if (int id = number.of(g); id >= 0 && !has(now, id)) onUse(i, id);
      eachRef(p, code, i, [&](const Ref& r) {
        int id = number.of(r);
        if (id >= 0 && (r.role & Ref::Use) && !r.lenient && !has(now, id)) onUse(i, id);
      });
      if (g.constant)
        eachRef(p, code, i, [&](const Ref& r) {
          int id = number.of(r);
          if (id >= 0 && (r.role & Ref::Def)) put(now, id);
        });
    }
    return now;
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t b = 0; b < blocks.size(); b++) {
      Bits meet(words, ~0ull);
      if (b == 0) meet = entry;
      for (int q : blocks[b].previous)
        for (size_t k = 0; k < words; k++) meet[k] &= written[(size_t)q][k];
      if (b != 0 && blocks[b].previous.empty()) continue;  // cannot be reached
      in[b] = meet;
      Bits now = pass(b, meet, [](int, int) {});
      if (now != written[b]) {
        written[b] = now;
        changed = true;
      }
    }
  }
  std::vector<std::pair<int, int>> checks;
  std::unordered_map<int, int> tracked;
  for (size_t b = 0; b < blocks.size(); b++) {
    if (b != 0 && blocks[b].previous.empty()) continue;
    pass(b, in[b], [&](int at, int id) {
      if (checks.empty() || checks.back() != std::pair(at, id)) checks.emplace_back(at, id);
      tracked.try_emplace(id, (int)tracked.size());
    });
  }
  if (checks.empty()) return;
  p.trackedCount = (int)tracked.size();
  std::sort(checks.begin(), checks.end());
  Insertion insertion(p, code);
  size_t next = 0;
  for (size_t i = 0; i < p.code.size(); i++) {
    insertion.at(i);
    // A move or a pack of a value nobody uses is how compilers say "undefined"; arithmetic on it is a fault of the kernel.
    const uint32_t excused = p.code[i].klass == OpClass::Move;
    for (; next < checks.size() && checks[next].first == (int)i; next++)
      insertion.add(checkWrittenHandler(), tracked[checks[next].second], excused, 0,
                    number.of(code.guards[i]) != checks[next].second);
    eachRef(p, code, (int)i, [&](const Ref& r) {
      int id = number.of(r);
      if (id >= 0 && (r.role & Ref::Def) && tracked.count(id))
        insertion.add(writtenHandler(), tracked[id], excused, 0, true);
    });
    insertion.keep();
  }
  insertion.finish();
}

/// Adds an operation before each that uses registers of wgmma, but for wgmma itself: they are not to be touched while it runs.
/// Moves carry what is known about a register into another.
void trackAccumulators(Program& p, VirtualCode& code) {
  if (p.matrixOperands.empty()) return;
  std::unordered_map<int, int> tracked;
  auto isMatrix = [](const Op& op) {
    return op.klass == OpClass::Matrix && op.operandCount > 1 && op.flow == Flow::Converge && (op.aux & matrixColumns);
  };
  auto isRegister = [](const Ref& r) { return !r.constant && !r.predicate && r.role != Ref::None; };
  auto track = [&](int id) { return tracked.try_emplace(id, (int)tracked.size()).first->second; };
  for (auto& op : p.code) {
    if (!isMatrix(op)) continue;
    const Ref* refs = &code.refs[op.first];
    const int sums = (int)(op.aux & matrixColumns) / 2, all = sums + (op.aux & matrixFragments ? 4 : 0);
    for (int k = 1; k <= all; k++)  // an operand of A may be a constant
      p.matrixOperands[(size_t)op.immediate].push_back(isRegister(refs[k]) ? track(refs[k].id) : -1);
  }
  auto isMove = [&](const Op& op) {
    const Ref* refs = &code.refs[op.first];
    return op.run == moveHandler(4) && op.operandCount == 2 && isRegister(refs[0]) && isRegister(refs[1]);
  };
  for (bool changed = true; changed;) {
    size_t before = tracked.size();
    for (auto& op : p.code) {
      if (!isMove(op)) continue;
      const Ref* refs = &code.refs[op.first];
      if (tracked.count(refs[0].id) || tracked.count(refs[1].id)) track(refs[0].id), track(refs[1].id);
    }
    changed = tracked.size() != before;
  }
  p.accumulatorCount = (int)tracked.size();
  Insertion insertion(p, code);
  for (size_t i = 0; i < p.code.size(); i++) {
    const Op& op = p.code[i];
    insertion.at(i);
    if (!isMatrix(op)) {
      const Ref* refs = op.operandCount ? &code.refs[op.first] : nullptr;
      if (isMove(op) && tracked.count(refs[0].id)) {
        insertion.add(accumulatorMoveHandler(), tracked[refs[0].id], 0, tracked[refs[1].id], true);
      } else {
        for (int k = 0; k < op.operandCount; k++)
          if (isRegister(refs[k]) && tracked.count(refs[k].id))
            insertion.add(accumulatorTouchHandler(), tracked[refs[k].id], refs[k].role & Ref::Def ? 2 : 1, 0, true);
      }
    }
    insertion.keep();
  }
  insertion.finish();
}

struct Range {
  int id, from = 1 << 30, to = -1;
};

std::vector<Range> liveRanges(const Program& p, const VirtualCode& code) {
  int n = (int)code.widths.size();
  size_t words = (size_t)n / 64 + 1;
  auto blocks = blocksOf(p, code);
  std::vector<Bits> in(blocks.size(), Bits(words)), out(blocks.size(), Bits(words)), uses(blocks.size(), Bits(words)),
      kills(blocks.size(), Bits(words));
  auto isRegister = [](const Ref& r) { return !r.constant && !r.predicate && r.role != Ref::None; };
  for (size_t b = 0; b < blocks.size(); b++)
    for (int i = blocks[b].begin; i < blocks[b].end; i++) {
      eachRef(p, code, i, [&](const Ref& r) {
        if (isRegister(r) && (r.role & Ref::Use) && !has(kills[b], r.id)) put(uses[b], r.id);
      });
      if (!code.guards[(size_t)i].constant) continue;  // lanes whose guard is false keep the old value
      eachRef(p, code, i, [&](const Ref& r) {
        if (isRegister(r) && (r.role & Ref::Def)) put(kills[b], r.id);
      });
    }
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t b = blocks.size(); b-- > 0;) {
      for (int s : blocks[b].next)
        for (size_t k = 0; k < words; k++) out[b][k] |= in[(size_t)s][k];
      for (size_t k = 0; k < words; k++) {
        uint64_t v = uses[b][k] | (out[b][k] & ~kills[b][k]);
        changed |= v != in[b][k];
        in[b][k] = v;
      }
    }
  }
  std::vector<Range> ranges((size_t)n);
  for (int r = 0; r < n; r++) ranges[(size_t)r].id = r;
  auto cover = [&](int r, int at) {
    ranges[(size_t)r].from = std::min(ranges[(size_t)r].from, at);
    ranges[(size_t)r].to = std::max(ranges[(size_t)r].to, at);
  };
  for (size_t b = 0; b < blocks.size(); b++) {
    for (size_t k = 0; k < words; k++) {
      for (uint64_t v = in[b][k]; v; v &= v - 1) cover((int)(k * 64) + __builtin_ctzll(v), 2 * blocks[b].begin);
      for (uint64_t v = out[b][k]; v; v &= v - 1) cover((int)(k * 64) + __builtin_ctzll(v), 2 * blocks[b].end - 1);
    }
    for (int i = blocks[b].begin; i < blocks[b].end; i++)
      eachRef(p, code, i, [&](const Ref& r) {
        if (!isRegister(r)) return;
        if (r.role & Ref::Use) cover(r.id, 2 * i);
        if (r.role & Ref::Def) cover(r.id, 2 * i + 1);
      });
  }
  for (auto& s : code.specials) cover(s.second, -1);
  return ranges;
}

}  // namespace

void finishProgram(Program& p, VirtualCode& code) {
  trackAccumulators(p, code);
  trackUnwritten(p, code);
  auto ranges = liveRanges(p, code);
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.from < b.from; });

  // Slots by class of width; a slot is free again after the last use of its register, and the most recent one is taken first.
  auto classOf = [](int width) { return width == 8 ? 0 : width == 4 ? 1 : 2; };
  std::vector<int> slot(code.widths.size(), 0), spare[3];
  int counts[3] = {0, 0, 0}, live = 0, peak = 0;
  using End = std::pair<int, int>;  // end, register
  std::priority_queue<End, std::vector<End>, std::greater<>> active;
  for (auto& r : ranges) {
    if (r.to < 0 && r.from > 0) continue;  // never mentioned
    while (!active.empty() && active.top().first < r.from) {
      int id = active.top().second, c = classOf(code.widths[(size_t)id]);
      spare[c].push_back(slot[(size_t)id]);
      live -= c == 0 ? 2 : 1;
      active.pop();
    }
    int c = classOf(code.widths[(size_t)r.id]);
    if (spare[c].empty()) {
      slot[(size_t)r.id] = counts[c]++;
    } else {
      slot[(size_t)r.id] = spare[c].back();
      spare[c].pop_back();
    }
    live += c == 0 ? 2 : 1;
    peak = std::max(peak, live);
    active.emplace(r.to, r.id);
  }
  int starts[3] = {0, counts[0] * 256, counts[0] * 256 + counts[1] * 128}, sizes[3] = {256, 128, 64};
  p.registerBytes = starts[2] + counts[2] * 64;
  p.estimatedRegisters = std::min(255, std::max(16, (peak + 4 + 7) / 8 * 8));
  p.predicateCount = code.predicates;
  auto encode = [&](const Ref& r) -> int32_t {
    if (r.predicate) return r.id << 1 | (r.negated ? 1 : 0);
    if (r.constant) return r.id | 1;
    int c = classOf(code.widths[(size_t)r.id]);
    return starts[c] + slot[(size_t)r.id] * sizes[c];
  };
  p.operands.reserve(code.refs.size());
  for (auto& r : code.refs) p.operands.push_back(encode(r));
  for (size_t i = 0; i < p.code.size(); i++) {
    int32_t g = encode(code.guards[i]);
    p.code[i].guard = (uint16_t)g;
  }
  if (code.predicates > 32767) throw PtxError(0, "kernel " + p.name + " has too many predicates");
  for (auto& s : code.specials) p.specials.push_back({s.first, encode(Ref{s.second, Ref::Use, false, false, false})});
}

}  // namespace emu
