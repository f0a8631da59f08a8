package io.jtrelu.cli;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Availability;
import io.jtrelu.backend.BackendProvider;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.nn.ActivationLayer;
import io.jtrelu.nn.ConvolutionLayer;
import io.jtrelu.nn.DropoutLayer;
import io.jtrelu.nn.GlobalMeanPoolingLayer;
import io.jtrelu.nn.InputLayer;
import io.jtrelu.nn.Layer;
import io.jtrelu.nn.MaxPoolingLayer;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.NormalizedSumLayer;
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
import io.jtrelu.train.TrainingConfig;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

/** What the reports of runs show, gathered from a model and its metrics. */
final class RunFigures {
  /** Points of a curve; enough for a smooth line. */
  private static final int POINTS = 101;

  /** Cosines that are followed through depth. */
  private static final double[] STARTS = {0, 0.5, 0.9};

  private RunFigures() {}

  /**
   * The report of one run.
   *
   * @param notes figures for the list of settings, such as the device's name
   */
  static TrainingReport training(Model model, Metrics metrics, Map<String, String> notes) {
    Network network = model.network();
    TrainingConfig config = model.training();
    TransformedActivation shaped = model.activation().transformed();
    SignalGraph graph = network.signalGraph();
    List<Series> maps = new ArrayList<>();
    List<Series> depth = new ArrayList<>();
    kernel(name(config), map(model), graph, 0, maps, depth);
    kernel("unshaped ReLU", map(he()), graph, 1, maps, depth);
    List<Series> activations = new ArrayList<>();
    activations.add(curve(name(config), shaped::value, -3, 3));
    activations.add(curve("ReLU, He", he()::value, -3, 3).with(Series.Style.DASHED));
    return new TrainingReport(
        network.name() + " on " + config.data(),
        String.format(
            Locale.ROOT,
            "%d layers with weights, no normalisation%s; %,d parameters.",
            network.layers().stream().filter(l -> l instanceof ConvolutionLayer).count(),
            config.shortcutWeight() == 0 ? ", no shortcuts" : "",
            network.parameterCount()),
        settings(model, notes),
        metrics,
        layers(model),
        maps,
        depth,
        activations,
        environment());
  }

  /** The report of several runs of one network. */
  static ComparisonReport comparison(
      Map<String, Model> models, Map<String, Metrics> metrics, Map<String, String> notes) {
    Model any = models.values().iterator().next();
    SignalGraph graph = any.network().signalGraph();
    List<ComparisonReport.Run> runs = new ArrayList<>();
    List<Series> maps = new ArrayList<>();
    List<Series> depth = new ArrayList<>();
    int colour = 0;
    for (Map.Entry<String, Model> entry : models.entrySet()) {
      String name = entry.getKey();
      Model model = entry.getValue();
      runs.add(new ComparisonReport.Run(name, settings(model, notes), metrics.get(name)));
      kernel(name, map(model), graph, colour++, maps, depth);
    }
    return new ComparisonReport(
        any.network().name() + " on " + any.training().data(),
        "The same network, data, seed and schedule; only the activations differ.",
        runs,
        layers(any),
        maps,
        depth,
        environment());
  }

  private static TransformedActivation he() {
    return TransformedActivation.rectifier(0, Math.sqrt(2));
  }

  private static KernelMap map(TransformedActivation activation) {
    return KernelMap.of(activation);
  }

  private static KernelMap map(Model model) {
    Model.ShapedActivation a = model.activation();
    if (a.weightScale() == 1 && a.biasDeviation() == 0) {
      return KernelMap.of(a.transformed());
    }
    Activation function = Activation.named(a.function());
    double sigmaW2 = a.weightScale() * a.weightScale();
    double sigmaB2 = a.biasDeviation() * a.biasDeviation();
    return KernelMap.of(function, EdgeOfChaos.at(function, sigmaW2, sigmaB2));
  }

  private static String name(TrainingConfig config) {
    return config.shaping().method() + ", " + config.shaping().activation();
  }

