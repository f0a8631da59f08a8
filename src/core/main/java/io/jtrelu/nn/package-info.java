/**
 * Networks: a graph of {@linkplain io.jtrelu.nn.Layer layers} described once ({@link
 * io.jtrelu.nn.Network}); from it come the parameter arena ({@link io.jtrelu.nn.Parameters}), the
 * signal graph that the shaping solver sees, the compiled forward and backward passes ({@link
 * io.jtrelu.nn.Program}), and a form to keep it in ({@link io.jtrelu.nn.NetworkJson}).
 */
@NullMarked
package io.jtrelu.nn;

import org.jspecify.annotations.NullMarked;
