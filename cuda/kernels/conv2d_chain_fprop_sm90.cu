// conv2d_chain_fprop_sm90_*: two 1x1 convolutions and the rectifiers behind them as one pass, for compute capability 9.0, by wgmma and TMA; the
// wide tensor between them never leaves the multiprocessor.
//
//   dst[m,k] = phi2(bias2[k] + sum_w wide[m,w] * V[k,w]),   wide[m,w] = phi1(bias1[w] + sum_c src[m,c] * W[w,c]), rounded to the type
//   and, where asked for, a bit for each element of dst: whether it is above zero
//
// src and dst NHWC of 64 channels, 256 wide ones; bf16 or f16, sums and biases f32. It reads 128 bytes of a pixel and writes as many, where the
// convolutions alone move 1,280; 2 products of 64 x 256. Tiles of 128 pixels: four stages of them, and weights, in 145 KiB of shared memory.
// 384 threads; registers: 168 of the launch, 40 loading, 232 multiplying; no local memory. The quarters of the wide tensor go from the sums of
// the first product into the second as A from registers, whose layout is the same. Shared parts: conv2d_chain_sm90.cuh. Oracle:
// backend/reference (HopperChainTest, Conv2dChainContractTest).
#include "conv2d_chain_sm90.cuh"

namespace {

using ForwardTile = Sm90ChainTile<4, 1, 1>;

template <class T>
__device__ __forceinline__ void multiplyForward(const Conv2dChainSm90Params& p,
                                                Sm90Ring<ForwardTile> ring) {
  int const group = threadIdx.x / 128 - 1;
  bool const first = threadIdx.x % 128 == 0;
  uint32_t const w = ring.base + ForwardTile::kWeights;
  uint32_t const v = w + kMatrixBytes;
  float wide[2][1][1][32];  // of two quarters
  Sm90Sums<ForwardTile> sums;
  mbarrierWait(weightsFull(ring), 0);
  for (int tile = blockIdx.x; tile < p.result.tiles; tile += gridDim.x, ring.next()) {
    mbarrierWait(ring.full(ring.stage), ring.phase);
    uint32_t const x = ring.pixels() + group * kBlockBytes;
    wgmmaFence();
    multiplyRows<T>(wide[0][0][0], x, w);
    wgmmaCommit();
#pragma unroll
    for (int j = 0; j < kQuarters; ++j) {
      if (j + 1 < kQuarters) {  // it goes on while this one is rectified
        wgmmaFence();
        multiplyRows<T>(wide[(j + 1) % 2][0][0], x, w + (j + 1) * kBlockBytes);
        wgmmaCommit();
      }
      if (j == 0 || j + 1 == kQuarters) {  // all but the product before this one, and the one after
        wgmmaWait<1>();
      } else {
        wgmmaWait<2>();
      }
      hold(wide[j % 2]);
      if (j + 1 == kQuarters && first) {
        mbarrierArrive(ring.empty(ring.stage));
      }
      uint32_t a[4][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        rectify16<T>(p, 4 * j + k, &wide[j % 2][0][0][8 * k], a[k]);
      }
      wgmmaFence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        Wgmma<T>::template multiply<1>(sums[0][0], a[k],
                                       matrixOf(v + j * kBlockBytes) + k * kNextRows, j + k > 0);
      }
      wgmmaCommit();
    }
    wgmmaWait<0>();
    hold(sums);
    storeTile<T, ForwardTile, FpropEpilogue<T>>(p.result, tapsOf(p.result, tile), ring.slices(),
                                                group, sums);
  }
  if (first) {
    bulkWaitRead<0>();
  }
}

template <class T>
__device__ __forceinline__ void chainForward(const Conv2dChainSm90Params& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Sm90Ring<ForwardTile> ring{sharedAddress(shared)};
  initChain(ring, ForwardTile::kGroups);
  meetAtStart<ForwardTile>();
  if (threadIdx.x < 128) {
    giveRegisters<ForwardTile::kLoaderRegisters>();
    if (threadIdx.x < 32 && elected()) {
      loadChain<ForwardTile, false>(p, ring);
      letNextStart();
    }
  } else {
    takeRegisters<ForwardTile::kRegisters>();
    multiplyForward<T>(p, ring);
    meetAtEnd<ForwardTile>();
  }
}

static_assert(ForwardTile::kBytes == 147528, "HopperChain");

}  // namespace

#define CHAIN(name, type)                                                                          \
  extern "C" __global__ void __launch_bounds__(384, 1)                                             \
      name(const __grid_constant__ Conv2dChainSm90Params params) {                                 \
    chainForward<type>(params);                                                                    \
  }
CHAIN(conv2d_chain_fprop_sm90_bf16, Bf16)
CHAIN(conv2d_chain_fprop_sm90_f16, F16)
