// The driver API: what backends rely on, error paths included.
#include <dlfcn.h>

#include <fstream>
#include <sstream>

#include "../emulator/cuda_abi.h"
#include "harness.h"

extern "C" {
int cuDeviceGetCount(int*);
int cuDeviceGet(int*, int);
int cuDeviceGetName(char*, int, int);
int cuDeviceGetAttribute(int*, int, int);
int cuDeviceTotalMem_v2(size_t*, int);
int cuMemGetInfo_v2(size_t*, size_t*);
int cuGetErrorName(int, const char**);
int cuGetErrorString(int, const char**);
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuStreamSynchronize(void*);
int cuStreamBeginCapture_v2(void*, int);
int cuStreamEndCapture(void*, void**);
int cuStreamIsCapturing(void*, int*);
int cuStreamWaitEvent(void*, void*, unsigned);
int cuEventCreate(void**, unsigned);
int cuEventRecord(void*, void*);
int cuEventQuery(void*);
int cuEventElapsedTime(float*, void*, void*);
int cuEventDestroy_v2(void*);
int cuGraphInstantiateWithFlags(void**, void*, unsigned long long);
int cuGraphLaunch(void*, void*);
int cuGraphGetNodes(void*, void**, size_t*);
int cuGraphNodeGetType(void*, int*);
int cuGraphGetEdges(void*, void**, void**, size_t*);
int cuGraphKernelNodeGetParams_v2(void*, CUDA_KERNEL_NODE_PARAMS_v2*);
int cuGraphExecKernelNodeSetParams_v2(void*, void*, const CUDA_KERNEL_NODE_PARAMS_v2*);
int cuGraphExecDestroy(void*);
int cuGraphDestroy(void*);
int cuMemsetD32Async(uint64_t, unsigned, size_t, void*);
int cuMemsetD16_v2(uint64_t, unsigned short, size_t);
int cuMemcpyHtoDAsync_v2(uint64_t, const void*, size_t, void*);
int cuMemcpyDtoDAsync_v2(uint64_t, uint64_t, size_t, void*);
int cuMemcpyDtoHAsync_v2(void*, uint64_t, size_t, void*);
int cuMemAllocAsync(uint64_t*, size_t, void*);
int cuMemFreeAsync(uint64_t, void*);
int cuMemPoolCreate(void**, const void*);
int cuMemPoolDestroy(void*);
int cuMemAllocFromPoolAsync(uint64_t*, size_t, void*, void*);
int cuMemHostAlloc(void**, size_t, unsigned);
int cuMemFreeHost(void*);
int cuMemHostRegister_v2(void*, size_t, unsigned);
int cuMemHostUnregister(void*);
int cuMemHostGetDevicePointer_v2(uint64_t*, void*, unsigned);
int cuPointerGetAttribute(void*, int, uint64_t);
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int*, void*, int, size_t);
int cuCtxGetCurrent(void**);
int cuCtxGetLimit(size_t*, int);
int cuCtxSetLimit(int, size_t);
int cuModuleLoad(void**, const char*);
int cuArrayDestroy(void*);
}

namespace {
const char* const increment =
    ".visible .entry k(.param .u64 p, .param .u32 by) {.reg .u32 x, y, t; .reg .u64 a; mov.u32 t, %tid.x; ld.param.u64 "
    "a, [p]; mad.wide.u32 a, t, 4, a; ld.global.u32 x, [a]; ld.param.u32 y, [by]; add.u32 x, x, y; st.global.u32 [a], "
    "x; ret;}\n";
std::vector<uint32_t> filled(uint32_t v) { return std::vector<uint32_t>(32, v); }
}  // namespace

TEST(driver_has_all_that_jcuda_imports) {
  std::ifstream list(JCUDA_IMPORTS);
  CHECK(list.good());
  std::string name;
  int n = 0;
  for (; std::getline(list, name); n++) {
    checks++;
    if (!dlsym(RTLD_DEFAULT, name.c_str())) fail(__FILE__, __LINE__, name + " is missing");
  }
  CHECK_EQUAL(n, 312);
  CHECK_EQUAL(cuArrayDestroy(nullptr), 801);
}

