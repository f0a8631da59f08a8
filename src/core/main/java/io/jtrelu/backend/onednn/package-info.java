/**
 * The CPU default: convolutions by oneDNN; 3x3 convolutions, sums, rectifiers and optimisers by
 * this library's own kernels where it was built with them; everything else by plain loops.
 *
 * <p><b>Threads.</b> Each stream is a lane: a Java thread that feeds its own stream runs its own
 * micro-batch through the whole network on one core. oneDNN never starts threads of its own, so
 * there is no barrier between layers and nothing spins.
 *
 * <p><b>Memory.</b> Activations stay NHWC in host memory; weights are kept in oneDNN's blocked
 * formats inside {@link io.jtrelu.backend.PackedWeights}, one for each direction. Executing an
 * operation allocates nothing: what a primitive needs besides its operands lies in the stream's
 * workspace, which grows only when an operation first runs on a stream.
 */
@NullMarked
package io.jtrelu.backend.onednn;

import org.jspecify.annotations.NullMarked;
