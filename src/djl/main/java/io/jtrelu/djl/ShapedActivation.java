package io.jtrelu.djl;

import ai.djl.MalformedModelException;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.types.Shape;
import ai.djl.nn.AbstractBlock;
import ai.djl.training.ParameterStore;
import ai.djl.util.PairList;
import io.jtrelu.activation.Activation;
import io.jtrelu.activation.ActivationFunction;
import io.jtrelu.activation.TransformedActivation;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.util.Objects;
import java.util.function.UnaryOperator;

/**
 * A {@link TransformedActivation} as a block, elementwise on one array of any shape and floating
 * type:
 *
 * <pre>
 *   y = outputScale * (phi(inputScale * x + inputShift) + outputShift)
 * </pre>
 *
 * <p>Computed by operations of the array's engine, so on its device and with its gradients. (A
 * function of the caller's should not use DJL's {@code array.mul(number)} and its like: in 0.36 on
 * PyTorch their gradients may be wrong, as the number's memory is Java's and may be collected
 * before the backward pass. {@code array.mul(manager.full(new Shape(), number))} is right.) The
 * slope of a rectifier at exactly 0 is the engine's: PyTorch takes the negative side, {@link
 * TransformedActivation#derivative} the positive one.
 *
 * <p>{@link BlockShaping} sets the constants. They are saved with a model and loaded with it, so
 * that a network is shaped once; the function itself is part of the network's code and must be the
 * same by name. Has no parameters. Changing it while another thread computes with it is not safe;
 * otherwise any number of threads may.
 */
public final class ShapedActivation extends AbstractBlock {
  private static final byte VERSION = 1;

  private final UnaryOperator<NDArray> phi;
  private TransformedActivation activation;

  /** A function as it is, to be shaped by {@link BlockShaping}. */
  public ShapedActivation(Activation function) {
    this(TransformedActivation.unchanged(function));
  }

  /**
   * A function that was shaped.
   *
   * @throws IllegalArgumentException if it is one of the caller's, whose array operations are not
   *     known
   */
  public ShapedActivation(TransformedActivation activation) {
    this(activation, builtIn(activation.function()));
  }

  /**
   * A function of the caller's.
   *
   * @param function what the shaping solver reasons about
   * @param phi the same in operations of arrays; may not change its argument
   */
  public ShapedActivation(ActivationFunction function, UnaryOperator<NDArray> phi) {
    this(TransformedActivation.unchanged(function), phi);
  }

  private ShapedActivation(TransformedActivation activation, UnaryOperator<NDArray> phi) {
    super(VERSION);
    this.activation = Objects.requireNonNull(activation, "activation");
    this.phi = Objects.requireNonNull(phi, "phi");
  }

  /** What is computed. */
  public TransformedActivation activation() {
    return activation;
  }

  /**
   * Sets the constants.
   *
   * @throws IllegalArgumentException if the function is another one
   */
  public void set(TransformedActivation shaped) {
    if (!shaped.function().activationName().equals(activation.function().activationName())) {
      throw new IllegalArgumentException(
          "this block computes "
              + activation.function().activationName()
              + ", so it cannot become "
              + shaped.function().activationName()
              + ": put another block in its place");
    }
    activation = shaped;
  }

  /** The activation of an array; the result is a new one. */
  public NDArray apply(NDArray x) {
    TransformedActivation f = activation;
    NDArray z = f.inputScale() == 1 ? x : Constants.mul(x, f.inputScale());
    z = f.inputShift() == 0 ? z : Constants.add(z, f.inputShift());
    NDArray y =
        f.function() == Activation.LEAKY_RELU ? rectify(z, f.negativeSlope()) : phi.apply(z);
    y = f.outputShift() == 0 ? y : Constants.add(y, f.outputShift());
    return f.outputScale() == 1 ? y : Constants.mul(y, f.outputScale());
  }

  @Override
  protected NDList forwardInternal(
      ParameterStore parameterStore,
      NDList inputs,
      boolean training,
      PairList<String, Object> params) {
    return new NDList(apply(inputs.singletonOrThrow()));
  }

