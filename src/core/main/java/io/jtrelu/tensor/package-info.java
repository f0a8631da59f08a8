/**
 * Values and their owners: {@link io.jtrelu.tensor.Shape}, {@link io.jtrelu.tensor.DataType},
 * {@link io.jtrelu.tensor.Layout}, {@link io.jtrelu.tensor.Device} describe a {@link
 * io.jtrelu.tensor.Tensor}, a dense view of a {@link io.jtrelu.tensor.Memory} block. This package
 * computes nothing and sees only the JDK.
 */
@NullMarked
package io.jtrelu.tensor;

import org.jspecify.annotations.NullMarked;
