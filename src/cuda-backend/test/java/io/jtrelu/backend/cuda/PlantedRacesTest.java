package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Backend;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Stream;
import io.jtrelu.backend.WeightedSum;
import io.jtrelu.data.Datasets;
import io.jtrelu.data.ImageDataset;
import io.jtrelu.data.Split;
import io.jtrelu.nn.Networks;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import io.jtrelu.train.NonFiniteException;
import io.jtrelu.train.Run;
import io.jtrelu.train.ShapingConfig;
import io.jtrelu.train.Trainer;
import io.jtrelu.train.TrainingConfig;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.List;
import java.util.Locale;
import java.util.function.UnaryOperator;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The waits that a program needs, left out one at a time: the emulated device must name what is no
 * longer in order, both sides of it and the place, whether or not anything goes wrong in the order
 * that it works in (at once, late, by a seed). With the waits in place it must find nothing.
 */
class PlantedRacesTest {
  private static final int LENGTH = 1000;

  @AfterEach
  void forget() {
    if (DriverLibrary.isLoaded()) {
      EmulatorControl.clear();
    }
  }

  private static Backend open(long order) {
    Backend backend = EmulatedSubject.openPlain();
    EmulatorControl.clear();
    EmulatorControl.delay(order);
    return backend;
  }

  private static Tensor vector(Backend backend) {
    return backend.allocate(Shape.of(LENGTH), DataType.F32, Layout.ROW_MAJOR);
  }

  private static Tensor pinned(Backend backend) {
    return backend.allocateOnHost(Shape.of(LENGTH), DataType.F32, Layout.ROW_MAJOR);
  }

  private static String hex(long address) {
    return "0x" + Long.toHexString(address);
  }

  /** Requires a finding; * stands for anything within its line. */
  private static void requireFound(String... alternatives) {
    String report = EmulatorControl.report();
    for (String alternative : alternatives) {
      String[] parts = alternative.split("\\*", -1);
      StringBuilder pattern = new StringBuilder();
      for (String part : parts) {
        pattern.append(pattern.isEmpty() ? "" : ".*").append(Pattern.quote(part));
      }
      if (Pattern.compile(pattern.toString()).matcher(report).find()) {
        return;
      }
    }
    throw new AssertionError("not found: " + String.join(" or ", alternatives) + "\n" + report);
  }

  private static void requireNothing() {
    assertEquals("", EmulatorControl.report());
  }

  /** Steps of a small network, given ahead of their figures, as they are or with one wait less. */
  private static void train(Backend backend) throws IOException {
    byte[][] pixels = new byte[12][6 * 6];
    int[] labels = new int[12];
    for (int i = 0; i < labels.length; i++) {
      labels[i] = i % 2;
      pixels[i][i] = (byte) (100 * labels[i]);
    }
    ImageDataset images =
        ImageDataset.of("dots", Split.TRAIN, 6, 6, 1, List.of("no", "yes"), pixels, labels);
    Datasets data = new Datasets(images, images, List.of());
    TrainingConfig config =
        TrainingConfig.builder().epochs(9).batch(4).learningRate(0.01).seed(7).build();
    var network = new Networks.Options("plain:13:4", Networks.Block.V2, 0, 0);
    Run run = Run.of(network, ShapingConfig.DEFAULT, config, data, "dots");
    try (Trainer trainer = Trainer.start(run, data, backend, null)) {
      for (int step = 0; step < 5; step++) {
        trainer.advance();
      }
      trainer.settle();
    } catch (NonFiniteException | IllegalStateException consequence) {
      assertTrue(EmulatorControl.errors() > 0, consequence.getMessage());
    }
  }

  /** A backend whose events do nothing in one of their methods. */
  private static Backend without(String method, Backend backend) {
    return replace(
        Backend.class,
        backend,
        "newEvent",
        event -> replace(Event.class, (Event) event, method, null));
  }

