package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Stream;
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
 * for any number of them.
 */
final class ShardSteps extends HostSteps {
  private final Communicator ranks;
  private final RankExchange exchange;
  private final Stream stream;
  private final Shards shards;
  private final float gradientScale;

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
    super(
        backend,
        parameters,
        gradients,
        optimizer,
        BatchExecutor.ofShards(
            network,
            backend,
            config.batch(),
            microBatch(network, backend, config),
            optimizer.measuring(options),
            shards(config, ranks)));
    this.ranks = ranks;
    this.exchange = exchange;
    this.shards = shards(config, ranks);
    this.gradientScale = 1f / (config.batch() * config.accumulate());
    this.stream = backend.newStream();
  }

  /** Those of this rank. */
  static Shards shards(TrainingConfig config, Communicator ranks) {
    int here = config.shards() / ranks.size();
    return new Shards(config.shards(), here * ranks.rank(), here);
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
  Figures run(Tensor src, Tensor labels, Pass pass, BatchExecutor.@Nullable Fisher fisher) {
    List<BatchExecutor.Result> here =
        executor.shards(src, labels, gradients, mode(pass), gradientScale, pass.sequence(), fisher);
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
    return new Figures(loss, correct, norm);
  }

  /** That of the first rank that has one, with its number; gradients are those of all. */
  @Override
  public @Nullable String firstNonFiniteLayer() {
    String layer = exchange.first(nonFiniteLayerHere());
    if (layer != null) {
      return layer;
    }
    exchange.gather(gradients);
    return Steps.firstNonFiniteGradient(backend, gradients);
  }

  @Override
  public void close() {
    super.close();
    stream.close();
  }
}
