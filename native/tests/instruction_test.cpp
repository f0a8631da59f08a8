// Every supported form of arithmetic, comparison, conversion and movement against values computed here, on edge cases and random
// values. Each form runs with all lanes active and with some of them masked off.
#include <cfenv>
#include <cmath>
#include <limits>

#include "harness.h"

namespace {

using Bits = uint64_t;
using Reference = std::function<Bits(Bits a, Bits b, Bits c)>;

template <class T> T as(Bits b) {
  T t;
  memcpy(&t, &b, sizeof t);
  return t;
}
template <class T> Bits bits(T t) {
  Bits b = 0;
  memcpy(&b, &t, sizeof t);
  return b;
}

/// A form to test: what to write, the registers' widths in bits (1: predicate), and what must come out.
struct Form {
  std::string instruction;  // in terms of d, a, b, c
  int d, a, b, c;  // widths; 0: not there
  Reference reference;
  double tolerance = 0;  // relative, for results that are floats of width d
};

std::vector<Bits> valuesFor(int width, char kind) {
  std::vector<Bits> v;
  if (kind == 'f' && width == 32) {
    for (float f : {0.f,
                    -0.f,
                    1.f,
                    -1.f,
                    0.5f,
                    1.5f,
                    2.5f,
                    -2.5f,
                    3.4e38f,
                    -3.4e38f,
                    1.17549435e-38f,
                    1e-40f,
                    -1e-45f,
                    1e-20f,
                    7.f,
                    1e9f,
                    2147483648.f,
                    -2147483904.f,
                    4294967296.f,
                    255.5f,
                    65504.f,
                    65520.f,
                    6e-8f,
                    3e-8f,
                    0.1f,
                    1.0009766f,
                    INFINITY,
                    -INFINITY,
                    NAN})
      v.push_back(bits(f));
  } else if (kind == 'f' && width == 64) {
    for (double f : {0.,
                     -0.,
                     1.,
                     -1.,
                     0.5,
                     2.5,
                     -3.5,
                     1.7e308,
                     -1.7e308,
                     2.3e-308,
                     5e-324,
                     1e-20,
                     1e19,
                     9.3e18,
                     -9.3e18,
                     4294967295.5,
                     65519.99,
                     1e-8,
                     0.1,
                     (double)INFINITY,
                     (double)-INFINITY,
                     (double)NAN})
      v.push_back(bits(f));
  } else if (width == 1) {
    v = {0, 1};
  } else {
    Bits top = 1ull << (width - 1), all = width == 64 ? ~0ull : (1ull << width) - 1;
    v = {
        0,      1,      2,       3,      7,       31,     32,      33,       63,     64,         0x80,
        0xff,   0x7f,   top - 1, top,    top + 1, all,    all - 1, all - 31, 0x3c00, 0x7c00,     0x7e00,
        0xfc00, 0x8000, 0x0001,  0x03ff, 0x0400,  0x7bff, 0x3555,  0x7f80,   0x3f80, 0x12345678, 0xdeadbeefcafebabeull};
    for (auto& x : v) x &= all;
  }
  uint64_t r = 88172645463325252ull;
  for (int i = 0; i < 24; i++) {
    r ^= r << 13, r ^= r >> 7, r ^= r << 17;
    Bits x = width == 64 ? r : r & ((1ull << width) - 1);
    if (kind == 'f' && width == 32) x = bits((float)((double)(int64_t)r / 9.2e18 * 100));
    if (kind == 'f' && width == 64) x = bits((double)(int64_t)r / 9.2e18 * 100);
    v.push_back(x);
  }
  return v;
}

std::string declaration(const char* name, int width) {
  if (!width) return "";
  return width == 1 ? std::string(".reg .pred ") + name + ";\n"
                    : std::string(".reg .b") + std::to_string(width) + " " + name + ";\n";
}

void check(const Form& f, char kindA, char kindB, char kindC) {
  std::vector<Bits> a = valuesFor(f.a ? f.a : 8, kindA), b = valuesFor(f.b ? f.b : 8, kindB),
                    c = valuesFor(f.c ? f.c : 8, kindC), va, vb, vc;
  for (size_t i = 0; i < a.size(); i++)
    for (size_t j = 0; j < (f.b ? b.size() : 1); j++) {
      va.push_back(a[i]);
      vb.push_back(b[j]);
      vc.push_back(c[(i * 7 + j * 3) % c.size()]);
    }
  const size_t n = va.size();
  std::string ptx =
      ".visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd, .param .u32 n, .param .u32 "
      "masked) {\n"
      ".reg .b64 %x<9>; .reg .b32 %r<6>; .reg .pred %q<4>;\n";
  ptx += declaration("a", f.a) + declaration("b", f.b) + declaration("c", f.c) + declaration("d", f.d);
  ptx +=
      "mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.s32 %r0, %r1, %r2, %r0;\n"
      "ld.param.u32 %r1, [n]; setp.ge.u32 %q0, %r0, %r1; @%q0 bra END;\n"
      "mul.wide.u32 %x0, %r0, 8; ld.param.u64 %x1, [pa]; ld.param.u64 %x2, [pb]; ld.param.u64 %x3, [pc]; ld.param.u64 "
      "%x4, [pd];\n"
      "add.u64 %x1, %x1, %x0; add.u64 %x2, %x2, %x0; add.u64 %x3, %x3, %x0; add.u64 %x4, %x4, %x0;\n";
  auto load = [&](const char* name, int width, const char* from) {
    if (!width) return std::string();
    if (width == 1) return std::string("ld.global.u32 %r3, [") + from + "]; setp.ne.u32 " + name + ", %r3, 0;\n";
    return std::string("ld.global.b") + std::to_string(width) + " " + name + ", [" + from + "];\n";
  };
  ptx += load("a", f.a, "%x1") + load("b", f.b, "%x2") + load("c", f.c, "%x3");
  // A masked lane must keep what d held: zero.
  ptx += f.d == 1 ? "setp.ne.u32 d, 0, 0;\n" : "mov.b" + std::to_string(f.d) + " d, 0;\n";
  ptx += "ld.param.u32 %r4, [masked]; and.b32 %r5, %r0, %r4; setp.ne.u32 %q1, %r5, 0; @%q1 bra SKIP;\n" +
         f.instruction + "\nSKIP:\n";
  if (f.d == 1) ptx += "selp.u64 %x5, 1, 0, d; st.global.u64 [%x4], %x5;\n";
  else if (f.d == 64) ptx += "st.global.b64 [%x4], d;\n";
  else ptx += "cvt.u64.u" + std::to_string(f.d) + " %x5, d; st.global.u64 [%x4], %x5;\n";
  ptx += "END: ret;\n}\n";
  Module m(ptx);
  Buffer<Bits> da(va), db(vb), dc(vc), dd(n);
  for (uint32_t masked : {0u, 5u}) {
    m.run("k", (unsigned)(n + 127) / 128, 128, 0, da.at, db.at, dc.at, dd.at, (uint32_t)n, masked);
    auto out = dd.get();
    for (size_t i = 0; i < n; i++) {
      checks++;
      Bits expected = i & masked ? 0 : f.reference(va[i], vb[i], vc[i]);
      bool equal = out[i] == expected;
      if (!equal && f.tolerance && f.d == 32) {
        double x = as<float>(out[i]), y = as<float>(expected);
        equal = std::fabs(x - y) <= f.tolerance * std::max(std::fabs(y), 1.2e-38);
      }
      if (!equal) {
        char text[300];
        snprintf(text, sizeof text, "%s: a=%llx b=%llx c=%llx gives %llx, expected %llx%s", f.instruction.c_str(),
                 (unsigned long long)va[i], (unsigned long long)vb[i], (unsigned long long)vc[i],
                 (unsigned long long)out[i], (unsigned long long)expected, masked ? " (masked)" : "");
        fail(__FILE__, __LINE__, text);
      }
    }
  }
}
void check(const Form& f, const char* kinds = "iii") { check(f, kinds[0], kinds[1], kinds[2]); }

float canonical(float x) { return std::isnan(x) ? as<float>(0x7fffffff) : x; }
double canonical(double x) { return std::isnan(x) ? as<double>(0x7ff8000000000000ull) : x; }
Bits f32(float x) { return bits(canonical(x)); }
Bits f64(double x) { return bits(canonical(x)); }
__int128 wide(Bits b, int width, bool isSigned) {
  if (width == 64) return isSigned ? (__int128)(int64_t)b : (__int128)b;
  Bits all = (1ull << width) - 1;
  b &= all;
  if (isSigned && b >> (width - 1)) return (__int128)b - ((__int128)1 << width);
  return (__int128)b;
}
Bits cut(__int128 v, int width) { return width == 64 ? (Bits)v : (Bits)v & ((1ull << width) - 1); }

/// x rounded to nearest even with so many bits of significand and that least exponent of a unit: 16-bit floats by definition.
double roundedTo(double x, int significand, int least) {
  if (x == 0 || !std::isfinite(x)) return x;
  int e;
  std::frexp(x, &e);
  double unit = std::ldexp(1.0, std::max(e - significand, least));
  return std::nearbyint(x / unit) * unit;
}
double halfValue(Bits h, bool bf) {
  h &= 0xffff;
  if (bf) return as<float>(h << 16);
  int e = (int)(h >> 10 & 31);
  double f = (double)(h & 1023), s = h >> 15 ? -1 : 1;
  if (e == 31) return f != 0 ? NAN : s * INFINITY;
  return s * (e ? std::ldexp(1024 + f, e - 25) : std::ldexp(f, -24));
}
Bits halfBits(double x, bool bf) {
  if (std::isnan(x)) return 0x7fff;
  Bits sign = std::signbit(x) ? 0x8000 : 0;
  double r = std::fabs(roundedTo(x, bf ? 8 : 11, bf ? -133 : -24));
  if (bf) return sign | (bits((float)(r > 3.4e38 ? INFINITY : r)) >> 16);
  if (r >= 65520) return sign | 0x7c00;
  if (r < std::ldexp(1, -14)) return sign | (Bits)std::ldexp(r, 24);
  int e;
  double m = std::frexp(r, &e);
  return sign | (Bits)(e + 14) << 10 | ((Bits)std::ldexp(m, 11) & 1023);
}

}  // namespace

