package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.distributed.Communicator;
import io.jtrelu.nn.BatchExecutor;
import io.jtrelu.nn.BatchExecutor.Shards;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.Tensor;
import java.math.BigInteger;
import java.util.Collections;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Steps on CPUs, of one process or of several that share the shards of each batch: the same bits
 * for any number of them. A pass has run on all ranks when it has been submitted on all.
 */
final class ShardSteps implements Steps {
  private final Backend backend;
  private final Communicator ranks;
  private final RankExchange exchange;
  private final Parameters parameters;
  private final Parameters gradients;
  private final Optimizer optimizer;
  private final Stream stream;
  private final BatchExecutor executor;
  private final Shards shards;
  private final float gradientScale;
  private @Nullable Figures figures;
  private @Nullable Tensor images;

  /**
   * @param config with shards, a multiple of the ranks
   * @param exchange between the ranks; stays the caller's, as all else
   */
  ShardSteps(
      Network network,
      Backend backend,
      TrainingConfig config,
      Communicator ranks,
      RankExchange exchange,
      Program.Options options,
      Parameters parameters,
      Parameters gradients,
      Optimizer optimizer) {
    this.backend = backend;
    this.ranks = ranks;
    this.exchange = exchange;
    this.parameters = parameters;
    this.gradients = gradients;
    this.optimizer = optimizer;
    this.gradientScale = 1f / (config.batch() * config.accumulate());
    int here = config.shards() / ranks.size();
    this.shards = new Shards(config.shards(), here * ranks.rank(), here);
    this.executor =
        BatchExecutor.ofShards(
            network,
            backend,
            config.batch(),
            microBatch(network, backend, config),
            optimizer.measures() ? options.withFisher() : options,
            shards);
    this.stream = backend.newStream();
  }

  /** As without shards, where that divides a shard; it must not depend on the ranks. */
  private static int microBatch(Network network, Backend backend, TrainingConfig config) {
    if (config.microBatch() > 0) {
      return config.microBatch();
    }
    int whole = BatchExecutor.microBatch(network, backend, config.type(), config.batch());
    int shard = config.batch() / config.shards();
    return BigInteger.valueOf(whole).gcd(BigInteger.valueOf(shard)).intValue();
  }

  @Override
  public void load() {
    executor.load(parameters);
  }

  @Override
  public boolean takesBytes() {
    return false;
  }

  @Override
  public int ahead() {
    return 0;
  }

  @Override
  public void submit(Tensor src, Tensor labels, Pass pass) {
    if (figures != null) {
      throw new IllegalStateException("a pass is under way; take its figures first");
    }
    images = src;
    BatchExecutor.Fisher fisher = pass.first() ? optimizer.measurement(pass.number()) : null;
    List<BatchExecutor.Result> here =
        executor.shards(
            src,
            labels,
            gradients,
            pass.first() ? Write.OVERWRITE : Write.ACCUMULATE,
            gradientScale,
            pass.sequence(),
            fisher);
    if (fisher != null) {
      exchange.gather(fisher.samples());
    }
    List<Integer> counts = Collections.nCopies(ranks.size(), shards.count());
    double loss = 0;
    int correct = 0;
    for (BatchExecutor.Result shard : RankExchange.gather(ranks, stream, here, counts)) {
      loss += shard.loss();
      correct += shard.correct();
    }
    float norm = 0;
    if (pass.last()) {
      executor.addShards(gradients);
      exchange.add(executor, gradients);
      norm =
          optimizer.step(
              executor, exchange, parameters, gradients, pass.learningRate(), pass.number());
    }
    figures = new Figures(loss, correct, norm);
  }

  @Override
  public Figures take() {
    Figures taken = figures;
    if (taken == null) {
      throw new IllegalStateException("no pass is under way");
    }
    figures = null;
    return taken;
  }

  /** That of the first rank that has one, with its number; gradients are those of all. */
  @Override
  public @Nullable String firstNonFiniteLayer() {
    String layer = images == null ? null : executor.firstNonFiniteLayer(images);
    List<String> layers = ranks.gatherTexts(layer == null ? "" : layer);
    for (int rank = 0; rank < layers.size(); rank++) {
      if (!layers.get(rank).isEmpty()) {
        return layers.get(rank) + (ranks.size() == 1 ? "" : " on rank " + rank);
      }
    }
    exchange.gather(gradients);
    return Steps.firstNonFiniteGradient(backend, gradients);
  }

  @Override
  public void forgive() {
    figures = null;
    optimizer.forgive();
  }

  @Override
  public long activationBytes() {
    return executor.activationBytes();
  }

  @Override
  public void close() {
    executor.close();
    stream.close();
  }
}
