#include "mpi_shim.h"

#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <initializer_list>

namespace {

constexpr int32_t kOk = 0;
constexpr int32_t kDeadline = 1;
constexpr int32_t kFailed = 2;

MPI_Comm world;  // a copy, so that nobody else's messages are ours
int ranks;
int self;
MPI_Request* requests;  // those that receive, then those that send
int* received;  // bytes, by request
char problem[MPI_MAX_ERROR_STRING + 128];

void copyText(const char* from, char* to, int32_t capacity) {
  strncpy(to, from, capacity - 1);
  to[capacity - 1] = 0;
}

int32_t failed(const char* what, int code) {
  char reason[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, reason, &length);
  strcpy(problem, what);
  strcat(problem, ": ");
  strcat(problem, reason);
  return kFailed;
}

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// Looks again at once for as long as a small message takes. Then gives the processor away between two looks, as ranks may share
// cores: to whoever is ready while the message may be on its way, as it only moves when somebody looks; then, as the other rank must
// be late, for longer.
class Waiting {
 public:
  Waiting(double seconds, double bytes) : seconds(seconds), busy(kLatency + bytes / kBandwidth), begin(now()) {}

  bool over() const { return now() - begin > seconds; }

  void pause() const {
    double waited = now() - begin;
    if (waited < kSmall) { return; }
    if (waited < busy) {
      sched_yield();
      return;
    }
    timespec time{0, waited < 20 * busy ? 20000 : 200000};
    nanosleep(&time, nullptr);
  }

 private:
  static constexpr double kSmall = 50e-6;  // s
  static constexpr double kLatency = 1e-3;  // s
  static constexpr double kBandwidth = 0.5e9;  // bytes/s, of a slow one

  const double seconds;
  const double busy;
  const double begin;
};

// Waits for requests, which are MPI_REQUEST_NULL once they have finished.
int32_t waitFor(int count, double bytes, double seconds, const char* what) {
  const Waiting waiting(seconds, bytes);
  while (true) {
    bool pending = false;
    bool moved = false;
    for (int i = 0; i < count; i++) {
      if (requests[i] == MPI_REQUEST_NULL) { continue; }
      int done = 0;
      MPI_Status status;
      int code = MPI_Test(requests + i, &done, &status);
      if (code != MPI_SUCCESS) { return failed(what, code); }
      if (done) {
        MPI_Get_count(&status, MPI_BYTE, received + i);
        moved = true;
      } else {
        pending = true;
      }
    }
    if (!pending) { return kOk; }
    if (waiting.over()) { return kDeadline; }
    if (!moved) { waiting.pause(); }
  }
}

}  // namespace

int32_t jtreluMpiVersion() { return 1; }

void jtreluMpiLibrary(char* text, int32_t capacity) {
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(version, &length);
  copyText(version, text, capacity);
}

void jtreluMpiError(char* text, int32_t capacity) { copyText(problem, text, capacity); }

int32_t jtreluMpiStart(int32_t* rank, int32_t* size) {
  int provided = 0;
  int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  if (code != MPI_SUCCESS) { return failed("MPI_Init_thread", code); }
  if (provided < MPI_THREAD_SERIALIZED) {
    strcpy(problem, "this MPI was built without support for threads (MPI_THREAD_SERIALIZED)");
    return kFailed;
  }
  code = MPI_Comm_dup(MPI_COMM_WORLD, &world);
  for (MPI_Comm of : {world, MPI_COMM_WORLD, MPI_COMM_SELF}) {  // MPICH reports a failed request to another one
    if (code == MPI_SUCCESS) { code = MPI_Comm_set_errhandler(of, MPI_ERRORS_RETURN); }
  }
  if (code != MPI_SUCCESS) { return failed("MPI_Comm_dup", code); }
  MPI_Comm_rank(world, &self);
  MPI_Comm_size(world, &ranks);
  requests = static_cast<MPI_Request*>(malloc(2 * ranks * sizeof(MPI_Request)));
  received = static_cast<int*>(malloc(2 * ranks * sizeof(int)));
  if (!requests || !received) {
    strcpy(problem, "out of memory");
    return kFailed;
  }
  *rank = self;
  *size = ranks;
  return kOk;
}

int32_t jtreluMpiExchange(const void* const* send, const int64_t* sendBytes, void* const* receive,
                          const int64_t* receiveBytes, int32_t tag, double seconds, int32_t* missing) {
  for (int i = 0; i < 2 * ranks; i++) { requests[i] = MPI_REQUEST_NULL; }
  for (int i = 0; i < ranks; i++) {
    if (receiveBytes[i] > 0) {
      int code = MPI_Irecv(receive[i], int(receiveBytes[i]), MPI_BYTE, i, tag, world, requests + i);
      if (code != MPI_SUCCESS) { return failed("MPI_Irecv", code); }
    }
  }
  for (int i = 1; i < ranks; i++) {
    int to = (self + i) % ranks;  // so that not all begin with the same one
    if (sendBytes[to] > 0) {
      int code = MPI_Isend(send[to], int(sendBytes[to]), MPI_BYTE, to, tag, world, requests + ranks + to);
      if (code != MPI_SUCCESS) { return failed("MPI_Isend", code); }
    }
  }
  double bytes = 0;
  for (int i = 0; i < ranks; i++) { bytes += double(sendBytes[i] + receiveBytes[i]); }
  int32_t result = waitFor(2 * ranks, bytes, seconds, "an exchange");
  for (int i = 0; i < ranks; i++) {
    missing[i] = requests[i] != MPI_REQUEST_NULL || requests[ranks + i] != MPI_REQUEST_NULL;
  }
  for (int i = 0; i < ranks && result == kOk; i++) {
    if (receiveBytes[i] > 0 && received[i] != receiveBytes[i]) {
      strcpy(problem, "a rank sent fewer bytes than expected: the ranks do not do the same");
      result = kFailed;
    }
  }
  return result;
}

int32_t jtreluMpiSum(float* values, int64_t count, double seconds) {
  int code = MPI_Iallreduce(MPI_IN_PLACE, values, int(count), MPI_FLOAT, MPI_SUM, world, requests);
  return code == MPI_SUCCESS ? waitFor(1, 4.0 * double(count), seconds, "MPI_Iallreduce")
                             : failed("MPI_Iallreduce", code);
}

void jtreluMpiAbort(int32_t status) { MPI_Abort(MPI_COMM_WORLD, status); }

int32_t jtreluMpiFinish() {
  int code = MPI_Comm_free(&world);
  if (code == MPI_SUCCESS) { code = MPI_Finalize(); }
  free(requests);
  free(received);
  return code == MPI_SUCCESS ? kOk : failed("MPI_Finalize", code);
}
