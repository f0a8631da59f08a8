package io.jtrelu.shaping;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Finds the single-entry single-exit regions of a signal graph, as {@link SignalGraph} defines
 * them, by dominators and post-dominators.
 *
 * <p>A region (u, v) holds the nodes met going back from v without passing u. All its entries come
 * from u exactly if u dominates v. All its exits leave from v exactly if each of its nodes sends
 * its output only to nodes of the region. So v closes its smallest region, from its immediate
 * dominator, or none at all; and (u, v), (v, v') join exactly if v' post-dominates v.
 */
final class RegionAnalysis {
  private static final int NONE = -1;

  /** A region, from the output of one node to the output of another. */
  record Span(int entry, int exit) {}

  private final @Nullable SignalNode[] nodes;
  private final int output;
  private final int[][] users;

  /** The nearest node that every path from the input passes. */
  private final int[] dominator;

  /** The nearest node that every path to the output passes. */
  private final int[] postDominator;

  /** Whether the node closes the region that begins at its immediate dominator. */
  private final boolean[] closes;

  /**
   * @param nodes the connected nodes in topological order, input first and output last; null for
   *     numbers not in use
   */
  RegionAnalysis(@Nullable SignalNode[] nodes) {
    this.nodes = nodes;
    this.output = nodes.length - 1;
    this.users = users();
    this.dominator = dominators();
    this.postDominator = postDominators();
    this.closes = closes();
  }

  /** The regions that do not join to a longer one, the whole network last. */
  List<Span> maximalRegions() {
    List<Span> spans = new ArrayList<>();
    for (int v = 1; v < output; v++) {
      if (nodes[v] == null || !closes[v] || joins(v, postDominator[v])) {
        continue;
      }
      int next = v;
      int u = dominator[v];
      while (u > 0 && closes[u] && joins(u, next)) {
        next = u;
        u = dominator[u];
      }
      if (containsActivation(u, v)) {
        spans.add(new Span(u, v));
      }
    }
    spans.add(new Span(0, output));
    return spans;
  }

  /** Whether the region that ends at v continues with the region (v, next). */
  private boolean joins(int v, int next) {
    return next != NONE && dominator[next] == v && postDominator[v] == next;
  }

  /** The region as a program; affine nodes become the node they read. */
  RegionProgram program(int entry, int exit) {
    int[] members = members(entry, exit);
    int[] index = new int[nodes.length];
    int[][] inputs = new int[members.length + 1][];
    double[] @Nullable [] weights = new double[members.length + 1] @Nullable [];
    String[] keys = new String[members.length + 1];
    inputs[0] = new int[0];
    keys[0] = "";
    int count = 1;
    for (int n : members) {
      SignalNode node = node(n);
      int[] in = node.inputs();
      if (node.kind() == SignalNode.Kind.AFFINE || (in.length == 1 && !node.isActivation())) {
        index[n] = index[in[0]];
        continue;
      }
      int[] local = new int[in.length];
      for (int i = 0; i < in.length; i++) {
        local[i] = index[in[i]];
      }
      index[n] = count;
      inputs[count] = local;
      weights[count] = node.isActivation() ? null : node.squaredWeights();
      keys[count] = node.key();
      count++;
    }
    return new RegionProgram(
        Arrays.copyOf(inputs, count), Arrays.copyOf(weights, count), Arrays.copyOf(keys, count));
  }

  /** The keys of the activations, in order. */
  Set<String> keys() {
    Set<String> keys = new LinkedHashSet<>();
    for (SignalNode node : nodes) {
      if (node != null && node.isActivation()) {
        keys.add(node.key());
      }
    }
    return keys;
  }

  private boolean containsActivation(int entry, int exit) {
    for (int n : members(entry, exit)) {
      if (node(n).isActivation()) {
        return true;
      }
    }
    return false;
  }

  /** The nodes of the region, in order. */
  private int[] members(int entry, int exit) {
    boolean[] found = new boolean[exit - entry + 1];
    int[] stack = new int[found.length];
    int top = 0;
    if (exit != entry) {
      found[exit - entry] = true;
      stack[top++] = exit;
    }
    int count = top;
    while (top > 0) {
      for (int i : node(stack[--top]).inputs()) {
        if (i != entry && !found[i - entry]) {
          found[i - entry] = true;
          stack[top++] = i;
          count++;
        }
      }
    }
    int[] members = new int[count];
    int next = 0;
    for (int i = 0; i < found.length; i++) {
      if (found[i]) {
        members[next++] = entry + i;
      }
    }
    return members;
  }

  private int[][] users() {
    int[] counts = new int[nodes.length];
    for (SignalNode node : nodes) {
      if (node != null) {
        for (int i : node.inputs()) {
          counts[i]++;
        }
      }
    }
    int[][] result = new int[nodes.length][];
    for (int n = 0; n < result.length; n++) {
      result[n] = new int[counts[n]];
    }
    for (int n = nodes.length - 1; n >= 0; n--) {
      SignalNode node = nodes[n];
      if (node != null) {
        for (int i : node.inputs()) {
          result[i][--counts[i]] = n;
        }
      }
    }
    return result;
  }

  /** Cooper, Harvey, Kennedy (2001); without cycles one pass in topological order is enough. */
  private int[] dominators() {
    int[] result = new int[nodes.length];
    Arrays.fill(result, NONE);
    for (int n = 1; n < nodes.length; n++) {
      SignalNode node = nodes[n];
      if (node == null) {
        continue;
      }
      int common = node.inputs()[0];
      for (int i : node.inputs()) {
        int other = i;
        while (other != common) {
          if (other > common) {
            other = result[other];
          } else {
            common = result[common];
          }
        }
      }
      result[n] = common;
    }
    return result;
  }

  private int[] postDominators() {
    int[] result = new int[nodes.length];
    Arrays.fill(result, NONE);
    for (int n = output - 1; n >= 0; n--) {
      if (nodes[n] == null) {
        continue;
      }
      int common = users[n][0];
      for (int i : users[n]) {
        int other = i;
        while (other != common) {
          if (other < common) {
            other = result[other];
          } else {
            common = result[common];
          }
        }
      }
      result[n] = common;
    }
    return result;
  }

  private boolean[] closes() {
    boolean[] result = new boolean[nodes.length];
    // Holds the exit whose region a node was last found in, so that it need not be cleared.
    int[] foundFor = new int[nodes.length];
    int[] members = new int[nodes.length];
    for (int v = 1; v < nodes.length; v++) {
      if (nodes[v] != null) {
        result[v] = closes(v, foundFor, members);
      }
    }
    return result;
  }

  private boolean closes(int v, int[] foundFor, int[] members) {
    int count = 0;
    members[count++] = v;
    foundFor[v] = v;
    for (int k = 0; k < count; k++) {
      for (int i : node(members[k]).inputs()) {
        if (i != dominator[v] && foundFor[i] != v) {
          foundFor[i] = v;
          members[count++] = i;
        }
      }
    }
    for (int k = 1; k < count; k++) {
      for (int user : users[members[k]]) {
        if (foundFor[user] != v) {
          return false;
        }
      }
    }
    return true;
  }

  private SignalNode node(int n) {
    SignalNode node = nodes[n];
    if (node == null) {
      throw new AssertionError("node " + n + " is not connected");
    }
    return node;
  }
}
