package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Networks.Block;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.Tat;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class NetworkJsonTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  static Stream<Network> networks() {
    List<Network> all = new ArrayList<>();
    for (String name :
        List.of(
            "plain50",
            "plain:30:8",
            "resnet18",
            "resnet34",
            "resnet50",
            "resnet101",
            "resnet152",
            "resnet200")) {
      for (Block block : Block.values()) {
        for (double w : new double[] {0, 0.8, Math.sqrt(0.3)}) {
          Networks.Options options = new Networks.Options(name, block, w, 0.1f);
          for (int size : new int[] {33, 224}) {
            all.add(Networks.build(options, new Extent(size, size - 1, 3), 10));
          }
        }
      }
    }
    ProgramTest.cases().forEach(all::add);
    OutputsTest.networks().forEach(all::add);
    Network plain = Networks.build(Networks.Options.of("plain50"), new Extent(28, 28, 2), 10);
    all.add(plain.shape(new Tat()));
    all.add(plain.with(Activation.TANH).shape(new Eoc(0.05)));
    all.add(plain.with(TransformedActivation.unchanged(Activation.SELU), Math.PI, Math.E / 7));
    Network.Builder b = Network.builder("everything of a convolution", 19, 23, 6);
    b.convolution(
        "conv", 0, new Conv2dDescriptor(1, 19, 23, 6, 4, 5, 3, 2, 3, 1, 2, 3, 4, 2, 5, 2));
    all.add(b.build());
    return all.stream();
  }

  private static void assertSame(Network expected, Network actual) {
    assertEquals(expected.name(), actual.name());
    assertEquals(expected.layers(), actual.layers());
    assertEquals(expected.outputs(), actual.outputs());
    assertEquals(expected.parameters(), actual.parameters());
    assertEquals(expected.weightScale(), actual.weightScale());
    assertEquals(expected.biasDeviation(), actual.biasDeviation());
  }

  @ParameterizedTest
  @MethodSource("networks")
  void whatWasWrittenIsReadBackEqual(Network network) throws JsonProcessingException {
    ObjectNode json = NetworkJson.write(network);
    assertSame(network, NetworkJson.read(json));
    assertSame(network, NetworkJson.read(JSON.readTree(json.toString())));
  }

  /** A file that was not written by this class, field by field. */
  @Test
  void readsTheDocumentedForm() throws JsonProcessingException {
    String text =
        """
        {"format": "jtrelu-network-1", "name": "small", "layers": [
          {"name": "image", "kind": "input",
           "attributes": {"height": 9, "width": 7, "channels": 3}},
          {"name": "conv", "kind": "convolution", "sources": ["image"], "attributes": {
            "channels": 6, "kernel": [3, 5], "stride": [2, 1], "padding": [1, 0, 2, 3],
            "dilation": [1, 2], "groups": 3}},
          {"name": "phi", "kind": "activation", "sources": ["conv"], "attributes": {
            "function": "gelu", "inputScale": 0.25, "inputShift": -1, "outputScale": 1.5,
            "outputShift": 0.125, "negativeSlope": 0}},
          {"name": "pool", "kind": "max-pooling", "sources": ["phi"], "attributes": {
            "kernel": 2, "stride": 2, "padding": [0, 1]}},
          {"name": "mean", "kind": "global-mean-pooling", "sources": ["pool"], "attributes": {}},
          {"name": "drop", "kind": "dropout", "sources": ["mean"], "attributes": {"rate": 0.5}}],
         "outputs": ["drop", "phi"], "weightScale": 2, "biasDeviation": 0.5}
        """;
    Network network = NetworkJson.read(JSON.readTree(text));
    Conv2dDescriptor conv = new Conv2dDescriptor(1, 9, 7, 3, 6, 3, 5, 2, 1, 1, 0, 2, 3, 1, 2, 3);
    TransformedActivation phi = new TransformedActivation(Activation.GELU, 0.25, -1, 1.5, 0.125, 0);
    assertEquals("small", network.name());
    assertEquals(new InputLayer("image", new Extent(9, 7, 3)), network.layers().get(0));
    assertEquals(new ConvolutionLayer("conv", 0, conv), network.layers().get(1));
    assertEquals(new ActivationLayer("phi", 1, phi, new Extent(5, 2, 6)), network.layers().get(2));
    assertEquals(new Extent(3, 1, 6), network.layers().get(3).extent());
    assertEquals(
        new DropoutLayer("drop", 4, 0.5f, new Extent(1, 1, 6)), network.layers().getLast());
    assertEquals(List.of(5, 2), network.outputs());
    assertEquals(2, network.weightScale());
    assertEquals(0.5, network.biasDeviation());
  }

  @Test
  void functionsOfTheCallerAreFoundByName() {
    ActivationFunction sine = ActivationFunction.derived("sine", x -> x.sin());
    ActivationFunction cube = ActivationFunction.derived("cube", x -> x.pow(3));
    Network network =
        OutputsTest.inner()
            .with(
                f -> f.function().equals(Activation.LEAKY_RELU) ? shaped(sine) : shaped(cube),
                1,
                0);
    ObjectNode json = NetworkJson.write(network);
    assertSame(network, NetworkJson.read(json, List.of(cube, sine)));
    var unknown =
        assertThrows(NetworkFormatException.class, () -> NetworkJson.read(json, List.of(cube)));
    assertTrue(
        unknown.getMessage().startsWith("layers[2] (act): there is no activation function 'sine'"),
        unknown.getMessage());
    assertThrows(IllegalArgumentException.class, () -> NetworkJson.read(json, List.of(sine, sine)));
    Network misnamed = OutputsTest.inner().with(ActivationFunction.derived("gelu", x -> x.sin()));
    assertThrows(IllegalArgumentException.class, () -> NetworkJson.write(misnamed));
  }

  private static TransformedActivation shaped(ActivationFunction function) {
    return new TransformedActivation(function, 0.1, 0.2, 0.3, 0.4, 0);
  }

  /** A path into the JSON of {@link OutputsTest#inner}, what is put there, and the complaint. */
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "/format | \"jtrelu-network-2\" | format: expected \"jtrelu-network-1\"",
        "/format | 1 | format: expected a string, found 1",
        "/name | | name: expected a string, found nothing",
        "/extra | 1 | network: unknown field 'extra'",
        "/layers | {} | layers: expected an array, found {}",
        "/layers | [] | layers: expected an input and what follows",
        "/layers/0/kind | \"dropout\" | layers[0] (input): a network has one input",
        "/layers/3/kind | \"input\" | layers[3] (branch): a network has one input",
        "/layers/3/kind | \"lstm\" | layers[3] (branch): unknown kind 'lstm'; known are input,",
        "/layers/3/name | 7 | layers[3].name: expected a string, found 7",
        "/layers/3/name | \"act\" | layers[3] (act): two layers are named act",
        "/layers/3/sources | | layers[3] (branch): expected 1 sources or more, found 0",
        "/layers/3/sources | [\"act\", \"before\"] | layers[3] (branch): expected 1 sources, found 2",
        "/layers/3/sources/0 | \"sum\" | layers[3] (branch): sources[0]: there is no layer 'sum'",
        "/layers/3/note | \"\" | layers[3] (branch): unknown field 'note'",
        "/layers/3/attributes | | layers[3] (branch): attributes: expected an object, found nothing",
        "/layers/3/attributes/groups | | layers[3] (branch): the attribute 'groups' is missing",
        "/layers/3/attributes/groups | 3 | layers[3] (branch): convolution: channels must divide",
        "/layers/3/attributes/groups | 1.5 | layers[3] (branch): groups: expected an integer",
        "/layers/3/attributes/group | 1 | layers[3] (branch): unknown attribute 'group'; known are",
        "/layers/3/attributes/channels | 5 | layers[4] (sum): shortcut 6x6x4 and branch 6x6x5",
        "/layers/3/attributes/channels | 99999999999 | layers[3] (branch): channels: expected an int",
        "/layers/3/attributes/kernel | [3] | layers[3] (branch): kernel: expected an array of 2",
        "/layers/3/attributes/kernel/1 | 0 | layers[3] (branch): convolution: kernel must be",
        "/layers/3/attributes/kernel/1 | \"3\" | layers[3] (branch): kernel[1]: expected an integer",
        "/layers/2/attributes/inputScale | \"1\" | layers[2] (act): inputScale: expected a finite",
        "/layers/2/attributes/function | \"lu\" | layers[2] (act): there is no activation function",
        "/layers/4/attributes/shortcutWeight | 1 | layers[4] (sum): the shortcut weight",
        "/layers/6/attributes/kernel | 16 | layers[6] (pool): max-pool",
        "/layers/8/attributes/rate | 1 | layers[8] (dropped): the dropout rate",
        "/layers/0/attributes/height | 0 | layers[0] (input): its result of 0x6x3",
        "/outputs | | outputs: expected an array, found nothing",
        "/outputs | [] | network: a network needs an output",
        "/outputs/0 | \"nowhere\" | outputs[0]: there is no layer 'nowhere'",
        "/outputs/0 | \"before\" | network: layer before is named twice",
        "/outputs | [\"before\"] | network: nothing reads layer logits",
        "/weightScale | 0 | network: the scale of the weights must be positive",
        "/biasDeviation | \"0\" | biasDeviation: expected a number, found \"0\"",
      })
  void saysWhatIsWrongAndWhere(String path, String value, String complaint)
      throws JsonProcessingException {
    JsonNode json = NetworkJson.write(OutputsTest.inner());
    NetworkJson.read(json); // right before the change
    put(json, path, value == null ? null : JSON.readTree(value));
    var error = assertThrows(NetworkFormatException.class, () -> NetworkJson.read(json));
    assertTrue(error.getMessage().contains(complaint), error.getMessage());
  }

  private static void put(JsonNode json, String path, JsonNode value) {
    int last = path.lastIndexOf('/');
    JsonNode parent = json.at(path.substring(0, last));
    String field = path.substring(last + 1);
    if (parent instanceof ArrayNode array) {
      array.set(Integer.parseInt(field), value);
    } else if (value == null) {
      ((ObjectNode) parent).remove(field);
    } else {
      ((ObjectNode) parent).set(field, value);
    }
  }

  @Test
  void readsObjectsOnly() {
    for (JsonNode node :
        List.of(JSON.nullNode(), JSON.createArrayNode(), JsonNodeFactory.instance.textNode("x"))) {
      assertThrows(NetworkFormatException.class, () -> NetworkJson.read(node));
    }
  }

  /** Whatever a file holds, the answer is a network or the one exception. */
  @Test
  void survivesDamage() {
    SplittableRandom random = new SplittableRandom(1);
    List<JsonNode> junk =
        List.of(
            JSON.nullNode(),
            JSON.createArrayNode(),
            JSON.createObjectNode(),
            JsonNodeFactory.instance.textNode("act"),
            JsonNodeFactory.instance.numberNode(-1),
            JsonNodeFactory.instance.numberNode(Integer.MAX_VALUE),
            JsonNodeFactory.instance.numberNode(Long.MIN_VALUE),
            JsonNodeFactory.instance.numberNode(Double.NaN),
            JsonNodeFactory.instance.numberNode(1e300),
            JsonNodeFactory.instance.booleanNode(true));
    int refused = 0;
    for (int trial = 0; trial < 4000; trial++) {
      JsonNode json = NetworkJson.write(OutputsTest.inner());
      for (int change = random.nextInt(1, 3); change > 0; change--) {
        JsonNode at = json;
        while (true) {
          List<String> fields = new ArrayList<>();
          at.fieldNames().forEachRemaining(fields::add);
          int size = at.size();
          if (size == 0) {
            break;
          }
          int pick = random.nextInt(size);
          JsonNode child = at.isArray() ? at.get(pick) : at.get(fields.get(pick));
          if (child.isEmpty() || random.nextInt(3) == 0) {
            JsonNode other = junk.get(random.nextInt(junk.size()));
            if (at instanceof ArrayNode array) {
              array.set(pick, other);
            } else {
              put(at, "/" + fields.get(pick), random.nextInt(5) == 0 ? null : other);
            }
            break;
          }
          at = child;
        }
      }
      try {
        NetworkJson.read(json);
      } catch (NetworkFormatException expected) {
        refused++;
      }
    }
    assertTrue(refused > 3000, "refused " + refused);
  }
}
