// The main loop that fprop and dgrad share: an implicit matrix product
//   M = output pixels, N = output channels, K = taps x padded input channels.
// No patch matrix is ever stored: each thread computes the addresses of its 16-byte pieces of the
// activation and copies them into a ring of pipeline stages with cp.async, while the block
// multiplies an older stage.
//
// Neighbouring taps read nearly the same pixels. Where channels fill whole stages, taps therefore
// run inside blocks of channels: all taps of a block of channels come in successive stages, and L1,
// which activations are copied through, answers all but the first of them. Weights go past it.
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
// (kThreads / 4)-th row. Where a stage is a whole number of channels of one tap, the tap moves on
// first; else channels do, and a stage may hold parts of several taps.
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
  bool tapsFirst;

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
    tapsFirst = p.inCPadded % kStageK == 0;
  }

  __device__ __forceinline__ int stages() const {
    return (h.taps * w.taps * p.inCPadded + kStageK - 1) / kStageK;
  }

  // Starts the copies of the current position into a stage and moves on.
  __device__ __forceinline__ void load(uint32_t aStage, uint32_t bStage) {
    loadActivation(aStage);
    int const filterTap = (h.first + tapH * h.step) * p.kernelW + w.first + tapW * w.step;
    int const bTap = filterTap * p.inCPadded + channel;
#pragma unroll
    for (int i = 0; i < kBRows; ++i) {
      copyAsync16(bStage + offset + i * kRowsPerPass * kRowBytes,
                  static_cast<const Storage*>(p.filter) + (static_cast<int64_t>(bRow[i]) + bTap),
                  (tapH < h.taps) & (bRow[i] >= 0));
    }
    advance();
  }

  __device__ __forceinline__ void loadActivation(uint32_t aStage) {
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
          copyAsyncCached<4>(to + 4 * e, from + e, e < count);
        }
      } else {
        copyAsyncCached<16>(to, from, valid);
      }
    }
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
    if (tapsFirst) {
      if (++tapW == w.taps) {
        tapW = 0;
        if (++tapH == h.taps) {
          tapH = 0;
          channel += kStageK;
        }
      }
      return;
    }
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

// The same where a pixel is 8 bytes, four 16-bit channels: one asynchronous copy brings a tap of a
// pixel, and nothing passes through registers. A chunk holds two taps.
template <class T, int kBlockM, int kBlockN, int kThreads>
struct PixelLoader {
  using Storage = typename T::Storage;
  static constexpr int kChannels = 4;
  static constexpr int kPixelBytes = kChannels * sizeof(Storage);
  static constexpr int kTaps = 16 / kPixelBytes;  // of a chunk
  static constexpr int kStageTaps = kRowChunks * kTaps;
  static constexpr int kRowsPerPass = kThreads / kRowChunks;
  static constexpr int kARows = kBlockM / kRowsPerPass;
  static constexpr int kBRows = kBlockN / kRowsPerPass;
  static_assert(kPixelBytes == 8 && kRowsPerPass % 8 == 0);

  const Conv2dParams& p;
  PixelRows<Storage, kARows, kRowsPerPass> pixels;
  int bRow[kBRows];
  uint32_t offset;
  int tapH[kTaps];
  int tapW[kTaps];
  int stepH;
  int stepW;

  template <class FilterOfRow>
  __device__ __forceinline__ PixelLoader(const Conv2dParams& params, const WindowAxis& h,
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
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
      tapH[t] = (chunk * kTaps + t) / p.kernelW;
      tapW[t] = (chunk * kTaps + t) % p.kernelW;
    }
    stepH = kStageTaps / p.kernelW;
    stepW = kStageTaps % p.kernelW;
  }

  __device__ __forceinline__ int stages() const {
    return (p.kernelH * p.kernelW + kStageTaps - 1) / kStageTaps;
  }

  __device__ __forceinline__ void load(uint32_t aStage, uint32_t bStage) {
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
      bool const inside = tapH[t] < p.kernelH;
      int const dy = tapH[t] * p.dilationH;
      int const dx = tapW[t] * p.dilationW;
      int64_t const aTap = (static_cast<int64_t>(dy) * p.inW + dx) * kChannels;
      uint32_t const to = offset + t * kPixelBytes;
#pragma unroll
      for (int i = 0; i < kARows; ++i) {
        copyAsyncCached<kPixelBytes>(aStage + to + i * kRowsPerPass * kRowBytes,
                                     pixels.address[i] + aTap,
                                     inside & pixels.inside(p, i, dy, dx));
      }
      int const bTap = (tapH[t] * p.kernelW + tapW[t]) * p.inCPadded;
#pragma unroll
      for (int i = 0; i < kBRows; ++i) {
        copyAsyncCached<kPixelBytes>(
            bStage + to + i * kRowsPerPass * kRowBytes,
            static_cast<const Storage*>(p.filter) + (static_cast<int64_t>(bRow[i]) + bTap),
            inside & (bRow[i] >= 0));
      }
      tapH[t] += stepH;
      tapW[t] += stepW;
      if (tapW[t] >= p.kernelW) {
        tapW[t] -= p.kernelW;
        ++tapH[t];
      }
    }
  }

  __device__ __forceinline__ void deposit(uint32_t, uint32_t) const {}
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

