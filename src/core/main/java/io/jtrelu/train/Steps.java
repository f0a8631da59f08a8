package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import org.jspecify.annotations.Nullable;

/**
 * Takes training steps on a device, pass by pass: what a pass does, and what it measured, apart.
 *
 * <p>A step is one pass or more over batches, whose gradients add up, and an update after the last
 * of them. A pass whose loss is not finite, or a step whose gradient is not, changes neither
 * parameters nor the optimiser's state, nor does anything that was submitted after it, until {@link
 * #forgive}. So a device that works while the host does something else need not wait until the host
 * has looked at a step's figures.
 *
 * <p>Used by one thread at a time.
 */
interface Steps extends AutoCloseable {
  /**
   * One pass.
   *
   * @param first whether it begins a step: gradients are replaced, else they add up
   * @param last whether it ends a step: the update follows
   * @param sequence number that sets the dropout masks
   * @param learningRate of the update
   * @param number of the step, from 1
   */
  record Pass(boolean first, boolean last, long sequence, double learningRate, long number) {}

  /**
   * What a pass measured.
   *
   * @param loss sum of the samples' losses
   * @param correct number of samples whose largest logit is their label's
   * @param norm of the step's gradient before clipping; means something after a last pass only
   */
  record Figures(double loss, int correct, float norm) {}

  /** Takes over the parameters' present values; call it whenever someone else changed them. */
  void load();

  /** Whether images are submitted as bytes, which the device normalises. */
  boolean takesBytes();

  /** Passes that may be under way, their figures not taken, while another one is submitted. */
  int ahead();

  /**
   * Submits a pass.
   *
   * @param images host NHWC [batch, h, w, c], F32, or U8 before normalisation where {@link
   *     #takesBytes}; read before this returns, or (where {@link #ahead} is 0) to stay as they are
   *     until the next pass is submitted
   * @param labels host I32 [batch]
   * @throws IllegalStateException if more than {@link #ahead} passes are under way
   */
  void submit(Tensor images, Tensor labels, Pass pass);

  /**
   * Figures of the oldest pass not yet asked for; waits for it.
   *
   * @throws IllegalStateException if none is under way
   */
  Figures take();

  /**
   * The first layer whose values are not finite in the pass whose figures were taken last, else the
   * first one whose gradient is not; for a message to people, slow.
   *
   * @return its name, or null where all is finite
   */
  @Nullable String firstNonFiniteLayer();

  /** The first layer with a gradient that is not finite, or null where all are. */
  static @Nullable String firstNonFiniteGradient(Backend backend, Parameters gradients) {
    Network network = gradients.network();
    try (Stream stream = backend.newStream();
        Tensor host = Tensor.allocate(gradients.arena().shape(), DataType.F32, Layout.ROW_MAJOR)) {
      backend.copy(stream, gradients.arena(), host);
      stream.synchronize();
      for (ParameterSpec spec : network.parameters()) {
        for (float value :
            host.slice(spec.offset(), spec.shape(), Layout.ROW_MAJOR).toFloatArray()) {
          if (!Float.isFinite(value)) {
            return network.layers().get(spec.layer()).name();
          }
        }
      }
    }
    return null;
  }

  /**
   * Throws away what is under way after a pass that was not finite, and lets updates happen again.
   */
  void forgive();

  /** Bytes of activations held for the backward pass. */
  long activationBytes();

  /** Waits for what is under way and releases all but parameters and optimiser. */
  @Override
  void close();
}
