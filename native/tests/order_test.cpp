// Work without an order between its pieces: each planted fault is found whatever the device does first, and named; its clean twin is
// silent. And the host under a copy's hands.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <functional>

#include "../emulator/cuda_abi.h"
#include "harness.h"

extern "C" {
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuStreamSynchronize(void*);
int cuStreamQuery(void*);
int cuStreamWaitEvent(void*, void*, unsigned);
int cuStreamBeginCapture_v2(void*, int);
int cuStreamEndCapture(void*, void**);
int cuStreamGetId(void*, unsigned long long*);
int cuEventCreate(void**, unsigned);
int cuEventRecord(void*, void*);
int cuEventQuery(void*);
int cuEventSynchronize(void*);
int cuEventDestroy_v2(void*);
int cuGraphCreate(void**, unsigned);
int cuGraphAddKernelNode_v2(void**, void*, void* const*, size_t, const CUDA_KERNEL_NODE_PARAMS_v2*);
int cuGraphAddDependencies(void*, void* const*, void* const*, size_t);
int cuGraphInstantiateWithFlags(void**, void*, unsigned long long);
int cuGraphLaunch(void*, void*);
int cuGraphExecDestroy(void*);
int cuGraphDestroy(void*);
int cuMemsetD8Async(uint64_t, unsigned char, size_t, void*);
int cuMemsetD32Async(uint64_t, unsigned, size_t, void*);
int cuMemsetD32_v2(uint64_t, unsigned, size_t);
int cuMemcpyHtoDAsync_v2(uint64_t, const void*, size_t, void*);
int cuMemcpyDtoDAsync_v2(uint64_t, uint64_t, size_t, void*);
int cuMemcpyDtoHAsync_v2(void*, uint64_t, size_t, void*);
int cuMemAllocAsync(uint64_t*, size_t, void*);
int cuMemFreeAsync(uint64_t, void*);
int cuMemHostAlloc(void**, size_t, unsigned);
int cuMemFreeHost(void*);
}

