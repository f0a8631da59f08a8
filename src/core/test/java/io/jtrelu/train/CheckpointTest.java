package io.jtrelu.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.interop.SafeTensors;
import io.jtrelu.interop.SafeTensorsException;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CheckpointTest {
  private static final TrainingState STATE =
      new TrainingState(
          123,
          4,
          56,
          Map.of("data", -1L, "dropout", 1L << 60),
          "{\"network\":\"plain50\",\"eta\":0.9}",
          0.1 + 0.2);

  @TempDir Path folder;
  private Path file;
  private final Map<String, Tensor> parameters = new LinkedHashMap<>();
  private final Map<String, Tensor> optimizer = new LinkedHashMap<>();

  private static Tensor tensor(int... dims) {
    return Tensor.allocate(Shape.of(dims), DataType.F32, Layout.ROW_MAJOR);
  }

  @BeforeEach
  void save() throws IOException {
    file = folder.resolve("model.safetensors");
    parameters.put("conv1.weights", tensor(2, 2).set(1, -0f, Float.MIN_VALUE, Float.NaN));
    parameters.put("conv1.bias", tensor(2).set(5, 6));
    optimizer.put("conv1.bias", tensor(2).set(7, 8));
    Checkpoint.save(file, STATE, parameters, optimizer);
  }

  @AfterEach
  void close() {
    parameters.values().forEach(Tensor::close);
    optimizer.values().forEach(Tensor::close);
  }

  @Test
  void restoresBitwise() throws IOException {
    try (Tensor weights = tensor(2, 2);
        Tensor bias = tensor(2);
        Tensor velocity = tensor(2);
        Checkpoint checkpoint = Checkpoint.open(file)) {
      assertEquals(STATE, checkpoint.state());
      checkpoint.restore(
          Map.of("conv1.weights", weights, "conv1.bias", bias), Map.of("conv1.bias", velocity));
      assertEquals(-1, weights.segment().mismatch(parameters.get("conv1.weights").segment()));
      assertArrayEquals(new float[] {5, 6}, bias.toFloatArray());
      assertArrayEquals(new float[] {7, 8}, velocity.toFloatArray());
    }
  }

  @Test
  void parametersAloneAreEnoughToEvaluate() throws IOException {
    try (Tensor weights = tensor(2, 2);
        Tensor bias = tensor(2);
        Checkpoint checkpoint = Checkpoint.open(file)) {
      checkpoint.restore(Map.of("conv1.weights", weights, "conv1.bias", bias));
      assertArrayEquals(new float[] {5, 6}, bias.toFloatArray());
    }
  }

  @Test
  void keepsPlainNamesForOtherReaders() throws IOException {
    try (SafeTensors tensors = SafeTensors.open(file)) {
      assertEquals(
          Set.of("conv1.weights", "conv1.bias", "optimizer.conv1.bias"),
          tensors.entries().keySet());
      assertEquals("123", tensors.metadata().get("step"));
    }
  }

  @Test
  void anotherNetworkIsRefusedWithAllDifferencesAndUntouched() throws IOException {
    try (Tensor weights = tensor(2, 3);
        Tensor bias = tensor(2).set(1, 1);
        Tensor more = tensor(4);
        Checkpoint checkpoint = Checkpoint.open(file)) {
      Map<String, Tensor> other = new LinkedHashMap<>();
      other.put("conv1.weights", weights);
      other.put("head.bias", more);
      other.put("conv1.bias", bias);
      CheckpointException error =
          assertThrows(CheckpointException.class, () -> checkpoint.restore(other, Map.of()));
      assertEquals(
          file
              + " belongs to another network or optimiser (3 differences):\n"
              + "  different: conv1.weights is F32[2, 2] in the file, F32[2, 3] in the network\n"
              + "  missing in the file: head.bias F32[4]\n"
              + "  unexpected in the file: optimizer.conv1.bias F32[2]",
          error.getMessage());
      assertArrayEquals(new float[] {1, 1}, bias.toFloatArray());
    }
  }

  @Test
  void aLongListIsCut() throws IOException {
    Map<String, Tensor> other = new LinkedHashMap<>();
    for (int i = 0; i < 100; i++) {
      other.put("layer" + i, parameters.get("conv1.bias"));
    }
    try (Checkpoint checkpoint = Checkpoint.open(file)) {
      CheckpointException error =
          assertThrows(CheckpointException.class, () -> checkpoint.restore(other));
      assertTrue(String.valueOf(error.getMessage()).endsWith("\n  and 90 more"));
    }
  }

  @Test
  void aFailedSaveLeavesTheOldOne() throws IOException {
    byte[] before = Files.readAllBytes(file);
    parameters.get("conv1.bias").close();
    assertThrows(
        IllegalStateException.class, () -> Checkpoint.save(file, STATE, parameters, optimizer));
    assertArrayEquals(before, Files.readAllBytes(file));
  }

  @Test
  void foreignAndDamagedFilesAreRefused() throws IOException {
    AtomicFile.write(file, channel -> SafeTensors.write(channel, Map.of(), Map.of()));
    assertThrows(CheckpointException.class, () -> Checkpoint.open(file));

    Map<String, String> metadata = new LinkedHashMap<>();
    metadata.put("format", "jtrelu-checkpoint-1");
    for (String[] entry :
        new String[][] {
          {"step", "1"}, {"epoch", "1"}, {"position", "0"}, {"config", "{}"}, {"bestMetric", "1"}
        }) {
      AtomicFile.write(file, channel -> SafeTensors.write(channel, Map.of(), metadata));
      assertThrows(CheckpointException.class, () -> Checkpoint.open(file), entry[0]);
      metadata.put(entry[0], entry[1]);
    }
    AtomicFile.write(file, channel -> SafeTensors.write(channel, Map.of(), metadata));
    Checkpoint.open(file).close();
    metadata.put("seed.data", "twelve");
    AtomicFile.write(file, channel -> SafeTensors.write(channel, Map.of(), metadata));
    assertThrows(CheckpointException.class, () -> Checkpoint.open(file));

    Files.writeString(file, "not a checkpoint at all");
    assertThrows(SafeTensorsException.class, () -> Checkpoint.open(file));
  }

  @Test
  void theOptimizersPrefixIsReserved() {
    assertThrows(
        IllegalArgumentException.class,
        () ->
            Checkpoint.save(
                file, STATE, Map.of("optimizer.x", parameters.get("conv1.bias")), Map.of()));
  }
}
