#include "work_order.h"

#include <algorithm>
#include <cinttypes>

#include "report.h"

namespace emu {

void VectorClock::join(const VectorClock& other) {
  if (times.size() < other.times.size()) times.resize(other.times.size());
  for (size_t i = 0; i < other.times.size(); i++) times[i] = std::max(times[i], other.times[i]);
}
bool VectorClock::knows(const VectorClock& other) const {
  for (uint32_t i = 0; i < other.times.size(); i++)
    if (!knows(i, other.times[i])) return false;
  return true;
}
void VectorClock::set(uint32_t lane, uint32_t time) {
  if (times.size() <= lane) times.resize(lane + 1);
  times[lane] = time;
}

std::string Work::text(uint32_t serial) const {
  std::string r = what;
  if (grid[0]) {
    uint32_t block = serial - first;
    r += ", block (" + std::to_string(block % grid[0]) + "," + std::to_string(block / grid[0] % grid[1]) + "," +
         std::to_string(block / grid[0] / grid[1]) + ")";
  }
  return r + (stream ? " on stream " + std::to_string(stream) : " on the default stream");
}

uint32_t WorkOrder::lane(const VectorClock& clock) {
  for (uint32_t i = 0; i < lanes.size(); i++)
    if (!lanes[i].used && clock.knows(i, lanes[i].last)) return lanes[i].used = true, i;
  lanes.push_back({0, true});
  return (uint32_t)lanes.size() - 1;
}

Order WorkOrder::next(uint32_t lane, uint64_t stream, VectorClock& clock) {
  Order o;
  o.lane = lane;
  o.time = ++lanes[lane].last;
  o.stream = stream;
  o.before = clock;
  clock.set(lane, o.time);
  return o;
}

uint32_t WorkOrder::begin(const Order& order, const std::string& what, uint64_t serials, const unsigned* grid) {
  first = memory().serials(serials);
  if (!done.empty() && first <= done.back().first) {  // they begin again, and all cells are empty
    done.clear();
    readers.clear();
  }
  known[0].clock = known[1].clock = order.before;
  if (auto ahead = endings.find(order.aheadLane);
      order.early && ahead != endings.end() && ahead->second.time == order.aheadTime) {
    known[0].clock = known[1].clock = order.base;
    known[0].clock.join(ahead->second.atStart);
    known[1].clock.join(ahead->second.later);
  }
  for (Known& k : known) {
    auto unknown =
        std::find_if(done.begin(), done.end(), [&](const Work& w) { return !k.clock.knows(w.lane, w.time); });
    k.firstUnordered = unknown == done.end() ? first : unknown->first;
  }
  Work w{first, order.lane, order.time, order.stream, what};
  if (grid) std::copy(grid, grid + 3, w.grid);
  done.push_back(std::move(w));
  return first;
}

void WorkOrder::end(const Order& order, bool awaitedFirst, bool awaited) {
  Ending& e = endings[order.lane];
  e = {order.time, known[awaitedFirst].clock, known[awaited].clock};
  e.later.set(order.lane, order.time);
}

const Work* WorkOrder::unordered(uint32_t serial, bool awaited) const {
  const Known& k = known[awaited];
  if (serial < k.firstUnordered || serial >= first) return nullptr;
  auto it = std::upper_bound(done.begin(), done.end(), serial, [](uint32_t s, const Work& w) { return s < w.first; });
  if (it == done.begin()) return nullptr;
  const Work& w = *std::prev(it);
  return k.clock.knows(w.lane, w.time) ? nullptr : &w;
}

void WorkOrder::share(uint64_t word, Cell reader) {
  std::lock_guard lock(mutex);
  auto& all = readers[word];
  std::erase_if(all, [&](Cell c) { return c >> 6 == reader >> 6 || !unordered(c >> 6); });  // this one stands for them
  all.push_back(reader & ~cellShared);
}
std::vector<Cell> WorkOrder::shared(uint64_t word) {
  std::lock_guard lock(mutex);
  auto it = readers.find(word);
  if (it == readers.end()) return {};
  auto all = std::move(it->second);
  readers.erase(it);
  return all;
}

void WorkOrder::touch(uint64_t at, uint64_t bytes, bool write) {
  if (!bytes || !memory().holds(at)) return;
  std::vector<const Work*> told;
  auto check = [&](uint64_t word, Cell cell, Cell mask, const char* did) {
    if (!(cell & mask)) return;
    const Work* other = unordered(cell >> 6);
    if (!other || std::find(told.begin(), told.end(), other) != told.end()) return;
    told.push_back(other);
    Finding f;
    f.kind = "stream_race";
    f.space = "global";
    f.address = std::max(word, at);
    f.bytes = (int)std::min<uint64_t>(bytes, 1 << 30);
    f.message = done.back().text(first) + (write ? " writes" : " reads") + " what " + other->text(cell >> 6) + " " +
                did + ", and nothing orders the two";
    reports().add(std::move(f));
  };
  Cell *writers = memory().writer(at), *readers = memory().reader(at);
  const uint32_t firstUnordered = known[0].firstUnordered;
  const bool alone = firstUnordered >= first;
  for (uint64_t word = at & ~3ull, k = 0; word < at + bytes; word += 4, k++) {
    if (uint64_t whole = (at + bytes - word) / 4; alone && word >= at && whole) {  // nothing to compare with
      std::fill_n((write ? writers : readers) + k, whole, first << 6 | 15);
      k += whole - 1, word += 4 * (whole - 1);
      continue;
    }
    Cell mask = 15;
    if (word < at) mask &= 15u << (at - word);
    if (word + 4 > at + bytes) mask &= 15u >> (word + 4 - at - bytes);
    Cell &writer = writers[k], &reader = readers[k];
    Cell kept = 0;
    if (!alone) {
      check(word, writer, mask, "wrote");
      if (reader >> 6 >= firstUnordered) kept = reader & cellShared;
      if (write) {
        check(word, reader, mask, "read");
        if (reader >> 6 >= firstUnordered)
          for (Cell c : shared(word)) check(word, c, mask, "read");
      } else if (reader >> 6 < first && unordered(reader >> 6)) {
        share(word, reader);
        kept = cellShared;
      }
    }
    if (write) writer = first << 6 | mask | (writer >> 6 == first ? writer & 15 : 0);
    else reader = first << 6 | kept | mask | (reader >> 6 == first ? reader & 15 : 0);
  }
}

void WorkOrder::forget(const std::vector<const VectorClock*>& clocks) {
  while (!done.empty()) {
    const Work& w = done.front();
    if (!std::all_of(clocks.begin(), clocks.end(), [&](const VectorClock* c) { return c->knows(w.lane, w.time); }))
      return;
    done.pop_front();
  }
  std::lock_guard lock(mutex);
  readers.clear();
}

}  // namespace emu
