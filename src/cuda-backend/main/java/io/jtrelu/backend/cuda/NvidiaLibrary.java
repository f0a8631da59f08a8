package io.jtrelu.backend.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import io.jtrelu.backend.BackendUnavailableException;
import java.io.File;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

/**
 * One of NVIDIA's libraries, opened by this process: found by the file name that has its major
 * version in it, and asked whether it is what its name says. A binding made for another major
 * version than the library's would kill the process, so none is touched before.
 *
 * @param stem cublas, cudnn or nccl
 * @param major version in the file's name
 * @param version in full
 * @param path where it lies
 * @param symbols its functions
 */
record NvidiaLibrary(String stem, int major, String version, String path, SymbolLookup symbols) {
  /**
   * Directories to look into first, separated as in PATH: where the libraries lie, or a folder of
   * Python's packages of NVIDIA ({@code site-packages/nvidia}), whose folders {@code lib} are
   * meant.
   */
  static final String PATH_PROPERTY = "jtrelu.cuda.libraries";

  /** A symbol that only stand-ins for tests on the emulated device have. */
  private static final String STANDIN = "jtreluStandin";

  /**
   * Opens the first that is found.
   *
   * @param stem cublas, cudnn or nccl
   * @param majors versions that can be used, the best first
   * @param emulated whether it is for the emulated device, which takes stand-ins and nothing else
   * @throws BackendUnavailableException with what was looked for, and what was wrong with what was
   *     found
   */
  static NvidiaLibrary open(String stem, List<Integer> majors, boolean emulated) {
    if (!System.getProperty("os.name", "").startsWith("Linux")) {
      throw new BackendUnavailableException("lib" + stem + " is looked for on Linux only");
    }
    List<String> failures = new ArrayList<>();
    for (int major : majors) {
      for (String place : named(fileName(stem, major))) {
        if (Files.exists(Path.of(place))) {
          return openFit(stem, major, place, emulated); // whoever names a folder means it
        }
      }
    }
    for (int major : majors) {
      for (String place : usual(fileName(stem, major))) {
        try {
          return openFit(stem, major, place, emulated);
        } catch (BackendUnavailableException unfit) {
          failures.add(String.valueOf(unfit.getMessage()));
        } catch (IllegalArgumentException absent) {
          // the next place
        }
      }
    }
    throw new BackendUnavailableException(
        "no "
            + String.join(" or ", majors.stream().map(major -> fileName(stem, major)).toList())
            + (failures.isEmpty() ? "" : " that can be used (" + String.join("; ", failures) + ")")
            + ": looked where the dynamic linker does, in CUDA_HOME, in /usr/local/cuda and in -D"
            + PATH_PROPERTY);
  }

  private static String fileName(String stem, int major) {
    return "lib" + stem + ".so." + major;
  }

  /** Paths in the folders that the user names. */
  private static Set<String> named(String name) {
    Set<String> places = new LinkedHashSet<>();
    for (String entry : System.getProperty(PATH_PROPERTY, "").split(File.pathSeparator, -1)) {
      try {
        if (!entry.isEmpty()) {
          addFolder(places, Path.of(entry), name);
        }
      } catch (InvalidPathException notAPath) {
        // nothing lies there
      }
    }
    return places;
  }

  /** Where it is by itself: wherever the dynamic linker finds it, and where CUDA is installed. */
  private static Set<String> usual(String name) {
    Set<String> places = new LinkedHashSet<>(List.of(name));
    String home = System.getenv("CUDA_HOME");
    if (home != null) {
      places.add(home + "/lib64/" + name);
    }
    places.add("/usr/local/cuda/lib64/" + name);
    return places;
  }

  /** Its functions, to be called. */
  ForeignLibrary functions() {
    return functions(stem, symbols);
  }

  private static ForeignLibrary functions(String stem, SymbolLookup symbols) {
    return new ForeignLibrary(
        symbols, stem.equals("cublas") ? "cublasGetStatusName" : stem + "GetErrorString");
  }