  /** Something with a method whose result is replaced, or that is not called. */
  private static <T> T replace(
      Class<T> type, T original, String method, @Nullable UnaryOperator<Object> result) {
    return type.cast(
        Proxy.newProxyInstance(
            type.getClassLoader(),
            new Class<?>[] {type},
            (proxy, called, arguments) -> {
              boolean replaced = called.getName().equals(method);
              if (replaced && result == null) {
                return null;
              }
              try {
                Object value = called.invoke(original, arguments);
                return replaced && result != null ? result.apply(value) : value;
              } catch (InvocationTargetException thrown) {
                throw thrown.getCause();
              }
            }));
  }

  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void stepsWithAllTheirWaits(long order) throws IOException {
    try (Backend backend = open(order)) {
      train(backend);
      requireNothing();
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void stepsWithoutTheWaitForTheUpload(long order) throws IOException {
    try (Backend backend = open(order)) {
      train(without("await", backend));
      requireFound(
          "stream_race in *, PTX line * (*), block (*), global address 0x*: reads what"
              + " cuMemcpyHtoDAsync of * bytes from 0x* to 0x* on stream * wrote",
          "stream_race, global address 0x*: cuMemcpyHtoDAsync of * bytes from 0x* to 0x* on stream *"
              + " writes what *, block (*) on stream * read");
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void stepsWithoutTheWaitForThePassBefore(long order) throws IOException {
    try (Backend backend = open(order)) {
      train(without("synchronize", backend));
      requireFound(
          "host_race, pinned address 0x*: the host reads memory that cuMemcpyDtoHAsync of * bytes"
              + " from 0x* to 0x* writes",
          "host_race, pinned address 0x*: the host writes memory that cuMemcpyHtoDAsync of * bytes"
              + " from 0x* to 0x* reads");
    }
  }

  /** Work forks onto a second stream, and is joined or not; given anew or recorded. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void aMissingJoin(long order) {
    for (boolean joined : new boolean[] {true, false}) {
      for (boolean recorded : new boolean[] {true, false}) {
        try (Backend backend = open(order);
            Stream main = backend.newStream();
            Stream side = backend.newStream();
            Event fork = backend.newEvent();
            Event join = backend.newEvent();
            Tensor x = vector(backend);
            Tensor y = vector(backend);
            WeightedSum sum = backend.weightedSum(LENGTH, DataType.F32, 1, 1, Rectifier.IDENTITY)) {
          Runnable onMain = () -> sum.forward(main, x, y, x);
          Recording recording = backend.record(main, onMain);
          backend.fill(main, x, 1);
          fork.record(main);
          fork.await(side);
          sum.forward(side, y, y, y);
          join.record(side);
          if (joined) {
            join.await(main);
          }
          if (recorded) {
            recording.replay(main);
          } else {
            onMain.run();
          }
          main.synchronize();
          side.synchronize();
          if (joined) {
            requireNothing();
          } else {
            requireFound(
                "stream_race in weighted_sum_forward_f32, PTX line * (*), block (0,0,0) thread *, global"
                    + " address 0x*: reads what weighted_sum_forward_f32, block (0,0,0) on stream * wrote",
                "stream_race in weighted_sum_forward_f32, PTX line * (*), block (0,0,0) thread *, global"
                    + " address 0x*: writes what weighted_sum_forward_f32, block (0,0,0) on stream * read");
          }
          recording.close();
        }
      }
    }
  }

  /** A pool that hands a block out again without waiting for the work that uses it. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void aBlockGivenBackTooEarly(long order) {
    for (boolean waits : new boolean[] {true, false}) {
      try (Backend backend = open(order);
          CudaContext context = new CudaContext(((CudaBackend) backend).cudaDevice())) {
        CudaBackend cuda = (CudaBackend) backend;
        Runnable quiesce = waits ? cuda::quiesce : () -> {};
        try (MemoryPool pool = new MemoryPool(context, quiesce);
            CudaStream after = (CudaStream) backend.newStream();
            CudaStream user = (CudaStream) backend.newStream()) {
          MemoryPool.Block block = pool.allocate(4 * LENGTH);
          user.set(block.address(), 1, 4, LENGTH);
          pool.free(block);
          MemoryPool.Block again = pool.allocate(4 * LENGTH);
          assertEquals(block, again);
          after.set(again.address(), 2, 4, LENGTH);
          user.synchronize();
          after.synchronize();
          String fill = "cuMemsetD32Async of " + LENGTH + " elements at " + hex(block.address());
          if (waits) {
            requireNothing();
          } else {
            requireFound(
                String.format(
                    Locale.ROOT,
                    "stream_race, global address %s, * bytes: %s on stream * writes what %s on"
                        + " stream * wrote",
                    hex(block.address()),
                    fill,
                    fill));
          }
          pool.free(again);
        }
      }
    }
  }

  /** The host fills a pinned buffer again while the device may not have read it. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void aHostThatWritesUnderACopy(long order) {
    for (boolean waits : new boolean[] {true, false}) {
      try (Backend backend = open(order);
          Stream stream = backend.newStream();
          Tensor host = pinned(backend);
          Tensor beside = pinned(backend);
          Tensor x = vector(backend)) {
        float[] values = new float[LENGTH];
        host.set(values);
        backend.copy(stream, host, x);
        beside.set(values);
        if (waits) {
          stream.synchronize();
        }
        host.set(values);
        if (waits) {
          requireNothing();
        } else {
          requireFound(
              "host_race, pinned address 0x*: the host writes memory that cuMemcpyHtoDAsync of "
                  + 4 * LENGTH
                  + " bytes from "
                  + hex(host.segment().address())
                  + " to 0x* reads, and has not waited for that");
        }
        stream.synchronize();
      }
    }
  }

  /** The host looks at what a copy brings before it is there. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, 2})
  void aHostThatReadsUnderACopy(long order) {
    for (boolean waits : new boolean[] {true, false}) {
      try (Backend backend = open(order);
          Stream stream = backend.newStream();
          Tensor host = pinned(backend);
          Tensor x = vector(backend)) {
        backend.fill(stream, x, 3);
        backend.copy(stream, x, host);
        if (waits) {
          stream.synchronize();
          assertEquals(3, host.get(0));
          requireNothing();
        } else {
          host.get(0);
          requireFound(
              "host_race, pinned address 0x*: the host reads memory that cuMemcpyDtoHAsync of "
                  + 4 * LENGTH
                  + " bytes from 0x* to "
                  + hex(host.segment().address())
                  + " writes");
        }
        stream.synchronize();
      }
    }
  }

  /** The JVM lives on faults of memory as well: at null, and at the end of a stack. */
  @Test
  void theFaultsOfTheJvmAreItsOwn() {
    try (Backend backend = open(1);
        Stream stream = backend.newStream();
        Tensor host = pinned(backend);
        Tensor x = vector(backend)) {
      backend.copy(stream, host, x);
      int[][] rows = {new int[4], null};
      int nulls = 0;
      for (int i = 0; i < 200_000; i++) { // compiled on the way
        try {
          nulls += lengthOf(rows[i < 199_000 ? 0 : 1]) - 4;
        } catch (NullPointerException expected) {
          nulls++;
        }
      }
      assertEquals(1000, nulls);
      assertThrows(StackOverflowError.class, () -> depth(0));
      requireNothing();
      host.set(new float[LENGTH]);
      requireFound("host_race");
      stream.synchronize();
    }
  }

  private static int lengthOf(int[] row) {
    return row.length;
  }

  private static int depth(int now) {
    return now < 0 ? 0 : depth(now + 1) + 1;
  }
}
