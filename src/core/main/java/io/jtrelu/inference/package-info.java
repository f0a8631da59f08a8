/**
 * Trained models in use: {@link io.jtrelu.inference.Predictor} tells what is on a picture, {@link
 * io.jtrelu.inference.Classification} measures how often it is right.
 */
@NullMarked
package io.jtrelu.inference;

import org.jspecify.annotations.NullMarked;
