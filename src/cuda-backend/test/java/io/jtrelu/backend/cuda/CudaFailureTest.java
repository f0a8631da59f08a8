package io.jtrelu.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.jtrelu.backend.Availability;
import io.jtrelu.backend.Backend;
import io.jtrelu.backend.BackendUnavailableException;
import io.jtrelu.backend.Event;
import io.jtrelu.backend.OperandException;
import io.jtrelu.backend.OutOfMemoryException;
import io.jtrelu.backend.Recording;
import io.jtrelu.backend.Rectifier;
import io.jtrelu.backend.Rectify;
import io.jtrelu.backend.Stream;
import io.jtrelu.tensor.DataType;
import io.jtrelu.tensor.Layout;
import io.jtrelu.tensor.Shape;
import io.jtrelu.tensor.Tensor;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What goes wrong with a device, provoked on the emulated one. */
class CudaFailureTest {
  private static final long MIB = 1L << 20;
  private static final int LAUNCH_FAILED = 719;
  private static final int ILLEGAL_ADDRESS = 700;
  private static final int DEVICE_UNAVAILABLE = 46;

  private Backend backend;

  @BeforeEach
  void open() {
    backend = EmulatedSubject.openPlain();
    EmulatorControl.clear();
  }

  @AfterEach
  void close() {
    EmulatorControl.loseDevice(0);
    EmulatorControl.memory(4L << 30);
    EmulatorControl.driverVersion(13000);
    EmulatorControl.capability(8, 0);
    EmulatorControl.clear();
    backend.close();
    assertEquals(0, EmulatorControl.liveAllocations(), "device memory that nobody freed");
  }

  private Tensor allocate(long bytes) {
    return backend.allocate(Shape.of((int) (bytes / 4)), DataType.F32, Layout.ROW_MAJOR);
  }

  @Test
  void memoryIsCachedAndGivenBackWhenTheDeviceIsFull() {
    EmulatorControl.memory(64 * MIB);
    Tensor first = allocate(40 * MIB);
    first.close();
    assertEquals(0, backend.memory().inUse());
    assertEquals(40 * MIB, backend.memory().cached());
    try (Tensor again = allocate(40 * MIB)) { // from the cache
      assertEquals(0, backend.memory().cached());
      assertEquals(40 * MIB, backend.memory().inUse());
      assertEquals(again.bytes(), 40 * MIB);
    }
    try (Tensor larger = allocate(60 * MIB)) { // fits only without the cache
      assertEquals(0, backend.memory().cached());
      assertEquals(60 * MIB, backend.memory().inUse());
      assertEquals(larger.bytes(), 60 * MIB);
      OutOfMemoryException full =
          assertThrows(OutOfMemoryException.class, () -> allocate(32 * MIB).close());
      for (String part :
          new String[] {"" + 32 * MIB, 60 * MIB + " in use", "0 cached", "smaller batch"}) {
        assertTrue(full.getMessage().contains(part), part + " not in: " + full.getMessage());
      }
    }
    allocate(8 * MIB).close(); // and the process goes on
    assertEquals(6, backend.memory().allocations() + 2);
  }

  @Test
  void anAllocationThatFailsOnceIsTriedAgain() {
    allocate(MIB).close();
    EmulatorControl.failAllocation(1);
    try (Tensor tensor = allocate(3 * MIB)) {
      assertEquals(3 * MIB, tensor.bytes());
      assertEquals(0, backend.memory().cached(), "the cache was released first");
    }
  }

  @Test
  void aFaultInAKernelIsReportedWithItsCause() {
    try (Stream stream = backend.newStream();
        Tensor x = allocate(4000);
        Rectify rectify = backend.rectify(1000, DataType.F32, Rectifier.tailored(0.5))) {
      for (int code : new int[] {ILLEGAL_ADDRESS, LAUNCH_FAILED}) {
        EmulatorControl.failLaunch(1, code);
        CudaException fault =
            assertThrows(
                CudaException.class,
                () -> {
                  rectify.forward(stream, x, x);
                  stream.synchronize();
                });
        assertEquals(code, fault.code());
        assertTrue(fault.isDeviceLost());
        assertTrue(fault.name().startsWith("CUDA_ERROR_"), fault.name());
        assertTrue(fault.call().startsWith("cu"), fault.call());
        assertTrue(fault.getMessage().contains("Restart"), fault.getMessage());
        // It stays with the context.
        assertEquals(code, assertThrows(CudaException.class, stream::synchronize).code());
        EmulatorControl.clear();
      }
      rectify.forward(stream, x, x);
      stream.synchronize();
    }
  }

