// Memory: allocation, copies, fills, pointers.
#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "driver.h"

using namespace emu;

namespace {

std::string hex(uint64_t v) {
  char b[32];
  snprintf(b, sizeof b, "0x%" PRIx64, v);
  return b;
}

CUresult allocate(CUdeviceptr* at, size_t bytes, Allocation::Kind kind, uint64_t pool = 0) {
  Driver& d = driver();
  if (!at || !bytes) return CUDA_ERROR_INVALID_VALUE;
  if (d.settings.failAllocation && --d.settings.failAllocation == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  *at = memory().allocate(bytes, kind, pool);
  return *at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/// Device memory that a copy or fill touches must lie within one allocation.
CUresult checkRange(const char* call, CUdeviceptr at, size_t bytes, const char* role) {
  Allocation* a = memory().find(at);
  if (a && at + bytes <= a->end()) return CUDA_SUCCESS;
  bool freed = false;
  std::string where = memory().describe(at, (int)std::min<size_t>(bytes, 1 << 30), &freed);
  return refuse(CUDA_ERROR_INVALID_VALUE, freed ? "use_after_free" : "out_of_bounds", "",
                std::string(call) + ": " + role + " " + hex(at) + ", " + std::to_string(bytes) + " bytes: " + where);
}
bool isDevice(CUdeviceptr at) {
  Allocation* a = memory().find(at);
  return a && a->kind != Allocation::Registered && a->kind != Allocation::Host;
}
void warnUnwritten(const char* call, CUdeviceptr from, size_t bytes) {
  Allocation* a = memory().find(from);
  if (!a || a->initialised) return;
  uint64_t at = memory().firstUnwritten(from, bytes);
  if (!at) return;
  Finding f;
  f.warning = true;
  f.kind = "uninitialised_copy";
  f.message = std::string(call) + ": " + std::to_string(bytes) + " bytes from " + hex(from) +
              " hold bytes that nothing has written, the first at offset " + std::to_string(at - from);
  reports().add(std::move(f));
}

CUresult copyNow(const char* call, CUdeviceptr to, CUdeviceptr from, size_t bytes, bool toDevice, bool fromDevice) {
  if (!bytes) return CUDA_SUCCESS;
  if (!to || !from) return refuse(CUDA_ERROR_INVALID_VALUE, "null_pointer", "", std::string(call) + ": null pointer");
  if (toDevice)
    if (CUresult r = checkRange(call, to, bytes, "destination")) return r;
  if (fromDevice)
    if (CUresult r = checkRange(call, from, bytes, "source")) return r;
  if (fromDevice && !toDevice) warnUnwritten(call, from, bytes);
  driver().order.touch(from, bytes, false);
  driver().order.touch(to, bytes, true);
  memmove((void*)to, (const void*)from, bytes);
  if (toDevice) {
    // A copy within the device carries "unwritten" along.
    if (fromDevice && isDevice(from) && memory().firstUnwritten(from, bytes)) {
      for (size_t i = 0; i < bytes; i++)
        if (memory().firstUnwritten(from + i, 1)) memory().markUnwritten(to + i, 1);
        else memory().markWritten(to + i, 1);
    } else {
      memory().markWritten(to, bytes);
    }
  }
  return CUDA_SUCCESS;
}

/// A call that a capture forbids, unless it is relaxed or belongs to another thread alone.
CUresult checkCapture(CUresult refused) {
  Driver& d = driver();
  for (auto* s : d.streams)
    if (s->capture && s->origin && (s->mode == 0 || (s->mode == 1 && s->captureThread == std::this_thread::get_id()))) {
      s->invalidated = true;
      return refused;
    }
  return CUDA_SUCCESS;
}
/// A copy as a piece of work.
Node copying(const char* call, CUdeviceptr to, CUdeviceptr from, size_t bytes, bool toDevice, bool fromDevice) {
  Node n;
  n.kind = Node::Memcpy;
  n.what = std::string(call) + " of " + std::to_string(bytes) + " bytes from " + hex(from) + " to " + hex(to);
  n.work = [=] { return copyNow(call, to, from, bytes, toDevice, fromDevice); };
  auto pinned = [](CUdeviceptr at) {
    Allocation* a = memory().find(at);
    return a && a->kind == Allocation::Host;
  };
  n.writesPinned = pinned(to);
  n.pinned = n.writesPinned ? to : from;
  n.pinnedBytes = n.writesPinned || pinned(from) ? bytes : 0;
  return n;
}
CUresult copySync(const char* call, CUdeviceptr to, CUdeviceptr from, size_t bytes, bool toDevice, bool fromDevice) {
  ENTER_CONTEXT_OF(call);
  if (CUresult r = checkCapture(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)) return r;
  return performNow(d, copying(call, to, from, bytes, toDevice, fromDevice), true);
}
CUresult copyAsync(const char* call, CUdeviceptr to, CUdeviceptr from, size_t bytes, bool toDevice, bool fromDevice,
                   void* stream) {
  ENTER_CONTEXT_OF(call);
  Node n = copying(call, to, from, bytes, toDevice, fromDevice);
  StreamObject* s = d.stream(stream);
  if (!s || s->capture || !bytes) return enqueue(stream, std::move(n));
  // Wrong calls are refused at once.
  if (!to || !from) return refuse(CUDA_ERROR_INVALID_VALUE, "null_pointer", "", std::string(call) + ": null pointer");
  if (toDevice)
    if (CUresult r = checkRange(call, to, bytes, "destination")) return r;
  if (fromDevice)
    if (CUresult r = checkRange(call, from, bytes, "source")) return r;
  if (d.settings.delay && !fromDevice && !memory().find(from)) {  // what is not pinned is read before the call returns
    auto bytesNow = std::make_shared<std::vector<uint8_t>>((const uint8_t*)from, (const uint8_t*)from + bytes);
    n.work = [=] { return copyNow(call, to, (CUdeviceptr)bytesNow->data(), bytes, toDevice, false); };
  }
  if (CUresult r = enqueue(stream, std::move(n))) return r;
  return !toDevice && !memory().find(to) ? await(d, *s) : CUDA_SUCCESS;  // and written before it
}

CUresult fillNow(const char* call, CUdeviceptr at, size_t pitch, unsigned value, unsigned size, size_t width,
                 size_t height) {
  if (!width || !height) return CUDA_SUCCESS;
  if (at % size)
    return refuse(CUDA_ERROR_INVALID_VALUE, "misaligned", "",
                  std::string(call) + ": destination " + hex(at) + " is not a multiple of " + std::to_string(size));
  size_t span = pitch * (height - 1) + width * size;
  if (CUresult r = checkRange(call, at, span, "destination")) return r;
  for (size_t y = 0; y < height; y++) {
    uint64_t row = at + y * pitch;
    driver().order.touch(row, width * size, true);
    if (size == 1) memset((void*)row, (int)value, width);
    else if (size == 2) std::fill_n((uint16_t*)row, width, (uint16_t)value);
    else std::fill_n((uint32_t*)row, width, value);
    memory().markWritten(row, width * size);
  }
  return CUDA_SUCCESS;
}
/// A fill as a piece of work.
Node filling(const char* call, CUdeviceptr at, size_t pitch, unsigned value, unsigned size, size_t width,
             size_t height) {
  Node n;
  n.kind = Node::Memset;
  n.memset = {at, pitch, value, size, width, height};
  n.what = std::string(call) + " of " + std::to_string(width * height) + " elements at " + hex(at);
  n.work = [=] { return fillNow(call, at, pitch, value, size, width, height); };
  return n;
}
CUresult fillSync(const char* call, CUdeviceptr at, size_t pitch, unsigned value, unsigned size, size_t width,
                  size_t height) {
  ENTER_CONTEXT_OF(call);
  if (CUresult r = checkCapture(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)) return r;
  // The host does not wait for fills of a device's memory, says the manual ("API synchronization behavior").
  return performNow(d, filling(call, at, pitch, value, size, width, height), !isDevice(at));
}
CUresult fillAsync(const char* call, CUdeviceptr at, size_t pitch, unsigned value, unsigned size, size_t width,
                   size_t height, void* stream) {
  ENTER_CONTEXT_OF(call);
  return enqueue(stream, filling(call, at, pitch, value, size, width, height));
}
CUresult freeNow(const char* call, CUdeviceptr at, bool host) {
  if (!at) return CUDA_SUCCESS;
  Allocation* a = memory().find(at);
  bool fits = a && a->base == at && (a->kind == Allocation::Host) == host && a->kind != Allocation::Registered &&
              a->kind != Allocation::Constant && a->kind != Allocation::Variable;
  if (fits && memory().release(at)) return CUDA_SUCCESS;
  bool freed = false;
  std::string where = memory().describe(at, 1, &freed);
  return refuse(CUDA_ERROR_INVALID_VALUE, freed ? "double_free" : "bad_free", "",
                std::string(call) + " of " + hex(at) + ": " + where);
}

/// Memory that belongs to what comes after a place in a stream: whoever touches it must come after that.
CUresult allocateAsync(const char* call, CUdeviceptr* at, size_t bytes, uint64_t pool, StreamObject& s) {
  if (CUresult r = allocate(at, bytes, Allocation::Device, pool)) return r;
  Node n;
  n.kind = Node::Host;
  n.what = std::string(call) + " of " + std::to_string(bytes) + " bytes at " + hex(*at);
  n.work = [where = *at, bytes] { return driver().order.touch(where, bytes, true), CUDA_SUCCESS; };
  return submit(driver(), s, std::move(n));
}

}  // namespace

CUDA_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* at, size_t bytes) {
  ENTER_CONTEXT();
  if (CUresult r = checkCapture(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)) return r;
  return allocate(at, bytes, Allocation::Device);
}
CUDA_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr* at, size_t* pitch, size_t width, size_t height, unsigned) {
  ENTER_CONTEXT();
  *pitch = (width + 511) / 512 * 512;
  return allocate(at, *pitch * height, Allocation::Device);
}
CUDA_EXPORT CUresult cuMemAllocManaged(CUdeviceptr* at, size_t bytes, unsigned) {
  ENTER_CONTEXT();
  CUresult r = allocate(at, bytes, Allocation::Device);
  if (!r) memory().markWritten(*at, bytes);  // the host may write it, unseen
  return r;
}
CUDA_EXPORT CUresult cuMemAllocAsync(CUdeviceptr* at, size_t bytes, void* stream) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(stream);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (s->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return allocateAsync("cuMemAllocAsync", at, bytes, 0, *s);
}
CUDA_EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr* at, size_t bytes, void* pool, void* stream) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(stream);
  if (!s || !d.pools.count(pool)) return CUDA_ERROR_INVALID_HANDLE;
  if (s->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return allocateAsync("cuMemAllocFromPoolAsync", at, bytes, (uint64_t)pool, *s);
}
CUDA_EXPORT CUresult cuMemFree_v2(CUdeviceptr at) {
  ENTER_CONTEXT();
  if (CUresult r = checkCapture(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)) return r;
  if (CUresult r = awaitAll(d)) return r;
  return freeNow("cuMemFree", at, false);
}
CUDA_EXPORT CUresult cuMemFreeAsync(CUdeviceptr at, void* stream) {
  ENTER_CONTEXT();
  StreamObject* s = d.stream(stream);
  if (!s) return CUDA_ERROR_INVALID_HANDLE;
  if (s->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  Node n;
  n.kind = Node::Host;
  n.what = "cuMemFreeAsync of " + hex(at);
  n.work = [=] {
    if (Allocation* a = memory().find(at)) driver().order.touch(a->base, a->size, true);
    return freeNow("cuMemFreeAsync", at, false);
  };
  return submit(d, *s, std::move(n));
}
CUDA_EXPORT CUresult cuMemPoolCreate(void** pool, const void*) {
  ENTER_CONTEXT();
  *pool = new char;
  d.pools.insert(*pool);
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuMemPoolDestroy(void* pool) {
  ENTER_CONTEXT();
  if (!d.pools.erase(pool)) return CUDA_ERROR_INVALID_HANDLE;
  delete (char*)pool;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuMemPoolTrimTo(void* pool, size_t) {
  ENTER_CONTEXT();
  return d.pools.count(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUDA_EXPORT CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  ENTER_CONTEXT();
  if (free) *free = memory().limit > memory().used() ? memory().limit - memory().used() : 0;
  if (total) *total = memory().limit;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* size, CUdeviceptr at) {
  ENTER_CONTEXT();
  Allocation* a = memory().find(at);
  if (!a) return CUDA_ERROR_NOT_FOUND;
  if (base) *base = a->base;
  if (size) *size = a->size;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuMemHostAlloc(void** at, size_t bytes, unsigned) {
  ENTER_CONTEXT();
  return allocate((CUdeviceptr*)at, bytes, Allocation::Host);
}
CUDA_EXPORT CUresult cuMemAllocHost_v2(void** at, size_t bytes) { return cuMemHostAlloc(at, bytes, 0); }
CUDA_EXPORT CUresult cuMemFreeHost(void* at) {
  ENTER_CONTEXT();
  if (CUresult r = awaitAll(d)) return r;
  return freeNow("cuMemFreeHost", (CUdeviceptr)at, true);
}
CUDA_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* at, unsigned) {
  ENTER_CONTEXT();
  Allocation* a = memory().find((CUdeviceptr)at);
  if (!a || (a->kind != Allocation::Host && a->kind != Allocation::Registered)) return CUDA_ERROR_INVALID_VALUE;
  *out = (CUdeviceptr)at;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuMemHostGetFlags(unsigned* flags, void* at) {
  ENTER_CONTEXT();
  if (!memory().find((CUdeviceptr)at)) return CUDA_ERROR_INVALID_VALUE;
  *flags = 3;  // portable, mapped
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuMemHostRegister_v2(void* at, size_t bytes, unsigned) {
  ENTER_CONTEXT();
  if (!at || !bytes) return CUDA_ERROR_INVALID_VALUE;
  return memory().registerHost((uint64_t)at, bytes) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}
CUDA_EXPORT CUresult cuMemHostUnregister(void* at) {
  ENTER_CONTEXT();
  if (CUresult r = awaitAll(d)) return r;
  return memory().unregisterHost((uint64_t)at) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

CUDA_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t n) {
  return copySync("cuMemcpyHtoD", to, (CUdeviceptr)from, n, true, false);
}
CUDA_EXPORT CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t n) {
  return copySync("cuMemcpyDtoH", (CUdeviceptr)to, from, n, false, true);
}
CUDA_EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t n) {
  return copySync("cuMemcpyDtoD", to, from, n, true, true);
}
CUDA_EXPORT CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t n) {
  return copySync("cuMemcpy", to, from, n, memory().find(to), memory().find(from));
}
CUDA_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t n, void* s) {
  return copyAsync("cuMemcpyHtoDAsync", to, (CUdeviceptr)from, n, true, false, s);
}
CUDA_EXPORT CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t n, void* s) {
  return copyAsync("cuMemcpyDtoHAsync", (CUdeviceptr)to, from, n, false, true, s);
}
CUDA_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, void* s) {
  return copyAsync("cuMemcpyDtoDAsync", to, from, n, true, true, s);
}
CUDA_EXPORT CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t n, void* s) {
  return copyAsync("cuMemcpyAsync", to, from, n, memory().find(to), memory().find(from), s);
}

