package io.jtrelu.backend;

/**
 * A backend's own count of the memory it handed out.
 *
 * @param inUse bytes in tensors that are open now
 * @param cached bytes kept for reuse
 * @param peak largest value of inUse so far
 * @param allocations number of tensors allocated so far
 */
public record MemoryStatistics(long inUse, long cached, long peak, long allocations) {}
