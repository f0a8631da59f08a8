import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.random.DeltaKernel;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Tensor;
import java.nio.ByteBuffer;

/** One convolution with bias and tailored rectifier, on memory that is one's own. */
public final class FusedConvolution {
  public static void main(String[] arguments) {
    Conv2dDescriptor d = Conv2dDescriptor.of(1, 28, 28, 32, 64, 3, 1, 1);
    ByteBuffer image = ByteBuffer.allocateDirect(28 * 28 * 32 * Float.BYTES);
    try (Backend backend = Backends.open("cpu");
        Stream stream = backend.newStream();
        Conv2d conv =
            backend.conv2d(d, DataType.F32, Rectifier.tailored(0.4f), Rectifier.IDENTITY);
        PackedWeights packed = conv.newPackedWeights();
        Tensor weights = backend.allocate(d.weights(), DataType.F32, Layout.KRSC);
        Tensor bias = backend.allocate(d.bias(), DataType.F32, Layout.ROW_MAJOR);
        Tensor dst = backend.allocate(d.dst(), DataType.F32, Layout.NHWC)) {
      Tensor src = Tensor.wrap(image, d.src(), DataType.F32, Layout.NHWC); // no copy
      backend.fill(stream, src, 1);
      weights.set(DeltaKernel.of(64, 32, 3, 3).krsc(1, 7, 0));
      conv.pack(stream, weights, packed);
      conv.forward(stream, src, packed, bias, dst);
      stream.synchronize();
      double square = 0;
      for (float y : dst.toFloatArray()) {
        square += y * y;
      }
      System.out.printf("mean square %.3f%n", square / d.dst().elements());
    }
  }
}