namespace {

// The first lines are ptxHead's: `put` stores in line 5, `get` loads in line 8, `both` loads in line 11 and stores in line 12.
const char* const kernels =
    ".visible .entry put(.param .u64 p) {.reg .u32 t; .reg .u64 a; mov.u32 t, %tid.x; ld.param.u64 a, [p]; "
    "mad.wide.u32 a, t, 4, a;\nst.global.u32 [a], t; ret;}\n"
    "\n.visible .entry get(.param .u64 p) {.reg .u32 t, x; .reg .u64 a; mov.u32 t, %tid.x; ld.param.u64 a, [p]; "
    "mad.wide.u32 a, t, 4, a;\nld.global.u32 x, [a]; ret;}\n"
    "\n.visible .entry both(.param .u64 p) {.reg .u32 t, x; .reg .u64 a; mov.u32 t, %tid.x; ld.param.u64 a, [p]; "
    "mad.wide.u32 a, t, 4, a;\nld.global.u32 x, [a];\nst.global.u32 [a], x; ret;}\n";

/// Three streams that do not wait for the default stream, events, and 32 words.
struct World {
  Module module{kernels};
  void *a = nullptr, *b = nullptr, *c = nullptr, *e = nullptr, *f = nullptr;
  Buffer<uint32_t> x{std::vector<uint32_t>(32, 1)}, y{std::vector<uint32_t>(32, 2)};
  World() {
    for (void** s : {&a, &b, &c}) CHECK_EQUAL(cuStreamCreate(s, 1), 0);
    for (void** v : {&e, &f}) CHECK_EQUAL(cuEventCreate(v, 2), 0);
  }
  ~World() {
    cuCtxSynchronize();
    for (void* v : {e, f}) cuEventDestroy_v2(v);
    for (void* s : {a, b, c}) cuStreamDestroy_v2(s);
  }
  void run(const char* kernel, void* stream, uint64_t at = 0) {
    if (!at) at = x.at;
    void* arguments[] = {&at};
    CHECK_EQUAL(cuLaunchKernel(module.function(kernel), 1, 1, 1, 32, 1, 1, 0, stream, arguments, nullptr), 0);
  }
  void order(void* before, void* after) {
    CHECK_EQUAL(cuEventRecord(e, before), 0);
    CHECK_EQUAL(cuStreamWaitEvent(after, e, 0), 0);
  }
  static std::string on(void* stream) {
    unsigned long long id;
    CHECK_EQUAL(cuStreamGetId(stream, &id), 0);
    return " on stream " + std::to_string(id);
  }
};
std::string hex(uint64_t v) {
  char b[32];
  snprintf(b, sizeof b, "0x%llx", (unsigned long long)v);
  return b;
}

/// Runs work under every setting of the delay and says what was found. The settings do the work in different orders.
void everywhere(const std::function<void(World&, uint64_t delay)>& work) {
  for (uint64_t delay : {0, 1, 2, 3, 4, 5, 6, 7}) {
    jtreluEmulatorClear();
    jtreluEmulatorSetDelay(delay);
    {
      World w;
      work(w, delay);
    }
    jtreluEmulatorSetDelay(0);
    jtreluEmulatorClear();
  }
}
void expectFound(const std::vector<std::vector<std::string>>& alternatives) {
  std::string found = findings();
  for (auto& parts : alternatives) {
    bool all = true;
    for (auto& part : parts) all &= found.find(part) != std::string::npos;
    checks++;
    if (all) return;
  }
  fail(__FILE__, __LINE__, "not found: " + alternatives[0][0] + "\nbut: " + found);
}
void clean(const std::function<void(World&)>& work) {
  everywhere([&](World& w, uint64_t delay) {
    work(w);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    if (!findings().empty()) fail(__FILE__, __LINE__, "delay " + std::to_string(delay) + ": " + findings());
  });
}

}  // namespace

TEST(order_between_streams) {
  everywhere([](World& w, uint64_t) {
    w.run("put", w.a);
    w.run("get", w.b);
    CHECK_EQUAL(cuCtxSynchronize(), 0);  // a race fails nothing
    expectFound(
        {{"error: stream_race in get, PTX line 8 (ld.global.u32)", "global address " + hex(w.x.at) + ", 4 bytes",
          "reads what put, block (0,0,0)" + World::on(w.a) + " wrote, and nothing orders the two"},
         {"error: stream_race in put, PTX line 5 (st.global.u32)", "global address " + hex(w.x.at),
          "writes what get, block (0,0,0)" + World::on(w.b) + " read, and nothing orders the two"}});
    CHECK(text(jtreluEmulatorReportsJson).find("\"kind\":\"stream_race\",\"kernel\":\"") != std::string::npos);
    CHECK(jtreluEmulatorErrorCount() > 0);
  });
  everywhere([](World& w, uint64_t) {
    w.run("put", w.a);
    w.run("put", w.b);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    expectFound({{"stream_race in put", "wrote, and nothing orders the two"}});
  });
  clean([](World& w) {
    w.run("get", w.a);
    w.run("get", w.b);  // both read
    w.run("put", w.c, w.y.at);  // another place
  });
  clean([](World& w) {
    w.run("put", w.a);
    w.order(w.a, w.b);
    w.run("get", w.b);
    w.order(w.b, w.c);
    w.run("put", w.c);
    w.run("both", w.c);
  });
  // An event that was recorded too early orders nothing behind it.
  everywhere([](World& w, uint64_t) {
    w.order(w.a, w.b);
    w.run("put", w.a);
    w.run("get", w.b);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    expectFound({{"stream_race in get"}, {"stream_race in put"}});
  });
}

