// Control flow, memory, warp-level and matrix instructions: small kernels whose results are computed here as well.
#include <cmath>

#include "harness.h"

namespace {
const char* const threadIndex =
    ".reg .u32 t; .reg .u64 at; .reg .u64 out;\n mov.u32 t, %tid.x; ld.param.u64 out, [po]; mad.wide.u32 at, t, 4, "
    "out;\n";

/// A kernel of one block of n threads whose code leaves a 32-bit result in r.
std::vector<uint32_t> results(const std::string& code, unsigned n = 32, const std::string& before = "") {
  Module m(before + ".visible .entry k(.param .u64 po) {\n.reg .u32 r; " + threadIndex + code +
           "\n st.global.u32 [at], r; ret;\n}\n");
  Buffer<uint32_t> out(n);
  m.run("k", 1, n, 0, out.at);
  return out.get();
}
template <class F> void expect(const std::vector<uint32_t>& v, F f) {
  for (uint32_t i = 0; i < v.size(); i++) CHECK_EQUAL(v[i], (uint32_t)f(i));
}
float toFloat(uint32_t b) {
  float f;
  memcpy(&f, &b, 4);
  return f;
}
uint32_t toBits(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  return b;
}
}  // namespace

TEST(kernel_divergence) {
  // A loop whose count depends on the lane.
  expect(results(".reg .u32 i; .reg .pred p; mov.u32 r, 0; mov.u32 i, 0;\n"
                 "L: setp.ge.u32 p, i, t; @p bra D; add.u32 r, r, i; add.u32 i, i, 1; bra L; D: add.u32 r, r, 1000;"),
         [](uint32_t t) { return t * (t - 1) / 2 + 1000; });
  // Nested branches, guards, and a select.
  expect(results(".reg .pred p, q; .reg .u32 x; and.b32 x, t, 1; setp.eq.u32 p, x, 0; and.b32 x, t, 2; setp.eq.u32 q, "
                 "x, 0; mov.u32 r, 5;\n"
                 "@p bra A; @q bra B; mov.u32 r, 7; bra E; B: mov.u32 r, 8; bra E; A: @q mov.u32 r, 9; @!q add.u32 r, "
                 "r, 1; E: add.u32 r, r, t;"),
         [](uint32_t t) { return t + (t % 2 == 0 ? (t & 2 ? 6 : 9) : (t & 2 ? 7 : 8)); });
  // Lanes meet again after the branch: all take part in the vote.
  expect(results(".reg .pred p; setp.lt.u32 p, t, 7; @p bra A; add.u32 r, t, 0; bra M; A: sub.u32 r, t, 0; M: "
                 "activemask.b32 r;"),
         [](uint32_t) { return ~0u; });
  expect(results(".reg .pred p; setp.lt.u32 p, t, 7; @p bra A; activemask.b32 r; bra M; A: activemask.b32 r; M:"),
         [](uint32_t t) { return t < 7 ? 0x7fu : ~0x7fu; });
  // Branch table.
  expect(results(".reg .u32 x; and.b32 x, t, 3; T: .branchtargets A, B, C, D; brx.idx x, T; A: mov.u32 r, 10; bra E; "
                 "B: mov.u32 r, 11; bra E; C: mov.u32 r, 12; bra E; D: mov.u32 r, 13; E:"),
         [](uint32_t t) { return 10 + t % 4; });
}

TEST(kernel_early_exit) {
  Module m(std::string(".visible .entry k(.param .u64 po, .param .u32 n) {\n.reg .u32 r, m; .reg .pred p;") +
           threadIndex +
           "ld.param.u32 m, [n]; setp.ge.u32 p, t, m; @p exit; add.u32 r, t, 1; st.global.u32 [at], r; ret;\n}\n");
  for (uint32_t n : {1u, 31u, 32u, 33u, 77u, 100u}) {
    Buffer<uint32_t> out(100);
    CHECK_EQUAL(cuMemsetD8_v2(out.at, 0, 400), 0);
    m.run("k", 1, 100, 0, out.at, n);
    expect(out.get(), [=](uint32_t t) { return t < n ? t + 1 : 0; });
  }
}

