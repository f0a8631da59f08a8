package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.activation.Activation;
import io.jtrelu.shaping.ShapingMethod;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import javax.xml.parsers.DocumentBuilderFactory;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.DoubleRange;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.xml.sax.InputSource;

class ShapeCommandTest {
  private record Result(int exitCode, String out, String err) {
    JsonNode json() throws IOException {
      assertEquals(0, exitCode, err);
      return new ObjectMapper().readTree(out);
    }
  }

  private static Result run(String arguments) {
    StringWriter out = new StringWriter();
    StringWriter err = new StringWriter();
    Console console = new Console(new PrintWriter(out), new PrintWriter(err), false);
    int exitCode = Main.run(console, ("shape " + arguments).strip().split(" +"));
    return new Result(exitCode, out.toString(), err.toString());
  }

  /** Published values, cut off after ten digits; plain50 is a chain of 49 activations. */
  @ParameterizedTest
  @CsvSource({
    "'--network plain:49', 49, 0.4259071946, 1.3011191752, 0.9",
    "'', 49, 0.4259071946, 1.3011191752, 0.9",
    "'--network resnet50', 49, 0.4259071946, 1.3011191752, 0.9",
    "'--network plain:100 --eta 0.9', 100, 0.5704395311, , 0.9",
    "'--network resnet101 --block v2 --shortcut-weight 0.6 --eta 0.75', 100, 0.6291800297, , 0.75"
  })
  void publishedSlopes(String arguments, int count, double slope, Double scale, double eta)
      throws IOException {
    JsonNode json = run(arguments + " --json").json();
    assertEquals("tat", json.get("method").asText());
    assertEquals("leaky_relu", json.get("activation").asText());
    assertEquals(count, json.get("activations").asInt());
    assertEquals(slope, json.get("negative_slope").asDouble(), 1e-10);
    if (scale != null) {
      assertEquals(scale, json.get("output_scale").asDouble(), 1e-10);
    }
    assertEquals(eta, json.get("achieved").asDouble(), 1e-10);
    assertTrue(json.get("residual").asDouble() <= 1e-10);
    assertTrue(json.get("c_curvature").isNull(), "C''(1) of a kinked activation is infinite");
  }

  @Test
  void edgeOfChaosOfTanh() throws IOException {
    JsonNode json = run("--method eoc --activation tanh --sigma-b2 0.05 --json").json();
    assertEquals(1.7609546396, json.get("sigma_w2").asDouble(), 1e-10);
    assertEquals(0.5700478816, json.get("q_star").asDouble(), 1e-10);
    assertEquals(0.05, json.get("sigma_b2").asDouble());
    assertEquals(1, json.get("chi_1").asDouble(), 1e-10);
    assertTrue(json.get("depth_scale").isNull(), "infinite at the edge");
  }

  /** E[phi_hat^2] and the other conditions by a sum over many points, apart from the solver. */
  @ParameterizedTest
  @CsvSource({
    "tat, tanh, 1, 1, NaN, 1",
    "tat, softplus, 1, 1, NaN, 1",
    "dks, tanh, 1, 1, 0, NaN",
    "dks, swish, 1, 1, 0, NaN"
  })
  void printedParametersMeetTheConditions(
      String method, String activation, double q, double qSlope, double c0, double cSlope)
      throws IOException {
    JsonNode json =
        run("--network resnet50 --shortcut-weight 0.8 --json --method "
                + method
                + " --activation "
                + activation)
            .json();
    double a = json.get("input_scale").asDouble();
    double b = json.get("input_shift").asDouble();
    double d = json.get("output_shift").asDouble();
    double g = json.get("output_scale").asDouble();
    Activation phi = Activation.named(activation);
    double[] sums = new double[4];
    double step = 1e-3;
    for (double z = -12; z <= 12; z += step) {
      double weight = step * Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
      double value = g * (phi.value(a * z + b) + d);
      double slope = g * a * phi.derivative(a * z + b);
      sums[0] += weight * value * value;
      sums[1] += weight * value * slope * z;
      sums[2] += weight * value;
      sums[3] += weight * slope * slope;
    }
    assertEquals(q, sums[0], 1e-9);
    assertEquals(qSlope, sums[1], 1e-9);
    assertEquals(json.get("q").asDouble(), sums[0], 1e-9);
    assertEquals(json.get("q_slope").asDouble(), sums[1], 1e-9);
    assertEquals(json.get("c0").asDouble(), sums[2] * sums[2] / sums[0], 1e-9);
    assertEquals(json.get("c_slope").asDouble(), sums[3] / sums[0], 1e-9);
    if (!Double.isNaN(c0)) {
      assertEquals(c0, sums[2] * sums[2], 1e-9);
    }
    if (!Double.isNaN(cSlope)) {
      assertEquals(cSlope, sums[3], 1e-9);
    }
    assertTrue(json.get("negative_slope").isNull());
  }

