package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.lang.classfile.Attributes;
import java.lang.classfile.ClassFile;
import java.lang.classfile.ClassModel;
import java.lang.constant.ClassDesc;
import java.lang.foreign.ValueLayout;
import java.net.URI;
import java.net.URL;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import jcuda.jcublas.JCublas2;
import jcuda.jcudnn.JCudnn;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/**
 * NVIDIA's own libraries, and what their headers say, where {@code -Predistributables} brings them:
 * 2 GB from Maven Central, and no GPU. The headers are read off JavaCPP's presets, which are
 * generated from them.
 */
class RedistributablesTest {
  private static final String LIBRARIES = "/org/bytedeco/cuda/linux-x86_64/";
  private static final Path FOLDER = Path.of("target/redistributables").toAbsolutePath();

  /** Arguments of what is called: p a pointer, handle or address, i an int, z a size. */
  private static final Map<String, String> CUBLAS =
      Map.of(
          "cublasCreate_v2", "p",
          "cublasDestroy_v2", "p",
          "cublasSetStream_v2", "pp",
          "cublasSetWorkspace_v2", "ppz",
          "cublasSetMathMode", "pi",
          "cublasGetProperty", "ip",
          "cublasGemmEx", "piiiiippiipiippiiii");

  private static final Map<String, String> CUDNN =
      new TreeMap<>(
          Map.of(
              "cudnnCreate", "p",
              "cudnnDestroy", "p",
              "cudnnSetStream", "pp",
              "cudnnGetProperty", "ip",
              "cudnnSetTensor4dDescriptor", "piiiiii",
              "cudnnSetFilter4dDescriptor", "piiiiii",
              "cudnnSetConvolution2dDescriptor", "piiiiiiii",
              "cudnnSetConvolutionMathType", "pi"));

  static {
    for (String object : List.of("Tensor", "Filter", "Convolution")) {
      CUDNN.put("cudnnCreate" + object + "Descriptor", "p");
      CUDNN.put("cudnnDestroy" + object + "Descriptor", "p");
    }
    for (String pass : List.of("Forward", "BackwardData", "BackwardFilter")) {
      CUDNN.put("cudnnGetConvolution" + pass + "Algorithm_v7", "pppppipp");
      CUDNN.put("cudnnConvolution" + pass, "pppppppipzppp");
    }
  }

  @BeforeAll
  static void unpack() throws Exception {
    URL jar = RedistributablesTest.class.getResource(LIBRARIES + "libcublas.so.12");
    Assumptions.assumeTrue(jar != null, "NVIDIA's libraries are tested with -Predistributables");
    Files.createDirectories(FOLDER);
    URI inside = URI.create(jar.toURI().toString().replaceFirst("!.*", ""));
    try (FileSystem files = FileSystems.newFileSystem(inside, Map.of());
        Stream<Path> all = Files.list(files.getPath(LIBRARIES))) {
      for (Path file : (Iterable<Path>) all::iterator) {
        String name = file.getFileName().toString();
        if (name.matches("lib(cublas|cublasLt|cudnn.*)\\.so\\.(8|12)")) {
          Files.copy(file, FOLDER.resolve(name), StandardCopyOption.REPLACE_EXISTING);
        }
      }
    }
    EmulatedSubject.openPlain().close(); // so that JCuda's loader is ours
  }

  private static NvidiaLibrary open(String stem, int major) {
    return LibrariesSubject.with(
        FOLDER, "own", () -> NvidiaLibrary.open(stem, List.of(major), false));
  }

  @Test
  void cublas() {
    NvidiaLibrary library = open("cublas", 12);
    assertTrue(library.version().startsWith("12."), library.version());
    requireFunctions(library, CUBLAS.keySet());
    assertTrue(DriverLibrary.loadBeside(JCudaBlas.LIBRARY));
    int[] minor = new int[1];
    assertEquals(0, JCublas2.cublasGetProperty(1, minor));
    assertEquals(Integer.parseInt(library.version().split("\\.", -1)[1]), minor[0]);
    System.out.println("opened cuBLAS " + library.version());
  }

  @Test
  void cudnn() {
    open("cublas", 12);
    NvidiaLibrary library = open("cudnn", 8);
    assertTrue(library.version().startsWith("8."), library.version());
    requireFunctions(library, CUDNN.keySet());
    assertTrue(DriverLibrary.loadBeside(JCudaDnn.LIBRARY));
    int[] minor = new int[1];
    assertEquals(0, JCudnn.cudnnGetProperty(1, minor));
    assertEquals(Integer.parseInt(library.version().split("\\.", -1)[1]), minor[0]);
    System.out.println("opened cuDNN " + library.version());
  }

  private static void requireFunctions(NvidiaLibrary library, Set<String> names) {
    for (String name : names) {
      assertTrue(library.symbols().find(name).isPresent(), name);
    }
  }

  private static ClassModel headers(String type) throws IOException {
    try (InputStream in =
        RedistributablesTest.class.getResourceAsStream("/org/bytedeco/cuda/" + type + ".class")) {
      assertNotNull(in, type);
      return ClassFile.of().parse(in.readAllBytes());
    }
  }

  @Test
  void arguments() throws IOException {
    requireArguments(headers("global/cublas"), CUBLAS);
    requireArguments(headers("global/cudnn"), CUDNN);
  }

