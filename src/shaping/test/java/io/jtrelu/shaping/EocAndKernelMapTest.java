package io.jtrelu.shaping;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.DoubleRange;
import org.junit.jupiter.api.Test;

class EocAndKernelMapTest {
  private static final SignalGraph CHAIN = SignalGraph.chain(50);

  private static EdgeOfChaos edge(Activation activation, double sigmaB2) {
    EdgeOfChaos edge = new Eoc(sigmaB2).solve(CHAIN, activation).edgeOfChaos();
    assertTrue(edge != null);
    return edge;
  }

  @Test
  void tanhHasThePublishedEdge() {
    EdgeOfChaos edge = edge(Activation.TANH, 0.05);
    assertEquals(1.7609546396, edge.sigmaW2(), 1e-10);
    assertEquals(0.5700478816, edge.qStar(), 1e-10);
    assertEquals(1, edge.chi1(), 1e-12);
    assertEquals(Double.POSITIVE_INFINITY, edge.depthScale());
  }

  @Test
  void rectifiersHaveTheirEdgeWithoutBiases() {
    assertEquals(2, edge(Activation.RELU, 0).sigmaW2(), 1e-13);
    assertEquals(2 / (1 + 1e-4), edge(Activation.LEAKY_RELU, 0).sigmaW2(), 1e-13);
    var e =
        assertThrows(
            InfeasibleTargetException.class, () -> new Eoc(0.05).solve(CHAIN, Activation.RELU));
    assertEquals(0, e.attainable());
    assertEquals(0.05, e.target());
  }

  @Test
  void softplusHasNoEdge() {
    var e =
        assertThrows(
            NoSolutionException.class, () -> new Eoc(0.05).solve(CHAIN, Activation.SOFTPLUS));
    assertTrue(e.getMessage().contains("no edge of chaos"), e.getMessage());
  }

  @Property(tries = 40)
  void conditionsHold(@ForAll @DoubleRange(min = 0.01, max = 1) double sigmaB2) {
    for (Activation activation :
        new Activation[] {Activation.TANH, Activation.ERF, Activation.ELU, Activation.SOFTSIGN}) {
      EdgeOfChaos edge = edge(activation, sigmaB2);
      double a = Math.sqrt(edge.qStar());
      double slope =
          GaussKronrod.mean(
              z -> Math.pow(activation.derivative(a * z), 2), activation.breakpoints());
      double square =
          GaussKronrod.mean(z -> Math.pow(activation.value(a * z), 2), activation.breakpoints());
      assertEquals(1, edge.sigmaW2() * slope, 1e-10, activation.toString());
      assertEquals(edge.qStar(), edge.sigmaW2() * square + sigmaB2, 1e-10, activation.toString());
      assertTrue(edge.qSlope() < 1, "the fixed point attracts");
    }
  }

  @Test
  void depthScaleOffTheEdge() {
    EdgeOfChaos ordered = EdgeOfChaos.at(Activation.TANH, 1.3, 0.05);
    assertTrue(ordered.chi1() < 1);
    assertEquals(-1 / Math.log(ordered.chi1()), ordered.depthScale(), 1e-9);
    double a = Math.sqrt(ordered.qStar());
    double square = GaussKronrod.mean(z -> Math.pow(Math.tanh(a * z), 2));
    assertEquals(ordered.qStar(), 1.3 * square + 0.05, 1e-12);
    assertThrows(NoSolutionException.class, () -> EdgeOfChaos.at(Activation.RELU, 2.5, 0.1));
  }

  @Property(tries = 40)
  void mapOfTheErrorFunctionHasItsClosedForm(
      @ForAll @DoubleRange(min = -1, max = 1) double c,
      @ForAll @DoubleRange(min = 0.05, max = 1.5) double scale) {
    // E[erf(u) erf(v)] = 2/pi asin(2 s^2 c / (1 + 2 s^2)) (Williams 1997)
    KernelMap map = KernelMap.of(new TransformedActivation(Activation.ERF, scale, 0, 1.7, 0, 0));
    double s2 = 2 * scale * scale / (1 + 2 * scale * scale);
    assertEquals(Math.asin(s2 * c) / Math.asin(s2), map.c(c), 1e-10);
  }

  @Property(tries = 10)
  void mapOfARectifierByQuadratureAgreesWithTheClosedForm(
      @ForAll @DoubleRange(min = -1, max = 1) double c,
      @ForAll @DoubleRange(min = 0, max = 0.9) double slope) {
    // Under another name the closed form is not used.
    ActivationFunction other =
        ActivationFunction.of(
            "other", x -> x >= 0 ? x : slope * x, x -> x >= 0 ? 1 : slope, x -> 0, true, 0);
    KernelMap map = KernelMap.of(TransformedActivation.unchanged(other));
    assertEquals(new TailoredRectifier(slope).c(c), map.c(c), 1e-9);
    KernelMap closed = KernelMap.of(new TailoredRectifier(slope).transformed());
    assertEquals(new TailoredRectifier(slope).c(c), closed.c(c), 1e-15);
    assertEquals(3, closed.q(3), 1e-11);
  }

  @Test
  void mapsOfSolutionsMeetTheirConditions() {
    for (Activation activation : new Activation[] {Activation.TANH, Activation.SOFTPLUS}) {
      Shaping s = new Dks().solve(CHAIN, activation);
      KernelMap map = KernelMap.of(s);
      assertEquals(0, map.c(0), 1e-10);
      assertEquals(1, map.c(1), 1e-12);
      assertEquals(1, map.q(1), 1e-10);
      double h = 1e-4;
      assertEquals(s.moments().cSlope(), (1 - map.c(1 - h)) / h, 1e-4);
      double global = (1 - CHAIN.output(map::c, 1 - h)) / h;
      assertEquals(1.5, global, 1e-3);
    }
  }

  @Test
  void mapWithBiasesHasItsFixedPointAtOne() {
    Shaping s = new Eoc(0.05).solve(CHAIN, Activation.TANH);
    KernelMap map = KernelMap.of(s);
    EdgeOfChaos edge = s.edgeOfChaos();
    assertTrue(edge != null);
    assertEquals(1, map.c(1), 1e-12);
    assertEquals(edge.qStar(), map.q(edge.qStar()), 1e-10);
    double a = Math.sqrt(edge.qStar());
    double mean = GaussKronrod.mean(z -> Math.tanh(a * z));
    assertEquals((edge.sigmaW2() * mean * mean + 0.05) / edge.qStar(), map.c(0), 1e-10);
    assertEquals(1, (1 - map.c(1 - 1e-5)) / 1e-5, 1e-3);
  }

  @Test
  void unshapedNetworksForgetTheirInput() {
    Shaping s = new Unshaped().solve(SignalGraph.chain(49), Activation.RELU);
    double c = 0;
    for (int i = 0; i < 49; i++) {
      c = (Math.sqrt(1 - c * c) + (Math.PI - Math.acos(c)) * c) / Math.PI;
    }
    assertEquals(c, s.achieved(), 1e-10);
    assertEquals(0.5, s.moments().q(), 1e-12);
    assertEquals(TransformedActivation.unchanged(Activation.RELU), s.activation());
  }

  @Test
  void valuesThroughDepth() {
    var rectifier = new TailoredRectifier(0);
    double[] values = SignalGraph.chain(3).throughDepth(rectifier::c, 0);
    assertEquals(4, values.length);
    assertEquals(0, values[0]);
    assertEquals(1 / Math.PI, values[1], 1e-15);
    assertEquals(rectifier.c(rectifier.c(1 / Math.PI)), values[3], 1e-15);
  }
}
