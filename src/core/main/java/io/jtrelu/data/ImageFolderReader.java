package io.jtrelu.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;

/**
 * Images (PNG, JPEG) in one folder per class; the folders' names, sorted by their UTF-16 units, are
 * the classes. They lie directly in the folder, or in {@code train/} ({@code training/}) and one of
 * {@code test/}, {@code testing/}, {@code val/}, {@code valid/}, {@code validation/}.
 *
 * <p>All images are brought to one size, the option's or that of the first one, as {@link
 * ImageDecoder} says. They are grayscale (1 channel) if every one of them is, else red, green,
 * blue, unless the options say which. What is passed over is noted by reason, with the first names.
 */
final class ImageFolderReader {
  /** In any case, for example Train or TEST. */
  private static final Set<String> TRAIN = Set.of("train", "training");

  private static final Set<String> HELD_OUT =
      Set.of("test", "testing", "val", "valid", "validation");

  /** Why something in the folder is no image of the data set. */
  private enum Reason {
    HIDDEN("hidden, or made by the operating system"),
    FORMAT("not named .png, .jpg or .jpeg; convert them to have them read"),
    NESTED("folders inside class folders, which are not searched"),
    LOOSE("files beside the class folders, of no class"),
    UNUSED("folders of no class images"),
    LINK("links that lead nowhere"),
    SPECIAL("neither files nor folders");

    private final String text;

    Reason(String text) {
      this.text = text;
    }
  }

  private record Sample(Path file, int label) {}

  private final Path folder;
  private final String name;
  private final Datasets.Options options;
  private final List<String> notes = new ArrayList<>();
  private final Map<Reason, List<Path>> passedOver = new EnumMap<>(Reason.class);

  private ImageFolderReader(Path folder, String name, Datasets.Options options) {
    this.folder = folder;
    this.name = name;
    this.options = options;
  }

  static boolean recognizes(Path folder) {
    return visibleFolders(folder).stream()
        .anyMatch(f -> holdsImages(f) || (isPart(f) && !visibleFolders(f).isEmpty()));
  }

  /** To learn from and to measure on; a part is held out where the folder has none. */
  static Datasets read(Path folder, String name, Datasets.Options options) {
    return new ImageFolderReader(folder, name, options).readBoth();
  }

  /** To measure on: the part held out, or all of a folder without parts. */
  static ImageDataset readTest(Path folder, String name, Datasets.Options options) {
    return new ImageFolderReader(folder, name, options).readOne(false);
  }

  /** All images, those to learn from first. */
  static ImageDataset readWhole(Path folder, String name, Datasets.Options options) {
    return new ImageFolderReader(folder, name, options).readOne(true);
  }

  // --- which folders ---

  private static boolean isPart(Path folder) {
    String lower = lowerName(folder);
    return TRAIN.contains(lower) || HELD_OUT.contains(lower);
  }

  private static boolean holdsImages(Path folder) {
    return entries(folder).stream().anyMatch(p -> isImageName(p) && Files.isRegularFile(p));
  }

  /** A folder of this name that has class folders; a class may be called so too. */
  private static boolean isPartWithClasses(Path folder) {
    List<Path> inside = visibleFolders(folder);
    return isPart(folder)
        && !inside.isEmpty()
        && (!holdsImages(folder) || inside.stream().anyMatch(ImageFolderReader::holdsImages));
  }

  private Optional<Path> trainFolder() {
    return only(
        visibleFolders(folder).stream()
            .filter(f -> TRAIN.contains(lowerName(f)) && isPartWithClasses(f))
            .toList());
  }

  private Optional<Path> heldOutFolder() {
    return only(
        visibleFolders(folder).stream()
            .filter(f -> HELD_OUT.contains(lowerName(f)) && isPartWithClasses(f))
            .toList());
  }

  private Optional<Path> only(List<Path> found) {
    if (found.size() > 1) {
      throw new DataException.Ambiguous(
          folder.toString(),
          "it has "
              + String.join(" and ", found.stream().map(f -> f.getFileName() + "/").toList())
              + ", and one is wanted; rename or move what is not to be used");
    }
    return found.stream().findFirst();
  }

  // --- reading ---

