// Programmatic dependent launch: a kernel that may start before the one ahead of it has ended touches nothing of that one's before
// griddepcontrol.wait. Each fault is found whatever the device did first; its clean twin is silent.
#include <functional>

#include "hopper.h"

extern "C" {
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuStreamSynchronize(void*);
int cuStreamWaitEvent(void*, void*, unsigned);
int cuStreamBeginCapture_v2(void*, int);
int cuStreamEndCapture(void*, void**);
int cuEventCreate(void**, unsigned);
int cuEventRecord(void*, void*);
int cuEventDestroy_v2(void*);
int cuGraphInstantiateWithFlags(void**, void*, unsigned long long);
int cuGraphLaunch(void*, void*);
int cuGraphExecDestroy(void*);
int cuGraphDestroy(void*);
int cuMemsetD8Async(uint64_t, unsigned char, size_t, void*);
}

namespace {

/// Kernels of two blocks of 64 threads on their words at w of p and v of q. All of a kernel but what is written here stands in one line.
std::string kernel(const std::string& name, const std::string& body) {
  return ".visible .entry " + name +
         "(.param .u64 pp, .param .u64 pq) {\n.shared .align 8 .b64 bar; .shared .align 16 .b8 s[256]; .reg .u32 r, t, "
         "u, a, b; .reg "
         ".u64 w, v, p0; .reg .pred p, q; mov.u32 t, %tid.x; mov.u32 u, %ctaid.x; mad.lo.u32 u, u, 64, t; ld.param.u64 "
         "p0, [pp]; "
         "mad.wide.u32 w, u, 4, p0; ld.param.u64 v, [pq]; mad.wide.u32 v, u, 4, v; setp.eq.u32 p, t, 0; mov.u32 a, s; "
         "mov.u32 b, "
         "bar;\n" +
         body + "\nret;\n}\n";
}
const std::string
    trigger = "griddepcontrol.launch_dependents;",
    await = "griddepcontrol.wait;", get = "ld.global.u32 r, [w];", put = "add.u32 r, u, 1; st.global.u32 [w], r;",
    pass = "st.global.u32 [v], r;",
    bulk = "@p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [w], 256, [b];",
    ready =
        "@p mbarrier.init.shared.b64 [b], 1; @p fence.mbarrier_init.release.cluster; bar.sync 0; @p "
        "mbarrier.arrive.expect_tx.shared.b64 _, [b], 256;",
    arrived =
        "W: mbarrier.try_wait.parity.shared.b64 q, [b], 0; @!q bra W; mad.lo.u32 a, t, 4, a; ld.shared.u32 r, [a];";

const std::string kernels =
    hopper::head + kernel("put", put) + kernel("trigger_put", trigger + put) + kernel("put_trigger", put + trigger) +
    kernel("look", get) + kernel("await_get", await + get + pass) + kernel("get_await", get + await + pass) +
    kernel("put_await", put + await) + kernel("await_put", await + put) +
    kernel("first_awaits", "@p griddepcontrol.wait; bar.sync 0;" + get + pass) +
    kernel("first_awaits_alone", "@p griddepcontrol.wait; bar.warp.sync -1;" + get + pass) +
    kernel("await_load", ready + await + bulk + arrived + pass) +
    kernel("load_await", ready + bulk + await + arrived + pass) +
    kernel("store_await",
           "@p st.shared.v4.u32 [a], {t, t, t, t}; @p fence.proxy.async.shared::cta; @p "
           "cp.async.bulk.global.shared::cta.bulk_group [w], [a], 16; @p cp.async.bulk.commit_group; "
           "griddepcontrol.wait; @p cp.async.bulk.wait_group 0;") +
    kernel("trigger_await", trigger + await) + kernel("await_trigger", await + trigger) + kernel("only_await", await) +
    kernel("never", trigger) + kernel("some_await", "setp.eq.u32 q, u, 64; @q griddepcontrol.wait;" + trigger);

struct Step {
  const char* kernel;
  bool early = false;  // may start before the one ahead has ended
};

struct World {
  Hopper device;
  Module module{kernels};
  void* stream = nullptr;
  Buffer<uint32_t> x{std::vector<uint32_t>(128)}, y{std::vector<uint32_t>(128)};
  World() { CHECK_EQUAL(cuStreamCreate(&stream, 1), 0); }
  ~World() {
    cuCtxSynchronize();
    cuStreamDestroy_v2(stream);
  }
  int give(const Step& s, void* on = nullptr) {
    CUlaunchAttribute a{};
    a.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    a.value.number = s.early;
    const CUlaunchConfig c{2, 1, 1, 64, 1, 1, 0, on ? on : stream, &a, 1};
    void* arguments[] = {&x.at, &y.at};
    return cuLaunchKernelEx(&c, module.function(s.kernel), arguments, nullptr);
  }
};

/// In every order of streams, given one by one and recorded: what is found, "" for nothing.
void run(const std::vector<Step>& steps, const std::string& found, int code, bool passes = false) {
  for (bool recorded : {false, true})
    for (uint64_t delay : {0, 1, 2, 3}) {
      jtreluEmulatorClear();
      jtreluEmulatorSetDelay(delay);
      World world;
      int r = 0;
      if (recorded) {
        void *graph, *executable;
        CHECK_EQUAL(cuStreamBeginCapture_v2(world.stream, 2), 0);
        for (auto& s : steps) CHECK_EQUAL(world.give(s), 0);
        CHECK_EQUAL(cuStreamEndCapture(world.stream, &graph), 0);
        CHECK_EQUAL(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
        r = cuGraphLaunch(executable, world.stream);
        if (!r) r = cuStreamSynchronize(world.stream);
        cuGraphExecDestroy(executable), cuGraphDestroy(graph);
      } else {
        for (auto& s : steps)
          if (!r) r = world.give(s);
        if (!r) r = cuStreamSynchronize(world.stream);
      }
      const std::string text = findings();
      checks++;
      if (found.empty() ? !text.empty() : text.find(found) == std::string::npos)
        fail(__FILE__, __LINE__, "no '" + found + "' in '" + text + "' of " + steps.back().kernel);
      CHECK_EQUAL(r, code);
      jtreluEmulatorClear();
      if (!passes) continue;
      auto got = world.y.get();
      for (uint32_t k = 0; k < 128; k++) CHECK_EQUAL(got[k], k + 1);
    }
  jtreluEmulatorSetDelay(0);
}
void clean(const std::vector<Step>& steps, bool passes = false) { run(steps, "", 0, passes); }
void bug(const std::vector<Step>& steps, const std::string& message) {
  run(steps, std::string("error: grid_dependency in ") + steps.back().kernel + ", PTX line ", 719);
  run(steps, message, 719);
}

}  // namespace

TEST(dependent_waits_before_it_reads) {
  for (auto ahead : {"put", "trigger_put", "put_trigger"}) {
    clean({{ahead}, {"await_get", true}}, true);
    clean({{ahead}, {"get_await", false}}, true);  // not early without the attribute
    bug({{ahead}, {"get_await", true}}, std::string("reads what ") + ahead + ", block (");
    clean({{ahead}, {"await_load", true}}, true);
    bug({{ahead}, {"load_await", true}}, "(cp.async.bulk.shared::cluster.global");
    bug({{ahead}, {"store_await", true}}, "(cp.async.bulk.global.shared::cta");
    // One thread waits, and tells the others, or does not.
    clean({{ahead}, {"first_awaits", true}}, true);
    bug({{ahead}, {"first_awaits_alone", true}}, "thread (32,0,0)");
    bug({{ahead}, {"put_await", true}}, "wrote, which may not have ended; griddepcontrol.wait comes first");
    clean({{ahead}, {"await_put", true}});
  }
  bug({{"look"}, {"put_await", true}}, "writes what look, block (");
  clean({{"look"}, {"get_await", true}});  // both read
}

TEST(dependent_chains) {
  // What the kernel before the last one wrote: known where the last one waited before it let this one start.
  clean({{"put"}, {"await_trigger", true}, {"get_await", true}});
  clean({{"put"}, {"only_await", true}, {"get_await", true}});
  clean({{"put"}, {"some_await", true}, {"get_await", true}});  // one block is enough
  bug({{"put"}, {"trigger_await", true}, {"get_await", true}}, "reads what put, block (");
  clean({{"put"}, {"never", false}, {"get_await", true}});
  clean({{"put"}, {"trigger_await", true}, {"await_get", true}}, true);
  // Waiting for one that never waited says nothing of those before it.
  for (auto last : {"await_get", "get_await"})
    run({{"put"}, {"never", true}, {last, true}}, std::string("error: stream_race in ") + last, 0);
  clean({{"put"}, {"never", true}, {"get_await", false}}, true);
  clean({{"put"}, {"never", true}, {"trigger_await", true}, {"await_get", false}}, true);
}

TEST(dependent_only_of_a_kernel_right_ahead) {
  for (uint64_t delay : {0, 1, 2}) {
    jtreluEmulatorSetDelay(delay);
    auto between = [&](const std::function<void(World&)>& what, bool found) {
      jtreluEmulatorClear();
      World world;
      CHECK_EQUAL(world.give({"put"}), 0);
      what(world);
      int r = world.give({"get_await", true});
      if (!r) r = cuStreamSynchronize(world.stream);
      CHECK_EQUAL(r, found ? 719 : 0);
      CHECK(findings().empty() != found);
      jtreluEmulatorClear();
    };
    between([](World&) {}, true);
    between([](World& w) { CHECK_EQUAL(cuMemsetD8Async(w.y.at, 0, 4, w.stream), 0); }, false);
    between([](World& w) { CHECK_EQUAL(cuStreamSynchronize(w.stream), 0); }, false);
    void *event, *other, *graph, *executable;
    CHECK_EQUAL(cuEventCreate(&event, 2), 0);
    CHECK_EQUAL(cuStreamCreate(&other, 1), 0);
    between([&](World& w) { CHECK_EQUAL(cuEventRecord(event, w.stream), 0); }, true);
    between(
        [&](World& w) {
          CHECK_EQUAL(cuEventRecord(event, other), 0);
          CHECK_EQUAL(cuStreamWaitEvent(w.stream, event, 0), 0);
        },
        false);
    CHECK_EQUAL(cuStreamBeginCapture_v2(other, 2), 0);
    CHECK_EQUAL(cuStreamEndCapture(other, &graph), 0);
    CHECK_EQUAL(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
    between([&](World& w) { CHECK_EQUAL(cuGraphLaunch(executable, w.stream), 0); }, false);
    cuGraphExecDestroy(executable), cuGraphDestroy(graph);
    // Another stream has an order of its own.
    jtreluEmulatorClear();
    {
      World world;
      CHECK_EQUAL(world.give({"put"}), 0);
      CHECK_EQUAL(cuEventRecord(event, world.stream), 0);
      CHECK_EQUAL(cuStreamWaitEvent(other, event, 0), 0);
      CHECK_EQUAL(world.give({"get_await", true}, other), 0);
      CHECK_EQUAL(cuStreamSynchronize(other), 0);
      CHECK(findings().empty());
    }
    cuEventDestroy_v2(event), cuStreamDestroy_v2(other);
  }
  jtreluEmulatorSetDelay(0);
}
