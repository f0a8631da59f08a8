// A stand-in for libcudnn on the emulated device, for tests: the functions of the convolution API that
// io.jtrelu.backend.cuda calls, as the cuDNN documentation describes them, for channels last alone. Sums are in double
// precision. CUDNN_MAJOR is the version that it stands in for.
#include <algorithm>

#include "standin.h"

using namespace standin;

namespace {

#if CUDNN_MAJOR >= 9
enum Status : int {
  SUCCESS = 0,
  NOT_INITIALIZED = 1001,
  BAD_PARAM = 2000,
  NOT_SUPPORTED = 3000,
  EXECUTION_FAILED = 5000
};
#else
enum Status : int { SUCCESS = 0, NOT_INITIALIZED = 1, BAD_PARAM = 3, EXECUTION_FAILED = 8, NOT_SUPPORTED = 9 };
#endif

enum { NHWC = 1, CROSS_CORRELATION = 1, DEFAULT_MATH = 0, FMA_MATH = 3, NON_DETERMINISTIC = 0, DETERMINISTIC = 1 };

constexpr uint32_t HANDLE = 0xd001, TENSOR = 0xd002, FILTER = 0xd003, CONVOLUTION = 0xd004;

struct Handle {
  uint32_t alive = HANDLE;
  void* context = nullptr;
  void* stream = nullptr;
  Staging staging;
};

/// A tensor of n, h, w, c or a filter of k, r, s, c.
template <uint32_t kind> struct Dense {
  uint32_t alive = kind;
  int type = -1, n = 0, c = 0, h = 0, w = 0;
  size_t elements() const { return size_t(n) * c * h * w; }
  size_t at(int in, int ih, int iw, int ic) const { return ((size_t(in) * h + ih) * w + iw) * c + ic; }
};
using Tensor = Dense<TENSOR>;
using Filter = Dense<FILTER>;

struct Convolution {
  uint32_t alive = CONVOLUTION;
  int padH = 0, padW = 0, strideH = 0, strideW = 0, dilationH = 0, dilationW = 0, mode = -1, compute = -1;
  int math = DEFAULT_MATH;
};

struct Performance {
  int algorithm, status;
  float time;
  size_t memory;
  int determinism, math, reserved[3];
};
static_assert(sizeof(Performance) == 48);

template <class T> bool is(const T* object, uint32_t kind) { return object && object->alive == kind; }

Status require(void* handle, Handle** out) {
  auto* h = static_cast<Handle*>(handle);
  if (!is(h, HANDLE)) return BAD_PARAM;
  void* current = nullptr;
  if (cuCtxGetCurrent(&current) || current != h->context) return EXECUTION_FAILED;
  *out = h;
  return SUCCESS;
}

bool typeOf(int cudnnDataType, Type* out) {
  switch (cudnnDataType) {
    case 0: *out = Type::F32; return true;
    case 2: *out = Type::F16; return true;
    case 9: *out = Type::BF16; return true;
    default: return false;
  }
}

template <class T> int create(void** out) {
  if (!out) return BAD_PARAM;
  *out = new T;
  return SUCCESS;
}

template <class T> int destroy(void* object, uint32_t kind) {
  auto* t = static_cast<T*>(object);
  if (!is(t, kind)) return BAD_PARAM;
  t->alive = 0;
  delete t;
  return SUCCESS;
}

template <uint32_t kind> int set(void* object, int format, int type, int n, int c, int h, int w) {
  auto* t = static_cast<Dense<kind>*>(object);
  Type known;
  if (!is(t, kind) || n <= 0 || c <= 0 || h <= 0 || w <= 0) return BAD_PARAM;
  if (format != NHWC || !typeOf(type, &known)) return NOT_SUPPORTED;
  t->type = type;
  t->n = n;
  t->c = c;
  t->h = h;
  t->w = w;
  return SUCCESS;
}

/// The three operands of a pass and its convolution.
struct Problem {
  const Tensor* x;
  const Filter* w;
  const Convolution* conv;
  const Tensor* y;
};

Problem problem(const void* x, const void* w, const void* conv, const void* y) {
  return {static_cast<const Tensor*>(x), static_cast<const Filter*>(w), static_cast<const Convolution*>(conv),
          static_cast<const Tensor*>(y)};
}

Status check(const Problem& p) {
  if (!is(p.x, TENSOR) || !is(p.w, FILTER) || !is(p.conv, CONVOLUTION) || !is(p.y, TENSOR)) return BAD_PARAM;
  auto extent = [](int size, int pad, int dilation, int taps, int stride) {
    return (size + 2 * pad - dilation * (taps - 1) - 1) / stride + 1;
  };
  const Convolution& c = *p.conv;
  if (c.mode != CROSS_CORRELATION || c.compute != 0) return NOT_SUPPORTED;
  if (p.x->c != p.w->c || p.y->c != p.w->n || p.x->n != p.y->n) return BAD_PARAM;
  if (p.y->h != extent(p.x->h, c.padH, c.dilationH, p.w->h, c.strideH) ||
      p.y->w != extent(p.x->w, c.padW, c.dilationW, p.w->w, c.strideW))
    return BAD_PARAM;
  if (p.x->type != p.w->type || p.x->type != p.y->type) return NOT_SUPPORTED;
  return SUCCESS;
}

enum Pass { FORWARD, DATA, WEIGHTS };

/// With channels last there is one algorithm that repeats its results, number 1, in every pass.
size_t workspace(const Problem& p, Pass pass) {
  return 256 + 4 * (pass == FORWARD ? size_t(p.y->n) * p.y->h : p.w->elements());
}

/// What the library proposes, best first: among it what must not be taken.
int propose(void* handle, const Problem& p, Pass pass, int wanted, int* returned, Performance* out) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (Status s = check(p)) return s;
  if (!returned || !out || wanted < 1) return BAD_PARAM;
  std::vector<Performance> all;
  if (pass != FORWARD) all.push_back({0, SUCCESS, -1, 0, NON_DETERMINISTIC, p.conv->math, {}});
  if (pass == FORWARD) all.push_back({6, SUCCESS, -1, 4096, DETERMINISTIC, p.conv->math, {}});  // Winograd's
  all.push_back({1, SUCCESS, -1, workspace(p, pass), DETERMINISTIC, p.conv->math, {}});
  all.push_back({pass == FORWARD ? 0 : 2, NOT_SUPPORTED, -1, 0, DETERMINISTIC, p.conv->math, {}});
  *returned = std::min(wanted, int(all.size()));
  std::copy_n(all.begin(), *returned, out);
  return SUCCESS;
}

