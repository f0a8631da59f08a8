package io.jtrelu.nn;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.BatchNorm;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.backend.Write;
import io.jtrelu.nn.Network.ParameterSpec.Kind;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.List;
import java.util.function.IntUnaryOperator;

/**
 * Batch normalisation ({@link BatchNorm} has the formula): by the statistics of the batch in
 * training, by running ones otherwise. A step of training moves these by {@link #MOMENTUM} towards
 * the mean and the unbiased variance of its batch.
 *
 * @param name unique name
 * @param source index of the node it reads
 * @param epsilon added to the variance
 * @param extent size of source and result
 */
public record BatchNormLayer(String name, int source, float epsilon, Extent extent)
    implements Layer {
  static final String KIND = "batch-norm";

  /** What other frameworks add to the variance. */
  public static final float USUAL_EPSILON = 1e-5f;

  /** Share of the newest batch in the running statistics. */
  public static final float MOMENTUM = 0.1f;

  private static final int SCALE = 0;
  private static final int SHIFT = 1;
  private static final int MEAN = 2;
  private static final int VARIANCE = 3;

  static Layer read(LayerDescription in) {
    return new BatchNormLayer(
        in.name(), in.sources(1).getFirst(), in.single("epsilon"), in.source(0));
  }

  @Override
  public String kind() {
    return KIND;
  }

  @Override
  public List<Integer> sources() {
    return List.of(source);
  }

  @Override
  public void check(List<Extent> extents) {
    if (!(epsilon > 0 && epsilon < Float.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException(
          "layer " + name + ": epsilon must be finite and above 0, got " + epsilon);
    }
    extent.requireSame(name, extents);
  }

  @Override
  public void describe(ObjectNode attributes) {
    attributes.put("epsilon", (double) epsilon); // a decimal for a float would be rounded twice
  }

  @Override
  public List<Parameter> parameters() {
    Shape channels = Shape.of(extent.channels());
    return List.of(
        new Parameter("scale", Kind.SCALE, channels),
        new Parameter("shift", Kind.BIAS, channels),
        new Parameter("mean", Kind.MEAN, channels),
        new Parameter("variance", Kind.VARIANCE, channels));
  }

  @Override
  public int signal(SignalGraph.Builder graph, IntUnaryOperator node) {
    graph.unshapeable(
        name,
        "is a batch normalisation: it sets q anew from the batch, whatever activations and weights"
            + " before it do, and mixes samples, so that the network has no C map of its own");
    return graph.affine(node.applyAsInt(source));
  }

  @Override
  public boolean keepsCosines() {
    return false;
  }

  @Override
  public boolean fusesRectifier() {
    return true;
  }

  @Override
  public boolean backwardReadsSources() {
    return true;
  }

  @Override
  public int exchanged() {
    return 6 * extent.channels();
  }

  /** Where things lie in {@link Pass#exchange}: moments of all parts, sums, statistics. */
  private record Exchange(int node, int parts, int channels) {
    private static final int SUMS = 2;
    private static final int STATISTICS = 4;

    private Tensor all(Pass pass, int what) {
      long at = (long) what * channels * parts;
      Shape shape = Shape.of(parts, 2, channels);
      return pass.exchange(node).slice(at, shape, Layout.ROW_MAJOR);
    }

    private Tensor own(Pass pass, int what) {
      long at = ((long) what * parts + 2L * pass.part()) * channels;
      return pass.exchange(node).slice(at, Shape.of(2, channels), Layout.ROW_MAJOR);
    }

    private Tensor half(Pass pass, int index) {
      Tensor both = own(pass, STATISTICS);
      return both.slice((long) index * channels, Shape.of(channels), Layout.ROW_MAJOR);
    }

    Tensor moments(Pass pass) {
      return own(pass, 0);
    }

    Tensor allMoments(Pass pass) {
      return all(pass, 0);
    }

    Tensor sums(Pass pass) {
      return own(pass, SUMS);
    }

    Tensor allSums(Pass pass) {
      return all(pass, SUMS);
    }

    Tensor mean(Pass pass) {
      return half(pass, 0);
    }

    Tensor variance(Pass pass) {
      return half(pass, 1);
    }
  }

  @Override
  public void lower(Lowering lowering) {
    int node = lowering.node();
    int scale = lowering.parameter(SCALE);
    int shift = lowering.parameter(SHIFT);
    int mean = lowering.parameter(MEAN);
    int variance = lowering.parameter(VARIANCE);
    BatchNorm op =
        lowering.own(
            lowering
                .backend()
                .batchNorm(
                    lowering.shape(node),
                    lowering.type(),
                    lowering.parts(),
                    epsilon,
                    lowering.activation()));
    if (!lowering.training()) {
      lowering.forward(
          pass ->
              op.forward(
                  pass.stream(),
                  pass.value(source),
                  pass.parameter(mean),
                  pass.parameter(variance),
                  pass.parameter(scale),
                  pass.parameter(shift),
                  pass.value(node)));
      return;
    }
    Exchange at = new Exchange(node, lowering.parts(), extent.channels());
    lowering.forward(pass -> op.moments(pass.stream(), pass.value(source), at.moments(pass)));
    lowering.forwardTogether(
        pass -> {
          Tensor means = at.mean(pass);
          Tensor variances = at.variance(pass);
          op.statistics(pass.stream(), at.allMoments(pass), means, variances);
          op.forward(
              pass.stream(),
              pass.value(source),
              means,
              variances,
              pass.parameter(scale),
              pass.parameter(shift),
              pass.value(node));
        });
    lowering.backward(
        pass ->
            op.backwardParameters(
                pass.stream(),
                pass.gradient(node),
                pass.value(source),
                at.mean(pass),
                at.variance(pass),
                at.sums(pass),
                pass.parameterGradient(scale),
                pass.parameterGradient(shift),
                pass.write()));
    double count = (double) op.parts() * op.locations();
    Distance ofMean = new Distance(lowering, extent.channels(), 1);
    Distance ofVariance = new Distance(lowering, extent.channels(), unbiased(count));
    lowering.backward(
        pass -> {
          if (pass.part() == 0) { // the others have the same statistics
            ofMean.write(pass, mean, at.mean(pass));
            ofVariance.write(pass, variance, at.variance(pass));
          }
        });
    lowering.backwardTogetherTo(
        source,
        (pass, write) ->
            op.backwardData(
                pass.stream(),
                pass.gradient(node),
                pass.value(source),
                at.mean(pass),
                at.variance(pass),
                pass.parameter(scale),
                at.allSums(pass),
                pass.gradient(source),
                write));
  }

  /** What makes a biased variance of so many values an unbiased one. */
  private static float unbiased(double count) {
    return count > 1 ? (float) (count / (count - 1)) : 1;
  }

  /** [gradient +] running - factor * batch: what an optimiser takes the running statistics by. */
  private static final class Distance {
    private final WeightedSum sum;
    private final WeightedSum difference;

    Distance(Lowering lowering, int channels, float factor) {
      sum = lowering.own(weighted(lowering, channels, 1));
      difference = lowering.own(weighted(lowering, channels, -factor));
    }

    private static WeightedSum weighted(Lowering lowering, int channels, float weight) {
      return lowering.backend().weightedSum(channels, DataType.F32, 1, weight, Rectifier.IDENTITY);
    }

    void write(Pass pass, int parameter, Tensor batch) {
      Tensor to = pass.parameterGradient(parameter);
      Tensor running = pass.parameter(parameter);
      if (pass.write() == Write.ACCUMULATE) {
        sum.forward(pass.stream(), to, running, to);
        difference.forward(pass.stream(), to, batch, to);
      } else {
        difference.forward(pass.stream(), running, batch, to);
      }
    }
  }
}