TEST(driver_device) {
  int n, device, v;
  char name[100];
  CHECK_EQUAL(cuDeviceGetCount(&n), 0);
  CHECK_EQUAL(n, 1);
  CHECK_EQUAL(cuDeviceGet(&device, 0), 0);
  CHECK_EQUAL(cuDeviceGet(&device, 1), 101);
  CHECK_EQUAL(cuDeviceGetName(name, 100, 0), 0);
  CHECK(std::string(name).find("no GPU") != std::string::npos);
  struct {
    int attribute, value;
  } attributes[] = {{1, 1024}, {10, 32}, {75, 8}, {76, 0}, {97, 163 * 1024}, {13, 0}};
  for (auto& a : attributes) {
    CHECK_EQUAL(cuDeviceGetAttribute(&v, a.attribute, 0), 0);
    CHECK_EQUAL(v, a.value);
  }
  const char* s;
  CHECK_EQUAL(cuGetErrorName(700, &s), 0);
  CHECK(!strcmp(s, "CUDA_ERROR_ILLEGAL_ADDRESS"));
  CHECK_EQUAL(cuGetErrorString(2, &s), 0);
  CHECK(!strcmp(s, "out of memory"));
  CHECK_EQUAL(cuGetErrorName(12345, &s), 1);
  size_t limit;
  CHECK_EQUAL(cuCtxSetLimit(0, 4096), 0);
  CHECK_EQUAL(cuCtxGetLimit(&limit, 0), 0);
  CHECK_EQUAL(limit, 4096u);
}

TEST(driver_needs_a_context) {
  void *context, *none = nullptr;
  uint64_t p;
  CHECK_EQUAL(cuCtxGetCurrent(&context), 0);
  CHECK_EQUAL(cuCtxSetCurrent(none), 0);
  CHECK_EQUAL(cuMemAlloc_v2(&p, 4), 201);
  CHECK_EQUAL(cuCtxSetCurrent(context), 0);
  CHECK_EQUAL(cuCtxSetCurrent(&p), 201);
}

TEST(driver_memory) {
  size_t free1, free2, total;
  CHECK_EQUAL(cuMemGetInfo_v2(&free1, &total), 0);
  CHECK_EQUAL(total, 4ull << 30);
  uint64_t p = 0, q = 0;
  CHECK_EQUAL(cuMemAlloc_v2(&p, 0), 1);
  CHECK_EQUAL(cuMemAlloc_v2(&p, 1 << 20), 0);
  CHECK_EQUAL(p % 256, 0u);
  CHECK_EQUAL(cuMemGetInfo_v2(&free2, &total), 0);
  CHECK_EQUAL(free1 - free2, 1u << 20);
  CHECK_EQUAL(cuMemAlloc_v2(&q, 5ull << 30), 2);
  CHECK_EQUAL(cuMemFree_v2(p), 0);
  // Memory is limited, and comes back.
  jtreluEmulatorSetMemory(1 << 20);
  CHECK_EQUAL(cuMemAlloc_v2(&p, 800000), 0);
  CHECK_EQUAL(cuMemAlloc_v2(&q, 800000), 2);
  CHECK_EQUAL(cuMemFree_v2(p), 0);
  CHECK_EQUAL(cuMemAlloc_v2(&q, 800000), 0);
  CHECK_EQUAL(cuMemFree_v2(q), 0);
  jtreluEmulatorSetMemory(4ull << 30);
  // Asynchronous and pooled.
  void* pool;
  CHECK_EQUAL(cuMemPoolCreate(&pool, nullptr), 0);
  CHECK_EQUAL(cuMemAllocFromPoolAsync(&p, 100, pool, nullptr), 0);
  CHECK_EQUAL(cuMemAllocAsync(&q, 100, nullptr), 0);
  CHECK_EQUAL(cuMemFreeAsync(p, nullptr), 0);
  CHECK_EQUAL(cuMemFreeAsync(q, nullptr), 0);
  CHECK_EQUAL(cuMemPoolDestroy(pool), 0);
  CHECK_EQUAL(cuMemPoolDestroy(pool), 400);
  // Fills and copies.
  Buffer<uint16_t> h(10);
  CHECK_EQUAL(cuMemsetD16_v2(h.at, 0x1234, 10), 0);
  for (uint16_t v : h.get()) CHECK_EQUAL(v, 0x1234);
  CHECK_EQUAL(cuMemsetD16_v2(h.at, 0, 11), 1);
  jtreluEmulatorClear();
  // Pinned and registered host memory is the device's as well.
  Module m(increment);
  void* pinned;
  CHECK_EQUAL(cuMemHostAlloc(&pinned, 128, 0), 0);
  std::vector<uint32_t> plain(32, 5);
  for (int i = 0; i < 32; i++) ((uint32_t*)pinned)[i] = 5;
  CHECK_EQUAL(cuMemHostRegister_v2(plain.data(), 128, 0), 0);
  CHECK_EQUAL(cuMemHostRegister_v2(plain.data(), 128, 0), 712);
  for (void* host : {pinned, (void*)plain.data()}) {
    uint64_t device;
    unsigned type;
    CHECK_EQUAL(cuMemHostGetDevicePointer_v2(&device, host, 0), 0);
    CHECK_EQUAL(cuPointerGetAttribute(&type, 2, device), 0);
    CHECK_EQUAL(type, 1u);
    m.run("k", 1, 32, 0, device, (uint32_t)3);
    for (int i = 0; i < 32; i++) CHECK_EQUAL(((uint32_t*)host)[i], 8u);
  }
  CHECK_EQUAL(cuMemHostUnregister(plain.data()), 0);
  CHECK_EQUAL(cuMemHostUnregister(plain.data()), 713);
  CHECK_EQUAL(cuMemFreeHost(pinned), 0);
}