TEST(instruction_integers) {
  for (int w : {16, 32, 64})
    for (bool s : {false, true}) {
      std::string t = std::string(s ? ".s" : ".u") + std::to_string(w);
      auto form = [&](const std::string& op, int sources, std::function<__int128(__int128, __int128, __int128)> f,
                      int dw = 0, int cw = 0) {
        std::string text = op + t + " d, a" + (sources > 1 ? ", b" : "") + (sources > 2 ? ", c" : "") + ";";
        if (!dw) dw = w;
        if (!cw) cw = w;
        check({text, dw, w, sources > 1 ? w : 0, sources > 2 ? cw : 0,
               [=](Bits a, Bits b, Bits c) { return cut(f(wide(a, w, s), wide(b, w, s), wide(c, cw, s)), dw); }});
      };
      using I = __int128;
      form("add", 2, [](I a, I b, I) { return a + b; });
      form("sub", 2, [](I a, I b, I) { return a - b; });
      form("mul.lo", 2, [](I a, I b, I) { return (I)((unsigned __int128)a * (unsigned __int128)b); });
      form("mul.hi", 2, [w](I a, I b, I) { return (I)((unsigned __int128)a * (unsigned __int128)b) >> w; });
      if (w < 64)
        form(
            "mul.wide", 2, [](I a, I b, I) { return a * b; }, 2 * w);
      form("mad.lo", 3,
           [](I a, I b, I c) { return (I)((unsigned __int128)a * (unsigned __int128)b + (unsigned __int128)c); });
      if (w > 16)
        form("mad.hi", 3, [w, s](I a, I b, I c) {
          return (s ? (a * b >> w) : (I)((unsigned __int128)a * (unsigned __int128)b >> w)) + c;
        });
      if (w < 64)
        form(
            "mad.wide", 3, [](I a, I b, I c) { return a * b + c; }, 2 * w, 2 * w);
      form("div", 2, [](I a, I b, I) { return b == 0 ? -1 : a / b; });
      form("rem", 2, [](I a, I b, I) { return b == 0 ? a : a % b; });
      form("min", 2, [](I a, I b, I) { return a < b ? a : b; });
      form("max", 2, [](I a, I b, I) { return a > b ? a : b; });
      form("sad", 3, [](I a, I b, I c) { return c + (a < b ? b - a : a - b); });
      if (s) {
        form("abs", 1, [](I a, I, I) { return a < 0 ? -a : a; });
        form("neg", 1, [](I a, I, I) { return -a; });
      }
      check({"shr" + t + " d, a, b;", w, w, 32, 0,
             [=](Bits a, Bits b, Bits) { return cut(wide(a, w, s) >> std::min<Bits>(b, 64), w); }});
    }
  check({"add.sat.s32 d, a, b;", 32, 32, 32, 0, [](Bits a, Bits b, Bits) {
           return cut(std::clamp<int64_t>((int64_t)(int32_t)a + (int32_t)b, INT32_MIN, INT32_MAX), 32);
         }});
  check({"sub.sat.s32 d, a, b;", 32, 32, 32, 0, [](Bits a, Bits b, Bits) {
           return cut(std::clamp<int64_t>((int64_t)(int32_t)a - (int32_t)b, INT32_MIN, INT32_MAX), 32);
         }});
  check({"mul24.lo.u32 d, a, b;", 32, 32, 32, 0,
         [](Bits a, Bits b, Bits) { return cut((a & 0xffffff) * (b & 0xffffff), 32); }});
  check({"mad24.lo.s32 d, a, b, c;", 32, 32, 32, 32,
         [](Bits a, Bits b, Bits c) { return cut(wide(a, 24, true) * wide(b, 24, true) + (int32_t)c, 32); }});
  check(
      {"{.reg .b32 l, h; mov.b64 {l, h}, a; .reg .b32 l2, h2; mov.b64 {l2, h2}, b; add.cc.u32 l, l, l2; addc.u32 h, h, "
       "h2; mov.b64 d, {l, h};}",
       64, 64, 64, 0, [](Bits a, Bits b, Bits) { return a + b; }});
  check(
      {"{.reg .b32 l, h; mov.b64 {l, h}, a; .reg .b32 l2, h2; mov.b64 {l2, h2}, b; sub.cc.u32 l, l, l2; subc.u32 h, h, "
       "h2; mov.b64 d, {l, h};}",
       64, 64, 64, 0, [](Bits a, Bits b, Bits) { return a - b; }});
  check(
      {"{.reg .b32 l, h, x, y; mov.b64 {x, y}, c; mad.lo.cc.u32 l, a, b, x; madc.hi.u32 h, a, b, y; mov.b64 d, {l, "
       "h};}",
       64, 32, 32, 64, [](Bits a, Bits b, Bits c) { return a * b + c; }});
  auto dot = [](bool sa, bool sb) {
    return [=](Bits a, Bits b, Bits c) {
      for (int k = 0; k < 4; k++) c += (Bits)(wide(a >> 8 * k, 8, sa) * wide(b >> 8 * k, 8, sb));
      return c & 0xffffffff;
    };
  };
  check({"dp4a.s32.s32 d, a, b, c;", 32, 32, 32, 32, dot(true, true)});
  check({"dp4a.u32.s32 d, a, b, c;", 32, 32, 32, 32, dot(false, true)});
}

