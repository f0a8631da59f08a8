// mbarriers and bulk copies of sm_90: what they do, against models written down here, and planted faults with their clean twins.
#include <array>
#include <random>

#include "hopper.h"

using hopper::bug;
using hopper::clean;

namespace {

const std::string memory =
    ".shared .align 8 .b64 bar[4]; .shared .align 1024 .b8 s[8192]; mov.u32 b, bar; mov.u32 a, s;";
const std::string initialise =
    "@p mbarrier.init.shared.b64 [b], 1; @p fence.mbarrier_init.release.cluster; bar.sync 0;";
const std::string expect256 = "@p mbarrier.arrive.expect_tx.shared.b64 _, [b], 256;";
const std::string load = "@p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [i], 256, [b];";
const std::string wait = "W: mbarrier.try_wait.parity.shared.b64 q, [b], 0; @!q bra W;";
const std::string use = "mad.lo.u32 x, t, 4, a; ld.shared.u32 r, [x]; mad.wide.u32 w, t, 4, o; st.global.u32 [w], r;";

}  // namespace

// --- mbarriers ---------------------------------------------------------------------------------------------------

TEST(async_mbarrier_hands_over) {
  // Warp 0 writes ten rounds into two buffers, warp 1 sums what it reads: a ring of full and empty mbarriers.
  auto out = clean(
      memory +
      "@p mbarrier.init.shared.b64 [b], 32; @p mbarrier.init.shared.b64 [b+8], 32; @p mbarrier.init.shared.b64 [b+16], "
      "32; "
      "@p mbarrier.init.shared.b64 [b+24], 32; bar.sync 0;\n"
      "mov.u32 y, 0; setp.ge.u32 q, t, 32; .reg .u32 stage, parity, full, empty, slot; .reg .pred k; @q bra CONSUMER;\n"
      "L: and.b32 stage, y, 1; shr.u32 parity, y, 1; and.b32 parity, parity, 1; xor.b32 parity, parity, 1; mad.lo.u32 "
      "full, "
      "stage, 8, b; add.u32 empty, full, 16; mad.lo.u32 slot, stage, 128, a; mad.lo.u32 slot, t, 4, slot;\n"
      "E: mbarrier.try_wait.parity.shared.b64 k, [empty], parity; @!k bra E;\n"
      "mad.lo.u32 x, y, 100, t; st.shared.u32 [slot], x; mbarrier.arrive.shared.b64 _, [full]; add.u32 y, y, 1; "
      "setp.lt.u32 k, "
      "y, 10; @k bra L; bra END;\n"
      "CONSUMER: sub.u32 t, t, 32; xor.b32 u, t, 31;\n"
      "M: and.b32 stage, y, 1; shr.u32 parity, y, 1; and.b32 parity, parity, 1; mad.lo.u32 full, stage, 8, b; add.u32 "
      "empty, "
      "full, 16; mad.lo.u32 slot, stage, 128, a; mad.lo.u32 slot, u, 4, slot;\n"
      "F: mbarrier.try_wait.parity.shared.b64 k, [full], parity; @!k bra F;\n"
      "ld.shared.u32 x, [slot]; add.u32 r, r, x; mbarrier.arrive.shared.b64 _, [empty]; add.u32 y, y, 1; setp.lt.u32 "
      "k, y, 10; "
      "@k bra M; mad.wide.u32 w, t, 4, o; st.global.u32 [w], r;\nEND:");
  for (uint32_t t = 0; t < 32; t++) CHECK_EQUAL(out[t], 4500 + 10 * (31 - t));
}

TEST(async_mbarrier_states_and_counts) {
  // By state instead of parity; counts; a thread that drops out; the pending count.
  auto out = clean(
      memory +
      "@p mbarrier.init.shared.b64 [b], 66; bar.sync 0; .reg .b64 state;\n"
      "mbarrier.arrive.noComplete.shared.b64 state, [b], 1; mbarrier.pending_count.b64 r, state; bar.sync 0; "
      "setp.gt.u32 q, r, 66; "
      "@q trap; setp.lt.u32 q, r, 3; @q trap;\n"
      "@p mbarrier.arrive_drop.shared.b64 state, [b], 2; W: mbarrier.test_wait.shared.b64 q, [b], state; @!q bra W;\n"
      // 64 arrivals are left from now on
      "mbarrier.arrive.release.cta.shared::cta.b64 state, [b]; V: mbarrier.try_wait.shared::cta.b64 q, [b], state, "
      "1000; "
      "@!q bra V; mad.wide.u32 w, t, 4, o; st.global.u32 [w], t;\n"
      "bar.sync 0; @p mbarrier.inval.shared.b64 [b]; @p st.shared.u32 [b], r; @p ld.shared.u32 r, [b];");
  CHECK_EQUAL(out[63], 63u);
  // Transactions without copies, and a generic address.
  clean(memory +
        "@p mbarrier.init.shared.b64 [b], 1; bar.sync 0; cvt.u64.u32 w, b; cvta.shared.u64 w, w; @p "
        "mbarrier.expect_tx.b64 [w], "
        "100; @p mbarrier.arrive.b64 _, [w]; @p mbarrier.complete_tx.shared.b64 [b], 60; @p "
        "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [b], 40;" +
        wait);
}

