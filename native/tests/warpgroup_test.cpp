// wgmma: descriptors against the canonical layouts that the PTX ISA publishes, sums against mma.sync bit for bit, and planted faults.
#include <random>

#include "hopper.h"

using hopper::bug;
using hopper::clean;

namespace {

/// A layout as CuTe writes it, for one of its two modes: a coordinate is taken apart by the extents, first ones first.
struct Mode {
  std::vector<int> extents, strides;
  int operator()(int x) const {
    int r = 0;
    for (size_t i = 0; i < extents.size(); i++) {
      r += (i + 1 < extents.size() ? x % extents[i] : x) * strides[i];
      x /= extents[i];
    }
    return r;
  }
};
/// Swizzle<bits, 4, 3> o (mn, k) in elements of `size` bytes, from an address in a pattern that begins at another.
struct Layout {
  int bits, size;
  Mode mn, k;
  uint32_t start, pattern = 0;
  uint32_t operator()(int i, int j) const {
    uint32_t a = start + (uint32_t)((mn(i) + k(j)) * size) - pattern;
    return pattern + (a ^ ((a >> 7 & ((1u << bits) - 1)) << 4));
  }
};
/// `lines`: of 128 bytes from a multiple of 1024 to where the pattern begins.
uint64_t descriptor(uint32_t start, uint32_t leading, uint32_t stride, int bits, uint32_t lines = 0) {
  static const uint64_t modes[] = {0, 3, 2, 1};
  return (uint64_t)(start >> 4) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 |
         (uint64_t)lines << 49 | modes[bits] << 62;
}

struct Element {
  const char* name;
  int size;
  int k() const { return 32 / size; }
};
const Element bf16{"bf16", 2}, f16{"f16", 2}, tf32{"tf32", 4};

std::string list(const char* name, int n) {
  std::string r = "{";
  for (int i = 0; i < n; i++) r += (i ? ", " : "") + std::string(name) + std::to_string(i);
  return r + "}";
}

/// A warpgroup fills shared memory with an image and multiplies what two descriptors say, with A from registers where `fragments`.
std::string productKernel(const Element& e, int n, bool fragments, bool transposedA, bool transposedB, bool negatedA,
                          bool negatedB, bool adds) {
  const int sums = n / 2;
  std::string ptx =
      hopper::head +
      ".extern .shared .align 1024 .b8 s[];\n.visible .entry k(.param .u64 pimage, .param .u32 pbytes, .param .u64 pa, "
      ".param .u64 pb, .param .u64 pfragments, .param .u64 psums) {\n.reg .u32 t, a, x, y, v, bytes; .reg .u64 image, "
      "w, "
      "da, db; .reg .pred q; .reg .b32 f<" +
      std::to_string(sums) +
      ">, g<4>;\nmov.u32 t, %tid.x; mov.u32 a, s; ld.param.u64 image, [pimage]; ld.param.u32 bytes, [pbytes]; "
      "ld.param.u64 da, [pa]; ld.param.u64 db, [pb];\nmul.lo.u32 x, t, 4;\nL: setp.ge.u32 q, x, bytes; @q bra D; "
      "cvt.u64.u32 w, x; add.u64 w, w, image; ld.global.u32 v, [w]; add.u32 y, x, a; st.shared.u32 [y], v; add.u32 x, "
      "x, 512; bra L;\nD: fence.proxy.async.shared::cta; bar.sync 0;\nld.param.u64 w, [psums]; mad.wide.u32 w, t, " +
      std::to_string(4 * sums) + ", w;\n";
  if (adds)
    for (int i = 0; i < sums; i++)
      ptx += "ld.global.b32 f" + std::to_string(i) + ", [w+" + std::to_string(4 * i) + "];\n";
  if (fragments) {
    ptx += "ld.param.u64 image, [pfragments]; mad.wide.u32 image, t, 16, image;\n";
    for (int i = 0; i < 4; i++)
      ptx += "ld.global.b32 g" + std::to_string(i) + ", [image+" + std::to_string(4 * i) + "];\n";
  }
  ptx += std::string("setp.") + (adds ? "eq" : "ne") +
         ".u32 q, t, t;\nwgmma.fence.sync.aligned;\nwgmma.mma_async.sync.aligned.m64n" + std::to_string(n) + "k" +
         std::to_string(e.k()) + ".f32." + e.name + "." + e.name + " " + list("f", sums) + ", " +
         (fragments ? list("g", 4) : "da") + ", db, q, " + (negatedA ? "-1" : "1") + ", " + (negatedB ? "-1" : "1");
  if (e.size == 2) {
    if (!fragments) ptx += transposedA ? ", 1" : ", 0";
    ptx += transposedB ? ", 1" : ", 0";
  }
  ptx += ";\nwgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n";
  for (int i = 0; i < sums; i++)
    ptx += "st.global.b32 [w+" + std::to_string(4 * i) + "], f" + std::to_string(i) + ";\n";
  return ptx + "ret;\n}\n";
}

/// The same by mma.sync: a warp for each 16 x 8 of a row-major A and a column-major B. Rows of k have eight words for all types.
std::string referenceKernel(const Element& e, int n) {
  return hopper::head +
         ".visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc) {\n.reg .u32 t, g, q, x, y; .reg .u64 a, "
         "b, c, w; .reg .b32 "
         "A<4>, B<2>, C<4>;\nmov.u32 t, %tid.x; shr.u32 g, t, 2; and.b32 q, t, 3; ld.param.u64 a, [pa]; ld.param.u64 "
         "b, [pb]; "
         "ld.param.u64 c, [pc]; mov.u32 x, %ctaid.x; mov.u32 y, %ctaid.y;\nmad.lo.u32 x, x, 16, g; mad.lo.u32 t, x, 8, "
         "q; "
         "mad.wide.u32 a, t, 4, a; ld.global.b32 A0, [a]; ld.global.b32 A1, [a+256]; ld.global.b32 A2, [a+16]; "
         "ld.global.b32 A3, "
         "[a+272];\nmad.lo.u32 t, y, 8, g; mad.lo.u32 t, t, 8, q; mad.wide.u32 b, t, 4, b; ld.global.b32 B0, [b]; "
         "ld.global.b32 B1, "
         "[b+16];\nmad.lo.u32 t, x, " +
         std::to_string(n) +
         ", q; add.u32 t, t, q; mad.lo.u32 t, y, 8, t; mad.wide.u32 c, t, 4, c; ld.global.b32 C0, [c]; ld.global.b32 "
         "C1, [c+4]; ld.global.b32 C2, [c+" +
         std::to_string(32 * n) + "]; ld.global.b32 C3, [c+" + std::to_string(32 * n + 4) +
         "];\nmma.sync.aligned.m16n8k" + std::to_string(e.k()) + ".row.col.f32." + e.name + "." + e.name +
         ".f32 {C0, C1, C2, C3}, {A0, A1, A2, A3}, {B0, B1}, {C0, C1, "
         "C2, C3};\nst.global.b32 [c], C0; st.global.b32 [c+4], C1; st.global.b32 [c+" +
         std::to_string(32 * n) + "], C2; st.global.b32 [c+" + std::to_string(32 * n + 4) + "], C3;\nret;\n}\n";
}

/// Elements as their bits; A is 64 x k, B n x k.
struct Operands {
  std::vector<uint32_t> a, b, c;
  Operands(const Element& e, int n, Random& random)
      : a((size_t)(64 * e.k())), b((size_t)(n * e.k())), c((size_t)(64 * n)) {
    for (auto* m : {&a, &b})
      for (auto& x : *m) {
        float f = std::normal_distribution<float>()(random);
        memcpy(&x, &f, 4);
        if (random() % 8 == 0) x = 0;
        if (e.size == 2) {
          uint32_t exponent = (x >> 23 & 0xff) - 127 + 15;
          x = !strcmp(e.name, "bf16")        ? x >> 16
              : x << 1 == 0 || exponent > 30 ? 0
                                             : (x >> 16 & 0x8000) | exponent << 10 | (x >> 13 & 0x3ff);
        }
      }
    for (auto& x : c) {
      float f = std::normal_distribution<float>()(random);
      memcpy(&x, &f, 4);
    }
  }
};
std::vector<uint32_t> packed(const Element& e, const std::vector<uint32_t>& m, bool negated = false) {
  std::vector<uint32_t> r((m.size() * (size_t)e.size + 3) / 4);
  for (size_t i = 0; i < m.size(); i++) {
    uint32_t x = negated ? m[i] ^ (e.size == 2 ? 0x8000u : 0x80000000u) : m[i];
    memcpy((uint8_t*)r.data() + i * (size_t)e.size, &x, (size_t)e.size);
  }
  return r;
}

struct Options {
  bool fragments = false, transposedA = false, transposedB = false, negatedA = false, negatedB = false, adds = true;
};

/// Both products of the same operands, A and B lying as the layouts say; they must agree bit for bit.
void compare(const Element& e, int n, const Layout& la, uint64_t da, const Layout& lb, uint64_t db, const Options& o,
             Random& random) {
  Operands m(e, n, random);
  std::vector<uint8_t> image(220 * 1024);
  uint32_t used = 0;
  auto put = [&](const Layout& l, const std::vector<uint32_t>& from, int rows) {
    for (int i = 0; i < rows; i++)
      for (int k = 0; k < e.k(); k++) {
        uint32_t at = l(i, k);
        memcpy(&image.at(at), &from[(size_t)(i * e.k() + k)], (size_t)e.size);
        used = std::max(used, at + 16);
      }
  };
  if (!o.fragments) put(la, m.a, 64);
  put(lb, m.b, n);
  used = (used + 127) / 128 * 128;
  // Fragments: four registers of each thread, two rows of eight words apart.
  std::vector<uint32_t> words = packed(e, m.a), fragments(128 * 4), sums((size_t)(128 * n / 2));
  for (int t = 0; t < 128; t++) {
    int row = t / 32 * 16 + t % 32 / 4, word = t % 4;
    for (int i = 0; i < 4; i++)
      fragments[(size_t)(t * 4 + i)] = words[(size_t)((row + i % 2 * 8) * 8 + word + i / 2 * 4)];
    for (int i = 0; i < n / 2; i++)
      sums[(size_t)(t * n / 2 + i)] = m.c[(size_t)((row + i / 2 % 2 * 8) * n + i / 4 * 8 + t % 4 * 2 + i % 2)];
  }
  if (!o.adds) std::fill(m.c.begin(), m.c.end(), 0);
  Buffer<uint8_t> di(image);
  Buffer<uint32_t> df(fragments), ds(sums), ra(packed(e, m.a, o.negatedA)), rb(packed(e, m.b, o.negatedB)), rc(m.c);
  Module product(productKernel(e, n, o.fragments, o.transposedA, o.transposedB, o.negatedA, o.negatedB, o.adds)),
      reference(referenceKernel(e, n));
  CHECK_EQUAL(cuFuncSetAttribute(product.function("k"), 8, 220 * 1024), 0);
  product.run("k", 1, 128, used, di.at, used, da, db, df.at, ds.at);
  uint64_t pa = ra.at, pb = rb.at, pc = rc.at;
  void* arguments[] = {&pa, &pb, &pc};
  CHECK_EQUAL(cuLaunchKernel(reference.function("k"), 4, (unsigned)n / 8, 1, 32, 1, 1, 0, nullptr, arguments, nullptr),
              0);
  CHECK(findings().empty());
  auto got = ds.get(), expected = rc.get();
  for (int t = 0; t < 128; t++) {
    int row = t / 32 * 16 + t % 32 / 4;
    for (int i = 0; i < n / 2; i++) {
      int column = i / 4 * 8 + t % 4 * 2 + i % 2;
      CHECK_EQUAL(got[(size_t)(t * n / 2 + i)], expected[(size_t)((row + i / 2 % 2 * 8) * n + column)]);
    }
  }
}

/// The canonical layout of a swizzle mode with strides of our choice, and its descriptor, from `start` on. Rows: 64 or n.
Layout canonical(const Element& e, int bits, bool kMajor, int rows, uint32_t start, Random& random, uint64_t* d,
                 uint32_t* end) {
  const int T = 16 / e.size, W = 1 << bits;
  const uint32_t pattern = bits ? 128u * (uint32_t)W : 16;
  auto gap = [&] { return (uint32_t)between(random, 0, 2) * pattern; };
  start = bits ? (start + pattern - 1) / pattern * pattern : start;
  Layout l{bits, e.size, {}, {}, start};
  uint32_t leading, stride;
  auto elements = [&](uint32_t bytes) { return (int)bytes / e.size; };
  if (kMajor) {
    stride = 128u * (uint32_t)W + gap();
    const uint32_t groups = (uint32_t)rows / 8;
    leading =
        bits ? 16u * (unsigned)between(random, 0, 3) : stride * groups + gap();  // with a swizzle it is not looked at
    if (bits) l.start += 32u * (unsigned)between(random, 0, W / 2 - 1);  // further along k within the pattern
    l.mn = {{8, (int)groups}, {W * T, elements(stride)}};
    l.k = {{T, 2}, {1, bits ? T : elements(leading)}};
    *end = start + stride * groups + (bits ? 0 : leading);
  } else if (!bits) {
    const uint32_t groups = (uint32_t)(rows / T);
    stride = 128 + gap();
    leading = stride * groups + gap();
    l.mn = {{T, 1, (int)groups}, {1, T, elements(stride)}};
    l.k = {{8, 2}, {T, elements(leading)}};
    *end = start + 2 * leading;
  } else {
    const uint32_t groups = (uint32_t)((rows + T * W - 1) / (T * W));
    stride = 128u * (uint32_t)W + gap();
    leading = 2 * stride + gap();
    l.mn = {{T, W, (int)groups}, {1, T, elements(leading)}};
    l.k = {{8, 2}, {W * T, elements(stride)}};
    *end = start + leading * groups;
  }
  *d = descriptor(l.start, leading, stride, bits);
  return l;
}

}  // namespace

