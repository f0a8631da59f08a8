#include "device_memory.h"

#include <sys/mman.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu {

namespace {
constexpr uint64_t redZone = 512;  // at least so far apart are two allocations
constexpr uint64_t page = 4096;
constexpr uint64_t poisonLimit = 16ull << 20;

void* reserve(uint64_t bytes, void* hint) {
  void* p = mmap(hint, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}
uint64_t up(uint64_t v, uint64_t to) { return (v + to - 1) / to * to; }

/// Zeroes a range, giving whole pages back to the system; also the first and the last if nothing in them is in use, which is what lies
/// from low to high. Else small allocations would leave theirs behind, and addresses are not used again for long.
void discard(uint8_t* from, uint64_t bytes, const uint8_t* low, const uint8_t* high) {
  uint64_t a = (uint64_t)from, b = a + bytes, pa = a & ~(page - 1), pb = up(b, page);
  if (pa < (uint64_t)low) pa = up(a, page);
  if (pb > (uint64_t)high) pb = b & ~(page - 1);
  if (pa >= pb) {
    memset(from, 0, bytes);
    return;
  }
  if (a < pa) memset(from, 0, pa - a);
  madvise((void*)pa, pb - pa, MADV_DONTNEED);
  if (pb < b) memset((void*)pb, 0, b - pb);
}
void discard(uint8_t* from, uint64_t bytes) { discard(from, bytes, from, from + bytes); }
}  // namespace

DeviceMemory& memory() {
  static DeviceMemory* m = new DeviceMemory;
  return *m;
}

DeviceMemory::DeviceMemory() {
  if (const char* mib = getenv("JTRELU_EMULATOR_MEMORY_MIB")) limit = strtoull(mib, nullptr, 10) << 20;
  // The hint keeps addresses equal from run to run, so that reports can be compared.
  for (size_ = 64ull << 30; size_ >= 1ull << 30; size_ /= 2) {
    void* data = reserve(size_, (void*)0x200000000000ull);
    void* bits = reserve(size_ / 8, nullptr);
    void* writers = reserve(size_, nullptr);
    void* readers = reserve(size_, nullptr);
    if (data && bits && writers && readers) {
      base_ = (uint64_t)data;
      bits_ = (uint8_t*)bits;
      writers_ = (uint8_t*)writers;
      readers_ = (uint8_t*)readers;
      break;
    }
    if (data) munmap(data, size_);
    if (bits) munmap(bits, size_ / 8);
    if (writers) munmap(writers, size_);
    if (readers) munmap(readers, size_);
  }
  if (!base_) size_ = 0;
  next_ = base_ + page;
}

uint64_t DeviceMemory::place(uint64_t span) {
  if (next_ + span <= base_ + size_) {
    uint64_t at = next_;
    next_ += span;
    return at;
  }
  // The range is used up: forget what was freed, then take the first gap that is large enough.
  graves_.clear();
  order_.clear();
  uint64_t from = base_ + page;
  for (auto& [at, a] : allocations_) {
    if (a.kind == Allocation::Registered) continue;
    if (at >= from + span + redZone) break;
    from = up(a.end() + redZone, page);
  }
  if (from + span > base_ + size_) return 0;
  // Keep shadows and data of the reused range as new ones are.
  discard((uint8_t*)from, span);
  discard(bits_ + (from - base_) / 8, span / 8);
  discard(writers_ + (from - base_), span);
  discard(readers_ + (from - base_), span);
  return from;
}

uint64_t DeviceMemory::allocate(uint64_t size, Allocation::Kind kind, uint64_t pool) {
  std::lock_guard lock(mutex);
  bool counts = kind != Allocation::Host;
  if (counts && (size > limit || used_ > limit - size)) return 0;
  if (!counts && size > size_ / 2) return 0;
  // Pinned memory has pages of its own, which can be protected.
  uint64_t alignment = size >= page || kind == Allocation::Host ? page : 512;
  next_ = up(next_, alignment);
  uint64_t at = place(up(size, alignment) + redZone);
  if (!at) return 0;
  if (kind == Allocation::Device && size <= poisonLimit) memset((void*)at, 0xFF, size);  // a NaN in every floating type
  (counts ? used_ : hostUsed_) += size;
  Allocation a;
  a.base = at;
  a.size = size;
  a.kind = kind;
  a.pool = pool;
  a.sequence = ++sequence_;
  a.initialised = kind == Allocation::Host;  // the host may write it at any time, unseen
  allocations_[at] = a;
  return at;
}

bool DeviceMemory::registerHost(uint64_t base, uint64_t size) {
  std::lock_guard lock(mutex);
  auto it = allocations_.upper_bound(base + size - 1);
  if (it != allocations_.begin() && std::prev(it)->second.end() > base) return false;
  Allocation a;
  a.base = base;
  a.size = size;
  a.kind = Allocation::Registered;
  a.initialised = true;
  a.sequence = ++sequence_;
  allocations_[base] = a;
  return true;
}
bool DeviceMemory::unregisterHost(uint64_t base) {
  std::lock_guard lock(mutex);
  auto it = allocations_.find(base);
  if (it == allocations_.end() || it->second.kind != Allocation::Registered) return false;
  allocations_.erase(it);
  return true;
}

bool DeviceMemory::release(uint64_t base) {
  std::lock_guard lock(mutex);
  auto it = allocations_.find(base);
  if (it == allocations_.end() || it->second.kind == Allocation::Registered) return false;
  Allocation a = it->second;
  auto next = allocations_.erase(it);
  (a.kind == Allocation::Host ? hostUsed_ : used_) -= a.size;
  // What is free around it, in whole bytes of the bitmap; memory of the caller's may be next to it in the list, but lies elsewhere.
  uint64_t low = next == allocations_.begin() ? 0 : up(std::prev(next)->second.end(), 8) - base_;
  uint64_t high = next == allocations_.end() ? size_ : (next->second.base & ~7ull) - base_;
  if (low > size_) low = 0;
  if (high > size_) high = size_;
  discard((uint8_t*)a.base, a.size, (uint8_t*)base_ + low, (uint8_t*)base_ + high);
  discard(bitmap(a.base), (a.size + 7) / 8, bits_ + low / 8, bits_ + high / 8);
  discard((uint8_t*)writer(a.base), up(a.size, 4), writers_ + low, writers_ + high);
  discard((uint8_t*)reader(a.base), up(a.size, 4), readers_ + low, readers_ + high);
  a.freed = true;
  graves_[base] = a;
  order_.push_back(base);
  constexpr size_t most = 65536;
  if (order_.size() > most) {
    graves_.erase(order_.front());
    order_.pop_front();
  }
  return true;
}

Allocation* DeviceMemory::find(uint64_t address) {
  std::lock_guard lock(mutex);
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin()) return nullptr;
  Allocation& a = std::prev(it)->second;
  return address < a.end() ? &a : nullptr;
}

