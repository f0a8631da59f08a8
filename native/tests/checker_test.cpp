// Planted bugs: each must be reported with kernel, line, thread and address, and make the launch fail as a GPU would or as strictly as
// promised; its clean twin must be silent.
#include "harness.h"

namespace {
const char* const head =
    ".visible .entry bug(.param .u64 po, .param .u64 pi) {\n.reg .u32 r, a, x, y, t; .reg .u64 o, i, w; .reg .pred p, "
    "q; .reg .b16 h;\nmov.u32 t, %tid.x; ld.param.u64 o, [po]; ld.param.u64 i, [pi]; mov.u32 r, 0; mov.u32 a, 0; "
    "mov.u32 x, 0; mov.u32 y, 0;\n";
// .version, .target, .address_size are lines 1 to 3; head is lines 4 to 6: the first line of a body is line 7.

struct Expectation {
  const char* kind;
  int code;  // of the launch
  int line;  // of PTX; 0: any
  const char* thread;  // as in the report, "" for any
  const char* space = "";
  const char* address = nullptr;  // in hexadecimal, where it is known beforehand
  bool warning = false;
};

int launch(const std::string& body, unsigned grid, unsigned block, unsigned shared, uint64_t out, uint64_t in) {
  Module m(std::string(head) + body + "\nret;\n}\n");
  return m.launch("bug", grid, block, shared, out, in);
}

/// Runs a body on 64 words of output and 64 initialised words of input.
void bug(const std::string& body, const Expectation& e, unsigned grid = 1, unsigned block = 64, unsigned shared = 0) {
  for (uint64_t seed : {0ull, 5ull}) {
    jtreluEmulatorClear();
    jtreluEmulatorSetSeed(seed);
    {
      Buffer<uint32_t> out(64), in(std::vector<uint32_t>(64, 7));
      int code = launch(body, grid, block, shared, out.at, in.at);
      std::string found = findings();
      auto has = [&](const std::string& what) {
        checks++;
        if (found.find(what) == std::string::npos)
          fail(__FILE__, __LINE__, "no '" + what + "' in: " + found + "\nfor " + body);
      };
      if (code != e.code)
        fail(__FILE__, __LINE__,
             std::string(e.kind) + ": launch gave " + std::to_string(code) + ", expected " + std::to_string(e.code) +
                 "\n" + found + "\nfor " + body);
      std::string where = e.line ? std::to_string(e.line) : "";
      has(std::string(e.warning ? "warning: " : "error: ") + e.kind + " in bug, PTX line " + where +
          (e.line ? " (" : ""));
      has("block (");
      if (*e.thread && !seed) has(std::string("thread ") + e.thread);
      if (*e.space) has(std::string(e.space) + " address 0x" + (e.address ? e.address : ""));
      if (e.code) {  // the context is poisoned until it is cleared
        uint64_t p;
        CHECK_EQUAL(cuMemAlloc_v2(&p, 4), e.code);
        CHECK_EQUAL(cuCtxSynchronize(), e.code);
      }
      std::string json = text(jtreluEmulatorReportsJson);
      CHECK(json.find(std::string("\"kind\":\"") + e.kind + "\",\"kernel\":\"bug\",\"ptxLine\":" + where) !=
            std::string::npos);
      jtreluEmulatorClear();
    }
    CHECK_EQUAL(cuCtxSynchronize(), 0);
  }
}
void clean(const std::string& body, unsigned grid = 1, unsigned block = 64, unsigned shared = 0) {
  for (uint64_t seed : {0ull, 5ull, 6ull}) {
    jtreluEmulatorClear();
    jtreluEmulatorSetSeed(seed);
    Buffer<uint32_t> out(64 * 64), in(std::vector<uint32_t>(64 * 64, 7));
    int code = launch(body, grid, block, shared, out.at, in.at);
    if (code || !findings().empty())
      fail(__FILE__, __LINE__, "launch gave " + std::to_string(code) + "\n" + findings() + "\nfor " + body);
    checks++;
  }
}
const std::string sharedAddress = "mov.u32 x, s; shl.b32 a, t, 2; add.u32 a, a, x;";
const std::string s256 = ".shared .align 16 .b8 s[256];\n";
}  // namespace

