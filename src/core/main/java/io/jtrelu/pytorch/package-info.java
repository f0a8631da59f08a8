/**
 * PyTorch's files: parameters in its layout and under its names, with a Python module of the same
 * network.
 */
@NullMarked
package io.jtrelu.pytorch;

import org.jspecify.annotations.NullMarked;
