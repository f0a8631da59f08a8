/**
 * Networks to ONNX files and from them.
 *
 * <p>{@link io.jtrelu.onnx.OnnxExporter} writes a network or a trained model; {@link
 * io.jtrelu.onnx.OnnxImporter} reads what it wrote, and plain convolutional networks of others. The
 * classes of {@code io.jtrelu.onnx.schema} are generated from {@code onnx.proto} and no part of the
 * API.
 */
@NullMarked
package io.jtrelu.onnx;

import org.jspecify.annotations.NullMarked;