TEST(order_by_the_host) {
  clean([](World& w) {
    w.run("put", w.a);
    CHECK_EQUAL(cuStreamSynchronize(w.a), 0);
    w.run("put", w.b);
    CHECK_EQUAL(cuEventRecord(w.e, w.b), 0);
    CHECK_EQUAL(cuEventSynchronize(w.e), 0);
    w.run("put", w.c);
    while (cuStreamQuery(w.c) == CUDA_ERROR_NOT_READY) {}
    w.run("put", w.a);
    CHECK_EQUAL(cuEventRecord(w.e, w.a), 0);
    while (cuEventQuery(w.e) == CUDA_ERROR_NOT_READY) {}
    w.run("put", w.b);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    w.run("put", w.c);
    CHECK_EQUAL(cuStreamSynchronize(w.c), 0);
    w.x.get();
  });
  // The host reads with a copy that no stream of this kind waits for.
  everywhere([](World& w, uint64_t) {
    w.run("put", w.a);
    w.x.get();
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    expectFound({{"cuMemcpyDtoH of 128 bytes from " + hex(w.x.at), "reads what put"},
                 {"stream_race in put", "writes what cuMemcpyDtoH of 128 bytes from " + hex(w.x.at)}});
  });
  // It waited, but for another stream.
  everywhere([](World& w, uint64_t) {
    w.run("put", w.a);
    CHECK_EQUAL(cuStreamSynchronize(w.b), 0);
    w.run("put", w.b);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    expectFound({{"stream_race in put"}});
  });
}

TEST(order_of_copies_and_fills) {
  everywhere([](World& w, uint64_t) {
    CHECK_EQUAL(cuMemsetD32Async(w.x.at + 64, 7, 16, w.a), 0);
    CHECK_EQUAL(cuMemcpyDtoDAsync_v2(w.y.at, w.x.at, 128, w.b), 0);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    std::string copy = "cuMemcpyDtoDAsync of 128 bytes from " + hex(w.x.at) + " to " + hex(w.y.at) + World::on(w.b),
                fill = "cuMemsetD32Async of 16 elements at " + hex(w.x.at + 64) + World::on(w.a),
                where = "global address " + hex(w.x.at + 64);
    expectFound({{copy + " reads what " + fill + " wrote", where}, {fill + " writes what " + copy + " read", where}});
  });
  everywhere([](World& w, uint64_t) {
    w.run("get", w.a);
    CHECK_EQUAL(cuMemsetD8Async(w.x.at + 5, 7, 1, w.b), 0);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    expectFound(
        {{"cuMemsetD8Async of 1 elements at " + hex(w.x.at + 5) + World::on(w.b) + " writes what get, block (0,0,0)"},
         {"stream_race in get, PTX line 8", "reads what cuMemsetD8Async"}});
  });
  clean([](World& w) {  // bytes beside each other
    CHECK_EQUAL(cuMemsetD8Async(w.x.at, 7, 5, w.a), 0);
    CHECK_EQUAL(cuMemsetD8Async(w.x.at + 5, 7, 3, w.b), 0);
    CHECK_EQUAL(cuMemcpyDtoDAsync_v2(w.y.at, w.x.at + 8, 6, w.c), 0);
    CHECK_EQUAL(cuMemsetD8Async(w.x.at + 14, 7, 3, w.b), 0);
  });
  clean([](World& w) {
    std::vector<uint32_t> host(32, 3);  // not pinned: written when the call returns
    w.run("put", w.a);
    CHECK_EQUAL(cuMemcpyDtoHAsync_v2(host.data(), w.x.at, 128, w.a), 0);
    w.run("put", w.b);
  });
}

