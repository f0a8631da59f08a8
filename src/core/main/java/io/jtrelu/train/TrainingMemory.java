package io.jtrelu.train;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Parameters;
import io.jtrelu.nn.Program;
import io.jtrelu.tensor.DataType;
import java.util.OptionalLong;

/**
 * Memory of a device that training takes at most, in bytes, known before any of it is allocated.
 *
 * @param parameters with their gradients and the optimiser's state
 * @param factors K-FAC's factors with their inverses and what it takes to use them; 0 for others
 * @param weights in the forms in which convolutions read them
 * @param activations of a pass, with their gradients
 * @param images on their way to the network, twice: one batch comes while another is computed on
 * @param scratch of operations while they run
 * @param evaluation what measuring test accuracy takes besides
 */
public record TrainingMemory(
    long parameters,
    long factors,
    long weights,
    long activations,
    long images,
    long scratch,
    long evaluation) {

  /** All of it. */
  public long total() {
    return parameters + factors + weights + activations + images + scratch + evaluation;
  }

  /**
   * What a run takes on a device.
   *
   * @param batch images per pass, which may be another than the run's
   */
  public static TrainingMemory of(Run run, Backend backend, int batch) {
    return new Plan(run, backend, 1).of(batch);
  }

  /** As above, on one of several ranks. */
  static TrainingMemory ofRank(Run run, Backend backend, int ranks) {
    return new Plan(run, backend, ranks).of(run.training().batch());
  }

  /**
   * Refuses a run that a device has no room for.
   *
   * @throws OutOfMemoryException with what it takes, what there is, and the largest batch that fits
   */
  static void requireRoom(Run run, Backend backend, int ranks) {
    OptionalLong free = backend.freeMemory();
    if (free.isEmpty()) {
      return;
    }
    Plan plan = new Plan(run, backend, ranks);
    int batch = run.training().batch();
    TrainingMemory needed = plan.of(batch);
    if (needed.total() <= free.getAsLong()) {
      return;
    }
    int unit = Math.max(1, run.training().shards());
    int fits = 0; // and what is larger than `refused` does not
    int refused = batch;
    while (refused - fits > unit) {
      int middle = fits + (refused - fits) / (2 * unit) * unit;
      if (plan.of(middle).total() <= free.getAsLong()) {
        fits = middle;
      } else {
        refused = middle;
      }
    }
    throw new OutOfMemoryException(
        String.format(
            "%s: training with a batch of %d takes up to %d bytes of the device's memory (%s), and"
                + " %d are free; %s",
            backend,
            batch,
            needed.total(),
            needed.describe(),
            free.getAsLong(),
            fits > 0
                ? "take a smaller batch: --batch " + fits + " fits (--accumulate adds batches up)"
                : "a smaller batch does not help; take a smaller network or 16-bit storage, or free"
                    + " memory that other processes hold (nvidia-smi)"));
  }

  private String describe() {
    return String.format(
        "parameters %d,%s packed weights %d, activations %d, images %d, scratch %d, evaluation %d",
        parameters,
        factors == 0 ? "" : " factors " + factors + ",",
        weights,
        activations,
        images,
        scratch,
        evaluation);
  }

  /** What a norm needs while it runs, on devices. */
  private static final long NORM_SCRATCH = 8192;

  /** A run's needs by the size of its batch. */
  private record Plan(Run run, Backend backend, int ranks) {
    TrainingMemory of(int batch) {
      Network network = run.model().network();
      TrainingConfig training = run.training();
      KfacConfig kfac = training.kfac();
      Program.Options options = run.options(true);
      int shards = Math.max(1, training.shards());
      int each = batch / shards;
      Program.Memory pass =
          Program.memory(
              network, backend, each, kfac == null ? options : options.withFisher(kfac.form()));
      int tests = Trainer.EVALUATION_BATCH;
      Program.Memory test = Program.memory(network, backend, tests, run.options(false));
      long arena = backend.allocationBytes(Parameters.arenaElements(network) * Float.BYTES);
      int states = training.optimizer() == Optimizer.Kind.ADAM ? 2 : 1;
      long directions =
          training.optimizer() == Optimizer.Kind.MUON ? Muon.memory(network, backend) : 0;
      // Each recording has scratch of its own; passes that are not recorded, and evaluation, share.
      long recorded = Math.max(pass.scratch(), test.scratch());
      long scratch = backend.allocationBytes(Math.max(recorded, converted(tests)));
      long recordings = RecordedSteps.recordings(training.accumulate(), network, kfac);
      return new TrainingMemory(
          (1 + shards / ranks) * arena
              + state(states, arena)
              + directions
              + small(8)
              + exchange(recordings),
          kfac == null ? 0 : Kfac.memory(network, backend, kfac, batch),
          pass.weights(),
          pass.activations(),
          images(batch / ranks, each),
          2 * scratch
              + Math.max(recordings * backend.allocationBytes(recorded), initializer(network)),
          test.weights() + test.activations() + value(tests) + small(8));
    }

    private Partition partition() {
      Network network = run.model().network();
      return RankExchange.partition(network, backend, run.training(), ranks);
    }

    /** The optimiser's, of which ranks share what goes by parameters. */
    private long state(int states, long arena) {
      Optimizer.Kind kind = run.training().optimizer();
      if (run.training().shards() == 0
          || !(kind == Optimizer.Kind.SGD || kind == Optimizer.Kind.ADAM)) {
        return states * arena;
      }
      Partition partition = partition();
      long most = 0;
      for (int rank = 0; rank < ranks; rank++) {
        long owned = partition.owned(rank).stream().mapToLong(Partition.Range::elements).sum();
        most = Math.max(most, owned);
      }
      return states * backend.allocationBytes(most * Float.BYTES);
    }

    /** Gradients that come from other ranks, norms, and what each recording takes for those. */
    private long exchange(long recordings) {
      if (run.training().shards() == 0) {
        return 0;
      }
      Partition partition = partition();
      return (ranks - 1) * backend.allocationBytes(partition.mostOfBucket() * Float.BYTES)
          + backend.allocationBytes(Float.BYTES * (long) partition.slices())
          + backend.allocationBytes(2L * Float.BYTES * partition.slices())
          + recordings * backend.allocationBytes(NORM_SCRATCH)
          + small(1);
    }

    private long image(long bytes) {
      Layer.Extent in = run.model().network().input();
      return bytes * in.height() * in.width();
    }

    /** Two slots, the network's input, and figures. */
    private long images(int batch, int each) {
      boolean bytes = Trainer.onDevice(run.model().normalization()) != null;
      long channels = run.model().normalization().channels();
      long network = run.model().network().input().channels();
      int masks = batch / each;
      long slot =
          batch * image(bytes ? channels : network * Float.BYTES) + 8L * (batch + 4 + masks);
      boolean direct = !bytes && run.training().type() == DataType.F32;
      long constants = bytes ? backend.allocationBytes(channels * 256 * Float.BYTES) : 0;
      return RecordedSteps.SLOTS * backend.allocationBytes(slot)
          + (direct ? 0 : value(each))
          + constants
          + backend.allocationBytes(8L * ((long) batch * ranks + 1));
    }

    /** A batch of the network's input. */
    private long value(int batch) {
      long channels = run.model().network().input().channels();
      return backend.allocationBytes(batch * image(channels * run.training().type().bytes()));
    }

    /** What a batch takes on its way from F32 to another type. */
    private long converted(int batch) {
      long channels = run.model().network().input().channels();
      boolean same = run.training().type() == DataType.F32;
      return same ? 0 : batch * image(channels * Float.BYTES);
    }

    /** What random orthogonal weights take while they are made, a parameter at a time. */
    private long initializer(Network network) {
      long largest =
          network.parameters().stream().mapToLong(spec -> spec.shape().elements()).max().orElse(0);
      return backend.allocationBytes(2 * largest * Float.BYTES);
    }

    /** So many allocations of a few values. */
    private long small(int count) {
      return count * backend.allocationBytes(1);
    }
  }
}
