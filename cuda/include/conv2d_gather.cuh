// The main loop that fprop and dgrad share: an implicit matrix product
//   M = output pixels, N = output channels, K = taps x padded input channels.
// No patch matrix is ever stored: each thread computes the addresses of its 16-byte pieces of the
// activation and copies them into a ring of pipeline stages with cp.async, while the block
// multiplies an older stage.
#pragma once

#include "conv2d.cuh"
#include "gather_tile.cuh"

// One axis of the window. Output coordinate i (in grid units) and tap a meet input coordinate
// i * scale + origin + a * reach and filter coordinate first + a * step.
struct WindowAxis {
  int taps;
  int first;
  int step;
  int scale;
  int origin;
  int reach;
};

__device__ __forceinline__ WindowAxis fpropAxis(int kernel, int stride, int dilation, int pad) {
  return {kernel, 0, 1, stride, -pad, dilation};
}

// Output coordinate phase + i * stride of the data gradient is reached by the taps r for which
// phase + pad - r * dilation is a multiple of the stride: every tapStep-th one, or none.
__device__ __forceinline__ WindowAxis dgradAxis(int kernel, int stride, int dilation, int pad,
                                                int tapStep, int phase) {
  for (int r = 0; r < kernel && r < tapStep; ++r) {
    int const distance = phase + pad - r * dilation;
    if (distance % stride == 0) {
      return {(kernel - r + tapStep - 1) / tapStep, r, tapStep, 1, distance / stride,
              -(tapStep * dilation / stride)};
    }
  }
  return {0, 0, 1, 1, 0, 0};
}

// Which tile a block computes.
struct TileIndex {
  int m;
  int n;
  int phaseH;
  int phaseW;
};

__device__ __forceinline__ TileIndex tileOf(const Conv2dParams& p, uint32_t block) {
  // Blocks that share rows of the activation are neighbours, so that L2 serves all but the first.
  uint32_t n;
  uint32_t m;
  uint32_t phaseW;
  uint32_t const rest = p.byTilesN.split(block, n);
  uint32_t const phase = p.byTilesM.split(rest, m);
  uint32_t const phaseH = p.byPhasesW.split(phase, phaseW);
  return {static_cast<int>(m), static_cast<int>(n), static_cast<int>(phaseH),
          static_cast<int>(phaseW)};
}

// The output pixels whose rows a thread fills, as positions in the gathered activation.
template <class Storage, int kRows, int kRowsPerPass>
struct PixelRows {
  const Storage* address[kRows];
  int y[kRows];
  int x[kRows];

  __device__ __forceinline__ PixelRows(const Conv2dParams& p, const WindowAxis& h,
                                       const WindowAxis& w, uint32_t firstPixel) {
    uint32_t const pixels = static_cast<uint32_t>(p.batch) * p.byGridPixels.divisor;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      uint32_t const m = firstPixel + i * kRowsPerPass;
      uint32_t pixel;
      uint32_t column;
      uint32_t const n = p.byGridPixels.split(m, pixel);
      uint32_t const row = p.byGridW.split(pixel, column);
      // A pixel past the end lies far above the image: no tap brings it back.
      y[i] = m < pixels ? static_cast<int>(row) * h.scale + h.origin : -(1 << 30);
      x[i] = static_cast<int>(column) * w.scale + w.origin;
      address[i] = static_cast<const Storage*>(p.in) +
                   ((static_cast<int64_t>(n) * p.inH + y[i]) * p.inW + x[i]) * p.inC;
    }
  }

  // Whether pixel i, moved by a tap, is inside the image.
  __device__ __forceinline__ bool inside(const Conv2dParams& p, int i, int dy, int dx) const {
    return (static_cast<unsigned>(y[i] + dy) < static_cast<unsigned>(p.inH)) &
           (static_cast<unsigned>(x[i] + dx) < static_cast<unsigned>(p.inW));
  }
};

