package io.jtrelu.nn;

import io.jtrelu.nn.Layer.Extent;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The networks that come with the library: plain chains and modified ResNets, none with
 * normalisation layers; and, to compare these with, ordinary ResNets with batch normalisation.
 */
public final class Networks {
  /** More is a slip of the finger, or an attack by a configuration: each layer takes memory. */
  private static final int LONGEST_CHAIN = 100_000;

  /** Bottleneck or basic blocks per stage, by ResNet depth (He et al., CVPR 2016). */
  private static final Map<Integer, int[]> RESNET_BLOCKS =
      Map.of(
          18, new int[] {2, 2, 2, 2},
          34, new int[] {3, 4, 6, 3},
          50, new int[] {3, 4, 6, 3},
          101, new int[] {3, 4, 23, 3},
          152, new int[] {3, 8, 36, 3},
          200, new int[] {3, 24, 36, 3});

  /** Depth of the chains that have the form of plain50. */
  private static final List<String> PLAIN = List.of("plain50", "plain100", "plain200");

  /**
   * Width of the first stage of networks that have plain50's layers; the second is twice as wide.
   */
  static final int SMALL_WIDTH = 32;

  /** Blocks of two layers in the stages of such a network, besides the stem. */
  static final List<Integer> SMALL_BLOCKS = List.of(11, 13);

  /** Images below this extent get the small stem: a 3x3 convolution without pooling. */
  static final int SMALL_IMAGE = 64;

  /** Layers of a chain at most; the solver's limit too. */
  private static final int DEEPEST = 1_000_000;

  private Networks() {}

  /** Order of activation, convolution and sum in a residual block. */
  public enum Block {
    /** Convolution first, activation after the sum (He et al., CVPR 2016). */
    V1,
    /** Activation first, sum last (He et al., ECCV 2016). */
    V2
  }

  /**
   * Everything that selects a network but the data it reads.
   *
   * @param name {@code plain50} (24 layers of 32 channels, then 25 of 64, and the logits), {@code
   *     plain100} and {@code plain200} of the same form, {@code plain:L}, {@code plain:L:width} or
   *     {@code resnet18|34|50|101|152|200}; or with batch normalisation and ordinary shortcuts
   *     {@code bnresnet18|34|50|101|152|200}; {@code resnet50-small} and {@code bnresnet50-small}
   *     have plain50's layers
   * @param block residual block, for ResNets
   * @param shortcutWeight weight w of the shortcut in [0, 1), for ResNets without normalisation; 0
   *     leaves it out
   * @param dropout rate before the logits, 0 for none
   */
  public record Options(String name, Block block, double shortcutWeight, float dropout) {
    /** A network by name: V2 blocks, no shortcuts, no dropout. */
    public static Options of(String name) {
      return new Options(name, Block.V2, 0, 0);
    }
  }

  /**
   * One part of a plain chain at a single resolution.
   *
   * @param layers number of 3x3 convolutions with activation, at least 1
   * @param channels their width
   * @param stride stride of the first one
   */
  public record Stage(int layers, int channels, int stride) {}

  /** Names for people, and for suggestions. */
  public static List<String> names() {
    return List.of(
        "plain50",
        "plain100",
        "plain200",
        "plain:L",
        "plain:L:width",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnet200",
        "resnet50-small",
        "bnresnet50-small",
        "bnresnet18",
        "bnresnet34",
        "bnresnet50",
        "bnresnet101",
        "bnresnet152",
        "bnresnet200");
  }

  /** Whether a name is plain50, plain100 or plain200, in any case. */
  public static boolean isPlainByDepth(String name) {
    return PLAIN.contains(name.strip().toLowerCase(Locale.ROOT));
  }

