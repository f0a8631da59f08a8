package io.jtrelu.cli;

import java.util.Collection;
import java.util.Locale;
import java.util.Optional;

/** Finds the name that somebody probably meant. */
public final class NearestName {
  private NearestName() {}

  /**
   * The known name with the least edit distance (insertions, deletions, replacements, swaps of
   * neighbours; upper and lower case alike), if a third of its letters or fewer differ.
   */
  public static Optional<String> of(String name, Collection<String> known) {
    String nearest = null;
    int least = Integer.MAX_VALUE;
    for (String candidate : known) {
      int distance = distance(name.toLowerCase(Locale.ROOT), candidate.toLowerCase(Locale.ROOT));
      int allowed = Math.max(1, Math.max(name.length(), candidate.length()) / 3);
      if (distance <= allowed && distance < least) {
        least = distance;
        nearest = candidate;
      }
    }
    return Optional.ofNullable(nearest);
  }

  /**
   * An exception for a name that is not known: {@code unknown network 'plian50'; did you mean
   * 'plain50'? Known are plain50, resnet50}.
   *
   * @param kind what the name stands for
   */
  public static UsageException unknown(String kind, String name, Collection<String> known) {
    return new UsageException(
        "unknown "
            + kind
            + " '"
            + name
            + "'; "
            + of(name, known)
                .map(near -> "did you mean '" + near + "'? Known are ")
                .orElse("known are ")
            + String.join(", ", known));
  }

  /** Restricted Damerau-Levenshtein distance, row by row. */
  static int distance(String a, String b) {
    if (Math.max(a.length(), b.length()) > 100) {
      return Integer.MAX_VALUE; // nobody mistypes such a name
    }
    int[][] d = new int[a.length() + 1][b.length() + 1];
    for (int i = 0; i <= a.length(); i++) {
      for (int j = 0; j <= b.length(); j++) {
        if (i == 0 || j == 0) {
          d[i][j] = i + j;
          continue;
        }
        int replaced = d[i - 1][j - 1] + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        d[i][j] = Math.min(replaced, 1 + Math.min(d[i - 1][j], d[i][j - 1]));
        if (i > 1
            && j > 1
            && a.charAt(i - 1) == b.charAt(j - 2)
            && a.charAt(i - 2) == b.charAt(j - 1)) {
          d[i][j] = Math.min(d[i][j], 1 + d[i - 2][j - 2]);
        }
      }
    }
    return d[a.length()][b.length()];
  }
}
