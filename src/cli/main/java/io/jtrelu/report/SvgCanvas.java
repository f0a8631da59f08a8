package io.jtrelu.report;

/** Collects the elements of an SVG picture; text is escaped here. */
final class SvgCanvas {
  private final StringBuilder elements = new StringBuilder();

  /** A picture as a file of its own, on its own ground. */
  static String document(int width, int height, String title, String body) {
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\""
        + width
        + "\" height=\""
        + height
        + "\""
        + head(width, height, title)
        + "<style>"
        + Palette.darkStyle()
        + "</style><rect class=\"surface\" width=\"100%\" height=\"100%\" fill=\""
        + Palette.SURFACE
        + "\"/>"
        + body
        + "</svg>\n";
  }

  /** A picture as a part of a page, which has the style sheet. */
  static String inline(int width, int height, String title, String body) {
    return "<svg" + head(width, height, title) + body + "</svg>\n";
  }

  private static String head(int width, int height, String title) {
    return " viewBox=\"0 0 "
        + width
        + " "
        + height
        + "\" font-family=\""
        + Palette.FONT
        + "\" role=\"img\" aria-label=\""
        + Markup.escape(title)
        + "\">";
  }

  void text(double x, double y, String anchor, double size, String tone, int weight, String text) {
    elements
        .append("<text class=\"")
        .append(tone)
        .append("\" fill=\"")
        .append(tone.equals("ink") ? Palette.INK : Palette.MUTED)
        .append("\" x=\"")
        .append(Markup.px(x))
        .append("\" y=\"")
        .append(Markup.px(y))
        .append("\" font-size=\"")
        .append(Markup.px(size))
        .append('"');
    if (!anchor.equals("start")) {
      elements.append(" text-anchor=\"").append(anchor).append('"');
    }
    if (weight != 400) {
      elements.append(" font-weight=\"").append(weight).append('"');
    }
    elements.append('>').append(Markup.escape(text)).append("</text>");
  }

  void line(double x1, double y1, double x2, double y2, String tone, String colour) {
    elements
        .append("<path class=\"")
        .append(tone)
        .append("\" stroke=\"")
        .append(colour)
        .append("\" d=\"M")
        .append(Markup.px(x1))
        .append(' ')
        .append(Markup.px(y1))
        .append('L')
        .append(Markup.px(x2))
        .append(' ')
        .append(Markup.px(y2))
        .append("\"/>");
  }

  /** Opens a part that clips what passes its border. */
  void open(double x, double y, double width, double height) {
    elements
        .append("<svg x=\"")
        .append(Markup.px(x))
        .append("\" y=\"")
        .append(Markup.px(y))
        .append("\" width=\"")
        .append(Markup.px(width))
        .append("\" height=\"")
        .append(Markup.px(height))
        .append("\">");
  }

  void close() {
    elements.append("</svg>");
  }

  /** Adds an element whose text is already escaped. */
  void raw(String element) {
    elements.append(element);
  }

  @Override
  public String toString() {
    return elements.toString();
  }
}
