package io.jtrelu.djl.trunk;

import ai.djl.Device;
import ai.djl.Model;
import ai.djl.engine.Engine;
import ai.djl.engine.EngineException;
import ai.djl.ndarray.NDManager;
import org.jspecify.annotations.Nullable;

/**
 * An engine of DJL, by the name {@value #NAME}, for inference with models that this library has
 * trained:
 *
 * <pre>{@code
 * Criteria<Image, Classifications> criteria =
 *     Criteria.builder()
 *         .setTypes(Image.class, Classifications.class)
 *         .optApplication(Application.CV.IMAGE_CLASSIFICATION)
 *         .optEngine("JTReLU")
 *         .optModelPath(Path.of("runs/plain50"))
 *         .optTranslatorFactory(new JtreluTranslatorFactory())
 *         .build();
 * try (ZooModel<Image, Classifications> model = criteria.loadModel();
 *     Predictor<Image, Classifications> predictor = model.newPredictor()) {
 *   System.out.println(predictor.predict(image).best());
 * }
 * }</pre>
 *
 * <p>Its arrays hold values and compute nothing; arithmetic on them is done by another engine
 * (PyTorch, where its library is found), as DJL's hybrid engines do it. It does not train: for that
 * there is {@link JtreluBlock}, on PyTorch.
 */
public final class JtreluEngine extends Engine {
  /** Its name. */
  public static final String NAME = "JTReLU";

  /** Behind engines that compute, so that it is the default where there is no other. */
  static final int RANK = 10;

  private @Nullable JtreluManager root;
  private @Nullable Engine alternative;
  private boolean looked;

  JtreluEngine() {}

  /** The one that computes on arrays; null if none can be loaded. */
  @Override
  public synchronized @Nullable Engine getAlternativeEngine() {
    if (!looked) {
      looked = true;
      try {
        Engine engine =
            Engine.hasEngine("PyTorch") ? Engine.getEngine("PyTorch") : Engine.getInstance();
        alternative = engine.getRank() < RANK ? engine : null;
      } catch (EngineException | UnsatisfiedLinkError missing) {
        System.getLogger("io.jtrelu.djl")
            .log(
                System.Logger.Level.INFO,
                "arrays of the engine "
                    + NAME
                    + " hold values only, as no other engine computes on them: "
                    + missing.getMessage());
      }
    }
    return alternative;
  }

  /** The manager of all others; made when the engine is known to DJL. */
  synchronized JtreluManager root() {
    if (root == null) {
      root = new JtreluManager.Root();
    }
    return root;
  }

  @Override
  public String getEngineName() {
    return NAME;
  }

  @Override
  public int getRank() {
    return RANK;
  }

  @Override
  public String getVersion() {
    String version = JtreluEngine.class.getPackage().getImplementationVersion();
    return version == null ? "development" : version;
  }

  /** None: devices are given as DJL's {@link Device} or as a model's option. */
  @Override
  public boolean hasCapability(String capability) {
    return false;
  }

  @Override
  public Model newModel(String name, @Nullable Device device) {
    return new JtreluModel(name, newBaseManager(device));
  }

  @Override
  public NDManager newBaseManager() {
    return newBaseManager(null);
  }

  @Override
  public NDManager newBaseManager(@Nullable Device device) {
    return root().newSubManager(device);
  }
}
