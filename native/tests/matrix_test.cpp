// Matrix products: the layout of fragments, and sums as the tensor cores of each architecture add them, by integers here.
#include <bit>
#include <cmath>
#include <random>

#include "harness.h"

namespace {

struct Shape {
  const char* name;
  int k;
  const char* type;
  int size;  // of an element
};
const Shape shapes[] = {{"m16n8k16", 16, "bf16", 2}, {"m16n8k16", 16, "f16", 2}, {"m16n8k8", 8, "bf16", 2},
                        {"m16n8k8", 8, "f16", 2},    {"m16n8k8", 8, "tf32", 4},  {"m16n8k4", 4, "tf32", 4}};

/// Operands and result row by row, as bits of their types.
struct Matrices {
  std::vector<uint32_t> a, b, c, d;
  explicit Matrices(const Shape& s) : a((size_t)(16 * s.k)), b((size_t)(s.k * 8)), c(16 * 8), d(16 * 8) {}
};

/// Computes d = a * b + c on the device. Fragments are filled lane by lane after the tables of the PTX manual.
class Product {
 public:
  Product(const Shape& s, bool halfSum)
      : s(s),
        halfSum(halfSum),
        perRegister(s.size == 2 ? 2 : 1),
        na(16 * s.k / 32 / perRegister),
        nb(8 * s.k / 32 / perRegister),
        nc(halfSum ? 2 : 4),
        module(source()) {}

  void operator()(Matrices& m) {
    std::vector<uint32_t> in(32 * 16);
    for (int lane = 0; lane < 32; lane++) {
      int group = lane >> 2, in4 = lane & 3;
      for (int e = 0; e < na * perRegister; e++) {  // a_e of the manual
        int row, column;
        if (s.size == 2) {
          row = group + ((e & 2) ? 8 : 0);
          column = in4 * 2 + (e & 1) + (e >= 4 ? 8 : 0);
        } else {
          row = group + (e & 1 ? 8 : 0);
          column = in4 + (e >= 2 ? 4 : 0);
        }
        in[(size_t)(lane * 16 + e / perRegister)] |= m.a[(size_t)(row * s.k + column)] << (16 * (e % perRegister));
      }
      for (int e = 0; e < nb * perRegister; e++) {
        int k = s.size == 2 ? in4 * 2 + (e & 1) + (e >= 2 ? 8 : 0) : in4 + 4 * e;
        in[(size_t)(lane * 16 + 4 + e / perRegister)] |= m.b[(size_t)(k * 8 + group)] << (16 * (e % perRegister));
      }
      for (int e = 0; e < 4; e++) {
        uint32_t v = m.c[(size_t)((group + (e >= 2 ? 8 : 0)) * 8 + in4 * 2 + (e & 1))];
        if (halfSum) in[(size_t)(lane * 16 + 8 + e / 2)] |= v << (16 * (e & 1));
        else in[(size_t)(lane * 16 + 8 + e)] = v;
      }
    }
    Buffer<uint32_t> input(in), output(std::vector<uint32_t>(32 * 4));
    module.run("k", 1, 32, 0, input.at, output.at);
    auto out = output.get();
    for (int lane = 0; lane < 32; lane++)
      for (int e = 0; e < 4; e++) {
        int row = (lane >> 2) + (e >= 2 ? 8 : 0), column = (lane & 3) * 2 + (e & 1);
        m.d[(size_t)(row * 8 + column)] =
            halfSum ? out[(size_t)(lane * 4 + e / 2)] >> (16 * (e & 1)) & 0xffff : out[(size_t)(lane * 4 + e)];
      }
  }

 private:
  const Shape& s;
  bool halfSum;
  int perRegister, na, nb, nc;
  Module module;

