package io.jtrelu.data;

import io.jtrelu.tensor.PrintableText;
import java.nio.file.Path;

/**
 * Data from outside could not be used. The message says which file, at which byte, what was
 * expected, what was found and what to do; it is written for the user and needs no stack trace.
 * Control characters in it, which names may contain, are spelt out. One subtype per cause.
 */
public abstract sealed class DataException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final String file;
  private final long position;

  private DataException(String file, long position, String problem, Throwable... cause) {
    super(
        PrintableText.of(file + (position >= 0 ? " at byte " + position : "") + ": " + problem),
        cause.length == 0 ? null : cause[0]);
    this.file = file;
    this.position = position;
  }

  /** The file, folder or data set that is at fault, as it is named. */
  public String file() {
    return file;
  }

  /** Byte offset in the file (after decompression) of what is wrong, or -1 where there is none. */
  public long position() {
    return position;
  }

  /** A file, a folder or a data set is not where it was looked for. */
  public static final class Missing extends DataException {
    private static final long serialVersionUID = 1L;

    Missing(String file, String problem) {
      super(file, -1, problem);
    }
  }

  /** No data set has this name. */
  public static final class UnknownName extends DataException {
    private static final long serialVersionUID = 1L;

    UnknownName(String name, String problem) {
      super(name, -1, problem);
    }
  }

  /** The content is not what its format says: truncated, wrong magic number, label out of range. */
  public static final class Malformed extends DataException {
    private static final long serialVersionUID = 1L;

    Malformed(String file, long position, String problem, Throwable... cause) {
      super(file, position, problem, cause);
    }
  }

  /** Larger than can be held, refused before memory was allocated. */
  public static final class TooLarge extends DataException {
    private static final long serialVersionUID = 1L;

    TooLarge(String file, String problem) {
      super(file, -1, problem);
    }
  }

  /** The operating system refused to read. */
  public static final class Unreadable extends DataException {
    private static final long serialVersionUID = 1L;

    Unreadable(Path file, String problem, Throwable cause) {
      super(file.toString(), -1, problem, cause);
    }
  }

  /** A folder can be understood in two ways. */
  public static final class Ambiguous extends DataException {
    private static final long serialVersionUID = 1L;

    Ambiguous(String file, String problem) {
      super(file, -1, problem);
    }
  }

  /** There is nothing to tell apart: a single class. */
  public static final class OneClass extends DataException {
    private static final long serialVersionUID = 1L;

    OneClass(String name, String problem) {
      super(name, -1, problem);
    }
  }

  /** The classes of a data set are not among those asked for. */
  public static final class OtherClasses extends DataException {
    private static final long serialVersionUID = 1L;

    OtherClasses(String name, String problem) {
      super(name, -1, problem);
    }
  }

  /** A batch was asked for that is larger than the data. */
  public static final class BatchTooLarge extends DataException {
    private static final long serialVersionUID = 1L;

    BatchTooLarge(String name, String problem) {
      super(name, -1, problem);
    }
  }
}
