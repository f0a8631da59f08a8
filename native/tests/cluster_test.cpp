// Clusters: launches with attributes, what blocks of a cluster do with each other's shared memory, multicast, and planted faults.
#include <array>

#include "hopper.h"

using hopper::bug;
using hopper::clean;
using hopper::clusterOf;

extern "C" {
int cuOccupancyMaxActiveClusters(int*, void*, const CUlaunchConfig*);
int cuOccupancyMaxPotentialClusterSize(int*, void*, const CUlaunchConfig*);
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int*, void*, int, size_t);
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuStreamSynchronize(void*);
int cuStreamBeginCapture_v2(void*, int);
int cuStreamEndCapture(void*, void**);
int cuGraphInstantiateWithFlags(void**, void*, unsigned long long);
int cuGraphLaunch(void*, void*);
int cuGraphGetNodes(void*, void**, size_t*);
int cuGraphExecKernelNodeSetParams_v2(void*, void*, const CUDA_KERNEL_NODE_PARAMS_v2*);
int cuGraphExecDestroy(void*);
int cuGraphDestroy(void*);
}

namespace {

void contains(const std::string& text, const std::string& what) {
  checks++;
  if (text.find(what) == std::string::npos) fail(__FILE__, __LINE__, "no '" + what + "' in " + text);
}

// --- launches ----------------------------------------------------------------------------------------------------

/// Writes the 18 numbers that tell a block where it is, in its place of the grid.
std::string placeKernel(const char* name, const char* directives) {
  std::string ptx =
      std::string(".visible .entry ") + name + "(.param .u64 po) " + directives +
      " {\n.reg .u32 x, y, t; .reg .u64 o; .reg .pred p; ld.param.u64 o, [po]; mov.u32 x, %ctaid.z; mov.u32 y, "
      "%nctaid.y; mov.u32 t, %ctaid.y; mad.lo.u32 x, x, y, t; mov.u32 y, %nctaid.x; mov.u32 t, %ctaid.x; mad.lo.u32 x, "
      "x, y, t; mad.wide.u32 o, x, 72, o;\n";
  int at = 0;
  auto put = [&](const std::string& s) {
    ptx += "mov.u32 x, %" + s + "; st.global.u32 [o+" + std::to_string(4 * at++) + "], x;\n";
  };
  for (auto s : {"clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid", "ctaid"})
    for (auto axis : {".x", ".y", ".z"}) put(std::string(s) + axis);
  put("cluster_ctarank"), put("cluster_nctarank");
  return ptx + "mov.pred p, %is_explicit_cluster; selp.u32 x, 1, 0, p; st.global.u32 [o+68], x;\nret;\n}\n";
}

using Extents = std::array<unsigned, 3>;
CUlaunchConfig configOf(const Extents& grid, unsigned threads, const CUlaunchAttribute* attributes, unsigned count,
                        void* stream = nullptr) {
  return {grid[0], grid[1], grid[2], threads, 1, 1, 0, stream, attributes, count};
}
void checkPlaces(const std::vector<uint32_t>& got, const Extents& grid, const Extents& cluster, bool isExplicit) {
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        const unsigned at[] = {x, y, z};
        const uint32_t* g = &got[((z * grid[1] + y) * grid[0] + x) * 18];
        unsigned rank = 0;
        for (int k = 2; k >= 0; k--) {
          CHECK_EQUAL(g[k], at[k] / cluster[(size_t)k]);
          CHECK_EQUAL(g[3 + k], grid[(size_t)k] / cluster[(size_t)k]);
          CHECK_EQUAL(g[6 + k], at[k] % cluster[(size_t)k]);
          CHECK_EQUAL(g[9 + k], cluster[(size_t)k]);
          CHECK_EQUAL(g[12 + k], at[k]);
          rank = rank * cluster[(size_t)k] + at[k] % cluster[(size_t)k];
        }
        CHECK_EQUAL(g[15], rank);
        CHECK_EQUAL(g[16], cluster[0] * cluster[1] * cluster[2]);
        CHECK_EQUAL(g[17], (uint32_t)isExplicit);
      }
}

const std::string placeKernels = hopper::head + placeKernel("free", "") +
                                 placeKernel("fixed", ".explicitcluster .reqnctapercluster 2, 1, 2") +
                                 placeKernel("must", ".explicitcluster") + placeKernel("most", ".maxclusterrank 4");

}  // namespace

TEST(cluster_places) {
  Hopper device;
  Module m(placeKernels);
  const Extents grid{4, 6, 2};
  for (uint64_t seed : {0, 3}) {
    jtreluEmulatorSetSeed(seed);
    for (const Extents& cluster : {Extents{1, 1, 1}, Extents{2, 1, 1}, Extents{1, 3, 2}, Extents{4, 2, 1}}) {
      Buffer<uint32_t> out(std::vector<uint32_t>(48 * 18));
      const CUlaunchAttribute a = clusterOf(cluster[0], cluster[1], cluster[2]);
      const CUlaunchConfig c = configOf(grid, 1, &a, 1);
      void* arguments[] = {&out.at};
      CHECK_EQUAL(cuLaunchKernelEx(&c, m.function("free"), arguments, nullptr), 0);
      checkPlaces(out.get(), grid, cluster, true);
    }
    // Clusters that the kernel asks for itself need no attribute, nor another call.
    Buffer<uint32_t> out(std::vector<uint32_t>(48 * 18));
    void* arguments[] = {&out.at};
    CHECK_EQUAL(cuLaunchKernel(m.function("fixed"), 4, 6, 2, 1, 1, 1, 0, nullptr, arguments, nullptr), 0);
    checkPlaces(out.get(), grid, {2, 1, 2}, true);
    CHECK_EQUAL(cuLaunchKernel(m.function("free"), 4, 6, 2, 1, 1, 1, 0, nullptr, arguments, nullptr), 0);
    checkPlaces(out.get(), grid, {1, 1, 1}, false);
  }
  jtreluEmulatorSetSeed(0);
  CHECK(findings().empty());
}