TEST(async_mbarrier_faults) {
  const std::string start = memory + "@p mbarrier.init.shared.b64 [b], 64; bar.sync 0;\n";
  clean(start + "mbarrier.arrive.shared.b64 _, [b];" + wait);
  bug(memory + "\nmbarrier.arrive.shared.b64 _, [b];", {"mbarrier_invalid", 719, 8, "(0,0,0)", "shared"});
  bug(memory + "\n@p mbarrier.init.shared.b64 [b], 0;", {"mbarrier_arrivals", 719, 8, "(0,0,0)", "shared"});
  bug(memory + "\n@p mbarrier.init.shared.b64 [b+4], 1;", {"misaligned", 716, 8, "(0,0,0)", "shared"});
  bug(memory + "\n@p mbarrier.init.shared.b64 [b+100000], 1;", {"out_of_bounds", 700, 8, "(0,0,0)", "shared"});
  bug(start + "@p mbarrier.init.shared.b64 [b], 1;", {"mbarrier_accessed", 719, 8, "(0,0,0)", "shared"});
  bug(start + "@p mbarrier.inval.shared.b64 [b]; @p mbarrier.arrive.shared.b64 _, [b];",
      {"mbarrier_invalid", 719, 8, "(0,0,0)", "shared"});
  bug(start + "ld.shared.u32 r, [b+4];", {"mbarrier_accessed", 719, 8, "", "shared", "reads an mbarrier"});
  bug(start + "@p st.shared.u32 [b], r;", {"mbarrier_accessed", 719, 8, "(0,0,0)", "shared", "writes an mbarrier"});
  // Nothing tells the others that it is there.
  bug(memory +
          "@p mbarrier.init.shared.b64 [b], 32; setp.ge.u32 q, t, 32; @!q bra E;\nmbarrier.arrive.shared.b64 _, "
          "[b];\nE:",
      {"mbarrier_not_visible", 719, 8, "", "shared", "thread (0,0,0) initialised"});
  bug(start + "mbarrier.arrive.shared.b64 _, [b], 3;", {"mbarrier_arrivals", 719, 8, "", "shared"});
  bug(start + "@p mbarrier.arrive.noComplete.shared.b64 _, [b], 64;", {"mbarrier_phase", 719, 8, "(0,0,0)", "shared"});
  // A second phase before anybody has looked at the first.
  bug(start + "mbarrier.arrive.shared.b64 _, [b]; bar.sync 0; mbarrier.arrive.shared.b64 _, [b];",
      {"mbarrier_phase", 719, 8, "", "shared", "before anybody has waited"});
  bug(start + "mbarrier.arrive.shared.b64 _, [b]; W: mbarrier.try_wait.parity.shared.b64 q, [b], 2; @!q bra W;",
      {"mbarrier_phase", 719, 8, "", "shared", "neither 0 nor 1"});
  bug(start + "mov.b64 w, 0; mbarrier.arrive.shared.b64 _, [b];" + wait +
          "mbarrier.arrive.shared.b64 _, [b]; bar.sync 0; "
          "mbarrier.test_wait.shared.b64 q, [b], w;",
      {"mbarrier_phase", 719, 8, "", "shared", "neither the present phase"});
  // Who never arrives: found without waiting for a time limit, also where it is asked again and again.
  bug(start + "@p mbarrier.arrive.shared.b64 _, [b];\n" + wait,
      {"deadlock", 702, 9, "", "", "phase 0 lacks 63 of 64 arrivals and 0 bytes"});
  bug(start + "@p mbarrier.arrive.shared.b64 _, [b];\nW: mbarrier.test_wait.parity.shared.b64 q, [b], 0; @!q bra W;",
      {"deadlock", 702, 0, "", "", "by asking again and again"});
  bug(start + "@p mbarrier.expect_tx.shared.b64 [b], 1048575;\n@p mbarrier.expect_tx.shared.b64 [b], 1;",
      {"mbarrier_transactions", 719, 9, "(0,0,0)", "shared"});
  bug(start + "@p mbarrier.expect_tx.shared.b64 [b], 16;",
      {"mbarrier_transactions", 719, 0, "", "shared", "still expects 16 bytes"});
  // Data handed over without arriving after it, or without waiting.
  const std::string halves = start + "mad.lo.u32 x, t, 4, a; xor.b32 y, x, 128;";
  clean(halves + "st.shared.u32 [x], t; mbarrier.arrive.shared.b64 _, [b];" + wait + "ld.shared.u32 r, [y];");
  bug(halves + "mbarrier.arrive.shared.b64 _, [b]; st.shared.u32 [x], t;" + wait + "\nld.shared.u32 r, [y];",
      {"shared_race", 719, 9, "", "shared"});
  bug(halves + "st.shared.u32 [x], t; mbarrier.arrive.shared.b64 _, [b]; bar.warp.sync -1;\nld.shared.u32 r, [y];",
      {"shared_race", 719, 9, "", "shared"});
  bug(halves + "st.shared.u32 [x], t; mbarrier.arrive.relaxed.cta.shared.b64 _, [b];" + wait +
          "\nld.shared.u32 r, [y];",
      {"shared_race", 719, 9, "", "shared"});
  // One lane waits for all; the others know of it only when the warp has synchronised.
  const std::string one = "@!p bra S; W: mbarrier.try_wait.parity.shared.b64 q, [b], 0; @!q bra W; S:";
  const std::string produced =
      memory +
      "@p mbarrier.init.shared.b64 [b], 32; bar.sync 0; mad.lo.u32 x, t, 4, a; setp.ge.u32 q, t, "
      "32; @q st.shared.u32 [x], t; @q mbarrier.arrive.shared.b64 _, [b]; @q bra E;";
  clean(produced + one + "bar.warp.sync -1; ld.shared.u32 r, [x+128];\nE:");
  bug(produced + one + "\nld.shared.u32 r, [x+128];\nE:", {"shared_race", 719, 8, "", "shared"});
}

// --- bulk copies -------------------------------------------------------------------------------------------------

