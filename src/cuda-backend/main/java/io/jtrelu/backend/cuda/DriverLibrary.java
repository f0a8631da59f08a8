package io.jtrelu.backend.cuda;

import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.NativeCache;
import java.io.IOException;
import java.lang.classfile.ClassFile;
import java.lang.classfile.CodeBuilder;
import java.lang.constant.ClassDesc;
import java.lang.constant.ConstantDescs;
import java.lang.constant.MethodTypeDesc;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandles;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import jcuda.Pointer;
import org.jspecify.annotations.Nullable;

/**
 * The native libraries of this process: one libcuda (a driver's or the emulated one) and JCuda's
 * binding to it. A process can hold only one libcuda, so whichever is loaded first stays; this is
 * the one piece of state that belongs to the process and not to an object.
 */
final class DriverLibrary {
  /** Names the emulated driver's library file. */
  static final String EMULATOR_PROPERTY = "jtrelu.emulator";

  /** Set to {@code real} or {@code emulated}, allows this process no other driver. */
  static final String CHOICE_PROPERTY = "jtrelu.cuda";

  /** Name of JCuda's library for the driver API, without version. */
  private static final String LIBRARY = "JCudaDriver";

  private static final MethodTypeDesc LOAD_LIBRARY =
      MethodTypeDesc.of(
          ConstantDescs.CD_void, ConstantDescs.CD_String, ConstantDescs.CD_String.arrayType());

  private static final MethodTypeDesc TAKES_STRING =
      MethodTypeDesc.of(ConstantDescs.CD_boolean, ConstantDescs.CD_String);

  private static final String JCUDA_VERSION = "12.6.0";

  /**
   * Libraries of JCuda's that are loaded from our cache where they are used, each with its class.
   */
  private static final Map<String, String> BESIDE =
      Map.of(JCudaBlas.LIBRARY, "jcuda.jcublas.JCublas2", JCudaDnn.LIBRARY, "jcuda.jcudnn.JCudnn");

  /** With a library's name behind it: the property that tells JCuda's loader to leave it out. */
  private static final String LOADED = "io.jtrelu.jcuda.";

  private static @Nullable Boolean loadedEmulator;

  private DriverLibrary() {}

  /**
   * Loads libcuda and JCuda, once. A failed load leaves nothing behind and can be tried again.
   *
   * @param emulated whether the emulated driver is wanted
   * @throws BackendUnavailableException with the reason and the way out
   */
  static synchronized void load(boolean emulated) {
    requireNativeAccess();
    String choice = System.getProperty(CHOICE_PROPERTY);
    if (choice != null && !choice.equals(emulated ? "emulated" : "real")) {
      throw new BackendUnavailableException(
          "-D" + CHOICE_PROPERTY + "=" + choice + " allows this process no other driver");
    }
    if (loadedEmulator == null) {
      if (emulated) {
        loadEmulator();
      }
      loadJCuda();
      loadedEmulator = isEmulator();
    }
    if (loadedEmulator != emulated) {
      throw new BackendUnavailableException(
          emulated
              ? "this process already uses the NVIDIA driver, and a process can hold only one"
                  + " libcuda: start another for the emulated device"
              : "this process holds the emulated driver, which is no GPU, and a process can hold"
                  + " only one libcuda: start another for the GPU");
    }
  }

  private static void requireNativeAccess() {
    try {
      Objects.requireNonNull(MemorySegment.NULL.reinterpret(0));
    } catch (IllegalCallerException refused) {
      Module module = DriverLibrary.class.getModule();
      throw new BackendUnavailableException(
          "the JVM refuses native code (--illegal-native-access=deny): start it with"
              + " --enable-native-access="
              + (module.isNamed() ? module.getName() : "ALL-UNNAMED"),
          refused);
    }
  }

  /** Whether this process has its libcuda. */
  static synchronized boolean isLoaded() {
    return loadedEmulator != null;
  }

  /** Whether the emulated driver's file is there. */
  static boolean emulatorCanBeLoaded() {
    return Files.isRegularFile(emulator());
  }

  /** What to do where it is not. */
  static String whyNoEmulator() {
    return "the emulated driver is not at "
        + emulator()
        + ": build it (native/build emulator, which needs cmake and a C++ compiler) or name it"
        + " with -D"
        + EMULATOR_PROPERTY
        + "=FILE";
  }

  private static Path emulator() {
    return Path.of(System.getProperty(EMULATOR_PROPERTY, "target/native/libcuda.so.1"));
  }

  private static void loadEmulator() {
    Path path = emulator();
    if (!Files.isRegularFile(path)) {
      throw new BackendUnavailableException(whyNoEmulator());
    }
    try {
      System.load(path.toAbsolutePath().toString());
    } catch (UnsatisfiedLinkError failure) {
      throw new BackendUnavailableException(
          "the emulated driver " + path + " cannot be loaded: " + failure.getMessage(), failure);
    }
  }

