package io.jtrelu.nn;

import static io.jtrelu.nn.Fusion.NONE;

import io.jtrelu.tensor.DataType;
import java.util.Arrays;

/**
 * Where the values, their signs, gradients and reserves of a pass lie in one block, by their
 * lifetimes. What is kept for the whole batch has no place here: {@link LateGradients} holds it.
 * Time is counted in layers: forward passes at 0..n-1, the outside (loss, output gradients) at n,
 * backward passes of layers n-1..1 at n+1..2n-1, the end at 2n.
 */
final class Placement {
  private final Fusion fusion;
  private final int batch;
  private final DataType type;
  private final int outside;
  private final MemoryPlan plan = new MemoryPlan();
  private final int[] value;
  private final int[] gradient;
  private final int[] reserve;
  private final int[] signs;
  private final boolean[] held;
  private final boolean twice;
  private long heldBytes;

  /**
   * @param loss whether the gradient of the outputs is written even outside of training
   * @param twice whether there may be a second backward pass, which needs the same values
   */
  Placement(Fusion fusion, int batch, DataType type, boolean loss, boolean twice) {
    this.fusion = fusion;
    this.batch = batch;
    this.type = type;
    int count = fusion.layers.size();
    this.outside = count;
    this.twice = twice;
    this.value = none(count);
    this.gradient = none(count);
    this.reserve = none(count);
    this.signs = none(count);
    this.held = new boolean[count];
    int[] lastUse = lastUses();
    boolean[] output = new boolean[count];
    for (int i = 0; i < count; i++) {
      output[fusion.home(i)] |= fusion.isOutput(i);
    }
    for (int i = 0; i < count; i++) {
      addValue(i, lastUse[i], output[i]);
      addReserve(i);
      addSigns(i);
      addGradient(i, loss);
    }
    plan.solve();
  }

  private static int[] none(int count) {
    int[] slots = new int[count];
    Arrays.fill(slots, NONE);
    return slots;
  }

  private int backwardTime(int node) {
    return 2 * outside - fusion.runsWith(node);
  }

  private long elements(int node) {
    return batch * fusion.layers.get(node).extent().elements();
  }

  /** For each home the last time at which its value is read by a layer. */
  private int[] lastUses() {
    int[] lastUse = new int[outside];
    for (int i = 0; i < outside; i++) {
      int last = i;
      for (int reader : fusion.readers(i)) {
        last = Math.max(last, Math.max(fusion.runsWith(reader), fusion.absorber(reader)));
        if (fusion.readInBackward(i, reader)) {
          last = Math.max(last, backwardTime(reader));
        }
      }
      Layer layer = fusion.layers.get(i);
      if (fusion.training && !fusion.isFused(i) && layer.backwardReadsResult()) {
        last = Math.max(last, backwardTime(i));
      }
      int at = fusion.home(i);
      lastUse[at] = Math.max(lastUse[at], last);
    }
    return lastUse;
  }

  private void addValue(int i, int lastUse, boolean output) {
    if (fusion.home(i) != i || i == 0 || fusion.upper(i) != NONE) {
      return;
    }
    long bytes = elements(i) * type.bytes();
    held[i] = lastUse > outside;
    if (fusion.isValueKept(i)) {
      return;
    }
    heldBytes += held[i] ? bytes : 0;
    value[i] = plan.add(bytes, i, output || (twice && held[i]) ? backwardTime(0) : lastUse);
  }

  private void addReserve(int i) {
    DataType reserved = fusion.layers.get(i).reserve();
    if (reserved != null) {
      long bytes = elements(i) * reserved.bytes();
      reserve[i] = plan.add(bytes, i, fusion.training ? backwardTime(twice ? 0 : i) : i);
      heldBytes += fusion.training ? bytes : 0;
    }
  }

  private void addSigns(int i) {
    if (fusion.leavesSigns(i)) {
      long bytes = elements(i) / 8;
      signs[i] = plan.add(bytes, i, backwardTime(twice ? 0 : fusion.gatingReader(i)));
      heldBytes += bytes;
    }
  }

  private void addGradient(int i, boolean loss) {
    if (fusion.isFused(i) || fusion.upper(i) != NONE || fusion.isGradientKept(i)) {
      return;
    }
    // A fused pair shares one gradient: that of the rectifier, once it is gated.
    int read = fusion.activation(i) == NONE ? i : fusion.activation(i);
    boolean output = fusion.isOutput(read);
    long bytes = elements(i) * type.bytes();
    if (!fusion.training) {
      if (output && loss) {
        gradient[i] = plan.add(bytes, outside, outside);
      }
    } else if (output || fusion.needsGradient(i)) {
      int from = output ? outside : backwardTime(fusion.readers(read).getLast());
      gradient[i] = plan.add(bytes, from, backwardTime(i));
    }
  }

  /** Slot of a node's value; NONE for the input, whose memory is the caller's, and if kept. */
  int value(int node) {
    return value[fusion.home(node)];
  }

  /** Slot of a node's gradient, or NONE, also if it is kept. */
  int gradient(int node) {
    return gradient[fusion.isFused(node) ? fusion.home(node) : node];
  }

  /** Slot of a node's reserve, or NONE. */
  int reserve(int node) {
    return reserve[node];
  }

  /** Slot of the signs of a node's value, or NONE. */
  int signs(int node) {
    return signs[node];
  }

  /** Byte offset of a slot in the block. */
  long offset(int slot) {
    return plan.offset(slot);
  }

  /** Whether a node's memory is its own, and its value is there after the forward pass. */
  boolean isHeld(int node) {
    return held[node];
  }

  /** Bytes held from the forward pass for the backward one. */
  long heldBytes() {
    return heldBytes;
  }

  /** Size of the block in bytes. */
  long bytes() {
    return plan.size();
  }
}
