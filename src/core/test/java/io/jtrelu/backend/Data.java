package io.jtrelu.backend;

import io.jtrelu.tensor.Bfloat16;
import io.jtrelu.tensor.DataType;
import java.util.SplittableRandom;

/**
 * Test data, rounding, and the formulas of a rectifier once more, apart from the code under test.
 */
final class Data {
  private Data() {}

  /** Whole numbers between -largest and largest, none of them zero. */
  static float[] integers(SplittableRandom random, long count, int largest) {
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = random.nextInt(1, largest + 1) * (random.nextBoolean() ? 1 : -1);
    }
    return values;
  }

  /** Standard normal numbers times a factor, rounded to a type. */
  static float[] normals(SplittableRandom random, long count, double factor, DataType type) {
    float[] values = new float[Math.toIntExact(count)];
    for (int i = 0; i < values.length; i++) {
      values[i] = round(type, random.nextGaussian() * factor);
    }
    return values;
  }

  /** Sets a share of the elements to zero. */
  static float[] withZeros(SplittableRandom random, float[] values, double share) {
    for (int i = 0; i < values.length; i++) {
      if (random.nextDouble() < share) {
        values[i] = 0;
      }
    }
    return values;
  }

  /** |values|. */
  static float[] absolute(float[] values) {
    float[] absolute = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      absolute[i] = Math.abs(values[i]);
    }
    return absolute;
  }

  /** Rounds to a storage type. */
  static float round(DataType type, double value) {
    float single = (float) value;
    return switch (type) {
      case F32 -> single;
      case BF16 -> Bfloat16.toFloat(Bfloat16.fromFloat(single));
      case F16 -> Float.float16ToFloat(Float.floatToFloat16(single));
      case I32, U8 -> throw new IllegalArgumentException("not a floating type: " + type);
    };
  }

  /** Distance from 1 to the next larger number of a type. */
  static double epsilon(DataType type) {
    return switch (type) {
      case F32 -> 0x1p-23;
      case BF16 -> 0x1p-7;
      case F16 -> 0x1p-10;
      case I32, U8 -> throw new IllegalArgumentException("not a floating type: " + type);
    };
  }

  /** Half the distance between the smallest numbers of a type. */
  static double tiny(DataType type) {
    return type == DataType.F16 ? 0x1p-25 : 0x1p-126;
  }

  /** Largest number up to which all whole numbers and their halves (below half of it) are exact. */
  static int largestExact(DataType type) {
    return switch (type) {
      case F32 -> 1 << 23;
      case BF16 -> 1 << 8;
      case F16 -> 1 << 11;
      case I32, U8 -> throw new IllegalArgumentException("not a floating type: " + type);
    };
  }

  /** phi(x), by cases. */
  static double phi(Rectifier rectifier, double x) {
    if (x > 0) {
      return x * rectifier.scale();
    }
    return x * rectifier.scale() * rectifier.slope();
  }

  /** phi' from phi's output; at zero that of the negative side. */
  static double slopeAt(Rectifier rectifier, double output) {
    if (output > 0) {
      return rectifier.scale();
    }
    return (double) rectifier.scale() * rectifier.slope();
  }

  /** Widens. */
  static double[] wide(float[] values) {
    double[] wide = new double[values.length];
    for (int i = 0; i < values.length; i++) {
      wide[i] = values[i];
    }
    return wide;
  }

  /** Rectifiers whose arithmetic on small whole numbers is exact. */
  static final Rectifier[] EXACT = {
    Rectifier.IDENTITY, new Rectifier(0.5f, 1), new Rectifier(0, 1), new Rectifier(0.5f, 2)
  };

  /** Rectifiers of all kinds. */
  static final Rectifier[] REAL = {
    Rectifier.IDENTITY,
    Rectifier.tailored(0.4259071946),
    Rectifier.tailored(0),
    new Rectifier(0, 1),
    new Rectifier(0.01f, 1),
    new Rectifier(1, 1.5f),
    new Rectifier(0.25f, 0.75f)
  };
}