TEST(checker_global_bounds) {
  clean("mad.wide.u32 w, t, 4, i; ld.global.u32 r, [w];\nmad.wide.u32 w, t, 4, o; st.global.u32 [w], r;");
  bug("mad.wide.u32 w, t, 4, i;\nld.global.u32 r, [w+4];", {"out_of_bounds", 700, 8, "(63,0,0)", "global"});
  bug("mad.wide.u32 w, t, 4, o;\nst.global.u32 [w+4], r;", {"out_of_bounds", 700, 8, "(63,0,0)", "global"});
  bug("st.global.u32 [o+-4], r;", {"out_of_bounds", 700, 7, "(0,0,0)", "global"});
  bug("mad.wide.u32 w, t, 16, i;\n.reg .f32 f<4>; ld.global.v4.f32 {f0, f1, f2, f3}, [w];",
      {"out_of_bounds", 700, 8, "(16,0,0)", "global"});
  bug("mov.u64 w, 0;\nld.global.u32 r, [w];", {"out_of_bounds", 700, 8, "(0,0,0)", "global", "0"});
  bug("ld.u32 r, [i+256];", {"out_of_bounds", 700, 7, "(0,0,0)", "global"});
  bug("atom.global.add.u32 r, [o+256], 1;", {"out_of_bounds", 700, 7, "(0,0,0)", "global"});
  bug("setp.ne.u32 p, t, 5; @p bra E;\nld.global.u32 r, [i+1000];\nE:", {"out_of_bounds", 700, 8, "(5,0,0)", "global"});
  // Just behind the last element, as a loop that runs once too often does.
  bug("add.u64 w, i, 256;\nld.global.u8 h, [w];", {"out_of_bounds", 700, 8, "(0,0,0)", "global"});
}

TEST(checker_other_spaces_bounds) {
  clean(s256 + sharedAddress + "st.shared.u32 [a], t; ld.shared.u32 r, [a];");
  bug(s256 + sharedAddress + "\nst.shared.u32 [a+4], t;", {"out_of_bounds", 700, 9, "(63,0,0)", "shared", "100"});
  bug(s256 + "mov.u32 a, s;\nld.shared.u32 r, [a+256];", {"out_of_bounds", 700, 9, "(0,0,0)", "shared", "100"});
  bug(s256 + "mov.u32 a, s;\nst.shared.u32 [a+-4], r;", {"out_of_bounds", 700, 9, "(0,0,0)", "shared", "fffffffc"});
  clean(".local .align 4 .b8 l[16];\nst.local.u32 [l+12], r; ld.local.u32 x, [l+12];");
  bug(".local .align 4 .b8 l[16];\nst.local.u32 [l+16], r;", {"out_of_bounds", 700, 8, "(0,0,0)", "local", "10"});
  bug(".local .align 4 .b8 l[16];\nmov.u64 w, l; cvta.local.u64 w, w;\nld.u32 r, [w+20];",
      {"out_of_bounds", 700, 9, "(0,0,0)", "local", "14"});
  clean("mov.u64 w, po; ld.param.u64 i, [w+8];");
  bug("mov.u64 w, po;\nld.param.u64 i, [w+16];", {"out_of_bounds", 700, 8, "(0,0,0)", "param", "10"});
  // Constant memory: reading past a table, writing to it.
  for (bool write : {false, true}) {
    jtreluEmulatorClear();
    Module m(std::string(".const .align 4 .b32 table[4] = {1, 2, 3, 4};\n.visible .entry bug() {\n.reg .u32 r; .reg "
                         ".u64 w; mov.u32 r, 1; mov.u64 w, table;\n") +
             (write ? "st.global.u32 [w], r;" : "ld.const.u32 r, [w+16];") + "\nret;\n}\n");
    CHECK_EQUAL(m.launch("bug", 1, 32, 0), 700);
    CHECK(findings().find(write ? "write_to_constant in bug, PTX line 7" : "out_of_bounds in bug, PTX line 7") !=
          std::string::npos);
    jtreluEmulatorClear();
  }
}