  std::string source() const {
    auto list = [](const char* name, int n) {
      std::string r = "{";
      for (int i = 0; i < n; i++) r += (i ? ", " : "") + std::string(name) + std::to_string(i);
      return r + "}";
    };
    std::string d = halfSum ? "f16" : "f32";
    std::string ptx =
        ".visible .entry k(.param .u64 pi, .param .u64 po) {\n.reg .b32 a<8>, b<4>, c<4>, d<4>; .reg .u32 t; .reg "
        ".u64 i, o; mov.u32 t, %tid.x; ld.param.u64 i, [pi]; ld.param.u64 o, [po]; mad.wide.u32 i, t, 64, i; "
        "mad.wide.u32 o, t, 16, o;\n";
    for (int i = 0; i < na; i++)
      ptx += "ld.global.b32 a" + std::to_string(i) + ", [i+" + std::to_string(4 * i) + "];\n";
    for (int i = 0; i < nb; i++)
      ptx += "ld.global.b32 b" + std::to_string(i) + ", [i+" + std::to_string(16 + 4 * i) + "];\n";
    for (int i = 0; i < nc; i++)
      ptx += "ld.global.b32 c" + std::to_string(i) + ", [i+" + std::to_string(32 + 4 * i) + "];\n";
    ptx += std::string("mma.sync.aligned.") + s.name + ".row.col." + d + "." + s.type + "." + s.type + "." + d + " " +
           list("d", nc) + ", " + list("a", na) + ", " + list("b", nb) + ", " + list("c", nc) + ";\n";
    for (int i = 0; i < nc; i++)
      ptx += "st.global.b32 [o+" + std::to_string(4 * i) + "], d" + std::to_string(i) + ";\n";
    return ptx + "ret;\n}\n";
  }
};

/// Runs what needs a device of some compute capability.
template <class F> void on(int major, F f) {
  jtreluEmulatorSetComputeCapability(major, 0);
  try {
    f();
  } catch (...) {
    jtreluEmulatorSetComputeCapability(8, 0);
    throw;
  }
  jtreluEmulatorSetComputeCapability(8, 0);
}

// --- the same sums by integers ---

/// Fields of a type of floating numbers; the value is significand * 2^unit.
struct Format {
  int exponentBits, fractionBits;
  int bias() const { return (1 << (exponentBits - 1)) - 1; }
};
const Format bf16{8, 7}, f16{5, 10}, f32{8, 23};
Format formatOf(const Shape& s) { return s.size == 4 ? f32 : !strcmp(s.type, "bf16") ? bf16 : f16; }

struct Number {
  bool negative = false, infinite = false, nan = false;
  uint64_t significand = 0;
  int unit = 0;
  int exponent = 0;  // by which it is aligned
};
Number decode(uint32_t bits, Format f) {
  uint32_t field = bits >> f.fractionBits & ((1u << f.exponentBits) - 1),
           fraction = bits & ((1u << f.fractionBits) - 1);
  Number n;
  n.negative = bits >> (f.exponentBits + f.fractionBits) & 1;
  if (field == (1u << f.exponentBits) - 1) {
    n.infinite = !fraction;
    n.nan = fraction;
    return n;
  }
  n.significand = field ? fraction | 1u << f.fractionBits : fraction;
  n.exponent = (field ? (int)field : 1) - f.bias();
  n.unit = n.exponent - f.fractionBits;
  return n;
}
Number times(const Number& a, const Number& b) {
  Number n;
  n.negative = a.negative != b.negative;
  n.nan =
      a.nan || b.nan || (a.infinite && !b.infinite && !b.significand) || (b.infinite && !a.infinite && !a.significand);
  n.infinite = !n.nan && (a.infinite || b.infinite);
  n.significand = a.significand * b.significand;
  n.unit = a.unit + b.unit;
  n.exponent = a.exponent + b.exponent;
  return n;
}
/// magnitude * 2^unit in a format, rounded to nearest even or towards zero.
uint32_t encode(bool negative, uint64_t magnitude, int unit, Format f, bool nearest) {
  if (!magnitude) return 0;
  int top = unit + 63 - __builtin_clzll(magnitude), least = 1 - f.bias();
  int last = std::max(top, least) - f.fractionBits, drop = last - unit;
  uint64_t kept = drop <= 0 ? magnitude << -drop : drop > 63 ? 0 : magnitude >> drop;
  if (nearest && drop > 0 && drop <= 63) {
    uint64_t rest = magnitude - (kept << drop), half = 1ull << (drop - 1);
    if (rest > half || (rest == half && (kept & 1))) kept++;
  }
  // A carry out of the fraction moves into the exponent by itself.
  uint64_t field = (uint64_t)(std::max(top, least) + f.bias() - 1);
  uint64_t bits = (field << f.fractionBits) + kept;
  uint64_t infinity = ((1ull << f.exponentBits) - 1) << f.fractionBits;
  return (uint32_t)(std::min(bits, infinity) | (uint64_t)negative << (f.exponentBits + f.fractionBits));
}
/// What a unit makes of an accumulator and some products.
uint32_t added(const std::vector<Number>& products, uint32_t accumulator, int bits, Format f) {
  std::vector<Number> terms = products;
  terms.push_back(decode(accumulator, f));
  bool nan = false, up = false, down = false;
  int exponent = -126;
  for (auto& t : terms) {
    nan |= t.nan;
    (t.negative ? down : up) |= t.infinite;
    if (t.significand) exponent = std::max(exponent, t.exponent);
  }
  uint32_t infinity = ((1u << f.exponentBits) - 1) << f.fractionBits, sign = 1u << (f.exponentBits + f.fractionBits);
  if (nan || (up && down)) return sign - 1;
  if (up || down) return infinity | (down ? sign : 0);
  int64_t sum = 0;
  for (auto& t : terms) {
    int shift = t.unit - (exponent - bits);
    int64_t aligned = (int64_t)(!t.significand ? 0
                                : shift >= 0   ? t.significand << shift
                                : shift < -63  ? 0
                                               : t.significand >> -shift);
    sum += t.negative ? -aligned : aligned;
  }
  return encode(sum < 0, (uint64_t)std::abs(sum), exponent - bits, f, f.fractionBits == 10);
}
void expectSums(const Shape& s, bool halfSum, int major, const Matrices& m) {
  const int bits = major >= 9 ? 25 : 24, together = std::min(s.k, (major >= 9 ? 32 : 16) / s.size);
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) {
      uint32_t sum = m.c[(size_t)(i * 8 + j)];
      for (int first = 0; first < s.k; first += together) {
        std::vector<Number> products;
        for (int k = first; k < first + together; k++) {
          uint32_t a = m.a[(size_t)(i * s.k + k)], b = m.b[(size_t)(k * 8 + j)], ignored = s.size == 4 ? 0x1fff : 0;
          products.push_back(times(decode(a & ~ignored, formatOf(s)), decode(b & ~ignored, formatOf(s))));
        }
        sum = added(products, sum, bits, halfSum ? f16 : f32);
      }
      checks++;
      uint32_t d = m.d[(size_t)(i * 8 + j)];
      if (d != sum) {
        char text[200];
        snprintf(text, sizeof text, "%s %s to %s on sm_%d0, row %d, column %d: 0x%x, expected 0x%x", s.name, s.type,
                 halfSum ? "f16" : "f32", major, i, j, d, sum);
        fail(__FILE__, __LINE__, text);
      }
    }
}
float toFloat(uint32_t b) {
  float f;
  memcpy(&f, &b, 4);
  return f;
}
uint32_t bitsOf(double v, Format f) {  // of a number that the format has
  int e;
  double m = std::frexp(std::fabs(v), &e);
  return encode(v < 0, (uint64_t)std::ldexp(m, 53), e - 53, f, false);
}

}  // namespace

