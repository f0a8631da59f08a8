#!/usr/bin/env bash
# me.tongfei:progressbar 0.10.2 (with org.jline:jline-terminal 3.29.0): while a bar with the default consumer is shown on
# a terminal, Ctrl-C ends the JVM without running its shutdown hooks (status 130), so a program that saves its state in
# one loses it. The consumer opens a JLine terminal to learn the width, and that takes over the handling of SIGINT.
# Without a bar, or with a consumer that is given its width, hooks run on Ctrl-C as they always do.
#
# Seen with OpenJDK 17.0.15 on Linux: none: hook ran, default: hook did not run, given: hook ran
# Ends with 1 if that changes. Needs mvn, a JDK and script(1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >pom.xml <<'POM'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>me.tongfei</groupId><artifactId>progressbar</artifactId><version>0.10.2</version></dependency>
  </dependencies>
</project>
POM
cat >Bar.java <<'JAVA'
import me.tongfei.progressbar.*;

public class Bar {
  public static void main(String[] arguments) throws Exception {
    Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook ran")));
    ProgressBarBuilder builder = new ProgressBarBuilder().setTaskName("task").setInitialMax(10);
    if (arguments[0].equals("given")) {
      builder.setConsumer(new ConsoleProgressBarConsumer(System.err, 60));
    }
    if (arguments[0].equals("none")) {
      press();
    } else {
      try (ProgressBar bar = builder.build()) {
        for (int i = 0; i < 5; i++) {
          bar.step();
          Thread.sleep(60);
        }
        press();
      }
    }
  }

  private static void press() throws Exception {
    System.out.println("press");
    Thread.sleep(20_000);
  }
}
JAVA
mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath
path=$(cat classpath)
java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}
"$java_home/bin/javac" -cp "$path" Bar.java

# A pseudo-terminal; Ctrl-C is typed when the program says so.
try() {
  touch "screen-$1"
  {
    tries=0
    until grep -q press "screen-$1" || [ $tries -gt 200 ]; do
      sleep 0.1
      tries=$((tries + 1))
    done
    sleep 0.5
    printf '\003'
    sleep 3
  } | script -qefc "'$java_home/bin/java' -cp '$path:.' Bar $1" /dev/null >"screen-$1" 2>&1 || true
  if grep -q 'hook ran' "screen-$1"; then echo "hook ran"; else echo "hook did not run"; fi
}

seen="none: $(try none), default: $(try default), given: $(try given)"
echo "$seen"
[ "$seen" = "none: hook ran, default: hook did not run, given: hook ran" ]
