package io.jtrelu.distributed;

import io.jtrelu.tensor.Tensor;
import java.io.Closeable;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.CancelledKeyException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ClosedSelectorException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.function.Function;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Ranks that TCP connects, each with each other, for where no MPI is: processes of any machines or
 * threads of one process, such as the tasks of a Spark stage. Whatever started them spreads their
 * addresses, and does nothing else:
 *
 * <pre>{@code
 * Communicator ranks = SocketCommunicator.open(rank, host, mine -> everybodys(mine), deadline);
 * }</pre>
 *
 * <p>A rank is let in by a random number that is part of the address. Bytes travel as they are, not
 * encrypted: for networks that one trusts.
 *
 * <p>{@link #abort(int)} closes this rank's connections and returns: the process stays, as others
 * may live in it, and the ranks at the other ends fail as soon as they look. {@link #abort(String)}
 * tells them why as well.
 */
public final class SocketCommunicator extends Communicator {
  private static final int TOKEN = 16;
  private static final int HELLO = TOKEN + 2 * Integer.BYTES;

  /** Who connects and says nothing is waited for so long. */
  private static final int STRANGER_MILLIS = 2000;

  /** Bytes of what follows, number of the call, its name. */
  private static final int HEADER = 32;

  private static final int NAME = HEADER - Long.BYTES - Integer.BYTES;

  /** Calls by which a rank says why it leaves: it failed, or lost another one. */
  private static final int FAILED = -1;

  private static final int LOST = -2;

  private static final int FAREWELL = 4096; // bytes at most
  private static final int FAREWELL_MILLIS = 2000;

  /** Bytes that a buffer addresses at a time. */
  private static final long PIECE = 1L << 30;

  private final Selector selector;
  private final Duration deadline;
  private final @Nullable Peer[] peers; // null at this rank's own place
  private int calls;
  private volatile boolean over;
  private @Nullable String told; // by another rank, of why all end
  private boolean lost;

  private SocketCommunicator(int rank, int size, Duration deadline) throws IOException {
    super(rank, size);
    this.deadline = deadline;
    this.selector = Selector.open();
    this.peers = new @Nullable Peer[size];
  }

  /**
   * Listens, tells the others where, and connects with them.
   *
   * @param rank of this one, from 0
   * @param host name or address by which the others find this machine
   * @param gather spreads addresses: takes this rank's, returns those of all in their order; called
   *     once
   * @param deadline the longest wait for connections, and later in one call
   * @throws DistributedException if others cannot be reached or do not come, naming them
   */
  public static SocketCommunicator open(
      int rank, String host, Function<String, List<String>> gather, Duration deadline) {
    if (!(deadline.toNanos() > 0)) {
      throw new IllegalArgumentException("the deadline must be positive, got " + deadline);
    }
    byte[] token = new byte[TOKEN];
    new SecureRandom().nextBytes(token);
    SocketCommunicator made = null;
    try (ServerSocketChannel here = ServerSocketChannel.open()) {
      here.bind(null, 1024); // so that ranks can connect before they are taken in
      int port = ((InetSocketAddress) here.getLocalAddress()).getPort();
      List<String> addresses =
          gather.apply(host + " " + port + " " + HexFormat.of().formatHex(token));
      made = new SocketCommunicator(rank, addresses.size(), deadline);
      made.connect(here, token, addresses);
      return made;
    } catch (IOException failure) {
      closeQuietly(made);
      throw new DistributedException(
          "rank " + rank + " cannot reach the others: " + failure.getMessage(), failure);
    } catch (RuntimeException | Error failure) {
      closeQuietly(made);
      throw failure;
    }
  }

  private static void closeQuietly(@Nullable SocketCommunicator made) {
    if (made != null) {
      made.disconnect();
    }
  }

  /** Connects to lower ranks, and takes in the higher ones. */
  private void connect(ServerSocketChannel here, byte[] token, List<String> addresses)
      throws IOException {
    long until = System.nanoTime() + deadline.toNanos();
    for (int other = 0; other < rank(); other++) {
      String[] parts = addresses.get(other).split(" ", 3);
      InetSocketAddress address = new InetSocketAddress(parts[0], Integer.parseInt(parts[1]));
      SocketChannel channel = SocketChannel.open();
      try {
        channel.socket().connect(address, left(until));
        ByteBuffer hello = ByteBuffer.allocate(HELLO);
        hello.put(HexFormat.of().parseHex(parts[2])).putInt(rank()).putInt(size()).flip();
        while (hello.hasRemaining()) {
          channel.write(hello);
        }
        peers[other] = new Peer(other, channel);
      } catch (IOException failure) {
        channel.close();
        throw new IOException("rank " + other + " at " + address + ": " + failure, failure);
      }
    }
    while (missing().findAny().isPresent()) {
      try {
        here.socket().setSoTimeout(left(until)); // channels by themselves have no time-outs
        Socket socket = here.socket().accept();
        if (!takeIn(socket, token)) {
          socket.close();
        }
      } catch (SocketTimeoutException late) {
        throw failed("connection", late(missing()));
      }
    }
  }

  /** Ranks that are not connected. */
  private IntStream missing() {
    return IntStream.range(0, size()).filter(i -> i != rank() && peers[i] == null);
  }

  /** Milliseconds until a time, at least one. */
  private static int left(long until) {
    return Math.clamp((until - System.nanoTime()) / 1_000_000, 1, Integer.MAX_VALUE);
  }

  /** Whether who has connected is a rank that is missing. */
  private boolean takeIn(Socket socket, byte[] token) throws IOException {
    byte[] hello;
    try {
      socket.setSoTimeout(STRANGER_MILLIS);
      hello = socket.getInputStream().readNBytes(HELLO);
    } catch (IOException silent) {
      return false;
    }
    if (hello.length < HELLO || !Arrays.equals(hello, 0, TOKEN, token, 0, TOKEN)) {
      return false;
    }
    int other = ByteBuffer.wrap(hello).getInt(TOKEN);
    if (other <= rank() || other >= size() || peers[other] != null) {
      return false;
    }
    peers[other] = new Peer(other, socket.getChannel());
    return true;
  }

  @Override
  public String name() {
    return "TCP";
  }

  /**
   * Whether a call failed because a rank, this one or another, lost a connection: the process at
   * its other end died, or the network failed.
   */
  public boolean isLost() {
    return lost;
  }

  @Override
  protected void exchange(
      String what, List<? extends @Nullable Tensor> to, List<? extends @Nullable Tensor> from) {
    if (over) {
      throw new IllegalStateException("the communicator is closed, or a call of it has failed");
    }
    calls++;
    long until = System.nanoTime() + deadline.toNanos();
    List<Peer> others = others().toList();
    others.forEach(peer -> peer.begin(what, to.get(peer.rank), from.get(peer.rank)));
    try {
      while (true) {
        boolean moved = false;
        for (Peer peer : others) {
          moved |= peer.advance(what);
        }
        if (others.stream().noneMatch(Peer::isPending)) {
          return;
        }
        if (!moved) {
          if (System.nanoTime() - until >= 0) {
            throw failed(what, late(others.stream().filter(Peer::isPending).mapToInt(p -> p.rank)));
          }
          for (Peer peer : others) {
            peer.listen();
          }
          selector.select(key -> {}, left(until));
        }
      }
    } catch (IOException | CancelledKeyException | ClosedSelectorException closed) {
      throw failed(what, "it was ended from here: " + closed);
    }
  }

  private Stream<Peer> others() {
    return Stream.of(peers).flatMap(Stream::ofNullable);
  }

  private String late(IntStream ranks) {
    return inVain(deadline.toNanos() / 1e9, ranks.boxed().toList());
  }

  private DistributedException failed(String what, String why) {
    over = true;
    return failure(what, calls, why);
  }

  /** A tensor's bytes on their way, in pieces that a buffer can address. */
  private static final class Bytes {
    private final MemorySegment all;
    private long end; // of the piece
    private ByteBuffer piece = ByteBuffer.allocate(0);

    Bytes(MemorySegment all) {
      this.all = all;
    }

    static @Nullable Bytes of(@Nullable Tensor tensor) {
      return tensor == null || tensor.bytes() == 0 ? null : new Bytes(tensor.segment());
    }

    ByteBuffer piece() {
      if (!piece.hasRemaining() && end < all.byteSize()) {
        long size = Math.min(PIECE, all.byteSize() - end);
        piece = all.asSlice(end, size).asByteBuffer();
        end += size;
      }
      return piece;
    }

    boolean areThrough() {
      return end == all.byteSize() && !piece.hasRemaining();
    }
  }

  /** A rank at the other end of a connection: a message to it, and one from it, at a time. */
  private final class Peer {
    final int rank;
    private final SocketChannel channel;
    private final SelectionKey key;
    private final ByteBuffer headerOut = ByteBuffer.allocateDirect(HEADER);
    private final ByteBuffer headerIn = ByteBuffer.allocateDirect(HEADER);
    private @Nullable Bytes out; // null where there is nothing left to send
    private @Nullable Bytes in;

    Peer(int rank, SocketChannel channel) throws IOException {
      this.rank = rank;
      this.channel = channel;
      channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
      channel.configureBlocking(false);
      key = channel.register(selector, 0);
    }

    void begin(String what, @Nullable Tensor to, @Nullable Tensor from) {
      out = Bytes.of(to);
      in = Bytes.of(from);
      head(out == null ? 0 : out.all.byteSize(), calls, what);
      headerIn.clear();
    }

    private void head(long bytes, int call, String what) {
      byte[] name = Arrays.copyOf(what.getBytes(StandardCharsets.US_ASCII), NAME);
      headerOut.clear().putLong(bytes).putInt(call).put(name).flip();
    }

    boolean isPending() {
      return out != null || in != null;
    }

    /** Asks to be woken when there is more to do. */
    void listen() {
      int wanted =
          (out == null ? 0 : SelectionKey.OP_WRITE) | (in == null ? 0 : SelectionKey.OP_READ);
      if (key.interestOps() != wanted) {
        key.interestOps(wanted);
      }
    }

    /** Sends and receives what can be now; whether that was anything. */
    boolean advance(String what) throws IOException {
      boolean moved = false;
      if (out != null) {
        try {
          moved = channel.write(new ByteBuffer[] {headerOut, out.piece()}) > 0;
        } catch (IOException broken) {
          throw gone(what, broken);
        }
        out = out.areThrough() ? null : out;
      }
      if (in != null && headerIn.hasRemaining()) {
        moved |= read(what, headerIn) > 0;
        if (!headerIn.hasRemaining()) {
          requireExpected(what, in.all.byteSize());
        }
      }
      while (in != null && !headerIn.hasRemaining() && read(what, in.piece()) > 0) {
        moved = true;
        in = in.areThrough() ? null : in;
      }
      return moved;
    }

    private int read(String what, ByteBuffer to) throws IOException {
      int read;
      try {
        read = channel.read(to);
      } catch (IOException broken) {
        throw gone(what, broken);
      }
      if (read < 0) {
        throw gone(what, null);
      }
      return read;
    }

    private void requireExpected(String what, long bytes) throws IOException {
      int call = headerIn.getInt(Long.BYTES);
      if (call == FAILED || call == LOST) {
        throw farewell(call);
      }
      byte[] name = new byte[NAME];
      headerIn.get(Long.BYTES + Integer.BYTES, name);
      String theirs = new String(name, StandardCharsets.US_ASCII).replace("\0", "");
      if (call != calls || headerIn.getLong(0) != bytes || !theirs.equals(what)) {
        throw failed(
            what,
            "of "
                + bytes
                + " bytes, but rank "
                + rank
                + " is at "
                + theirs
                + " number "
                + call
                + " of "
                + headerIn.getLong(0)
                + " bytes: the ranks do not do the same");
      }
    }

    /** Why the rank at the other end leaves. */
    private DistributedException farewell(int kind) throws IOException {
      ByteBuffer text = ByteBuffer.allocate(Math.clamp(headerIn.getLong(0), 0, FAREWELL));
      long until = System.nanoTime() + FAREWELL_MILLIS * 1_000_000L;
      key.interestOps(SelectionKey.OP_READ);
      while (text.hasRemaining() && channel.read(text) >= 0 && System.nanoTime() - until < 0) {
        selector.select(key -> {}, left(until));
      }
      over = true;
      lost |= kind == LOST;
      told = new String(text.array(), 0, text.position(), StandardCharsets.UTF_8);
      return new DistributedException(told);
    }

    /** What to say of a connection that has ended: its last words, if it left any. */
    private DistributedException gone(String what, @Nullable IOException broken)
        throws IOException {
      if (over) {
        throw new ClosedChannelException(); // by this rank
      }
      try {
        if (in == null || headerIn.hasRemaining()) {
          while (headerIn.hasRemaining() && channel.read(headerIn) > 0) {}
          int call = headerIn.hasRemaining() ? 0 : headerIn.getInt(Long.BYTES);
          if (call == FAILED || call == LOST) {
            return farewell(call);
          }
        }
      } catch (IOException none) {
        // nothing was left
      }
      lost = true;
      return failed(
          what,
          "the connection to rank "
              + rank
              + " has ended, as if its process had died"
              + (broken == null ? "" : " (" + broken.getMessage() + ")"));
    }

    /** Sends why this rank leaves, where that can be at once. */
    void leave(int kind, byte[] why) throws IOException {
      if (out == null || headerOut.position() == 0) {
        head(why.length, kind, "leaving");
        channel.write(new ByteBuffer[] {headerOut, ByteBuffer.wrap(why)});
      }
      channel.shutdownOutput();
      key.interestOps(SelectionKey.OP_READ);
    }

    /** Throws away what comes; whether more may. */
    boolean drain() {
      try {
        headerIn.clear();
        return channel.read(headerIn) >= 0;
      } catch (IOException gone) {
        return false;
      }
    }
  }

  /**
   * Leaves because this rank failed, and tells the others, who fail as soon as they look: with this
   * reason, or with the one that this rank was told itself. For the thread that uses the
   * communicator.
   */
  public void abort(String why) {
    over = true;
    String all = told != null ? told : "rank " + rank() + " of " + size() + " failed: " + why;
    byte[] text = all.getBytes(StandardCharsets.UTF_8);
    byte[] first = Arrays.copyOf(text, Math.min(text.length, FAREWELL));
    List<Peer> left = new ArrayList<>();
    for (Peer peer : others().toList()) {
      try {
        peer.leave(lost ? LOST : FAILED, first);
        left.add(peer);
      } catch (IOException | CancelledKeyException gone) {
        // has heard of it
      }
    }
    // What comes is read until they leave too: a connection closed before that takes back its last
    // words.
    long until = System.nanoTime() + FAREWELL_MILLIS * 1_000_000L;
    try {
      while (System.nanoTime() - until < 0) {
        left.removeIf(peer -> !peer.drain());
        if (left.isEmpty()) {
          break;
        }
        selector.select(key -> {}, Math.min(50, left(until)));
      }
    } catch (IOException | ClosedSelectorException gone) {
      // so be it
    }
    disconnect();
  }

  @Override
  public void abort(int status) {
    disconnect();
  }

  private void disconnect() {
    over = true;
    others().forEach(peer -> close(peer.channel));
    close(selector);
  }

  private static void close(Closeable resource) {
    try {
      resource.close();
    } catch (IOException ignored) {
      // it is of no use any more
    }
  }

  @Override
  public void close() {
    try {
      if (!over) {
        meet("leaving"); // so that nobody takes this for a failure
      }
    } finally {
      disconnect();
    }
  }
}
