package io.jtrelu.spark;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.function.Consumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Brings lines from a task to the driver while it runs, which Spark itself does not. What cannot be
 * brought is left: no run fails for it.
 */
final class Progress {
  private static final Logger LOG = LoggerFactory.getLogger(Progress.class);
  private static final int MILLIS = 5000;

  private Progress() {}

  /** The driver's end. */
  static final class Receiver implements AutoCloseable {
    private final ServerSocket socket;
    private final String token;
    private final Consumer<String> to;

    /** Passes lines on, in threads of its own, until it is closed. */
    Receiver(Consumer<String> to) throws IOException {
      byte[] random = new byte[16];
      new SecureRandom().nextBytes(random);
      this.token = HexFormat.of().formatHex(random);
      this.to = to;
      this.socket = new ServerSocket(0);
      Thread.ofPlatform().daemon().name("jtrelu-progress").start(this::accept);
    }

    /** Where it is, for a sender on another machine that knows this one by a name. */
    String address(String host) {
      return host + " " + socket.getLocalPort() + " " + token;
    }

    private void accept() {
      while (!socket.isClosed()) {
        try {
          Socket from = socket.accept();
          Thread.ofVirtual().start(() -> receive(from));
        } catch (IOException closed) {
          return;
        }
      }
    }

    private void receive(Socket from) {
      try (from;
          BufferedReader lines =
              new BufferedReader(
                  new InputStreamReader(from.getInputStream(), StandardCharsets.UTF_8))) {
        if (token.equals(lines.readLine())) {
          lines.lines().forEach(to);
        }
      } catch (IOException | RuntimeException gone) {
        LOG.debug("no more of a task's progress", gone);
      }
    }

    @Override
    public void close() throws IOException {
      socket.close();
    }
  }

  /** A task's end. */
  static final class Sender implements AutoCloseable {
    private final Socket socket = new Socket();
    private PrintWriter lines = new PrintWriter(PrintWriter.nullWriter());

    /** To a receiver's address. */
    Sender(String address) {
      String[] parts = address.split(" ", 3);
      try {
        socket.connect(
            new InetSocketAddress(InetAddress.getByName(parts[0]), Integer.parseInt(parts[1])),
            MILLIS);
        lines = new PrintWriter(socket.getOutputStream(), true, StandardCharsets.UTF_8);
        lines.println(parts[2]);
      } catch (IOException unreachable) {
        LOG.warn(
            "the driver at {} cannot be told of progress: {}", parts[0], unreachable.toString());
      }
    }

    /** Sends a line. */
    void tell(String line) {
      lines.println(line); // which throws nothing
    }

    @Override
    public void close() throws IOException {
      lines.flush();
      socket.close();
    }
  }
}
