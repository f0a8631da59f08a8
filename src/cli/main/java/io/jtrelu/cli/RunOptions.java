package io.jtrelu.cli;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Backends;
import io.jtrelu.backend.Tuning;
import io.jtrelu.data.DataException;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Reading;
import io.jtrelu.data.Reading.Place;
import io.jtrelu.distributed.Launcher;
import io.jtrelu.nn.Network;
import io.jtrelu.nn.Networks;
import io.jtrelu.shaping.Dks;
import io.jtrelu.shaping.Tat;
import io.jtrelu.tensor.DataType;
import io.jtrelu.train.GradientExchange;
import io.jtrelu.train.Model;
import io.jtrelu.train.Optimizer;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.TrainingConfig;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** What is trained on what and how: the options that {@code train} and {@code compare} share. */
final class RunOptions {
  /** What plain networks of 50 to 200 layers learnt best with. */
  private static final double MUON_RATE_TIMES_DEPTH = 0.1;

  @Option(
      names = "--network",
      paramLabel = "NAME",
      defaultValue = "plain50",
      description =
          "plain50, plain:L, plain:L:width, resnet18|34|50|101|152|200; to compare with, with batch"
              + " normalisation and shortcuts: bnresnet50-small (of plain50's layers),"
              + " bnresnet18|34|50|101|152|200 (${DEFAULT-VALUE}).")
  String network = "plain50";

  @Option(
      names = "--block",
      paramLabel = "V1|V2",
      defaultValue = "V2",
      description =
          "Residual block of ResNets: activation after the sum or before the branch"
              + " (${DEFAULT-VALUE}).")
  Networks.Block block = Networks.Block.V2;

  @Option(
      names = "--shortcut-weight",
      paramLabel = "W",
      defaultValue = "0",
      description =
          "Weight of shortcuts in ResNets, in [0, 1); 0 leaves them out" + " (${DEFAULT-VALUE}).")
  double shortcutWeight;

  @Option(
      names = "--weights",
      paramLabel = "KIND",
      description =
          "How weights begin: orthogonal (Delta), or gaussian, N(0, sigma_w^2 / inputs), with He's"
              + " sigma_w^2 = 2 for he and that of the edge of chaos for eoc (orthogonal; gaussian"
              + " for networks with batch normalisation).")
  @Nullable String weights;

  @Option(
      names = "--eta",
      defaultValue = "" + Tat.DEFAULT_ETA,
      description = "Target of TAT for leaky_relu (${DEFAULT-VALUE}).")
  double eta = Tat.DEFAULT_ETA;

  @Option(
      names = "--tau",
      defaultValue = "" + Tat.DEFAULT_TAU,
      description = "Target of TAT for smooth activations (${DEFAULT-VALUE}).")
  double tau = Tat.DEFAULT_TAU;

  @Option(
      names = "--zeta",
      defaultValue = "" + Dks.DEFAULT_ZETA,
      description = "Target of DKS (${DEFAULT-VALUE}).")
  double zeta = Dks.DEFAULT_ZETA;

  @Option(
      names = "--sigma-b2",
      defaultValue = "0",
      description = "Variance of the biases for EOC (${DEFAULT-VALUE}).")
  double sigmaB2;

  @Option(
      names = "--solution",
      paramLabel = "N",
      defaultValue = "1",
      description =
          "Which solution, where shaping has several; jtrelu shape lists them (${DEFAULT-VALUE}).")
  int solution = 1;

  @Option(
      names = "--data",
      paramLabel = "DATA",
      defaultValue = Datasets.EMBEDDED,
      description = {
        "embedded (10,000 images of Fashion-MNIST, in the jar), fashion-mnist, or a folder: IDX"
            + " files, CIFAR binary, shards (.tar), or a folder of images per class"
            + " (${DEFAULT-VALUE})."
      })
  String data = Datasets.EMBEDDED;

  @Mixin ReadingOptions reading = new ReadingOptions();

