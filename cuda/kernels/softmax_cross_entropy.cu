// Softmax cross-entropy with label smoothing: loss, gradient and hit in one launch.
//
//   p = softmax(logits[i]);  t = (1 - smoothing) * onehot(label) + smoothing / classes
//   losses[i] = -sum_k t_k log p_k;  diff[i] = gradient_scale * (p - t)
//   correct[i] = 1 if label is the first largest logit
//
// A label of -1: all three are 0. Any other label outside [0, classes): loss NaN. Where a loss is not
// finite the row's gradient is NaN, so that the norm of the gradient tells of it.
// A warp owns a row and passes over it three times (maximum; sums; gradient); a row of 1000 classes
// stays in L1. diff may be logits: a lane reads each element before it writes it, and the label's
// logit is read before anything is written. Threads: 128 = 4 rows; no shared memory; aims at 40
// registers. Bound: latency (tiny). Limits: none. Oracle: SoftmaxCrossEntropyContract.
#include "reduce.cuh"
#include "storage.cuh"

struct SoftmaxCrossEntropyParameters {
  const void* logits;
  const int* labels;
  void* diff;
  float* losses;
  int* correct;
  int n;
  int classes;
  float smoothing;
  float gradient_scale;
};

constexpr int kThreads = 128;

template <typename T>
__device__ __forceinline__ void softmax_cross_entropy(const SoftmaxCrossEntropyParameters& p) {
  const long long row = static_cast<long long>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= p.n) {
    return;
  }
  const int lane = threadIdx.x % 32;
  const T* x = static_cast<const T*>(p.logits) + row * p.classes;
  T* diff = static_cast<T*>(p.diff) + row * p.classes;
  const int label = p.labels[row];
  if (label < 0 || label >= p.classes) {
    const float nothing = label == -1 ? 0.0f : __uint_as_float(0x7fffffffu);
    for (int k = lane; k < p.classes; k += 32) {
      diff[k] = narrow<T>(nothing);
    }
    if (lane == 0) {
      p.losses[row] = nothing;
      p.correct[row] = 0;
    }
    return;
  }
  const float labelled = widen(x[label]);
  float maximum = -__uint_as_float(0x7f800000u);
  bool beaten = false;
  for (int k = lane; k < p.classes; k += 32) {
    const float value = widen(x[k]);
    maximum = fmaxf(maximum, value);
    beaten = beaten || (k < label ? !(value < labelled) : !(value <= labelled));
  }
  maximum = warp_max(maximum);
  float exponentials = 0;
  float total = 0;  // of x - maximum, for the evenly spread share of the target
  for (int k = lane; k < p.classes; k += 32) {
    const float shifted = widen(x[k]) - maximum;
    exponentials += expf(shifted);
    total += shifted;
  }
  exponentials = warp_sum(exponentials);
  total = warp_sum(total);
  const bool any_beaten = __any_sync(0xffffffffu, beaten);
  const float spread = p.smoothing / static_cast<float>(p.classes);
  const float expected =
      (1.0f - p.smoothing) * (labelled - maximum) + (p.smoothing > 0 ? spread * total : 0.0f);
  const float loss = logf(exponentials) - expected;
  const bool finite = fabsf(loss) <= 3.402823466e38f;
  const float scale = finite ? p.gradient_scale : __uint_as_float(0x7fffffffu);
  for (int k = lane; k < p.classes; k += 32) {
    const float probability = expf(widen(x[k]) - maximum) / exponentials;
    const float target = (k == label ? 1.0f - p.smoothing : 0.0f) + spread;
    diff[k] = narrow<T>(scale * (probability - target));
  }
  if (lane == 0) {
    p.losses[row] = loss;
    p.correct[row] = any_beaten ? 0 : 1;
  }
}

ENTRY_POINTS(softmax_cross_entropy, SoftmaxCrossEntropyParameters, kThreads)
