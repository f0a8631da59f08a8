package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.jtrelu.tensor.DataType;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.MethodSource;
import org.opentest4j.TestAbortedException;

/**
 * What the contract tests of all operations share: they run on every {@link Subject}, as many small
 * cases, each with an id that repeats it.
 *
 * <p>Properties: {@code -Djtrelu.backend=NAME} runs one backend; {@code -Djtrelu.case=ID} runs one
 * case; {@code -Djtrelu.cases=N} sets the number of random convolutions (a soak run), other
 * operations following in proportion; {@code -Djtrelu.seed=S} begins with another seed than 1.
 */
@ParameterizedClass(name = "{0}")
@MethodSource("io.jtrelu.backend.Subject#all")
abstract class Contract {
  @Parameter Subject subject;

  Backend backend;

  @BeforeEach
  void open() {
    backend = subject.open();
  }

  /** Closes the backend and proves by its own count that no tensor was left open. */
  @AfterEach
  void close() {
    if (backend != null) {
      long left = backend.memory().inUse();
      backend.close();
      assertEquals(0, left, "bytes still in use at the end of the test on " + subject.name());
    }
  }

  /** A test case: the id names it in reports and repeats it. */
  record Case(String id, Executable body) {}

  /** One test per case, or only the one that -Djtrelu.case names. */
  final Stream<DynamicTest> tests(Stream<Case> cases) {
    String wanted = System.getProperty("jtrelu.case");
    return cases
        .filter(test -> wanted == null || wanted.equals(test.id))
        .map(test -> DynamicTest.dynamicTest(test.id + " on " + subject.name(), () -> run(test)));
  }

  private void run(Case test) throws Throwable {
    try {
      test.body.execute();
    } catch (TestAbortedException skipped) {
      throw skipped;
    } catch (AssertionError | Exception failure) {
      throw new AssertionError(
          String.format(
              "%s, backend %s: %s%nrepeat with: mvn verify -Dtest=%s -Djtrelu.backend=%s"
                  + " -Djtrelu.case=\"%s\"",
              test.id,
              subject.name(),
              failure.getMessage(),
              getClass().getSimpleName(),
              subject.name(),
              test.id),
          failure);
    }
  }

  /** What a random case does with its generator. */
  interface RandomCase {
    void run(SplittableRandom random) throws Throwable;
  }

  /**
   * Random cases, each made from a seed of its own.
   *
   * @param share how many there are for each random convolution
   */
  final Stream<Case> random(String family, double share, RandomCase body) {
    long count =
        Math.max(1, Math.round(share * Long.getLong("jtrelu.cases", subject.randomCases())));
    long first = Long.getLong("jtrelu.seed", 1);
    String wanted = System.getProperty("jtrelu.case");
    String prefix = family + " random ";
    LongStream seeds =
        wanted != null && wanted.startsWith(prefix)
            ? LongStream.of(Long.parseLong(wanted.substring(prefix.length())))
            : LongStream.range(first, first + count);
    return seeds.mapToObj(
        seed -> new Case(prefix + seed, () -> body.run(new SplittableRandom(seed))));
  }

  /** Vector lengths each side of every vector, block and grid size, up to the subject's limit. */
  final List<Integer> lengths() {
    List<Integer> lengths =
        new ArrayList<>(
            List.of(
                0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255,
                256, 257, 511, 513, 1000, 1023, 1025, 2047, 4099, 65_537));
    lengths.removeIf(length -> length > subject.largestVector());
    return lengths;
  }

  /** A case per length and type. */
  final Stream<Case> perLength(String family, LengthCase body) {
    return lengths().stream()
        .flatMap(
            length ->
                types().stream()
                    .map(
                        type ->
                            new Case(
                                family + " " + length + " " + type,
                                () -> body.run(length, type, new SplittableRandom(length)))));
  }

  /** What a case of {@link #perLength} does. */
  interface LengthCase {
    void run(int length, DataType type, SplittableRandom random) throws Throwable;
  }

  /** A length for a random case. */
  final int randomLength(SplittableRandom random) {
    int limit = random.nextInt(4) > 0 ? 300 : 5000;
    return random.nextInt(Math.min(limit, subject.largestVector()));
  }

  /** The types of activations that the backend supports; F32 is among them. */
  final List<DataType> types() {
    List<DataType> types = new ArrayList<>(List.of(DataType.F32, DataType.BF16, DataType.F16));
    types.removeIf(type -> type != DataType.F32 && !backend.supports(type));
    return types;
  }

  /** One of a few values. */
  @SafeVarargs
  static <T> T pick(SplittableRandom random, T... values) {
    return values[random.nextInt(values.length)];
  }

  /** One of a list of values. */
  static <T> T pick(SplittableRandom random, List<T> values) {
    return values.get(random.nextInt(values.size()));
  }
}
