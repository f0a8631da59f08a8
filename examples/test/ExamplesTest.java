import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import io.jtrelu.inference.Predictor;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Each example does what it says. */
class ExamplesTest {
  @TempDir static Path folder;
  private static String trained;

  interface Program {
    void run(String... arguments) throws Exception;
  }

  private static String output(Program program, String... arguments) throws Exception {
    PrintStream before = System.out;
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    System.setOut(new PrintStream(bytes, true, StandardCharsets.UTF_8));
    try {
      program.run(arguments);
    } finally {
      System.setOut(before);
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }

  private static double number(String pattern, String text) {
    Matcher matcher = Pattern.compile(pattern).matcher(text);
    assertTrue(matcher.find(), text);
    return Double.parseDouble(matcher.group(1));
  }

  /** A picture with its middle third bright, larger than what the network reads. */
  private static Path middle() throws Exception {
    BufferedImage image = new BufferedImage(48, 48, BufferedImage.TYPE_BYTE_GRAY);
    for (int y = 16; y < 32; y++) {
      for (int x = 0; x < 48; x++) {
        image.getRaster().setSample(x, y, 0, 170);
      }
    }
    Path file = folder.resolve("middle.png");
    ImageIO.write(image, "png", file.toFile());
    return file;
  }

  @BeforeAll
  static void train() throws Exception {
    trained = folder.resolve("run").toString();
    String text = output(TrainOwnNetwork::main, trained);
    assertTrue(number("accuracy ([0-9.]+) %", text) > 90, text);
  }

  @Test
  void classifiesAPicture() throws Exception {
    String text = output(ClassifyPicture::main, trained, middle().toString());
    assertEquals(3, text.lines().count(), text);
    assertTrue(text.lines().findFirst().orElseThrow().contains("middle"), text);
  }

  @Test
  void convolves() throws Exception {
    // Orthogonal weights keep the length of the all-ones vector, and a rectifier keeps the mean
    // square of a Gaussian; of 64 given values only roughly.
    double square = number("mean square ([0-9.]+)", output(FusedConvolution::main));
    assertTrue(square > 0.5 && square < 2, "mean square " + square);
  }

  @Test
  void solves() throws Exception {
    String text = output(SolveForFunction::main);
    double scale = number("phi\\(x\\) = ([0-9.]+) \\*", text);
    assertTrue(scale > 0 && scale < 1e6, text);
  }

  @Test
  void serves() throws Exception {
    try (Predictor predictor = Predictor.open(Path.of(trained));
        HttpClient client = HttpClient.newHttpClient()) {
      HttpServer server = ServePredictions.start(predictor, 0);
      try {
        URI uri = URI.create("http://localhost:" + server.getAddress().getPort() + "/predict");
        HttpResponse<String> good = post(client, uri, Files.readAllBytes(middle()));
        assertEquals(200, good.statusCode(), good.body());
        assertTrue(good.body().contains("\"class\": \"middle\""), good.body());
        HttpResponse<String> bad = post(client, uri, new byte[] {1, 2, 3});
        assertEquals(400, bad.statusCode(), bad.body());
      } finally {
        server.stop(0);
      }
    }
  }

  private static HttpResponse<String> post(HttpClient client, URI uri, byte[] body)
      throws Exception {
    return client.send(
        HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofByteArray(body)).build(),
        HttpResponse.BodyHandlers.ofString());
  }
}
