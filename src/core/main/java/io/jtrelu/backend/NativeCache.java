package io.jtrelu.backend;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.net.JarURLConnection;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.URL;
import java.net.URLConnection;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryStream;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.zip.CRC32;
import java.util.zip.CheckedInputStream;
import org.jspecify.annotations.Nullable;

/**
 * Where native libraries that lie in jars get to be files, as the system wants them to be loaded.
 * For backends. Thread-safe, also between processes.
 *
 * <p>Places are tried in this order, each only where loading from those before it has failed:
 *
 * <ol>
 *   <li>where the files lie, if they are files already;
 *   <li>the cache: the directory that the system property {@value #PROPERTY} names, else {@code
 *       $XDG_CACHE_HOME/jtrelu}, else {@code ~/.cache/jtrelu}. Each set of files has a directory
 *       there, named by its contents, which this user (or root) owns and nobody else may change.
 *       What lies there is compared with the jar by digest, once for each state (size, time, inode)
 *       of a file, which is remembered beside it. A file is written under a temporary name, synced
 *       and renamed, so nobody ever loads half a file, whatever is killed when;
 *   <li>a new directory under {@code java.io.tmpdir}, removed as soon as the files are loaded;
 *   <li>on Linux, memory of this process, for as long as it lives.
 * </ol>
 */
public final class NativeCache {
  /** System property: the directory of the cache of native libraries, for all backends. */
  public static final String PROPERTY = "io.jtrelu.cache";

  /** What is older and unfinished was left by a process that was killed. */
  private static final Duration ABANDONED = Duration.ofHours(1);

  private static final String PART = ".part";
  private static final String STATE = ".verified";
  private static final String TEMPORARY = "jtrelu-natives-";

  /**
   * Files in memory by set. A library that is loaded stays with the process, and so does its file;
   * to the system a file of the same name would be the same library. Guarded by itself.
   */
  private static final Map<String, List<Path>> IN_MEMORY = new HashMap<>();

  /** Loads libraries. */
  @FunctionalInterface
  public interface Loader<T> {
    /**
     * Loads libraries that are files now.
     *
     * @param files in the order of the sources. They may be gone after the call
     * @throws IOException if they cannot be loaded from there, but perhaps from elsewhere
     */
    T load(List<Path> files) throws IOException;
  }

  private final @Nullable String property;
  private final @Nullable String xdgCacheHome;
  private final List<String> homes;
  private final String temporary;

  /**
   * @param property the directory that was asked for, if any
   * @param xdgCacheHome as in the environment
   * @param homes what may be the home directory, the first that is an absolute path
   * @param temporary directory for temporary files
   */
  NativeCache(
      @Nullable String property,
      @Nullable String xdgCacheHome,
      List<String> homes,
      String temporary) {
    this.property = property;
    this.xdgCacheHome = xdgCacheHome;
    this.homes = homes;
    this.temporary = temporary;
  }

  /** The cache as this process is configured now. */
  public static NativeCache ofThisProcess() {
    List<String> homes = new ArrayList<>(List.of(System.getProperty("user.home", "")));
    String home = System.getenv("HOME"); // where the user has no entry in the list of users
    if (home != null) {
      homes.add(home);
    }
    return new NativeCache(
        System.getProperty(PROPERTY),
        System.getenv("XDG_CACHE_HOME"),
        homes,
        System.getProperty("java.io.tmpdir", ""));
  }

  /**
   * Loads a set of libraries.
   *
   * @param set its name, of letters, digits, dots and hyphens
   * @param sources where its files are; the last part of each is the file's name
   * @param loader called until it succeeds, with the files at one place after the other
   * @return what the loader returned
   * @throws IOException if they can be loaded from no place: why each one failed, and what to do
   */
  public <T> T load(String set, List<URL> sources, Loader<T> loader) throws IOException {
    List<String> failures = new ArrayList<>();
    try {
      List<Path> inPlace = inPlace(sources);
      if (!inPlace.isEmpty()) {
        return loader.load(inPlace);
      }
    } catch (IOException failure) {
      failures.add(describe(failure));
    }
    String contents = set + "-" + identity(sources);
    try {
      return loader.load(unpack(privateDirectory(directory().resolve(contents)), sources));
    } catch (IOException | InvalidPathException failure) {
      failures.add(describe(failure));
    }
    T loaded;
    try {
      loaded =
          isInMemory(contents)
              ? loader.load(inMemory(contents, sources))
              : loadFromTemporary(sources, loader);
    } catch (IOException | InvalidPathException failure) {
      failures.add(describe(failure));
      try {
        loaded = loader.load(inMemory(contents, sources));
      } catch (IOException last) {
        failures.add(describe(last));
        IOException all = new IOException(String.join("; ", failures) + "; " + advice(), failure);
        all.addSuppressed(last);
        throw all;
      }
    }
    Backends.logOnce(
        Level.INFO,
        "each process unpacks " + set + " anew, since " + failures.getFirst() + "; " + advice());
    return loaded;
  }