TEST(instruction_bits) {
  for (int w : {16, 32, 64}) {
    std::string t = ".b" + std::to_string(w);
    Bits all = w == 64 ? ~0ull : (1ull << w) - 1;
    check({"and" + t + " d, a, b;", w, w, w, 0, [](Bits a, Bits b, Bits) { return a & b; }});
    check({"or" + t + " d, a, b;", w, w, w, 0, [](Bits a, Bits b, Bits) { return a | b; }});
    check({"xor" + t + " d, a, b;", w, w, w, 0, [](Bits a, Bits b, Bits) { return a ^ b; }});
    check({"not" + t + " d, a;", w, w, 0, 0, [=](Bits a, Bits, Bits) { return ~a & all; }});
    check({"cnot" + t + " d, a;", w, w, 0, 0, [](Bits a, Bits, Bits) { return (Bits)(a == 0); }});
    check(
        {"shl" + t + " d, a, b;", w, w, 32, 0, [=](Bits a, Bits b, Bits) { return b >= (Bits)w ? 0 : a << b & all; }});
    check({"mov" + t + " d, a;", w, w, 0, 0, [](Bits a, Bits, Bits) { return a; }});
    check({"selp" + t + " d, a, b, c;", w, w, w, 1, [](Bits a, Bits b, Bits c) { return c ? a : b; }});
    check(
        {"slct" + t + ".s32 d, a, b, c;", w, w, w, 32, [](Bits a, Bits b, Bits c) { return (int32_t)c >= 0 ? a : b; }});
    if (w == 16) continue;
    check({"popc" + t + " d, a;", 32, w, 0, 0, [](Bits a, Bits, Bits) {
             Bits n = 0;
             for (; a; a >>= 1) n += a & 1;
             return n;
           }});
    check({"clz" + t + " d, a;", 32, w, 0, 0, [=](Bits a, Bits, Bits) {
             Bits n = 0;
             for (int k = w - 1; k >= 0 && !(a >> k & 1); k--) n++;
             return n;
           }});
    check({"brev" + t + " d, a;", w, w, 0, 0, [=](Bits a, Bits, Bits) {
             Bits r = 0;
             for (int k = 0; k < w; k++) r |= (a >> k & 1) << (w - 1 - k);
             return r;
           }});
    for (bool s : {false, true}) {
      std::string st = std::string(s ? ".s" : ".u") + std::to_string(w);
      auto find = [=](bool shift) {
        return [=](Bits a, Bits, Bits) -> Bits {
          if (s && wide(a, w, true) < 0) a = ~a & all;
          for (int k = w - 1; k >= 0; k--)
            if (a >> k & 1) return (Bits)(shift ? w - 1 - k : k);
          return 0xffffffff;
        };
      };
      check({"bfind" + st + " d, a;", 32, w, 0, 0, find(false)});
      check({"bfind.shiftamt" + st + " d, a;", 32, w, 0, 0, find(true)});
      check(
          {"bfe" + st + " d, a, b, c;", w, w, 32, 32, [=](Bits a, Bits b, Bits c) {  // the definition of the PTX manual
             int msb = w - 1, pos = (int)(b & 255), len = (int)(c & 255);
             Bits sbit = !s || len == 0 ? 0 : a >> std::min(pos + len - 1, msb) & 1, d = 0;
             for (int i = 0; i <= msb; i++) d |= (i < len && pos + i <= msb ? a >> (pos + i) & 1 : sbit) << i;
             return d;
           }});
    }
    check(
        {"{.reg .b32 p, l; mov.b64 {p, l}, c; bfi" + t + " d, a, b, p, l;}", w, w, w, 64, [=](Bits a, Bits b, Bits c) {
           int msb = w - 1, pos = (int)(c & 255), len = (int)(c >> 32 & 255);
           Bits f = b;
           for (int i = 0; i < len && pos + i <= msb; i++) f = (f & ~(1ull << (pos + i))) | (a >> i & 1) << (pos + i);
           return f;
         }});
  }
  for (int table : {0x96, 0xe8, 0xca, 0x3c, 0x01, 0xfe, 0x80, 0xff, 0x00, 0x1d})
    check({"lop3.b32 d, a, b, c, " + std::to_string(table) + ";", 32, 32, 32, 32, [=](Bits a, Bits b, Bits c) {
             Bits r = 0;
             for (int k = 0; k < 32; k++)
               r |= (Bits)(table >> ((a >> k & 1) << 2 | (b >> k & 1) << 1 | (c >> k & 1)) & 1) << k;
             return r;
           }});
  check({"prmt.b32 d, a, b, c;", 32, 32, 32, 32, [](Bits a, Bits b, Bits c) {
           Bits r = 0, both = b << 32 | a;
           for (int k = 0; k < 4; k++) {
             Bits s = c >> 4 * k & 15, byte = both >> 8 * (s & 7) & 255;
             if (s & 8) byte = byte & 128 ? 255 : 0;
             r |= byte << 8 * k;
           }
           return r;
         }});
  const int modes[6][4][4] = {// tables of the manual: which of the eight bytes, for c = 0..3, least significant first
                              {{0, 1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}},
                              {{0, 7, 6, 5}, {1, 0, 7, 6}, {2, 1, 0, 7}, {3, 2, 1, 0}},
                              {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}},
                              {{0, 1, 2, 3}, {1, 1, 2, 3}, {2, 2, 2, 3}, {3, 3, 3, 3}},
                              {{0, 0, 0, 0}, {0, 1, 1, 1}, {0, 1, 2, 2}, {0, 1, 2, 3}},
                              {{0, 1, 0, 1}, {2, 3, 2, 3}, {0, 1, 0, 1}, {2, 3, 2, 3}}};
  const char* names[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  for (int mode = 0; mode < 6; mode++)
    check({std::string("prmt.b32.") + names[mode] + " d, a, b, c;", 32, 32, 32, 32,
           [&modes, mode](Bits a, Bits b, Bits c) {
             Bits r = 0, both = b << 32 | a;
             for (int k = 0; k < 4; k++) r |= (both >> 8 * modes[mode][c & 3][k] & 255) << 8 * k;
             return r;
           }});
  for (bool left : {false, true})
    for (bool wrap : {false, true})
      check({std::string("shf.") + (left ? "l" : "r") + (wrap ? ".wrap" : ".clamp") + ".b32 d, a, b, c;", 32, 32, 32,
             32, [=](Bits a, Bits b, Bits c) {
               Bits n = wrap ? c & 31 : std::min<Bits>(c, 32), v = b << 32 | a;
               return (left ? (n ? v << n >> 32 : b) : v >> n) & 0xffffffff;
             }});
  check({"mov.b32 d, {a, b};", 32, 16, 16, 0, [](Bits a, Bits b, Bits) { return b << 16 | a; }});
  check({"mov.b64 d, {a, b};", 64, 32, 32, 0, [](Bits a, Bits b, Bits) { return b << 32 | a; }});
  check({"mov.b64 d, {a, b, c, 7};", 64, 16, 16, 16,
         [](Bits a, Bits b, Bits c) { return 7ull << 48 | c << 32 | b << 16 | a; }});
  check({"{.reg .b16 x; mov.b32 {_, x}, a; mov.b16 d, x;}", 16, 32, 0, 0, [](Bits a, Bits, Bits) { return a >> 16; }});
  check({"{.reg .pred x, y; and.pred x, a, b; not.pred y, c; xor.pred d, x, y;}", 1, 1, 1, 1,
         [](Bits a, Bits b, Bits c) { return (a & b) ^ (c ^ 1); }});
}

