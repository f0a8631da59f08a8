// A stand-in for libcublas on the emulated device, for tests: the functions that io.jtrelu.backend.cuda calls, as the
// cuBLAS documentation describes them, and more unforgiving. Sums are in double precision, so it is no library for speed
// or for cuBLAS's last bits. CUBLAS_MAJOR is the version that it stands in for.
#include <algorithm>

#include "standin.h"

using namespace standin;

namespace {

enum Status : int {
  SUCCESS = 0,
  NOT_INITIALIZED = 1,
  ALLOC_FAILED = 3,
  INVALID_VALUE = 7,
  EXECUTION_FAILED = 13,
  NOT_SUPPORTED = 15
};

constexpr uint32_t ALIVE = 0x6c61b1a5;
constexpr size_t LEAST_WORKSPACE = 16 << 10;

struct Handle {
  uint32_t alive = ALIVE;
  void* context = nullptr;
  void* stream = nullptr;
  CUdeviceptr workspace = 0;
  size_t workspaceBytes = 0;
  int mathMode = 0;
  Staging staging;
};

/// The handle, where it is one and its context is current.
Status require(void* handle, Handle** out) {
  auto* h = static_cast<Handle*>(handle);
  if (!h || h->alive != ALIVE) return NOT_INITIALIZED;
  void* current = nullptr;
  if (cuCtxGetCurrent(&current) || current != h->context) return EXECUTION_FAILED;
  *out = h;
  return SUCCESS;
}

bool typeOf(int cudaDataType, Type* out) {
  switch (cudaDataType) {
    case 0: *out = Type::F32; return true;
    case 2: *out = Type::F16; return true;
    case 14: *out = Type::BF16; return true;
    default: return false;
  }
}

constexpr int COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_TF32 = 77;
constexpr int DISALLOW_REDUCED_PRECISION_REDUCTION = 16;

}  // namespace

/// Tells it from NVIDIA's.
EXPORT int jtreluStandin() { return 1; }

EXPORT int cublasCreate_v2(void** out) {
  if (!out) return INVALID_VALUE;
  auto* h = new Handle;
  if (cuCtxGetCurrent(&h->context) || !h->context) {
    delete h;
    return NOT_INITIALIZED;
  }
  *out = h;
  return SUCCESS;
}

EXPORT int cublasDestroy_v2(void* handle) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (cuStreamSynchronize(h->stream)) return EXECUTION_FAILED;
  h->alive = 0;
  delete h;
  return SUCCESS;
}

EXPORT int cublasGetProperty(int property, int* value) {
  if (!value || property < 0 || property > 2) return INVALID_VALUE;
  *value = property == 0 ? CUBLAS_MAJOR : 0;
  return SUCCESS;
}

EXPORT int cublasSetStream_v2(void* handle, void* stream) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  h->stream = stream;
  h->workspace = h->workspaceBytes = 0;  // as documented: back to the default workspace
  return SUCCESS;
}

EXPORT int cublasSetWorkspace_v2(void* handle, void* workspace, size_t bytes) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (reinterpret_cast<uintptr_t>(workspace) % 256) return INVALID_VALUE;
  h->workspace = reinterpret_cast<CUdeviceptr>(workspace);
  h->workspaceBytes = bytes;
  return SUCCESS;
}

EXPORT int cublasSetMathMode(void* handle, int mode) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (mode & ~(3 | DISALLOW_REDUCED_PRECISION_REDUCTION)) return INVALID_VALUE;
  h->mathMode = mode;
  return SUCCESS;
}

EXPORT const char* cublasGetStatusName(int status) {
  switch (status) {
    case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_UNKNOWN";
  }
}

