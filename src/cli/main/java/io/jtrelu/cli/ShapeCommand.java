package io.jtrelu.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.jtrelu.activation.Activation;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.nn.Layer.Extent;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.nn.SignalCheck;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Eoc;
import io.jtrelu.shaping.Shaping;
import io.jtrelu.shaping.ShapingMethod;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.shaping.Solution;
import io.jtrelu.shaping.Tat;
import io.jtrelu.shaping.Unshaped;
import io.jtrelu.train.AtomicFile;
import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParentCommand;

/** {@code jtrelu shape}: the parameters of an activation for a network. */
@Command(
    name = "shape",
    description = "Choose an activation's parameters for a network.",
    sortOptions = false)
final class ShapeCommand implements Callable<Integer> {
  private static final Pattern CHAIN = Pattern.compile("plain:(\\d+)(?::(\\d+))?");

  /** More is a slip of the finger, and would take long. */
  private static final int LONGEST_CHAIN = 1_000_000;

  /** Shaping depends neither on the size of the images nor on the number of classes. */
  private static final Extent ANY_IMAGE = new Extent(32, 32, 4);

  private static final int ANY_CLASSES = 10;

  /** Enough locations for whole tiles of the convolutions, few enough to be quick. */
  private static final Extent VERIFIED_IMAGE = new Extent(8, 8, 4);

  private static final int DEEPEST_VERIFIED = 1000;

  @ParentCommand private Main main;

  @Option(
      names = "--network",
      paramLabel = "NAME",
      defaultValue = "plain50",
      description =
          "plain50, plain:L (a chain of L activations) or resnet18|34|50|101|152|200;"
              + " default ${DEFAULT-VALUE}.")
  private String network;

  @Option(
      names = "--block",
      paramLabel = "v1|v2",
      defaultValue = "v2",
      description = "Residual block: activation after the sum (v1) or before; default v2.")
  private Networks.Block block;

  @Option(
      names = "--shortcut-weight",
      paramLabel = "W",
      defaultValue = "0",
      description = "Weight of a ResNet's shortcuts in [0, 1); default 0: none.")
  private double shortcutWeight;

  @Option(
      names = "--method",
      paramLabel = "NAME",
      defaultValue = "tat",
      description = "tat, dks, eoc or none; default tat.")
  private String method;

  @Option(
      names = "--activation",
      paramLabel = "NAME",
      defaultValue = "leaky_relu",
      description = "Activation function (--list shows all); default leaky_relu.")
  private String activation;

  @Option(
      names = "--eta",
      paramLabel = "E",
      description = "tat with leaky_relu: target for M(0), in (0, 1); default 0.9.")
  private @Nullable Double eta;

  @Option(
      names = "--tau",
      paramLabel = "T",
      description = "tat with others: target for the curvature, above 0; default 0.3.")
  private @Nullable Double tau;

  @Option(
      names = "--zeta",
      paramLabel = "Z",
      description = "dks: target for the slope, above 1; default 1.5.")
  private @Nullable Double zeta;

  @Option(
      names = "--q-slope",
      paramLabel = "Q",
      description = "dks: target for the local Q'(1), above 0; default 1.")
  private @Nullable Double qSlope;

  @Option(
      names = "--sigma-b2",
      paramLabel = "S",
      description = "eoc: variance of the biases; default 0.")
  private @Nullable Double sigmaB2;

  @Option(
      names = "--solution",
      paramLabel = "N",
      defaultValue = "1",
      description = "Which solution, where there are several, in the order listed; default 1.")
  private int solution;

  @Option(
      names = "--plot",
      paramLabel = "FILE.svg",
      description = "Draw C maps, c through depth, and the activation before and after.")
  private @Nullable Path plot;

  @Option(
      names = "--verify",
      description =
          "Build the network with random weights, measure q and c after every activation and"
              + " compare them with the theory.")
  private boolean verify;

