package io.jtrelu.backend;

import io.jtrelu.backend.Conv2dChain.Gradients;
import io.jtrelu.backend.Conv2dChain.Weights;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.function.Supplier;

/**
 * Operations that only some backends have as one, for {@link HostileCalls}: there by the backend's
 * kernel, on others by their parts, which tells what is right.
 */
final class HostileFusions {
  /** Whole numbers that this multiplies stay whole, so that all backends give the same bits. */
  static final Rectifier PHI = new Rectifier(0.5f, 2);

  private static final DataType BF16 = DataType.BF16;
  private static final Write WRITE = Write.OVERWRITE;

  private HostileFusions() {}

  /** What a call needs beside its operands; closed in the opposite order. */
  abstract static class Parts implements Operation {
    final Backend backend;
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();

    Parts(Backend backend) {
      this.backend = backend;
    }

    final <T extends AutoCloseable> T own(T part) {
      owned.push(part);
      return part;
    }

    /** The operation as one, or null. */
    final <T extends Operation> T prepared(Supplier<T> preparation) {
      try {
        return own(preparation.get());
      } catch (UnsupportedException byItsParts) {
        return null;
      }
    }

    /** Whether the backend has it as one. */
    abstract boolean isWhole();

    final Tensor tensor(Shape shape, DataType type, Layout layout) {
      return own(backend.allocate(shape, type, layout));
    }

    /** An operand's values on the backend. */
    final Tensor tensor(Stream stream, HostileCalls.Operand operand) {
      Tensor to = tensor(operand.shape(), operand.type(), operand.layout());
      try (Tensor host = operand.onHost()) {
        backend.copy(stream, host, to);
        stream.synchronize();
      }
      return to;
    }

    final PackedWeights pack(Stream stream, Conv2d conv, HostileCalls.Operand weights) {
      PackedWeights packed = own(conv.newPackedWeights());
      conv.pack(stream, tensor(stream, weights), packed);
      stream.synchronize();
      return packed;
    }

    /** Stops at what is in use, and goes on there when it is called again. */
    @Override
    public final void close() {
      for (AutoCloseable part : owned) {
        try {
          part.close();
        } catch (RuntimeException refused) {
          throw refused;
        } catch (Exception other) {
          throw new IllegalStateException(other);
        }
      }
    }
  }

  /** Two convolutions. */
  static final class Chain extends Parts {
    final PackedWeights packed;
    private final PackedWeights packedSecond;
    private final Conv2d first;
    private final Conv2d second;
    private final Conv2dChain whole; // or null
    private final Tensor mid;
    private final Tensor diffMid;

    Chain(
        Backend backend,
        Conv2dDescriptor one,
        Conv2dDescriptor two,
        HostileCalls.Operand weights,
        HostileCalls.Operand weightsOfSecond) {
      super(backend);
      first = own(backend.conv2d(one, BF16, PHI, PHI));
      second = own(backend.conv2d(two, BF16, PHI, PHI));
      mid = tensor(one.dst(), BF16, Layout.NHWC);
      diffMid = tensor(one.dst(), BF16, Layout.NHWC);
      try (Stream stream = backend.newStream()) {
        packed = pack(stream, first, weights);
        packedSecond = pack(stream, second, weightsOfSecond);
      }
      whole = prepared(() -> backend.conv2dChain(first, second));
    }

    @Override
    boolean isWhole() {
      return whole != null;
    }

    /** Operands: src, bias of each, dst. */
    void forward(Stream s, Tensor[] t) {
      if (whole != null) {
        whole.forward(s, t[0], new Weights(packed, t[1]), new Weights(packedSecond, t[2]), t[3]);
        return;
      }
      first.forward(s, t[0], packed, t[1], mid);
      second.forward(s, mid, packedSecond, t[2], t[3]);
    }

    /**
     * Operands: src, bias of the first, diff_dst, diff_src, gradients of weights and bias of each.
     */
    void backward(Stream s, Tensor[] t) {
      if (whole != null) {
        whole.backward(
            s,
            t[0],
            t[2],
            new Weights(packed, t[1]),
            packedSecond,
            t[3],
            WRITE,
            new Gradients(t[4], t[5]),
            new Gradients(t[6], t[7]),
            WRITE);
        return;
      }
      first.forward(s, t[0], packed, t[1], mid);
      second.backwardWeights(s, mid, t[2], t[6], t[7], WRITE);
      second.backwardData(s, t[2], packedSecond, mid, diffMid, WRITE);
      first.backwardWeights(s, t[0], diffMid, t[4], t[5], WRITE);
      first.backwardData(s, diffMid, packed, t[0], t[3], WRITE);
    }
  }

  /**
   * A convolution and its pooling; where maxima lie stays here, as each backend keeps it its way.
   */
  static final class Pool extends Parts {
    final PackedWeights packed;
    private final Conv2d convolution;
    private final MaxPool2d pooling;
    private final Conv2dPool whole; // or null
    private final Tensor between;
    private final Tensor diffBetween;
    private final Tensor places;

    Pool(
        Backend backend,
        Conv2dDescriptor d,
        MaxPool2dDescriptor p,
        HostileCalls.Operand src,
        HostileCalls.Operand weights,
        HostileCalls.Operand bias) {
      super(backend);
      convolution = own(backend.conv2d(d, BF16, PHI, Rectifier.IDENTITY));
      pooling = own(backend.maxPool2d(p, BF16, PHI));
      between = tensor(d.dst(), BF16, Layout.NHWC);
      diffBetween = tensor(d.dst(), BF16, Layout.NHWC);
      places = tensor(p.dst(), DataType.U8, Layout.NHWC);
      whole = prepared(() -> backend.conv2dPool(convolution, pooling));
      try (Stream stream = backend.newStream()) {
        packed = pack(stream, convolution, weights);
        Tensor dst = tensor(p.dst(), BF16, Layout.NHWC);
        forward(stream, new Tensor[] {tensor(stream, src), tensor(stream, bias), dst});
        stream.synchronize(); // places are there for the backward pass
      }
    }

    @Override
    boolean isWhole() {
      return whole != null;
    }

    /** Operands: src, bias, dst. */
    void forward(Stream s, Tensor[] t) {
      if (whole != null) {
        whole.forward(s, t[0], packed, t[1], t[2], places);
        return;
      }
      convolution.forward(s, t[0], packed, t[1], between);
      pooling.forward(s, between, t[2], places);
    }

    /** Operands: src, diff_dst, gradients of weights and bias. */
    void backward(Stream s, Tensor[] t) {
      if (whole != null) {
        whole.backwardWeights(s, t[0], t[1], places, t[2], t[3], WRITE);
        return;
      }
      pooling.backward(s, t[1], places, between, diffBetween, WRITE);
      convolution.backwardWeights(s, t[0], diffBetween, t[2], t[3], WRITE);
    }
  }
}