  private static String advice() {
    return "set -D"
        + PROPERTY
        + "=DIRECTORY to a directory of your own, whose file system allows execution (is not"
        + " mounted noexec)";
  }

  private static String describe(Exception failure) {
    return failure instanceof AccessDeniedException denied
        ? denied.getFile() + ": permission denied"
        : String.valueOf(failure.getMessage());
  }

  /** The sources as files, or none where they are not files of one directory. */
  private static List<Path> inPlace(List<URL> sources) throws IOException {
    List<Path> files = new ArrayList<>();
    for (URL source : sources) {
      if (!source.getProtocol().equals("file")) {
        return List.of();
      }
      try {
        files.add(Path.of(new URI(source.toString())));
      } catch (URISyntaxException | IllegalArgumentException notAPath) {
        throw new IOException(source + " is no path here: " + notAPath.getMessage(), notAPath);
      }
    }
    boolean together = files.stream().map(Path::getParent).distinct().count() == 1;
    return together ? files : List.of();
  }

  private static String name(URL source) {
    String path = source.getPath();
    return path.substring(path.lastIndexOf('/') + 1);
  }

  /** A number that another version of the files will not have. */
  private static String identity(List<URL> sources) throws IOException {
    CRC32 all = new CRC32();
    for (URL source : sources) {
      long crc;
      URLConnection connection = open(source);
      if (connection instanceof JarURLConnection inJar) {
        try (JarFile jar = inJar.getJarFile()) {
          JarEntry entry = jar.getJarEntry(inJar.getEntryName());
          if (entry == null) {
            throw new NoSuchFileException(source.toString());
          }
          crc = entry.getCrc();
        }
      } else {
        try (CheckedInputStream in =
            new CheckedInputStream(connection.getInputStream(), new CRC32())) {
          in.transferTo(OutputStream.nullOutputStream());
          crc = in.getChecksum().getValue();
        }
      }
      all.update((name(source) + " " + crc + "\n").getBytes(StandardCharsets.UTF_8));
    }
    return HexFormat.of().toHexDigits((int) all.getValue());
  }

  private static URLConnection open(URL source) throws IOException {
    URLConnection connection = source.openConnection();
    connection.setUseCaches(false); // or the jar would stay open for good
    return connection;
  }

  /**
   * Where this user's files are kept between processes; it need not exist yet.
   *
   * @throws IOException if the user has no home directory, and none was named
   */
  public Path directory() throws IOException {
    if (property != null) {
      return Path.of(property).toAbsolutePath();
    }
    if (xdgCacheHome != null && Path.of(xdgCacheHome).isAbsolute()) {
      return Path.of(xdgCacheHome, "jtrelu");
    }
    for (String home : homes) {
      if (Path.of(home).isAbsolute()) {
        return Path.of(home, ".cache", "jtrelu");
      }
    }
    throw new IOException("this user has no home directory");
  }

  private static boolean isPosix() {
    return FileSystems.getDefault().supportedFileAttributeViews().contains("posix");
  }

