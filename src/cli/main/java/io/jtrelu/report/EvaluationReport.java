package io.jtrelu.report;

import io.jtrelu.data.ImageDataset;
import io.jtrelu.inference.Classification;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.imageio.ImageIO;

/**
 * How a model did on labelled images: a self-contained HTML page with figures, accuracy by class,
 * the confusion matrix and the most confident mistakes as pictures.
 *
 * @param title what was measured
 * @param summary a sentence below the title; may be empty
 * @param result the figures
 * @param data the images that they are of
 * @param environment machine and software by name in the order to be shown
 */
public record EvaluationReport(
    String title,
    String summary,
    Classification result,
    ImageDataset data,
    Map<String, String> environment) {
  /** The page. */
  public String html() {
    List<String> classes = result.classes();
    Page page = new Page("Evaluation", title, summary);
    page.tiles(
        List.of(
            new Page.Tile(Markup.percent(result.accuracy()), "accuracy"),
            new Page.Tile(Markup.fixed(result.loss(), 4), "cross-entropy"),
            new Page.Tile(Markup.count(result.images()), "images"),
            new Page.Tile(Markup.count(result.images() - result.correct()), "mistakes")));
    page.section("By class", "");
    List<List<String>> rows = new ArrayList<>();
    for (int i = 0; i < classes.size(); i++) {
      int images = result.imagesOf(i);
      rows.add(
          List.of(
              classes.get(i),
              images == 0 ? "\u2013" : Markup.percent(result.accuracyOf(i)),
              Markup.count(images)));
    }
    page.table(List.of("Class", "Accuracy", "Images"), 2, rows);
    page.section("Confusion", "Rows: what an image is. Columns: what it was taken for.");
    page.matrix("", classes, result.confusion());
    if (!result.mistakes().isEmpty()) {
      page.section("Mistakes", "The most confident first.");
      List<Page.Picture> pictures = new ArrayList<>();
      for (Classification.Mistake mistake : result.mistakes()) {
        pictures.add(
            new Page.Picture(
                png(mistake.image()),
                "taken for " + classes.get(mistake.predicted()),
                "is "
                    + classes.get(mistake.label())
                    + ", sure to "
                    + Markup.percent(mistake.probability())));
      }
      page.pictures(pictures);
    }
    page.section("Environment", "");
    page.facts(List.of(new LinkedHashMap<>(environment)));
    return page.end("Written by JTReLU. This file needs nothing but itself.");
  }

  private byte[] png(int index) {
    byte[] pixels = data.image(index);
    BufferedImage image =
        new BufferedImage(data.width(), data.height(), BufferedImage.TYPE_INT_RGB);
    for (int p = 0; p < data.width() * data.height(); p++) {
      int at = p * data.channels();
      int rgb = 0;
      for (int c = 0; c < 3; c++) {
        rgb = (rgb << 8) | (pixels[at + (data.channels() == 3 ? c : 0)] & 0xff);
      }
      image.setRGB(p % data.width(), p / data.width(), rgb);
    }
    ByteArrayOutputStream png = new ByteArrayOutputStream();
    try {
      ImageIO.write(image, "png", png);
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
    return png.toByteArray();
  }
}