TEST(checker_alignment) {
  clean("mad.wide.u32 w, t, 16, i; .reg .b32 f<4>; ld.global.v4.b32 {f0, f1, f2, f3}, [w];", 1, 16);
  bug("add.u64 w, i, 4;\n.reg .b32 f<4>; ld.global.v4.b32 {f0, f1, f2, f3}, [w];",
      {"misaligned", 716, 8, "(0,0,0)", "global"});
  bug("mad.wide.u32 w, t, 4, o;\nst.global.v2.u32 [w], {r, r};", {"misaligned", 716, 8, "(1,0,0)", "global"});
  bug("ld.global.u32 r, [i+2];", {"misaligned", 716, 7, "(0,0,0)", "global"});
  bug(s256 + sharedAddress + "\nst.shared.v4.u32 [a], {r, r, r, r};", {"misaligned", 716, 9, "(1,0,0)", "shared", "4"});
  bug(".local .align 4 .b8 l[16];\nst.local.u32 [l+2], r;", {"misaligned", 716, 8, "(0,0,0)", "local", "2"});
}

TEST(checker_use_after_free) {
  Module m(std::string(head) + "ld.global.u32 r, [i];\nst.global.u32 [o], r;\nret;\n}\n");
  uint64_t freed;
  CHECK_EQUAL(cuMemAlloc_v2(&freed, 256), 0);
  CHECK_EQUAL(cuMemsetD8_v2(freed, 1, 256), 0);
  CHECK_EQUAL(cuMemFree_v2(freed), 0);
  Buffer<uint32_t> live(std::vector<uint32_t>(64, 1));
  CHECK_EQUAL(m.launch("bug", 1, 32, 0, live.at, freed), 700);
  CHECK(findings().find("use_after_free in bug, PTX line 7 (ld.global.u32)") != std::string::npos);
  jtreluEmulatorClear();
  CHECK_EQUAL(m.launch("bug", 1, 32, 0, freed, live.at), 700);
  CHECK(findings().find("use_after_free in bug, PTX line 8 (st.global.u32)") != std::string::npos);
  jtreluEmulatorClear();
  CHECK_EQUAL(cuMemFree_v2(freed), 1);
  CHECK(findings().find("double_free") != std::string::npos);
  jtreluEmulatorClear();
  CHECK_EQUAL(cuMemFree_v2(live.at + 4), 1);
  CHECK(findings().find("bad_free") != std::string::npos);
  jtreluEmulatorClear();
  std::vector<char> host(300);
  CHECK_EQUAL(cuMemcpyDtoH_v2(host.data(), live.at, 257), 1);
  CHECK(findings().find("out_of_bounds: cuMemcpyDtoH") != std::string::npos);
}

