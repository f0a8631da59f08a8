/**
 * Reports that people look at: charts as SVG ({@link io.jtrelu.report.LineChart}, {@link
 * io.jtrelu.report.BarChart}) and self-contained HTML pages ({@link
 * io.jtrelu.report.TrainingReport}, {@link io.jtrelu.report.ComparisonReport}).
 *
 * <p>Everything is a plain value that is turned into text; nothing is read from files, the clock or
 * the network. Text from outside is escaped. Pages and charts follow the reader's light or dark
 * setting, print in black on white, and use colours that colour-blind readers can tell apart.
 */
@NullMarked
package io.jtrelu.report;

import org.jspecify.annotations.NullMarked;