std::string DeviceMemory::describe(uint64_t address, int bytes, bool* freed) {
  std::lock_guard lock(mutex);
  if (freed) *freed = false;
  char b[300];
  const Allocation *before = nullptr, *after = nullptr;  // the nearest on either side
  for (auto* all : {&allocations_, &graves_}) {
    auto it = all->upper_bound(address);
    if (it != all->begin() && (!before || std::prev(it)->second.base > before->base)) before = &std::prev(it)->second;
    if (it != all->end() && (!after || it->second.base < after->base)) after = &it->second;
  }
  if (before && address < before->end()) {
    if (freed) *freed = before->freed;
    snprintf(b, sizeof b, "%s%" PRIu64 " bytes into %s of %" PRIu64 " bytes at 0x%" PRIx64,
             address + bytes > before->end() ? "crosses the end: " : "", address - before->base,
             before->freed ? "a freed allocation" : "an allocation", before->size, before->base);
    return b;
  }
  uint64_t past = before ? address - before->end() : ~0ull, ahead = after ? after->base - address : ~0ull;
  if (past <= ahead && past < 1ull << 32) {
    if (freed) *freed = before->freed;
    snprintf(b, sizeof b, "%" PRIu64 " bytes past the end of %s of %" PRIu64 " bytes at 0x%" PRIx64, past,
             before->freed ? "a freed allocation" : "an allocation", before->size, before->base);
  } else if (ahead < 1ull << 32) {
    snprintf(b, sizeof b, "%" PRIu64 " bytes before %s of %" PRIu64 " bytes at 0x%" PRIx64, ahead,
             after->freed ? "a freed allocation" : "an allocation", after->size, after->base);
  } else {
    snprintf(b, sizeof b, "no allocation is near");
  }
  return b;
}