  /** A directory that nobody but this user and root may change. */
  private Path privateDirectory(Path directory) throws IOException {
    if (!isPosix()) {
      return Files.createDirectories(directory); // in the user's profile, closed to others
    }
    Set<PosixFilePermission> ownerOnly = PosixFilePermissions.fromString("rwx------");
    Files.createDirectories(directory, PosixFilePermissions.asFileAttribute(ownerOnly));
    int owner = owner(directory);
    Set<PosixFilePermission> permissions =
        Files.getPosixFilePermissions(directory, LinkOption.NOFOLLOW_LINKS);
    if ((owner != 0 && owner != ownUser())
        || permissions.contains(PosixFilePermission.GROUP_WRITE)
        || permissions.contains(PosixFilePermission.OTHERS_WRITE)) {
      throw new IOException(
          directory
              + " may be changed by others (its owner is user "
              + owner
              + ", its permissions are "
              + PosixFilePermissions.toString(permissions)
              + "): remove it");
    }
    return directory;
  }

  /** Users are compared by number: not every number has a name. */
  private static int owner(Path file) throws IOException {
    return (int) Files.getAttribute(file, "unix:uid", LinkOption.NOFOLLOW_LINKS);
  }

  private int ownUser() throws IOException {
    Path process = Path.of("/proc/self");
    if (Files.exists(process)) {
      return (int) Files.getAttribute(process, "unix:uid");
    }
    Path ours = Files.createTempFile(Path.of(temporary), TEMPORARY, PART);
    try {
      return owner(ours);
    } finally {
      Files.delete(ours);
    }
  }

  /** Brings the sources into a directory, unless they are there. */
  private static List<Path> unpack(Path directory, List<URL> sources) throws IOException {
    List<Path> files = new ArrayList<>();
    for (URL source : sources) {
      Path target = directory.resolve(name(source));
      if (!isVerified(target)) {
        byte[] found = Files.isRegularFile(target) ? digest(target.toUri().toURL()) : new byte[0];
        if (!MessageDigest.isEqual(found, digest(source))) {
          removeAbandoned(directory);
          write(source, target);
        }
        remember(target);
      }
      files.add(target);
    }
    return files;
  }

  private static boolean isVerified(Path target) throws IOException {
    try {
      return Files.readString(stateOf(target)).equals(state(target));
    } catch (NoSuchFileException missing) {
      return false;
    }
  }

  private static Path stateOf(Path target) {
    return target.resolveSibling(target.getFileName() + STATE);
  }

