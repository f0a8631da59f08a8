// conv2d_pool_fprop_sm90_*: a 7x7 convolution with stride 2 over four channels, a rectifier and 3x3 max-pooling with stride 2 as one pass, for
// compute capability 9.0, by wgmma; what lies between never leaves the multiprocessor.
//
//   dst[n,r,q,k]    = max of between[n,y,x,k] over y = 2r - kBegin + {0,1,2}, x = 2q - kBegin + {0,1,2} inside
//   between[n,y,x,k] = phi(bias[k] + sum_{i,j,c} src[n, 2y - padTop + i, 2x - padLeft + j, c] * W[k,i,j,c]), rounded to the type
//   places           = which of the window won, the first in row-major order, and whether it is above zero; a NaN wins
//
// src NHWC of 224 columns and 4 channels, dst of 56 and 64; kBegin 0 or 1, padTop and padLeft 2 or 3, any height; bf16 or f16, sums and bias f32.
// Of 64 channels a row of the convolution is W (64 x 7 rows of 8 taps of 4 channels) times its windows: 14 products of 64x112x16, 7/8 of them
// useful. It reads images once and writes the quarter that is pooled, and five bits for each of its elements: 1/3 of what the convolution alone
// moves. A value that is negative and rounded to zero counts as below zero.
//
// W stays in registers (56 of a thread's). Sums come in two parts of 64 and 48 pixels; the second is multiplied while the first is rectified and
// joins the maxima, and the other warpgroup multiplies while the second is. A maximum and its place are one whole number: the value's bits, in order, above
// those of the place. Rows of a window meet in a thread, columns by one shuffle. 384 threads; registers: 168 of the launch, 40 loading, 232
// multiplying; 75 KiB of shared memory. Shared parts: conv2d_pool_sm90.cuh. Oracle: backend/reference (Conv2dPoolContractTest).
#include "conv2d_pool_sm90.cuh"

namespace {

constexpr int kFirst = 8;  // blocks of pixels in the first part of a row
constexpr int kSecond = kBlocks - kFirst;
constexpr int kStaged = 0;  // a pooled row of each warpgroup, rows of 128 bytes swizzled by as many
constexpr int kSlots = kStaged + kGroups * kPooledBytes;
constexpr int kBarriers = kSlots + kGroups * kRingBytes;
constexpr int kBytes = kBarriers + kGroups * 16 * kStages;
static_assert(kBytes == 76672, "HopperPool");

// What a thread knows of a row of maxima.
struct Winners {
  int keys[kBlocks][2][2];  // the largest so far, of a block, a channel and one of two pixels
  int beside[2];  // what the block before has for its neighbour
  uint32_t places[4];  // four bits each of every fourth maximum
  uint32_t positive;
  int values[2];  // of the block before
};

template <class T, int kBegin>
struct Forward {
  const Conv2dPoolSm90Params& p;
  int group;
  int thread;  // of the warpgroup
  uint32_t row;  // in shared memory
  float bias[2];
  float negative;  // factor below zero
  uint32_t staged;  // where the lane's matrices go
  Winners won;

  // Blocks are visited so that a pixel's neighbour comes before it.
  __device__ __forceinline__ static constexpr int blockOf(int i) {
    return kBegin == 1 ? i : kBlocks - 1 - i;
  }

  // Two pixels of a channel as keys, whose places tell of a row, by `code`, and of no column yet.
  __device__ __forceinline__ void keysOf(const float* sums, float of, int code, int (&keys)[2]) {
    float const x = sums[0] + of;
    float const y = sums[1] + of;
    uint32_t const both = T::pack(fmaf(x, x > 0.0f ? p.scale : negative, 0.0f),
                                  fmaf(y, y > 0.0f ? p.scale : negative, 0.0f));
    uint32_t const ordered = both ^ (permute<0xbb99>(both, both) & 0x7fff7fffu);
    keys[0] = static_cast<int>(permute<0x1054>(ordered, code));
    keys[1] = static_cast<int>(permute<0x3254>(ordered, code));
  }

  // Maxima of a block's windows, from those of their columns.
  __device__ __forceinline__ void finishBlock(int i, int h, const int (&columns)[2]) {
    int const lane = thread % 32;
    int const near = columns[kBegin];  // which is in the neighbour's window too
    int const given = lane % 4 == (kBegin == 1 ? 3 : 0) ? won.beside[h] : near;
    won.beside[h] = near;
    int const from = (lane & ~3) | ((lane + (kBegin == 1 ? 3 : 1)) & 3);
    int const other = __shfl_sync(0xffffffffu, given, from);
    int const first = kBegin == 1 ? other : columns[0];
    int const middle = kBegin == 1 ? columns[0] : columns[1];
    int const last = kBegin == 1 ? columns[1] : other;
    int const best = max(max(first + 2, middle + 1), last);
    int const e = 2 * blockOf(i) + h;
    won.places[e % 4] |= static_cast<uint32_t>(best & 15) << e / 4 * 4;
    // Above zero, and no NaN.
    if (static_cast<uint32_t>(best) - 0x10000u < (T::kInfinity << 16)) {
      won.positive |= 1u << e;
    }
    if (i % 2 == 0) {
      won.values[h] = best;
      return;
    }
    uint32_t const ordered =
        kBegin == 1 ? permute<0x7632>(won.values[h], best) : permute<0x7632>(best, won.values[h]);
    won.values[h] = static_cast<int>(ordered ^ (permute<0xbb99>(ordered, ordered) & 0x7fff7fffu));
    if (h == 1) {
      storeMatricesTransposed(staged + blockOf(i) / 2 * 1024, won.values[0], won.values[1]);
    }
  }

