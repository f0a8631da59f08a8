package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Networks.Block;
import io.jtrelu.nn.Networks.Options;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class NetworksTest {
  private static final Extent IMAGENET = new Extent(224, 224, 4);

  @ParameterizedTest
  @CsvSource({
    "resnet18, 17", "resnet34, 33", "resnet50, 49", "resnet101, 100", "resnet152, 151",
    "resnet200, 199", "plain50, 49", "plain:7, 7", "plain:100:16, 100", "plain:1, 1"
  })
  void hasTheDepthOfItsName(String name, int activations) {
    for (Block block : Block.values()) {
      Options options = new Options(name, block, 0, 0);
      assertEquals(activations, Networks.build(options, IMAGENET, 1000).depth());
    }
  }

  @Test
  void resnet50HasThePublishedParametersLessNormalisation() {
    // torchvision's ResNet-50 has 25,557,032 parameters, of which 53,120 are batch-norm scales and
    // shifts, and no convolution biases (26,560 here); its stem reads 3 channels.
    Options options = new Options("resnet50", Block.V1, 0.8, 0);
    Network network = Networks.build(options, new Extent(224, 224, 3), 1000);
    assertEquals(25_557_032 - 53_120 + 26_560, network.parameterCount());
  }

  @Test
  void resnet50HasThePublishedCost() {
    // 4.1 billion multiply-adds at 224 x 224, as He et al. and torchvision count them.
    Options options = new Options("resnet50", Block.V1, 0.8, 0);
    Network network = Networks.build(options, new Extent(224, 224, 3), 1000);
    assertTrue(Math.abs(network.multiplyAdds() / 4.09e9 - 1) < 0.01);
  }

  @Test
  void plain50IsWidestAtAQuarterOfTheLocations() {
    Network network = Networks.build(Options.of("plain50"), new Extent(28, 28, 2), 10);
    long convolutions =
        network.layers().stream().filter(l -> l instanceof ConvolutionLayer).count();
    assertEquals(50, convolutions);
    assertEquals(new Extent(14, 14, 32), network.layers().get(1).extent());
    assertEquals(new Extent(7, 7, 64), network.layers().get(network.layers().size() - 3).extent());
  }

  @Test
  void smallImagesGetTheSmallStem() {
    Network small = Networks.build(Options.of("resnet18"), new Extent(32, 32, 4), 10);
    assertEquals(new Extent(32, 32, 64), small.layers().get(1).extent());
    assertTrue(small.layers().stream().noneMatch(l -> l instanceof MaxPoolingLayer));
    Network large = Networks.build(Options.of("resnet18"), IMAGENET, 10);
    assertEquals(new Extent(112, 112, 64), large.layers().get(1).extent());
    assertEquals(new Extent(56, 56, 64), large.layers().get(2).extent());
  }

  @Test
  void weightsComeBeforeBiasesOnCacheLines() {
    Network network = Networks.build(Options.of("plain:3:5"), new Extent(8, 8, 2), 3);
    long end = 0;
    boolean bias = false;
    for (Network.ParameterSpec spec : network.parameters()) {
      assertTrue(spec.offset() >= end);
      assertEquals(0, spec.offset() % 16);
      end = spec.offset() + spec.shape().elements();
      boolean isBias = spec.kind() == Network.ParameterSpec.Kind.BIAS;
      assertTrue(isBias || !bias);
      bias = isBias;
    }
  }

  @ParameterizedTest
  @CsvSource({
    "resnet51, resnet51",
    "plain, plain50",
    "plain:0, positive",
    "plain:x, positive",
    "plain:2000000000, at most 100000 layers",
    "plain:3:4:5, plain:L:width"
  })
  void saysWhatIsWrongWithAName(String name, String hint) {
    IllegalArgumentException error =
        assertThrows(
            IllegalArgumentException.class, () -> Networks.build(Options.of(name), IMAGENET, 10));
    assertTrue(error.getMessage().contains(hint), error.getMessage());
  }

  @Test
  void refusesAShortcutWeightOfOne() {
    assertThrows(
        IllegalArgumentException.class,
        () -> Networks.build(new Options("resnet18", Block.V2, 1, 0), IMAGENET, 10));
  }

  @Test
  void refusesALayerThatNothingReads() {
    Network.Builder b = Network.builder("loose", 4, 4, 2);
    int x = b.convolution("used", b.input(), 3, 3, 1);
    b.convolution("loose", x, 3, 3, 1);
    b.linear("logits", b.globalMeanPool("pool", x), 2);
    IllegalStateException error = assertThrows(IllegalStateException.class, b::build);
    assertTrue(error.getMessage().contains("loose"));
  }

  /** Numbers that no machine could hold are refused at once, by what is too large. */
  @Test
  void enormousChainsAreRefusedByCause() {
    for (String name : List.of("plain:13:100000", "plain:100000000:1", "plain:99999999999")) {
      String message =
          assertThrows(
                  IllegalArgumentException.class,
                  () -> Networks.build(Networks.Options.of(name), new Extent(8, 8, 2), 2))
              .getMessage();
      assertTrue(
          message.contains(name) && (message.contains("2^31") || message.contains("1000000")),
          message);
    }
  }
}
