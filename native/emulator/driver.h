// State behind the driver API. One lock serialises all calls; when work is done is told in driver_queue.cpp.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cuda_abi.h"
#include "execution.h"
#include "host_guard.h"
#include "work_order.h"

namespace emu {

struct Context {
  bool primary = false;
  int references = 0;
  unsigned flags = 0;
  int error = 0;  // once a kernel has failed, every call says so
  std::unordered_map<int, size_t> limits;
};

struct ModuleObject;
struct FunctionObject {
  std::shared_ptr<const Program> program;
  ModuleObject* module = nullptr;
  uint32_t maxDynamicShared = 48 * 1024;
};
struct ModuleObject {
  std::unordered_map<std::string, std::unique_ptr<FunctionObject>> functions;
  std::unordered_map<std::string, std::pair<uint64_t, size_t>> globals;
};

struct GraphObject;
struct Node;
/// A point in a stream: what an event stands for.
struct Mark {
  struct StreamObject* stream = nullptr;
  bool reached = false;
  int doubts = 0;  // queries that were answered "not ready" though it was reached
  VectorClock clock;  // what comes before it
};
/// What a stream still has to do.
struct Item {
  enum Kind { Work, Record, Wait } kind;
  std::shared_ptr<Node> node;
  std::shared_ptr<Mark> mark;  // to record, or to wait for
  Order order;  // of work
};
struct StreamObject {
  unsigned flags = 0;
  int priority = 0;
  uint64_t id = 0;
  GraphObject* capture = nullptr;  // records into this graph instead of working
  bool origin = false, invalidated = false;
  int mode = 0;  // 0 global, 1 of the thread, 2 relaxed
  std::thread::id captureThread;
  std::vector<struct Node*> tail;  // what the next recorded node depends on
  std::deque<Item> queue;
  uint32_t lane = 0;
  VectorClock clock;  // what comes before the work that is given next
  bool kernelAhead = false;  // the last thing given to it is a kernel, at this place
  Order ahead;
  int doubts = 0;
};
struct EventObject {
  unsigned flags = 0;
  bool recorded = false;
  std::shared_ptr<Mark> mark;  // where it was recorded last
  GraphObject* capture = nullptr;
  std::vector<struct Node*> tail;
};

struct KernelWork {
  FunctionObject* function = nullptr;
  unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, shared = 0;
  std::vector<uint8_t> parameters;
  // Attributes of the launch, which parameters that are set later leave alone.
  unsigned cluster[3] = {0, 0, 0};  // of blocks; 0: the launch did not say, and prepareLaunch decides
  bool cooperative = false, explicitCluster = false;
  bool programmatic = false;  // it may start before the kernel ahead of it has ended
};
struct Node {
  enum Kind : int {
    Kernel = 0,
    Memcpy = 1,
    Memset = 2,
    Host = 3,
    Graph = 4,
    Empty = 5,
    WaitEvent = 6,
    EventRecord = 7
  } kind = Empty;
  KernelWork kernel;
  std::vector<void*> parameterPointers;  // for cuGraphKernelNodeGetParams
  std::function<CUresult()> work;  // all but kernels
  std::string what;  // of all but kernels, for reports
  uint64_t pinned = 0, pinnedBytes = 0;  // host memory that a copy reads or writes when it is done
  bool writesPinned = false;
  CUDA_MEMSET_NODE_PARAMS memset{};
  std::vector<Node*> dependencies;
  GraphObject* graph = nullptr;
  Node* original = nullptr;  // in a copy: the node it was made from
};
struct GraphObject {
  std::vector<std::unique_ptr<Node>> nodes;
  bool capturing = false;
  std::shared_ptr<Mark> lastLaunch;
};

struct Settings {
  int major = 8, minor = 0, multiprocessors = 8, threads = 0;
  uint64_t seed = 0, delay = 0, instructionLimit = 1ull << 32, firstLevelCache = 0;
  bool strict = true, footprint = false, protect = true;
  int64_t failAllocation = 0, failLaunch = 0;  // count down; the one that reaches zero fails
  int failLaunchCode = 0, deviceLost = 0, driverVersion = 13000;
};

struct Driver {
  Driver();
  std::recursive_mutex mutex;
  bool initialised = false;
  Settings settings;
  Context primary;
  std::unordered_set<Context*> contexts;
  std::unordered_set<ModuleObject*> modules;
  std::unordered_set<FunctionObject*> functions;
  std::unordered_set<StreamObject*> streams;
  std::unordered_set<EventObject*> events;
  std::unordered_set<GraphObject*> graphs, executables;
  std::unordered_set<Node*> nodes;
  std::unordered_set<void*> pools;
  StreamObject defaultStream;
  WorkOrder order;
  uint64_t nextId = 1, delayState = 1;
  int capturesGlobal = 0;
  std::map<std::string, uint64_t> calls;  // of the API that need a context, by name