TEST(checker_uninitialised) {
  Module m(std::string(head) + "mad.wide.u32 w, t, 4, i;\nld.global.u32 r, [w];\nret;\n}\n");
  Buffer<uint32_t> out(64), fresh(64), half(64);
  CHECK_EQUAL(m.launch("bug", 1, 64, 0, out.at, fresh.at), 719);
  CHECK(
      findings().find(
          "error: uninitialised in bug, PTX line 8 (ld.global.u32), block (0,0,0) thread (0,0,0), global address 0x") !=
      std::string::npos);
  jtreluEmulatorClear();
  CHECK_EQUAL(cuMemsetD8_v2(half.at, 0, 4 * 40 + 2), 0);
  CHECK_EQUAL(m.launch("bug", 1, 64, 0, out.at, half.at), 719);
  CHECK(findings().find("thread (40,0,0)") != std::string::npos);
  jtreluEmulatorClear();
  CHECK_EQUAL(cuMemsetD8_v2(fresh.at, 0, 256), 0);
  m.run("bug", 1, 64, 0, out.at, fresh.at);
  jtreluEmulatorMarkUninitialised(fresh.at + 8, 4);
  CHECK_EQUAL(m.launch("bug", 1, 64, 0, out.at, fresh.at), 719);
  CHECK(findings().find("thread (2,0,0)") != std::string::npos);
  jtreluEmulatorClear();
  // Only reported when not strict; and the launch goes on.
  jtreluEmulatorSetStrict(0);
  CHECK_EQUAL(m.launch("bug", 1, 64, 0, out.at, fresh.at), 0);
  CHECK_EQUAL(jtreluEmulatorErrorCount(), 1u);
  jtreluEmulatorSetStrict(1);
  // What a kernel writes is initialised for the next.
  Module w(std::string(head) +
           "setp.ge.u32 p, t, 63; @p exit; mad.wide.u32 w, t, 4, o;\nst.global.u32 [w], t;\nret;\n}\n");
  jtreluEmulatorClear();
  Buffer<uint32_t> chain(64);
  w.run("bug", 1, 64, 0, chain.at, chain.at);
  m.run("bug", 1, 63, 0, out.at, chain.at);
  CHECK_EQUAL(m.launch("bug", 1, 64, 0, out.at, chain.at), 719);
  CHECK(findings().find("thread (63,0,0)") != std::string::npos);
  jtreluEmulatorClear();
  std::vector<uint32_t> host(64);
  CHECK_EQUAL(cuMemcpyDtoH_v2(host.data(), chain.at, 256), 0);
  CHECK(findings().find("warning: uninitialised_copy") != std::string::npos);
  CHECK_EQUAL(jtreluEmulatorErrorCount(), 0u);

  bug(s256 + "mov.u32 a, s;\nld.shared.u32 r, [a];", {"uninitialised", 719, 9, "(0,0,0)", "shared", "0"});
  bug(s256 +
          "mov.u32 a, s; mov.u16 h, 1; setp.ne.u32 p, t, 0; @!p st.shared.u16 [a], h; bar.sync 0;\nld.shared.u32 r, "
          "[a];",
      {"uninitialised", 719, 9, "", "shared", "0"});
  clean(s256 + sharedAddress + "mov.u16 h, 1; st.shared.u16 [a], h; st.shared.u16 [a+2], h; ld.shared.u32 r, [a];");
  bug(".local .align 4 .b8 l[16];\nst.local.u32 [l], r;\nld.local.u32 r, [l+4];",
      {"uninitialised", 719, 9, "(0,0,0)", "local", "4"});
  bug(".reg .u32 never;\nadd.u32 r, never, 1;", {"uninitialised_register", 719, 8, "(0,0,0)"});
  bug(".reg .u32 some; setp.lt.u32 p, t, 9; @!p mov.u32 some, 1;\nadd.u32 r, some, 1;",
      {"uninitialised_register", 719, 8, "(0,0,0)"});
  bug(".reg .pred n; setp.lt.u32 p, t, 9; @p bra A; setp.eq.u32 n, t, t;\nA: selp.u32 r, 1, 0, n;",
      {"uninitialised_register", 719, 8, "(0,0,0)"});
  clean(".reg .u32 some; setp.lt.u32 p, t, 9; @p mov.u32 some, 1; @p add.u32 r, some, 1;");
}