  private Datasets readBoth() {
    Optional<Path> trainFolder = trainFolder();
    Optional<Path> heldOutFolder = heldOutFolder();
    if (trainFolder.isEmpty() && heldOutFolder.isPresent()) {
      throw new DataException.Missing(
          folder.resolve("train").toString(),
          "no such folder with class folders: there is "
              + heldOutFolder.get().getFileName()
              + "/ to measure on, but nothing to learn from");
    }
    if (trainFolder.isPresent() && heldOutFolder.isEmpty()) {
      visibleFolders(folder).stream()
          .filter(f -> HELD_OUT.contains(lowerName(f)))
          .findFirst()
          .ifPresent(
              empty -> {
                throw new DataException.Missing(
                    empty.toString(),
                    "no class folders here; fill it, or remove it to have images held out of "
                        + fileName(trainFolder.get())
                        + "/");
              });
    }
    Path learnFrom = trainFolder.orElse(folder);
    List<Path> classFolders = classFolders(learnFrom);
    List<String> classes = names(classFolders);
    List<Sample> train = collect(classFolders, classes);
    if (heldOutFolder.isEmpty()) {
      noteRest(trainFolder, heldOutFolder);
      ImageDataset whole = decode(classes, train, List.of()).getFirst();
      Datasets parts = whole.split(options.testFraction(), options.seed());
      notes.addAll(parts.notes());
      return new Datasets(parts.train(), parts.test(), notes());
    }
    List<Sample> test = collectHeldOut(heldOutFolder.get(), learnFrom, classes);
    noteRest(trainFolder, heldOutFolder);
    List<ImageDataset> parts = decode(classes, train, test);
    return new Datasets(parts.getFirst(), parts.getLast(), notes());
  }

  private ImageDataset readOne(boolean whole) {
    Optional<Path> trainFolder = trainFolder();
    Optional<Path> heldOutFolder = heldOutFolder();
    Path first = trainFolder.or(() -> heldOutFolder).orElse(folder);
    List<Path> classFolders = classFolders(first);
    List<String> classes = names(classFolders);
    List<Sample> samples = new ArrayList<>();
    if (whole || trainFolder.isEmpty() || heldOutFolder.isEmpty()) {
      samples.addAll(collect(classFolders, classes));
    }
    if (trainFolder.isPresent() && heldOutFolder.isPresent()) {
      samples.addAll(collectHeldOut(heldOutFolder.get(), trainFolder.get(), classes));
    }
    noteRest(trainFolder, heldOutFolder);
    return decode(classes, List.of(), samples).getLast().withNotes(notes());
  }

  /** The class folders of a part, sorted. */
  private List<Path> classFolders(Path part) {
    List<Path> folders = new ArrayList<>();
    for (Path entry : entries(part)) {
      Optional<Reason> reason = isHidden(entry) ? Optional.of(Reason.HIDDEN) : notReadable(entry);
      if (reason.isPresent()) {
        passOver(reason.get(), entry);
      } else if (!Files.isDirectory(entry)) {
        passOver(Reason.LOOSE, entry);
      } else if (fileName(entry).indexOf('\ufffd') >= 0) {
        throw new DataException.Malformed(
            entry.toString(),
            -1,
            "the name of this class cannot be read as "
                + System.getProperty("sun.jnu.encoding")
                + ", the system's encoding of names; rename the folder, or set LC_ALL=C.UTF-8");
      } else {
        folders.add(entry);
      }
    }
    return folders;
  }

  private static List<String> names(List<Path> folders) {
    return folders.stream().map(ImageFolderReader::fileName).toList();
  }

  private List<Sample> collect(List<Path> classFolders, List<String> classes) {
    List<Sample> samples = new ArrayList<>();
    for (Path classFolder : classFolders) {
      String label = fileName(classFolder);
      int before = samples.size();
      int nested = 0;
      for (Path entry : entries(classFolder)) {
        Optional<Reason> reason = isHidden(entry) ? Optional.of(Reason.HIDDEN) : notReadable(entry);
        if (reason.isEmpty() && Files.isDirectory(entry)) {
          nested++;
          reason = Optional.of(Reason.NESTED);
        } else if (reason.isEmpty() && !isImageName(entry)) {
          reason = Optional.of(Reason.FORMAT);
        }
        reason.ifPresentOrElse(
            r -> passOver(r, entry), () -> samples.add(new Sample(entry, classes.indexOf(label))));
      }
      if (samples.size() == before) {
        throw new DataException.Missing(
            classFolder.toString(),
            "no PNG or JPEG images in this folder, which must hold those of class "
                + label
                + (nested == 0
                    ? "; remove the folder or fill it"
                    : "; folders inside it are not searched, move their images up"));
      }
    }
    return samples;
  }

  private List<Sample> collectHeldOut(Path heldOut, Path learnFrom, List<String> classes) {
    List<Path> classFolders = classFolders(heldOut);
    List<String> tested = names(classFolders);
    for (Path found : classFolders) {
      if (!classes.contains(fileName(found))) {
        throw new DataException.Malformed(
            found.toString(),
            -1,
            "a class that has no folder in " + learnFrom + "; both need the same classes");
      }
    }
    List<String> untested = classes.stream().filter(c -> !tested.contains(c)).toList();
    if (!untested.isEmpty()) {
      notes.add(
          fileName(heldOut)
              + "/ has no images of "
              + untested.size()
              + " of the "
              + classes.size()
              + " classes: "
              + ImageDataset.some(untested)
              + ".");
    }
    return collect(classFolders, classes);
  }