  StreamObject* stream(void* handle);
  size_t sharedOptIn() const;
  size_t sharedPerMultiprocessor() const;
};
Driver& driver();
std::vector<Context*>& contextStack();

/// A wrong call of the API, reported beside its error code.
CUresult refuse(CUresult code, const char* kind, const std::string& kernel, const std::string& message);

CUresult loadModule(const void* image, size_t size, ModuleObject** out, std::string& log);
CUresult prepareLaunch(FunctionObject* f, const unsigned* grid, const unsigned* block, unsigned shared, void** params,
                       void** extra, KernelWork& out);
/// Checks the clusters that a launch asks for, or those that its kernel was compiled for.
CUresult placeClusters(const FunctionObject& f, const unsigned* grid, KernelWork& work);
/// Every launch of a kernel; `work` has its attributes.
CUresult launch(void* function, const unsigned* grid, const unsigned* block, unsigned shared, void* stream,
                void** params, void** extra, KernelWork&& work);
CUresult runKernel(const KernelWork& k, const Order& order);
int occupancy(const FunctionObject& f, int threads, size_t dynamicShared);
// Work of streams, in the order that the settings choose: see driver_queue.cpp.
CUresult submit(Driver& d, StreamObject& s, Node&& node);
CUresult submit(Driver& d, StreamObject& s, GraphObject& executable);
std::shared_ptr<Mark> record(Driver& d, StreamObject& s, CUresult* result);
CUresult waitFor(Driver& d, StreamObject& s, const std::shared_ptr<Mark>& mark);
/// Does all work of a stream.
CUresult finish(Driver& d, StreamObject& s);
CUresult finishAll(Driver& d);
/// Work of the default stream that the host waits for: done now, after that of the streams that it waits for.
CUresult performNow(Driver& d, Node&& node, bool hostWaits);
// The host waits: the work is done, and comes before all that the host does from now on.
CUresult await(Driver& d, const std::shared_ptr<Mark>& mark);
CUresult await(Driver& d, StreamObject& s);
CUresult awaitAll(Driver& d);
CUresult query(Driver& d, StreamObject& s);
CUresult query(Driver& d, const std::shared_ptr<Mark>& mark);
std::vector<StreamObject*> allStreams(Driver& d);

/// Gives the work to the stream, or records it where the stream is being captured.
CUresult enqueue(void* stream, Node&& node);
CUresult runNode(Node& n, const Order& order);

// Every API function begins so.
#define ENTER()                                                                                                        \
  auto& d = ::emu::driver();                                                                                           \
  std::lock_guard lock(d.mutex);                                                                                       \
  if (!d.initialised) return CUDA_ERROR_NOT_INITIALIZED;                                                               \
  (void)d
#define ENTER_CONTEXT() ENTER_CONTEXT_OF(__func__)
#define ENTER_CONTEXT_OF(call)                                                                                         \
  ENTER();                                                                                                             \
  d.calls[call]++;                                                                                                     \
  if (::emu::contextStack().empty()) return CUDA_ERROR_INVALID_CONTEXT;                                                \
  if (d.settings.deviceLost) return d.settings.deviceLost;                                                             \
  ::emu::Context* context = ::emu::contextStack().back();                                                              \
  if (!d.contexts.count(context)) return CUDA_ERROR_INVALID_CONTEXT;                                                   \
  if (context->error) return context->error

}  // namespace emu