int workspaceSize(void* handle, const Problem& p, Pass pass, int algorithm, size_t* bytes) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (Status s = check(p)) return s;
  if (!bytes) return BAD_PARAM;
  if (algorithm != 1) return NOT_SUPPORTED;
  *bytes = workspace(p, pass);
  return SUCCESS;
}

/// result = alpha * (the product of a and b) + beta * result.
int run(void* handle, const Problem& p, Pass pass, int algorithm, const void* alpha, const void* a, const void* b,
        const void* beta, void* result, void* scratch, size_t scratchBytes) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (Status s = check(p)) return s;
  if (!alpha || !beta || !a || !b || !result) return BAD_PARAM;
  if (algorithm != 1) return NOT_SUPPORTED;
  if (!scratch || scratchBytes < workspace(p, pass)) return BAD_PARAM;
  if (reinterpret_cast<uintptr_t>(scratch) % 16) return BAD_PARAM;
  Type type = Type::F32;
  typeOf(p.x->type, &type);
  for (auto at : {a, b, const_cast<const void*>(result)})
    if (reinterpret_cast<uintptr_t>(at) % bytes(type)) return BAD_PARAM;
  if (cuMemsetD8Async(reinterpret_cast<CUdeviceptr>(scratch), 0xff, scratchBytes, h->stream)) return EXECUTION_FAILED;
  float scale, keep;
  memcpy(&scale, alpha, sizeof scale);
  memcpy(&keep, beta, sizeof keep);
  Tensor x = *p.x, y = *p.y;
  Filter w = *p.w;
  Convolution c = *p.conv;
  bool round = type == Type::F32 && c.math != FMA_MATH;  // by default, tensor cores may be used
  size_t elements[] = {pass == DATA ? w.elements() : x.elements(), pass == FORWARD ? w.elements() : y.elements(),
                       pass == FORWARD ? y.elements()
                       : pass == DATA  ? x.elements()
                                       : w.elements()};
  auto convolve = [=](const std::vector<uint8_t*>& memory) {
    auto operand = [&](int which, size_t i) {
      float v = load(type, memory[which], i);
      return round ? tf32(v) : v;
    };
    std::vector<double> sums(elements[2]);
    for (int n = 0; n < y.n; n++)
      for (int oh = 0; oh < y.h; oh++)
        for (int ow = 0; ow < y.w; ow++)
          for (int r = 0; r < w.h; r++)
            for (int s = 0; s < w.w; s++) {
              int ih = oh * c.strideH - c.padH + r * c.dilationH, iw = ow * c.strideW - c.padW + s * c.dilationW;
              if (ih < 0 || ih >= x.h || iw < 0 || iw >= x.w) continue;
              for (int k = 0; k < y.c; k++) {
                size_t yAt = y.at(n, oh, ow, k);
                for (int ch = 0; ch < x.c; ch++) {
                  size_t xAt = x.at(n, ih, iw, ch), wAt = w.at(k, r, s, ch);
                  if (pass == FORWARD) sums[yAt] += double(operand(0, xAt)) * operand(1, wAt);
                  if (pass == DATA) sums[xAt] += double(operand(0, wAt)) * operand(1, yAt);
                  if (pass == WEIGHTS) sums[wAt] += double(operand(0, xAt)) * operand(1, yAt);
                }
              }
            }
    for (size_t i = 0; i < sums.size(); i++) {
      double value = sums[i] * scale;
      if (keep != 0) value += double(keep) * load(type, memory[2], i);
      store(type, memory[2], i, float(value));
    }
  };
  auto at = [](const void* p) { return reinterpret_cast<CUdeviceptr>(p); };
  CUresult r = h->staging.enqueue(h->stream,
                                  {{at(a), elements[0] * bytes(type), true, false},
                                   {at(b), elements[1] * bytes(type), true, false},
                                   {at(result), elements[2] * bytes(type), keep != 0, true}},
                                  convolve);
  return r ? EXECUTION_FAILED : SUCCESS;
}

}  // namespace