// The weights' part of filling stages where the filter is 1x1: a row is a run of channels.
template <class T, int kBlockN, int kThreads>
struct FilterLoader {
  using Storage = typename T::Storage;
  static constexpr int kVector = T::kVector;
  static constexpr int kRowsPerPass = kThreads / kRowChunks;
  static constexpr int kRows = kBlockN / kRowsPerPass;
  static_assert(kBlockN % kRowsPerPass == 0 && kRowsPerPass % 8 == 0);

  const Conv2dParams& p;
  int row[kRows];  // output channel in the first column tile
  uint32_t offset;
  int firstChannel;

  template <class FilterOfRow>
  __device__ __forceinline__ FilterLoader(const Conv2dParams& params, FilterOfRow filterOfRow)
      : p(params) {
    int const chunk = threadIdx.x % kRowChunks;
    int const firstRow = threadIdx.x / kRowChunks;
    offset = rowOffset(firstRow, chunk);
    firstChannel = chunk * kVector;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      row[i] = filterOfRow(firstRow + i * kRowsPerPass);
    }
  }

  // Stage s of column tile n.
  __device__ __forceinline__ void load(uint32_t stage, int n, int s) const {
    int const channel = s * kRowChunks * kVector + firstChannel;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      int const k = n * kBlockN + row[i];
      copyAsync16(
          stage + offset + i * kRowsPerPass * kRowBytes,
          static_cast<const Storage*>(p.filter) + (static_cast<int64_t>(k) * p.inCPadded + channel),
          (channel < p.inCPadded) & (k < p.outC));
    }
  }
};

// 1x1 filters over few channels: the block's rows of the activation, a panel, stay in shared memory
// of kBytes while the block walks over p.columnTiles column tiles, whose weights pass
// through a ring. Calls store(column tile) when a tile has been summed; copies for the next one are
// under way meanwhile.
template <class T, int kBlockM, int kBlockN, int kStages, int kBytes, class Tile, class Store>
__device__ __forceinline__ void panelProduct(const Conv2dParams& p, const WindowAxis& h,
                                             const WindowAxis& w, const TileIndex& index,
                                             unsigned char* shared, Tile& tile, Store store) {
  constexpr int kPanelStages = (kBytes / kRowBytes - kStages * kBlockN) / kBlockM;
  static_assert(kPanelStages > 0);
  constexpr int kPanelBytes = kBlockM * kRowBytes;  // of a stage
  constexpr int kRingBytes = kBlockN * kRowBytes;
  uint32_t const panel = sharedAddress(shared);
  uint32_t const ring = panel + kPanelStages * kPanelBytes;
  auto const filterOfRow = [](int row) { return Tile::filterOfRow(row); };
  FilterLoader<T, kBlockN, Tile::kThreads> filter(p, filterOfRow);
  int const begin = index.n * p.columnTiles;
  int const end = min(begin + p.columnTiles, (p.outC + kBlockN - 1) / kBlockN);
  int stages;
  // The next stage to fill: tile, stage of the tile, place in the ring.
  int nextTile = begin;
  int nextStage = 0;
  uint32_t writeAt = ring;
  auto const fill = [&] {
    if (stages > 0 && nextTile < end) {
      filter.load(writeAt, nextTile, nextStage);
      if (++nextStage == stages) {
        nextStage = 0;
        ++nextTile;
      }
    }
    writeAt = writeAt + kRingBytes < ring + kStages * kRingBytes ? writeAt + kRingBytes : ring;
  };
  {
    GatherLoader<T, kBlockM, kBlockN, Tile::kThreads, T::kVector> loader(p, h, w, index,
                                                                         filterOfRow);
    stages = loader.stages();
    // The last group brings all that is left of the panel.
    int s = 0;
#pragma unroll
    for (int group = 1; group < kStages; ++group) {
      for (; s < (group == kStages - 1 ? stages : min(group, stages)); ++s) {
        loader.loadActivation(panel + s * kPanelBytes);
        loader.advance();
      }
      fill();
      copyAsyncCommit();
    }
  }
  uint32_t readAt = ring;
  for (int n = begin; n < end; ++n) {
    tile.clear();
    for (int s = 0; s < stages; ++s) {
      copyAsyncWait<kStages - 2>();
      // As in gatherProduct.
      __syncthreads();
      tile.multiply(panel + s * kPanelBytes, readAt, 0);
      fill();
      copyAsyncCommit();
#pragma unroll
      for (int step = 1; step < Tile::kSteps; ++step) {
        tile.multiply(panel + s * kPanelBytes, readAt, step);
      }
      readAt = readAt + kRingBytes < ring + kStages * kRingBytes ? readAt + kRingBytes : ring;
    }
    store(n);
  }
}