  @Option(
      names = "--image-size",
      paramLabel = "N|HxW",
      description =
          "Size that images are brought to (as they are; images of folders and shards: that of the"
              + " first one).")
  @Nullable String imageSize;

  @Option(
      names = "--random-crop",
      paramLabel = "PIXELS",
      defaultValue = "0",
      description = "Pad images by so many pixels and crop at random (${DEFAULT-VALUE}).")
  int cropPadding;

  @Option(
      names = "--random-resized-crop",
      paramLabel = "SHARE",
      defaultValue = "1",
      description =
          "Cut a random part of at least this share of each picture's area, 3:4 to 4:3, and bring it"
              + " to the size of the images; 0.08 is usual for photographs. Streams folders and"
              + " shards unless --data-in says otherwise (${DEFAULT-VALUE}: none).")
  double cropArea = 1;

  @Option(names = "--flip", description = "Mirror images at random.")
  boolean flip;

  @Option(
      names = "--batch",
      paramLabel = "N",
      defaultValue = "64",
      description = "Images per pass (${DEFAULT-VALUE}).")
  int batch = 64;

  @Option(
      names = "--micro-batch",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "Images that a CPU's core takes through the network at a time, a divisor of the batch"
              + " (chosen so that four to eight cores find work). More are faster on few cores, and"
              + " sums round otherwise. A GPU takes whole batches.")
  int microBatch;

  @Option(
      names = "--shards",
      paramLabel = "S",
      defaultValue = "0",
      description =
          "Cut each batch into equal parts, a power of two, that processes can share: mpirun -np 4"
              + " jtrelu train --shards 8. Any number of processes that divides it, one too, gives the"
              + " same bits. Also for one with more than 8 cores: without shards a batch has at most"
              + " 8 parts. Each holds a gradient, 4 bytes for a parameter.")
  int shards;

  /** Who adds up the gradients of several processes. */
  enum Reduction {
    TREE,
    LIBRARY
  }

  @Option(
      names = "--reduction",
      paramLabel = "tree|library",
      defaultValue = "tree",
      description =
          "Add up the gradients of several processes in the tree over shards, or by MPI's own"
              + " all-reduce: the bits then depend on the number of processes and on MPI, and half as"
              + " many bytes again are sent (${DEFAULT-VALUE}).")
  Reduction reduction = Reduction.TREE;

  @Option(
      names = "--gradients",
      paramLabel = "f32|bf16",
      defaultValue = "f32",
      description =
          "What processes send of their gradients; bf16 is three quarters of the bytes, rounds, and"
              + " gives other bits for another number of processes (${DEFAULT-VALUE}).")
  DataType gradients = DataType.F32;

  @Option(
      names = "--accumulate",
      paramLabel = "N",
      defaultValue = "1",
      description = "Passes whose gradients make one step (${DEFAULT-VALUE}).")
  int accumulate = 1;

  @Option(
      names = "--optimizer",
      paramLabel = "SGD|ADAM|KFAC|MUON",
      description =
          "SGD with Nesterov momentum, Adam, K-FAC or Muon (train: MUON for plain50, plain100 and"
              + " plain200 shaped by default, where neither learning rate nor clipping is given; else"
              + " SGD).")
  Optimizer.@Nullable Kind optimizer;

  @Option(
      names = "--learning-rate",
      paramLabel = "R",
      description =
          "Peak learning rate (0.02; 0.003 for K-FAC; 0.1 / depth for Muon, at most 0.002).")
  @Nullable Double learningRate;

  @Mixin KfacOptions kfac = new KfacOptions();

  @Option(
      names = "--warmup",
      paramLabel = "SHARE",
      defaultValue = "0.1",
      description =
          "Share of the steps in which the rate rises; then a half cosine" + " (${DEFAULT-VALUE}).")
  double warmup = 0.1;

