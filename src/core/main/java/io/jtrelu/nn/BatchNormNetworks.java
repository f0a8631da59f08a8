package io.jtrelu.nn;

import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Networks.Block;
import java.util.Locale;

/**
 * Ordinary ResNets: batch normalisation after each convolution (V1) or before each activation (V2),
 * shortcuts that are added as they are, Gaussian weights. A bottleneck block has its stride on the
 * 3x3 convolution.
 */
final class BatchNormNetworks {

  private final Network.Builder b;
  private final boolean v2;

  private BatchNormNetworks(String name, Block block, Extent input) {
    String full = name + "-" + block.name().toLowerCase(Locale.ROOT);
    this.b = Networks.builder(full, input);
    this.v2 = block == Block.V2;
  }

  static Network resnet(
      int depth, int[] blocks, Block block, Extent input, int classes, float dropout) {
    BatchNormNetworks net = new BatchNormNetworks("bnresnet" + depth, block, input);
    boolean small = Math.min(input.height(), input.width()) < Networks.SMALL_IMAGE;
    int x = net.stem(64, small ? 3 : 7, small ? 1 : 2);
    if (!small) {
      x = net.b.maxPool("stem.pool", x, 3, 2);
    }
    for (int stage = 0; stage < blocks.length; stage++) {
      x = net.stage(stage, x, blocks[stage], 64 << stage, stage > 0 ? 2 : 1, depth >= 50);
    }
    return net.end(x, classes, dropout);
  }

  /**
   * As many 3x3 convolutions as plain50 has, of the same sizes but for one: 23 of 32 channels, the
   * first of them the stem, and 26 of 64. Blocks have two.
   */
  static Network small(Block block, Extent input, int classes, float dropout) {
    BatchNormNetworks net = new BatchNormNetworks("bnresnet50-small", block, input);
    int x = net.stem(Networks.SMALL_WIDTH, 3, 2);
    x = net.stage(0, x, Networks.SMALL_BLOCKS.get(0), Networks.SMALL_WIDTH, 1, false);
    x = net.stage(1, x, Networks.SMALL_BLOCKS.get(1), 2 * Networks.SMALL_WIDTH, 2, false);
    return net.end(x, classes, dropout);
  }

  private int stem(int channels, int kernel, int stride) {
    int x = b.convolution("stem", b.input(), channels, kernel, stride);
    return v2 ? x : normalized("stem", "", x);
  }

  private int stage(int stage, int x, int blocks, int width, int stride, boolean bottleneck) {
    int y = x;
    for (int i = 0; i < blocks; i++) {
      String block = "stage" + (stage + 1) + ".block" + (i + 1);
      int step = i == 0 ? stride : 1;
      y =
          v2
              ? blockV2(block, y, width, step, bottleneck)
              : blockV1(block, y, width, step, bottleneck);
    }
    return y;
  }

  private Network end(int x, int classes, float dropout) {
    int y = v2 ? normalized("final", "", x) : x;
    return Networks.head(b, y, classes, dropout).withGaussianWeights(true);
  }

  /** Normalisation and activation. */
  private int normalized(String name, String number, int x) {
    return b.activation(name + ".activation" + number, b.batchNorm(name + ".norm" + number, x));
  }

  private boolean projects(int x, int channels, int stride) {
    return stride != 1 || b.extent(x).channels() != channels;
  }

  private int blockV2(String name, int x, int width, int stride, boolean bottleneck) {
    int channels = bottleneck ? 4 * width : width;
    boolean projects = projects(x, channels, stride);
    int branch = normalized(name, "1", x);
    int shortcut = projects ? b.convolution(name + ".projection", branch, channels, 1, stride) : x;
    branch =
        b.convolution(name + ".conv1", branch, width, bottleneck ? 1 : 3, bottleneck ? 1 : stride);
    branch = normalized(name, "2", branch);
    branch = b.convolution(name + ".conv2", branch, width, 3, bottleneck ? stride : 1);
    if (bottleneck) {
      branch = normalized(name, "3", branch);
      branch = b.convolution(name + ".conv3", branch, channels, 1, 1);
    }
    return b.sum(name + ".sum", shortcut, branch);
  }

  private int blockV1(String name, int x, int width, int stride, boolean bottleneck) {
    int channels = bottleneck ? 4 * width : width;
    int shortcut = x;
    if (projects(x, channels, stride)) {
      shortcut = b.convolution(name + ".projection", x, channels, 1, stride);
      shortcut = b.batchNorm(name + ".projection.norm", shortcut);
    }
    int branch =
        b.convolution(name + ".conv1", x, width, bottleneck ? 1 : 3, bottleneck ? 1 : stride);
    branch = normalized(name, "1", branch);
    branch = b.convolution(name + ".conv2", branch, width, 3, bottleneck ? stride : 1);
    if (bottleneck) {
      branch = normalized(name, "2", branch);
      branch = b.convolution(name + ".conv3", branch, channels, 1, 1);
    }
    String last = bottleneck ? "3" : "2";
    branch = b.batchNorm(name + ".norm" + last, branch);
    return b.activation(name + ".activation" + last, b.sum(name + ".sum", shortcut, branch));
  }
}
