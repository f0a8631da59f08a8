package io.jtrelu.backend;

import io.jtrelu.tensor.Shape;
import java.util.Arrays;

/**
 * The sizes of a two-dimensional convolution (cross-correlation). Kernels, oracle, tests and
 * benchmarks all read this one value.
 *
 * <p>src is NHWC [n, h, w, ic]; weights are KRSC [oc, kh, kw, ic/groups]; bias is [oc]; dst is NHWC
 * [n, oh, ow, oc] with oh = floor((h + padTop + padBottom - dilationH*(kh-1) - 1) / strideH) + 1,
 * ow likewise. Dilation 1 means none.
 *
 * @param n batch size, 0 or more
 * @param h source height
 * @param w source width
 * @param ic source channels, a multiple of groups
 * @param oc destination channels, a multiple of groups
 * @param kh kernel height
 * @param kw kernel width
 * @param strideH vertical stride
 * @param strideW horizontal stride
 * @param padTop rows of zeros above
 * @param padLeft columns of zeros on the left
 * @param padBottom rows of zeros below
 * @param padRight columns of zeros on the right
 * @param dilationH vertical distance between kernel taps, 1 for an ordinary convolution
 * @param dilationW horizontal distance between kernel taps
 * @param groups number of groups that channels are split into
 */