  @Option(
      names = "--momentum",
      paramLabel = "M",
      defaultValue = "0.9",
      description = "Momentum of SGD, K-FAC and Muon, beta1 of Adam (${DEFAULT-VALUE}).")
  double momentum = 0.9;

  @Option(
      names = "--weight-decay",
      paramLabel = "D",
      defaultValue = "0",
      description = "On weights, not on biases (${DEFAULT-VALUE}).")
  double weightDecay;

  @Option(
      names = "--clip-norm",
      paramLabel = "NORM",
      defaultValue = "1",
      description =
          "Scale larger gradients down to this norm; Infinity for none" + " (${DEFAULT-VALUE}).")
  double clipNorm = 1;

  @Option(
      names = "--label-smoothing",
      paramLabel = "S",
      defaultValue = "0.1",
      description = "Share of the target spread over all classes (${DEFAULT-VALUE}).")
  double labelSmoothing = 0.1;

  @Option(
      names = "--dropout",
      paramLabel = "RATE",
      defaultValue = "0",
      description = "Dropout before the logits (${DEFAULT-VALUE}).")
  double dropout;

  @Option(
      names = "--type",
      paramLabel = "F32|BF16",
      defaultValue = "F32",
      description = "Storage of activations; parameters stay F32 (${DEFAULT-VALUE}).")
  DataType type = DataType.F32;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Seed of weights, order, augmentation and dropout (${DEFAULT-VALUE}).")
  long seed = 1;

  @Option(
      names = "--tune",
      paramLabel = "off|once|always",
      defaultValue = "off",
      description =
          "Measure which of several ways a GPU computes each layer fastest: never, what was not"
              + " measured on this machine before, or everything anew (${DEFAULT-VALUE}). The run"
              + " keeps what was chosen. Forget it all with: jtrelu devices --forget-tuning")
  Tuning tuning = Tuning.OFF;

  @Option(
      names = "--device",
      paramLabel = "DEVICE",
      defaultValue = "auto",
      description =
          "auto, cpu[:lanes], reference[:lanes], cuda[:index] or emulated; see jtrelu devices"
              + " (${DEFAULT-VALUE}).")
  String device = "auto";

  /** The network that is named. */
  Networks.Options network() {
    NetworkNames.requireKnown(network);
    if (!(shortcutWeight >= 0 && shortcutWeight < 1)) {
      throw new UsageException("--shortcut-weight must lie in [0, 1), got " + shortcutWeight);
    }
    if (shortcutWeight > 0 && normalizes()) {
      throw new UsageException(
          "--shortcut-weight is for ResNets without normalisation; " + network + " adds 1 and 1");
    }
    if (shortcutWeight > 0 && network.strip().toLowerCase(Locale.ROOT).startsWith("plain")) {
      throw new UsageException(
          "--shortcut-weight is for ResNets; " + network + " is a plain chain");
    }
    if (!(dropout >= 0 && dropout < 1)) {
      throw new UsageException("--dropout must lie in [0, 1), got " + dropout);
    }
    return new Networks.Options(network, block, shortcutWeight, (float) dropout);
  }

  /** How its activations get their parameters. */
  ShapingConfig shaping(String method, String activation) {
    if (!ShapingConfig.methods().contains(method)) {
      throw NearestName.unknown("method", method, ShapingConfig.methods());
    }
    if (!ShapingConfig.activations().contains(activation)) {
      throw NearestName.unknown("activation", activation, ShapingConfig.activations());
    }
    if (solution < 1) {
      throw new UsageException("--solution counts from 1, got " + solution);
    }
    try {
      ShapingConfig shaping =
          new ShapingConfig(method, activation, eta, tau, zeta, sigmaB2, solution);
      shaping.shapingMethod(); // checks the targets
      return shaping;
    } catch (IllegalArgumentException outOfRange) {
      throw new UsageException(String.valueOf(outOfRange.getMessage()), outOfRange);
    }
  }

  /** How it is trained, by these options alone. */
  TrainingConfig training(int epochs) {
    return training(TrainingConfig.builder(), epochs, option -> true);
  }