TEST(matrix_products_of_small_integers_are_exact) {
  for (const Shape& s : shapes)
    for (bool halfSum : {false, true}) {
      if (halfSum && strcmp(s.type, "f16")) continue;
      for (int major : {8, 9, 10})
        on(major, [&] {
          Product product(s, halfSum);
          Matrices m(s);
          auto A = [](int i, int k) { return (i * 5 + k * 3) % 9 - 4; };
          auto B = [](int k, int j) { return (k * 7 + j * 2) % 7 - 3; };
          auto C = [](int i, int j) { return i - j; };
          Format f = formatOf(s), g = halfSum ? f16 : f32;
          for (int i = 0; i < 16; i++)
            for (int k = 0; k < s.k; k++) m.a[(size_t)(i * s.k + k)] = bitsOf(A(i, k), f);
          for (int k = 0; k < s.k; k++)
            for (int j = 0; j < 8; j++) m.b[(size_t)(k * 8 + j)] = bitsOf(B(k, j), f);
          for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) m.c[(size_t)(i * 8 + j)] = bitsOf(C(i, j), g);
          jtreluEmulatorCountersClear();
          product(m);
          CHECK(text(jtreluEmulatorCountersJson).find("\"tensorMultiplyAdds\":" + std::to_string(16 * 8 * s.k) + ",") !=
                std::string::npos);
          for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
              int sum = C(i, j);
              for (int k = 0; k < s.k; k++) sum += A(i, k) * B(k, j);
              CHECK_EQUAL(m.d[(size_t)(i * 8 + j)], bitsOf(sum, g));
            }
        });
    }
}

