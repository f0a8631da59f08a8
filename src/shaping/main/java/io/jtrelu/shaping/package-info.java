/**
 * Kernel shaping: choosing activation functions so that a very deep network without shortcuts or
 * normalisation keeps its inputs apart and trains.
 *
 * <p>At initialisation a wide network moves two numbers: q, the mean square of a signal, and c, the
 * cosine of two signals. An activation phi acts on them through its local maps
 *
 * <pre>
 *   Q(q) = E[phi(sqrt(q) z)^2]                          z ~ N(0, 1)
 *   C(c) = E[phi(u) phi(v)] / Q(1)                      u, v ~ N(0, 1) with correlation c
 * </pre>
 *
 * affine layers with orthogonal weights and zero biases move neither, and a sum with weights w_i,
 * sum w_i^2 = 1, averages with w_i^2. Through many layers C drives every c to one value and the
 * network forgets its input; shaping bends phi so that it does not. How much each activation may
 * bend follows from the network: {@link io.jtrelu.shaping.SignalGraph} evaluates the subnetwork
 * maximising function M of the TAT paper from the graph itself.
 *
 * <p>Start at {@link io.jtrelu.shaping.ShapingMethod}:
 *
 * <pre>{@code
 * Shaping s = new Tat().solve(SignalGraph.chain(49), Activation.LEAKY_RELU);
 * s.activation().negativeSlope(); // 0.42590719...
 * }</pre>
 *
 * <p>Everything here is immutable and safe for use by several threads; nothing is random.
 *
 * <p>Sources: Zhang, Botev, Martens, <i>Deep Learning without Shortcuts: Shaping the Kernel with
 * Tailored Rectifiers</i>, ICLR 2022, arXiv 2203.08120 (TAT); Martens et al., <i>Rapid training of
 * deep neural networks without skip connections or normalization layers using Deep Kernel
 * Shaping</i>, arXiv 2110.01765 (DKS); Schoenholz et al., <i>Deep Information Propagation</i>,
 * arXiv 1611.01232 (edge of chaos).
 */
@NullMarked
package io.jtrelu.shaping;

import org.jspecify.annotations.NullMarked;
