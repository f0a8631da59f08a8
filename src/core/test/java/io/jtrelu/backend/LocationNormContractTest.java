package io.jtrelu.backend;

import io.jtrelu.backend.LocationNorm.Homogeneous;
import io.jtrelu.backend.LocationNorm.Settings;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Per-location normalisation: both homogeneous channels, bytes and floats. */
class LocationNormContractTest extends Contract {
  /** Each with the edge it hits. */
  private static final List<Shape> SHAPES =
      List.of(
          Shape.of(1, 1, 1, 1), // one value
          Shape.of(0, 2, 2, 3), // empty batch
          Shape.of(3, 28, 28, 1), // grayscale
          Shape.of(2, 32, 32, 3), // colour
          Shape.of(1, 1, 7, 2), // one row
          Shape.of(1, 7, 1, 4), // one column
          Shape.of(2, 3, 5, 15), // tails of channel vectors
          Shape.of(2, 3, 5, 31),
          Shape.of(1, 2, 2, 64),
          Shape.of(1, 2, 3, 257));

  @BeforeEach
  void offered() {
    try (LocationNorm op =
        backend.locationNorm(
            Shape.of(1, 1, 1, 1), DataType.U8, DataType.F32, standard(1, Homogeneous.ONE))) {
      op.settings();
    } catch (UnsupportedException none) {
      Assumptions.abort(none.getMessage());
    }
  }

  private static Settings standard(int channels, Homogeneous homogeneous) {
    return new Settings(
        Collections.nCopies(channels, 0.0), Collections.nCopies(channels, 1.0), homogeneous, 1);
  }

  @TestFactory
  Stream<DynamicTest> shapes() {
    List<Case> cases = new ArrayList<>();
    for (Shape shape : SHAPES) {
      for (DataType type : types()) {
        for (DataType srcType : List.of(DataType.U8, DataType.F32)) {
          String id = "location-norm " + shape + " " + srcType + " " + type;
          SplittableRandom random = new SplittableRandom(id.hashCode());
          cases.add(
              new Case(
                  id,
                  () -> {
                    for (Homogeneous homogeneous : Homogeneous.values()) {
                      check(shape, srcType, type, homogeneous, random);
                    }
                  }));
        }
      }
    }
    return tests(cases.stream());
  }

  @TestFactory
  Stream<DynamicTest> randomShapes() {
    return tests(
        random(
            "location-norm",
            0.2,
            random -> {
              Shape shape =
                  Shape.of(
                      random.nextInt(1, 4),
                      random.nextInt(1, 20),
                      random.nextInt(1, 20),
                      random.nextInt(1, 9));
              check(
                  shape,
                  pick(random, DataType.U8, DataType.F32),
                  pick(random, types()),
                  pick(random, Homogeneous.values()),
                  random);
            }));
  }

