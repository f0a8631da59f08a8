package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import java.util.List;
import java.util.ServiceLoader;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;

/**
 * A backend as the contract tests see it. To hold a new backend to the contract, implement this and
 * name the class in {@code test/resources/META-INF/services/io.jtrelu.backend.Subject}.
 */
public interface Subject {
  /** Name of the backend, the value of {@code -Djtrelu.backend}. */
  String name();

  /**
   * Opens the backend; the caller closes it. Where it cannot be used here, aborts the test with the
   * reason (JUnit's {@code Assumptions}).
   */
  Backend open();

  /** Random convolutions in an ordinary run; other operations take a share of it. */
  default int randomCases() {
    return 300;
  }

  /** Multiply-adds of the largest convolution that is run; a slow device makes this smaller. */
  default long largestConvolution() {
    return 2_000_000;
  }

  /** Elements of the largest tensor of the elementwise operations. */
  default int largestVector() {
    return 70_000;
  }

  /**
   * Whether the backend declines a convolution. It must then throw {@link UnsupportedException},
   * and the case checks that instead.
   */
  default boolean declines(Conv2dDescriptor descriptor, DataType type) {
    return false;
  }

  /**
   * Whether convolutions of a type are added by a GPU's tensor cores, which do not round as IEEE
   * 754 does.
   */
  default boolean addsInTensorCores(DataType type) {
    return false;
  }

  /**
   * Whether a convolution rounds what Winograd's method transforms, which {@link Conv2d} allows.
   */
  default boolean roundsTransforms(Backend backend, Conv2dDescriptor descriptor, DataType type) {
    return false;
  }

  /** Rows of the largest matrix that is inverted. */
  default int largestMatrix() {
    return 150;
  }

  /**
   * All backends, or those that {@code -Djtrelu.backend} names, with commas between. A module that
   * has none of these skips its contract tests, so that one command runs another module's.
   */
  static Stream<Subject> all() {
    String chosen = System.getProperty("jtrelu.backend", "");
    List<String> names = List.of(chosen.split(","));
    List<Subject> subjects =
        ServiceLoader.load(Subject.class).stream()
            .map(ServiceLoader.Provider::get)
            .filter(subject -> chosen.isEmpty() || names.contains(subject.name()))
            .toList();
    Assumptions.assumeFalse(
        subjects.isEmpty(), "no backend of this module is named by -Djtrelu.backend=" + chosen);
    return subjects.stream();
  }
}
