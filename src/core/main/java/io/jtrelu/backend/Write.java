package io.jtrelu.backend;

/** Whether an operation replaces its result or adds to it. */
public enum Write {
  /** The result is replaced; what it held before is not read. */
  OVERWRITE,
  /** The result is added to what the tensor holds. */
  ACCUMULATE
}
