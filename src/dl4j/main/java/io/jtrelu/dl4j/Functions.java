package io.jtrelu.dl4j;

import io.jtrelu.activation.Activation;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.api.ops.impl.scalar.LeakyReLU;
import org.nd4j.linalg.api.ops.impl.scalar.Step;
import org.nd4j.linalg.api.ops.impl.transforms.strict.Erf;
import org.nd4j.linalg.api.ops.impl.transforms.strict.Expm1;
import org.nd4j.linalg.api.ops.impl.transforms.strict.Log1p;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.ops.transforms.Transforms;

/**
 * The activation functions and their derivatives by operations of ND4J, in forms that neither
 * overflow nor lose more digits than the type has. None changes its argument.
 */
final class Functions {
  private static final double SELU_SCALE = 1.0507009873554805;
  private static final double SELU_ALPHA = 1.6732632423543772;
  private static final double GELU_SCALE = Math.sqrt(2 / Math.PI);
  private static final double GELU_CUBIC = 0.044715;

  /** Beyond it GELU is x or 0. */
  private static final double GELU_SATURATED = 30;

  private Functions() {}

  static INDArray value(Activation function, double slope, INDArray x) {
    return switch (function) {
      case TANH -> Transforms.tanh(x, true);
      case SOFTPLUS ->
          log1p(Transforms.exp(Transforms.abs(x, true).negi(), false)).addi(positive(x));
      case LEAKY_RELU -> Nd4j.exec(new LeakyReLU(x, x.ulike(), slope));
      case RELU -> positive(x);
      case SELU -> positive(x).addi(expm1(negative(x)).muli(SELU_ALPHA)).muli(SELU_SCALE);
      case ELU -> positive(x).addi(expm1(negative(x)));
      case SWISH -> Transforms.sigmoid(x, true).muli(x);
      case SIGMOID -> Transforms.sigmoid(x, true);
      case ERF -> erf(x.dup());
      case BENTID -> x.div(root(x).addi(1).muli(2)).addi(1).muli(x);
      case ATAN -> Transforms.atan(x, true);
      case ASINH -> {
        INDArray y = Transforms.abs(x, true);
        yield log1p(y.div(root(x).addi(1)).addi(1).muli(y)).muli(Transforms.sign(x, true));
      }
      case SQUARE -> x.mul(x);
      case SOFTSIGN -> x.div(Transforms.abs(x, true).addi(1));
      case GELU -> Transforms.sigmoid(geluArgument(clipped(x)), false).muli(x);
      case GELU_EXACT -> normalCdf(x).muli(x);
    };
  }

  /** At a kink the derivative from the left. */
  static INDArray derivative(Activation function, double slope, INDArray x) {
    return switch (function) {
      case TANH -> logisticSlope(x.mul(2)).muli(4);
      case SOFTPLUS -> Transforms.sigmoid(x, true);
      case LEAKY_RELU -> step(x).muli(1 - slope).addi(slope);
      case RELU -> step(x);
      case SELU -> {
        INDArray left = step(x).rsubi(1).muli(SELU_ALPHA).muli(Transforms.exp(negative(x), false));
        yield left.addi(step(x)).muli(SELU_SCALE);
      }
      case ELU -> Transforms.exp(negative(x), false);
      case SWISH -> Transforms.sigmoid(x, true).addi(logisticSlope(x).muli(x));
      case SIGMOID -> logisticSlope(x);
      case ERF -> Transforms.exp(x.mul(x).negi(), false).muli(2 / Math.sqrt(Math.PI));
      case BENTID -> x.div(root(x).muli(2)).addi(1);
      case ATAN -> x.mul(x).addi(1).rdivi(1);
      case ASINH -> root(x).rdivi(1);
      case SQUARE -> x.mul(2);
      case SOFTSIGN -> {
        INDArray t = Transforms.abs(x, true).addi(1).rdivi(1);
        yield t.muli(t);
      }
      case GELU -> {
        INDArray z = clipped(x);
        INDArray u = geluArgument(z);
        INDArray uSlope = z.mul(z).muli(3 * GELU_CUBIC).addi(1).muli(2 * GELU_SCALE);
        INDArray inner = logisticSlope(u).muli(z).muli(uSlope);
        yield Transforms.sigmoid(u, false).addi(inner);
      }
      case GELU_EXACT -> {
        INDArray z = clipped(x);
        INDArray density =
            Transforms.exp(z.mul(z).muli(-0.5), false).muli(1 / Math.sqrt(2 * Math.PI));
        yield normalCdf(z).addi(density.muli(z));
      }
    };
  }

  private static INDArray positive(INDArray x) {
    return Transforms.max(x, 0, true);
  }

  private static INDArray negative(INDArray x) {
    return Transforms.min(x, 0, true);
  }

  private static INDArray clipped(INDArray x) {
    return Transforms.min(Transforms.max(x, -GELU_SATURATED, true), GELU_SATURATED, false);
  }

  /** 1 above zero, else 0. */
  private static INDArray step(INDArray x) {
    return Nd4j.exec(new Step(x.dup(), 0.0));
  }

  /** sqrt(x^2 + 1). */
  private static INDArray root(INDArray x) {
    return Transforms.sqrt(x.mul(x).addi(1), false);
  }

  /** sigma(x) sigma(-x), which does not cancel where 1 - sigma(x) would. */
  private static INDArray logisticSlope(INDArray x) {
    return Transforms.sigmoid(x, true).muli(Transforms.sigmoid(x.neg(), false));
  }

  private static INDArray geluArgument(INDArray x) {
    return x.mul(x).muli(GELU_CUBIC).addi(1).muli(x).muli(2 * GELU_SCALE);
  }

  private static INDArray normalCdf(INDArray x) {
    return erf(x.mul(Math.sqrt(0.5))).addi(1).muli(0.5);
  }

  private static INDArray erf(INDArray x) {
    return Nd4j.exec(new Erf(x, x));
  }

  private static INDArray expm1(INDArray x) {
    return Nd4j.exec(new Expm1(x, x));
  }

  private static INDArray log1p(INDArray x) {
    return Nd4j.exec(new Log1p(x, x));
  }
}
