package io.jtrelu.backend.cuda;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * conv2d_pack.cu: weights of several convolutions that are packed by one launch. The structs are
 * explained in cuda/include/conv2d.cuh.
 */
final class PackGroup {
  private static final int MOST = 64; // kMostPacks
  private static final int TILE = 32;
  private static final int PACK_BYTES = 56;

  /**
   * A convolution's weights.
   *
   * @param weights F32 KRSC on the device
   * @param forward where the form for fprop goes
   * @param backward where the form for dgrad goes
   */
  record Pack(
      long weights,
      long forward,
      long backward,
      int oc,
      int taps,
      int ic,
      int icPadded,
      int ocPadded) {
    int tilesK() {
      return Math.ceilDiv(ocPadded, TILE);
    }

    int tilesC() {
      return Math.ceilDiv(icPadded, TILE);
    }

    long blocks() {
      return (long) taps * tilesK() * tilesC();
    }
  }

  private final List<Pack> packs = new ArrayList<>(MOST);
  private @Nullable Kernel kernel;
  private long blocks;
  private boolean open;

  /**
   * Adds to the group, or launches at once where none is open.
   *
   * @param with of the weights' compute type
   */
  void add(CudaStream stream, Kernel with, Pack pack) {
    boolean full = packs.size() == MOST || blocks + pack.blocks() > Integer.MAX_VALUE;
    if (full || !with.equals(kernel)) {
      launch(stream);
    }
    kernel = with;
    packs.add(pack);
    blocks += pack.blocks();
    if (!open) {
      launch(stream);
    }
  }

  /** What some work packs is launched together when it ends; all it is given must stay open. */
  void together(CudaStream stream, Runnable work) {
    open = true;
    try {
      work.run();
    } finally {
      open = false;
      launch(stream);
    }
  }

  /** struct Conv2dPackParams. */
  private void launch(CudaStream stream) {
    if (kernel == null || packs.isEmpty()) {
      return;
    }
    Arguments arguments = stream.arguments().i32(packs.size()).i32(0);
    long first = 0;
    for (Pack pack : packs) {
      arguments
          .pointer(pack.weights)
          .pointer(pack.forward)
          .pointer(pack.backward)
          .i32(pack.oc)
          .i32(pack.taps)
          .i32(pack.ic)
          .i32(pack.icPadded)
          .i32(pack.ocPadded)
          .i32(pack.tilesK())
          .i32(pack.tilesC())
          .i32((int) first);
      first += pack.blocks();
    }
    arguments.skip((MOST - packs.size()) * PACK_BYTES);
    packs.clear();
    blocks = 0;
    stream.launch(kernel, first);
  }
}