TEST(cluster_launch_limits) {
  Hopper device;
  Module m(placeKernels);
  Buffer<uint32_t> out(std::vector<uint32_t>(96 * 18));
  void* arguments[] = {&out.at};
  auto refused = [&](int code, const char* what, const char* kernel, const Extents& grid,
                     std::vector<CUlaunchAttribute> attributes) {
    jtreluEmulatorClear();
    const CUlaunchConfig c = configOf(grid, 1, attributes.data(), (unsigned)attributes.size());
    CHECK_EQUAL(cuLaunchKernelEx(&c, m.function(kernel), arguments, nullptr), code);
    contains(findings(), what);
    jtreluEmulatorClear();
  };
  auto attribute = [](int id, int value) {
    CUlaunchAttribute a{};
    a.id = id;
    a.value.number = value;
    return a;
  };
  refused(912, "3 x 1 x 1 blocks is not divided by clusters of 2 x 1 x 1", "free", {3, 1, 1}, {clusterOf(2)});
  refused(912, "4 x 3 x 1 blocks is not divided", "free", {4, 3, 1}, {clusterOf(2, 2)});
  refused(912, "a cluster of 16 x 1 x 1 blocks; at most 8", "free", {16, 1, 1}, {clusterOf(16)});
  refused(912, "a cluster without blocks", "free", {2, 1, 1}, {clusterOf(2, 0)});
  refused(912, "the kernel requires 2 x 1 x 2", "fixed", {4, 6, 2}, {clusterOf(2, 1, 1)});
  refused(912, "does not say how many blocks", "must", {4, 6, 2}, {});
  refused(912, "at most 4 are allowed by .maxclusterrank", "most", {8, 1, 1}, {clusterOf(8)});
  jtreluEmulatorSetMultiprocessors(1);
  CHECK_EQUAL(cuFuncSetAttribute(m.function("free"), 8, 100 * 1024), 0);
  CUlaunchConfig large = configOf({4, 1, 1}, 1, nullptr, 0);
  const CUlaunchAttribute four = clusterOf(4);
  large.sharedMemBytes = 100 * 1024, large.attrs = &four, large.numAttrs = 1;
  CHECK_EQUAL(cuLaunchKernelEx(&large, m.function("free"), arguments, nullptr), 912);
  contains(findings(), "a cluster of 4 blocks does not fit on the device at once");
  jtreluEmulatorSetMultiprocessors(8);
  refused(801, "attribute 1 is not modelled", "free", {4, 1, 1}, {attribute(1, 0)});
  refused(801, "attribute 8 is not modelled", "free", {4, 1, 1}, {attribute(8, 0)});
  refused(1, "attribute 99 does not exist", "free", {4, 1, 1}, {attribute(99, 0)});
  refused(1, "no such scheduling policy", "free", {4, 1, 1}, {attribute(5, 3)});
  refused(720, "does not fit on the device at once", "free", {100000, 1, 1}, {attribute(2, 1)});
  const CUlaunchConfig null = configOf({2, 1, 1}, 1, nullptr, 1);
  CHECK_EQUAL(cuLaunchKernelEx(&null, m.function("free"), arguments, nullptr), 1);
  CHECK_EQUAL(cuLaunchKernelEx(nullptr, m.function("free"), arguments, nullptr), 1);
  jtreluEmulatorClear();
  // What is allowed: policies, nothing, a cooperative launch of clusters.
  const CUlaunchAttribute fine[] = {attribute(0, 7), attribute(5, 1), attribute(2, 1), clusterOf(2), attribute(6, 0)};
  const CUlaunchConfig c = configOf({4, 2, 1}, 1, fine, 5);
  CHECK_EQUAL(cuLaunchKernelEx(&c, m.function("free"), arguments, nullptr), 0);
  checkPlaces(out.get(), {4, 2, 1}, {2, 1, 1}, true);
  int clusters, blocks;
  CHECK_EQUAL(cuOccupancyMaxActiveClusters(&clusters, m.function("free"), &c), 0);
  CHECK_EQUAL(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, m.function("free"), 1, 0), 0);
  CHECK_EQUAL(clusters, blocks * 8 / 2);
  CHECK_EQUAL(cuOccupancyMaxPotentialClusterSize(&blocks, m.function("free"), &c), 0);
  CHECK_EQUAL(blocks, 8);
  CHECK_EQUAL(cuOccupancyMaxPotentialClusterSize(&blocks, m.function("most"), &c), 0);
  CHECK_EQUAL(blocks, 4);
  CHECK_EQUAL(cuOccupancyMaxPotentialClusterSize(&blocks, m.function("fixed"), &c), 0);
  CHECK_EQUAL(blocks, 4);
  int value;
  const int attributes[][2] = {{10, 1}, {11, 2}, {12, 1}, {13, 2}, {14, 0}};
  for (auto& a : attributes) {
    CHECK_EQUAL(cuFuncGetAttribute(&value, a[0], m.function("fixed")), 0);
    CHECK_EQUAL(value, a[1]);
  }
  CHECK_EQUAL(cuFuncSetAttribute(m.function("free"), 14, 1), 801);
  CHECK_EQUAL(cuFuncSetAttribute(m.function("free"), 14, 0), 0);
  jtreluEmulatorClear();
  jtreluEmulatorSetComputeCapability(8, 0);
  Module old(".visible .entry plain() {\nret;\n}\n");
  const CUlaunchAttribute two = clusterOf(2);
  const CUlaunchConfig pair = configOf({2, 1, 1}, 1, &two, 1);
  CHECK_EQUAL(cuLaunchKernelEx(&pair, old.function("plain"), nullptr, nullptr), 801);
  contains(findings(), "compute capability 9.0");
  jtreluEmulatorClear();
}

// A compiler keeps to .maxntid, however much is alive at once: what it compiled can be launched.
TEST(cluster_registers_are_bounded) {
  Hopper device;
  std::string body;
  for (int i = 0; i < 200; i++)
    body += "ld.global.u32 r" + std::to_string(i) + ", [o+" + std::to_string(4 * i) + "];\n";
  for (int i = 1; i < 200; i++) body += "add.u32 r0, r0, r" + std::to_string(i) + ";\n";
  Module m(hopper::head +
           ".visible .entry many(.param .u64 po) .maxntid 1024 .explicitcluster .reqnctapercluster 2, 1, 1 {\n"
           ".reg .u32 r<200>, x, y; .reg .u64 o; ld.param.u64 o, [po];\n" +
           body +
           "mov.u32 x, %ctaid.x; mov.u32 y, %tid.x; mad.lo.u32 x, x, 1024, y; mad.wide.u32 o, x, 4, o;\n"
           "st.global.u32 [o+800], r0;\nret;\n}\n");
  int registers;
  CHECK_EQUAL(cuFuncGetAttribute(&registers, 4, m.function("many")), 0);
  CHECK_EQUAL(registers, 64);
  Buffer<uint32_t> values(std::vector<uint32_t>(200 + 2048, 3));
  void* arguments[] = {&values.at};
  CHECK_EQUAL(cuLaunchKernel(m.function("many"), 2, 1, 1, 1024, 1, 1, 0, nullptr, arguments, nullptr), 0);
  CHECK_EQUAL(values.get()[200 + 2047], 600u);
  CHECK(findings().empty());
}

