package io.jtrelu.distributed;

import java.util.Map;
import java.util.Optional;

/**
 * Who started this process beside others, as the environment tells.
 *
 * @param name for people
 * @param family whose MPI speaks with it
 * @param rank of this process, from 0
 * @param size processes in all, 1 or more
 */
public record Launcher(String name, Family family, int rank, int size) {
  /** Kinds of MPI whose launchers and libraries go together. */
  public enum Family {
    /** Open MPI. */
    OPENMPI("Open MPI"),
    /** MPICH and its descendants. */
    MPICH("MPICH");

    private final String title;

    Family(String title) {
      this.title = title;
    }

    /** Its name, for people. */
    public String title() {
      return title;
    }
  }

  /**
   * The launcher that an environment tells of; empty for a process that was started alone.
   *
   * @throws DistributedException if several processes were started by one that cannot bring them
   *     together, or its variables make no sense
   */
  public static Optional<Launcher> of(Map<String, String> environment) {
    if (environment.containsKey("OMPI_COMM_WORLD_SIZE")) {
      return Optional.of(
          of(
              environment,
              "Open MPI's mpirun",
              Family.OPENMPI,
              "OMPI_COMM_WORLD_RANK",
              "OMPI_COMM_WORLD_SIZE"));
    }
    if (environment.containsKey("PMI_SIZE")) {
      String name =
          "pmi2".equals(environment.get("SLURM_MPI_TYPE")) ? "srun --mpi=pmi2" : "MPICH's mpiexec";
      return Optional.of(of(environment, name, Family.MPICH, "PMI_RANK", "PMI_SIZE"));
    }
    if (environment.getOrDefault("SLURM_STEP_NUM_TASKS", "1").equals("1")) {
      return Optional.empty();
    }
    Launcher slurm =
        of(environment, "srun --mpi=pmix", Family.OPENMPI, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
    if (!environment.containsKey("PMIX_RANK")) {
      throw new DistributedException(
          "srun started "
              + slurm.size
              + " processes that cannot find each other: start them by srun --mpi=pmix for Open MPI"
              + " or --mpi=pmi2 for MPICH (srun --mpi=list shows what this cluster has), or by"
              + " mpirun or mpiexec");
    }
    return Optional.of(slurm);
  }

  private static Launcher of(
      Map<String, String> environment, String name, Family family, String rank, String size) {
    Launcher made =
        new Launcher(name, family, number(environment, rank), number(environment, size));
    if (made.rank < 0 || made.rank >= made.size) {
      throw new DistributedException(
          name + " gave rank " + made.rank + " of " + made.size + " (" + rank + ", " + size + ")");
    }
    return made;
  }

  private static int number(Map<String, String> environment, String variable) {
    String value = environment.get(variable);
    try {
      return Integer.parseInt(String.valueOf(value));
    } catch (NumberFormatException notOne) {
      throw new DistributedException(
          "the launcher's variable " + variable + " should be a number, it is " + value, notOne);
    }
  }
}