  @Option(
      names = "--networks",
      paramLabel = "N",
      defaultValue = "8",
      description = "--verify: random networks to measure, at least 2; default 8.")
  private int networks;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "--verify: key of the random numbers; default 1.")
  private long seed;

  @Option(
      names = "--device",
      paramLabel = "NAME",
      defaultValue = "auto",
      description =
          "--verify: what to run the networks on, such as cpu:4 for 4 lanes (see jtrelu devices);"
              + " default auto.")
  private String device;

  @Option(names = "--list", description = "Name the methods, activations and networks.")
  private boolean list;

  @Option(names = "--regions", description = "List the subnetworks that M was maximised over.")
  private boolean regions;

  @Option(names = "--json", description = "Print JSON.")
  private boolean json;

  @Override
  public Integer call() throws IOException {
    if (list) {
      main.console().print(json ? text(ShapingNames.json()) : ShapingNames.text());
      return 0;
    }
    if (plot != null && !plot.toString().toLowerCase(Locale.ROOT).endsWith(".svg")) {
      throw new UsageException("--plot draws SVG; give the file a name that ends in .svg");
    }
    Request request = request();
    Shaping shaping = request.method().solve(request.graph(), request.activation());
    if (plot != null) {
      AtomicFile.writeString(plot, ShapingFigure.svg(request, shaping));
    }
    SignalCheck.Result check = verify ? verify(request, shaping) : null;
    if (json) {
      ObjectNode node = ShapingOutput.json(request, shaping);
      if (regions) {
        ShapingOutput.addRegions(node, request.graph());
      }
      if (check != null) {
        node.set("verify", SignalCheckOutput.json(check));
      }
      main.console().print(text(node));
    } else {
      main.console().print(ShapingOutput.text(request, shaping));
      if (regions) {
        main.console().print(ShapingOutput.regions(request.graph()));
      }
      if (check != null) {
        main.console().print(SignalCheckOutput.text(check));
      }
      if (plot != null) {
        main.console().print("Drawn in " + plot);
      }
    }
    return check == null || check.passed()
        ? CommandLine.ExitCode.OK
        : CommandLine.ExitCode.SOFTWARE;
  }

  private SignalCheck.Result verify(Request request, Shaping shaping) {
    if (networks < 2) {
      throw new UsageException("--networks must be at least 2, but is " + networks);
    }
    if (request.graph().activations() > DEEPEST_VERIFIED) {
      throw new UsageException(
          "--verify builds the network; it takes up to "
              + DEEPEST_VERIFIED
              + " activations, "
              + request.options().name()
              + " has "
              + request.graph().activations());
    }
    Network network = Networks.build(request.options(), VERIFIED_IMAGE, ANY_CLASSES);
    SignalCheck.Options standard = SignalCheck.Options.of(seed);
    SignalCheck.Options options =
        new SignalCheck.Options(seed, networks, standard.draws(), standard.wideDraws());
    try (Backend backend = open();
        Progress progress = main.console().progress("verify", 0, networks)) {
      return SignalCheck.run(
          backend, network, shaping, options, done -> progress.update(done, "networks measured"));
    }
  }

  private Backend open() {
    try {
      return Backends.open(device);
    } catch (IllegalArgumentException unknown) {
      throw new UsageException(unknown.getMessage(), unknown);
    }
  }

  /**
   * What is asked for, checked.
   *
   * @param options the network
   * @param graph what it does to the kernel
   * @param method the method with its targets
   * @param activation the function to shape
   */
  record Request(
      Networks.Options options, SignalGraph graph, ShapingMethod method, Activation activation) {
    /** Which of the method's solutions, from 1. */
    int solution() {
      return method instanceof Solution one ? one.number() : 1;
    }

    /** Whether the network has residual blocks. */
    boolean isResidual() {
      return options.name().startsWith("resnet");
    }
  }

  private Request request() {
    if (!(shortcutWeight >= 0 && shortcutWeight < 1)) {
      throw new UsageException(
          "--shortcut-weight must lie in [0, 1), but is " + shortcutWeight + "; 0 means none");
    }
    String name = network.strip().toLowerCase(Locale.ROOT);
    Networks.Options options = new Networks.Options(name, block, shortcutWeight, 0);
    SignalGraph graph = graph(options);
    if (name.startsWith("plain") && shortcutWeight > 0) {
      throw new UsageException(
          "--shortcut-weight is for ResNets; " + name + " is a plain chain without shortcuts");
    }
    if (!Activation.names().contains(activation)) {
      throw NearestName.unknown("activation", activation, Activation.names());
    }
    Activation function = Activation.named(activation);
    try {
      ShapingMethod chosen = method(function);
      return new Request(
          options, graph, solution == 1 ? chosen : new Solution(chosen, solution), function);
    } catch (IllegalArgumentException outOfRange) {
      throw new UsageException(outOfRange.getMessage(), outOfRange);
    }
  }

  /** A chain is built without its layers, so that its length is free. */
  private static SignalGraph graph(Networks.Options options) {
    Matcher chain = CHAIN.matcher(options.name());
    if (chain.matches()) {
      String digits = chain.group(1);
      int length = digits.length() > 9 ? Integer.MAX_VALUE : Integer.parseInt(digits);
      if (length < 1 || length > LONGEST_CHAIN) {
        throw new UsageException(
            "a plain chain has between 1 and "
                + LONGEST_CHAIN
                + " activations, but "
                + digits
                + " were asked for");
      }
      return SignalGraph.chain(length);
    }
    try {
      return Networks.build(options, ANY_IMAGE, ANY_CLASSES).signalGraph();
    } catch (IllegalArgumentException unknown) {
      UsageException explained = NearestName.unknown("network", options.name(), Networks.names());
      explained.initCause(unknown);
      throw explained;
    }
  }

  private ShapingMethod method(Activation function) {
    boolean rectifier = function == Activation.LEAKY_RELU;
    warnOfUnused(method, rectifier);
    return switch (method) {
      case "tat" ->
          new Tat(eta == null ? Tat.DEFAULT_ETA : eta, tau == null ? Tat.DEFAULT_TAU : tau);
      case "dks" -> new Dks(zeta == null ? Dks.DEFAULT_ZETA : zeta, qSlope == null ? 1 : qSlope);
      case "eoc" -> new Eoc(sigmaB2 == null ? 0 : sigmaB2);
      case "none" -> new Unshaped();
      default -> throw NearestName.unknown("method", method, ShapingMethod.names());
    };
  }

  private void warnOfUnused(String name, boolean rectifier) {
    boolean tat = name.equals("tat");
    Map<String, Boolean> unused = new LinkedHashMap<>();
    unused.put("--eta", eta != null && !(tat && rectifier));
    unused.put("--tau", tau != null && !(tat && !rectifier));
    unused.put("--zeta", zeta != null && !name.equals("dks"));
    unused.put("--q-slope", qSlope != null && !name.equals("dks"));
    unused.put("--sigma-b2", sigmaB2 != null && !name.equals("eoc"));
    List<String> named = unused.keySet().stream().filter(unused::get).toList();
    if (!named.isEmpty() && ShapingMethod.names().contains(name)) {
      main.console()
          .note(
              "note: "
                  + String.join(", ", named)
                  + " has no effect on "
                  + name
                  + " with "
                  + activation);
    }
  }

  static String text(Object node) throws JsonProcessingException {
    return new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT).writeValueAsString(node);
  }
}
