// conv2d_pool_wgrad_sm90_*: the gradients of weights and bias of a 7x7 convolution with stride 2 over four channels, from the gradient behind a
// rectifier and 3x3 max-pooling with stride 2, for compute capability 9.0, by wgmma and TMA; the gradient between never leaves a thread.
//
//   diffBetween[n,y,x,k] = (y' > 0 ? 1 : slope) * sum of diff_dst[n,r,q,k] over the windows that (y, x) won, rounded to the type
//   gradient of W:    scale * sum_{n,y,x} diffBetween[n,y,x,k] * src[n, 2y - padTop + i, 2x - padLeft + j, c]
//   gradient of bias: scale * sum_{n,y,x} diffBetween[n,y,x,k]
//
// with y' the convolution's result, whose sign and place are conv2d_pool_fprop_sm90's `places`; sizes as there. It reads images, diff_dst and
// places. For 16 pixels of a row of the convolution: A is diffBetween, which a thread makes for the product in its registers; B of a row of the
// filter is 8 taps of 4 channels of the windows, by columns: 7 products of 64x32x16, 7/8 of them useful. Columns of windows meet in a thread since
// diff_dst is loaded by pairs of pixels that overlap, rows since up to two pooled rows are looked at.
//
// Sums stay in registers (112 of a thread's) over all items of a warpgroup; those of a block's two are added and leave once, as a split for
// conv2d_wgrad_reduce: so the grid decides their order, and they repeat. 384 threads; registers: 168 of the launch, 40 loading, 232 multiplying;
// 147 KiB of shared memory. Shared parts: conv2d_pool_sm90.cuh. Oracle: backend/reference (Conv2dPoolContractTest).
#include "conv2d_pool_sm90.cuh"

namespace {

constexpr int kPooledStages = 4;
constexpr int kGuard = 1024;  // zeros before a pooled row, and so behind the one before
constexpr int kPooledStage = kGuard + kPooledBytes;
constexpr int kPooledRing = kPooledStages * kPooledStage + kGuard;  // of a warpgroup
constexpr int kPlacesBytes = 4 * kPlaces;
constexpr int kPlacesAt = kGroups * kPooledRing;
constexpr int kSlots = kPlacesAt + kGroups * kPooledStages * kPlacesBytes;
constexpr int kBarriers = kSlots + kGroups * kRingBytes;
constexpr int kGroupBarriers = 16 * (kStages + kPooledStages);
constexpr int kBytes = kBarriers + kGroups * kGroupBarriers;
static_assert(kBytes == 150528, "HopperPool");

constexpr int kTaps = 49;
constexpr int kWeights = kOut * kTaps * 4;
constexpr int kSums = kWeights + kOut;  // from one block to the next
constexpr int kThreadSums = kFilter * 16 + 2;
static_assert(kThreadSums * 128 * 4 <= kGroups * kRingBytes,
              "a warpgroup's sums go where images were");
constexpr int kGroupsBarrier = 3;
constexpr uint32_t kAll = 0x0fffffffu;  // maxima of a thread

using PooledRing = PoolRing<kPooledStages>;

__device__ __forceinline__ void groupsBarrier() {
  asm volatile("bar.sync %0, %1;\n" ::"n"(kGroupsBarrier), "n"(kGroups * 128) : "memory");
}

// Where a warpgroup's part of shared memory is.
struct Memory {
  uint32_t base;
  int group;

