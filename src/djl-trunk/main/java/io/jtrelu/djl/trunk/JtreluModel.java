package io.jtrelu.djl.trunk;

import ai.djl.BaseModel;
import ai.djl.Device;
import ai.djl.MalformedModelException;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import io.jtrelu.inference.Predictor;
import io.jtrelu.interop.SafeTensorsException;
import io.jtrelu.train.CheckpointException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** A trained model of this library: the folder of a run, or one of its checkpoints. */
final class JtreluModel extends BaseModel {
  /** The option that names a device of ours, such as {@code auto} or {@code cpu:4}. */
  private static final String DEVICE = "device";

  /** Where DJL's translators look for the names of classes. */
  private static final String CLASSES = "synset.txt";

  JtreluModel(String name, NDManager manager) {
    super(name);
    this.manager = manager;
    this.dataType = DataType.FLOAT32;
    manager.setName("jtreluModel");
  }

  @Override
  public void load(Path trained, @Nullable String prefix, @Nullable Map<String, ?> options)
      throws IOException, MalformedModelException {
    if (block != null) {
      throw new UnsupportedOperationException(
          "a model of the engine "
              + JtreluEngine.NAME
              + " brings its own network and cannot be loaded into a block; a JtreluBlock is loaded"
              + " by a model of the engine PyTorch");
    }
    boolean folder = Files.isDirectory(trained);
    setModelDir(folder ? trained : trained.toAbsolutePath().getParent());
    Predictor predictor;
    try {
      predictor = Predictor.open(folder ? modelDir : trained, device(options));
    } catch (CheckpointException | SafeTensorsException malformed) {
      throw new MalformedModelException(String.valueOf(malformed.getMessage()), malformed);
    }
    block = new PredictorBlock(predictor);
    manager.attachInternal(NDManager.nextUid(), (PredictorBlock) block);
    wasLoaded = true;
  }

  private String device(@Nullable Map<String, ?> options) {
    Object given = options == null ? null : options.get(DEVICE);
    if (given != null) {
      return given.toString();
    }
    Device device = manager.getDevice();
    return device.isGpu() ? "cuda:" + Math.max(0, device.getDeviceId()) : "cpu";
  }

  @Override
  public InputStream getArtifactAsStream(String name) throws IOException {
    if (name.equals(CLASSES) && block instanceof PredictorBlock loaded) {
      String lines = String.join("\n", loaded.predictor().model().classes());
      return new ByteArrayInputStream(lines.getBytes(StandardCharsets.UTF_8));
    }
    return super.getArtifactAsStream(name);
  }

  @Override
  public String[] getArtifactNames() {
    return new String[] {CLASSES};
  }

  @Override
  public void save(Path folder, @Nullable String name) {
    throw new UnsupportedOperationException(
        "a model of the engine " + JtreluEngine.NAME + " is for inference; copy its run's folder");
  }
}
