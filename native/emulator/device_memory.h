// Memory of the emulated device: one reserved range of host addresses, allocations with gaps between them, and shadows at fixed distances.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace emu {

struct Allocation {
  enum Kind : uint8_t { Device, Host, Constant, Variable, Registered };
  uint64_t base = 0, size = 0;
  Kind kind = Device;
  bool freed = false;
  bool initialised = false;  // every byte is known to be written: loads need no look at the bitmap
  uint64_t unwritten = 0;  // a byte that was not written when it was looked for last; 0: none is known
  uint64_t pool = 0;
  uint64_t sequence = 0;
  uint64_t end() const { return base + size; }
};

/// Last writer and last reader of each 4-byte word, as cells:
/// serial of the block << 6 | several << 5 | strong << 4 | mask of bytes. Serials grow from launch to launch, so old cells need no clearing.
using Cell = uint32_t;
constexpr Cell cellSeveral = 32, cellStrong = 16;
/// In a reader's cell, where strong accesses leave none: WorkOrder remembers more readers.
constexpr Cell cellShared = cellStrong;

class DeviceMemory {
 public:
  DeviceMemory();

  /// 0 when there is no room.
  uint64_t allocate(uint64_t size, Allocation::Kind kind, uint64_t pool = 0);
  /// Makes host memory that the caller owns accessible to kernels.
  bool registerHost(uint64_t base, uint64_t size);
  bool unregisterHost(uint64_t base);
  /// The live allocation starting exactly there is given back and remembered; false if there is none.
  bool release(uint64_t base);
  /// The live allocation holding the address, or null.
  Allocation* find(uint64_t address);
  /// The allocation nearest to an address, live or freed, in words, for reports.
  std::string describe(uint64_t address, int bytes, bool* freed);

  /// Marks bytes as written (or not).
  void markWritten(uint64_t address, uint64_t bytes);
  void markUnwritten(uint64_t address, uint64_t bytes);
  bool written(uint64_t address, uint64_t bytes) const;
  uint64_t firstUnwritten(uint64_t address, uint64_t bytes) const;

  /// Reserves serials for a launch's blocks and returns the first.
  uint32_t serials(uint64_t blocks);
  /// Bytes of device allocations read and written since a serial, by whole words.
  void footprint(uint32_t first, uint64_t* read, uint64_t* written);
  /// Live allocations in order of address, for the duration of a launch.
  std::vector<Allocation*> snapshot();
  /// Looks whether allocations have become completely written.
  void refreshInitialised();
  void reset();

  bool holds(uint64_t address) const { return address - base_ < size_; }
  Cell* writer(uint64_t address) const { return (Cell*)(writers_ + ((address - base_) & ~3ull)); }
  Cell* reader(uint64_t address) const { return (Cell*)(readers_ + ((address - base_) & ~3ull)); }
  uint8_t* bitmap(uint64_t address) const { return bits_ + ((address - base_) >> 3); }

  uint64_t limit = 4ull << 30;
  uint64_t used() const { return used_; }
  uint64_t hostUsed() const { return hostUsed_; }
  uint64_t liveCount();

  std::mutex mutex;

 private:
  uint64_t base_ = 0, size_ = 0, next_ = 0, used_ = 0, hostUsed_ = 0, sequence_ = 0;
  uint8_t *bits_ = nullptr, *writers_ = nullptr, *readers_ = nullptr;
  uint32_t nextSerial_ = 1;
  std::map<uint64_t, Allocation> allocations_;  // live
  std::map<uint64_t, Allocation> graves_;  // freed, the last of them at least: for reports of use after free
  std::deque<uint64_t> order_;  // of graves, oldest first
  uint64_t place(uint64_t span);
};

DeviceMemory& memory();

}  // namespace emu