TEST(checker_shared_races) {
  const std::string neighbour = "xor.b32 a, a, 128;";
  clean(s256 + sharedAddress + "st.shared.u32 [a], t; bar.sync 0; " + neighbour + " ld.shared.u32 r, [a];");
  bug(s256 + sharedAddress + "st.shared.u32 [a], t; " + neighbour +
          "\nbar.warp.sync -1; setp.ge.u32 p, t, 32; @!p mov.u32 r, 1; @p ld.shared.u32 r, [a];",
      {"shared_race", 719, 9, "", "shared"}, 1, 64);
  // Write after read: the second barrier of a loop is missing.
  const std::string loop =
      s256 + sharedAddress +
      "mov.u32 y, 0;\nL: st.shared.u32 [a], y; bar.sync 0; xor.b32 x, a, 132; ld.shared.u32 r, [x]; ";
  clean(loop + "bar.sync 0; add.u32 y, y, 1; setp.lt.u32 p, y, 3; @p bra L;");
  bug(loop + "add.u32 y, y, 1; setp.lt.u32 p, y, 3; @p bra L;", {"shared_race", 719, 9, "", "shared"});
  // Within a warp: lanes exchange without bar.warp.sync.
  clean(s256 + sharedAddress + "st.shared.u32 [a], t; bar.warp.sync -1; xor.b32 a, a, 4; ld.shared.u32 r, [a];");
  bug(s256 + sharedAddress + "st.shared.u32 [a], t; xor.b32 a, a, 4;\nld.shared.u32 r, [a];",
      {"shared_race", 719, 9, "(0,0,0)", "shared", "4"});
  // A shuffle is no memory barrier.
  bug(s256 + sharedAddress +
          "st.shared.u32 [a], t; shfl.sync.bfly.b32 r, t, 1, 31, -1; xor.b32 a, a, 4;\nld.shared.u32 r, [a];",
      {"shared_race", 719, 9, "", "shared", "4"});
  // Two threads store to one place: in one instruction, and from two warps; the same value is a warning.
  bug(s256 + "mov.u32 a, s;\nst.shared.u32 [a], t;", {"shared_race", 719, 9, "(1,0,0)", "shared", "0"}, 1, 32);
  bug(s256 + "mov.u32 a, s;\nst.shared.u32 [a], r;", {"shared_race_same_value", 0, 9, "(1,0,0)", "shared", "0", true},
      1, 32);
  bug(s256 + "mov.u32 a, s; and.b32 x, t, 31; shl.b32 x, x, 2; add.u32 a, a, x;\nst.shared.u32 [a], t;",
      {"shared_race", 719, 9, "", "shared"});
  // Neighbouring halves and bytes of a word are different places.
  clean(s256 +
        "mov.u32 a, s; shl.b32 x, t, 1; add.u32 a, a, x; cvt.u16.u32 h, t; st.shared.u16 [a], h; ld.shared.u16 h, [a]; "
        "add.u16 h, h, 1; st.shared.u16 [a], h;");
  clean(s256 + "mov.u32 a, s; add.u32 a, a, t; st.shared.u8 [a], t; ld.shared.u8 r, [a]; st.shared.u8 [a], r;");
  bug(s256 + "mov.u32 a, s; shr.u32 x, t, 1; add.u32 a, a, x; cvt.u16.u32 h, t;\nst.shared.u8 [a], h;",
      {"shared_race", 719, 9, "(1,0,0)", "shared", "0"});
  // Atomics do not race with each other, but with plain accesses.
  clean(s256 +
        "mov.u32 a, s; setp.eq.u32 p, t, 0; @p st.shared.u32 [a], r; bar.sync 0; red.shared.add.u32 [a], 1; bar.sync "
        "0; ld.shared.u32 r, [a];");
  bug(s256 +
          "mov.u32 a, s; setp.eq.u32 p, t, 0; @p st.shared.u32 [a], r; bar.sync 0; red.shared.add.u32 [a], "
          "1;\nld.shared.u32 r, [a];",
      {"shared_race", 719, 9, "", "shared", "0"});
  // A named barrier orders those that take part, and nobody else.
  clean(s256 + sharedAddress +
        "setp.ge.u32 p, t, 32; @p bra C; st.shared.u32 [a], t; bar.arrive 1, 64; bra E; C: bar.sync 1, 64; "
        "ld.shared.u32 r, [a+-128]; E:");
  bug(s256 + sharedAddress +
          "setp.ge.u32 p, t, 32; @p bra C; bar.arrive 1, 64; st.shared.u32 [a], t; bra E; C: bar.sync 1, "
          "64;\nld.shared.u32 r, [a+-128]; E:",
      {"shared_race", 719, 9, "", "shared"});
}

