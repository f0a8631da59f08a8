// What io.jtrelu.distributed.MpiCommunicator calls of MPI, through the JDK's foreign-function interface. Compiled once for each MPI
// that is found; no handle or constant of MPI crosses this interface, so that callers need not know which one it is.
#pragma once
#include <cstdint>

#define JTRELU_EXPORT extern "C" __attribute__((visibility("default")))

// Of this interface: the caller refuses another.
JTRELU_EXPORT int32_t jtreluMpiVersion();

// Name and version of the library, zero-terminated, also before it is started.
JTRELU_EXPORT void jtreluMpiLibrary(char* text, int32_t capacity);

// What was wrong in the call before.
JTRELU_EXPORT void jtreluMpiError(char* text, int32_t capacity);

// All calls below return 0 where they succeed, 1 where the deadline has passed, 2 where MPI failed.

// Starts MPI for calls by any thread, one at a time.
JTRELU_EXPORT int32_t jtreluMpiStart(int32_t* rank, int32_t* size);

// Sends bytes to each rank and receives from each at once; nothing goes where the count is 0. The caller leaves itself out.
// Counts are below 2^31. `missing` receives a 1 for each rank that something was still to come from, or to go to, at the deadline;
// the buffers must then stay until the process ends.
JTRELU_EXPORT int32_t jtreluMpiExchange(const void* const* send, const int64_t* sendBytes, void* const* receive,
                                        const int64_t* receiveBytes, int32_t tag, double seconds, int32_t* missing);

// The sum over all ranks, in the order of MPI's choice. `count` is below 2^31.
JTRELU_EXPORT int32_t jtreluMpiSum(float* values, int64_t count, double seconds);

// Ends all ranks with an exit code; does not return.
JTRELU_EXPORT void jtreluMpiAbort(int32_t status);

// Leaves MPI; all ranks do.
JTRELU_EXPORT int32_t jtreluMpiFinish();
