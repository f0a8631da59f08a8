// Compute types: what the kernels are templates over. A type names its storage, how many elements
// fill 16 bytes, conversions to and from f32, and (where it has one) its tensor-core product.
#pragma once

#include <cstdint>

// The float as its nearest tf32 value (10 mantissa bits, ties away), in a 32-bit word.
__device__ __forceinline__ uint32_t roundToTf32(uint32_t bits) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}

struct Bf16 {
  using Storage = uint16_t;
  static constexpr int kVector = 8;
  static constexpr uint32_t kOnes = 0x3f803f80u;
  static constexpr uint32_t kInfinity = 0x7f80u;

  static __device__ __forceinline__ float toFloat(uint16_t bits) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(both) : "f"(high), "f"(low));
    return both;
  }
  static __device__ __forceinline__ uint16_t fromFloat(float value) {
    return static_cast<uint16_t>(pack(value, 0.0f));
  }
  // c[16x8] += a[16x16] * b[16x8]
  static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

struct F16 {
  using Storage = uint16_t;
  static constexpr int kVector = 8;
  static constexpr uint32_t kOnes = 0x3c003c00u;
  static constexpr uint32_t kInfinity = 0x7c00u;

  static __device__ __forceinline__ float toFloat(uint16_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;\n" : "=f"(value) : "h"(bits));
    return value;
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(both) : "f"(high), "f"(low));
    return both;
  }
  static __device__ __forceinline__ uint16_t fromFloat(float value) {
    return static_cast<uint16_t>(pack(value, 0.0f));
  }
  static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

// f32 in memory, exact products and sums on the FFMA pipe.
struct F32 {
  using Storage = float;
  static constexpr int kVector = 4;

  static __device__ __forceinline__ float toFloat(float value) { return value; }
  static __device__ __forceinline__ float fromFloat(float value) { return value; }
};

// f32 in memory, products of operands rounded to tf32 on the tensor cores.
struct Tf32 : F32 {
  static constexpr uint32_t kOnes = 0x3f800000u;

  // c[16x8] += a[16x8] * b[8x8]
  static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

// Blocks of this size that shall fit on a multiprocessor, which caps registers: tensor-core tiles may
// use all 255, FFMA tiles hide latency with more warps (168 registers).
template <class T>
constexpr int blocksPerMultiprocessor(int) {
  return 1;
}
template <>
constexpr int blocksPerMultiprocessor<F32>(int threads) {
  return 384 / threads;
}

// The tags used in conv2d_variants.def.
using bf16 = Bf16;
using f16 = F16;
using tf32 = Tf32;
using f32 = F32;

// Two elements of 16 bits.
template <class T>
__device__ __forceinline__ float2 unpackPair(uint32_t both) {
  return {T::toFloat(static_cast<uint16_t>(both)), T::toFloat(static_cast<uint16_t>(both >> 16))};
}

// 16 bytes of storage to floats and back.
template <class T>
__device__ __forceinline__ void unpackVector(uint4 raw, float (&v)[T::kVector]) {
  uint32_t const words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(typename T::Storage) == 2) {
      v[2 * i] = T::toFloat(static_cast<uint16_t>(words[i]));
      v[2 * i + 1] = T::toFloat(static_cast<uint16_t>(words[i] >> 16));
    } else {
      v[i] = __uint_as_float(words[i]);
    }
  }
}

template <class T>
__device__ __forceinline__ uint4 packVector(const float (&v)[T::kVector]) {
  if constexpr (sizeof(typename T::Storage) == 2) {
    return make_uint4(T::pack(v[0], v[1]), T::pack(v[2], v[3]), T::pack(v[4], v[5]),
                      T::pack(v[6], v[7]));
  } else {
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                      __float_as_uint(v[3]));
  }
}

// A bit for each element of 16 bytes: whether it is above zero.
template <class T>
__device__ __forceinline__ uint32_t signsOf(uint4 raw) {
  float v[T::kVector];
  unpackVector<T>(raw, v);
  uint32_t signs = 0;
#pragma unroll
  for (int e = 0; e < T::kVector; ++e) {
    signs |= v[e] > 0.0f ? 1u << e : 0u;
  }
  return signs;
}

// scale * (x > 0 ? x : slope * x); NaN stays NaN.
__device__ __forceinline__ float rectify(float x, float scale, float slope) {
  return scale * (x > 0.0f ? x : slope * x);
}

// Its derivative, from its output y (which has the sign of x); at the kink that of the negative side.
__device__ __forceinline__ float derivative(float y, float scale, float slope) {
  return scale * (y > 0.0f ? 1.0f : slope);
}
