package io.jtrelu.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Optional;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.AlphaChars;
import net.jqwik.api.constraints.StringLength;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class NearestNameTest {
  private static final List<String> NETWORKS = List.of("plain50", "resnet50", "resnet101");

  @ParameterizedTest
  @CsvSource({
    "'', '', 0",
    "a, '', 1",
    "kitten, sitting, 3",
    "plian50, plain50, 1",
    "ab, ba, 1",
    "abc, abc, 0"
  })
  void knownDistances(String a, String b, int expected) {
    assertEquals(expected, NearestName.distance(a, b));
  }

  @Property(tries = 200)
  void distanceIsSymmetricAndBounded(
      @ForAll @AlphaChars @StringLength(max = 12) String a,
      @ForAll @AlphaChars @StringLength(max = 12) String b) {
    int distance = NearestName.distance(a, b);
    assertEquals(distance, NearestName.distance(b, a));
    assertEquals(a.equals(b), distance == 0);
    assertTrue(distance >= Math.abs(a.length() - b.length()));
    assertTrue(distance <= Math.max(a.length(), b.length()));
  }

  @Test
  void findsWhatWasMeant() {
    assertEquals(Optional.of("plain50"), NearestName.of("plian50", NETWORKS));
    assertEquals(Optional.of("resnet101"), NearestName.of("ResNet-101", NETWORKS));
    assertEquals(Optional.empty(), NearestName.of("transformer", NETWORKS));
    assertEquals(Optional.empty(), NearestName.of("x".repeat(100_000), NETWORKS));
  }

  @Test
  void theMessageListsTheKnown() {
    assertEquals(
        "unknown network 'plian50'; did you mean 'plain50'? Known are plain50, resnet50, resnet101",
        NearestName.unknown("network", "plian50", NETWORKS).getMessage());
    assertEquals(
        "unknown network 'vgg'; known are plain50, resnet50, resnet101",
        NearestName.unknown("network", "vgg", NETWORKS).getMessage());
  }
}
