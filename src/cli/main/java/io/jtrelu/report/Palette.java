package io.jtrelu.report;

/**
 * The colours of charts. The light ones stand in the SVG itself, so that any viewer shows them; a
 * style sheet replaces them where the reader prefers dark. After Okabe and Ito (2008), the weaker
 * ones darkened to keep a contrast of 3:1 on white.
 */
final class Palette {
  private static final String[] LIGHT = {
    "#0072b2", "#d55e00", "#008f68", "#aa3377", "#a67c00", "#5f6b7a", "#2b2f36", "#4a96cc"
  };
  private static final String[] DARK = {
    "#5ab4f0", "#ff9557", "#35c99a", "#e58bc6", "#f0c04a", "#aab4c0", "#e8edf3", "#9ad4ff"
  };

  static final String INK = "#1c2430";
  static final String MUTED = "#5b6675";
  static final String GRID = "#e3e7ec";
  static final String AXIS = "#9aa5b1";
  static final String SURFACE = "#ffffff";

  static final String DARK_INK = "#e8edf3";
  static final String DARK_MUTED = "#9fabb9";
  static final String DARK_GRID = "#2a323c";
  static final String DARK_AXIS = "#5d6977";
  static final String DARK_SURFACE = "#151a21";

  static final String FONT =
      "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

  private Palette() {}

  /** Number of colours; charts go on with the first. */
  static int size() {
    return LIGHT.length;
  }

  static String light(int index) {
    return LIGHT[Math.floorMod(index, LIGHT.length)];
  }

  /** Attributes of something drawn with a colour. */
  static String stroke(int index) {
    int colour = Math.floorMod(index, LIGHT.length);
    return "class=\"s" + colour + "\" stroke=\"" + LIGHT[colour] + "\"";
  }

  /** Attributes of something filled with a colour. */
  static String fill(int index) {
    int colour = Math.floorMod(index, LIGHT.length);
    return "class=\"f" + colour + "\" fill=\"" + LIGHT[colour] + "\"";
  }

  /** Style sheet that turns the colours of charts dark where the reader prefers that. */
  static String darkStyle() {
    StringBuilder css = new StringBuilder("@media screen and (prefers-color-scheme:dark){");
    for (int i = 0; i < DARK.length; i++) {
      css.append(".s").append(i).append("{stroke:").append(DARK[i]).append('}');
      css.append(".f").append(i).append("{fill:").append(DARK[i]).append('}');
    }
    css.append(".ink{fill:").append(DARK_INK).append('}');
    css.append(".muted{fill:").append(DARK_MUTED).append('}');
    css.append(".grid{stroke:").append(DARK_GRID).append('}');
    css.append(".axis{stroke:").append(DARK_AXIS).append('}');
    css.append(".ink-line{stroke:").append(DARK_INK).append('}');
    css.append(".surface{fill:").append(DARK_SURFACE).append('}');
    return css.append('}').toString();
  }
}