TEST(instruction_comparisons) {
  struct {
    const char* name;
    std::function<bool(int)> f;
    bool unordered;
  } comparisons[] = {// f: -1 less, 0 equal, 1 greater
                     {"eq", [](int x) { return x == 0; }, false}, {"ne", [](int x) { return x != 0; }, false},
                     {"lt", [](int x) { return x < 0; }, false},  {"le", [](int x) { return x <= 0; }, false},
                     {"gt", [](int x) { return x > 0; }, false},  {"ge", [](int x) { return x >= 0; }, false},
                     {"equ", [](int x) { return x == 0; }, true}, {"neu", [](int x) { return x != 0; }, true},
                     {"ltu", [](int x) { return x < 0; }, true},  {"leu", [](int x) { return x <= 0; }, true},
                     {"gtu", [](int x) { return x > 0; }, true},  {"geu", [](int x) { return x >= 0; }, true},
                     {"num", [](int) { return true; }, false},    {"nan", [](int) { return false; }, true}};
  for (auto& c : comparisons) {
    bool integers = !c.unordered && strcmp(c.name, "num");
    for (const char* type : {"u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "f16", "bf16"}) {
      bool real = strchr(type, 'f');
      if (!real && !integers) continue;
      bool bf = type[0] == 'b';
      int w = atoi(type + (bf ? 2 : 1));
      auto order = [=, &c](Bits a, Bits b) -> bool {
        if (!real) {
          auto x = wide(a, w, type[0] == 's'), y = wide(b, w, type[0] == 's');
          return c.f(x < y ? -1 : x > y);
        }
        double x = w == 64   ? as<double>(a)
                   : w == 32 ? as<float>(a)
                             : halfValue(a, bf),
               y = w == 64   ? as<double>(b)
                   : w == 32 ? as<float>(b)
                             : halfValue(b, bf);
        if (std::isnan(x) || std::isnan(y)) return c.unordered;
        return c.f(x < y ? -1 : x > y);
      };
      std::string op = std::string(c.name) + ".";
      const char* kinds = real && w > 16 ? "ffi" : "iii";
      check({"setp." + op + type + " d, a, b;", 1, w, w, 0, [=](Bits a, Bits b, Bits) { return (Bits)order(a, b); }},
            kinds);
      check({"setp." + op + "and." + type + " d, a, b, c;", 1, w, w, 1,
             [=](Bits a, Bits b, Bits p) { return (Bits)order(a, b) & p; }},
            kinds);
      check({"{.reg .pred x; setp." + op + "xor." + type + " x|d, a, b, !c;}", 1, w, w, 1,
             [=](Bits a, Bits b, Bits p) { return (Bits)!order(a, b) ^ (p ^ 1); }},
            kinds);
      if (w >= 32)
        check({"set." + op + "u32." + type + " d, a, b;", 32, w, w, 0,
               [=](Bits a, Bits b, Bits) { return order(a, b) ? 0xffffffffull : 0; }},
              kinds);
      if (w == 32)
        check({"set." + op + "f32." + type + " d, a, b;", 32, w, w, 0,
               [=](Bits a, Bits b, Bits) { return order(a, b) ? 0x3f800000ull : 0; }},
              kinds);
    }
  }
  check({"setp.lt.ftz.f32 d, a, b;", 1, 32, 32, 0,
         [](Bits a, Bits b, Bits) {
           float x = as<float>(a), y = as<float>(b);
           return (Bits)((std::fpclassify(x) == FP_SUBNORMAL ? 0 : x) < (std::fpclassify(y) == FP_SUBNORMAL ? 0 : y));
         }},
        "ffi");
}

TEST(instruction_floats) {
  struct {
    const char* name;
    int mode;
  } roundings[] = {{"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (auto& r : roundings) {
    auto with = [mode = r.mode](auto f) {
      return [=](Bits a, Bits b, Bits c) {
        fesetround(mode);
        Bits v = f(a, b, c);
        fesetround(FE_TONEAREST);
        return v;
      };
    };
    std::string n = r.name;
#define OP2(op, type, T, w, convert, expr)                                                                             \
  check({std::string(op) + "." + n + type " d, a, b;", w, w, w, 0, with([](Bits pa, Bits pb, Bits) {                   \
           volatile T a = as<T>(pa), b = as<T>(pb);                                                                    \
           volatile T v = expr;                                                                                        \
           return convert(v);                                                                                          \
         })},                                                                                                          \
        "fff")
    OP2("add", ".f32", float, 32, f32, a + b);
    OP2("sub", ".f32", float, 32, f32, a - b);
    OP2("mul", ".f32", float, 32, f32, a* b);
    OP2("div", ".f32", float, 32, f32, a / b);
    OP2("add", ".f64", double, 64, f64, a + b);
    OP2("sub", ".f64", double, 64, f64, a - b);
    OP2("mul", ".f64", double, 64, f64, a* b);
    OP2("div", ".f64", double, 64, f64, a / b);
    check({"fma." + n + ".f32 d, a, b, c;", 32, 32, 32, 32, with([](Bits a, Bits b, Bits c) {
             volatile float v = std::fma((volatile float&)(const float&)as<float>(a), as<float>(b), as<float>(c));
             return f32(v);
           })},
          "fff");
    check({"fma." + n + ".f64 d, a, b, c;", 64, 64, 64, 64, with([](Bits a, Bits b, Bits c) {
             volatile double v = std::fma((volatile double&)(const double&)as<double>(a), as<double>(b), as<double>(c));
             return f64(v);
           })},
          "fff");
    check({"sqrt." + n + ".f32 d, a;", 32, 32, 0, 0, with([](Bits a, Bits, Bits) {
             volatile float x = as<float>(a);
             volatile float v = std::sqrt(x);
             return f32(v);
           })},
          "fff");
    check({"rcp." + n + ".f32 d, a;", 32, 32, 0, 0, with([](Bits a, Bits, Bits) {
             volatile float x = as<float>(a);
             volatile float v = 1.f / x;
             return f32(v);
           })},
          "fff");
  }
  check({"add.f32 d, a, b;", 32, 32, 32, 0, [](Bits a, Bits b, Bits) { return f32(as<float>(a) + as<float>(b)); }},
        "fff");
  check({"add.sat.f32 d, a, b;", 32, 32, 32, 0,
         [](Bits a, Bits b, Bits) {
           float v = as<float>(a) + as<float>(b);
           return bits(v > 0 ? std::min(v, 1.f) : 0.f);
         }},
        "fff");
  auto flush = [](float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x; };
  check({"mul.ftz.f32 d, a, b;", 32, 32, 32, 0,
         [=](Bits a, Bits b, Bits) { return f32(flush(flush(as<float>(a)) * flush(as<float>(b)))); }},
        "fff");
  check({"fma.rn.ftz.sat.f32 d, a, b, c;", 32, 32, 32, 32,
         [=](Bits a, Bits b, Bits c) {
           float v = flush(std::fma(flush(as<float>(a)), flush(as<float>(b)), flush(as<float>(c))));
           return bits(v > 0 ? std::min(v, 1.f) : 0.f);
         }},
        "fff");
  auto least = [](auto x, auto y) {
    return std::isnan(x) ? y : std::isnan(y) ? x : x == y ? (std::signbit(x) ? x : y) : std::min(x, y);
  };
  auto most = [](auto x, auto y) {
    return std::isnan(x) ? y : std::isnan(y) ? x : x == y ? (std::signbit(x) ? y : x) : std::max(x, y);
  };
  check(
      {"min.f32 d, a, b;", 32, 32, 32, 0, [=](Bits a, Bits b, Bits) { return f32(least(as<float>(a), as<float>(b))); }},
      "fff");
  check(
      {"max.f32 d, a, b;", 32, 32, 32, 0, [=](Bits a, Bits b, Bits) { return f32(most(as<float>(a), as<float>(b))); }},
      "fff");
  check({"min.f64 d, a, b;", 64, 64, 64, 0,
         [=](Bits a, Bits b, Bits) { return f64(least(as<double>(a), as<double>(b))); }},
        "fff");
  check({"max.f64 d, a, b;", 64, 64, 64, 0,
         [=](Bits a, Bits b, Bits) { return f64(most(as<double>(a), as<double>(b))); }},
        "fff");
  check({"max.NaN.f32 d, a, b;", 32, 32, 32, 0,
         [=](Bits a, Bits b, Bits) {
           float x = as<float>(a), y = as<float>(b);
           return f32(std::isnan(x) || std::isnan(y) ? NAN : most(x, y));
         }},
        "fff");
  check({"neg.f32 d, a;", 32, 32, 0, 0, [](Bits a, Bits, Bits) { return a ^ 0x80000000; }}, "fff");
  check({"abs.f32 d, a;", 32, 32, 0, 0, [](Bits a, Bits, Bits) { return a & 0x7fffffff; }}, "fff");
  check({"abs.f64 d, a;", 64, 64, 0, 0, [](Bits a, Bits, Bits) { return a & ~(1ull << 63); }}, "fff");
  check({"copysign.f32 d, a, b;", 32, 32, 32, 0,
         [](Bits a, Bits b, Bits) { return (b & 0x7fffffff) | (a & 0x80000000); }},
        "fff");
  check({"sqrt.rn.f64 d, a;", 64, 64, 0, 0, [](Bits a, Bits, Bits) { return f64(std::sqrt(as<double>(a))); }}, "fff");
  // Approximations: close to the true value; NaN and infinities as they must be.
  auto near = [](const char* text, double (*f)(double), double tolerance) {
    check({text, 32, 32, 0, 0, [=](Bits a, Bits, Bits) { return f32((float)f(as<float>(a))); }, tolerance}, "fff");
  };
  near(
      "ex2.approx.f32 d, a;", [](double x) { return std::exp2(x); }, 1e-6);
  near(
      "lg2.approx.f32 d, a;", [](double x) { return std::log2(x); }, 1e-6);
  near(
      "tanh.approx.f32 d, a;", [](double x) { return std::tanh(x); }, 1e-6);
  near(
      "rsqrt.approx.f32 d, a;", [](double x) { return 1 / std::sqrt(x); }, 1e-6);
  near(
      "sqrt.approx.f32 d, a;", [](double x) { return std::sqrt(x); }, 1e-6);
  near(
      "rcp.approx.f32 d, a;", [](double x) { return 1 / x; }, 1e-6);
  near(
      "sin.approx.f32 d, a;", [](double x) { return std::sin(x); }, 1e-6);
  near(
      "cos.approx.f32 d, a;", [](double x) { return std::cos(x); }, 1e-6);
  check({"div.full.f32 d, a, b;", 32, 32, 32, 0, [](Bits a, Bits b, Bits) { return f32(as<float>(a) / as<float>(b)); },
         1e-6},
        "fff");
  check({"div.approx.f32 d, a, b;", 32, 32, 32, 0,
         [](Bits a, Bits b, Bits) { return f32(as<float>(a) / as<float>(b)); }, 1e-6},
        "fff");
}

TEST(instruction_halves) {
  for (bool bf : {false, true})
    for (bool pair : {false, true}) {
      std::string t = bf ? ".bf16" : ".f16";
      int w = pair ? 32 : 16;
      if (pair) t += "x2";
      auto each = [=](std::function<double(double, double, double)> f) {
        return [=](Bits a, Bits b, Bits c) {
          Bits r = 0;
          for (int k = 0; k < (pair ? 2 : 1); k++)
            r |= halfBits(f(halfValue(a >> 16 * k, bf), halfValue(b >> 16 * k, bf), halfValue(c >> 16 * k, bf)), bf)
                 << 16 * k;
          return r;
        };
      };
      check({"add.rn" + t + " d, a, b;", w, w, w, 0, each([](double a, double b, double) { return a + b; })});
      check({"sub.rn" + t + " d, a, b;", w, w, w, 0, each([](double a, double b, double) { return a - b; })});
      check({"mul.rn" + t + " d, a, b;", w, w, w, 0, each([](double a, double b, double) { return a * b; })});
      check({"fma.rn" + t + " d, a, b, c;", w, w, w, w, each([bf](double a, double b, double c) {
               double product = a * b, r = product + c;  // the product is exact
               if (!std::isfinite(r)) return r;
               __float128 s = (__float128)product + c, rest = s - r;
               if (rest == 0 && s == product) rest = c;  // beyond even 113 bits
               if (rest == 0 && s == c) rest = product;
               if (rest != 0 && !(product == 0 || c == 0) && (__float128)product + c - r != 0)
                 r = std::nextafter(r, rest > 0 ? INFINITY : -INFINITY);
               else if (product != 0 && c != 0 && (r == product || r == c))
                 r = std::nextafter(r, (r == product ? c : product) > 0 ? INFINITY : -INFINITY);
               return r;
             })});
      auto pick = [](bool max) {
        return [max](double a, double b, double) {
          return std::isnan(a)   ? b
                 : std::isnan(b) ? a
                 : a == b        ? (std::signbit(a) == max ? b : a)
                 : max           ? std::max(a, b)
                                 : std::min(a, b);
        };
      };
      check({"min" + t + " d, a, b;", w, w, w, 0, each(pick(false))});
      check({"max" + t + " d, a, b;", w, w, w, 0, each(pick(true))});
      Bits signs = pair ? 0x80008000 : 0x8000;
      check({"neg" + t + " d, a;", w, w, 0, 0, [=](Bits a, Bits, Bits) { return a ^ signs; }});
      check({"abs" + t + " d, a;", w, w, 0, 0, [=](Bits a, Bits, Bits) { return a & ~signs; }});
    }
  check({"fma.rn.relu.f16 d, a, b, c;", 16, 16, 16, 16, [](Bits a, Bits b, Bits c) {
           double x = std::fma(halfValue(a, false), halfValue(b, false), halfValue(c, false));
           return halfBits(x < 0 || x == 0 ? 0 : x, false);
         }});
}

TEST(instruction_conversions) {
  // Integers to integers.
  for (int from : {8, 16, 32, 64})
    for (bool fs : {false, true})
      for (int to : {8, 16, 32, 64})
        for (bool ts : {false, true})
          for (bool sat : {false, true}) {
            int fr = std::max(from, 16), tr = std::max(to, 16);
            std::string text = std::string("cvt") + (sat ? ".sat" : "") + (ts ? ".s" : ".u") + std::to_string(to) +
                               (fs ? ".s" : ".u") + std::to_string(from) + " d, a;";
            check({text, tr, fr, 0, 0, [=](Bits a, Bits, Bits) {
                     __int128 v = wide(a, from, fs);
                     if (sat) {
                       __int128 top = ((__int128)1 << (to - ts)) - 1, bottom = ts ? -top - 1 : 0;
                       v = v < bottom ? bottom : v > top ? top : v;
                     }
                     return cut(wide(cut(v, to), to, ts), tr);
                   }});
          }
  // Floats to integers.
  struct {
    const char* name;
    double (*f)(double);
  } integral[] = {{"rni", [](double x) { return std::nearbyint(x); }},
                  {"rzi", [](double x) { return std::trunc(x); }},
                  {"rmi", [](double x) { return std::floor(x); }},
                  {"rpi", [](double x) { return std::ceil(x); }}};
  for (auto& r : integral)
    for (int to : {8, 16, 32, 64})
      for (bool s : {false, true}) {
        int tr = std::max(to, 16);
        auto convert = [=, f = r.f](double x, bool fromDouble) -> Bits {
          if (std::isnan(x)) return fromDouble || to == 64 ? cut(wide(1ull << (to - 1), to, s), tr) : 0;
          x = f(x);
          __int128 top = ((__int128)1 << (to - s)) - 1, bottom = s ? -top - 1 : 0;
          __int128 v = x >= 1.9e19 ? top : x <= -1.9e19 ? bottom : (__int128)x;
          return cut(v < bottom ? bottom : v > top ? top : v, tr);
        };
        std::string head = std::string("cvt.") + r.name + (s ? ".s" : ".u") + std::to_string(to);
        check({head + ".f32 d, a;", tr, 32, 0, 0, [=](Bits a, Bits, Bits) { return convert(as<float>(a), false); }},
              "fff");
        check({head + ".f64 d, a;", tr, 64, 0, 0, [=](Bits a, Bits, Bits) { return convert(as<double>(a), true); }},
              "fff");
        check({head + ".f16 d, a;", tr, 16, 0, 0,
               [=](Bits a, Bits, Bits) { return convert(halfValue(a, false), false); }});
      }
  for (auto& r : integral) {
    check({std::string("cvt.") + r.name + ".f32.f32 d, a;", 32, 32, 0, 0,
           [f = r.f](Bits a, Bits, Bits) { return f32((float)f(as<float>(a))); }},
          "fff");
    check({std::string("cvt.") + r.name + ".f64.f64 d, a;", 64, 64, 0, 0,
           [f = r.f](Bits a, Bits, Bits) { return f64(f(as<double>(a))); }},
          "fff");
  }
  // Integers to floats, floats to floats, in every rounding.
  struct {
    const char* name;
    int mode;
  } roundings[] = {{"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (auto& r : roundings) {
    std::string head = std::string("cvt.") + r.name;
    auto with = [mode = r.mode](auto f) {
      return [=](Bits a, Bits, Bits) {
        fesetround(mode);
        Bits v = f(a);
        fesetround(FE_TONEAREST);
        return v;
      };
    };
    check({head + ".f32.s32 d, a;", 32, 32, 0, 0, with([](Bits a) {
             volatile int32_t x = (int32_t)a;
             volatile float v = (float)x;
             return bits((float)v);
           })});
    check({head + ".f32.u32 d, a;", 32, 32, 0, 0, with([](Bits a) {
             volatile int64_t x = (int64_t)(uint32_t)a;
             volatile float v = (float)x;
             return bits((float)v);
           })});
    check({head + ".f32.s64 d, a;", 32, 64, 0, 0, with([](Bits a) {
             volatile int64_t x = (int64_t)a;
             volatile float v = (float)x;
             return bits((float)v);
           })});
    check({head + ".f64.s64 d, a;", 64, 64, 0, 0, with([](Bits a) {
             volatile int64_t x = (int64_t)a;
             volatile double v = (double)x;
             return bits((double)v);
           })});
    check({head + ".f32.f64 d, a;", 32, 64, 0, 0, with([](Bits a) {
             volatile double x = as<double>(a);
             volatile float v = (float)x;
             return f32(v);
           })},
          "fff");
  }
  check({"cvt.rn.f32.u64 d, a;", 32, 64, 0, 0, [](Bits a, Bits, Bits) { return bits((float)a); }});
  check({"cvt.rn.f64.u64 d, a;", 64, 64, 0, 0, [](Bits a, Bits, Bits) { return bits((double)a); }});
  check({"cvt.rn.f32.u8 d, a;", 32, 16, 0, 0, [](Bits a, Bits, Bits) { return bits((float)(a & 255)); }});
  check({"cvt.rn.f32.s8 d, a;", 32, 16, 0, 0, [](Bits a, Bits, Bits) { return bits((float)(int8_t)a); }});
  check({"cvt.rn.f32.u16 d, a;", 32, 16, 0, 0, [](Bits a, Bits, Bits) { return bits((float)a); }});
  check({"cvt.f64.f32 d, a;", 64, 32, 0, 0, [](Bits a, Bits, Bits) { return f64(as<float>(a)); }}, "fff");
  check({"cvt.sat.f32.f32 d, a;", 32, 32, 0, 0,
         [](Bits a, Bits, Bits) {
           float v = as<float>(a);
           return bits(v > 0 ? std::min(v, 1.f) : 0.f);
         }},
        "fff");
  check({"cvt.ftz.f32.f32 d, a;", 32, 32, 0, 0,
         [](Bits a, Bits, Bits) {
           float v = as<float>(a);
           return f32(std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.f, v) : v);
         }},
        "fff");
  for (bool bf : {false, true}) {
    std::string h = bf ? ".bf16" : ".f16";
    check({"cvt.rn" + h + ".f32 d, a;", 16, 32, 0, 0, [=](Bits a, Bits, Bits) { return halfBits(as<float>(a), bf); }},
          "fff");
    check({"cvt.rn.relu" + h + ".f32 d, a;", 16, 32, 0, 0,
           [=](Bits a, Bits, Bits) {
             float v = as<float>(a);
             return halfBits(std::isnan(v) ? v : v > 0 ? v : 0, bf);
           }},
          "fff");
    check({"cvt.f32" + h + " d, a;", 32, 16, 0, 0, [=](Bits a, Bits, Bits) { return f32((float)halfValue(a, bf)); }});
    check({"cvt.rn" + h + "x2.f32 d, a, b;", 32, 32, 32, 0,
           [=](Bits a, Bits b, Bits) { return halfBits(as<float>(a), bf) << 16 | halfBits(as<float>(b), bf); }},
          "fff");
    check({"cvt.rz" + h + ".f32 d, a;", 16, 32, 0, 0,
           [=](Bits a, Bits, Bits) {
             float v = as<float>(a);
             if (std::isnan(v)) return (Bits)0x7fff;
             if (bf) return a >> 16;
             double x = std::fabs((double)v),
                    unit = std::ldexp(1.0, std::max(x > 0 && std::isfinite(x) ? std::ilogb(x) - 10 : -24, -24));
             if (std::isinf(v)) return (Bits)(v < 0 ? 0xfc00 : 0x7c00);
             x = std::min(std::floor(x / unit) * unit, 65504.0);
             return halfBits(std::copysign(x, v), false);
           }},
          "fff");
  }
  check({"cvt.rn.f16.f64 d, a;", 16, 64, 0, 0, [](Bits a, Bits, Bits) { return halfBits(as<double>(a), false); }},
        "fff");
  check({"cvt.rn.f16.s32 d, a;", 16, 32, 0, 0, [](Bits a, Bits, Bits) { return halfBits((int32_t)a, false); }});
  check({"cvt.f64.f16 d, a;", 64, 16, 0, 0, [](Bits a, Bits, Bits) { return f64(halfValue(a, false)); }});
  check({"cvt.rna.tf32.f32 d, a;", 32, 32, 0, 0,
         [](Bits a, Bits, Bits) -> Bits {
           float v = as<float>(a);
           if (std::isnan(v)) return 0x7fffffff;
           if (std::isinf(v) || v == 0) return a;
           int e = std::max(std::ilogb(v), -126);  // nearest of 11 significant bits, ties away from zero
           double unit = std::ldexp(1.0, e - 10), r = std::floor(std::fabs((double)v) / unit + 0.5) * unit;
           return bits(std::copysign((float)r, v));
         }},
        "fff");
}