TEST(driver_streams_and_events) {
  void *s, *e, *f;
  float time;
  CHECK_EQUAL(cuStreamCreate(&s, 1), 0);
  CHECK_EQUAL(cuEventCreate(&e, 0), 0);
  CHECK_EQUAL(cuEventCreate(&f, 0), 0);
  CHECK_EQUAL(cuEventRecord(e, s), 0);
  CHECK_EQUAL(cuStreamWaitEvent(s, e, 0), 0);
  CHECK_EQUAL(cuEventQuery(e), 0);
  CHECK_EQUAL(cuEventElapsedTime(&time, e, f), 801);  // no time is ever reported
  CHECK_EQUAL(cuEventDestroy_v2(f), 0);
  CHECK_EQUAL(cuEventDestroy_v2(f), 400);
  CHECK_EQUAL(cuEventDestroy_v2(e), 0);
  CHECK_EQUAL(cuStreamDestroy_v2(s), 0);
  CHECK_EQUAL(cuStreamSynchronize(s), 400);
}

TEST(driver_capture_and_graphs) {
  Module m(increment);
  Buffer<uint32_t> a(filled(0)), b(filled(0));
  void *s, *side, *fork, *join, *graph, *exec;
  CHECK_EQUAL(cuStreamCreate(&s, 1), 0);
  CHECK_EQUAL(cuStreamCreate(&side, 1), 0);
  CHECK_EQUAL(cuEventCreate(&fork, 2), 0);
  CHECK_EQUAL(cuEventCreate(&join, 2), 0);
  uint64_t at = a.at;
  uint32_t by = 5;
  void* arguments[] = {&at, &by};
  auto launch = [&](void* stream) {
    return cuLaunchKernel(m.function("k"), 1, 1, 1, 32, 1, 1, 0, stream, arguments, nullptr);
  };
  int status;
  CHECK_EQUAL(cuStreamBeginCapture_v2(s, 0), 0);
  CHECK_EQUAL(cuStreamIsCapturing(s, &status), 0);
  CHECK_EQUAL(status, 1);
  CHECK_EQUAL(cuMemsetD32Async(a.at, 1, 32, s), 0);
  CHECK_EQUAL(cuEventRecord(fork, s), 0);
  CHECK_EQUAL(cuStreamWaitEvent(side, fork, 0), 0);
  CHECK_EQUAL(launch(s), 0);
  by = 100;
  at = b.at;
  CHECK_EQUAL(launch(side), 0);
  CHECK_EQUAL(cuEventRecord(join, side), 0);
  CHECK_EQUAL(cuStreamWaitEvent(s, join, 0), 0);
  by = 9999;  // arguments were taken when the launch was recorded
  CHECK_EQUAL(cuStreamEndCapture(s, &graph), 0);
  CHECK(a.get() == filled(0));  // nothing ran yet
  size_t n = 0;
  CHECK_EQUAL(cuGraphGetNodes(graph, nullptr, &n), 0);
  CHECK_EQUAL(n, 3u);
  void* nodes[3];
  CHECK_EQUAL(cuGraphGetNodes(graph, nodes, &n), 0);
  int types[3];
  for (int i = 0; i < 3; i++) CHECK_EQUAL(cuGraphNodeGetType(nodes[i], &types[i]), 0);
  CHECK(types[0] == 2 && types[1] == 0 && types[2] == 0);
  CHECK_EQUAL(cuGraphGetEdges(graph, nullptr, nullptr, &n), 0);
  CHECK_EQUAL(n, 2u);
  CHECK_EQUAL(cuGraphInstantiateWithFlags(&exec, graph, 0), 0);
  for (uint32_t turn = 1; turn <= 3; turn++) {
    CHECK_EQUAL(cuGraphLaunch(exec, s), 0);
    CHECK_EQUAL(cuStreamSynchronize(s), 0);
    CHECK(a.get() == filled(6));
    CHECK(b.get() == filled(100 * turn));
  }
  CUDA_KERNEL_NODE_PARAMS_v2 p;
  CHECK_EQUAL(cuGraphKernelNodeGetParams_v2(nodes[1], &p), 0);
  CHECK(p.func == m.function("k") && p.blockDimX == 32 && *(uint32_t*)p.kernelParams[1] == 5);
  uint32_t seven = 7;
  void* changed[] = {p.kernelParams[0], &seven};
  p.kernelParams = changed;
  CHECK_EQUAL(cuGraphExecKernelNodeSetParams_v2(exec, nodes[1], &p), 0);
  CHECK_EQUAL(cuGraphLaunch(exec, s), 0);
  CHECK(a.get() == filled(8));
  CHECK_EQUAL(cuGraphDestroy(graph), 0);
  CHECK_EQUAL(cuGraphLaunch(exec, s), 0);  // lives on without the graph
  CHECK_EQUAL(cuGraphExecDestroy(exec), 0);
  CHECK_EQUAL(cuGraphLaunch(exec, s), 400);
  // What a capture does not allow: waiting, synchronous work, joining late.
  CHECK_EQUAL(cuStreamBeginCapture_v2(s, 0), 0);
  CHECK_EQUAL(cuStreamSynchronize(s), 900);
  CHECK_EQUAL(cuStreamIsCapturing(s, &status), 0);
  CHECK_EQUAL(status, 2);
  CHECK_EQUAL(cuStreamEndCapture(s, &graph), 901);
  CHECK_EQUAL(cuStreamBeginCapture_v2(s, 0), 0);
  CHECK_EQUAL(cuMemcpyHtoD_v2(a.at, &seven, 4), 906);
  CHECK_EQUAL(cuStreamEndCapture(s, &graph), 901);
  uint64_t more;
  CHECK_EQUAL(cuStreamBeginCapture_v2(s, 0), 0);
  CHECK_EQUAL(cuMemAlloc_v2(&more, 4), 900);
  CHECK_EQUAL(cuStreamEndCapture(s, &graph), 901);
  CHECK_EQUAL(cuStreamBeginCapture_v2(s, 2), 0);  // relaxed: allowed, whoever joins
  CHECK_EQUAL(cuEventRecord(fork, s), 0);
  CHECK_EQUAL(cuStreamWaitEvent(side, fork, 0), 0);
  CHECK_EQUAL(cuMemAlloc_v2(&more, 4), 0);
  CHECK_EQUAL(cuMemFree_v2(more), 0);
  CHECK_EQUAL(cuStreamEndCapture(s, &graph), 0);
  CHECK_EQUAL(cuGraphDestroy(graph), 0);
  CHECK_EQUAL(cuStreamBeginCapture_v2(s, 0), 0);
  CHECK_EQUAL(cuEventRecord(fork, s), 0);
  CHECK_EQUAL(cuStreamWaitEvent(side, fork, 0), 0);
  CHECK_EQUAL(launch(side), 0);
  CHECK_EQUAL(cuStreamEndCapture(s, &graph), 904);
  CHECK_EQUAL(cuStreamEndCapture(s, &graph), 1);
  CHECK_EQUAL(cuStreamDestroy_v2(s), 0);
  CHECK_EQUAL(cuStreamDestroy_v2(side), 0);
}