  private static void addFolder(Set<String> places, Path folder, String name) {
    places.add(folder.resolve(name).toAbsolutePath().toString());
    try (DirectoryStream<Path> packages = Files.newDirectoryStream(folder, Files::isDirectory)) {
      Set<Path> sorted = new TreeSet<>();
      packages.forEach(sorted::add);
      for (Path one : sorted) {
        places.add(one.resolve("lib").resolve(name).toAbsolutePath().toString());
      }
    } catch (IOException unreadable) {
      // then the linker says what is wrong
    }
  }

  /** Opens a file that is for the device. */
  private static NvidiaLibrary openFit(String stem, int major, String place, boolean emulated) {
    NvidiaLibrary library;
    try {
      library = open(stem, major, place);
    } catch (IllegalArgumentException failure) {
      if (Files.exists(Path.of(place))) {
        throw new BackendUnavailableException(
            place + " cannot be opened: " + failure.getMessage(), failure);
      }
      throw failure;
    }
    if (library.symbols.find(STANDIN).isPresent() != emulated) {
      throw new BackendUnavailableException(
          library.path
              + (emulated ? " is for a GPU, not for the emulated device" : " is a stand-in"));
    }
    return library;
  }

  private static NvidiaLibrary open(String stem, int major, String place) {
    Path file = Path.of(place);
    Path folder = file.getParent();
    if (folder != null && !Files.exists(file)) {
      throw new IllegalArgumentException("no such file");
    }
    if (folder != null) {
      openSiblings(folder, stem, major);
    }
    SymbolLookup symbols = lookup(place);
    int[] version = version(stem, functions(stem, symbols));
    String path = mapped(file.getFileName().toString(), place);
    if (version[0] != major) {
      throw new BackendUnavailableException(
          path
              + " calls itself version "
              + version[0]
              + ", against its name: a link to another version's library? Remove it");
    }
    String text = version[0] + "." + version[1] + "." + version[2];
    return new NvidiaLibrary(stem, major, text, path, symbols);
  }

  private static int[] version(String stem, ForeignLibrary functions) {
    int[] version = new int[3];
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment number = arena.allocate(JAVA_INT);
      if (stem.equals("nccl")) {
        functions.call("ncclGetVersion", "", number);
        int all = number.get(JAVA_INT, 0);
        int unit = all < 10000 ? 1000 : 10000; // of the major one: it had four digits up to 2.8
        return new int[] {all / unit, all % unit / 100, all % 100};
      }
      for (int part = 0; part < version.length; part++) {
        functions.call(stem + "GetProperty", "", part, number);
        version[part] = number.get(JAVA_INT, 0);
      }
    }
    return version;
  }

  /** What a library loads by name when it is first used is found once it is in the process. */
  private static void openSiblings(Path folder, String stem, int major) {
    String pattern = "lib" + stem + "{Lt,_*}.so." + major;
    try (DirectoryStream<Path> siblings = Files.newDirectoryStream(folder, pattern)) {
      for (Path sibling : siblings) {
        lookup(sibling.toString());
      }
    } catch (IOException | IllegalArgumentException cannot) {
      // then the library itself says what it misses
    }
  }

  /** Never closed: a library of this size does not survive being unloaded. */
  private static SymbolLookup lookup(String place) {
    return place.startsWith("/")
        ? SymbolLookup.libraryLookup(Path.of(place), Arena.global())
        : SymbolLookup.libraryLookup(place, Arena.global());
  }

  /** Where the dynamic linker found a library of this process. */
  private static String mapped(String name, String place) {
    if (place.startsWith("/")) {
      return place;
    }
    try {
      return Files.readAllLines(Path.of("/proc/self/maps")).stream()
          .map(line -> line.substring(Math.max(line.indexOf('/'), 0)))
          .filter(path -> path.contains("/" + name))
          .findFirst()
          .orElse(name);
    } catch (IOException unreadable) {
      return name;
    }
  }
}
