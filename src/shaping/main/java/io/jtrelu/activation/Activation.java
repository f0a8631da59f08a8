package io.jtrelu.activation;

import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * The activation functions of the official package (google-deepmind/dks), under its names, with
 * first and second derivatives that neither overflow nor cancel at any double.
 */
public enum Activation implements ActivationFunction {
  /** tanh x. */
  TANH {
    @Override
    public boolean derivativeFollowsFromValue() {
      return true;
    }

    @Override
    public double derivativeFromValue(double y) {
      return (1 - y) * (1 + y);
    }

    @Override
    public double value(double x) {
      return Math.tanh(x);
    }

    @Override
    public double derivative(double x) {
      double s = Math.exp(-2 * Math.abs(x));
      return 4 * s / ((1 + s) * (1 + s));
    }

    @Override
    public double secondDerivative(double x) {
      return -2 * Math.tanh(x) * derivative(x);
    }
  },

  /** log(1 + exp x). */
  SOFTPLUS {
    @Override
    public boolean derivativeFollowsFromValue() {
      return true;
    }

    @Override
    public double derivativeFromValue(double y) {
      return -Math.expm1(-y);
    }

    @Override
    public double value(double x) {
      return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
    }

    @Override
    public double derivative(double x) {
      return logistic(x);
    }

    @Override
    public double secondDerivative(double x) {
      return logisticSlope(x);
    }
  },

  /** max(x, 0) + a min(x, 0), here with a = 0.01; a shaped one has its own slope. */
  LEAKY_RELU(Corner.FIRST_DERIVATIVE) {
    @Override
    public double value(double x) {
      return x >= 0 ? x : DEFAULT_NEGATIVE_SLOPE * x;
    }

    @Override
    public double derivative(double x) {
      return x > 0 ? 1 : DEFAULT_NEGATIVE_SLOPE;
    }

    @Override
    public double secondDerivative(double x) {
      return 0;
    }
  },

  /** max(x, 0). */
  RELU(Corner.FIRST_DERIVATIVE) {
    @Override
    public double value(double x) {
      return Math.max(x, 0);
    }

    @Override
    public double derivative(double x) {
      return x > 0 ? 1 : 0;
    }

    @Override
    public double secondDerivative(double x) {
      return 0;
    }
  },

  /** {@link #ELU} with the scale and alpha of self-normalising networks (arXiv 1706.02515). */
  SELU(Corner.FIRST_DERIVATIVE) {
    @Override
    public boolean derivativeFollowsFromValue() {
      return true;
    }

    @Override
    public double derivativeFromValue(double y) {
      return y > 0 ? SELU_SCALE : y + SELU_SCALE * SELU_ALPHA;
    }

    @Override
    public double value(double x) {
      return SELU_SCALE * (x >= 0 ? x : SELU_ALPHA * Math.expm1(x));
    }

    @Override
    public double derivative(double x) {
      return SELU_SCALE * (x > 0 ? 1 : SELU_ALPHA * Math.exp(x));
    }

    @Override
    public double secondDerivative(double x) {
      return SELU_SCALE * (x >= 0 ? 0 : SELU_ALPHA * Math.exp(x));
    }
  },

  /** x for x >= 0, else exp x - 1. Its second derivative jumps at 0, the first does not. */
  ELU(Corner.SECOND_DERIVATIVE) {
    @Override
    public boolean derivativeFollowsFromValue() {
      return true;
    }

    @Override
    public double derivativeFromValue(double y) {
      return y > 0 ? 1 : y + 1;
    }

    @Override
    public double value(double x) {
      return x >= 0 ? x : Math.expm1(x);
    }

    @Override
    public double derivative(double x) {
      return x >= 0 ? 1 : Math.exp(x);
    }

    @Override
    public double secondDerivative(double x) {
      return x >= 0 ? 0 : Math.exp(x);
    }

    @Override
    public void evaluate(double x, double[] dst) {
      double s = x >= 0 ? 1 : Math.exp(x);
      dst[0] = x >= 0 ? x : Math.expm1(x);
      dst[1] = s;
      dst[2] = x >= 0 ? 0 : s;
    }
  },

  /** x times the logistic function, also called SiLU. */
  SWISH {
    @Override
    public double value(double x) {
      return x < -SATURATED ? -0.0 : x * logistic(x);
    }

    @Override
    public double derivative(double x) {
      if (Math.abs(x) > SATURATED) {
        return x > 0 ? 1 : 0;
      }
      return logistic(x) + x * logisticSlope(x);
    }

    @Override
    public double secondDerivative(double x) {
      if (Math.abs(x) > SATURATED) {
        return 0;
      }
      return logisticSlope(x) * (2 - x * (2 * logistic(x) - 1));
    }

    @Override
    public void evaluate(double x, double[] dst) {
      if (Math.abs(x) > SATURATED) {
        super.evaluate(x, dst);
        return;
      }
      double s = Math.exp(-Math.abs(x));
      double logistic = (x >= 0 ? 1 : s) / (1 + s);
      double slope = s / ((1 + s) * (1 + s));
      dst[0] = x * logistic;
      dst[1] = logistic + x * slope;
      dst[2] = slope * (2 - x * (2 * logistic - 1));
    }
  },

