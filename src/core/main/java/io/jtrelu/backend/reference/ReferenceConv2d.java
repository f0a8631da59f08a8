package io.jtrelu.backend.reference;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Lifetime;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/**
 * One loop nest over all pairs of a destination element and a kernel tap; each pass says what to do
 * there.
 */
final class ReferenceConv2d extends Conv2d {
  ReferenceConv2d(
      Conv2dDescriptor descriptor, DataType type, Rectifier activation, Rectifier srcActivation) {
    super(Device.CPU, descriptor, type, activation, srcActivation);
  }

  /** A copy of the weights as they were when packed. */
  private static final class Weights implements PackedWeights {
    private final Lifetime lifetime = new Lifetime("packed weights");
    private final Shape shape;
    private float @Nullable [] values;

    Weights(Shape shape) {
      this.shape = shape;
    }

    float[] values() {
      if (values == null) {
        throw new IllegalStateException("these weights were never packed: call Conv2d.pack first");
      }
      return values;
    }

    @Override
    public void close() {
      lifetime.close();
    }
  }

  private Weights own(ReferenceStream on, PackedWeights packed) {
    if (!(packed instanceof Weights own) || !own.shape.equals(descriptor().weights())) {
      throw new OperandException(
          "conv2d " + descriptor() + ": these packed weights were made by another operation");
    }
    on.hold(own.lifetime);
    return own;
  }

  @Override
  protected PackedWeights allocatePackedWeights() {
    return new Weights(descriptor().weights());
  }

  @Override
  protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
    Weights own = own(ReferenceStream.require(stream), packed);
    own.values = Elements.read(weights);
  }

  /**
   * What a pass does at a destination element and a kernel tap that lies within the source: at
   * {@code dst} is one element, at {@code src} and at {@code weights} begin the channels of a
   * group.
   */
  private interface Tap {
    void at(int src, int weights, int dst, int channels);
  }

  private void forEachTap(Tap tap) {
    Conv2dDescriptor d = descriptor();
    int channels = d.ic() / d.groups();
    int groupOutputs = d.oc() / d.groups();
    for (int n = 0; n < d.n(); n++) {
      for (int p = 0; p < d.oh(); p++) {
        for (int q = 0; q < d.ow(); q++) {
          for (int k = 0; k < d.oc(); k++) {
            int dst = ((n * d.oh() + p) * d.ow() + q) * d.oc() + k;
            int firstChannel = k / groupOutputs * channels;
            for (int r = 0; r < d.kh(); r++) {
              int y = p * d.strideH() - d.padTop() + r * d.dilationH();
              for (int s = 0; s < d.kw(); s++) {
                int x = q * d.strideW() - d.padLeft() + s * d.dilationW();
                if (y >= 0 && y < d.h() && x >= 0 && x < d.w()) {
                  int src = ((n * d.h() + y) * d.w() + x) * d.ic() + firstChannel;
                  int weights = ((k * d.kh() + r) * d.kw() + s) * channels;
                  tap.at(src, weights, dst, channels);
                }
              }
            }
          }
        }
      }
    }
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
    float[] w = own(ReferenceStream.require(stream), weights).values();
    float[] x = Elements.read(src);
    float[] b = Elements.read(bias);
    double[] y = Elements.zeros(dst);
    forEachTap(
        (atSrc, atWeights, atDst, channels) -> {
          double sum = 0;
          for (int c = 0; c < channels; c++) {
            sum += (double) x[atSrc + c] * w[atWeights + c];
          }
          y[atDst] += sum;
        });
    for (int i = 0; i < y.length; i++) {
      y[i] = Elements.apply(activation(), y[i] + b[i % b.length]);
    }
    Elements.store(y, dst);
  }

  @Override
  public boolean keepsSigns() {
    return true;
  }

  @Override
  protected void runForwardWithSigns(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst, Tensor signs) {
    runForward(stream, src, weights, bias, dst);
    float[] y = Elements.read(dst);
    int channels = descriptor().oc();
    byte[] bytes = new byte[y.length / 8];
    for (int i = 0; i < y.length; i++) {
      if (y[i] > 0) {
        bytes[signByte(i, channels, y.length)] |= (byte) (1 << i % 8);
      }
    }
    signs.segment().copyFrom(MemorySegment.ofArray(bytes));
  }

  /** Where an element's bit lies; channels are a multiple of 32. */
  private static int signByte(int element, int channels, int elements) {
    int c = element % channels;
    return (c / 32 * (elements / channels) + element / channels) * 4 + c / 8 % 4;
  }

  @Override
  protected void runBackwardDataBySigns(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor signs,
      Tensor diffSrc,
      Write write) {
    byte[] bytes = signs.segment().toArray(ValueLayout.JAVA_BYTE);
    float[] x = new float[Math.toIntExact(diffSrc.shape().elements())];
    for (int i = 0; i < x.length; i++) {
      x[i] = (bytes[signByte(i, descriptor().ic(), x.length)] >> i % 8 & 1) == 1 ? 1 : -1;
    }
    try (Tensor src = Tensor.allocate(descriptor().src(), type(), Layout.NHWC)) {
      runBackwardData(stream, diffDst, weights, src.set(x), diffSrc, write);
    }
  }

  @Override
  protected void runBackwardData(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    float[] w = own(ReferenceStream.require(stream), weights).values();
    float[] dy = Elements.read(diffDst);
    double[] dx = Elements.zeros(diffSrc);
    forEachTap(
        (atSrc, atWeights, atDst, channels) -> {
          double factor = dy[atDst];
          for (int c = 0; c < channels; c++) {
            dx[atSrc + c] += factor * w[atWeights + c];
          }
        });
    Elements.storeGradient(dx, srcActivation(), src, diffSrc, write);
  }

  @Override
  protected void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    ReferenceStream.require(stream);
    float[] x = Elements.read(src);
    float[] dy = Elements.read(diffDst);
    double[] dw = Elements.zeros(diffWeights);
    forEachTap(
        (atSrc, atWeights, atDst, channels) -> {
          double factor = dy[atDst];
          for (int c = 0; c < channels; c++) {
            dw[atWeights + c] += factor * x[atSrc + c];
          }
        });
    double[] db = Elements.zeros(diffBias);
    for (int i = 0; i < dy.length; i++) {
      db[i % db.length] += dy[i];
    }
    Elements.store(dw, diffWeights, write);
    Elements.store(db, diffBias, write);
  }
}