/// A product of two matrices in canonical layouts; kind: 1 with A from registers, 3 with many columns.
static void productCase(Random& random, const Element& e, int bitsB, bool kMajorB, int kind) {
  Hopper device;
  const int n = kind == 3 ? (bitsB == 3 ? 256 : 128) : 8 * between(random, 1, 12), bitsA = between(random, 0, 3);
  Options o;
  o.fragments = kind == 1;
  o.transposedA = e.size == 2 && kind % 2 == 0 && random() % 2;
  o.transposedB = !kMajorB;
  o.negatedA = random() % 4 == 0, o.negatedB = random() % 4 == 0, o.adds = random() % 4 != 0;
  uint64_t da, db;
  uint32_t end;
  Layout la = canonical(e, bitsA, !o.transposedA, 64, 16u * (unsigned)between(random, 0, 3), random, &da, &end),
         lb = canonical(e, bitsB, kMajorB, n, end, random, &db, &end);
  compare(e, n, la, da, lb, db, o, random);
}
static const Element* const elements[] = {&bf16, &f16, &tf32};
CASE(warpgroup_product) {
  const Element& e = *elements[random() % 3];
  productCase(random, e, between(random, 0, 3), e.size == 4 || random() % 2, between(random, 0, 3));
}
TEST(warpgroup_products_are_those_of_mma_in_all_canonical_layouts) {
  Random random(3);
  for (const Element* e : elements)
    for (int bitsB = 0; bitsB < 4; bitsB++)
      for (bool kMajorB : {true, false})
        for (int kind = 0; kind < 4; kind++)
          if (e->size == 2 || kMajorB) productCase(random, *e, bitsB, kMajorB, kind);
}

