package io.jtrelu.train;

import io.jtrelu.backend.Adam;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.GradientNorm;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.Sgd;
import io.jtrelu.backend.Stream;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.BatchNormLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Network.ParameterSpec;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Updates a network's parameters from their gradients: clipping by the global norm, then SGD or
 * Adam; or Muon, or K-FAC with its own constraint. Weight decay is on weights only. Parameters,
 * gradients and state stay on the device.
 *
 * <p>Running statistics of batch normalisation are moved by {@link BatchNormLayer#MOMENTUM} towards
 * those of the batch, which are no part of the norm, nor of what clips.
 *
 * <p>A gradient whose norm is not finite updates nothing, and neither does any gradient after it
 * until {@link #forgive}: so a step can be queued before the one before it has been looked at.
 *
 * <p>Owns its state; used by one thread at a time.
 */
public final class Optimizer implements AutoCloseable {
  /** Update rules. */
  public enum Kind {
    /** Stochastic gradient descent with Nesterov momentum. */
    SGD,
    /** Adam with decoupled weight decay. */
    ADAM,
    /**
     * K-FAC, natural gradient descent by Kronecker factors of the Fisher matrix, with momentum:
     * what the authors of tailored rectifiers train with. See {@link KfacConfig}. Takes memory for
     * factors and inverses, {@link Optimizer#factorBytes}. Its norm constraint takes the place of
     * clipping.
     */
    KFAC,
    /**
     * Muon: momentum made orthogonal, for weights, and Adam at the same rate for all else. A step's
     * size does not depend on the gradient's, so that clipping changes nothing and is left out.
     * Jordan et al. 2024, scaled after Liu et al. 2025 (arXiv 2502.16982).
     */
    MUON;

    /** Peak rate where none is asked for. */
    double defaultLearningRate() {
      return switch (this) {
        case KFAC -> 3e-3;
        case MUON -> 1e-3;
        default -> 0.02;
      };
    }
  }

  private static final float ADAM_BETA2 = 0.999f;
  private static final float ADAM_EPSILON = 1e-8f;

  private final Backend backend;
  private final Stream stream;
  private final float clipNorm;
  private final GradientNorm norm;
  private final Tensor normResult;
  private final Tensor normOnHost;
  private final Tensor scalars;
  private final Tensor steering; // of K-FAC
  private final @Nullable Kfac kfac;
  private final @Nullable Muon muon;
  private final Map<String, Tensor> state = new LinkedHashMap<>();

  /** Of all weights and all biases at once. */
  private final Update weights;

  private final Update biases;

  /** Of running statistics; null for a network without. */
  private final @Nullable Following statistics;

  /** Of each parameter by itself. */
  private final List<Update> updates = new ArrayList<>();

  /** What this rank updates, where ranks share the state; else null. */
  private final @Nullable List<Piece> pieces;

  private final Deque<AutoCloseable> owned = new ArrayDeque<>();

  private interface Update {
    void step(Stream on, Tensor parameters, Tensor gradient, Tensor scalars, Tensor clip);
  }

  /** Of a part of the arena. */
  private record Piece(long from, int elements, Update update) {
    void step(Stream on, Parameters parameters, Parameters gradients, Tensor given, Tensor clip) {
      update.step(on, in(parameters), in(gradients), given, clip);
    }

    private Tensor in(Parameters parameters) {
      return parameters.arena().slice(from, Shape.of(elements), Layout.ROW_MAJOR);
    }
  }

  /** Of what is moved elsewhere: a running statistic, or what ranks share. */
  private static final Update NOTHING = (on, parameters, gradient, scalars, clip) -> {};

  /** Running statistics follow: p = p - MOMENTUM * gradient, a gradient being their distance. */
  private final class Following {
    private final GradientNorm distance;
    private final Tensor result = allocate(backend, 2);
    private final Tensor rate = allocate(backend, 1);
    private final Sgd step;
    private final Tensor velocity;

    Following(Parameters state) {
      velocity = state.statistics();
      long elements = velocity.shape().elements();
      distance = own(backend.gradientNorm(elements));
      step = own(backend.sgd(elements, 0, false, 0));
      backend.fill(stream, rate, BatchNormLayer.MOMENTUM);
      stream.synchronize();
    }

    /**
     * @param norm of the gradient and its factor, which is NaN where nothing may change
     */
    void step(Stream on, Parameters parameters, Parameters gradients, Tensor norm) {
      backend.copy(on, norm, result); // NaN or not is all that is taken over
      Tensor to = gradients.statistics();
      distance.run(on, to, Float.POSITIVE_INFINITY, result);
      step.step(on, parameters.statistics(), to, velocity, rate, scalar(result, 1));
    }
  }

  /**
   * Allocates the state for a network, zeroed.
   *
   * @throws io.jtrelu.backend.UnsupportedException if the backend or the network cannot be trained
   *     so
   */
  public Optimizer(Network network, Backend backend, TrainingConfig config) {
    this(network, backend, config, null);
  }

  /**
   * As above, of a rank's part of the parameters, for SGD and Adam, whose steps take each by
   * itself; the others keep all of their state.
   *
   * @param owned ranges of the arena, without running statistics; null for all of it
   */
  Optimizer(
      Network network,
      Backend backend,
      TrainingConfig config,
      @Nullable List<Partition.Range> owned) {
    this.backend = backend;
    kfac = config.kfac() == null ? null : own(kfac(network, config, config.kfac()));
    this.stream = own(backend.newStream());
    boolean clips = config.optimizer() != Kind.MUON;
    this.clipNorm = clips ? (float) config.clipNorm() : Float.POSITIVE_INFINITY;
    this.normResult = allocate(backend, 2);
    this.normOnHost = own(Tensor.allocate(Shape.of(2), DataType.F32, Layout.ROW_MAJOR));
    this.scalars = allocate(backend, 2);
    this.steering = allocate(backend, Kfac.STEERING);
    Kind kind = config.optimizer();
    if (owned != null && (kind == Kind.SGD || kind == Kind.ADAM)) {
      norm = own(backend.gradientNorm(Parameters.learntElements(network)));
      statistics = null;
      muon = null;
      weights = NOTHING;
      biases = NOTHING;
      pieces = pieces(network, config, owned);
      return;
    }
    pieces = null;
    Parameters first = own(Parameters.allocate(network, backend));
    this.norm = own(backend.gradientNorm(Parameters.learntElements(network)));
    this.statistics = first.statistics().shape().elements() == 0 ? null : new Following(first);
    float decay = (float) config.weightDecay();
    float momentum = (float) config.momentum();
    muon =
        config.optimizer() == Kind.MUON ? own(new Muon(network, backend, momentum, first)) : null;
    switch (config.optimizer()) {
      case SGD, KFAC -> {
        boolean nesterov = momentum > 0 && kfac == null;
        state.put("velocity", first.arena());
        if (kfac != null) {
          state.putAll(kfac.state());
        }
        weights = sgd(first.weights(), momentum, nesterov, decay);
        biases = sgd(first.biases(), momentum, nesterov, 0);
        for (int p = 0; p < network.parameters().size(); p++) {
          float own = isWeights(network, p) ? decay : 0;
          updates.add(
              isStatistic(network, p) ? NOTHING : sgd(first.view(p), momentum, nesterov, own));
        }
      }
      case ADAM -> {
        Parameters second = own(Parameters.allocate(network, backend));
        state.put("moment1", first.arena());
        state.put("moment2", second.arena());
        weights = adam(first.weights(), second.weights(), momentum, decay);
        biases = adam(first.biases(), second.biases(), momentum, 0);
        for (int p = 0; p < network.parameters().size(); p++) {
          float own = isWeights(network, p) ? decay : 0;
          updates.add(
              isStatistic(network, p)
                  ? NOTHING
                  : adam(first.view(p), second.view(p), momentum, own));
        }
      }
      case MUON -> {
        Shape rest = first.biases().shape();
        Tensor second = own(backend.allocate(rest, DataType.F32, Layout.ROW_MAJOR));
        state.put("velocity", first.arena()); // of biases and scales: Adam's first moment
        state.put("moment2", second);
        weights = plain(first.weights(), decay);
        biases = adam(first.biases(), second, momentum, 0);
        for (int p = 0; p < network.parameters().size(); p++) {
          ParameterSpec spec = network.parameters().get(p);
          Tensor velocity = first.view(p);
          updates.add(
              isStatistic(network, p)
                  ? NOTHING
                  : isWeights(network, p)
                      ? plain(velocity, decay)
                      : adam(
                          velocity,
                          second.slice(
                              spec.offset() - first.weightElements(),
                              velocity.shape(),
                              velocity.layout()),
                          momentum,
                          0));
        }
      }
      default -> throw new IllegalArgumentException("unknown optimizer " + config.optimizer());
    }
  }

  /** Owned ranges, cut where weights end, and on a CPU into slices that lanes can share. */
  private List<Piece> pieces(Network network, TrainingConfig config, List<Partition.Range> owned) {
    int elements = Math.toIntExact(owned.stream().mapToLong(Partition.Range::elements).sum());
    float momentum = (float) config.momentum();
    boolean isAdam = config.optimizer() == Kind.ADAM;
    Tensor first = allocate(backend, elements);
    Tensor second = isAdam ? allocate(backend, elements) : first;
    if (isAdam) {
      state.put("moment1", first);
      state.put("moment2", second);
    } else {
      state.put("velocity", first);
    }
    long weightsEnd = Parameters.weightElements(network);
    int most = backend.takesWholeBatches() ? Integer.MAX_VALUE : Partition.SLICE;
    List<Piece> made = new ArrayList<>();
    long at = 0;
    for (Partition.Range range : owned) {
      for (long from = range.from(); from < range.to(); ) {
        boolean isWeight = from < weightsEnd;
        long end = Math.min(from + most, range.to());
        int size = Math.toIntExact((isWeight ? Math.min(end, weightsEnd) : end) - from);
        float decay = isWeight ? (float) config.weightDecay() : 0;
        Tensor part = first.slice(at, Shape.of(size), Layout.ROW_MAJOR);
        made.add(
            new Piece(
                from,
                size,
                isAdam
                    ? adam(part, second.slice(at, part.shape(), part.layout()), momentum, decay)
                    : sgd(part, momentum, momentum > 0, decay)));
        from += size;
        at += size;
      }
    }
    return made;
  }

  private Kfac kfac(Network network, TrainingConfig config, KfacConfig settings) {
    return new Kfac(network, backend, settings, config.batch(), config.seed());
  }

  private static boolean isWeights(Network network, int parameter) {
    return network.parameters().get(parameter).kind() == ParameterSpec.Kind.WEIGHTS;
  }

  private static boolean isStatistic(Network network, int parameter) {
    return network.parameters().get(parameter).kind().isStatistic();
  }

  private <T extends AutoCloseable> T own(T resource) {
    owned.push(resource);
    return resource;
  }

  private Tensor allocate(Backend device, int elements) {
    return own(device.allocate(Shape.of(elements), DataType.F32, Layout.ROW_MAJOR));
  }

  private static Tensor scalar(Tensor of, int index) {
    return of.slice(index, Shape.of(1), Layout.ROW_MAJOR);
  }

  private Update sgd(Tensor velocity, float momentum, boolean nesterov, float decay) {
    Sgd sgd = own(backend.sgd(velocity.shape().elements(), momentum, nesterov, decay));
    return (on, parameters, gradient, given, clip) ->
        sgd.step(on, parameters, gradient, velocity, scalar(given, 0), clip);
  }

  /** Along a direction that holds the momentum already; the velocity is left alone. */
  private Update plain(Tensor velocity, float decay) {
    return sgd(velocity, 0, false, decay);
  }

  private Update adam(Tensor moment1, Tensor moment2, float beta1, float decay) {
    Adam adam =
        own(backend.adam(moment1.shape().elements(), beta1, ADAM_BETA2, ADAM_EPSILON, decay));
    return (on, parameters, gradient, given, clip) ->
        adam.step(on, parameters, gradient, moment1, moment2, given, clip);
  }

  /**
   * Gives norm, clipping and update to a stream, to run or to be recorded; nothing is waited for
   * and nothing is read on the host.
   *
   * @param given F32 [2] on the device: the learning rate, and the step's number, from 1
   * @param result F32 [2] on the device, zero at first: the norm before clipping, and the factor
   *     that clips; NaN from a norm that is not finite on
   * @throws IllegalStateException for K-FAC, whose steps are of several kinds
   */
  public void update(
      Stream on, Parameters parameters, Parameters gradients, Tensor given, Tensor result) {
    if (kfac != null) {
      throw new IllegalStateException("a step of K-FAC has a phase and needs more than its rate");
    }
    norm.run(on, gradients.learnt(), clipNorm, result);
    afterNorm(on, parameters, gradients, given, result);
  }

  private void afterNorm(
      Stream on, Parameters parameters, Parameters gradients, Tensor given, Tensor result) {
    Tensor factor = scalar(result, 1);
    if (muon != null) {
      muon.run(on, gradients, factor);
    }
    Parameters along = muon == null ? gradients : muon.directions();
    weights.step(on, parameters.weights(), along.weights(), given, factor);
    biases.step(on, parameters.biases(), gradients.biases(), given, factor);
    if (statistics != null) {
      statistics.step(on, parameters, gradients, result);
    }
  }

  /**
   * As above, for any optimiser, and for ranks that share a step: each updates what it owns and
   * receives the rest; of K-FAC and Muon each takes all steps. The clipping factor is nu for K-FAC,
   * and the norm NaN where its direction is not finite.
   *
   * @param ranks have just added up the gradients; null for none. The stream is theirs
   * @param phase of the step, of which a recording is
   * @param steers F32 [{@link Kfac#STEERING}] on the device, see {@link #steering}; nothing is read
   *     of it but for K-FAC
   */
  void update(
      Stream on,
      @Nullable RankExchange ranks,
      Parameters parameters,
      Parameters gradients,
      Tensor given,
      Tensor result,
      Kfac.Phase phase,
      Tensor steers) {
    if (ranks == null) {
      norm.run(on, gradients.learnt(), clipNorm, result);
    } else {
      ranks.norm(clipNorm, result);
    }
    if (ranks != null && pieces != null) {
      for (Piece piece : pieces) {
        piece.step(on, parameters, gradients, given, scalar(result, 1));
      }
      ranks.gather(parameters);
      return;
    }
    if (ranks != null) {
      ranks.gather(gradients);
    }
    if (kfac == null) {
      afterNorm(on, parameters, gradients, given, result);
      return;
    }
    kfac.run(on, phase, gradients, steers, result);
    Tensor factor = scalar(result, 1);
    weights.step(on, parameters.weights(), kfac.natural().weights(), given, factor);
    biases.step(on, parameters.biases(), kfac.natural().biases(), given, factor);
  }

  /**
   * Norm, clipping and update, then packing of the new parameters, shared among an executor's
   * lanes; nothing changes if the norm is not finite. The result's bits do not depend on the lanes.
   *
   * @param executor has just computed the gradients
   * @param number of the step, from 1
   * @return the norm before clipping; NaN where K-FAC's direction is not finite
   */
  public float step(
      BatchExecutor executor,
      Parameters parameters,
      Parameters gradients,
      double learningRate,
      long number) {
    executor.gradientNorm(stream, clipNorm, normResult);
    return afterNorm(executor, null, parameters, gradients, learningRate, number);
  }

  /**
   * As above, on one of several ranks: each updates what it owns and receives the rest; of K-FAC
   * and Muon each takes all steps.
   *
   * @param ranks have just added up the gradients
   */
  float step(
      BatchExecutor executor,
      RankExchange ranks,
      Parameters parameters,
      Parameters gradients,
      double learningRate,
      long number) {
    ranks.norm(clipNorm, normResult);
    return afterNorm(executor, ranks, parameters, gradients, learningRate, number);
  }

  private float afterNorm(
      BatchExecutor executor,
      @Nullable RankExchange ranks,
      Parameters parameters,
      Parameters gradients,
      double learningRate,
      long number) {
    backend.copy(stream, normResult, normOnHost);
    backend.fill(stream, scalar(scalars, 0), (float) learningRate);
    backend.fill(stream, scalar(scalars, 1), (float) number);
    if (statistics != null) { // before parameters are packed
      statistics.step(stream, parameters, gradients, normResult);
    }
    stream.synchronize();
    if (ranks != null && pieces != null) {
      updatePieces(executor, pieces, parameters, gradients);
      ranks.gather(parameters);
      executor.load(parameters);
      return normOnHost.get(0);
    }
    if (ranks != null) {
      ranks.gather(gradients);
    }
    Parameters direction = gradients;
    if (kfac != null && !Float.isNaN(normOnHost.get(1))) {
      steering.set(kfac.steering(learningRate, number));
      kfac.run(executor, stream, kfac.phase(number), gradients, steering, normResult);
      backend.copy(stream, normResult, normOnHost);
      stream.synchronize();
      kfac.tell(number, kfac.figures());
      direction = kfac.natural();
    }
    if (muon != null) {
      muon.run(executor, gradients, scalar(normResult, 1));
      direction = muon.directions();
    }
    Parameters ofWeights = direction;
    Parameters ofOthers = muon == null ? direction : gradients;
    Network network = parameters.network();
    executor.update(
        parameters,
        (on, p) -> {
          Parameters along = isWeights(network, p) ? ofWeights : ofOthers;
          updates
              .get(p)
              .step(on, parameters.view(p), along.view(p), scalars, scalar(normResult, 1));
        });
    return normOnHost.get(0);
  }

  private void updatePieces(
      BatchExecutor executor, List<Piece> owned, Parameters parameters, Parameters gradients) {
    executor.share(
        owned.size(),
        (on, i) -> owned.get(i).step(on, parameters, gradients, scalars, scalar(normResult, 1)));
  }

  /** Whether {@link #state} is that of a rank's part of the parameters. */
  boolean isShared() {
    return pieces != null;
  }

  /** What a network is compiled for, if the first pass of some steps has to measure for it. */
  Program.Options measuring(Program.Options options) {
    return kfac == null ? options : options.withFisher(kfac.form());
  }

  /** What the first pass of a step has to measure beside the gradient; null for nothing. */
  BatchExecutor.@Nullable Fisher measurement(long step) {
    return measurement(phase(step));
  }

  /** The same, of any step of a phase. */
  BatchExecutor.@Nullable Fisher measurement(Kfac.Phase phase) {
    return kfac != null && phase.measures() ? kfac.measurement() : null;
  }

  /** What a step does, by its number, from 1. */
  Kfac.Phase phase(long step) {
    return kfac == null ? Kfac.Phase.PLAIN : kfac.phase(step);
  }

  /** What differs between steps of one phase beside rate and number: {@link Kfac#steering}. */
  float[] steering(double learningRate, long step) {
    return kfac == null ? new float[Kfac.STEERING] : kfac.steering(learningRate, step);
  }

  /** What a step leaves on the device for {@link #tell}; null for nothing. */
  @Nullable Tensor figures() {
    return kfac == null ? null : kfac.figures();
  }

  /** Tells of what a finite step could not measure or invert, by its figures on the host. */
  void tell(long step, Tensor figuresOnHost) {
    if (kfac != null) {
      kfac.tell(step, figuresOnHost);
    }
  }

  /** Refuses passes over more or fewer samples than a measurement has. */
  void requireBatch(int batch) {
    if (kfac != null && kfac.batch() != batch) {
      throw new OperandException(
          "K-FAC measures batches of "
              + kfac.batch()
              + " here, as its run was configured; it got one of "
              + batch);
    }
  }

  /** Bytes of K-FAC's factors, their inverses and the rows measured for them; 0 for the others. */
  public long factorBytes() {
    return kfac == null ? 0 : kfac.bytes();
  }

  /** Lets updates take effect again after a norm that was not finite. */
  public void forgive() {
    backend.fill(stream, normResult, 0);
    stream.synchronize();
  }

  /** Device tensors that a checkpoint must hold, by name; see {@link #isShared}. */
  public Map<String, Tensor> state() {
    return state;
  }

  @Override
  public void close() {
    while (!owned.isEmpty()) {
      try {
        owned.pop().close();
      } catch (Exception failure) {
        throw new IllegalStateException("closing the optimiser failed", failure);
      }
    }
  }
}
