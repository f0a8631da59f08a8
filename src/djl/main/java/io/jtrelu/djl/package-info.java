/**
 * Kernel shaping for networks of the Deep Java Library: {@link io.jtrelu.djl.ShapedActivation} and
 * {@link io.jtrelu.djl.NormalizedSum} are blocks, {@link io.jtrelu.djl.DeltaInitializer} an
 * initialiser, and {@link io.jtrelu.djl.BlockShaping} gives a network the activations that suit it.
 * All is computed by operations of DJL's engine, on its device and with its gradients.
 *
 * <pre>{@code
 * SequentialBlock net = ...;                       // convolutions and new ShapedActivation(LEAKY_RELU)
 * BlockShaping.shape(net, new Tat());
 * net.setInitializer(new DeltaInitializer(seed), Parameter.Type.WEIGHT);
 * }</pre>
 */
@NullMarked
package io.jtrelu.djl;

import org.jspecify.annotations.NullMarked;