  private static void kernel(
      String name,
      KernelMap map,
      SignalGraph graph,
      int colour,
      List<Series> maps,
      List<Series> depth) {
    maps.add(curve(name, c -> graph.output(map::c, c), 0, 1).coloured(colour));
    for (double start : STARTS) {
      double[] values = graph.throughDepth(map::c, start);
      double[] layer = new double[values.length];
      for (int i = 0; i < layer.length; i++) {
        layer[i] = i;
      }
      // One entry in the legend for all starting values.
      depth.add(Series.of(start == STARTS[0] ? name : "", layer, values).coloured(colour));
    }
  }

  private static Series curve(
      String name, java.util.function.DoubleUnaryOperator f, double from, double to) {
    double[] x = new double[POINTS];
    double[] y = new double[POINTS];
    for (int i = 0; i < POINTS; i++) {
      x[i] = from + (to - from) * i / (POINTS - 1);
      y[i] = f.applyAsDouble(x[i]);
    }
    return Series.of(name, x, y);
  }

  private static List<LayerRow> layers(Model model) {
    Network network = model.network();
    List<Layer> layers = network.layers();
    String phi = phi(model);
    Model.ShapedActivation a = model.activation();
    double slope = a.function().equals("leaky_relu") ? a.negativeSlope() : Double.NaN;
    Map<Integer, Long> parameters = new TreeMap<>();
    network.parameters().forEach(p -> parameters.merge(p.layer(), p.shape().elements(), Long::sum));
    List<LayerRow> rows = new ArrayList<>();
    for (int i = 0; i < layers.size(); i++) {
      Layer layer = layers.get(i);
      boolean activated =
          i + 1 < layers.size()
              && layers.get(i + 1) instanceof ActivationLayer next
              && next.source() == i;
      String suffix = activated ? " + " + phi : "";
      String operation =
          switch (layer) {
            case InputLayer input -> "input, normalised per location";
            case ConvolutionLayer c -> convolution(c.descriptor()) + suffix;
            case ActivationLayer activation -> phi;
            case NormalizedSumLayer sum ->
                String.format(
                    Locale.ROOT,
                    "%.3g shortcut + %.3g branch%s",
                    sum.shortcutWeight(),
                    sum.branchWeight(),
                    suffix);
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
                activated || layer instanceof ActivationLayer ? slope : Double.NaN));
      }
    }
    return rows;
  }

  private static String convolution(Conv2dDescriptor d) {
    if (d.h() * d.w() == 1) {
      return "linear";
    }
    String stride = d.strideH() > 1 ? " /" + d.strideH() : "";
    return "conv " + d.kh() + "\u00d7" + d.kw() + stride;
  }

  private static String phi(Model model) {
    Model.ShapedActivation a = model.activation();
    if (!a.function().equals("leaky_relu")) {
      return a.function();
    }
    return a.negativeSlope() == 0 ? "ReLU" : "TReLU";
  }

  private static Map<String, String> settings(Model model, Map<String, String> notes) {
    Map<String, String> settings = new LinkedHashMap<>();
    new ObjectMapper()
        .convertValue(model.training(), new TypeReference<LinkedHashMap<String, Object>>() {})
        .forEach(
            (key, value) -> {
              if (value instanceof Map<?, ?> nested) {
                nested.forEach((k, v) -> settings.put(words(String.valueOf(k)), String.valueOf(v)));
              } else {
                settings.put(words(key), String.valueOf(value));
              }
            });
    Model.ShapedActivation a = model.activation();
    settings.put("negative slope", String.format(Locale.ROOT, "%.10f", a.negativeSlope()));
    settings.put("output scale", String.format(Locale.ROOT, "%.10f", a.outputScale()));
    settings.putAll(notes);
    return settings;
  }

  /** {@code learningRate} as {@code learning rate}. */
  private static String words(String camelCase) {
    return camelCase.replaceAll("(?<=[a-z])([A-Z])", " $1").toLowerCase(Locale.ROOT);
  }

  private static Map<String, String> environment() {
    Map<String, String> environment = new LinkedHashMap<>(Environment.describe());
    for (BackendProvider provider : Backends.providers()) {
      if (provider.availability() instanceof Availability.Available available) {
        environment.put(provider.name(), available.version());
      }
    }
    return environment;
  }
}