TEST(driver_functions) {
  Module m(increment);
  void* f = m.function("k");
  int v;
  CHECK_EQUAL(cuFuncGetAttribute(&v, 0, f), 0);
  CHECK_EQUAL(v, 1024);
  CHECK_EQUAL(cuFuncGetAttribute(&v, 1, f), 0);
  CHECK_EQUAL(v, 0);
  CHECK_EQUAL(cuOccupancyMaxActiveBlocksPerMultiprocessor(&v, f, 256, 0), 0);
  CHECK_EQUAL(v, 8);
  CHECK_EQUAL(cuOccupancyMaxActiveBlocksPerMultiprocessor(&v, f, 256, 80 * 1024), 0);
  CHECK_EQUAL(v, 2);
  CHECK_EQUAL(cuModuleGetFunction(&f, m.handle, "absent"), 500);
  CHECK_EQUAL(cuModuleLoad(&f, "/nonexistent.ptx"), 301);
  void* stale;
  {
    Module gone(increment);
    stale = gone.function("k");
  }
  CHECK_EQUAL(cuLaunchKernel(stale, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr), 400);
}

TEST(driver_modules_of_one_text_are_apart) {
  Module first(increment);
  int v = 0;
  {
    Module second(increment);
    void* f = second.function("k");
    CHECK(f != first.function("k"));
    CHECK_EQUAL(cuFuncSetAttribute(f, 8, 60 * 1024), 0);
    CHECK_EQUAL(cuFuncGetAttribute(&v, 8, f), 0);
    CHECK_EQUAL(v, 60 * 1024);
    CHECK_EQUAL(cuFuncGetAttribute(&v, 8, first.function("k")), 0);
    CHECK_EQUAL(v, 48 * 1024);
  }
  CHECK_EQUAL(cuFuncGetAttribute(&v, 8, first.function("k")), 0);

  const char* counting =
      ".version 8.0\n.target sm_80\n.address_size 64\n.visible .global .align 4 .u32 count;\n"
      ".visible .entry k() {ret;}\n";
  Module one(counting), other(counting);
  uint64_t at[2];
  size_t bytes;
  CHECK_EQUAL(cuModuleGetGlobal_v2(&at[0], &bytes, one.handle, "count"), 0);
  CHECK_EQUAL(cuModuleGetGlobal_v2(&at[1], &bytes, other.handle, "count"), 0);
  CHECK(at[0] != at[1]);
}

