package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import jcuda.nvptxcompiler.JNvPTXCompiler;
import jcuda.nvptxcompiler.nvPTXCompileResult;
import jcuda.nvptxcompiler.nvPTXCompilerHandle;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * The kernels' PTX is compiled on the user's machine where no cubin of its kind is in the jar, by
 * the driver it has. The compiler that JCuda's natives carry is that of CUDA 12.0, far older than
 * the nvcc that made the PTX, and needs neither driver nor GPU: what it refuses, old drivers do.
 *
 * <p>It also shows that other libraries of JCuda's load beside the one that the backend has loaded.
 */
class OldDriverTest {
  @TestFactory
  Stream<DynamicTest> compilesThePtx() throws IOException {
    EmulatedSubject.openPlain().close();
    try (Stream<Path> files = Files.list(Path.of("cuda/kernels"))) {
      List<String> names =
          files
              .map(file -> file.getFileName().toString())
              .filter(name -> name.endsWith(".cu"))
              .map(name -> name.replace(".cu", ".ptx"))
              .sorted()
              .toList();
      return names.stream().map(name -> DynamicTest.dynamicTest(name, () -> compile(name)));
    }
  }

  private static void compile(String name) throws IOException {
    byte[] ptx;
    try (InputStream in = OldDriverTest.class.getResourceAsStream("kernels/" + name)) {
      ptx = in.readAllBytes();
    }
    int[] major = new int[1];
    int[] minor = new int[1];
    JNvPTXCompiler.setExceptionsEnabled(false);
    JNvPTXCompiler.nvPTXCompilerGetVersion(major, minor);
    nvPTXCompilerHandle compiler = new nvPTXCompilerHandle();
    byte[] text = Arrays.copyOf(ptx, ptx.length + 1); // ends with zero
    check("create", JNvPTXCompiler.nvPTXCompilerCreate(compiler, text.length, text), "");
    try {
      // Warpgroups have all registers that there are: those kernels need a compiler that looks for
      // them.
      boolean hopper = name.endsWith("_sm90.ptx");
      String[] options = {
        hopper ? "--gpu-name=sm_90a" : "--gpu-name=sm_80", "--opt-level=" + (hopper ? 3 : 0)
      };
      int result = JNvPTXCompiler.nvPTXCompilerCompile(compiler, options.length, options);
      String version = " by the compiler of CUDA " + major[0] + "." + minor[0];
      check("compile " + name + version, result, result == 0 ? "" : log(compiler));
    } finally {
      JNvPTXCompiler.nvPTXCompilerDestroy(compiler);
    }
  }

  private static void check(String call, int result, String log) {
    assertEquals(
        nvPTXCompileResult.NVPTXCOMPILE_SUCCESS,
        result,
        () -> call + ": " + nvPTXCompileResult.stringFor(result) + " " + log);
  }

  private static String log(nvPTXCompilerHandle compiler) {
    long[] size = new long[1];
    JNvPTXCompiler.nvPTXCompilerGetErrorLogSize(compiler, size);
    byte[] log = new byte[(int) size[0] + 1];
    JNvPTXCompiler.nvPTXCompilerGetErrorLog(compiler, log);
    return new String(log, StandardCharsets.UTF_8).strip();
  }
}
