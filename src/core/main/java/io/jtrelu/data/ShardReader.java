package io.jtrelu.data;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Shards as WebDataset lays them out: tar files in which the members of a sample follow each other
 * and share their name up to its first dot, {@code KEY.jpg} (.jpeg, .png) and {@code KEY.cls} with
 * the class as a number from 0. They lie directly in the folder, or in a folder to learn from and
 * one to measure on, named as those of image folders. A file {@code classes.txt} in the folder may
 * give the classes' names, one a line; else they are the numbers.
 *
 * <p>Shards are taken in the order of their names, images in the order of their shard.
 */
final class ShardReader {
  private static final String CLASSES = "classes.txt";
  private static final int MOST_LABEL_BYTES = 64;

  /** A damaged label asks for no more names of classes. */
  private static final int MOST_CLASSES = 1_000_000;

  private final Path folder;
  private final String name;
  private final Datasets.Options options;
  private final List<String> notes = new ArrayList<>();

  private ShardReader(Path folder, String name, Datasets.Options options) {
    this.folder = folder;
    this.name = name;
    this.options = options;
  }

  static boolean recognizes(Path folder) {
    return !shards(folder).isEmpty()
        || ImageFolderReader.visibleFolders(folder).stream()
            .anyMatch(f -> ImageFolderReader.isPart(f) && !shards(f).isEmpty());
  }

  /** To learn from and to measure on; a part is held out where the folder has none. */
  static Datasets read(Path folder, String name, Datasets.Options options) {
    return new ShardReader(folder, name, options).readBoth();
  }

  /** To measure on: the part held out, or all of a folder without parts. */
  static ImageDataset readTest(Path folder, String name, Datasets.Options options) {
    return new ShardReader(folder, name, options).readOne(false);
  }

  /** All images, those to learn from first. */
  static ImageDataset readWhole(Path folder, String name, Datasets.Options options) {
    return new ShardReader(folder, name, options).readOne(true);
  }

  private static List<Path> shards(Path folder) {
    return ImageFolderReader.entries(folder).stream()
        .filter(f -> lower(f).endsWith(".tar") && !lower(f).startsWith("."))
        .filter(Files::isRegularFile)
        .toList();
  }

  private static String lower(Path file) {
    return file.getFileName().toString().toLowerCase(Locale.ROOT);
  }

  private Optional<Path> part(boolean heldOut) {
    return ImageFolderReader.only(
        folder,
        ImageFolderReader.visibleFolders(folder).stream()
            .filter(f -> ImageFolderReader.isPart(f, heldOut) && !shards(f).isEmpty())
            .toList());
  }

  private Datasets readBoth() {
    Optional<Path> train = part(false);
    Optional<Path> heldOut = part(true);
    if (train.isEmpty() && heldOut.isPresent()) {
      throw new DataException.Missing(
          folder.resolve("train").toString(),
          "no such folder with shards: there is "
              + heldOut.get().getFileName()
              + "/ to measure on, but nothing to learn from");
    }
    ImageIndex learnFrom = index(train.orElse(folder)).build();
    ImageIndex measureOn =
        heldOut.map(f -> index(f).build()).orElseGet(() -> new ImageIndex.Builder().build());
    List<String> classes = classes(learnFrom, measureOn);
    ImageSets sets = new ImageSets(folder, name, options);
    return sets.open(classes, learnFrom, heldOut.isPresent() ? measureOn : null).noting(notes);
  }

  private ImageDataset readOne(boolean whole) {
    Optional<Path> train = part(false);
    Optional<Path> heldOut = part(true);
    ImageIndex.Builder all = new ImageIndex.Builder();
    if (train.isPresent() && (whole || heldOut.isEmpty())) {
      all.addAll(index(train.get()).build());
    }
    heldOut.ifPresent(f -> all.addAll(index(f).build()));
    if (train.isEmpty() && heldOut.isEmpty()) {
      all.addAll(index(folder).build());
    }
    ImageIndex images = all.build();
    return new ImageSets(folder, name, options)
        .openOne(classes(images, images), images)
        .noting(notes);
  }

