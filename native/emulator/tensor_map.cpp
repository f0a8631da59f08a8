// Layouts follow the CUDA driver API (cuTensorMapEncodeTiled, cuTensorMapEncodeIm2col) and the PTX ISA's chapter on tensors.
#include "tensor_map.h"

#include <algorithm>
#include <cstring>

#include "driver.h"

namespace emu {

uint32_t TensorMap::sum() const {
  uint32_t words[sizeof(TensorMap) / 4], s = 2166136261u;
  memcpy(words, this, sizeof words);
  for (size_t i = 2; i < sizeof(TensorMap) / 4; i++) s = (s ^ words[i]) * 16777619u;
  return s;
}

namespace {
/// Elements of a box along a dimension.
uint32_t count(const TensorMap& m, int d) {
  return d == 0 ? m.box[0] : ((uint32_t)m.box[d] + m.steps[d] - 1) / m.steps[d];
}
}  // namespace

uint32_t TensorMap::bytes() const {
  if (im2col) return (uint32_t)channels * pixels * size;
  uint32_t n = size;
  for (int d = 0; d < rank; d++) n *= count(*this, d);
  return n;
}

namespace {

/// A row of a box: elements c.. of the innermost dimension, `global` the address of its first element.
void row(const TensorMap& m, uint64_t global, int64_t c, uint32_t elements, uint32_t shared, uint32_t offset,
         std::vector<TensorPart>& parts) {
  int64_t first = std::clamp<int64_t>(-c, 0, elements),
          last = std::clamp<int64_t>((int64_t)m.extents[0] - c, first, elements);
  for (uint32_t b = (uint32_t)first * m.size, end = (uint32_t)last * m.size; b < end;) {
    uint64_t from = global + (uint64_t)c * m.size + b;
    uint32_t to = shared + offset + b, n = 16;
    while ((from | to) & (n - 1) || b + n > end) n /= 2;
    // Pieces of 16 bytes trade places with the bits of the address that number the rows of 128 bytes.
    parts.push_back({from, to ^ (to >> 3 & (uint32_t)(m.swizzle - 1) << 4), n});
    b += n;
  }
}

}  // namespace

void walk(const TensorMap& m, const int32_t* coordinates, const uint16_t* offsets, uint32_t shared,
          std::vector<TensorPart>& parts) {
  if (!m.im2col) {
    uint32_t n[5] = {1, 1, 1, 1, 1}, i[5] = {};
    for (int d = 1; d < m.rank; d++) n[d] = count(m, d);
    uint32_t offset = 0;
    for (i[4] = 0; i[4] < n[4]; i[4]++)
      for (i[3] = 0; i[3] < n[3]; i[3]++)
        for (i[2] = 0; i[2] < n[2]; i[2]++)
          for (i[1] = 0; i[1] < n[1]; i[1]++, offset += (uint32_t)m.box[0] * m.size) {
            uint64_t at = m.address;
            bool inside = true;
            for (int d = 1; d < m.rank; d++) {
              int64_t x = coordinates[d] + (int64_t)i[d] * m.steps[d];
              inside &= x >= 0 && (uint64_t)x < m.extents[d];
              at += (uint64_t)x * m.strides[d - 1];
            }
            if (inside) row(m, at, coordinates[0], m.box[0], shared, offset, parts);
          }
    return;
  }
  const int spatial = m.rank - 2;
  int64_t base[4] = {};  // W H D, then N: the filter's corner
  for (int d = 0; d <= spatial; d++) base[d] = coordinates[d + 1];
  for (uint32_t p = 0; p < m.pixels; p++) {
    uint64_t at = m.address + (uint64_t)base[spatial] * m.strides[spatial];
    bool inside = base[spatial] >= 0 && (uint64_t)base[spatial] < m.extents[spatial + 1];
    for (int d = 0; d < spatial; d++) {
      int64_t x = base[d] + offsets[d];
      inside &= x >= 0 && (uint64_t)x < m.extents[d + 1];
      at += (uint64_t)x * m.strides[d];
    }
    if (inside) row(m, at, coordinates[0], m.channels, shared, p * m.channels * m.size, parts);
    // The next pixel of the box, which the filter's corner walks through.
    int d = 0;
    for (; d < spatial; d++) {
      base[d] += m.steps[d + 1];
      if (base[d] <= (int64_t)m.extents[d + 1] - 1 + m.upper[d]) break;
      base[d] = m.lower[d];
    }
    if (d == spatial) base[spatial]++;
  }
}

std::string wrongCoordinates(const TensorMap& m, const int32_t* c, const uint16_t* offsets, bool store) {
  static const char* const names[] = {"W", "H", "D"};
  if (store)
    for (int d = 0; d < m.rank; d++)
      if (c[d] < 0) return "coordinate " + std::to_string(d) + " of a store is " + std::to_string(c[d]);
  if (!m.im2col) return "";
  const int most = m.rank == 3 ? 65535 : m.rank == 4 ? 255 : 31;
  for (int d = 0; d < m.rank - 2; d++) {
    int64_t last = (int64_t)m.extents[d + 1] - 1 + m.upper[d];
    if (c[d + 1] < m.lower[d] || c[d + 1] > last)
      return std::string("the filter's corner lies at ") + names[d] + " = " + std::to_string(c[d + 1]) +
             ", outside of the box of pixels from " + std::to_string(m.lower[d]) + " to " + std::to_string(last);
    if (offsets[d] > most)
      return std::string("the offset in ") + names[d] + " is " + std::to_string(offsets[d]) + ", at most " +
             std::to_string(most) + " are allowed";
  }
  return "";
}

namespace {

struct Encoding {
  const char* call;
  TensorMap map{};
  CUresult wrong(const std::string& what, CUresult code = CUDA_ERROR_INVALID_VALUE) const {
    return refuse(code, "tensor_map", "", std::string(call) + ": " + what);
  }
  CUresult unsupported(const std::string& what) const {
    return wrong(what + " is not modelled by the emulated device", CUDA_ERROR_NOT_SUPPORTED);
  }

