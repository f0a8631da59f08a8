package io.jtrelu.backend.cuda;

/** Tells what work costs, in a unit of its own: only costs of one meter are compared. */
interface Meter {
  /**
   * The cost of work.
   *
   * @param stream that the work is given to; it is idle before and after
   */
  double cost(CudaStream stream, Runnable work);
}
