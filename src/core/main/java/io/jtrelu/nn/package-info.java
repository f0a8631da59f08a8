/**
 * Networks: a graph of layers described once ({@link io.jtrelu.nn.Network}); from it come the
 * parameter arena ({@link io.jtrelu.nn.Parameters}), the signal graph that the shaping solver sees,
 * and the compiled forward and backward passes ({@link io.jtrelu.nn.Program}).
 */
@NullMarked
package io.jtrelu.nn;

import org.jspecify.annotations.NullMarked;
