// What conv2d_pool_fprop_sm90 and conv2d_pool_wgrad_sm90 share: a network's first convolution, 7x7 with stride 2 over images of four channels,
// its rectifier, and the 3x3 max-pooling with stride 2 behind it, as one. The tensor between them, the largest of a network, never exists.
//
// A row of an image lies in shared memory as in global memory, pixels of 8 bytes. The windows of neighbouring pixels of the convolution begin 16
// bytes apart, and rows of a matrix without a swizzle lie 16 bytes apart: so eight taps of a filter's row are a matrix of wgmma whose rows
// overlap, for all pixels of a row, and nothing is rearranged. The first tap or the last is one too many (a window begins at 16 bytes) and has no
// weight; where it sees a pixel that is not finite, sums are not finite either.
//
// An item is a strip of an image's pooled rows. Each of two warpgroups that multiply takes items in turn, from a ring of image rows of its own,
// which a thread fills by bulk copies of whole rows. Rows outside of the image are a row of zeros; there are zeros left and right of each.
//
// Places: which element of its window won, for the backward pass. Per pooled row five words for each of the 128 threads of a warpgroup, first
// those of all threads for bit 0. Bit 2 j + h of a thread's words is of channel 16 warp + 8 h + lane / 4 and pixel 4 j + lane % 4. Four words
// are the bits of 4 (2 - row) + 2 - column in the window, the fifth is whether the maximum is above zero.
#pragma once

#include <climits>
#include <cstdint>

#include "element.cuh"
#include "pipeline_sm90.cuh"

// Blocks: grid.x = min(items, multiprocessors), items = batch * strips.
struct Conv2dPoolSm90Params {
  TensorMap pooled;  //   0 [batch * pooledH * 56][1][64], boxes of 56 pixels: dst, or its gradient
  const void* src;  // 128 NHWC [batch, height, 224, 4]
  uint32_t* places;  // 136 [batch * pooledH, 5, 128]
  const void* filter;  // 144 fprop: packed weights [64][49][4]
  const float* bias;  // 152 fprop: [64]
  float* sums;  // 160 wgrad: from each block gradients of weights and bias, as conv2d_wgrad leaves
      //     those of a split
  float scale;  // 168
  float slope;  // 172
  int32_t items;  // 176
  int32_t strips;  // 180 of an image
  int32_t stripRows;  // 184 of a strip, the last one has what is left
  int32_t rows;  // 188 of an image: fprop: pooledH; wgrad: one more where the last row of the
      //     convolution lies in the window of the last pooled row as its third
  int32_t height;  // 192 of src
  int32_t outH;  // 196 of the convolution
  int32_t pooledH;  // 200
  int32_t padTop;  // 204 2 or 3
  int32_t padLeft;  // 208 2 or 3
  int32_t reserved[11];  // 212 zero
};
static_assert(sizeof(Conv2dPoolSm90Params) == 256, "padded to 64 bytes");

constexpr int kFilter = 7;  // rows, and taps of a row
constexpr int kOut = 64;  // channels
constexpr int kPooledW = 56;
constexpr int kBlocks = 14;  // of 8 pixels of a row of the convolution
constexpr int kImageBytes = 224 * 8;  // of a row
constexpr int kBorder = 32;  // zeros before each row, and so behind the one before
constexpr int kSlot = kBorder + kImageBytes;
constexpr int kStages = 8;  // of two rows
constexpr int kZeros = 2 * kStages;  // slot of a row of zeros
constexpr int kRingBytes = (kZeros + 1) * kSlot + kBorder;  // of a warpgroup
constexpr int kPooledBytes = kPooledW * 2 * kOut;  // of a row
constexpr int kPlaces = 5 * 128;  // words of a pooled row
constexpr int kGroups = 2;
constexpr int kRowsAtOnce = 4;  // stages that a filter meets

// mbarriers of a ring of kCount stages, full ones before empty ones; n counts stages from the start of the kernel.
template <int kCount>
struct PoolRing {
  uint32_t barriers;

  __device__ __forceinline__ static int stage(int n) { return n % kCount; }
  __device__ __forceinline__ uint32_t full(int n) const { return barriers + 8 * stage(n); }
  __device__ __forceinline__ uint32_t empty(int n) const { return full(n) + 8 * kCount; }
  __device__ __forceinline__ void awaitFull(int n) const { mbarrierWait(full(n), n / kCount & 1); }
  __device__ __forceinline__ void awaitEmpty(int n) const {
    mbarrierWait(empty(n), (n / kCount & 1) ^ 1);
  }
  // By each of the four warps that read it.
  __device__ __forceinline__ void handBack(int n) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      mbarrierArrive(empty(n));
    }
  }
  __device__ __forceinline__ void init() const {
    for (int i = 0; i < kCount; ++i) {
      mbarrierInit(full(i), 1);
      mbarrierInit(empty(i), 4);
    }
  }
};
using ImageRing = PoolRing<kStages>;

