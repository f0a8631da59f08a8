/**
 * The oracle: every operation as direct loops with sums in binary64, written to be obviously right.
 * Other backends are tested against it; it is also what runs where nothing faster is available.
 *
 * <p>A result is computed in binary64 from the stored operands, rounded to binary32 and then to the
 * storage type, to nearest even each time.
 */
@NullMarked
package io.jtrelu.backend.reference;

import org.jspecify.annotations.NullMarked;
