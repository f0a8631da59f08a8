import com.sun.net.httpserver.HttpServer;
import io.jtrelu.data.DataException;
import io.jtrelu.inference.Prediction;
import io.jtrelu.inference.Predictor;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.concurrent.Executors;

/**
 * Predictions over HTTP: ServePredictions RUN [PORT], then
 *
 * <pre>curl --data-binary @shirt.png http://localhost:8080/predict</pre>
 */
public final class ServePredictions {
  public static void main(String[] arguments) throws Exception {
    int port = arguments.length < 2 ? 8080 : Integer.parseInt(arguments[1]);
    Predictor predictor = Predictor.open(Path.of(arguments[0]));
    HttpServer server = start(predictor, port);
    System.out.println("serving on port " + server.getAddress().getPort());
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  server.stop(1); // requests under way are answered
                  predictor.close();
                }));
  }

  /** Serves on this machine's own address; port 0 takes one that is free. */
  static HttpServer start(Predictor predictor, int port) throws Exception {
    HttpServer server =
        HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
    server.createContext(
        "/predict",
        exchange -> {
          String answer;
          int status = 200;
          try {
            byte[] picture = exchange.getRequestBody().readAllBytes();
            Prediction.Ranked best = predictor.predict(picture, "the request").best();
            answer =
                "{\"class\": \"%s\", \"probability\": %s}%n"
                    .formatted(best.name().replace("\"", "\\\""), best.probability());
          } catch (DataException noPicture) {
            status = 400;
            answer = noPicture.getMessage() + "\n";
          }
          byte[] body = answer.getBytes(StandardCharsets.UTF_8);
          exchange.sendResponseHeaders(status, body.length);
          try (exchange) {
            exchange.getResponseBody().write(body);
          }
        });
    // Requests that come together share a pass through the network.
    server.setExecutor(Executors.newVirtualThreadPerTaskExecutor());
    server.start();
    return server;
  }
}
