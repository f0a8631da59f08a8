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
 *
 * <p>A warning for networks of one's own: in DJL 0.36 on PyTorch the gradient of {@code
 * array.mul(number)}, and of {@code div} and {@code pow}, is at times multiplied by what lies in
 * memory that Java has freed. The blocks of this package avoid it; {@code
 * array.mul(manager.full(new Shape(), number))} does too.
 */
@NullMarked
package io.jtrelu.djl;

import org.jspecify.annotations.NullMarked;
