package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.tensor.DataType;

/**
 * One pass of a convolution, as far as it decides who does it best.
 *
 * @param d sizes
 * @param pass which pass
 * @param type of activations
 * @param tf32 whether operands of type F32 may be rounded to tf32
 * @param gated whether a dgrad multiplies by the derivative of the source's activation
 */
record ConvolutionProblem(
    Conv2dDescriptor d, Pass pass, DataType type, boolean tf32, boolean gated) {}