public record Conv2dDescriptor(
    int n,
    int h,
    int w,
    int ic,
    int oc,
    int kh,
    int kw,
    int strideH,
    int strideW,
    int padTop,
    int padLeft,
    int padBottom,
    int padRight,
    int dilationH,
    int dilationW,
    int groups) {

  /**
   * @throws IllegalArgumentException if a size is out of range, channels do not divide into groups,
   *     the kernel does not fit into the padded source, or an extent, a number of elements or that
   *     of multiply-adds is too large to be counted
   */
  public Conv2dDescriptor {
    check(n >= 0, "batch size must be 0 or more, got %d", n);
    check(h > 0 && w > 0, "source must be at least 1x1, got %dx%d", h, w);
    check(ic > 0 && oc > 0, "channels must be positive, got %d in and %d out", ic, oc);
    check(kh > 0 && kw > 0, "kernel must be at least 1x1, got %dx%d", kh, kw);
    check(strideH > 0 && strideW > 0, "stride must be positive, got %dx%d", strideH, strideW);
    check(
        padTop >= 0 && padLeft >= 0 && padBottom >= 0 && padRight >= 0,
        "padding must be 0 or more, got top %d left %d bottom %d right %d",
        padTop,
        padLeft,
        padBottom,
        padRight);
    check(
        dilationH > 0 && dilationW > 0,
        "dilation must be 1 or more, got %dx%d",
        dilationH,
        dilationW);
    check(
        groups > 0 && ic % groups == 0 && oc % groups == 0,
        "channels must divide into groups, got %d in and %d out in %d groups",
        ic,
        oc,
        groups);
    long paddedH = (long) h + padTop + padBottom;
    long paddedW = (long) w + padLeft + padRight;
    check(
        paddedH <= Integer.MAX_VALUE && paddedW <= Integer.MAX_VALUE,
        "the padded source of %dx%d is larger than 2^31 - 1 either way",
        paddedH,
        paddedW);
    check(
        (long) dilationH * (kh - 1) < paddedH && (long) dilationW * (kw - 1) < paddedW,
        "a %dx%d kernel with dilation %dx%d does not fit into a padded %dx%d source",
        kh,
        kw,
        dilationH,
        dilationW,
        paddedH,
        paddedW);
    int oh = (int) ((paddedH - (long) dilationH * (kh - 1) - 1) / strideH + 1);
    int ow = (int) ((paddedW - (long) dilationW * (kw - 1) - 1) / strideW + 1);
    checkCountable("source", n, h, w, ic);
    checkCountable("weights", oc, kh, kw, ic / groups);
    checkCountable("destination", n, oh, ow, oc);
    checkCountable("multiply-adds", n, oh, ow, oc, kh, kw, ic / groups);
  }

  /** In bytes of the widest type, so that no size that is computed from these can overflow. */
  private static void checkCountable(String what, int... extents) {
    long product = Float.BYTES;
    for (int extent : extents) {
      check(
          extent <= 1 || product <= Long.MAX_VALUE / extent,
          "%s of %s: more than can be counted in 63 bits",
          what,
          Arrays.toString(extents));
      product *= Math.max(extent, 1);
    }
  }

  @SuppressWarnings("AnnotateFormatMethod")
  private static void check(boolean condition, String format, Object... arguments) {
    if (!condition) {
      throw new IllegalArgumentException("convolution: " + String.format(format, arguments));
    }
  }

  /** A square, ungrouped, undilated convolution with the same stride and padding on all sides. */
  public static Conv2dDescriptor of(
      int n, int h, int w, int ic, int oc, int kernel, int stride, int padding) {
    return new Conv2dDescriptor(
        n, h, w, ic, oc, kernel, kernel, stride, stride, padding, padding, padding, padding, 1, 1,
        1);
  }

  /**
   * SAME padding as TensorFlow defines it: output extent ceil(extent / stride), total padding as
   * needed, the odd row or column going to the bottom or right.
   *
   * @throws IllegalArgumentException as the constructor
   */
  public static Conv2dDescriptor same(int n, int h, int w, int ic, int oc, int kernel, int stride) {
    int padH = samePadding(h, kernel, stride);
    int padW = samePadding(w, kernel, stride);
    return new Conv2dDescriptor(
        n,
        h,
        w,
        ic,
        oc,
        kernel,
        kernel,
        stride,
        stride,
        padH / 2,
        padW / 2,
        padH - padH / 2,
        padW - padW / 2,
        1,
        1,
        1);
  }

  private static int samePadding(int extent, int kernel, int stride) {
    check(stride > 0, "stride must be positive, got %d", stride);
    long outputs = Math.ceilDiv(extent, stride);
    long padding = Math.max((outputs - 1) * stride + kernel - extent, 0);
    check(
        padding <= Integer.MAX_VALUE,
        "a kernel of %d and a stride of %d need padding of %d",
        kernel,
        stride,
        padding);
    return (int) padding;
  }

  /** A fully connected layer: a 1x1 convolution of 1x1 images. */
  public static Conv2dDescriptor linear(int n, int inputs, int outputs) {
    return of(n, 1, 1, inputs, outputs, 1, 1, 0);
  }

  /** Whether it is a fully connected layer: a 1x1 convolution of 1x1 images, all with all. */
  public boolean isLinear() {
    return equals(linear(n, ic, oc));
  }

  /** The same convolution for another batch size. */
  public Conv2dDescriptor withBatch(int batch) {
    return new Conv2dDescriptor(
        batch, h, w, ic, oc, kh, kw, strideH, strideW, padTop, padLeft, padBottom, padRight,
        dilationH, dilationW, groups);
  }

  /** Output height. */
  public int oh() {
    return (h + padTop + padBottom - dilationH * (kh - 1) - 1) / strideH + 1;
  }

  /** Output width. */
  public int ow() {
    return (w + padLeft + padRight - dilationW * (kw - 1) - 1) / strideW + 1;
  }

  /** Shape of src and diff_src, NHWC. */
  public Shape src() {
    return Shape.of(n, h, w, ic);
  }

  /** Shape of weights and diff_weights, KRSC. */
  public Shape weights() {
    return Shape.of(oc, kh, kw, ic / groups);
  }

  /** Shape of bias and diff_bias. */
  public Shape bias() {
    return Shape.of(oc);
  }

  /** Shape of dst and diff_dst, NHWC. */
  public Shape dst() {
    return Shape.of(n, oh(), ow(), oc);
  }

  /**
   * Multiply-adds of one pass (forward, data gradient and weight gradient each), padding included.
   */
  public long multiplyAdds() {
    return dst().elements() * kh * kw * (ic / groups);
  }

  /** A short name for messages: {@code n8 28x28x32 -> 28x28x64 k3x3 s1x1 p1,1,1,1 d1x1 g1}. */
  @Override
  public String toString() {
    return String.format(
        "n%d %dx%dx%d -> %dx%dx%d k%dx%d s%dx%d p%d,%d,%d,%d d%dx%d g%d",
        n, h, w, ic, oh(), ow(), oc, kh, kw, strideH, strideW, padTop, padLeft, padBottom, padRight,
        dilationH, dilationW, groups);
  }
}
