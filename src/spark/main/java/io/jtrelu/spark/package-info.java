/**
 * Networks of this library on Apache Spark: {@link io.jtrelu.spark.JTReLUClassifier} trains one by
 * the tasks of a barrier stage, {@link io.jtrelu.spark.JTReLUClassificationModel} scores the rows
 * of a table.
 */
@NullMarked
package io.jtrelu.spark;

import org.jspecify.annotations.NullMarked;
