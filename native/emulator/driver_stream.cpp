// Streams, events, capture, graphs.
#include <algorithm>

#include "driver.h"

using namespace emu;

// --- streams -----------------------------------------------------------------------------------------------------

CUDA_EXPORT CUresult cuStreamCreateWithPriority(void** out, unsigned flags, int priority) {
  ENTER_CONTEXT();
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  auto* s = new StreamObject;
  s->flags = flags;
  s->priority = std::clamp(priority, -5, 0);
  s->id = d.nextId++;
  s->lane = d.order.lane(d.order.host);
  d.streams.insert(s);
  *out = s;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuStreamCreate(void** out, unsigned flags) { return cuStreamCreateWithPriority(out, flags, 0); }
CUDA_EXPORT CUresult cuStreamDestroy_v2(void* handle) {
  ENTER();
  auto* s = (StreamObject*)handle;
  if (!d.streams.count(s)) return CUDA_ERROR_INVALID_HANDLE;
  CUresult r = finish(d, *s);
  d.streams.erase(s);
  d.order.release(s->lane);
  if (s->capture && s->origin) d.capturesGlobal--;
  delete s;
  return r;
}
/// A stream that can be waited for; a wait for one that is being captured ends the capture.
static CUresult waitable(Driver& d, void* handle, StreamObject** out) {
  StreamObject* s = *out = d.stream(handle);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (!s->capture) return CUDA_SUCCESS;
  s->invalidated = true;
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}
CUDA_EXPORT CUresult cuStreamSynchronize(void* handle) {
  ENTER_CONTEXT();
  StreamObject* s;
  if (CUresult r = waitable(d, handle, &s)) return r;
  return await(d, *s);
}
CUDA_EXPORT CUresult cuStreamQuery(void* handle) {
  ENTER_CONTEXT();
  StreamObject* s;
  if (CUresult r = waitable(d, handle, &s)) return r;
  return query(d, *s);
}
CUDA_EXPORT CUresult cuStreamGetPriority(void* handle, int* priority) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(handle);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  *priority = s->priority;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuStreamGetFlags(void* handle, unsigned* flags) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(handle);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  *flags = s->flags;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuStreamGetId(void* handle, unsigned long long* id) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(handle);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  *id = s->id;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuStreamGetCtx(void* handle, void** out) {
  ENTER_CONTEXT();
  if (!d.stream(handle)) return CUDA_ERROR_INVALID_HANDLE;
  *out = context;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuStreamAddCallback(void* stream, void (*fn)(void*, CUresult, void*), void* data, unsigned) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(stream);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (s->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  Node n;
  n.kind = Node::Host;
  n.what = "a host function";
  n.work = [=] { return fn(stream, CUDA_SUCCESS, data), CUDA_SUCCESS; };
  return submit(d, *s, std::move(n));
}

// --- events ------------------------------------------------------------------------------------------------------

CUDA_EXPORT CUresult cuEventCreate(void** out, unsigned flags) {
  ENTER_CONTEXT();
  auto* e = new EventObject;
  e->flags = flags;
  d.events.insert(e);
  *out = e;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuEventDestroy_v2(void* event) {
  ENTER();
  auto* e = (EventObject*)event;
  if (!d.events.erase(e)) return CUDA_ERROR_INVALID_HANDLE;
  delete e;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuEventRecordWithFlags(void* event, void* stream, unsigned) {
  ENTER_CONTEXT();
  auto* e = (EventObject*)event;
  StreamObject* s = d.stream(stream);
  if (!s || !d.events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  e->recorded = !s->capture;
  e->capture = s->capture;
  e->tail = s->capture ? s->tail : std::vector<Node*>{};
  CUresult r = CUDA_SUCCESS;
  e->mark = s->capture ? nullptr : record(d, *s, &r);
  return r;
}
CUDA_EXPORT CUresult cuEventRecord(void* event, void* stream) { return cuEventRecordWithFlags(event, stream, 0); }
/// An event that can be waited for.
static CUresult waitable(Driver& d, void* handle, EventObject** out) {
  EventObject* e = *out = (EventObject*)handle;
  if (!d.events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  bool captured = e->capture && d.graphs.count(e->capture) && e->capture->capturing;
  return captured ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuEventSynchronize(void* event) {
  ENTER_CONTEXT();
  EventObject* e;
  if (CUresult r = waitable(d, event, &e)) return r;
  return await(d, e->mark);
}
CUDA_EXPORT CUresult cuEventQuery(void* event) {
  ENTER_CONTEXT();
  EventObject* e;
  if (CUresult r = waitable(d, event, &e)) return r;
  return query(d, e->mark);
}
CUDA_EXPORT CUresult cuEventElapsedTime(float*, void* a, void* b) {
  ENTER_CONTEXT();
  if (!d.events.count((EventObject*)a) || !d.events.count((EventObject*)b)) return CUDA_ERROR_INVALID_HANDLE;
  return CUDA_ERROR_NOT_SUPPORTED;  // there is no time here, and none shall be mistaken for a GPU's
}
CUDA_EXPORT CUresult cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(stream);
  auto* e = (EventObject*)event;
  if (!s || !d.events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  if (!e->capture || !d.graphs.count(e->capture) || !e->capture->capturing) {
    if (!s->capture) return waitFor(d, *s, e->mark);
    return e->recorded ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
  }
  if (s == &d.defaultStream) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  if (s->capture && s->capture != e->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (!s->capture) {  // the stream joins the capture
    s->capture = e->capture;
    s->origin = false;
    s->invalidated = false;
    s->tail.clear();
  }
  for (Node* n : e->tail)
    if (std::find(s->tail.begin(), s->tail.end(), n) == s->tail.end()) s->tail.push_back(n);
  return CUDA_SUCCESS;
}

// --- capture -----------------------------------------------------------------------------------------------------

CUDA_EXPORT CUresult cuStreamBeginCapture_v2(void* handle, int mode) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(handle);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (s == &d.defaultStream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (s->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  auto* g = new GraphObject;
  g->capturing = true;
  d.graphs.insert(g);
  s->capture = g;
  s->origin = true;
  s->invalidated = false;
  s->mode = mode;
  s->captureThread = std::this_thread::get_id();
  s->tail.clear();
  d.capturesGlobal++;
  return CUDA_SUCCESS;
}
static void deleteGraph(Driver& d, GraphObject* g) {
  for (auto& n : g->nodes) d.nodes.erase(n.get());
  d.graphs.erase(g);
  d.executables.erase(g);
  delete g;
}
CUDA_EXPORT CUresult cuStreamEndCapture(void* handle, void** graph) {
  ENTER();
  StreamObject* s = d.stream(handle);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (graph) *graph = nullptr;
  if (!s->capture) return CUDA_ERROR_INVALID_VALUE;
  if (!s->origin) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  GraphObject* g = s->capture;
  // Everything that joined streams recorded must be an ancestor of what the origin saw last.
  std::unordered_set<Node*> seen(s->tail.begin(), s->tail.end());
  std::vector<Node*> work(s->tail);
  while (!work.empty()) {
    Node* n = work.back();
    work.pop_back();
    for (Node* x : n->dependencies)
      if (seen.insert(x).second) work.push_back(x);
  }
  bool unjoined = false, invalidated = s->invalidated;
  for (auto* t : d.streams) {
    if (t->capture != g) continue;
    invalidated |= t->invalidated;
    for (Node* n : t->tail) unjoined |= !seen.count(n);
    t->capture = nullptr;
    t->origin = t->invalidated = false;
    t->tail.clear();
  }
  d.capturesGlobal--;
  g->capturing = false;
  if (invalidated || unjoined) {
    deleteGraph(d, g);
    return invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  *graph = g;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuStreamIsCapturing(void* handle, int* status) {
  ENTER();
  StreamObject* s = d.stream(handle);
  if (!s || !status) return CUDA_ERROR_INVALID_HANDLE;
  *status = !s->capture ? 0 : s->invalidated ? 2 : 1;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuThreadExchangeStreamCaptureMode(int* mode) {
  static thread_local int current = 0;
  std::swap(*mode, current);
  return CUDA_SUCCESS;
}

// --- graphs ------------------------------------------------------------------------------------------------------

namespace {
GraphObject* copyOf(Driver& d, const GraphObject& g) {
  auto* c = new GraphObject;
  std::unordered_map<const Node*, Node*> made;
  for (auto& n : g.nodes) {
    auto m = std::make_unique<Node>(*n);
    m->graph = c;
    m->original = n.get();
    m->parameterPointers.clear();
    made[n.get()] = m.get();
    d.nodes.insert(m.get());
    c->nodes.push_back(std::move(m));
  }
  for (auto& n : c->nodes)
    for (auto& x : n->dependencies) x = made[x];
  return c;
}
/// Dependencies first, otherwise in the order of recording; false when they form a circle.
bool sortNodes(GraphObject& g) {
  std::vector<std::unique_ptr<Node>> sorted;
  std::unordered_set<Node*> done;
  while (sorted.size() < g.nodes.size()) {
    bool any = false;
    for (auto& n : g.nodes) {
      if (!n || !std::all_of(n->dependencies.begin(), n->dependencies.end(), [&](Node* x) { return done.count(x); }))
        continue;
      done.insert(n.get());
      sorted.push_back(std::move(n));
      any = true;
    }
    if (!any) return false;
  }
  g.nodes = std::move(sorted);
  return true;
}
CUresult addNode(void** out, void* graph, void* const* dependencies, size_t count, Node&& node) {
  Driver& d = driver();
  auto* g = (GraphObject*)graph;
  if (!d.graphs.count(g)) return CUDA_ERROR_INVALID_HANDLE;
  auto n = std::make_unique<Node>(std::move(node));
  n->graph = g;
  for (size_t i = 0; i < count; i++) {
    if (!d.nodes.count((Node*)dependencies[i])) return CUDA_ERROR_INVALID_VALUE;
    n->dependencies.push_back((Node*)dependencies[i]);
  }
  d.nodes.insert(n.get());
  *out = n.get();
  g->nodes.push_back(std::move(n));
  return CUDA_SUCCESS;
}
CUresult fillKernel(const CUDA_KERNEL_NODE_PARAMS_v2* p, KernelWork& k) {
  unsigned grid[] = {p->gridDimX, p->gridDimY, p->gridDimZ}, block[] = {p->blockDimX, p->blockDimY, p->blockDimZ};
  return prepareLaunch((FunctionObject*)p->func, grid, block, p->sharedMemBytes, p->kernelParams, p->extra, k);
}
/// Another kernel or other parameters, with the attributes that the node has.
CUresult setKernel(const CUDA_KERNEL_NODE_PARAMS_v2* p, KernelWork& k) {
  KernelWork changed = k;
  if (CUresult r = fillKernel(p, changed)) return r;
  k = std::move(changed);
  return CUDA_SUCCESS;
}
/// The node of an executable graph that was made from a graph's node.
Node* inExecutable(Driver& d, void* exec, void* node) {
  auto* g = (GraphObject*)exec;
  if (!d.executables.count(g)) return nullptr;
  for (auto& n : g->nodes)
    if (n->original == node || n.get() == node) return n.get();
  return nullptr;
}
}  // namespace

CUDA_EXPORT CUresult cuGraphCreate(void** out, unsigned) {
  ENTER_CONTEXT();
  auto* g = new GraphObject;
  d.graphs.insert(g);
  *out = g;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphDestroy(void* graph) {
  ENTER();
  if (!d.graphs.count((GraphObject*)graph)) return CUDA_ERROR_INVALID_HANDLE;
  deleteGraph(d, (GraphObject*)graph);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphClone(void** out, void* graph) {
  ENTER_CONTEXT();
  if (!d.graphs.count((GraphObject*)graph)) return CUDA_ERROR_INVALID_HANDLE;
  GraphObject* c = copyOf(d, *(GraphObject*)graph);
  d.graphs.insert(c);
  *out = c;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphInstantiateWithFlags(void** out, void* graph, unsigned long long) {
  ENTER_CONTEXT();
  if (!d.graphs.count((GraphObject*)graph)) return CUDA_ERROR_INVALID_HANDLE;
  GraphObject* c = copyOf(d, *(GraphObject*)graph);
  if (!sortNodes(*c)) {
    deleteGraph(d, c);
    return CUDA_ERROR_INVALID_VALUE;
  }
  d.executables.insert(c);
  *out = c;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphInstantiate_v2(void** out, void* graph, void*, char* log, size_t size) {
  if (log && size) *log = 0;
  return cuGraphInstantiateWithFlags(out, graph, 0);
}
CUDA_EXPORT CUresult cuGraphExecDestroy(void* exec) {
  ENTER();
  if (!d.executables.count((GraphObject*)exec)) return CUDA_ERROR_INVALID_HANDLE;
  deleteGraph(d, (GraphObject*)exec);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphUpload(void* exec, void*) {
  ENTER_CONTEXT();
  return d.executables.count((GraphObject*)exec) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUDA_EXPORT CUresult cuGraphLaunch(void* exec, void* stream) {
  ENTER_CONTEXT();
  auto* g = (GraphObject*)exec;
  if (!d.executables.count(g)) return CUDA_ERROR_INVALID_HANDLE;
  StreamObject* s = d.stream(stream);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (s->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return submit(d, *s, *g);
}
CUDA_EXPORT CUresult cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
  ENTER();
  auto* g = (GraphObject*)graph;
  if (!d.graphs.count(g)) return CUDA_ERROR_INVALID_HANDLE;
  size_t n = g->nodes.size();
  if (nodes)
    for (size_t i = 0; i < *count; i++) nodes[i] = i < n ? g->nodes[i].get() : nullptr;
  *count = nodes ? std::min(n, *count) : n;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphGetRootNodes(void* graph, void** nodes, size_t* count) {
  ENTER();
  auto* g = (GraphObject*)graph;
  if (!d.graphs.count(g)) return CUDA_ERROR_INVALID_HANDLE;
  size_t n = 0;
  for (auto& x : g->nodes)
    if (x->dependencies.empty()) {
      if (nodes && n < *count) nodes[n] = x.get();
      n++;
    }
  *count = n;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphGetEdges(void* graph, void** from, void** to, size_t* count) {
  ENTER();
  auto* g = (GraphObject*)graph;
  if (!d.graphs.count(g)) return CUDA_ERROR_INVALID_HANDLE;
  size_t n = 0;
  for (auto& x : g->nodes)
    for (Node* y : x->dependencies) {
      if (from && to && n < *count) from[n] = y, to[n] = x.get();
      n++;
    }
  *count = n;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphNodeGetType(void* node, int* type) {
  ENTER();
  if (!d.nodes.count((Node*)node)) return CUDA_ERROR_INVALID_HANDLE;
  *type = ((Node*)node)->kind;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphNodeGetDependencies(void* node, void** out, size_t* count) {
  ENTER();
  auto* n = (Node*)node;
  if (!d.nodes.count(n)) return CUDA_ERROR_INVALID_HANDLE;
  if (out)
    for (size_t i = 0; i < *count && i < n->dependencies.size(); i++) out[i] = n->dependencies[i];
  *count = n->dependencies.size();
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphNodeFindInClone(void** out, void* node, void* clone) {
  ENTER();
  auto* g = (GraphObject*)clone;
  if (!d.graphs.count(g)) return CUDA_ERROR_INVALID_HANDLE;
  for (auto& n : g->nodes)
    if (n->original == node) return *out = n.get(), CUDA_SUCCESS;
  return CUDA_ERROR_INVALID_VALUE;
}
CUDA_EXPORT CUresult cuGraphAddDependencies(void* graph, void* const* from, void* const* to, size_t count) {
  ENTER();
  if (!d.graphs.count((GraphObject*)graph)) return CUDA_ERROR_INVALID_HANDLE;
  for (size_t i = 0; i < count; i++) {
    if (!d.nodes.count((Node*)from[i]) || !d.nodes.count((Node*)to[i])) return CUDA_ERROR_INVALID_VALUE;
    ((Node*)to[i])->dependencies.push_back((Node*)from[i]);
  }
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphAddKernelNode_v2(void** out, void* graph, void* const* dependencies, size_t count,
                                             const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  ENTER_CONTEXT();
  Node n;
  n.kind = Node::Kernel;
  if (CUresult r = fillKernel(p, n.kernel)) return r;
  return addNode(out, graph, dependencies, count, std::move(n));
}
CUDA_EXPORT CUresult cuGraphAddEmptyNode(void** out, void* graph, void* const* dependencies, size_t count) {
  ENTER_CONTEXT();
  return addNode(out, graph, dependencies, count, Node{});
}
CUDA_EXPORT CUresult cuGraphAddHostNode(void** out, void* graph, void* const* dependencies, size_t count,
                                        const CUDA_HOST_NODE_PARAMS* p) {
  ENTER_CONTEXT();
  Node n;
  n.kind = Node::Host;
  n.what = "a host function";
  n.work = [f = *p] { return f.fn(f.userData), CUDA_SUCCESS; };
  return addNode(out, graph, dependencies, count, std::move(n));
}
CUDA_EXPORT CUresult cuGraphKernelNodeGetParams_v2(void* node, CUDA_KERNEL_NODE_PARAMS_v2* p) {
  ENTER();
  auto* n = (Node*)node;
  if (!d.nodes.count(n)) return CUDA_ERROR_INVALID_HANDLE;
  if (n->kind != Node::Kernel || !d.functions.count(n->kernel.function)) return CUDA_ERROR_INVALID_VALUE;
  n->parameterPointers.clear();
  for (auto& q : n->kernel.function->program->parameters)
    n->parameterPointers.push_back(n->kernel.parameters.data() + q.offset);
  *p = {n->kernel.function,
        n->kernel.grid[0],
        n->kernel.grid[1],
        n->kernel.grid[2],
        n->kernel.block[0],
        n->kernel.block[1],
        n->kernel.block[2],
        n->kernel.shared,
        n->parameterPointers.data(),
        nullptr,
        nullptr,
        nullptr};
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuGraphKernelNodeSetParams_v2(void* node, const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  ENTER_CONTEXT();
  auto* n = (Node*)node;
  if (!d.nodes.count(n)) return CUDA_ERROR_INVALID_HANDLE;
  return setKernel(p, n->kernel);
}
CUDA_EXPORT CUresult cuGraphExecKernelNodeSetParams_v2(void* exec, void* node, const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  ENTER_CONTEXT();
  Node* n = inExecutable(d, exec, node);
  if (!n || n->kind != Node::Kernel) return CUDA_ERROR_INVALID_VALUE;
  return setKernel(p, n->kernel);
}
CUDA_EXPORT CUresult cuGraphMemsetNodeGetParams(void* node, CUDA_MEMSET_NODE_PARAMS* p) {
  ENTER();
  auto* n = (Node*)node;
  if (!d.nodes.count(n) || n->kind != Node::Memset) return CUDA_ERROR_INVALID_HANDLE;
  *p = n->memset;
  return CUDA_SUCCESS;
}