/// The examples of the PTX ISA (canonical layouts of wgmma): exact layouts, and the offsets that it says to encode for them.
TEST(warpgroup_descriptors_of_the_manual) {
  Hopper device;
  Random random(4);
  struct Example {
    const Element* e;
    int bits, n;
    bool kMajor;
    Mode mn, k;
    uint32_t leading, stride;  // as encoded
  };
  const Example examples[] = {{&tf32, 0, 16, true, {{8, 2}, {4, 32}}, {{4, 4}, {1, 64}}, 16, 8},
                              {&tf32, 1, 16, true, {{8, 2}, {8, 64}}, {{4, 4}, {1, 4}}, 1, 16},
                              {&bf16, 0, 16, false, {{8, 1, 2}, {1, 8, 64}}, {{8, 2}, {8, 128}}, 16, 8},
                              {&bf16, 1, 32, false, {{8, 2, 2}, {1, 8, 128}}, {{8, 2}, {16, 256}}, 16, 32},
                              {&bf16, 2, 64, false, {{8, 4, 2}, {1, 8, 256}}, {{8, 2}, {32, 512}}, 32, 64}};
  for (const Example& x : examples) {
    Options o;
    o.fragments = true;
    o.transposedB = !x.kMajor;
    Layout l{x.bits, x.e->size, x.mn, x.k, 1024};
    compare(*x.e, x.n, l, 0, l, descriptor(1024, x.leading << 4, x.stride << 4, x.bits), o, random);
  }
}

