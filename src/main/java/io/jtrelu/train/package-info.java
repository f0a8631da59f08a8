/**
 * What surrounds the steps of a training run: {@link io.jtrelu.train.Schedule learning rates},
 * {@link io.jtrelu.train.MetricsLog metrics} on disk while it runs, and {@link
 * io.jtrelu.train.Checkpoint checkpoints} that survive a kill at any moment.
 */
@NullMarked
package io.jtrelu.train;

import org.jspecify.annotations.NullMarked;
