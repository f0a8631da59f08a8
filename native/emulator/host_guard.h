// Pinned memory that a copy may still read or write is kept from the host: its pages are protected from the moment when the copy is given
// until the host has waited for it, whenever it is done. An access before that is reported, and goes on.
#pragma once
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "work_order.h"

namespace emu {

class HostGuard {
 public:
  /// The host may not write the memory, which the copy reads, or may not touch it, as the copy writes it.
  void protect(uint64_t at, uint64_t bytes, bool written, const Order& order, const std::string& copy);
  /// Gives back what copies use that the host has waited for.
  void release(const VectorClock& host);
  /// Gives all back.
  void clear();
  /// The device (this thread) touches memory as it likes while one of these lives.
  class DeviceAtWork {
   public:
    DeviceAtWork();
    ~DeviceAtWork();
  };
  /// This thread belongs to the device.
  static void belongsToDevice();
  /// A fault at an address: true if it came from protection, which is gone then.
  bool fault(uint64_t address, bool write);

 private:
  struct Range {
    uint64_t at, end;
    bool written;
    uint32_t lane, time;
    std::string copy;
  };
  std::vector<Range> ranges;
  bool lent = false;  // pages are open for the device
  std::mutex mutex;
  void apply(const Range& r) const;
  void open(const Range& r) const;
};
HostGuard& hostGuard();

}  // namespace emu
