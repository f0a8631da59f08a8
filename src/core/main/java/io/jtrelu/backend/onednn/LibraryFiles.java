package io.jtrelu.backend.onednn;

import io.jtrelu.backend.UnsupportedException;
import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.lang.module.ModuleFinder;
import java.lang.module.ModuleReader;
import java.lang.module.ModuleReference;
import java.net.URI;
import java.net.URL;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.regex.Pattern;
import org.bytedeco.dnnl.global.dnnl;
import org.jspecify.annotations.Nullable;

/**
 * oneDNN's shared library in the jars of {@code org.bytedeco:dnnl}.
 *
 * @param platform the part of the resource path that names the platform
 * @param names files in loading order; the last is oneDNN itself, the others lie beside it
 */
record LibraryFiles(String platform, List<String> names) {
  /**
   * The files for this machine.
   *
   * @throws UnsupportedException where there are none
   */
  static LibraryFiles forThisPlatform() {
    return forPlatform(System.getProperty("os.name"), System.getProperty("os.arch"));
  }

  static LibraryFiles forPlatform(String system, String architecture) {
    String os = system.toLowerCase(Locale.ROOT);
    boolean arm = architecture.equals("aarch64") || architecture.equals("arm64");
    boolean intel = architecture.equals("amd64") || architecture.equals("x86_64");
    if (os.startsWith("linux") && intel) {
      return new LibraryFiles("linux-x86_64", List.of("libgomp.so.1", "libdnnl.so.3"));
    } else if (os.startsWith("linux") && arm) {
      return new LibraryFiles("linux-arm64", List.of("libgomp.so.1", "libdnnl.so.3"));
    } else if (os.startsWith("mac") && arm) {
      return new LibraryFiles("macosx-arm64", List.of("libiomp5.dylib", "libdnnl.3.dylib"));
    } else if (os.startsWith("windows") && intel) {
      return new LibraryFiles("windows-x86_64", List.of("dnnl.dll"));
    }
    throw new UnsupportedException("there is no oneDNN build for " + system + " " + architecture);
  }

  /**
   * Where the files are.
   *
   * @throws FileNotFoundException if they are neither on the class path nor on the module path
   */
  List<URL> find() throws IOException {
    List<URL> found = new ArrayList<>();
    for (String name : names) {
      String resource = "org/bytedeco/dnnl/" + platform + "/" + name;
      URL url = find(resource);
      if (url == null) {
        throw new FileNotFoundException(
            resource
                + " is not on the class path or module path: add org.bytedeco:dnnl with classifier "
                + platform);
      }
      found.add(url);
    }
    return found;
  }

  /** Name of the files in the cache of natives; a number is written alike in every country. */
  String set() {
    return "onednn-"
        + dnnl.DNNL_VERSION_MAJOR
        + "."
        + dnnl.DNNL_VERSION_MINOR
        + "."
        + dnnl.DNNL_VERSION_PATCH
        + "-"
        + platform;
  }

  /** A resource of a jar on the class path, or of a module that nobody requires. */
  private static @Nullable URL find(String resource) {
    URL onClassPath = LibraryFiles.class.getClassLoader().getResource(resource);
    String modulePath = System.getProperty("jdk.module.path");
    if (onClassPath != null || modulePath == null) {
      return onClassPath;
    }
    // bytedeco's jars are modules by name, and so are only resolved where something requires them.
    Path[] path =
        Pattern.compile(File.pathSeparator, Pattern.LITERAL)
            .splitAsStream(modulePath)
            .map(Path::of)
            .toArray(Path[]::new);
    for (ModuleReference module : ModuleFinder.of(path).findAll()) {
      try (ModuleReader reader = module.open()) {
        Optional<URI> found = reader.find(resource);
        if (found.isPresent()) {
          return found.get().toURL();
        }
      } catch (IOException unreadable) {
        // someone else's module; the one that is looked for may still come
      }
    }
    return null;
  }
}
