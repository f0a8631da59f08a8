// When the work of streams is done. A device of its own would do it at some time after it was given: any order that
// streams and events allow is right, and a program must give the same results in all of them.
//
// Settings::delay chooses one: 0 does work when it is given; 1 leaves it until a synchronisation needs it, and then does
// that stream's, and what it waits for, and no more; other numbers are seeds of interleavings. So a wait that a program
// forgot shows: what should have been waited for has not been done. Whenever it is done, the order of the work is fixed when it is
// given (work_order.h), and so a forgotten wait is found whatever the setting.
#include <algorithm>

#include "driver.h"

namespace emu {

namespace {

uint64_t draw(Driver& d) {  // xorshift64*
  uint64_t& x = d.delayState;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  return x * 0x2545f4914f6cdd1dull;
}

bool waits(const Item& item) { return item.kind == Item::Wait && !item.mark->reached; }
bool blocking(const StreamObject& s) { return !(s.flags & 1); }

/// After a failure nothing that was given is done any more.
void giveUp(Driver& d) {
  for (auto* s : allStreams(d)) {
    for (auto& item : s->queue)
      if (item.mark) item.mark->reached = true;
    s->queue.clear();
  }
  hostGuard().clear();
}

/// Does a stream's next piece of work, which must not wait.
CUresult doNext(Driver& d, StreamObject& s) {
  Item item = std::move(s.queue.front());
  s.queue.pop_front();
  if (item.kind == Item::Record) item.mark->reached = true;
  CUresult r = item.kind == Item::Work ? runNode(*item.node, item.order) : CUDA_SUCCESS;
  if (r) giveUp(d);
  return r;
}

/// One piece of work nearer to a point, on its stream or on one that that waits for.
CUresult advance(Driver& d, const Mark& mark) {
  StreamObject* s = mark.stream;
  while (waits(s->queue.front())) s = s->queue.front().mark->stream;
  return doNext(d, *s);
}

CUresult reach(Driver& d, const std::shared_ptr<Mark>& mark) {
  while (mark && !mark->reached)
    if (CUresult r = advance(d, *mark)) return r;
  return CUDA_SUCCESS;
}

/// The streams that the default stream waits for, and it.
CUresult finishBlocking(Driver& d) {
  for (auto* s : allStreams(d))
    if (blocking(*s))
      if (CUresult r = finish(d, *s)) return r;
  return CUDA_SUCCESS;
}

/// What comes before the work that a stream is given now, beside the stream's own.
VectorClock beside(Driver& d, StreamObject& s) {
  VectorClock clock = d.order.host;
  if (&s == &d.defaultStream) {
    for (auto* t : allStreams(d))
      if (t != &s && blocking(*t)) clock.join(t->clock);
  } else if (blocking(s)) {
    clock.join(d.defaultStream.clock);
  }
  return clock;
}
VectorClock& arrive(Driver& d, StreamObject& s) {
  s.clock.join(beside(d, s));
  return s.clock;
}

/// A kernel that may start before the one ahead has ended.
bool early(const Node& node) { return node.kind == Node::Kernel && node.kernel.programmatic; }
/// Its place after all that the clock knows, in a lane of its own, so that who knows one of the two need not know the other.
Order placeEarly(Driver& d, uint64_t stream, VectorClock& clock, const Order& ahead, const VectorClock& base) {
  Order order = d.order.next(d.order.lane(base), stream, clock);
  order.early = true;
  order.aheadLane = ahead.lane;
  order.aheadTime = ahead.time;
  order.base = base;
  return order;
}

/// The host has waited for what the clock knows.
void hostKnows(Driver& d, const VectorClock& clock) {
  d.order.host.join(clock);
  hostGuard().release(d.order.host);
  std::vector<const VectorClock*> later{&d.order.host};
  for (auto* s : allStreams(d))
    for (auto& item : s->queue)
      if (item.kind == Item::Work) later.push_back(item.order.early ? &item.order.base : &item.order.before);
  d.order.forget(later);
}

/// Whether to say "not ready" though all is done, as a device may that did it just now: some times at most, and never of
/// what the host has waited for.
bool hesitates(Driver& d, const VectorClock& clock, int& doubts) {
  constexpr int most = 3;
  if (d.settings.delay <= 1 || doubts >= most || d.order.host.knows(clock) || draw(d) % 2) return false;
  doubts++;
  return true;
}

CUresult submit(Driver& d, StreamObject& s, Item&& item) {
  if (item.kind == Item::Work && item.node->pinnedBytes && d.settings.protect)
    hostGuard().protect(item.node->pinned, item.node->pinnedBytes, item.node->writesPinned, item.order,
                        item.node->what);
  s.doubts = 0;
  if (!d.settings.delay) {
    s.queue.push_back(std::move(item));
    return doNext(d, s);
  }
  if (&s == &d.defaultStream) {  // all blocking streams before it; those after it wait for it
    if (CUresult r = finishBlocking(d)) return r;
    s.queue.push_back(std::move(item));
    return finish(d, s);
  }
  s.queue.push_back(std::move(item));
  if (d.settings.delay == 1) return CUDA_SUCCESS;
  while (draw(d) % 4 != 0) {
    std::vector<StreamObject*> ready;
    for (auto* t : allStreams(d))
      if (!t->queue.empty() && !waits(t->queue.front())) ready.push_back(t);
    if (ready.empty()) break;
    if (CUresult r = doNext(d, *ready[draw(d) % ready.size()])) return r;
  }
  return CUDA_SUCCESS;
}

}  // namespace

std::vector<StreamObject*> allStreams(Driver& d) {
  std::vector<StreamObject*> all(d.streams.begin(), d.streams.end());
  all.push_back(&d.defaultStream);
  std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->id < b->id; });  // so that a seed repeats a run
  return all;
}

