// Modules and launches.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "driver.h"

namespace emu {

Driver::Driver() {
  auto number = [](const char* name, uint64_t otherwise) {
    const char* v = getenv(name);
    return v && *v ? strtoull(v, nullptr, 10) : otherwise;
  };
  settings.threads = (int)number("JTRELU_EMULATOR_THREADS", 0);
  settings.seed = number("JTRELU_EMULATOR_SEED", 0);
  settings.delay = number("JTRELU_EMULATOR_DELAY", 0);
  delayState = settings.delay * 0x9e3779b97f4a7c15ull | 1;
  settings.strict = number("JTRELU_EMULATOR_STRICT", 1);
  settings.protect = number("JTRELU_EMULATOR_PROTECT", 1);
  primary.primary = true;
  defaultStream.lane = order.lane(VectorClock{});
}
Driver& driver() {
  static Driver* d = new Driver;
  return *d;
}
std::vector<Context*>& contextStack() {
  static thread_local std::vector<Context*> stack;
  return stack;
}
StreamObject* Driver::stream(void* handle) {
  if ((uintptr_t)handle <= 2) return &defaultStream;  // null, legacy, per thread
  auto* s = (StreamObject*)handle;
  return streams.count(s) ? s : nullptr;
}
size_t Driver::sharedOptIn() const {
  int cc = settings.major * 10 + settings.minor;
  return cc >= 120 ? 99 * 1024 : cc >= 90 ? 227 * 1024 : cc == 86 || cc == 89 ? 99 * 1024 : 163 * 1024;
}
size_t Driver::sharedPerMultiprocessor() const { return sharedOptIn() + 1024; }

CUresult refuse(CUresult code, const char* kind, const std::string& kernel, const std::string& message) {
  Finding f;
  f.kind = kind;
  f.kernel = kernel;
  f.message = message;
  reports().add(std::move(f));
  return code;
}

namespace {

/// The text of a fatbin's best PTX for the device: the newest that it can run.
CUresult ptxOfFatbin(const uint8_t* image, int cc, std::string& ptx, std::string& log) {
  struct Header {
    uint32_t magic;
    uint16_t version, headerSize;
    uint64_t size;
  };
  struct Entry {
    uint16_t kind, version;
    uint32_t headerSize;
    uint64_t size;  // with padding
    uint32_t compressedSize, optionsOffset;
    uint16_t minor, major;
    uint32_t architecture, nameOffset, nameSize;
    uint64_t flags, zero, uncompressedSize;
  };
  Header h;
  memcpy(&h, image, sizeof h);
  const uint8_t *at = image + h.headerSize, *end = at + h.size;
  uint32_t best = 0;
  bool compressed = false, any = false;
  while (at + sizeof(Entry) <= end) {
    Entry e;
    memcpy(&e, at, sizeof e);
    if (e.headerSize < sizeof(Entry) || at + e.headerSize + e.size > end) break;
    if (e.kind == 1) {
      any = true;
      constexpr uint64_t lz4 = 0x2000, zstd = 0x8000;
      if (e.flags & (lz4 | zstd)) {
        compressed = true;
      } else if (e.architecture <= (uint32_t)cc && e.architecture >= best) {
        std::string text((const char*)at + e.headerSize, e.size);
        text.resize(strlen(text.c_str()));
        // What is written for one architecture's own features (sm_90a) comes before the same for all, and runs on no other.
        const std::string target = ".target sm_" + std::to_string(e.architecture);
        bool own = text.find(target + "a") != std::string::npos;
        if ((own && e.architecture == (uint32_t)cc) || (!own && e.architecture > best)) {
          best = e.architecture;
          ptx = text;
        }
      }
    }
    at += e.headerSize + e.size;
  }
  if (!ptx.empty()) return CUDA_SUCCESS;
  log = compressed ? "the fatbin's PTX is compressed; build it with nvcc --no-compress"
        : any      ? "the fatbin has no PTX for this compute capability"
                   : "the fatbin has no PTX, and this device runs nothing else";
  return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

void initialise(const Variable& v, uint64_t at, const ModuleSymbols& symbols) {
  int size = sizeOf(v.type);
  for (size_t i = 0; i < v.values.size() && (int64_t)((i + 1) * (size_t)size) <= v.bytes(); i++) {
    const auto& x = v.values[i];
    uint64_t bits = x.value;
    if (!x.symbol.empty()) {
      auto it = symbols.places.find(x.symbol);
      if (it == symbols.places.end())
        throw PtxError(v.line, "initialiser names " + x.symbol + ", which is no variable of the module");
      bits = it->second.address + (uint64_t)x.offset;
    } else if (x.floating && size == 8 && x.single) {
      float f;
      memcpy(&f, &bits, 4);
      double e = f;
      memcpy(&bits, &e, 8);
    } else if (x.floating && size == 4 && !x.single) {
      double e;
      memcpy(&e, &bits, 8);
      float f = (float)e;
      bits = 0;
      memcpy(&bits, &f, 4);
    } else if (!x.floating && v.type == Type::F32 && x.value) {
      float f = (float)(int64_t)x.value;
      bits = 0;
      memcpy(&bits, &f, 4);
    }
    memcpy((void*)(at + i * (size_t)size), &bits, (size_t)size);
  }
}

/// The kernels of a text by name, for modules without variables of their own: these are the same wherever the text is
/// loaded, and so lowered once in a process, which may open the device again and again.
using Kernels = std::map<std::string, std::shared_ptr<const Program>>;
struct Compiled {
  std::string target;
  Kernels kernels;
};

std::unordered_map<std::string, Compiled>& compiled() {
  static auto* all = new std::unordered_map<std::string, Compiled>;
  return *all;
}

constexpr size_t mostCompiled = 64;  // texts; the kernels of this project are fewer

}  // namespace

CUresult loadModule(const void* image, size_t, ModuleObject** out, std::string& log) {
  Driver& d = driver();
  int cc = d.settings.major * 10 + d.settings.minor;
  std::string ptx;
  uint32_t magic;
  memcpy(&magic, image, 4);
  if (magic == 0x466243b1) {  // wrapper that nvcc links into programs: magic, version, pointer
    memcpy(&image, (const char*)image + 8, 8);
    memcpy(&magic, image, 4);
  }
  if (magic == 0xba55ed50) {
    if (CUresult r = ptxOfFatbin((const uint8_t*)image, cc, ptx, log)) return refuse(r, "module", "", log);
  } else if (magic == 0x464c457f) {
    log = "the image is a cubin; this device runs PTX only";
    return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "module", "", log);
  } else {
    ptx = (const char*)image;
  }
  auto m = std::make_unique<ModuleObject>();
  try {
    auto known = compiled().find(ptx);
    Compiled fresh;
    ModuleAst ast;
    if (known == compiled().end()) {
      ast = parsePtx(ptx);
      fresh.target = ast.target;
    }
    Compiled& code = known == compiled().end() ? fresh : known->second;
    if (code.target.rfind("sm_", 0) != 0) throw PtxError(0, "no .target");
    int target = atoi(code.target.c_str() + 3);
    if (target > cc || (code.target.back() == 'a' && target != cc)) {
      log = "the PTX is for " + code.target + ", but the device has compute capability " +
            std::to_string(d.settings.major) + "." + std::to_string(d.settings.minor);
      return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "module", "", log);
    }
    ModuleSymbols symbols;
    for (auto& v : ast.variables) {
      if (v.space != "global" && v.space != "const") continue;
      if (v.isExtern) throw PtxError(v.line, "external variable " + v.name + ": modules are not linked");
      uint64_t bytes = (uint64_t)std::max<int64_t>(v.bytes(), 1);
      uint64_t at = memory().allocate(bytes, v.space == "const" ? Allocation::Constant : Allocation::Variable);
      if (!at) return CUDA_ERROR_OUT_OF_MEMORY;
      memory().markWritten(at, bytes);
      symbols.places[v.name] = {v.space, at, (int64_t)bytes, &v};
      m->globals[v.name] = {at, bytes};
    }
    for (auto& v : ast.variables)
      if (auto it = symbols.places.find(v.name); it != symbols.places.end()) initialise(v, it->second.address, symbols);
    for (auto& f : ast.functions)
      if (f->isEntry && f->hasBody) fresh.kernels[f->name] = lower(ast, symbols, *f);
    for (auto& [name, program] : code.kernels) {
      auto fo = std::make_unique<FunctionObject>();
      fo->program = program;
      fo->module = m.get();
      fo->maxDynamicShared = program->staticShared >= 48 * 1024 ? 0 : 48 * 1024 - (uint32_t)program->staticShared;
      d.functions.insert(fo.get());
      m->functions[name] = std::move(fo);
    }
    if (known == compiled().end() && m->globals.empty()) {
      if (compiled().size() == mostCompiled) compiled().clear();
      compiled().emplace(ptx, std::move(fresh));
    }
  } catch (const PtxError& e) {
    for (auto& [name, g] : m->globals) memory().release(g.first);
    for (auto& [name, f] : m->functions) d.functions.erase(f.get());
    log = e.what();
    Finding f;
    f.kind = "unsupported_ptx";
    f.line = e.line;
    f.message = log;
    reports().add(std::move(f));
    return CUDA_ERROR_INVALID_PTX;
  }
  d.modules.insert(m.get());
  *out = m.release();
  return CUDA_SUCCESS;
}

