/**
 * The command line. {@link io.jtrelu.cli.Main} is the program; each command is a class of its own,
 * and nothing in the library outside this package sees it.
 *
 * <p>Exit codes: 0 success, 1 failure, 2 wrong usage. Results go to standard output; progress,
 * notes and errors to standard error.
 */
@NullMarked
package io.jtrelu.cli;

import org.jspecify.annotations.NullMarked;