// A thread's part of filling stages. It owns one 16-byte chunk column, hence one position (tap row,
// tap column, channel) that moves on by one stage of contraction at a time, and every
// (kThreads / 4)-th row.
template <class T, int kBlockM, int kBlockN, int kThreads, int kChannels>
struct GatherLoader {
  using Storage = typename T::Storage;
  static constexpr int kVector = T::kVector;
  static constexpr int kStageK = kRowChunks * kVector;
  static constexpr int kRowsPerPass = kThreads / kRowChunks;
  static constexpr int kARows = kBlockM / kRowsPerPass;
  static constexpr int kBRows = kBlockN / kRowsPerPass;
  static_assert(kBlockM % kRowsPerPass == 0 && kBlockN % kRowsPerPass == 0);
  static_assert(kRowsPerPass % 8 == 0, "rows of a thread share their swizzle");
  // 16-bit elements cannot be copied one by one asynchronously: they pass through registers, loaded
  // before the block multiplies a stage and stored after it.
  static constexpr bool kHolds = kChannels == 1 && sizeof(Storage) == 2;

  const Conv2dParams& p;
  const WindowAxis& h;
  const WindowAxis& w;
  PixelRows<Storage, kARows, kRowsPerPass> pixels;
  int bRow[kBRows];  // element offset into the weights, negative outside them
  uint4 held[kHolds ? kARows : 1];
  uint32_t offset;
  int tapH;
  int tapW;
  int channel;
  int stepH;
  int stepW;
  int stepChannel;

  template <class FilterOfRow>
  __device__ __forceinline__ GatherLoader(const Conv2dParams& params, const WindowAxis& axisH,
                                          const WindowAxis& axisW, const TileIndex& tile,
                                          FilterOfRow filterOfRow)
      : p(params),
        h(axisH),
        w(axisW),
        pixels(params, axisH, axisW, tile.m * kBlockM + threadIdx.x / kRowChunks) {
    int const chunk = threadIdx.x % kRowChunks;
    int const firstRow = threadIdx.x / kRowChunks;
    offset = rowOffset(firstRow, chunk);

    int const filterSize = p.kernelH * p.kernelW * p.inCPadded;
#pragma unroll
    for (int i = 0; i < kBRows; ++i) {
      int const k = tile.n * kBlockN + filterOfRow(firstRow + i * kRowsPerPass);
      bRow[i] = k < p.outC ? k * filterSize : -1;
    }

    // The position of chunk 0 .. 3 in (tap row, tap column, channel), and the mixed-radix digits of
    // one stage: from here on positions advance by additions with carry.
    uint32_t const columns = max(w.taps, 1);
    uint32_t first;
    uint32_t const tap = p.byInCPadded.split(chunk * kVector, first);
    channel = first;
    tapH = tap / columns;
    tapW = tap % columns;
    uint32_t remainder;
    uint32_t const stepTaps = p.byInCPadded.split(kStageK, remainder);
    stepChannel = remainder;
    stepH = stepTaps / columns;
    stepW = stepTaps % columns;
  }

  __device__ __forceinline__ int stages() const {
    return (h.taps * w.taps * p.inCPadded + kStageK - 1) / kStageK;
  }

  // Starts the copies of the current position into a stage and moves on.
  __device__ __forceinline__ void load(uint32_t aStage, uint32_t bStage) {
    bool const inside = tapH < h.taps;
    int const dy = tapH * h.reach;
    int const dx = tapW * w.reach;
    int64_t const aTap = (static_cast<int64_t>(dy) * p.inW + dx) * p.inC + channel;
#pragma unroll
    for (int i = 0; i < kARows; ++i) {
      bool const valid = inside & pixels.inside(p, i, dy, dx);
      uint32_t const to = aStage + offset + i * kRowsPerPass * kRowBytes;
      const Storage* const from = pixels.address[i] + aTap;
      int const count = valid ? p.inC - channel : 0;
      if constexpr (kHolds) {
        held[i] = loadElements(from, count);
      } else if constexpr (kChannels == 1) {
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          copyAsync4(to + 4 * e, from + e, e < count);
        }
      } else {
        copyAsync16(to, from, valid);
      }
    }
    int const filterTap = (h.first + tapH * h.step) * p.kernelW + w.first + tapW * w.step;
    int const bTap = filterTap * p.inCPadded + channel;
#pragma unroll
    for (int i = 0; i < kBRows; ++i) {
      copyAsync16(bStage + offset + i * kRowsPerPass * kRowBytes,
                  static_cast<const Storage*>(p.filter) + (static_cast<int64_t>(bRow[i]) + bTap),
                  inside & (bRow[i] >= 0));
    }
    advance();
  }

  // Stores what load() held back.
  __device__ __forceinline__ void deposit(uint32_t aStage, uint32_t) const {
    if constexpr (kHolds) {
#pragma unroll
      for (int i = 0; i < kARows; ++i) {
        storeShared16(aStage + offset + i * kRowsPerPass * kRowBytes, held[i]);
      }
    }
  }

  // Eight 16-bit elements, those from `count` on zero.
  static __device__ __forceinline__ uint4 loadElements(const Storage* from, int count) {
    uint32_t words[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      uint32_t const low = 2 * e < count ? __ldg(from + 2 * e) : 0;
      uint32_t const high = 2 * e + 1 < count ? __ldg(from + 2 * e + 1) : 0;
      words[e] = low | high << 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }

  __device__ __forceinline__ void advance() {
    channel += stepChannel;
    tapW += stepW;
    if (channel >= p.inCPadded) {
      channel -= p.inCPadded;
      ++tapW;
    }
    tapH += stepH;
    if (tapW >= w.taps) {
      tapW -= w.taps;
      ++tapH;
    }
  }
};