  /**
   * How it is trained.
   *
   * @param config changed where an option says so
   * @param given whether an option, by its name, is to be followed
   */
  TrainingConfig training(TrainingConfig.Builder config, int epochs, Predicate<String> given) {
    follow(given, "--epochs", () -> config.epochs(epochs));
    follow(given, "--batch", () -> config.batch(batch));
    follow(given, "--accumulate", () -> config.accumulate(accumulate));
    follow(given, "--micro-batch", () -> config.microBatch(microBatch));
    follow(given, "--shards", () -> config.shards(shards));
    follow(
        option -> given.test("--reduction") || given.test("--gradients"),
        "",
        () -> config.exchange(exchange()));
    if (optimizer != null) {
      config.optimizer(optimizer);
    }
    if (learningRate != null) {
      config.learningRate(learningRate);
    }
    follow(given, "--warmup", () -> config.warmup(warmup));
    follow(given, "--momentum", () -> config.momentum(momentum));
    follow(given, "--weight-decay", () -> config.weightDecay(weightDecay));
    follow(given, "--clip-norm", () -> config.clipNorm(clipNorm));
    follow(given, "--label-smoothing", () -> config.labelSmoothing(labelSmoothing));
    follow(given, "--random-crop", () -> config.cropPadding(cropPadding));
    follow(given, "--random-resized-crop", () -> config.cropArea(cropArea));
    follow(given, "--flip", () -> config.flip(flip));
    follow(given, "--type", () -> config.type(type));
    follow(given, "--seed", () -> config.seed(seed));
    follow(given, "--tune", () -> config.tuning(tuning));
    try {
      TrainingConfig built = config.build();
      if (built.kfac() == null) {
        kfac.requireNone();
        return built;
      }
      return built.toBuilder().kfac(kfac.over(built.kfac())).build();
    } catch (IllegalArgumentException outOfRange) {
      throw new UsageException(String.valueOf(outOfRange.getMessage()), outOfRange);
    }
  }

  private GradientExchange exchange() {
    if (gradients != DataType.F32 && gradients != DataType.BF16) {
      throw new UsageException("--gradients must be f32 or bf16, got " + gradients);
    }
    if (gradients == DataType.F32) {
      return reduction == Reduction.TREE ? GradientExchange.TREE : GradientExchange.LIBRARY;
    }
    if (reduction == Reduction.LIBRARY) {
      throw new UsageException(
          "--gradients bf16 has no effect with --reduction library: MPI adds up F32");
    }
    return GradientExchange.BF16;
  }

  private boolean gaussianWeights(boolean usual) {
    if (weights == null) {
      return usual;
    }
    if (!weights.equals("orthogonal") && !weights.equals("gaussian")) {
      throw new UsageException("--weights must be orthogonal or gaussian, got " + weights);
    }
    return weights.equals("gaussian");
  }

  /** Whether the network that is named normalises over batches, which shaping refuses. */
  boolean normalizes() {
    return network.strip().toLowerCase(Locale.ROOT).startsWith("bn");
  }

  private static void follow(Predicate<String> given, String option, Runnable change) {
    if (given.test(option)) {
      change.run();
    }
  }

  /** A run of the network that is named. */
  Run run(ShapingConfig shaping, TrainingConfig training, Datasets datasets) {
    ImageDataset train = datasets.train();
    Network plain = Networks.build(network(), Model.input(train), train.classes().size());
    Network begun = plain.withGaussianWeights(gaussianWeights(plain.gaussianWeights()));
    Model model = Model.of(shaping.shape(begun), train, shaping);
    return Run.of(model, suited(training, plain), datasets, lasting(data));
  }

  /**
   * With a rate for the depth, where none is given: Muon's steps are of one size in all layers, and
   * what the layers change adds up.
   */
  private TrainingConfig suited(TrainingConfig training, Network to) {
    if (learningRate != null || training.optimizer() != Optimizer.Kind.MUON) {
      return training;
    }
    double rate = MUON_RATE_TIMES_DEPTH / Math.max(50, to.depth());
    return training.toBuilder().learningRate(rate).build();
  }

