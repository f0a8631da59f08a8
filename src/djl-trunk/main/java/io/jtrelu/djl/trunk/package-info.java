/**
 * Networks of this library inside the Deep Java Library: {@link io.jtrelu.djl.trunk.JtreluBlock}
 * takes part in its training on PyTorch, with {@link io.jtrelu.djl.trunk.JtreluTrainer} in place of
 * DJL's own; {@link io.jtrelu.djl.trunk.JtreluEngine} opens trained models by DJL's {@code
 * Criteria}.
 */
@NullMarked
package io.jtrelu.djl.trunk;

import org.jspecify.annotations.NullMarked;
