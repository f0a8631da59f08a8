package io.jtrelu.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.train.EpochMetric;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.StepMetric;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.Size;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;

class ReportTest {
  /** The pages are written so that an XML parser reads them too. */
  private static Document parse(String html) throws Exception {
    return Xml.parse(html.replaceFirst("<!DOCTYPE html>", ""));
  }

  @Test
  void aReportIsSelfContained() throws Exception {
    for (String html : List.of(Samples.training().html(), Samples.comparison().html())) {
      Document page = parse(html);
      for (String tag : List.of("script", "link", "img", "iframe", "object", "image", "use")) {
        assertEquals(0, page.getElementsByTagName(tag).getLength(), tag);
      }
      assertFalse(Pattern.compile("https?:|url\\(|@import|src=|href=").matcher(html).find(), html);
      assertFalse(html.contains("NaN") || html.contains("Infinity"));
      assertTrue(html.contains("prefers-color-scheme:dark") && html.contains("@media print"));
    }
  }

  @Test
  void theReportShowsWhatWasMeasured() throws Exception {
    String text = parse(Samples.training().html()).getDocumentElement().getTextContent();
    for (String expected :
        List.of(
            "plain50 on Fashion-MNIST",
            "0.4259", // slope
            "1,303,530", // the sum of its layers, below
            "stage1.1 \u2026 stage1.15",
            "\u00d7\u200915",
            "C map of the network",
            "oneDNN",
            "Seed")) {
      assertTrue(text.contains(expected), expected + " in " + text);
    }
    assertEquals(1_303_530, 896 + 15 * 9_248 + 18_496 + 15 * 36_928 + 36_928 + 15 * 36_928 + 650);
  }

  /** Of runs of one epoch a chart by epoch would be a column of dots: what they took is shown. */
  @Test
  void aStudyDrawsEpochsWhereThereAreSeveral() throws Exception {
    for (int epochs = 1; epochs <= 2; epochs++) {
      List<EpochMetric> metrics = new ArrayList<>();
      for (int i = 1; i <= epochs; i++) {
        metrics.add(new EpochMetric(i, 10L * i, 1, 0.5, 1, 0.5, 100, i));
      }
      StudyReport.Entry entry =
          new StudyReport.Entry(
              "sgd", Map.of(0.1, 1.0), 0.1, List.of(new StudyReport.Seed(metrics, false)));
      StudyReport.Experiment experiment =
          new StudyReport.Experiment("optimisers", "a claim", List.of(entry));
      StudyReport report = new StudyReport(List.of(experiment), Map.of(), Map.of());
      String text = parse(report.html()).getDocumentElement().getTextContent();
      assertEquals(epochs > 1, text.contains("By epoch"), text);
      assertTrue(text.contains("By time") && text.contains("50.00 %"), text);
    }
  }

  @Test
  void hostileTextStaysText() throws Exception {
    String hostile = Samples.HOSTILE;
    Metrics none = new Metrics(List.of(), List.of());
    Series line = Series.of(hostile, new double[] {0, 1}, new double[] {0, 1});
    List<LayerRow> layers = List.of(new LayerRow(hostile, hostile, 1, 1, 1, 1, Double.NaN));
    Map<String, String> facts = Map.of(hostile, hostile);
    String training =
        new TrainingReport(
                hostile,
                hostile,
                facts,
                none,
                layers,
                List.of(line),
                List.of(line),
                List.of(line),
                facts)
            .html();
    String comparison =
        new ComparisonReport(
                hostile,
                hostile,
                List.of(
                    new ComparisonReport.Run(hostile, facts, none),
                    new ComparisonReport.Run(hostile, Map.of(), none)),
                layers,
                List.of(line),
                List.of(line),
                facts)
            .html();
    for (String html : List.of(training, comparison)) {
      assertEquals(0, parse(html).getElementsByTagName("script").getLength());
      assertTrue(html.contains("&lt;script&gt;"));
    }
  }

  @Test
  void aRunThatDivergedOrHardlyBeganMakesAReport() throws Exception {
    double nan = Double.NaN;
    StepMetric bad = new StepMetric(1, 1, 0.1, nan, nan, Double.POSITIVE_INFINITY, nan, nan);
    EpochMetric worse = new EpochMetric(1, 1, nan, nan, nan, nan, nan, nan);
    for (Metrics metrics :
        List.of(
            new Metrics(List.of(), List.of()),
            new Metrics(List.of(bad), List.of()),
            new Metrics(List.of(), List.of(worse)),
            new Metrics(List.of(bad, bad), List.of(worse)))) {
      String html =
          new TrainingReport(
                  "t", "", Map.of(), metrics, List.of(), List.of(), List.of(), List.of(), Map.of())
              .html();
      parse(html);
      assertFalse(html.contains("NaN") || html.contains("Infinity"), html);
    }
  }

  private static LayerRow layer(String name, int kind) {
    return new LayerRow(name, "operation " + kind, 4, 4, 8, 100, 0.5);
  }

  @Test
  void repeatedBlocksAreFolded() {
    List<LayerRow> layers = new ArrayList<>();
    layers.add(layer("stem", 9));
    for (int block = 0; block < 4; block++) {
      layers.add(layer("b" + block + ".conv1", 1));
      layers.add(layer("b" + block + ".conv2", 2));
      layers.add(layer("b" + block + ".conv3", 1));
    }
    layers.add(layer("head", 3));
    List<FoldedLayers.Fold> folds = FoldedLayers.of(layers);
    assertEquals(List.of(1, 4, 1), folds.stream().map(FoldedLayers.Fold::times).toList());
    assertEquals(
        List.of("b0.conv1", "b0.conv2", "b0.conv3"),
        folds.get(1).block().stream().map(LayerRow::name).toList());
    assertEquals("b3.conv3", folds.get(1).lastName());
  }

  /** Unfolding gives back the kinds of all layers in order. */
  @Property(tries = 300)
  void foldingLosesNothing(@ForAll @Size(max = 60) List<@IntRange(max = 2) Integer> kinds) {
    List<LayerRow> layers = new ArrayList<>();
    for (int i = 0; i < kinds.size(); i++) {
      layers.add(layer("layer" + i, kinds.get(i)));
    }
    List<String> unfolded = new ArrayList<>();
    for (FoldedLayers.Fold fold : FoldedLayers.of(layers)) {
      for (int i = 0; i < fold.times(); i++) {
        fold.block().forEach(layer -> unfolded.add(layer.operation()));
      }
      assertEquals(layers.get(unfolded.size() - 1).name(), fold.lastName());
    }
    assertEquals(layers.stream().map(LayerRow::operation).toList(), unfolded);
  }

  @Test
  void theEnvironmentNamesTheMachine() {
    Map<String, String> facts = Environment.describe();
    assertTrue(facts.getOrDefault("JDK", "").contains(System.getProperty("java.runtime.version")));
    assertEquals(Integer.toString(Runtime.getRuntime().availableProcessors()), facts.get("Cores"));
  }
}
