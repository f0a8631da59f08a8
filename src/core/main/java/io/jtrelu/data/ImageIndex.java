package io.jtrelu.data;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Where encoded images lie, and their labels: files of folders, or members of tar files. Takes
 * about 24 bytes an image and the length of its name. Immutable and safe to share between threads.
 */
final class ImageIndex {
  /** A file of its own, not a member. */
  static final long WHOLE_FILE = -1;

  /** A folder or a tar file. */
  private record Container(Path path, String name) {}

  private final List<Container> containers;
  private final int[] container;
  private final long[] offset;
  private final int[] length;
  private final int[] label;
  private final int[] nameEnd;
  private final byte[] names;

  private ImageIndex(Builder from) {
    containers = List.copyOf(from.containers);
    container = Arrays.copyOf(from.container, from.size);
    offset = Arrays.copyOf(from.offset, from.size);
    length = Arrays.copyOf(from.length, from.size);
    label = Arrays.copyOf(from.label, from.size);
    nameEnd = Arrays.copyOf(from.nameEnd, from.size);
    names = Arrays.copyOf(from.names, from.size == 0 ? 0 : nameEnd[from.size - 1]);
  }

  /** Collects images in their order. Not thread-safe. */
  static final class Builder {
    private final List<Container> containers = new ArrayList<>();
    private int size;
    private int[] container = new int[16];
    private long[] offset = new long[16];
    private int[] length = new int[16];
    private int[] label = new int[16];
    private int[] nameEnd = new int[16];
    private byte[] names = new byte[256];

    int size() {
      return size;
    }

    /**
     * What the images after it lie in.
     *
     * @param name relative to the data set's folder, so that the set is the same wherever that lies
     */
    void container(Path path, String name) {
      containers.add(new Container(path, name));
    }

    /**
     * Adds an image of the last container.
     *
     * @param name of the file in the folder, or of the member
     * @param at offset of the member's content, or {@link #WHOLE_FILE}
     */
    void add(String name, long at, long bytes, int itsLabel) {
      if (size == container.length) {
        int room = size + (size >> 1);
        container = Arrays.copyOf(container, room);
        offset = Arrays.copyOf(offset, room);
        length = Arrays.copyOf(length, room);
        label = Arrays.copyOf(label, room);
        nameEnd = Arrays.copyOf(nameEnd, room);
      }
      byte[] utf8 = name.getBytes(UTF_8);
      int from = size == 0 ? 0 : nameEnd[size - 1];
      int to = Math.addExact(from, utf8.length);
      if (to > names.length) {
        names = Arrays.copyOf(names, (int) Math.min(Integer.MAX_VALUE - 8L, 3L * to / 2));
      }
      System.arraycopy(utf8, 0, names, from, utf8.length);
      container[size] = containers.size() - 1;
      offset[size] = at;
      length[size] = (int) Math.min(bytes, Integer.MAX_VALUE);
      label[size] = itsLabel;
      nameEnd[size] = to;
      size++;
    }

    /** Adds all of another. */
    void addAll(ImageIndex other) {
      int last = -1;
      for (int i = 0; i < other.size(); i++) {
        if (other.container[i] != last) {
          last = other.container[i];
          containers.add(other.containers.get(last));
        }
        add(other.memberName(i), other.offset[i], other.length[i], other.label[i]);
      }
    }

    ImageIndex build() {
      return new ImageIndex(this);
    }
  }

  int size() {
    return label.length;
  }

  /** A copy. */
  int[] labels() {
    return label.clone();
  }

  /** Class of an image. */
  int label(int index) {
    return label[index];
  }

  /** Bytes of the file or the member. */
  int length(int index) {
    return length[index];
  }

  private String memberName(int index) {
    int from = index == 0 ? 0 : nameEnd[index - 1];
    return new String(names, from, nameEnd[index] - from, UTF_8);
  }

  /** Name relative to the data set's folder; of a member, the tar file's and its own. */
  String relativeName(int index) {
    String name = containers.get(container[index]).name;
    return name.isEmpty() ? memberName(index) : name + "/" + memberName(index);
  }

  /** What to call an image in messages. */
  String name(int index) {
    Path path = containers.get(container[index]).path;
    return offset[index] == WHOLE_FILE
        ? path.resolve(memberName(index)).toString()
        : path + " at byte " + offset[index] + ", " + memberName(index);
  }

  /**
   * Reads an image.
   *
   * @throws DataException if it cannot be read, or is no image; its pixels may be damaged still
   */
  EncodedImage read(int index) {
    Path path = containers.get(container[index]).path;
    if (offset[index] == WHOLE_FILE) {
      return EncodedImage.read(path.resolve(memberName(index)));
    }
    EncodedImage.requireLength(length[index], name(index));
    ByteBuffer bytes = ByteBuffer.allocate(length[index]);
    try (FileChannel channel = FileChannel.open(path)) {
      while (bytes.hasRemaining()) {
        if (channel.read(bytes, offset[index] + bytes.position()) < 0) {
          throw new DataException.Malformed(
              path.toString(),
              offset[index] + bytes.position(),
              "the file ends in the middle of "
                  + memberName(index)
                  + ", which it did not when it was opened; it has changed, begin again");
        }
      }
    } catch (NoSuchFileException missing) {
      throw new DataException.Missing(path.toString(), "no such file");
    } catch (IOException failure) {
      throw new DataException.Unreadable(path, "cannot be read (" + failure + ")", failure);
    }
    return EncodedImage.of(bytes.array(), name(index));
  }
}