  /**
   * JCuda's own loader unpacks into java.io.tmpdir under a fixed name and loads what it finds
   * there, whoever put it. So the library is loaded here, from a directory of our own, and JCuda is
   * given a loader class that leaves out this one, and those of {@link #loadBeside} once they are
   * loaded; other libraries of JCuda's, which a program may use beside these, it loads as ever.
   */
  private static void loadJCuda() {
    String name = libraryName();
    URL source = Pointer.class.getResource("/lib/" + name);
    if (source == null) {
      throw new BackendUnavailableException(
          "JCuda has no native library for this platform ("
              + name
              + " is not on the class path): add org.jcuda:jcuda-natives:"
              + JCUDA_VERSION
              + " with classifier linux-x86_64 or windows-x86_64; there are no others");
    }
    try {
      NativeCache.ofThisProcess()
          .load(
              "jcuda-" + JCUDA_VERSION,
              List.of(source),
              files -> {
                loadJCuda(files.getFirst());
                return name;
              });
    } catch (IOException failure) {
      throw new BackendUnavailableException(
          "JCuda cannot be loaded: " + failure.getMessage(), failure);
    }
    replaceLoader();
  }

  private static void loadJCuda(Path file) throws IOException {
    try {
      System.load(file.toString());
    } catch (UnsatisfiedLinkError failure) {
      String message = String.valueOf(failure.getMessage());
      if (!message.contains("libcuda") && !message.contains("nvcuda")) {
        throw new IOException(message, failure); // the place may be why
      }
      throw new BackendUnavailableException(
          "no NVIDIA driver: JCuda cannot be loaded ("
              + message
              + "). Install the NVIDIA driver; nvidia-smi must list the GPU",
          failure);
    }
  }

  /**
   * Loads another library of JCuda's from our cache, so that its class can be used. The library of
   * NVIDIA's that it is bound to must be in the process, or the JVM would die.
   *
   * @param library its name with version, without platform
   * @return whether its class and its natives are there
   */
  static synchronized boolean loadBeside(String library) {
    String type = Objects.requireNonNull(BESIDE.get(library));
    String property = LOADED + nameOnly(library);
    if (Boolean.getBoolean(property)) {
      return true;
    }
    URL source = Pointer.class.getResource("/lib/" + fileName(library));
    if (source == null || !isPresent(type)) {
      return false;
    }
    try {
      NativeCache.ofThisProcess()
          .load(
              library.toLowerCase(Locale.ROOT),
              List.of(source),
              files -> {
                System.load(files.getFirst().toString());
                return library;
              });
    } catch (IOException | UnsatisfiedLinkError failure) {
      throw new BackendUnavailableException(
          library + " cannot be loaded: " + failure.getMessage(), failure);
    }
    System.setProperty(property, "true");
    return true;
  }

  private static boolean isPresent(String type) {
    try {
      Class.forName(type, false, DriverLibrary.class.getClassLoader());
      return true;
    } catch (ClassNotFoundException | LinkageError absent) {
      return false;
    }
  }

  private static String nameOnly(String library) {
    return library.substring(0, library.indexOf('-'));
  }

  private static String libraryName() {
    return fileName(LIBRARY + "-" + JCUDA_VERSION);
  }

  private static String fileName(String library) {
    boolean windows =
        System.getProperty("os.name", "").toLowerCase(Locale.ROOT).contains("windows");
    String arch = System.getProperty("os.arch", "");
    return (windows ? "" : "lib")
        + library
        + (windows ? "-windows-" : "-linux-")
        + (arch.equals("amd64") ? "x86_64" : arch)
        + (windows ? ".dll" : ".so");
  }

  private static void loaderCode(CodeBuilder code) {
    startsWith(code, LIBRARY).ifThen(CodeBuilder::return_);
    for (String library : BESIDE.keySet()) {
      String name = nameOnly(library);
      startsWith(code, name)
          .ifThen(
              named ->
                  named
                      .ldc(LOADED + name)
                      .invokestatic(ConstantDescs.CD_Boolean, "getBoolean", TAKES_STRING)
                      .ifThen(CodeBuilder::return_));
    }
    code.aload(0)
        .aload(1)
        .invokestatic(ClassDesc.of("jcuda.LibUtils"), "loadLibrary", LOAD_LIBRARY)
        .return_();
  }

  /** Whether the library that is asked for has a name. */
  private static CodeBuilder startsWith(CodeBuilder code, String name) {
    return code.aload(0)
        .ldc(name)
        .invokevirtual(ConstantDescs.CD_String, "startsWith", TAKES_STRING);
  }

  private static void replaceLoader() {
    byte[] loader =
        ClassFile.of()
            .build(
                ClassDesc.of("jcuda.LibUtilsCuda"),
                type ->
                    type.withMethodBody(
                        "loadLibrary",
                        LOAD_LIBRARY,
                        ClassFile.ACC_PUBLIC | ClassFile.ACC_STATIC,
                        DriverLibrary::loaderCode));
    try {
      MethodHandles.privateLookupIn(Pointer.class, MethodHandles.lookup()).defineClass(loader);
    } catch (LinkageError alreadyThere) {
      // Someone else in this process has used JCuda before us: then it has loaded its library.
      System.getLogger(DriverLibrary.class.getPackageName())
          .log(System.Logger.Level.DEBUG, "JCuda's own loader is in use", alreadyThere);
    } catch (IllegalAccessException impossible) {
      throw new AssertionError("JCuda is in the unnamed module", impossible);
    }
  }

  /** Whether the libcuda that JCuda is bound to is the emulated one. */
  private static boolean isEmulator() {
    return SymbolLookup.loaderLookup().find(Emulator.MARKER).isPresent();
  }
}
