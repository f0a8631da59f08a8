package io.jtrelu.djl;

import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.nn.Block;
import ai.djl.nn.ParallelBlock;
import java.util.List;

/**
 * The sum of a residual block, w * shortcut + sqrt(1 - w^2) * branch: a {@link ParallelBlock} that
 * tells its weights, so that {@link BlockShaping} can shape networks with it. Both parts read the
 * block's input; {@link ai.djl.nn.Blocks#identityBlock} is the plain shortcut.
 */
public final class NormalizedSum extends ParallelBlock {
  private final double weight;

  /**
   * A sum of two parts.
   *
   * @param weight w, in (0, 1)
   * @param shortcut one array in, one out
   * @param branch one array in, one out, of the shortcut's shape
   * @throws IllegalArgumentException if the weight is out of range
   */
  public NormalizedSum(double weight, Block shortcut, Block branch) {
    super(parts -> sum(weight, parts), List.of(shortcut, branch));
    if (!(weight > 0 && weight < 1)) {
      throw new IllegalArgumentException(
          "the weight of the shortcut must lie strictly between 0 and 1, but is " + weight);
    }
    this.weight = weight;
  }

  private static NDList sum(double weight, List<NDList> parts) {
    NDArray shortcut = parts.get(0).singletonOrThrow();
    NDArray branch = parts.get(1).singletonOrThrow();
    try (NDArray scaled = Constants.mul(branch, Math.sqrt(1 - weight * weight))) {
      return new NDList(Constants.mul(shortcut, weight).addi(scaled));
    }
  }

  /** w, the weight of the shortcut. */
  public double weight() {
    return weight;
  }

  /** Sets one of its two parts. */
  void replace(int part, Block block) {
    String name = children.get(part).getKey().substring(0, 2) + block.getClass().getSimpleName();
    Block[] parts = children.values().toArray(Block[]::new);
    String[] names = children.keys().toArray(String[]::new);
    parts[part] = block;
    names[part] = name;
    children.clear();
    for (int i = 0; i < parts.length; i++) {
      children.add(names[i], parts[i]);
    }
  }
}
