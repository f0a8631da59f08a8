/**
 * Random numbers and the random matrices that weights begin as, the same on every machine: {@link
 * io.jtrelu.random.OrthogonalMatrix} for linear layers, {@link io.jtrelu.random.DeltaKernel} for
 * convolutions, and the generator under both, {@link io.jtrelu.random.Philox}.
 *
 * <p>Nothing is drawn from the clock: equal arguments give equal numbers.
 */
@NullMarked
package io.jtrelu.random;

import org.jspecify.annotations.NullMarked;
