package io.jtrelu.cli;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Availability;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.BatchNormLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.DropoutLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.InputLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NormalizedSumLayer;
import io.jtrelu.nn.SumLayer;
import io.jtrelu.report.ComparisonReport;
import io.jtrelu.report.Environment;
import io.jtrelu.report.LayerRow;
import io.jtrelu.report.Series;
import io.jtrelu.report.TrainingReport;
import io.jtrelu.shaping.EdgeOfChaos;
import io.jtrelu.shaping.KernelMap;
import io.jtrelu.shaping.SignalGraph;
import io.jtrelu.train.Metrics;
import io.jtrelu.train.Model;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.DoubleUnaryOperator;
import org.jspecify.annotations.Nullable;

/** What the reports of runs show, gathered from a model and its metrics. */
final class RunFigures {
  /** Points of a curve; enough for a smooth line. */
  private static final int POINTS = 101;

  /** Cosines that are followed through depth. */
  private static final double[] STARTS = {0, 0.5, 0.9};

  /** Bad images that are named. */
  private static final int NAMED = 20;

  private RunFigures() {}

  /** What to say of the bad images of a data set that were passed over. */
  static Optional<String> skipped(ImageDataset images) {
    List<String> bad = images.skipped();
    if (bad.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        bad.size()
            + " bad "
            + images.split()
            + " images were skipped: "
            + String.join("; ", bad.subList(0, Math.min(NAMED, bad.size())))
            + (bad.size() > NAMED ? "; and " + (bad.size() - NAMED) + " more." : "."));
  }

  /**
   * The report of one run.
   *
   * @param notes figures for the list of settings, such as the device's name
   */
  static TrainingReport training(Run run, Metrics metrics, Map<String, String> notes) {
    Network network = run.model().network();
    SignalGraph graph = network.signalGraph();
    List<Series> maps = new ArrayList<>();
    List<Series> depth = new ArrayList<>();
    kernel(name(run.model()), maps(network), graph, 0, maps, depth);
    kernel("unshaped ReLU", everywhere(network, KernelMap.of(he())), graph, 1, maps, depth);
    List<Series> activations = new ArrayList<>();
    functions(network)
        .forEach((name, function) -> activations.add(curve(name, function::value, -3, 3)));
    activations.add(curve("ReLU, He", he()::value, -3, 3).with(Series.Style.DASHED));
    return new TrainingReport(
        network.name() + " on " + shortName(run.data()),
        String.format(
            Locale.ROOT,
            "%d layers with weights, %s%s; %,d parameters.",
            network.layers().stream().filter(l -> l instanceof ConvolutionLayer).count(),
            network.looksAtBatches() ? "batch normalisation" : "no normalisation",
            network.layers().stream()
                    .anyMatch(l -> l instanceof NormalizedSumLayer || l instanceof SumLayer)
                ? ""
                : ", no shortcuts",
            network.parameterCount()),
        settings(run, notes),
        metrics,
        layers(network),
        maps,
        depth,
        activations,
        environment());
  }

  /** The report of several runs of one network. */
  static ComparisonReport comparison(
      Map<String, Run> runs, Map<String, Metrics> metrics, Map<String, String> notes) {
    Run any = runs.values().iterator().next();
    List<ComparisonReport.Run> shown = new ArrayList<>();
    List<Series> maps = new ArrayList<>();
    List<Series> depth = new ArrayList<>();
    int colour = 0;
    for (Map.Entry<String, Run> entry : runs.entrySet()) {
      String name = entry.getKey();
      Run run = entry.getValue();
      Network network = run.model().network();
      shown.add(new ComparisonReport.Run(name, settings(run, notes), metrics.get(name)));
      kernel(name, maps(network), network.signalGraph(), colour++, maps, depth);
    }
    return new ComparisonReport(
        any.model().network().name() + " on " + shortName(any.data()),
        "The same network, data, seed and schedule; only the activations differ.",
        shown,
        layers(any.model().network()),
        maps,
        depth,
        environment());
  }

