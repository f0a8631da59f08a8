#include "host_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>

#include "report.h"

namespace emu {

namespace {
constexpr uint64_t page = 4096;
thread_local int device = 0;  // at work on this thread
struct sigaction before;  // the handler that faults of others go to: a JVM's, which it needs to run

void onFault(int signal, siginfo_t* info, void* context) {
#if defined(__x86_64__)
  bool write = ((ucontext_t*)context)->uc_mcontext.gregs[REG_ERR] & 2;
#else
  bool write = true;
#endif
  if (info->si_code > 0 && hostGuard().fault((uint64_t)info->si_addr, write)) return;
  if (before.sa_flags & SA_SIGINFO) before.sa_sigaction(signal, info, context);
  else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) before.sa_handler(signal);
  else sigaction(signal, &before, nullptr);  // what happens again now has its usual end
}
void listen() {
  static const bool once = [] {
    sigaction(SIGSEGV, nullptr, &before);
    struct sigaction ours = before;
    ours.sa_sigaction = onFault;
    ours.sa_flags = (before.sa_flags & SA_ONSTACK) | SA_RESTART | SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGSEGV, &ours, nullptr) == 0;
  }();
  (void)once;
}
uint64_t firstPage(uint64_t at) { return at & ~(page - 1); }
uint64_t pagesEnd(uint64_t end) { return (end + page - 1) & ~(page - 1); }
}  // namespace

HostGuard& hostGuard() {
  static HostGuard* g = new HostGuard;
  return *g;
}

void HostGuard::apply(const Range& r) const {
  // The host reads what a copy reads, unless another writes the same page.
  bool readable = std::none_of(ranges.begin(), ranges.end(), [&](const Range& o) {
    return o.written && firstPage(o.at) < pagesEnd(r.end) && firstPage(r.at) < pagesEnd(o.end);
  });
  mprotect((void*)firstPage(r.at), pagesEnd(r.end) - firstPage(r.at), readable ? PROT_READ : PROT_NONE);
}
void HostGuard::open(const Range& r) const {
  mprotect((void*)firstPage(r.at), pagesEnd(r.end) - firstPage(r.at), PROT_READ | PROT_WRITE);
}

void HostGuard::protect(uint64_t at, uint64_t bytes, bool written, const Order& order, const std::string& copy) {
  listen();
  std::lock_guard lock(mutex);
  ranges.push_back({at, at + bytes, written, order.lane, order.time, copy});
  apply(ranges.back());
}

void HostGuard::release(const VectorClock& host) {
  std::lock_guard lock(mutex);
  auto kept = std::partition(ranges.begin(), ranges.end(), [&](const Range& r) { return !host.knows(r.lane, r.time); });
  if (kept == ranges.end()) return;
  for (auto it = kept; it != ranges.end(); ++it) open(*it);
  ranges.erase(kept, ranges.end());
  for (auto& r : ranges) apply(r);
}

void HostGuard::clear() {
  std::lock_guard lock(mutex);
  for (auto& r : ranges) open(r);
  ranges.clear();
}

HostGuard::DeviceAtWork::DeviceAtWork() { device++; }
HostGuard::DeviceAtWork::~DeviceAtWork() {
  if (--device) return;
  HostGuard& g = hostGuard();
  std::lock_guard lock(g.mutex);
  if (!g.lent) return;
  g.lent = false;
  for (auto& r : g.ranges) g.apply(r);
}
void HostGuard::belongsToDevice() { device = 1; }

bool HostGuard::fault(uint64_t address, bool write) {
  if (!memory().holds(address)) return false;
  std::lock_guard lock(mutex);
  for (size_t i = 0; i < ranges.size();) {
    Range& r = ranges[i];
    if (address < firstPage(r.at) || address >= pagesEnd(r.end)) {
      i++;
      continue;
    }
    if (device) {
      open(r);
      lent = true;
      i++;
      continue;
    }
    if (address >= r.at && address < r.end && (r.written || write)) {
      Finding f;
      f.kind = "host_race";
      f.space = "pinned";
      f.address = address;
      f.bytes = 1;
      f.message = std::string("the host ") + (write ? "writes" : "reads") + " memory that " + r.copy +
                  (r.written ? " writes" : " reads") + ", and has not waited for that";
      reports().add(std::move(f));
      open(r);
      ranges.erase(ranges.begin() + (long)i);
    } else {  // a neighbour on the page
      mprotect((void*)firstPage(address), page, PROT_READ | PROT_WRITE);
      i++;
    }
  }
  return true;
}

}  // namespace emu
