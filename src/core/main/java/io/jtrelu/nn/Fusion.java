package io.jtrelu.nn;

import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Write;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * What of a network exists when it runs: which layers are fused with which, in whose memory a value
 * lies, and who begins and who ends a gradient.
 *
 * <ul>
 *   <li>A rectifier is fused into its source where nothing else wants the source's value, and where
 *       the reader that contributes last to the rectifier's gradient multiplies by its derivative.
 *       The two then have one value, after the rectifier, and one gradient, before it.
 *   <li>Another layer may overwrite its source under the first of these conditions.
 *   <li>Where both can, the layer below leaves the signs of that value, and the reader takes the
 *       derivative from them.
 *   <li>A layer may absorb a source that nothing else wants.
 *   <li>A layer may be computed along with the one below the rectifier it reads, as a chain; then
 *       what lies between does not exist. Both passes of the lower one run with those of the upper.
 *   <li>Outside of training a layer that only trains is another name for its source.
 *   <li>A layer of many parameters may wait with their gradients for the whole batch; its source's
 *       value and its own gradient are then kept for it.
 * </ul>
 *
 * <p>Backward passes run from the last layer to the first. So the last reader of a value is the
 * first to contribute to its gradient: it overwrites what is there, unless the value is an output,
 * whose gradient has come from outside before. The first reader is the last, and applies the
 * derivative.
 */
final class Fusion {
  static final int NONE = -1;

  final List<Layer> layers;
  final boolean training;

  /** For each node those that read it, ascending. */
  private final List<List<Integer>> readers = new ArrayList<>();

  private final boolean[] output;
  private final int[] home;
  private final int[] activation;
  private final int[] absorber;
  private final boolean[] fused;
  private final boolean[] needsGradient;
  private final boolean[] signs;
  private final int[] upper;
  private final int[] lower;
  private final boolean[] late;
  private final boolean[] valueKept;

  /** What layers can do where they are to run. */
  interface Abilities {
    /** As {@link Layer#keepsSigns}. */
    boolean keepsSigns(Layer layer);

    /** As {@link Layer#chains}. */
    boolean chains(Layer below, Layer layer, Layer.Gradients gradients);

    /** Whether gradients of a layer's parameters are to wait for the whole batch, if they can. */
    boolean waits(Layer layer, Layer source);
  }

  Fusion(Network network, boolean training, boolean inputGradient, Abilities can) {
    this.layers = network.layers();
    this.training = training;
    int count = layers.size();
    this.output = new boolean[count];
    this.home = new int[count];
    this.activation = new int[count];
    this.absorber = new int[count];
    this.fused = new boolean[count];
    this.needsGradient = new boolean[count];
    for (int node : network.outputs()) {
      output[node] = true;
    }
    for (int i = 0; i < count; i++) {
      readers.add(new ArrayList<>());
      home[i] = i;
      activation[i] = NONE;
      absorber[i] = NONE;
      needsGradient[i] = i == 0 ? inputGradient : !layers.get(i).parameters().isEmpty();
      for (int source : layers.get(i).sources()) {
        readers.get(source).add(i);
        needsGradient[i] |= needsGradient[source];
      }
    }
    for (int i = 1; i < count; i++) {
      decide(i);
    }
    this.upper = new int[count];
    this.lower = new int[count];
    Arrays.fill(upper, NONE);
    Arrays.fill(lower, NONE);
    for (int i = 1; i < count; i++) {
      int below = chainable(i);
      if (below != NONE && can.chains(layers.get(below), layers.get(i), gradients(below))) {
        upper[below] = i;
        lower[i] = below;
      }
    }
    this.signs = new boolean[count];
    for (int i = 1; i < count; i++) {
      this.signs[i] =
          training
              && activation[i] != NONE
              && upper[i] == NONE
              && !rectifier(i).isIdentity()
              && layers.get(i).extent().channels() % 32 == 0
              && can.keepsSigns(layers.get(i))
              && can.keepsSigns(layers.get(gatingReader(i)));
    }
    this.late = new boolean[count];
    this.valueKept = new boolean[count];
    for (int i = 1; i < count; i++) {
      if (training && mayWait(i)) {
        int source = layers.get(i).sources().getFirst();
        late[i] = can.waits(layers.get(i), layers.get(source));
        valueKept[home[source]] |= late[i];
      }
    }
  }

  /** Those of the images are their owner's, those of a chain come with the rest of it. */
  private boolean mayWait(int i) {
    Layer layer = layers.get(i);
    return layer.gradientsMayWait()
        && home[layer.sources().getFirst()] != 0
        && upper[i] == NONE
        && lower[i] == NONE;
  }

  /** Whether the gradients of a node's parameters wait for the whole batch. */
  boolean isLate(int node) {
    return late[node];
  }

  /** Whether a node's value is kept for a reader whose parameters' gradients wait. */
  boolean isValueKept(int node) {
    return valueKept[home[node]];
  }