  /** Of a folder its own name. */
  private static String shortName(String data) {
    Path name =
        data.indexOf('/') < 0 && data.indexOf('\\') < 0 ? null : Path.of(data).getFileName();
    return name == null ? data : name.toString();
  }

  private static TransformedActivation he() {
    return TransformedActivation.rectifier(0, Math.sqrt(2));
  }

  /** The functions of a network's activations by name, with the parameters of their first use. */
  private static Map<String, TransformedActivation> functions(Network network) {
    Map<String, TransformedActivation> functions = new LinkedHashMap<>();
    for (Layer layer : network.layers()) {
      if (layer instanceof ActivationLayer activation) {
        TransformedActivation function = activation.function();
        functions.putIfAbsent(function.function().activationName(), function);
      }
    }
    return functions;
  }

  /** What each function of a network does to cosines. */
  private static Map<String, DoubleUnaryOperator> maps(Network network) {
    if (network.looksAtBatches()) {
      return Map.of(); // whose samples' cosines depend on the batch
    }
    double sigmaW2 = network.weightScale() * network.weightScale();
    double sigmaB2 = network.biasDeviation() * network.biasDeviation();
    Map<String, DoubleUnaryOperator> maps = new LinkedHashMap<>();
    functions(network)
        .forEach(
            (name, function) -> {
              ActivationFunction phi = function.function();
              KernelMap map =
                  sigmaW2 == 1 && sigmaB2 == 0
                      ? KernelMap.of(function)
                      : KernelMap.of(phi, EdgeOfChaos.at(phi, sigmaW2, sigmaB2));
              maps.put(name, map::c);
            });
    return maps;
  }

  private static Map<String, DoubleUnaryOperator> everywhere(Network network, KernelMap map) {
    Map<String, DoubleUnaryOperator> maps = new LinkedHashMap<>();
    if (network.looksAtBatches()) {
      return maps;
    }
    functions(network).keySet().forEach(name -> maps.put(name, map::c));
    return maps;
  }

  private static String name(Model model) {
    ShapingConfig shaping = model.shaping();
    return shaping != null
        ? shaping.method() + ", " + shaping.activation()
        : String.join(", ", functions(model.network()).keySet());
  }

  /** How a network's activations were shaped, in a few words. */
  static String shaping(Model model) {
    StringBuilder text = new StringBuilder(name(model));
    TransformedActivation rectifier = functions(model.network()).get("leaky_relu");
    if (rectifier != null) {
      text.append(String.format(Locale.ROOT, " (negative slope %.4f)", rectifier.negativeSlope()));
    }
    return text.toString();
  }

  private static void kernel(
      String name,
      Map<String, DoubleUnaryOperator> map,
      SignalGraph graph,
      int colour,
      List<Series> maps,
      List<Series> depth) {
    if (map.isEmpty()) {
      return; // without activations, cosines stay
    }
    maps.add(
        curve(
                name,
                c -> {
                  double[] through = graph.throughDepth(map, c);
                  return through[through.length - 1];
                },
                0,
                1)
            .coloured(colour));
    for (double start : STARTS) {
      double[] values = graph.throughDepth(map, start);
      double[] layer = new double[values.length];
      for (int i = 0; i < layer.length; i++) {
        layer[i] = i;
      }
      // One entry in the legend for all starting values.
      depth.add(Series.of(start == STARTS[0] ? name : "", layer, values).coloured(colour));
    }
  }

  private static Series curve(String name, DoubleUnaryOperator f, double from, double to) {
    double[] x = new double[POINTS];
    double[] y = new double[POINTS];
    for (int i = 0; i < POINTS; i++) {
      x[i] = from + (to - from) * i / (POINTS - 1);
      y[i] = f.applyAsDouble(x[i]);
    }
    return Series.of(name, x, y);
  }

