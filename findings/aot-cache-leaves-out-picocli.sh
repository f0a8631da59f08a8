#!/usr/bin/env bash
# JDK 25 with picocli 4.7.7: the ahead-of-time cache (JEP 514, 515) of a program leaves out every class of picocli that the
# program uses, as "Old class has been linked": picocli's class files are of version 49 (Java 5), and the cache takes what is of
# version 50 or newer. What starts a command line slowest is loaded as slowly as before; the cache says so in warnings only,
# and reports success.
#
# Below: a program of one option, run once to make the cache, then with it.
#
# Seen with OpenJDK 25.0.3 on Linux: picocli's classes of version 49; taken from the cache: picocli 0, the program's own 1
# Ends with 1 if that changes. Needs a JDK 25 in JAVA25_HOME or under /usr/lib/jvm, mvn, and 2 MB of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

jdk=${JAVA25_HOME:-}
for release in /usr/lib/jvm/*/release; do
  [ -n "$jdk" ] || ! grep -q '^JAVA_VERSION="25' "$release" || jdk=$(dirname "$release")
done
[ -x "$jdk/bin/javac" ] || { echo "no JDK 25 found" >&2; exit 2; }

mvn -q -B dependency:copy -Dartifact=info.picocli:picocli:4.7.7 -DoutputDirectory=.
cat >Hello.java <<'JAVA'
import picocli.CommandLine;
import picocli.CommandLine.Option;

public class Hello implements Runnable {
  @Option(names = "--name") String name = "you";

  public void run() {
    System.out.println("hello " + name);
  }

  public static void main(String[] arguments) {
    System.exit(new CommandLine(new Hello()).execute(arguments));
  }
}
JAVA
"$jdk/bin/javac" -proc:none -cp picocli-4.7.7.jar Hello.java
"$jdk/bin/jar" -cf hello.jar Hello*.class
version=$("$jdk/bin/javap" -v -cp picocli-4.7.7.jar picocli.CommandLine | sed -n 's/.*major version: //p')
"$jdk/bin/java" -XX:AOTCacheOutput=hello.aot -cp hello.jar:picocli-4.7.7.jar Hello >make.log 2>&1
"$jdk/bin/java" -XX:AOTCache=hello.aot -Xlog:class+load -cp hello.jar:picocli-4.7.7.jar Hello >run.log
picocli=$(grep 'shared objects file' run.log | grep -c ' picocli\.' || true)
own=$(grep 'shared objects file' run.log | grep -c ' Hello ' || true)
seen="picocli's classes of version $version; taken from the cache: picocli $picocli, the program's own $own"
echo "$seen"
[ "$seen" = "picocli's classes of version 49; taken from the cache: picocli 0, the program's own 1" ]