  @Test
  void aLostDeviceIsReported() {
    try (Stream stream = backend.newStream()) {
      EmulatorControl.loseDevice(DEVICE_UNAVAILABLE);
      CudaException lost = assertThrows(CudaException.class, stream::synchronize);
      assertEquals("CUDA_ERROR_DEVICE_UNAVAILABLE", lost.name());
      assertThrows(CudaException.class, () -> allocate(5 * MIB).close());
      EmulatorControl.loseDevice(0);
      allocate(5 * MIB).close();
    }
  }

  @Test
  void streamsOfOthersAreRefused() {
    try (Backend other = EmulatedSubject.openPlain();
        Stream foreign = other.newStream();
        Tensor x = allocate(4000);
        Rectify rectify = backend.rectify(1000, DataType.F32, Rectifier.tailored(0.5))) {
      IllegalArgumentException refused =
          assertThrows(IllegalArgumentException.class, () -> rectify.forward(foreign, x, x));
      assertTrue(refused.getMessage().contains("emulated:0"), refused.getMessage());
    }
  }

  @Test
  void deviceMemoryIsNotHostMemory() {
    try (Tensor x = allocate(4000)) {
      IllegalStateException refused = assertThrows(IllegalStateException.class, x::toFloatArray);
      assertTrue(refused.getMessage().contains("Backend.copy"), refused.getMessage());
    }
  }

  @Test
  void hostTensorsAreNoOperands() {
    try (Stream stream = backend.newStream();
        Tensor host = Tensor.allocate(Shape.of(1000), DataType.F32, Layout.ROW_MAJOR);
        Tensor x = allocate(4000);
        Rectify rectify = backend.rectify(1000, DataType.F32, Rectifier.tailored(0.5))) {
      assertThrows(OperandException.class, () -> rectify.forward(stream, host, x));
      assertThrows(OperandException.class, () -> backend.fill(stream, host, 1));
    }
  }

  @Test
  void aDeviceThatIsNotThere() {
    BackendUnavailableException none =
        assertThrows(
            BackendUnavailableException.class, () -> new EmulatedCudaProvider().open(9).close());
    assertTrue(none.getMessage().contains("emulated:9"), none.getMessage());
  }

  private static void requireUnavailable(String... parts) {
    EmulatedCudaProvider provider = new EmulatedCudaProvider();
    Availability.Unavailable no =
        assertInstanceOf(Availability.Unavailable.class, provider.availability());
    BackendUnavailableException thrown =
        assertThrows(BackendUnavailableException.class, () -> provider.open(0).close());
    for (String part : parts) {
      assertTrue(no.reason().contains(part), part + " not in: " + no.reason());
      String message = String.valueOf(thrown.getMessage());
      assertTrue(message.contains(part), part + " not in: " + message);
    }
  }

  @Test
  void aDriverThatIsTooOld() {
    EmulatorControl.driverVersion(11080);
    requireUnavailable("too old", "CUDA 11.8", "12.0", "driver 525");
  }

  @Test
  void aDeviceThatNoKernelIsBuiltFor() {
    EmulatorControl.capability(7, 5);
    requireUnavailable("compute capability 7.5", "8.0 (Ampere)");
  }

  /** What {@code jtrelu devices} shows of one that can be used. */
  @Test
  void aDeviceIsDescribed() {
    EmulatorControl.driverVersion(12040);
    Availability.Available yes =
        assertInstanceOf(Availability.Available.class, new EmulatedCudaProvider().availability());
    for (String part : new String[] {"CUDA 12.4", "no GPU", "sm_80, sm_90, sm_100, sm_120"}) {
      assertTrue(yes.version().contains(part), part + " not in: " + yes.version());
    }
    String device = yes.devices().getFirst();
    for (String part : new String[] {"emulated:0 ", "no GPU", "capability 8.0", "4.0 GiB"}) {
      assertTrue(device.contains(part), part + " not in: " + device);
    }
  }

  @Test
  void noOperandIsNull() {
    try (Stream stream = backend.newStream();
        Tensor x = allocate(4000);
        Rectify rectify = backend.rectify(1000, DataType.F32, Rectifier.tailored(0.5))) {
      OperandException refused =
          assertThrows(OperandException.class, () -> rectify.forward(stream, x, null));
      assertTrue(refused.getMessage().contains("dst is null"), refused.getMessage());
      refused = assertThrows(OperandException.class, () -> backend.copy(stream, null, x));
      assertTrue(refused.getMessage().contains("src is null"), refused.getMessage());
      refused = assertThrows(OperandException.class, () -> backend.fill(stream, null, 1));
      assertTrue(refused.getMessage().contains("dst is null"), refused.getMessage());
      IllegalArgumentException stranger =
          assertThrows(IllegalArgumentException.class, () -> rectify.forward(null, x, x));
      assertTrue(stranger.getMessage().contains("its own streams"), stranger.getMessage());
    }
  }

