package io.jtrelu.backend;

/**
 * Whether a backend measures which of several ways computes something fastest. A way that was
 * measured may round otherwise than the one that is taken without, and on a machine that is busy
 * another one may be found: see {@link Backend#tune}.
 */
public enum Tuning {
  /** Nothing is measured; a model of the device chooses. */
  OFF,
  /** What was not measured on this machine before is; the results are kept for other processes. */
  ONCE,
  /** Everything is measured anew. */
  ALWAYS
}
