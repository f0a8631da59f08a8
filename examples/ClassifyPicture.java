import io.jtrelu.inference.Prediction;
import io.jtrelu.inference.Predictor;
import java.nio.file.Path;

/** Tells what is on a picture: ClassifyPicture RUN PICTURE. */
public final class ClassifyPicture {
  public static void main(String[] arguments) throws Exception {
    try (Predictor predictor = Predictor.open(Path.of(arguments[0]))) {
      for (Prediction.Ranked one : predictor.predict(Path.of(arguments[1])).top(3)) {
        System.out.printf("%5.1f %% %s%n", 100 * one.probability(), one.name());
      }
    }
  }
}
