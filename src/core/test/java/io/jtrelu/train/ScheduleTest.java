package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.Test;

class ScheduleTest {
  @Test
  void constantIsConstant() {
    Schedule schedule = new Schedule.Constant(0.1);
    assertEquals(0.1, schedule.rate(0));
    assertEquals(0.1, schedule.rate(1L << 40));
  }

  @Test
  void edgesAreExact() {
    Schedule schedule = new Schedule.WarmupCosine(0.8, 3, 11);
    assertEquals(0.2, schedule.rate(0), 1e-15);
    assertEquals(0.4, schedule.rate(1), 1e-15);
    assertEquals(0.6, schedule.rate(2), 1e-15);
    assertEquals(0.8, schedule.rate(3));
    assertEquals(0.4, schedule.rate(7), 1e-15); // half of the way down
    assertEquals(0.8 * 0.5 * (1 - Math.sqrt(0.5)), schedule.rate(9), 1e-15);
    assertEquals(0, schedule.rate(11));
    assertEquals(0, schedule.rate(1000));
  }

  @Test
  void noWarmupBeginsAtThePeak() {
    assertEquals(0.5, new Schedule.WarmupCosine(0.5, 0, 1).rate(0));
  }

  @Property(tries = 200)
  void risesThenFallsWithinBounds(
      @ForAll @IntRange(min = 0, max = 100) int warmup,
      @ForAll @IntRange(min = 1, max = 200) int rest) {
    Schedule schedule = new Schedule.WarmupCosine(1, warmup, warmup + rest);
    for (int step = 0; step < warmup + rest; step++) {
      double now = schedule.rate(step);
      double next = schedule.rate(step + 1);
      Assertions.assertTrue(now > 0 && now <= 1, "step " + step + ": " + now);
      Assertions.assertTrue(step < warmup ? next > now : next < now, "step " + step);
    }
  }

  @Test
  void refusesWhatIsNoSchedule() {
    assertThrows(IllegalArgumentException.class, () -> new Schedule.Constant(Double.NaN));
    assertThrows(IllegalArgumentException.class, () -> new Schedule.Constant(-1));
    assertThrows(
        IllegalArgumentException.class,
        () -> new Schedule.WarmupCosine(Double.POSITIVE_INFINITY, 0, 1));
    assertThrows(IllegalArgumentException.class, () -> new Schedule.WarmupCosine(1, 5, 5));
    assertThrows(IllegalArgumentException.class, () -> new Schedule.WarmupCosine(1, -1, 5));
    assertThrows(IllegalArgumentException.class, () -> new Schedule.WarmupCosine(1, 0, 0));
  }
}