/// Matrices that start anywhere in a swizzle's pattern, as a window that is shifted over a tile does, with rows of a group of eight next to
/// each other and groups any number of rows apart; and patterns that begin at no multiple of their size, which the base offset tells.
static void windowCase(Random& random, const Element& e, int bits, bool kMajor, bool based) {
  Hopper device;
  const int T = 16 / e.size, W = 1 << bits, n = 8 * between(random, 1, 12);
  const uint32_t row = 16u * (uint32_t)W, lines = based ? (uint32_t)between(random, 0, 7) : 0,
                 pattern = 1024 * (uint32_t)between(random, 0, 2) + 128 * lines,
                 shift = row * (uint32_t)between(random, 0, 20);
  Layout l{bits, e.size, {}, {}, pattern + shift, pattern};
  uint32_t leading, stride;
  auto elements = [&](uint32_t bytes) { return (int)bytes / e.size; };
  if (kMajor) {
    leading = 16;
    stride = row * (uint32_t)between(random, 8, 20);  // ten pixels of a tile's row for eight of the result's
    l.start += 32u * (uint32_t)between(random, 0, W / 2 - 1);
    l.mn = {{8, n / 8}, {W * T, elements(stride)}};
    l.k = {{T, 2}, {1, T}};
  } else {
    const int groups = (n + T * W - 1) / (T * W);
    stride = row * (uint32_t)between(random, 8, 12);
    leading = row * (uint32_t)between(random, 24, 40);
    l.mn = {{T, W, groups}, {1, T, elements(leading)}};
    l.k = {{8, 2}, {W * T, elements(stride)}};
  }
  Options o;
  o.fragments = true;
  o.transposedB = !kMajor;
  compare(e, n, l, 0, l, descriptor(l.start, leading, stride, bits, lines), o, random);
}
CASE(warpgroup_window) {
  const Element& e = *elements[random() % 3];
  windowCase(random, e, between(random, 1, 3), e.size == 4 || random() % 2, random() % 2);
}
TEST(warpgroup_windows_in_swizzled_tiles) {
  Random random(5);
  for (const Element* e : elements)
    for (int bits = 1; bits < 4; bits++)
      for (bool kMajor : {true, false})
        for (int round = 0; round < 6; round++)
          if (e->size == 2 || kMajor) windowCase(random, *e, bits, kMajor, round % 2);
}

