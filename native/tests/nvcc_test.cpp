// Kernels compiled by nvcc, where there is one: results against the host's own.
#include <cmath>
#include <fstream>
#include <sstream>

#include "harness.h"

extern "C" {
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuMemsetD32Async(uint64_t, unsigned, size_t, void*);
}

namespace {
std::string compiled() {
  std::ifstream in(NVCC_PTX);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}
template <class T> bool near(T a, T b, double tolerance) { return std::fabs(a - b) <= tolerance * (1 + std::fabs(b)); }
}  // namespace

TEST(nvcc_functions) {
  Module m(compiled());
  std::vector<float> x;
  for (int i = 0; i < 1000; i++) x.push_back((float)(i - 500) * 0.037f);
  Buffer<float> in(x), out(x.size() * 16);
  struct {
    uint64_t in, out;
    int n;
    float table[4];
  } a = {in.at, out.at, (int)x.size(), {1, 2, 3, 4}};
  m.run("functions", 8, 128, 0, a);
  auto y = out.get();
  for (size_t i = 0; i < x.size(); i++) {
    float v = x[i], u = std::fabs(v), big = v * 100000;
    double expected[16] = {std::exp(v),   std::log(u),          std::sin(v),        std::cos(v),
                           std::tanh(v),  std::erf(v),          std::pow(u, 1.5),   v / 3.7f,
                           std::sqrt(u),  1 / std::sqrt(u + 1), std::fmod(v, 0.7f), (double)(int)v,
                           std::floor(v), std::log1p(u),        a.table[i & 3] * v, std::sin((double)big)};
    for (int k = 0; k < 16; k++) {
      checks++;
      double got = y[i * 16 + (size_t)k];
      if (std::isinf(expected[k]) ? got == expected[k] : near<double>(got, expected[k], 2e-6)) continue;
      fail(__FILE__, __LINE__,
           "function " + std::to_string(k) + " of " + std::to_string(v) + " is " + std::to_string(got) + ", expected " +
               std::to_string(expected[k]));
    }
  }
}

TEST(nvcc_device_function) {
  Module m(compiled());
  std::vector<double> c = {1, -2, 0.5, 3}, x(32);
  for (int i = 0; i < 32; i++) x[(size_t)i] = i * 0.1;
  Buffer<double> dc(c), dx(x), dy(32);
  m.run("polynomial", 1, 32, 0, dc.at, 4, dx.at, dy.at);
  auto y = dy.get();
  for (size_t i = 0; i < 32; i++) CHECK(near(y[i], 1 + x[i] * (-2 + x[i] * (0.5 + x[i] * 3)), 1e-14));
}

TEST(nvcc_product) {
  Module m(compiled());
  for (int threads : {1, 2})
    for (auto [mm, n, k] : {std::tuple{32, 32, 16}, {45, 70, 100}, {1, 1, 4}, {64, 33, 20}}) {
      jtreluEmulatorSetThreads(threads);
      std::vector<float> a((size_t)(mm * k)), b((size_t)(n * k));
      for (size_t i = 0; i < a.size(); i++) a[i] = (float)((int)(i * 7 % 11) - 5);
      for (size_t i = 0; i < b.size(); i++) b[i] = (float)((int)(i * 5 % 13) - 6);
      Buffer<float> da(a), db(b), dc((size_t)(mm * n));
      uint64_t pa = da.at, pb = db.at, pc = dc.at;
      int pm = mm, pn = n, pk = k;
      void* arguments[] = {&pa, &pb, &pc, &pm, &pn, &pk};
      CHECK_EQUAL(cuLaunchKernel(m.function("product"), (unsigned)(n + 31) / 32, (unsigned)(mm + 31) / 32, 1, 256, 1, 1,
                                 0, nullptr, arguments, nullptr),
                  0);
      CHECK(findings().empty());
      auto c = dc.get();
      for (int i = 0; i < mm; i++)
        for (int j = 0; j < n; j++) {
          float sum = 0;
          for (int x = 0; x < k; x++) sum += a[(size_t)(i * k + x)] * b[(size_t)(j * k + x)];
          CHECK(c[(size_t)(i * n + j)] == sum);
        }
    }
}

TEST(nvcc_halves_and_sums) {
  Module m(compiled());
  std::vector<float> x(64);
  for (size_t i = 0; i < 64; i++) x[i] = (float)i * 0.25f - 8;
  Buffer<float> dx(x), dy(128);
  m.run("halves", 1, 32, 0, dx.at, dy.at, 64);
  auto y = dy.get();
  for (size_t i = 0; i < 32; i++)
    for (size_t k = 0; k < 2; k++) {
      float v = x[2 * i + k] * x[2 * i + k] + 1;
      CHECK(near(y[4 * i + k], v, 0x1p-11));
      CHECK(near(y[4 * i + 2 + k], v, 0x1p-7));
    }
  std::vector<float> ones(10000, 1.f);
  Buffer<float> in(ones), sums(5);
  m.run("blockSum", 5, 256, 0, in.at, sums.at, 10000);
  float total = 0;
  for (float s : sums.get()) total += s;
  CHECK(total == 10000);
}

TEST(nvcc_source_lines) {
  Module m(compiled());
  Buffer<float> x(16);
  CHECK_EQUAL(m.launch("outOfBounds", 1, 32, 0, x.at, 16), 700);
  std::string f = findings();
  checks++;
  if (f.find("nvcc_kernels.cu:93") == std::string::npos || f.find("thread (16,0,0)") == std::string::npos)
    fail(__FILE__, __LINE__, f);
  // A race between streams names the line as well.
  jtreluEmulatorClear();
  void* s;
  CHECK_EQUAL(cuStreamCreate(&s, 1), 0);
  CHECK_EQUAL(cuMemsetD32Async(x.at, 0, 16, s), 0);
  CHECK_EQUAL(m.launch("outOfBounds", 1, 16, 0, x.at, 15), 0);
  f = findings();
  checks++;
  if (f.find("stream_race in outOfBounds, PTX line") == std::string::npos ||
      f.find("nvcc_kernels.cu:93") == std::string::npos ||
      f.find("cuMemsetD32Async of 16 elements") == std::string::npos)
    fail(__FILE__, __LINE__, f);
  CHECK_EQUAL(cuStreamDestroy_v2(s), 0);
}
