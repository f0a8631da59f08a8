package io.jtrelu.tensor;

/**
 * Names that come from files (of classes, tensors, networks, the files themselves) as they may be
 * shown in messages, reports and terminals: what would steer a terminal, break a line or turn the
 * direction of writing is spelt out. For people; the spelling cannot be undone, because a backslash
 * in a name stays as it is. Stateless.
 */
public final class PrintableText {
  private static final int LONGEST_NAME = 80;

  private PrintableText() {}

  /**
   * A text with {@code \n}, {@code \r}, {@code \t} and else {@code \}{@code uXXXX} in place of
   * control characters (C0, DEL, C1), line and paragraph separators, bidirectional controls and
   * surrogates that have no partner.
   */
  public static String of(String text) {
    StringBuilder shown = null;
    for (int at = 0; at < text.length(); ) {
      int point = text.codePointAt(at);
      int length = Character.charCount(point);
      if (isHidden(point)) {
        shown = shown == null ? new StringBuilder(text.substring(0, at)) : shown;
        switch (point) {
          case '\n' -> shown.append("\\n");
          case '\r' -> shown.append("\\r");
          case '\t' -> shown.append("\\t");
          default -> shown.append(String.format("\\u%04x", point));
        }
      } else if (shown != null) {
        shown.append(text, at, at + length);
      }
      at += length;
    }
    return shown == null ? text : shown.toString();
  }

  /** A name as {@link #of} shows it, between quotes; of a long one the first 80 characters. */
  public static String quoted(String name) {
    if (name.codePointCount(0, name.length()) <= LONGEST_NAME) {
      return "'" + of(name) + "'";
    }
    return "'" + of(name.substring(0, name.offsetByCodePoints(0, LONGEST_NAME))) + "...'";
  }

  private static boolean isHidden(int point) {
    return switch (Character.getType(point)) {
      case Character.CONTROL,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR,
          Character.SURROGATE ->
          true;
      default ->
          point == 0x061c // Arabic letter mark
              || point == 0x200e // left-to-right mark
              || point == 0x200f // right-to-left mark
              || (point >= 0x202a && point <= 0x202e) // embeddings and overrides
              || (point >= 0x2066 && point <= 0x2069); // isolates
    };
  }
}
