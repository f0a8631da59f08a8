// The interface of jtrelu_emulator.h.
#include <algorithm>

#include "driver.h"

#pragma GCC visibility push(default)
#include "jtrelu_emulator.h"
#pragma GCC visibility pop

using namespace emu;

namespace {
size_t copyText(const std::string& s, char* buffer, size_t capacity) {
  if (buffer && capacity) {
    size_t n = std::min(s.size(), capacity - 1);
    memcpy(buffer, s.data(), n);
    buffer[n] = 0;
  }
  return s.size();
}
template <class F> void set(F f) {
  std::lock_guard lock(driver().mutex);
  f(driver());
}
}  // namespace

extern "C" {
int jtreluEmulatorVersion(void) { return 1; }
void jtreluEmulatorClear(void) {
  set([](Driver& d) {
    reports().clear();
    launchLog().clear();
    d.settings.failAllocation = d.settings.failLaunch = 0;
    d.settings.deviceLost = 0;
    d.primary.error = 0;
    for (auto* c : d.contexts) c->error = 0;
  });
}
uint64_t jtreluEmulatorErrorCount(void) { return reports().errors(); }
uint64_t jtreluEmulatorWarningCount(void) { return reports().warnings(); }
void jtreluEmulatorReportsClear(void) { reports().clear(); }
size_t jtreluEmulatorReportsText(char* buffer, size_t capacity) { return copyText(reports().text(), buffer, capacity); }
size_t jtreluEmulatorReportsJson(char* buffer, size_t capacity) { return copyText(reports().json(), buffer, capacity); }
size_t jtreluEmulatorCountersJson(char* buffer, size_t capacity) {
  return copyText(launchLog().json(), buffer, capacity);
}
void jtreluEmulatorCountersClear(void) {
  launchLog().clear();
  set([](Driver& d) { d.calls.clear(); });
}
size_t jtreluEmulatorCallsJson(char* buffer, size_t capacity) {
  std::string text = "{";
  set([&](Driver& d) {
    for (auto& [name, count] : d.calls)
      text += (text.size() > 1 ? ", \"" : "\"") + name + "\": " + std::to_string(count);
  });
  return copyText(text + "}", buffer, capacity);
}
uint64_t jtreluEmulatorLaunchCount(void) { return launchLog().total(); }
void jtreluEmulatorSetSeed(uint64_t seed) {
  set([=](Driver& d) { d.settings.seed = seed; });
}
void jtreluEmulatorSetDelay(uint64_t delay) {
  set([=](Driver& d) {
    if (!delay) finishAll(d);
    d.settings.delay = delay;
    d.delayState = delay * 0x9e3779b97f4a7c15ull | 1;
  });
}
void jtreluEmulatorSetThreads(int threads) {
  set([=](Driver& d) { d.settings.threads = threads; });
}
void jtreluEmulatorSetStrict(int strict) {
  set([=](Driver& d) { d.settings.strict = strict; });
}
void jtreluEmulatorSetProtect(int protect) {
  set([=](Driver& d) { d.settings.protect = protect; });
}
void jtreluEmulatorSetComputeCapability(int major, int minor) {
  set([=](Driver& d) { d.settings.major = major, d.settings.minor = minor; });
}
void jtreluEmulatorSetDriverVersion(int version) {
  set([=](Driver& d) { d.settings.driverVersion = version; });
}
void jtreluEmulatorSetMultiprocessors(int count) {
  set([=](Driver& d) { d.settings.multiprocessors = std::max(1, count); });
}
void jtreluEmulatorSetFootprint(int on) {
  set([=](Driver& d) { d.settings.footprint = on; });
}
void jtreluEmulatorSetFirstLevelCache(uint64_t bytes) {
  set([=](Driver& d) { d.settings.firstLevelCache = bytes; });
}
void jtreluEmulatorSetMemory(uint64_t bytes) {
  set([=](Driver&) { memory().limit = bytes; });
}
void jtreluEmulatorSetInstructionLimit(uint64_t n) {
  set([=](Driver& d) { d.settings.instructionLimit = n; });
}
void jtreluEmulatorFailAllocation(int64_t n) {
  set([=](Driver& d) { d.settings.failAllocation = n; });
}
void jtreluEmulatorFailLaunch(int64_t n, int code) {
  set([=](Driver& d) { d.settings.failLaunch = n, d.settings.failLaunchCode = code; });
}
void jtreluEmulatorLoseDevice(int code) {
  set([=](Driver& d) {
    d.settings.deviceLost = code;
    if (code) hostGuard().clear();
  });
}
uint64_t jtreluEmulatorLiveAllocations(void) { return memory().liveCount(); }
uint64_t jtreluEmulatorUsedBytes(void) { return memory().used(); }
void jtreluEmulatorMarkUninitialised(uint64_t address, uint64_t bytes) {
  set([=](Driver&) {
    if (Allocation* a = memory().find(address)) {
      a->initialised = false;
      memory().markUnwritten(address, std::min(bytes, a->end() - address));
    }
  });
}
}