/// Tells it from NVIDIA's.
EXPORT int jtreluStandin() { return 1; }

EXPORT size_t cudnnGetVersion() { return CUDNN_MAJOR >= 9 ? CUDNN_MAJOR * 10000 : CUDNN_MAJOR * 1000; }

EXPORT int cudnnGetProperty(int property, int* value) {
  if (!value || property < 0 || property > 2) return BAD_PARAM;
  *value = property == 0 ? CUDNN_MAJOR : 0;
  return SUCCESS;
}

EXPORT const char* cudnnGetErrorString(int status) {
  switch (status) {
    case SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
    default: return "CUDNN_UNKNOWN_STATUS";
  }
}

EXPORT int cudnnCreate(void** out) {
  if (!out) return BAD_PARAM;
  auto* h = new Handle;
  if (cuCtxGetCurrent(&h->context) || !h->context) {
    delete h;
    return NOT_INITIALIZED;
  }
  *out = h;
  return SUCCESS;
}

EXPORT int cudnnDestroy(void* handle) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  if (cuStreamSynchronize(h->stream)) return EXECUTION_FAILED;
  return destroy<Handle>(h, HANDLE);
}

EXPORT int cudnnSetStream(void* handle, void* stream) {
  Handle* h;
  if (Status s = require(handle, &h)) return s;
  h->stream = stream;
  return SUCCESS;
}