TEST(matrix_sums_are_those_of_the_tensor_cores) {
  std::mt19937_64 random(1);
  enum Data { Alike, Positive, Cancelling, Sparse, AnyBits, Count };
  for (const Shape& s : shapes)
    for (bool halfSum : {false, true}) {
      if (halfSum && strcmp(s.type, "f16")) continue;
      for (int major : {8, 9, 10})
        on(major, [&] {
          Product product(s, halfSum);
          Format f = formatOf(s), g = halfSum ? f16 : f32;
          for (int round = 0; round < 60; round++) {
            Data data = (Data)(round % Count);
            auto draw = [&](Format of) -> uint32_t {
              uint32_t sign = 1u << (of.exponentBits + of.fractionBits),
                       fraction = (uint32_t)random() & ((1u << of.fractionBits) - 1);
              uint32_t range = data == Cancelling ? 3 : 8;
              uint32_t exponent = (uint32_t)of.bias() - range / 2 + (uint32_t)(random() % range);
              uint32_t any = (uint32_t)random() & (2 * sign - 1);
              switch (data) {
                case Positive: return exponent << of.fractionBits | fraction;
                case Sparse:
                  return random() % 3 ? 0 : exponent << of.fractionBits | fraction | (random() & 1 ? sign : 0);
                case AnyBits: {
                  // Subnormal numbers, and now and then what is not finite.
                  bool finite = (any >> of.fractionBits & ((1u << of.exponentBits) - 1)) != (1u << of.exponentBits) - 1;
                  if (random() % 4 == 0) return any & (sign | ((1u << of.fractionBits) - 1));
                  return finite || random() % 16 == 0 ? any : any & ~(1u << of.fractionBits);
                }
                default: return exponent << of.fractionBits | fraction | (random() & 1 ? sign : 0);
              }
            };
            Matrices m(s);
            for (auto& x : m.a) x = draw(f);
            for (auto& x : m.b) x = draw(f);
            for (auto& x : m.c) x = draw(g);
            product(m);
            expectSums(s, halfSum, major, m);
          }
        });
    }
}