CUDA_EXPORT CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char v, size_t n) {
  return fillSync("cuMemsetD8", at, 0, v, 1, n, 1);
}
CUDA_EXPORT CUresult cuMemsetD16_v2(CUdeviceptr at, unsigned short v, size_t n) {
  return fillSync("cuMemsetD16", at, 0, v, 2, n, 1);
}
CUDA_EXPORT CUresult cuMemsetD32_v2(CUdeviceptr at, unsigned v, size_t n) {
  return fillSync("cuMemsetD32", at, 0, v, 4, n, 1);
}
CUDA_EXPORT CUresult cuMemsetD2D8_v2(CUdeviceptr at, size_t p, unsigned char v, size_t w, size_t h) {
  return fillSync("cuMemsetD2D8", at, p, v, 1, w, h);
}
CUDA_EXPORT CUresult cuMemsetD2D16_v2(CUdeviceptr at, size_t p, unsigned short v, size_t w, size_t h) {
  return fillSync("cuMemsetD2D16", at, p, v, 2, w, h);
}
CUDA_EXPORT CUresult cuMemsetD2D32_v2(CUdeviceptr at, size_t p, unsigned v, size_t w, size_t h) {
  return fillSync("cuMemsetD2D32", at, p, v, 4, w, h);
}
CUDA_EXPORT CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char v, size_t n, void* s) {
  return fillAsync("cuMemsetD8Async", at, 0, v, 1, n, 1, s);
}
CUDA_EXPORT CUresult cuMemsetD16Async(CUdeviceptr at, unsigned short v, size_t n, void* s) {
  return fillAsync("cuMemsetD16Async", at, 0, v, 2, n, 1, s);
}
CUDA_EXPORT CUresult cuMemsetD32Async(CUdeviceptr at, unsigned v, size_t n, void* s) {
  return fillAsync("cuMemsetD32Async", at, 0, v, 4, n, 1, s);
}
CUDA_EXPORT CUresult cuMemsetD2D8Async(CUdeviceptr at, size_t p, unsigned char v, size_t w, size_t h, void* s) {
  return fillAsync("cuMemsetD2D8Async", at, p, v, 1, w, h, s);
}
CUDA_EXPORT CUresult cuMemsetD2D16Async(CUdeviceptr at, size_t p, unsigned short v, size_t w, size_t h, void* s) {
  return fillAsync("cuMemsetD2D16Async", at, p, v, 2, w, h, s);
}
CUDA_EXPORT CUresult cuMemsetD2D32Async(CUdeviceptr at, size_t p, unsigned v, size_t w, size_t h, void* s) {
  return fillAsync("cuMemsetD2D32Async", at, p, v, 4, w, h, s);
}

