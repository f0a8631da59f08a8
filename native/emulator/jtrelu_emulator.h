/* What the emulated CUDA driver offers beyond the CUDA driver API. All functions are exported from libcuda.so.1 and may be called at any
 * time, from any thread, also before cuInit. A library that lacks these symbols is a real driver. */
#ifndef JTRELU_EMULATOR_H
#define JTRELU_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this interface: 1. */
int jtreluEmulatorVersion(void);

/* Forgets findings, counters, injected failures and the errors of all contexts; settings, allocations, modules and streams stay. */
void jtreluEmulatorClear(void);

/* --- findings of the checkers ---
 * Errors are faults of a kernel or of a call; warnings cannot change a result (two threads storing the same value, copying bytes to
 * the host that nothing has written). */
uint64_t jtreluEmulatorErrorCount(void);
uint64_t jtreluEmulatorWarningCount(void);
void jtreluEmulatorReportsClear(void);
/* Copies the text with its terminating zero into the buffer, as far as it fits, and returns the length needed without the zero.
 * Text: one line each. JSON: an array of objects {severity, kind, kernel, ptxLine, instruction, sourceFile, sourceLine, block, thread,
 * address, bytes, count, space, message}. Kinds: out_of_bounds, use_after_free, misaligned, uninitialised, uninitialised_register,
 * uninitialised_copy, shared_race, global_race (and _same_value), stream_race, host_race, async_copy_pending, async_copy_unfinished, divergent_barrier, deadlock,
 * mbarrier_invalid, mbarrier_not_visible, mbarrier_accessed, mbarrier_arrivals, mbarrier_phase, mbarrier_transactions,
 * missing_proxy_fence, bad_tensor_map, tensor_map, tensor_coordinates, wgmma_pending, wgmma_fence, wgmma_divergent, bad_descriptor,
 * cluster_start, cluster_exit, cluster_barrier, cluster_rank, cluster_mask, cluster_mbarrier, grid_dependency, setmaxnreg, bad_barrier, timeout, member_mask_of_absent_lanes, not_in_member_mask, shuffle_from_absent_lane, write_to_constant, trap, assert,
 * launch_limit, parameters, unsupported_ptx, module, double_free, bad_free, bad_handle, null_pointer. */
size_t jtreluEmulatorReportsText(char* buffer, size_t capacity);
size_t jtreluEmulatorReportsJson(char* buffer, size_t capacity);

/* --- counters: an array of objects, one for each of the last 4096 launches, oldest first --- */
size_t jtreluEmulatorCountersJson(char* buffer, size_t capacity);
void jtreluEmulatorCountersClear(void);
/* Calls of the driver API since the counters were cleared, an object {name: count}: those that need a context, by the name without
 * version for copies and fills (cuMemcpyHtoDAsync) and with it for others (cuMemAlloc_v2). */
size_t jtreluEmulatorCallsJson(char* buffer, size_t capacity);
/* Launches since the counters were cleared. */
uint64_t jtreluEmulatorLaunchCount(void);

/* --- settings --- */
/* Order of blocks, of warps, of lanes in atomics and of bulk copies, and which lane is elected; 0: ascending. Also
 * JTRELU_EMULATOR_SEED. */
void jtreluEmulatorSetSeed(uint64_t seed);
/* When work is done that streams are given. 0 (default): when it is given. 1: as late as synchronisation allows, and no more than it
 * asks for. Others: seeds of orders that streams and events allow, and of queries that answer "not ready" a little longer than they must.
 * Also JTRELU_EMULATOR_DELAY. */
void jtreluEmulatorSetDelay(uint64_t delay);
/* Threads that run blocks; 0: all the machine has. With one thread, blocks run one after the other and every run finds the same
 * races. Also JTRELU_EMULATOR_THREADS. */
void jtreluEmulatorSetThreads(int threads);
/* 1 (default): a launch with findings that hardware would not notice fails with CUDA_ERROR_LAUNCH_FAILED when it has ended.
 * 0: they are only reported. Also JTRELU_EMULATOR_STRICT. */
void jtreluEmulatorSetStrict(int strict);
/* 1 (default): pinned memory that a copy may still read or write is protected from the host, as long as it has not waited for the copy.
 * 0: not for copies that are given from now on. Also JTRELU_EMULATOR_PROTECT. */
void jtreluEmulatorSetProtect(int protect);
/* Default 8.0. PTX for a newer target is refused, and PTX for sm_90a by all but 9.0; tensor cores add as those of the device do. */
void jtreluEmulatorSetComputeCapability(int major, int minor);
/* The CUDA version that the driver claims to support; default 13000. */
void jtreluEmulatorSetDriverVersion(int version);
/* Default 8. */
void jtreluEmulatorSetMultiprocessors(int count);
/* Default 4 GiB. Also JTRELU_EMULATOR_MEMORY_MIB. */
void jtreluEmulatorSetMemory(uint64_t bytes);
/* Instructions that one warp may execute before its launch ends with CUDA_ERROR_LAUNCH_TIMEOUT; default 2^32. */
void jtreluEmulatorSetInstructionLimit(uint64_t instructions);

/* 1: counters tell how many bytes a launch read and wrote at least once, in units of 4: what must cross a cache that holds all else.
 * Looks through all memory after each launch. 0 (default): they are 0. */
void jtreluEmulatorSetFootprint(int on);

/* Bytes of first-level cache that a block has (lines of 128 bytes, the least recently used leaves first) for the counter of sectors that
 * it does not answer; 0 (default): none. Results do not depend on it. */
void jtreluEmulatorSetFirstLevelCache(uint64_t bytes);

/* --- failures --- */
/* The n-th allocation from now on (1: the next) fails with CUDA_ERROR_OUT_OF_MEMORY; 0: none. */
void jtreluEmulatorFailAllocation(int64_t n);
/* The n-th kernel launch from now on fails with the given CUresult, which the context keeps; 0: none. */
void jtreluEmulatorFailLaunch(int64_t n, int code);
/* From now on every call that needs the device returns the code (46, 214, ...); 0: the device is back. */
void jtreluEmulatorLoseDevice(int code);

/* --- memory --- */
uint64_t jtreluEmulatorLiveAllocations(void);
uint64_t jtreluEmulatorUsedBytes(void);
/* Marks a range as never written, as after cuMemAlloc: for tests of allocators that hand out memory again. */
void jtreluEmulatorMarkUninitialised(uint64_t address, uint64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