  private static List<LayerRow> layers(Network network) {
    List<Layer> layers = network.layers();
    Map<Integer, Long> parameters = new TreeMap<>();
    network.parameters().forEach(p -> parameters.merge(p.layer(), p.shape().elements(), Long::sum));
    List<LayerRow> rows = new ArrayList<>();
    for (int i = 0; i < layers.size(); i++) {
      Layer layer = layers.get(i);
      TransformedActivation function = null;
      if (layer instanceof ActivationLayer activation) {
        function = activation.function();
      } else if (i + 1 < layers.size()
          && layers.get(i + 1) instanceof ActivationLayer next
          && next.source() == i) {
        function = next.function();
      }
      String suffix = function == null ? "" : " + " + phi(function);
      String operation =
          switch (layer) {
            case InputLayer input -> "input, normalised per location";
            case ConvolutionLayer c -> convolution(c.descriptor()) + suffix;
            case ActivationLayer activation -> phi(activation.function());
            case NormalizedSumLayer sum ->
                String.format(
                    Locale.ROOT,
                    "%.3g shortcut + %.3g branch%s",
                    sum.shortcutWeight(),
                    sum.branchWeight(),
                    suffix);
            case SumLayer sum -> "shortcut + branch" + suffix;
            case BatchNormLayer norm -> "batch norm" + suffix;
            case MaxPoolingLayer pool -> "max-pool " + pool.descriptor().kernel();
            case GlobalMeanPoolingLayer mean -> "mean over locations";
            case DropoutLayer dropout -> "dropout " + dropout.rate();
            default -> layer.kind() + suffix;
          };
      boolean part =
          layer instanceof ActivationLayer
              && !(layers.get(i - 1) instanceof MaxPoolingLayer)
              && layer.sources().getFirst() == i - 1;
      if (!part) { // shown with the layer before it
        rows.add(
            new LayerRow(
                layer.name(),
                operation,
                layer.extent().height(),
                layer.extent().width(),
                layer.extent().channels(),
                parameters.getOrDefault(i, 0L),
                slope(function)));
      }
    }
    return rows;
  }

  private static double slope(@Nullable TransformedActivation function) {
    return function != null && function.function().activationName().equals("leaky_relu")
        ? function.negativeSlope()
        : Double.NaN;
  }

  private static String convolution(Conv2dDescriptor d) {
    if (d.h() * d.w() == 1) {
      return "linear";
    }
    String stride = d.strideH() > 1 ? " /" + d.strideH() : "";
    return "conv " + d.kh() + "\u00d7" + d.kw() + stride;
  }

  private static String phi(TransformedActivation function) {
    String name = function.function().activationName();
    if (!name.equals("leaky_relu")) {
      return name;
    }
    return function.negativeSlope() == 0 ? "ReLU" : "TReLU";
  }

  private static Map<String, String> settings(Run run, Map<String, String> notes) {
    Map<String, String> settings = new LinkedHashMap<>();
    settings.put("network", run.model().network().name());
    settings.put("data", run.data());
    ObjectMapper mapper = new ObjectMapper();
    List<Object> parts = new ArrayList<>();
    if (run.model().shaping() != null) {
      parts.add(run.model().shaping());
    }
    parts.add(run.training());
    for (Object part : parts) {
      mapper
          .convertValue(part, new TypeReference<LinkedHashMap<String, Object>>() {})
          .forEach((key, value) -> settings.put(words(key), String.valueOf(value)));
    }
    functions(run.model().network())
        .forEach(
            (name, f) -> {
              if (name.equals("leaky_relu")) {
                settings.put(
                    "negative slope", String.format(Locale.ROOT, "%.10f", f.negativeSlope()));
                settings.put("output scale", String.format(Locale.ROOT, "%.10f", f.outputScale()));
              }
            });
    settings.putAll(notes);
    return settings;
  }

  /** {@code learningRate} as {@code learning rate}. */
  private static String words(String camelCase) {
    return camelCase.replaceAll("(?<=[a-z])([A-Z])", " $1").toLowerCase(Locale.ROOT);
  }

  static Map<String, String> environment() {
    Map<String, String> environment = new LinkedHashMap<>(Environment.describe());
    for (BackendProvider provider : Backends.providers()) {
      if (provider.availability() instanceof Availability.Available available) {
        environment.put(provider.name(), available.version());
      }
    }
    return environment;
  }
}