TEST(driver_fatbins) {
  // A fatbin as nvcc --no-compress writes it: header, then PTX entries for two architectures; the best one is taken.
  auto entry = [](unsigned cc, const std::string& ptx, uint64_t flags) {
    std::string e(64, 0);
    auto put = [&](size_t at, uint64_t v, size_t n) { memcpy(&e[at], &v, n); };
    std::string padded = ptx + std::string(8 - ptx.size() % 8, 0);
    put(0, 1, 2), put(2, 0x101, 2), put(4, 64, 4), put(8, padded.size(), 8), put(28, cc, 4), put(40, flags, 8);
    return e + padded;
  };
  auto fatbin = [](const std::string& body) {
    std::string h(16, 0);
    uint32_t magic = 0xba55ed50;
    uint16_t version = 1, size = 16;
    uint64_t n = body.size();
    memcpy(&h[0], &magic, 4), memcpy(&h[4], &version, 2), memcpy(&h[6], &size, 2), memcpy(&h[8], &n, 8);
    return h + body;
  };
  std::string old = ".version 8.0\n.target sm_70\n.address_size 64\n.visible .entry older() {ret;}\n",
              fit = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry fitting() {ret;}\n",
              neu = ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry newer() {ret;}\n";
  void *m = nullptr, *f;
  CHECK_EQUAL(cuModuleLoadData(&m, fatbin(entry(90, neu, 0) + entry(70, old, 0) + entry(80, fit, 0)).data()), 0);
  CHECK_EQUAL(cuModuleGetFunction(&f, m, "fitting"), 0);
  CHECK_EQUAL(cuModuleUnload(m), 0);
  CHECK_EQUAL(cuModuleLoadData(&m, fatbin(entry(90, neu, 0)).data()), 209);
  CHECK_EQUAL(cuModuleLoadData(&m, fatbin(entry(80, fit, 0x2000)).data()), 209);
  CHECK(findings().find("--no-compress") != std::string::npos);
  CHECK_EQUAL(cuModuleLoadData(&m,
                               "\x7f"
                               "ELF cubin"),
              209);
}

