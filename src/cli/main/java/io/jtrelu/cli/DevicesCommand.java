package io.jtrelu.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.backend.Availability;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.Backends;
import io.jtrelu.data.ImageDecoder;
import io.jtrelu.distributed.Launcher.Family;
import io.jtrelu.distributed.MpiCommunicator;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu devices}: what can be computed on, and why something cannot. */
@Command(
    name = "devices",
    description = {
      "List the backends, version and devices, or why one is not available. Then what brings"
          + " processes together, openmpi and mpich, and what decodes JPEGs."
    })
final class DevicesCommand implements Callable<Integer> {
  @ParentCommand private Main main;

  @Option(names = "--json", description = "Print JSON.")
  private boolean json;

  @Option(
      names = "--forget-tuning",
      description = "Forget what jtrelu train --tune has measured on this machine.")
  private boolean forgetTuning;

  @Override
  public Integer call() throws IOException {
    if (forgetTuning) {
      boolean forgotten = false;
      for (BackendProvider provider : Backends.providers()) {
        forgotten |= provider.forgetTuning();
      }
      main.console().print(forgotten ? "forgotten" : "nothing was kept");
      return 0;
    }
    List<Device> devices = new ArrayList<>(look(Backends.providers()));
    for (Family family : Family.values()) {
      String name = family.name().toLowerCase(Locale.ROOT);
      devices.add(new Device(name, MpiCommunicator.availability(family), false, List.of()));
    }
    String jpeg = ImageDecoder.jpegDecoder();
    main.console().print(json ? json(devices, jpeg) : text(devices) + "\njpeg      " + jpeg);
    return 0;
  }

  /** A provider, asked once. */
  record Device(
      String name, Availability availability, boolean automatic, List<String> libraries) {}

  /** Asks each provider; the first available one of those in automatic choice is marked. */
  static List<Device> look(List<BackendProvider> providers) {
    boolean[] chosen = {false};
    return providers.stream()
        .map(
            provider -> {
              Availability availability = provider.availability();
              boolean automatic =
                  !chosen[0]
                      && provider.priority() >= 0
                      && availability instanceof Availability.Available;
              chosen[0] |= automatic;
              return new Device(provider.name(), availability, automatic, provider.libraries());
            })
        .toList();
  }

  static String text(List<Device> devices) {
    if (devices.isEmpty()) {
      return "no backends on the class path";
    }
    StringBuilder text = new StringBuilder();
    for (Device device : devices) {
      String name = String.format(Locale.ROOT, "%-10s", device.name());
      switch (device.availability()) {
        case Availability.Available available -> {
          text.append(name).append("available, version ").append(available.version());
          text.append(device.automatic() ? " (taken by default)\n" : "\n");
          for (String line : available.devices()) {
            text.append(" ".repeat(10)).append(line).append('\n');
          }
          for (String line : device.libraries()) {
            text.append(" ".repeat(10)).append(line).append('\n');
          }
        }
        case Availability.Unavailable unavailable ->
            text.append(name).append("not available: ").append(unavailable.reason()).append('\n');
      }
    }
    return text.toString().stripTrailing();
  }

  static String json(List<Device> devices, String jpeg) throws JsonProcessingException {
    ObjectMapper mapper = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);
    ArrayNode array = mapper.createArrayNode();
    for (Device device : devices) {
      ObjectNode node = array.addObject().put("name", device.name());
      switch (device.availability()) {
        case Availability.Available available -> {
          node.put("available", true).put("version", available.version());
          ArrayNode lines = node.putArray("devices");
          available.devices().forEach(lines::add);
          if (!device.libraries().isEmpty()) {
            ArrayNode libraries = node.putArray("libraries");
            device.libraries().forEach(libraries::add);
          }
        }
        case Availability.Unavailable unavailable ->
            node.put("available", false).put("reason", unavailable.reason());
      }
      node.put("default", device.automatic());
    }
    array.addObject().put("name", "jpeg").put("available", true).put("decoder", jpeg);
    return mapper.writeValueAsString(array);
  }
}
