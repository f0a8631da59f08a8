// What the stand-ins for cuBLAS, cuDNN and NCCL share: work on device memory, given to a stream as the driver's own calls.
#pragma once
#include <cuda_abi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// The driver that this process has loaded.
extern "C" {
CUresult cuCtxGetCurrent(void** context);
CUresult cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);
CUresult cuMemFreeHost(void* at);
CUresult cuMemHostAlloc(void** at, size_t bytes, unsigned flags);
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, void* stream);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, void* stream);
CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t bytes, void* stream);
CUresult cuStreamIsCapturing(void* stream, int* status);
CUresult cuStreamSynchronize(void* stream);
}

namespace standin {

enum class Type { F32, F16, BF16 };
inline size_t bytes(Type t) { return t == Type::F32 ? 4 : 2; }

inline float load(Type type, const uint8_t* at, size_t i) {
  if (type == Type::F32) {
    float x;
    memcpy(&x, at + 4 * i, 4);
    return x;
  }
  uint16_t half;
  memcpy(&half, at + 2 * i, 2);
  if (type == Type::BF16) {
    uint32_t wide = uint32_t(half) << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
  }
  _Float16 x;
  memcpy(&x, &half, 2);
  return float(x);
}

inline void store(Type type, uint8_t* at, size_t i, float x) {
  if (type == Type::F32) {
    memcpy(at + 4 * i, &x, 4);
  } else if (type == Type::BF16) {
    uint32_t wide;
    memcpy(&wide, &x, 4);
    uint16_t half = x != x ? 0x7fff : uint16_t((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
    memcpy(at + 2 * i, &half, 2);
  } else {
    _Float16 half = _Float16(x);
    memcpy(at + 2 * i, &half, 2);
  }
}

/// What a tensor core keeps of a float.
inline float tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
  memcpy(&x, &bits, 4);
  return x;
}

/// A range of device memory that work reads, writes, or both.
struct Operand {
  CUdeviceptr at;
  size_t bytes;
  bool read, written;
};

/// Host memory through which the work of one handle passes. It is used again when the work is done; what a recording
/// uses is kept, as it may be replayed at any time.
class Staging {
 public:
  ~Staging() {
    for (auto& block : blocks)
      if (!block->kept) cuMemFreeHost(block->at);
  }

  /// Copies to the host, a computation there, and copies back: in the stream's order, in a recording too.
  CUresult enqueue(void* stream, const std::vector<Operand>& operands,
                   std::function<void(const std::vector<uint8_t*>&)> compute) {
    int capturing = 0;
    if (CUresult r = cuStreamIsCapturing(stream, &capturing)) return r;
    auto* work = new Work{this, {}, {}, std::move(compute), capturing != 0};
    for (auto& operand : operands) {
      Block* block = take(operand.bytes, work->kept);
      if (!block) return CUDA_ERROR_OUT_OF_MEMORY;
      work->blocks.push_back(block);
      work->memory.push_back(static_cast<uint8_t*>(block->at));
      if (operand.read)
        if (CUresult r = cuMemcpyDtoHAsync_v2(block->at, operand.at, operand.bytes, stream)) return r;
    }
    if (CUresult r = cuLaunchHostFunc(stream, run, work)) return r;
    for (size_t i = 0; i < operands.size(); i++)
      if (operands[i].written)
        if (CUresult r = cuMemcpyHtoDAsync_v2(operands[i].at, work->blocks[i]->at, operands[i].bytes, stream)) return r;
    return work->kept ? CUDA_SUCCESS : cuLaunchHostFunc(stream, end, work);
  }

 private:
  struct Block {
    void* at;
    size_t bytes;
    bool kept;
    std::atomic<bool> busy = true;  // until the work is done, by whichever thread that is
  };
  struct Work {
    Staging* staging;
    std::vector<Block*> blocks;
    std::vector<uint8_t*> memory;
    std::function<void(const std::vector<uint8_t*>&)> compute;
    bool kept;
  };
  static void run(void* data) {
    auto* work = static_cast<Work*>(data);
    work->compute(work->memory);
  }
  static void end(void* data) {
    auto* work = static_cast<Work*>(data);
    for (auto* block : work->blocks) block->busy = false;
    delete work;
  }
  Block* take(size_t bytes, bool kept) {
    for (auto& block : blocks)
      if (!block->busy && block->bytes >= bytes) {
        block->busy = true;
        block->kept |= kept;
        return block.get();
      }
    void* at = nullptr;
    if (cuMemHostAlloc(&at, bytes, 0)) return nullptr;
    blocks.push_back(std::make_unique<Block>(at, bytes, kept));
    return blocks.back().get();
  }
  std::vector<std::unique_ptr<Block>> blocks;
};

}  // namespace standin
