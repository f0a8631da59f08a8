#include "counters.h"

#include <cinttypes>
#include <cstdio>

#include "report.h"

namespace emu {

const char* const opClassNames[] = {
    "integer",   "logic",      "compare",   "move",       "convert",     "float32",    "fma32",
    "float64",   "half",       "special",   "loadGlobal", "storeGlobal", "loadShared", "storeShared",
    "loadLocal", "storeLocal", "loadConst", "loadParam",  "atomic",      "asyncCopy",  "loadMatrix",
    "matrix",    "warpSync",   "barrier",   "fence",      "branch",      "other"};
static_assert(sizeof opClassNames / sizeof *opClassNames == (size_t)OpClass::Count);

void Counters::add(const Counters& c) {
  static_assert(sizeof(Counters) % sizeof(uint64_t) == 0);  // nothing but counts
  auto* to = (uint64_t*)this;
  auto* from = (const uint64_t*)&c;
  for (size_t i = 0; i < sizeof(Counters) / sizeof(uint64_t); i++) to[i] += from[i];
}

void FirstLevelCache::start(uint64_t bytes) {
  capacity = bytes / 128;
  uses.clear();
  lines.clear();
}

bool FirstLevelCache::ask(uint64_t sector) {
  if (capacity == 0) return false;
  uint64_t number = sector / 4;
  uint32_t bit = 1u << sector % 4;
  auto found = lines.find(number);
  if (found == lines.end()) {
    if (lines.size() == capacity) {
      lines.erase(uses.back());
      uses.pop_back();
    }
    uses.push_front(number);
    lines.emplace(number, Line{bit, uses.begin()});
    return false;
  }
  Line& line = found->second;
  uses.splice(uses.begin(), uses, line.use);
  bool there = line.sectors & bit;
  line.sectors |= bit;
  return there;
}

std::string LaunchRecord::json() const {
  std::string r = "{\"launch\":" + std::to_string(id) + ",\"kernel\":" + quoted(kernel);
  auto extents = [&](const char* name, const unsigned* e) {
    r += std::string(",\"") + name + "\":[" + std::to_string(e[0]) + "," + std::to_string(e[1]) + "," +
         std::to_string(e[2]) + "]";
  };
  auto put = [&](const char* name, uint64_t v) { r += std::string(",\"") + name + "\":" + std::to_string(v); };
  extents("grid", grid);
  extents("block", block);
  put("error", (uint64_t)error);
  put("staticShared", staticShared);
  put("dynamicShared", dynamicShared);
  put("registersEstimate", (uint64_t)registers);
  put("localBytesPerThread", (uint64_t)localBytes);
  const Counters& c = counters;
  put("globalLoadRequests", c.globalLoadRequests);
  put("globalLoadSectors", c.globalLoadSectors);
  put("globalLoadSectorsMinimum", c.globalLoadSectorsMinimum);
  put("globalLoadBytes", c.globalLoadBytes);
  put("globalLoadSectorsMissed", c.globalLoadSectorsMissed);
  put("globalStoreRequests", c.globalStoreRequests);
  put("globalStoreSectors", c.globalStoreSectors);
  put("globalStoreSectorsMinimum", c.globalStoreSectorsMinimum);
  put("globalStoreBytes", c.globalStoreBytes);
  put("secondLevelBytes", 32 * (c.globalLoadSectorsMissed + c.globalStoreSectors));
  put("globalLoadFootprint", loadFootprint);
  put("globalStoreFootprint", storeFootprint);
  put("sharedLoadWavefronts", c.sharedLoadWavefronts);
  put("sharedLoadBankConflicts", c.sharedLoadConflicts);
  put("sharedStoreWavefronts", c.sharedStoreWavefronts);
  put("sharedStoreBankConflicts", c.sharedStoreConflicts);
  put("sharedLoadBytes", c.sharedLoadBytes);
  put("sharedStoreBytes", c.sharedStoreBytes);
  put("clusterLoadBytes", c.clusterLoadBytes);
  put("clusterStoreBytes", c.clusterStoreBytes);
  put("localLoadBytes", c.localLoadBytes);
  put("localStoreBytes", c.localStoreBytes);
  put("bulkLoads", c.bulkLoads);
  put("bulkLoadBytes", c.bulkLoadBytes);
  put("bulkStores", c.bulkStores);
  put("bulkStoreBytes", c.bulkStoreBytes);
  put("bulkSends", c.bulkSends);
  put("bulkSendBytes", c.bulkSendBytes);
  put("multicastSavedBytes", c.multicastSavedBytes);
  put("tensorMultiplyAdds", c.tensorMultiplyAdds);
  put("warpgroupMultiplyAdds", c.warpgroupMultiplyAdds);
  put("fusedMultiplyAdds", c.fusedMultiplyAdds);
  put("barriers", c.barriers);
  put("atomics", c.atomics);
  for (int pass = 0; pass < 2; pass++) {
    r += pass ? ",\"laneInstructions\":{" : ",\"warpInstructions\":{";
    uint64_t total = 0;
    for (int i = 0; i < (int)OpClass::Count; i++) {
      uint64_t v = pass ? c.lanes[i] : c.instructions[i];
      total += v;
      r += std::string("\"") + opClassNames[i] + "\":" + std::to_string(v) + ",";
    }
    r += "\"total\":" + std::to_string(total) + "}";
  }
  return r + "}";
}

void LaunchLog::add(LaunchRecord r) {
  std::lock_guard lock(mutex);
  all++;
  records.push_back(std::move(r));
  if (records.size() > 4096) records.pop_front();
}
void LaunchLog::clear() {
  std::lock_guard lock(mutex);
  records.clear();
  all = 0;
}
uint64_t LaunchLog::total() {
  std::lock_guard lock(mutex);
  return all;
}
std::string LaunchLog::json() {
  std::lock_guard lock(mutex);
  std::string r = "[";
  for (auto& x : records) r += (r.size() > 1 ? ",\n" : "") + x.json();
  return r + "]";
}
LaunchLog& launchLog() {
  static LaunchLog* log = new LaunchLog;
  return *log;
}

}  // namespace emu
