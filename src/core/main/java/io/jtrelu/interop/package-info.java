/**
 * Exchange with other libraries: {@link io.jtrelu.interop.SafeTensors}, the file format that
 * parameters and checkpoints are kept in, and {@link io.jtrelu.interop.KernelOrder}.
 */
@NullMarked
package io.jtrelu.interop;

import org.jspecify.annotations.NullMarked;