TEST(kernel_calls) {
  const char* functions =
      ".func (.param .b32 ret) square(.param .b32 x) {.reg .u32 a; ld.param.u32 a, [x]; mul.lo.u32 a, a, a; "
      "st.param.b32 [ret+0], a; ret;}\n"
      ".func (.param .b32 ret) outer(.param .b32 x, .param .align 8 .b8 pair[16]) {.reg .u32 a, b; .reg .u64 w; .reg "
      ".pred p; ld.param.u32 a, [x];\n"
      " setp.gt.u32 p, a, 20; @p bra BIG; {.param .b32 q; .param .b32 v; st.param.b32 [q], a; call.uni (v), square, "
      "(q); ld.param.b32 b, [v];}\n"
      " ld.param.u64 w, [pair+8]; cvt.u32.u64 a, w; add.u32 b, b, a; st.param.b32 [ret], b; ret; BIG: mov.u32 b, 3; "
      "st.param.b32 [ret], b; ret;}\n";
  expect(results("{.param .b32 q; .param .align 8 .b8 s[16]; .param .b32 v; .reg .u64 w; cvt.u64.u32 w, t; mul.lo.u64 "
                 "w, w, 100; st.param.b32 [q], t; st.param.b64 [s], w; st.param.b64 [s+8], w;\n"
                 " call.uni (v), outer, (q, s); ld.param.b32 r, [v];}",
                 64, functions),
         [](uint32_t t) { return t > 20 ? 3 : t * t + 100 * t; });
  // A call that only some lanes make.
  expect(results(".reg .pred p; setp.gt.u32 p, t, 9; mov.u32 r, 1; .param .b32 q; .param .b32 v; st.param.b32 [q], t; "
                 "st.param.b32 [v], r; @p call (v), square, (q); ld.param.b32 r, [v];",
                 32, functions),
         [](uint32_t t) { return t > 9 ? t * t : 1; });
}

TEST(kernel_memory_types) {
  std::vector<uint8_t> in(64 * 16);
  for (size_t i = 0; i < in.size(); i++) in[i] = (uint8_t)(i * 37 + 11);
  Buffer<uint8_t> from(in);
  struct {
    const char* type;
    int bytes;
    const char* reg;
    bool sign;
  } types[] = {{"u8", 1, "b16", false},  {"s8", 1, "b32", true},  {"u8", 1, "b64", false},  {"s8", 1, "b16", true},
               {"u16", 2, "b16", false}, {"s16", 2, "b32", true}, {"b32", 4, "b32", false}, {"s32", 4, "b64", true},
               {"u32", 4, "b64", false}, {"b64", 8, "b64", false}};
  for (auto& t : types)
    for (int vector : {1, 2, 4}) {
      if (t.bytes * vector > 16) continue;
      int width = atoi(t.reg + 1) / 8;
      std::string v = vector == 1 ? "" : ".v" + std::to_string(vector), list = vector == 1   ? "x0"
                                                                               : vector == 2 ? "{x0, x1}"
                                                                                             : "{x0, x1, x2, x3}";
      std::string ptx =
          std::string(".visible .entry k(.param .u64 pi, .param .u64 po) {\n.reg .u32 t; .reg .u64 i, o, a; .reg .") +
          t.reg +
          " x<4>;\n"
          "mov.u32 t, %tid.x; ld.param.u64 i, [pi]; ld.param.u64 o, [po]; mad.wide.u32 a, t, " +
          std::to_string(t.bytes * vector) +
          ", i;\n"
          "ld.global" +
          v + "." + t.type + " " + list + ", [a];\nmad.wide.u32 a, t, 32, o;\n";
      for (int k = 0; k < vector; k++)
        ptx += std::string("st.global.") + t.reg + " [a+" + std::to_string(8 * k) + "], x" + std::to_string(k) + ";\n";
      // And the same list stored in the type.
      ptx += "add.u64 o, o, 2048; mad.wide.u32 a, t, " + std::to_string(t.bytes * vector) + ", o;\nst.global" + v +
             "." + (t.type[0] == 's' ? "b" + std::to_string(8 * t.bytes) : t.type) + " [a], " + list + ";\nret;\n}\n";
      Module m(ptx);
      Buffer<uint8_t> out(2048 + 1024);
      CHECK_EQUAL(cuMemsetD8_v2(out.at, 0, 3072), 0);
      m.run("k", 1, 64, 0, from.at, out.at);
      auto got = out.get();
      for (int i = 0; i < 64; i++)
        for (int k = 0; k < vector; k++) {
          uint64_t expected = 0, value;
          memcpy(&expected, &in[(size_t)((i * vector + k) * t.bytes)], (size_t)t.bytes);
          if (t.sign && expected >> (8 * t.bytes - 1)) expected |= ~0ull << (8 * t.bytes - 1);
          if (width < 8) expected &= (1ull << 8 * width) - 1;
          memcpy(&value, &got[(size_t)(i * 32 + 8 * k)], 8);
          CHECK_EQUAL(value, expected);
        }
      CHECK(memcmp(&got[2048], in.data(), (size_t)(64 * t.bytes * vector)) == 0);
    }
}

