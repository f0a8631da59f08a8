#!/usr/bin/env bash
# DJL 0.36.0 with PyTorch 2.7.1: the gradient of array.mul(number) may be garbage, silently. The number goes to PyTorch as
# an array over a direct buffer of Java's, which autograd keeps for the backward pass and Java does not: once the garbage
# collector has run between forward and backward pass, the gradient is multiplied by whatever lies there then. With the
# number as an array of the engine's own, array.mul(manager.full(new Shape(), number)), gradients are right. So it is with
# div and pow; losses of DJL with a weight other than 1 multiply by a number too.
#
# Below: y = 3 x, so dy/dx = 3; thirty gradients, with a garbage collection and some small buffers between the passes.
#
# Seen with OpenJDK 17.0.15 and 25.0.3 on Linux: wrong gradients of 30: by number 30, by array 0 (with less garbage 8 to 17,
# among them infinity, -2e38 and 0)
# Ends with 1 if that changes. Needs mvn, a JDK from 17 on, and 120 MB of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >pom.xml <<'POM'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>ai.djl</groupId><artifactId>api</artifactId><version>0.36.0</version></dependency>
    <dependency><groupId>ai.djl.pytorch</groupId><artifactId>pytorch-engine</artifactId><version>0.36.0</version></dependency>
    <dependency><groupId>ai.djl.pytorch</groupId><artifactId>pytorch-jni</artifactId><version>2.7.1-0.36.0</version></dependency>
    <dependency><groupId>ai.djl.pytorch</groupId><artifactId>pytorch-native-cpu</artifactId><version>2.7.1</version>
      <classifier>linux-x86_64</classifier></dependency>
  </dependencies>
</project>
POM
cat >Gradient.java <<'JAVA'
import ai.djl.engine.Engine;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.training.GradientCollector;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.function.UnaryOperator;

public class Gradient {
  private static final int TRIALS = 30;

  public static void main(String[] arguments) throws Exception {
    int byNumber = wrong(x -> x.mul(3f));
    int byArray = wrong(x -> x.mul(x.getManager().full(new Shape(), 3f)));
    System.out.println("wrong gradients of " + TRIALS + ": by number " + byNumber + ", by array " + byArray);
    System.exit(byNumber > 0 && byArray == 0 ? 0 : 1);
  }

  private static int wrong(UnaryOperator<NDArray> triple) throws Exception {
    int wrong = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
      try (NDManager manager = NDManager.newBaseManager();
          GradientCollector collector = Engine.getInstance().newGradientCollector()) {
        NDArray x = manager.ones(new Shape(4));
        x.setRequiresGradient(true);
        NDArray y = triple.apply(x).sum();
        System.gc(); // as may happen at any time
        Thread.sleep(20);
        List<ByteBuffer> others = new ArrayList<>();
        for (int i = 0; i < 2000; i++) {
          others.add(ByteBuffer.allocateDirect(4 + i % 16));
        }
        collector.backward(y);
        for (float value : x.getGradient().toFloatArray()) {
          if (!(Math.abs(value - 3) < 1e-6)) {
            wrong++;
            break;
          }
        }
      }
    }
    return wrong;
  }
}
JAVA
mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath
path=$(cat classpath)
java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}
"$java_home/bin/javac" -cp "$path" Gradient.java
"$java_home/bin/java" -Doffline=true -DOPT_OUT_TRACKING=true -cp "$path:." Gradient 2>/dev/null
