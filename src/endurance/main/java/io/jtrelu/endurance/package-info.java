/**
 * Trials that last as long as one likes: training that is killed, system calls that fail, input
 * that is damaged, a GPU's work in any order. {@link io.jtrelu.endurance.Endurance} is the program;
 * the tests of this module are the same trials for a few seconds.
 */
@NullMarked
package io.jtrelu.endurance;

import org.jspecify.annotations.NullMarked;