TEST(async_bulk_copies) {
  std::vector<uint32_t> in(4096);
  for (uint32_t i = 0; i < 4096; i++) in[i] = i * 2654435761u;
  auto out = clean(memory + initialise + expect256 + load + wait + use, 64, {}, in);
  for (uint32_t t = 0; t < 64; t++) CHECK_EQUAL(out[t], in[t]);
  // There and back, two rounds, the store read before the next load.
  out = clean(
      memory + initialise + expect256 + load + wait +
          "mad.lo.u32 x, t, 4, a; ld.shared.u32 r, [x]; add.u32 r, r, 1; st.shared.u32 [x], r; "
          "fence.proxy.async.shared::cta; "
          "bar.sync 0; @p cp.async.bulk.global.shared::cta.bulk_group [o], [a], 256; @p cp.async.bulk.commit_group; @p "
          "cp.async.bulk.wait_group.read 0; @p mbarrier.arrive.expect_tx.shared.b64 _, [b], 256; @p "
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [i+256], 256, [b];\n"
          "V: mbarrier.try_wait.parity.shared.b64 q, [b], 1; @!q bra V; ld.shared.u32 r, [x]; mad.wide.u32 w, t, 4, o; "
          "st.global.u32 [w+256], r;",
      64, {}, in);
  for (uint32_t t = 0; t < 64; t++) CHECK(out[t] == in[t] + 1 && out[64 + t] == in[64 + t]);
  {
    Hopper device;
    jtreluEmulatorCountersClear();
    Buffer<uint32_t> to(std::vector<uint32_t>(4096)), from(in);
    CHECK_EQUAL(hopper::launch(memory + initialise + expect256 + load + wait + use, 64, to.at, from.at, {}, 0), 0);
    std::string counters = text(jtreluEmulatorCountersJson);
    for (auto what :
         {"\"bulkLoads\":1,", "\"bulkLoadBytes\":256,", "\"globalLoadSectors\":8,", "\"globalLoadBytes\":256,"}) {
      checks++;
      if (counters.find(what) == std::string::npos) fail(__FILE__, __LINE__, std::string(what) + " not in " + counters);
    }
  }
}

TEST(async_bulk_copy_faults) {
  const std::string start = memory + initialise + "\n",
                    store =
                        "@p cp.async.bulk.global.shared::cta.bulk_group [o], [a], 256; "
                        "@p cp.async.bulk.commit_group;",
                    done = "@p cp.async.bulk.wait_group 0;", fill = "mad.lo.u32 x, t, 4, a; st.shared.u32 [x], t;",
                    publish = "fence.proxy.async; bar.sync 0;";
  auto copy = [](const char* to, const char* from, const char* bytes) {
    return std::string("@p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [") + to + "], [" + from +
           "], " + bytes + ", [b];";
  };
  bug(start + copy("a", "i", "250"), {"misaligned", 716, 8, "(0,0,0)", "global"});
  bug(start + copy("a", "i+8", "256"), {"misaligned", 716, 8, "(0,0,0)", "global"});
  bug(start + copy("a+8", "i", "256"), {"misaligned", 716, 8, "(0,0,0)", "shared"});
  bug(start + copy("a+8192", "i", "256"), {"out_of_bounds", 700, 8, "(0,0,0)", "shared"});
  bug(start + copy("a", "i+16256", "256"), {"out_of_bounds", 700, 8, "(0,0,0)", "global"});
  bug(start + expect256 + load + "\n" + use + wait,
      {"async_copy_pending", 719, 9, "", "shared", "has not waited for its mbarrier"});
  bug(start + expect256 + load + "\n" + fill + wait, {"async_copy_pending", 719, 9, "", "shared"});
  bug(start + expect256 + load + wait + "bar.sync 0; @p mbarrier.arrive.expect_tx.shared.b64 _, [b], 256;\n" + load +
          "\n" + use + "V: mbarrier.try_wait.parity.shared.b64 q, [b], 1; @!q bra V;",
      {"async_copy_pending", 719, 10, "", "shared"});
  bug(start + load + expect256, {"async_copy_unfinished", 719, 8, "(0,0,0)", "shared"});
  // Another warp that has not waited itself, though the first one has.
  bug(start + expect256 + load + "bar.sync 0; setp.ge.u32 q, t, 32; @q bra S; " + wait + "S: bar.warp.sync -1;\n" + use,
      {"async_copy_pending", 719, 9, "", "shared"});
  // Fewer or more bytes expected than come.
  bug(start + "@p mbarrier.arrive.expect_tx.shared.b64 _, [b], 128;" + load,
      {"mbarrier_transactions", 719, 0, "", "shared", "has got 128 bytes that nothing expected"});
  bug(start + "@p mbarrier.arrive.expect_tx.shared.b64 _, [b], 512;" + load + "\n" + wait,
      {"deadlock", 702, 9, "", "", "lacks 0 of 1 arrivals and 256 bytes"});
  bug(start + load + "\n@p mbarrier.arrive.shared.b64 _, [b];" + wait, {"mbarrier_transactions", 719, 0, "", "shared"});
  // An mbarrier that the asynchronous proxy may not see yet.
  clean(memory + "@p mbarrier.init.shared.b64 [b], 1; @p fence.proxy.async; bar.sync 0;" + expect256 + load + wait +
        use);
  bug(memory + "@p mbarrier.init.shared.b64 [b], 1; bar.sync 0;\n" + expect256 + load + wait + use,
      {"missing_proxy_fence", 719, 8, "(0,0,0)", "shared"});
  // What threads wrote, and no proxy fence: to be stored, or to be overwritten.
  clean(start + fill + publish + store + done);
  clean(start + fill + "bar.sync 0; @p fence.proxy.async;" + store + done);  // by the one who goes on
  bug(start + fill + "bar.sync 0;\n" + store + done, {"missing_proxy_fence", 719, 9, "(0,0,0)", "shared"});
  bug(start + "fence.proxy.async;" + fill + "bar.sync 0;\n" + store + done,
      {"missing_proxy_fence", 719, 9, "(0,0,0)", "shared"});
  bug(start + fill + "@p fence.proxy.async; bar.sync 0;\n" + store + done,
      {"missing_proxy_fence", 719, 9, "(0,0,0)", "shared"});
  bug(start + fill + "fence.proxy.async;\n" + store + done, {"shared_race", 719, 9, "(0,0,0)", "shared"});
  bug(start + store + done, {"uninitialised", 719, 8, "(0,0,0)", "shared"});
  clean(start + fill + publish + expect256 + load + wait + use);
  bug(start + fill + "bar.sync 0;" + expect256 + "\n" + load + wait,
      {"missing_proxy_fence", 719, 9, "(0,0,0)", "shared"});
  bug(start + fill + "fence.proxy.async;" + expect256 + "\n" + load + wait,
      {"shared_race", 719, 9, "(0,0,0)", "shared"});
  // What a store reads may not change before that is waited for, and reading is all that .read waits for.
  clean(start + fill + publish + store + "@p cp.async.bulk.wait_group.read 0; bar.sync 0;" + fill);
  bug(start + fill + publish + store + "bar.sync 0;\n" + fill + done,
      {"async_copy_pending", 719, 9, "", "shared", "reads, which has not been waited for"});
  bug(start + fill + publish + store + "\n@p cp.async.bulk.wait_group.read 1; bar.sync 0;" + fill + done,
      {"async_copy_pending", 719, 9, "", "shared"});
  bug(start + fill + publish + store + "@p cp.async.bulk.wait_group.read 0; add.u32 u, t, 1;\nst.shared.u32 [x], u;",
      {"shared_race", 719, 9, "", "shared"});  // waited for, but the others do not know
  bug(start + fill + publish + store + expect256 + "\n" + load + wait + done,
      {"async_copy_pending", 719, 9, "(0,0,0)", "shared"});
  bug(start + fill + publish + store, {"async_copy_unfinished", 719, 8, "(0,0,0)", "shared"});
  bug(start + fill + publish + "@p cp.async.bulk.global.shared::cta.bulk_group [o], [a], 256;" + done,
      {"async_copy_unfinished", 719, 8, "(0,0,0)", "shared"});  // never committed
  // A copy into what others still read.
  bug(start + fill + publish + "xor.b32 y, x, 128; ld.shared.u32 r, [y];" + expect256 + "\n" + load + wait,
      {"shared_race", 719, 9, "(0,0,0)", "shared", "read, with no barrier between"});
  // Into or from an mbarrier.
  bug(start + "@p mbarrier.arrive.expect_tx.shared.b64 _, [b], 256;\n" + copy("b", "i", "256") + wait,
      {"mbarrier_accessed", 719, 9, "(0,0,0)", "shared"});
}