CUresult finish(Driver& d, StreamObject& s) {
  while (!s.queue.empty()) {
    if (waits(s.queue.front()))
      if (CUresult r = reach(d, s.queue.front().mark)) return r;
    if (s.queue.empty()) break;
    if (CUresult r = doNext(d, s)) return r;
  }
  return CUDA_SUCCESS;
}

CUresult finishAll(Driver& d) {
  for (auto* s : allStreams(d))
    if (CUresult r = finish(d, *s)) return r;
  return CUDA_SUCCESS;
}

CUresult performNow(Driver& d, Node&& node, bool hostWaits) {
  StreamObject& s = d.defaultStream;
  if (CUresult r = finishBlocking(d)) return r;
  Order order = d.order.next(s.lane, s.id, arrive(d, s));
  CUresult r = runNode(node, order);
  if (hostWaits) hostKnows(d, s.clock);
  return r;
}

CUresult await(Driver& d, const std::shared_ptr<Mark>& mark) {
  if (!mark) return CUDA_SUCCESS;
  CUresult r = reach(d, mark);
  hostKnows(d, mark->clock);
  return r;
}

CUresult await(Driver& d, StreamObject& s) {
  CUresult r = finish(d, s);
  hostKnows(d, s.clock);
  return r;
}

CUresult awaitAll(Driver& d) {
  CUresult r = finishAll(d);
  for (auto* s : allStreams(d)) d.order.host.join(s->clock);
  hostKnows(d, d.order.host);
  return r;
}

CUresult query(Driver& d, StreamObject& s) {
  if (!s.queue.empty()) {
    // A host that asks again and again gets its answer at some time.
    CUresult r = waits(s.queue.front()) ? advance(d, *s.queue.front().mark) : doNext(d, s);
    if (r) return r;
  }
  if (!s.queue.empty() || hesitates(d, s.clock, s.doubts)) return CUDA_ERROR_NOT_READY;
  hostKnows(d, s.clock);
  return CUDA_SUCCESS;
}

CUresult query(Driver& d, const std::shared_ptr<Mark>& mark) {
  if (!mark) return CUDA_SUCCESS;
  if (!mark->reached)
    if (CUresult r = advance(d, *mark)) return r;
  if (!mark->reached || hesitates(d, mark->clock, mark->doubts)) return CUDA_ERROR_NOT_READY;
  hostKnows(d, mark->clock);
  return CUDA_SUCCESS;
}