TEST(cluster_launches_are_recorded) {
  Hopper device;
  Module m(placeKernels);
  const Extents grid{4, 6, 2};
  for (uint64_t delay : {0, 1, 2}) {
    jtreluEmulatorSetDelay(delay);
    Buffer<uint32_t> out(std::vector<uint32_t>(48 * 18)), other(std::vector<uint32_t>(48 * 18));
    void *stream, *graph, *executable, *node, *arguments[] = {&out.at}, *changed[] = {&other.at};
    CHECK_EQUAL(cuStreamCreate(&stream, 1), 0);
    CHECK_EQUAL(cuStreamBeginCapture_v2(stream, 2), 0);
    const CUlaunchAttribute a = clusterOf(1, 3, 2);
    const CUlaunchConfig c = configOf(grid, 1, &a, 1, stream);
    CHECK_EQUAL(cuLaunchKernelEx(&c, m.function("free"), arguments, nullptr), 0);
    CHECK_EQUAL(cuStreamEndCapture(stream, &graph), 0);
    CHECK_EQUAL(cuGraphInstantiateWithFlags(&executable, graph, 0), 0);
    size_t count = 1;
    CHECK_EQUAL(cuGraphGetNodes(graph, &node, &count), 0);
    CHECK_EQUAL(count, 1u);
    CHECK_EQUAL(cuGraphLaunch(executable, stream), 0);
    CHECK_EQUAL(cuStreamSynchronize(stream), 0);
    checkPlaces(out.get(), grid, {1, 3, 2}, true);
    // Other parameters, the same clusters.
    const CUDA_KERNEL_NODE_PARAMS_v2 p{m.function("free"), 4, 6, 2, 1, 1, 1, 0, changed, nullptr, nullptr, nullptr};
    CHECK_EQUAL(cuGraphExecKernelNodeSetParams_v2(executable, node, &p), 0);
    CHECK_EQUAL(cuGraphLaunch(executable, stream), 0);
    CHECK_EQUAL(cuStreamSynchronize(stream), 0);
    checkPlaces(other.get(), grid, {1, 3, 2}, true);
    const CUDA_KERNEL_NODE_PARAMS_v2 odd{m.function("free"), 4, 5, 2, 1, 1, 1, 0, changed, nullptr, nullptr, nullptr};
    CHECK_EQUAL(cuGraphExecKernelNodeSetParams_v2(executable, node, &odd), 912);
    jtreluEmulatorClear();
    cuGraphExecDestroy(executable), cuGraphDestroy(graph), cuStreamDestroy_v2(stream);
  }
  jtreluEmulatorSetDelay(0);
}

// --- each other's shared memory ----------------------------------------------------------------------------------

namespace {

// Two blocks: `me` of them, the other's `s` at ra and `bar` at rb. Words of this thread at x, of its mirror image at rx in the other block.
const std::string
    both =
        ".shared .align 8 .b64 bar[4]; .shared .align 1024 .b8 s[8192]; .reg .u32 me, n, ra, rb, rx; mov.u32 b, bar; "
        "mov.u32 a, s; mov.u32 me, %cluster_ctarank; xor.b32 n, me, 1; mapa.shared::cluster.u32 ra, a, n; "
        "mapa.shared::cluster.u32 rb, b, n; mad.lo.u32 x, t, 4, a; xor.b32 y, t, 63; mad.lo.u32 rx, y, 4, ra; "
        "mad.lo.u32 u, me, 64, t; mad.wide.u32 w, u, 4, o;",
    meet = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;",
    start = "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;",
    put = "st.shared.u32 [x], u;", store = "st.global.u32 [w], r;", remote = "ld.shared::cluster.u32 r, [rx];";
const hopper::Shape pair{64, 2};

}  // namespace

TEST(cluster_distributed_shared_memory) {
  auto out = clean(both + put + meet + remote + meet + store, pair);
  for (uint32_t i = 0; i < 128; i++) CHECK_EQUAL(out[i], (i < 64 ? 64 : 0) + 63 - i % 64);
  // Written from afar, in two pieces, and added to by everybody.
  out = clean(both + start +
                  "st.shared::cluster.u16 [rx], t; st.shared::cluster.u8 [rx+2], me; st.shared::cluster.u8 "
                  "[rx+3], 0;" +
                  meet + "ld.shared.u32 r, [x];" + store + meet,
              pair);
  for (uint32_t i = 0; i < 128; i++) CHECK_EQUAL(out[i], 63 - i % 64 + (i < 64 ? 0x10000 : 0));
  out = clean(
      both + "mapa.shared::cluster.u32 ra, a, 1; setp.eq.u32 q, me, 1; and.pred q, q, p; @q st.shared.u32 [a], 5;" +
          meet + "red.shared::cluster.add.u32 [ra], 3; atom.relaxed.cluster.shared::cluster.add.u32 y, [ra], 1;" +
          meet + "ld.shared::cluster.u32 r, [ra];" + meet + store,
      pair);
  CHECK(out[0] == 517 && out[100] == 517);
  // Generic addresses; whose they are; vectors.
  out = clean(
      both + "mad.lo.u32 x, t, 16, a; mad.lo.u32 y, u, 10, 1; st.shared.v4.u32 [x], {u, y, me, t};" + meet +
          ".reg .u64 gs, gr; .reg .u32 e<4>; cvt.u64.u32 gs, a; cvta.shared.u64 gs, gs; mapa.u64 gr, gs, n; "
          "mad.wide.u32 gs, t, 16, gr; ld.v4.u32 {e0, e1, e2, e3}, [gs]; getctarank.u64 r, gr; setp.ne.u32 p, r, "
          "n; @p trap; setp.ne.u32 p, e2, n; @p trap; setp.ne.u32 p, e3, t; @p trap; getctarank.shared::cluster.u32 "
          "r, a; setp.ne.u32 p, r, me; @p trap; mapa.shared::cluster.u32 r, ra, me; setp.ne.u32 p, r, a; @p trap; "
          "isspacep.shared::cluster p, gr; @!p trap; isspacep.shared::cta p, gr; @p trap; isspacep.shared p, gr; @p "
          "trap; cvta.to.shared::cluster.u64 gr, gr; cvt.u32.u64 r, gr; setp.ne.u32 p, r, ra; @p trap; mov.u32 r, "
          "e1;" +
          meet + store,
      pair);
  for (uint32_t i = 0; i < 128; i++) CHECK_EQUAL(out[i], ((i + 64) % 128) * 10 + 1);
  // Eight blocks, each of which adds what all have in the order of their ranks; a barrier that not all lanes reach at once.
  out = clean(both + put + "@p barrier.cluster.arrive; @!p barrier.cluster.arrive; barrier.cluster.wait;" +
                  "mov.u32 r, 0; mov.u32 n, 0;\nL: mapa.shared::cluster.u32 rx, x, n; ld.shared::cluster.u32 y, [rx]; "
                  "mad.lo.u32 r, r, 3, y; add.u32 n, n, 1; setp.lt.u32 q, n, 8; @q bra L;" +
                  meet + store,
              {64, 8});
  for (uint32_t i = 0; i < 512; i++) {
    uint32_t sum = 0;
    for (uint32_t k = 0; k < 8; k++) sum = sum * 3 + k * 64 + i % 64;
    CHECK_EQUAL(out[i], sum);
  }
  // Longer than the checkers' clocks: one writes, the other reads, 40,000 times each.
  out = clean(both + start +
                  "mov.u32 n, 0; .reg .u32 turn; mad.lo.u32 rx, t, 4, ra;\nL: and.b32 turn, n, 1; setp.eq.u32 q, turn, "
                  "me; @q st.shared::cluster.u32 "
                  "[rx], n;" +
                  meet + "@!q ld.shared.u32 y, [x]; @!q add.u32 r, r, y;" + meet +
                  "add.u32 n, n, 1; setp.lt.u32 q, n, 40000; @q bra L;" + store,
              {32, 2});
  for (uint32_t i = 0; i < 32; i++) CHECK(out[i] == 400000000 && out[64 + i] == 399980000);
  // A thread that has arrived and ended counts for nothing any more.
  out = clean(both +
                  "sub.u32 n, 3, me; mul.lo.u32 r, n, me; setp.eq.u32 q, r, 0; @q barrier.cluster.arrive; @q exit; "
                  "mapa.shared::cluster.u32 rx, x, n;" +
                  put + meet + remote + meet + store,
              {64, 4});
  for (uint32_t i = 64; i < 192; i++) CHECK_EQUAL(out[i], i < 128 ? i + 64 : i - 64);
  // A block that ends early is not waited for; one that nobody reaches may.
  clean(both + "setp.eq.u32 q, me, 1; @q exit;" + meet, pair);
  // Counters.
  Hopper device;
  jtreluEmulatorCountersClear();
  Buffer<uint32_t> to(std::vector<uint32_t>(4096)), from(std::vector<uint32_t>(4096));
  CHECK_EQUAL(hopper::launch(both + put + meet + remote + meet + "st.shared::cluster.v2.u32 [ra], {r, r};" + meet, pair,
                             to.at, from.at, {}, 0),
              719);  // all write the same value
  contains(text(jtreluEmulatorCountersJson), "\"clusterLoadBytes\":512,\"clusterStoreBytes\":1024,");
  jtreluEmulatorClear();
}

