package io.jtrelu.shaping;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.function.DoubleUnaryOperator;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.DoubleRange;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SignalGraphTest {
  private static double plus(double y) {
    return y + 0.25;
  }

  private static double times(double y) {
    return y * 1.25;
  }

  @Test
  void chainComposes() {
    SignalGraph graph = SignalGraph.chain(7);
    assertEquals(7, graph.activations());
    assertTrue(graph.isChain());
    assertEquals(7, graph.maximum(y -> y + 1, 0));
    assertEquals(1, graph.regions().size(), "parts of a chain cannot exceed the chain");
    assertEquals(7, graph.regions().get(0).activations());
  }

  @Test
  void deepChainsWork() {
    SignalGraph graph = SignalGraph.chain(100_000);
    assertEquals(100_000, graph.maximum(y -> y + 1, 0));
    assertEquals(100_001, graph.throughDepth(y -> y + 1, 0).length);
  }

  @ParameterizedTest
  @CsvSource({"18", "34", "50", "101", "152", "200"})
  void graphOfResNetsGivesTheHandWrittenFunctions(int depth) {
    var rectifier = new TailoredRectifier(0.3);
    for (double w : new double[] {0, 0.1, 0.5, 0.8, 0.97, 0.999}) {
      for (DoubleUnaryOperator r :
          List.<DoubleUnaryOperator>of(
              rectifier::c, SignalGraphTest::plus, SignalGraphTest::times)) {
        for (double x : new double[] {0, 0.5, 1}) {
          double v2 = ResNets.handWrittenV2(depth, w, r, x);
          assertEquals(v2, ResNets.v2(depth, w).maximum(r, x), 1e-12 * Math.max(1, v2));
          double v1 = ResNets.handWrittenV1(depth, w, r, x);
          assertEquals(v1, ResNets.v1(depth, w).maximum(r, x), 1e-12 * Math.max(1, v1));
        }
      }
    }
  }

  @Test
  void officialFunctionForV1AgreesWhereTheOrderOfActivationsDoesNotMatter() {
    for (double w : new double[] {0, 0.5, 0.8}) {
      SignalGraph graph = ResNets.v1(50, w);
      for (DoubleUnaryOperator r :
          List.<DoubleUnaryOperator>of(SignalGraphTest::plus, SignalGraphTest::times)) {
        double expected = ResNets.officialV1(50, w, r, 1);
        assertEquals(expected, graph.maximum(r, 1), 1e-12 * expected);
      }
    }
  }

  @Test
  void branchAloneIsTheMaximumWhereTheShortcutDominates() {
    var b = SignalGraph.builder();
    int x = b.input();
    for (int i = 0; i < 2; i++) {
      int branch = b.activation(b.activation(b.activation(x)));
      x = b.sum(new double[] {0.8, 0.6}, x, branch);
    }
    SignalGraph graph = b.build(x);
    assertEquals(2 * 0.36 * 0.75, graph.output(SignalGraphTest::plus, 0), 1e-15);
    assertEquals(0.75, graph.maximum(SignalGraphTest::plus, 0), 1e-15);
  }

  @Test
  void regionsHaveReadableNames() {
    var b = SignalGraph.builder();
    int x = b.input();
    int branch = b.activation(b.affine(b.activation(x)));
    int y = b.label(b.sum(new double[] {0.6, 0.8}, x, branch), "block1");
    SignalGraph graph = b.build(b.activation(y));
    assertEquals(
        List.of("input -> activation 2", "input -> activation 3"),
        graph.regions().stream().map(SignalGraph.Region::name).toList());
    assertEquals(
        List.of(2, 3), graph.regions().stream().map(SignalGraph.Region::activations).toList());
  }

  @Test
  void aBranchWhoseShortcutIsStillOpenIsNoRegion() {
    // The shared activation of a projecting block: act1 feeds both paths.
    var b = SignalGraph.builder();
    int first = b.activation(b.input());
    int branch = b.activation(b.activation(first));
    SignalGraph graph = b.build(b.sum(new double[] {0.6, 0.8}, b.affine(first), b.affine(branch)));
    assertEquals(0.36 * 0.25 + 0.64 * 0.75, graph.output(SignalGraphTest::plus, 0), 1e-15);
    // Three in a row would be 0.75; the branch alone has two.
    assertEquals(0.57, graph.maximum(SignalGraphTest::plus, 0), 1e-15);
  }

  @Test
  void keysAreKept() {
    var b = SignalGraph.builder();
    int x = b.activation(b.input(), "stem");
    x = b.activation(b.activation(x, "body"), "stem");
    assertEquals(Set.of("stem", "body"), b.build(x).keys());
  }

  @Test
  void zeroWeightsDisconnect() {
    var b = SignalGraph.builder();
    int x = b.input();
    int unused = b.activation(b.activation(b.activation(x)));
    SignalGraph graph = b.build(b.sum(new double[] {0, 1}, unused, b.activation(x)));
    assertTrue(graph.isChain());
    assertEquals(1, graph.activations());
    assertEquals(0.25, graph.maximum(SignalGraphTest::plus, 0));
  }

  @Test
  void sumsMustBeNormalised() {
    var b = SignalGraph.builder();
    int x = b.input();
    int y = b.activation(x);
    var e = assertThrows(IllegalArgumentException.class, () -> b.sum(new double[] {1, 1}, x, y));
    assertTrue(e.getMessage().contains("add up to 2.0"), e.getMessage());
    assertThrows(IllegalArgumentException.class, () -> b.sum(new double[] {1}, x, y));
    for (double bad : new double[] {Double.NaN, Double.POSITIVE_INFINITY}) {
      e = assertThrows(IllegalArgumentException.class, () -> b.sum(new double[] {1, bad}, x, y));
      assertTrue(e.getMessage().contains("weights[1]"), e.getMessage());
      assertTrue(e.getMessage().contains("is " + bad), e.getMessage());
    }
    e = assertThrows(IllegalArgumentException.class, () -> b.sum(new double[] {0, 0}, x, y));
    assertFalse(e.getMessage().contains("divide"), e.getMessage());
  }

  @Test
  void graphsHaveOneEntryAndOneExit() {
    var b = SignalGraph.builder();
    int x = b.input();
    assertThrows(IllegalStateException.class, b::input);
    int y = b.activation(x);
    int stray = b.activation(x);
    var e = assertThrows(IllegalArgumentException.class, () -> b.build(y));
    assertTrue(e.getMessage().contains("activation 2"), e.getMessage());
    assertThrows(IllegalArgumentException.class, () -> b.build(x));
    assertThrows(IllegalArgumentException.class, () -> b.activation(stray + 1));
    assertThrows(IllegalArgumentException.class, () -> SignalGraph.chain(0));
  }

  @Property(tries = 2000)
  void maximumIsThatOfAllRegions(
      @ForAll long seed,
      @ForAll @IntRange(min = 1, max = 14) int size,
      @ForAll @DoubleRange(min = 0, max = 1) double slope) {
    RandomGraph graph = RandomGraph.of(new Random(seed), size);
    var rectifier = new TailoredRectifier(slope);
    for (DoubleUnaryOperator r :
        List.<DoubleUnaryOperator>of(rectifier::c, SignalGraphTest::plus, SignalGraphTest::times)) {
      for (double x : new double[] {0, 0.4, 1}) {
        double expected = graph.maximumOverAllRegions(r, x);
        double actual = graph.build().maximum(r, x);
        assertEquals(expected, actual, 1e-13 * Math.max(1, expected), graph::toString);
      }
    }
  }

  @Property(tries = 300)
  void minimumIsTheMaximumSeenFromOne(
      @ForAll long seed, @ForAll @DoubleRange(min = 0, max = 1) double slope) {
    SignalGraph graph = RandomGraph.of(new Random(seed), 12).build();
    var rectifier = new TailoredRectifier(slope);
    assertEquals(graph.maximum(rectifier::c, 0.3), 1 - graph.minimum(rectifier::e, 0.7), 1e-13);
  }
}
