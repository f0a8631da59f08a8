// Initialisation, the one device, contexts, error names.
#include <cstdio>

#include "driver.h"

using namespace emu;

CUDA_EXPORT CUresult cuInit(unsigned flags) {
  Driver& d = driver();
  std::lock_guard lock(d.mutex);
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (d.settings.deviceLost) return CUDA_ERROR_NO_DEVICE;
  d.initialised = true;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDriverGetVersion(int* version) {
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  *version = driver().settings.driverVersion;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceGetCount(int* count) {
  ENTER();
  if (!count) return CUDA_ERROR_INVALID_VALUE;
  *count = 1;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  ENTER();
  if (!device) return CUDA_ERROR_INVALID_VALUE;
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = 0;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  ENTER();
  if (!name || length <= 0) return CUDA_ERROR_INVALID_VALUE;
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(name, (size_t)length, "JTReLU emulated device (no GPU)");
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  memcpy(uuid->bytes, "JTReLU-emulated", 16);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = memory().limit;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  *major = d.settings.major;
  *minor = d.settings.minor;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  ENTER();
  if (!value || attribute < 1 || attribute > 200) return CUDA_ERROR_INVALID_VALUE;
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  int cc = d.settings.major * 10 + d.settings.minor;
  switch (attribute) {
    case 1:
    case 2:
    case 3: *value = 1024; break;  // threads per block, block x, y
    case 4: *value = 64; break;  // block z
    case 5: *value = 2147483647; break;  // grid x
    case 6:
    case 7: *value = 65535; break;  // grid y, z
    case 8: *value = 48 * 1024; break;  // shared memory per block
    case 9: *value = 65536; break;  // constant memory
    case 10: *value = 32; break;  // warp
    case 11: *value = 2147483647; break;  // pitch
    case 12:
    case 82: *value = 65536; break;  // registers per block, per multiprocessor
    case 14: *value = 512; break;  // texture alignment
    case 15:
    case 19:
    case 31:
    case 41:
    case 78:
    case 79:
    case 80:
    case 83:
    case 90:
    case 91:
    case 95:
    case 99:
    case 115: *value = 1; break;
    case 120:  // clusters
    case 127: *value = cc >= 90; break;  // tensor maps
    case 16: *value = d.settings.multiprocessors; break;
    case 38: *value = 40 << 20; break;  // L2
    case 39: *value = cc == 86 || cc == 89 || cc >= 120 ? 1536 : 2048; break;
    case 40: *value = 2; break;  // copy engines
    case 75: *value = d.settings.major; break;
    case 76: *value = d.settings.minor; break;
    case 81: *value = (int)d.sharedPerMultiprocessor(); break;
    case 97: *value = (int)d.sharedOptIn(); break;
    case 106: *value = 32; break;  // blocks per multiprocessor
    case 111: *value = 1024; break;  // shared memory kept by the system per block
    default: *value = 0; break;  // no clocks, no buses: time means nothing here
  }
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceGetProperties(int* p, CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  const int values[] = {1024,      1024,  1024, 64,         2147483647, 65535, 65535,
                        48 * 1024, 65536, 32,   2147483647, 65536,      0,     512};
  memcpy(p, values, sizeof values);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(id, (size_t)length, "0000:00:00.0");
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDeviceCanAccessPeer(int* can, CUdevice, CUdevice) {
  ENTER();
  *can = 0;
  return CUDA_SUCCESS;
}

// --- contexts ----------------------------------------------------------------------------------------------------

CUDA_EXPORT CUresult cuDevicePrimaryCtxRetain(void** out, CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  if (d.settings.deviceLost) return d.settings.deviceLost;
  d.primary.references++;
  d.contexts.insert(&d.primary);
  *out = &d.primary;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  awaitAll(d);
  d.primary.error = 0;
  memory().reset();
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  if (d.primary.references == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--d.primary.references == 0) {
    awaitAll(d);
    d.contexts.erase(&d.primary);
    d.primary.error = 0;
    memory().reset();
  }
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice, unsigned flags) {
  ENTER();
  d.primary.flags = flags;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
  ENTER();
  if (flags) *flags = d.primary.flags;
  if (active) *active = d.primary.references > 0;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxCreate_v2(void** out, unsigned flags, CUdevice device) {
  ENTER();
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  auto* c = new Context;
  c->flags = flags;
  d.contexts.insert(c);
  contextStack().push_back(c);
  *out = c;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxDestroy_v2(void* handle) {
  ENTER();
  auto* c = (Context*)handle;
  if (!d.contexts.count(c) || c->primary) return CUDA_ERROR_INVALID_CONTEXT;
  awaitAll(d);
  d.contexts.erase(c);
  std::erase(contextStack(), c);
  delete c;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxSetCurrent(void* handle) {
  ENTER();
  auto* c = (Context*)handle;
  if (c && !d.contexts.count(c)) return CUDA_ERROR_INVALID_CONTEXT;
  auto& stack = contextStack();
  if (!stack.empty()) stack.pop_back();
  if (c) stack.push_back(c);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxGetCurrent(void** out) {
  ENTER();
  *out = contextStack().empty() ? nullptr : contextStack().back();
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxPushCurrent_v2(void* handle) {
  ENTER();
  if (!d.contexts.count((Context*)handle)) return CUDA_ERROR_INVALID_CONTEXT;
  contextStack().push_back((Context*)handle);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxPopCurrent_v2(void** out) {
  ENTER();
  if (contextStack().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (out) *out = contextStack().back();
  contextStack().pop_back();
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
  ENTER();
  if (contextStack().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  *device = 0;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxGetFlags(unsigned* flags) {
  ENTER_CONTEXT();
  *flags = context->flags;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxGetId(void* handle, unsigned long long* id) {
  ENTER();
  *id = (unsigned long long)(uintptr_t)(handle ? handle : contextStack().empty() ? nullptr : contextStack().back());
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxSynchronize() {
  ENTER_CONTEXT();
  for (auto* s : d.streams)
    if (s->capture) {
      s->invalidated = true;
      return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  return awaitAll(d);
}
CUDA_EXPORT CUresult cuCtxGetLimit(size_t* value, int limit) {
  ENTER_CONTEXT();
  static const size_t defaults[] = {1024, 1 << 20, 8 << 20, 2, 2048, 128};
  if (limit < 0 || limit > 6) return CUDA_ERROR_INVALID_VALUE;
  auto it = context->limits.find(limit);
  *value = it != context->limits.end() ? it->second : limit < 6 ? defaults[limit] : 0;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxSetLimit(int limit, size_t value) {
  ENTER_CONTEXT();
  if (limit < 0 || limit > 6) return CUDA_ERROR_INVALID_VALUE;
  context->limits[limit] = value;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxGetApiVersion(void*, unsigned* version) {
  *version = 3020;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  ENTER_CONTEXT();
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuCtxGetCacheConfig(int* config) { return *config = 0, CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuCtxSetCacheConfig(int) { return CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuCtxGetSharedMemConfig(int* config) { return *config = 1, CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuCtxSetSharedMemConfig(int) { return CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuProfilerStart() { return CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuProfilerStop() { return CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuProfilerInitialize(const char*, const char*, int) { return CUDA_SUCCESS; }

// --- errors ------------------------------------------------------------------------------------------------------

namespace {
const struct {
  int code;
  const char *name, *text;
} errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {301, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {401, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {710, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {912, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "cluster misconfiguration"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"}};
}  // namespace
CUDA_EXPORT CUresult cuGetErrorName(CUresult code, const char** out) {
  for (auto& e : errors)
    if (e.code == code) return *out = e.name, CUDA_SUCCESS;
  *out = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}
CUDA_EXPORT CUresult cuGetErrorString(CUresult code, const char** out) {
  for (auto& e : errors)
    if (e.code == code) return *out = e.text, CUDA_SUCCESS;
  *out = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}
