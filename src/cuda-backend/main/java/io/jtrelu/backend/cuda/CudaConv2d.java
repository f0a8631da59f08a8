package io.jtrelu.backend.cuda;

import io.jtrelu.backend.Conv2d;
import io.jtrelu.backend.Conv2dDescriptor;
import io.jtrelu.backend.PackedWeights;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.Write;
import io.jtrelu.backend.cuda.ConvolutionChooser.Candidate;
import io.jtrelu.backend.cuda.ConvolutionPasses.Epilogue;
import io.jtrelu.backend.cuda.TileVariant.Pass;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * A convolution by the kernels that fit it: tiled ones where they can, else the direct ones; or
 * each of its passes by a library, where that is chosen.
 */
final class CudaConv2d extends Conv2d {
  private final CudaBackend backend;
  private final ConvolutionKernels kernels;
  private final ConvolutionPasses fprop;
  private final ConvolutionPasses dgrad;
  private final ConvolutionPasses wgrad;
  private final Epilogue epilogue;

  CudaConv2d(
      CudaBackend backend,
      Conv2dDescriptor descriptor,
      DataType type,
      Rectifier activation,
      Rectifier srcActivation) {
    super(backend.device(), descriptor, type, activation, srcActivation);
    this.backend = backend;
    kernels =
        TiledConvolution.fits(descriptor)
            ? new TiledConvolution(backend, descriptor, type, srcActivation)
            : new DirectConvolution(backend, descriptor, type, srcActivation);
    epilogue = new Epilogue(activation, 1, 0);
    fprop = choose(Pass.FPROP);
    dgrad = choose(Pass.DGRAD);
    wgrad = choose(Pass.WGRAD);
    backend.expectScratch(scratchBytes());
  }

  /** Where only our own kernels can be chosen, as they are the ones that know signs. */
  static boolean keepsSigns(CudaBackend backend, Conv2dDescriptor d, DataType type) {
    ConvolutionChooser chooser = backend.chooser();
    return type.bytes() == 2 // in 32 bits less is gained, and none was built
        && TiledConvolution.fits(d)
        && !chooser.considers(ConvolutionProvider.CUBLAS)
        && !chooser.considers(ConvolutionProvider.CUDNN);
  }

  @Override
  public boolean keepsSigns() {
    return keepsSigns(backend, descriptor(), type());
  }

  private ConvolutionPasses choose(Pass pass) {
    boolean gated = pass == Pass.DGRAD && !srcActivation().isIdentity();
    ConvolutionProblem problem =
        new ConvolutionProblem(descriptor(), pass, type(), backend.tf32(), gated);
    return backend.chooser().choose(problem, candidates(problem)).passes().get();
  }

  private List<Candidate> candidates(ConvolutionProblem problem) {
    List<Candidate> candidates = new ArrayList<>();
    candidates.add(new Candidate(ConvolutionProvider.OWN, "own", () -> kernels));
    Conv2dDescriptor d = problem.d();
    if (!(kernels instanceof TiledConvolution own) || d.n() == 0) {
      return candidates; // the libraries read what the tiled kernels pack
    }
    ConvolutionChooser chooser = backend.chooser();
    List<HopperTile> hopper = HopperConvolution.able(backend, problem);
    Optional<HopperTile> taken = HopperConvolution.taken(backend, hopper, problem, own);
    taken.ifPresent(tile -> candidates.addFirst(hopper(tile, problem, own)));
    List<HopperWeightTile> sums = HopperWeightGradient.able(backend, problem);
    Optional<HopperWeightTile> sum = HopperWeightGradient.taken(backend, sums, problem, own);
    sum.ifPresent(tile -> candidates.addFirst(hopper(tile, problem, own)));
    if (chooser.searches()) {
      FixedTile.Listing listing = new FixedTile.Listing(backend.tiles(), problem.pass());
      tiled(listing);
      for (FixedTile tile : listing.tiles()) {
        candidates.add(
            new Candidate(ConvolutionProvider.OWN, "own/" + tile.title(), () -> tiled(tile)));
      }
      hopper.stream()
          .filter(tile -> !taken.equals(Optional.of(tile)))
          .forEach(tile -> candidates.add(hopper(tile, problem, own)));
      sums.stream()
          .filter(tile -> !sum.equals(Optional.of(tile)))
          .forEach(tile -> candidates.add(hopper(tile, problem, own)));
    }
    if (chooser.considers(ConvolutionProvider.CUBLAS) && MatrixConvolution.fits(d)) {
      candidates.add(
          new Candidate(
              ConvolutionProvider.CUBLAS,
              "cublas",
              () -> new MatrixConvolution(backend, d, type(), srcActivation(), own)));
    }
    if (chooser.considers(ConvolutionProvider.CUDNN)
        && DnnConvolution.fits(d, problem.pass(), type())) {
      for (Dnn.Algorithm way : DnnConvolution.algorithms(backend.libraries(), problem)) {
        candidates.add(
            new Candidate(
                ConvolutionProvider.CUDNN,
                "cudnn/" + way.number(),
                () -> new DnnConvolution(backend, problem, srcActivation(), way, own)));
      }
    }
    return candidates;
  }