  // Blocks from i on of which these are the sums: joins the row, whose place in its windows `code` tells.
  template <int kFrom, int kCount>
  __device__ __forceinline__ void join(const float (&sums)[1][1][4 * kCount], int code) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        int keys[2];
        keysOf(&sums[0][0][4 * (kBegin == 1 ? i : kCount - 1 - i) + 2 * h], bias[h], code, keys);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          won.keys[kFrom + i][h][e] = max(won.keys[kFrom + i][h][e], keys[e]);
        }
      }
    }
  }

  // The same of the last row of windows, which is the first of those below.
  template <int kFrom, int kCount>
  __device__ __forceinline__ void finish(const float (&sums)[1][1][4 * kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        int keys[2];
        keysOf(&sums[0][0][4 * (kBegin == 1 ? i : kCount - 1 - i) + 2 * h], bias[h], 0, keys);
        int columns[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          columns[e] = max(won.keys[kFrom + i][h][e], keys[e]);
          won.keys[kFrom + i][h][e] = keys[e] + 8;
        }
        finishBlock(kFrom + i, h, columns);
      }
    }
  }

  __device__ __forceinline__ void forget() {
#pragma unroll
    for (int i = 0; i < kBlocks * 4; ++i) {
      won.keys[i / 4][i / 2 % 2][i % 2] = INT_MIN;
    }
  }

  // Before the first maximum of a row.
  __device__ __forceinline__ void beginRow() {
    won.beside[0] = won.beside[1] = INT_MIN;
    won.positive = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      won.places[i] = 0;
    }
    if (thread == 0) {
      bulkWaitRead<0>();
    }
    warpgroupBarrier(1 + group);
  }

  // Behind the last one: the row leaves.
  __device__ __forceinline__ void endRow(int number) {
    proxyFence();
    warpgroupBarrier(1 + group);
    if (thread == 0) {
      storeBox(p.pooled, row, 0, 0, number * kPooledW);
      bulkCommit();
    }
    uint32_t* const to = p.places + int64_t{number} * kPlaces + thread;
#pragma unroll
    for (int bit = 0; bit < 4; ++bit) {
      uint32_t word = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        word |= (won.places[e] >> bit & 0x11111111u) << e;
      }
      to[bit * 128] = word;
    }
    to[4 * 128] = won.positive;
  }
};

// W as A of the products: two of each row of the filter, four taps of four channels each.
__device__ __forceinline__ void loadFilter(const Conv2dPoolSm90Params& p, int thread,
                                           uint32_t (&filter)[kFilter][2][4]) {
  int const spare = p.padLeft % 2;  // taps before the first
  const uint32_t* const words = static_cast<const uint32_t*>(p.filter);  // two channels
#pragma unroll
  for (int i = 0; i < kFilter * 8; ++i) {
    int const k = thread / 32 * 16 + thread % 32 / 4 + i % 2 * 8;
    int const tap = i / 4 % 2 * 4 + i / 2 % 2 * 2 + thread % 4 / 2 - spare;
    bool const is = static_cast<uint32_t>(tap) < static_cast<uint32_t>(kFilter);
    int const at = ((k * kFilter + i / 8) * kFilter + tap) * 2 + thread % 2;
    filter[i / 8][i / 4 % 2][i % 4] = is ? __ldg(words + at) : 0;
  }
}

// The warpgroups give their products in turn, for as long as both have rows: so while one multiplies, the other rectifies.
template <int kBegin>
struct Turns {
  static constexpr int kBarrier = 3;  // of the first warpgroup's turn; the next is of the second's
  int group;
  int left;

  __device__ __forceinline__ Turns(const Conv2dPoolSm90Params& p, int own) : group(own) {
    int rows[kGroups] = {};
    for (int of = 0; of < kGroups; ++of) {
      for (int item = of * gridDim.x + blockIdx.x; item < p.items; item += gridDim.x * kGroups) {
        PoolStrip<kBegin, false> const strip(p, item);
        rows[of] += strip.bottom - strip.top;
      }
    }
    left = min(rows[0], rows[1]);
    if (group == 1 && left > 0) {
      arrive(0);
    }
  }
  __device__ __forceinline__ static void arrive(int of) {
    asm volatile("bar.arrive %0, 256;\n" ::"r"(kBarrier + of) : "memory");
  }
  __device__ __forceinline__ void begin() const {
    if (left > 0) {
      asm volatile("bar.sync %0, 256;\n" ::"r"(kBarrier + group) : "memory");
    }
  }
  __device__ __forceinline__ void end() {
    if (left > group) {  // the last turn is the second warpgroup's
      arrive(1 - group);
    }
    --left;
  }
};