TEST(driver_injected_failures) {
  uint64_t p = 0;
  jtreluEmulatorFailAllocation(2);
  CHECK_EQUAL(cuMemAlloc_v2(&p, 100), 0);
  CHECK_EQUAL(cuMemFree_v2(p), 0);
  CHECK_EQUAL(cuMemAlloc_v2(&p, 100), 2);
  CHECK_EQUAL(cuMemAlloc_v2(&p, 100), 0);
  CHECK_EQUAL(cuMemFree_v2(p), 0);
  Module m(increment);
  Buffer<uint32_t> a(filled(0));
  jtreluEmulatorFailLaunch(2, 719);
  CHECK_EQUAL(m.launch("k", 1, 32, 0, a.at, (uint32_t)1), 0);
  CHECK_EQUAL(m.launch("k", 1, 32, 0, a.at, (uint32_t)1), 719);
  CHECK_EQUAL(cuCtxSynchronize(), 719);
  jtreluEmulatorClear();
  CHECK_EQUAL(cuCtxSynchronize(), 0);
  jtreluEmulatorLoseDevice(46);
  CHECK_EQUAL(cuCtxSynchronize(), 46);
  CHECK_EQUAL(cuMemAlloc_v2(&p, 100), 46);
  jtreluEmulatorLoseDevice(0);
  CHECK(a.get() == filled(1));
}

/// Memory of this process that is in the machine, in bytes; 0 where the system does not tell.
static uint64_t resident() {
  std::ifstream statm("/proc/self/statm");
  uint64_t all = 0, present = 0;
  statm >> all >> present;
  return present * 4096;
}

TEST(driver_freed_memory_goes_back_to_the_system) {
  auto turns = [](int count) {
    for (int i = 0; i < count; i++) {  // of sizes whose ends share pages
      uint64_t p, q;
      CHECK_EQUAL(cuMemAlloc_v2(&p, 600), 0);
      CHECK_EQUAL(cuMemAlloc_v2(&q, 5000), 0);
      CHECK_EQUAL(cuMemsetD8_v2(p, 1, 600), 0);
      CHECK_EQUAL(cuMemsetD8_v2(q, 1, 5000), 0);
      CHECK_EQUAL(cuMemFree_v2(q), 0);
      CHECK_EQUAL(cuMemFree_v2(p), 0);
    }
  };
  turns(100);
  uint64_t before = resident();
  turns(10000);
  // What is remembered of each takes some hundred bytes; a page of each would take 80 MB.
  CHECK(resident() < before + (12u << 20));
}

TEST(driver_allocations_are_counted) {
  uint64_t before = jtreluEmulatorLiveAllocations(), used = jtreluEmulatorUsedBytes();
  {
    Buffer<uint32_t> a(filled(0)), b(filled(0));
    CHECK_EQUAL(jtreluEmulatorLiveAllocations(), before + 2);
    CHECK_EQUAL(jtreluEmulatorUsedBytes(), used + 256);
  }
  CHECK_EQUAL(jtreluEmulatorLiveAllocations(), before);
  CHECK_EQUAL(jtreluEmulatorUsedBytes(), used);
  // Very many allocations in turn: addresses are used again only after a long while, and nothing grows without bound.
  for (int i = 0; i < 20000; i++) {
    uint64_t p;
    CHECK_EQUAL(cuMemAlloc_v2(&p, 8192), 0);
    CHECK_EQUAL(cuMemFree_v2(p), 0);
  }
}