CUresult submit(Driver& d, StreamObject& s, Node&& node) {
  const VectorClock base = beside(d, s);
  VectorClock& clock = arrive(d, s);
  Order order =
      s.kernelAhead && early(node) ? placeEarly(d, s.id, clock, s.ahead, base) : d.order.next(s.lane, s.id, clock);
  if (order.early) d.order.release(order.lane);
  const bool kernel = node.kind == Node::Kernel;
  s.ahead = order;
  CUresult r = submit(d, s, Item{Item::Work, std::make_unique<Node>(std::move(node)), nullptr, std::move(order)});
  s.kernelAhead = kernel;
  return r;
}

std::shared_ptr<Mark> record(Driver& d, StreamObject& s, CUresult* result) {
  auto mark = std::make_shared<Mark>();
  mark->stream = &s;
  mark->clock = arrive(d, s);
  *result = submit(d, s, Item{Item::Record, nullptr, mark, {}});
  return mark;
}

CUresult waitFor(Driver& d, StreamObject& s, const std::shared_ptr<Mark>& mark) {
  if (!mark) return CUDA_SUCCESS;
  s.clock.join(mark->clock);
  s.kernelAhead = false;
  if (mark->reached) return CUDA_SUCCESS;
  return submit(d, s, Item{Item::Wait, nullptr, mark, {}});
}

CUresult submit(Driver& d, StreamObject& s, GraphObject& g) {
  s.kernelAhead = false;
  // A graph does not run beside itself.
  if (CUresult r = waitFor(d, s, g.lastLaunch)) return r;
  const VectorClock start = arrive(d, s);
  std::unordered_map<Node*, size_t> open;
  std::unordered_map<Node*, Order> orders;
  std::unordered_map<uint32_t, Node*> lanes;  // each with its last node
  std::vector<Node*> ready;
  for (auto& n : g.nodes) {
    open[n.get()] = n->dependencies.size();
    if (n->dependencies.empty()) ready.push_back(n.get());
  }
  while (!ready.empty()) {  // any order that dependencies allow
    size_t at = d.settings.delay <= 1 ? 0 : draw(d) % ready.size();
    Node* next = ready[at];
    ready.erase(ready.begin() + (long)at);
    // A node goes on where one that it depends on stands, or in a lane of its own.
    VectorClock clock = start;
    uint32_t lane = s.lane;
    bool follows = !lanes.count(lane) && next->dependencies.empty();
    for (Node* x : next->dependencies) {
      const Order& o = orders[x];
      clock.join(o.before);
      clock.set(o.lane, std::max(clock.at(o.lane), o.time));
      if (!follows && lanes[o.lane] == x) lane = o.lane, follows = true;
    }
    if (early(*next) && next->dependencies.size() == 1 && next->dependencies[0]->kind == Node::Kernel) {
      orders[next] = placeEarly(d, s.id, clock, orders[next->dependencies[0]], start);
    } else {
      if (!follows) lane = d.order.lane(clock);
      orders[next] = d.order.next(lane, s.id, clock);
    }
    lanes[orders[next].lane] = next;
    s.clock.join(clock);
    Node copy;
    copy.kind = next->kind;
    copy.kernel = next->kernel;
    copy.work = next->work;
    copy.what = next->what;
    copy.pinned = next->pinned;
    copy.pinnedBytes = next->pinnedBytes;
    copy.writesPinned = next->writesPinned;
    if (CUresult r = submit(d, s, Item{Item::Work, std::make_unique<Node>(std::move(copy)), nullptr, orders[next]}))
      return r;
    for (auto& n : g.nodes)
      for (Node* x : n->dependencies)
        if (x == next && --open[n.get()] == 0) ready.push_back(n.get());
  }
  for (auto& [lane, last] : lanes)
    if (lane != s.lane) d.order.release(lane);
  CUresult result;
  g.lastLaunch = record(d, s, &result);
  return result;
}

}  // namespace emu