TEST(checker_async_copies) {
  const std::string copy =
      s256 + sharedAddress + "mad.wide.u32 w, t, 4, i; cp.async.ca.shared.global [a], [w], 4; cp.async.commit_group;";
  clean(copy + "cp.async.wait_group 0; ld.shared.u32 r, [a]; bar.sync 0; xor.b32 a, a, 128; ld.shared.u32 r, [a];");
  bug(copy + "\nld.shared.u32 r, [a]; cp.async.wait_all;", {"async_copy_pending", 719, 9, "(0,0,0)", "shared", "0"});
  bug(copy + "cp.async.wait_group 1;\nld.shared.u32 r, [a]; cp.async.wait_all;",
      {"async_copy_pending", 719, 9, "(0,0,0)", "shared", "0"});
  bug(copy + "bar.sync 0; xor.b32 a, a, 128;\nld.shared.u32 r, [a]; cp.async.wait_all;",
      {"async_copy_pending", 719, 9, "", "shared"});
  bug(copy + "\nst.shared.u32 [a], t; cp.async.wait_all;", {"async_copy_pending", 719, 9, "(0,0,0)", "shared", "0"});
  bug(copy + "cp.async.wait_all; xor.b32 a, a, 128;\nld.shared.u32 r, [a];", {"shared_race", 719, 9, "", "shared"}, 1,
      64);  // waited for, but no barrier
  bug(copy + "\nret;", {"async_copy_unfinished", 719, 9, "(0,0,0)", "shared", "0"});
  bug(s256 + sharedAddress + "mad.wide.u32 w, t, 4, i;\ncp.async.ca.shared.global [a], [w+4], 4; cp.async.wait_all;",
      {"out_of_bounds", 700, 9, "(63,0,0)", "global"});
  bug(s256 + sharedAddress + "mad.wide.u32 w, t, 4, i;\ncp.async.ca.shared.global [a+4], [w], 4; cp.async.wait_all;",
      {"out_of_bounds", 700, 9, "(63,0,0)", "shared", "100"});
  // Overwriting what another warp still reads.
  bug(s256 + sharedAddress +
          "mad.wide.u32 w, t, 4, i; st.shared.u32 [a], t; bar.sync 0; xor.b32 y, a, 128; ld.shared.u32 r, "
          "[y];\ncp.async.ca.shared.global [a], [w], 4; cp.async.wait_all;",
      {"shared_race", 719, 9, "", "shared"}, 1, 64);
}

TEST(checker_global_races) {
  const std::string block = "mov.u32 x, %ctaid.x; mov.u32 y, %ntid.x; mad.lo.u32 y, x, y, t; mad.wide.u32 w, y, 4, o;";
  clean(block + "st.global.u32 [w], x;", 4, 64);
  bug("mov.u32 x, %ctaid.x; mad.wide.u32 w, t, 4, o;\nst.global.u32 [w], x;", {"global_race", 719, 8, "", "global"}, 2,
      64);
  bug("mad.wide.u32 w, t, 4, o;\nst.global.u32 [w], r;", {"global_race_same_value", 0, 8, "", "global", nullptr, true},
      2, 64);
  // Reads what another block writes.
  bug("mov.u32 x, %ctaid.x; setp.eq.u32 p, x, 0; @p st.global.u32 [i], x;\n@!p ld.global.u32 r, [i];",
      {"global_race", 719, 0, "", "global"}, 2, 1);
}

TEST(checker_global_races_by_order) {
  // Which of the two accesses comes second depends on the order of blocks; one of them must be found in either.
  for (uint64_t seed : {0, 1, 2, 3}) {
    jtreluEmulatorClear();
    jtreluEmulatorSetSeed(seed);
    Buffer<uint32_t> v(std::vector<uint32_t>(64, 1));
    CHECK_EQUAL(launch("mov.u32 x, %ctaid.x; setp.eq.u32 p, x, 0; @p st.global.u32 [i], x;\n@!p ld.global.u32 r, [i];",
                       2, 1, 0, v.at, v.at),
                719);
    CHECK(findings().find("error: global_race in bug, PTX line ") != std::string::npos);
    jtreluEmulatorClear();
  }
  // 16-bit neighbours in one word from two blocks: not a race; plain atomics: not a race.
  clean("mov.u32 x, %ctaid.x; mad.wide.u32 w, x, 2, o; cvt.u16.u32 h, x; st.global.u16 [w], h; ld.global.u16 h, [w];",
        16, 1);
  clean("mov.u32 x, %ctaid.x; mad.wide.u32 w, x, 1, i; ld.global.u8 h, [w]; st.global.u8 [w], h;", 16, 1);
  clean("red.global.add.u32 [i], 1;", 16, 32);
  clean(
      "ld.global.u32 r, [i]; mov.u32 x, %ctaid.x; mad.wide.u32 w, x, 4, o; setp.eq.u32 p, t, 0; @p st.global.u32 [w], "
      "r;",
      16, 32);
  // Two lanes of one store.
  bug("st.global.u32 [o], t;", {"global_race", 719, 7, "(1,0,0)", "global"}, 1, 32);
}

