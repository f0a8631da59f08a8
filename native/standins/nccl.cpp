// A stand-in for libnccl on the emulated device, for tests: the functions that io.jtrelu.backend.cuda calls, as the NCCL
// documentation describes them, and more unforgiving. Ranks are processes of this machine, each pair with a socket of its own.
// Work goes to a stream as the driver's own calls do: copies to the host, a host function that exchanges, copies back. Each message
// says what it is, so that ranks that do not do the same get an error, and one that leaves is named; nothing waits for ever.
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>

#include "standin.h"

using namespace standin;

namespace {

enum Result : int {
  SUCCESS = 0,
  UNHANDLED_CUDA_ERROR = 1,
  SYSTEM_ERROR = 2,
  INVALID_ARGUMENT = 4,
  INVALID_USAGE = 5,
  REMOTE_ERROR = 6
};

constexpr uint32_t ALIVE = 0x6c63636e;
constexpr int VERSION = 20900;  // the first that takes part in recordings
constexpr int SECONDS = 20;  // that nothing waits longer than

struct Id {
  char text[128];
};

/// Before each message.
struct Header {
  uint32_t magic;
  int32_t type;
  uint64_t number, count;  // of the exchange, and of elements
};

/// A message on its way, its header first.
struct Flow {
  bool send;
  int peer;
  Header header;
  size_t bytes;
  std::vector<uint8_t> message = {};  // in memory of its own, as the emulator keeps pinned memory from system calls
  size_t done = 0;
  bool over() const { return done == message.size(); }
};

struct Comm {
  uint32_t alive = ALIVE;
  int rank, size;
  void* context = nullptr;
  std::vector<int> sockets;  // by peer
  uint64_t number = 0;  // of the exchanges that were done
  std::atomic<int> error = SUCCESS;
  std::atomic<bool> aborted = false;
  std::string text;
  std::mutex exchanging;
  Staging staging;
};

struct Operation {
  bool send;
  CUdeviceptr at;
  size_t count;
  int type, peer;
  Comm* comm = nullptr;
  void* stream;
};

thread_local int depth = 0;
thread_local std::vector<Operation> group;
thread_local std::string problem;  // of the last call that failed

Result fail(Result result, std::string text) {
  problem = std::move(text);
  return result;
}

size_t bytesOf(int type) {
  constexpr size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return type >= 0 && type < 10 ? bytes[type] : 0;
}

using Clock = std::chrono::steady_clock;
bool over(Clock::time_point begin) { return Clock::now() - begin > std::chrono::seconds(SECONDS); }

std::string rank(int number) { return "rank " + std::to_string(number); }

std::string describe(const Header& h) {
  return std::to_string(h.count) + " elements of type " + std::to_string(h.type) + " in exchange " +
         std::to_string(h.number);
}

/// The communicator and everything after on it have failed.
void failed(Comm& comm, Result result, std::string text) {
  comm.text = std::move(text);
  comm.error = result;
}

/// Moves what can be moved of a message; false where that has failed.
bool move(Comm& comm, Flow& f) {
  while (!f.over()) {
    int socket = comm.sockets[f.peer];
    uint8_t* at = f.message.data() + f.done;
    size_t left = f.message.size() - f.done;
    ssize_t moved = f.send ? send(socket, at, left, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(socket, at, left, MSG_DONTWAIT);
    if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return true;
    if (moved <= 0) {
      failed(comm, REMOTE_ERROR, rank(f.peer) + " has gone");
      return false;
    }
    f.done += moved;
    if (f.send || f.done < sizeof(Header)) continue;
    Header got;
    memcpy(&got, f.message.data(), sizeof got);
    if (memcmp(&got, &f.header, sizeof got)) {
      failed(comm, INVALID_USAGE,
             rank(comm.rank) + " expects " + describe(f.header) + " of " + rank(f.peer) + ", which sends " +
                 describe(got));
      return false;
    }
  }
  return true;
}

void exchange(Comm& comm, std::vector<Flow> flows, const std::vector<uint8_t*>& memory) {
  std::lock_guard<std::mutex> lock(comm.exchanging);
  if (comm.error || comm.aborted) return;
  uint64_t number = comm.number++;
  for (size_t i = 0; i < flows.size(); i++) {
    Flow& f = flows[i];
    f.header.number = number;
    f.message.resize(sizeof(Header) + f.bytes);
    memcpy(f.message.data(), &f.header, f.send ? sizeof(Header) : 0);
    memcpy(f.message.data() + sizeof(Header), memory[i], f.send ? f.bytes : 0);
  }
  auto begin = Clock::now();
  while (true) {
    std::vector<pollfd> waiting;
    for (auto& f : flows)
      if (!f.over()) waiting.push_back({comm.sockets[f.peer], short(f.send ? POLLOUT : POLLIN), 0});
    if (waiting.empty()) break;
    if (poll(waiting.data(), waiting.size(), 20) < 0 && errno != EINTR)
      return failed(comm, SYSTEM_ERROR, strerror(errno));
    for (auto& f : flows)
      if (!f.over() && !move(comm, f)) return;
    if (comm.aborted) return;
    if (over(begin)) {
      for (auto& f : flows)
        if (!f.over())
          return failed(comm, REMOTE_ERROR, rank(f.peer) + " did not come to exchange " + std::to_string(number));
    }
  }
  for (size_t i = 0; i < flows.size(); i++)
    if (!flows[i].send) memcpy(memory[i], flows[i].message.data() + sizeof(Header), flows[i].bytes);
}

Result require(void* handle, Comm** out) {
  auto* comm = static_cast<Comm*>(handle);
  if (!comm || comm->alive != ALIVE) return fail(INVALID_ARGUMENT, "no communicator");
  *out = comm;
  return SUCCESS;
}

/// Gives the operations of a group to their stream, all of them as one exchange.
Result launch(std::vector<Operation> operations) {
  if (operations.empty()) return SUCCESS;
  Comm& comm = *operations.front().comm;
  void* stream = operations.front().stream;
  void* current = nullptr;
  if (cuCtxGetCurrent(&current) || current != comm.context) return fail(INVALID_USAGE, "another context is current");
  if (comm.error) return fail(Result(comm.error.load()), comm.text);
  std::vector<Operand> operands;
  std::vector<Flow> flows;
  for (auto& o : operations) {
    if (o.comm != &comm || o.stream != stream) return fail(INVALID_USAGE, "a group of one communicator and stream");
    for (auto& f : flows)
      if (f.send == o.send && f.peer == o.peer) return fail(INVALID_USAGE, "two messages to or from " + rank(o.peer));
    size_t bytes = o.count * bytesOf(o.type);
    operands.push_back({o.at, bytes, o.send, !o.send});
    flows.push_back({o.send, o.peer, {ALIVE, o.type, 0, o.count}, bytes});
  }
  CUresult r = comm.staging.enqueue(
      stream, operands, [&comm, flows](const std::vector<uint8_t*>& memory) { exchange(comm, flows, memory); });
  return r ? fail(UNHANDLED_CUDA_ERROR, "error " + std::to_string(int(r)) + " of the driver") : SUCCESS;
}

Result add(bool send, const void* at, size_t count, int type, int peer, void* handle, void* stream) {
  Comm* comm = nullptr;
  if (Result r = require(handle, &comm)) return r;
  if (peer < 0 || peer >= comm->size || peer == comm->rank) return fail(INVALID_ARGUMENT, "no other " + rank(peer));
  if (!bytesOf(type) || !at || !count) return fail(INVALID_ARGUMENT, "no message");
  Operation o{send, reinterpret_cast<CUdeviceptr>(at), count, type, peer, comm, stream};
  if (depth == 0) return launch({o});
  group.push_back(o);
  return SUCCESS;
}

sockaddr_un address(const Id& id, int rank, socklen_t* length) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;  // an abstract name, which leaves no file
  int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "%.40s-%d", id.text, rank);
  *length = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + n);
  return a;
}