  /**
   * Builds a network by name.
   *
   * @param input size of an image, homogeneous channel included
   * @param classes number of logits
   * @throws IllegalArgumentException if the name is unknown or its numbers are out of range
   */
  public static Network build(Options options, Extent input, int classes) {
    String name = options.name().strip().toLowerCase(Locale.ROOT);
    if (isPlainByDepth(name)) {
      int convolutions = Integer.parseInt(name.substring("plain".length())) - 1;
      int first = convolutions / 2;
      return plain(
          name,
          input,
          classes,
          // Half the resolution from the start: a quarter of the cost, so that it trains in
          // minutes.
          List.of(
              new Stage(first, SMALL_WIDTH, 2),
              new Stage(convolutions - first, 2 * SMALL_WIDTH, 2)),
          options.dropout());
    }
    if (name.startsWith("plain:")) {
      String[] parts = name.split(":", -1);
      if (parts.length > 3) {
        throw unknown(options.name());
      }
      int depth = positive(options.name(), parts[1]);
      if (depth > LONGEST_CHAIN) {
        throw new IllegalArgumentException(
            "network '" + options.name() + "': a chain has at most " + LONGEST_CHAIN + " layers");
      }
      int width = parts.length == 3 ? positive(options.name(), parts[2]) : 32;
      if (depth > DEEPEST) {
        throw new IllegalArgumentException(
            "network '" + name + "': a chain has at most " + DEEPEST + " layers");
      }
      double weights = 9.0 * width * width;
      if (weights > Integer.MAX_VALUE) {
        throw new IllegalArgumentException(
            String.format(
                Locale.ROOT,
                "network '%s': a layer of %d to %d channels has %.2g weights; at most 2^31 - 1",
                name,
                width,
                width,
                weights));
      }
      return plain(name, input, classes, thirds(depth, width), options.dropout());
    }
    if (name.equals("bnresnet50-small")) {
      return BatchNormNetworks.small(options.block(), input, classes, options.dropout());
    }
    if (name.startsWith("bnresnet")) {
      int depth = positive(options.name(), name.substring("bnresnet".length()));
      if (RESNET_BLOCKS.containsKey(depth)) {
        return BatchNormNetworks.resnet(
            depth, RESNET_BLOCKS.get(depth), options.block(), input, classes, options.dropout());
      }
    }
    if (name.equals("resnet50-small")) {
      return resnetSmall(input, classes, options);
    }
    if (name.startsWith("resnet")) {
      int depth = positive(options.name(), name.substring("resnet".length()));
      if (RESNET_BLOCKS.containsKey(depth)) {
        return resnet(depth, input, classes, options);
      }
    }
    throw unknown(options.name());
  }

  private static IllegalArgumentException unknown(String name) {
    return new IllegalArgumentException(
        "unknown network '" + name + "'; known are " + String.join(", ", names()));
  }

  private static int positive(String name, String digits) {
    try {
      int value = Integer.parseInt(digits);
      if (value > 0) {
        return value;
      }
    } catch (NumberFormatException notANumber) {
      // falls through to the same message
    }
    throw new IllegalArgumentException(
        "network '"
            + name
            + "': '"
            + digits
            + "' is not a positive number below 2^31; as in plain:100:32");
  }

  /** A chain of constant width in three stages, each at half the resolution of the one before. */
  private static List<Stage> thirds(int depth, int width) {
    if (depth < 3) {
      return List.of(new Stage(depth, width, 1));
    }
    int third = depth / 3;
    return List.of(
        new Stage(depth - 2 * third, width, 1),
        new Stage(third, width, 2),
        new Stage(third, width, 2));
  }

  /** A plain chain: 3x3 convolutions with activation, global mean, logits. */
  public static Network plain(
      String name, Extent input, int classes, List<Stage> stages, float dropout) {
    Network.Builder b = builder(name, input);
    int x = b.input();
    for (int s = 0; s < stages.size(); s++) {
      Stage stage = stages.get(s);
      for (int i = 0; i < stage.layers(); i++) {
        String layer = "stage" + (s + 1) + ".layer" + (i + 1);
        x = b.convolution(layer, x, stage.channels(), 3, i == 0 ? stage.stride() : 1);
        x = b.activation(layer + ".activation", x);
      }
    }
    return head(b, x, classes, dropout);
  }

  static Network.Builder builder(String name, Extent input) {
    return Network.builder(name, input.height(), input.width(), input.channels());
  }

  static Network head(Network.Builder b, int x, int classes, float dropout) {
    x = b.globalMeanPool("pool", x);
    if (dropout > 0) {
      x = b.dropout("dropout", x, dropout);
    }
    b.linear("logits", x, classes);
    return b.build();
  }