  private Candidate hopper(HopperTile tile, ConvolutionProblem problem, TiledConvolution own) {
    return new Candidate(
        ConvolutionProvider.OWN,
        "own/" + HopperConvolution.kernel(tile, problem),
        () -> new HopperConvolution(backend, problem, tile, srcActivation(), own));
  }

  private Candidate hopper(
      HopperWeightTile tile, ConvolutionProblem problem, TiledConvolution own) {
    return new Candidate(
        ConvolutionProvider.OWN,
        "own/" + tile.kernel(type()),
        () -> new HopperWeightGradient(backend, problem, tile, own));
  }

  private TiledConvolution tiled(TileChooser tiles) {
    return new TiledConvolution(backend, descriptor(), type(), srcActivation(), tiles);
  }

  @Override
  protected void release() {
    fprop.close();
    dgrad.close();
    wgrad.close();
  }

  @Override
  public long packedBytes() {
    return kernels.packedBytes();
  }

  @Override
  public long scratchBytes() {
    return Math.max(kernels.scratchBytes(), wgrad.scratchBytes());
  }

  @Override
  protected PackedWeights allocatePackedWeights() {
    return kernels.newPackedWeights();
  }

  @Override
  protected void runPack(Stream stream, Tensor weights, PackedWeights packed) {
    kernels.pack(backend.own(stream), weights, packed);
  }

  @Override
  protected void runForward(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst) {
    forward(backend.own(stream), src, weights, bias, epilogue, 0, dst);
  }

  @Override
  protected void runForwardWithSigns(
      Stream stream, Tensor src, PackedWeights weights, Tensor bias, Tensor dst, Tensor signs) {
    ((SignedPasses) fprop)
        .fprop(backend.own(stream), src, weights, bias, epilogue, 0, dst, signs.address());
  }

  @Override
  protected void runBackwardDataBySigns(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor signs,
      Tensor diffSrc,
      Write write) {
    ((SignedPasses) dgrad)
        .dgrad(backend.own(stream), diffDst, weights, 0, signs.address(), diffSrc, write);
  }

  /** The forward pass with another epilogue. */
  void forward(
      CudaStream stream,
      Tensor src,
      PackedWeights weights,
      Tensor bias,
      Epilogue how,
      long shortcut,
      Tensor dst) {
    fprop.fprop(stream, src, weights, bias, how, shortcut, dst);
  }

  /** What {@link #pack} filled, where it is for the tiled kernels. */
  CudaWeights weights(CudaStream stream, PackedWeights packed) {
    return ((TiledConvolution) kernels).weights(stream, packed);
  }

  /** Whether a backend prepared it. */
  boolean belongsTo(CudaBackend other) {
    return backend == other;
  }

  @Override
  protected void runBackwardData(
      Stream stream,
      Tensor diffDst,
      PackedWeights weights,
      Tensor src,
      Tensor diffSrc,
      Write write) {
    dgrad.dgrad(backend.own(stream), diffDst, weights, src, diffSrc, write);
  }

  @Override
  protected void runBackwardWeights(
      Stream stream, Tensor src, Tensor diffDst, Tensor diffWeights, Tensor diffBias, Write write) {
    CudaStream on = backend.own(stream);
    if (descriptor().n() > 0) {
      wgrad.wgrad(on, src, diffDst, diffWeights, diffBias, write);
    } else {
      SplitSum.ofNothing(on, diffWeights, diffBias, write);
    }
  }
}
