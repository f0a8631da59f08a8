package io.jtrelu.djl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.Parameter;
import ai.djl.nn.SequentialBlock;
import ai.djl.nn.convolutional.Conv2d;
import ai.djl.nn.core.Linear;
import java.util.Arrays;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class DeltaInitializerTest {
  private final NDManager manager = NDManager.newBaseManager();

  @AfterEach
  void close() {
    manager.close();
  }

  private NDArray weights(DeltaInitializer initializer, long... shape) {
    return initializer.initialize(manager, new Shape(shape), DataType.FLOAT32);
  }

  @Test
  void aConvolutionIsOrthogonalAtItsCentreAndZeroElsewhere() {
    NDArray kernel = weights(new DeltaInitializer(1, 0.5), 6, 6, 3, 5);
    NDArray centre = kernel.get(":, :, 1, 2");
    orthonormalColumns(centre.div(0.5));
    // The other taps add nothing to the squares of a 6x6 orthogonal matrix times 1/2.
    assertEquals(6 * 0.25, kernel.square().sum().getFloat(), 1e-5);
  }

  @Test
  void oneToThreeSpatialAxesHaveTheirCentre() {
    DeltaInitializer initializer = new DeltaInitializer(1);
    orthonormalColumns(weights(initializer, 4, 4, 3).get(":, :, 1"));
    orthonormalColumns(weights(initializer, 4, 4, 3, 1, 5).get(":, :, 1, 0, 2"));
  }

  @Test
  void aLinearLayerKeepsTheMeanSquare() {
    // Rows of a wide matrix are orthonormal; columns of a tall one are so times sqrt(out / in).
    orthonormalColumns(weights(new DeltaInitializer(1), 3, 8).transpose());
    orthonormalColumns(weights(new DeltaInitializer(1), 8, 2).div(2));
  }

  private void orthonormalColumns(NDArray matrix) {
    NDArray gram = matrix.transpose().matMul(matrix);
    NDArray identity = manager.eye((int) gram.getShape().get(0));
    float difference = gram.sub(identity).abs().max().getFloat();
    assertTrue(difference <= 2e-6, () -> "columns are not orthonormal, by " + difference);
  }

  @Test
  void eachGroupHasAMatrixOfItsOwn() {
    DeltaInitializer initializer = new DeltaInitializer(1).withGroups(2);
    NDArray centre = weights(initializer, 6, 3, 3, 3).get(":, :, 1, 1");
    orthonormalColumns(centre.get("0:3"));
    orthonormalColumns(centre.get("3:6"));
    assertFalse(centre.get("0:3").contentEquals(centre.get("3:6")));
    // Depthwise: one weight a channel, whose square is 1.
    NDArray depthwise = weights(new DeltaInitializer(1).withGroups(5), 5, 1, 3, 3);
    assertArrayEquals(
        new float[] {1, 1, 1, 1, 1}, depthwise.get(":, 0, 1, 1").abs().toFloatArray(), 1e-6f);
  }

  @Test
  void equalShapesDifferAndEqualSeedsRepeat() {
    float[][] weights = initialized(new DeltaInitializer(7));
    assertFalse(Arrays.equals(weights[0], weights[1]));
    float[][] again = initialized(new DeltaInitializer(7));
    assertArrayEquals(weights[0], again[0]);
    assertArrayEquals(weights[1], again[1]);
    assertArrayEquals(weights[2], again[2]);
    assertFalse(Arrays.equals(weights[0], initialized(new DeltaInitializer(8))[0]));
  }

  /** Two convolutions of one shape and a linear layer. */
  private float[][] initialized(DeltaInitializer initializer) {
    SequentialBlock net =
        new SequentialBlock()
            .add(convolution())
            .add(convolution())
            .add(ai.djl.nn.Blocks.batchFlattenBlock())
            .add(Linear.builder().setUnits(3).build());
    net.setInitializer(initializer, Parameter.Type.WEIGHT);
    net.initialize(manager, DataType.FLOAT32, new Shape(1, 4, 5, 5));
    return net.getParameters().values().stream()
        .filter(parameter -> parameter.getType() == Parameter.Type.WEIGHT)
        .map(parameter -> parameter.getArray().toFloatArray())
        .toArray(float[][]::new);
  }

  private static Conv2d convolution() {
    return Conv2d.builder()
        .setFilters(4)
        .setKernelShape(new Shape(3, 3))
        .optPadding(new Shape(1, 1))
        .build();
  }

  @Test
  void sixteenBitWeightsAreTheRoundedOnes() {
    NDArray single = weights(new DeltaInitializer(3), 4, 4);
    NDArray half = new DeltaInitializer(3).initialize(manager, new Shape(4, 4), DataType.FLOAT16);
    assertEquals(single.toType(DataType.FLOAT16, true), half);
  }

  @Test
  void whatHasNoMatrixIsRefused() {
    DeltaInitializer initializer = new DeltaInitializer(1);
    Exception bias = assertThrows(IllegalArgumentException.class, () -> weights(initializer, 8));
    assertTrue(String.valueOf(bias.getMessage()).contains("Parameter.Type.WEIGHT"));
    assertThrows(IllegalArgumentException.class, () -> weights(initializer, 8, 8, 2, 2));
    assertThrows(
        IllegalArgumentException.class,
        () -> initializer.initialize(manager, new Shape(2, 2), DataType.INT32));
    assertThrows(IllegalArgumentException.class, () -> new DeltaInitializer(1, Double.NaN));
    assertThrows(IllegalArgumentException.class, () -> initializer.withGroups(0));
  }
}
