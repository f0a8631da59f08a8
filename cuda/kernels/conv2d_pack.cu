// conv2d_pack_*: master weights F32 KRSC rounded to the compute type, in the two layouts that fprop
// and dgrad read.
//
//   forward [k][tap][c] and backward [c][tap][k], both = round(weights[k][tap][c]), innermost extent
//   padded with zeros, to a multiple of 16 bytes but for stems
//
// One launch packs the weights of up to 64 convolutions. One block moves a 32 x 32 tile of one tap
// through shared memory, so that both layouts are written in whole rows. 256 threads; 4 KiB static
// shared memory. Oracle: cuda/tests.
#include "conv2d.cuh"
#include "element.cuh"

namespace {

template <class T>
__device__ __forceinline__ typename T::Storage roundWeight(float value) {
  return T::fromFloat(value);
}

template <>
__device__ __forceinline__ float roundWeight<Tf32>(float value) {
  return __uint_as_float(roundToTf32(__float_as_uint(value)));
}

// Which of the packs a block belongs to: the last that begins at it or before.
__device__ __forceinline__ int packOf(const Conv2dPackParams& p, uint32_t block) {
  int first = 0;
  int past = p.count;
  while (past - first > 1) {
    int const middle = (first + past) / 2;
    if (p.packs[middle].firstBlock <= block) {
      first = middle;
    } else {
      past = middle;
    }
  }
  return first;
}

template <class T>
__device__ __forceinline__ void pack(const Conv2dPack& p, uint32_t block) {
  using Storage = typename T::Storage;
  __shared__ float tile[32][33];  // the odd pitch keeps the transposed reads free of conflicts

  int const tileC = block % p.tilesC;
  int const tileK = block / p.tilesC % p.tilesK;
  int64_t const tap = block / p.tilesC / p.tilesK;
  int const column = threadIdx.x % 32;
  int const firstRow = threadIdx.x / 32;

#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int const row = firstRow + 8 * i;
    int const k = tileK * 32 + row;
    int const c = tileC * 32 + column;
    float const value =
        k < p.outC && c < p.inC
            ? __ldg(p.weights + (static_cast<int64_t>(k) * p.taps + tap) * p.inC + c)
            : 0.0f;
    tile[row][column] = value;
    if (p.forward != nullptr && k < p.outC && c < p.inCPadded) {
      static_cast<Storage*>(p.forward)[(static_cast<int64_t>(k) * p.taps + tap) * p.inCPadded + c] =
          roundWeight<T>(value);
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int const row = firstRow + 8 * i;
    int const c = tileC * 32 + row;
    int const k = tileK * 32 + column;
    if (p.backward != nullptr && c < p.inC && k < p.outCPadded) {
      static_cast<Storage*>(
          p.backward)[(static_cast<int64_t>(c) * p.taps + tap) * p.outCPadded + k] =
          roundWeight<T>(tile[column][row]);
    }
  }
}

}  // namespace

#define PACK(type)                                                                                 \
  extern "C" __global__ void __launch_bounds__(256)                                                \
      conv2d_pack_##type(const __grid_constant__ Conv2dPackParams params) {                        \
    Conv2dPack const& own = params.packs[packOf(params, blockIdx.x)];                              \
    pack<type>(own, blockIdx.x - own.firstBlock);                                                  \
  }
PACK(bf16)
PACK(f16)
PACK(tf32)
PACK(f32)