/// A 3x3 convolution of 8 x 8 pixels whose 10 x 10 neighbourhood TMA loads once: each tap is a window into that tile.
TEST(warpgroup_windows_are_the_taps_of_a_convolution) {
  Hopper device;
  Random random(6);
  const int H = 13, W = 11, C = 64, K = 8;
  std::vector<int> image((size_t)(H * W * C)), weights((size_t)(K * 9 * C));
  auto bits = [](int x) {
    float f = (float)x;
    uint32_t b;
    memcpy(&b, &f, 4);
    return (uint16_t)(b >> 16);
  };
  std::vector<uint16_t> imageBits, weightBits;
  for (int& x : image) imageBits.push_back(bits(x = between(random, -3, 3)));
  for (int& x : weights) weightBits.push_back(bits(x = between(random, -2, 2)));
  Buffer<uint16_t> source(imageBits), filter(weightBits);
  EncodedMap maps[2];
  const unsigned ones[] = {1, 1, 1}, tile[] = {64, 10, 10}, part[] = {64, 8};
  const uint64_t extents[] = {(uint64_t)C, (uint64_t)W, (uint64_t)H}, pitches[] = {2 * C, 2 * C * W},
                 columns[] = {9 * (uint64_t)C, (uint64_t)K}, pitch[] = {18 * C};
  CHECK_EQUAL(cuTensorMapEncodeTiled(&maps[0], 9, 3, (void*)source.at, extents, pitches, tile, ones, 0, 3, 0, 0), 0);
  CHECK_EQUAL(cuTensorMapEncodeTiled(&maps[1], 9, 2, (void*)filter.at, columns, pitch, part, ones, 0, 3, 0, 0), 0);
  const uint32_t tileBytes = 12800, weightsAt = 13312;  // a multiple of 1024
  std::string ptx =
      hopper::head +
      ".visible .entry k(.param .u64 po, .param .u32 px, .param .u32 py, .param .align 64 .b8 ps[128], .param "
      ".align 64 .b8 pw[128]) {\n.shared .align 8 .b64 bar; .shared .align 1024 .b8 s[22528]; .reg .u32 t, a, b, x, "
      "y; .reg .u64 o, m, n; .reg .b64 da, db, ea, eb; .reg .pred p, q; .reg .b32 f<4>;\nmov.u32 t, %tid.x; "
      "setp.eq.u32 p, t, 0; "
      "mov.u32 a, s; mov.u32 b, bar; ld.param.u64 o, [po]; ld.param.u32 x, [px]; ld.param.u32 y, [py]; mov.u64 m, "
      "ps; cvta.param.u64 m, m; mov.u64 n, pw; cvta.param.u64 n, n;\n@p mbarrier.init.shared.b64 [b], 1; @p "
      "fence.mbarrier_init.release.cluster; bar.sync 0; @p mbarrier.arrive.expect_tx.shared.b64 _, [b], " +
      std::to_string(tileBytes + 9 * 1024) +
      ";\n@p cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [a], [m, {0, x, y}], [b];\n";
  for (int tap = 0; tap < 9; tap++)
    ptx += "@p cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [a+" +
           std::to_string(weightsAt + 1024u * (uint32_t)tap) + "], [n, {" + std::to_string(tap * C) + ", 0}], [b];\n";
  ptx +=
      "W: mbarrier.try_wait.parity.shared.b64 q, [b], 0; @!q bra W;\ncvt.u64.u32 ea, a; shr.u64 ea, ea, 4; mov.u64 "
      "da, " +
      std::to_string(descriptor(0, 16, 10 * 128, 3)) + "; or.b64 da, da, ea; mov.u64 db, " +
      std::to_string(descriptor(weightsAt, 16, 1024, 3)) +
      "; add.u64 db, db, ea; mov.b32 f0, 0; mov.b32 f1, 0; mov.b32 f2, 0; mov.b32 f3, 0; setp.eq.u32 p, t, t;\n"
      "wgmma.fence.sync.aligned;\n";
  for (int tap = 0; tap < 9; tap++)
    for (int k = 0; k < 4; k++)
      ptx += "add.u64 ea, da, " + std::to_string((tap / 3 * 10 + tap % 3) * 8 + k * 2) + "; add.u64 eb, db, " +
             std::to_string(tap * 64 + k * 2) +
             "; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {f0, f1, f2, f3}, ea, eb, p, 1, 1, 0, 0;\n";
  ptx +=
      "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; mad.wide.u32 o, t, 16, o; st.global.v4.b32 "
      "[o], "
      "{f0, f1, f2, f3};\nret;\n}\n";
  Module m(ptx);
  for (int y0 : {-1, 5})
    for (int x0 : {-1, 3}) {
      Buffer<float> out(std::vector<float>(512));
      m.run("k", 1, 128, 0, out.at, x0, y0, maps[0], maps[1]);
      CHECK(findings().empty());
      auto got = out.get();
      for (int t = 0; t < 128; t++)
        for (int i = 0; i < 4; i++) {
          const int row = t / 32 * 16 + t % 32 / 4 + i / 2 * 8, k = t % 4 * 2 + i % 2;
          int sum = 0;
          for (int tap = 0; tap < 9; tap++) {
            const int y = y0 + row / 8 + tap / 3, x = x0 + row % 8 + tap % 3;
            for (int c = 0; c < C && x >= 0 && x < W && y >= 0 && y < H; c++)
              sum += image[(size_t)((y * W + x) * C + c)] * weights[(size_t)((k * 9 + tap) * C + c)];
          }
          CHECK_EQUAL(got[(size_t)(t * 4 + i)], (float)sum);
        }
    }
}