/// Connects with all others: to those before, and from those behind.
Result connectAll(Comm& comm, const Id& id) {
  auto begin = Clock::now();
  socklen_t length;
  sockaddr_un mine = address(id, comm.rank, &length);
  int door = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (door < 0 || bind(door, reinterpret_cast<sockaddr*>(&mine), length) || listen(door, comm.size))
    return fail(INVALID_USAGE, rank(comm.rank) + " is there already");
  for (int peer = 0; peer < comm.rank; peer++) {
    sockaddr_un to = address(id, peer, &length);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(s, reinterpret_cast<sockaddr*>(&to), length)) {
      if (over(begin)) return fail(SYSTEM_ERROR, rank(peer) + " did not come");
      usleep(5000);
    }
    if (write(s, &comm.rank, sizeof comm.rank) != sizeof comm.rank) return fail(REMOTE_ERROR, rank(peer) + " has gone");
    comm.sockets[peer] = s;
  }
  for (int left = comm.size - 1 - comm.rank; left > 0; left--) {
    pollfd waiting{door, POLLIN, 0};
    int s = poll(&waiting, 1, 1000 * SECONDS) > 0 ? accept4(door, nullptr, nullptr, SOCK_CLOEXEC) : -1;
    int peer;
    if (s < 0 || read(s, &peer, sizeof peer) != sizeof peer) return fail(SYSTEM_ERROR, "a rank did not come");
    comm.sockets[peer] = s;
  }
  close(door);
  return SUCCESS;
}

}  // namespace