  /** Whether a node's gradient, or that of the one it is fused into, is kept for such gradients. */
  boolean isGradientKept(int node) {
    return late[fused[node] ? home[node] : node];
  }

  /** The layer below the rectifier that a layer reads, where the two may be a chain; else NONE. */
  private int chainable(int i) {
    if (layers.get(i).sources().size() != 1 || absorber[i] != NONE) {
      return NONE;
    }
    int between = layers.get(i).sources().getFirst();
    int below = home[between];
    if (!fused[between] || !onlyReader(between) || lower[below] != NONE) {
      return NONE;
    }
    boolean overwrites = gradients(below) == Layer.Gradients.OF_SOURCE;
    List<Integer> sources = layers.get(below).sources();
    return sources.size() == 1 && (!overwrites || onlyReader(sources.getFirst())) ? below : NONE;
  }

  /** What the backward pass of a layer with one source makes. */
  private Layer.Gradients gradients(int node) {
    if (!training) {
      return Layer.Gradients.NONE;
    }
    boolean goesOn = needsGradient[layers.get(node).sources().getFirst()];
    return goesOn ? Layer.Gradients.OF_SOURCE : Layer.Gradients.OF_PARAMETERS;
  }

  /** The layer that computes a node along with itself as a chain, or NONE. */
  int upper(int node) {
    return upper[node];
  }

  /** The node that a layer computes along with itself as a chain, or NONE. */
  int lower(int node) {
    return lower[node];
  }

  /** The node among whose steps those of a node's backward pass are. */
  int runsWith(int node) {
    return upper[node] == NONE ? node : upper[node];
  }

  /** The layer that applies the derivative of the rectifier fused into a node. */
  int gatingReader(int node) {
    return readers.get(activation[node]).getFirst();
  }

  /** Whether a node leaves the signs of its value, for the layer that applies its derivative. */
  boolean leavesSigns(int node) {
    return signs[node];
  }

  private void decide(int i) {
    Layer layer = layers.get(i);
    for (int source : layer.sources()) {
      if (onlyReader(source) && layer.absorbs(source, layers.get(source))) {
        absorber[source] = i;
        home[source] = i;
      }
    }
    if (layer.sources().size() != 1) {
      return;
    }
    int source = layer.sources().getFirst();
    boolean free = layers.get(source).fusesRectifier() && onlyReader(source);
    if (layer.rectifier() != null && free && (!training || gatedByReader(i))) {
      activation[source] = i;
      fused[i] = true;
      home[i] = source;
    } else if (layer.overwritesSource() && free) {
      home[i] = source;
    } else if (isAlias(i)) {
      home[i] = home[source];
    }
  }

  /** Whether a value is wanted by nobody but one layer. */
  private boolean onlyReader(int node) {
    return readers.get(node).size() == 1 && !output[node];
  }

  private boolean gatedByReader(int node) {
    return !readers.get(node).isEmpty() && layers.get(readers.get(node).getFirst()).gates();
  }

  /** Those that read a node, ascending. */
  List<Integer> readers(int node) {
    return readers.get(node);
  }

  boolean isOutput(int node) {
    return output[node];
  }

  /** The node in whose memory a node's value lies: itself, or the one it shares it with. */
  int home(int node) {
    return home[node];
  }

  /** The rectifier fused into a node, or NONE. */
  int activation(int node) {
    return activation[node];
  }

  /** The layer that computes a node along with itself, or NONE. */
  int absorber(int node) {
    return absorber[node];
  }

  /** Whether a node is a rectifier that its source computes. */
  boolean isFused(int node) {
    return fused[node];
  }

  /** Whether a node is another name for its source. */
  boolean isAlias(int node) {
    return !training && layers.get(node).onlyTrains();
  }

  boolean needsGradient(int node) {
    return needsGradient[node];
  }

  /** The rectifier that a node's forward pass ends with; the identity where there is none. */
  Rectifier rectifier(int node) {
    Rectifier rectifier =
        activation[node] == NONE ? null : layers.get(activation[node]).rectifier();
    return rectifier == null ? Rectifier.IDENTITY : rectifier;
  }

  /** The rectifier whose derivative a reader applies to its source's gradient. */
  Rectifier gate(int source, int reader) {
    boolean gates = fused[source] && readers.get(source).getFirst() == reader;
    return gates ? rectifier(home[source]) : Rectifier.IDENTITY;
  }

  /** Whether a reader starts its source's gradient or adds to it. */
  Write write(int source, int reader) {
    return readers.get(source).getLast() == reader && !output[source]
        ? Write.OVERWRITE
        : Write.ACCUMULATE;
  }

  /** Whether a reader's backward pass looks at its source's value. */
  boolean readInBackward(int source, int reader) {
    Layer layer = layers.get(reader);
    boolean reserved = layer.gatesByReserve() && write(source, reader) == Write.OVERWRITE;
    boolean gated = !gate(source, reader).isIdentity();
    return training && !fused[reader] && (layer.backwardReadsSources() || (gated && !reserved));
  }
}
