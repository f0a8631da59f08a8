/**
 * Training runs: {@link io.jtrelu.train.Trainer} takes steps, on a CPU spread over lanes ({@code
 * LaneSteps}), on a GPU as recordings with one step queued ahead ({@code RecordedSteps}); around
 * them are {@link io.jtrelu.train.Schedule learning rates}, {@link io.jtrelu.train.MetricsLog
 * metrics} on disk while it runs, and {@link io.jtrelu.train.Checkpoint checkpoints} that survive a
 * kill at any moment.
 */
@NullMarked
package io.jtrelu.train;

import org.jspecify.annotations.NullMarked;