// --- tensor maps -------------------------------------------------------------------------------------------------

namespace {

/// Arguments of cuTensorMapEncode*.
struct MapArguments {
  bool im2col = false;
  int type = 9;
  unsigned rank = 2;
  uint64_t address = 0;
  std::array<uint64_t, 5> extents = {64, 32, 1, 1, 1};
  std::array<uint64_t, 4> strides = {128, 4096, 4096, 4096};
  std::array<unsigned, 5> box = {64, 16, 1, 1, 1}, steps = {1, 1, 1, 1, 1};
  std::array<int, 3> lower = {0, 0, 0}, upper = {0, 0, 0};
  unsigned channels = 64, pixels = 32;
  int interleave = 0, swizzle = 3, promotion = 0, fill = 0;

  int encode(void* map) const {
    return im2col ? cuTensorMapEncodeIm2col(map, type, rank, (void*)address, extents.data(), strides.data(),
                                            lower.data(), upper.data(), channels, pixels, steps.data(), interleave,
                                            swizzle, promotion, fill)
                  : cuTensorMapEncodeTiled(map, type, rank, (void*)address, extents.data(), strides.data(), box.data(),
                                           steps.data(), interleave, swizzle, promotion, fill);
  }
};

const struct { int type, size; } elements[] = {{0, 1}, {6, 2}, {9, 2}, {7, 4}, {8, 8}};

/// What the tables of the PTX ISA show for each swizzle: the pieces of 16 bytes that each line of 128 bytes holds, by line.
const int swizzle32[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}};
const int swizzle64[4][8] = {
    {0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5}, {3, 2, 1, 0, 7, 6, 5, 4}};
const int swizzle128[8][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5},
                              {3, 2, 1, 0, 7, 6, 5, 4}, {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2},
                              {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0}};
std::vector<uint8_t> swizzled(const std::vector<uint8_t>& plain, int mode) {
  if (mode == 0) return plain;
  std::vector<uint8_t> r(plain.size());
  for (size_t at = 0; at < plain.size(); at += 16) {
    size_t line = at / 128, place = at / 16 % 8;
    int from = mode == 1   ? swizzle32[line % 2][place]
               : mode == 2 ? swizzle64[line % 4][place]
                           : swizzle128[line % 8][place];
    size_t source = line * 128 + (size_t)from * 16;
    if (source < plain.size()) memcpy(&r[at], &plain[source], 16);
  }
  return r;
}