EXPORT int cublasGemmEx(void* handle, int transA, int transB, int m, int n, int k, const void* alpha, const void* a,
                        int typeA, int lda, const void* b, int typeB, int ldb, const void* beta, void* c, int typeC,
                        int ldc, int compute, int algorithm) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (transA < 0 || transA > 1 || transB < 0 || transB > 1 || m < 0 || n < 0 || k < 0) return INVALID_VALUE;
  int rowsA = transA ? k : m, columnsA = transA ? m : k, rowsB = transB ? n : k, columnsB = transB ? k : n;
  if (lda < std::max(1, rowsA) || ldb < std::max(1, rowsB) || ldc < std::max(1, m)) return INVALID_VALUE;
  if (!alpha || !beta || algorithm != -1) return INVALID_VALUE;
  Type in, other, out;
  if (!typeOf(typeA, &in) || !typeOf(typeB, &other) || !typeOf(typeC, &out) || in != other) return NOT_SUPPORTED;
  if (out != in && out != Type::F32) return NOT_SUPPORTED;
  bool fast = compute == COMPUTE_32F_FAST_TF32, pedantic = compute == COMPUTE_32F_PEDANTIC;
  if (!(compute == COMPUTE_32F || ((fast || pedantic) && in == Type::F32))) return NOT_SUPPORTED;
  if (m == 0 || n == 0) return SUCCESS;
  float scale, keep;
  memcpy(&scale, alpha, sizeof scale);
  memcpy(&keep, beta, sizeof keep);
  auto addressA = reinterpret_cast<CUdeviceptr>(a), addressB = reinterpret_cast<CUdeviceptr>(b),
       addressC = reinterpret_cast<CUdeviceptr>(c);
  if ((k > 0 && (!a || !b)) || !c) return INVALID_VALUE;
  if (addressA % bytes(in) || addressB % bytes(in) || addressC % bytes(out)) return INVALID_VALUE;
  // Without a workspace of the caller's cuBLAS takes its own, which a recording must not.
  int capturing = 0;
  if (cuStreamIsCapturing(h->stream, &capturing)) return EXECUTION_FAILED;
  if (capturing && h->workspaceBytes == 0) return EXECUTION_FAILED;
  if (h->workspaceBytes > 0) {
    if (h->workspaceBytes < LEAST_WORKSPACE) return ALLOC_FAILED;
    if (cuMemsetD8Async(h->workspace, 0xff, h->workspaceBytes, h->stream)) return EXECUTION_FAILED;
  }
  bool split = in != Type::F32 && out == in && !(h->mathMode & DISALLOW_REDUCED_PRECISION_REDUCTION);
  auto span = [](int rows, int columns, int ld, Type t) { return (size_t(columns - 1) * ld + rows) * bytes(t); };
  auto multiply = [=](const std::vector<uint8_t*>& memory) {
    auto operand = [&](int which, size_t i) {
      float x = load(in, memory[which], i);
      return fast ? tf32(x) : x;
    };
    for (int j = 0; j < n; j++)
      for (int i = 0; i < m; i++) {
        double sum = 0;
        for (int l = 0; l < k; l++) {
          sum += double(operand(0, transA ? size_t(i) * lda + l : size_t(l) * lda + i)) *
                 operand(1, transB ? size_t(l) * ldb + j : size_t(j) * ldb + l);
          if (split && l == k / 2) {  // what a split product may do unless it is told not to
            uint8_t rounded[4];
            store(out, rounded, 0, float(sum));
            sum = load(out, rounded, 0);
          }
        }
        size_t at = size_t(j) * ldc + i;
        sum *= scale;
        if (keep != 0) sum += double(keep) * load(out, memory[2], at);
        store(out, memory[2], at, float(sum));
      }
  };
  bool whole = ldc == m && keep == 0;  // what lies between columns stays as it is
  CUresult r = h->staging.enqueue(h->stream,
                                  {{addressA, span(rowsA, columnsA, lda, in), true, false},
                                   {addressB, span(rowsB, columnsB, ldb, in), true, false},
                                   {addressC, span(m, n, ldc, out), !whole, true}},
                                  multiply);
  return r ? EXECUTION_FAILED : SUCCESS;
}
