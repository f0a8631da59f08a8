// Tensor maps: what cuTensorMapEncodeTiled and cuTensorMapEncodeIm2col make, in a layout of our own, and the walk through a box of one.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace emu {

struct TensorMap {
  uint32_t magic, checksum;  // of all that follows
  uint64_t address;
  uint64_t extents[5];  // in elements, innermost first
  uint64_t strides[4];  // in bytes, of all dimensions but the first
  uint16_t box[5];  // tiled: elements walked through
  int16_t lower[3], upper[3];  // im2col: corners of the box of pixels, W H D
  uint16_t channels, pixels;  // im2col
  uint8_t steps[5];  // through the box
  uint8_t rank, size, swizzle, im2col;  // size of an element; swizzle: 16-byte pieces that trade places, 1 to 8

  static constexpr uint32_t valid = 0x50614d54;
  uint32_t sum() const;
  /// Bytes of shared memory that a box takes, those outside of the tensor among them.
  uint32_t bytes() const;
  /// What the pattern of its swizzle begins at multiples of, 128 without one.
  uint32_t alignment() const { return swizzle == 1 ? 128 : (uint32_t)swizzle * 128; }
};
static_assert(sizeof(TensorMap) == 128);

/// Bytes that lie beside each other in both memories, at most 16 of them, a power of two that divides both addresses.
struct TensorPart {
  uint64_t global;
  uint32_t shared;
  uint32_t bytes;
};

/// The parts of a box at these coordinates that lie inside the tensor, the box starting at `shared`. `offsets` are those of im2col.
void walk(const TensorMap& map, const int32_t* coordinates, const uint16_t* offsets, uint32_t shared,
          std::vector<TensorPart>& parts);
/// What is wrong with coordinates, or "".
std::string wrongCoordinates(const TensorMap& map, const int32_t* coordinates, const uint16_t* offsets, bool store);

}  // namespace emu