TEST(cluster_faults_in_distributed_shared_memory) {
  // Before the other block has started.
  bug(both + "\nst.shared::cluster.u32 [rx], t;" + meet,
      {"cluster_start", 719, 8, "", "shared", "may not have started"}, pair);
  // Its end: nothing comes after the last access.
  bug(both + put + meet + "\n" + remote + store, {"cluster_exit", 719, 8, "", "shared"}, pair);
  bug(both + start + "\nst.shared::cluster.u32 [rx], t;", {"cluster_exit", 719, 8, "", "shared"}, pair);
  bug(both + start + "\nred.shared::cluster.add.u32 [ra], 1;", {"cluster_exit", 719, 8, "", "shared"}, pair);
  bug(both + put + meet + "setp.eq.u32 q, me, 0; @!q exit; bar.sync 0;\n" + remote + store,
      {"cluster_exit", 719, 8, "", "shared", "block (1,0,0) of its cluster"}, pair);
  // Only one of the two waits for the other.
  clean(both + put + meet + "setp.eq.u32 q, me, 0; @q ld.shared::cluster.u32 r, [rx];" + meet, pair);
  bug(both + put + meet + "setp.eq.u32 q, me, 0; @!q bra E;\n" + remote + "bra F;\nE: " + meet + "F:",
      {"cluster_exit", 719, 8, "", "shared"}, pair);
  // Races: reading before, writing after, both from afar.
  bug(both + put + start + "\n" + remote + meet, {"shared_race", 719, 8, "", "shared", "of block ("}, pair);
  bug(both + put + meet + remote + "\nst.shared.u32 [x], r;" + meet, {"shared_race", 719, 0, "", "shared"}, pair);
  clean(both + put + meet + remote + meet + "st.shared.u32 [x], r;", pair);
  bug(both + start + "st.shared::cluster.u32 [rx], t;\nld.shared.u32 r, [x];" + meet,
      {"shared_race", 719, 0, "", "shared"}, pair);
  bug(both + start + "st.shared::cluster.u32 [rx], t; bar.sync 0;\nst.shared.u32 [x], u;" + meet,
      {"shared_race", 719, 0, "", "shared"}, pair);
  bug(both + start + "mapa.shared::cluster.u32 ra, a, 2;\nst.shared::cluster.u32 [ra], u;" + meet,
      {"shared_race", 719, 8, "", "shared", "wrote"}, {32, 4});
  bug(both + put + meet +
          "mapa.shared::cluster.u32 ra, a, 2; setp.eq.u32 q, me, 0; @q st.shared::cluster.u32 [ra], u;\n"
          "setp.eq.u32 q, me, 1; @q ld.shared::cluster.u32 r, [ra];" +
          meet,
      {"shared_race", 719, 0, "", "shared"}, {32, 4});
  bug(both + start + "\nld.shared::cluster.u32 r, [rx];" + meet, {"uninitialised", 719, 8, "", "shared"}, pair);
  // Read from afar, and written again by its own block, with no order between: by a thread, and by a copy.
  const std::string
      readFirst = both + "@p mbarrier.init.shared.b64 [b+8], 1; @p fence.mbarrier_init.release.cluster;" + put +
                  "fence.proxy.async.shared::cta;" + meet + "setp.eq.u32 q, me, 1; @q ld.shared::cluster.u32 r, [rx];",
      overwrite = "setp.eq.u32 q, me, 0; add.u32 u, u, 9; @q st.shared.u32 [x], u;",
      refill =
          "setp.eq.u32 q, me, 0; and.pred q, q, p; @q mbarrier.arrive.expect_tx.shared.b64 _, [b+8], 256; @q "
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [i], 256, [b+8]; @!q bra E; "
          "V: mbarrier.try_wait.parity.shared.b64 q, [b+8], 0; @!q bra V; E: bar.warp.sync -1; ";
  for (auto& write : {overwrite, refill}) {
    clean(readFirst + meet + write + meet, pair);
    bug(readFirst + start + "\n" + write + meet, {"shared_race", 719, 8, "(0,0,0)", "shared", "of block (1,0,0) read"},
        pair);
  }
  // Written from afar, and read by the asynchronous proxy: a proxy fence of who wrote it, or of who goes on.
  const std::string
      far = both + start + "setp.eq.u32 q, me, 1; @q st.shared::cluster.u32 [rx], u;",
      fence = "fence.proxy.async;",
      out =
          "setp.eq.u32 q, me, 0; and.pred q, q, p; @q cp.async.bulk.global.shared::cta.bulk_group [o], [a], 256; @q "
          "cp.async.bulk.commit_group; @q cp.async.bulk.wait_group 0;";
  clean(far + fence + meet + out + meet, pair);
  clean(far + meet + fence + out + meet, pair);
  bug(far + meet + "\n" + out + meet, {"missing_proxy_fence", 719, 8, "(0,0,0)", "shared", "of block (1,0,0) wrote"},
      pair);
  bug(far + fence + start + "\n" + out + meet, {"shared_race", 719, 8, "(0,0,0)", "shared", "of block (1,0,0) wrote"},
      pair);
  // Found also after the checkers' clocks have begun again.
  bug(both + meet + "mov.u32 n, 0; L: " + meet + meet + "add.u32 n, n, 1; setp.lt.u32 q, n, 34000; @q bra L;" +
          "setp.eq.u32 q, me, 1; @q st.shared::cluster.u32 [ra], u;" + start +
          "\nsetp.eq.u32 q, me, 0; @q ld.shared.u32 r, [a];" + meet,
      {"shared_race", 719, 8, "", "shared", "of block (1,0,0) wrote"}, {1, 2});
  // A relaxed arrival hands nothing over, unless a fence came before.
  bug(both + put + start + "\n" + remote + meet, {"shared_race", 719, 8, "", "shared"}, pair);
  clean(both + put + "fence.acq_rel.cluster;" + start + remote + meet, pair);
  bug(both + put + "fence.acq_rel.cta;" + start + "\n" + remote + meet, {"shared_race", 719, 8, "", "shared"}, pair);
  // Addresses that are none.
  bug(both + meet + "\nmapa.shared::cluster.u32 r, a, 2;", {"cluster_rank", 700, 8, "", "shared"}, pair);
  bug(both + meet + "\nld.shared.u32 r, [ra];", {"out_of_bounds", 700, 8, "", "shared", "by .shared::cluster"}, pair);
  bug(both + meet + "\nld.shared::cluster.u32 r, [ra+8192];", {"out_of_bounds", 700, 8, "", "shared"}, pair);
  bug(both + meet + "\nld.shared::cluster.u32 r, [ra+2];", {"misaligned", 716, 8, "", "shared"}, pair);
  bug(both + meet + "add.u32 ra, a, 0x3000000;\nld.shared::cluster.u32 r, [ra];",
      {"out_of_bounds", 700, 8, "", "shared", "no block 2 in a cluster of 2"}, pair);
  bug(both + meet + "\nmapa.u64 w, o, n;", {"out_of_bounds", 700, 8, "", "generic", "outside of shared memory"}, pair);
  // Global memory that the barrier hands over, and a relaxed one does not.
  const std::string publish = both + "mad.wide.u32 w, u, 4, o; st.global.u32 [w], u;",
                    look = "xor.b32 y, u, 64; mad.wide.u32 w, y, 4, o;\nld.global.u32 r, [w];";
  clean(publish + meet + look, pair);
  bug(publish + start + look, {"global_race", 719, 8, "", "global"}, pair);
}