/// A kernel that copies a box between global and shared memory, and shared memory from or to a plain buffer. Its coordinates and
/// offsets come from an array of words.
std::string boxKernel(int rank, bool im2col, bool store) {
  auto list = [](const char* name, int n) {
    std::string r = "{";
    for (int i = 0; i < n; i++) r += (i ? ", " : "") + std::string(name) + std::to_string(i);
    return r + "}";
  };
  std::string
      dimensions = std::to_string(rank) + "d",
      ptx = hopper::head +
            ".extern .shared .align 1024 .b8 s[];\n.visible .entry box(.param .u64 pimage, .param .u64 pwhere, .param "
            ".u32 "
            "pbytes, .param .align 64 .b8 pm[128]) {\n.shared .align 8 .b64 bar; .reg .u32 t, a, b, n, x, c<5>; .reg "
            ".u16 h<3>; "
            ".reg .u64 image, where, m, w; .reg .pred p, q;\nmov.u32 t, %tid.x; setp.eq.u32 p, t, 0; mov.u32 a, s; "
            "mov.u32 b, "
            "bar; ld.param.u64 image, [pimage]; ld.param.u64 where, [pwhere]; ld.param.u32 n, [pbytes]; mov.u64 m, pm; "
            "cvta.param.u64 m, m;\n";
  for (int d = 0; d < rank; d++)
    ptx += "ld.global.u32 c" + std::to_string(d) + ", [where+" + std::to_string(4 * d) + "];\n";
  for (int d = 0; d < rank - 2; d++)
    ptx += "ld.global.u16 h" + std::to_string(d) + ", [where+" + std::to_string(20 + 4 * d) + "];\n";
  std::string each =
      "mov.u32 x, t; mul.lo.u32 x, x, 4;\nL: setp.ge.u32 q, x, n; @q bra D; cvt.u64.u32 w, x; add.u64 w, w, image; "
      ".reg .u32 v, y; add.u32 y, x, a;\n";
  std::string again = "add.u32 x, x, 512; bra L;\nD:\n";
  if (store) {
    ptx += each + "ld.global.u32 v, [w]; st.shared.u32 [y], v; " + again +
           "fence.proxy.async.shared::cta; bar.sync 0;\n@p " + "cp.async.bulk.tensor." + dimensions +
           ".global.shared::cta.tile.bulk_group [m, " + list("c", rank) +
           "], [a]; @p cp.async.bulk.commit_group; @p cp.async.bulk.wait_group 0;\n";
  } else {
    ptx +=
        "@p mbarrier.init.shared.b64 [b], 1; @p fence.mbarrier_init.release.cluster; bar.sync 0; @p "
        "mbarrier.arrive.expect_tx.shared.b64 _, [b], n;\n@p cp.async.bulk.tensor." +
        dimensions + ".shared::cluster.global." + (im2col ? "im2col" : "tile") +
        ".mbarrier::complete_tx::bytes [a], [m, " + list("c", rank) + "], [b]" +
        (im2col ? ", " + list("h", rank - 2) : "") +
        ";\nW: mbarrier.try_wait.parity.shared.b64 q, [b], 0; @!q bra W;\n" + each +
        "ld.shared.u32 v, [y]; st.global.u32 [w], v; " + again;
  }
  return ptx + "ret;\n}\n";
}

struct Box {
  std::array<int32_t, 5> at{};
  std::array<int, 3> offsets{};
  uint32_t bytes = 0;
};
/// Runs that kernel on an image of shared memory; loads give the image.
std::vector<uint8_t> copyBox(const MapArguments& m, const Box& box, std::vector<uint8_t> image, bool store) {
  alignas(64) EncodedMap map;
  int r = m.encode(&map);
  if (r) fail(__FILE__, __LINE__, findings());
  Module module(boxKernel((int)m.rank, m.im2col, store));
  std::vector<int32_t> where(8);
  for (size_t d = 0; d < 5; d++) where[d] = box.at[d];
  for (size_t d = 0; d < 3; d++) where[5 + d] = box.offsets[d];
  Buffer<int32_t> dw(where);
  Buffer<uint8_t> di(image);
  void* f = module.function("box");
  CHECK_EQUAL(cuFuncSetAttribute(f, 8, 200 * 1024), 0);
  module.run("box", 1, 128, box.bytes, di.at, dw.at, box.bytes, map);
  CHECK(findings().empty());
  return di.get();
}

}  // namespace

TEST(async_tensor_maps_are_checked) {
  Hopper device;
  alignas(64) EncodedMap maps[2];
  auto refused = [&](const char* what, auto change, bool im2col = false, int code = 1) {
    MapArguments m;
    m.im2col = im2col;
    if (im2col) m.rank = 4, m.extents = {64, 8, 8, 2, 1};
    jtreluEmulatorClear();
    if (m.encode(maps)) fail(__FILE__, __LINE__, findings());
    change(m);
    CHECK_EQUAL(m.encode(maps), code);
    checks++;
    if (findings().find(what) == std::string::npos)
      fail(__FILE__, __LINE__, "no '" + std::string(what) + "' in " + findings());
  };
  for (bool im2col : {false, true}) {
    refused(
        "does not exist", [](auto& m) { m.type = 16; }, im2col);
    refused(
        "not modelled", [](auto& m) { m.type = 11; }, im2col, 801);
    refused(
        "multiple of 16 bytes", [](auto& m) { m.address = 8; }, im2col);
    refused(
        "extent 0 of dimension 1", [](auto& m) { m.extents[1] = 0; }, im2col);
    refused(
        "extent 4294967297 of dimension 0", [](auto& m) { m.extents[0] = (1ull << 32) + 1; }, im2col);
    refused(
        "stride 120 of dimension 1", [](auto& m) { m.strides[0] = 120; }, im2col);
    refused(
        "stride 1099511627776 of dimension 1", [](auto& m) { m.strides[0] = 1ull << 40; }, im2col);
    refused(
        "element stride 9 of dimension 1", [](auto& m) { m.steps[1] = 9; }, im2col);
    refused(
        "element stride 0 of dimension 1", [](auto& m) { m.steps[1] = 0; }, im2col);
    refused(
        "interleave 3", [](auto& m) { m.interleave = 3; }, im2col);
    refused(
        "not modelled", [](auto& m) { m.interleave = 1; }, im2col, 801);
    refused(
        "swizzle 7", [](auto& m) { m.swizzle = 7; }, im2col);
    refused(
        "compute capability 10.0", [](auto& m) { m.swizzle = 4; }, im2col);
    refused(
        "L2 promotion 4", [](auto& m) { m.promotion = 4; }, im2col);
    refused(
        "fill 2", [](auto& m) { m.fill = 2; }, im2col);
    refused(
        "floating-point", [](auto& m) { m.fill = 1, m.type = 1; }, im2col);
    refused(
        "not modelled", [](auto& m) { m.fill = 1; }, im2col, 801);
    refused(
        "the swizzle takes at most 64", [](auto& m) { m.swizzle = 2; }, im2col);
    refused(
        "no multiple of 16", [](auto& m) { m.box[0] = m.channels = 7; }, im2col);
    refused(
        "not modelled", [](auto& m) { m.box[0] = m.channels = 32; }, im2col, 801);
  }
  refused("rank 6", [](auto& m) { m.rank = 6; });
  refused("rank 0", [](auto& m) { m.rank = 0; });
  refused("box extent 257 of dimension 1", [](auto& m) { m.box[1] = 257; });
  refused("box extent 0 of dimension 0", [](auto& m) { m.box[0] = 0; });
  refused(
      "rank 2 is not in 3..5", [](auto& m) { m.rank = 2; }, true);
  refused(
      "257 channels", [](auto& m) { m.channels = 257; }, true);
  refused(
      "1025 pixels", [](auto& m) { m.pixels = 1025; }, true);
  refused(
      "a corner at 128", [](auto& m) { m.upper[1] = 128; }, true);
  refused(
      "a corner at -129", [](auto& m) { m.lower[0] = -129; }, true);
  refused(
      "the box of pixels is empty in dimension 2", [](auto& m) { m.upper[1] = -8; }, true);
  jtreluEmulatorClear();
  CHECK_EQUAL(MapArguments{}.encode((char*)maps + 32), 1);
  CHECK(findings().find("multiple of 64 bytes") != std::string::npos);
  jtreluEmulatorSetComputeCapability(8, 0);
  CHECK_EQUAL(MapArguments{}.encode(maps), 1);
  CHECK(findings().find("compute capability 9.0") != std::string::npos);
}

