#!/usr/bin/env bash
# DJL 0.36.0 with PyTorch 2.7.1: an optimiser's optClipGrad(c) clips elements of a gradient above c and leaves those below -c
# as they are, so that one large negative element passes whole.
#
# Below: SGD, rate 1, weights 0, clipped at 1, gradients 5, 0.5, -0.5, -5. Clipped as its name says, the weights would
# become -1, -0.5, 0.5, 1.
#
# Seen with OpenJDK 17.0.15 and 25.0.3 on Linux: weights -1.0 -0.5 0.5 5.0
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
cat >Clip.java <<'JAVA'
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.training.optimizer.Optimizer;
import ai.djl.training.tracker.Tracker;

public class Clip {
  public static void main(String[] arguments) {
    try (NDManager manager = NDManager.newBaseManager()) {
      NDArray weights = manager.zeros(new Shape(4));
      NDArray gradient = manager.create(new float[] {5, 0.5f, -0.5f, -5});
      Optimizer sgd = Optimizer.sgd().setLearningRateTracker(Tracker.fixed(1)).optClipGrad(1).build();
      sgd.update("weights", weights, gradient);
      StringBuilder seen = new StringBuilder("weights");
      for (float value : weights.toFloatArray()) {
        seen.append(' ').append(value);
      }
      System.out.println(seen);
      System.exit(seen.toString().equals("weights -1.0 -0.5 0.5 5.0") ? 0 : 1);
    }
  }
}
JAVA
mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath
path=$(cat classpath)
java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}
"$java_home/bin/javac" -cp "$path" Clip.java
"$java_home/bin/java" -Doffline=true -DOPT_OUT_TRACKING=true -cp "$path:." Clip 2>/dev/null