TEST(cluster_barrier_faults) {
  bug(both + "\nbarrier.cluster.arrive; barrier.cluster.arrive; barrier.cluster.wait;",
      {"cluster_barrier", 719, 8, "", "", "again"}, pair);
  bug(both + meet + "\nbarrier.cluster.wait;", {"cluster_barrier", 719, 8, "", "", "without having arrived"}, pair);
  bug(both + "\n@p barrier.cluster.arrive.aligned; @!p barrier.cluster.arrive; barrier.cluster.wait;",
      {"divergent_barrier", 719, 8, "(0,0,0)", "", "reached by 1 of 32"}, pair);
  bug(both +
          "setp.eq.u32 q, me, 0; barrier.cluster.arrive; @q bra E;\nbarrier.cluster.wait; bra F;\nE: bar.sync 1, 96; "
          "F:",
      {"deadlock", 702, 0, "", "", "no thread of the cluster can go on"}, pair);
  bug(both + "setp.eq.u32 q, me, 0; @q bra E;\n" + meet + "bra F;\nE: bar.sync 1, 96;\nF:",
      {"deadlock", 702, 0, "", "", ""}, pair);
}

// --- mbarriers of other blocks -----------------------------------------------------------------------------------

namespace {

const std::string initialise =
                      "@p mbarrier.init.shared.b64 [b], 64; @p mbarrier.init.shared.b64 [b+8], 1; @p "
                      "fence.mbarrier_init.release.cluster;",
                  wait = "W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 q, [b], 0; @!q bra W;",
                  waitOne = "V: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 q, [b+8], 0; @!q bra V;",
                  arrive = "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [rb];";

}  // namespace

TEST(cluster_remote_mbarriers) {
  // All threads of a block write to the other one, and arrive at its mbarrier; nobody needs to meet in the end.
  auto out = clean(
      both + initialise + start + "st.shared::cluster.u32 [rx], u;" + arrive + wait + "ld.shared.u32 r, [x];" + store,
      pair);
  for (uint32_t i = 0; i < 128; i++) CHECK_EQUAL(out[i], (i < 64 ? 64 : 0) + 63 - i % 64);
  // Counts, without a destination, and bytes that are expected from afar.
  clean(both + initialise + start + "@p mbarrier.arrive.release.cluster.shared::cluster.b64 _, [rb], 64;" + wait, pair);
  clean(both + initialise + start +
            "@p mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [rb+8], 16; @p "
            "mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [rb+8], 48; @p "
            "mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [rb+8], 64;" +
            waitOne + meet,
        pair);
  // Stores that the mbarrier of the other block completes.
  const std::string expects = "@p mbarrier.arrive.expect_tx.shared.b64 _, [b+8], 256;",
                    later = "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [rx], u, [rb+8];";
  out = clean(both + initialise + start + expects + later + waitOne + "ld.shared.u32 r, [x];" + store, pair);
  for (uint32_t i = 0; i < 128; i++) CHECK_EQUAL(out[i], (i < 64 ? 64 : 0) + 63 - i % 64);
  out = clean(both + initialise + start +
                  "@p mbarrier.arrive.expect_tx.shared.b64 _, [b+8], 1024; mad.lo.u32 rx, t, 16, ra; "
                  "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [rx], {t, u, me, n}, [rb+8];" +
                  waitOne + "mad.lo.u32 x, t, 16, a; ld.shared.u32 r, [x+4];" + store,
              pair);
  for (uint32_t i = 0; i < 128; i++) CHECK_EQUAL(out[i], i ^ 64);
  // A bulk copy from block to block; the source is free when the other one has told so.
  out = clean(both + initialise + put + "fence.proxy.async.shared::cta;" + meet + "bar.sync 0;" + expects +
                  "add.u32 r, ra, 1024;\n@p cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
                  "[r], [a], 256, "
                  "[rb+8];" +
                  waitOne + "ld.shared.u32 r, [x+1024];" + meet + "st.shared.u32 [x], 0;" + store,
              pair);
  for (uint32_t i = 0; i < 128; i++) CHECK_EQUAL(out[i], i ^ 64);
}

