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
  const Storage* aRow[kARows];
  int aY[kARows];
  int aX[kARows];
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
      : p(params), h(axisH), w(axisW) {
    int const chunk = threadIdx.x % kRowChunks;
    int const firstRow = threadIdx.x / kRowChunks;
    offset = rowOffset(firstRow, chunk);

    uint32_t const pixels = static_cast<uint32_t>(p.batch) * p.byGridPixels.divisor;
#pragma unroll
    for (int i = 0; i < kARows; ++i) {
      uint32_t const m = static_cast<uint32_t>(tile.m) * kBlockM + firstRow + i * kRowsPerPass;
      uint32_t pixel;
      uint32_t x;
      uint32_t const n = p.byGridPixels.split(m, pixel);
      uint32_t const y = p.byGridW.split(pixel, x);
      // A row past the end lies far above the image: no tap brings it back.
      aY[i] = m < pixels ? static_cast<int>(y) * h.scale + h.origin : -(1 << 30);
      aX[i] = static_cast<int>(x) * w.scale + w.origin;
      aRow[i] = static_cast<const Storage*>(p.in) +
                ((static_cast<int64_t>(n) * p.inH + aY[i]) * p.inW + aX[i]) * p.inC;
    }
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
      bool const valid = inside & (static_cast<unsigned>(aY[i] + dy) < static_cast<unsigned>(p.inH)) &
                         (static_cast<unsigned>(aX[i] + dx) < static_cast<unsigned>(p.inW));
      uint32_t const to = aStage + offset + i * kRowsPerPass * kRowBytes;
      const Storage* const from = aRow[i] + aTap;
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
  __device__ __forceinline__ void deposit(uint32_t aStage) const {
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

// Sums the block's tile into `tile`.
template <class T, int kBlockM, int kBlockN, int kStages, int kChannels, class Tile>
__device__ __forceinline__ void gatherProduct(const Conv2dParams& p, const WindowAxis& h,
                                              const WindowAxis& w, const TileIndex& index,
                                              unsigned char* shared, Tile& tile) {
  constexpr int kStageBytes = (kBlockM + kBlockN) * kRowBytes;
  GatherLoader<T, kBlockM, kBlockN, Tile::kThreads, kChannels> loader(
      p, h, w, index, [](int row) { return Tile::filterOfRow(row); });
  uint32_t const base = sharedAddress(shared);
  int const stages = loader.stages();

  // One group is committed per stage, empty ones too, so that waiting by count stays right.
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < stages) {
      loader.load(base + s * kStageBytes, base + s * kStageBytes + kBlockM * kRowBytes);
      loader.deposit(base + s * kStageBytes);
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
      loader.deposit(writeAt);
    }
    writeAt = readAt;
    readAt = readAt + kStageBytes < base + kStages * kStageBytes ? readAt + kStageBytes : base;
  }
}