  @Override
  public Shape[] getOutputShapes(Shape[] inputShapes) {
    return inputShapes;
  }

  @Override
  protected void saveMetadata(DataOutputStream os) throws IOException {
    saveInputShapes(os);
    os.writeUTF(activation.function().activationName());
    os.writeDouble(activation.inputScale());
    os.writeDouble(activation.inputShift());
    os.writeDouble(activation.outputScale());
    os.writeDouble(activation.outputShift());
    os.writeDouble(activation.negativeSlope());
  }

  @Override
  protected void loadMetadata(byte loadVersion, DataInputStream is)
      throws IOException, MalformedModelException {
    super.loadMetadata(loadVersion, is);
    String saved = is.readUTF();
    ActivationFunction function = activation.function();
    if (!saved.equals(function.activationName())) {
      throw new MalformedModelException(
          "the model was saved with the activation "
              + saved
              + " where this network has "
              + function.activationName());
    }
    activation =
        new TransformedActivation(
            function,
            is.readDouble(),
            is.readDouble(),
            is.readDouble(),
            is.readDouble(),
            is.readDouble());
  }

  /** Sizes are those of the input, and there is nothing else to be set. */
  void initializeAs(Shape... shapes) {
    beforeInitialize(shapes);
  }

  private static NDArray rectify(NDArray x, double slope) {
    return ai.djl.nn.Activation.leakyRelu(x, (float) slope);
  }

  private static UnaryOperator<NDArray> builtIn(ActivationFunction function) {
    if (!(function instanceof Activation known)) {
      throw new IllegalArgumentException(
          "how "
              + function.activationName()
              + " is computed on arrays is not known: give it as a second argument, written in"
              + " operations of NDArray");
    }
    return switch (known) {
      case LEAKY_RELU -> x -> rectify(x, Activation.DEFAULT_NEGATIVE_SLOPE);
      case RELU -> x -> ai.djl.nn.Activation.relu(x);
      case TANH -> x -> x.tanh();
      case SOFTPLUS -> x -> ai.djl.nn.Activation.softPlus(x);
      case SELU -> x -> ai.djl.nn.Activation.selu(x);
      case ELU -> x -> ai.djl.nn.Activation.elu(x, 1);
      case SWISH -> x -> x.mul(ai.djl.nn.Activation.sigmoid(x));
      case SIGMOID -> x -> ai.djl.nn.Activation.sigmoid(x);
      case ERF -> x -> x.erf();
      case BENTID -> x -> Constants.mul(Constants.add(root(x), -1), 0.5).add(x);
      case ATAN -> x -> x.atan();
      case ASINH -> ShapedActivation::asinh;
      case SQUARE -> x -> x.square();
      case SOFTSIGN -> x -> x.div(Constants.add(x.abs(), 1));
      case GELU -> x -> x.mul(ai.djl.nn.Activation.sigmoid(geluArgument(x)));
      case GELU_EXACT -> x -> x.mul(normalCdf(x));
    };
  }

  /** sign(x) log(|x| + sqrt(x^2 + 1)); the sign is a constant, so the derivative at 0 is 1. */
  private static NDArray asinh(NDArray x) {
    NDArray positive = x.gte(0).toType(x.getDataType(), false);
    NDArray sign = Constants.add(Constants.mul(positive, 2), -1);
    return x.mul(sign).add(root(x)).log().mul(sign);
  }

  /** sqrt(x^2 + 1). */
  private static NDArray root(NDArray x) {
    return Constants.add(x.square(), 1).sqrt();
  }

  /** GELU by tanh is x times the logistic function of 2 sqrt(2/pi) (x + 0.044715 x^3). */
  private static NDArray geluArgument(NDArray x) {
    NDArray cubic = Constants.add(Constants.mul(x.square(), 0.044715), 1);
    return Constants.mul(x.mul(cubic), 2 * Math.sqrt(2 / Math.PI));
  }

  /** (1 + erf(x / sqrt 2)) / 2. */
  private static NDArray normalCdf(NDArray x) {
    NDArray erf = Constants.mul(x, Math.sqrt(0.5)).erf();
    return Constants.mul(Constants.add(erf, 1), 0.5);
  }
}