TEST(cluster_faults_of_remote_mbarriers) {
  const std::string begin = both + initialise + start, write = "st.shared::cluster.u32 [rx], u;",
                    expects = "@p mbarrier.arrive.expect_tx.shared.b64 _, [b+8], 256;",
                    later = "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [rx], u, [rb+8];",
                    read = "ld.shared.u32 r, [x];";
  // Not there yet, not known to be.
  bug(both + initialise + "bar.sync 0;\n" + arrive + meet, {"cluster_start", 719, 8, "", "shared"}, pair);
  bug(both + "@p mbarrier.init.shared.b64 [b], 64;" + start + "\n" + arrive + wait,
      {"mbarrier_not_visible", 719, 8, "", "shared", "of block ("}, pair);
  clean(both + "@p mbarrier.init.shared.b64 [b], 64;" + meet + arrive + wait, pair);
  bug(both + start + "\n" + arrive, {"mbarrier_invalid", 719, 8, "", "shared"}, pair);
  // Handed over without arriving after it, without waiting, or without order.
  bug(begin + arrive + write + wait + "\n" + read + meet, {"shared_race", 719, 0, "", "shared"}, pair);
  bug(begin + write + arrive + "\n" + read + wait, {"shared_race", 719, 8, "", "shared"}, pair);
  bug(begin + write + "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [rb];" + wait + "\n" + read + meet,
      {"shared_race", 719, 8, "", "shared"}, pair);
  clean(begin + write + "fence.acq_rel.cluster; mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [rb];" + wait +
            read + meet,
        pair);
  const std::string seen = "W: mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 q, [b], 0; @!q bra W;";
  bug(begin + write + arrive + seen + "\n" + read + meet, {"shared_race", 719, 8, "", "shared"}, pair);
  clean(begin + write + arrive + seen + "fence.acq_rel.cluster;" + read + meet, pair);
  // Arrivals that the block does not wait for, and may have ended before.
  bug(begin + "\n" + arrive, {"cluster_exit", 719, 8, "", "shared"}, pair);
  clean(begin + arrive + meet, pair);
  bug(begin + "\n" + arrive + arrive + meet, {"mbarrier_phase", 719, 8, "", "shared"}, pair);
  bug(begin + "\n@p mbarrier.arrive.shared.b64 _, [rb];", {"out_of_bounds", 700, 8, "", "shared"}, pair);
  bug(begin + "setp.eq.u32 q, me, 0; @q exit;\n" + wait, {"deadlock", 702, 8, "", "", "lacks 64 of 64 arrivals"}, pair);
  // st.async: read or written before it is known, ended before, into the wrong block.
  bug(begin + expects + later + "\n" + read + waitOne, {"async_copy_pending", 719, 8, "", "shared", "st.async"}, pair);
  bug(begin + expects + later + meet + "\nst.shared.u32 [x], t;" + waitOne,
      {"async_copy_pending", 719, 8, "", "shared", "st.async"}, pair);
  bug(begin + expects + "\n" + later, {"async_copy_unfinished", 719, 8, "", "shared"}, pair);
  bug(begin + expects + "\nst.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [rx], u, [b+8];",
      {"cluster_mbarrier", 719, 8, "", "shared"}, pair);
  bug(begin + put + "bar.sync 0;" + expects + "\n" + later + waitOne, {"shared_race", 719, 8, "", "shared"}, pair);
  // A bulk copy from block to block: its source and destination in use, no proxy fence, an end that comes too soon.
  const std::string
      fill = both + initialise + put,
      out = "fence.proxy.async.shared::cta;" + meet + "bar.sync 0;" + expects + "add.u32 r, ra, 1024;",
      send = "@p cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [r], [a], 256, [rb+8];";
  clean(fill + out + send + waitOne + meet, pair);
  bug(fill + out + "\n" + send + waitOne, {"async_copy_unfinished", 719, 8, "(0,0,0)", "shared", "to another block"},
      pair);
  bug(fill + out + send + "\nst.shared.u32 [x], 0;" + waitOne + meet,
      {"async_copy_pending", 719, 8, "", "shared", "to another block"}, pair);
  bug(fill + meet + "bar.sync 0;" + expects + "add.u32 r, ra, 1024;\n" + send + waitOne + meet,
      {"missing_proxy_fence", 719, 8, "(0,0,0)", "shared"}, pair);
  bug(fill + "fence.proxy.async.shared::cta; st.shared.u32 [x+1024], t;" + meet + "bar.sync 0;" + expects +
          "add.u32 r, ra, 1024;\n" + send + waitOne + meet,
      {"missing_proxy_fence", 719, 8, "(0,0,0)", "shared", "of block ("}, pair);
}

// --- multicast ---------------------------------------------------------------------------------------------------

namespace {

const std::string expect256 = "@p mbarrier.arrive.expect_tx.shared.b64 _, [b+8], 256;",
                  first = "setp.eq.u32 q, me, 0; and.pred q, q, p; mov.b16 h, 3;", read = "ld.shared.u32 r, [x];";
std::string multicast(const char* to, const char* from, const char* bytes, const char* barrier = "b+8") {
  return std::string("@q cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [") + to +
         "], [" + from + "], " + bytes + ", [" + barrier + "], h;";
}

}  // namespace