  private static void requireArguments(ClassModel headers, Map<String, String> functions) {
    functions.forEach(
        (name, expected) -> {
          Set<String> declared =
              headers.methods().stream()
                  .filter(method -> method.methodName().equalsString(name))
                  .map(
                      method ->
                          method.methodTypeSymbol().parameterList().stream()
                              .map(RedistributablesTest::kind)
                              .collect(Collectors.joining()))
                  .collect(Collectors.toCollection(TreeSet::new));
          assertEquals(Set.of(expected), declared, name);
        });
  }

  private static String kind(ClassDesc type) {
    return switch (type.descriptorString()) {
      case "I" -> "i";
      case "J" -> "z";
      default -> "p";
    };
  }

  private static int constant(ClassModel headers, String name) {
    return headers.fields().stream()
        .filter(field -> field.fieldName().equalsString(name))
        .map(field -> field.findAttribute(Attributes.constantValue()).orElseThrow())
        .map(value -> (Integer) value.constant().constantValue())
        .findFirst()
        .orElseThrow(() -> new AssertionError(name));
  }

  @Test
  void constants() throws IOException {
    ClassModel cublas = headers("global/cublas");
    ClassModel cudnn = headers("global/cudnn");
    ClassModel cudart = headers("global/cudart");
    assertEquals(Blas.OP_N, constant(cublas, "CUBLAS_OP_N"));
    assertEquals(Blas.OP_T, constant(cublas, "CUBLAS_OP_T"));
    assertEquals(Blas.GEMM_DEFAULT, constant(cublas, "CUBLAS_GEMM_DEFAULT"));
    assertEquals(
        Blas.MATH_DISALLOW_REDUCED_PRECISION_REDUCTION,
        constant(cublas, "CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION"));
    assertEquals(68, constant(cublas, "CUBLAS_COMPUTE_32F"));
    assertEquals(69, constant(cublas, "CUBLAS_COMPUTE_32F_PEDANTIC"));
    assertEquals(77, constant(cublas, "CUBLAS_COMPUTE_32F_FAST_TF32"));
    assertEquals(0, constant(cudart, "CUDA_R_32F"));
    assertEquals(2, constant(cudart, "CUDA_R_16F"));
    assertEquals(14, constant(cudart, "CUDA_R_16BF"));
    assertEquals(Dnn.NHWC, constant(cudnn, "CUDNN_TENSOR_NHWC"));
    assertEquals(Dnn.CROSS_CORRELATION, constant(cudnn, "CUDNN_CROSS_CORRELATION"));
    assertEquals(Dnn.DATA_FLOAT, constant(cudnn, "CUDNN_DATA_FLOAT"));
    assertEquals(2, constant(cudnn, "CUDNN_DATA_HALF"));
    assertEquals(9, constant(cudnn, "CUDNN_DATA_BFLOAT16"));
    assertEquals(0, constant(cudnn, "CUDNN_DEFAULT_MATH"));
    assertEquals(1, constant(cudnn, "CUDNN_TENSOR_OP_MATH"));
    assertEquals(3, constant(cudnn, "CUDNN_FMA_MATH"));
    assertEquals(1, constant(cudnn, "CUDNN_DETERMINISTIC"));
    assertEquals(2, constant(cudnn, "CUDNN_CONVOLUTION_FWD_ALGO_GEMM"));
    assertEquals(1, constant(cudnn, "CUDNN_CONVOLUTION_BWD_DATA_ALGO_1"));
    assertEquals(1, constant(cudnn, "CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1"));
  }

  /** The fields in their order, as C lays them out. */
  @Test
  void performanceStructs() throws IOException {
    Map<String, ValueLayout> types =
        Map.of("I", ValueLayout.JAVA_INT, "F", ValueLayout.JAVA_FLOAT, "J", ValueLayout.JAVA_LONG);
    for (String pass : List.of("Fwd", "BwdData", "BwdFilter")) {
      ClassModel struct = headers("cudnn/cudnnConvolution" + pass + "AlgoPerf_t");
      long size = 0;
      Map<String, Long> offsets = new TreeMap<>();
      for (var method : struct.methods()) {
        var type = method.methodTypeSymbol();
        ValueLayout field = types.get(type.returnType().descriptorString());
        if (field != null && type.parameterCount() == 0) {
          size = Math.ceilDiv(size, field.byteSize()) * field.byteSize();
          offsets.put(method.methodName().stringValue(), size);
          size += field.byteSize();
        }
      }
      assertEquals(ForeignDnn.PERFORMANCE_ALGORITHM, offsets.get("algo"), pass);
      assertEquals(ForeignDnn.PERFORMANCE_STATUS, offsets.get("status"), pass);
      assertEquals(ForeignDnn.PERFORMANCE_MEMORY, offsets.get("memory"), pass);
      assertEquals(ForeignDnn.PERFORMANCE_DETERMINISM, offsets.get("determinism"), pass);
      assertEquals(ForeignDnn.PERFORMANCE_MATH, offsets.get("mathType"), pass);
      long reserved = 3 * ValueLayout.JAVA_INT.byteSize(); // int reserved[3]
      assertEquals(ForeignDnn.PERFORMANCE_BYTES, Math.ceilDiv(size + reserved, 8L) * 8, pass);
    }
  }
}