/// A writer must come after every reader, not only after the last one.
TEST(order_after_all_readers) {
  for (const char* writer : {"put", "both"})
    for (bool afterFirst : {false, true})
      everywhere([&](World& w, uint64_t) {
        w.run("get", w.a);
        w.run("get", w.b);
        w.order(afterFirst ? w.a : w.b, w.c);
        w.run(writer, w.c);
        CHECK_EQUAL(cuCtxSynchronize(), 0);
        std::string missed = World::on(afterFirst ? w.b : w.a);
        expectFound({{std::string("stream_race in ") + writer, "writes what get, block (0,0,0)" + missed + " read"},
                     {"stream_race in get", std::string("reads what ") + writer + ", block (0,0,0)" + World::on(w.c)}});
      });
  clean([](World& w) {
    w.run("get", w.a);
    w.run("get", w.b);
    w.order(w.a, w.c);
    w.order(w.b, w.c);
    w.run("both", w.c);
  });
}

TEST(order_in_graphs) {
  auto node = [](World& w, void* graph, const char* kernel) {
    uint64_t at = w.x.at;
    void *arguments[] = {&at}, *n = nullptr;
    CUDA_KERNEL_NODE_PARAMS_v2 p{};
    p.func = w.module.function(kernel);
    p.gridDimX = p.gridDimY = p.gridDimZ = p.blockDimY = p.blockDimZ = 1;
    p.blockDimX = 32;
    p.kernelParams = arguments;
    CHECK_EQUAL(cuGraphAddKernelNode_v2(&n, graph, nullptr, 0, &p), 0);
    return n;
  };
  auto launch = [](void* graph, void* stream, int times) {
    void* executable;
    CHECK_EQUAL(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
    for (int i = 0; i < times; i++) CHECK_EQUAL(cuGraphLaunch(executable, stream), 0);
    CHECK_EQUAL(cuGraphExecDestroy(executable), 0);
  };
  for (bool edge : {false, true}) {
    auto two = [&](World& w) {
      void* graph;
      CHECK_EQUAL(cuGraphCreate(&graph, 0), 0);
      void *put = node(w, graph, "put"), *get = node(w, graph, "get");
      if (edge) CHECK_EQUAL(cuGraphAddDependencies(graph, &put, &get, 1), 0);
      launch(graph, w.a, 3);  // one after the other
      launch(graph, w.a, 1);
      CHECK_EQUAL(cuGraphDestroy(graph), 0);
    };
    if (edge) clean(two);
    else
      everywhere([&](World& w, uint64_t) {
        two(w);
        CHECK_EQUAL(cuCtxSynchronize(), 0);
        expectFound({{"stream_race in get, PTX line 8", "reads what put, block (0,0,0)" + World::on(w.a)},
                     {"stream_race in put, PTX line 5", "writes what get"}});
      });
  }
  // A fork in a capture, and a join that comes too late.
  for (bool late : {false, true}) {
    auto forked = [&](World& w) {
      void* graph;
      CHECK_EQUAL(cuStreamBeginCapture_v2(w.a, 2), 0);
      w.run("put", w.a);
      w.order(w.a, w.b);
      w.run("put", w.b, w.y.at);
      w.run("get", w.a);
      if (late) w.run("get", w.a, w.y.at);
      w.order(w.b, w.a);
      if (!late) w.run("get", w.a, w.y.at);
      CHECK_EQUAL(cuStreamEndCapture(w.a, &graph), 0);
      void* executable;
      CHECK_EQUAL(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
      CHECK_EQUAL(cuGraphLaunch(executable, w.a), 0);
      CHECK_EQUAL(cuGraphLaunch(executable, w.c), 0);  // after the one before, on whatever stream
      w.order(w.c, w.b);
      w.run("put", w.b, w.y.at);
      CHECK_EQUAL(cuGraphExecDestroy(executable), 0);
      CHECK_EQUAL(cuGraphDestroy(graph), 0);
    };
    if (!late) clean(forked);
    else
      everywhere([&](World& w, uint64_t) {
        forked(w);
        CHECK_EQUAL(cuCtxSynchronize(), 0);
        expectFound({{"stream_race in get", "global address " + hex(w.y.at), "reads what put"},
                     {"stream_race in put", "global address " + hex(w.y.at), "writes what get"}});
      });
  }
  // What follows a graph on another stream follows all of it or nothing.
  everywhere([&](World& w, uint64_t) {
    void* graph;
    CHECK_EQUAL(cuGraphCreate(&graph, 0), 0);
    node(w, graph, "put");
    launch(graph, w.a, 1);
    w.run("get", w.b);
    CHECK_EQUAL(cuGraphDestroy(graph), 0);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    expectFound({{"stream_race in get"}, {"stream_race in put"}});
  });
}

TEST(order_by_the_default_stream) {
  for (unsigned flags : {0u, 1u}) {  // a stream that waits for it, and one that does not
    auto work = [&](World& w) {
      void* s;
      CHECK_EQUAL(cuStreamCreate(&s, flags), 0);
      w.run("put", s);
      CHECK_EQUAL(cuMemsetD32_v2(w.x.at, 3, 32), 0);
      w.run("get", s);
      w.run("put", nullptr);
      CHECK_EQUAL(cuStreamDestroy_v2(s), 0);
    };
    if (!flags) clean(work);
    else
      everywhere([&](World& w, uint64_t) {
        work(w);
        CHECK_EQUAL(cuCtxSynchronize(), 0);
        expectFound({{"cuMemsetD32 of 32 elements at " + hex(w.x.at) + " on the default stream"},
                     {"stream_race in put", "writes what put, block (0,0,0) on the default stream wrote"}});
      });
  }
}

TEST(order_of_memory_that_streams_allocate_and_free) {
  everywhere([](World& w, uint64_t) {
    uint64_t p;
    CHECK_EQUAL(cuMemAllocAsync(&p, 128, w.a), 0);
    w.run("put", w.a, p);
    CHECK_EQUAL(cuMemFreeAsync(p, w.b), 0);
    cuCtxSynchronize();  // the kernel may come too late
    expectFound(
        {{"cuMemFreeAsync of " + hex(p) + World::on(w.b) + " writes what put, block (0,0,0)" + World::on(w.a) +
          " wrote"},
         {"cuMemFreeAsync of " + hex(p) + World::on(w.b) + " writes what cuMemAllocAsync of 128 bytes at " + hex(p)},
         {"use_after_free in put"}});
  });
  everywhere([](World& w, uint64_t) {
    uint64_t p;
    CHECK_EQUAL(cuMemAllocAsync(&p, 128, w.a), 0);
    w.run("put", w.b, p);
    CHECK_EQUAL(cuCtxSynchronize(), 0);
    expectFound({{"stream_race in put", "writes what cuMemAllocAsync of 128 bytes at " + hex(p) + World::on(w.a)},
                 {"cuMemAllocAsync of 128 bytes at " + hex(p) + World::on(w.a) + " writes what put"}});
    CHECK_EQUAL(cuMemFree_v2(p), 0);
  });
  clean([](World& w) {
    uint64_t p;
    CHECK_EQUAL(cuMemAllocAsync(&p, 128, w.a), 0);
    w.order(w.a, w.b);
    w.run("put", w.b, p);
    w.order(w.b, w.c);
    CHECK_EQUAL(cuMemFreeAsync(p, w.c), 0);
  });
}

/// Streams come and go by the thousand, and each that is given a former one's place knows no more than the host.
TEST(order_of_streams_that_come_and_go) {
  clean([](World& w) {
    for (int i = 0; i < 300; i++) {
      void* s;
      CHECK_EQUAL(cuStreamCreate(&s, 1), 0);
      w.run("both", s);
      CHECK_EQUAL(cuStreamSynchronize(s), 0);
      CHECK_EQUAL(cuStreamDestroy_v2(s), 0);
    }
  });
  everywhere([](World& w, uint64_t) {
    void *s, *t;
    CHECK_EQUAL(cuStreamCreate(&s, 1), 0);
    w.run("put", s);
    CHECK_EQUAL(cuStreamDestroy_v2(s), 0);  // which does not wait
    CHECK_EQUAL(cuStreamCreate(&t, 1), 0);
    w.run("get", t);
    CHECK_EQUAL(cuStreamDestroy_v2(t), 0);
    expectFound({{"stream_race in get, PTX line 8", "reads what put"}});
  });
}

// --- queries ---

TEST(order_queries_may_hesitate) {
  int hesitated = 0;
  for (uint64_t seed = 2; seed < 60; seed++) {
    jtreluEmulatorSetDelay(seed);
    World w;
    w.run("put", w.a);
    CHECK_EQUAL(cuEventRecord(w.e, w.a), 0);
    // Three pieces of work at most lie before the answer, and three times it may come late.
    int asked = 0;
    bool done = false;
    while (cuEventQuery(w.e) == CUDA_ERROR_NOT_READY) {
      hesitated += done;
      std::vector<uint32_t> now = w.x.get();  // a race, which is not the point here
      done = now[5] == 5;
      CHECK(++asked <= 6);
    }
    CHECK_EQUAL(cuEventQuery(w.e), 0);  // ready once, ready for ever
    w.run("put", w.b);
    CHECK_EQUAL(cuStreamSynchronize(w.b), 0);
    for (int i = 0; i < 10; i++) CHECK_EQUAL(cuStreamQuery(w.b), 0);  // the host has waited
    jtreluEmulatorClear();
  }
  jtreluEmulatorSetDelay(0);
  CHECK(hesitated > 10);
}

// --- the host ---

namespace {
sigjmp_buf beyond;
volatile sig_atomic_t expected = 0;
/// A handler that was there before, as a JVM's.
void foreign(int, siginfo_t*, void*) {
  if (!expected) abort();
  expected = 0;
  siglongjmp(beyond, 1);
}
struct Foreign {
  Foreign() {
    struct sigaction a {};
    a.sa_sigaction = foreign;
    a.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &a, nullptr);
  }
} installed;

/// Pinned memory of two pages.
struct Pinned {
  volatile uint32_t* words = nullptr;
  Pinned() {
    CHECK_EQUAL(cuMemHostAlloc((void**)&words, 8192, 0), 0);
    for (int i = 0; i < 2048; i++) words[i] = 5;
  }
  ~Pinned() { cuMemFreeHost((void*)words); }
  void* at(size_t i) const { return (void*)&words[i]; }
};
}  // namespace

TEST(order_of_the_host_and_copies) {
  // A write into memory that a copy reads, and the copy's text as it was given.
  everywhere([](World& w, uint64_t) {
    Pinned p;
    CHECK_EQUAL(cuMemcpyHtoDAsync_v2(w.x.at, p.at(4), 128, w.a), 0);
    CHECK_EQUAL(p.words[4], 5u);  // reading is allowed
    CHECK_EQUAL(jtreluEmulatorErrorCount(), 0u);
    p.words[20] = 6;
    expectFound({{"error: host_race, pinned address " + hex((uint64_t)p.at(20)),
                  "the host writes memory that cuMemcpyHtoDAsync of 128 bytes from " + hex((uint64_t)p.at(4)) + " to " +
                      hex(w.x.at) + " reads"}});
    CHECK_EQUAL(p.words[20], 6u);  // it goes on
    p.words[21] = 6;
    CHECK_EQUAL(jtreluEmulatorErrorCount(), 1u);  // told once
    CHECK_EQUAL(cuStreamSynchronize(w.a), 0);
  });
  // A look at memory that a copy writes.
  everywhere([](World& w, uint64_t) {
    Pinned p;
    CHECK_EQUAL(cuMemcpyDtoHAsync_v2(p.at(0), w.x.at, 128, w.a), 0);
    volatile uint32_t seen = p.words[7];
    (void)seen;
    expectFound({{"error: host_race, pinned address " + hex((uint64_t)p.at(7)),
                  "the host reads memory that cuMemcpyDtoHAsync of 128 bytes from " + hex(w.x.at) + " to " +
                      hex((uint64_t)p.at(0)) + " writes"}});
    CHECK_EQUAL(cuStreamSynchronize(w.a), 0);
    CHECK_EQUAL(p.words[7], 1u);
  });
  // In a graph as well, at each launch.
  everywhere([](World& w, uint64_t) {
    Pinned p;
    void *graph, *executable;
    CHECK_EQUAL(cuStreamBeginCapture_v2(w.a, 2), 0);
    CHECK_EQUAL(cuMemcpyDtoHAsync_v2(p.at(0), w.x.at, 128, w.a), 0);
    CHECK_EQUAL(cuStreamEndCapture(w.a, &graph), 0);
    CHECK_EQUAL(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
    p.words[0] = 9;
    CHECK_EQUAL(jtreluEmulatorErrorCount(), 0u);
    CHECK_EQUAL(cuGraphLaunch(executable, w.a), 0);
    p.words[0] = 9;
    expectFound({{"the host writes memory that cuMemcpyDtoHAsync"}});
    CHECK_EQUAL(cuGraphExecDestroy(executable), 0);
    CHECK_EQUAL(cuGraphDestroy(graph), 0);
  });
  clean([](World& w) {
    Pinned p, q;
    for (int i = 0; i < 3; i++) {
      CHECK_EQUAL(cuMemcpyHtoDAsync_v2(w.x.at, p.at(1020), 128, w.a), 0);  // across the pages
      p.words[1019] = 5;  // neighbours on both
      p.words[1052] = 5;
      q.words[0] = 1;
      CHECK_EQUAL(cuEventRecord(w.e, w.a), 0);
      CHECK_EQUAL(cuMemcpyDtoHAsync_v2(q.at(4), w.x.at, 128, w.a), 0);
      w.run("both", w.a, (uint64_t)q.at(4));  // the device may
      CHECK_EQUAL(cuEventSynchronize(w.e), 0);
      for (int k = 0; k < 2048; k++) p.words[k] = 7;
      q.words[0] = q.words[40];
      CHECK_EQUAL(cuStreamSynchronize(w.a), 0);
      CHECK_EQUAL(q.words[4], i ? 7u : 5u);
      q.words[4] = 0;
    }
  });
  // Two copies of which the host has waited for one.
  everywhere([](World& w, uint64_t) {
    Pinned p;
    CHECK_EQUAL(cuMemcpyHtoDAsync_v2(w.x.at, p.at(0), 128, w.a), 0);
    CHECK_EQUAL(cuMemcpyHtoDAsync_v2(w.y.at, p.at(0), 128, w.b), 0);
    CHECK_EQUAL(cuStreamSynchronize(w.a), 0);
    p.words[0] = 6;
    expectFound({{"the host writes memory that cuMemcpyHtoDAsync of 128 bytes from " + hex((uint64_t)p.at(0)) + " to " +
                  hex(w.y.at)}});
  });
  jtreluEmulatorSetProtect(0);
  clean([](World& w) {
    Pinned p;
    CHECK_EQUAL(cuMemcpyHtoDAsync_v2(w.x.at, p.at(0), 128, w.a), 0);
    p.words[0] = 6;
  });
  jtreluEmulatorSetProtect(1);
}

/// Faults of others reach the handler that was there before.
TEST(order_leaves_the_faults_of_others_alone) {
  World w;
  Pinned p;
  CHECK_EQUAL(cuMemcpyHtoDAsync_v2(w.x.at, p.at(0), 128, w.a), 0);
  void* page = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 3; i++) {
    expected = 1;
    if (!sigsetjmp(beyond, 1)) *(volatile int*)page = 1;
    CHECK_EQUAL((int)expected, 0);
  }
  munmap(page, 4096);
  p.words[0] = 6;
  expectFound({{"host_race"}});
}