/// A box of a tensor, loaded or stored, against the definition.
CASE(async_box) {
  Hopper device;
  MapArguments m;
  const auto element = elements[random() % 5];
  const size_t size = (size_t)element.size;
  m.type = element.type;
  m.rank = (unsigned)between(random, 1, 5);
  m.swizzle = between(random, 0, 3);
  m.box[0] = (unsigned)((m.swizzle ? 16 << m.swizzle : 16 * between(random, 1, 5)) / element.size);
  const bool store = random() % 3 == 0;
  uint32_t bytes = m.box[0] * (uint32_t)size;
  std::array<unsigned, 5> count = {m.box[0], 1, 1, 1, 1};
  uint64_t stride = 1;
  Box box;
  for (unsigned d = 0; d < m.rank; d++) {
    m.extents[d] = (uint64_t)between(random, 1, d ? 7 : 2 * (int)m.box[0]);
    if (d) {
      m.box[d] = (unsigned)between(random, 1, d == 1 ? 20 : 4);
      m.steps[d] = (unsigned)between(random, 1, 3);
      count[d] = (m.box[d] + m.steps[d] - 1) / m.steps[d];
      bytes *= count[d];
      m.strides[d - 1] = stride;
    }
    stride = d ? stride * m.extents[d] + 16 * (uint64_t)between(random, 0, 2)
               : (m.extents[0] * size + 15) / 16 * 16 + 16 * (uint64_t)between(random, 0, 2);
    stride = (stride + 15) / 16 * 16;
    box.at[d] = between(random, store ? 0 : -3, (int)m.extents[d] + 1);
  }
  box.bytes = bytes;
  if (bytes > 200 * 1024) return;
  std::vector<uint8_t> tensor(stride + 64), image(bytes, 0xee), plain(bytes, 0);
  for (auto& x : tensor) x = (uint8_t)random();
  // The same by the definition: each element of the box, its place in the tensor, and its place in a dense row-major box.
  auto expected = tensor;
  if (store)
    for (auto& x : image) x = (uint8_t)random();
  std::vector<uint8_t> dense = swizzled(image, m.swizzle);  // a swizzle is its own inverse
  size_t index = 0;
  std::array<unsigned, 5> i{};
  for (i[4] = 0; i[4] < count[4]; i[4]++)
    for (i[3] = 0; i[3] < count[3]; i[3]++)
      for (i[2] = 0; i[2] < count[2]; i[2]++)
        for (i[1] = 0; i[1] < count[1]; i[1]++)
          for (i[0] = 0; i[0] < count[0]; i[0]++, index += size) {
            bool inside = true;
            int64_t at = 0;
            for (unsigned d = 0; d < m.rank; d++) {
              int64_t x = box.at[d] + (int64_t)(i[d] * (d ? m.steps[d] : 1));
              inside &= x >= 0 && x < (int64_t)m.extents[d];
              at += x * (int64_t)(d ? m.strides[d - 1] : size);
            }
            if (!inside) continue;
            if (store) memcpy(&expected[(size_t)at], &dense[index], size);
            else memcpy(&plain[index], &tensor[(size_t)at], size);
          }
  Buffer<uint8_t> global(tensor);
  m.address = global.at;
  auto got = copyBox(m, box, image, store);
  if (store) CHECK(global.get() == expected);
  else CHECK(got == swizzled(plain, m.swizzle));
}
TEST(async_tensor_copies_are_boxes) {
  Random random(1);
  for (int round = 0; round < 160; round++) async_box(random);
}

