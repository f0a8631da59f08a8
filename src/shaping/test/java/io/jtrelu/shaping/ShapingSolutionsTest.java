package io.jtrelu.shaping;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.DoubleUnaryOperator;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.DoubleRange;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Solutions of DKS and TAT, checked by a quadrature of the test's own. */
class ShapingSolutionsTest {
  private static final List<Activation> SMOOTH =
      List.of(
          Activation.TANH,
          Activation.SOFTPLUS,
          Activation.ELU,
          Activation.SWISH,
          Activation.SIGMOID,
          Activation.ERF,
          Activation.BENTID,
          Activation.ATAN,
          Activation.ASINH,
          Activation.SOFTSIGN,
          Activation.GELU,
          Activation.GELU_EXACT);

  static List<Arguments> solvable() {
    List<Arguments> cases = new ArrayList<>();
    for (int depth : new int[] {20, 49, 100, 200, 1000}) {
      for (Activation activation : SMOOTH) {
        cases.add(Arguments.of(new Tat(), activation, depth));
        cases.add(Arguments.of(new Dks(), activation, depth));
      }
      for (Activation kinked : List.of(Activation.RELU, Activation.LEAKY_RELU, Activation.SELU)) {
        cases.add(Arguments.of(new Dks(), kinked, depth));
      }
    }
    return cases;
  }

  @ParameterizedTest
  @MethodSource("solvable")
  void everyActivationThatAdmitsASolutionGetsOne(
      ShapingMethod method, Activation activation, int depth) {
    Shaping s = method.solve(SignalGraph.chain(depth), activation);
    assertConditions(s, depth);
    for (TransformedActivation alternative : s.alternatives()) {
      assertTrue(
          departure(alternative) >= departure(s.activation()) * (1 - 1e-6),
          () -> "q departs less with " + alternative + " than with " + s.activation());
    }
  }

  /** The local conditions for a chain, whose local targets can be written down. */
  private static void assertConditions(Shaping s, int depth) {
    assertTrue(s.residual() <= 1e-10, () -> "residual " + s.residual());
    List<TransformedActivation> all = new ArrayList<>(s.alternatives());
    all.add(s.activation());
    for (TransformedActivation phi : all) {
      String what = phi.toString();
      double[] kinks = phi.breakpoints();
      assertTrue(phi.inputScale() > 0, what);
      assertEquals(1, mean(z -> square(phi.value(z)), kinks), 1e-10, what);
      double slope = mean(z -> square(phi.derivative(z)), kinks);
      double qSlope = mean(z -> phi.value(z) * phi.derivative(z) * z, kinks);
      if (s.method() instanceof Tat tat) {
        assertEquals(1, slope, 1e-10, what);
        assertEquals(1, qSlope, 1e-10, what);
        double curvature = mean(z -> square(phi.secondDerivative(z)), kinks);
        assertEquals(tat.tau() / depth, curvature, 1e-10, what);
        assertEquals(tat.tau(), depth * curvature, 1e-10, what);
      } else if (s.method() instanceof Dks dks) {
        assertEquals(0, mean(phi::value, kinks), 1e-10, what);
        assertEquals(Math.pow(dks.zeta(), 1.0 / depth), slope, 1e-10, what);
        if (phi.function() != Activation.RELU) {
          assertEquals(dks.qSlope(), qSlope, 1e-10, what);
        }
      }
    }
  }

  private static double mean(DoubleUnaryOperator f, double... kinks) {
    return GaussKronrod.mean(f, kinks);
  }

  private static double square(double x) {
    return x * x;
  }

