package io.jtrelu.data;

/** Which part of a data set: what is learnt from, or what is measured on. */
public enum Split {
  /** Images to learn from. */
  TRAIN,
  /** Images to measure on, never learnt from. */
  TEST;

  @Override
  public String toString() {
    return this == TRAIN ? "train" : "test";
  }
}