  /** A folder by its absolute path, so that the run can be resumed from elsewhere. */
  static String lasting(String data) {
    return Files.isDirectory(Path.of(data)) ? Path.of(data).toAbsolutePath().toString() : data;
  }

  /** Refuses to be one of several processes that would do the same thing side by side. */
  static void requireAlone(String command) {
    Launcher launcher = Launcher.of(System.getenv()).orElse(null);
    if (launcher != null && launcher.size() > 1) {
      throw new UsageException(
          launcher.name()
              + " started "
              + launcher.size()
              + " processes, but jtrelu "
              + command
              + " is for one; jtrelu train --shards can be shared");
    }
  }

  /** Opens a device; an unknown name is a wrong use. */
  static Backend openDevice(String device) {
    return openDevice(device, 0);
  }

  /** The same, in one of several processes of a machine. */
  static Backend openDevice(String device, int process) {
    try {
      return Backends.open(device, process);
    } catch (IllegalArgumentException unknown) {
      throw new UsageException(String.valueOf(unknown.getMessage()), unknown);
    }
  }

  /** Opens the data that are named, saying what is worth knowing about it. */
  Datasets open(Console console) {
    return open(data, size().reading(reading(cropArea)), console);
  }

  private Datasets.Options size() {
    if (imageSize == null) {
      return Datasets.Options.DEFAULT;
    }
    Matcher parts = Pattern.compile("([0-9]{1,5})(?:x([0-9]{1,5}))?").matcher(imageSize);
    if (!parts.matches()) {
      throw new UsageException("--image-size must be like 224 or 192x256, got " + imageSize);
    }
    int height = Integer.parseInt(parts.group(1));
    int width = parts.group(2) == null ? height : Integer.parseInt(parts.group(2));
    if (height < 1 || width < 1) {
      throw new UsageException("--image-size must be 1 or more, got " + imageSize);
    }
    return Datasets.Options.size(height, width, 0);
  }

  /** How files are read: parts are cut out of the whole pictures, which memory does not hold. */
  Reading reading(double area) {
    return reading.reading(reading.place == Place.AUTO && area < 1 ? Place.STREAM : reading.place);
  }

  /** Opens the data that an earlier run was of, where that had them. */
  Datasets open(Run run, Console console) {
    return open(run.data(), run.model(), reading.reading(place(run)), console);
  }

  private static Place place(Run run) {
    return run.isStreamed() ? Place.STREAM : Place.MEMORY;
  }

  /** Opens data with images brought to a model's size and colour. */
  static Datasets open(String data, Model model, Reading reading, Console console) {
    return open(
        data,
        Datasets.Options.size(model.height(), model.width(), model.channels()).reading(reading),
        console);
  }

  /** Opens data in the default way. */
  static Datasets open(String data, Console console) {
    return open(data, Datasets.Options.DEFAULT, console);
  }

  private static Datasets open(String data, Datasets.Options options, Console console) {
    try {
      Datasets datasets = Datasets.open(data, options);
      datasets.notes().forEach(console::note);
      return datasets;
    } catch (DataException.UnknownName unknown) {
      throw new UsageException(String.valueOf(unknown.getMessage()), unknown);
    }
  }

  /** Opens images to measure a model on: of its size and colour, classes matched by name. */
  static ImageDataset openTest(String data, Model model, Reading reading, Console console) {
    try {
      ImageDataset images =
          Datasets.openTest(
                  data,
                  Datasets.Options.size(model.height(), model.width(), model.channels())
                      .reading(reading))
              .withClasses(model.classes());
      images.notes().forEach(console::note);
      return images;
    } catch (DataException.UnknownName unknown) {
      throw new UsageException(String.valueOf(unknown.getMessage()), unknown);
    }
  }
}