  private List<String> classes(ImageIndex first, ImageIndex second) {
    int most = 0;
    for (ImageIndex images : List.of(first, second)) {
      for (int i = 0; i < images.size(); i++) {
        most = Math.max(most, images.label(i) + 1);
      }
    }
    Optional<List<String>> names = ClassNames.read(folder.resolve(CLASSES));
    if (names.isPresent() && names.get().size() < most) {
      throw new DataException.Malformed(
          folder.resolve(CLASSES).toString(),
          -1,
          "names of "
              + names.get().size()
              + " classes, one a line, but the shards have labels up to "
              + (most - 1));
    }
    int count = most;
    return names.orElseGet(() -> ClassNames.numbers(count));
  }

  /** What is in the shards of a folder. */
  private ImageIndex.Builder index(Path part) {
    List<Path> shards = shards(part);
    ImageIndex[] each = new ImageIndex[shards.size()];
    List<Map<String, Integer>> others = new ArrayList<>();
    shards.forEach(shard -> others.add(new TreeMap<>()));
    options
        .reading()
        .forEach(
            each.length,
            i -> each[i] = new Shard(shards.get(i), others.get(i)).index(folder).build());
    ImageIndex.Builder all = new ImageIndex.Builder();
    Map<String, Integer> passedOver = new TreeMap<>();
    for (int i = 0; i < each.length; i++) {
      all.addAll(each[i]);
      others.get(i).forEach((kind, count) -> passedOver.merge(kind, count, Integer::sum));
    }
    passedOver.forEach(
        (kind, count) ->
            notes.add("Not read in the shards of " + name + ": " + count + " " + kind));
    if (all.size() == 0) {
      throw new DataException.Missing(
          part.toString(),
          "no images in its " + shards.size() + " shards; each needs KEY.jpg and KEY.cls");
    }
    return all;
  }

  /** One tar file, while it is looked through. */
  private static final class Shard {
    private final Path file;
    private final Map<String, Integer> passedOver;
    private final ImageIndex.Builder images = new ImageIndex.Builder();
    private TarMembers.@Nullable Member image;
    private String key = "";
    private int label = -1;

    Shard(Path file, Map<String, Integer> passedOver) {
      this.file = file;
      this.passedOver = passedOver;
    }

    ImageIndex.Builder index(Path folder) {
      images.container(file, folder.relativize(file).toString().replace('\\', '/'));
      try (TarMembers members = TarMembers.open(file)) {
        TarMembers.Member member;
        while ((member = members.next()) != null) {
          take(members, member);
        }
        endSample();
      }
      return images;
    }

    private void take(TarMembers members, TarMembers.Member member) {
      int base = member.name().lastIndexOf('/') + 1;
      int dot = member.name().indexOf('.', base);
      if (dot <= base) {
        passOver("members without a name before a dot");
        return;
      }
      String its = member.name().substring(0, dot);
      if (!its.equals(key)) {
        endSample();
        key = its;
      }
      String extension = member.name().substring(dot + 1).toLowerCase(Locale.ROOT);
      switch (extension) {
        case "jpg", "jpeg", "png" -> {
          if (image != null) {
            throw malformed(
                member.offset(), member.name() + " is a second image of the sample " + key);
          }
          image = member;
        }
        case "cls" -> label = label(members, member);
        default -> passOver("members ." + extension);
      }
    }

    private int label(TarMembers members, TarMembers.Member member) {
      String text = members.read(member, MOST_LABEL_BYTES).strip();
      if (!text.matches("[0-9]{1,9}") || Integer.parseInt(text) >= MOST_CLASSES) {
        throw malformed(
            member.offset(),
            member.name()
                + " should hold the number of a class, 0 to "
                + (MOST_CLASSES - 1)
                + ", and holds '"
                + text
                + "'");
      }
      return Integer.parseInt(text);
    }

    private void endSample() {
      if (image != null && label < 0) {
        throw malformed(
            image.offset(),
            image.name() + " has no label: the member " + key + ".cls is missing beside it");
      }
      if (image != null) {
        images.add(image.name(), image.offset(), image.length(), label);
      } else if (label >= 0) {
        passOver("labels (.cls) without an image");
      }
      image = null;
      label = -1;
    }

    private void passOver(String kind) {
      passedOver.merge(kind, 1, Integer::sum);
    }

    private DataException malformed(long at, String problem) {
      return new DataException.Malformed(file.toString(), at, problem);
    }
  }
}
