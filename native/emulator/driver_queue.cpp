// When the work of streams is done. A device of its own would do it at some time after it was given: any order that
// streams and events allow is right, and a program must give the same results in all of them.
//
// Settings::delay chooses one: 0 does work when it is given; 1 leaves it until a synchronisation needs it, and then does
// that stream's, and what it waits for, and no more; other numbers are seeds of interleavings. So a wait that a program
// forgot shows: what should have been waited for has not been done.
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

/// After a failure nothing that was given is done any more.
void giveUp(Driver& d) {
  for (auto* s : allStreams(d)) {
    for (auto& item : s->queue)
      if (item.mark) item.mark->reached = true;
    s->queue.clear();
  }
}

/// Does a stream's next piece of work, which must not wait.
CUresult doNext(Driver& d, StreamObject& s) {
  Item item = std::move(s.queue.front());
  s.queue.pop_front();
  if (item.kind == Item::Record) item.mark->reached = true;
  CUresult r = item.kind == Item::Work ? runNode(*item.node) : CUDA_SUCCESS;
  if (r) giveUp(d);
  return r;
}

/// One piece of work nearer to a point, on its stream or on one that that waits for.
CUresult advance(Driver& d, const Mark& mark) {
  StreamObject* s = mark.stream;
  while (waits(s->queue.front())) s = s->queue.front().mark->stream;
  return doNext(d, *s);
}

}  // namespace

std::vector<StreamObject*> allStreams(Driver& d) {
  std::vector<StreamObject*> all(d.streams.begin(), d.streams.end());
  all.push_back(&d.defaultStream);
  std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->id < b->id; });  // so that a seed repeats a run
  return all;
}

CUresult reach(Driver& d, const std::shared_ptr<Mark>& mark) {
  while (mark && !mark->reached)
    if (CUresult r = advance(d, *mark)) return r;
  return CUDA_SUCCESS;
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

CUresult finishBlocking(Driver& d) {
  for (auto* s : allStreams(d))
    if (!(s->flags & 1))
      if (CUresult r = finish(d, *s)) return r;
  return CUDA_SUCCESS;
}

CUresult query(Driver& d, StreamObject& s) {
  if (s.queue.empty()) return CUDA_SUCCESS;
  // A host that asks again and again gets its answer at some time.
  CUresult r = waits(s.queue.front()) ? advance(d, *s.queue.front().mark) : doNext(d, s);
  if (r) return r;
  return s.queue.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult query(Driver& d, const std::shared_ptr<Mark>& mark) {
  if (!mark || mark->reached) return CUDA_SUCCESS;
  if (CUresult r = advance(d, *mark)) return r;
  return mark->reached ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult submit(Driver& d, StreamObject& s, Item&& item) {
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

CUresult submit(Driver& d, StreamObject& s, Node&& node) {
  if (!d.settings.delay) return runNode(node);
  return submit(d, s, Item{Item::Work, std::make_unique<Node>(std::move(node)), nullptr});
}

std::shared_ptr<Mark> record(Driver& d, StreamObject& s, CUresult* result) {
  auto mark = std::make_shared<Mark>();
  mark->stream = &s;
  *result = submit(d, s, Item{Item::Record, nullptr, mark});
  return mark;
}

CUresult waitFor(Driver& d, StreamObject& s, const std::shared_ptr<Mark>& mark) {
  if (!mark || mark->reached) return CUDA_SUCCESS;
  return submit(d, s, Item{Item::Wait, nullptr, mark});
}

CUresult submit(Driver& d, StreamObject& s, GraphObject& g) {
  if (!d.settings.delay) {
    for (auto& n : g.nodes)
      if (CUresult r = runNode(*n)) return r;
    return CUDA_SUCCESS;
  }
  // A graph does not run beside itself.
  if (CUresult r = waitFor(d, s, g.lastLaunch)) return r;
  std::unordered_map<Node*, size_t> open;
  std::vector<Node*> ready;
  for (auto& n : g.nodes) {
    open[n.get()] = n->dependencies.size();
    if (n->dependencies.empty()) ready.push_back(n.get());
  }
  while (!ready.empty()) {  // any order that dependencies allow
    size_t at = d.settings.delay == 1 ? 0 : draw(d) % ready.size();
    Node* next = ready[at];
    ready.erase(ready.begin() + (long)at);
    Node copy;
    copy.kind = next->kind;
    copy.kernel = next->kernel;
    copy.work = next->work;
    if (CUresult r = submit(d, s, std::move(copy))) return r;
    for (auto& n : g.nodes)
      for (Node* x : n->dependencies)
        if (x == next && --open[n.get()] == 0) ready.push_back(n.get());
  }
  CUresult result;
  g.lastLaunch = record(d, s, &result);
  return result;
}

}  // namespace emu