  /** What lies beside train/ and its companion. */
  private void noteRest(Optional<Path> trainFolder, Optional<Path> heldOutFolder) {
    if (trainFolder.isEmpty() && heldOutFolder.isEmpty()) {
      return; // the class folders were taken from here
    }
    for (Path entry : entries(folder)) {
      if (Optional.of(entry).equals(trainFolder) || Optional.of(entry).equals(heldOutFolder)) {
        continue;
      }
      passOver(
          isHidden(entry)
              ? Reason.HIDDEN
              : notReadable(entry).orElse(Files.isDirectory(entry) ? Reason.UNUSED : Reason.LOOSE),
          entry);
    }
  }

  private static Optional<Reason> notReadable(Path entry) {
    if (Files.isDirectory(entry) || Files.isRegularFile(entry)) {
      return Optional.empty();
    }
    return Optional.of(Files.isSymbolicLink(entry) ? Reason.LINK : Reason.SPECIAL);
  }

  private void passOver(Reason reason, Path entry) {
    passedOver.computeIfAbsent(reason, r -> new ArrayList<>()).add(entry);
  }

  private List<String> notes() {
    List<String> all = new ArrayList<>();
    passedOver.forEach(
        (reason, entries) ->
            all.add(
                "Not read in "
                    + name
                    + ": "
                    + entries.size()
                    + " ("
                    + reason.text
                    + "): "
                    + ImageDataset.some(
                        entries.stream().map(e -> folder.relativize(e).toString()).toList())
                    + "."));
    all.addAll(notes);
    return all;
  }

  /** Two data sets of one size, from the headers of all their files; the second may be empty. */
  private List<ImageDataset> decode(List<String> classes, List<Sample> train, List<Sample> test) {
    boolean gray = true;
    int height = options.height();
    int width = options.width();
    int resized = 0;
    List<Sample> all = Stream.concat(train.stream(), test.stream()).toList();
    for (Sample sample : all) {
      EncodedImage image = EncodedImage.read(sample.file());
      if (height == 0) {
        height = image.height();
        width = image.width();
      }
      gray &= image.gray();
      resized += image.height() != height || image.width() != width ? 1 : 0;
    }
    int channels = options.channels() > 0 ? options.channels() : gray ? 1 : 3;
    if (resized > 0) {
      notes.add(
          resized
              + " of "
              + all.size()
              + " images were scaled and cut to "
              + height
              + "x"
              + width
              + (options.height() > 0 ? "." : ", the size of the first one."));
    }
    if (channels == 1 && !gray) {
      notes.add("Images in colour were made gray, as asked for.");
    }
    FileInput.requireMemory(
        folder.toString(),
        (long) all.size() * (16 + (long) height * width * channels),
        all.size() + " images of " + height + "x" + width + "x" + channels);
    ImageDecoder decoder = ImageDecoder.of(height, width, channels);
    return List.of(
        decode(Split.TRAIN, decoder, classes, train), decode(Split.TEST, decoder, classes, test));
  }

  private ImageDataset decode(
      Split split, ImageDecoder decoder, List<String> classes, List<Sample> samples) {
    byte[][] images = new byte[samples.size()][];
    int[] labels = new int[samples.size()];
    for (int i = 0; i < images.length; i++) {
      images[i] = decoder.decode(samples.get(i).file());
      labels[i] = samples.get(i).label();
    }
    return ImageDataset.adopt(
        name,
        split,
        decoder.height(),
        decoder.width(),
        decoder.channels(),
        classes,
        images,
        labels);
  }

  // --- the file system ---

  private static String fileName(Path entry) {
    return entry.getFileName().toString();
  }

  private static String lowerName(Path entry) {
    return fileName(entry).toLowerCase(Locale.ROOT);
  }

  private static boolean isImageName(Path entry) {
    String lower = lowerName(entry);
    return !isHidden(entry)
        && (lower.endsWith(".png") || lower.endsWith(".jpg") || lower.endsWith(".jpeg"));
  }

  /** Also what macOS, Windows and network storage leave behind. */
  private static boolean isHidden(Path entry) {
    String name = fileName(entry);
    return name.startsWith(".")
        || Set.of("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini").contains(name);
  }

  private static List<Path> visibleFolders(Path folder) {
    return entries(folder).stream().filter(p -> !isHidden(p) && Files.isDirectory(p)).toList();
  }

  /** Sorted by name, so that the order is the same everywhere. */
  private static List<Path> entries(Path folder) {
    try (Stream<Path> entries = Files.list(folder)) {
      return entries
          .sorted(
              Comparator.comparing(ImageFolderReader::fileName)
                  .thenComparing(Comparator.naturalOrder()))
          .toList();
    } catch (IOException failure) {
      throw new DataException.Unreadable(
          folder, "the folder cannot be listed (" + failure + ")", failure);
    }
  }
}