  @Test
  void veryDeepChainsWork() throws IOException {
    JsonNode json = run("--network plain:10000 --json").json();
    assertEquals(10_000, json.get("activations").asInt());
    // M by the closed form of C, layer by layer.
    double a = json.get("negative_slope").asDouble();
    double k = (1 - a) * (1 - a) / (Math.PI * (1 + a * a));
    double c = 0;
    for (int layer = 0; layer < 10_000; layer++) {
      c += k * (Math.sqrt(1 - c * c) - c * Math.acos(c));
    }
    assertEquals(0.9, c, 1e-9);
  }

  @Property(tries = 30)
  void anyReachableTargetOfAChainIsReached(
      @ForAll @IntRange(min = 20, max = 300) int length,
      @ForAll @DoubleRange(min = 0.05, max = 0.93) double eta)
      throws IOException {
    JsonNode json = run("--network plain:" + length + " --eta " + eta + " --json").json();
    double a = json.get("negative_slope").asDouble();
    double k = (1 - a) * (1 - a) / (Math.PI * (1 + a * a));
    double c = 0;
    for (int layer = 0; layer < length; layer++) {
      c += k * (Math.sqrt(1 - c * c) - c * Math.acos(c));
    }
    assertEquals(eta, c, 1e-9);
  }

  @Test
  void anUnreachableTargetSaysWhatIsReachable() {
    Result chain = run("--network plain:12");
    assertEquals(1, chain.exitCode());
    assertTrue(chain.err().contains("0.8971") && chain.err().contains(" 13 "), chain.err());
    Result residual = run("--network resnet50 --shortcut-weight 0.9 --json");
    assertEquals(1, residual.exitCode());
    assertTrue(residual.err().contains("0.88786"), residual.err());
    assertEquals("", residual.out());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "--network plian50 | did you mean 'plain50'",
        "--network resnet51 | did you mean 'resnet50'",
        "--network plain:0 | between 1 and",
        "--network plain:99999999999 | between 1 and",
        "--method tta | did you mean 'tat'",
        "--activation leakyrelu | did you mean 'leaky_relu'",
        "--eta 1 | strictly between 0 and 1",
        "--eta NaN | strictly between 0 and 1",
        "--tau 0 --activation tanh | positive",
        "--method dks --zeta 1 --activation tanh | above 1",
        "--method dks --q-slope -1 --activation tanh | positive",
        "--method eoc --sigma-b2 -1 --activation tanh | not negative",
        "--shortcut-weight 1 --network resnet50 | [0, 1)",
        "--shortcut-weight 0.5 | plain chain",
        "--block v3 | v3",
        "--eta lots | lots"
      })
  void wrongUsageEndsWith2(String arguments, String hint) {
    Result result = run(arguments);
    assertEquals(2, result.exitCode(), result.err());
    assertTrue(result.err().contains(hint), result.err());
    assertEquals("", result.out());
  }

  @Test
  void unsuitableActivationsAreExplained() {
    Result kink = run("--activation relu");
    assertEquals(1, kink.exitCode());
    assertTrue(kink.err().contains("C''(1) is infinite"), kink.err());
    Result normalised = run("--network bnresnet50");
    assertEquals(1, normalised.exitCode());
    assertTrue(normalised.err().contains("is a batch normalisation"), normalised.err());
  }

  @Test
  void anOptionOfAnotherMethodIsNoted() {
    Result result = run("--method none --eta 0.8");
    assertEquals(0, result.exitCode());
    assertEquals("note: --eta has no effect on none with leaky_relu\n", result.err());
  }

  @Test
  void theListNamesEverything() throws IOException {
    JsonNode json = run("--list --json").json();
    assertEquals(ShapingMethod.names(), json.get("methods").findValuesAsText("name"));
    assertEquals(Activation.names(), json.get("activations").findValuesAsText("name"));
    String text = run("--list").out();
    for (String name : List.of("dks", "gelu_exact", "resnet200")) {
      assertTrue(text.contains(name), text);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"tat", "dks", "eoc", "none"})
  void thePlainTextHasTheSameFigures(String method) throws IOException {
    String options = "--network plain:60 --activation tanh --method " + method;
    JsonNode json = run(options + " --json").json();
    String text = run(options).out();
    for (String name : List.of("input_scale", "output_scale", "achieved", "fourth_moment")) {
      String figure = String.format(Locale.ROOT, "%.10g", json.get(name).asDouble());
      assertTrue(text.contains(figure), name + " " + figure + " in " + text);
    }
  }

  @Test
  void thePlotIsDrawn(@TempDir Path folder) throws Exception {
    for (String method : List.of("tat", "dks", "eoc", "none")) {
      // eoc without biases has q* = 0 and no cosine; it must still draw.
      Path file = folder.resolve(method + ".svg");
      Result result =
          run("--network plain:60 --activation tanh --method " + method + " --plot " + file);
      assertEquals(0, result.exitCode(), result.err());
      String svg = Files.readString(file);
      DocumentBuilderFactory.newInstance()
          .newDocumentBuilder()
          .parse(new InputSource(new StringReader(svg)));
      for (String part : List.of("C maps", "c through depth", "Activation", "from 0.50")) {
        assertTrue(svg.contains(">" + part + "<"), part);
      }
      assertFalse(svg.contains("NaN") || svg.contains("Infinity"), method);
    }
    Result unwritable = run("--plot " + folder.resolve("no/such/folder.svg"));
    assertEquals(1, unwritable.exitCode());
    assertTrue(unwritable.err().contains("cannot write"), unwritable.err());
  }

  @Test
  void verifyMeasuresEveryActivation() throws IOException {
    JsonNode json =
        run("--network plain:16:16 --verify --networks 4 --device reference --json").json();
    JsonNode check = json.get("verify");
    assertTrue(check.get("passed").asBoolean());
    assertEquals(4, check.get("networks").asInt());
    assertEquals(16, check.get("layers").size());
    JsonNode last = check.get("layers").get(15);
    assertEquals(1, last.get("q").get("predicted").asDouble(), 1e-9);
    assertEquals(0, last.get("c").get(0).get("from").asDouble(), 1e-12);
    // The whole network's C(0) is what TAT has set.
    assertEquals(0.9, last.get("c").get(0).get("predicted").asDouble(), 1e-9);
    Result text = run("--network plain:16:16 --verify --networks 2 --device reference");
    assertEquals(0, text.exitCode(), text.err());
    assertTrue(text.out().contains("Passed: "), text.out());
  }

  @Test
  void verifyFailsWhereTheTheoryDoesNotHold() {
    Result v1 = run("--network resnet18 --block v1 --shortcut-weight 0.5 --verify --networks 2");
    assertEquals(1, v1.exitCode(), v1.err());
    assertTrue(v1.out().contains("THEORY") && v1.out().contains("FAILED"), v1.out());
    assertEquals(2, run("--verify --networks 1").exitCode());
    assertEquals(2, run("--verify --network plain:5000").exitCode());
    assertEquals(2, run("--verify --device gpu9").exitCode());
  }

  @Test
  void regionsAreListed() throws IOException {
    JsonNode regions =
        run("--network resnet50 --shortcut-weight 0.8 --regions --json").json().get("regions");
    assertTrue(regions.size() > 1);
    assertEquals(49, regions.get(regions.size() - 1).get("activations").asInt());
    assertTrue(run("--regions").out().contains("49 activations"));
  }
}