  __device__ __forceinline__ uint32_t pooled(int stage) const {
    return base + group * kPooledRing + stage * kPooledStage + kGuard;
  }
  __device__ __forceinline__ uint32_t places(int stage) const {
    return base + kPlacesAt + (group * kPooledStages + stage) * kPlacesBytes;
  }
  __device__ __forceinline__ uint32_t slots() const { return base + kSlots + group * kRingBytes; }
  __device__ __forceinline__ ImageRing images() const {
    return {base + kBarriers + group * kGroupBarriers};
  }
  __device__ __forceinline__ PooledRing ring() const { return {images().barriers + 16 * kStages}; }
};

// Gradients and places of pooled rows, by one thread.
template <int kBegin>
__device__ __forceinline__ void loadPooled(const Conv2dPoolSm90Params& p, Memory memory) {
  PooledRing const ring = memory.ring();
  int n = 0;
  for (int item = memory.group * gridDim.x + blockIdx.x; item < p.items;
       item += gridDim.x * kGroups) {
    PoolStrip<kBegin, true> const strip(p, item);
    for (int r = max(strip.firstRow - 1, 0); r < min(strip.endRow, p.pooledH); ++r, ++n) {
      int const row = strip.image * p.pooledH + r;
      ring.awaitEmpty(n);
      mbarrierArriveExpecting(ring.full(n), kPooledBytes + kPlacesBytes);
      loadBox(memory.pooled(ring.stage(n)), p.pooled, ring.full(n), 0, 0, row * kPooledW);
      loadBytes(memory.places(ring.stage(n)), p.places + int64_t{row} * kPlaces, kPlacesBytes,
                ring.full(n));
    }
  }
}

// Which of a thread's maxima went to a row of the convolution: a bit for each. Of the two columns of a pair, one is in the middle of its window,
// and lies in no other; the other is at the edge of two, one of which is the neighbour's.
struct Won {
  uint32_t middle = 0;
  uint32_t edge = 0;
  uint32_t beside = 0;
  uint32_t middleAbove = 0;  // those that are above zero
  uint32_t edgeAbove = 0;
};

template <class T, int kBegin>
struct Backward {
  const Conv2dPoolSm90Params& p;
  Memory memory;
  ImageRows<kBegin, true> rows;
  int thread;
  uint32_t lanes;  // where the lane's rows of a pooled row are
  float sums[kFilter][1][16];
  float biasSums[4];
  uint32_t a[2][4];

  // Of a pooled row whose row kRow of windows it is.
  template <int kRow>
  __device__ __forceinline__ void find(Won& won, int stage) const {
    int const lane = thread % 4;
    bool const far = lane == (kBegin == 1 ? 3 : 0);  // the neighbour is in another block
    int const step = kBegin == 1 ? 1 : -1;
    uint32_t const own = memory.places(stage) + thread * 4;
    uint32_t const other = own + (far ? -3 * step : step) * 4;
    uint32_t bits[5];
    uint32_t besides[5];
#pragma unroll
    for (int i = 0; i < 5; ++i) {
      bits[i] = loadShared4(own + i * 512);
      uint32_t const word = loadShared4(other + i * 512);
      besides[i] = !far ? word : kBegin == 1 ? word >> 2 : word << 2;
    }
    auto const row = [](const uint32_t(&of)[5]) {
      return (kRow == 0 ? of[3] : ~of[3]) & (kRow == 1 ? of[2] : ~of[2]);
    };
    uint32_t const inRow = row(bits) & kAll;
    // A neighbour outside of the image has no bits.
    uint32_t const besideInRow = row(besides) & (far && kBegin == 0 ? kAll & ~3u : kAll);
    uint32_t const middle = inRow & ~bits[1] & bits[0];
    uint32_t const edge = inRow & (kBegin == 1 ? ~bits[1] : bits[1]) & ~bits[0];
    uint32_t const beside = besideInRow & (kBegin == 1 ? besides[1] : ~besides[1]) & ~besides[0];
    won.middle = middle;
    won.edge = edge;
    won.beside = beside;
    won.middleAbove |= middle & bits[4];
    won.edgeAbove |= (edge & bits[4]) | (beside & besides[4]);
  }

  // Adds what element e of a pooled row, which `d` holds with its neighbour, gives to a pair of columns.
  template <int kElement>
  __device__ __forceinline__ void add(float2& sum, const Won& won, uint32_t d) const {
    constexpr int kShift = 7 - kElement % 8;
    constexpr uint32_t kSign = 8 + kElement / 8;  // of the byte where the bit is then the highest
    constexpr uint32_t kTwo = kSign * 0x11;
    constexpr uint32_t kBoth = kTwo | (kTwo + 0x44) << 8;
    uint32_t const middle = won.middle << kShift;
    uint32_t const beside = won.beside << kShift;
    float2 const one = unpackPair<T>(
        d & (kBegin == 1 ? permute<kBoth>(middle, beside) : permute<kBoth>(beside, middle)));
    uint32_t const edge = won.edge << kShift;
    float2 const two = unpackPair<T>(d & permute<kTwo * 0x101>(edge, edge));
    sum.x += one.x;
    sum.y += one.y;
    if (kBegin == 1) {
      sum.y += two.x;
    } else {
      sum.x += two.y;
    }
  }

  template <int kElement>
  __device__ __forceinline__ uint32_t element(const Won& first, const Won& second, bool both,
                                              uint32_t d, uint32_t e) const {
    float2 sum = {0.0f, 0.0f};
    add<kElement>(sum, first, d);
    if (both) {
      add<kElement>(sum, second, e);
    }
    uint32_t const edge = first.edgeAbove >> kElement & 1;
    uint32_t const middle = first.middleAbove >> kElement & 1;
    sum.x *= (kBegin == 1 ? middle : edge) != 0 ? 1.0f : p.slope;
    sum.y *= (kBegin == 1 ? edge : middle) != 0 ? 1.0f : p.slope;
    return T::pack(sum.x, sum.y);
  }

