// The few driver calls the tests need, taken from whichever libcuda.so.1 is named: a GPU's or the
// emulated one. Every failure ends the program with the call's name.
#pragma once

#include <cuda.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#define DRIVER_NAME_(name) #name
#define DRIVER_NAME(name) DRIVER_NAME_(name)

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "error: %s\n", what.c_str());
  std::exit(2);
}

class Driver {
 public:
  explicit Driver(const char* path) : library(dlopen(path, RTLD_NOW)) {
    if (library == nullptr) {
      fail(std::string("cannot open ") + path + ": " + dlerror());
    }
    if (emulated()) {
      reinterpret_cast<void (*)(uint64_t)>(symbol("jtreluEmulatorSetMemory"))(uint64_t{6} << 30);
    }
    CUdevice device;
    call(&cuInit, DRIVER_NAME(cuInit), 0u);
    call(&cuDeviceGet, DRIVER_NAME(cuDeviceGet), &device, 0);
    call(&cuDevicePrimaryCtxRetain, DRIVER_NAME(cuDevicePrimaryCtxRetain), &context, device);
    call(&cuCtxSetCurrent, DRIVER_NAME(cuCtxSetCurrent), context);
  }

  // Calls the driver's function of this name; the first argument only lends its type.
  template <class Function, class... Arguments>
  void call(Function* type, const char* name, Arguments... arguments) {
    (void)type;
    auto* const function = reinterpret_cast<Function*>(symbol(name));
    CUresult const result = function(arguments...);
    if (result != CUDA_SUCCESS) {
      fail(std::string(name) + " returned " + std::to_string(result) + "\n" + findings());
    }
  }

  void* find(const char* name) { return dlsym(library, name); }

  CUmodule load(const std::string& path) {
    FILE* const file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) {
      fail("cannot open " + path);
    }
    std::vector<char> image;
    char buffer[65536];
    for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), file)) > 0;) {
      image.insert(image.end(), buffer, buffer + n);
    }
    std::fclose(file);
    image.push_back('\0');
    CUmodule module;
    call(&cuModuleLoadData, DRIVER_NAME(cuModuleLoadData), &module,
         static_cast<const void*>(image.data()));
    return module;
  }

  CUfunction function(CUmodule module, const char* name, int sharedBytes) {
    CUfunction function;
    call(&cuModuleGetFunction, DRIVER_NAME(cuModuleGetFunction), &function, module, name);
    if (sharedBytes > 48 * 1024) {
      call(&cuFuncSetAttribute, DRIVER_NAME(cuFuncSetAttribute), function,
           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, sharedBytes);
    }
    return function;
  }

  template <class Params>
  void launch(CUfunction function, unsigned blocks, unsigned threads, unsigned sharedBytes,
              Params params) {
    void* arguments[] = {&params};
    call(&cuLaunchKernel, DRIVER_NAME(cuLaunchKernel), function, blocks, 1u, 1u, threads, 1u, 1u,
         sharedBytes, CUstream{nullptr}, static_cast<void**>(arguments),
         static_cast<void**>(nullptr));
    call(&cuCtxSynchronize, DRIVER_NAME(cuCtxSynchronize));
  }

  // What the emulated driver's checkers found since the last call; nothing on a GPU.
  std::string findings() {
    std::string const found = emulatorText("jtreluEmulatorReportsText");
    if (emulated()) {
      reinterpret_cast<void (*)()>(symbol("jtreluEmulatorReportsClear"))();
    }
    return found;
  }

  bool emulated() { return find("jtreluEmulatorVersion") != nullptr; }

  // What the emulated driver counted, launch by launch, as JSON.
  std::string counters() { return emulatorText("jtreluEmulatorCountersJson"); }
  void clearCounters() {
    if (emulated()) {
      reinterpret_cast<void (*)()>(symbol("jtreluEmulatorCountersClear"))();
    }
  }

 private:
  void* symbol(const char* name) {
    void* const found = find(name);
    if (found == nullptr) {
      fail(std::string("the driver has no ") + name);
    }
    return found;
  }

  std::string emulatorText(const char* name) {
    if (!emulated()) {
      return "";
    }
    auto* const copy = reinterpret_cast<size_t (*)(char*, size_t)>(symbol(name));
    std::string text(copy(nullptr, 0) + 1, '\0');
    copy(text.data(), text.size());
    text.pop_back();
    return text;
  }

  void* library;
  CUcontext context = nullptr;
};

// Device memory between two guard zones of a known pattern, starting `lead` bytes past an aligned
// address. Fresh memory is poisoned with bytes 0xff, which is NaN in every floating-point type.
class Buffer {
 public:
  Buffer(Driver& owner, size_t size, size_t lead = 0)
      : driver(owner), bytes(size), start(kGuard + lead) {
    driver.call(&cuMemAlloc, DRIVER_NAME(cuMemAlloc), &base, start + bytes + kGuard);
    driver.call(&cuMemsetD8, DRIVER_NAME(cuMemsetD8), base, static_cast<unsigned char>(0xa5),
                start + bytes + kGuard);
    poison();
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { driver.call(&cuMemFree, DRIVER_NAME(cuMemFree), base); }

  void poison() {
    if (bytes > 0) {
      driver.call(&cuMemsetD8, DRIVER_NAME(cuMemsetD8), base + start,
                  static_cast<unsigned char>(0xff), bytes);
    }
  }
  void write(const void* from) {
    if (bytes > 0) {
      driver.call(&cuMemcpyHtoD, DRIVER_NAME(cuMemcpyHtoD), base + start, from, bytes);
    }
  }
  std::vector<unsigned char> read() {
    std::vector<unsigned char> all(start + bytes + kGuard);
    driver.call(&cuMemcpyDtoH, DRIVER_NAME(cuMemcpyDtoH), static_cast<void*>(all.data()), base,
                all.size());
    auto const guarded = [](unsigned char byte) { return byte == 0xa5; };
    auto const first = all.begin() + static_cast<long>(start);
    auto const last = first + static_cast<long>(bytes);
    if (!std::all_of(all.begin(), first, guarded) || !std::all_of(last, all.end(), guarded)) {
      fail("a guard zone was overwritten");
    }
    return {first, last};
  }
  template <class Pointer>
  Pointer as() const {
    return reinterpret_cast<Pointer>(base + start);
  }

 private:
  static constexpr size_t kGuard = 256;
  Driver& driver;
  CUdeviceptr base = 0;
  size_t bytes;
  size_t start;
};
