package io.jtrelu.djl.trunk;

import ai.djl.modality.Classifications;
import ai.djl.modality.cv.Image;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.translate.Batchifier;
import ai.djl.translate.Translator;
import ai.djl.translate.TranslatorContext;
import io.jtrelu.data.ImageDecoder;
import io.jtrelu.train.Model;
import java.awt.image.BufferedImage;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** Pictures to pixels of the model's size and colour; probabilities to classes. */
final class JtreluTranslator implements Translator<Image, Classifications> {
  private final Model model;
  private final ImageDecoder decoder;
  private final int topK;

  JtreluTranslator(Model model, int topK) {
    this.model = model;
    this.decoder = ImageDecoder.of(model.height(), model.width(), model.channels());
    this.topK = topK;
  }

  /** So that a list of pictures is one batch; see {@link #batchProcessInput}. */
  @Override
  public Batchifier getBatchifier() {
    return Batchifier.STACK;
  }

  @Override
  public NDList processInput(TranslatorContext ctx, Image input) {
    return array(ctx, pixels(input), image());
  }

  @Override
  public NDList batchProcessInput(TranslatorContext ctx, List<Image> inputs) {
    ByteBuffer all = ByteBuffer.allocate(inputs.size() * Math.toIntExact(image().size()));
    inputs.forEach(input -> all.put(pixels(input)));
    return array(ctx, all.array(), new Shape(inputs.size()).addAll(image()));
  }

  private Shape image() {
    return new Shape(model.height(), model.width(), model.channels());
  }

  private byte[] pixels(Image input) {
    if (input.getWrappedImage() instanceof BufferedImage picture) {
      return decoder.decode(picture);
    }
    throw new IllegalArgumentException(
        "pictures must be of Java's BufferedImage, as DJL's BufferedImageFactory makes them, not "
            + input.getWrappedImage().getClass().getName()
            + ": ImageFactory.setImageFactory(new BufferedImageFactory())");
  }

  private static NDList array(TranslatorContext ctx, byte[] pixels, Shape shape) {
    return new NDList(ctx.getNDManager().create(ByteBuffer.wrap(pixels), shape, DataType.UINT8));
  }

  @Override
  public Classifications processOutput(TranslatorContext ctx, NDList list) {
    return new Classifications(model.classes(), list.singletonOrThrow(), topK);
  }

  @Override
  public List<Classifications> batchProcessOutput(TranslatorContext ctx, NDList list) {
    float[] all = list.singletonOrThrow().toFloatArray();
    int classes = model.classes().size();
    List<Classifications> results = new ArrayList<>();
    for (int at = 0; at < all.length; at += classes) {
      List<Double> probabilities = new ArrayList<>();
      for (int i = 0; i < classes; i++) {
        probabilities.add((double) all[at + i]);
      }
      Classifications result = new Classifications(model.classes(), probabilities);
      result.setTopK(topK);
      results.add(result);
    }
    return results;
  }
}
