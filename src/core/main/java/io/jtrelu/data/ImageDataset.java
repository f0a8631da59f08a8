package io.jtrelu.data;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.jtrelu.tensor.PrintableText;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Labelled images of one size, 8 bits per channel: in memory, or streamed, which means read from
 * their files and decoded each time that they are used ({@link Reading}). Whatever takes the one
 * takes the other. Immutable but for {@link #skipped}, and safe to share between threads.
 */
public final class ImageDataset {
  private static final int SPLIT_STREAM = 3;

  /** How the {@link #digest} of a streamed set begins. */
  public static final String OF_FILES = "files:";

  private final String name;
  private final Split split;
  private final int height;
  private final int width;
  private final int channels;
  private final List<String> classes;
  private final ImageSource images;
  private final int[] labels;
  private final List<String> notes;

  /** Computed on first use; every thread that does comes to the same. */
  private volatile @Nullable String digest;

  private ImageDataset(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      ImageSource images,
      int[] labels,
      List<String> notes) {
    this.name = name;
    this.split = split;
    this.height = height;
    this.width = width;
    this.channels = channels;
    this.classes = List.copyOf(classes);
    this.images = images;
    this.labels = labels;
    this.notes = notes.stream().map(PrintableText::of).toList();
    if (height < 1 || width < 1 || channels < 1) {
      throw new IllegalArgumentException(
          "images need extents of 1 or more, got " + height + "x" + width + "x" + channels);
    }
    if (images.size() != labels.length) {
      throw new IllegalArgumentException(
          images.size() + " images but " + labels.length + " labels");
    }
    for (int i = 0; i < labels.length; i++) {
      if (labels[i] < 0 || labels[i] >= this.classes.size()) {
        throw new IllegalArgumentException(
            "label " + labels[i] + " of image " + i + " is not in 0.." + (this.classes.size() - 1));
      }
    }
  }

  /**
   * Images that the caller has, copied.
   *
   * @param name what to call the data set
   * @param split train or test
   * @param height rows of each image
   * @param width columns of each image
   * @param channels values per location (1 grayscale, 3 colour)
   * @param classes names of the classes, in label order
   * @param images one array per image, [height, width, channels], values 0..255
   * @param labels class of each image, from 0
   * @throws IllegalArgumentException if counts or sizes disagree or a label has no class
   */
  public static ImageDataset of(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      byte[][] images,
      int[] labels) {
    byte[][] copies = new byte[images.length][];
    for (int i = 0; i < copies.length; i++) {
      copies[i] = images[i].clone();
    }
    return adopt(name, split, height, width, channels, classes, copies, labels.clone());
  }

  /**
   * Images in memory of the caller, one after the other, copied only as they are used: a mapped
   * file of any size takes no memory of its own. The caller keeps it alive, and as it is, for as
   * long as the data set is used.
   *
   * @param name what to call the data set
   * @param split train or test
   * @param height rows of each image
   * @param width columns of each image
   * @param channels values per location (1 grayscale, 3 colour)
   * @param classes names of the classes, in label order
   * @param pixels [images, height, width, channels], values 0..255; read by any thread
   * @param labels class of each image, from 0
   * @throws IllegalArgumentException if counts or sizes disagree or a label has no class
   */
  public static ImageDataset over(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      MemorySegment pixels,
      int[] labels) {
    return new ImageDataset(
        name,
        split,
        height,
        width,
        channels,
        classes,
        StoredImages.over(height, width, channels, pixels),
        labels.clone(),
        List.of());
  }

  /** As {@link #of}, without copies: for readers in this package, which keep no reference. */
  static ImageDataset adopt(
      String name,
      Split split,
      int height,
      int width,
      int channels,
      List<String> classes,
      byte[][] images,
      int[] labels) {
    return new ImageDataset(
        name,
        split,
        height,
        width,
        channels,
        classes,
        new StoredImages(height, width, channels, images),
        labels,
        List.of());
  }

  /** Images that stay in their files. */
  static ImageDataset streamed(
      String name,
      Split split,
      ImageDecoder decoder,
      List<String> classes,
      ImageIndex index,
      Reading reading) {
    return new ImageDataset(
        name,
        split,
        decoder.height(),
        decoder.width(),
        decoder.channels(),
        classes,
        StreamedImages.of(index, decoder, reading),
        index.labels(),
        List.of());
  }

  /** The same with these notes. */
  ImageDataset withNotes(List<String> notes) {
    return new ImageDataset(name, split, height, width, channels, classes, images, labels, notes);
  }

  /** The same with these notes before its own. */
  ImageDataset noting(List<String> before) {
    return withNotes(Stream.concat(before.stream(), notes.stream()).toList());
  }

  /**
   * These images and others of the same size and classes, both in memory, as images of the others'
   * split.
   */
  ImageDataset followedBy(ImageDataset other) {
    if (!(images instanceof StoredImages first && other.images instanceof StoredImages second)) {
      throw new IllegalStateException("streamed images are put together when they are found");
    }
    int[] all = Arrays.copyOf(labels, labels.length + other.labels.length);
    System.arraycopy(other.labels, 0, all, labels.length, other.labels.length);
    return new ImageDataset(
        name,
        other.split,
        height,
        width,
        channels,
        classes,
        first.followedBy(second),
        all,
        List.of());
  }

  /**
   * These images as images of another order of classes, most often a model's: each keeps its class
   * by name. Classes that no image here has are allowed, so that a model can be measured on some of
   * its classes; {@link #notes} of the result say so, and which labels were changed to which.
   * Pixels are shared, not copied.
   *
   * @param wanted names of the classes, in the order of the labels that the result has
   * @throws DataException.OtherClasses if a class of this data set is not among those wanted; the
   *     message lists what is unknown and what is missing
   * @throws IllegalArgumentException if a name occurs twice, here or there
   */
  public ImageDataset withClasses(List<String> wanted) {
    if (wanted.equals(classes)) {
      return this;
    }
    Map<String, Integer> here = indices(classes);
    Map<String, Integer> there = indices(wanted);
    List<String> unknown = classes.stream().filter(c -> !there.containsKey(c)).toList();
    List<String> missing = wanted.stream().filter(c -> !here.containsKey(c)).toList();
    if (!unknown.isEmpty()) {
      throw new DataException.OtherClasses(
          name,
          "of its "
              + classes.size()
              + " classes "
              + unknown.size()
              + " are not among the "
              + wanted.size()
              + " wanted: "
              + some(unknown)
              + (missing.isEmpty() ? "" : "; wanted, but not here: " + some(missing))
              + "; rename the classes, or leave out what is unknown");
    }
    int[] label = classes.stream().mapToInt(there::get).toArray();
    List<String> added = new ArrayList<>(notes);
    List<String> moved =
        IntStream.range(0, label.length)
            .filter(i -> label[i] != i)
            .mapToObj(i -> PrintableText.quoted(classes.get(i)) + " " + i + " -> " + label[i])
            .toList();
    if (!moved.isEmpty()) {
      added.add("Classes of " + name + " were matched by name: " + some(moved) + ".");
    }
    if (!missing.isEmpty()) {
      added.add(
          name
              + " has "
              + classes.size()
              + " of the "
              + wanted.size()
              + " classes; without images are "
              + some(missing)
              + ".");
    }
    int[] changed = Arrays.stream(labels).map(i -> label[i]).toArray();
    return new ImageDataset(name, split, height, width, channels, wanted, images, changed, added);
  }

  private Map<String, Integer> indices(List<String> names) {
    Map<String, Integer> indices = new HashMap<>();
    for (int i = 0; i < names.size(); i++) {
      if (indices.put(names.get(i), i) != null) {
        throw new IllegalArgumentException(
            "two classes are named " + PrintableText.quoted(names.get(i)) + "; " + this);
      }
    }
    return indices;
  }

  /** The first names of a list, and how many there are. */
  static String some(List<String> names) {
    int shown = 5;
    return String.join(", ", names.subList(0, Math.min(shown, names.size())))
        + (names.size() > shown ? " and " + (names.size() - shown) + " more" : "");
  }

  /**
   * Some of the images, in the order given. Pixels are shared, not copied.
   *
   * @param indices which images, each from 0 to {@link #size} - 1; one may come twice
   * @throws IndexOutOfBoundsException if there is no such image
   */
  public ImageDataset subset(int... indices) {
    return part(split, indices);
  }

  private ImageDataset part(Split as, int[] indices) {
    int[] kept = new int[indices.length];
    for (int i = 0; i < kept.length; i++) {
      kept[i] = labels[Objects.checkIndex(indices[i], labels.length)];
    }
    return new ImageDataset(
        name, as, height, width, channels, classes, images.subset(indices), kept, List.of());
  }

  /**
   * Holds out a part of each class for testing, chosen by seed alone: of n images round(n *
   * testFraction), but at least one, and never all. Both parts keep the order of the images. Pixels
   * are shared, not copied.
   *
   * @param testFraction share of each class that is held out, above 0 and below 1
   * @param seed which images
   * @throws DataException.Malformed if a class has a single image (one without images is left so)
   * @throws IllegalArgumentException if the fraction is not between 0 and 1
   */
  public Datasets split(double testFraction, long seed) {
    if (!(testFraction > 0 && testFraction < 1)) {
      throw new IllegalArgumentException(
          "the test fraction must be above 0 and below 1, got " + testFraction);
    }
    boolean[] heldOut = new boolean[labels.length];
    for (int label = 0; label < classes.size(); label++) {
      List<Integer> ofClass = new ArrayList<>();
      for (int i = 0; i < labels.length; i++) {
        if (labels[i] == label) {
          ofClass.add(i);
        }
      }
      int count = ofClass.size();
      if (count == 1) {
        throw new DataException.Malformed(
            name,
            -1,
            "image "
                + ofClass.getFirst()
                + " is the only image of class "
                + classes.get(label)
                + "; splitting needs at least 2 per class, one to learn from and one to test with");
      }
      int held = count == 0 ? 0 : Math.clamp(Math.round(count * testFraction), 1, count - 1);
      long key = CounterRandom.key(seed, SPLIT_STREAM, label);
      for (int i = 0; i < held; i++) {
        heldOut[ofClass.remove(/* index */ CounterRandom.below(key, i, ofClass.size()))] = true;
      }
    }
    IntStream all = IntStream.range(0, labels.length);
    ImageDataset train = part(Split.TRAIN, all.filter(i -> !heldOut[i]).toArray());
    all = IntStream.range(0, labels.length);
    ImageDataset test = part(Split.TEST, all.filter(i -> heldOut[i]).toArray());
    return new Datasets(
        train,
        test,
        List.of(
            test.size()
                + " images of "
                + name
                + " were held out for testing, "
                + Math.round(100 * testFraction)
                + " % of each class, chosen by seed "
                + seed
                + "."));
  }

  /**
   * The images brought to another size and number of channels, as {@link ImageDecoder} brings
   * pictures: gray from colour by luma, colour from gray by copies; scaled until the size is
   * covered, and cut around the centre. {@link #notes} of the result say so.
   *
   * @param newHeight rows, 1 or more
   * @param newWidth columns, 1 or more
   * @param newChannels 1 or 3
   * @throws IllegalArgumentException if a size is out of range, or the channels are to change from
   *     or to another number than 1 and 3
   */
  public ImageDataset resized(int newHeight, int newWidth, int newChannels) {
    if (newHeight == height && newWidth == width && newChannels == channels) {
      return this;
    }
    if (newChannels != channels && channels != 1 && channels != 3) {
      throw new IllegalArgumentException(
          "images of " + channels + " channels cannot become ones of " + newChannels);
    }
    ImageDecoder.requireSize(newHeight, newWidth, newChannels == channels ? 1 : newChannels);
    if (!isStreamed()) {
      FileInput.requireMemory(
          name,
          (long) size() * (16 + (long) newHeight * newWidth * newChannels),
          size() + " images of " + newHeight + "x" + newWidth + "x" + newChannels);
    }
    ImageSource changed = images.resized(newHeight, newWidth, newChannels);
    List<String> added = new ArrayList<>(notes);
    added.add(
        "The images of "
            + name
            + ", "
            + height
            + "x"
            + width
            + "x"
            + channels
            + ", were brought to "
            + newHeight
            + "x"
            + newWidth
            + "x"
            + newChannels
            + ".");
    return new ImageDataset(
        name, split, newHeight, newWidth, newChannels, classes, changed, labels, added);
  }

  /** What the data set is called: {@code embedded}, {@code fashion-mnist}, or its folder's name. */
  public String name() {
    return name;
  }

  /** Train or test. */
  public Split split() {
    return split;
  }

  /** Number of images. */
  public int size() {
    return labels.length;
  }

  /** Whether images are read from their files each time, instead of lying in memory. */
  public boolean isStreamed() {
    return images instanceof StreamedImages;
  }

  /**
   * Bad images that were met so far and passed over ({@link Reading.OnBadImage#SKIP}), in the
   * data's order: what is wrong with each, and its name. For any thread. Always empty in memory,
   * where such images are left out and {@link #notes} say so.
   */
  public List<String> skipped() {
    return images.skipped();
  }

  /** Rows of each image. */
  public int height() {
    return height;
  }

  /** Columns of each image. */
  public int width() {
    return width;
  }

  /** Values per location: 1 grayscale, 3 colour (red, green, blue). */
  public int channels() {
    return channels;
  }

  /** Names of the classes, in label order. */
  public List<String> classes() {
    return classes;
  }

  /**
   * What the user should know about how these images came to be, one sentence each: what {@link
   * #withClasses} or {@link #resized} did, or what reading passed over. Often empty. Control
   * characters are spelt out.
   */
  public List<String> notes() {
    return notes;
  }

  /** Class of an image, from 0. */
  public int label(int index) {
    return labels[index];
  }

  /**
   * A copy of an image: [height, width, channels], each value 0..255 in an unsigned byte.
   *
   * @throws DataException if a streamed image is damaged or cannot be read
   */
  public byte[] image(int index) {
    return images.image(index).clone();
  }

  /**
   * SHA-256 of the content, 64 hexadecimal digits: equal for data sets of the same images, labels
   * and classes in the same order, whatever their name and split. Hashed are, integers as 4 bytes
   * big-endian: height, width, channels; the number of classes and for each the length of its name
   * in bytes and its name in UTF-8; the number of images and their labels; the images' bytes.
   * Computed on the first call, which reads every byte once, and kept.
   *
   * <p>Of a streamed set it is {@value #OF_FILES} and the SHA-256 of the same, but instead of the
   * images' bytes, of each file or member its length in bytes and its name within the data set's
   * folder in UTF-8, ended by a zero: nothing is read.
   */
  public String digest() {
    String known = digest;
    if (known == null) {
      known = computeDigest();
      digest = known;
    }
    return known;
  }

  private String computeDigest() {
    MessageDigest sha;
    try {
      sha = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException impossible) {
      throw new IllegalStateException("every Java runtime has SHA-256", impossible);
    }
    update(sha, height, width, channels, classes.size());
    for (String each : classes) {
      byte[] utf8 = each.getBytes(UTF_8);
      update(sha, utf8.length);
      sha.update(utf8);
    }
    update(sha, labels.length);
    update(sha, labels);
    if (images instanceof StreamedImages files) {
      files.update(sha);
      return OF_FILES + HexFormat.of().formatHex(sha.digest());
    }
    for (int i = 0; i < labels.length; i++) {
      sha.update(images.image(i));
    }
    return HexFormat.of().formatHex(sha.digest());
  }

  static void update(MessageDigest sha, int... numbers) {
    ByteBuffer bytes = ByteBuffer.allocate(4 * numbers.length);
    bytes.asIntBuffer().put(numbers);
    sha.update(bytes);
  }

  /** What is odd about the images, one sentence each, for who trains on them. */
  List<String> oddities() {
    List<String> odd = new ArrayList<>();
    if (isStreamed()) {
      return odd; // would take reading all of it
    }
    for (int c = 0; c < channels; c++) {
      int channel = c;
      if (labels.length > 0
          && IntStream.range(0, labels.length)
              .allMatch(i -> isFlat(i, channel, images.image(0)[channel]))) {
        odd.add(
            "Channel "
                + c
                + " is "
                + (images.image(0)[c] & 0xff)
                + " in every "
                + split
                + " image; it carries nothing.");
      }
    }
    int[] flat =
        IntStream.range(0, labels.length)
            .filter(
                i -> IntStream.range(0, channels).allMatch(c -> isFlat(i, c, images.image(i)[c])))
            .toArray();
    if (flat.length > 0 && odd.size() < channels && (long) height * width > 1) {
      odd.add(
          flat.length
              + " of "
              + labels.length
              + " "
              + split
              + " images have one colour all over, the first of them image "
              + flat[0]
              + " of class "
              + classes.get(labels[flat[0]])
              + ".");
    }
    return odd;
  }

  private boolean isFlat(int index, int channel, byte value) {
    byte[] image = images.image(index);
    for (int at = channel; at < image.length; at += channels) {
      if (image[at] != value) {
        return false;
      }
    }
    return true;
  }

  /** The images themselves: for reading, within this package. */
  ImageSource images() {
    return images;
  }

  @Override
  public String toString() {
    return name
        + " "
        + split
        + ": "
        + size()
        + " images of "
        + height
        + "x"
        + width
        + "x"
        + channels
        + ", "
        + classes.size()
        + " classes";
  }
}