void DeviceMemory::markWritten(uint64_t address, uint64_t bytes) {
  if (!holds(address) || !bytes) return;
  uint64_t i = address - base_, end = i + bytes;
  for (; i < end && (i & 7); i++) __atomic_fetch_or(bits_ + (i >> 3), (uint8_t)(1 << (i & 7)), __ATOMIC_RELAXED);
  if (i < end) {
    memset(bits_ + (i >> 3), 0xFF, (end - i) >> 3);
    for (i += (end - i) & ~7ull; i < end; i++)
      __atomic_fetch_or(bits_ + (i >> 3), (uint8_t)(1 << (i & 7)), __ATOMIC_RELAXED);
  }
}
void DeviceMemory::markUnwritten(uint64_t address, uint64_t bytes) {
  if (!holds(address)) return;
  for (uint64_t i = address - base_, end = i + bytes; i < end; i++) bits_[i >> 3] &= (uint8_t) ~(1 << (i & 7));
}
uint64_t DeviceMemory::firstUnwritten(uint64_t address, uint64_t bytes) const {
  if (!holds(address)) return 0;
  for (uint64_t i = address - base_, end = i + bytes; i < end;) {
    if (!(i & 7) && end - i >= 8 && bits_[i >> 3] == 0xFF) {
      i += 8;
      continue;
    }
    if (!(bits_[i >> 3] >> (i & 7) & 1)) return base_ + i;
    i++;
  }
  return 0;
}
bool DeviceMemory::written(uint64_t address, uint64_t bytes) const { return firstUnwritten(address, bytes) == 0; }

uint32_t DeviceMemory::serials(uint64_t blocks) {
  constexpr uint32_t most = (1u << 26) - 1;
  if (blocks >= most) blocks = most - 1;
  if (nextSerial_ + blocks > most) {
    madvise(writers_, size_, MADV_DONTNEED);
    madvise(readers_, size_, MADV_DONTNEED);
    nextSerial_ = 1;
  }
  uint32_t first = nextSerial_;
  nextSerial_ += (uint32_t)blocks;
  return first;
}

void DeviceMemory::footprint(uint32_t first, uint64_t* read, uint64_t* written) {
  std::lock_guard lock(mutex);
  *read = *written = 0;
  for (auto& [at, a] : allocations_) {
    if (a.kind != Allocation::Device) continue;
    const Cell *r = reader(a.base), *w = writer(a.base);
    for (uint64_t k = 0; k < (a.size + 3) / 4; k++) {
      *read += r[k] >> 6 >= first ? 4 : 0;
      *written += w[k] >> 6 >= first ? 4 : 0;
    }
  }
}

std::vector<Allocation*> DeviceMemory::snapshot() {
  std::lock_guard lock(mutex);
  std::vector<Allocation*> live;
  for (auto& [at, a] : allocations_) live.push_back(&a);
  return live;
}

void DeviceMemory::refreshInitialised() {
  std::lock_guard lock(mutex);
  for (auto& [at, a] : allocations_) {
    if (a.initialised || (a.unwritten && !written(a.unwritten, 1))) continue;
    a.unwritten = firstUnwritten(a.base, a.size);
    a.initialised = a.unwritten == 0;
  }
}

uint64_t DeviceMemory::liveCount() {
  std::lock_guard lock(mutex);
  uint64_t n = 0;
  for (auto& [at, a] : allocations_) n += a.kind == Allocation::Device;
  return n;
}

void DeviceMemory::reset() {
  std::vector<uint64_t> live;
  {
    std::lock_guard lock(mutex);
    for (auto& [at, a] : allocations_)
      if (a.kind == Allocation::Device) live.push_back(at);
  }
  for (uint64_t at : live) release(at);
}

}  // namespace emu
