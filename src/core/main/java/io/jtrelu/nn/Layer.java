package io.jtrelu.nn;

import io.jtrelu.activation.TransformedActivation;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.MaxPool2dDescriptor;
import java.util.List;

/**
 * One node of a network's graph. Its sources are indices of earlier nodes. Sizes are those of a
 * single image; a program puts in the batch.
 */
public sealed interface Layer {
  /** Unique name, stable across runs: the prefix of its parameters in checkpoints. */
  String name();

  /** Indices of the nodes it reads. */
  List<Integer> sources();

  /** Height, width and channels of its result. */
  Extent extent();

  /**
   * Size of one image or activation.
   *
   * @param height rows
   * @param width columns
   * @param channels channels
   */
  record Extent(int height, int width, int channels) {
    /** Number of values. */
    public long elements() {
      return (long) height * width * channels;
    }

    @Override
    public String toString() {
      return height + "x" + width + "x" + channels;
    }
  }

  /** The network's entry. */
  record Input(String name, Extent extent) implements Layer {
    @Override
    public List<Integer> sources() {
      return List.of();
    }
  }

  /**
   * Convolution + bias; a fully connected layer is one of 1x1 images.
   *
   * @param name unique name
   * @param source index of the node it reads
   * @param descriptor sizes, with a batch of one
   */
  record Convolution(String name, int source, Conv2dDescriptor descriptor) implements Layer {
    @Override
    public List<Integer> sources() {
      return List.of(source);
    }

    @Override
    public Extent extent() {
      return new Extent(descriptor.oh(), descriptor.ow(), descriptor.oc());
    }
  }

  /**
   * A nonlinearity.
   *
   * @param name unique name
   * @param source index of the node it reads
   * @param function what is applied to every value; see {@link Network#shape}
   * @param extent size of source and result
   */
  record Activation(String name, int source, TransformedActivation function, Extent extent)
      implements Layer {
    @Override
    public List<Integer> sources() {
      return List.of(source);
    }
  }

  /**
   * shortcutWeight * shortcut + sqrt(1 - shortcutWeight^2) * branch: a normalised sum.
   *
   * @param name unique name
   * @param shortcut index of the first node it reads
   * @param branch index of the second node it reads
   * @param shortcutWeight in (0, 1)
   * @param extent size of sources and result
   */
  record NormalizedSum(String name, int shortcut, int branch, double shortcutWeight, Extent extent)
      implements Layer {
    @Override
    public List<Integer> sources() {
      return List.of(shortcut, branch);
    }

    /** Weight of the branch: the squares of both weights sum to one. */
    public double branchWeight() {
      return Math.sqrt(1 - shortcutWeight * shortcutWeight);
    }
  }

  /**
   * Max-pooling.
   *
   * @param name unique name
   * @param source index of the node it reads
   * @param descriptor sizes, with a batch of one
   */
  record MaxPooling(String name, int source, MaxPool2dDescriptor descriptor) implements Layer {
    @Override
    public List<Integer> sources() {
      return List.of(source);
    }

    @Override
    public Extent extent() {
      return new Extent(descriptor.oh(), descriptor.ow(), descriptor.c());
    }
  }

  /**
   * Mean over all locations.
   *
   * @param name unique name
   * @param source index of the node it reads
   * @param extent 1 x 1 x channels
   */
  record GlobalMeanPooling(String name, int source, Extent extent) implements Layer {
    @Override
    public List<Integer> sources() {
      return List.of(source);
    }
  }

  /**
   * Dropout while training; the identity otherwise.
   *
   * @param name unique name
   * @param source index of the node it reads
   * @param rate probability of dropping a value, in [0, 1)
   * @param extent size of source and result
   */
  record DropoutLayer(String name, int source, float rate, Extent extent) implements Layer {
    @Override
    public List<Integer> sources() {
      return List.of(source);
    }
  }
}