  /// What tiled and im2col maps have in common. `inner` and the elements' type decide the bytes of a row in shared memory.
  CUresult common(void* out, int type, unsigned rank, uint64_t address, const uint64_t* extents,
                  const uint64_t* strides, const unsigned* steps, int interleave, int swizzle, int promotion, int fill,
                  unsigned inner) {
    static const uint8_t sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    if (driver().settings.major < 9) return wrong("tensor maps need compute capability 9.0");
    if (!out || (uintptr_t)out % 64) return wrong("the tensor map does not lie at a multiple of 64 bytes");
    if (!extents || !steps || (rank > 1 && !strides)) return wrong("an array is null");
    if (type < 0 || type > 15) return wrong("data type " + std::to_string(type) + " does not exist");
    if (type > 9) return unsupported("data type " + std::to_string(type));
    if (interleave < 0 || interleave > 2) return wrong("interleave " + std::to_string(interleave) + " does not exist");
    if (interleave) return unsupported("interleaved layout");
    if (swizzle < 0 || swizzle > 6) return wrong("swizzle " + std::to_string(swizzle) + " does not exist");
    if (swizzle > 3) return wrong("swizzle " + std::to_string(swizzle) + " needs compute capability 10.0");
    if (promotion < 0 || promotion > 3) return wrong("L2 promotion " + std::to_string(promotion) + " does not exist");
    if (fill < 0 || fill > 1) return wrong("fill " + std::to_string(fill) + " does not exist");
    if (fill && type < 6) return wrong("only floating-point types can be filled with NaN");
    if (fill) return unsupported("filling with NaN");
    map.rank = (uint8_t)rank;
    map.size = sizes[type];
    map.swizzle = (uint8_t)(1 << swizzle);
    map.address = address;
    if (address % 16) return wrong("the tensor does not lie at a multiple of 16 bytes");
    for (unsigned d = 0; d < rank; d++) {
      const std::string dimension = " of dimension " + std::to_string(d);
      if (extents[d] == 0 || extents[d] > 1ull << 32)
        return wrong("extent " + std::to_string(extents[d]) + dimension + " is not in 1..2^32");
      map.extents[d] = extents[d];
      if (d && (strides[d - 1] % 16 || strides[d - 1] >= 1ull << 40))
        return wrong("stride " + std::to_string(strides[d - 1]) + dimension + " is not a multiple of 16 below 2^40");
      if (d) map.strides[d - 1] = strides[d - 1];
      if (d && (steps[d] == 0 || steps[d] > 8))
        return wrong("element stride " + std::to_string(steps[d]) + dimension + " is not in 1..8");
      map.steps[d] = d ? (uint8_t)steps[d] : 1;  // that of the first is ignored
    }
    uint64_t bytes = (uint64_t)inner * map.size, most = 16u << swizzle;
    if (bytes % 16)
      return wrong("a row of the box has " + std::to_string(bytes) + " bytes, which is no multiple of 16");
    if (swizzle && bytes > most)
      return wrong("a row of the box has " + std::to_string(bytes) + " bytes, the swizzle takes at most " +
                   std::to_string(most));
    if (swizzle && bytes < most)
      return unsupported("a row of " + std::to_string(bytes) + " bytes with a swizzle of " + std::to_string(most));
    return CUDA_SUCCESS;
  }
  CUresult finish(void* out) {
    map.magic = TensorMap::valid;
    map.checksum = map.sum();
    memcpy(out, &map, sizeof map);
    return CUDA_SUCCESS;
  }
};

}  // namespace
}  // namespace emu

