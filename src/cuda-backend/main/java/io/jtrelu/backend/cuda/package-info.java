/**
 * NVIDIA GPUs: hand-written kernels (the cuda/ folder of the source tree), launched through JCuda.
 * The only importer of jcuda.
 *
 * <p>{@link io.jtrelu.backend.cuda.CudaProvider} opens a GPU; {@link
 * io.jtrelu.backend.cuda.EmulatedCudaProvider} runs the same path on the emulated driver, for
 * tests. Inside: {@code DriverLibrary} loads libcuda and JCuda, {@code Driver} turns every failed
 * call into a {@link io.jtrelu.backend.cuda.CudaException}, {@code MemoryPool} hands out device
 * memory, {@code CudaStream} packs a kernel's one parameter block and launches it, {@code Kernels}
 * loads compiled kernels by name, and one small class per operation fills in the parameters.
 */
@NullMarked
package io.jtrelu.backend.cuda;

import org.jspecify.annotations.NullMarked;
