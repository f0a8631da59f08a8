package io.jtrelu.djl.trunk;

import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.AbstractSymbolBlock;
import ai.djl.nn.ParameterList;
import ai.djl.training.ParameterStore;
import ai.djl.util.PairList;
import io.jtrelu.inference.Prediction;
import io.jtrelu.inference.Predictor;
import io.jtrelu.train.Model;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A trained model as DJL's inference sees it: pixels in, probabilities out. Pixels are UINT8 or
 * INT8 arrays [n, h, w, c] of unsigned bytes, or FLOAT32 [n, c, h, w] in 0..1, as DJL's {@code
 * ToTensor} makes them; either way of the model's size. Probabilities are FLOAT32 [n, classes].
 */
final class PredictorBlock extends AbstractSymbolBlock implements AutoCloseable {
  private static final float LARGEST = 255;

  private final Predictor predictor;

  PredictorBlock(Predictor predictor) {
    this.predictor = predictor;
  }

  Predictor predictor() {
    return predictor;
  }

  @Override
  protected NDList forwardInternal(
      ParameterStore store,
      NDList inputs,
      boolean training,
      @Nullable PairList<String, Object> params) {
    if (training) {
      throw new UnsupportedOperationException(
          "the engine "
              + JtreluEngine.NAME
              + " does not train; use a JtreluBlock and a JtreluTrainer on the engine PyTorch");
    }
    NDArray input = inputs.singletonOrThrow();
    List<byte[]> images = pixels(input);
    int classes = predictor.model().classes().size();
    float[] probabilities = new float[images.size() * classes];
    int row = 0;
    for (Prediction prediction : predictor.predict(images)) {
      for (Prediction.Ranked ranked : prediction.classes()) {
        probabilities[row + ranked.index()] = (float) ranked.probability();
      }
      row += classes;
    }
    return new NDList(input.getManager().create(probabilities, new Shape(images.size(), classes)));
  }

  private List<byte[]> pixels(NDArray input) {
    Model model = predictor.model();
    int height = model.height();
    int width = model.width();
    int channels = model.channels();
    Shape shape = input.getShape();
    DataType type = input.getDataType();
    boolean bytes = type == DataType.UINT8 || type == DataType.INT8;
    Shape image = bytes ? new Shape(height, width, channels) : new Shape(channels, height, width);
    boolean known = bytes || type == DataType.FLOAT32;
    if (!known || shape.dimension() != 4 || !shape.slice(1).equals(image)) {
      throw new IllegalArgumentException(
          "this model reads UINT8 (n, "
              + height
              + ", "
              + width
              + ", "
              + channels
              + ") or FLOAT32 (n, "
              + channels
              + ", "
              + height
              + ", "
              + width
              + ") in 0..1, got "
              + type
              + " "
              + shape
              + "; a JtreluTranslatorFactory brings images of any size and colour to it");
    }
    ByteBuffer buffer = input.toByteBuffer();
    FloatBuffer floats = bytes ? null : buffer.asFloatBuffer();
    int plane = height * width;
    List<byte[]> images = new ArrayList<>();
    for (int n = 0; n < shape.get(0); n++) {
      byte[] pixels = new byte[plane * channels];
      if (floats == null) {
        buffer.get(pixels);
      } else {
        for (int c = 0; c < channels; c++) {
          for (int p = 0; p < plane; p++) {
            pixels[p * channels + c] = (byte) unsigned(floats.get());
          }
        }
      }
      images.add(pixels);
    }
    return images;
  }

  private static int unsigned(float value) {
    if (!(value >= 0 && value <= 1)) {
      throw new IllegalArgumentException(
          "pixels of FLOAT32 must lie in 0..1, got "
              + value
              + ": leave out DJL's Normalize, the model normalises by itself");
    }
    return Math.round(value * LARGEST);
  }

  @Override
  public boolean isInitialized() {
    return true;
  }

  @Override
  public PairList<String, Shape> describeInput() {
    Model model = predictor.model();
    PairList<String, Shape> inputs = new PairList<>();
    inputs.add("pixels", new Shape(-1, model.height(), model.width(), model.channels()));
    return inputs;
  }

  @Override
  public PairList<String, Shape> describeOutput() {
    PairList<String, Shape> outputs = new PairList<>();
    outputs.add("probabilities", new Shape(-1, predictor.model().classes().size()));
    return outputs;
  }

  @Override
  public Shape[] getOutputShapes(Shape[] inputShapes) {
    return new Shape[] {new Shape(inputShapes[0].get(0), predictor.model().classes().size())};
  }

  /** None that DJL could change. */
  @Override
  public ParameterList getDirectParameters() {
    return new ParameterList();
  }

  @Override
  public void close() {
    predictor.close();
  }
}
