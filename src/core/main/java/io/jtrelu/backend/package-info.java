/**
 * The contract that every device fulfils. A {@link io.jtrelu.backend.BackendProvider} says whether
 * its {@link io.jtrelu.backend.Backend} is available, and why not; a backend allocates tensors and
 * prepares operations; an operation is prepared once per descriptor and runs many times on a {@link
 * io.jtrelu.backend.Stream}.
 *
 * <p>Each operation is one abstract class whose public methods check their operands and whose
 * protected methods a backend implements; its Javadoc is the operation's definition, and one
 * contract test per operation holds every backend to it.
 *
 * <p><b>Gradients.</b> With a rectifier phi(x) = s*(max(x,0) + a*min(x,0)) the derivative follows
 * from the output alone. So no pre-activation is ever kept, and the backward pass is cut at the
 * pre-activations: {@code diff_dst} of an operation is always the gradient of the loss with respect
 * to its value <i>before</i> its own activation, and an operation that propagates to its source
 * multiplies, as its last step, by the derivative of the activation that produced that source
 * ({@code srcActivation}, evaluated on the source tensor itself). Along a chain no elementwise pass
 * is left.
 *
 * <p><b>Steps without the host.</b> Work given to a stream can be {@linkplain
 * io.jtrelu.backend.Backend#record recorded} and run again as one. So what differs from step to
 * step (learning rate, step and dropout numbers) is an operand on the device, never an argument;
 * and a value that is not finite stops the updates on the device by itself: it makes the
 * {@linkplain io.jtrelu.backend.SoftmaxCrossEntropy gradient} NaN, hence the {@linkplain
 * io.jtrelu.backend.GradientNorm clipping factor}, with which the optimisers change nothing.
 */
@NullMarked
package io.jtrelu.backend;

import org.jspecify.annotations.NullMarked;