/// Tells it from NVIDIA's.
EXPORT int jtreluStandin() { return 1; }

EXPORT int ncclGetVersion(int* version) {
  if (!version) return fail(INVALID_ARGUMENT, "nowhere to put it");
  *version = VERSION;
  return SUCCESS;
}

EXPORT const char* ncclGetErrorString(int result) {
  switch (result) {
    case SUCCESS: return "no error";
    case UNHANDLED_CUDA_ERROR: return "unhandled cuda error";
    case SYSTEM_ERROR: return "unhandled system error";
    case INVALID_ARGUMENT: return "invalid argument";
    case INVALID_USAGE: return "invalid usage";
    case REMOTE_ERROR: return "remote process exited or there was a network error";
    default: return "unknown result code";
  }
}

EXPORT const char* ncclGetLastError(void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  return comm && comm->error ? comm->text.c_str() : problem.c_str();
}

EXPORT int ncclGetUniqueId(Id* out) {
  uint64_t number;
  if (!out || getrandom(&number, sizeof number, 0) != sizeof number) return fail(INVALID_ARGUMENT, "no number");
  memset(out, 0, sizeof *out);
  snprintf(out->text, sizeof out->text, "jtrelu-nccl-%016lx", static_cast<unsigned long>(number));
  return SUCCESS;
}

EXPORT int ncclCommInitRank(void** out, int size, Id id, int number) {
  if (!out || size < 1 || number < 0 || number >= size) return fail(INVALID_ARGUMENT, "no " + rank(number));
  auto* comm = new Comm;
  comm->rank = number;
  comm->size = size;
  comm->sockets.assign(size, -1);
  if (cuCtxGetCurrent(&comm->context) || !comm->context) return fail(UNHANDLED_CUDA_ERROR, "no context is current");
  if (Result r = connectAll(*comm, id)) return r;
  *out = comm;
  return SUCCESS;
}

EXPORT int ncclCommGetAsyncError(void* handle, int* result) {
  Comm* comm = nullptr;
  if (Result r = require(handle, &comm)) return r;
  *result = comm->error;
  return SUCCESS;
}

/// What is under way ends, for any thread; what is recorded does nothing any more.
EXPORT int ncclCommAbort(void* handle) {
  Comm* comm = nullptr;
  if (Result r = require(handle, &comm)) return r;
  comm->aborted = true;
  std::lock_guard<std::mutex> lock(comm->exchanging);
  comm->alive = 0;
  for (int s : comm->sockets)
    if (s >= 0) close(s);
  return SUCCESS;
}

/// As above, in order: others see it go only when all is done. Work must be done.
EXPORT int ncclCommDestroy(void* handle) { return ncclCommAbort(handle); }

EXPORT int ncclGroupStart() {
  depth++;
  return SUCCESS;
}

EXPORT int ncclGroupEnd() {
  if (depth == 0) return fail(INVALID_USAGE, "no group");
  if (--depth > 0) return SUCCESS;
  std::vector<Operation> operations;
  operations.swap(group);
  return launch(std::move(operations));
}

EXPORT int ncclSend(const void* from, size_t count, int type, int peer, void* comm, void* stream) {
  return add(true, from, count, type, peer, comm, stream);
}

EXPORT int ncclRecv(void* to, size_t count, int type, int peer, void* comm, void* stream) {
  return add(false, to, count, type, peer, comm, stream);
}
