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

  /** Whether it is named as a part of a data set. */
  static boolean isPart(Path folder) {
    return isPart(folder, false) || isPart(folder, true);
  }

  static boolean isPart(Path folder, boolean heldOut) {
    return (heldOut ? HELD_OUT : TRAIN).contains(lowerName(folder));
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
        folder,
        visibleFolders(folder).stream()
            .filter(f -> isPart(f, false) && isPartWithClasses(f))
            .toList());
  }

  private Optional<Path> heldOutFolder() {
    return only(
        folder,
        visibleFolders(folder).stream()
            .filter(f -> isPart(f, true) && isPartWithClasses(f))
            .toList());
  }

  /** One, or none; two are ambiguous. */
  static Optional<Path> only(Path folder, List<Path> found) {
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
          .filter(f -> isPart(f, true))
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
    ImageIndex.Builder train = new ImageIndex.Builder();
    collect(classFolders, classes, train);
    ImageIndex.Builder test = new ImageIndex.Builder();
    heldOutFolder.ifPresent(heldOut -> collectHeldOut(heldOut, learnFrom, classes, test));
    noteRest(trainFolder, heldOutFolder);
    return new ImageSets(folder, name, options)
        .open(classes, train.build(), heldOutFolder.isPresent() ? test.build() : null)
        .noting(notes());
  }

  private ImageDataset readOne(boolean whole) {
    Optional<Path> trainFolder = trainFolder();
    Optional<Path> heldOutFolder = heldOutFolder();
    Path first = trainFolder.or(() -> heldOutFolder).orElse(folder);
    List<Path> classFolders = classFolders(first);
    List<String> classes = names(classFolders);
    ImageIndex.Builder images = new ImageIndex.Builder();
    if (whole || trainFolder.isEmpty() || heldOutFolder.isEmpty()) {
      collect(classFolders, classes, images);
    }
    if (trainFolder.isPresent() && heldOutFolder.isPresent()) {
      collectHeldOut(heldOutFolder.get(), trainFolder.get(), classes, images);
    }
    noteRest(trainFolder, heldOutFolder);
    return new ImageSets(folder, name, options).openOne(classes, images.build()).noting(notes());
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
        throw unknownCharacters(entry, "class", "folder");
      } else {
        folders.add(entry);
      }
    }
    return folders;
  }

  private static DataException unknownCharacters(Path entry, String what, String kind) {
    return new DataException.Malformed(
        entry.toString(),
        -1,
        "the name of this "
            + what
            + " cannot be read as "
            + System.getProperty("sun.jnu.encoding")
            + ", the system's encoding of names; rename the "
            + kind
            + ", or set LC_ALL=C.UTF-8");
  }

  private static List<String> names(List<Path> folders) {
    return folders.stream().map(ImageFolderReader::fileName).toList();
  }

  private void collect(List<Path> classFolders, List<String> classes, ImageIndex.Builder images) {
    for (Path classFolder : classFolders) {
      String label = fileName(classFolder);
      int itsLabel = classes.indexOf(label);
      int before = images.size();
      int nested = 0;
      images.container(classFolder, folder.relativize(classFolder).toString().replace('\\', '/'));
      for (Path entry : entries(classFolder)) {
        Optional<Reason> reason = isHidden(entry) ? Optional.of(Reason.HIDDEN) : notReadable(entry);
        if (reason.isEmpty() && Files.isDirectory(entry)) {
          nested++;
          reason = Optional.of(Reason.NESTED);
        } else if (reason.isEmpty() && !isImageName(entry)) {
          reason = Optional.of(Reason.FORMAT);
        }
        if (reason.isPresent()) {
          passOver(reason.get(), entry);
        } else if (fileName(entry).indexOf('\ufffd') >= 0) {
          throw unknownCharacters(entry, "image", "file"); // by its name it is found again
        } else {
          images.add(fileName(entry), ImageIndex.WHOLE_FILE, size(entry), itsLabel);
        }
      }
      if (images.size() == before) {
        throw new DataException.Missing(
            classFolder.toString(),
            "no PNG or JPEG images in this folder, which must hold those of class "
                + label
                + (nested == 0
                    ? "; remove the folder or fill it"
                    : "; folders inside it are not searched, move their images up"));
      }
    }
  }

  private void collectHeldOut(
      Path heldOut, Path learnFrom, List<String> classes, ImageIndex.Builder images) {
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
    collect(classFolders, classes, images);
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

  private static long size(Path file) {
    try {
      return Files.size(file);
    } catch (IOException failure) {
      throw new DataException.Unreadable(file, "cannot be read (" + failure + ")", failure);
    }
  }

  static List<Path> visibleFolders(Path folder) {
    return entries(folder).stream().filter(p -> !isHidden(p) && Files.isDirectory(p)).toList();
  }

  /** Sorted by name, so that the order is the same everywhere. */
  static List<Path> entries(Path folder) {
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