TEST(cluster_multicast) {
  std::vector<uint32_t> in(4096);
  for (uint32_t i = 0; i < 4096; i++) in[i] = i * 2654435761u;
  // One block loads for both.
  auto out = clean(both + initialise + start + expect256 + first + multicast("a", "i", "256") + waitOne + read + store,
                   pair, {}, in);
  for (uint32_t k = 0; k < 128; k++) CHECK_EQUAL(out[k], in[k % 64]);
  // Each loads its half for both, to the same offset.
  out = clean(both + initialise + start + expect256 +
                  "mov.pred q, p; mov.b16 h, 3; mul.wide.u32 w, me, 128; add.u64 i, i, w; mad.lo.u32 y, me, 128, a; "
                  "mad.wide.u32 w, u, 4, o;" +
                  multicast("y", "i", "128") + waitOne + read + store + meet,
              pair, {}, in);
  for (uint32_t k = 0; k < 128; k++) CHECK_EQUAL(out[k], in[k % 64]);
  // For some of four blocks, the one that asks not among them; without multicast, for another one.
  out = clean(both + initialise + start + "shr.u32 y, 12, me; and.b32 y, y, 1; setp.eq.u32 q, y, 1; @!q bra E;" +
                  expect256 + "E: " + first + "mov.b16 h, 12;" + multicast("a", "i", "256") +
                  "@!q bra F;\nF: setp.lt.u32 q, me, 2; @q bra G;" + waitOne + read + store + "G: " + meet,
              {64, 4}, {}, in);
  for (uint32_t k = 0; k < 256; k++) CHECK_EQUAL(out[k], k < 128 ? 0 : in[k % 64]);
  out = clean(both + initialise + start + expect256 +
                  "@p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [ra], [i], 256, [rb+8];" +
                  waitOne + read + store + meet,
              pair, {}, in);
  for (uint32_t k = 0; k < 128; k++) CHECK_EQUAL(out[k], in[k % 64]);
}

TEST(cluster_multicast_of_tensors) {
  Hopper device;
  std::vector<uint16_t> tensor(64 * 32);
  for (size_t k = 0; k < tensor.size(); k++) tensor[k] = (uint16_t)(k * 40503);
  Buffer<uint16_t> global(tensor);
  EncodedMap tiled, column;
  const uint64_t extents[] = {64, 32}, strides[] = {128};
  const unsigned box[] = {64, 16}, ones[] = {1, 1, 1, 1};
  CHECK_EQUAL(cuTensorMapEncodeTiled(&tiled, 9, 2, (void*)global.at, extents, strides, box, ones, 0, 3, 0, 0), 0);
  const uint64_t pixels[] = {64, 4, 4, 2}, pitches[] = {128, 512, 2048};
  const int corner[] = {0, 0};
  CHECK_EQUAL(cuTensorMapEncodeIm2col(&column, 9, 4, (void*)global.at, pixels, pitches, corner, corner, 64, 16, ones, 0,
                                      3, 0, 0),
              0);
  const std::string
      begin = both + initialise + start + "@p mbarrier.arrive.expect_tx.shared.b64 _, [b+8], 2048;" + first,
      words =
          "mov.u32 y, 0;\nL: mad.lo.u32 x, y, 256, a; mad.lo.u32 x, t, 4, x; ld.shared.u32 r, [x]; mad.lo.u32 "
          "x, me, 512, t; mad.lo.u32 x, y, 64, x; mad.wide.u32 w, x, 4, o; st.global.u32 [w], r; add.u32 "
          "y, y, 1; setp.lt.u32 q, y, 8; @q bra L;",
      load =
          "@q cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::"
          "cluster [a], [m, {0, 8}], [b+8], h;",
      gather =
          "mov.u64 w, 0; .reg .b16 z; mov.b16 z, 0; @q "
          "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes.multicast::"
          "cluster.L2::cache_hint [a], [m, {0, 0, 2, 0}], [b+8], {z, z}, h, w;";
  for (bool im2col : {false, true}) {
    auto out = clean(begin + (im2col ? gather : load) + waitOne + words, pair, im2col ? column : tiled);
    for (uint32_t k = 0; k < 1024; k++) {
      const uint32_t at = k % 512 * 4, row = at / 128, piece = at / 16 % 8 ^ row % 8,
                     source = (8 + row) * 64 + piece * 8 + at % 16 / 2;
      CHECK_EQUAL(out[k], tensor[source] | (uint32_t)tensor[source + 1] << 16);
    }
  }
  // What arrives in two blocks is asked for once.
  Hopper again;
  jtreluEmulatorCountersClear();
  Buffer<uint32_t> to(std::vector<uint32_t>(4096)), from(std::vector<uint32_t>(4096));
  CHECK_EQUAL(hopper::launch(begin + load + waitOne, pair, to.at, from.at, tiled, 0), 0);
  const std::string counters = text(jtreluEmulatorCountersJson);
  for (auto what : {"\"bulkLoads\":1,", "\"bulkLoadBytes\":4096,", "\"globalLoadSectors\":64,",
                    "\"secondLevelBytes\":2048,", "\"multicastSavedBytes\":2048,"})
    contains(counters, what);
}

/// Every block of a cluster sends a piece to some of them, by multicast; each gets what was meant for it, where it belongs.
CASE(cluster_exchange) {
  Hopper device;
  const unsigned blocks = (unsigned)between(random, 1, 8), bytes = 16u * (unsigned)between(random, 1, 32),
                 words = bytes / 4;
  std::vector<uint32_t> plan(64), data(blocks * words);  // masks, then the bytes that each block gets
  for (unsigned r = 0; r < blocks; r++) {
    plan[r] = 1 + random() % ((1u << blocks) - 1);
    for (unsigned k = 0; k < blocks; k++) plan[32 + k] += plan[r] >> k & 1 ? bytes : 0;
  }
  for (auto& x : data) x = random();
  Module m(
      hopper::head +
      ".visible .entry k(.param .u64 po, .param .u64 pi, .param .u64 pp, .param .u32 pb) {\n.shared .align 8 .b64 bar; "
      ".shared .align 16 .b8 s[4096]; .reg .u32 t, me, n, a, b, x, y, z, bytes; .reg .u64 o, i, l, w; .reg .b16 h; "
      ".reg "
      ".pred p, q; mov.u32 t, %tid.x; mov.u32 me, %cluster_ctarank; mov.u32 n, %cluster_nctarank; mov.u32 a, s; "
      "mov.u32 "
      "b, bar; ld.param.u64 o, [po]; ld.param.u64 i, [pi]; ld.param.u64 l, [pp]; ld.param.u32 bytes, [pb]; setp.eq.u32 "
      "p, "
      "t, 0;\nmad.wide.u32 w, me, 4, l; ld.global.u32 x, [w]; cvt.u16.u32 h, x; ld.global.u32 y, [w+128]; "
      "setp.ne.and.u32 "
      "q, y, 0, p; @p mbarrier.init.shared.b64 [b], 1; @p fence.mbarrier_init.release.cluster;\n" +
      start +
      "\n@p mbarrier.arrive.expect_tx.shared.b64 _, [b], y; mad.lo.u32 x, me, bytes, a; mul.lo.u32 z, me, bytes; "
      "cvt.u64.u32 w, z; add.u64 w, w, i;\n@p "
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [x], [w], bytes, [b], h;\n"
      "W: mbarrier.try_wait.parity.shared.b64 q, [b], 0; @!q bra W;\nmov.u32 x, 0; mul.lo.u32 y, n, bytes; mul.lo.u32 "
      "z, "
      "me, y; cvt.u64.u32 w, z; add.u64 o, o, w;\nL: setp.ge.u32 q, x, n; @q bra E; mad.wide.u32 w, x, 4, l; "
      "ld.global.u32 "
      "y, [w]; shr.u32 y, y, me; and.b32 y, y, 1; setp.eq.u32 q, y, 0; @q bra N; mad.lo.u32 z, t, 4, 0;\nK: "
      "setp.ge.u32 q, "
      "z, bytes; @q bra N; mad.lo.u32 y, x, bytes, z; cvt.u64.u32 w, y; add.u64 w, w, o; add.u32 y, y, a; "
      "ld.shared.u32 y, "
      "[y]; st.global.u32 [w], y; add.u32 z, z, 256; bra K;\nN: add.u32 x, x, 1; bra L;\nE:" +
      meet + "\nret;\n}\n");
  Buffer<uint32_t> out(std::vector<uint32_t>(blocks * blocks * words)), in(data), how(plan);
  unsigned each = bytes;
  void* arguments[] = {&out.at, &in.at, &how.at, &each};
  const CUlaunchAttribute cluster = clusterOf(blocks);
  const CUlaunchConfig c{blocks, 1, 1, 64, 1, 1, 0, nullptr, &cluster, 1};
  const int code = cuLaunchKernelEx(&c, m.function("k"), arguments, nullptr);
  if (code || !findings().empty()) fail(__FILE__, __LINE__, findings());
  auto got = out.get();
  for (unsigned r = 0; r < blocks; r++)
    for (unsigned k = 0; k < blocks; k++)
      for (unsigned j = 0; j < words; j++)
        CHECK_EQUAL(got[(r * blocks + k) * words + j], plan[k] >> r & 1 ? data[k * words + j] : 0u);
}
TEST(cluster_multicast_to_any_blocks) {
  Random random(7);
  for (int round = 0; round < 60; round++) {
    jtreluEmulatorSetSeed((uint64_t)(round % 4));
    cluster_exchange(random);
  }
}