  private void check(
      Shape shape,
      DataType srcType,
      DataType type,
      Homogeneous homogeneous,
      SplittableRandom random) {
    int channels = shape.dim(3);
    List<Double> mean = new ArrayList<>();
    List<Double> std = new ArrayList<>();
    for (int k = 0; k < channels; k++) {
      mean.add(random.nextDouble());
      std.add(0.1 + random.nextDouble());
    }
    float scale = (float) (0.25 + random.nextDouble());
    float[] src = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < src.length; i++) {
      src[i] = srcType == DataType.U8 ? random.nextInt(256) : (float) (0.5 + random.nextGaussian());
    }
    compare(shape, srcType, type, new Settings(mean, std, homogeneous, scale), src);
  }

  /** The formula of the class comment. */
  private void compare(
      Shape shape, DataType srcType, DataType type, Settings settings, float[] src) {
    int channels = shape.dim(3);
    int locations = shape.dim(1) * shape.dim(2);
    double[] x = new double[src.length];
    double[] size = new double[src.length]; // of the terms whose difference is x
    for (int i = 0; i < x.length; i++) {
      double value = srcType == DataType.U8 ? src[i] / 255.0 : src[i];
      double mean = settings.mean().get(i % channels);
      double std = settings.std().get(i % channels);
      x[i] = (value - mean) / std;
      size[i] = (Math.abs(value) + Math.abs(mean)) / std;
    }
    int count = shape.dim(0) * locations;
    double[] expected = new double[count * (channels + 1)];
    double[] bound = new double[expected.length];
    for (int p = 0; p < count; p++) {
      double appended = 1;
      if (settings.homogeneous() == Homogeneous.IMAGE_RMS) {
        int image = p / locations;
        double all = 0;
        for (int i = image * locations * channels; i < (image + 1) * locations * channels; i++) {
          all += x[i] * x[i];
        }
        appended = all == 0 ? 1 : Math.sqrt(all / (locations * channels));
      }
      appended *= settings.scale();
      double squares = appended * appended;
      double largest = appended;
      for (int k = 0; k < channels; k++) {
        squares += x[p * channels + k] * x[p * channels + k];
        largest = Math.max(largest, size[p * channels + k]);
      }
      double rms = Math.sqrt(squares / (channels + 1));
      for (int k = 0; k <= channels; k++) {
        int at = p * (channels + 1) + k;
        expected[at] = (k < channels ? x[p * channels + k] : appended) / rms;
        double arithmetic = 16 * 0x1p-24 * (largest / rms + Math.abs(expected[at]));
        bound[at] =
            arithmetic + 0.5 * Data.epsilon(type) * Math.abs(expected[at]) + Data.tiny(type);
      }
    }
    String description = "location-norm " + shape + " " + srcType + " " + type + " " + settings;
    Shape out = Shape.of(shape.dim(0), shape.dim(1), shape.dim(2), channels + 1);
    try (Trial trial = new Trial(backend, description);
        LocationNorm op = backend.locationNorm(shape, srcType, type, settings)) {
      var source = trial.input("src", srcType, shape, Layout.NHWC, src);
      var destination = trial.output("dst", type, out, Layout.NHWC);
      trial.run(stream -> op.forward(stream, source.tensor(), destination.tensor()));
      trial.expectWithin(destination, expected, bound);
    }
  }

  /** Bytes with the constant 1 give the bits that the definition says, on every backend. */
  @TestFactory
  Stream<DynamicTest> bytesBitForBit() {
    return tests(
        random(
            "location-norm bytes",
            0.2,
            random -> {
              int channels = pick(random, 1, 2, 3, 5);
              Shape shape = Shape.of(2, random.nextInt(1, 9), random.nextInt(1, 40), channels);
              DataType type = pick(random, types());
              List<Double> mean = random.doubles(channels).boxed().toList();
              List<Double> std = random.doubles(channels, 0.05, 1).boxed().toList();
              float[] src = new float[Math.toIntExact(shape.elements())];
              for (int i = 0; i < src.length; i++) {
                src[i] = random.nextInt(256);
              }
              int locations = src.length / channels;
              double[] expected = new double[locations * (channels + 1)];
              for (int p = 0; p < locations; p++) {
                float[] x = new float[channels + 1];
                double squares = 1;
                for (int k = 0; k < channels; k++) {
                  x[k] = (float) ((src[p * channels + k] / 255.0 - mean.get(k)) / std.get(k));
                  squares += (double) x[k] * x[k];
                }
                x[channels] = 1;
                double factor = 1 / Math.sqrt(squares / (channels + 1));
                for (int k = 0; k <= channels; k++) {
                  float y = (float) (x[k] * factor);
                  expected[p * (channels + 1) + k] = Data.round(type, y);
                }
              }
              Shape out = Shape.of(2, shape.dim(1), shape.dim(2), channels + 1);
              Settings settings = new Settings(mean, std, Homogeneous.ONE, 1);
              String description = "location-norm bytes " + shape + " " + type + " " + settings;
              try (Trial trial = new Trial(backend, description);
                  LocationNorm op = backend.locationNorm(shape, DataType.U8, type, settings)) {
                var source = trial.input("src", DataType.U8, shape, Layout.NHWC, src);
                var destination = trial.output("dst", type, out, Layout.NHWC);
                trial.run(stream -> op.forward(stream, source.tensor(), destination.tensor()));
                trial.expectExactly(destination, expected);
              }
            }));
  }

  /** Bitwise what comes of images that are cut out, pixel by pixel, beforehand. */
  @TestFactory
  Stream<DynamicTest> windows() {
    return tests(
        random(
            "location-norm windows",
            0.3,
            random -> {
              Shape shape =
                  Shape.of(
                      random.nextInt(0, 5),
                      random.nextInt(1, 14),
                      random.nextInt(1, 14),
                      pick(random, 1, 2, 3, 4));
              checkWindows(
                  shape,
                  pick(random, DataType.U8, DataType.F32),
                  pick(random, types()),
                  pick(random, Homogeneous.values()),
                  random);
            }));
  }

  private void checkWindows(
      Shape shape,
      DataType srcType,
      DataType type,
      Homogeneous homogeneous,
      SplittableRandom random) {
    int n = shape.dim(0);
    int h = shape.dim(1);
    int w = shape.dim(2);
    int channels = shape.dim(3);
    float[] src = new float[Math.toIntExact(shape.elements())];
    for (int i = 0; i < src.length; i++) {
      src[i] = srcType == DataType.U8 ? random.nextInt(256) : (float) random.nextGaussian();
    }
    float[] windows = new float[3 * n];
    float[] cut = new float[src.length];
    for (int image = 0; image < n; image++) {
      int reach = random.nextInt(4) > 0 ? 3 : 20; // sometimes nothing of the image is left
      int dy = random.nextInt(-reach, reach + 1);
      int dx = random.nextInt(-reach, reach + 1);
      boolean flip = random.nextBoolean();
      windows[3 * image] = dy;
      windows[3 * image + 1] = dx;
      windows[3 * image + 2] = flip ? 1 : 0;
      for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
          int fromY = y + dy;
          int fromX = (flip ? w - 1 - x : x) + dx;
          for (int k = 0; k < channels; k++) {
            boolean inside = fromY >= 0 && fromY < h && fromX >= 0 && fromX < w;
            cut[((image * h + y) * w + x) * channels + k] =
                inside ? src[((image * h + fromY) * w + fromX) * channels + k] : 0;
          }
        }
      }
    }
    Settings settings =
        new Settings(
            Collections.nCopies(channels, 0.45),
            Collections.nCopies(channels, 0.3),
            homogeneous,
            0.75f);
    compare(shape, srcType, type, settings, cut);
    Shape out = Shape.of(n, h, w, channels + 1);
    String description = "location-norm windows " + shape + " " + srcType + " " + type;
    try (Trial trial = new Trial(backend, description);
        LocationNorm op = backend.locationNorm(shape, srcType, type, settings)) {
      var whole = trial.input("src", srcType, shape, Layout.NHWC, src);
      var beforehand = trial.input("cut", srcType, shape, Layout.NHWC, cut);
      var window = trial.input("windows", DataType.I32, op.windows(), Layout.ROW_MAJOR, windows);
      var destination = trial.output("dst", type, out, Layout.NHWC);
      var expected = trial.output("expected", type, out, Layout.NHWC);
      trial.run(
          stream -> {
            op.forward(stream, whole.tensor(), window.tensor(), destination.tensor());
            op.forward(stream, beforehand.tensor(), expected.tensor());
          });
      trial.expectExactly(destination, Data.wide(expected.values()));
    }
  }

  /** Offsets at the ends of their range. */
  @Test
  void windowsFarAway() {
    Shape shape = Shape.of(4, 2, 3, 1);
    float[] far = {Integer.MIN_VALUE, 0, 0, 0, 0x7fffff80, 1, 0, Integer.MIN_VALUE, 1, 0, 0, 0};
    float[] src = new float[24];
    double[] expected = new double[48];
    for (int i = 0; i < 24; i++) {
      src[i] = 1;
      expected[2 * i] = i < 18 ? 0 : 1; // black: (0, 1), else (1, 1), of mean square 1
      expected[2 * i + 1] = i < 18 ? Math.sqrt(2) : 1;
    }
    double[] bound = new double[48];
    Arrays.fill(bound, 0x1p-22);
    try (Trial trial = new Trial(backend, "location-norm windows far away");
        LocationNorm op =
            backend.locationNorm(shape, DataType.F32, DataType.F32, standard(1, Homogeneous.ONE))) {
      var source = trial.input("src", DataType.F32, shape, Layout.NHWC, src);
      var window = trial.input("windows", DataType.I32, op.windows(), Layout.ROW_MAJOR, far);
      var destination = trial.output("dst", DataType.F32, Shape.of(4, 2, 3, 2), Layout.NHWC);
      trial.run(
          stream -> op.forward(stream, source.tensor(), window.tensor(), destination.tensor()));
      trial.expectWithin(destination, expected, bound);
    }
  }

  /** Squares of finite values may be beyond the range of binary32. */
  @Test
  void largeAndSmallValues() {
    for (float factor : new float[] {1e30f, 1e-30f}) {
      float[] src = {3 * factor, -4 * factor, 0};
      Settings settings = standard(3, Homogeneous.IMAGE_RMS);
      compare(Shape.of(1, 1, 1, 3), DataType.F32, DataType.F32, settings, src);
    }
  }

  /** Numbers whose arithmetic is exact: all of a location alike, the appended channel too. */
  @Test
  void exactValues() {
    for (DataType type : types()) {
      exact(type, standard(3, Homogeneous.ONE), new float[] {1, -1, 1}, new double[] {1, -1, 1, 1});
      exact(
          type,
          standard(3, Homogeneous.IMAGE_RMS),
          new float[] {4, -4, 4},
          new double[] {1, -1, 1, 1});
      exact(
          type,
          new Settings(List.of(1.0, 1.0, 1.0), List.of(2.0, 2.0, 2.0), Homogeneous.ONE, 4),
          new float[] {9, 9, -7},
          new double[] {1, 1, -1, 1});
      // Nothing but zeros: the appended channel is all there is.
      for (Homogeneous homogeneous : Homogeneous.values()) {
        exact(type, standard(3, homogeneous), new float[3], new double[] {0, 0, 0, 2});
      }
    }
  }

  private void exact(DataType type, Settings settings, float[] src, double[] expected) {
    Shape shape = Shape.of(1, 1, 1, 3);
    try (Trial trial = new Trial(backend, "location-norm exact " + type + " " + settings);
        LocationNorm op = backend.locationNorm(shape, DataType.F32, type, settings)) {
      var source = trial.input("src", DataType.F32, shape, Layout.NHWC, src);
      var destination = trial.output("dst", type, Shape.of(1, 1, 1, 4), Layout.NHWC);
      trial.run(stream -> op.forward(stream, source.tensor(), destination.tensor()));
      trial.expectExactly(destination, expected);
    }
  }

  /** One bright pixel in a black image; the black ones have a mean square of 1 as well. */
  @Test
  void locationsOfZeros() {
    float[] src = new float[5 * 4 * 3];
    src[17] = 255;
    for (Homogeneous homogeneous : Homogeneous.values()) {
      compare(Shape.of(1, 5, 4, 3), DataType.U8, DataType.F32, standard(3, homogeneous), src);
    }
  }

  @Test
  void refusals() {
    Refusals refusals = new Refusals(backend);
    Shape shape = Shape.of(2, 3, 3, 2);
    Settings settings = standard(2, Homogeneous.ONE);
    LocationNorm op = backend.locationNorm(shape, DataType.F32, DataType.F32, settings);
    try (var stream = backend.newStream();
        Tensor src = backend.allocate(shape, DataType.F32, Layout.NHWC);
        Tensor dst = backend.allocate(op.dst(), DataType.F32, Layout.NHWC);
        Tensor windows = backend.allocate(op.windows(), DataType.I32, Layout.ROW_MAJOR)) {
      refusals.require("src", src, bad -> op.forward(stream, bad, dst));
      refusals.require("dst", dst, bad -> op.forward(stream, src, bad));
      refusals.require("windows", windows, bad -> op.forward(stream, src, bad, dst));
      Refusals.requireMessage(
          OperandException.class,
          () -> op.forward(stream, dst.slice(0, shape, Layout.NHWC), dst),
          "overlap");
      Refusals.requireClosing(op, () -> op.forward(stream, src, dst));
    }
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () ->
            backend
                .locationNorm(Shape.of(1, 1, 1, 3), DataType.F32, DataType.F32, settings)
                .close(),
        "2 channels");
    Refusals.requireMessage(
        UnsupportedException.class,
        () -> backend.locationNorm(shape, DataType.I32, DataType.F32, settings).close(),
        "I32");
    Refusals.requireMessage(
        UnsupportedException.class,
        () -> backend.locationNorm(shape, DataType.U8, DataType.U8, settings).close(),
        "U8");
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () -> new Settings(List.of(0.0), List.of(0.0), Homogeneous.ONE, 1),
        "std");
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () -> new Settings(List.of(0.0), List.of(1.0, 1.0), Homogeneous.ONE, 1),
        "1 and 2");
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () -> new Settings(List.of(0.0), List.of(1.0), Homogeneous.ONE, Float.NaN),
        "scale");
  }
}
