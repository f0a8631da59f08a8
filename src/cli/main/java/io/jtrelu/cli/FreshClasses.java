package io.jtrelu.cli;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.lang.classfile.ClassFile;
import java.lang.classfile.ClassFileBuilder;
import java.lang.classfile.ClassFileVersion;
import java.lang.classfile.ClassHierarchyResolver;
import java.lang.classfile.ClassTransform;
import java.lang.classfile.CodeTransform;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Map;
import java.util.TreeMap;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;

/**
 * Writes old class files anew. The JDK's ahead-of-time cache (JEP 514) takes none of before version
 * 50 (Java 6), as they have no stack maps; picocli's, which every command begins with, are of
 * version 49. The launcher and the runtime image have them written in today's format, with stack
 * maps and the same instructions, before they make the cache.
 */
final class FreshClasses {
  private static final int LEAST_VERSION = 50;
  private static final int MAGIC = 0xCAFEBABE;
  private static final int VERSION_AT = 6;
  private static final String NOTE = "META-INF/JTRELU-CHANGES.txt";

  private FreshClasses() {}

  /**
   * Prints for each jar, in order, the one to use: itself, or its copy where classes were old.
   *
   * @param arguments a folder for the copies, and jars
   */
  public static void main(String[] arguments) throws IOException {
    StringBuilder paths = new StringBuilder();
    for (int i = 1; i < arguments.length; i++) {
      paths.append(freshen(Path.of(arguments[0]), Path.of(arguments[i]))).append('\n');
    }
    System.out.print(paths);
  }

  /**
   * Copies a jar whose classes are old. The copy, of the same name, is there as a whole or not at
   * all; it may take the jar's own place.
   *
   * @return the copy, or the jar where no class is old
   */
  static Path freshen(Path folder, Path jar) throws IOException {
    Map<String, byte[]> entries = read(jar);
    if (entries.values().stream().noneMatch(FreshClasses::isOld)) {
      return jar;
    }
    ClassFile format =
        ClassFile.of(
            ClassFile.StackMapsOption.GENERATE_STACK_MAPS,
            ClassFile.ClassHierarchyResolverOption.of(
                ClassHierarchyResolver.ofResourceParsing(
                        type -> {
                          String name = type.descriptorString();
                          byte[] bytes =
                              entries.get(name.substring(1, name.length() - 1) + ".class");
                          return bytes == null ? null : new ByteArrayInputStream(bytes);
                        })
                    .orElse(ClassHierarchyResolver.defaultResolver())));
    int written = 0;
    Path unfinished = Files.createTempFile(folder, "fresh", ".jar");
    try {
      try (ZipOutputStream out = new ZipOutputStream(Files.newOutputStream(unfinished))) {
        for (Map.Entry<String, byte[]> entry : entries.entrySet()) {
          boolean old = isOld(entry.getValue());
          put(out, entry.getKey(), old ? anew(format, entry.getValue()) : entry.getValue());
          written += old ? 1 : 0;
        }
        put(out, NOTE, note(jar, written).getBytes(UTF_8));
      }
      unfinished.toFile().setReadable(true, false); // a temporary file is its owner's alone
      Path copy = folder.resolve(jar.getFileName());
      return Files.move(unfinished, copy, StandardCopyOption.REPLACE_EXISTING);
    } finally {
      Files.deleteIfExists(unfinished);
    }
  }

  private static String note(Path jar, int written) {
    return "Changed by JTReLU for a faster start: "
        + written
        + " class files of "
        + jar.getFileName()
        + " were of a version before "
        + LEAST_VERSION
        + ", and were written anew in version "
        + ClassFile.latestMajorVersion()
        + " with stack maps. Their instructions are the same.\n";
  }

  private static Map<String, byte[]> read(Path jar) throws IOException {
    Map<String, byte[]> entries = new TreeMap<>(); // META-INF comes before what is in small letters
    try (ZipFile file = new ZipFile(jar.toFile())) {
      for (ZipEntry entry : file.stream().filter(e -> !e.isDirectory()).toList()) {
        try (var in = file.getInputStream(entry)) {
          entries.put(entry.getName(), in.readAllBytes());
        }
      }
    }
    return entries;
  }

  private static void put(ZipOutputStream out, String name, byte[] bytes) throws IOException {
    ZipEntry entry = new ZipEntry(name);
    entry.setTime(0); // the same bytes whenever it is made
    out.putNextEntry(entry);
    out.write(bytes);
    out.closeEntry();
  }

  /** Whether something is a class file without stack maps. */
  static boolean isOld(byte[] bytes) {
    return bytes.length > VERSION_AT + 1
        && ByteBuffer.wrap(bytes).getInt() == MAGIC
        && ByteBuffer.wrap(bytes).getShort(VERSION_AT) < LEAST_VERSION;
  }

  private static byte[] anew(ClassFile format, byte[] old) {
    ClassTransform version =
        (builder, element) ->
            builder.with(
                element instanceof ClassFileVersion
                    ? ClassFileVersion.of(ClassFile.latestMajorVersion(), 0)
                    : element);
    // Every instruction is put down again: what is copied as it is gets no stack maps.
    CodeTransform instructions = ClassFileBuilder::with;
    return format.transformClass(
        format.parse(old), version.andThen(ClassTransform.transformingMethodBodies(instructions)));
  }
}