int occupancy(const FunctionObject& f, int threads, size_t dynamicShared) {
  Driver& d = driver();
  if (threads <= 0 || threads > 1024) return 0;
  int warps = (threads + 31) / 32, cc = d.settings.major * 10 + d.settings.minor;
  int most = cc == 86 || cc == 89 || cc >= 120 ? 48 : 64;
  int blocks = std::min(32, most / warps);
  size_t shared = ((size_t)f.program->staticShared + dynamicShared + 1024 + 127) / 128 * 128;
  if (shared > d.sharedPerMultiprocessor()) return 0;
  blocks = std::min<int>(blocks, (int)(d.sharedPerMultiprocessor() / shared));
  return std::min(blocks, 65536 / (f.program->registers() * warps * 32));
}

CUresult prepareLaunch(FunctionObject* f, const unsigned* grid, const unsigned* block, unsigned shared, void** params,
                       void** extra, KernelWork& out) {
  Driver& d = driver();
  if (!d.functions.count(f))
    return refuse(CUDA_ERROR_INVALID_HANDLE, "bad_handle", "", "launch of a function that does not exist (any more)");
  const Program& p = *f->program;
  auto limit = [&](const std::string& what, CUresult code = CUDA_ERROR_INVALID_VALUE) {
    return refuse(code, "launch_limit", p.name, what);
  };
  static const unsigned mostGrid[] = {2147483647u, 65535u, 65535u}, mostBlock[] = {1024u, 1024u, 64u};
  static const char axis[] = "xyz";
  uint64_t threads = 1;
  for (int i = 0; i < 3; i++) {
    if (grid[i] == 0 || grid[i] > mostGrid[i])
      return limit(std::string("grid ") + axis[i] + " = " + std::to_string(grid[i]) + " is not in 1.." +
                   std::to_string(mostGrid[i]));
    if (block[i] == 0 || block[i] > mostBlock[i])
      return limit(std::string("block ") + axis[i] + " = " + std::to_string(block[i]) + " is not in 1.." +
                   std::to_string(mostBlock[i]));
    threads *= block[i];
    if (p.requiredThreads[0] && (unsigned)p.requiredThreads[i] != block[i])
      return limit(std::string("the kernel requires block ") + axis[i] + " = " + std::to_string(p.requiredThreads[i]));
  }
  if (threads > 1024) return limit(std::to_string(threads) + " threads in a block, 1024 are allowed");
  if (p.maxThreads[0]) {
    uint64_t most = (uint64_t)p.maxThreads[0] * (uint64_t)p.maxThreads[1] * (uint64_t)p.maxThreads[2];
    if (threads > most)
      return limit(std::to_string(threads) + " threads in a block, the kernel was compiled for at most " +
                   std::to_string(most));
  }
  if (shared > f->maxDynamicShared)
    return limit(std::to_string(shared) + " bytes of dynamic shared memory, the function's maximum is " +
                 std::to_string(f->maxDynamicShared) + " (set CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)");
  if ((size_t)p.staticShared + shared > d.sharedOptIn())
    return limit(std::to_string(p.staticShared) + " + " + std::to_string(shared) +
                 " bytes of shared memory, the device has " + std::to_string(d.sharedOptIn()) + " for a block");
  if (p.maxRegisters && (uint64_t)p.maxRegisters * threads > 65536)
    return limit(
        "registers: " + std::to_string(p.maxRegisters) + " times " + std::to_string(threads) + " threads exceed 65536",
        CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  if (CUresult r = placeClusters(*f, grid, out)) return r;
  const unsigned together = out.cluster[0] * out.cluster[1] * out.cluster[2];
  if (together > 1 && together > (unsigned)(occupancy(*f, (int)threads, shared) * d.settings.multiprocessors))
    return limit("a cluster of " + std::to_string(together) + " blocks does not fit on the device at once",
                 CUDA_ERROR_INVALID_CLUSTER_SIZE);
  out.function = f;
  std::copy(grid, grid + 3, out.grid);
  std::copy(block, block + 3, out.block);
  out.shared = shared;
  out.parameters.assign((size_t)p.parameterBytes, 0);
  if (params && extra)
    return refuse(CUDA_ERROR_INVALID_VALUE, "parameters", p.name, "both kernelParams and extra are given");
  if (extra) {
    void* buffer = nullptr;
    size_t size = 0;
    bool hasSize = false;
    for (int i = 0; (uintptr_t)extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
      if ((uintptr_t)extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = extra[i + 1];
      else if ((uintptr_t)extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *(size_t*)extra[i + 1], hasSize = true;
      else return refuse(CUDA_ERROR_INVALID_VALUE, "parameters", p.name, "unknown entry in extra");
    }
    size_t most = (size_t)p.parameterBytes;
    for (auto& q : p.parameters)
      most = std::max(most,
                      ((size_t)p.parameterBytes + (size_t)q.alignment - 1) / (size_t)q.alignment * (size_t)q.alignment);
    if (!buffer || !hasSize || size < (size_t)p.parameterBytes || size > most)
      return refuse(CUDA_ERROR_INVALID_VALUE, "parameters", p.name,
                    "the parameter buffer has " + std::to_string(size) + " bytes, the kernel takes " +
                        std::to_string(p.parameterBytes));
    memcpy(out.parameters.data(), buffer, (size_t)p.parameterBytes);
  } else if (!p.parameters.empty()) {
    if (!params)
      return refuse(CUDA_ERROR_INVALID_VALUE, "parameters", p.name,
                    "no parameters are given, the kernel takes " + std::to_string(p.parameters.size()));
    for (size_t i = 0; i < p.parameters.size(); i++) {
      if (!params[i])
        return refuse(CUDA_ERROR_INVALID_VALUE, "parameters", p.name,
                      "parameter " + std::to_string(i) + " of " + std::to_string(p.parameters.size()) + " is null");
      memcpy(out.parameters.data() + p.parameters[i].offset, params[i], (size_t)p.parameters[i].size);
    }
  }
  return CUDA_SUCCESS;
}

CUresult runKernel(const KernelWork& k, const Order& order) {
  Driver& d = driver();
  if (!d.functions.count(k.function))
    return refuse(CUDA_ERROR_INVALID_HANDLE, "bad_handle", "", "launch of a function whose module was unloaded");
  if (d.settings.failLaunch && --d.settings.failLaunch == 0) {
    if (!contextStack().empty()) contextStack().back()->error = d.settings.failLaunchCode;
    return d.settings.failLaunchCode;
  }
  Launch l;
  l.program = k.function->program.get();
  std::copy(k.grid, k.grid + 3, l.grid);
  std::copy(k.block, k.block + 3, l.block);
  l.dynamicShared = k.shared;
  l.sharedBytes = (uint32_t)l.program->staticShared + k.shared;
  l.parameters = k.parameters;
  l.seed = d.settings.seed;
  l.threads = d.settings.threads > 0 ? d.settings.threads : std::max(1, (int)std::thread::hardware_concurrency());
  l.strict = d.settings.strict;
  l.instructionLimit = d.settings.instructionLimit;
  l.computeCapability = d.settings.major * 10 + d.settings.minor;
  l.firstLevelCache = d.settings.firstLevelCache;
  l.cooperative = k.cooperative;
  std::copy(k.cluster, k.cluster + 3, l.cluster);
  l.explicitCluster = k.explicitCluster;
  l.id = d.nextId++;
  memory().refreshInitialised();
  l.allocations = memory().snapshot();
  l.firstSerial = d.order.begin(order, l.program->name, l.blocks(), l.grid);
  for (bool awaited : {false, true}) l.firstUnordered[awaited] = d.order.ordered(awaited);
  l.order = &d.order;
  int error = l.run();
  d.order.end(order, l.awaitedFirst, l.awaited);
  LaunchRecord r;
  r.id = l.id;
  r.kernel = l.program->name;
  std::copy(l.grid, l.grid + 3, r.grid);
  std::copy(l.block, l.block + 3, r.block);
  r.staticShared = (uint32_t)l.program->staticShared;
  r.dynamicShared = k.shared;
  r.registers = l.program->estimatedRegisters;
  r.localBytes = l.program->localBytes;
  r.error = error;
  r.counters = l.counters;
  if (d.settings.footprint) memory().footprint(l.firstSerial, &r.loadFootprint, &r.storeFootprint);
  launchLog().add(std::move(r));
  if (error && !contextStack().empty()) contextStack().back()->error = error;
  return error;
}

CUresult runNode(Node& n, const Order& order) {
  HostGuard::DeviceAtWork atWork;
  if (n.kind == Node::Kernel) return runKernel(n.kernel, order);
  if (!n.work) return CUDA_SUCCESS;
  driver().order.begin(order, n.what, 1);
  return n.work();
}

CUresult enqueue(void* handle, Node&& node) {
  Driver& d = driver();
  StreamObject* s = d.stream(handle);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (s == &d.defaultStream && d.capturesGlobal) {  // the legacy stream would wait for the capturing ones
    for (auto* t : d.streams)
      if (t->capture && !(t->flags & 1)) {
        t->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
      }
  }
  if (!s->capture) return submit(d, *s, std::move(node));
  if (s->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  auto n = std::make_unique<Node>(std::move(node));
  n->graph = s->capture;
  n->dependencies = s->tail;
  s->tail = {n.get()};
  d.nodes.insert(n.get());
  s->capture->nodes.push_back(std::move(n));
  return CUDA_SUCCESS;
}

}  // namespace emu

using namespace emu;

CUDA_EXPORT CUresult cuModuleLoadDataEx(void** module, const void* image, unsigned count, int* options, void** values) {
  ENTER_CONTEXT();
  if (!module || !image) return CUDA_ERROR_INVALID_VALUE;
  std::string log;
  ModuleObject* m = nullptr;
  CUresult r = loadModule(image, 0, &m, log);
  *module = m;
  char* buffers[2] = {nullptr, nullptr};
  unsigned sizes[2] = {0, 0};
  for (unsigned i = 0; i < count; i++) {  // 3, 4: information log and its size; 5, 6: error log and its size
    if (options[i] == 3 || options[i] == 5) buffers[options[i] == 5] = (char*)values[i];
    if (options[i] == 4 || options[i] == 6) sizes[options[i] == 6] = (unsigned)(uintptr_t)values[i];
  }
  for (int k = 0; k < 2; k++)
    if (buffers[k] && sizes[k]) snprintf(buffers[k], sizes[k], "%s", k ? log.c_str() : "");
  for (unsigned i = 0; i < count; i++)
    if (options[i] == 4 || options[i] == 6)
      values[i] = (void*)(uintptr_t)(options[i] == 6 ? std::min<size_t>(sizes[1], log.size() + 1) : 1);
  return r;
}
CUDA_EXPORT CUresult cuModuleLoadData(void** module, const void* image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
CUDA_EXPORT CUresult cuModuleLoadFatBinary(void** module, const void* image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
CUDA_EXPORT CUresult cuModuleLoad(void** module, const char* file) {
  if (!file) return CUDA_ERROR_INVALID_VALUE;
  std::ifstream in(file, std::ios::binary);
  if (!in) return CUDA_ERROR_FILE_NOT_FOUND;
  std::stringstream s;
  s << in.rdbuf();
  std::string image = s.str();
  image.push_back(0);
  return cuModuleLoadDataEx(module, image.data(), 0, nullptr, nullptr);
}
CUDA_EXPORT CUresult cuModuleUnload(void* module) {
  ENTER_CONTEXT();
  if (CUresult r = awaitAll(d)) return r;
  auto* m = (ModuleObject*)module;
  if (!d.modules.erase(m)) return CUDA_ERROR_INVALID_HANDLE;
  for (auto& [name, f] : m->functions) d.functions.erase(f.get());
  for (auto& [name, g] : m->globals) memory().release(g.first);
  delete m;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER_CONTEXT();
  if (!function || !name) return CUDA_ERROR_INVALID_VALUE;
  auto* m = (ModuleObject*)module;
  if (!d.modules.count(m)) return CUDA_ERROR_INVALID_HANDLE;
  auto it = m->functions.find(name);
  if (it == m->functions.end()) return CUDA_ERROR_NOT_FOUND;
  *function = it->second.get();
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr* at, size_t* bytes, void* module, const char* name) {
  ENTER_CONTEXT();
  if (!name) return CUDA_ERROR_INVALID_VALUE;
  auto* m = (ModuleObject*)module;
  if (!d.modules.count(m)) return CUDA_ERROR_INVALID_HANDLE;
  auto it = m->globals.find(name);
  if (it == m->globals.end()) return CUDA_ERROR_NOT_FOUND;
  if (at) *at = it->second.first;
  if (bytes) *bytes = it->second.second;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuModuleGetLoadingMode(int* mode) {
  if (!mode) return CUDA_ERROR_INVALID_VALUE;
  *mode = 1;  // eager
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuFuncGetModule(void** module, void* function) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  *module = f->module;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuFuncGetAttribute(int* value, int attribute, void* function) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  if (!value) return CUDA_ERROR_INVALID_VALUE;
  const Program& p = *f->program;
  int most = p.maxThreads[0] ? p.maxThreads[0] * p.maxThreads[1] * p.maxThreads[2] : 1024;
  int cc = d.settings.major * 10 + d.settings.minor;
  switch (attribute) {
    case 0: *value = std::min(most, 1024); break;
    case 1: *value = p.staticShared; break;
    case 2: *value = 0; break;
    case 3: *value = p.localBytes; break;
    case 4: *value = p.registers(); break;
    case 5:
    case 6: *value = cc; break;
    case 7: *value = 0; break;
    case 8: *value = (int)f->maxDynamicShared; break;
    case 9: *value = -1; break;
    case 10: *value = p.explicitCluster; break;
    case 11:
    case 12:
    case 13: *value = p.cluster[attribute - 11]; break;  // the clusters it requires
    case 14:
    case 15: *value = 0; break;  // larger clusters than are portable, how they are scheduled
    default: return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuFuncSetAttribute(void* function, int attribute, int value) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  if (attribute == 8) {
    if (value < 0 || (size_t)value + (size_t)f->program->staticShared > d.sharedOptIn())
      return refuse(CUDA_ERROR_INVALID_VALUE, "launch_limit", f->program->name,
                    std::to_string(value) + " bytes of dynamic shared memory beside " +
                        std::to_string(f->program->staticShared) + " static ones exceed the device's " +
                        std::to_string(d.sharedOptIn()));
    f->maxDynamicShared = (uint32_t)value;
    return CUDA_SUCCESS;
  }
  if (attribute == 14 && value)
    return refuse(
        CUDA_ERROR_NOT_SUPPORTED, "launch_limit", f->program->name,
        "clusters of more than " + std::to_string(mostClusterBlocks) + " blocks are not portable, and not modelled");
  return attribute == 9 || attribute == 14 || attribute == 15 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUDA_EXPORT CUresult cuFuncSetCacheConfig(void*, int) { return CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuFuncSetSharedMemConfig(void*, int) { return CUDA_SUCCESS; }

CUresult emu::launch(void* function, const unsigned* grid, const unsigned* block, unsigned shared, void* stream,
                     void** params, void** extra, KernelWork&& work) {
  ENTER_CONTEXT();
  Node n;
  n.kind = Node::Kernel;
  n.kernel = std::move(work);
  auto* f = (FunctionObject*)function;
  if (CUresult r = prepareLaunch(f, grid, block, shared, params, extra, n.kernel)) return r;
  if (n.kernel.cooperative &&
      (uint64_t)grid[0] * grid[1] * grid[2] >
          (uint64_t)occupancy(*f, (int)(block[0] * block[1] * block[2]), shared) * (uint64_t)d.settings.multiprocessors)
    return refuse(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "launch_limit", f->program->name,
                  "the grid does not fit on the device at once");
  return enqueue(stream, std::move(n));
}
CUDA_EXPORT CUresult cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                    unsigned bz, unsigned shared, void* stream, void** params, void** extra) {
  const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
  return launch(f, grid, block, shared, stream, params, extra, {});
}
CUDA_EXPORT CUresult cuLaunchCooperativeKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                               unsigned bz, unsigned shared, void* stream, void** params) {
  const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
  KernelWork work;
  work.cooperative = true;
  return launch(f, grid, block, shared, stream, params, nullptr, std::move(work));
}
CUDA_EXPORT CUresult cuLaunchHostFunc(void* stream, void (*fn)(void*), void* data) {
  ENTER_CONTEXT();
  if (!fn) return CUDA_ERROR_INVALID_VALUE;
  Node n;
  n.kind = Node::Host;
  n.what = "a host function";
  n.work = [fn, data] { return fn(data), CUDA_SUCCESS; };
  return enqueue(stream, std::move(n));
}
CUDA_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void* function, int threads,
                                                                          size_t shared, unsigned) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  *blocks = occupancy(*f, threads, shared);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* f, int threads, size_t shared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, threads, shared, 0);
}
CUDA_EXPORT CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, void* function, int blocks, int) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  if (blocks <= 0) return CUDA_ERROR_INVALID_VALUE;
  size_t each = d.sharedPerMultiprocessor() / (size_t)blocks / 128 * 128,
         taken = (size_t)f->program->staticShared + 1024;
  *bytes = each > taken ? std::min(each - taken, d.sharedOptIn() - (size_t)f->program->staticShared) : 0;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, void* function,
                                                               size_t (*sharedOf)(int), size_t shared, int limit,
                                                               unsigned) {
  ENTER();
  auto* f = (FunctionObject*)function;
  if (!d.functions.count(f)) return CUDA_ERROR_INVALID_HANDLE;
  int most = 1024, best = 0;
  if (f->program->maxThreads[0])
    most = f->program->maxThreads[0] * f->program->maxThreads[1] * f->program->maxThreads[2];
  if (limit > 0) most = std::min(most, limit);
  for (int t = most / 32 * 32; t >= 32; t -= 32) {
    int b = occupancy(*f, t, sharedOf ? sharedOf(t) : shared);
    if (b * t > best) best = b * t, *block = t, *grid = b * d.settings.multiprocessors;
  }
  return best ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUDA_EXPORT CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void* f, size_t (*sharedOf)(int),
                                                      size_t shared, int limit) {
  return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, f, sharedOf, shared, limit, 0);
}
