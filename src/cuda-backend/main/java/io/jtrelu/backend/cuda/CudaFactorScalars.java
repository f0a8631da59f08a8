package io.jtrelu.backend.cuda;

import io.jtrelu.backend.FactorScalars;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.Tensor;

/** factor_scalars.cu. */
final class CudaFactorScalars extends FactorScalars {
  private final CudaBackend backend;
  private final Kernel measurement;
  private final Kernel damping;
  private final Kernel constraint;

  CudaFactorScalars(CudaBackend backend) {
    super(backend.device());
    this.backend = backend;
    measurement = backend.kernels().get("factor_measurement");
    damping = backend.kernels().get("factor_damping");
    constraint = backend.kernels().get("factor_constraint");
  }

  /** struct FactorMeasurementParameters. */
  @Override
  protected void computeMeasurement(
      Stream stream, Tensor rows, Tensor weights, Tensor gate, Tensor scale) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(rows)
        .pointer(weights)
        .pointer(gate)
        .pointer(scale)
        .i64(rows.shape().elements());
    on.launch(measurement, 1);
  }

  /** struct FactorDampingParameters. */
  @Override
  protected void computeDamping(
      Stream stream, Tensor a, Tensor g, double dampingTerm, Tensor gate, Tensor shifts) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(a)
        .pointer(g)
        .pointer(gate)
        .pointer(shifts)
        .f64(dampingTerm)
        .i32(a.shape().dim(0))
        .i32(g.shape().dim(0));
    on.launch(damping, 1);
  }

  /** struct FactorConstraintParameters. */
  @Override
  protected void computeConstraint(
      Stream stream, Tensor inners, Tensor rate, double limit, Tensor result) {
    CudaStream on = backend.own(stream);
    on.arguments()
        .pointer(inners)
        .pointer(rate)
        .pointer(result)
        .f64(limit)
        .i32(Math.toIntExact(inners.shape().elements() / 2));
    on.launch(constraint, 1);
  }
}