TEST(kernel_parameters_and_tables) {
  // A struct parameter indexed by a register, a constant table, an initialised global with an address in it, generic addresses.
  Module m(
      ".const .align 4 .b32 table[4] = {10, 20, 30, 40};\n.global .align 8 .u64 pointer = generic(data);\n.global "
      ".align 4 .f32 data[3] = {0f3F800000, 2.5, -3};\n.global .u32 untouched;\n"
      ".visible .entry k(.param .u64 po, .param .align 8 .b8 s[32]) {\n.reg .u32 r, x, y; .reg .u64 a, b;" +
      std::string(threadIndex) +
      "and.b32 x, t, 3; mov.b64 a, s; mad.wide.u32 a, x, 4, a; ld.param.u32 r, [a+8];\n"
      "mov.u64 a, table; mad.wide.u32 a, x, 4, a; ld.const.u32 y, [a]; add.u32 r, r, y;\n"
      "ld.global.u64 b, [pointer]; ld.u32 y, [b+4]; xor.b32 r, r, y; ld.global.u32 y, [untouched]; add.u32 r, r, y;\n"
      "cvta.param.u64 b, s; ld.u32 y, [b+28]; add.u32 r, r, y; st.global.u32 [at], r; ret;\n}\n");
  Buffer<uint32_t> out(32);
  struct {
    uint32_t v[8];
  } s = {{1, 2, 300, 400, 500, 600, 7, 1000}};
  m.run("k", 1, 32, 0, out.at, s);
  expect(out.get(), [&](uint32_t t) { return ((s.v[2 + t % 4] + 10 * (t % 4 + 1)) ^ toBits(2.5f)) + 1000; });
  uint64_t at;
  size_t bytes;
  CHECK_EQUAL(cuModuleGetGlobal_v2(&at, &bytes, m.handle, "data"), 0);
  CHECK_EQUAL(bytes, 12u);
  std::vector<float> data(3);
  CHECK_EQUAL(cuMemcpyDtoH_v2(data.data(), at, 12), 0);
  CHECK(data[0] == 1 && data[1] == 2.5f && data[2] == -3);
}

TEST(kernel_local_and_shared) {
  expect(results(".local .align 8 .b8 depot[64]; .reg .u64 l, g; .reg .u32 x, i; .reg .pred p; mov.u64 l, depot; "
                 "cvta.local.u64 g, l; mov.u32 i, 0;\n"
                 "L: mad.wide.u32 l, i, 4, g; mul.lo.u32 x, i, t; st.u32 [l], x; add.u32 i, i, 1; setp.lt.u32 p, i, "
                 "16; @p bra L;\n"
                 "and.b32 i, t, 15; mov.u64 l, depot; mad.wide.u32 l, i, 4, l; ld.local.u32 r, [l];"),
         [](uint32_t t) { return t % 16 * t; });
  // Static and dynamic shared memory; reversal through it.
  Module m(
      ".extern .shared .align 16 .b8 dynamic[];\n.visible .entry k(.param .u64 po) {\n.shared .align 4 .b8 fixed[400]; "
      ".reg .u32 r, a, n, b; .reg .u64 w;" +
      std::string(threadIndex) +
      "mov.u32 n, %ntid.x; shl.b32 a, t, 2; mov.u32 b, dynamic; add.u32 b, b, a; st.shared.u32 [b], t; mov.u32 b, "
      "fixed; add.u32 b, b, a; mul.lo.u32 r, t, 3; st.shared.u32 [b], r;\n"
      "bar.sync 0; sub.u32 n, n, 1; sub.u32 n, n, t; shl.b32 a, n, 2; mov.u32 b, dynamic; add.u32 b, b, a; "
      "ld.shared.u32 r, [b]; cvt.u64.u32 w, a; .reg .u64 f; mov.u64 f, fixed; cvta.shared.u64 f, f; add.u64 f, f, w; "
      "ld.u32 b, [f]; add.u32 r, r, b;\n"
      "st.global.u32 [at], r; ret;\n}\n");
  Buffer<uint32_t> out(100);
  m.run("k", 1, 100, 400, out.at);
  expect(out.get(), [](uint32_t t) { return (99 - t) * 4; });
}