  /** 1 / (1 + exp(-x)). */
  SIGMOID {
    @Override
    public boolean derivativeFollowsFromValue() {
      return true;
    }

    @Override
    public double derivativeFromValue(double y) {
      return y * (1 - y);
    }

    @Override
    public double value(double x) {
      return logistic(x);
    }

    @Override
    public double derivative(double x) {
      return logisticSlope(x);
    }

    @Override
    public double secondDerivative(double x) {
      return -logisticSlope(x) * Math.tanh(x / 2);
    }
  },

  /** erf x. */
  ERF {
    @Override
    public double value(double x) {
      return ErrorFunction.erf(x);
    }

    @Override
    public double derivative(double x) {
      return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x);
    }

    @Override
    public double secondDerivative(double x) {
      return Math.abs(x) > SATURATED ? 0 : -2 * x * derivative(x);
    }
  },

  /** Bent identity, (sqrt(x^2 + 1) - 1) / 2 + x. */
  BENTID {
    @Override
    public double value(double x) {
      if (Math.abs(x) > SQUARE_IS_EXACT) {
        return x + (Math.abs(x) - 1) / 2;
      }
      return x + x * x / (2 * (root(x) + 1));
    }

    @Override
    public double derivative(double x) {
      return 1 + x / (2 * root(x));
    }

    @Override
    public double secondDerivative(double x) {
      double h = 1 / root(x);
      return h * h * h / 2;
    }
  },

  /** arctan x. */
  ATAN {
    @Override
    public double value(double x) {
      return Math.atan(x);
    }

    @Override
    public double derivative(double x) {
      return 1 / (1 + x * x);
    }

    @Override
    public double secondDerivative(double x) {
      double d = derivative(x);
      return -2 * (x * d) * d;
    }
  },

  /** Inverse hyperbolic sine, log(x + sqrt(x^2 + 1)). */
  ASINH {
    @Override
    public double value(double x) {
      double y = Math.abs(x);
      double result =
          y > SQUARE_IS_EXACT ? Math.log(y) + LOG_2 : Math.log1p(y + y * y / (1 + root(y)));
      return Math.copySign(result, x);
    }

    @Override
    public double derivative(double x) {
      return 1 / root(x);
    }

    @Override
    public double secondDerivative(double x) {
      double h = 1 / root(x);
      return -(x * h) * h * h;
    }
  },

  /** x^2. */
  SQUARE {
    @Override
    public double value(double x) {
      return x * x;
    }

    @Override
    public double derivative(double x) {
      return 2 * x;
    }

    @Override
    public double secondDerivative(double x) {
      return 2;
    }
  },

  /** x / (1 + |x|). Its second derivative jumps at 0, the first does not. */
  SOFTSIGN(Corner.SECOND_DERIVATIVE) {
    @Override
    public boolean derivativeFollowsFromValue() {
      return true;
    }

    @Override
    public double derivativeFromValue(double y) {
      return (1 - Math.abs(y)) * (1 - Math.abs(y));
    }

    @Override
    public double value(double x) {
      return x / (1 + Math.abs(x));
    }

    @Override
    public double derivative(double x) {
      double t = 1 / (1 + Math.abs(x));
      return t * t;
    }

    @Override
    public double secondDerivative(double x) {
      double t = 1 / (1 + Math.abs(x));
      return (x >= 0 ? -2 : 2) * t * t * t;
    }
  },

  /** GELU by tanh, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
  GELU {
    @Override
    public double value(double x) {
      if (Math.abs(x) > GELU_SATURATED) {
        return x > 0 ? x : -0.0;
      }
      return x * logistic(argument(x));
    }

    @Override
    public double derivative(double x) {
      if (Math.abs(x) > GELU_SATURATED) {
        return x > 0 ? 1 : 0;
      }
      double u = argument(x);
      return logistic(u) + x * logisticSlope(u) * argumentSlope(x);
    }

    @Override
    public double secondDerivative(double x) {
      if (Math.abs(x) > GELU_SATURATED) {
        return 0;
      }
      double u = argument(x);
      double slope = argumentSlope(x);
      double curvature = 12 * GELU_SCALE * GELU_CUBIC * x;
      return logisticSlope(u)
          * (2 * slope + x * (curvature - (2 * logistic(u) - 1) * slope * slope));
    }

    @Override
    public void evaluate(double x, double[] dst) {
      if (Math.abs(x) > GELU_SATURATED) {
        super.evaluate(x, dst);
        return;
      }
      double u = argument(x);
      double slope = argumentSlope(x);
      double s = Math.exp(-Math.abs(u));
      double logistic = (u >= 0 ? 1 : s) / (1 + s);
      double logisticSlope = s / ((1 + s) * (1 + s));
      double curvature = 12 * GELU_SCALE * GELU_CUBIC * x;
      dst[0] = x * logistic;
      dst[1] = logistic + x * logisticSlope * slope;
      dst[2] = logisticSlope * (2 * slope + x * (curvature - (2 * logistic - 1) * slope * slope));
    }

    private double argument(double x) {
      return 2 * GELU_SCALE * (x + GELU_CUBIC * x * x * x);
    }

    private double argumentSlope(double x) {
      return 2 * GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x);
    }
  },

  /** GELU, x Phi(x) with Phi the normal distribution function. */
  GELU_EXACT {
    @Override
    public double value(double x) {
      return x < -NORMAL_SATURATED ? -0.0 : x * ErrorFunction.normalCdf(x);
    }

    @Override
    public double derivative(double x) {
      if (Math.abs(x) > NORMAL_SATURATED) {
        return x > 0 ? 1 : 0;
      }
      return ErrorFunction.normalCdf(x) + x * ErrorFunction.normalDensity(x);
    }

    @Override
    public double secondDerivative(double x) {
      return Math.abs(x) > NORMAL_SATURATED ? 0 : (2 - x * x) * ErrorFunction.normalDensity(x);
    }

    @Override
    public void evaluate(double x, double[] dst) {
      if (Math.abs(x) > NORMAL_SATURATED) {
        super.evaluate(x, dst);
        return;
      }
      double cdf = ErrorFunction.normalCdf(x);
      double density = ErrorFunction.normalDensity(x);
      dst[0] = x * cdf;
      dst[1] = cdf + x * density;
      dst[2] = (2 - x * x) * density;
    }
  };

  /** The slope of {@link #LEAKY_RELU} where no other is given. */
  public static final double DEFAULT_NEGATIVE_SLOPE = 0.01;

  private static final double SELU_SCALE = 1.0507009873554805;
  private static final double SELU_ALPHA = 1.6732632423543772;
  private static final double GELU_SCALE = Math.sqrt(2 / Math.PI);
  private static final double GELU_CUBIC = 0.044715;
  private static final double LOG_2 = Math.log(2);

  /** Beyond it exp(-|x|) is zero. */
  private static final double SATURATED = 800;

  /** Beyond it the logistic function of GELU's argument is 0 or 1. */
  private static final double GELU_SATURATED = 30;

  /** Beyond it the normal density is zero. */
  private static final double NORMAL_SATURATED = 40;

  /** Beyond it x^2 + 1 rounds to x^2. */
  private static final double SQUARE_IS_EXACT = 1e8;

  /** The lowest derivative that jumps at 0. */
  private enum Corner {
    NONE,
    FIRST_DERIVATIVE,
    SECOND_DERIVATIVE
  }

  private final Corner corner;

  Activation() {
    this(Corner.NONE);
  }

  Activation(Corner corner) {
    this.corner = corner;
  }

  /**
   * The activation of that name.
   *
   * @throws IllegalArgumentException if there is none; the message lists the names
   */
  public static Activation named(String name) {
    for (Activation activation : values()) {
      if (activation.activationName().equals(name)) {
        return activation;
      }
    }
    throw new IllegalArgumentException(
        "there is no activation '" + name + "'; known are " + String.join(", ", names()));
  }

  /** All names, in the order of the constants. */
  public static List<String> names() {
    return Arrays.stream(values()).map(Activation::activationName).toList();
  }

  @Override
  public String activationName() {
    return name().toLowerCase(Locale.ROOT);
  }

  @Override
  public double[] breakpoints() {
    return corner == Corner.NONE ? new double[0] : new double[] {0};
  }

  @Override
  public boolean isKinked() {
    return corner == Corner.FIRST_DERIVATIVE;
  }

  private static double logistic(double x) {
    if (x >= 0) {
      return 1 / (1 + Math.exp(-x));
    }
    double s = Math.exp(x);
    return s / (1 + s);
  }

  private static double logisticSlope(double x) {
    double s = Math.exp(-Math.abs(x));
    return s / ((1 + s) * (1 + s));
  }

  /** sqrt(x^2 + 1). */
  private static double root(double x) {
    double y = Math.abs(x);
    return y > SQUARE_IS_EXACT ? y : Math.sqrt(y * y + 1);
  }
}
