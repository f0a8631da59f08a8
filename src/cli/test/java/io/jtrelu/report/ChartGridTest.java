package io.jtrelu.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;

class ChartGridTest {
  private static LineChart chart(String title) {
    Series line = Series.of("line", new double[] {0, 1}, new double[] {0, 1});
    return LineChart.of(title, Axis.linear("x"), Axis.linear("y"), List.of(line)).sized(300, 200);
  }

  @Test
  void chartsStandInReadingOrder() throws Exception {
    String svg =
        new ChartGrid("all <three>", "a & b", List.of(chart("A"), chart("B"), chart("C")), 2).svg();
    Element root = Xml.parse(svg).getDocumentElement();
    assertEquals("600", root.getAttribute("width"));
    List<String> places = new ArrayList<>();
    NodeList children = root.getChildNodes();
    for (int i = 0; i < children.getLength(); i++) {
      if (children.item(i) instanceof Element part && part.getTagName().equals("svg")) {
        String title = part.getElementsByTagName("text").item(0).getTextContent();
        places.add(title + " " + part.getAttribute("x") + " " + part.getAttribute("y"));
      }
    }
    int top = Integer.parseInt(root.getAttribute("height")) - 400;
    assertEquals(List.of("A 0 " + top, "B 300 " + top, "C 0 " + (top + 200)), places);
  }

  @Test
  void unequalSizesAreRefused() {
    assertThrows(
        IllegalArgumentException.class,
        () -> new ChartGrid("t", "", List.of(chart("A"), chart("B").sized(301, 200)), 2));
    assertThrows(IllegalArgumentException.class, () -> new ChartGrid("t", "", List.of(), 2));
    assertThrows(
        IllegalArgumentException.class, () -> new ChartGrid("t", "", List.of(chart("A")), 0));
  }
}