  // Multiplies a row of the convolution, 16 pixels after 16. `first` tells of pooled row `stage`, `second` of the other one.
  template <bool kMiddle>
  __device__ __forceinline__ void multiply(int row, const Won& first, int stage, const Won& second,
                                           int other) {
    uint32_t const d = memory.pooled(stage) + lanes;
    uint32_t const e = memory.pooled(other) + lanes;
    uint64_t b[kFilter];
#pragma unroll
    for (int i = 0; i < kFilter; ++i) {
      b[i] = columnsOf(rows.at(row, i), 16);
    }
    step<kMiddle, 0>(first, second, d, e, b);
    step<kMiddle, 1>(first, second, d, e, b);
    step<kMiddle, 2>(first, second, d, e, b);
    step<kMiddle, 3>(first, second, d, e, b);
    step<kMiddle, 4>(first, second, d, e, b);
    step<kMiddle, 5>(first, second, d, e, b);
    step<kMiddle, 6>(first, second, d, e, b);
  }

  template <bool kMiddle, int kStep>
  __device__ __forceinline__ void step(const Won& first, const Won& second, uint32_t d, uint32_t e,
                                       const uint64_t (&b)[kFilter]) {
    uint32_t(&to)[4] = a[(kStep + (kMiddle ? 1 : 0)) % 2];  // rows of both kinds take turns
    uint32_t own[4];
    uint32_t others[4] = {};
    loadMatricesTransposed(own, d + kStep * 1024);
    if (!kMiddle) {
      loadMatricesTransposed(others, e + kStep * 1024);
    }
    to[0] = element<4 * kStep>(first, second, !kMiddle, own[0], others[0]);
    to[1] = element<4 * kStep + 1>(first, second, !kMiddle, own[1], others[1]);
    to[2] = element<4 * kStep + 2>(first, second, !kMiddle, own[2], others[2]);
    to[3] = element<4 * kStep + 3>(first, second, !kMiddle, own[3], others[3]);
    T::multiply(biasSums, to, T::kOnes, T::kOnes);  // a matrix of ones sums the pixels
    hold(sums);
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // computed before the fence, not after it
      asm volatile("" : "+r"(to[i]));
    }
    wgmmaFence();
#pragma unroll
    for (int i = 0; i < kFilter; ++i) {
      Wgmma<T>::template multiply<1>(sums[i][0], to, b[i] + kStep * 16, true);
    }
    wgmmaCommit();
    wgmmaWait<1>();
  }
};