  /** What changes when the file does. */
  private static String state(Path target) throws IOException {
    BasicFileAttributes attributes =
        Files.readAttributes(target, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
    return attributes.size()
        + " "
        + attributes.lastModifiedTime().toInstant()
        + " "
        + attributes.fileKey();
  }

  private static void remember(Path target) throws IOException {
    Path directory = target.getParent();
    if (directory == null || !Files.isWritable(directory)) {
      return; // filled by someone else: verified again by the next process
    }
    Path part = Files.createTempFile(directory, target.getFileName().toString(), PART);
    try {
      Files.writeString(part, state(target));
      Files.move(part, stateOf(target), StandardCopyOption.ATOMIC_MOVE);
    } finally {
      Files.deleteIfExists(part);
    }
  }

  private static byte[] digest(URL source) throws IOException {
    MessageDigest digest;
    try {
      digest = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException impossible) {
      throw new AssertionError(impossible); // every Java platform has it
    }
    try (InputStream in = open(source).getInputStream()) {
      byte[] buffer = new byte[1 << 16];
      for (int read = in.read(buffer); read >= 0; read = in.read(buffer)) {
        digest.update(buffer, 0, read);
      }
    }
    return digest.digest();
  }

  private static void write(URL source, Path target) throws IOException {
    Path directory = target.toAbsolutePath().getParent();
    Path part = Files.createTempFile(directory, target.getFileName().toString(), PART);
    try {
      try (InputStream in = open(source).getInputStream()) {
        Files.copy(in, part, StandardCopyOption.REPLACE_EXISTING);
      }
      sync(part, StandardOpenOption.WRITE);
      Files.move(part, target, StandardCopyOption.ATOMIC_MOVE);
      if (isPosix()) {
        sync(directory, StandardOpenOption.READ);
      }
    } finally {
      Files.deleteIfExists(part);
    }
  }

  private static void sync(Path path, StandardOpenOption mode) throws IOException {
    try (FileChannel channel = FileChannel.open(path, mode)) {
      channel.force(true);
    }
  }

  /** Removes what processes that were killed have left unfinished. */
  private static void removeAbandoned(Path directory) throws IOException {
    FileTime limit = FileTime.from(Instant.now().minus(ABANDONED));
    try (DirectoryStream<Path> parts = Files.newDirectoryStream(directory, "*" + PART)) {
      for (Path part : parts) {
        try {
          if (Files.getLastModifiedTime(part, LinkOption.NOFOLLOW_LINKS).compareTo(limit) < 0) {
            Files.deleteIfExists(part);
          }
        } catch (NoSuchFileException goneMeanwhile) {
          // its process has finished
        }
      }
    }
  }

  private <T> T loadFromTemporary(List<URL> sources, Loader<T> loader) throws IOException {
    Path under = Path.of(temporary);
    removeAbandonedTemporary(under);
    Path directory = Files.createTempDirectory(under, TEMPORARY); // with mode 0700
    List<Path> files = new ArrayList<>();
    try {
      for (URL source : sources) {
        Path file = directory.resolve(name(source));
        files.add(file);
        try (InputStream in = open(source).getInputStream()) {
          Files.copy(in, file);
        }
      }
      return loader.load(files);
    } finally {
      files.forEach(NativeCache::deleteNowOrAtExit); // the system keeps what is loaded
      deleteNowOrAtExit(directory);
    }
  }

  private static void deleteNowOrAtExit(Path path) {
    try {
      Files.deleteIfExists(path);
    } catch (IOException inUse) { // Windows holds on to a loaded library
      path.toFile().deleteOnExit();
    }
  }

  /** Directories of processes that were killed while they were loading. */
  private void removeAbandonedTemporary(Path under) throws IOException {
    if (!isPosix()) {
      return; // a process that runs may still hold its own
    }
    FileTime limit = FileTime.from(Instant.now().minus(ABANDONED));
    int user = ownUser();
    try (DirectoryStream<Path> old = Files.newDirectoryStream(under, TEMPORARY + "*")) {
      for (Path directory : old) {
        try {
          if (Files.isDirectory(directory, LinkOption.NOFOLLOW_LINKS)
              && owner(directory) == user
              && Files.getLastModifiedTime(directory, LinkOption.NOFOLLOW_LINKS).compareTo(limit)
                  < 0) {
            try (DirectoryStream<Path> files = Files.newDirectoryStream(directory)) {
              for (Path file : files) {
                Files.deleteIfExists(file);
              }
            }
            Files.deleteIfExists(directory);
          }
        } catch (IOException notOurs) {
          // no reason not to go on
        }
      }
    }
  }

  private static boolean isInMemory(String contents) {
    synchronized (IN_MEMORY) {
      return IN_MEMORY.containsKey(contents);
    }
  }

  private static List<Path> inMemory(String contents, List<URL> sources) throws IOException {
    synchronized (IN_MEMORY) {
      List<Path> files = IN_MEMORY.get(contents);
      if (files == null) {
        files = new ArrayList<>();
        for (URL source : sources) {
          Path file = memoryFile(name(source));
          files.add(file);
          try (InputStream in = open(source).getInputStream();
              OutputStream out = Files.newOutputStream(file, StandardOpenOption.WRITE)) {
            in.transferTo(out);
          }
        }
        IN_MEMORY.put(contents, files);
      }
      return files;
    }
  }

  private static Path memoryFile(String name) throws IOException {
    int closeOnExec = 1;
    int executable = 0x10; // unknown to kernels before 6.3
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment function =
          Linker.nativeLinker()
              .defaultLookup()
              .find("memfd_create")
              .orElseThrow(() -> new IOException("this system has no files in memory"));
      MethodHandle create =
          Linker.nativeLinker()
              .downcallHandle(function, FunctionDescriptor.of(JAVA_INT, ADDRESS, JAVA_INT));
      MemorySegment title = arena.allocateFrom(name);
      int descriptor = (int) create.invokeExact(title, closeOnExec | executable);
      if (descriptor < 0) {
        descriptor = (int) create.invokeExact(title, closeOnExec);
      }
      Path file = Path.of("/proc/self/fd/" + descriptor);
      if (descriptor < 0 || !Files.exists(file)) {
        throw new IOException("this system grants no files in memory");
      }
      return file;
    } catch (IOException | Error failure) {
      throw failure;
    } catch (Throwable failure) {
      throw new IOException("no file in memory can be made: " + failure.getMessage(), failure);
    }
  }
}