  /** Events and recordings stay with their backend. */
  @Test
  void eventsAndRecordingsOfOthersAreRefused() {
    try (Backend other = EmulatedSubject.openPlain();
        Stream own = backend.newStream();
        Stream foreign = other.newStream();
        Tensor x = allocate(4000);
        Event event = backend.newEvent();
        Recording recording = backend.record(own, () -> backend.fill(own, x, 1))) {
      assertThrows(IllegalArgumentException.class, () -> event.record(foreign));
      assertThrows(IllegalArgumentException.class, () -> event.await(foreign));
      assertThrows(IllegalArgumentException.class, () -> recording.replay(foreign));
      assertThrows(IllegalArgumentException.class, () -> backend.record(foreign, () -> {}));
      event.synchronize(); // never recorded: nothing to wait for
      recording.replay(own);
      event.record(own);
      event.await(own);
      event.synchronize();
    }
  }

  /** Pinned memory counts as host memory, is zero at first, and is refused where there is none. */
  @Test
  void pinnedMemory() {
    EmulatorControl.failAllocation(1);
    OutOfMemoryException full =
        assertThrows(
            OutOfMemoryException.class,
            () ->
                backend.allocateOnHost(Shape.of(4 << 20), DataType.F32, Layout.ROW_MAJOR).close());
    assertTrue(full.getMessage().contains("ulimit -l"), full.getMessage());
    try (Stream stream = backend.newStream();
        Tensor pinned = backend.allocateOnHost(Shape.of(1000), DataType.F32, Layout.ROW_MAJOR);
        Tensor x = allocate(4000)) {
      assertArrayEquals(new float[1000], pinned.toFloatArray());
      backend.fill(stream, x, 3);
      backend.copy(stream, x, pinned);
      stream.synchronize();
      assertEquals(3, pinned.get(999));
      pinned.put(999, 4);
      backend.copy(stream, pinned, x);
      stream.synchronize();
      pinned.put(999, 5);
      backend.copy(stream, x, pinned);
      stream.synchronize();
      assertEquals(4, pinned.get(999));
    }
  }

  /** The emulated driver never passes for a GPU. */
  @Test
  void theProcessHasNoRealGpu() {
    Availability cuda = new CudaProvider().availability();
    Availability.Unavailable no = assertInstanceOf(Availability.Unavailable.class, cuda);
    assertTrue(!no.reason().isEmpty());
    assertThrows(BackendUnavailableException.class, () -> new CudaProvider().open(0).close());
    Availability emulated = new EmulatedCudaProvider().availability();
    Availability.Available yes = assertInstanceOf(Availability.Available.class, emulated);
    assertTrue(yes.version().contains("no GPU"), yes.version());
  }

  /** Memory that is freed while work on it is under way is not handed out before it is done. */
  @Test
  void freedMemoryIsNotReusedTooEarly() {
    float[] values = new float[1000];
    java.util.Arrays.fill(values, 7);
    try (Stream stream = backend.newStream();
        Tensor host = Tensor.allocate(Shape.of(1000), DataType.F32, Layout.ROW_MAJOR);
        Tensor result = Tensor.allocate(Shape.of(1000), DataType.F32, Layout.ROW_MAJOR);
        Tensor copy = allocate(4000)) {
      host.set(values);
      for (int i = 0; i < 20; i++) {
        Tensor temporary = allocate(4000);
        backend.copy(stream, host, temporary);
        backend.copy(stream, temporary, copy);
        temporary.close();
        try (Tensor next = allocate(4000)) { // zeroed, in the same place
          backend.copy(stream, copy, result);
          stream.synchronize();
          assertArrayEquals(values, result.toFloatArray());
          backend.copy(stream, next, result);
          stream.synchronize();
          assertArrayEquals(new float[1000], result.toFloatArray());
        }
      }
    }
  }

  /** Uploads larger than the staging buffers, one after the other without waiting. */
  @Test
  void longUploads() {
    int length = 1_500_000;
    try (Stream stream = backend.newStream();
        Tensor host = Tensor.allocate(Shape.of(length), DataType.F32, Layout.ROW_MAJOR);
        Tensor result = Tensor.allocate(Shape.of(length), DataType.F32, Layout.ROW_MAJOR);
        Tensor x = allocate(4L * length);
        Tensor y = allocate(4L * length)) {
      float[] values = new float[length];
      for (int i = 0; i < length; i++) {
        values[i] = i;
      }
      host.set(values);
      backend.copy(stream, host, x);
      backend.copy(stream, host, y);
      backend.copy(stream, x, result);
      stream.synchronize();
      assertArrayEquals(values, result.toFloatArray());
      backend.copy(stream, y, result);
      stream.synchronize();
      assertArrayEquals(values, result.toFloatArray());
    }
  }
}