TEST(cluster_multicast_faults) {
  const std::string begin = both + initialise + start, load = multicast("a", "i", "256");
  clean(begin + expect256 + first + load + waitOne + meet, pair);
  // Blocks that are not there: not yet, no longer, not at all.
  bug(both + initialise + "bar.sync 0;" + expect256 + first + "\n" + load + waitOne + meet,
      {"cluster_start", 719, 8, "(0,0,0)", "shared"}, pair);
  bug(begin + expect256 + "setp.eq.u32 q, me, 1; @q exit;" + first + "\n" + load + waitOne,
      {"cluster_exit", 719, 8, "(0,0,0)", "shared", "block (1,0,0) of its cluster"}, pair);
  bug(begin + expect256 + first + "mov.b16 h, 5;\n" + load + waitOne + meet,
      {"out_of_bounds", 700, 8, "(0,0,0)", "shared", "no block 2"}, pair);
  bug(begin + first + "mov.b16 h, 0;\n" + load + meet, {"cluster_mask", 719, 8, "(0,0,0)", "shared"}, pair);
  // Its mbarrier: not at the same offset, not fenced, without the bytes, in another block.
  bug(both +
          "setp.eq.u32 q, me, 0; and.pred q, q, p; @q mbarrier.init.shared.b64 [b+8], 1; "
          "fence.mbarrier_init.release.cluster;" +
          start + first + "\n" + load + meet,
      {"mbarrier_invalid", 719, 8, "(0,0,0)", "shared"}, pair);
  bug(both + "@p mbarrier.init.shared.b64 [b+8], 1;" + meet + expect256 + first + "\n" + load + waitOne + meet,
      {"missing_proxy_fence", 719, 8, "(0,0,0)", "shared"}, pair);
  bug(begin + "@!p bra E; setp.eq.u32 q, me, 0; @!q bra E;" + expect256 + "E: " + first + "\n" + load +
          "setp.eq.u32 q, me, 1; @q bra F;" + waitOne + "F: " + meet,
      {"mbarrier_transactions", 719, 0, "", "shared", "has got 256 bytes that nothing expected"}, pair);
  bug(begin + expect256 +
          "\n@p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [ra], [i], 256, [b+8];" + waitOne +
          meet,
      {"cluster_mbarrier", 719, 8, "(0,0,0)", "shared"}, pair);
  // Its memory: read or written by the neighbour, with nothing that says so; written without a proxy fence.
  const std::string fill = both + initialise + put;
  clean(fill + "fence.proxy.async.shared::cta;" + meet + expect256 + first + load + waitOne + meet, pair);
  bug(fill + meet + expect256 + first + "\n" + load + waitOne + meet,
      {"missing_proxy_fence", 719, 8, "(0,0,0)", "shared"}, pair);
  bug(fill + "fence.proxy.async.shared::cta; bar.sync 0;" + start + expect256 + first + "\n" + load + waitOne + meet,
      {"shared_race", 719, 8, "(0,0,0)", "shared", "of block (1,0,0) wrote"}, pair);
  bug(begin + expect256 + first + load + waitOne + read + "bar.sync 0;\n" + load + meet,
      {"async_copy_pending", 719, 8, "(0,0,0)", "shared"}, pair);
  bug(begin + expect256 + first + load + "\n" + read + waitOne + meet, {"async_copy_pending", 719, 8, "", "shared"},
      pair);
  // A second round into the same place: the neighbour says when it has read.
  const std::string
      again = "@p mbarrier.arrive.expect_tx.shared.b64 _, [b+8], 256;",
      wait2 = "U: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 q, [b+8], 1; @!q bra U;",
      empty = "mapa.shared::cluster.u32 rb, b, 0; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [rb];";
  const std::string both2 = both +
                            "@p mbarrier.init.shared.b64 [b], 128; @p mbarrier.init.shared.b64 [b+8], 1; @p "
                            "fence.mbarrier_init.release.cluster;" +
                            start + expect256 + first + load + waitOne + read;
  clean(both2 + again + empty + "setp.eq.u32 q, me, 1; @q bra S;" + wait + "S: " + first + load + wait2 + meet, pair);
  bug(both2 + again +
          "mapa.shared::cluster.u32 rb, b, 0; mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [rb]; setp.eq.u32 "
          "q, me, 1; @q "
          "bra S;" +
          wait + "S: " + first + "\n" + load + wait2 + meet,
      {"shared_race", 719, 8, "(0,0,0)", "shared", "read, with no barrier between"}, pair);
}