// The stem's part of filling stages: fprop of 16-bit activations with few channels. Contraction runs
// over (tap row, tap column, channel) without the padding of channels to 16 bytes, so every element
// of a chunk has a tap of its own. All pass through registers.
template <class T, int kBlockM, int kBlockN, int kThreads>
struct StemLoader {
  using Storage = typename T::Storage;
  static constexpr int kVector = T::kVector;
  static constexpr int kStageK = kRowChunks * kVector;
  static constexpr int kRowsPerPass = kThreads / kRowChunks;
  static constexpr int kARows = kBlockM / kRowsPerPass;
  static constexpr int kBRows = kBlockN / kRowsPerPass;
  static_assert(sizeof(Storage) == 2 && kRowsPerPass % 8 == 0);

  // A position in the contraction.
  struct Position {
    int tapH;
    int tapW;
    int channel;
  };

  const Conv2dParams& p;
  PixelRows<Storage, kARows, kRowsPerPass> pixels;
  int bRow[kBRows];
  uint4 heldA[kARows];
  uint4 heldB[kBRows];
  uint32_t offset;
  Position first;  // of this thread's chunk
  Position step;  // from one stage to the next

  template <class FilterOfRow>
  __device__ __forceinline__ StemLoader(const Conv2dParams& params, const WindowAxis& h,
                                        const WindowAxis& w, const TileIndex& tile,
                                        FilterOfRow filterOfRow)
      : p(params), pixels(params, h, w, tile.m * kBlockM + threadIdx.x / kRowChunks) {
    int const chunk = threadIdx.x % kRowChunks;
    int const firstRow = threadIdx.x / kRowChunks;
    offset = rowOffset(firstRow, chunk);
#pragma unroll
    for (int i = 0; i < kBRows; ++i) {
      int const k = tile.n * kBlockN + filterOfRow(firstRow + i * kRowsPerPass);
      bRow[i] = k < p.outC ? k * p.kernelH * p.kernelW * p.inCPadded : -1;
    }
    first = positionOf(chunk * kVector);
    step = positionOf(kStageK);
  }

  __device__ __forceinline__ Position positionOf(uint32_t k) const {
    uint32_t const tap = k / static_cast<uint32_t>(p.inC);
    uint32_t const row = tap / static_cast<uint32_t>(p.kernelW);
    return {static_cast<int>(row), static_cast<int>(tap - row * p.kernelW),
            static_cast<int>(k - tap * p.inC)};
  }

  __device__ __forceinline__ int stages() const {
    return (p.kernelH * p.kernelW * p.inC + kStageK - 1) / kStageK;
  }