  @Test
  void reluUnderDksHasTheShiftOfTheOfficialPackage() {
    assertEquals(
        1, new Dks().solve(SignalGraph.chain(50), Activation.RELU).activation().inputShift());
    assertEquals(
        1, new Dks(1.4669).solve(SignalGraph.chain(1), Activation.RELU).activation().inputShift());
    Shaping steep = new Dks(1.467).solve(SignalGraph.chain(1), Activation.RELU);
    assertEquals(-1, steep.activation().inputShift());
    assertConditions(steep, 1);
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 5, 10_000})
  void extremeDepths(int depth) {
    for (Activation activation : List.of(Activation.TANH, Activation.SOFTPLUS)) {
      Shaping dks = new Dks().solve(SignalGraph.chain(depth), activation);
      assertTrue(dks.residual() <= 1e-9, () -> depth + ": " + dks.residual());
      Shaping tat = new Tat().solve(SignalGraph.chain(depth), activation);
      assertTrue(tat.residual() <= 1e-9, () -> depth + ": " + tat.residual());
    }
    if (depth >= 13) {
      assertTrue(
          new Tat().solve(SignalGraph.chain(depth), Activation.LEAKY_RELU).residual() <= 1e-10);
    }
  }

  @Test
  void sigmoidAndTanhGiveTheSameNetworkFunction() {
    for (ShapingMethod method : List.of(new Tat(), new Dks())) {
      SignalGraph graph = ResNets.v2(50, 0.5);
      assertSameFunction(
          method.solve(graph, Activation.TANH), method.solve(graph, Activation.SIGMOID), 1e-9);
    }
  }

  @Property(tries = 25)
  void solutionIsInvariantUnderAffineChangesOfTheActivation(
      @ForAll @IntRange(min = 0, max = 11) int which,
      @ForAll @DoubleRange(min = 0.5, max = 2) double inner,
      @ForAll @DoubleRange(min = -1, max = 1) double shift,
      @ForAll @DoubleRange(min = 0.1, max = 10) double outer,
      @ForAll @DoubleRange(min = -3, max = 3) double offset) {
    Activation phi = SMOOTH.get(which);
    double[] kinks = phi.breakpoints();
    for (int i = 0; i < kinks.length; i++) {
      kinks[i] = (kinks[i] - shift) / inner;
    }
    ActivationFunction changed =
        ActivationFunction.of(
            "changed",
            x -> outer * phi.value(inner * x + shift) + offset,
            x -> outer * inner * phi.derivative(inner * x + shift),
            x -> outer * inner * inner * phi.secondDerivative(inner * x + shift),
            false,
            kinks);
    SignalGraph graph = SignalGraph.chain(30);
    for (ShapingMethod method : List.of(new Tat(), new Dks())) {
      assertSameFunction(method.solve(graph, phi), method.solve(graph, changed), 1e-7);
    }
  }

  private static void assertSameFunction(Shaping one, Shaping other, double tolerance) {
    for (double x = -4; x <= 4; x += 0.25) {
      assertEquals(
          one.activation().value(x),
          other.activation().value(x),
          tolerance,
          () -> one.activation() + " and " + other.activation());
    }
  }

  @Property(tries = 40)
  void conditionsHoldOnRandomGraphs(
      @ForAll long seed,
      @ForAll @IntRange(min = 0, max = 11) int which,
      @ForAll @DoubleRange(min = 0.05, max = 0.6) double tau) {
    RandomGraph random = RandomGraph.of(new Random(seed), 40);
    SignalGraph graph = random.build();
    Activation activation = SMOOTH.get(which);
    Shaping tat = Tat.tau(tau).solve(graph, activation);
    TransformedActivation phi = tat.activation();
    double[] kinks = phi.breakpoints();
    double curvature = mean(z -> square(phi.secondDerivative(z)), kinks);
    assertEquals(tau, graph.maximum(y -> y + curvature, 0), 1e-10);
    assertEquals(1, mean(z -> square(phi.derivative(z)), kinks), 1e-10);
    for (TransformedActivation other : tat.alternatives()) {
      double[] at = other.breakpoints();
      assertEquals(curvature, mean(z -> square(other.secondDerivative(z)), at), 1e-9);
      assertEquals(1, mean(z -> square(other.derivative(z)), at), 1e-9);
    }
    double zeta = 1 + tau;
    if (graph.maximum(y -> largestSlope(activation) * y, 1) < zeta) {
      assertThrows(NoSolutionException.class, () -> new Dks(zeta).solve(graph, activation));
      return;
    }
    Shaping dks = new Dks(zeta).solve(graph, activation);
    TransformedActivation psi = dks.activation();
    double slope = mean(z -> square(psi.derivative(z)), psi.breakpoints());
    assertEquals(zeta, graph.maximum(y -> slope * y, 1), 1e-10);
    assertEquals(0, mean(psi::value, psi.breakpoints()), 1e-10);
  }

  /**
   * The least upper bound of C'(1) under DKS: as the input scale grows, functions that are linear
   * on both sides become leaky rectifiers, which have (1 + a^2) / 2 over the variance (1 + a^2) / 2
   * - (1 - a)^2 / (2 pi) at C(0) = 0. The others go beyond what the tests ask for.
   */
  private static double largestSlope(Activation activation) {
    double slope =
        switch (activation) {
          case SOFTPLUS, ELU -> 0;
          case BENTID -> 1.0 / 3;
          default -> Double.NaN;
        };
    if (Double.isNaN(slope)) {
      return Double.POSITIVE_INFINITY;
    }
    double square = (1 + slope * slope) / 2;
    return square / (square - square(1 - slope) / (2 * Math.PI));
  }

  /** Below the bound there is a solution, above it there is none, and the error says so. */
  @Test
  void theSearchReachesUpToWhatThereIs() {
    for (Activation activation : List.of(Activation.SOFTPLUS, Activation.ELU, Activation.BENTID)) {
      double bound = largestSlope(activation);
      Shaping below = new Dks(0.99 * bound).solve(SignalGraph.chain(1), activation);
      assertConditions(below, 1);
      NoSolutionException none =
          assertThrows(
              NoSolutionException.class,
              () -> new Dks(1.001 * bound).solve(SignalGraph.chain(1), activation));
      assertTrue(none.getMessage().contains("cannot meet Q'(1) = 1"), none.getMessage());
      assertTrue(none.getMessage().contains("it comes no nearer than"), none.getMessage());
    }
  }

  /** Where phi is flat to its last digits, rounding crosses zero too. */
  @Test
  void roundingIsNoSolution() {
    for (double tau : new double[] {0.13, 0.14, 0.16}) {
      for (Activation activation : SMOOTH) {
        assertConditions(Tat.tau(tau).solve(SignalGraph.chain(1), activation), 1);
      }
    }
  }

  @Property(tries = 200)
  void tailoredRectifiersOnRandomGraphs(
      @ForAll long seed, @ForAll @DoubleRange(min = 0.3, max = 0.97) double eta) {
    RandomGraph random = RandomGraph.of(new Random(seed), 14);
    SignalGraph graph = random.build();
    double relu = random.maximumOverAllRegions(new TailoredRectifier(0)::c, 0);
    if (relu >= eta) {
      Shaping s = Tat.eta(eta).solve(graph, Activation.LEAKY_RELU);
      var rectifier = new TailoredRectifier(s.activation().negativeSlope());
      assertEquals(eta, random.maximumOverAllRegions(rectifier::c, 0), 1e-12);
    } else {
      var e =
          assertThrows(
              InfeasibleTargetException.class,
              () -> Tat.eta(eta).solve(graph, Activation.LEAKY_RELU));
      assertEquals(relu, e.attainable(), 1e-13);
    }
  }

  @Test
  void slopeTargetOfQCanBeChosen() {
    Shaping s = new Dks(1.5, 0.99).solve(SignalGraph.chain(30), Activation.SOFTPLUS);
    assertEquals(0.99, s.moments().qSlope(), 1e-10);
    assertConditions(s, 30);
  }

  @Test
  void smoothTatRefusesKinks() {
    for (Activation kinked : List.of(Activation.RELU, Activation.SELU)) {
      var e =
          assertThrows(
              UnsuitableActivationException.class,
              () -> new Tat().solve(SignalGraph.chain(50), kinked));
      assertEquals(kinked.activationName(), e.activation());
      assertTrue(e.getMessage().contains("infinite"), e.getMessage());
    }
  }

  @Test
  void squareHasNoSolution() {
    for (ShapingMethod method : List.of(new Tat(), new Dks())) {
      var e =
          assertThrows(
              NoSolutionException.class,
              () -> method.solve(SignalGraph.chain(50), Activation.SQUARE));
      assertTrue(e.getMessage().contains("Q'(1)"), e.getMessage());
      // The same function without its name: here it is the search that finds nothing.
      ActivationFunction anonymous =
          ActivationFunction.of("anonymous", x -> x * x, x -> 2 * x, x -> 2);
      assertThrows(NoSolutionException.class, () -> method.solve(SignalGraph.chain(50), anonymous));
    }
  }

  /** C'(1) of relu grows like half the square of its shift; of leaky_relu it is bounded. */
  @Test
  void rectifiersSayWhatIsAttainable() {
    SignalGraph one = SignalGraph.chain(1);
    var relu =
        assertThrows(NoSolutionException.class, () -> new Dks(1e6).solve(one, Activation.RELU));
    assertTrue(relu.getMessage().contains("C'(1) reaches 7"), relu.getMessage());
    var leaky =
        assertThrows(
            NoSolutionException.class, () -> new Dks(1e6).solve(one, Activation.LEAKY_RELU));
    assertTrue(leaky.getMessage().contains("cannot meet C(0) = 0"), leaky.getMessage());
    var nearest =
        assertThrows(
            NoSolutionException.class, () -> new Dks(1.4, 3).solve(one, Activation.LEAKY_RELU));
    assertTrue(nearest.getMessage().contains("comes no nearer than"), nearest.getMessage());
  }

  /** {@link QMap#departure} by another quadrature. */
  private static double departure(TransformedActivation phi) {
    double largest = 0;
    for (double q : new double[] {0.5, Math.sqrt(0.5), Math.sqrt(2), 2}) {
      double root = Math.sqrt(q);
      double[] kinks = Arrays.stream(phi.breakpoints()).map(x -> x / root).toArray();
      double mean = mean(z -> square(phi.value(root * z)), kinks);
      largest = Math.max(largest, Math.abs(Math.log(mean / q)));
    }
    return largest;
  }

  /** TAT has solutions of positive and of negative mean; that of the steadier q comes first. */
  @Test
  void alternativesAreListed() {
    for (Activation activation : List.of(Activation.TANH, Activation.SOFTPLUS, Activation.ASINH)) {
      Shaping s = new Tat().solve(SignalGraph.chain(50), activation);
      assertEquals(1, s.alternatives().size());
      TransformedActivation other = s.alternatives().get(0);
      assertTrue(mean(s.activation()::value) * mean(other::value) < 0, other::toString);
      assertTrue(departure(other) >= 4 * departure(s.activation()), other::toString);
    }
  }

  @Test
  void departureOfQ() {
    TransformedActivation treLu = TransformedActivation.rectifier(0.4, Math.sqrt(2 / 1.16));
    assertEquals(0, QMap.departure(treLu), 1e-13); // homogeneous: Q(q) = q
    // E[z^4] = 3, so that z^2 / sqrt(3) has Q(q) = q^2, which is q times 2 at q = 2.
    TransformedActivation square =
        new TransformedActivation(Activation.SQUARE, 1, 0, 1 / Math.sqrt(3), 0, 0);
    assertEquals(4, QMap.at(square, 2), 1e-12);
    assertEquals(Math.log(2), QMap.departure(square), 1e-12);
  }

  /** Sigmoid is tanh between affine maps, so the chosen functions are the same. */
  @Test
  void theChoiceDoesNotChangeUnderAffineMaps() {
    for (ShapingMethod method : List.of(new Tat(), new Dks())) {
      SignalGraph graph = SignalGraph.chain(49);
      TransformedActivation tanh = method.solve(graph, Activation.TANH).activation();
      TransformedActivation sigmoid = method.solve(graph, Activation.SIGMOID).activation();
      for (double z = -4; z <= 4; z += 0.5) {
        assertEquals(tanh.value(z), sigmoid.value(z), 1e-8);
      }
    }
  }

  @Test
  void solutionsByNumber() {
    SignalGraph graph = SignalGraph.chain(49);
    Shaping first = new Tat().solve(graph, Activation.SWISH);
    for (int i = 0; i < first.alternatives().size(); i++) {
      Shaping other = new Solution(new Tat(), i + 2).solve(graph, Activation.SWISH);
      assertEquals(first.alternatives().get(i), other.activation());
      assertEquals(first.alternatives().size(), other.alternatives().size());
      assertEquals(first.activation(), other.alternatives().get(0));
      assertTrue(other.residual() <= 1e-10, () -> "residual " + other.residual());
      assertEquals(Moments.of(other.activation()), other.moments());
    }
    int beyond = first.alternatives().size() + 2;
    NoSolutionException absent =
        assertThrows(
            NoSolutionException.class,
            () -> new Solution(new Tat(), beyond).solve(graph, Activation.SWISH));
    assertTrue(absent.getMessage().contains("4 solutions"), absent.getMessage());
    assertThrows(
        NoSolutionException.class,
        () -> new Solution(new Tat(), 2).solve(graph, Activation.LEAKY_RELU));
    assertThrows(IllegalArgumentException.class, () -> new Solution(new Tat(), 0));
    assertThrows(IllegalArgumentException.class, () -> new Solution(new Solution(new Tat(), 1), 1));
  }

  @Test
  void targetsOutOfRangeAreRefused() {
    assertThrows(IllegalArgumentException.class, () -> Tat.eta(1));
    assertThrows(IllegalArgumentException.class, () -> Tat.eta(0));
    assertThrows(IllegalArgumentException.class, () -> Tat.eta(Double.NaN));
    assertThrows(IllegalArgumentException.class, () -> Tat.tau(0));
    assertThrows(IllegalArgumentException.class, () -> new Dks(1));
    assertThrows(IllegalArgumentException.class, () -> new Dks(1.5, 0));
    assertThrows(IllegalArgumentException.class, () -> new Eoc(-1));
    assertThrows(IllegalArgumentException.class, () -> ShapingMethod.named("he"));
  }

  @Test
  void severalActivationsShareTheLocalTargets() {
    var b = SignalGraph.builder();
    int x = b.input();
    for (int i = 0; i < 30; i++) {
      x = b.activation(x, i % 2 == 0 ? "even" : "odd");
    }
    SignalGraph graph = b.build(x);
    Map<String, Shaping> shaped =
        new Tat().solve(graph, Map.of("even", Activation.TANH, "odd", Activation.SOFTPLUS));
    assertEquals(0.01, shaped.get("even").moments().cCurvature(), 1e-10);
    assertEquals(0.01, shaped.get("odd").moments().cCurvature(), 1e-10);
    assertThrows(
        UnsuitableActivationException.class,
        () ->
            new Tat().solve(graph, Map.of("even", Activation.TANH, "odd", Activation.LEAKY_RELU)));
    assertThrows(
        IllegalArgumentException.class,
        () -> new Dks().solve(graph, Map.of("even", Activation.TANH)));
    assertThrows(
        UnsuitableActivationException.class,
        () -> new Eoc(0.05).solve(graph, Map.of("even", Activation.TANH, "odd", Activation.ERF)));
    // Two keys of one function are one function.
    assertEquals(
        2,
        new Eoc(0.05).solve(graph, Map.of("even", Activation.ERF, "odd", Activation.ERF)).size());
  }

  // Mistakes of the official package.

  /**
   * Its rule to reject input scale times output scale of 2 and more depends on the scale of phi: it
   * refuses every solution for sigmoid, which is tanh up to affine maps.
   */
  @Test
  void noSolutionIsRefusedForTheScaleOfItsActivation() {
    Shaping s = new Dks().solve(SignalGraph.chain(100), Activation.SIGMOID);
    assertTrue(s.activation().inputScale() * s.activation().outputScale() > 2);
    assertConditions(s, 100);
  }

  /** It returns a root that it rejected where it rejected all; here it is an error. */
  @Test
  void whereNoRootIsGoodNoneIsReturned() {
    // exp: every condition holds or fails for all shifts alike, and Q'(1) = 1 for none.
    ActivationFunction exp = ActivationFunction.of("exp", Math::exp, Math::exp, Math::exp);
    for (ShapingMethod method : List.of(new Tat(), new Dks())) {
      assertThrows(NoSolutionException.class, () -> method.solve(SignalGraph.chain(50), exp));
    }
  }

  // Mistakes that ports of it make.

  @Test
  void v1BlocksDoNotGetTheFunctionOfV2() {
    SignalGraph graph = ResNets.v1(50, 0.8);
    double slope = new Tat().solve(graph, Activation.LEAKY_RELU).activation().negativeSlope();
    var rectifier = new TailoredRectifier(slope);
    assertEquals(0.9, ResNets.handWrittenV1(50, 0.8, rectifier::c, 0), 1e-10);
    double mistaken = ResNets.handWrittenV2(50, 0.8, rectifier::c, 0);
    assertTrue(Math.abs(mistaken - 0.9) > 0.01, "V2's function gives " + mistaken);
  }

  @Test
  void thereIsNotOneCompositionTooMany() {
    // An activation after the last of the chain, or before the first, would give L = 50.
    SignalGraph graph = ResNets.v2(50, 0);
    double slope = new Tat().solve(graph, Activation.LEAKY_RELU).activation().negativeSlope();
    assertEquals(49, graph.activations());
    assertEquals(0.4259071946, slope, 1e-10);
    double tooMany =
        new Tat().solve(SignalGraph.chain(50), Activation.LEAKY_RELU).activation().negativeSlope();
    assertTrue(Math.abs(tooMany - slope) > 1e-3);
  }

  @Test
  void theMaximumIsOverSubnetworks() {
    // Short of depth and heavy of shortcut: a branch alone maps 0 further than the network does.
    var b = SignalGraph.builder();
    int x = b.input();
    for (int i = 0; i < 2; i++) {
      int branch = x;
      for (int j = 0; j < 20; j++) {
        branch = b.activation(branch);
      }
      x = b.sum(new double[] {0.8, 0.6}, x, branch);
    }
    SignalGraph graph = b.build(x);
    Shaping s = new Tat().solve(graph, Activation.LEAKY_RELU);
    var rectifier = new TailoredRectifier(s.activation().negativeSlope());
    assertTrue(graph.output(rectifier::c, 0) < 0.8);
    assertEquals(0.9, ResNets.branch(rectifier::c, 0, 20), 1e-12);
  }
}
