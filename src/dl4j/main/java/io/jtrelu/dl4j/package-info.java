/**
 * Kernel shaping in networks of Deeplearning4j 1.0.0-M2.1: everything here is computed by ND4J, on
 * whatever it computes on.
 *
 * <pre>{@code
 * MultiLayerConfiguration conf = new NeuralNetConfiguration.Builder()
 *     .seed(1).updater(new Nesterovs(0.02, 0.9)).list()
 *     ...                                       // convolutions, dense layers, an output layer
 *     .build();
 * KernelShaping.apply(conf, new Tat(), Activation.LEAKY_RELU);
 * MultiLayerNetwork network = new MultiLayerNetwork(conf);
 * network.init();
 * }</pre>
 *
 * <p>{@link io.jtrelu.dl4j.KernelShaping} derives what the activations should be from the network,
 * and sets them and the initialiser; {@link io.jtrelu.dl4j.ActivationTReLU}, {@link
 * io.jtrelu.dl4j.ActivationShaped} and {@link io.jtrelu.dl4j.WeightInitDelta} serve alone too. All
 * are part of a configuration's JSON, and so of what ModelSerializer writes; a process that reads
 * it needs this library on its class path.
 *
 * <p>Two habits of Deeplearning4j matter for very deep networks. {@code weightDecay} on the builder
 * of the whole network is applied twice in 1.0.0-M2.1: set it on each layer. And a layer without an
 * activation of its own has a sigmoid.
 */
@NullMarked
package io.jtrelu.dl4j;

import org.jspecify.annotations.NullMarked;