TEST(checker_barriers) {
  bug("setp.lt.u32 p, t, 16; @p bra E;\nbar.sync 0;\nE:", {"divergent_barrier", 719, 8, "(16,0,0)"});
  bug("setp.lt.u32 p, t, 16;\n@p bar.sync 0;", {"divergent_barrier", 719, 8, "(0,0,0)"});
  bug("setp.lt.u32 p, t, 32; @p bra E;\nbar.sync 0;\nE:",
      {"divergent_barrier", 719, 8, "(32,0,0)"});  // a whole warp leaves instead
  bug("setp.lt.u32 p, t, 32; @p bra A;\nbar.sync 1;\nbra E; A: bar.sync 2; E:", {"deadlock", 702, 0, ""});
  bug("bar.sync 0, 48;", {"bad_barrier", 719, 7, ""});
  bug("setp.lt.u32 p, t, 32; @p bra A;\nbar.sync 1, 64;\nbra E; A: bar.sync 1, 32; E:",
      {"divergent_barrier", 719, 0, ""});
  // Waiting for lanes that never come.
  bug("setp.lt.u32 p, t, 8; @p exit;\nshfl.sync.bfly.b32 r, t, 1, 31, -1;",
      {"member_mask_of_absent_lanes", 719, 8, "(8,0,0)"}, 1, 32);
  bug("shfl.sync.bfly.b32 r, t, 1, 31, 15;", {"not_in_member_mask", 719, 7, "(4,0,0)"}, 1, 32);
  bug("setp.lt.u32 p, t, 16; @!p bra E;\nshfl.sync.down.b32 r, t, 1, 31, 65535;\nE:",
      {"shuffle_from_absent_lane", 719, 8, "(15,0,0)"}, 1, 32);
}

TEST(checker_traps_and_timeouts) {
  bug("setp.ne.u32 p, t, 33; @p bra E;\ntrap;\nE:", {"trap", 719, 8, "(33,0,0)"});
  jtreluEmulatorSetInstructionLimit(100000);
  bug("L: setp.eq.u32 p, t, t;\n@p bra L;", {"timeout", 702, 0, ""}, 1, 32);
  jtreluEmulatorSetInstructionLimit(1ull << 32);
}

