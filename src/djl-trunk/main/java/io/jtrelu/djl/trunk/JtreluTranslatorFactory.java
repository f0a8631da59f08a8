package io.jtrelu.djl.trunk;

import ai.djl.Model;
import ai.djl.modality.Classifications;
import ai.djl.modality.cv.Image;
import ai.djl.modality.cv.translator.BaseImageTranslatorFactory;
import ai.djl.translate.Translator;
import java.util.Map;

/**
 * Brings pictures to what a model of the engine {@value JtreluEngine#NAME} reads, as in its
 * training, and names the classes of its results: for {@code Criteria} of {@code Image} (or a file,
 * a URL, a stream) and {@code Classifications}. The argument {@code topK} says how many of them are
 * listed (5).
 *
 * <p>DJL's own translator for images works too, with {@code optArgument("flag", "GRAYSCALE")} for
 * gray models and {@code resize}, {@code width} and {@code height} for pictures of other sizes.
 */
public final class JtreluTranslatorFactory extends BaseImageTranslatorFactory<Classifications> {

  /** A factory for any model. */
  public JtreluTranslatorFactory() {}

  @Override
  protected Translator<Image, Classifications> buildBaseTranslator(
      Model model, Map<String, ?> arguments) {
    if (!(model.getBlock() instanceof PredictorBlock block)) {
      throw new IllegalArgumentException(
          "a JtreluTranslatorFactory is for models of the engine "
              + JtreluEngine.NAME
              + ": add optEngine(\""
              + JtreluEngine.NAME
              + "\") to the criteria");
    }
    Object topK = arguments.get("topK");
    return new JtreluTranslator(
        block.predictor().model(), topK == null ? 5 : Integer.parseInt(topK.toString()));
  }

  @Override
  public Class<Classifications> getBaseOutputType() {
    return Classifications.class;
  }
}
