#!/usr/bin/env bash
# Deeplearning4j 1.0.0-M2.1: weightDecay(d) on the builder of the whole network decays weights twice, W -= 2 * lr * d * W in a
# step; on the builder of a layer once, as documented.
#
# Below: an output layer whose input is zero, so that its weights have no gradient; SGD with lr = 0.1, d = 0.1; one step.
#
# Seen with OpenJDK 17.0.15 and 25.0.3 on Linux: weights are multiplied by: on the network 0.98, on the layer 0.99
# Ends with 1 if that changes. Needs mvn, a JDK and 150 MB of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >pom.xml <<'POM'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.deeplearning4j</groupId><artifactId>deeplearning4j-nn</artifactId><version>1.0.0-M2.1</version></dependency>
    <dependency><groupId>org.nd4j</groupId><artifactId>nd4j-native</artifactId><version>1.0.0-M2.1</version></dependency>
    <dependency><groupId>org.nd4j</groupId><artifactId>nd4j-native</artifactId><version>1.0.0-M2.1</version>
      <classifier>linux-x86_64</classifier></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>2.0.17</version></dependency>
  </dependencies>
</project>
POM
cat >Decay.java <<'JAVA'
import java.util.Locale;
import org.deeplearning4j.nn.conf.NeuralNetConfiguration;
import org.deeplearning4j.nn.conf.layers.OutputLayer;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.nd4j.linalg.activations.Activation;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;
import org.nd4j.linalg.learning.config.Sgd;
import org.nd4j.linalg.lossfunctions.LossFunctions.LossFunction;

public class Decay {
  public static void main(String[] arguments) {
    String seen =
        String.format(Locale.ROOT, "on the network %.2f, on the layer %.2f", factor(true), factor(false));
    System.out.println("weights are multiplied by: " + seen);
    System.exit(seen.equals("on the network 0.98, on the layer 0.99") ? 0 : 1);
  }

  private static double factor(boolean onNetwork) {
    NeuralNetConfiguration.Builder network = new NeuralNetConfiguration.Builder().seed(1).updater(new Sgd(0.1));
    OutputLayer.Builder layer =
        new OutputLayer.Builder(LossFunction.MSE).activation(Activation.IDENTITY).nIn(3).nOut(2);
    if (onNetwork) {
      network.weightDecay(0.1);
    } else {
      layer.weightDecay(0.1);
    }
    MultiLayerNetwork model = new MultiLayerNetwork(network.list().layer(layer.build()).build());
    model.init();
    double before = model.getParam("0_W").getDouble(0);
    INDArray nothing = Nd4j.zeros(1, 3);
    model.fit(nothing, Nd4j.ones(1, 2));
    return model.getParam("0_W").getDouble(0) / before;
  }
}
JAVA
mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath
path=$(cat classpath)
java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}
"$java_home/bin/javac" -cp "$path" Decay.java
"$java_home/bin/java" -cp "$path:." Decay 2>/dev/null
