package io.jtrelu.backend;

import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Device;
import io.jtrelu.tensor.Tensor;

/**
 * The scalars that steer K-FAC's factors, computed where the factors lie, so that a recorded step
 * needs no host: how a measurement counts, what is added to the factors' diagonals, and how long a
 * step may be (Martens and Grosse 2015, arXiv 1503.05671, sections 4 to 6).
 *
 * <p>A gate that is NaN belongs to a step that must change nothing, as the factor of {@link
 * GradientNorm}: the results are NaN then, with which {@link MatrixProduct} and {@link
 * SymmetricInverse} leave what they would write, as {@link Sgd} does.
 */
public abstract class FactorScalars extends PreparedOperation {
  /** For backends. */
  protected FactorScalars(Device device) {
    super("scalars of factors", device);
  }

  /**
   * Weights of a measurement's moving average.
   *
   * <pre>
   * scale = weights     where all rows are finite and the gate is not NaN, else NaN
   * </pre>
   *
   * @param rows F32, of any shape
   * @param weights F32 [2]
   * @param gate F32 [1]
   * @param scale F32 [2]
   * @throws OperandException if an operand does not fit
   */
  public final void measurement(
      Stream stream, Tensor rows, Tensor weights, Tensor gate, Tensor scale) {
    operands.requireAtLeast("rows", rows, 0, DataType.F32);
    operands.requireElements("weights", weights, 2, DataType.F32);
    operands.requireElements("gate", gate, 1, DataType.F32);
    operands.requireElements("scale", scale, 2, DataType.F32);
    operands.requireDistinct("rows", rows, "scale", scale);
    operands.requireDistinct("weights", weights, "scale", scale);
    operands.requireDistinct("gate", gate, "scale", scale);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(rows).reads(weights).reads(gate).writes("scale", scale);
      computeMeasurement(stream, rows, weights, gate, scale);
    }
  }

  /** Implements {@link #measurement}. */
  protected abstract void computeMeasurement(
      Stream stream, Tensor rows, Tensor weights, Tensor gate, Tensor scale);

  /**
   * What is added to the diagonals of a layer's two factors.
   *
   * <pre>
   * shifts = {pi r, r / pi}     r = sqrt(damping), pi = sqrt((tr A / dim A) / (tr G / dim G))
   * </pre>
   *
   * where pi is 1 if that is not positive and finite; NaN where the gate is.
   *
   * @param a F32 [n, n]
   * @param g F32 [m, m]
   * @param gate F32 [1]
   * @param shifts F32 [2]
   * @throws OperandException if an operand does not fit
   */
  public final void damping(
      Stream stream, Tensor a, Tensor g, double damping, Tensor gate, Tensor shifts) {
    requireSquare("a", a);
    requireSquare("g", g);
    operands.requireElements("gate", gate, 1, DataType.F32);
    operands.requireElements("shifts", shifts, 2, DataType.F32);
    operands.requireDistinct("a", a, "shifts", shifts);
    operands.requireDistinct("g", g, "shifts", shifts);
    operands.requireDistinct("gate", gate, "shifts", shifts);
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(a).reads(g).reads(gate).writes("shifts", shifts);
      computeDamping(stream, a, g, damping, gate, shifts);
    }
  }

  private void requireSquare(String name, Tensor matrix) {
    operands.requireAtLeast(name, matrix, 1, DataType.F32);
    if (matrix.shape().rank() != 2 || matrix.shape().dim(0) != matrix.shape().dim(1)) {
      throw new OperandException("scalars of factors: " + name + " must be square, got " + matrix);
    }
  }

  /** Implements {@link #damping}. */
  protected abstract void computeDamping(
      Stream stream, Tensor a, Tensor g, double damping, Tensor gate, Tensor shifts);

  /**
   * The factor that keeps a step's length, as the Fisher matrix measures it, within a limit.
   *
   * <pre>
   * nu     = min(1, sqrt(limit / (rate^2 sum over i of |inners[2i] + inners[2i + 1]|)))
   * result = {norm, nu}
   * </pre>
   *
   * where nu is NaN if result[1] was, and the norm becomes NaN where nu does so only now: the step
   * is not finite then.
   *
   * @param inners F32 [2 layers]: products of natural gradient and gradient, of weights and biases
   * @param rate F32 [2]: the learning rate as a sum, of what a float holds and what that has lost
   * @param result F32 [2]: norm and factor of {@link GradientNorm}
   * @throws OperandException if an operand does not fit
   */
  public final void constraint(
      Stream stream, Tensor inners, Tensor rate, double limit, Tensor result) {
    operands.requireAtLeast("inners", inners, 0, DataType.F32);
    operands.requireElements("rate", rate, 2, DataType.F32);
    operands.requireElements("result", result, 2, DataType.F32);
    operands.requireDistinct("inners", inners, "result", result);
    operands.requireDistinct("rate", rate, "result", result);
    if (inners.shape().elements() % 2 != 0) {
      throw new OperandException("scalars of factors: inners come in pairs, got " + inners);
    }
    try (BackendStream.Use use = operands.use(stream)) {
      use.reads(inners).reads(rate).writes("result", result);
      computeConstraint(stream, inners, rate, limit, result);
    }
  }

  /** Implements {@link #constraint}. */
  protected abstract void computeConstraint(
      Stream stream, Tensor inners, Tensor rate, double limit, Tensor result);
}