  __device__ __forceinline__ void load(uint32_t, uint32_t) {
    uint32_t a[kARows][4];
    uint32_t b[kBRows][4];
    Position at = first;
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      bool const inside = at.tapH < p.kernelH;
      int const dy = at.tapH * p.dilationH;
      int const dx = at.tapW * p.dilationW;
      int64_t const aTap = (static_cast<int64_t>(dy) * p.inW + dx) * p.inC + at.channel;
#pragma unroll
      for (int i = 0; i < kARows; ++i) {
        bool const valid = inside & pixels.inside(p, i, dy, dx);
        insert(a[i], e, valid ? __ldg(pixels.address[i] + aTap) : 0);
      }
      int const bTap = (at.tapH * p.kernelW + at.tapW) * p.inCPadded + at.channel;
#pragma unroll
      for (int i = 0; i < kBRows; ++i) {
        bool const valid = inside & (bRow[i] >= 0);
        insert(b[i], e, valid ? __ldg(static_cast<const Storage*>(p.filter) + bRow[i] + bTap) : 0);
      }
      add(at, {0, 0, 1});
    }
#pragma unroll
    for (int i = 0; i < kARows; ++i) {
      heldA[i] = make_uint4(a[i][0], a[i][1], a[i][2], a[i][3]);
    }
#pragma unroll
    for (int i = 0; i < kBRows; ++i) {
      heldB[i] = make_uint4(b[i][0], b[i][1], b[i][2], b[i][3]);
    }
    add(first, step);
  }

  __device__ __forceinline__ void deposit(uint32_t aStage, uint32_t bStage) const {
#pragma unroll
    for (int i = 0; i < kARows; ++i) {
      storeShared16(aStage + offset + i * kRowsPerPass * kRowBytes, heldA[i]);
    }
#pragma unroll
    for (int i = 0; i < kBRows; ++i) {
      storeShared16(bStage + offset + i * kRowsPerPass * kRowBytes, heldB[i]);
    }
  }

  static __device__ __forceinline__ void insert(uint32_t (&words)[4], int e, uint32_t half) {
    words[e / 2] = e % 2 == 0 ? half : words[e / 2] | half << 16;
  }

  // Addition digit by digit with carry.
  __device__ __forceinline__ void add(Position& at, Position by) const {
    at.channel += by.channel;
    at.tapW += by.tapW;
    if (at.channel >= p.inC) {
      at.channel -= p.inC;
      ++at.tapW;
    }
    at.tapH += by.tapH;
    if (at.tapW >= p.kernelW) {
      at.tapW -= p.kernelW;
      ++at.tapH;
    }
  }
};

// Sums the block's tile into `tile`.
template <int kBlockM, int kBlockN, int kStages, class Loader, class Tile>
__device__ __forceinline__ void gatherProduct(const Conv2dParams& p, const WindowAxis& h,
                                              const WindowAxis& w, const TileIndex& index,
                                              unsigned char* shared, Tile& tile) {
  constexpr int kStageBytes = (kBlockM + kBlockN) * kRowBytes;
  Loader loader(p, h, w, index, [](int row) { return Tile::filterOfRow(row); });
  uint32_t const base = sharedAddress(shared);
  int const stages = loader.stages();

  // One group is committed per stage, empty ones too, so that waiting by count stays right.
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < stages) {
      loader.load(base + s * kStageBytes, base + s * kStageBytes + kBlockM * kRowBytes);
      loader.deposit(base + s * kStageBytes, base + s * kStageBytes + kBlockM * kRowBytes);
    }
    copyAsyncCommit();
  }
  uint32_t readAt = base;
  uint32_t writeAt = base + (kStages - 1) * kStageBytes;
  for (int s = 0; s < stages; ++s) {
    copyAsyncWait<kStages - 2>();
    // Stage s is complete for all threads, and all have finished reading stage s - 1, whose place
    // is filled next.
    __syncthreads();
    // The first products are under way while addresses are computed for the next copies.
    tile.multiply(readAt, readAt + kBlockM * kRowBytes, 0);
    bool const more = s + kStages - 1 < stages;
    if (more) {
      loader.load(writeAt, writeAt + kBlockM * kRowBytes);
    }
    copyAsyncCommit();
#pragma unroll
    for (int step = 1; step < Tile::kSteps; ++step) {
      tile.multiply(readAt, readAt + kBlockM * kRowBytes, step);
    }
    if (more) {
      loader.deposit(writeAt, writeAt + kBlockM * kRowBytes);
    }
    writeAt = readAt;
    readAt = readAt + kStageBytes < base + kStages * kStageBytes ? readAt + kStageBytes : base;
  }
}