template <class T, int kBegin>
__device__ __forceinline__ void multiplyForward(const Conv2dPoolSm90Params& p, uint32_t base) {
  int const group = __shfl_sync(0xffffffffu, threadIdx.x / 128 - 1, 0);
  int const thread = threadIdx.x % 128;
  int const lane = thread % 32;
  uint32_t filter[kFilter][2][4];
  loadFilter(p, thread, filter);
  Forward<T, kBegin> at{p, group, thread, base + kStaged + group * kPooledBytes};
  at.negative = p.scale * p.slope;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    at.bias[h] = __ldg(p.bias + thread / 32 * 16 + h * 8 + lane / 4);
  }
  int const pixel = lane % 2 * 4 + lane % 8 / 2;
  at.staged = at.row + pixel * 128 + (((thread / 32 * 2 + lane / 8 % 2) ^ pixel) << 4);
  ImageRows<kBegin, false> rows(p, base + kSlots + group * kRingBytes,
                                ImageRing{base + kBarriers + group * 16 * kStages});
  Turns<kBegin> turns(p, group);
  float first[1][1][4 * kFirst];
  float second[1][1][4 * kSecond];
  constexpr int kFirstAt = kBegin == 1 ? 0 : kSecond * 8;  // pixels
  constexpr int kSecondAt = kBegin == 1 ? kFirst * 8 : 0;
  auto multiply = [&](auto& sums, int row, int pixels) {
    wgmmaFence();
#pragma unroll
    for (int i = 0; i < kFilter; ++i) {
      uint64_t const b = windowOf(rows.at(row, i) + pixels * 16);
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        Wgmma<T>::template multiply<0>(sums[0][0], filter[i][u], b + 2 * u, i + u > 0);
      }
    }
    wgmmaCommit();
  };
  for (int item = group * gridDim.x + blockIdx.x; item < p.items; item += gridDim.x * kGroups) {
    PoolStrip<kBegin, false> const strip(p, item);
    rows.begin(strip);
    at.forget();
    for (int y = strip.top; y < strip.bottom; ++y) {
      int const above = (y + kBegin) / 2 - 1;  // whose last row this may be
      bool const last = (y + kBegin) % 2 == 0 && above >= strip.firstRow;
      int const code = (y + kBegin) % 2 == 0 ? 8 : 4;
      rows.await(strip, y);
      turns.begin();
      multiply(first, y, kFirstAt);
      multiply(second, y, kSecondAt);
      turns.end();
      wgmmaWait<1>();
      hold(first);
      if (last) {
        at.beginRow();
        at.template finish<0, kFirst>(first);
      } else {
        at.template join<0, kFirst>(first, code);
      }
      wgmmaWait<0>();
      hold(second);
      rows.handBack(strip, y + 1);
      if (last) {
        at.template finish<kFirst, kSecond>(second);
        at.endRow(strip.image * p.pooledH + above);
      } else {
        at.template join<kFirst, kSecond>(second, code);
      }
    }
    if (2 * strip.endRow - kBegin >= p.outH) {  // the last row of windows lies below the image
      at.beginRow();
#pragma unroll
      for (int i = 0; i < kBlocks * 2; ++i) {
        at.finishBlock(i / 2, i % 2, at.won.keys[i / 2][i % 2]);
      }
      at.endRow(strip.image * p.pooledH + strip.endRow - 1);
    }
  }
  if (thread == 0) {
    bulkWaitRead<0>();
  }
}

template <class T, int kBegin>
__device__ __forceinline__ void poolForward(const Conv2dPoolSm90Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  uint32_t const base = sharedAddress(shared);
  if (threadIdx.x == 0) {
    for (int group = 0; group < kGroups; ++group) {
      ImageRing{base + kBarriers + group * 16 * kStages}.init();
    }
    mbarrierInitFence();
  }
  clearShared(base + kSlots, kGroups * kRingBytes);
  proxyFence();
  __syncthreads();
  awaitKernelsAhead();
  if (threadIdx.x < 128) {
    giveRegisters<40>();
    int const group = threadIdx.x / 32;
    if (group < kGroups && elected()) {
      loadImages<kBegin, false>(p, base + kSlots + group * kRingBytes,
                                ImageRing{base + kBarriers + group * 16 * kStages}, group);
      letNextStart();
    }
  } else {
    takeRegisters<232>();
    multiplyForward<T, kBegin>(p, base);
  }
}

}  // namespace

#define POOL(name, type, begin)                                                                    \
  extern "C" __global__ void __launch_bounds__(384, 1)                                             \
      name(const __grid_constant__ Conv2dPoolSm90Params params) {                                  \
    poolForward<type, begin>(params);                                                              \
  }
POOL(conv2d_pool_fprop_sm90_bf16_0, Bf16, 0)
POOL(conv2d_pool_fprop_sm90_bf16_1, Bf16, 1)
POOL(conv2d_pool_fprop_sm90_f16_0, F16, 0)
POOL(conv2d_pool_fprop_sm90_f16_1, F16, 1)
