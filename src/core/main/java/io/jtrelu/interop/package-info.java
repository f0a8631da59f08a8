/**
 * Exchange with other libraries: {@link io.jtrelu.interop.SafeTensors}, the file format that
 * parameters and checkpoints are kept in.
 */
@NullMarked
package io.jtrelu.interop;

import org.jspecify.annotations.NullMarked;
