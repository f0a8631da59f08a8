package io.jtrelu.dl4j.layer;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import org.deeplearning4j.nn.conf.CNN2DFormat;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.nd4j.linalg.api.ndarray.INDArray;

/** Reads a network in a process that knows nothing of it, and writes what it computes. */
final class ReadNetwork {
  private ReadNetwork() {}

  public static void main(String[] arguments) throws IOException {
    MultiLayerNetwork network = MultiLayerNetwork.load(new File(arguments[0]), false);
    INDArray output = network.output(Nets.images(CNN2DFormat.NHWC, 5, 3, 21));
    Files.write(Path.of(arguments[1]), bytes(output));
  }

  static byte[] bytes(INDArray array) {
    float[] values = array.dup('c').reshape(-1).toFloatVector();
    ByteBuffer bytes = ByteBuffer.allocate(values.length * Float.BYTES);
    bytes.asFloatBuffer().put(values);
    return bytes.array();
  }
}