// An item: the pooled rows it owns, and the rows of the convolution and the pairs of image rows that it looks at; the last ones are not in
// it. Pooled row r is the maximum of rows 2 r - kBegin and the two below it; a backward pass does the first two of them.
template <int kBegin, bool kBackward>
struct PoolStrip {
  int image;
  int firstRow;
  int endRow;
  int top;
  int bottom;
  int firstPair;
  int endPair;

  __device__ __forceinline__ PoolStrip(const Conv2dPoolSm90Params& p, int item) {
    image = item / p.strips;
    firstRow = item % p.strips * p.stripRows;
    endRow = min(firstRow + p.stripRows, p.rows);
    top = max(2 * firstRow - kBegin, 0);
    bottom = min(2 * endRow - kBegin + (kBackward ? 0 : 1), p.outH);
    firstPair = max(pairOf(p, top), 0);
    endPair = min(pairOf(p, bottom - 1) + kRowsAtOnce, (p.height + 1) / 2);
  }
  // The first of those that a row of the convolution sees.
  __device__ __forceinline__ static int pairOf(const Conv2dPoolSm90Params& p, int row) {
    return row - (p.padTop + 1) / 2;
  }
};

// Fills a warpgroup's ring of image rows, by one thread.
template <int kBegin, bool kBackward>
__device__ __forceinline__ void loadImages(const Conv2dPoolSm90Params& p, uint32_t slots,
                                           ImageRing ring, int group) {
  int n = 0;
  for (int item = group * gridDim.x + blockIdx.x; item < p.items; item += gridDim.x * kGroups) {
    PoolStrip<kBegin, kBackward> const strip(p, item);
    const unsigned char* const image =
        static_cast<const unsigned char*>(p.src) + int64_t{strip.image} * p.height * kImageBytes;
    for (int pair = strip.firstPair; pair < strip.endPair; ++pair, ++n) {
      int const rows = min(p.height - 2 * pair, 2);
      ring.awaitEmpty(n);
      mbarrierArriveExpecting(ring.full(n), rows * kImageBytes);
      for (int i = 0; i < rows; ++i) {
        loadBytes(slots + (2 * ring.stage(n) + i) * kSlot + kBorder,
                  image + int64_t{2 * pair + i} * kImageBytes, kImageBytes, ring.full(n));
      }
    }
  }
}

// The image rows of an item, for those that multiply.
template <int kBegin, bool kBackward>
struct ImageRows {
  const Conv2dPoolSm90Params& p;
  uint32_t windows;  // of the first slot: where the window of the first pixel begins
  ImageRing ring;
  int begun = 0;  // stages before this item
  int firstPair = 0;
  int ready = 0;  // pairs that have come
  int done = 0;  // pairs that were handed back

  __device__ __forceinline__ ImageRows(const Conv2dPoolSm90Params& params, uint32_t slots,
                                       ImageRing images)
      : p(params), windows(slots + kBorder - (params.padLeft + 1) / 2 * 16), ring(images) {}

  __device__ __forceinline__ void begin(const PoolStrip<kBegin, kBackward>& strip) {
    begun += ready - firstPair;  // of the item before
    firstPair = ready = done = strip.firstPair;
  }
  // Until all are there that a row of the convolution sees.
  __device__ __forceinline__ void await(const PoolStrip<kBegin, kBackward>& strip, int row) {
    for (int end = min(strip.pairOf(p, row) + kRowsAtOnce, strip.endPair); ready < end; ++ready) {
      ring.awaitFull(begun + ready - firstPair);
    }
  }
  // Those that rows of the convolution from here on do not see.
  __device__ __forceinline__ void handBack(const PoolStrip<kBegin, kBackward>& strip, int row) {
    int const end = row < strip.bottom ? strip.pairOf(p, row) : strip.endPair;
    for (; done < end; ++done) {
      ring.handBack(begun + done - firstPair);
    }
  }
  // Where the windows begin, in the i-th row that a row of the convolution sees.
  __device__ __forceinline__ uint32_t at(int row, int i) const {
    int const h = 2 * row - p.padTop + i;
    bool const inside = static_cast<uint32_t>(h) < static_cast<uint32_t>(p.height);
    int const slot = 2 * ring.stage(begun + h / 2 - firstPair) + h % 2;
    return windows + (inside ? slot : kZeros) * kSlot;
  }
};

// Which byte of 0..3 from `low`, 4..7 from `high` each byte of the result is, by four bits; where the highest is set, all of its bits are the
// byte's sign.
template <uint32_t kBytes>
__device__ __forceinline__ uint32_t permute(uint32_t low, uint32_t high) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;\n" : "=r"(result) : "r"(low), "r"(high), "n"(kBytes));
  return result;
}

// Zeros, by all threads of a block.
__device__ __forceinline__ void clearShared(uint32_t from, int bytes) {
  for (int at = threadIdx.x * 16; at < bytes; at += blockDim.x * 16) {
    storeShared16(from + at, uint4{0, 0, 0, 0});
  }
}
