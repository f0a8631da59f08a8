package io.jtrelu.shaping;

import java.util.function.DoubleUnaryOperator;

/** Signal graphs of the modified ResNets, and the functions that others wrote by hand for them. */
final class ResNets {
  private ResNets() {}

  /** Number of blocks in each of the four groups. */
  static int[] blocks(int depth) {
    return switch (depth) {
      case 18 -> new int[] {2, 2, 2, 2};
      case 34, 50 -> new int[] {3, 4, 6, 3};
      case 101 -> new int[] {3, 4, 23, 3};
      case 152 -> new int[] {3, 8, 36, 3};
      case 200 -> new int[] {3, 24, 36, 3};
      default -> throw new IllegalArgumentException("no ResNet of depth " + depth);
    };
  }

  static boolean bottleneck(int depth) {
    return depth >= 50;
  }

  static boolean projects(int depth, int group) {
    return bottleneck(depth) || group > 0;
  }

  /** Pre-activation ResNet: the activation before a projection is shared by both paths. */
  static SignalGraph v2(int depth, double w) {
    var b = SignalGraph.builder();
    int x = b.affine(b.input());
    for (int group = 0; group < 4; group++) {
      for (int block = 0; block < blocks(depth)[group]; block++) {
        int first = b.activation(x);
        int shortcut = block == 0 && projects(depth, group) ? b.affine(first) : x;
        int branch = b.affine(first);
        for (int i = 1; i < (bottleneck(depth) ? 3 : 2); i++) {
          branch = b.affine(b.activation(branch));
        }
        x = b.sum(new double[] {w, Math.sqrt(1 - w * w)}, shortcut, branch);
      }
    }
    return b.build(b.affine(b.activation(x)));
  }

  /** Post-activation ResNet: an activation after the stem and after every sum. */
  static SignalGraph v1(int depth, double w) {
    var b = SignalGraph.builder();
    int x = b.activation(b.affine(b.input()));
    for (int group = 0; group < 4; group++) {
      for (int block = 0; block < blocks(depth)[group]; block++) {
        int shortcut = block == 0 && projects(depth, group) ? b.affine(x) : x;
        int branch = b.affine(x);
        for (int i = 0; i < (bottleneck(depth) ? 2 : 1); i++) {
          branch = b.affine(b.activation(branch));
        }
        x = b.activation(b.sum(new double[] {w, Math.sqrt(1 - w * w)}, shortcut, branch));
      }
    }
    return b.build(b.affine(x));
  }

  /** The official package's M for its V2 networks, as it writes it by hand. */
  static double handWrittenV2(int depth, double w, DoubleUnaryOperator r, double x) {
    double branchAlone = branch(r, x, bottleneck(depth) ? 3 : 2);
    double y = x;
    for (int group = 0; group < 4; group++) {
      for (int block = 0; block < blocks(depth)[group]; block++) {
        boolean shared = block == 0 && projects(depth, group);
        double shortcut = shared ? r.applyAsDouble(y) : y;
        y = w * w * shortcut + (1 - w * w) * branch(r, y, bottleneck(depth) ? 3 : 2);
      }
    }
    return Math.max(r.applyAsDouble(y), branchAlone);
  }

  /**
   * M for V1 networks by hand: one activation fewer in the branch, one after each sum, and the
   * activation of the stem, which comes first.
   */
  static double handWrittenV1(int depth, double w, DoubleUnaryOperator r, double x) {
    int inBranch = bottleneck(depth) ? 2 : 1;
    double y = r.applyAsDouble(x);
    for (int group = 0; group < 4; group++) {
      for (int block = 0; block < blocks(depth)[group]; block++) {
        y = r.applyAsDouble(w * w * y + (1 - w * w) * branch(r, y, inBranch));
      }
    }
    return Math.max(y, branch(r, x, inBranch));
  }

  /** The official package's M for V1, which counts the stem's activation last instead of first. */
  static double officialV1(int depth, double w, DoubleUnaryOperator r, double x) {
    int inBranch = bottleneck(depth) ? 2 : 1;
    double y = x;
    for (int group = 0; group < 4; group++) {
      for (int block = 0; block < blocks(depth)[group]; block++) {
        y = r.applyAsDouble(w * w * y + (1 - w * w) * branch(r, y, inBranch));
      }
    }
    return Math.max(r.applyAsDouble(y), branch(r, x, inBranch));
  }

  static double branch(DoubleUnaryOperator r, double x, int activations) {
    double y = x;
    for (int i = 0; i < activations; i++) {
      y = r.applyAsDouble(y);
    }
    return y;
  }
}