CUDA_EXPORT CUresult cuPointerGetAttribute(void* out, int attribute, CUdeviceptr at) {
  ENTER_CONTEXT();
  Allocation* a = memory().find(at);
  if (!out || !a) return CUDA_ERROR_INVALID_VALUE;
  bool host = a->kind == Allocation::Host || a->kind == Allocation::Registered;
  switch (attribute) {
    case 1: *(void**)out = context; break;
    case 2: *(unsigned*)out = host ? 1 : 2; break;
    case 3: *(CUdeviceptr*)out = at; break;
    case 4:
      if (!host) return CUDA_ERROR_INVALID_VALUE;
      *(CUdeviceptr*)out = at;
      break;
    case 7: *(uint64_t*)out = a->sequence; break;
    case 8: *(unsigned char*)out = 0; break;
    case 9: *(int*)out = 0; break;
    case 11: *(CUdeviceptr*)out = a->base; break;
    case 12: *(size_t*)out = a->size; break;
    case 13: *(unsigned char*)out = 1; break;
    case 17: *(uint64_t*)out = a->pool; break;
    default: return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuPointerGetAttributes(unsigned n, int* attributes, void** data, CUdeviceptr at) {
  for (unsigned i = 0; i < n; i++)
    if (CUresult r = cuPointerGetAttribute(data[i], attributes[i], at)) return r;
  return CUDA_SUCCESS;
}
CUDA_EXPORT CUresult cuPointerSetAttribute(const void*, int, CUdeviceptr) { return CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuMemPrefetchAsync(CUdeviceptr, size_t, CUdevice, void*) { return CUDA_SUCCESS; }
CUDA_EXPORT CUresult cuMemAdvise(CUdeviceptr, size_t, int, CUdevice) { return CUDA_SUCCESS; }
