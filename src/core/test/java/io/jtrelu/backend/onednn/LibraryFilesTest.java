package io.jtrelu.backend.onednn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.UnsupportedException;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.List;
import java.util.Locale;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;

/** Where the shared library is looked for. */
@EnabledOnOs(value = OS.LINUX, architectures = "amd64")
class LibraryFilesTest {
  @Test
  void findsTheFilesInLoadingOrder() throws IOException {
    List<String> found =
        LibraryFiles.forThisPlatform().find().stream().map(url -> url.getPath()).toList();
    assertEquals(2, found.size());
    assertTrue(found.get(0).endsWith("/libgomp.so.1"), found.toString());
    assertTrue(found.get(1).endsWith("/libdnnl.so.3"), found.toString());
  }

  @Test
  void saysWhatIsMissing() {
    assertThrows(UnsupportedException.class, () -> LibraryFiles.forPlatform("Plan 9", "vax"));
    LibraryFiles absent = new LibraryFiles("linux-vax", List.of("libdnnl.so.3"));
    FileNotFoundException missing = assertThrows(FileNotFoundException.class, absent::find);
    assertTrue(missing.getMessage().contains("classifier linux-vax"), missing.getMessage());
  }

  /** Or there would be a second cache wherever digits are others. */
  @Test
  void theNameOfTheCacheDependsOnNoLocale() {
    Locale before = Locale.getDefault();
    String name = LibraryFiles.forThisPlatform().set();
    Locale.setDefault(Locale.forLanguageTag("ar-SA-u-nu-arab"));
    try {
      assertEquals("\u0663", String.format("%d", 3), "the locale has digits of its own");
      assertEquals(name, LibraryFiles.forThisPlatform().set());
    } finally {
      Locale.setDefault(before);
    }
    assertTrue(name.matches("onednn-[0-9.]+-linux-x86_64"), name);
  }
}
