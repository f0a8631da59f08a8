package io.jtrelu.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.junit.jupiter.api.Test;

/** Finding and opening backends by name. */
class BackendsTest {
  @Test
  void bestFirst() {
    List<BackendProvider> providers = Backends.providers();
    assertTrue(
        providers.stream().anyMatch(provider -> provider.name().equals("reference")),
        "the reference backend is always there");
    for (int i = 1; i < providers.size(); i++) {
      assertTrue(providers.get(i - 1).priority() >= providers.get(i).priority(), "sorted");
    }
  }

  @Test
  void referenceIsAlwaysAvailable() {
    for (BackendProvider provider : Backends.providers()) {
      if (provider.name().equals("reference")) {
        assertInstanceOf(Availability.Available.class, provider.availability());
      }
    }
    for (String name : List.of("reference", " Reference ", "reference:0")) {
      try (Backend backend = Backends.open(name)) {
        assertEquals("reference", backend.name());
      }
    }
  }

  @Test
  void somethingOpensOnEveryMachine() {
    try (Backend backend = Backends.open("cpu")) {
      assertEquals(io.jtrelu.tensor.Device.CPU, backend.device());
    }
    try (Backend backend = Backends.open("auto")) {
      assertTrue(backend.lanes() >= 1);
    }
  }

  @Test
  void refusals() {
    Refusals.requireMessage(
        IllegalArgumentException.class,
        () -> Backends.open("tpu").close(),
        "tpu",
        "auto",
        "cpu",
        "reference");
    Refusals.requireMessage(
        IllegalArgumentException.class, () -> Backends.open("reference:x").close(), "number");
    Refusals.requireMessage(
        BackendUnavailableException.class, () -> Backends.open("reference:7").close(), "7");
  }
}
