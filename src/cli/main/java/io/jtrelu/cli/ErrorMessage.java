package io.jtrelu.cli;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;

/** Turns a failure into what is said about it. */
final class ErrorMessage {
  private ErrorMessage() {}

  static String of(Throwable failure) {
    return switch (failure) {
      case UncheckedIOException wrapper -> of(wrapper.getCause());
      case NoSuchFileException missing -> "there is no file or folder " + missing.getFile();
      case AccessDeniedException denied -> "no permission for " + denied.getFile();
      case NotDirectoryException plain -> plain.getFile() + " is not a folder";
      case FileAlreadyExistsException taken -> taken.getFile() + " exists already";
      case DirectoryNotEmptyException full -> "the folder " + full.getFile() + " is not empty";
      case OutOfMemoryError exhausted ->
          "the Java heap is exhausted ("
              + Runtime.getRuntime().maxMemory() / (1 << 20)
              + " MiB); take a smaller batch or set JTRELU_JAVA_OPTS=-Xmx8g";
      // What this library throws on purpose says what was wrong; anything else is our mistake.
      case IOException known -> told(known);
      case IllegalArgumentException known -> told(known);
      case IllegalStateException known -> told(known);
      default ->
          failure.getClass().getName().startsWith("io.jtrelu.") ? told(failure) : internal(failure);
    };
  }

  private static String told(Throwable failure) {
    String message = failure.getMessage();
    return message == null ? internal(failure) : message;
  }

  private static String internal(Throwable failure) {
    return "internal error: " + failure + " (--verbose shows where)";
  }
}
