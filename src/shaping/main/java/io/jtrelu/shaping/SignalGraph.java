package io.jtrelu.shaping;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.function.DoubleUnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * What a network does to the kernel: a directed acyclic graph with one input and one output, made
 * of activations, weighted sums and affine layers (which, like convolutions, pooling and anything
 * else that keeps c, count as the identity).
 *
 * <pre>{@code
 * var b = SignalGraph.builder();
 * int x = b.input();
 * int branch = b.activation(b.affine(b.activation(x)));
 * int y = b.sum(new double[] {w, Math.sqrt(1 - w * w)}, x, branch);
 * SignalGraph graph = b.build(y);
 * }</pre>
 *
 * <p><b>The subnetwork maximising function</b> M_f,r(x) of the TAT paper replaces every activation
 * by r, every affine layer by the identity and every sum by sum w_i^2 * value_i, feeds x in and
 * takes the maximum over subnetworks. A subnetwork is a region (u, v) of nodes with one entry and
 * one exit: every edge into it leaves node u, which lies just outside, and every edge out of it
 * leaves node v, which is its last node. So a residual branch taken alone counts; a branch that
 * ends while its own shortcut is still open does not.
 *
 * <p><b>Which regions are evaluated.</b> Let r be non-decreasing with r(y) >= y, as it is for the C
 * map of a rectifier, for y + tau with tau >= 0 and for zeta * y with zeta >= 1, y >= 0. Then no
 * node of a region lies below the region's input, and every region is a non-decreasing map that
 * does not lie below the identity. Hence if (u, v) and (v, v') are regions that join into the
 * region (u, v'), the joined region is nowhere below either part: as v' applies to v a map that is
 * at least the identity, and v receives u's value, at least its own input. So only regions that
 * cannot be joined to a longer one, at either end, can be the maximum, and the others are dropped.
 * Nothing else is dropped, but regions of identical structure are evaluated once. With dominators
 * the regions are found once, in {@link Builder#build}: v closes a region exactly if it
 * post-dominates all nodes between its immediate dominator and itself, and regions (u, v), (v, v')
 * join exactly if v' post-dominates v.
 *
 * <p>An evaluation takes time linear in the sizes of those regions, that is, linear in the graph
 * times the depth to which branches are nested in branches. Nothing recurses; chains of tens of
 * thousands of activations work.
 *
 * <p>Immutable and safe for use by several threads.
 */
public final class SignalGraph {

  /** The key of activations that were given none. */
  public static final String DEFAULT_KEY = "activation";

  /**
   * A subnetwork over which M is maximised.
   *
   * @param name readable name: where it begins and where it ends
   * @param entry node whose output feeds the region; the node lies outside of it
   * @param exit last node of the region; its output is the region's
   * @param activations number of activations on the region's longest path
   */
  public record Region(String name, int entry, int exit, int activations) {}

  private final List<Region> regions;
  private final List<RegionProgram> programs;
  private final RegionProgram whole;
  private final Set<String> keys;
  private final @Nullable Obstacle obstacle;

  /** A layer for which there is no such mathematics. */
  private record Obstacle(String layer, String why) {}

  private SignalGraph(
      List<Region> regions,
      List<RegionProgram> programs,
      RegionProgram whole,
      Set<String> keys,
      @Nullable Obstacle obstacle) {
    this.regions = List.copyOf(regions);
    this.programs = programs;
    this.whole = whole;
    this.keys = Collections.unmodifiableSet(keys);
    this.obstacle = obstacle;
  }

  /** A builder with no nodes. */
  public static Builder builder() {
    return new Builder();
  }

  /**
   * A plain network: affine layers and activations in turn.
   *
   * @param activations number of activations, at least 1
   * @throws IllegalArgumentException if there is not at least one activation
   */
  public static SignalGraph chain(int activations) {
    if (activations < 1) {
      throw new IllegalArgumentException(
          "a chain needs at least one activation, but " + activations + " were asked for");
    }
    Builder builder = builder();
    int x = builder.input();
    for (int i = 0; i < activations; i++) {
      x = builder.activation(x);
    }
    return builder.build(x);
  }

  /**
   * M_f,r(x): the largest output, over all subnetworks, for the input value x.
   *
   * @param r replaces every activation; non-decreasing with r(y) >= y at every y it meets
   * @param x input value
   */
  public double maximum(DoubleUnaryOperator r, double x) {
    double best = Double.NEGATIVE_INFINITY;
    for (RegionProgram program : programs) {
      best = Math.max(best, program.evaluate(r, x));
    }
    return best;
  }

  /**
   * The smallest output over all subnetworks: {@link #maximum} for quantities that fall, such as e
   * = 1 - c, where r(y) &lt;= y and c near 1 would lose its digits.
   *
   * @param r replaces every activation; non-decreasing with r(y) &lt;= y at every y it meets
   * @param x input value
   */
  public double minimum(DoubleUnaryOperator r, double x) {
    double best = Double.POSITIVE_INFINITY;
    for (RegionProgram program : programs) {
      best = Math.min(best, program.evaluate(r, x));
    }
    return best;
  }

  /**
   * The output of the network as a whole: with r a local C map, the global C map.
   *
   * @param r replaces every activation; any function
   * @param x input value
   */
  public double output(DoubleUnaryOperator r, double x) {
    return whole.evaluate(r, x);
  }

  /**
   * Values through the depth of the network: the input and then the output of every activation on
   * its deepest path (of several, the one through the first inputs of sums).
   *
   * @param r replaces every activation; any function
   * @param x input value
   * @return {@link #activations()} + 1 values
   */
  public double[] throughDepth(DoubleUnaryOperator r, double x) {
    return onDeepestPath(whole.values(r, x));
  }

  /**
   * Values through the depth of a network of several functions.
   *
   * @param r for each of {@link #keys} what replaces its activations
   * @param x input value
   * @throws IllegalArgumentException if a key has none
   */
  public double[] throughDepth(Map<String, ? extends DoubleUnaryOperator> r, double x) {
    requireKeys(r);
    return onDeepestPath(whole.values(r, x));
  }

  private void requireKeys(Map<String, ?> r) {
    for (String key : keys) {
      if (!r.containsKey(key)) {
        throw new IllegalArgumentException("no map is given for the activation '" + key + "'");
      }
    }
  }

  private double[] onDeepestPath(double[] values) {
    int[] path = whole.deepestPath();
    double[] result = new double[path.length];
    for (int i = 0; i < result.length; i++) {
      result[i] = values[path[i]];
    }
    return result;
  }

  /** The number of activations on the longest path from input to output. */
  public int activations() {
    return whole.depth();
  }

  /** Whether the network is a plain chain: every activation lies on one path. */
  public boolean isChain() {
    return whole.isChain();
  }

  /**
   * Refuses a network for a method that chooses parameters by q and C maps.
   *
   * @throws UnsuitableNetworkException if a layer was said to be {@link Builder#unshapeable}
   */
  void requireShapeable(String method) {
    if (obstacle != null) {
      throw new UnsuitableNetworkException(
          obstacle.layer,
          method
              + " cannot shape this network: layer "
              + obstacle.layer
              + " "
              + obstacle.why
              + ". Train it unshaped (he or none)");
    }
  }

  /** The keys of the activations, in order of their first use. */
  public Set<String> keys() {
    return keys;
  }

  /**
   * The regions that can be the maximum, the whole network last. Those of identical structure are
   * all listed, though only one of them is evaluated.
   */
  public List<Region> regions() {
    return regions;
  }

  @Override
  public String toString() {
    return "SignalGraph[activations=" + activations() + ", regions=" + regions.size() + "]";
  }

  /** Builds a graph from its input to its output; a node is named by the int it was given. */
  public static final class Builder {
    // Loose enough for any way of computing the weights in double, tight enough to catch float.
    private static final double NORMALISATION_TOLERANCE = 1e-9;
    private static final int[] NO_INPUTS = {};
    private static final double[] NO_WEIGHTS = {};

    private final List<SignalNode> nodes = new ArrayList<>();
    private final Map<Integer, String> labels = new LinkedHashMap<>();
    private @Nullable Obstacle obstacle;

    private Builder() {}

    /**
     * The network's input.
     *
     * @throws IllegalStateException if the graph already has an input
     */
    public int input() {
      if (!nodes.isEmpty()) {
        throw new IllegalStateException("a signal graph has one input, and it is the first node");
      }
      return add(new SignalNode(SignalNode.Kind.INPUT, NO_INPUTS, NO_WEIGHTS, ""));
    }

    /**
     * An affine layer, convolution, pooling: anything that keeps c.
     *
     * @throws IllegalArgumentException if there is no node src
     */
    public int affine(int src) {
      return add(new SignalNode(SignalNode.Kind.AFFINE, inputs(src), NO_WEIGHTS, ""));
    }

    /**
     * Says that a layer does what the graph's maps cannot tell: {@link Tat}, {@link Dks} and {@link
     * Eoc} then refuse the graph. The first layer is named.
     *
     * @param layer its name, for messages
     * @param why what it does, going on from its name
     */
    public void unshapeable(String layer, String why) {
      if (obstacle == null) {
        obstacle = new Obstacle(layer, why);
      }
    }

    /**
     * An activation with the key {@link SignalGraph#DEFAULT_KEY}.
     *
     * @throws IllegalArgumentException if there is no node src
     */
    public int activation(int src) {
      return activation(src, DEFAULT_KEY);
    }

    /**
     * An activation.
     *
     * @param src the node it is applied to
     * @param key which of the network's activation functions it is
     * @throws IllegalArgumentException if there is no node src
     */
    public int activation(int src, String key) {
      Objects.requireNonNull(key, "key");
      return add(new SignalNode(SignalNode.Kind.ACTIVATION, inputs(src), NO_WEIGHTS, key));
    }

    /**
     * A normalised sum, sum_i weights[i] * srcs[i]. A source of weight 0 counts as not connected.
     *
     * @param weights one for each source, squares adding up to 1
     * @param srcs the nodes added up
     * @throws IllegalArgumentException if the counts differ, a weight is not finite, or the squares
     *     do not add up to 1, or there is no such node
     */
    public int sum(double[] weights, int... srcs) {
      if (weights.length != srcs.length || srcs.length == 0) {
        throw new IllegalArgumentException(
            "a sum needs one weight per source and at least one source, but has "
                + weights.length
                + " weights and "
                + srcs.length
                + " sources");
      }
      double total = 0;
      for (int i = 0; i < weights.length; i++) {
        if (!Double.isFinite(weights[i])) {
          throw new IllegalArgumentException(
              "weights[" + i + "] of a sum must be finite, but is " + weights[i]);
        }
        total += weights[i] * weights[i];
      }
      if (!(Math.abs(total - 1) <= NORMALISATION_TOLERANCE)) {
        throw new IllegalArgumentException(
            "the squared weights of a sum must add up to 1, but those of "
                + Arrays.toString(weights)
                + " add up to "
                + total
                + (total > 0 && total < Double.POSITIVE_INFINITY
                    ? "; divide every weight by " + Math.sqrt(total)
                    : ""));
      }
      double[] squared = new double[weights.length];
      for (int i = 0; i < squared.length; i++) {
        squared[i] = weights[i] * weights[i] / total;
      }
      return add(new SignalNode(SignalNode.Kind.SUM, inputs(srcs), squared, ""));
    }

    /**
     * Names a node for {@link SignalGraph#regions()}.
     *
     * @return the node
     * @throws IllegalArgumentException if there is no such node
     */
    public int label(int node, String label) {
      Objects.requireNonNull(label, "label");
      inputs(node);
      labels.put(node, label);
      return node;
    }

    /**
     * The graph that ends at the given node.
     *
     * @throws IllegalArgumentException if there is no such node, another uses it, or some other
     *     node is not used by any
     */
    public SignalGraph build(int output) {
      inputs(output);
      boolean[] used = new boolean[nodes.size()];
      for (SignalNode node : nodes) {
        for (int i : node.inputs()) {
          used[i] = true;
        }
      }
      if (used[output]) {
        throw new IllegalArgumentException(
            names()[output] + " was given as the output, but other nodes use it");
      }
      for (int i = 0; i < used.length; i++) {
        if (!used[i] && i != output) {
          throw new IllegalArgumentException(
              names()[i] + " leads nowhere: no node uses it and it is not the output");
        }
      }
      String[] names = names();
      RegionAnalysis analysis = new RegionAnalysis(connected(output));
      List<Region> regions = new ArrayList<>();
      Set<RegionProgram> programs = new LinkedHashSet<>();
      for (RegionAnalysis.Span span : analysis.maximalRegions()) {
        RegionProgram program = analysis.program(span.entry(), span.exit());
        programs.add(program);
        regions.add(
            new Region(
                names[span.entry()] + " -> " + names[span.exit()],
                span.entry(),
                span.exit(),
                program.depth()));
      }
      RegionProgram whole = analysis.program(0, output);
      return new SignalGraph(regions, List.copyOf(programs), whole, analysis.keys(), obstacle);
    }

    /** The nodes that the output depends on (null elsewhere), without edges of weight 0. */
    private @Nullable SignalNode[] connected(int output) {
      @Nullable SignalNode[] result = new SignalNode[output + 1];
      result[output] = nodes.get(output);
      for (int n = output; n >= 0; n--) {
        SignalNode node = result[n];
        if (node == null) {
          continue;
        }
        if (node.kind() == SignalNode.Kind.SUM) {
          node = withoutZeros(node);
          result[n] = node;
        }
        for (int i : node.inputs()) {
          result[i] = nodes.get(i);
        }
      }
      return result;
    }

    private static SignalNode withoutZeros(SignalNode sum) {
      int[] inputs = new int[sum.inputs().length];
      double[] squared = new double[inputs.length];
      int count = 0;
      for (int i = 0; i < inputs.length; i++) {
        if (sum.squaredWeights()[i] > 0) {
          inputs[count] = sum.inputs()[i];
          squared[count++] = sum.squaredWeights()[i];
        }
      }
      return new SignalNode(
          SignalNode.Kind.SUM, Arrays.copyOf(inputs, count), Arrays.copyOf(squared, count), "");
    }

    private String[] names() {
      String[] names = new String[nodes.size()];
      Map<SignalNode.Kind, Integer> counts = new EnumMap<>(SignalNode.Kind.class);
      for (int i = 0; i < names.length; i++) {
        SignalNode.Kind kind = nodes.get(i).kind();
        int number = counts.merge(kind, 1, Integer::sum);
        String label = labels.get(i);
        if (label == null) {
          String word = kind.name().toLowerCase(Locale.ROOT);
          label = kind == SignalNode.Kind.INPUT ? word : word + " " + number;
        }
        names[i] = label;
      }
      return names;
    }

    private int add(SignalNode node) {
      nodes.add(node);
      return nodes.size() - 1;
    }

    private int[] inputs(int... srcs) {
      for (int src : srcs) {
        if (src < 0 || src >= nodes.size()) {
          throw new IllegalArgumentException(
              "there is no node " + src + "; this graph has " + nodes.size() + " nodes so far");
        }
      }
      return srcs.clone();
    }
  }
}