// --- faults ------------------------------------------------------------------------------------------------------

namespace {

// 64 x 16 of A and 8 x 16 of B, zeros, K-major without swizzle.
const std::string
    tile =
        ".shared .align 1024 .b8 s[4096]; mov.u32 a, s; mad.lo.u32 x, t, 32, a; st.shared.v4.b32 [x], {r, r, r, r}; "
        "st.shared.v4.b32 [x+16], {r, r, r, r};",
    publish = "fence.proxy.async; bar.sync 0;",
    describe =
        "cvt.u64.u32 da, a; shr.u64 da, da, 4; or.b64 da, da, 0x1000080000; add.s64 db, da, 128; setp.eq.u32 p, t, "
        "t; setp.lt.u32 q, t, 32;",
    zero = "mov.b32 f0, 0; mov.b32 f1, 0; mov.b32 f2, 0; mov.b32 f3, 0;", fence = "wgmma.fence.sync.aligned;",
    product = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {f0, f1, f2, f3}, da, db, p, 1, 1, 0, 0;",
    other = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {f4, f5, f6, f7}, da, db, p, 1, 1, 0, 0;",
    commit = "wgmma.commit_group.sync.aligned;", wait0 = "wgmma.wait_group.sync.aligned 0;",
    wait1 = "wgmma.wait_group.sync.aligned 1;", read = "mad.wide.u32 w, t, 4, o; st.global.b32 [w], f0;";

}  // namespace

