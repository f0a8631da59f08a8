// A small test harness, and the driver API as the tests use it.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "../emulator/jtrelu_emulator.h"

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);
int cuCtxSynchronize();
int cuModuleLoadData(void**, const void*);
int cuModuleLoadDataEx(void**, const void*, unsigned, int*, void**);
int cuModuleUnload(void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuModuleGetGlobal_v2(uint64_t*, size_t*, void*, const char*);
int cuMemAlloc_v2(uint64_t*, size_t);
int cuMemFree_v2(uint64_t);
int cuMemcpyHtoD_v2(uint64_t, const void*, size_t);
int cuMemcpyDtoH_v2(void*, uint64_t, size_t);
int cuMemsetD8_v2(uint64_t, unsigned char, size_t);
int cuFuncSetAttribute(void*, int, int);
int cuFuncGetAttribute(int*, int, void*);
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
int cuLaunchCooperativeKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                              void**);
}

struct Test {
  const char* name;
  void (*run)();
  static std::vector<Test>& all() {
    static std::vector<Test> tests;
    return tests;
  }
  Test(const char* name, void (*run)()) : name(name), run(run) { all().push_back(*this); }
};
#define TEST(name)                                                                                                     \
  static void name();                                                                                                  \
  static Test test_##name(#name, name);                                                                                \
  static void name()

using Random = std::mt19937;
inline int between(Random& r, int low, int high) { return low + (int)(r() % (unsigned)(high - low + 1)); }

/// One random case against a model: a test runs some, `emulator_tests soak` as many as there is time for.
struct Case {
  const char* name;
  void (*run)(Random&);
  static std::vector<Case>& all() {
    static std::vector<Case> cases;
    return cases;
  }
  Case(const char* name, void (*run)(Random&)) : name(name), run(run) { all().push_back(*this); }
};
#define CASE(name)                                                                                                     \
  static void name(Random&);                                                                                           \
  static Case case_##name(#name, name);                                                                                \
  static void name(Random& random)

struct Failure {
  std::string text;
};
inline long checks = 0;
[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  const char* base = strrchr(file, '/');
  throw Failure{std::string(base ? base + 1 : file) + ":" + std::to_string(line) + ": " + what};
}
#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    checks++;                                                                                                          \
    if (!(condition)) fail(__FILE__, __LINE__, #condition);                                                            \
  } while (0)
#define CHECK_EQUAL(a, b)                                                                                              \
  do {                                                                                                                 \
    checks++;                                                                                                          \
    auto va = (a);                                                                                                     \
    auto vb = (b);                                                                                                     \
    if (!(va == vb))                                                                                                   \
      fail(__FILE__, __LINE__, std::string(#a " is ") + std::to_string(va) + ", expected " + std::to_string(vb));      \
  } while (0)

inline std::string text(size_t (*get)(char*, size_t)) {
  std::string s(get(nullptr, 0) + 1, 0);
  s.resize(get(s.data(), s.size()));
  return s;
}
inline std::string findings() { return text(jtreluEmulatorReportsText); }

/// Device memory with the contents of a vector.
template <class T> struct Buffer {
  uint64_t at = 0;
  size_t n;
  explicit Buffer(size_t n) : n(n) { CHECK_EQUAL(cuMemAlloc_v2(&at, n * sizeof(T)), 0); }
  explicit Buffer(const std::vector<T>& v) : Buffer(v.size()) {
    CHECK_EQUAL(cuMemcpyHtoD_v2(at, v.data(), n * sizeof(T)), 0);
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cuMemFree_v2(at); }
  std::vector<T> get() const {
    std::vector<T> v(n);
    CHECK_EQUAL(cuMemcpyDtoH_v2(v.data(), at, n * sizeof(T)), 0);
    return v;
  }
};

inline const char* const ptxHead = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// A loaded module; kernels are launched with 8-byte or 4-byte arguments.
struct Module {
  void* handle = nullptr;
  explicit Module(const std::string& body) {
    std::string ptx = body.find(".version") == std::string::npos ? ptxHead + body : body;
    int r = cuModuleLoadData(&handle, ptx.c_str());
    if (r) fail(__FILE__, __LINE__, "module does not load: " + findings() + "\n" + ptx);
  }
  Module(const Module&) = delete;
  ~Module() { cuModuleUnload(handle); }
  void* function(const char* name) {
    void* f = nullptr;
    CHECK_EQUAL(cuModuleGetFunction(&f, handle, name), 0);
    return f;
  }
  template <class... A> int launch(const char* name, unsigned grid, unsigned block, unsigned shared, A... arguments) {
    void* pointers[] = {&arguments..., nullptr};
    return cuLaunchKernel(function(name), grid, 1, 1, block, 1, 1, shared, nullptr, pointers, nullptr);
  }
  template <class... A> void run(const char* name, unsigned grid, unsigned block, unsigned shared, A... arguments) {
    int r = launch(name, grid, block, shared, arguments...);
    if (r || jtreluEmulatorErrorCount())
      fail(__FILE__, __LINE__, "launch of " + std::string(name) + " gave " + std::to_string(r) + "\n" + findings());
  }
};