  /**
   * The modified ResNet of Martens et al. (arXiv 2110.01765) and Zhang et al. (ICLR 2022): no
   * normalisation layers; sums are normalised, w * shortcut + sqrt(1 - w^2) * branch. A bottleneck
   * block has its stride on the 3x3 convolution.
   */
  private static Network resnet(int depth, Extent input, int classes, Options options) {
    double w = weight(options);
    boolean bottleneck = depth >= 50;
    boolean v2 = options.block() == Block.V2;
    String name =
        "resnet" + depth + "-" + options.block().name().toLowerCase(Locale.ROOT) + "-w" + w;
    Network.Builder b = builder(name, input);
    int x = stem(b, v2, Math.min(input.height(), input.width()) < SMALL_IMAGE);
    int[] blocks = RESNET_BLOCKS.get(depth);
    for (int stage = 0; stage < blocks.length; stage++) {
      int width = 64 << stage;
      for (int i = 0; i < blocks[stage]; i++) {
        String block = "stage" + (stage + 1) + ".block" + (i + 1);
        int stride = i == 0 && stage > 0 ? 2 : 1;
        x =
            v2
                ? blockV2(b, block, x, width, stride, bottleneck, w)
                : blockV1(b, block, x, width, stride, bottleneck, w);
      }
    }
    if (v2) {
      x = b.activation("final.activation", x);
    }
    return head(b, x, classes, options.dropout());
  }

  /** The same with as many 3x3 convolutions as plain50, of its sizes but for one. */
  private static Network resnetSmall(Extent input, int classes, Options options) {
    double w = weight(options);
    boolean v2 = options.block() == Block.V2;
    String name = "resnet50-small-" + options.block().name().toLowerCase(Locale.ROOT) + "-w" + w;
    Network.Builder b = builder(name, input);
    int x = b.convolution("stem", b.input(), SMALL_WIDTH, 3, 2);
    x = v2 ? x : b.activation("stem.activation", x);
    for (int stage = 0; stage < SMALL_BLOCKS.size(); stage++) {
      int width = SMALL_WIDTH << stage;
      for (int i = 0; i < SMALL_BLOCKS.get(stage); i++) {
        String block = "stage" + (stage + 1) + ".block" + (i + 1);
        int stride = i == 0 && stage > 0 ? 2 : 1;
        x =
            v2
                ? blockV2(b, block, x, width, stride, false, w)
                : blockV1(b, block, x, width, stride, false, w);
      }
    }
    return head(b, v2 ? b.activation("final.activation", x) : x, classes, options.dropout());
  }

  private static double weight(Options options) {
    double w = options.shortcutWeight();
    if (!(w >= 0 && w < 1)) {
      throw new IllegalArgumentException("the shortcut weight must lie in [0, 1), got " + w);
    }
    return w;
  }

  private static int stem(Network.Builder b, boolean v2, boolean small) {
    int x =
        small
            ? b.convolution("stem", b.input(), 64, 3, 1)
            : b.convolution("stem", b.input(), 64, 7, 2);
    if (!v2) {
      x = b.activation("stem.activation", x);
    }
    return small ? x : b.maxPool("stem.pool", x, 3, 2);
  }

  private static int blockV2(
      Network.Builder b, String name, int x, int width, int stride, boolean bottleneck, double w) {
    int channels = bottleneck ? 4 * width : width;
    boolean project = stride != 1 || b.extent(x).channels() != channels;
    int branch = b.activation(name + ".activation1", x);
    int shortcut = x;
    if (project && w > 0) {
      // The activation is shared by both paths.
      shortcut = b.convolution(name + ".projection", branch, channels, 1, stride);
    }
    branch =
        b.convolution(name + ".conv1", branch, width, bottleneck ? 1 : 3, bottleneck ? 1 : stride);
    branch = b.activation(name + ".activation2", branch);
    branch = b.convolution(name + ".conv2", branch, width, 3, bottleneck ? stride : 1);
    if (bottleneck) {
      branch = b.activation(name + ".activation3", branch);
      branch = b.convolution(name + ".conv3", branch, channels, 1, 1);
    }
    return w > 0 ? b.normalizedSum(name + ".sum", shortcut, branch, w) : branch;
  }

  private static int blockV1(
      Network.Builder b, String name, int x, int width, int stride, boolean bottleneck, double w) {
    int channels = bottleneck ? 4 * width : width;
    boolean project = stride != 1 || b.extent(x).channels() != channels;
    int shortcut = x;
    if (project && w > 0) {
      shortcut = b.convolution(name + ".projection", x, channels, 1, stride);
    }
    int branch =
        b.convolution(name + ".conv1", x, width, bottleneck ? 1 : 3, bottleneck ? 1 : stride);
    branch = b.activation(name + ".activation1", branch);
    branch = b.convolution(name + ".conv2", branch, width, 3, bottleneck ? stride : 1);
    if (bottleneck) {
      branch = b.activation(name + ".activation2", branch);
      branch = b.convolution(name + ".conv3", branch, channels, 1, 1);
    }
    int sum = w > 0 ? b.normalizedSum(name + ".sum", shortcut, branch, w) : branch;
    return b.activation(name + ".activation" + (bottleneck ? 3 : 2), sum);
  }
}
