/**
 * From files to batches: readers for labelled images ({@link io.jtrelu.data.Datasets}), in memory
 * or streamed from folders and shards ({@link io.jtrelu.data.Reading}), pixels of single pictures
 * ({@link io.jtrelu.data.ImageDecoder}), scaling and per-location normalisation ({@link
 * io.jtrelu.data.PerLocationNormalization}), random crop and flip ({@link
 * io.jtrelu.data.Augmentation}), and a background loader of reusable host tensors ({@link
 * io.jtrelu.data.BatchLoader}). Whatever comes from outside is checked before it is used; what is
 * wrong with it is a {@link io.jtrelu.data.DataException}. Sees only {@code io.jtrelu.tensor} and
 * the JDK.
 */
@NullMarked
package io.jtrelu.data;

import org.jspecify.annotations.NullMarked;
