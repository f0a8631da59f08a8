/**
 * A whole JTReLU network as one layer of a Deeplearning4j network: Deeplearning4j owns parameters,
 * updater, loss and training loop, JTReLU computes forward and backward with its own kernels on the
 * CPU, on ND4J's memory.
 *
 * <p>Start at {@link io.jtrelu.dl4j.layer.JtreluLayer}.
 */
@NullMarked
package io.jtrelu.dl4j.layer;

import org.jspecify.annotations.NullMarked;