// --- work that is done late ---

namespace {
/// The device works in an order of its own while this lives.
struct Delay {
  explicit Delay(uint64_t delay) { jtreluEmulatorSetDelay(delay); }
  ~Delay() { jtreluEmulatorSetDelay(0); }
};
struct Streams {
  void *a = nullptr, *b = nullptr, *event = nullptr;
  Streams() {
    CHECK_EQUAL(cuStreamCreate(&a, 1), 0);  // that do not wait for the default stream
    CHECK_EQUAL(cuStreamCreate(&b, 1), 0);
    CHECK_EQUAL(cuEventCreate(&event, 2), 0);
  }
  ~Streams() {
    cuEventDestroy_v2(event);
    cuStreamDestroy_v2(b);
    cuStreamDestroy_v2(a);
  }
};
/// 7 is written on one stream and copied on another, which waits for it or forgets to: the copy.
uint32_t copied(uint64_t delay, bool wait) {
  Delay order(delay);
  Streams s;
  Buffer<uint32_t> x(filled(1)), y(filled(2));
  CHECK_EQUAL(cuMemsetD32Async(x.at, 7, 32, s.a), 0);
  CHECK_EQUAL(cuEventRecord(s.event, s.a), 0);
  if (wait) CHECK_EQUAL(cuStreamWaitEvent(s.b, s.event, 0), 0);
  CHECK_EQUAL(cuMemcpyDtoDAsync_v2(y.at, x.at, 32 * 4, s.b), 0);
  CHECK_EQUAL(cuStreamSynchronize(s.b), 0);
  return y.get()[0];
}
}  // namespace

TEST(driver_late_work_shows_a_missing_wait) {
  CHECK_EQUAL(copied(0, false), 7u);  // a device that works at once hides it
  CHECK_EQUAL(copied(1, false), 1u);
  CHECK_EQUAL(copied(1, true), 7u);
  bool seen[8] = {};
  for (uint64_t seed = 2; seed < 40; seed++) {
    seen[copied(seed, false)] = true;
    CHECK_EQUAL(copied(seed, true), 7u);
  }
  CHECK(seen[1] && seen[7]);
}

TEST(driver_late_work_is_done_when_it_is_asked_for) {
  Delay late(1);
  Streams s;
  Buffer<uint32_t> x(filled(1));
  auto given = [&] { CHECK_EQUAL(cuMemsetD32Async(x.at, 7, 32, s.a), 0); };
  given();
  CHECK_EQUAL(x.get()[0], 1u);  // the default stream waits for no stream of this kind
  CHECK_EQUAL(cuCtxSynchronize(), 0);
  CHECK_EQUAL(x.get()[0], 7u);
  CHECK_EQUAL(cuMemsetD8_v2(x.at, 0, 4), 0);
  given();
  CHECK_EQUAL(cuEventRecord(s.event, s.a), 0);
  int asked = 0;
  while (cuEventQuery(s.event) == CUDA_ERROR_NOT_READY) asked++;  // a host that spins goes on
  CHECK(asked > 0);
  CHECK_EQUAL(x.get()[0], 7u);
  // Freeing waits for all, so that nothing works on what is freed.
  given();
  uint64_t other;
  CHECK_EQUAL(cuMemAlloc_v2(&other, 64), 0);
  CHECK_EQUAL(cuMemFree_v2(other), 0);
  CHECK_EQUAL(x.get()[0], 7u);
}