template <class T, int kBegin>
__device__ __forceinline__ void multiplyBackward(const Conv2dPoolSm90Params& p, uint32_t base) {
  int const group = __shfl_sync(0xffffffffu, threadIdx.x / 128 - 1, 0);
  int const thread = threadIdx.x % 128;
  int const warp = thread / 32;
  int const lane = thread % 32;
  Memory const memory{base, group};
  PooledRing const ring = memory.ring();
  Backward<T, kBegin> on{p, memory, {p, memory.slots(), memory.images()}, thread};
  // Row i of a matrix is of pixel i / 2 + i % 2 of a block, or of one before.
  int const pixel = lane / 16 * 4 + (lane % 8 + 1) / 2 - (1 - kBegin);
  on.lanes = pixel * 128 + (((warp * 2 + lane / 8 % 2) ^ (pixel & 7)) << 4);
#pragma unroll
  for (int i = 0; i < kFilter * 16; ++i) {
    on.sums[i / 16][0][i % 16] = 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    on.biasSums[i] = 0.0f;
  }
  int n = 0;  // pooled rows before this one
  for (int item = group * gridDim.x + blockIdx.x; item < p.items; item += gridDim.x * kGroups) {
    PoolStrip<kBegin, true> const strip(p, item);
    on.rows.begin(strip);
    if (strip.firstRow > 0) {
      ring.awaitFull(n++);
    }
    for (int r = strip.firstRow; r < strip.endRow; ++r) {
      bool const above = r > 0;
      bool const here = r < p.pooledH;
      int const y = 2 * r - kBegin;
      if (here) {
        ring.awaitFull(n);
      }
      int const stage = ring.stage(n);
      int const before = ring.stage(n + kPooledStages - 1);
      if (y >= 0) {
        Won first;
        Won second;
        if (above) {
          on.template find<2>(first, before);
        }
        if (here) {
          on.template find<0>(second, stage);
        }
        first.middleAbove |= second.middleAbove;
        first.edgeAbove |= second.edgeAbove;
        on.rows.await(strip, y);
        on.template multiply<false>(y, first, above ? before : stage, second,
                                    here ? stage : before);
      }
      if (above) {
        ring.handBack(n - 1);
      }
      if (here) {
        on.rows.handBack(strip, y);
        Won first;
        on.template find<1>(first, stage);
        on.rows.await(strip, y + 1);
        on.template multiply<true>(y + 1, first, stage, first, stage);
        on.rows.handBack(strip, y + 1);
        ++n;
      }
    }
    wgmmaWait<0>();
    hold(on.sums);
    on.rows.handBack(strip, strip.bottom);
    if (strip.endRow <= p.pooledH) {
      ring.handBack(n - 1);
    }
  }

  // The second warpgroup's sums are added to the first's.
  uint32_t const shared = base + kSlots + thread * 4;
  groupsBarrier();
  if (group == 1) {
#pragma unroll
    for (int i = 0; i < kFilter * 16; ++i) {
      storeShared4(shared + i * 512, __float_as_uint(on.sums[i / 16][0][i % 16]));
    }
    storeShared4(shared + kFilter * 16 * 512, __float_as_uint(on.biasSums[0]));
    storeShared4(shared + (kFilter * 16 + 1) * 512, __float_as_uint(on.biasSums[2]));
  }
  groupsBarrier();
  if (group == 1) {
    return;
  }
  float* const to = p.sums + int64_t{blockIdx.x} * kSums;
  int const k = warp * 16 + lane / 4;
  int const spare = p.padLeft % 2;  // taps before the first
#pragma unroll
  for (int i = 0; i < kFilter * 8; ++i) {
    int const tap = i % 8 / 2 * 2 + lane % 4 / 2 - spare;
    const float* const sum = &on.sums[i / 8][0][i % 8 * 2];
    float2 const all = {
        p.scale * (sum[0] + __uint_as_float(loadShared4(shared + 2 * i * 512))),
        p.scale * (sum[1] + __uint_as_float(loadShared4(shared + (2 * i + 1) * 512)))};
    if (static_cast<uint32_t>(tap) < static_cast<uint32_t>(kFilter)) {
      int const at = ((k + i % 2 * 8) * kFilter + i / 8) * kFilter + tap;
      *reinterpret_cast<float2*>(to + at * 4 + lane % 2 * 2) = all;
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float const other = __uint_as_float(loadShared4(shared + (kFilter * 16 + h) * 512));
    if (lane % 4 == 0) {
      to[kWeights + k + h * 8] = p.scale * (on.biasSums[2 * h] + other);
    }
  }
}

template <class T, int kBegin>
__device__ __forceinline__ void poolBackward(const Conv2dPoolSm90Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  uint32_t const base = sharedAddress(shared);
  if (threadIdx.x == 0) {
    for (int group = 0; group < kGroups; ++group) {
      Memory const memory{base, group};
      memory.images().init();
      memory.ring().init();
    }
    mbarrierInitFence();
  }
  clearShared(base, kBarriers);
  proxyFence();
  __syncthreads();
  awaitKernelsAhead();
  if (threadIdx.x < 128) {
    giveRegisters<40>();
    int const warp = threadIdx.x / 32;
    Memory const memory{base, warp % kGroups};
    if (elected()) {
      if (warp < kGroups) {
        loadImages<kBegin, true>(p, memory.slots(), memory.images(), memory.group);
      } else {
        loadPooled<kBegin>(p, memory);
      }
      letNextStart();
    }
  } else {
    takeRegisters<232>();
    multiplyBackward<T, kBegin>(p, base);
  }
}

}  // namespace

#define POOL(name, type, begin)                                                                    \
  extern "C" __global__ void __launch_bounds__(384, 1)                                             \
      name(const __grid_constant__ Conv2dPoolSm90Params params) {                                  \
    poolBackward<type, begin>(params);                                                             \
  }
POOL(conv2d_pool_wgrad_sm90_bf16_0, Bf16, 0)
POOL(conv2d_pool_wgrad_sm90_bf16_1, Bf16, 1)
POOL(conv2d_pool_wgrad_sm90_f16_0, F16, 0)
POOL(conv2d_pool_wgrad_sm90_f16_1, F16, 1)