TEST(warpgroup_faults_in_registers) {
  const std::string start = tile + publish + describe + zero;
  clean(start + fence + product + product + commit + wait0 + read, 128);
  bug(start + fence + product + commit + "\n" + read + wait0, {"wgmma_pending", 719, 8, "", "", "reads a register"},
      128);
  bug(start + fence + product + wait0 + "\n" + read + commit + wait0,
      {"wgmma_pending", 719, 8, "", "", "reads a register"}, 128);
  bug(start + fence + product + commit + "\nmov.b32 f3, 1;" + wait0,
      {"wgmma_pending", 719, 8, "", "", "writes a register"}, 128);
  bug(start + fence + product + commit, {"wgmma_pending", 719, 0, "", "", "never waited for"}, 128);
  // One group may stay unfinished, but not the one that is read.
  const std::string two = start + "setp.ne.u32 p, t, t;" + fence + product + commit + other + commit;
  clean(two + wait1 + read + wait0, 128);
  bug(two + wait1 + "\nmad.wide.u32 w, t, 4, o; st.global.b32 [w], f4;" + wait0,
      {"wgmma_pending", 719, 8, "", "", "reads a register"}, 128);
  // A copy of an accumulator is the accumulator, as compilers move them about.
  clean(start + fence + product + "mov.b32 f4, f0; mov.b32 f5, f1; mov.b32 f6, f2; mov.b32 f7, f3;" + other + commit +
            wait0 + read,
        128);
  bug(start + fence + product + commit + "mov.b32 f4, f0; mad.wide.u32 w, t, 4, o;\nst.global.b32 [w], f4;" + wait0,
      {"wgmma_pending", 719, 8, "", "", "reads a register"}, 128);
  // wgmma.fence: at first, and after any access of others.
  bug(start + "\n" + product + commit + wait0, {"wgmma_fence", 719, 8, "", "", "no wgmma.fence"}, 128);
  bug(tile + publish + describe + fence + zero + "\n" + product + commit + wait0,
      {"wgmma_fence", 719, 8, "", "", "since the last wgmma.fence"}, 128);
  bug(start + fence + product + commit + wait0 + read + "\n" + product + commit + wait0, {"wgmma_fence", 719, 8, ""},
      128);
  clean(start + fence + product + commit + wait0 + read + fence + product + commit + wait0, 128);
  // A from registers: neither may be changed while it is used.
  const std::string
      fragments =
          "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {f0, f1, f2, f3}, {g0, g1, g2, g3}, db, p, 1, 1, 0;",
      filled = start + "mov.b32 g0, 0; mov.b32 g1, 0; mov.b32 g2, 0; mov.b32 g3, 0;";
  clean(filled + fence + fragments + fragments + commit + wait0 + read, 128);
  bug(filled + fence + fragments + commit + "\nadd.u32 g1, g1, 1;" + wait0, {"wgmma_pending", 719, 8, ""}, 128);
  bug(filled + fence + "add.u32 g1, g1, 1;\n" + fragments + commit + wait0, {"wgmma_fence", 719, 8, ""}, 128);
  // Sums that nothing has set, unless they are not added.
  clean(tile + publish + describe + "setp.ne.u32 p, t, t;" + fence + product + commit + wait0 + read, 128);
  bug(tile + publish + describe + fence + "\n" + product + commit + wait0, {"uninitialised_register", 719, 8, ""}, 128);
}