EXPORT int cudnnCreateTensorDescriptor(void** out) { return create<Tensor>(out); }
EXPORT int cudnnDestroyTensorDescriptor(void* d) { return destroy<Tensor>(d, TENSOR); }
EXPORT int cudnnSetTensor4dDescriptor(void* d, int format, int type, int n, int c, int h, int w) {
  return set<TENSOR>(d, format, type, n, c, h, w);
}
EXPORT int cudnnCreateFilterDescriptor(void** out) { return create<Filter>(out); }
EXPORT int cudnnDestroyFilterDescriptor(void* d) { return destroy<Filter>(d, FILTER); }
EXPORT int cudnnSetFilter4dDescriptor(void* d, int type, int format, int k, int c, int h, int w) {
  return set<FILTER>(d, format, type, k, c, h, w);
}
EXPORT int cudnnCreateConvolutionDescriptor(void** out) { return create<Convolution>(out); }
EXPORT int cudnnDestroyConvolutionDescriptor(void* d) { return destroy<Convolution>(d, CONVOLUTION); }
EXPORT int cudnnSetConvolution2dDescriptor(void* d, int padH, int padW, int strideH, int strideW, int dilationH,
                                           int dilationW, int mode, int compute) {
  auto* c = static_cast<Convolution*>(d);
  if (!is(c, CONVOLUTION) || padH < 0 || padW < 0 || strideH <= 0 || strideW <= 0 || dilationH <= 0 || dilationW <= 0)
    return BAD_PARAM;
  *c = {CONVOLUTION, padH, padW, strideH, strideW, dilationH, dilationW, mode, compute, DEFAULT_MATH};
  return SUCCESS;
}
EXPORT int cudnnSetConvolutionMathType(void* d, int math) {
  auto* c = static_cast<Convolution*>(d);
  if (!is(c, CONVOLUTION) || math < DEFAULT_MATH || math > FMA_MATH) return BAD_PARAM;
  c->math = math;
  return SUCCESS;
}

EXPORT int cudnnGetConvolutionForwardAlgorithm_v7(void* h, void* x, void* w, void* conv, void* y, int wanted,
                                                  int* returned, Performance* out) {
  return propose(h, problem(x, w, conv, y), FORWARD, wanted, returned, out);
}
EXPORT int cudnnGetConvolutionBackwardDataAlgorithm_v7(void* h, void* w, void* y, void* conv, void* x, int wanted,
                                                       int* returned, Performance* out) {
  return propose(h, problem(x, w, conv, y), DATA, wanted, returned, out);
}
EXPORT int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void* h, void* x, void* y, void* conv, void* w, int wanted,
                                                         int* returned, Performance* out) {
  return propose(h, problem(x, w, conv, y), WEIGHTS, wanted, returned, out);
}

EXPORT int cudnnGetConvolutionForwardWorkspaceSize(void* h, void* x, void* w, void* conv, void* y, int algorithm,
                                                   size_t* bytes) {
  return workspaceSize(h, problem(x, w, conv, y), FORWARD, algorithm, bytes);
}
EXPORT int cudnnGetConvolutionBackwardDataWorkspaceSize(void* h, void* w, void* y, void* conv, void* x, int algorithm,
                                                        size_t* bytes) {
  return workspaceSize(h, problem(x, w, conv, y), DATA, algorithm, bytes);
}
EXPORT int cudnnGetConvolutionBackwardFilterWorkspaceSize(void* h, void* x, void* y, void* conv, void* w, int algorithm,
                                                          size_t* bytes) {
  return workspaceSize(h, problem(x, w, conv, y), WEIGHTS, algorithm, bytes);
}

EXPORT int cudnnConvolutionForward(void* h, const void* alpha, void* xDesc, const void* x, void* wDesc, const void* w,
                                   void* conv, int algorithm, void* scratch, size_t scratchBytes, const void* beta,
                                   void* yDesc, void* y) {
  return run(h, problem(xDesc, wDesc, conv, yDesc), FORWARD, algorithm, alpha, x, w, beta, y, scratch, scratchBytes);
}
EXPORT int cudnnConvolutionBackwardData(void* h, const void* alpha, void* wDesc, const void* w, void* dyDesc,
                                        const void* dy, void* conv, int algorithm, void* scratch, size_t scratchBytes,
                                        const void* beta, void* dxDesc, void* dx) {
  return run(h, problem(dxDesc, wDesc, conv, dyDesc), DATA, algorithm, alpha, w, dy, beta, dx, scratch, scratchBytes);
}
EXPORT int cudnnConvolutionBackwardFilter(void* h, const void* alpha, void* xDesc, const void* x, void* dyDesc,
                                          const void* dy, void* conv, int algorithm, void* scratch, size_t scratchBytes,
                                          const void* beta, void* dwDesc, void* dw) {
  return run(h, problem(xDesc, dwDesc, conv, dyDesc), WEIGHTS, algorithm, alpha, x, dy, beta, dw, scratch,
             scratchBytes);
}