using namespace emu;

CUDA_EXPORT CUresult cuTensorMapEncodeTiled(void* out, int type, unsigned rank, void* address, const uint64_t* extents,
                                            const uint64_t* strides, const unsigned* box, const unsigned* steps,
                                            int interleave, int swizzle, int promotion, int fill) {
  ENTER();
  Encoding e{__func__};
  if (rank < 1 || rank > 5) return e.wrong("rank " + std::to_string(rank) + " is not in 1..5");
  if (!box) return e.wrong("an array is null");
  for (unsigned k = 0; k < rank; k++) {
    if (box[k] == 0 || box[k] > 256)
      return e.wrong("box extent " + std::to_string(box[k]) + " of dimension " + std::to_string(k) +
                     " is not in 1..256");
    e.map.box[k] = (uint16_t)box[k];
  }
  if (CUresult r = e.common(out, type, rank, (uint64_t)address, extents, strides, steps, interleave, swizzle, promotion,
                            fill, box[0]))
    return r;
  return e.finish(out);
}

CUDA_EXPORT CUresult cuTensorMapEncodeIm2col(void* out, int type, unsigned rank, void* address, const uint64_t* extents,
                                             const uint64_t* strides, const int* lower, const int* upper,
                                             unsigned channels, unsigned pixels, const unsigned* steps, int interleave,
                                             int swizzle, int promotion, int fill) {
  ENTER();
  Encoding e{__func__};
  if (rank < 3 || rank > 5) return e.wrong("rank " + std::to_string(rank) + " is not in 3..5");
  if (!lower || !upper) return e.wrong("an array is null");
  if (channels == 0 || channels > 256)
    return e.wrong(std::to_string(channels) + " channels for a pixel are not in 1..256");
  if (pixels == 0 || pixels > 1024) return e.wrong(std::to_string(pixels) + " pixels for a column are not in 1..1024");
  if (CUresult r = e.common(out, type, rank, (uint64_t)address, extents, strides, steps, interleave, swizzle, promotion,
                            fill, channels))
    return r;
  const int most = rank == 3 ? 32767 : rank == 4 ? 127 : 15;
  for (unsigned k = 0; k < rank - 2; k++) {
    for (int corner : {lower[k], upper[k]})
      if (corner < -most - 1 || corner > most)
        return e.wrong("a corner at " + std::to_string(corner) + " is not in " + std::to_string(-most - 1) + ".." +
                       std::to_string(most));
    if ((int64_t)extents[k + 1] + upper[k] <= lower[k])
      return e.wrong("the box of pixels is empty in dimension " + std::to_string(k + 1));
    e.map.lower[k] = (int16_t)lower[k];
    e.map.upper[k] = (int16_t)upper[k];
  }
  e.map.im2col = 1;
  e.map.channels = (uint16_t)channels;
  e.map.pixels = (uint16_t)pixels;
  return e.finish(out);
}