/// A column of the matrix that a convolution multiplies: pixels of one filter tap, one after the other, also beyond the last.
CASE(async_im2col) {
  Hopper device;
  const int kind = (int)(random() % 8), spatial = kind == 0 ? 1 : kind == 1 ? 3 : 2;
  MapArguments m;
  m.im2col = true;
  m.rank = (unsigned)spatial + 2;
  m.type = elements[1 + random() % 3].type;
  const int size = m.type == 7 ? 4 : 2;
  m.swizzle = between(random, 0, 3);
  m.channels = (unsigned)((m.swizzle ? 16 << m.swizzle : 16 * between(random, 1, 4)) / size);
  m.pixels = (unsigned)between(random, 1, 70);
  const int C = 8 * between(random, 1, 10), N = between(random, 1, 4);
  int extent[3] = {1, 1, 1}, taps[3] = {1, 1, 1}, dilation[3], stride[3], pad[3], out[3] = {1, 1, 1};
  bool fits = true;
  for (int d = 0; d < spatial; d++) {
    extent[d] = between(random, 1, 9);
    taps[d] = between(random, 1, 3);
    dilation[d] = between(random, 1, 2);
    stride[d] = between(random, 1, 3);
    pad[d] = between(random, 0, 2);
    int span = extent[d] + 2 * pad[d] - (taps[d] - 1) * dilation[d];
    if (span < 1) fits = false;
    else out[d] = (span - 1) / stride[d] + 1;
    m.lower[(size_t)d] = -pad[d];
    m.upper[(size_t)d] = pad[d] - (taps[d] - 1) * dilation[d];
    m.steps[(size_t)d + 1] = (unsigned)stride[d];
  }
  if (!fits) return;
  m.extents = {(uint64_t)C, 1, 1, 1, 1};
  uint64_t pitch = (uint64_t)C * (uint64_t)size;
  for (int d = 0; d <= spatial; d++) {
    m.strides[(size_t)d] = pitch;
    m.extents[(size_t)d + 1] = (uint64_t)(d < spatial ? extent[d] : N);
    pitch *= m.extents[(size_t)d + 1];
  }
  std::vector<uint8_t> tensor(pitch);
  for (auto& x : tensor) x = (uint8_t)random();
  Buffer<uint8_t> global(tensor);
  m.address = global.at;

  const int all = N * out[0] * out[1] * out[2], first = (int)(random() % (unsigned)all);
  int tap[3] = {}, at[3];
  for (int d = 0; d < spatial; d++) tap[d] = (int)(random() % (unsigned)taps[d]);
  const int channel = 8 * (int)(random() % (unsigned)(C / 8));
  auto position = [&](int p, int& n) {  // of output pixel p
    at[0] = p % out[0], at[1] = p / out[0] % out[1], at[2] = p / out[0] / out[1] % out[2];
    n = p / out[0] / out[1] / out[2];
  };
  std::vector<uint8_t> plain((size_t)m.pixels * m.channels * (size_t)size);
  for (int p = 0; p < (int)m.pixels; p++) {
    int n;
    position(first + p, n);
    bool inside = n < N;
    int x[3] = {};
    for (int d = 0; d < spatial; d++) {
      x[d] = at[d] * stride[d] - pad[d] + tap[d] * dilation[d];
      inside &= x[d] >= 0 && x[d] < extent[d];
    }
    for (int c = 0; c < (int)m.channels && inside; c++)
      if (channel + c < C)
        memcpy(&plain[((size_t)p * m.channels + (size_t)c) * (size_t)size],
               &tensor[(size_t)(((((n * extent[2] + x[2]) * extent[1] + x[1]) * extent[0] + x[0]) * C + channel + c) *
                                size)],
               (size_t)size);
  }
  Box box;
  int n;
  position(first, n);
  box.at[0] = channel;
  for (int d = 0; d < spatial; d++) {
    box.at[(size_t)d + 1] = at[d] * stride[d] - pad[d];
    box.offsets[(size_t)d] = tap[d] * dilation[d];
  }
  box.at[(size_t)spatial + 1] = n;
  box.bytes = (uint32_t)plain.size();
  auto got = copyBox(m, box, std::vector<uint8_t>(plain.size(), 0xee), false);
  CHECK(got == swizzled(plain, m.swizzle));
}
TEST(async_im2col_gathers_what_convolution_reads) {
  Random random(2);
  for (int round = 0; round < 160; round++) async_im2col(random);
}

