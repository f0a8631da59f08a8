package io.jtrelu.data;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.net.URI;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DatasetsTest {
  @TempDir Path folder;

  private static String message(Class<? extends DataException> type, String spec) {
    return assertThrows(type, () -> Datasets.open(spec)).getMessage();
  }

  @Test
  void anUnknownNameGetsTheNearestAndTheChoices() {
    String message = message(DataException.UnknownName.class, "fashion-minst");
    assertTrue(message.contains("did you mean fashion-mnist?"), message);
    message = message(DataException.UnknownName.class, "Embeded");
    assertTrue(message.contains("did you mean embedded?"), message);
    message = message(DataException.UnknownName.class, "imagenet");
    assertTrue(!message.contains("did you mean"), message);
    for (String choice : List.of("embedded", "fashion-mnist", "IDX", "CIFAR", "per class")) {
      assertTrue(message.contains(choice), message);
    }
    message(DataException.UnknownName.class, "");
    message(DataException.UnknownName.class, "nul\0byte");
  }

  @Test
  void aMissingFolderIsCalledSo() {
    String spec = folder.resolve("nowhere").toString();
    assertTrue(message(DataException.Missing.class, spec).contains("no such folder"));
  }

  @Test
  void aFileIsNotAFolder() throws IOException {
    Path file = Files.writeString(folder.resolve("x"), "x");
    assertTrue(message(DataException.Missing.class, file.toString()).contains("this is a file"));
  }

  @Test
  void aFolderWithoutImagesSaysWhatIsExpected() throws IOException {
    Files.writeString(folder.resolve("notes.txt"), "x");
    Files.createDirectory(folder.resolve("empty"));
    String message = message(DataException.Missing.class, folder.toString());
    assertTrue(message.contains("train-images-idx3-ubyte"), message);
  }

  @Test
  void fashionMnistIsFoundInTheFirstPlaceThatHasIt() throws IOException {
    Path second = Files.createDirectory(folder.resolve("second"));
    Idx.writeSmallSet(second);
    ImageDataset train = Datasets.fashionMnist(List.of(folder.resolve("first"), second)).train();
    assertEquals("fashion-mnist", train.name());
    assertEquals("T-shirt/top", train.classes().getFirst());
    assertEquals(6, train.size());
  }

  @Test
  void aMissingFashionMnistSaysHowToGetIt() {
    Path place = folder.resolve("first");
    String message =
        assertThrows(DataException.Missing.class, () -> Datasets.fashionMnist(List.of(place)))
            .getMessage();
    assertTrue(message.contains("apt-get install dataset-fashion-mnist"), message);
    assertTrue(message.contains(place.toString()), message);
  }

  @Test
  void optionsAreChecked() {
    assertThrows(IllegalArgumentException.class, () -> new Datasets.Options(0, 8, 0.2, 1));
    assertThrows(IllegalArgumentException.class, () -> new Datasets.Options(-1, -1, 0.2, 1));
    assertThrows(IllegalArgumentException.class, () -> new Datasets.Options(8, 8, 1, 1));
    assertThrows(IllegalArgumentException.class, () -> new Datasets.Options(8, 8, Double.NaN, 1));
  }

  @Test
  void aDatasetOfTheCallerIsChecked() {
    List<String> classes = List.of("a", "b");
    byte[][] one = {new byte[6]};
    assertEquals(
        1, ImageDataset.of("x", Split.TRAIN, 1, 2, 3, classes, one, new int[] {1}).label(0));
    assertThrows(
        IllegalArgumentException.class,
        () -> ImageDataset.of("x", Split.TRAIN, 1, 2, 3, classes, one, new int[] {2}));
    assertThrows(
        IllegalArgumentException.class,
        () -> ImageDataset.of("x", Split.TRAIN, 1, 2, 3, classes, one, new int[] {0, 1}));
    assertThrows(
        IllegalArgumentException.class,
        () -> ImageDataset.of("x", Split.TRAIN, 2, 2, 3, classes, one, new int[] {0}));
  }

  /** The library and the sample images are jars of their own; the second may be missing. */
  @Test
  void theEmbeddedImagesAreFoundInAnotherJarOrAskedFor() throws Exception {
    URL library = Datasets.class.getProtectionDomain().getCodeSource().getLocation();
    String images = "io/jtrelu/data/fashion-mnist-subset/train-labels-idx1-ubyte.gz";
    String found = Datasets.class.getClassLoader().getResource(images).toString();
    URL samples = URI.create(found.substring(0, found.length() - images.length())).toURL();
    assertNotEquals(library, samples);
    ClassLoader platform = ClassLoader.getPlatformClassLoader();
    try (URLClassLoader both = new URLClassLoader(new URL[] {library, samples}, platform);
        URLClassLoader alone = new URLClassLoader(new URL[] {library}, platform)) {
      assertTrue(openEmbedded(both).toString().contains("10000 images of 28x28x1"));
      Throwable missing =
          assertThrows(InvocationTargetException.class, () -> openEmbedded(alone)).getCause();
      assertEquals(DataException.Missing.class.getName(), missing.getClass().getName());
      assertTrue(
          missing.getMessage().contains("add the dependency io.jtrelu:jtrelu-sample-images"),
          missing.getMessage());
    }
  }

  private static Object openEmbedded(ClassLoader loader) throws ReflectiveOperationException {
    return loader
        .loadClass(Datasets.class.getName())
        .getMethod("open", String.class)
        .invoke(null, "embedded");
  }

  @Test
  void theImagesToMeasureOnAreTheTestPartOfOtherFormats() throws IOException {
    Idx.writeSmallSet(folder);
    Datasets both = Datasets.open(folder.toString());
    Datasets.Options options = Datasets.Options.DEFAULT;
    ImageDataset test = Datasets.openTest(folder.toString(), options);
    assertEquals(both.test().digest(), test.digest());
    ImageDataset whole = Datasets.openWhole(folder.toString(), options);
    assertEquals(both.train().size() + both.test().size(), whole.size());
    assertThrows(
        DataException.UnknownName.class, () -> Datasets.openTest("fashion-minst", options));
  }
}
