package io.jtrelu.activation;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.hipparchus.analysis.differentiation.UnivariateDerivative2;
import org.hipparchus.special.Erf;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class ActivationTest {
  private static final double[] EXTREMES = {
    0,
    -0.0,
    Double.MIN_VALUE,
    -Double.MIN_VALUE,
    1e-300,
    -1e-300,
    1e-160,
    -1e-160,
    1e-17,
    -1e-17,
    29.9,
    -29.9,
    30.1,
    -30.1,
    38,
    -38,
    41,
    -41,
    709,
    -709,
    750,
    -750,
    1e5,
    -1e5,
    1e9,
    -1e9,
    1e77,
    -1e77,
    1e155,
    -1e155,
    1e308,
    -1e308
  };

  /** Definitions written down naively, differentiated automatically. */
  private static final Map<Activation, UnaryOperator<UnivariateDerivative2>> DEFINITIONS =
      Map.ofEntries(
          Map.entry(Activation.TANH, x -> x.tanh()),
          Map.entry(Activation.SOFTPLUS, x -> x.exp().add(1).log()),
          Map.entry(Activation.SWISH, x -> x.divide(x.negate().exp().add(1))),
          Map.entry(Activation.SIGMOID, x -> x.negate().exp().add(1).reciprocal()),
          Map.entry(
              Activation.BENTID, x -> x.multiply(x).add(1).sqrt().subtract(1).divide(2).add(x)),
          Map.entry(Activation.ATAN, x -> x.atan()),
          Map.entry(Activation.ASINH, x -> x.asinh()),
          Map.entry(Activation.SQUARE, x -> x.multiply(x)),
          Map.entry(Activation.SOFTSIGN, x -> x.divide(x.abs().add(1))),
          Map.entry(Activation.ELU, x -> x.getValue() >= 0 ? x : x.expm1()),
          Map.entry(
              Activation.SELU,
              x ->
                  (x.getValue() >= 0 ? x : x.expm1().multiply(1.6732632423543772))
                      .multiply(1.0507009873554805)),
          Map.entry(Activation.ERF, x -> erf(x)),
          Map.entry(
              Activation.GELU_EXACT, x -> x.multiply(erf(x.divide(Math.sqrt(2))).add(1)).divide(2)),
          Map.entry(
              Activation.GELU,
              x ->
                  x.pow(3)
                      .multiply(0.044715)
                      .add(x)
                      .multiply(Math.sqrt(2 / Math.PI))
                      .tanh()
                      .add(1)
                      .multiply(x)
                      .divide(2)));

  private static UnivariateDerivative2 erf(UnivariateDerivative2 x) {
    double v = x.getValue();
    double slope = 2 / Math.sqrt(Math.PI) * Math.exp(-v * v);
    return x.compose(Erf.erf(v), slope, -2 * v * slope);
  }

  @Test
  void namesAreThoseOfTheOfficialPackage() {
    assertEquals(
        List.of(
            "tanh",
            "softplus",
            "leaky_relu",
            "relu",
            "selu",
            "elu",
            "swish",
            "sigmoid",
            "erf",
            "bentid",
            "atan",
            "asinh",
            "square",
            "softsign",
            "gelu",
            "gelu_exact"),
        Activation.names());
    for (Activation activation : Activation.values()) {
      assertEquals(activation, Activation.named(activation.activationName()));
    }
    var e = assertThrows(IllegalArgumentException.class, () -> Activation.named("mish"));
    assertTrue(e.getMessage().contains("softsign"), e.getMessage());
  }

  @ParameterizedTest
  @EnumSource(
      value = Activation.class,
      mode = EnumSource.Mode.EXCLUDE,
      names = {"RELU", "LEAKY_RELU"})
  void valuesAndDerivativesAreThoseOfTheDefinition(Activation activation) {
    var definition = DEFINITIONS.get(activation);
    double[] jet = new double[3];
    for (double x = -8.03; x < 8; x += 0.17) {
      var expected = definition.apply(new UnivariateDerivative2(x, 1, 0));
      // The naive definitions themselves cancel for large |x|.
      double tolerance = 2e-14 * Math.max(1, Math.abs(x));
      String at = activation + " at " + x;
      assertEquals(expected.getValue(), activation.value(x), tolerance, at);
      assertEquals(expected.getFirstDerivative(), activation.derivative(x), tolerance, at);
      assertEquals(
          expected.getSecondDerivative(), activation.secondDerivative(x), 3 * tolerance, at);
      activation.evaluate(x, jet);
      assertEquals(activation.value(x), jet[0], 1e-15 * Math.abs(jet[0]), at);
      assertEquals(activation.derivative(x), jet[1], 1e-14, at);
      assertEquals(activation.secondDerivative(x), jet[2], 1e-14, at);
    }
  }

  @Test
  void rectifiers() {
    assertEquals(3, Activation.RELU.value(3));
    assertEquals(0, Activation.RELU.value(-3));
    assertEquals(-0.03, Activation.LEAKY_RELU.value(-3));
    assertEquals(1, Activation.LEAKY_RELU.derivative(3));
    assertEquals(0.01, Activation.LEAKY_RELU.derivative(-3));
  }

  @ParameterizedTest
  @EnumSource(Activation.class)
  void nothingOverflowsOrIsUndefined(Activation activation) {
    double[] jet = new double[3];
    for (double x : EXTREMES) {
      String at = activation + " at " + x;
      if (activation == Activation.SQUARE && Math.abs(x) > 1e154) {
        assertEquals(Double.POSITIVE_INFINITY, activation.value(x), at);
        assertEquals(2 * x, activation.derivative(x), at);
      } else {
        assertTrue(Double.isFinite(activation.value(x)), at);
        assertTrue(Double.isFinite(activation.derivative(x)), at);
      }
      assertTrue(Double.isFinite(activation.secondDerivative(x)), at);
      activation.evaluate(x, jet);
      assertEquals(activation.value(x), jet[0], Math.abs(1e-14 * jet[0]), at);
    }
  }

  @ParameterizedTest
  @ValueSource(doubles = {1e-300, 1e-160, 1e-17, 1e-9, 1e-5})
  void smallArgumentsKeepTheirDigits(double x) {
    for (Activation odd :
        List.of(Activation.TANH, Activation.ATAN, Activation.ASINH, Activation.SOFTSIGN)) {
      for (double signed : new double[] {x, -x}) {
        double expected = odd == Activation.SOFTSIGN ? signed / (1 + x) : signed;
        assertEquals(expected, odd.value(signed), 1e-10 * x, odd.toString());
      }
    }
    assertEquals(x + x * x / 4, Activation.BENTID.value(x), 1e-15 * x);
    assertEquals(-x + x * x / 2, Activation.ELU.value(-x), 1e-15 * x + x * x * x);
    assertEquals(2 / Math.sqrt(Math.PI) * x, Activation.ERF.value(x), 1e-10 * x);
    assertEquals(-2 * x, Activation.TANH.secondDerivative(x), 1e-9 * x);
    assertEquals(-x / 8, Activation.SIGMOID.secondDerivative(x), 1e-9 * x);
  }

  @Test
  void tailsKeepTheirDigits() {
    assertEquals(4 * Math.exp(-80), Activation.TANH.derivative(40), 1e-14 * Math.exp(-80));
    assertEquals(Math.exp(-700), Activation.SOFTPLUS.value(-700), 1e-14 * Math.exp(-700));
    assertEquals(-700 * Math.exp(-700), Activation.SWISH.value(-700), 1e-12 * Math.exp(-700));
    assertEquals(Math.log(2) + 308 * Math.log(10), Activation.ASINH.value(1e308), 1e-10);
    assertEquals(1.5e308, Activation.BENTID.value(1e308), 1e294);
    assertEquals(-5e307, Activation.BENTID.value(-1e308), 1e294);
    // erfc from the literature: erfc(2), erfc(5), erfc(10).
    assertEquals(4.677734981047266e-3, ErrorFunction.erfc(2), 2e-18);
    assertEquals(1.537459794428035e-12, ErrorFunction.erfc(5), 5e-27);
    assertEquals(2.088487583762545e-45, ErrorFunction.erfc(10), 8e-60);
    // At and about the ends of its three approximations, computed with 30 digits.
    double[][] values = {
      {0.1, 0.887537083981715},
      {0.46875, 0.507386526782062},
      {0.5, 0.4795001221869535},
      {3.9, 3.4792248597231765e-08},
      {4, 1.541725790028002e-08},
      {4.1, 6.700027654084918e-09},
      {20, 5.395865611607901e-176},
      {26, 5.663192408856143e-296}
    };
    for (double[] pair : values) {
      assertEquals(pair[1], ErrorFunction.erfc(pair[0]), 1e-15 * pair[1], "erfc " + pair[0]);
    }
    assertEquals(0.1124629160182849, ErrorFunction.erf(0.1), 5e-17);
    assertEquals(0.49261347321793797, ErrorFunction.erf(0.46875), 2e-16);
  }

  @Test
  void errorFunctionAgreesWithAnotherImplementation() {
    for (double x = -6; x <= 26; x += 0.0173) {
      double erfc = Erf.erfc(x);
      if (x < 5) {
        assertEquals(erfc, ErrorFunction.erfc(x), 2e-14 * erfc, "at " + x);
      }
      assertEquals(Erf.erf(x), ErrorFunction.erf(x), 1e-15, "at " + x);
    }
  }

  @Test
  void kinksAreDeclared() {
    for (Activation activation : Activation.values()) {
      double jump = activation.derivative(1e-12) - activation.derivative(-1e-12);
      assertEquals(Math.abs(jump) > 1e-3, activation.isKinked(), activation.toString());
      double bend = activation.secondDerivative(1e-12) - activation.secondDerivative(-1e-12);
      boolean rough = Math.abs(jump) > 1e-3 || Math.abs(bend) > 1e-3;
      assertEquals(rough ? 1 : 0, activation.breakpoints().length, activation.toString());
    }
  }

  @Test
  void customFunctionsByAutomaticDifferentiation() {
    ActivationFunction sine = ActivationFunction.derived("sine", x -> x.sin());
    assertEquals("sine", sine.activationName());
    assertEquals(Math.sin(0.3), sine.value(0.3), 1e-15);
    assertEquals(Math.cos(0.3), sine.derivative(0.3), 1e-15);
    assertEquals(-Math.sin(0.3), sine.secondDerivative(0.3), 1e-15);
    assertFalse(sine.isKinked());
  }
}
