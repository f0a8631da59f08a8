// Instructions by which lanes of a warp talk to each other, and the small ones that have no other home.
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "async_proxy.h"
#include "instructions.h"
#include "lanes.h"

namespace emu {

namespace {

enum ShuffleMode { Up, Down, Butterfly, Index };
template <ShuffleMode Mode> void shuffle(Warp& w, const Op& op, const int32_t* o, uint32_t m) {
  const uint32_t *a = w.reg<uint32_t>(o[3]), *b = w.reg<uint32_t>(o[4]), *c = w.reg<uint32_t>(o[5]);
  alignas(64) uint32_t t[32];
  uint32_t valid = 0, absent = 0;
  EMU_LANES {
    uint32_t clamp = c[i] & 31, segment = c[i] >> 8 & 31, by = b[i] & 31;
    int most = (int)((i & segment) | (clamp & ~segment)), least = (int)(i & segment), j;
    bool p;
    if (Mode == Up) j = i - (int)by, p = j >= most;
    else if (Mode == Down) j = i + (int)by, p = j <= most;
    else if (Mode == Butterfly) j = i ^ (int)by, p = j <= most;
    else j = least | (int)(by & ~segment), p = j <= most;
    if (!p) j = i;
    t[i] = a[j & 31];
    valid |= (uint32_t)p << i;
    absent |= (uint32_t) !(m >> (j & 31) & 1) << i;
  }
  if (absent & m)
    report(w, op, firstLane(absent & m), false, "shuffle_from_absent_lane", "", 0, 0,
           "reads the value of a lane that does not take part in the shuffle");
  merge(w.reg<uint32_t>(o[1]), t, m);
  w.setPredicate(o[2], valid, m);
}

enum VoteMode { All, Any, Uniform, Ballot };
template <VoteMode Mode> void vote(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  uint32_t p = w.predicate(o[2]) & m;
  if constexpr (Mode == Ballot) {
    uint32_t* d = w.reg<uint32_t>(o[1]);
    EMU_LANES if (m >> i & 1) d[i] = p;
  } else {
    bool r = Mode == All ? p == m : Mode == Any ? p != 0 : p == m || p == 0;
    w.setPredicate(o[1], r ? ~0u : 0, m);
  }
}

enum ReduxOp { RAdd, RMin, RMax, RAnd, ROr, RXor };
template <class T, ReduxOp K> void redux(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  const T* a = w.reg<T>(o[2]);
  T r = a[firstLane(m)];
  for (uint32_t rest = m & (m - 1); rest; rest &= rest - 1) {
    T x = a[firstLane(rest)];
    r = K == RAdd   ? (T)((uint32_t)r + (uint32_t)x)
        : K == RMin ? std::min(r, x)
        : K == RMax ? std::max(r, x)
        : K == RAnd ? (T)(r & x)
        : K == ROr  ? (T)(r | x)
                    : (T)(r ^ x);
  }
  T* d = w.reg<T>(o[1]);
  EMU_LANES if (m >> i & 1) d[i] = r;
}

template <class T, bool AllMode> void match(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  const T* a = w.reg<T>(o[3]);
  uint32_t t[32] = {}, same = 0;
  EMU_LANES {
    if (!(m >> i & 1)) continue;
    for (int j = 0; j < 32; j++)
      if ((m >> j & 1) && a[j] == a[i]) t[i] |= 1u << j;
    if (AllMode) {
      same |= (uint32_t)(t[i] == m) << i;
      if (t[i] != m) t[i] = 0;
    }
  }
  merge(w.reg<uint32_t>(o[1]), t, m);
  if (AllMode) w.setPredicate(o[2], same, m);
}

void activeMask(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  uint32_t* d = w.reg<uint32_t>(o[0]);
  EMU_LANES if (m >> i & 1) d[i] = m;
}
void warpSync(Warp& w, const Op&, const int32_t*, uint32_t) { w.block->synchronise(w); }
/// immediate: 1 for the device; aux: 1 for the cluster, too
void fence(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  if (op.immediate) w.block->fenced = true;
  if (!op.aux || !w.block->launch->program->usesCluster) return;
  // What relaxed operations have seen is acquired, and they release from now on what came before.
  if (w.fenceAcquired.begun) w.learn(m, w.fenceAcquired);
  w.fenceAcquired = Knowledge{};
  release(w, m, w.fenceReleased, w.block->rank);
}
void launchDependents(Warp& w, const Op&, const int32_t*, uint32_t m) {
  if (std::exchange(w.block->triggered, true)) return;
  if (w.knownTo(firstLane(m)).awaited) w.block->launch->awaitedFirst = true;
}
void awaitDependencies(Warp& w, const Op&, const int32_t*, uint32_t m) {
  Knowledge what;
  what.awaited = true;
  w.learn(m, what);
  w.block->launch->awaited = true;
}
template <class T, int Shift> void clockRegister(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  T* d = w.reg<T>(o[0]);
  EMU_LANES if (m >> i & 1) d[i] = (T)(w.executed >> Shift);
}
[[noreturn]] void trap(Warp&, const Op&, const int32_t*, uint32_t m) {
  throw Fault{"trap", "the kernel executed trap", "", launchFailed, firstLane(m)};
}

/// Text in device memory, as far as it is readable.
std::string textAt(uint64_t address) {
  std::string s;
  if (Allocation* a = memory().find(address))
    for (; address < a->end() && *(const char*)address && s.size() < 1000; address++) s += *(const char*)address;
  return s;
}
[[noreturn]] void assertion(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  int lane = firstLane(m);
  throw Fault{"assert",
              "assertion failed: " + textAt(w.reg<uint64_t>(o[0])[lane]) + " at " +
                  textAt(w.reg<uint64_t>(o[1])[lane]) + ":" + std::to_string(w.reg<uint32_t>(o[2])[lane]) + " in " +
                  textAt(w.reg<uint64_t>(o[3])[lane]),
              "", assertFailed, lane};
}

void print(Warp& w, const Op&, const int32_t* o, uint32_t m) {
  for (uint32_t rest = m; rest; rest &= rest - 1) {
    int lane = firstLane(rest);
    std::string format = textAt(w.reg<uint64_t>(o[1])[lane]), out;
    uint64_t at = w.reg<uint64_t>(o[2])[lane];
    uint64_t offset = at - localWindow;
    size_t perLane = w.block->launch->program->localBytes;
    const uint8_t* arguments = offset < perLane ? w.local.data() + lane * perLane + offset : nullptr;
    size_t used = 0, room = arguments ? perLane - offset : 0;
    auto take = [&](size_t n) {
      uint64_t v = 0;
      used = (used + n - 1) / n * n;
      if (used + n <= room) memcpy(&v, arguments + used, n);
      used += n;
      return v;
    };
    for (size_t k = 0; k < format.size(); k++) {
      if (format[k] != '%') {
        out += format[k];
        continue;
      }
      std::string spec = "%";
      bool longs = false;
      char b[256] = "";
      for (k++; k < format.size(); k++) {
        char c = format[k];
        if (c == 'l' || c == 'z') {
          longs = true;
          continue;
        }
        if (c == 'h') continue;
        if (strchr("diouxXc", c)) {
          uint64_t v = take(longs ? 8 : 4);
          spec += c == 'c' ? "c" : std::string("ll") + c;
          if (c == 'c') snprintf(b, sizeof b, spec.c_str(), (int)v);
          else
            snprintf(b, sizeof b, spec.c_str(),
                     longs             ? (long long)v
                     : strchr("di", c) ? (long long)(int32_t)v
                                       : (long long)v);
        } else if (strchr("fFeEgGaA", c)) {
          spec += c;
          snprintf(b, sizeof b, spec.c_str(), bitsAs<double>(take(8)));
        } else if (c == 's') {
          out += textAt(take(8));
        } else if (c == 'p') {
          snprintf(b, sizeof b, "0x%" PRIx64, take(8));
        } else if (c == '%') {
          out += '%';
        } else {
          spec += c;
          continue;
        }
        break;
      }
      out += b;
    }
    fputs(out.c_str(), stdout);
    w.reg<uint32_t>(o[0])[lane] = (uint32_t)used;
  }
  fflush(stdout);
}

void written(Warp& w, const Op& op, const int32_t*, uint32_t m) { w.tracked[op.immediate] |= m; }
void checkWritten(Warp& w, const Op& op, const int32_t*, uint32_t m) {
  uint32_t missing = m & ~w.tracked[op.immediate];
  if (!missing) return;
  report(w, op, firstLane(missing), op.aux & 1, "uninitialised_register", "", 0, 0,
         "reads a register that this thread has never written");
  w.tracked[op.immediate] |= missing;
}

}  // namespace

Handler shuffleHandler(const std::string& mode) {
  return mode == "up"     ? shuffle<Up>
         : mode == "down" ? shuffle<Down>
         : mode == "bfly" ? shuffle<Butterfly>
         : mode == "idx"  ? shuffle<Index>
                          : nullptr;
}
Handler voteHandler(const std::string& mode) {
  return mode == "all"      ? vote<All>
         : mode == "any"    ? vote<Any>
         : mode == "uni"    ? vote<Uniform>
         : mode == "ballot" ? vote<Ballot>
                            : nullptr;
}
Handler reduxHandler(const std::string& op, Type type) {
  bool s = type == Type::S32;
  if (op == "add") return redux<uint32_t, RAdd>;
  if (op == "min") return s ? redux<int32_t, RMin> : redux<uint32_t, RMin>;
  if (op == "max") return s ? redux<int32_t, RMax> : redux<uint32_t, RMax>;
  if (op == "and") return redux<uint32_t, RAnd>;
  if (op == "or") return redux<uint32_t, ROr>;
  if (op == "xor") return redux<uint32_t, RXor>;
  return nullptr;
}
Handler matchHandler(const std::string& mode, int width) {
  if (mode == "all") return width == 4 ? match<uint32_t, true> : match<uint64_t, true>;
  if (mode == "any") return width == 4 ? match<uint32_t, false> : match<uint64_t, false>;
  return nullptr;
}
Handler activeMaskHandler() { return activeMask; }
Handler warpSyncHandler() { return warpSync; }
Handler fenceHandler() { return fence; }
Handler launchDependentsHandler() { return launchDependents; }
Handler awaitDependenciesHandler() { return awaitDependencies; }
Handler clockHandler(int width) { return width == 8 ? clockRegister<uint64_t, 0> : clockRegister<uint32_t, 0>; }
Handler trapHandler() { return trap; }
Handler assertHandler() { return assertion; }
Handler printHandler() { return print; }
Handler writtenHandler() { return written; }
Handler checkWrittenHandler() { return checkWritten; }

}  // namespace emu
