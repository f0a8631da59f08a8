package io.jtrelu.tensor;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class PrintableTextTest {
  @Test
  void textsWithoutControlsStayAsTheyAre() {
    for (String text : new String[] {"", "cat", "Hündin", "犬 🐕", "C:\\images", "a\u200db"}) {
      assertSame(text, PrintableText.of(text));
    }
  }

  @Test
  void controlsAreSpeltOut() {
    assertEquals("a\\nb\\r\\tc", PrintableText.of("a\nb\r\tc"));
    assertEquals("\\u001b[31mred\\u001b[0m", PrintableText.of("\u001b[31mred\u001b[0m"));
    assertEquals("\\u0000\\u007f\\u0085\\u009b", PrintableText.of("\0\u007f\u0085\u009b"));
    assertEquals("\\u2028\\u2029", PrintableText.of("\u2028\u2029"));
    assertEquals("a\\u202egnp.exe", PrintableText.of("a\u202egnp.exe"));
    assertEquals(
        "\\u061c\\u200e\\u200f\\u202a\\u2066\\u2069",
        PrintableText.of("\u061c\u200e\u200f\u202a\u2066\u2069"));
    assertEquals("🐕\\ud83d!", PrintableText.of("🐕\ud83d!"));
  }

  @Test
  void everyControlCharacterIsSpeltOut() {
    for (int point = 0; point < 0x100; point++) {
      String shown = PrintableText.of(Character.toString(point));
      assertTrue(!shown.codePoints().anyMatch(Character::isISOControl), "" + point);
    }
  }

  @Test
  void aLongNameIsCutBetweenCharacters() {
    assertEquals("'a\\nb'", PrintableText.quoted("a\nb"));
    assertEquals("'" + "🐕".repeat(80) + "'", PrintableText.quoted("🐕".repeat(80)));
    assertEquals("'" + "🐕".repeat(80) + "...'", PrintableText.quoted("🐕".repeat(81)));
  }
}
