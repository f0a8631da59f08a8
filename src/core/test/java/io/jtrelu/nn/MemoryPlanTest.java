package io.jtrelu.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.SplittableRandom;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Test;

class MemoryPlanTest {
  @Property(tries = 200)
  void valuesThatLiveTogetherNeverOverlap(
      @ForAll long seed, @ForAll @IntRange(min = 1, max = 60) int count) {
    SplittableRandom random = new SplittableRandom(seed);
    MemoryPlan plan = new MemoryPlan();
    long[] bytes = new long[count];
    int[] first = new int[count];
    int[] last = new int[count];
    for (int i = 0; i < count; i++) {
      bytes[i] = random.nextLong(1, 5000);
      first[i] = random.nextInt(40);
      last[i] = first[i] + random.nextInt(10);
      assertEquals(i, plan.add(bytes[i], first[i], last[i]));
    }
    plan.solve();
    for (int a = 0; a < count; a++) {
      assertEquals(0, plan.offset(a) % 64);
      assertTrue(plan.offset(a) + bytes[a] <= plan.size());
      for (int b = 0; b < a; b++) {
        boolean together = first[a] <= last[b] && first[b] <= last[a];
        boolean overlap =
            plan.offset(a) < plan.offset(b) + bytes[b]
                && plan.offset(b) < plan.offset(a) + bytes[a];
        assertTrue(!together || !overlap, "values " + a + " and " + b);
      }
    }
  }

  @Test
  void aChainOfTemporariesNeedsTwoBuffers() {
    MemoryPlan plan = new MemoryPlan();
    for (int i = 0; i < 10; i++) {
      plan.add(6400, i, i + 1);
    }
    plan.solve();
    assertEquals(2 * 6400, plan.size());
  }
}