/// What papers tell of single sums: 1 and products of half f32's last place and less.
TEST(matrix_sums_of_the_literature) {
  const Shape& s = shapes[1];
  // An accumulator and a product at some places of k, a bit each.
  auto sum = [&](int major, double c, double product, unsigned places) {
    double d = 0;
    on(major, [&] {
      Matrices m(s);
      for (int k = 0; k < s.k; k++)
        if (places >> k & 1)
          m.a[(size_t)k] = bitsOf(product * 0x1p13, f16), m.b[(size_t)(k * 8)] = bitsOf(0x1p-13, f16);
      m.c[0] = bitsOf(c, f32);
      Product{s, false}(m);
      d = toFloat(m.d[0]);
    });
    return d;
  };
  // While it adds, Ampere keeps one bit beyond f32's 23 (Fasi et al.; Li et al., arXiv 2403.00232), Hopper two (Li et al.).
  CHECK(sum(8, 1, 0x1p-24, 0xf) == 1 + 0x1p-22);
  CHECK(sum(8, 1, 0x1p-25, 0xf) == 1);
  CHECK(sum(9, 1, 0x1p-25, 0xf) == 1 + 0x1p-23);
  CHECK(sum(9, 1, 0x1p-26, 0xf) == 1);
  // Both cut off: to nearest the first would be the next number, the second 1 on both.
  CHECK(sum(8, 1, 0x1.8p-24, 1) == 1 && sum(9, 1, 0x1.8p-24, 1) == 1);
  CHECK(sum(8, 1, -0x1p-25, 1) == 1 && sum(9, 1, -0x1p-25, 1) == 1 - 0x1p-24);
  // Ampere adds eight products of 16-bit numbers and then the next eight, Hopper all sixteen (Li et al.).
  CHECK(sum(8, 1, 0x1p-24, 0x101) == 1);
  CHECK(sum(9, 1, 0x1p-24, 0x101) == 1 + 0x1p-23);
  // Addition is not monotonic: a larger accumulator takes their last bits from the products (Fasi et al.).
  CHECK(sum(8, 1 - 0x1p-24, 0x1p-25, 0xff) == 1 + 0x1p-23 && sum(8, 1, 0x1p-25, 0xff) == 1);
}

/// The bound that the contract tests of convolutions rest on: each addition errs by less than ((L + 1) 2^-F + 2^-23) of the sum of all
/// |terms|; and on positive data errors do add up, far beyond those of rounding to nearest.
TEST(matrix_errors_of_long_sums) {
  const Shape& s = shapes[0];
  const int length = 4608;
  for (int major : {8, 9})
    for (bool positive : {true, false})
      on(major, [&] {
        Product product(s, false);
        std::mt19937_64 random(1);
        std::normal_distribution<float> normal;
        Matrices m(s);
        std::vector<double> exact(16 * 8), magnitude(16 * 8);
        for (int first = 0; first < length; first += s.k) {
          auto fill = [&](std::vector<uint32_t>& to) {
            for (auto& x : to) {
              float v = normal(random);
              x = bitsOf(toFloat((positive ? std::bit_cast<uint32_t>(v) & 0x7fffffff : std::bit_cast<uint32_t>(v)) &
                                 0xffff0000),
                         bf16);
            }
          };
          fill(m.a), fill(m.b);
          for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++)
              for (int k = 0; k < s.k; k++) {
                double p = (double)toFloat(m.a[(size_t)(i * s.k + k)] << 16) * toFloat(m.b[(size_t)(k * 8 + j)] << 16);
                exact[(size_t)(i * 8 + j)] += p, magnitude[(size_t)(i * 8 + j)] += std::fabs(p);
              }
          product(m);
          m.c = m.d;
        }
        const double bound = major == 8 ? length / 8 * (9 * 0x1p-24 + 0x1p-23) : length / 16 * (17 * 0x1p-25 + 0x1p-23);
        double worst = 0;
        for (size_t i = 0; i < exact.size(); i++) {
          double error = std::fabs(toFloat(m.d[i]) - exact[i]) / magnitude[i];
          CHECK(error < bound);
          worst = std::max(worst, error);
        }
        if (positive) CHECK(worst > 10 * 0x1p-20);
        else CHECK(worst < 0x1p-20);
      });
}