TEST(driver_late_copies_read_pinned_memory_late) {
  for (bool pinned : {false, true}) {
    Delay late(1);
    Streams s;
    Buffer<uint32_t> x(filled(1));
    std::vector<uint32_t> host = filled(5);
    if (pinned) CHECK_EQUAL(cuMemHostRegister_v2(host.data(), 32 * 4, 0), 0);
    CHECK_EQUAL(cuMemcpyHtoDAsync_v2(x.at, host.data(), 32 * 4, s.a), 0);
    host[0] = 6;  // too early for memory that the device reads itself
    CHECK_EQUAL(cuStreamSynchronize(s.a), 0);
    CHECK_EQUAL(x.get()[0], pinned ? 6u : 5u);
    // What comes back to memory that is not pinned is there when the call returns.
    CHECK_EQUAL(cuMemsetD32Async(x.at, 9, 32, s.a), 0);
    CHECK_EQUAL(cuMemcpyDtoHAsync_v2(host.data(), x.at, 32 * 4, s.a), 0);
    CHECK_EQUAL(host[0], pinned ? 6u : 9u);
    CHECK_EQUAL(cuStreamSynchronize(s.a), 0);
    CHECK_EQUAL(host[0], 9u);
    if (pinned) CHECK_EQUAL(cuMemHostUnregister(host.data()), 0);
  }
}

TEST(driver_late_work_on_memory_given_back_is_found) {
  Delay late(1);
  Streams s;
  uint64_t x;
  CHECK_EQUAL(cuMemAllocAsync(&x, 128, s.a), 0);
  CHECK_EQUAL(cuMemsetD32Async(x, 7, 32, s.a), 0);
  CHECK_EQUAL(cuMemFreeAsync(x, s.b), 0);  // on a stream that does not wait for the other
  CHECK_EQUAL(cuStreamSynchronize(s.b), 0);
  CHECK(cuStreamSynchronize(s.a) != 0);
  CHECK(findings().find("use_after_free") != std::string::npos);
  jtreluEmulatorClear();
}

/// Two nodes side by side, then one that needs both; launched twice, on two streams.
TEST(driver_late_graphs_keep_their_dependencies) {
  bool seen[2] = {};
  for (uint64_t delay = 1; delay < 30; delay++) {
    Delay order(delay);
    Streams s;
    Buffer<uint32_t> x(filled(1)), y(filled(2)), z(filled(3)), first(filled(0));
    void *fork, *join, *graph, *executable;
    CHECK_EQUAL(cuEventCreate(&fork, 2), 0);
    CHECK_EQUAL(cuEventCreate(&join, 2), 0);
    CHECK_EQUAL(cuStreamBeginCapture_v2(s.a, 2), 0);
    CHECK_EQUAL(cuEventRecord(fork, s.a), 0);
    CHECK_EQUAL(cuStreamWaitEvent(s.b, fork, 0), 0);
    CHECK_EQUAL(cuMemsetD32Async(first.at, 10, 1, s.a), 0);  // which of the two was first cannot be relied on
    CHECK_EQUAL(cuMemsetD32Async(first.at, 20, 1, s.b), 0);
    CHECK_EQUAL(cuMemsetD32Async(x.at, 7, 32, s.b), 0);
    CHECK_EQUAL(cuEventRecord(join, s.b), 0);
    CHECK_EQUAL(cuStreamWaitEvent(s.a, join, 0), 0);
    CHECK_EQUAL(cuMemcpyDtoDAsync_v2(z.at, y.at, 32 * 4, s.a), 0);
    CHECK_EQUAL(cuMemcpyDtoDAsync_v2(y.at, x.at, 32 * 4, s.a), 0);
    CHECK_EQUAL(cuStreamEndCapture(s.a, &graph), 0);
    CHECK_EQUAL(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
    CHECK_EQUAL(cuGraphLaunch(executable, s.a), 0);
    CHECK_EQUAL(cuGraphLaunch(executable, s.b), 0);  // not before the launch ahead of it has ended
    CHECK_EQUAL(cuGraphExecDestroy(executable), 0);  // what was launched goes on
    CHECK_EQUAL(cuGraphDestroy(graph), 0);
    CHECK_EQUAL(cuStreamSynchronize(s.b), 0);
    CHECK_EQUAL(y.get()[0], 7u);
    CHECK_EQUAL(z.get()[0], 7u);
    seen[first.get()[0] == 10] = true;
    CHECK_EQUAL(cuEventDestroy_v2(fork), 0);
    CHECK_EQUAL(cuEventDestroy_v2(join), 0);
  }
  CHECK(seen[0] && seen[1]);
}