TEST(kernel_shuffles) {
  auto shuffle = [](const std::string& mode, const std::string& b, uint32_t c) {
    return results(".reg .u32 v; .reg .pred p; mul.lo.u32 v, t, 7; .reg .u32 b; mov.u32 b, " + b + "; shfl.sync." +
                   mode + ".b32 r|p, v, b, " + std::to_string(c) +
                   ", -1; .reg .u32 q; selp.u32 q, 1000, 0, p; add.u32 r, r, q;");
  };
  for (uint32_t by : {0u, 1u, 5u, 16u, 31u})
    for (uint32_t width : {32u, 8u}) {
      uint32_t segment = (32 - width) << 8;
      auto in = [=](int t, int j) { return j >= (int)(t / width * width) && j < (int)(t / width * width + width); };
      auto value = [=](uint32_t t, int j) { return in((int)t, j) ? (uint32_t)j * 7 + 1000 : t * 7; };
      std::string b = std::to_string(by);
      expect(shuffle("down", b, segment | 31), [=](uint32_t t) { return value(t, (int)(t + by)); });
      expect(shuffle("up", b, segment), [=](uint32_t t) { return value(t, (int)t - (int)by); });
      expect(shuffle("idx", b, segment | 31),
             [=](uint32_t t) { return value(t, (int)(t / width * width + by % width)); });
      // A butterfly partner in a lower segment is allowed by the definition; one in a higher is not.
      expect(shuffle("bfly", b, segment | 31), [=](uint32_t t) {
        int j = (int)(t ^ by);
        return j <= (int)(t / width * width + width - 1) ? (uint32_t)j * 7 + 1000 : t * 7;
      });
    }
}

TEST(kernel_warp_votes) {
  expect(results(".reg .pred p; .reg .u32 x; and.b32 x, t, 5; setp.eq.u32 p, x, 1; vote.sync.ballot.b32 r, p, -1;"),
         [](uint32_t) {
           uint32_t m = 0;
           for (int i = 0; i < 32; i++) m |= (uint32_t)((i & 5) == 1) << i;
           return m;
         });
  expect(results(
             ".reg .pred p, q, a; setp.lt.u32 p, t, 32; vote.sync.all.pred q, p, -1; setp.gt.u32 p, t, 31; "
             "vote.sync.any.pred a, p, -1; .reg .u32 x, y; selp.u32 x, 1, 0, q; selp.u32 y, 2, 0, a; add.u32 r, x, y;"),
         [](uint32_t) { return 1; });
  expect(results("redux.sync.add.s32 r, t, -1;"), [](uint32_t) { return 496; });
  expect(results(".reg .s32 x; sub.s32 x, t, 7; redux.sync.min.s32 r, x, -1;"), [](uint32_t) { return -7; });
  expect(results("redux.sync.xor.b32 r, t, -1;"), [](uint32_t) { return 0; });
  expect(results(".reg .u32 x; shr.u32 x, t, 3; match.any.sync.b32 r, x, -1;"),
         [](uint32_t t) { return 0xffu << (t / 8 * 8); });
  // Half of the warp on its own.
  expect(results(".reg .pred p; setp.lt.u32 p, t, 16; mov.u32 r, 0; @!p bra E; redux.sync.add.u32 r, t, 65535; E:"),
         [](uint32_t t) { return t < 16 ? 120 : 0; });
  // Lanes that come to the same instruction one after the other wait for each other.
  expect(results(".reg .pred p; .reg .u32 x; setp.lt.u32 p, t, 16; @p bra A; add.u32 x, t, 100; bra S; A: mov.u32 x, "
                 "1; S: redux.sync.add.u32 r, x, -1;"),
         [](uint32_t) { return 16 + 16 * 100 + (16 + 31) * 8; });
}

TEST(kernel_barriers) {
  // Named barriers with counts: warps 0,1 produce, warps 2,3 consume; bar.red over the block.
  Module m(
      ".visible .entry k(.param .u64 po) {\n.shared .u32 s[64]; .reg .u32 r, a, x; .reg .pred p;" +
      std::string(threadIndex) +
      "setp.ge.u32 p, t, 64; @p bra C; shl.b32 a, t, 2; mov.u32 x, s; add.u32 a, a, x; mul.lo.u32 x, t, 5; "
      "st.shared.u32 [a], x; bar.arrive 1, 128; mov.u32 r, 0; bra E;\n"
      "C: bar.sync 1, 128; sub.u32 x, t, 64; shl.b32 a, x, 2; mov.u32 x, s; add.u32 a, a, x; ld.shared.u32 r, [a];\n"
      "E: setp.gt.u32 p, t, 99; .reg .u32 n; bar.red.popc.u32 n, 0, p; add.u32 r, r, n; .reg .pred q; bar.red.or.pred "
      "q, 0, p; @q add.u32 r, r, 1000; bar.red.and.pred q, 0, p; @q add.u32 r, r, 5000;\n"
      "st.global.u32 [at], r; ret;\n}\n");
  Buffer<uint32_t> out(128);
  m.run("k", 1, 128, 0, out.at);
  expect(out.get(), [](uint32_t t) { return (t < 64 ? 0 : (t - 64) * 5) + 28 + 1000; });
}