TEST(async_tensor_copy_faults) {
  Hopper device;
  Buffer<uint16_t> tensor(std::vector<uint16_t>(64 * 32, 1));
  auto encoded = [&](auto change) {
    MapArguments m;
    m.address = tensor.at;
    change(m);
    EncodedMap map;
    jtreluEmulatorClear();
    if (m.encode(&map)) fail(__FILE__, __LINE__, findings());
    return map;
  };
  const EncodedMap map = encoded([](auto&) {}), image = encoded([](auto&m) {
                                                  m.im2col = true, m.rank = 4, m.extents = {64, 4, 4, 2, 1},
                                                  m.strides = {128, 512, 2048, 0}, m.lower = {-1, -1},
                                                  m.upper = {-1, -1};
                                                }),
                   beyond = encoded([](auto&m) { m.extents[1] = 33; });
  const std::string start = memory + initialise + "@p mbarrier.arrive.expect_tx.shared.b64 _, [b], 2048;\n",
                    issue = "@p cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes ",
                    column = "@p cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes ";
  clean(start + issue + "[a], [m, {0, 0}], [b];" + wait + use, 64, map);
  bug(start + issue + "[a+128], [m, {0, 0}], [b];", {"misaligned", 716, 8, "(0,0,0)", "shared", "multiple of 1024"}, 64,
      map);
  bug(start + "add.u64 m, m, 32;" + issue + "[a], [m, {0, 0}], [b];", {"misaligned", 716, 8, "(0,0,0)", "generic"}, 64,
      map);
  bug(start + issue + "[a], [m, {0, 0}], [b];", {"bad_tensor_map", 715, 8, "(0,0,0)", "generic", "no tensor map"});
  bug(start + "cvta.to.global.u64 w, i;" + issue + "[a], [w, {0, 0}], [b];",
      {"bad_tensor_map", 715, 8, "(0,0,0)", "generic", "no tensor map"}, 64, map);
  bug(start + issue + "[a], [m, {0, 32}], [b+8];", {"mbarrier_invalid", 719, 8, "(0,0,0)", "shared"}, 64, map);
  bug(start + issue + "[a+7168], [m, {0, 0}], [b];", {"out_of_bounds", 700, 8, "(0,0,0)", "shared"}, 64, map);
  bug(start +
          "@p cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [a], [m, {0, 0, 0}], [b];",
      {"bad_tensor_map", 715, 8, "(0,0,0)", "generic", "has 2 dimensions"}, 64, map);
  bug(start + "mov.b16 h, 0;" + column + "[a], [m, {0, 0, 0, 0}], [b], {h, h};",
      {"bad_tensor_map", 715, 8, "(0,0,0)", "generic", "has 2 dimensions"}, 64, map);
  // The tensor that a map tells of is larger than its allocation.
  bug(start + issue + "[a], [m, {0, 17}], [b];", {"out_of_bounds", 700, 8, "(0,0,0)", "global"}, 64, beyond);
  // im2col: the corner of the filter, and its offsets.
  const std::string wide = memory + initialise + "@p mbarrier.arrive.expect_tx.shared.b64 _, [b], 4096;\n";
  clean(wide + "mov.b16 h, 0;" + column + "[a], [m, {0, -1, 2, 1}], [b], {h, h};" + wait + use, 64, image);
  bug(wide + "mov.b16 h, 0;" + column + "[a], [m, {0, 3, 0, 0}], [b], {h, h};" + wait,
      {"tensor_coordinates", 719, 8, "(0,0,0)", "global", "at W = 3"}, 64, image);
  bug(wide + "mov.b16 h, 256;" + column + "[a], [m, {0, 0, 0, 0}], [b], {h, h};" + wait,
      {"tensor_coordinates", 719, 8, "(0,0,0)", "global", "at most 255"}, 64, image);
  // A store at negative coordinates.
  clean(memory +
            "mad.lo.u32 x, t, 32, a; st.shared.v4.b32 [x], {r, r, r, r}; st.shared.v4.b32 [x+16], {r, r, r, r}; "
            "fence.proxy.async; bar.sync 0; @p cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [m, {0, 20}], "
            "[a]; @p "
            "cp.async.bulk.commit_group; @p cp.async.bulk.wait_group 0;",
        64, map);
  bug(memory +
          "mad.lo.u32 x, t, 32, a; st.shared.v4.b32 [x], {r, r, r, r}; st.shared.v4.b32 [x+16], {r, r, r, r}; "
          "fence.proxy.async; bar.sync 0;\n@p cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [m, {0, -1}], [a]; "
          "@p "
          "cp.async.bulk.commit_group; @p cp.async.bulk.wait_group 0;",
      {"tensor_coordinates", 719, 8, "(0,0,0)", "global"}, 64, map);
}

// --- roles -------------------------------------------------------------------------------------------------------

TEST(async_elected_lane) {
  // One of each warp, the same one every time.
  auto out = clean(
      "elect.sync x|q, -1; @q red.global.add.u32 [o], 1; elect.sync y|p, -1; setp.ne.u32 p, x, y; @p trap; .reg .u32 "
      "l; mov.u32 l, "
      "%laneid; setp.eq.u32 p, l, x; selp.u32 l, 1, 0, p; selp.u32 u, 1, 0, q; setp.ne.u32 p, l, u; @p trap;");
  CHECK_EQUAL(out[0], 2u);
}

TEST(async_register_pool) {
  const std::string roles = "setp.lt.u32 q, t, 128; @q bra P;\n";
  clean(roles + "setmaxnreg.inc.sync.aligned.u32 240; bra E;\nP: setmaxnreg.dec.sync.aligned.u32 24;\nE:", 384);
  // 3 * 128 threads of 168 registers: 240 for two warpgroups are more than 24 for the third leave.
  bug(roles + "\nsetmaxnreg.inc.sync.aligned.u32 248; bra E;\nP: setmaxnreg.dec.sync.aligned.u32 24;\nE:",
      {"deadlock", 702, 9, "", "", "for registers"}, 384);
  bug(roles + "\nsetmaxnreg.inc.sync.aligned.u32 160;\nP:", {"setmaxnreg", 719, 9, "", "", "asks for no more"}, 384);
  bug(roles + "\nsetmaxnreg.dec.sync.aligned.u32 176;\nP:", {"setmaxnreg", 719, 9, "", "", "gives nothing back"}, 384);
  bug("setp.lt.u32 q, t, 32; @q bra P;\nsetmaxnreg.dec.sync.aligned.u32 24;\nP:",
      {"setmaxnreg", 719, 0, "", "", "all four warps must execute"}, 384);
  Hopper device;
  jtreluEmulatorClear();
  Module m(hopper::head + ".visible .entry bug() {\nsetmaxnreg.dec.sync.aligned.u32 24;\nret;\n}\n");
  CHECK_EQUAL(m.launch("bug", 1, 128, 0), 719);
  CHECK(findings().find("error: setmaxnreg in bug, PTX line 5") != std::string::npos);
  jtreluEmulatorClear();
}

TEST(async_what_is_not_modelled_is_refused) {
  Hopper device;
  auto refused = [](const std::string& body, const char* what, int code = 218) {
    jtreluEmulatorClear();
    void* m;
    CHECK_EQUAL(cuModuleLoadData(&m, (hopper::bugHead + body + "\nret;\n}\n").c_str()), code);
    checks++;
    if (findings().find(what) == std::string::npos) fail(__FILE__, __LINE__, findings());
  };
  refused("setmaxnreg.inc.sync.aligned.u32 100;", "no multiple of 8 from 24 to 256");
  refused("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [a], [m, {x}], [b];",
          "another number of coordinates");
  refused("wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {f0, f1, f2, f3}, da, db, p, 1, 1, 0, 0;",
          "unsupported instruction");
  refused("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {f0, f1, f2}, da, db, p, 1, 1, 0, 0;",
          "another number of registers");
  // What is written for sm_90a runs on 9.0 alone.
  for (int major : {8, 10}) {
    jtreluEmulatorSetComputeCapability(major, 0);
    refused("", "the PTX is for sm_90a", 209);
  }
}
