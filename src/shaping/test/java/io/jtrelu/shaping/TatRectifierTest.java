package io.jtrelu.shaping;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class TatRectifierTest {

  @ParameterizedTest
  @CsvSource({"49, 0.4259071946, 1.3011191752", "100, 0.5704395311, NaN"})
  // The published figures are cut off, not rounded, after ten digits.
  void slopesOfPlainChainsAreThePublishedOnes(int depth, double slope, double scale) {
    Shaping s = new Tat().solve(SignalGraph.chain(depth), Activation.LEAKY_RELU);
    assertEquals(slope, s.activation().negativeSlope(), 1e-10);
    if (!Double.isNaN(scale)) {
      assertEquals(scale, s.activation().outputScale(), 1e-10);
    }
    assertEquals(depth, s.activations());
    assertEquals(0.9, s.achieved(), 1e-10);
    assertTrue(s.residual() <= 1e-10);
  }

  @Test
  void slopeOfResNet101V2() {
    Shaping s = Tat.eta(0.75).solve(ResNets.v2(101, 0.6), Activation.LEAKY_RELU);
    assertEquals(0.6291800297, s.activation().negativeSlope(), 1e-10);
  }

  @ParameterizedTest
  @CsvSource({"50, 49", "101, 100", "152, 151"})
  void withoutShortcutAResNetIsAChain(int depth, int activations) {
    for (SignalGraph graph : new SignalGraph[] {ResNets.v2(depth, 0), ResNets.v1(depth, 0)}) {
      assertEquals(activations, graph.activations());
      assertTrue(graph.isChain());
      assertEquals(
          new Tat().solve(SignalGraph.chain(activations), Activation.LEAKY_RELU).activation(),
          new Tat().solve(graph, Activation.LEAKY_RELU).activation());
    }
  }

  @Test
  void aChainThatIsTooShortNamesTheLeastDepth() {
    var e =
        assertThrows(
            InfeasibleTargetException.class,
            () -> new Tat().solve(SignalGraph.chain(12), Activation.LEAKY_RELU));
    assertEquals(0.8971, e.attainable(), 5e-5);
    assertEquals(13, e.leastDepth().orElseThrow());
    assertEquals(0.9, e.target());
    new Tat().solve(SignalGraph.chain(13), Activation.LEAKY_RELU);
  }

  @Test
  void heavyShortcutsNameTheAttainableValue() {
    var e =
        assertThrows(
            InfeasibleTargetException.class,
            () -> new Tat().solve(ResNets.v2(50, 0.9), Activation.LEAKY_RELU));
    assertEquals(0.8879, e.attainable(), 5e-5);
    assertTrue(e.leastDepth().isEmpty());
  }

  /** 1 - M(0) of n rectifiers falls as 9 pi^2 / (2 n^2). */
  @Test
  void aFarTargetNamesAFarDepth() {
    var e =
        assertThrows(
            InfeasibleTargetException.class,
            () -> Tat.eta(1 - 1e-9).solve(SignalGraph.chain(49), Activation.LEAKY_RELU));
    double expected = 3 * Math.PI / Math.sqrt(2 * 1e-9);
    assertEquals(expected, e.leastDepth().orElseThrow(), 1e-3 * expected);
  }

  /** Some 600 million activations would be needed; nobody waits for the count. */
  @Test
  void aTargetBeyondAnyChainNamesWhatCanBeReached() {
    var e =
        assertThrows(
            InfeasibleTargetException.class,
            () -> Tat.eta(0.9999999999999999).solve(SignalGraph.chain(49), Activation.LEAKY_RELU));
    assertTrue(e.leastDepth().isEmpty());
    assertEquals(0.98744, e.attainable(), 5e-5);
    assertTrue(e.getMessage().contains("0.9999999999999999"), e.getMessage());
    assertTrue(e.getMessage().contains("chain of 1000000 activations has M(0) = 0.99999999995"));
  }

  @Test
  void argumentsOutOfRangeAreRefusedByName() {
    double[] never = {
      Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY, -1, -Double.MIN_VALUE
    };
    for (double x : never) {
      refused("eta", () -> Tat.eta(x));
      refused("tau", () -> Tat.tau(x));
      refused("zeta", () -> new Dks(x));
      refused("qSlope", () -> new Dks(1.5, x));
      refused("sigmaB2", () -> new Eoc(x));
      refused("negative slope", () -> new TailoredRectifier(x));
    }
    refused("eta", () -> Tat.eta(0));
    refused("eta", () -> Tat.eta(1));
    refused("tau", () -> Tat.tau(0));
    refused("zeta", () -> new Dks(1));
    refused("qSlope", () -> new Dks(1.5, 0));
    refused("negative slope", () -> new TailoredRectifier(1 + 1e-15));
  }

  private static void refused(String name, Runnable call) {
    String message = assertThrows(IllegalArgumentException.class, call::run).getMessage();
    assertTrue(message.contains(name) && message.contains(" but is "), message);
  }
}
