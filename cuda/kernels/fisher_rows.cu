// What the filters of a convolution see, in two forms; definition in io.jtrelu.backend.FisherRows.
//
// fisher_rows: sums over the places that each tap of the filter sees, a row for each image.
//
//   rows[n, (r, s, c)] = factor * sum over y, x of src[n, y stride_h - pad_top + r dilation_h,
//                                                         x stride_w - pad_left + s dilation_w, c]
//   rows[n, kh kw ic]  = 1 where the row is longer than that
//
// Outside of the image src is 0, so a tap's sum runs over the places that it sees inside. With one tap
// it is the sum over all pixels: of gradients. Layout NHWC. A block of 32 channels x 8 rows of places
// for one image and tap; each row sums every eighth place, the rows are added in order in 1 KiB of
// shared memory. The taps of a window read the same pixels, which stay in L2. Threads: 256; aims at 40
// registers. Bound: L2 (one pass over src for each tap). Limits: none. Oracle:
// FisherRowsContractTest.
//
// fisher_patches: a row for each place, t of oh ow.
//
//   rows[n oh ow + t, (r, s, c)] = factor * src[n, y stride_h - pad_top + r dilation_h, x stride_w - ...]
//   rows[n oh ow + t, kh kw ic]  = factor where the row is longer than that
//
// A block for 256 neighbouring elements of a row. Threads: 256; aims at 40 registers. Bound: memory,
// one pass over the rows. Limits, oracle: as above.
#include "storage.cuh"

struct FisherRowsParameters {
  const void* src;  // [n, h, w, c]
  float* rows;  // [n, width]
  int h;
  int w;
  int c;
  int oh;
  int ow;
  int kh;
  int kw;
  int stride_h;
  int stride_w;
  int pad_top;
  int pad_left;
  int dilation_h;
  int dilation_w;
  int width;
  float factor;
};

constexpr int kLanes = 32;
constexpr int kRows = 8;
constexpr int kThreads = kLanes * kRows;

// Places [first, end) of `count` whose pixel, place * stride + origin, lies in [0, extent).
struct Range {
  int first;
  int end;
};

__device__ __forceinline__ Range seen(int origin, int stride, int extent, int count) {
  const int first = origin >= 0 ? 0 : (-origin + stride - 1) / stride;
  const int end = origin >= extent ? 0 : (extent - 1 - origin) / stride + 1;
  return {first, end < count ? end : count};
}

template <typename T>
__device__ __forceinline__ void fisher_rows(const FisherRowsParameters& p) {
  __shared__ float partial[kRows][kLanes];
  const int lane = threadIdx.x % kLanes;
  const int row = threadIdx.x / kLanes;
  const int tiles = (p.c + kLanes - 1) / kLanes;
  const int taps = p.kh * p.kw;
  const int c = blockIdx.x % tiles * kLanes + lane;
  const int tap = blockIdx.x / tiles % taps;
  const long long image = blockIdx.x / tiles / taps;
  const int top = tap / p.kw * p.dilation_h - p.pad_top;
  const int left = tap % p.kw * p.dilation_w - p.pad_left;
  const Range ys = seen(top, p.stride_h, p.h, p.oh);
  const Range xs = seen(left, p.stride_w, p.w, p.ow);
  const int across = xs.end - xs.first;
  float sum = 0;
  if (c < p.c && across > 0) {
    const T* src = static_cast<const T*>(p.src) + image * p.h * p.w * p.c + c;
    int y = ys.first + row / across;
    int x = row % across;
    while (y < ys.end) {
      const long long pixel =
          static_cast<long long>(y * p.stride_h + top) * p.w + (xs.first + x) * p.stride_w + left;
      sum += widen(src[pixel * p.c]);
      x += kRows;
      while (x >= across) {
        x -= across;
        ++y;
      }
    }
  }
  partial[row][lane] = sum;
  __syncthreads();
  if (row == 0 && c < p.c) {
#pragma unroll
    for (int other = 1; other < kRows; ++other) {
      sum += partial[other][lane];
    }
    float* to = p.rows + image * p.width;
    to[static_cast<long long>(tap) * p.c + c] = sum * p.factor;
    if (tap == 0 && c == 0 && static_cast<long long>(taps) * p.c < p.width) {
      to[p.width - 1] = 1;
    }
  }
}

template <typename T>
__device__ __forceinline__ void fisher_patches(const FisherRowsParameters& p) {
  const int tiles = (p.width + kThreads - 1) / kThreads;
  const int column = static_cast<int>(blockIdx.x % tiles) * kThreads + threadIdx.x;
  const int place = blockIdx.x / tiles % (p.oh * p.ow);
  const long long image = blockIdx.x / tiles / (p.oh * p.ow);
  if (column >= p.width) {
    return;
  }
  const int tap = column / p.c;
  float value = tap == p.kh * p.kw ? 1 : 0;
  if (tap < p.kh * p.kw) {
    const int y = place / p.ow * p.stride_h - p.pad_top + tap / p.kw * p.dilation_h;
    const int x = place % p.ow * p.stride_w - p.pad_left + tap % p.kw * p.dilation_w;
    if (y >= 0 && y < p.h && x >= 0 && x < p.w) {
      const long long pixel = (image * p.h + y) * p.w + x;
      value = widen(static_cast<const T*>(p.src)[pixel * p.c + column % p.c]);
    }
  }
  p.rows[(image * p.oh * p.ow + place) * p.width + column] = value * p.factor;
}

ENTRY_POINTS(fisher_rows, FisherRowsParameters, kThreads)
ENTRY_POINTS(fisher_patches, FisherRowsParameters, kThreads)
