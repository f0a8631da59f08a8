// Every variant of the convolution kernels against direct loops in double, on many shapes.
//
//   conv2d_test DRIVER PTX_DIR [--shapes N] [--seed S] [--only TEXT] [--traffic 1] [--large 0]
//
// Tier A: small integers, slope 0.5, scale 1: bit-exact. Tier B: random reals, error bounded by the
// rounding of the result and of the sum of magnitudes. Outputs are poisoned before each run, lie
// between guard zones, and each case runs twice and must repeat bitwise. On the emulated driver its
// checkers must report nothing, and its counters hold the kernels to their traffic on aligned shapes:
// no shared-memory bank conflict, sector efficiency, no more products than the padded problem's.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>

#include "conv2d_problem.h"
#include "driver.h"

namespace {

enum class Type { kBf16, kF16, kTf32, kF32 };

Type typeOf(const std::string& name) {
  return name == "bf16"   ? Type::kBf16
         : name == "f16"  ? Type::kF16
         : name == "tf32" ? Type::kTf32
                          : Type::kF32;
}
int bytesOf(Type type) { return type == Type::kBf16 || type == Type::kF16 ? 2 : 4; }
const char* nameOf(Type type) {
  return type == Type::kBf16   ? "bf16"
         : type == Type::kF16  ? "f16"
         : type == Type::kTf32 ? "tf32"
                               : "f32";
}

struct Variant {
  char pass;  // f, d, w
  const char* name;
  Type type;
  int inChannels;  // fprop, dgrad: of the gathered activation; wgrad: of diff_dst
  int srcChannels;  // wgrad
  int blockM, blockN, blockK, threads, sharedBytes;
};

#define FPROP(name, type, channels, m, n, k, stages, wm, wn, threads, bytes)                       \
  {'f', #name, typeOf(#type), channels, 1, m, n, k, threads, bytes},
#define FPROP_STEM(...) FPROP(__VA_ARGS__)
#define DGRAD(name, type, channels, m, n, k, stages, wm, wn, threads, bytes)                       \
  {'d', #name, typeOf(#type), channels, 1, m, n, k, threads, bytes},
#define WGRAD(name, type, dst, src, m, n, k, stages, wm, wn, threads, bytes)                       \
  {'w', #name, typeOf(#type), dst, src, m, n, k, threads, bytes},
#define FPROP_PANEL(...) FPROP(__VA_ARGS__)
#define DGRAD_PANEL(...) DGRAD(__VA_ARGS__)
const std::vector<Variant> kVariants = {
#include "conv2d_variants.def"
};

// Whether a variant copies 16 bytes of a pixel at once.
bool wholeChunks(const Variant& v, int channels) { return channels * bytesOf(v.type) >= 16; }

// The longest contraction of a panel variant.
int panelDepth(const Variant& v, int stages) {
  return (v.sharedBytes / 64 - stages * v.blockN) / v.blockM * v.blockK;
}

bool isPanel(const Variant& v) { return std::string(v.name).find("_panel") != std::string::npos; }

bool fits(const Variant& v, const Problem& q) {
  if (isPanel(v) && (q.kh * q.kw > 1 || (v.pass == 'f' ? q.ic : q.oc) > panelDepth(v, 4))) {
    return false;
  }
  switch (v.pass) {
    case 'f':
      return v.inChannels == 1 || wholeChunks(v, v.inChannels) ? q.ic % v.inChannels == 0
                                                               : q.ic == v.inChannels;
    case 'd': return q.oc % v.inChannels == 0;
    default: return q.oc % v.inChannels == 0 && q.ic % v.srcChannels == 0;
  }
}

// Rounds a double to nearest even with `bits` bits of significand and smallest exponent `least`.
double roundTo(double x, int bits, int least) {
  if (x == 0 || !std::isfinite(x)) {
    return x;
  }
  int exponent;
  std::frexp(x, &exponent);
  double const unit = std::ldexp(1.0, std::max(exponent - bits, least));
  return std::nearbyint(x / unit) * unit;
}
double toStorage(double x, Type type) {
  switch (type) {
    case Type::kBf16: return roundTo(x, 8, -133);
    case Type::kF16: return roundTo(x, 11, -24);
    default: return static_cast<float>(x);
  }
}
double unitRoundoff(Type type) {
  return type == Type::kBf16 ? 0x1p-8 : type == Type::kF16 ? 0x1p-11 : 0x1p-24;
}

// What a product sees of a stored value: tf32 rounds to 11 significant bits, ties away from zero.
double toOperand(double x, Type type) {
  if (type != Type::kTf32) {
    return x;
  }
  float const f = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  bits = (bits + 0x1000u) & ~0x1fffu;
  float rounded;
  std::memcpy(&rounded, &bits, 4);
  return rounded;
}

std::vector<unsigned char> encode(const std::vector<double>& values, Type type) {
  std::vector<unsigned char> out(values.size() * bytesOf(type));
  for (size_t i = 0; i < values.size(); ++i) {
    float const f = static_cast<float>(values[i]);
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if (type == Type::kBf16) {
      uint16_t const half = static_cast<uint16_t>(bits >> 16);
      std::memcpy(&out[2 * i], &half, 2);
    } else if (type == Type::kF16) {
      _Float16 const half = static_cast<_Float16>(f);
      std::memcpy(&out[2 * i], &half, 2);
    } else {
      std::memcpy(&out[4 * i], &f, 4);
    }
  }
  return out;
}

std::vector<double> decode(const std::vector<unsigned char>& raw, Type type) {
  std::vector<double> out(raw.size() / bytesOf(type));
  for (size_t i = 0; i < out.size(); ++i) {
    if (type == Type::kBf16) {
      uint16_t half;
      std::memcpy(&half, &raw[2 * i], 2);
      uint32_t const bits = static_cast<uint32_t>(half) << 16;
      float f;
      std::memcpy(&f, &bits, 4);
      out[i] = f;
    } else if (type == Type::kF16) {
      _Float16 half;
      std::memcpy(&half, &raw[2 * i], 2);
      out[i] = static_cast<double>(half);
    } else {
      float f;
      std::memcpy(&f, &raw[4 * i], 4);
      out[i] = f;
    }
  }
  return out;
}

// Inputs and oracle results of one problem, type and tier.
struct Case {
  Problem q;
  Type type;
  bool exact;
  float scale, slope;
  std::vector<double> src, weights, bias, diffDst, oldDiffSrc, oldDiffWeights, oldDiffBias;
  Sums fprop, dgrad, wgrad, diffBias;

  Case(const Problem& problem, Type t, bool integers, uint64_t seed)
      : q(problem),
        type(t),
        exact(integers),
        scale(integers ? 1.0f : 1.3f),
        slope(integers ? 0.5f : 0.3f),
        fprop(q.dstSize()),
        dgrad(q.srcSize()),
        wgrad(q.weightsSize()),
        diffBias(q.oc) {
    std::mt19937_64 random(seed);
    auto const fill = [&](std::vector<double>& v, size_t size, bool stored) {
      v.resize(size);
      for (double& x : v) {
        x = integers ? static_cast<double>(static_cast<int>(random() % 5) - 2)
                     : std::uniform_real_distribution<double>(-1, 1)(random);
        x = stored ? toStorage(x, type) : static_cast<float>(x);
      }
    };
    fill(src, q.srcSize(), true);
    fill(weights, q.weightsSize(), false);
    fill(bias, q.oc, false);
    fill(diffDst, q.dstSize(), true);
    fill(oldDiffSrc, q.srcSize(), true);
    fill(oldDiffWeights, q.weightsSize(), false);
    fill(oldDiffBias, q.oc, false);

    auto const operands = [&](std::vector<double> v) {
      for (double& x : v) {
        x = toOperand(toStorage(x, type), type);
      }
      return v;
    };
    std::vector<double> const s = operands(src);
    std::vector<double> const f = operands(weights);
    std::vector<double> const d = operands(diffDst);
    forEachProduct(q, [&](size_t is, size_t iw, size_t id) {
      fprop.add(id, s[is] * f[iw]);
      dgrad.add(is, d[id] * f[iw]);
      wgrad.add(iw, d[id] * s[is]);
    });
    for (size_t i = 0; i < d.size(); ++i) {
      diffBias.add(i % q.oc, d[i]);
    }
  }
};

struct Tally {
  long cases = 0;
  long values = 0;
  long failures = 0;
  double worst = 0;  // error as a fraction of its bound
};

struct Context {
  Driver& driver;
  std::map<std::string, CUfunction> functions;
  std::map<std::string, Tally> tallies;
};

// One result against its expectation.
void check(Context& x, const Case& c, const std::string& what, const std::vector<double>& got,
           Type stored, const std::function<double(size_t)>& expected,
           const std::function<double(size_t)>& magnitude) {
  Tally& tally = x.tallies[what.substr(0, what.find(' '))];
  ++tally.cases;
  long bad = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    double const want = expected(i);
    double error;
    double bound;
    if (c.exact) {
      error = std::fabs(got[i] - toStorage(want, stored));
      bound = 0;
    } else {
      error = std::fabs(got[i] - want);
      bound = 1.01 * unitRoundoff(stored) * std::fabs(want) + 0x1p-20 * magnitude(i) + 0x1p-25;
      tally.worst = std::max(tally.worst, error / bound);
    }
    ++tally.values;
    if (!(error <= bound)) {  // also when NaN
      if (bad++ == 0) {
        std::printf(
            "FAIL %s | %s | %s | tier %c | element %zu: got %.9g, expected %.9g, bound %.3g\n",
            what.c_str(), c.q.name().c_str(), nameOf(c.type), c.exact ? 'A' : 'B', i, got[i], want,
            bound);
      }
    }
  }
  if (bad > 0) {
    std::printf("     %ld of %zu values\n", bad, got.size());
    ++tally.failures;
  }
}

// Runs twice and compares bitwise.
std::vector<unsigned char> repeat(Context& x, const std::string& what, Buffer& out,
                                  const std::function<void()>& run) {
  run();
  std::vector<unsigned char> const first = out.read();
  run();
  if (first != out.read()) {
    std::printf("FAIL %s: a second run gave other bits\n", what.c_str());
    ++x.tallies[what.substr(0, what.find(' '))].failures;
  }
  return first;
}

struct Packed {
  Buffer forward;
  Buffer backward;
};

int paddedChannels(int channels, Type type) { return roundUp(channels, 16 / bytesOf(type)); }

void packWeights(Context& x, const Case& c, Packed& packed) {
  std::vector<unsigned char> const master = encode(c.weights, Type::kF32);
  Buffer weights(x.driver, master.size());
  weights.write(master.data());
  Conv2dPackParams params{};
  params.count = 1;
  Conv2dPack& p = params.packs[0];
  p.weights = weights.as<const float*>();
  p.forward = packed.forward.as<void*>();
  p.backward = packed.backward.as<void*>();
  p.outC = c.q.oc;
  p.taps = c.q.kh * c.q.kw;
  p.inC = c.q.ic;
  p.inCPadded = paddedChannels(c.q.ic, c.type);
  p.outCPadded = paddedChannels(c.q.oc, c.type);
  p.tilesK = ceilDiv(p.outCPadded, 32);
  p.tilesC = ceilDiv(p.inCPadded, 32);
  std::string const name = std::string("conv2d_pack_") + nameOf(c.type);
  x.driver.launch(x.functions.at(name), unsigned(p.taps) * p.tilesK * p.tilesC, 256, 0, params);

  std::vector<double> const forward = decode(packed.forward.read(), c.type);
  std::vector<double> const backward = decode(packed.backward.read(), c.type);
  auto const weight = [&](int k, int tap, int channel) {
    return k < p.outC && channel < p.inC
               ? toOperand(
                     toStorage(c.weights[(size_t(k) * p.taps + tap) * p.inC + channel], c.type),
                     c.type)
               : 0.0;
  };
  auto const zero = [](size_t) { return 0.0; };
  Case exact = c;
  exact.exact = true;
  check(
      x, exact, name + " forward", forward, c.type,
      [&](size_t i) {
        return weight(int(i / p.inCPadded / p.taps), int(i / p.inCPadded % p.taps),
                      int(i % p.inCPadded));
      },
      zero);
  check(
      x, exact, name + " backward", backward, c.type,
      [&](size_t i) {
        return weight(int(i % p.outCPadded), int(i / p.outCPadded % p.taps),
                      int(i / p.outCPadded / p.taps));
      },
      zero);
}

void testFprop(Context& x, const Case& c, const Variant& v, const Packed& packed, unsigned mode) {
  // Unaligned tensors, where the variant takes them.
  bool const shiftIn = v.inChannels == 1 && mode % 3 == 0;
  bool const shiftOut = mode % 5 == 0;
  size_t const element = bytesOf(c.type);
  Buffer src(x.driver, c.src.size() * element, shiftIn ? element : 0);
  src.write(encode(c.src, c.type).data());
  Buffer bias(x.driver, c.bias.size() * 4, mode % 3 == 1 ? 4 : 0);
  bias.write(encode(c.bias, Type::kF32).data());
  Buffer dst(x.driver, c.q.dstSize() * element, shiftOut ? element : 0);
  bool const withBias = mode % 4 != 3;
  bool const identity = mode % 4 == 2;
  unsigned blocks;
  Conv2dParams p = gatherParams(c.q, false, v.blockM, v.blockN, bytesOf(c.type), blocks,
                                isPanel(v) ? 1 + int(mode % 3) : 1);
  p.in = src.as<const void*>();
  p.filter = packed.forward.as<const void*>();
  p.out = dst.as<void*>();
  p.vectorOut &= !shiftOut;
  p.bias = withBias ? bias.as<const float*>() : nullptr;
  p.scale = identity ? 1 : c.scale;
  p.slope = identity ? 1 : c.slope;
  std::string const what =
      std::string(v.name) + (withBias ? " bias" : "") + (identity ? "" : " trelu");
  std::vector<unsigned char> const raw = repeat(x, what, dst, [&] {
    dst.poison();
    x.driver.launch(x.functions.at(v.name), blocks, v.threads, v.sharedBytes, p);
  });
  check(
      x, c, what, decode(raw, c.type), c.type,
      [&](size_t i) {
        double const z = c.fprop.value[i] + (withBias ? c.bias[i % c.q.oc] : 0);
        return p.scale * (z > 0 ? z : p.slope * z);
      },
      [&](size_t i) { return p.scale * (c.fprop.magnitude[i] + 1); });
}

void testDgrad(Context& x, const Case& c, const Variant& v, const Packed& packed, unsigned mode) {
  bool const gated = mode % 2 == 0;
  bool const accumulate = mode / 2 % 2 == 1;
  bool const inPlace = gated && !accumulate && mode / 4 % 2 == 1;
  std::vector<unsigned char> const srcRaw = encode(c.src, c.type);
  std::vector<unsigned char> const oldRaw = encode(c.oldDiffSrc, c.type);
  bool const shiftIn = v.inChannels == 1 && mode % 3 == 0;
  bool const shiftOut = mode % 5 == 0;
  size_t const element = bytesOf(c.type);
  Buffer src(x.driver, srcRaw.size(), shiftOut ? element : 0);
  src.write(srcRaw.data());
  Buffer diffDst(x.driver, c.diffDst.size() * element, shiftIn ? element : 0);
  diffDst.write(encode(c.diffDst, c.type).data());
  Buffer own(x.driver, srcRaw.size(), shiftOut ? element : 0);
  Buffer& diffSrc = inPlace ? src : own;
  unsigned blocks;
  Conv2dParams p = gatherParams(c.q, true, v.blockM, v.blockN, bytesOf(c.type), blocks,
                                isPanel(v) ? 1 + int(mode % 3) : 1);
  p.in = diffDst.as<const void*>();
  p.filter = packed.backward.as<const void*>();
  p.out = diffSrc.as<void*>();
  p.gate = gated ? src.as<const void*>() : nullptr;
  p.accumulate = accumulate;
  p.vectorOut &= !shiftOut;
  p.scale = c.scale;
  p.slope = c.slope;
  std::string const what = std::string(v.name) + (gated ? " gate" : "") +
                           (accumulate ? " accumulate" : "") + (inPlace ? " in-place" : "");
  std::vector<unsigned char> const raw = repeat(x, what, diffSrc, [&] {
    if (inPlace) {
      src.write(srcRaw.data());
    } else if (accumulate) {
      own.write(oldRaw.data());
    } else {
      own.poison();
    }
    x.driver.launch(x.functions.at(v.name), blocks, v.threads, v.sharedBytes, p);
  });
  auto const factor = [&](size_t i) {
    return gated ? double(c.scale) * (c.src[i] > 0 ? 1.0 : double(c.slope)) : 1.0;
  };
  check(
      x, c, what, decode(raw, c.type), c.type,
      [&](size_t i) { return (c.dgrad.value[i] + (accumulate ? c.oldDiffSrc[i] : 0)) * factor(i); },
      [&](size_t i) { return (c.dgrad.magnitude[i] + 1) * factor(i); });
}

void testWgrad(Context& x, const Case& c, const Variant& v, unsigned mode) {
  bool const accumulate = mode % 2 == 1;
  int splits = mode / 2 % 2 == 1 ? 1 : mode % 4 == 0 ? 3 : 11;
  size_t const element = bytesOf(c.type);
  bool const shiftOut = mode % 5 == 0;
  Buffer src(x.driver, c.src.size() * element, v.srcChannels == 1 && mode % 3 == 0 ? element : 0);
  src.write(encode(c.src, c.type).data());
  Buffer diffDst(x.driver, c.diffDst.size() * element,
                 v.inChannels == 1 && mode % 3 == 0 ? element : 0);
  diffDst.write(encode(c.diffDst, c.type).data());
  // Both gradients in one buffer, so that one comparison covers them.
  std::vector<double> old = c.oldDiffWeights;
  old.resize(roundUp(int(old.size()), 4));
  size_t const biasAt = old.size();
  old.insert(old.end(), c.oldDiffBias.begin(), c.oldDiffBias.end());
  Buffer gradients(x.driver, old.size() * 4, shiftOut ? 4 : 0);
  std::vector<unsigned char> const oldRaw = encode(old, Type::kF32);
  unsigned blocks;
  Conv2dWgradParams p = wgradParams(c.q, v.blockM, v.blockN, v.blockK, splits, blocks);
  Buffer workspace(x.driver, size_t(p.splitStride) * 4 * splits);
  p.src = src.as<const void*>();
  p.diffDst = diffDst.as<const void*>();
  p.weights = splits == 1 ? gradients.as<float*>() : workspace.as<float*>();
  p.bias =
      splits == 1 ? gradients.as<float*>() + biasAt : workspace.as<float*>() + c.q.weightsSize();
  p.accumulate = splits == 1 && accumulate;
  p.vectorOut &= splits > 1 || !shiftOut;
  std::string const what =
      std::string(v.name) + " splits=" + std::to_string(splits) + (accumulate ? " accumulate" : "");
  std::vector<unsigned char> const raw = repeat(x, what, gradients, [&] {
    if (accumulate) {
      gradients.write(oldRaw.data());
    } else {
      gradients.poison();
    }
    workspace.poison();
    x.driver.launch(x.functions.at(v.name), blocks, v.threads, v.sharedBytes, p);
    if (splits > 1) {
      Conv2dReduceParams r{};
      r.partial = workspace.as<const float*>();
      r.weights = gradients.as<float*>();
      r.bias = gradients.as<float*>() + biasAt;
      r.splitStride = p.splitStride;
      r.weightsCount = int64_t(c.q.weightsSize());
      r.outC = c.q.oc;
      r.splits = splits;
      r.accumulate = accumulate;
      r.vectorOut = !shiftOut;
      r.groups = 1 << mode / 4 % 4;
      int const vectors = ceilDiv(int(c.q.weightsSize()) + c.q.oc, 4);
      x.driver.launch(x.functions.at("conv2d_wgrad_reduce"),
                      unsigned(ceilDiv(vectors, 256 / r.groups)), 256, 0, r);
    }
  });
  std::vector<double> const all = decode(raw, Type::kF32);
  std::vector<double> const weights(all.begin(), all.begin() + long(c.q.weightsSize()));
  std::vector<double> const bias(all.begin() + long(biasAt), all.end());
  check(
      x, c, what + " weights", weights, Type::kF32,
      [&](size_t i) { return c.wgrad.value[i] + (accumulate ? c.oldDiffWeights[i] : 0); },
      [&](size_t i) { return c.wgrad.magnitude[i] + 1; });
  check(
      x, c, what + " bias", bias, Type::kF32,
      [&](size_t i) { return c.diffBias.value[i] + (accumulate ? c.oldDiffBias[i] : 0); },
      [&](size_t i) { return c.diffBias.magnitude[i] + 1; });
}

// Named problems, each for the edge it hits.
std::vector<Problem> namedProblems() {
  return {
      {2, 8, 8, 64, 64, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},  // 1x1, exact tiles
      {1, 9, 9, 32, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},  // 3x3, tail in pixels
      {1, 8, 8, 72, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},  // channels that are no multiple of a stage
      {2, 7, 5, 16, 136, 3, 2, 2, 1, 1, 0, 0, 1, 1,
       1},  // stride, uneven kernel and padding, K tail
      {1, 8, 7, 24, 32, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1},  // 1x1 with stride: phases without taps
      {1, 11, 11, 8, 16, 2, 2, 3, 3, 0, 0, 0, 0, 1, 1},  // stride larger than the kernel
      {1, 13, 12, 8, 24, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2},  // dilation
      {1, 14, 13, 16, 8, 3, 3, 2, 3, 2, 1, 2, 3, 2, 2},  // stride and dilation with a common factor
      {1, 17, 16, 8, 8, 3, 2, 4, 3, 5, 0, 4, 1, 6, 4},  // gcd(4, 6) = 2: every second tap
      {2, 12, 12, 3, 16, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1},  // stem
      {2, 13, 12, 4, 72, 7, 7, 2, 2, 2, 2, 3, 3, 1, 1},  // stem of pixels of 8 bytes
      {1, 9, 8, 4, 8, 3, 2, 1, 2, 1, 0, 2, 1, 2, 3},  // the same, few taps, dilation
      {1, 7, 6, 128, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},  // two units of channels
      {3, 10, 10, 1, 6, 5, 5, 1, 1, 0, 0, 0, 0, 1, 1},  // one channel
      {5, 1, 1, 100, 10, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},  // linear, few outputs
      {70, 1, 1, 48, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},  // linear, one output
      {1, 2, 2, 16, 16, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1},  // kernel larger than the image
      {1, 1, 37, 12, 20, 1, 3, 1, 1, 0, 1, 0, 1, 1, 1},  // one row; channels multiple of 4 only
      {1, 3, 3, 5, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},  // everything odd
      {1, 5, 5, 8, 8, 1, 1, 1, 1, 3, 2, 1, 4, 1, 1},  // 1x1 with padding: outputs of bias alone
      {1, 16, 16, 8, 264, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},  // many output channels, short contraction
      {1, 17, 16, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},  // one row more than a tile of 256 pixels
      {1, 4, 4, 264, 16, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},  // long contraction
      {1, 6, 6, 8, 8, 3, 3, 7, 9, 1, 1, 1, 1, 1, 1},  // stride larger than the image
      {0, 5, 5, 8, 24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},  // empty batch: gradients of zero
  };
}

Problem randomProblem(std::mt19937_64& random) {
  auto const pick = [&](std::initializer_list<int> from) {
    return from.begin()[random() % from.size()];
  };
  for (;;) {
    Problem const q = {pick({1, 1, 2, 3}),
                       pick({1, 2, 5, 7, 9, 12}),
                       pick({1, 3, 4, 7, 8, 11}),
                       pick({1, 2, 3, 4, 8, 8, 12, 16, 20, 24, 32, 64, 96}),
                       pick({1, 3, 4, 8, 8, 10, 16, 24, 32, 40, 64, 72, 160}),
                       pick({1, 1, 2, 3, 3, 5}),
                       pick({1, 1, 2, 3, 3, 4}),
                       pick({1, 1, 1, 2, 3, 4}),
                       pick({1, 1, 1, 2, 3, 5}),
                       pick({0, 1, 1, 2, 4}),
                       pick({0, 1, 1, 2, 3}),
                       pick({0, 1, 1, 2, 3}),
                       pick({0, 1, 1, 2, 4}),
                       pick({1, 1, 1, 2, 3}),
                       pick({1, 1, 1, 2, 4})};
    if (q.valid() && q.multiplyAdds() < 3e6) {
      return q;
    }
  }
}

void loadKernels(Context& x, const std::string& folder) {
  for (const char* const file : {"conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad", "conv2d_pack"}) {
    CUmodule const module = x.driver.load(folder + "/" + file + ".ptx");
    std::string const prefix = std::string(file) + "_";
    for (const Variant& v : kVariants) {
      if (std::string(v.name).compare(0, prefix.size(), prefix) == 0) {
        x.functions[v.name] = x.driver.function(module, v.name, v.sharedBytes);
      }
    }
    if (prefix == "conv2d_wgrad_") {
      x.functions["conv2d_wgrad_reduce"] = x.driver.function(module, "conv2d_wgrad_reduce", 0);
    }
    if (prefix == "conv2d_pack_") {
      for (Type const t : {Type::kBf16, Type::kF16, Type::kTf32, Type::kF32}) {
        std::string const name = prefix + nameOf(t);
        x.functions[name] = x.driver.function(module, name.c_str(), 0);
      }
    }
  }
}

void testCase(Context& x, const Problem& q, Type type, bool exact, uint64_t seed,
              const std::string& only, unsigned& mode) {
  Case const c(q, type, exact, seed);
  size_t const taps = size_t(q.kh) * q.kw;
  Packed packed{Buffer(x.driver, q.oc * taps * paddedChannels(q.ic, type) * bytesOf(type)),
                Buffer(x.driver, q.ic * taps * paddedChannels(q.oc, type) * bytesOf(type))};
  packWeights(x, c, packed);
  for (const Variant& v : kVariants) {
    if (v.type != type || !fits(v, q) || std::string(v.name).find(only) == std::string::npos) {
      continue;
    }
    if (q.n == 0 && v.pass != 'w') {
      continue;  // nothing to launch
    }
    ++mode;
    switch (v.pass) {
      case 'f': testFprop(x, c, v, packed, mode); break;
      case 'd': testDgrad(x, c, v, packed, mode); break;
      default: testWgrad(x, c, v, mode);
    }
  }
}

// A number in the counters of the only launch since they were cleared.
double counter(const std::string& json, const char* name) {
  size_t const at = json.find(std::string("\"") + name + "\":");
  if (at == std::string::npos) {
    fail(std::string("the emulated driver does not count ") + name);
  }
  return std::atof(json.c_str() + json.find(':', at) + 1);
}

// Launches one variant on zeros and compares what was counted with what the tiles imply.
void testTraffic(Context& x, const Problem& q, const Variant& v, bool print) {
  int const bytes = bytesOf(v.type);
  int const perVector = 16 / bytes;
  auto const zeros = [&](size_t size) {
    auto buffer = std::make_unique<Buffer>(x.driver, size);
    buffer->write(std::vector<unsigned char>(size).data());
    return buffer;
  };
  auto const src = zeros(q.srcSize() * bytes);
  auto const dst = zeros(q.dstSize() * bytes);
  auto const bias = zeros(size_t(std::max(q.oc, q.ic)) * 4);
  size_t const taps = size_t(q.kh) * q.kw;
  auto const weights = zeros(taps * roundUp(q.ic, perVector) * roundUp(q.oc, perVector) * 4);
  unsigned blocks;
  double products;
  x.driver.clearCounters();
  if (v.pass == 'w') {
    int splits = 1;
    Conv2dWgradParams p = wgradParams(q, v.blockM, v.blockN, v.blockK, splits, blocks);
    p.src = src->as<const void*>();
    p.diffDst = dst->as<const void*>();
    p.weights = weights->as<float*>();
    p.bias = bias->as<float*>();
    double const pixels = roundUp(p.pixels, v.blockK);
    products = pixels * blocks * v.blockM * v.blockN;
    if (v.type != Type::kF32) {  // the bias is a product with eight columns of ones
      products += pixels * roundUp(q.oc, v.blockM) * 8;
    }
    x.driver.launch(x.functions.at(v.name), blocks, v.threads, v.sharedBytes, p);
  } else {
    bool const dgrad = v.pass == 'd';
    Conv2dParams p = gatherParams(q, dgrad, v.blockM, v.blockN, bytes, blocks);
    p.in = dgrad ? dst->as<const void*>() : src->as<const void*>();
    p.filter = weights->as<const void*>();
    p.out = dgrad ? src->as<void*>() : dst->as<void*>();
    p.bias = dgrad ? nullptr : bias->as<const float*>();
    p.gate = dgrad ? src->as<const void*>() : nullptr;
    int const phases = dgrad ? std::min(q.sh, q.h) * std::min(q.sw, q.w) : 1;
    // Taps are dealt out to the phases; each phase rounds its contraction up to whole stages.
    double const contraction =
        phases == 1 ? roundUp(int(taps) * p.inCPadded, v.blockK) : double(taps) * p.inCPadded;
    products = double(blocks) / phases * v.blockM * v.blockN * contraction;
    x.driver.launch(x.functions.at(v.name), blocks, v.threads, v.sharedBytes, p);
  }
  std::string const json = x.driver.counters();
  double const conflicts =
      counter(json, "sharedLoadBankConflicts") + counter(json, "sharedStoreBankConflicts");
  double const loads =
      counter(json, "globalLoadSectorsMinimum") / counter(json, "globalLoadSectors");
  double const stores =
      counter(json, "globalStoreSectorsMinimum") / counter(json, "globalStoreSectors");
  double const counted =
      counter(json, v.type == Type::kF32 ? "fusedMultiplyAdds" : "tensorMultiplyAdds");
  bool const good = conflicts == 0 && loads >= 0.95 && stores >= 0.95 &&
                    (v.type == Type::kF32 ? counted >= products && counted <= 1.02 * products
                                          : counted == products);
  Tally& tally = x.tallies[v.name];
  ++tally.cases;
  tally.failures += good ? 0 : 1;
  if (good && !print) {
    return;
  }
  std::printf(
      "%-32s %-44s conflicts %.0f, sector efficiency %.3f loads %.3f stores, products %.0f of "
      "%.0f padded (%.0f needed), %.1f MB loaded, %.2f MB stored, %.0f warp instructions%s\n",
      v.name, q.name().c_str(), conflicts, loads, stores, counted, products, q.multiplyAdds(),
      counter(json, "globalLoadBytes") / 1e6, counter(json, "globalStoreBytes") / 1e6,
      counter(json, "total"), good ? "" : "  FAILED");
}

std::vector<double> smallIntegers(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> v(size);
  for (double& x : v) {
    x = static_cast<double>(static_cast<int>(random() % 5) - 2);
  }
  return v;
}

// An activation of more than 2^31 elements, [725, 725, 4096] in bf16, of which a few pixels matter, the
// last of them beyond element 2^31. fprop and wgrad reach its corners by a large stride, dgrad its last
// pixel by a large padding. Takes 4.3 GB of the device (the emulated one only counts it); --large 0
// leaves it out.
void testLarge(Context& x) {
  constexpr int kSide = 725;
  constexpr int kChannels = 4096;
  constexpr int kOther = 8;
  Problem const strided = {1, kSide, kSide, kChannels, kOther, 1, 1, 724, 724, 0, 0, 0, 0, 1, 1};
  Problem const padded = {1, 1, 1, kOther, kChannels, 1, 1, 1, 1, 724, 724, 0, 0, 1, 1};
  Type const type = Type::kBf16;
  std::vector<double> const corners = smallIntegers(4 * kChannels, 1);
  std::vector<double> const weights = smallIntegers(size_t(kOther) * kChannels, 2);
  std::vector<double> const diffDst = smallIntegers(4 * kOther, 3);
  std::vector<unsigned char> const raw = encode(corners, type);
  CUdeviceptr large;
  x.driver.call(&cuMemAlloc, DRIVER_NAME(cuMemAlloc), &large,
                size_t(kSide) * kSide * kChannels * 2);
  for (size_t i = 0; i < 4; ++i) {
    size_t const pixel = i / 2 * 724 * kSide + i % 2 * 724;
    x.driver.call(&cuMemcpyHtoD, DRIVER_NAME(cuMemcpyHtoD), large + pixel * kChannels * 2,
                  static_cast<const void*>(&raw[i * kChannels * 2]), size_t(kChannels) * 2);
  }
  Buffer filter(x.driver, weights.size() * 2);  // [kOther, kChannels], forward and backward alike
  filter.write(encode(weights, type).data());
  Buffer gradient(x.driver, diffDst.size() * 2);
  gradient.write(encode(diffDst, type).data());

  for (const Variant& v : kVariants) {
    if (v.type != type || !fits(v, strided)) {
      continue;
    }
    unsigned blocks;
    std::vector<double> got;
    std::function<double(int)> expected;
    if (v.pass == 'w') {
      Buffer out(x.driver, weights.size() * 4);
      Buffer bias(x.driver, kOther * 4);
      int splits = 1;
      Conv2dWgradParams p = wgradParams(strided, v.blockM, v.blockN, v.blockK, splits, blocks);
      p.src = reinterpret_cast<const void*>(large);
      p.diffDst = gradient.as<const void*>();
      p.weights = out.as<float*>();
      p.bias = bias.as<float*>();
      x.driver.launch(x.functions.at(v.name), blocks, v.threads, v.sharedBytes, p);
      got = decode(out.read(), Type::kF32);
      expected = [&](int i) {
        double sum = 0;
        for (int m = 0; m < 4; ++m) {
          sum +=
              corners[size_t(m) * kChannels + i % kChannels] * diffDst[m * kOther + i / kChannels];
        }
        return sum;
      };
    } else {
      bool const dgrad = v.pass == 'd';
      int const pixels = dgrad ? 1 : 4;
      Buffer out(x.driver, size_t(pixels) * kOther * 2);
      Conv2dParams p = gatherParams(dgrad ? padded : strided, dgrad, v.blockM, v.blockN, 2, blocks);
      p.in = reinterpret_cast<const void*>(large);
      p.filter = filter.as<const void*>();
      p.out = out.as<void*>();
      x.driver.launch(x.functions.at(v.name), blocks, v.threads, v.sharedBytes, p);
      got = decode(out.read(), type);
      expected = [&, dgrad](int i) {
        int const corner = dgrad ? 3 : i / kOther;
        double sum = 0;
        for (int c = 0; c < kChannels; ++c) {
          sum +=
              corners[size_t(corner) * kChannels + c] * weights[size_t(i % kOther) * kChannels + c];
        }
        return toStorage(sum, type);
      };
    }
    Tally& tally = x.tallies[v.name];
    ++tally.cases;
    long bad = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      bad += !(got[i] == expected(int(i)));
    }
    if (bad > 0) {
      std::printf("FAIL %s: %ld of %zu values wrong with offsets past 2^31\n", v.name, bad,
                  got.size());
      ++tally.failures;
    }
  }
  x.driver.call(&cuMemFree, DRIVER_NAME(cuMemFree), large);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fail("usage: conv2d_test DRIVER PTX_DIR [--shapes N] [--seed S] [--only TEXT]");
  }
  int shapes = 12;
  uint64_t seed = 1;
  std::string only;
  bool traffic = false;
  bool large = true;
  for (int i = 3; i + 1 < argc; i += 2) {
    std::string const key = argv[i];
    if (key == "--shapes") {
      shapes = std::atoi(argv[i + 1]);
    } else if (key == "--seed") {
      seed = std::strtoull(argv[i + 1], nullptr, 10);
    } else if (key == "--only") {
      only = argv[i + 1];
    } else if (key == "--large") {
      large = std::atoi(argv[i + 1]) != 0;
    } else if (key == "--traffic") {
      traffic = std::atoi(argv[i + 1]) != 0;
    } else {
      fail("unknown option " + key);
    }
  }
  Driver driver(argv[1]);
  Context x{driver, {}, {}};
  loadKernels(x, argv[2]);

  std::vector<Problem> problems = namedProblems();
  std::mt19937_64 random(seed);
  for (int i = 0; i < shapes; ++i) {
    problems.push_back(randomProblem(random));
  }
  unsigned mode = 0;
  for (size_t i = 0; i < problems.size(); ++i) {
    for (Type const type : {Type::kF32, Type::kBf16, Type::kF16, Type::kTf32}) {
      // Both tiers for each type, alternating over the shapes; named shapes get both.
      for (int tier = 0; tier < 2; ++tier) {
        if (i >= namedProblems().size() && (i + tier) % 2 != 0) {
          continue;
        }
        testCase(x, problems[i], type, tier == 0, seed * 1000003 + i, only, mode);
      }
    }
  }

  if (large) {
    testLarge(x);
  }
  if (driver.emulated()) {
    for (const Problem& q : {Problem{1, 16, 16, 64, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
                             Problem{1, 16, 16, 128, 64, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},
                             Problem{1, 32, 16, 64, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1}}) {
      for (const Variant& v : kVariants) {
        bool const whole =
            wholeChunks(v, v.inChannels) && (v.pass != 'w' || wholeChunks(v, v.srcChannels));
        if (whole && fits(v, q) && std::string(v.name).find(only) != std::string::npos) {
          testTraffic(x, q, v, traffic);
        }
      }
    }
  }

  long cases = 0;
  long values = 0;
  long failures = 0;
  for (const auto& [name, tally] : x.tallies) {
    std::printf("%-40s %5ld cases %9ld values  worst error %4.2f of its bound%s\n", name.c_str(),
                tally.cases, tally.values, tally.worst, tally.failures > 0 ? "  FAILED" : "");
    cases += tally.cases;
    values += tally.values;
    failures += tally.failures;
  }
  std::string const findings = driver.findings();
  std::printf("%s%zu problems, %ld cases, %ld values, %ld failures, %s\n", findings.c_str(),
              problems.size(), cases, values, failures,
              !driver.emulated() ? "on a GPU"
              : findings.empty() ? "no findings of the emulated driver"
                                 : "findings of the emulated driver above");
  return failures == 0 && findings.empty() ? 0 : 1;
}