TEST(warpgroup_faults_in_shared_memory) {
  const std::string rest = describe + zero + fence, end = commit + wait0, write = "st.shared.u32 [x], r;";
  clean(tile + publish + rest + product + end + "bar.sync 0;" + write, 128);
  bug(tile + "bar.sync 0;" + rest + "\n" + product + end, {"missing_proxy_fence", 719, 8, "", "shared"}, 128);
  bug(tile + "bar.sync 0; fence.proxy.async;" + write + rest + "\n" + product + end,
      {"shared_race", 719, 8, "", "shared"}, 128);
  bug(tile + "fence.proxy.async;" + rest + "\n" + product + end, {"shared_race", 719, 8, "", "shared"}, 128);
  bug(".shared .align 1024 .b8 s[4096]; mov.u32 a, s;" + rest + "\n" + product + end,
      {"uninitialised", 719, 8, "", "shared"}, 128);
  // Written again while it is read: before the wait, and by a warp that does not know that it is over.
  bug(tile + publish + rest + product + commit + "\n" + write + wait0,
      {"wgmma_pending", 719, 8, "", "shared", "warpgroup 0 reads"}, 128);
  const std::string
      late =
          ".shared .align 1024 .b8 s[4096]; mov.u32 a, s; setp.ge.u32 q, t, 128; mad.lo.u32 x, t, 32, a; @!q "
          "st.shared.v4.b32 [x], {r, r, r, r}; @!q st.shared.v4.b32 [x+16], {r, r, r, r};" +
          publish +
          "cvt.u64.u32 da, a; shr.u64 da, da, 4; or.b64 da, da, 0x1000080000; add.s64 db, da, 128; "
          "@q bra E; setp.eq.u32 p, t, t;" +
          zero + fence + product + commit,
      writer = "bra F;\nE: bar.sync 1, 160; setp.eq.u32 p, t, 128; @p st.shared.u32 [a], r;\nF:";
  clean(late + wait0 + "bar.sync 1, 160;" + writer, 160);
  bug(late + "bar.sync 1, 160;" + wait0 + writer, {"wgmma_pending", 719, 8, "(128,0,0)", "shared", "warpgroup 0 reads"},
      160);
}

TEST(warpgroup_faults_in_descriptors) {
  const std::string start = tile + publish + describe + zero + fence, end = commit + wait0;
  bug(start + "or.b64 db, db, 0x4000;\n" + product + end, {"bad_descriptor", 719, 8, "", "shared", "mean nothing"},
      128);
  bug(start + "or.b64 db, db, 0x2000000000000;\n" + product + end,
      {"bad_descriptor", 719, 8, "", "shared", "base offset without a swizzle"}, 128);
  bug(start +
          "or.b64 db, da, 0x4000000000000001;\nwgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {f0, f1, f2, f3}, "
          "da, "
          "db, p, 1, 1, 0, 1;" +
          end,
      {"misaligned", 719, 8, "", "shared", "multiple of 128"}, 128);
  bug(start + "or.b64 db, da, 0x4000000000000007;\n" + product + end,
      {"bad_descriptor", 719, 8, "", "shared", "two rows"}, 128);
  bug(start + "or.b64 db, db, 0x3fff0000;\n" + product + end, {"out_of_bounds", 700, 8, "", "shared"}, 128);
  bug(start + "cvt.u64.u32 w, t; add.u64 db, db, w;\n" + product + end,
      {"wgmma_divergent", 719, 8, "", "", "descriptor of B"}, 128);
  bug(start + "setp.lt.u32 p, t, 64;\n" + product + end, {"wgmma_divergent", 719, 8, "", "", "scale-d"}, 128);
}

TEST(warpgroup_faults_of_divergence) {
  const std::string start = tile + publish + describe + zero + fence, end = commit + wait0;
  bug(start + "@q bra E;\n" + product + end + "E:",
      {"deadlock", 702, 8, "", "", "for the other warps of the warpgroup"}, 128);
  bug(start + "@q bra E;\n" + product + end + "bra F; E:" + product + end + "F:",
      {"wgmma_divergent", 719, 0, "", "", "different wgmma"}, 128);
  bug(start + "@!q bra E;" + commit + "E:\n" + product + end, {"wgmma_divergent", 719, 8, "", "", "numbers of groups"},
      128);
  bug("setp.lt.u32 q, t, 32; .shared .align 1024 .b8 s[4096]; mov.u32 a, s;" + describe + zero + fence + "\n" +
          product + end,
      {"wgmma_divergent", 719, 8, "", "", "fewer than four warps"}, 96);
  bug(start + "setp.eq.u32 q, t, 5; @q exit;\n" + product + end, {"member_mask_of_absent_lanes", 719, 8, ""}, 128);
}

TEST(warpgroup_counters) {
  Hopper device;
  jtreluEmulatorCountersClear();
  Buffer<uint32_t> out(std::vector<uint32_t>(4096)), in(std::vector<uint32_t>(4096));
  CHECK_EQUAL(hopper::launch(tile + publish + describe + zero + fence + product + product + commit + wait0 + read, 128,
                             out.at, in.at, {}, 0),
              0);
  std::string counters = text(jtreluEmulatorCountersJson);
  for (auto what : {"\"tensorMultiplyAdds\":16384,", "\"warpgroupMultiplyAdds\":16384,"}) {
    checks++;
    if (counters.find(what) == std::string::npos) fail(__FILE__, __LINE__, std::string(what) + " not in " + counters);
  }
}
