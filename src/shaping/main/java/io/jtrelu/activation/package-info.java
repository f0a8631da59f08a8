/**
 * Activation functions as functions: values and derivatives in binary64, with affine maps before
 * and after. What the shaping solver reasons about and what backends compute; sees only the JDK and
 * Hipparchus.
 */
@NullMarked
package io.jtrelu.activation;

import org.jspecify.annotations.NullMarked;
