package io.jtrelu.nn;

import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * What the steps of a program work on in one pass: its tensors and its stream. Nodes are indices of
 * {@link Network#layers}, parameters of {@link Network#parameters}; values and gradients are NHWC,
 * of the program's batch and type, on its device. Valid during a step; used by one thread.
 */
public final class Pass {
  final Tensor[] values;
  final Tensor[] gradients;
  final Tensor[] reserves;
  final Tensor[] signs;
  final Tensor[] exchanges;
  final int part;
  Stream stream;
  Tensor sequence;
  Write write = Write.OVERWRITE;
  @Nullable Parameters parameters;
  @Nullable Parameters parameterGradients;
  @Nullable FisherSamples samples;
  int firstSample;

  Pass(int nodes, int part, Stream stream, Tensor sequence) {
    this.part = part;
    this.exchanges = new Tensor[nodes];
    this.values = new Tensor[nodes];
    this.gradients = new Tensor[nodes];
    this.reserves = new Tensor[nodes];
    this.signs = new Tensor[nodes];
    this.stream = stream;
    this.sequence = sequence;
  }

  /** Where work goes. */
  public Stream stream() {
    return stream;
  }

  /**
   * A node's value. That of a node with a rectifier fused into it is the rectifier's; that of an
   * absorbed node ({@link Layer#absorbs}) does not exist.
   */
  public Tensor value(int node) {
    return values[node];
  }

  /**
   * Gradient of the loss with respect to a node's value, before the rectifier fused into it if
   * there is one.
   */
  public Tensor gradient(int node) {
    return gradients[node];
  }

  /** What {@link Layer#reserve} asked for: NHWC, of the shape of the node's value. */
  public Tensor reserve(int node) {
    return reserves[node];
  }

  /** Signs of a node's value, where {@link Lowering#signs} says so. */
  public Tensor signs(int node) {
    return signs[node];
  }

  /** Which part of the batch passes, from 0. */
  public int part() {
    return part;
  }

  /**
   * What the parts of a batch show each other of a node while they train: F32, {@link
   * Layer#exchanged} values for each part, in whatever order the layer likes.
   */
  public Tensor exchange(int node) {
    return exchanges[node];
  }

  /** A parameter's present values, F32. */
  public Tensor parameter(int parameter) {
    if (parameters == null) {
      throw new IllegalStateException("call load(parameters) before running a program");
    }
    return parameters.view(parameter);
  }

  /** Where a parameter's gradient goes, as {@link #write} says; F32. */
  public Tensor parameterGradient(int parameter) {
    if (parameterGradients == null) {
      throw new IllegalStateException("backward needs somewhere to write gradients");
    }
    return parameterGradients.view(parameter);
  }

  /** Where the rows of a node's inputs go, in a pass for {@link FisherSamples}. */
  public Tensor fisherInputs(int node) {
    return samples().inputs(node, firstSample, values[node].shape().dim(0));
  }

  /** Where the rows of a node's gradients go, in a pass for {@link FisherSamples}. */
  public Tensor fisherGradients(int node) {
    return samples().gradients(node, firstSample, values[node].shape().dim(0));
  }

  private FisherSamples samples() {
    if (samples == null) {
      throw new IllegalStateException("this pass is not for samples of the Fisher matrix");
    }
    return samples;
  }

  /** Whether gradients of parameters replace what is there or add to it. */
  public Write write() {
    return write;
  }

  /** Number of the pass, for random masks: I32 [2], low word first, on the program's device. */
  public Tensor sequence() {
    return sequence;
  }
}
