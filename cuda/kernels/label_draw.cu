// Labels drawn from a classifier's prediction; definition in io.jtrelu.backend.LabelDraw.
//
//   labels[i] = the first c with  sum over k <= c of exp(logits[i, k])  >=  u_i sum over all k
//   u_i       = uniform number of word 0 of block first + i of the Philox stream (seed, sequence)
//
// Given labels of -1 stay. The sequence number is read from memory, low word first, so that a captured
// launch draws others each time it runs. A warp owns a row and takes 32 classes at a time, in binary64
// as the host does, so that the same labels come out but where a rounding decides. Threads: 128 = 4
// rows; no shared memory; aims at 64 registers. Bound: latency (tiny). Limits: none. Oracle:
// LabelDrawContractTest.
#include "philox.cuh"
#include "reduce.cuh"
#include "storage.cuh"

struct LabelDrawParameters {
  const void* logits;
  const int* given;
  const unsigned* sequence;
  int* labels;
  unsigned long long seed;
  int n;
  int classes;
  int first;
};

constexpr int kThreads = 128;
constexpr unsigned kWarp = 0xffffffffu;

template <typename T>
__device__ __forceinline__ void label_draw(const LabelDrawParameters& p) {
  const int row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (row >= p.n) {
    return;
  }
  const int lane = threadIdx.x % 32;
  const T* x = static_cast<const T*>(p.logits) + static_cast<long long>(row) * p.classes;
  const unsigned long long sequence = p.sequence[0] | static_cast<unsigned long long>(p.sequence[1])
                                                          << 32;
  const unsigned word = philox(p.seed, sequence, p.first + row).word[0];
  const int given = p.given[row];
  float largest = -__uint_as_float(0x7f800000u);
  for (int k = lane; k < p.classes; k += 32) {
    largest = fmaxf(largest, widen(x[k]));
  }
  largest = warp_max(largest);
  double sum = 0;
  for (int k = lane; k < p.classes; k += 32) {
    sum += exp(static_cast<double>(widen(x[k])) - largest);
  }
  double left = uniform(word) * warp_sum(sum);
  int label = p.classes - 1;  // rounding may leave a rest
  for (int base = 0; base < p.classes; base += 32) {
    const int k = base + lane;
    double prefix = k < p.classes ? exp(static_cast<double>(widen(x[k])) - largest) : 0.0;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const double before = __shfl_up_sync(kWarp, prefix, distance);
      prefix += lane >= distance ? before : 0.0;
    }
    const unsigned reached = __ballot_sync(kWarp, k < p.classes && left - prefix <= 0);
    if (reached != 0) {
      label = base + __ffs(reached) - 1;
      break;
    }
    left -= __shfl_sync(kWarp, prefix, 31);
  }
  if (lane == 0) {
    p.labels[row] = given == -1 ? -1 : label;
  }
}

ENTRY_POINTS(label_draw, LabelDrawParameters, kThreads)
