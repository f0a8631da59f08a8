/**
 * Many processes that work on one thing. A {@linkplain io.jtrelu.distributed.Launcher launcher}
 * (mpirun, mpiexec, srun) starts them and numbers them; a {@link
 * io.jtrelu.distributed.Communicator} carries bytes between them. It only moves bytes: what is
 * summed, and in which order, is up to who uses it, so that results need not depend on the number
 * of processes.
 */
@NullMarked
package io.jtrelu.distributed;

import org.jspecify.annotations.NullMarked;