TEST(kernel_atomics) {
  Module m(
      ".visible .entry k(.param .u64 po) {\n.shared .u32 s; .reg .u32 r, x; .reg .u64 o; .reg .f32 f; .reg .pred p; "
      "mov.u32 x, %tid.x; ld.param.u64 o, [po];\n"
      "atom.global.add.u32 r, [o], 1; red.global.max.s32 [o+4], x; atom.global.min.u32 r, [o+8], x; red.global.or.b32 "
      "[o+12], x; atom.global.xor.b32 r, [o+16], x; atom.global.exch.b32 r, [o+20], 77;\n"
      "cvt.rn.f32.u32 f, x; red.global.add.f32 [o+24], f; atom.global.add.noftz.f16x2 r, [o+28], 0x3c004000; "
      "atom.global.cas.b32 r, [o+32], 0, 5; atom.global.inc.u32 r, [o+36], 9;\n"
      ".reg .f64 d; cvt.rn.f64.u32 d, x; .reg .f64 e; atom.global.add.f64 e, [o+40], d; .reg .u64 w; cvt.u64.u32 w, x; "
      "atom.global.add.u64 w, [o+48], w;\n"
      "setp.eq.u32 p, x, 0; @p st.shared.u32 [s], 0; bar.sync 0; atom.shared.add.u32 r, [s], 2; bar.sync 0; "
      "ld.shared.u32 r, [s]; @p atom.global.add.u32 r, [o+56], r; red.relaxed.gpu.global.add.u32 [o+60], 3; ret;\n}\n");
  for (int threads : {1, 2}) {
    jtreluEmulatorSetThreads(threads);
    Buffer<uint32_t> out(std::vector<uint32_t>{0, 0, 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    m.run("k", 4, 64, 0, out.at);
    auto v = out.get();
    double d;
    memcpy(&d, &v[10], 8);
    CHECK_EQUAL(v[0], 256u);
    CHECK_EQUAL(v[1], 63u);
    CHECK_EQUAL(v[2], 0u);
    CHECK_EQUAL(v[3], 63u);
    CHECK_EQUAL(v[4], 0u);
    CHECK_EQUAL(v[5], 77u);
    CHECK(toFloat(v[6]) == 4 * 63 * 32);
    CHECK_EQUAL(v[7], 0x5c006000u);  // 256 and 512
    CHECK_EQUAL(v[8], 5u);
    CHECK_EQUAL(v[9], 256u % 10);
    CHECK(d == 4 * 63 * 32);
    CHECK_EQUAL(v[12], 4u * 63 * 32);
    CHECK_EQUAL(v[14], 4u * 128);
    CHECK_EQUAL(v[15], 256u * 3);
  }
}

TEST(kernel_matrix_loads) {
  for (int n : {1, 2, 4})
    for (bool transposed : {false, true})
      for (bool store : {false, true}) {
        // Element (matrix, row, column) holds matrix*64 + row*8 + column; rows lie apart and out of order.
        std::string list = n == 1   ? "{d0}"
                           : n == 2 ? "{d0, d1}"
                                    : "{d0, d1, d2, d3}",
                    form = ".sync.aligned.m8n8.x" + std::to_string(n) + (transposed ? ".trans" : "") + ".shared.b16 ";
        std::string ptx =
            ".visible .entry k(.param .u64 po) {\n.shared .align 16 .b8 s[1024], u[1024]; .reg .b32 d<4>, t, a, x, y; "
            ".reg .u64 o; mov.u32 t, %tid.x; ld.param.u64 o, [po];\n"
            "mov.b32 d0, 0; mov.b32 d1, 0; mov.b32 d2, 0; mov.b32 d3, 0; xor.b32 a, t, 5; shl.b32 a, a, 4; mov.u32 x, "
            "s; add.u32 a, a, x;\n";  // row of this lane
        for (int k = 0; k < 4; k++)
          ptx += "shl.b32 y, t, 3; add.u32 y, y, " + std::to_string(2 * k) +
                 "; add.u32 x, y, 1; shl.b32 x, x, 16; or.b32 x, x, y; st.shared.b32 [a+" + std::to_string(4 * k) +
                 "], x;\n";
        ptx += "bar.warp.sync -1; ldmatrix" + form + list + ", [a];\n";
        if (store)  // and back again, elsewhere: the same bytes
          ptx += "mov.u32 x, u; mov.u32 y, s; sub.u32 a, a, y; add.u32 a, a, x; stmatrix" + form + "[a], " + list +
                 "; bar.warp.sync -1; " +
                 (n < 4 ? "setp.ge.u32 %p0, t, " + std::to_string(8 * n) + "; @%p0 bra E;" : std::string()) +
                 "ld.shared.v4.b32 {d0, d1, d2, d3}, [a]; E:\n";
        ptx += "mad.wide.u32 o, t, 16, o; st.global.v4.b32 [o], {d0, d1, d2, d3}; ret;\n}\n";
        ptx.insert(ptx.find("{\n") + 2, ".reg .pred %p<1>;\n");
        Module m(store ? std::string(".version 8.0\n.target sm_80\n.address_size 64\n") + ptx : ptx);
        Buffer<uint16_t> out(32 * 8);
        m.run("k", 1, 32, 0, out.at);
        auto v = out.get();
        for (int lane = 0; lane < 32; lane++)
          for (int e = 0; e < 8; e++) {
            if (store) {
              if (lane < 8 * n) CHECK_EQUAL(v[(size_t)(lane * 8 + e)], lane * 8 + e);
            } else if (e / 2 < n) {
              int row = lane / 4, column = lane % 4 * 2 + e % 2;
              CHECK_EQUAL(v[(size_t)(lane * 8 + e)], e / 2 * 64 + (transposed ? column * 8 + row : row * 8 + column));
            }
          }
      }
}

TEST(kernel_async_copies) {
  std::vector<uint32_t> in(512);
  for (size_t i = 0; i < in.size(); i++) in[i] = (uint32_t)i * 3 + 1;
  Buffer<uint32_t> from(in);
  for (int bytes : {4, 8, 16})
    for (int left : {0, 1}) {  // two groups; the first, or both, are waited for
      std::string b = std::to_string(bytes), words = std::to_string(bytes / 4),
                  w = bytes == 16  ? ".v4"
                      : bytes == 8 ? ".v2"
                                   : "";
      std::string list = bytes == 16 ? "{r0, r1, r2, r3}" : bytes == 8 ? "{r0, r1}" : "r0";
      Module m(
          ".visible .entry k(.param .u64 pi, .param .u64 po) {\n.shared .align 16 .b8 s[2048]; .reg .pred %p; .reg "
          ".u32 t, a, z, r<4>; .reg .u64 i, o; mov.u32 t, %tid.x; ld.param.u64 i, [pi]; ld.param.u64 o, [po];\n"
          "mad.wide.u32 i, t, " +
          b + ", i; mad.wide.u32 o, t, " + b + ", o; mov.u32 a, s; mad.lo.u32 a, t, " + b +
          ", a; and.b32 z, t, 3; setp.eq.u32 %p, z, 3; selp.u32 z, 0, " + b +
          ", %p;\n"
          "cp.async." +
          (bytes == 16 ? "cg" : "ca") + ".shared.global [a], [i], " + b +
          ", z; cp.async.commit_group; cp.async.ca.shared.global [a+1024], [i+" + std::to_string(32 * bytes) + "], " +
          b +
          "; cp.async.commit_group;\n"
          "cp.async.wait_group " +
          std::to_string(left) + "; bar.sync 0; ld.shared" + w + ".u32 " + list + ", [a" + (left ? "" : "+1024") +
          "]; st.global" + w + ".u32 [o], " + list + "; cp.async.wait_all; ret;\n}\n");
      (void)words;
      Buffer<uint32_t> out((size_t)(32 * bytes / 4));
      m.run("k", 1, 32, 0, from.at, out.at);
      auto v = out.get();
      for (size_t i = 0; i < v.size(); i++) {
        bool zero = left && (i / (size_t)(bytes / 4)) % 4 == 3;  // source size 0: zero fill
        CHECK_EQUAL(v[i], zero ? 0 : in[i + (left ? 0 : v.size())]);
      }
    }
}

TEST(kernel_warp_synchronous_code) {
  // A warp's exchange through shared memory, ordered by bar.warp.sync only; and a tree sum by shuffles.
  expect(
      results(
          ".shared .u32 s[32]; .reg .u32 a, x; mov.u32 x, s; shl.b32 a, t, 2; add.u32 a, a, x; st.shared.u32 [a], t; "
          "bar.warp.sync -1; xor.b32 x, t, 9; shl.b32 x, x, 2; mov.u32 a, s; add.u32 a, a, x; ld.shared.u32 r, [a];"),
      [](uint32_t t) { return t ^ 9; });
  expect(
      results(
          ".reg .u32 v, o; mov.u32 v, t; shfl.sync.bfly.b32 o, v, 16, 31, -1; add.u32 v, v, o; shfl.sync.bfly.b32 o, "
          "v, 8, 31, -1; add.u32 v, v, o; shfl.sync.bfly.b32 o, v, 4, 31, -1; add.u32 v, v, o;"
          "shfl.sync.bfly.b32 o, v, 2, 31, -1; add.u32 v, v, o; shfl.sync.bfly.b32 o, v, 1, 31, -1; add.u32 r, v, o;"),
      [](uint32_t) { return 496; });
}

TEST(kernel_blocks_that_talk) {
  // The last block to arrive sums what all wrote: fence, atomic, and then reads of other blocks' words. No race.
  Module m(
      ".visible .entry k(.param .u64 po) {\n.shared .u32 last; .reg .u32 b, t, n, r, x; .reg .u64 o, a; .reg .pred p; "
      "ld.param.u64 o, [po]; mov.u32 b, %ctaid.x; mov.u32 n, %nctaid.x; mov.u32 t, %tid.x;\n"
      "mad.wide.u32 a, b, 4, o; setp.ne.u32 p, t, 0; @p bra W; mul.lo.u32 x, b, b; st.global.u32 [a+8], x; membar.gl; "
      "atom.global.add.u32 r, [o], 1; sub.u32 x, n, 1; set.eq.u32.u32 x, r, x; st.shared.u32 [last], x; membar.gl;\n"
      "W: bar.sync 0; ld.shared.u32 x, [last]; setp.eq.u32 p, x, 0; @p exit; setp.ne.u32 p, t, 0; @p exit; mov.u32 r, "
      "0; mov.u32 b, 0; add.u64 a, o, 8;\n"
      "L: ld.global.u32 x, [a]; add.u32 r, r, x; add.u64 a, a, 4; add.u32 b, b, 1; setp.lt.u32 p, b, n; @p bra L; "
      "st.global.u32 [o+4], r; ret;\n}\n");
  for (int threads : {1, 2})
    for (uint64_t seed : {0, 1, 2}) {
      jtreluEmulatorSetThreads(threads);
      jtreluEmulatorSetSeed(seed);
      Buffer<uint32_t> out(2 + 50);
      CHECK_EQUAL(cuMemsetD8_v2(out.at, 0, 208), 0);
      m.run("k", 50, 64, 0, out.at);
      CHECK_EQUAL(out.get()[1], 49u * 50 * 99 / 6);
    }
  // All blocks at a barrier of their own making, which only a cooperative launch can pass.
  Module c(
      ".visible .entry k(.param .u64 po) {\n.reg .u32 b, n, x; .reg .u64 o, a; .reg .pred p; ld.param.u64 o, [po]; "
      "mov.u32 b, %ctaid.x; mov.u32 n, %nctaid.x; mad.wide.u32 a, b, 4, o; st.global.u32 [a+4], b; membar.gl; "
      "red.global.add.u32 [o], 1;\n"
      "L: atom.acquire.gpu.global.add.u32 x, [o], 0; setp.lt.u32 p, x, n; @p bra L; add.u32 b, b, 1; rem.u32 b, b, n; "
      "mad.wide.u32 o, b, 4, o; ld.global.u32 x, [o+4]; st.global.u32 [a+64], x; ret;\n}\n");
  jtreluEmulatorSetThreads(2);
  Buffer<uint32_t> out(40);
  CHECK_EQUAL(cuMemsetD8_v2(out.at, 0, 160), 0);
  uint64_t at = out.at;
  void* arguments[] = {&at};
  CHECK_EQUAL(cuLaunchCooperativeKernel(c.function("k"), 8, 1, 1, 1, 1, 1, 0, nullptr, arguments), 0);
  CHECK(findings().empty());
  auto v = out.get();
  for (uint32_t b = 0; b < 8; b++) CHECK_EQUAL(v[16 + b], (b + 1) % 8);
}

TEST(kernel_order_does_not_matter) {
  // Race-free code gives the same whatever the order of blocks and warps and however many threads run it.
  Module m(
      ".visible .entry k(.param .u64 po) {\n.shared .u32 s[128]; .reg .u32 t, b, a, x, y; .reg .u64 o; mov.u32 t, "
      "%tid.x; mov.u32 b, %ctaid.x; ld.param.u64 o, [po]; shl.b32 a, t, 2; mov.u32 x, s; add.u32 a, a, x; mad.lo.u32 "
      "y, b, 1000, t; st.shared.u32 [a], y; bar.sync 0;\n"
      "xor.b32 x, t, 77; shl.b32 x, x, 2; mov.u32 a, s; add.u32 a, a, x; ld.shared.u32 y, [a]; mad.lo.u32 t, b, 128, "
      "t; mad.wide.u32 o, t, 4, o; st.global.u32 [o], y; ret;\n}\n");
  for (int threads : {1, 2, 3})
    for (uint64_t seed = 0; seed < 5; seed++) {
      jtreluEmulatorSetThreads(threads);
      jtreluEmulatorSetSeed(seed);
      Buffer<uint32_t> out(128 * 37);
      m.run("k", 37, 128, 0, out.at);
      expect(out.get(), [](uint32_t i) { return i / 128 * 1000 + (i % 128 ^ 77); });
    }
}

TEST(kernel_footprint) {
  // Two blocks read one word and write their own.
  Module m(std::string(".visible .entry k(.param .u64 po, .param .u64 pi) {\n.reg .u32 r, b; .reg .u64 i;") +
           threadIndex +
           "mov.u32 b, %ctaid.x; mad.wide.u32 at, b, 128, at; ld.param.u64 i, [pi]; ld.global.u32 r, [i]; "
           "st.global.u32 [at], r; ld.global.u32 r, [i]; ret;\n}\n");
  Buffer<uint32_t> in(std::vector<uint32_t>(16, 7)), out(64);
  for (int on : {1, 0}) {
    jtreluEmulatorSetFootprint(on);
    jtreluEmulatorCountersClear();
    m.run("k", 2, 32, 0, out.at, in.at);
    CHECK(text(jtreluEmulatorCountersJson)
              .find(on ? "\"globalLoadFootprint\":4,\"globalStoreFootprint\":256,"
                       : "\"globalLoadFootprint\":0,\"globalStoreFootprint\":0,") != std::string::npos);
  }
}

TEST(kernel_first_level_cache) {
  // A warp reads 32 sectors, eight lines, twice.
  for (const char* how : {"", ".cg"}) {
    Module m(std::string(".visible .entry k(.param .u64 pi, .param .u64 po) {\n.reg .u32 r, t; .reg .u64 i, o; "
                         "mov.u32 t, %tid.x; ld.param.u64 i, [pi]; ld.param.u64 o, [po]; mad.wide.u32 i, t, 32, i; "
                         "mad.wide.u32 o, t, 4, o; ld.global.u32 r, [i]; ld.global") +
             how + ".u32 r, [i]; st.global.u32 [o], r; ret;\n}\n");
    Buffer<uint32_t> in(std::vector<uint32_t>(32 * 8, 7)), out(32);
    for (uint64_t lines : {0, 7, 8}) {
      jtreluEmulatorSetFirstLevelCache(128 * lines);
      jtreluEmulatorCountersClear();
      m.run("k", 1, 32, 0, in.at, out.at);
      std::string expected =
          lines == 8 && !*how ? "\"globalLoadSectorsMissed\":32," : "\"globalLoadSectorsMissed\":64,";
      CHECK(text(jtreluEmulatorCountersJson).find(expected) != std::string::npos);
    }
  }
  jtreluEmulatorSetFirstLevelCache(0);
}

TEST(kernel_counters) {
  Module m(
      ".visible .entry k(.param .u64 pi, .param .u64 po) {\n.shared .align 4 .b8 s[8192]; .reg .u32 t, a, z; .reg .f32 "
      "x; .reg .u64 i, o; mov.u32 t, %tid.x; ld.param.u64 i, [pi]; ld.param.u64 o, [po]; mad.wide.u32 o, t, 4, o; "
      "mad.wide.u32 i, t, 64, i;\n"
      "ld.global.f32 x, [i]; fma.rn.f32 x, x, x, x; mov.u32 z, s; mad.lo.u32 a, t, 8, z; st.shared.f32 [a], x; "
      "bar.sync 0; ld.shared.f32 x, [a]; st.global.f32 [o], x; ret;\n}\n");
  Buffer<float> in(std::vector<float>(64 * 16, 1.f)), out(64);
  jtreluEmulatorCountersClear();
  m.run("k", 1, 64, 0, in.at, out.at);
  std::string c = text(jtreluEmulatorCountersJson);
  auto has = [&](const char* what) {
    if (c.find(what) == std::string::npos) fail(__FILE__, __LINE__, std::string(what) + " not in " + c);
    checks++;
  };
  has("\"globalLoadRequests\":2,\"globalLoadSectors\":64,\"globalLoadSectorsMinimum\":8,\"globalLoadBytes\":256,");
  has("\"globalStoreRequests\":2,\"globalStoreSectors\":8,\"globalStoreSectorsMinimum\":8,\"globalStoreBytes\":256,");
  has("\"sharedLoadWavefronts\":4,\"sharedLoadBankConflicts\":2,\"sharedStoreWavefronts\":4,"
      "\"sharedStoreBankConflicts\":2,");
  has("\"fusedMultiplyAdds\":64,\"barriers\":2,");
  CHECK_EQUAL(jtreluEmulatorLaunchCount(), 1u);
}
