package io.jtrelu.data;

import java.util.List;

/**
 * Where the images of an {@link ImageDataset} come from: memory, or files that are read and decoded
 * each time. All are [height, width, channels] unsigned bytes of one size. Immutable but for the
 * record of what was skipped, and safe to share between threads.
 */
sealed interface ImageSource permits StoredImages, StreamedImages {
  /** How many. */
  int size();

  /**
   * An image as it is measured; not to be written to.
   *
   * @throws DataException if it is no intact image, or cannot be read
   */
  byte[] image(int index);

  /**
   * The part of an image's picture that {@link Augmentation#rectangle} says, brought to the size.
   *
   * @throws DataException if it is no intact image, or cannot be read
   */
  byte[] window(int index, Augmentation how, long seed, long epoch);

  /** Whether a bad image is to be passed over; if so, records it. */
  boolean skips(int index, DataException bad);

  /** What {@link #skips} recorded. */
  List<String> skipped();

  /** Threads that it is worth reading with. */
  int threads();

  /** Some, in the order given. */
  ImageSource subset(int[] indices);

  /** The same brought to another size. */
  ImageSource resized(int height, int width, int channels);
}