TEST(checker_launch_limits) {
  Module m(
      ".visible .entry small(.param .u64 p, .param .u32 n) .maxntid 64, 1, 1 { .shared .b8 s[1024]; .reg .u32 a; "
      "mov.u32 a, s; ret; }\n"
      ".extern .shared .b8 d[];\n.visible .entry big() .reqntid 32, 1, 1 { .reg .u32 a; mov.u32 a, d; ret; }\n.visible "
      ".entry many() .maxnreg 128 { ret; }\n");
  uint64_t p = 0;
  uint32_t n = 0;
  auto refused = [&](int code, int expected, const char* what) {
    CHECK_EQUAL(code, expected);
    std::string f = findings();
    checks++;
    if (f.find(what) == std::string::npos) fail(__FILE__, __LINE__, std::string("no '") + what + "' in " + f);
    jtreluEmulatorClear();
  };
  m.run("small", 1, 64, 0, p, n);
  refused(m.launch("small", 1, 65, 0, p, n), 1,
          "launch_limit in small: 65 threads in a block, the kernel was compiled for at most 64");
  refused(m.launch("small", 0, 64, 0, p, n), 1, "launch_limit in small: grid x = 0");
  refused(m.launch("big", 1, 64, 0), 1, "launch_limit in big: the kernel requires block x = 32");
  refused(m.launch("many", 1, 1024, 0), 701, "launch_limit in many: registers");
  refused(m.launch("many", 1, 1025, 0), 1, "launch_limit in many: block x = 1025");
  m.run("big", 1, 32, 48 * 1024);
  refused(m.launch("big", 1, 32, 48 * 1024 + 1), 1, "bytes of dynamic shared memory");
  CHECK_EQUAL(cuFuncSetAttribute(m.function("big"), 8, 100000), 0);
  m.run("big", 1, 32, 100000);
  refused(cuFuncSetAttribute(m.function("big"), 8, 163 * 1024 + 1), 1, "exceed the device's");
  // Parameters.
  void* none[] = {nullptr, nullptr};
  refused(cuLaunchKernel(m.function("small"), 1, 1, 1, 32, 1, 1, 0, nullptr, none, nullptr), 1,
          "parameters in small: parameter 0 of 2 is null");
  refused(cuLaunchKernel(m.function("small"), 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, nullptr), 1,
          "parameters in small: no parameters");
  char buffer[64] = {};
  for (size_t size : {8, 11, 12, 16, 17, 24}) {
    void* extra[] = {(void*)1, buffer, (void*)2, &size, nullptr};
    int r = cuLaunchKernel(m.function("small"), 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, extra);
    if (size == 12 || size == 16) CHECK_EQUAL(r, 0);
    else
      refused(r, 1,
              ("parameters in small: the parameter buffer has " + std::to_string(size) + " bytes, the kernel takes 12")
                  .c_str());
  }
}

TEST(checker_unsupported_ptx) {
  struct {
    const char* body;
    const char* what;
  } wrong[] = {
      {"frobnicate.u32 r, r;", "PTX line 7: unsupported instruction 'frobnicate.u32'"},
      {"add.sideways.u32 r, r, r;", "PTX line 7: unsupported instruction 'add.sideways.u32': modifier .sideways"},
      {"wgmma.fence.sync.aligned;", "PTX line 7: unsupported instruction 'wgmma.fence.sync.aligned'"},
      {"add.u32 r, nowhere, r;", "PTX line 7: unknown name nowhere"},
      {"bra NOWHERE;", "PTX line 7: unknown label NOWHERE"},
      {"add.u32 r, r;", "PTX line 7: wrong number of operands"},
      {"add.f8 r, r, r;", "PTX line 7: unsupported instruction"},
      {"ld.param.u32 r, [po+2];", "PTX line 7: misaligned parameter address"},
      {"ld.param.u32 r, [po+16];", "PTX line 7: reads outside the kernel's parameters"},
      {"mov.u32 r, r", "PTX line 8"}};
  for (auto& w : wrong) {
    std::string ptx = std::string(ptxHead) + head + w.body + "\nret;\n}\n";
    char log[300] = "";
    int options[] = {5, 6};
    void* values[] = {log, (void*)(uintptr_t)sizeof log};
    void* module = nullptr;
    CHECK_EQUAL(cuModuleLoadDataEx(&module, ptx.c_str(), 2, options, values), 218);
    checks++;
    if (!strstr(log, w.what)) fail(__FILE__, __LINE__, std::string("log is '") + log + "', expected " + w.what);
    CHECK(findings().find(w.what) != std::string::npos);
    jtreluEmulatorClear();
  }
  void* module = nullptr;
  std::string newer = ".version 8.0\n.target sm_90\n.address_size 64\n";
  CHECK_EQUAL(cuModuleLoadData(&module, newer.c_str()), 209);
  jtreluEmulatorSetComputeCapability(9, 0);
  CHECK_EQUAL(cuModuleLoadData(&module, newer.c_str()), 0);
  CHECK_EQUAL(cuModuleUnload(module), 0);
  jtreluEmulatorSetComputeCapability(8, 0);
}
