package io.jtrelu.distributed;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.distributed.Launcher.Family;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class CommunicatorTest {
  private static final Duration DEADLINE = Duration.ofSeconds(5);

  @Test
  void aProcessAloneFulfilsTheContract() {
    try (Communicator alone = Communicator.open(Map.of(), DEADLINE)) {
      assertInstanceOf(SoloCommunicator.class, alone);
      ContractRank.check(alone);
    }
  }

  @ParameterizedTest
  @CsvSource({"OPENMPI, 2", "OPENMPI, 4", "MPICH, 2", "MPICH, 4"})
  void ranksFulfilTheContract(Family family, int count) {
    String output =
        Ranks.of(family, count).run(ContractRank.class, String.valueOf(count)).succeeded();
    for (int rank = 0; rank < count; rank++) {
      contains(output, "rank " + rank + " fulfils the contract of " + family.title() + " [34]");
    }
  }

  @ParameterizedTest
  @EnumSource(Family.class)
  void whoIsMissingAtTheDeadlineIsNamed(Family family) {
    Ranks.Outcome outcome = Ranks.of(family, 3).run(LateRank.class, "sleeps");
    assertNotEquals(0, outcome.status());
    contains(
        outcome.output(), "rank [01] of 3, barrier number 2: waited 2.0 s in vain for rank 2\n");
    assertTrue(outcome.seconds() < 15, "rank 2 sleeps longer, and should have been ended");
  }

  @ParameterizedTest
  @EnumSource(Family.class)
  void aRankThatDiesEndsAll(Family family) {
    Ranks.Outcome outcome = Ranks.of(family, 3).run(LateRank.class, "dies");
    assertEquals(9, outcome.status(), outcome.output());
  }

  @ParameterizedTest
  @EnumSource(Family.class)
  void aRankThatFailsEndsAllWithItsExitCode(Family family) {
    Ranks.Outcome outcome = Ranks.of(family, 3).run(LateRank.class, "fails");
    assertEquals(5, outcome.status(), outcome.output());
    contains(outcome.output(), "rank 2 says: this rank fails by itself");
  }

  @ParameterizedTest
  @EnumSource(Family.class)
  void ranksThatDoDifferentThingsAreTold(Family family) {
    Ranks.Outcome outcome = Ranks.of(family, 2).run(LateRank.class, "differs");
    assertEquals(5, outcome.status(), outcome.output());
    contains(outcome.output(), "rank [01] of 2, [a-z-]+ number [23]: .*[Tt]runcated");
  }

  /** Open MPI's variables around a process that only MPICH's launcher started, and so on. */
  @ParameterizedTest
  @EnumSource(Family.class)
  void aLauncherOfAnotherMpiIsRefused(Family family) {
    Ranks ranks = Ranks.of(family, 2);
    if (family == Family.MPICH) { // its own variables stay, but these come first
      ranks.with("OMPI_COMM_WORLD_SIZE", "2").with("OMPI_COMM_WORLD_RANK", "0");
    } else {
      ranks.with("JTRELU_TEST_LAUNCHER", "PMI");
    }
    Ranks.Outcome outcome = ranks.run(WrongLauncherRank.class);
    contains(
        outcome.output(), "started 2 processes, but .* sees 1: the launcher is not that MPI's");
  }

  @Test
  void launchersAreToldByTheirVariables() {
    assertEquals(Optional.empty(), Launcher.of(Map.of()));
    assertEquals(
        Optional.of(new Launcher("Open MPI's mpirun", Family.OPENMPI, 2, 4)),
        Launcher.of(Map.of("OMPI_COMM_WORLD_RANK", "2", "OMPI_COMM_WORLD_SIZE", "4")));
    assertEquals(
        Optional.of(new Launcher("MPICH's mpiexec", Family.MPICH, 0, 2)),
        Launcher.of(Map.of("PMI_RANK", "0", "PMI_SIZE", "2")));
    refused("PMI_SIZE should be a number, it is many", Map.of("PMI_SIZE", "many", "PMI_RANK", "0"));
    refused("rank 2 of 2", Map.of("PMI_SIZE", "2", "PMI_RANK", "2"));
  }

  /** As Slurm 22.05 has them. */
  @Test
  void srunNeedsPmixOrPmi2() {
    // A batch script's own process is no task of a step.
    assertEquals(Optional.empty(), Launcher.of(Map.of("SLURM_NTASKS", "4")));
    Map<String, String> one = Map.of("SLURM_PROCID", "0", "SLURM_STEP_NUM_TASKS", "1");
    assertEquals(Optional.empty(), Launcher.of(one));
    Map<String, String> step = Map.of("SLURM_PROCID", "3", "SLURM_STEP_NUM_TASKS", "4");
    refused("srun started 4 processes .* srun --mpi=pmix .* --mpi=pmi2", step);
    Map<String, String> pmix = new HashMap<>(step);
    pmix.put("PMIX_RANK", "3");
    assertEquals(
        Optional.of(new Launcher("srun --mpi=pmix", Family.OPENMPI, 3, 4)), Launcher.of(pmix));
    Map<String, String> pmi2 = new HashMap<>(step);
    pmi2.putAll(Map.of("PMI_RANK", "3", "PMI_SIZE", "4", "SLURM_MPI_TYPE", "pmi2"));
    assertEquals(
        Optional.of(new Launcher("srun --mpi=pmi2", Family.MPICH, 3, 4)), Launcher.of(pmi2));
  }

  private static void refused(String why, Map<String, String> environment) {
    Executable call = () -> Launcher.of(environment);
    contains(String.valueOf(assertThrows(DistributedException.class, call).getMessage()), why);
  }

  private static void contains(String text, String pattern) {
    assertTrue(
        Pattern.compile(pattern).matcher(text).find(), () -> pattern + " is not in\n" + text);
  }
}
