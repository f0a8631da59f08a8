package io.jtrelu.backend.onednn;

import io.jtrelu.backend.UnsupportedException;
import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.lang.module.ModuleFinder;
import java.lang.module.ModuleReader;
import java.lang.module.ModuleReference;
import java.net.URI;
import java.net.URL;
import java.net.URLConnection;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
import org.bytedeco.dnnl.global.dnnl;
import org.jspecify.annotations.Nullable;

/**
 * oneDNN's shared library in the jars of {@code org.bytedeco:dnnl}, and its way onto disk.
 *
 * @param platform the part of the resource path that names the platform
 * @param names files in loading order; the last is oneDNN itself, the others lie beside it
 */
record LibraryFiles(String platform, List<String> names) {
  private static final String CACHE_PROPERTY = "io.jtrelu.cache";

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
   * Copies the files into a directory that belongs to this user alone, unless they are there.
   *
   * @return path of oneDNN's library
   * @throws IOException if they are not on the class path or cannot be written
   */
  Path unpack() throws IOException {
    return unpack(cacheRoot());
  }

  /** Copies the files under a directory of this user's. */
  Path unpack(Path root) throws IOException {
    Path directory = privateDirectory(root);
    Path last = directory;
    for (String name : names) {
      last = directory.resolve(name);
      unpack(name, last);
    }
    return last;
  }

  private void unpack(String name, Path target) throws IOException {
    String resource = "org/bytedeco/dnnl/" + platform + "/" + name;
    URL url = find(resource);
    if (url == null) {
      throw new FileNotFoundException(
          resource
              + " is not on the class path or module path: add org.bytedeco:dnnl with classifier "
              + platform);
    }
    URLConnection connection = url.openConnection();
    long size = connection.getContentLengthLong();
    if (Files.isRegularFile(target, LinkOption.NOFOLLOW_LINKS) && Files.size(target) == size) {
      connection.getInputStream().close();
      return;
    }
    // Written beside and renamed, so that nobody ever loads half a file.
    Path partial = Files.createTempFile(target.getParent(), name, ".part");
    try (InputStream in = connection.getInputStream()) {
      Files.copy(in, partial, StandardCopyOption.REPLACE_EXISTING);
      Files.move(partial, target, StandardCopyOption.ATOMIC_MOVE);
    } finally {
      Files.deleteIfExists(partial);
    }
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

  private Path privateDirectory(Path root) throws IOException {
    String version =
        String.format(
            "onednn-%d.%d.%d-%s",
            dnnl.DNNL_VERSION_MAJOR, dnnl.DNNL_VERSION_MINOR, dnnl.DNNL_VERSION_PATCH, platform);
    Path directory = root.resolve(version);
    boolean posix = FileSystems.getDefault().supportedFileAttributeViews().contains("posix");
    if (!posix) {
      return Files.createDirectories(directory); // in the user's profile, closed to others
    }
    Set<PosixFilePermission> ownerOnly = PosixFilePermissions.fromString("rwx------");
    Files.createDirectories(directory, PosixFilePermissions.asFileAttribute(ownerOnly));
    String owner = Files.getOwner(directory, LinkOption.NOFOLLOW_LINKS).getName();
    Set<PosixFilePermission> permissions =
        Files.getPosixFilePermissions(directory, LinkOption.NOFOLLOW_LINKS);
    if (!owner.equals(System.getProperty("user.name"))
        || permissions.contains(PosixFilePermission.GROUP_WRITE)
        || permissions.contains(PosixFilePermission.OTHERS_WRITE)) {
      throw new IOException(
          directory
              + " may be changed by others (owner "
              + owner
              + ", "
              + PosixFilePermissions.toString(permissions)
              + "); remove it, or set -D"
              + CACHE_PROPERTY
              + " to a directory of your own");
    }
    return directory;
  }

  private static Path cacheRoot() {
    String property = System.getProperty(CACHE_PROPERTY);
    if (property != null) {
      return Path.of(property);
    }
    String xdg = System.getenv("XDG_CACHE_HOME");
    String home = System.getProperty("user.home");
    return xdg != null && Path.of(xdg).isAbsolute()
        ? Path.of(xdg, "jtrelu")
        : Path.of(home, ".cache", "jtrelu");
  }
}
