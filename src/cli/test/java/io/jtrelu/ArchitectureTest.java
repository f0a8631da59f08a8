package io.jtrelu;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;

/** Who may depend on whom. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class ArchitectureTest {
  private JavaClasses library;

  @BeforeAll
  void read() {
    library =
        new ClassFileImporter()
            .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
            .withImportOption(location -> !location.contains("-tests.jar"))
            .importPackages("io.jtrelu");
  }

  /**
   * A package and all it may see, beside itself, the JDK and the nullness annotations. A name with
   * ".." includes subpackages.
   */
  private record Arrow(String from, List<String> to) {
    static Arrow of(String from, String... to) {
      return new Arrow(from, List.of(to));
    }
  }

  private static final List<Arrow> ARROWS =
      List.of(
          Arrow.of("io.jtrelu.activation", "org.hipparchus.."),
          Arrow.of("io.jtrelu.shaping..", "io.jtrelu.activation", "org.hipparchus.."),
          Arrow.of("io.jtrelu.random"),
          Arrow.of("io.jtrelu.tensor"),
          Arrow.of(
              "io.jtrelu.backend", "io.jtrelu.tensor", "io.jtrelu.activation", "io.jtrelu.random"),
          Arrow.of(
              "io.jtrelu.backend.reference",
              "io.jtrelu.tensor",
              "io.jtrelu.activation",
              "io.jtrelu.random",
              "io.jtrelu.backend"),
          Arrow.of(
              "io.jtrelu.backend.onednn..",
              "io.jtrelu.tensor",
              "io.jtrelu.activation",
              "io.jtrelu.random",
              "io.jtrelu.backend",
              "org.bytedeco.."),
          Arrow.of(
              "io.jtrelu.backend.cuda..",
              "io.jtrelu.tensor",
              "io.jtrelu.activation",
              "io.jtrelu.backend",
              "jcuda.."),
          Arrow.of("io.jtrelu.distributed", "io.jtrelu.tensor", "io.jtrelu.backend"),
          Arrow.of(
              "io.jtrelu.nn..",
              "io.jtrelu.tensor",
              "io.jtrelu.activation",
              "io.jtrelu.random",
              "io.jtrelu.backend",
              "io.jtrelu.shaping..",
              "com.fasterxml.jackson.."),
          Arrow.of(
              "io.jtrelu.pytorch",
              "io.jtrelu.activation",
              "io.jtrelu.tensor",
              "io.jtrelu.backend",
              "io.jtrelu.nn",
              "io.jtrelu.interop",
              "io.jtrelu.train",
              "com.fasterxml.jackson.."),
          Arrow.of("io.jtrelu.data..", "io.jtrelu.tensor"),
          Arrow.of(
              "io.jtrelu.onnx..",
              "io.jtrelu.tensor",
              "io.jtrelu.activation",
              "io.jtrelu.backend",
              "io.jtrelu.nn",
              "io.jtrelu.interop",
              "io.jtrelu.data",
              "io.jtrelu.train",
              "com.fasterxml.jackson..",
              "com.google.protobuf.."));

  @TestFactory
  Stream<DynamicTest> arrows() {
    return ARROWS.stream()
        .map(
            arrow ->
                DynamicTest.dynamicTest(
                    arrow.from,
                    () -> {
                      List<String> seen =
                          new ArrayList<>(
                              List.of(
                                  arrow.from,
                                  "java..",
                                  "javax..",
                                  "com.sun.management..",
                                  "org.jspecify.."));
                      seen.addAll(arrow.to);
                      classes()
                          .that()
                          .resideInAPackage(arrow.from)
                          .should()
                          .onlyDependOnClassesThat()
                          .resideInAnyPackage(seen.toArray(String[]::new))
                          .allowEmptyShould(true)
                          .check(library);
                    }));
  }

  @Test
  void onlyTheCudaBackendSeesJcuda() {
    only("io.jtrelu.backend.cuda..", "jcuda..");
  }

  @Test
  void onlyTheOnednnBackendSeesItsLibrary() {
    only("io.jtrelu.backend.onednn..", "org.bytedeco..");
  }

  @Test
  void onlyOnnxFilesSeeProtobuf() {
    only("io.jtrelu.onnx..", "com.google.protobuf..");
  }

  private void only(String from, String to) {
    noClasses()
        .that()
        .resideOutsideOfPackage(from)
        .should()
        .dependOnClassesThat()
        .resideInAPackage(to)
        .check(library);
  }

  /** Backends are found as services, by nobody's import. */
  @Test
  void nobodySeesAParticularBackend() {
    for (String backend : List.of("reference", "onednn", "cuda")) {
      only("io.jtrelu.backend." + backend + "..", "io.jtrelu.backend." + backend + "..");
    }
  }

  /** Training sees networks and data, and what those are made of; not how it is shown. */
  @Test
  void trainingSeesNoFrontEnd() {
    noClasses()
        .that()
        .resideInAPackage("io.jtrelu.train..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("io.jtrelu.report..", "io.jtrelu.cli..")
        .allowEmptyShould(true)
        .check(library);
  }

  @Test
  void nobodySeesTheCommandLine() {
    noClasses()
        .that()
        .resideOutsideOfPackage("io.jtrelu.cli..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("io.jtrelu.cli..", "picocli..")
        .check(library);
  }

  @Test
  void onlyTheCommandLineSeesReports() {
    noClasses()
        .that()
        .resideOutsideOfPackages("io.jtrelu.cli..", "io.jtrelu.report..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("io.jtrelu.report..")
        .check(library);
  }

  /** Below training, nobody sees adapters, so that each can be left out. */
  @Test
  void adaptersCanBeLeftOut() {
    noClasses()
        .that()
        .resideInAnyPackage(
            "io.jtrelu.tensor..", "io.jtrelu.backend..", "io.jtrelu.nn..", "io.jtrelu.data..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("io.jtrelu.interop..")
        .check(library);
  }

  /** The rules see the library; otherwise they would hold of nothing. */
  @Test
  void theRulesAreNotEmpty() {
    classes()
        .that()
        .resideInAPackage("io.jtrelu.backend")
        .should()
        .resideInAPackage("io.jtrelu.backend")
        .allowEmptyShould(false)
        .check(library);
  }
}
